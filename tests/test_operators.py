"""The operators: registered, form made from the config, run from Python, queued."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from tests.conftest import caption
from tests.operator_requests import PLUGIN, execute, filled_in, form_of, module_of, operator

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"encoder": "offline", "trials": 4, "epochs": 2, "device": "cpu"}


def steps_of(name: str, view: Any, **params: Any) -> list[dict[str, Any]]:
    """What the App is sent while it runs the operator, with the form filled in."""
    return execute(name, filled_in(name, view, params))[1]


def test_the_plugin_loads_and_registers_what_its_yml_names() -> None:
    yaml = pytest.importorskip("yaml")
    registry = foo.OperatorRegistry()
    assert registry.list_errors() == []
    named = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
    operators = [op for op in registry.list_operators() if op.plugin_name == PLUGIN]
    assert sorted(op.name for op in operators) == sorted(named["operators"] + named.get("panels", []))
    risks = {op.name: op.config.risk_level.value for op in operators}
    assert (risks["run_audit"], risks["delete_audit"], risks["removal_study"]) == ("medium", "high", "low")
    panels = named["panels"]  # FiftyOne gives a panel no level of its own
    assert "dangerous" not in {risk for name, risk in risks.items() if name not in panels}
    unlisted = {op.name for op in operators if op.config.unlisted and op.name not in panels}
    assert unlisted == {"removal_curve", "measure_transfer", "review_tokens", "stop_run"}, (
        "former names, and what buttons call"
    )
    assert all(op.config.icon and (op.config.description or op.name in panels) for op in operators)


def test_the_form_has_defaults_and_folds_advanced_settings(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(6, note=str, caption=caption)
    form = form_of("run_audit", dataset)
    assert form["text"]["default"] == "caption"
    assert form["text"]["type"]["values"] == ["note", "caption", "none"]
    assert form["run"]["default"] == "audit"
    assert (form["trials"]["type"]["min"], form["trials"]["type"]["max"]) == (0, 1024)
    assert "view_target" in form
    assert "6 samples" in form["cost"]["view"]["label"]
    assert not form["cost"]["invalid"]
    shown = {f.name for f in fields(AuditConfig) if not f.metadata["advanced"]}
    media = {"image", "audio", "video"}
    assert shown - media <= set(form)
    assert not {"epochs", "seed", "group", *media} & set(form)
    unfolded = form_of("run_audit", dataset, advanced=True)
    conditional = {"tower", "checkpoint_f", "checkpoint_g", "role"}
    assert {f.name for f in fields(AuditConfig)} - conditional <= set(unfolded)
    assert not conditional & set(unfolded)
    assert unfolded["image"]["default"] == "filepath"
    assert unfolded["audio"]["type"]["values"] == ["note", "caption"]


@pytest.mark.parametrize(
    ("choices", "more", "less"),
    [
        ({"train": "towers"}, {"tower", "folds"}, {"checkpoint_f", "role"}),
        ({"train": "checkpoints"}, {"checkpoint_f", "checkpoint_g", "role"}, {"tower", "folds"}),
        ({"protocol": "split"}, {"role"}, {"folds", "tower"}),
    ],
)
def test_the_form_has_only_settings_that_apply(
    make_dataset: Callable[..., Any], choices: dict[str, str], more: set[str], less: set[str]
) -> None:
    form = set(form_of("run_audit", make_dataset(3), advanced=True, **choices))
    assert more <= form
    assert not less & form


def test_the_form_of_a_grouped_dataset_offers_its_slices(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(3, default="sound")
    form = form_of("run_audit", dataset)
    assert form["image"]["type"]["values"] == ["slice:picture", "slice:sound", "caption"]
    assert form["audio"]["type"]["values"] == ["slice:clip", "slice:sound", "caption"]
    assert [form[name]["default"] for name in ("image", "video", "audio")] == ["slice:picture", "slice:clip", None]
    assert "3 samples" in form["cost"]["view"]["label"]
    assert "18" not in form["cost"]["view"]["label"]


def with_objects(dataset: Any, per_image: int = 2) -> Any:
    """Adds labeled boxes to every sample, side by side."""
    boxes = [[at / per_image, 0.0, 1 / per_image, 1.0] for at in range(per_image)]

    def detections(row: int) -> Any:
        labels = [fo.Detection(label=f"thing_{(row + at) % 3}", bounding_box=box) for at, box in enumerate(boxes)]
        return fo.Detections(detections=labels)

    dataset.set_values("truth", [detections(row) for row in range(len(dataset))])
    return dataset


def test_the_form_offers_lists_labels_and_objects(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(
        4, names=lambda row: [f"a {row}", f"b {row}"], kind=lambda row: fo.Classification(label=f"k{row}")
    )
    form = form_of("run_audit", with_objects(dataset))
    assert form["text"]["type"]["values"] == ["names", "kind", "none"]
    assert "8 samples" in form_of("run_audit", dataset, text="names")["cost"]["view"]["label"]
    assert "4 samples" in form_of("run_audit", dataset, text="kind")["cost"]["view"]["label"]
    patches = form_of("run_audit", dataset.to_patches("truth"), advanced=True)
    assert (patches["text"]["default"], patches["text"]["type"]["values"]) == ("truth", ["truth"])
    assert not patches["cost"]["invalid"], patches["cost"]
    assert "8 samples" in patches["cost"]["view"]["label"]
    assert not {"image", "audio", "video"} & set(patches)
    lists = form_of("run_audit", dataset.to_patches("truth", keep_label_lists=True))
    assert "not single detections" in lists["cost"]["error_message"]


def test_objects_of_the_current_view_are_audited_and_restored(make_dataset: Callable[..., Any]) -> None:
    dataset = with_objects(make_dataset(8))
    before = [sample.to_dict() for sample in dataset]
    steps = steps_of("run_audit", dataset.to_patches("truth")[:14], view_target="CURRENT_VIEW", **QUICK)
    assert [step["operator_uri"].rpartition("/")[2] for step in steps][-3:] == [
        "reload_dataset",
        "notify",
        "show_output",
    ]
    assert "14 samples audited" in steps[-1]["params"]["results"]["found"]
    actions = [action for of_sample in dataset.values("truth.detections.audit_action") for action in of_sample]
    assert (len([a for a in actions if a]), actions[14:]) == (14, [None, None])
    operator("delete_audit")(dataset)
    for former, sample in zip(before, dataset, strict=True):
        current = sample.to_dict()
        assert former.pop("last_modified_at") != current.pop("last_modified_at")
        assert former == current


@pytest.mark.parametrize(
    ("params", "word"),
    [({"trials": 5}, "multiple of 2"), ({"run": "my run"}, "'my run'"), ({"run": "other"}, "'other_outlier'")],
)
def test_the_form_shows_why_it_cannot_run_yet(
    make_dataset: Callable[..., Any], params: dict[str, Any], word: str
) -> None:
    dataset = make_dataset(4, caption=str, other_outlier=str)
    cost = form_of("run_audit", dataset, **params)["cost"]
    assert cost["invalid"]
    assert word in cost["error_message"]


def test_a_run_in_the_app_shows_progress_and_findings(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(30)
    steps = steps_of("run_audit", dataset, text="caption", advanced=True, **QUICK)
    named = [step["operator_uri"].rpartition("/")[2] for step in steps]
    bars = [step["params"]["progress"] for step in steps if step["params"] and "progress" in step["params"]]
    assert bars == sorted(bars)
    assert named[-3:] == ["reload_dataset", "notify", "show_output"]
    page = steps[-1]["params"]["results"]["found"]
    count = len(dataset.match_tags("audit:outlier"))
    assert f"| outlier | {count} | `audit:outlier` |" in page
    assert "30 samples audited" in page
    assert fio.list_audits(dataset) == ["audit"]
    assert "Replaces" in form_of("run_audit", dataset)["cost"]["view"]["description"]


def test_an_impossible_audit_ends_in_one_sentence(make_dataset: Callable[..., Any]) -> None:
    steps = steps_of("run_audit", make_dataset(3), text="captoin")
    assert [step["operator_uri"].rpartition("/")[2] for step in steps] == ["notify", "show_output"]
    assert steps[0]["params"]["variant"] == "error"
    assert "'captoin' does not exist" in steps[0]["params"]["message"]


def test_all_slices_of_a_grouped_dataset_are_audited_and_restored(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(40, without=((4, "sound"), (7, "clip")))
    settings = {**QUICK, "audio": "slice:sound", "image": "slice:picture", "video": "slice:clip", "text": "caption"}
    steps = steps_of("run_audit", dataset, advanced=True, **settings)
    page = steps[-1]["params"]["results"]["found"]
    assert "40 samples audited" in page
    assert "| Memorization comes from | Share |" in page
    assert "Trained: " in page
    bars = [step["params"]["progress"] for step in steps if step["params"] and "progress" in step["params"]]
    assert bars == sorted(bars)
    for name, rows in (("picture", 40), ("sound", 39), ("clip", 39)):
        part = dataset.select_group_slices(name)
        assert part.count("audit_action") == len(part) == rows
    why = dict(zip(range(40), dataset.values("audit_failure"), strict=True))
    assert [row for row, reason in why.items() if reason] == [4, 7]
    operator("delete_audit")(dataset)
    assert not [name for name in dataset.get_field_schema() if name.startswith("audit_")]


def test_a_removal_study_recommends_an_amount_and_writes_nothing(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(110)
    form = form_of("removal_study", dataset)
    assert {"text", "encoder", "trials", "amounts", "seeds", "cost"} <= set(form)
    assert not {"run", "image", "false_positive_rate"} & set(form)
    # most pictures are near-duplicates: not every draw of the training samples leaves groups enough to train on
    steps = steps_of("removal_study", dataset, text="caption", amounts=[4], seeds=2, seed=1, **QUICK)
    page = steps[-1]["params"]["results"]["found"]
    assert "| Ranked by | Samples to remove | Gain in top-5 retrieval accuracy (test) | 95% interval |" in page
    assert "| multimem | " in page
    report = json.loads(Path(page.partition("curves is `")[2].partition("`")[0]).read_text())
    assert report["amounts"] == [0, 4]
    assert set(report["removed"]["multimem"]) <= set(dataset.values("id"))
    stored = fio.removal_report(dataset)
    assert {**stored, "seal": report["seal"]} == report
    lines = module_of("traces").removal_lines(stored)
    assert {line["name"] for line in lines} == {name.replace("_", " ") for name in report["methods"]}
    assert [(line["x"], line["y"][0]) for line in lines] == [([0, 4], 0.0)] * len(lines)
    assert dataset.list_runs() == []
    assert "caption" in dataset.get_field_schema()
    assert len(dataset) == 110
    few = steps_of("removal_curve", dataset.limit(20), text="caption", **QUICK)
    assert "20 usable samples are too few" in few[-2]["params"]["message"]


def test_called_from_python_on_a_view(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(40)
    result = operator("run_audit")(dataset[5:35], run="other", **QUICK)
    assert result.ids == tuple(dataset.values("id")[5:35])
    assert dataset.count("other_action") == 30
    with pytest.raises(AuditError, match="captoin"):
        operator("run_audit")(dataset, text="captoin")
    operator("delete_audit")(dataset, run="other")
    assert fio.list_audits(dataset) == []


def test_delete_form_offers_the_audits_and_deletes(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(30)
    assert form_of("delete_audit", dataset)["none"]["invalid"]
    operator("run_audit")(dataset, **QUICK)
    assert form_of("delete_audit", dataset)["run"]["type"]["values"] == ["audit"]
    execute("delete_audit", filled_in("delete_audit", dataset, {"run": "audit"}))
    assert fio.list_audits(dataset) == []
    assert not [name for name in dataset.get_field_schema() if name.startswith("audit_")]


def test_a_queued_audit_runs_later(make_dataset: Callable[..., Any]) -> None:
    from fiftyone.operators.delegated import DelegatedOperationService

    dataset = make_dataset(36)
    queued = operator("run_audit")(dataset[:30], delegate=True, run="later", **QUICK)
    assert queued.delegated
    assert fio.list_audits(dataset) == []
    service = DelegatedOperationService()
    service.execute_queued_operations(operator=f"{PLUGIN}/run_audit", limit=1)
    document = service.get(queued.result["id"])
    assert document.run_state == "completed", document.result and document.result.error
    assert 0 < document.status.progress <= 1
    dataset.reload()
    assert dataset.count("later_action") == 30
