"""A panel as the browser drives it, without one: events, and what is drawn for them."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.findings_fixtures import made_up

fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")
decisions = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions")

URI = "@multimem/audit/audit_panel"
HOSTILE = "<script>alert(1)</script> **x** [y](http://e.example)\x07 \u202e=cmd|' /C calc'!A0"


class App:
    """Keeps the panel's state between events, as the browser does."""

    def __init__(self, dataset: Any, uri: str = URI) -> None:
        self.dataset, self.uri, self.state, self.sent, self.sample = dataset, uri, {}, [], None
        self.drawn: Any = {}

    def send(self, event: str, **params: Any) -> dict[str, Any]:
        """One event, with the token of its button; what the App is told to do is kept, what is drawn comes back."""
        from fiftyone.operators.executor import ExecutionContext, Executor

        request = {
            "dataset_name": self.dataset.name,
            "view": [],
            "current_sample": self.sample,
            "params": {
                **token_of(self.drawn, f"{self.uri}#{event}"),
                **params,
                "panel_id": "p",
                "panel_state": copy.deepcopy(self.state),
                "__method__": event,
            },
        }
        executor = Executor()
        ctx = ExecutionContext(request, executor=executor, operator_uri=self.uri)
        with ctx:
            foo.get_operator(self.uri).execute(ctx)
        steps = [step.to_json() for step in executor._requests]
        self.sent = [(step["operator_uri"].rpartition("/")[2], step["params"] or {}) for step in steps]
        for path, value in (item for params in self.of("patch_panel_state") for item in params["state"].items()):
            *parents, name = path.split(".")
            place = self.state
            for parent in parents:
                place = place.setdefault(parent, {})
            place[name] = value
        if drawn := self.of("show_panel_output"):  # else the panel stays as it is
            self.drawn = json.loads(json.dumps(drawn[-1]["output"], default=str))["type"]["properties"]
        return self.drawn

    @property
    def row(self) -> list[Any] | None:
        """The row beside which the buttons are drawn; None without one."""
        return button_of(self.drawn, "keep").get("row")

    def slide(self, kind: str, value: float) -> dict[str, Any]:
        """The slider of a card is moved, and rests."""
        moved = {"kind": kind, "run": self.state["run"], "value": value}
        self.send("on_slide", **moved)
        slid = self.sent
        self.send("on_rest", **moved)
        self.sent = slid + self.sent
        return self.drawn

    def use_threshold(self, kind: str) -> dict[str, Any]:
        """The button that keeps the threshold of a slider, as it was drawn last."""
        return self.send("on_set", **element_of(self.drawn, f"set_{kind}")["view"]["params"])

    def press(self, choice: str, drawn: Any = None) -> dict[str, Any]:
        """A button of `show_decisions`, as it was drawn last or before."""
        found = button_of(self.drawn if drawn is None else drawn, choice)
        assert found, f"no button {choice}"
        return self.send("on_decide", **found)

    def of(self, name: str) -> list[dict[str, Any]]:
        """The parameters of what the App was told to do."""
        return [params for step, params in self.sent if step == name]


def token_of(elements: Any, event: str) -> dict[str, str]:
    """The token that the drawn button of an event sends, if it has one."""
    if isinstance(elements, dict):
        if event in elements.values() and "token" in (elements.get("params") or {}):
            return {"token": elements["params"]["token"]}
        elements = list(elements.values())
    for element in elements if isinstance(elements, list) else ():
        if token := token_of(element, event):
            return token
    return {}


def button_of(elements: Any, choice: str) -> dict[str, Any]:
    """The parameters of the drawn button of a decision."""
    if isinstance(elements, dict):
        if elements.get("choice") == choice:
            return elements
        elements = list(elements.values())
    for element in elements if isinstance(elements, list) else ():
        if found := button_of(element, choice):
            return found
    return {}


def element_of(elements: Any, name: str) -> dict[str, Any]:
    """The drawn element of a name, at any depth."""
    for found, element in elements.items():
        if found == name:
            return element
        if inner := element_of((element.get("type") or {}).get("properties") or {}, name):
            return inner
    return {}


def attributes(elements: Any, name: str) -> dict[str, str]:
    """Label -> attribute of the drawn buttons that have it."""
    found = {}
    for element in elements.values():
        button = ((element.get("view") or {}).get("componentsProps") or {}).get("button") or {}
        if name in button:
            found[element["view"]["label"]] = button[name]
        found |= attributes((element.get("type") or {}).get("properties") or {}, name)
    return found


def names_in(elements: Any) -> set[str]:
    """Names of all elements, at any depth."""
    names = set()
    for name, element in elements.items():
        inner = (element.get("type") or {}).get("properties") or {}
        names |= {name} | names_in(inner)
    return names


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples, eight of them audited; the worst has a hostile caption."""
    dataset = make_dataset(10, caption=lambda row: HOSTILE if row == 7 else f"number {row}")
    view = dataset[:8]
    fio.write_result(view, made_up(view.values("id")), config.AuditConfig(text="caption"))
    yield dataset
    decisions.ledger().delete_many({"dataset": dataset._doc.id})


def helpers(module: str) -> Any:
    """A module of the plugin, as FiftyOne loaded it."""
    return sys.modules[type(foo.get_operator(URI)).__module__.rpartition(".")[0] + f".{module}"]
