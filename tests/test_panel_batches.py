"""Bulk decisions of the App: by flag, selected, with the same caption or placeholder; counted, shown, undone as one."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.findings_fixtures import made_up
from tests.operator_requests import execute, filled_in, form_for, hidden_of, notices_of, request_of
from tests.panel_fixtures import App, element_of, names_in
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")

SHARED = (0, 3, 7)  # rows with a finding and the same caption, but for case and blanks
PLACEHOLDERS = (2, 4, 5, 6)


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples: rows of `SHARED` have one caption, those of `PLACEHOLDERS` one picture; row 8 has no finding."""
    made = make_dataset(
        10, caption=lambda row: ("A  cat", "a cat", "a CAT ")[SHARED.index(row)] if row in SHARED else f"n {row}"
    )
    samples = made.values("id")
    sample = made[samples[8]]
    sample["caption"] = "a cat"
    sample.save()
    result = made_up(samples, [0.5, 3.0, 0.1, 4.0, 1.0, 2.0, 0.0, 5.0, 0.0, 0.0])
    columns = dict(result.columns)
    columns["is_placeholder"] = np.isin(np.arange(10), PLACEHOLDERS)
    columns["duplicate_group"] = np.array(
        [samples[2] if row in PLACEHOLDERS else "" for row in range(10)], dtype=object
    )
    fio.write_result(made, replace(result, columns=columns), config.AuditConfig(text="caption"))
    return made


def form_with(dataset: Any, /, **params: Any) -> dict[str, Any]:
    more = {"selected": params.pop("selected", [])}
    return form_for("decide_flagged", request_of(dataset, params, **more))


def rows_of(made: Any) -> list[str]:
    return sorted(decision.sample for decision in made)


def test_the_queue_offers_all_rows_with_the_same_fault_and_undoes_them_as_one(dataset: Any) -> None:
    app, ids = App(dataset), dataset.values("id")
    app.send("on_load")
    app.send("on_tab", value="queue")
    assert app.row == [ids[7], 0]
    button = element_of(app.drawn, "similar0")
    assert button["view"]["label"] == "All 3 with the same caption"
    app.send("on_open_form", **button["view"]["params"])
    params = {**app.of("prompt_user_for_operation")[0]["params"], "decision": "remove", "reviewer": "ann"}
    form = form_with(dataset, **params)
    assert form["count"]["view"]["label"].startswith("Remove 3 samples with the same caption.")
    shown = json.dumps(form["preview"])
    assert shown.count("/media?filepath=") == 3
    assert "A cat" in shown
    execute("decide_flagged", filled_in("decide_flagged", dataset, params))
    assert rows_of(fio.decisions(dataset)) == sorted(ids[row] for row in SHARED)
    assert "similar0" not in names_in(app.send("on_open_decision", row=[ids[7], 0]))
    assert len(fio.undo_last(dataset, "ann")) == 3
    drawn = app.send("on_kind", value="placeholder")
    button = element_of(drawn, "similar0")
    assert button["view"]["label"] == "All 4 with the same placeholder"
    params = {**button["view"]["params"]["values"], "run": "audit", "decision": "remove"}
    execute("decide_flagged", filled_in("decide_flagged", dataset, params))
    assert rows_of(fio.decisions(dataset)[6:]) == sorted(ids[row] for row in PLACEHOLDERS)


def test_a_bulk_decision_is_bound_to_the_rows_that_its_form_showed(dataset: Any) -> None:
    ids = dataset.values("id")
    params = {"which": "same caption", "row": [ids[7], 0], "decision": "keep"}
    form = form_with(dataset, **params)
    sample = dataset[ids[3]]
    sample["caption"] = "a dog"  # by now it is another one
    sample.save()
    request = request_of(dataset, {**params, **hidden_of(form)})
    assert "out of date" in notices_of(execute("decide_flagged", request)[1])[0]
    assert fio.decisions(dataset) == []
    execute("decide_flagged", filled_in("decide_flagged", dataset, params))
    assert rows_of(fio.decisions(dataset)) == sorted([ids[0], ids[7]])


def test_the_selected_samples_are_decided_without_those_that_are(dataset: Any) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[1], "keep", reviewer="bob")
    chosen = [ids[row] for row in (1, 5, 8, 9)]
    form = form_with(dataset, selected=chosen, decision="unsure")
    assert form["which"]["default"] == "selected"
    assert "4 samples" in json.dumps(form["which"])
    assert form["count"]["view"]["label"].startswith("Unsure 3 samples of the selection.")
    request = filled_in("decide_flagged", dataset, {"decision": "unsure", "note": "at a glance"}, selected=chosen)
    execute("decide_flagged", request)
    made = fio.decisions(dataset)[1:]
    assert rows_of(made) == sorted(ids[row] for row in (5, 8, 9))
    assert len({decision.batch for decision in made}) == 1
    only = form_with(dataset, selected=[ids[row] for row in (5, 6)], decision="relabel")
    assert only["count"]["view"]["label"].startswith("Relabel 0 samples")  # decided; no suggestion
    typed = form_with(dataset, selected=[ids[row] for row in (2, 6)], decision="relabel", text="a fox")
    assert typed["count"]["view"]["label"].startswith("Relabel 2 samples")
    assert form_with(dataset, decision="relabel", kind="duplicate")["count"]["invalid"]
    typed = form_with(dataset, decision="relabel", kind="duplicate", text="a fox")
    assert typed["count"]["view"]["label"].startswith("Relabel 1 sample")  # the other one is decided
    assert form_with(dataset, decision="keep")["which"]["default"] == "flagged"
    undecided = form_with(dataset, selected=chosen)  # no decision is chosen yet
    assert undecided["count"]["view"]["label"].startswith("0 samples of the selection. Samples that already")
    assert form_with(dataset, kind="misaligned")["count"]["view"]["label"].startswith("2 samples.")
    assert "missing" in json.dumps(form_with(dataset, which="same caption", decision="keep"))
    assert "choose one of" in json.dumps(form_with(dataset, which="all", decision="keep"))


def test_a_decision_for_a_selection_is_bound_to_it(dataset: Any) -> None:
    ids = dataset.values("id")
    request = filled_in("decide", dataset, {"decision": "keep"}, selected=ids[:2])
    assert "out of date" in notices_of(execute("decide", {**request, "selected": ids[:3]})[1])[0]
    assert fio.decisions(dataset) == []
    execute("decide", filled_in("decide", dataset, {"decision": "keep"}, selected=ids[:2]))
    assert rows_of(fio.decisions(dataset)) == sorted(ids[:2])


def test_many_rows_show_their_first_and_last_ones(dataset: Any) -> None:
    form = form_with(dataset, kind="misaligned", threshold=0.0, decision="keep")
    cells = form["preview"]["type"]["properties"]
    assert len(cells) == 6
    assert form["preview"]["view"]["label"] == "Some of them"
    captions = [cell["type"]["properties"]["caption"]["default"] for cell in cells.values()]
    assert captions[0] == "a CAT"
    assert captions[-1] in ("n 6", "a cat", "n 9")


def test_samples_of_one_class_share_no_fault(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    dataset.set_values("kind", [fo.Classification(label="cat") for _ in range(8)])
    written(dataset, (4, 1), text="kind")
    queues = importlib.import_module("audit_plugin.fiftyone_io.results.queues")
    findings = fio.queue_of(dataset, "audit")
    assert len(findings.left) > 1
    assert queues.similar_rows(dataset, "audit", findings.left[0], findings) == {}
