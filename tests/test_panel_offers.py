"""What the panel offers and counts: only what can be carried out, in samples or in texts, and in a spot check blind."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.scoring.flags import movable_flags
from tests.findings_fixtures import made_up
from tests.panel_fixtures import App, element_of, names_in
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")
findings = importlib.import_module("audit_plugin.fiftyone_io.results.findings")
queues = importlib.import_module("audit_plugin.fiftyone_io.results.queues")
thresholds = importlib.import_module("audit_plugin.fiftyone_io.results.thresholds")


def of_strings(make: Callable[..., Any]) -> Any:
    dataset = make(12)
    written(dataset, (0, 1, 2))
    return dataset


def of_lists(make: Callable[..., Any]) -> Any:
    """Twelve samples of two captions; both captions of the first, and one of the second and third, are misaligned."""
    dataset = make(12, captions=lambda row: [f"one {row}", f"two {row}"])
    written(dataset, (0, 1, 2, 4), "captions")
    return dataset


def of_objects(make: Callable[..., Any]) -> Any:
    dataset = make(6)
    for number, sample in enumerate(dataset):
        box = fo.Detection(label=f"thing {number}", bounding_box=[0.1, 0.1, 0.8, 0.8])
        sample["things"] = fo.Detections(detections=[box])
        sample.save()
    view = dataset.to_patches("things")
    fio.write_result(
        view, made_up(view.values("id"), [float(n) for n in range(6)]), config.AuditConfig(text="things.label")
    )
    return dataset


def without_texts(make: Callable[..., Any]) -> Any:
    dataset = make(8)
    result = made_up(dataset.values("id"))
    columns = {name: values for name, values in result.columns.items() if "misalign" not in name}
    columns["outlier"] = np.arange(8, dtype=np.float32)
    fio.write_result(dataset, replace(result, columns=columns), config.AuditConfig(text="none"))
    return dataset


AUDITS = {"strings": of_strings, "lists": of_lists, "objects": of_objects, "no texts": without_texts}


@pytest.mark.parametrize("kind", AUDITS)
def test_only_thresholds_that_can_be_set_are_offered(make_dataset: Callable[..., Any], kind: str) -> None:
    dataset = AUDITS[kind](make_dataset)
    for flag in movable_flags():
        try:
            thresholds.set_threshold(dataset, "audit", flag, 1.5)
            is_set = True
        except AuditError:
            is_set = False
        assert thresholds.can_move_threshold(dataset, "audit", flag) == is_set, flag
        if is_set:
            thresholds.set_threshold(dataset, "audit", flag, None)
    app = App(dataset)
    drawn = app.send("on_load")
    assert "Cannot show" not in json.dumps(drawn)
    for card in findings.cards(dataset, "audit"):
        if not card.score or card.high <= card.low:
            continue
        moved = (card.low + card.high) / 2 if card.threshold != (card.low + card.high) / 2 else card.low
        drawn = app.slide(card.kind, moved)
        assert (f"set_{card.kind}" in names_in(drawn)) == thresholds.can_move_threshold(dataset, "audit", card.kind)
    drawn = app.send("on_tab", value="queue")
    offered = [choice["value"] for choice in element_of(drawn, "kind")["view"]["choices"]]
    assert ("calibrate" in offered) == (kind == "strings")
    assert ("spot check" in offered) == (kind != "no texts")
    for choice in ("calibrate", "spot check"):
        if choice in offered:
            continue
        drawn = app.send("on_kind", value=choice)
        assert "Cannot show" not in json.dumps(drawn)
        assert element_of(drawn, "kind")["default"] == "all findings"


def test_cards_count_samples_and_the_lines_of_lists_count_captions_and_both_say_so(
    make_dataset: Callable[..., Any],
) -> None:
    dataset = of_lists(make_dataset)
    fio.decide(dataset, dataset.first().id, "keep")
    app = App(dataset)
    drawn = app.send("on_load")
    card = next(card for card in findings.cards(dataset, "audit") if card.kind == "misaligned")
    queue = queues.queue_of(dataset, "audit", ("misaligned",))
    assert (card.count, queue.progress.total) == (3, 4)
    assert "**Misaligned: 3 samples**" in json.dumps(drawn)
    assert element_of(drawn, "counts")["default"] == "Misaligned: 4 captions flagged, 1 decided, 3 left"
    assert "4 captions flagged, 1 decided: review 3 more." in element_of(drawn, "headline")["default"]
    page = importlib.import_module("audit_plugin.report.page")
    reports = importlib.import_module("audit_plugin.fiftyone_io.results.reports")
    report = page.headline(reports.review_report(dataset, "audit"))
    assert "4 captions flagged, 1 decided: review 3 more." in report

    dataset = of_strings(make_dataset)
    drawn = App(dataset).send("on_load")
    assert "**Misaligned: 3**" in json.dumps(drawn)
    assert element_of(drawn, "counts")["default"] == "Misaligned: 3 flagged, 0 decided, 3 left"


@pytest.mark.parametrize("audit", ["strings", "lists"])
def test_a_spot_check_lists_its_own_decisions_and_shows_no_evidence_on_others(
    make_dataset: Callable[..., Any], audit: str
) -> None:
    dataset = AUDITS[audit](make_dataset)
    ids = dataset.values("id")
    foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 6)
    rows = fio.spot_check(dataset, "audit").queue.rows
    if audit == "lists":  # the other caption of a sample that is to be judged
        other = (rows[0][0], 1 - rows[0][1])
    else:
        other = (next(name for name in ids if name not in {name for name, _ in rows}), 0)
    fio.decide(dataset, [other], "remove", "audit", reviewer="ann")
    app = App(dataset)
    app.send("on_load")
    app.state["head"] = {"reviewer": "ann"}
    app.send("on_tab", value="queue")
    app.send("on_kind", value="spot check")
    drawn = app.send("on_history")
    assert "made0" not in names_in(drawn)
    shown = app.row
    app.send("on_open_decision", row=list(other))
    assert "not of the spot check" in app.of("notify")[0]["message"]
    for event in ("on_undo_last", "on_redo_last"):
        app.send(event)
        assert app.of("notify")[0]["message"].endswith("one: remove")
        assert (app.state["kind"], app.row) == ("spot check", shown)
        assert "higher than" not in json.dumps(app.drawn)  # a score
        assert "Reason" not in json.dumps(app.drawn)
    app.press("keep")
    drawn = app.send("on_history") if "made0" not in names_in(app.drawn) else app.drawn
    assert "made0" in names_in(drawn)
    assert "made1" not in names_in(drawn)
    app.send("on_open_decision", row=shown)
    assert (app.state["kind"], app.row) == ("spot check", shown)
    assert "Decided: **keep** by ann" in json.dumps(app.drawn)
    app.press("unsure")
    assert not app.of("notify")
    assert fio.spot_check(dataset, "audit").estimate().reviewed == 1
