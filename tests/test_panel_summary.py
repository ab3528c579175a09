"""The summary at the top of the panel, on a real database: its numbers, its buttons, and what the grid shows."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.findings_fixtures import made_up
from tests.panel_fixtures import App, element_of, names_in

pytestmark = pytest.mark.fiftyone
AT_LEAST = "At least 2 wrong of 7, by the model. A spot check measures how many."
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")
findings = importlib.import_module("audit_plugin.fiftyone_io.results.findings")
queues = importlib.import_module("audit_plugin.fiftyone_io.results.queues")
thresholds = importlib.import_module("audit_plugin.fiftyone_io.results.thresholds")


def audited(make_dataset: Callable[..., Any], **summary: Any) -> Any:
    """Eight audited samples: rows 7, 3 and 1 are misaligned, rows 0 and 1 duplicates."""
    dataset = make_dataset(8)
    result = made_up(dataset.values("id"))
    fio.write_result(
        dataset, replace(result, summary={**result.summary, **summary}), config.AuditConfig(text="caption")
    )
    return dataset


def headline(app: App) -> str:
    """Its sentences, which are bold lines."""
    lines = str(element_of(app.drawn, "headline")["default"]).split("  \n")
    assert all(line.startswith("**") and line.endswith("**") for line in lines)
    return " ".join(line.strip("*") for line in lines)


def test_the_headline_counts_what_is_wrong_flagged_decided_and_left(make_dataset: Callable[..., Any]) -> None:
    dataset = audited(
        make_dataset, estimated={"in_one_space": False, "judged": 7, "pairs": 3, "pairs_interval": [2, 4]}
    )
    ids, app = dataset.values("id"), App(dataset)
    app.send("on_load")
    assert headline(app) == f"{AT_LEAST} 4 flagged, 0 decided: review 4 more."
    fio.decide(dataset, [ids[7], ids[0]], "keep")
    fio.decide(dataset, ids[1], "skip")
    app.send("on_load")
    assert headline(app) == f"{AT_LEAST} 4 flagged, 2 decided: review 2 more."
    counts = element_of(app.drawn, "counts")["default"].split("  \n")
    assert counts == ["Misaligned: 3 flagged, 1 decided, 2 left", "Duplicate: 2 flagged, 1 decided, 1 left"]
    queue = queues.queue_of(dataset, "audit", ("duplicate",))
    assert (queue.progress.total, queue.progress.done) == (2, 1)  # what the queue counts

    drawn = app.send("on_review")
    assert "queue" in drawn
    assert app.row == [ids[3], 0]  # the worst one is decided
    assert app.state["tab"] == drawn["tabs1"]["default"] == "queue"  # of a new name: the App would keep the former tab
    fio.decide(dataset, [ids[1], ids[3]], "keep")
    app.send("on_tab", value="overview")
    assert headline(app).endswith("4 flagged, all decided.")
    assert "review" not in names_in(app.drawn)
    assert "apply" in app.send("on_finish")


def test_another_threshold_and_a_spot_check_change_the_headline(make_dataset: Callable[..., Any]) -> None:
    dataset = audited(
        make_dataset,
        estimated={"in_one_space": False, "judged": 7, "pairs": 3, "pairs_interval": [2, 4]},
        probe_recall={"random": 0.25},
    )
    app = App(dataset)
    app.send("on_load")
    assert "only 25% of the pairs mismatched at random would be flagged" in json.dumps(app.drawn)
    thresholds.set_threshold(dataset, "audit", "misaligned", 2.0)
    app.send("on_load")
    assert headline(app).endswith("5 flagged, 0 decided: review 5 more.")
    assert "mismatched at random" not in json.dumps(app.drawn)  # of the audit's own flags
    assert "show_worst" not in names_in(app.drawn)
    importlib.import_module("fiftyone.operators").get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 8)
    for name, caption in fio.spot_check(dataset, "audit").queue.rows:
        fio.record_spot_check(dataset, "audit", (name, caption), "keep")
    app.send("on_load")
    assert headline(app).startswith("About 0 wrong of 7 (0 to 0).")


def test_the_worst_are_shown_where_the_flags_miss_most(make_dataset: Callable[..., Any]) -> None:
    dataset = audited(make_dataset, probe_recall={"random": 0.25})
    app, ids = App(dataset), dataset.values("id")
    assert headline_of(app) == "How many pairs are wrong is not known. 4 flagged, 0 decided: review 4 more."
    app.send("on_show_worst")
    assert app.of("set_active_fields")[0]["fields"] == ["caption", "audit_misalignment", "audit_suggestion"]
    assert "audit_misalignment" in json.dumps(app.of("set_view"))
    worst = findings.most_misaligned(dataset, "audit", 2)
    assert worst.values("id") == [ids[7], ids[3]]
    assert len(findings.most_misaligned(dataset, "audit", 30)) == 7  # one was not scored


def headline_of(app: App) -> str:
    app.send("on_load")
    return headline(app)


def test_what_is_shown_of_the_samples_says_why(make_dataset: Callable[..., Any], make_groups: Any) -> None:
    app = App(audited(make_dataset))
    app.send("on_load")
    shown = {}
    for kind in ("misaligned", "duplicate", "memorized"):
        app.send("on_show", kind=kind)
        shown[kind] = app.of("set_active_fields")[0]["fields"]
    assert shown == {
        "misaligned": ["caption", "audit_misalignment", "audit_suggestion"],
        "duplicate": ["caption", "audit_reason", "audit_suggestion"],
        "memorized": ["caption", "audit_multimem", "audit_suggestion"],
    }
    app.slide("misaligned", 2.0)
    assert app.of("set_active_fields")[0]["fields"] == shown["misaligned"]
