"""What the report says of a review: what is done and left, and the captions that reviewers replaced."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from audit_plugin.report import report_html
from audit_plugin.review.text_changes import shared_words, word_changes
from tests.findings_fixtures import made_up
from tests.panel_fixtures import HOSTILE

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")
reports = importlib.import_module("audit_plugin.fiftyone_io.results.reports")


def audited(dataset: Any, text: str = "caption") -> list[str]:
    """Rows 7, 3 and 1 are misaligned, rows 0 and 1 duplicates; the ids."""
    fio.write_result(dataset, made_up(dataset.values("id")), config.AuditConfig(text=text))
    return list(dataset.values("id"))


def changes_of(content: Any) -> list[tuple[str, str, str, bool]]:
    return [(one.id, one.before, one.after, one.is_applied) for one in content.relabels]


def test_words_that_differ() -> None:
    pieces = [("same", "a"), ("removed", "red"), ("added", "blue"), ("same", "car")]
    assert word_changes("a red car", "a  blue car") == pieces
    assert shared_words("a red car", "a blue car") == pytest.approx(2 / 3)
    assert word_changes("", "new") == [("added", "new")]


def test_done_and_left_are_those_of_the_queue(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    ids = audited(dataset)
    fio.decide(dataset, ids[7], "relabel", text="a new caption", run="audit")
    fio.decide(dataset, ids[0], "remove", run="audit")
    fio.apply(dataset)
    fio.decide(dataset, ids[3], "relabel", text="number three", run="audit")
    content = reports.review_report(dataset, "audit")
    progress = {one.kind: (one.flagged, one.decided, one.applied, one.left) for one in content.progress}
    assert progress[""] == (4, 3, 2, 1)
    assert progress["misaligned"] == (3, 2, 1, 1)
    assert progress["duplicate"] == (2, 1, 1, 1)
    assert content.to_apply == 1
    html = report_html(content, media=False)
    assert "4 flagged, 3 decided: review 1 more." in html
    assert "2 decided findings were applied, 1 change is to apply." in html
    assert "How many pairs are wrong is not known." in html
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr[^>]*>(?=<td>).*?</tr>", html)]
    assert ["Misaligned", "3", "2", "1", "1"] in rows
    assert ["All", "findings", "4", "3", "2", "1"] in rows
    fio.undo(dataset)
    content = reports.review_report(dataset, "audit")
    assert content.progress[0].applied == 0
    assert content.to_apply == 3


def test_captions_are_shown_before_and_after(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8, caption=lambda row: HOSTILE if row == 3 else f"a red car number {row}")
    ids = audited(dataset)
    fio.decide(dataset, ids[7], "relabel", text="a blue car number 7", run="audit")
    fio.apply(dataset)
    fio.decide(dataset, ids[3], "relabel", text=f"{HOSTILE} anew", run="audit")
    fio.decide(dataset, ids[1], "relabel", text="a red car number 1", run="audit")  # it has that
    content = reports.review_report(dataset, "audit")
    assert changes_of(content) == [
        (ids[7], "a red car number 7", "a blue car number 7", True),
        (ids[3], HOSTILE, f"{HOSTILE} anew", False),
    ]
    html = report_html(content, media=False)
    assert "a <del>red</del> <ins>blue</ins> car number 7" in html
    assert "<ins>anew</ins>" in html
    assert "<script>alert" not in html
    assert "New captions" in html
    assert "New captions" not in report_html(reports.report_of_dataset(dataset, "audit"), media=False)


def test_texts_of_lists_and_labels_before_and_after(make_dataset: Callable[..., Any]) -> None:
    lists = make_dataset(8, captions=lambda row: [f"first {row}", f"second {row}"])
    ids = audited(lists, "captions")
    fio.decide(lists, [(ids[3], 1)], "relabel", text="second anew", run="audit")
    fio.decide(lists, [(ids[7], 0)], "remove", run="audit")
    fio.decide(lists, [(ids[7], 1)], "relabel", text="only", run="audit")
    expected = [(ids[3], "second 3", "second anew"), (ids[7], "second 7", "only")]
    assert sorted(changes_of(reports.review_report(lists, "audit"))) == sorted((*one, False) for one in expected)
    fio.apply(lists)
    assert sorted(changes_of(reports.review_report(lists, "audit"))) == sorted((*one, True) for one in expected)

    labels = make_dataset(8, kind=lambda row: fo.Classification(label=f"class {row % 2}"))
    ids = audited(labels, "kind")
    fio.decide(labels, ids[3], "relabel", text="class 0", run="audit")
    assert changes_of(reports.review_report(labels, "audit")) == [(ids[3], "class 1", "class 0", False)]
    fio.apply(labels)
    assert changes_of(reports.review_report(labels, "audit")) == [(ids[3], "class 1", "class 0", True)]
