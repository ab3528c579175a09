"""Samples with several texts: lists that lose some by decisions, and texts in several fields, of different audits."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
cases = importlib.import_module("audit_plugin.fiftyone_io.results.cases")
thresholds = importlib.import_module("audit_plugin.fiftyone_io.results.thresholds")
TEXTS = 3  # of each sample


@pytest.fixture
def lists(make_dataset: Callable[..., Any]) -> Any:
    """Twenty samples with three captions each; the first two captions of the first ten are flagged."""
    dataset = make_dataset(20, captions=lambda row: [f"first {row}", f"second {row}", f"third {row}"])
    audited(dataset)
    return dataset


def audited(dataset: Any) -> None:
    written(dataset, tuple(row for row in range(30) if row % TEXTS < 2), text="captions")


def test_rows_of_a_list_that_lost_a_text_are_not_offered_with_the_findings_of_other_texts(lists: Any) -> None:
    first, second = lists.values("id")[:2]
    fio.decide(lists, [(first, 0)], "remove")
    fio.decide(lists, [(first, 1)], "keep")
    before = fio.queue_of(lists, "audit")
    fio.apply(lists)
    assert lists[first].captions == ["second 0", "third 0"]

    queue = fio.queue_of(lists, "audit")
    assert (queue.progress.total, queue.progress.done) == (before.progress.total, 2)
    assert first not in {name for name, _ in queue.left}
    offered = fio.batch_rows(lists, "audit", "misaligned", "relabel")
    assert {name for name, _ in offered} == set(lists.values("id")[1:10])
    case = cases.case_of(lists, "audit", (first, 0))
    assert (case.texts, case.flags, case.words, case.neighbors) == ({}, (), (), ())
    assert cases.case_of(lists, "audit", (second, 0)).texts["suggestion"] == "better 3"
    fio.decide(lists, offered, "relabel")
    fio.apply(lists)
    assert lists[first].captions == ["second 0", "third 0"]

    fio.undo(lists)
    fio.undo(lists)
    assert lists[first].captions == ["first 0", "second 0", "third 0"]
    assert fio.queue_of(lists, "audit").progress.total == before.progress.total


def test_undecided_rows_of_such_a_list_wait_for_a_new_audit(lists: Any) -> None:
    first, total = lists.values("id")[0], fio.queue_of(lists, "audit").progress.total
    fio.decide(lists, [(first, 0)], "remove")
    fio.apply(lists)
    assert fio.queue_of(lists, "audit").progress.total == total - 1  # its second text
    assert fio.threshold_check(lists, "audit").rows.count((first, 1)) == 0
    rows = len(fio.read_samples(lists, AuditConfig(text="captions")).ids)
    written(lists, tuple(range(2)), text="captions", config=AuditConfig(text="captions"))
    assert rows == 20 * TEXTS - 1
    assert first in {name for name, _ in fio.queue_of(lists, "audit").left}


def test_no_decision_is_made_on_another_text_in_the_place_of_one_that_went(lists: Any) -> None:
    """By selected samples, in bulk, from the lists of memorized rows, or by a new spot check."""
    first, second = lists.values("id")[:2]
    fio.decide(lists, [(first, 0)], "remove")
    fio.apply(lists)
    assert fio.undecided(lists, "audit", [(first, 0), (second, 0)]) == ((second, 0),)
    assert first not in {name for name, _ in fio.memorized_rows(lists, "audit", 100)["highest"]}
    drawn = fio.start_spot_check(lists, "audit", 40).queue.rows
    assert drawn
    assert first not in {name for name, _ in drawn}


def test_verdicts_of_a_spot_check_stay_when_its_removals_are_applied(lists: Any) -> None:
    check = fio.start_spot_check(lists, "audit", 40)
    flagged = [row for row in check.queue.rows if row in set(fio.queue_of(lists, "audit").rows)]
    wrong, left = flagged[0], flagged[1]
    fio.record_spot_check(lists, "audit", wrong, "remove")
    before = fio.spot_check(lists, "audit")
    fio.apply(lists)
    after = fio.spot_check(lists, "audit")
    assert after.plan_verdicts == before.plan_verdicts
    assert str(after.estimate()) == str(before.estimate())  # some are NaN
    assert wrong in after.queue.decided
    assert left in after.queue.left


@pytest.fixture
def two_lists(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples with two lists of texts, each audited."""
    texts = {name: (lambda row, name=name: [f"{name} {at} of {row}" for at in range(2)]) for name in ("short", "long")}
    dataset = make_dataset(10, **texts)
    for name in texts:
        written(dataset, (0, 2, 4), text=name, config=AuditConfig(text=name, run=name))
    return dataset


