"""Images without texts: the form offers outliers and duplicates, the audit finds them, and the panel shows them."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.config import NO_TEXT
from tests.operator_requests import execute, filled_in, form_of, operator
from tests.panel_fixtures import App, names_in

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
COLORS = ((200, 30, 30), (30, 160, 60), (40, 60, 200), (240, 240, 240))
QUICK = {"encoder": "offline", "device": "cpu", "false_positive_rate": 0.05, "advanced": True}


@pytest.fixture
def dataset(tmp_path: Path, make_dataset: Callable[..., Any]) -> Any:
    """60 plain images: one of noise, one twice."""
    rng, paths = np.random.default_rng(0), []
    for row in range(60):
        pixels = np.array(COLORS[row % 4]) + rng.normal(0, 12, (64, 64, 3))
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(paths[-1])
    Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(paths[5])
    shutil.copy(paths[3], paths[7])
    made = make_dataset(1, number=int)  # deleted after the test
    made.delete_samples(made.values("id"))
    made.add_samples([fo.Sample(filepath=path) for path in paths])
    return made


def test_the_form_offers_outliers_and_duplicates(dataset: Any, make_dataset: Callable[..., Any]) -> None:
    form = form_of("run_audit", dataset)
    assert form["text"]["default"] == NO_TEXT
    assert form["text"]["view"]["choices"][-1]["label"] == "None: find outliers and duplicates only"
    assert "60 samples" in form["cost"]["view"]["label"]
    assert not form["cost"]["invalid"]
    with_texts = form_of("run_audit", make_dataset(6))
    assert with_texts["text"]["default"] == "caption"
    assert with_texts["text"]["type"]["values"] == ["caption", NO_TEXT]
    assert not form_of("run_audit", make_dataset(6), text=NO_TEXT)["cost"]["invalid"]
    unclear = form_of("run_audit", make_dataset(6, one=lambda row: f"a b {row}", two=lambda row: f"c d {row}"))
    assert unclear["text"].get("default") is None  # texts are there: a person has to choose
    assert unclear["cost"]["invalid"]


def test_outliers_and_duplicates_are_found_and_shown(dataset: Any) -> None:
    ids = dataset.values("id")
    steps = execute("run_audit", filled_in("run_audit", dataset, {**QUICK, "text": NO_TEXT}))[1]
    page = steps[-1]["params"]["results"]["found"]
    assert "60 samples audited" in page
    assert "only image is audited: misalignment and memorization are not scored" in page
    assert ids[5] in dataset.match_tags("audit:outlier").values("id")
    assert {ids[3], ids[7]} <= set(dataset.match_tags("audit:duplicate").values("id"))
    assert dataset.count_values("audit_action")["remove"] == 1
    assert not dataset.match_tags("audit:misaligned")
    app = App(dataset)
    drawn = app.send("on_load")
    text = json.dumps(drawn)
    assert "flagged, 0 decided: review" in text
    assert " wrong " not in json.dumps(drawn["overview"]["type"]["properties"]["summary"])
    for tab in ("plots", "queue", "apply", "overview"):
        assert "failed" not in names_in(app.send("on_tab", value=tab)), tab
        assert not app.of("notify"), (tab, app.of("notify"))
    app.send("on_show", kind="outlier")
    assert app.of("set_active_fields")[0]["fields"] == ["audit_outlier"]
    row = fio.queue_of(dataset, "audit").rows[0]
    fio.decide(dataset, [row], "remove", "audit")
    assert fio.apply(dataset).counts["removed"] == 1
    form = form_of("run_audit", dataset)  # the results are no texts
    assert form["text"]["default"] == NO_TEXT


def test_texts_are_left_out_where_a_person_says_so(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(40)
    result = operator("run_audit")(dataset, text=NO_TEXT, encoder="offline", device="cpu")
    assert list(result.summary["encoder"]) == ["image"]
    with pytest.raises(AuditError, match="name one as text"):
        operator("run_audit")(make_dataset(4, number=int))


def test_the_report_and_the_export_need_no_texts(dataset: Any, tmp_path: Path) -> None:
    operator("run_audit")(dataset[:50], text=NO_TEXT, encoder="offline", device="cpu")
    with pytest.raises(AuditError, match="or audit again"):  # nothing was trained that could score new samples
        fio.scan_new(dataset, "audit")
    operator("export_review")(dataset, "report", str(tmp_path / "report.html"))
    assert "Outlier" in (tmp_path / "report.html").read_text()
    operator("export_review")(dataset, "data", str(tmp_path / "clean.csv"))
    assert (tmp_path / "clean.csv").read_text().startswith("id,image")
