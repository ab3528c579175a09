"""Recall across modalities in FiftyOne: fields, run, view, panel, operator and report, on a real database."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.synthetic.personas import PersonaSet, draw_personas
from tests.conftest import caption
from tests.cross_modal_fixtures import made_up
from tests.fiftyone_fixtures import state
from tests.operator_requests import execute, filled_in, form_of
from tests.panel_fixtures import App, names_in
from tests.test_operators import steps_of

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
transfers = importlib.import_module("audit_plugin.fiftyone_io.cross_modal")
reports = importlib.import_module("audit_plugin.fiftyone_io.results.reports")

HOSTILE = "<b>Ann</b>\x07 [y](http://e.example)"


def write(dataset: Any, refused: bool = False, run: str = "transfer") -> None:
    config = AuditConfig(text="caption", label="who", run=run)
    samples = fio.read_samples(dataset, config)
    found = made_up(dataset.values("id"), list(samples.labels), refused)
    transfers.write_cross_modal(dataset, samples, found, config)


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    return make_dataset(8, caption=lambda row: f"number {row}", who=lambda row: HOSTILE if row < 2 else f"p{row // 2}")


# --- fields, run, view -----------------------------------------------------------------------------------------------


def test_fields_view_and_run_come_and_go_without_a_trace(dataset: Any) -> None:
    before = state(dataset)
    write(dataset)
    assert fio.list_cross_modal_runs(dataset) == ["transfer"]
    assert dataset.values("transfer_recall_image_text") == [0, 0, 1, 1, 1, 1, 1, 1]
    assert dataset.values("transfer_recall_text_image")[-1] is None
    assert dataset.values("transfer_stays_in")[:3] == ["image", "image", None]
    about = dataset.get_field("transfer_recall_image_text").description
    assert about == "Share of seeds that named the sample's identity from its text, having learned names from image"
    assert dataset.load_saved_view("transfer_one_sided").values("id") == dataset.values("id")[:2]
    summary, identities = fio.cross_modal_results(dataset, "transfer")
    assert summary["identities"] == 4
    assert identities[0]["identity"] == HOSTILE
    assert "transfer_stays_in" not in fio.string_fields(dataset)  # no caption to offer
    write(dataset)  # a second one takes the place of the first
    assert fio.list_cross_modal_runs(dataset) == ["transfer"]
    fio.delete_cross_modal_run(dataset, "transfer")
    assert state(dataset) == before
    write(dataset)
    dataset.delete_run("transfer")  # FiftyOne's own way
    assert state(dataset) == before


def test_nothing_of_the_users_is_overwritten(dataset: Any) -> None:
    dataset.add_sample_field("transfer_stays_in", fo.StringField)
    with pytest.raises(AuditError, match="'transfer_stays_in'.*would be overwritten"):
        fio.measure_cross_modal(dataset, AuditConfig(text="caption", label="who"))
    dataset.save_view("second_one_sided", dataset.limit(1))
    with pytest.raises(AuditError, match="'second_one_sided'"):
        transfers.check_free(dataset, "second")
    with pytest.raises(AuditError, match="not a valid name"):
        fio.measure_cross_modal(dataset, AuditConfig(text="caption", label="who"), run="a b")
    with pytest.raises(AuditError, match="no cross-modal measurement 'x'"):
        fio.cross_modal_results(dataset, "x")
    with pytest.raises(AuditError, match="no cross-modal measurement 'x'"):
        fio.delete_cross_modal_run(dataset, "x")


def test_one_that_was_interrupted_is_not_shown(dataset: Any) -> None:
    from fiftyone.core.runs import Run

    write(dataset)
    write(dataset, run="second")
    assert transfers.newest_cross_modal_run(dataset) == "second"
    record = dataset.get_run_info("second").config
    record.status = "writing"
    Run.update_run_config(dataset, "second", record)
    assert transfers.newest_cross_modal_run(dataset) == "transfer"
    assert "second" in fio.list_cross_modal_runs(dataset)  # to be deleted


def test_a_measurement_without_identities_says_what_to_name(dataset: Any) -> None:
    with pytest.raises(AuditError, match="no row names an identity"):
        fio.measure_cross_modal(dataset, AuditConfig(text="caption", encoder="offline"))


@pytest.mark.parametrize("kind", ["word", "number", "label"])
def test_the_samples_of_an_identity(make_dataset: Callable[..., Any], kind: str) -> None:
    value = {"word": str, "number": int, "label": lambda row: fo.Classification(label=str(row))}[kind]
    dataset = make_dataset(8, caption=str, who=lambda row: value(row // 2))
    write(dataset)
    view = fio.identities_view(dataset, "transfer", ["0", "2"])
    assert view.values("id") == [dataset.values("id")[row] for row in (0, 1, 4, 5)]


def test_texts_of_a_list_are_taken_together(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4, caption=lambda row: [f"a {row}", f"b {row}"], who=lambda row: f"p{row % 2}")
    config = AuditConfig(text="caption", label="who", run="transfer")
    samples = fio.read_samples(dataset, config)
    found = made_up(list(samples.ids), list(samples.labels))
    found.columns["recall_image_text"][:] = [1, 0, 1, 1, 0, 0, np.nan, 1]
    transfers.write_cross_modal(dataset, samples, found, config)
    assert dataset.values("transfer_recall_image_text") == [0.5, 1, 0, 1]


# --- the App's parts -------------------------------------------------------------------------------------------------


def test_the_form_finds_the_identity_and_names_what_is_lacking(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(6, caption=caption, person=str, split=str)
    form = form_of("measure_cross_modal", dataset)
    assert form["label"]["default"] == "person"
    assert "split" in form["split"]["type"]["values"]
    assert form["text"]["default"] == "caption"
    assert "6 samples" in form["cost"]["view"]["label"]
    assert "run" not in form
    assert form_of("measure_cross_modal", dataset, advanced=True)["run"]["default"] == "transfer"
    bare = make_dataset(6, caption=str)
    label = form_of("measure_cross_modal", bare)["label"]
    assert label["default"] is None
    assert label["required"]


def test_the_panel_offers_it_then_shows_matrix_curves_and_people(dataset: Any) -> None:
    app = App(dataset)
    assert "measure_cross_modal" in names_in(app.send("on_load"))  # also without an audit
    app.send("on_open_form", operator="measure_cross_modal", values={"run": "transfer"})
    asked = app.of("prompt_user_for_operation")[0]
    assert asked["operator_uri"] == "@multimem/audit/measure_cross_modal"
    assert asked["params"]["run"] == "transfer"
    write(dataset)
    drawn = app.send("on_load")
    assert {"matrix", "curves", "findings", "people", "see0", "see_all"} <= names_in(drawn)
    sent = json.dumps(app.of("patch_panel_data"))
    assert "heatmap" in sent
    assert "NaN" not in sent
    people = drawn["cross_modal"]["type"]["properties"]["people"]
    name = people["type"]["properties"]["identity0"]["type"]["properties"]["name0"]
    assert name["view"]["name"] == "LabelValueView"  # plain text, no markdown
    assert "\x07" not in name["default"]
    app.send("on_people", run="transfer", identities=[HOSTILE])
    assert "who" in json.dumps(app.of("set_view"))
    app.send("on_people", run="transfer", identities=["nobody", 3, {}])
    assert not app.of("set_view")
    app.send("on_saved", view="transfer_one_sided")
    assert "transfer_one_sided" in json.dumps(app.of("set_view"))


def test_a_refusal_shows_its_reason_and_no_people(dataset: Any) -> None:
    write(dataset, refused=True)
    drawn = App(dataset).send("on_load")
    assert "not aligned" in json.dumps(drawn)
    assert not {"people", "see0"} & names_in(drawn)


def test_it_is_deleted_like_an_audit(dataset: Any) -> None:
    write(dataset)
    form = form_of("delete_audit", dataset)
    assert form["run"]["type"]["values"] == ["transfer"]
    execute("delete_audit", filled_in("delete_audit", dataset, {"run": "transfer"}))
    dataset.reload()
    assert fio.list_cross_modal_runs(dataset) == []


# --- the whole, on drawn persons -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("python_avatars")
    folder = tmp_path_factory.mktemp("people") / "set"
    draw_personas(folder, PersonaSet(identities=10, background=70, train=3, test=2, pairs=1, side=96))
    dataset = fio.load_personas("audit-test-people", folder)
    yield dataset
    fo.delete_dataset("audit-test-people")


def test_a_persona_set_becomes_a_dataset(people: Any) -> None:
    assert len(people) == 120
    assert people.count_values("split") == {"train": 30, "test": 20, "background": 70}
    assert len(people.distinct("identity")) == 80
    assert {"head_color", "glasses", "skin", "job", "city"} <= set(people.get_field_schema())
    one = people.match(fo.ViewField("identity") == people.first().identity)
    assert len(one.distinct("job")) == len(one.distinct("skin")) == 1
    assert Path(people.first().filepath).is_file()


def test_the_operator_measures_writes_and_reports(
    people: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path_factory.mktemp("cache")))
    params = {"label": "identity", "split": "split", "text": "caption", "encoder": "offline", "device": "cpu"}
    sent = json.dumps(steps_of("measure_cross_modal", people, **params))
    assert "ProgressView" in sent
    assert "Cross-modal recall measured" in sent
    assert "Recall of the names of 10 identities" in sent
    people.reload()
    asked = people.match(fo.ViewField("transfer_recall_image_image").exists())
    assert set(asked.values("split")) == {"test"}
    assert len(asked) == 20
    assert people.get_run_info("transfer").config.status == "done"
    fio.audit_view(people, AuditConfig(text="caption", encoder="offline", trials=2, epochs=2, device="cpu"))
    content = reports.report_of_dataset(people, "audit")
    assert content.cross_modal["people"][0].keys() >= {"identity", "gap", "stays_in"}
    from audit_plugin.report import report_html

    page = report_html(content, media=False)
    assert "Cross-modal recall</h2>" in page
    assert "Learning curves" in page
