"""Samples with several texts: flags and proposals of one text are not those of the others, wherever they are read."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.audit.export import Rules
from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig
from audit_plugin.review import queue, rows_per_text
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST, LISTED, TEXT_FLAGS
from audit_plugin.scoring.flags import FLAGS

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
captions = importlib.import_module("audit_plugin.audit.caption_lists")
cases = importlib.import_module("audit_plugin.fiftyone_io.results.cases")
queues = importlib.import_module("audit_plugin.fiftyone_io.results.queues")

TEXTS = 3  # of each sample; the last one is the worst
FLAGGED = (1, 0)  # sample and text that have the flag
SETTINGS = AuditConfig(text="captions")


def result_of(ids: list[str], kind: str, action: str = "review") -> AuditResult:
    """One row per text: text `FLAGGED` has a flag, and fits its sample better than that sample's other texts."""
    n = len(ids)
    flags = {f"is_{name}": np.zeros(n, dtype=bool) for name in FLAGS}
    row = FLAGGED[0] * TEXTS + FLAGGED[1]
    flags[f"is_{kind}"][row] = True
    texts = {name: np.full(n, "", dtype=object) for name in ("reason", "suggestion", "text_problem")}
    texts["reason"][row], texts["text_problem"][row] = f"it is {kind}", "a piece of it"
    texts["suggestion"][row] = "a better text" if action == "relabel" else ""
    actions = np.full(n, "keep", dtype=object)
    actions[row] = action
    score = np.arange(n, dtype=np.float32) % TEXTS
    columns = {"misalignment": score, "multimem": score / 10, **flags, "action": actions, **texts}
    return AuditResult(tuple(ids), columns, {"samples": n})


def made_list(values: list[Any]) -> Any:
    """A column of one row, which is a list."""
    column = np.empty(1, dtype=object)
    column[0] = values
    return column


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    return make_dataset(4, captions=lambda row: [f"text {at} of {row}" for at in range(TEXTS)])


def write(dataset: Any, kind: str, action: str = "review") -> list[str]:
    """Writes `result_of` the dataset; the ids of its samples."""
    samples = fio.read_samples(dataset, SETTINGS)
    fio.write_result(dataset, result_of(list(samples.ids), kind, action), SETTINGS, None, fio.caption_numbers(samples))
    return list(dataset.values("id"))


def test_every_flag_is_one_of_texts_or_of_media() -> None:
    of_media = {"outlier", "duplicate", "likely_copy", "leak", "placeholder", "image_problem", "box_problem"}
    assert set(TEXT_FLAGS) | of_media == set(FLAGS), "say of a new flag whether it is one of a text"


@pytest.mark.parametrize("kind", TEXT_FLAGS)
def test_an_export_drops_the_text_that_has_the_flag_and_no_other(dataset: Any, kind: str, tmp_path: Path) -> None:
    ids = write(dataset, kind)
    fio.export_audited(dataset, "audit", tmp_path / "out.jsonl", rules=Rules(drop=(kind,)))
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    left = {(row["id"], text) for row in map(json.loads, lines) for text in row["text"]}
    every = {(name, f"text {at} of {row}") for row, name in enumerate(ids) for at in range(TEXTS)}
    assert left == every - {(ids[FLAGGED[0]], f"text {FLAGGED[1]} of {FLAGGED[0]}")}


@pytest.mark.parametrize("kind", TEXT_FLAGS)
def test_the_queue_asks_about_the_text_that_has_the_flag(dataset: Any, kind: str) -> None:
    name = write(dataset, kind)[FLAGGED[0]]
    for chosen in ((kind,), ()):
        assert queues.queue_of(dataset, "audit", chosen).rows == ((name, FLAGGED[1]),)
    listed = queues.list_rows(dataset, "audit", [(name, FLAGGED[1])])[0]
    assert (listed.action, listed.reason, listed.flags) == ("review", f"it is {kind}", (kind,))
    assert cases.case_of(dataset, "audit", (name, FLAGGED[1])).flags == (kind,)
    assert cases.case_of(dataset, "audit", (name, FLAGGED[1] + 1)).flags == ()


def test_a_flag_of_the_media_is_asked_about_once(dataset: Any) -> None:
    samples = fio.read_samples(dataset, SETTINGS)
    result = result_of(list(samples.ids), "image_problem")
    result.columns["is_image_problem"][TEXTS : 2 * TEXTS] = True  # as for each row with this image
    result.columns["action"][TEXTS : 2 * TEXTS] = "review"
    fio.write_result(dataset, result, SETTINGS, None, fio.caption_numbers(samples))
    assert queues.queue_of(dataset, "audit").rows == ((dataset.values("id")[1], TEXTS - 1),)


