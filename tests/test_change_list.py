"""The old and the new text of what will be applied: in the panel page by page, and in the form that applies it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.findings_fixtures import made_up
from tests.panel_fixtures import HOSTILE, App, element_of, names_in
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")


def rows_of(table: str) -> list[list[str]]:
    """The cells of a Markdown table without its head."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def open_apply(dataset: Any) -> App:
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="apply")
    return app


def form_of(dataset: Any, **params: Any) -> dict[str, Any]:
    """The fields of the form that applies the decisions."""
    from fiftyone.operators.executor import ExecutionContext

    request = {"dataset_name": dataset.name, "view": [], "params": params}
    ctx = ExecutionContext(request, operator_uri="@multimem/audit/apply_decisions")
    drawn = foo.get_operator("@multimem/audit/apply_decisions").resolve_input(ctx).to_json()
    return dict(json.loads(json.dumps(drawn, default=str))["type"]["properties"])


def test_old_and_new_are_shown_before_they_are_applied(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8, caption=lambda row: HOSTILE if row == 7 else f"a red car number {row}")
    written(dataset, (4, 1, 7))
    ids = dataset.values("id")
    fio.decide(dataset, ids[1], "relabel", text="a blue car number 1")
    fio.decide(dataset, ids[2], "remove")
    fio.decide(dataset, ids[7], "relabel", text="**bold** | <b>x</b>")
    app = open_apply(dataset)
    shown = dict(rows_of(element_of(app.drawn, "changes_table")["default"]))
    assert shown[f"`{ids[1]}` a red car number 1"] == "a ~~red~~ **blue** car number 1"
    assert shown[f"`{ids[2]}` a red car number 2"] == "*hidden as removed*"
    now, after = next((now, after) for now, after in shown.items() if ids[7] in now)
    assert r"\<script\>" in now
    assert after == r"\*\*bold\*\* \| \<b\>x\</b\>"
    assert form_of(dataset)["changes_0"]["default"] == element_of(app.drawn, "changes_table")["default"]
    app.send("on_show_page")
    assert all(name in json.dumps(app.of("set_view")) for name in (ids[1], ids[2], ids[7]))
    assert ids[3] not in json.dumps(app.of("set_view"))


def test_texts_of_lists_and_what_is_restored(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8, captions=lambda row: [f"first {row}", f"second {row}", f"third {row}"])
    fio.write_result(dataset, made_up(dataset.values("id")), config.AuditConfig(text="captions"))
    ids = dataset.values("id")
    fio.decide(dataset, [(ids[1], 0)], "remove")
    fio.decide(dataset, [(ids[1], 2)], "relabel", text="third anew")
    fio.decide(dataset, [(ids[2], caption) for caption in range(3)], "remove")
    table = rows_of(element_of(open_apply(dataset).drawn, "changes_table")["default"])
    assert table == [
        [f"`{ids[1]}` first 1", "*removed from the list*"],
        [f"`{ids[1]}` third 1", "third ~~1~~ **anew**"],
        [f"`{ids[2]}` first 2", "*hidden as removed*"],
    ]
    fio.apply(dataset)
    fio.decide(dataset, [(ids[2], 0)], "keep")
    assert rows_of(element_of(open_apply(dataset).drawn, "changes_table")["default"])[0][1] == "*restored*"


def test_many_changes_are_shown_ten_a_page(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(24)
    written(dataset, tuple(range(24)))
    ids = dataset.values("id")
    fio.decide(dataset, ids[:23], "remove")
    app = open_apply(dataset)
    seen = []
    for label, buttons in (
        ("1 to 10", {"later_page"}),
        ("11 to 20", {"earlier_page", "later_page"}),
        ("21 to 23", {"earlier_page"}),
    ):
        assert element_of(app.drawn, "page")["default"] == f"**Changes {label} of 23**"
        assert {"earlier_page", "later_page"} & names_in(app.drawn) == buttons
        seen += [row[0].split("`")[1] for row in rows_of(element_of(app.drawn, "changes_table")["default"])]
        if "later_page" in buttons:
            app.send("on_page", page=app.state.get("page", 0) + 1)
    assert sorted(seen) == sorted(ids[:23])
    app.send("on_page", page=99)  # the last one
    assert element_of(app.drawn, "page")["default"] == "**Changes 21 to 23 of 23**"
    for wrong in (-1, 1.5, "x", None):
        app.send("on_page", page=wrong)
        assert "page" in names_in(app.drawn)
    form = form_of(dataset, page=3)
    assert len(rows_of(form["changes_2"]["default"])) == 3
    assert form["page"]["view"]["description"] == "Changes 21 to 23 of 23"


def test_what_is_hidden_has_its_view_its_dataset_and_the_way_back(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    written(dataset, (4, 1))
    ids = dataset.values("id")
    app = open_apply(dataset)
    assert not {"show_clean", "clean", "delete_removed"} & names_in(app.drawn)
    app.send("on_show_clean")
    assert app.of("notify")[0]["variant"] == "error"
    fio.decide(dataset, ids[:2], "remove")
    fio.apply(dataset)
    app.send("on_form_done")
    assert {"show_clean", "clean", "delete_removed", "undo_changes"} <= names_in(app.drawn)
    assert "keeps a full copy of each in the journal of changes; *Undo* restores them" in json.dumps(app.drawn)
    app.send("on_show_clean")
    assert app.of("set_view")[0]["name"] == "audit_clean"
    app.send("on_open_form", operator="export_review", values={"what": "dataset"})
    assert app.of("prompt_user_for_operation")[0]["params"]["what"] == "dataset"
    fio.undo(dataset)
    app.send("on_form_done")
    assert not {"show_clean", "delete_removed"} & names_in(app.drawn)