@pytest.mark.parametrize("other", ["keep", "remove", "relabel"])
def test_a_decision_on_the_same_place_of_another_list_is_refused(two_lists: Any, other: str, tmp_path: Path) -> None:
    name = two_lists.values("id")[0]
    (made,) = fio.decide(two_lists, [(name, 0)], "relabel", run="short", text="new", reviewer="ann")
    text = "longer" if other == "relabel" else ""
    with pytest.raises(AuditError, match=r"on its text 'short' that is not applied yet"):
        fio.decide(two_lists, [(name, 0)], other, run="long", text=text, reviewer="ann")
    assert fio.current_decisions(two_lists).current == {made.key: made}


@pytest.fixture
def two_texts(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples with a caption and a title, each audited."""
    dataset = make_dataset(10, caption=lambda row: f"caption {row}", title=lambda row: f"title {row}")
    written(dataset, (0, 1, 2))
    written(dataset, (0, 1, 2), text="title", config=AuditConfig(text="title", run="titles"))
    return dataset


@pytest.mark.parametrize("reviewer", ["ann", "bob"])
@pytest.mark.parametrize("kind", ["relabel", "remove"])
def test_a_decision_on_another_text_does_not_replace_one_that_is_not_applied(
    two_texts: Any, kind: str, reviewer: str
) -> None:
    name = two_texts.values("id")[0]
    (made,) = fio.decide(two_texts, name, kind, text="new" if kind == "relabel" else "", reviewer="ann")
    for other in ("keep", "unsure", "skip"):
        with pytest.raises(AuditError, match=r"on its text 'caption' that is not applied yet .* apply or undo"):
            fio.decide(two_texts, name, other, run="titles", reviewer=reviewer)
    assert fio.current_decisions(two_texts).current == {made.key: made}
    fio.decide(two_texts, name, "keep", run="audit", reviewer=reviewer)  # on the same text it replaces it
    fio.decide(two_texts, name, "keep", run="titles", reviewer=reviewer)  # which asks for nothing


def test_after_it_was_applied_another_text_may_be_decided_on(two_texts: Any) -> None:
    name = two_texts.values("id")[0]
    fio.decide(two_texts, name, "relabel", text="new", reviewer="ann")
    fio.apply(two_texts)
    fio.decide(two_texts, name, "relabel", run="titles", text="new title", reviewer="ann")
    fio.apply(two_texts)
    assert (two_texts[name].caption, two_texts[name].title) == ("new", "new title")


def test_rows_with_a_score_and_a_failure_are_flagged_by_a_threshold(make_dataset: Callable[..., Any]) -> None:
    """Samples that lack one of three media have both: what a search counts is what its threshold flags."""
    dataset = make_dataset(40)
    written(dataset, tuple(range(20)), failed=(5, 6, 7, 30))
    check = fio.threshold_check(dataset, "audit")
    for threshold in (15.0, 3.0, 0.5):
        thresholds.set_threshold(dataset, "audit", "misaligned", threshold)
        wanted = int((check.scores >= threshold).sum())
        assert dataset.match_tags("audit:misaligned").count() == wanted
