"""The flags of contents in many rows: placeholders, and boilerplate texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit_plugin.config import AuditConfig
from audit_plugin.scoring import flags as rules
from audit_plugin.scoring.evidence import Evidence
from tests.core_fixtures import planted, unit

# Different media of one text -> shares of draws that may be flagged of one category, and that must be of a
# shuffled set. The mean alone flags 28%, 7%, 0.2%, 0% and 0% of the former; of the latter 57% and 66% to all.
BY_SIZE = {5: (0.03, 0.03), 11: (0.01, 0.06), 20: (0.005, 0.15), 50: (0.0, 0.65), 200: (0.0, 1.0)}
DRAWS = 300


def flagged_as(kind: str, evidence: Evidence) -> np.ndarray:
    """The rule of a flag that looks at no score."""
    return rules.FLAGS[kind].rule({}, evidence, AuditConfig().false_positive_rate)


def test_many_texts_on_one_medium_make_a_placeholder_unless_they_agree() -> None:
    evidence, rows = planted().evidence, planted().rows["placeholder"]
    text = evidence.projections["text"].copy()
    text[rows] = unit(text[rows[0]] + 0.01 * np.random.default_rng(0).standard_normal((len(rows), text.shape[1])))
    agreeing = replace(evidence, projections={**evidence.projections, "text": text})
    assert flagged_as("placeholder", evidence)[rows].all()
    assert not flagged_as("placeholder", agreeing).any()


def test_a_placeholder_stays_one_whatever_another_modality_of_its_rows_holds() -> None:
    evidence, rows = planted(3).evidence, planted(3).rows["placeholder"]
    content = {name: ids.copy() for name, ids in evidence.contents.items()}
    same = np.append(planted(3).rows["clean"][:12], rows[0])  # one sound under one text, and under a placeholder's
    content["audio"][same], content["text"][same] = content["audio"][same[0]], content["text"][same[0]]
    flagged = flagged_as("placeholder", replace(evidence, contents=content))
    assert flagged[rows].all()
    assert flagged.sum() == len(rows)


def test_a_medium_in_ten_rows_is_no_placeholder_yet() -> None:
    evidence, rows = planted().evidence, planted().rows["placeholder"]
    content = evidence.contents["image"].copy()
    content[rows[10:]] = content.max() + 1 + np.arange(len(rows) - 10)
    fewer = replace(evidence, contents={**evidence.contents, "image": content})
    assert not flagged_as("placeholder", fewer).any()


@pytest.mark.parametrize(("likeness", "want"), [(0.0, True), (0.003, True), (0.01, False), (0.3, False)])
def test_one_text_over_media_that_have_nothing_in_common_is_boilerplate(likeness: float, want: bool) -> None:
    evidence, n = planted().evidence, len(planted().evidence)
    rows = planted().rows["clean"][:12]
    content = evidence.contents["text"].copy()
    content[rows] = content[rows[0]]
    images = np.zeros((n, 13), dtype=np.float32)
    images[rows, np.arange(12)], images[rows, 12] = np.sqrt(1 - likeness), np.sqrt(likeness)  # that mean likeness
    views, contents = {**evidence.projections, "image": images}, {**evidence.contents, "text": content}
    flagged = flagged_as("boilerplate", replace(evidence, projections=views, contents=contents))
    assert np.flatnonzero(flagged).tolist() == (sorted(rows.tolist()) if want else [])
    fewer = {**contents, "text": np.where(np.isin(np.arange(n), rows[:2]), n + np.arange(n), content)}  # ten rows
    assert not flagged_as("boilerplate", replace(evidence, projections=views, contents=fewer)).any()


@pytest.mark.parametrize("size", BY_SIZE)
def test_few_media_are_boilerplate_only_where_chance_does_not_explain_it(size: int) -> None:
    """As photographs of long sleeves: mean likeness 0.02, in as many directions as the features of a set fill."""
    rng, common = np.random.default_rng(size), np.sqrt(0.02)

    def share(mean: float) -> float:
        flagged = 0
        for _ in range(DRAWS):
            vectors = rng.normal(size=(size, 150))
            vectors[:, 0] = 0
            vectors *= np.sqrt(1 - mean**2) / np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors[:, 0] = mean
            flagged += rules._have_nothing_in_common(vectors.astype(np.float32), np.arange(size))
        return flagged / DRAWS

    most_of_category, least_of_shuffled = BY_SIZE[size]
    assert share(common) <= most_of_category
    assert share(0.0) >= least_of_shuffled


def test_the_bound_of_the_likeness_is_the_formula_of_the_naive_loops() -> None:
    for shape in ((9, 4), (4, 9)):
        vectors = np.random.default_rng(0).normal(size=shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        likeness = [float(a @ b) for at, a in enumerate(vectors) for b in vectors[at + 1 :]]
        expected = np.mean(likeness) + 1.645 * np.sqrt(np.mean(np.square(likeness)) / len(likeness))
        assert rules.likeness_bound(vectors) == pytest.approx(expected)


def test_one_class_over_media_that_have_nothing_in_common_is_a_class() -> None:
    evidence, n = planted().evidence, len(planted().evidence)
    images = np.eye(n, dtype=np.float32)
    contents = {**evidence.contents, "text": np.arange(n) % 2}
    assert not flagged_as("boilerplate", replace(evidence, projections={"image": images}, contents=contents)).any()


def test_captions_of_one_sample_are_counted_once_towards_a_placeholder() -> None:
    evidence, rows = planted().evidence, planted().rows["placeholder"]
    owners = np.arange(len(evidence))
    owners[rows] = rows[0]
    assert not flagged_as("placeholder", replace(evidence, user_groups=owners)).any()


def test_labels_under_one_medium_are_a_placeholder_and_few_texts_of_a_product_are_not() -> None:
    evidence, rows = planted().evidence, planted().rows["placeholder"]
    text, content = evidence.projections["text"].copy(), evidence.contents["text"].copy()
    for labels, want in ((7, True), (3, False)):
        text[rows] = evidence.projections["text"][rows[np.arange(len(rows)) % labels]]
        content[rows] = evidence.contents["text"][rows[np.arange(len(rows)) % labels]]
        views, contents = {**evidence.projections, "text": text}, {**evidence.contents, "text": content}
        assert flagged_as("placeholder", replace(evidence, projections=views, contents=contents))[rows].all() == want