def test_what_is_suggested_for_a_text_is_not_proposed_for_its_sample(dataset: Any) -> None:
    name = write(dataset, "text_problem", "relabel")[FLAGGED[0]]
    sample = dataset[name]
    assert (sample.audit_action, sample.audit_suggestion) == ("review", None)
    assert sample.audit_reason == "another of its texts: it is text_problem"
    listed = queues.list_rows(dataset, "audit", [(name, FLAGGED[1])])[0]
    assert (listed.action, listed.suggestion) == ("relabel", "a better text")
    scores = cases.case_of(dataset, "audit", (name, FLAGGED[1])).scores
    assert (scores["misalignment"][0], scores["multimem"][0]) == (0, 0), "its own, not those of the worst text"
    case = cases.case_of(dataset, "audit", (name, FLAGGED[1]))
    assert case.texts["suggestion"] == "a better text"


def test_every_listed_column_is_that_of_the_text() -> None:
    """Against the rows of the texts themselves: whatever row a queue has, its values are those of its text."""
    rng = np.random.default_rng(0)
    ids = [name for name in "abcdef" for _ in range(TEXTS)]
    result = result_of(ids, "vague")
    for kind in TEXT_FLAGS:
        result.columns[f"is_{kind}"][:] = rng.random(len(ids)) < 0.3
    result.columns["misalignment"][:] = rng.random(len(ids))
    of_samples = captions.per_sample(result, list(range(TEXTS)) * 6)
    table = {"id": np.array(of_samples.ids, dtype=object), **of_samples.columns}
    rows, columns = rows_per_text(table)
    flagged = np.logical_or.reduce([result.columns[f"is_{kind}"] for kind in TEXT_FLAGS])
    wanted = {(name, at % TEXTS) for at, name in enumerate(ids) if flagged[at]}
    assert wanted <= set(rows)
    assert len(rows) == len(set(rows))
    for row, (name, caption) in enumerate(rows):
        at = ids.index(name) + caption
        for column in (column for column in LISTED if column in result.columns):
            assert columns[column][row] == result.columns[column][at], column
    assert {rows[row] for row in queue(columns)} == wanted


def test_results_without_lists_of_a_column_keep_the_sample_s_values() -> None:
    """As an audit of an earlier version wrote them: misalignment is a list, the flags of text checks are not."""
    table: dict[str, Any] = {"id": np.array(["a"], dtype=object), CAPTION_INDEX: np.array([1])}
    table |= {"misalignment": np.array([2.0]), f"misalignment{LIST}": made_list([1.0, 2.0])}
    table |= {"is_personal": np.array([True]), "action": np.array(["review"], dtype=object)}
    rows, columns = rows_per_text(table)
    assert (rows, columns["is_personal"].tolist(), columns["misalignment"].tolist()) == ([("a", 1)], [True], [2.0])


def test_a_text_is_not_removed_where_its_sample_stays_in_queue_and_case_alike(dataset: Any) -> None:
    name = write(dataset, "conflict", "remove")[FLAGGED[0]]
    row = (name, FLAGGED[1])
    assert queues.list_rows(dataset, "audit", [row])[0].action == "review"
    assert cases.case_of(dataset, "audit", row).texts["action"] == "review"
    assert dataset[name].audit_action == "review"


def test_a_sample_that_is_to_be_removed_goes_with_all_its_texts(dataset: Any) -> None:
    samples = fio.read_samples(dataset, SETTINGS)
    result = result_of(list(samples.ids), "duplicate")
    of_sample = slice(TEXTS, 2 * TEXTS)
    result.columns["is_duplicate"][of_sample], result.columns["action"][of_sample] = True, "remove"
    fio.write_result(dataset, result, SETTINGS, None, fio.caption_numbers(samples))
    name = dataset.values("id")[1]
    rows = fio.batch_rows(dataset, "audit", "duplicate", "remove")
    assert sorted(rows) == [(name, at) for at in range(TEXTS)]
    fio.decide(dataset, rows, "remove")
    fio.apply(dataset)
    assert dataset.match_tags(fio.REMOVED).values("id") == [name]
    assert dataset[name].captions == [f"text {at} of 1" for at in range(TEXTS)]
