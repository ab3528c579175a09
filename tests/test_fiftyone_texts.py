"""Texts that are not one string per sample: lists of captions, and class labels, against a real database."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.prompts import LABEL_TEMPLATES
from tests.conftest import COLORS, caption
from tests.fiftyone_fixtures import result_for, state

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
captions = importlib.import_module("audit_plugin.audit.caption_lists")

QUICK = AuditConfig(encoder="offline", trials=4, epochs=2, device="cpu")


def color(row: int) -> str:
    return f"{COLORS[row % len(COLORS)][0]}_square"


def lists(row: int) -> list[str] | None:
    """Two captions per picture; one picture has none, one a list that is empty, one a third caption, which is wrong."""
    if row in (5, 6):
        return None if row == 5 else []
    return [caption(row), f"{color(row)} again", *(["a shark"] if row == 3 else [])]


# reading


def test_a_list_of_texts_gives_a_row_for_each(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8, captions=lists, shop=lambda row: row % 2)
    samples = fio.read_samples(dataset[3:7], AuditConfig(group="shop"))
    ids = dataset.values("id")
    assert samples.ids == (ids[3],) * 3 + (ids[4],) * 2 + (ids[5], ids[6])
    assert samples.caption == (0, 1, 2, 0, 1, 0, 0)
    assert samples.media["text"] == (*lists(3), *lists(4), None, None)
    assert samples.media["image"][:3] == (dataset.values("filepath")[3],) * 3
    assert samples.groups == ("1", "1", "1", "0", "0", "1", "0")
    assert fio.caption_numbers(samples) == (0, 1, 2, 0, 1, -1, -1)


def test_labels_are_read_by_their_field(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(
        3,
        kind=lambda row: fo.Classification(label=color(row)) if row else None,
        kinds=lambda row: fo.Classifications(classifications=[fo.Classification(label=f"k{i}") for i in range(row)]),
    )
    one, many = (fio.read_samples(dataset, AuditConfig(text=name)) for name in ("kind", "kinds"))
    assert one.media["text"] == (None, "green_square", "blue_square")
    assert one.caption == ()
    assert many.media["text"] == (None, "k0", "k0", "k1")
    assert many.caption == (0, 0, 0, 1)


def test_what_is_chosen_for_a_view_is_said(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(2, words=str, kind=lambda row: fo.Classification(label=f"k{row}"))
    for named, template in (("kind", LABEL_TEMPLATES), ("kind.label", ""), ("words", "")):
        assert fio.resolve_settings(dataset, AuditConfig(text=named)).template == template
    assert fio.resolve_settings(dataset, AuditConfig(text="kind", template="{}")).template == "{}"
    labeled = make_dataset(2, ground_truth=lambda row: fo.Classification(label=f"k{row}"))
    assert fio.resolve_settings(labeled, AuditConfig()).text == "ground_truth"
    assert fio.text_fields(dataset) == ["words", "kind"]  # never `tags`, which are a list of strings too


# results of a sample with several texts


def scored(ids: str, misalignment: list[float], **columns: list[Any]) -> AuditResult:
    n = len(ids)
    filled: dict[str, Any] = {
        "misalignment": np.array(misalignment, dtype=np.float32),
        "is_misaligned": np.zeros(n, dtype=bool),
        "is_outlier": np.zeros(n, dtype=bool),
        "action": np.array(["keep"] * n, dtype=object),
        "reason": np.array([f"r{i}" for i in range(n)], dtype=object),
        "suggestion": np.array([""] * n, dtype=object),
    }
    filled |= {name: np.array(v, dtype=filled[name].dtype) for name, v in columns.items()}
    return AuditResult(tuple(ids), filled, {})


def test_the_worst_text_stands_for_the_sample() -> None:
    result = scored(
        "aabbbc",
        [1, 3, 5, math.nan, 2, math.nan],
        is_misaligned=[0, 1, 1, 0, 0, 0],
        is_outlier=[1, 0, 0, 0, 0, 0],
        action=["review", "relabel", "review", "keep", "keep", "keep"],
        suggestion=["", "x", "", "", "", ""],
    )
    found = captions.per_sample(result, (0, 1, 2, 0, 1, -1))
    assert found.ids == ("a", "b", "c")
    assert found.columns["misalignment"][:2].tolist() == [3, 5]
    assert np.isnan(found.columns["misalignment"][2])
    assert found.columns["caption_index"].tolist() == [1, 2, -1]
    assert found.columns["is_outlier"].tolist() == [True, False, False]
    assert found.columns["action"].tolist() == ["relabel", "review", "keep"]
    assert found.columns["suggestion"].tolist() == ["x", "", ""]
    b = found.columns["misalignment_list"][1]
    assert math.isnan(b[0])
    assert b[1:] == [2, 5]  # in the order of the sample's list, not of the rows
    assert found.columns["action_list"].tolist() == [["review", "relabel"], ["keep", "keep", "review"], []]


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (["keep", "keep"], ("keep", "r1")),
        (["remove", "remove"], ("remove", "r1")),
        (["remove", "fix"], ("remove", "another of its texts: r0")),  # an empty text is none that stays
        # a caption that repeats another is no reason to remove the picture
        (["remove", "keep"], ("review", "another of its texts: r0")),
        (["review", "keep"], ("review", "another of its texts: r0")),
        (["relabel", "keep"], ("review", "another of its texts: r0")),  # its suggestion is not the sample's
        (["relabel", "review"], ("review", "r1")),
    ],
)
def test_the_action_of_a_sample(actions: list[str], said: tuple[str, str]) -> None:
    columns = captions.per_sample(scored("aa", [1, 2], action=actions), (0, 1)).columns
    assert (columns["action"][0], columns["reason"][0]) == said


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(-3, 3) | st.just(math.nan)), min_size=1, max_size=20))
def test_no_value_is_lost_and_none_is_made_up(rows: list[tuple[str, float]]) -> None:
    ids = "".join(name for name, _ in rows)
    numbers = [ids[:i].count(name) for i, name in enumerate(ids)]
    found = captions.per_sample(scored(ids, [value for _, value in rows]), numbers)
    assert sorted(found.ids) == sorted(set(ids))
    for at, name in enumerate(found.ids):
        mine = np.array([value for other, value in rows if other == name], dtype=np.float32)
        assert np.array_equal(found.columns["misalignment_list"][at], mine, equal_nan=True)
        worst, index = found.columns["misalignment"][at], found.columns["caption_index"][at]
        assert np.array_equal(worst, mine[index], equal_nan=True)
        assert np.isnan(mine).all() or worst == np.nanmax(mine)


# writing


def test_parallel_lists_are_written_and_taken_away_again(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8, captions=lists)
    before = state(dataset)
    samples = fio.read_samples(dataset, AuditConfig())
    result = result_for(dataset, misaligned=(1, 8), ids=samples.ids)
    with pytest.raises(ValueError, match="positions of their texts"):
        fio.write_result(dataset, result, AuditConfig())
    for _ in range(2):  # the second run replaces the first
        fio.write_result(dataset, result, AuditConfig(), None, fio.caption_numbers(samples))
    assert dataset.values("audit_misalignment_list")[1:7] == [[2, 3], [4, 5], [6, 7, 8], [9, 10], [], []]
    assert dataset.values("audit_misalignment")[:6] == [1, 3, 5, 8, 10, 11]
    assert dataset.values("audit_caption_index") == [1, 1, 1, 2, 1, None, None, 1]
    assert dataset.values("audit_is_misaligned_list")[3] == [False, False, True]
    assert [tags[1:] for tags in dataset.values("tags")[:4]] == [
        ["audit:misaligned"],
        ["audit:outlier"],
        [],
        ["audit:misaligned"],
    ]
    assert "one value per text" in dataset.get_field("audit_action_list").description
    assert fio.text_fields(dataset) == ["captions"]
    dataset.first().save()  # the lists are valid values of their fields
    one = dataset.first()
    one["audit_misalignment_list"] = [math.nan, 2.0]
    one.save()
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_a_dataset_with_lists_is_audited_and_restored(make_dataset: Callable[..., Any], tmp_path: Path) -> None:
    dataset = make_dataset(40, captions=lists)
    before = state(dataset)
    result = fio.audit_view(dataset, QUICK, None, tmp_path / "run")
    assert len(result) == 40 * 2 - 2 + 1
    flat = [value for values in dataset.values("audit_misalignment_list") for value in values]
    expected = [
        v for v, text in zip(result.columns["misalignment"], result.columns["failure"], strict=True) if not text
    ]
    assert np.allclose(flat, expected, atol=1e-6)
    assert np.allclose(
        [v for v in dataset.values("audit_misalignment") if v is not None],
        [max(values) for values in dataset.values("audit_misalignment_list") if values],
    )
    assert [row for row, why in enumerate(dataset.values("audit_failure")) if why] == [5, 6]
    assert fio.audit_info(dataset, "audit").settings["text"] == "captions"
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_classes_are_audited_through_prompts_and_restored(make_dataset: Callable[..., Any], tmp_path: Path) -> None:
    wrong = {7: "blue_square", 20: "red_square"}
    dataset = make_dataset(60, ground_truth=lambda row: fo.Classification(label=wrong.get(row, color(row))))
    before = state(dataset)
    config = dataclasses.replace(QUICK, trials=8, epochs=8)
    result = fio.audit_view(dataset, config, None, tmp_path / "run")
    scores = result.columns["misalignment"]
    assert set(np.argsort(-scores)[:4].tolist()) >= set(wrong)
    assert fio.audit_info(dataset, "audit").settings["template"] == LABEL_TEMPLATES
    classes = {color(row) for row in range(6)}
    assert set(filter(None, dataset.values("audit_suggestion") if "audit_suggestion" in dataset else [])) <= classes
    assert np.allclose(dataset.values("audit_misalignment"), scores, atol=1e-6)
    assert "texts are longer" not in " ".join(result.summary["notes"])
    again = fio.audit_view(dataset, config, None, tmp_path / "run")  # nothing is computed twice, the run is replaced
    assert np.array_equal(again.columns["misalignment"], scores)
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_a_list_elsewhere_is_refused_with_a_sentence(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(2, captions=lists, sizes=lambda row: [row])
    with pytest.raises(AuditError, match="text field 'sizes' is a ListField, not a string.*captions"):
        fio.read_samples(dataset, AuditConfig(text="sizes"))
    with pytest.raises(AuditError, match="image field 'captions' is a ListField"):
        fio.read_samples(dataset, AuditConfig(image="captions"))
