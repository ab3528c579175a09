"""What a browser may send as the panel's state, and texts that show nothing: each tab is still drawn, and says so."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.review import Decision
from audit_plugin.review.threshold_search import ThresholdSearch, guarantee_text
from tests.panel_fixtures import App, button_of, dataset, element_of, helpers
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")

__all__ = ["dataset"]  # a fixture

SCRIPT = Path(__file__).resolve().parents[1] / "ui" / "index.umd.js"
TABS = ("overview", "plots", "queue", "apply", "cross_modal")
NUMBERS = (-5, 2**40, 2**70, -(2**70), 1e200, -1e200, 0.5, True, "x", None, [], {}, [1], float("nan"))
ROWS = (
    [1, 2],
    ["x"],
    ["x", -3],
    ["x", 2**40],
    ["x", 0.5],
    ["x", "y"],
    [[], 0],
    ["\x00", 0],
    [None, None],
    ["x" * 20_000, 0],
)
STATES = [
    *(
        {name: value}
        for name in ("page", "redrawn", "since", "precision", "row", "opened", "thresholds")
        for value in NUMBERS
    ),
    *({name: row} for name in ("row", "opened") for row in ROWS),
    *({"row": row, "opened": row} for row in ROWS),
    *({"thresholds": {"misaligned": value}} for value in NUMBERS),
    {"kind": "x" * 20_000, "earlier": "\x00", "seen": "\x00", "jobs": [{}, 1, "x" * 10_000], "queue": {"edit": 3}},
]


EVERY = 3


def states_of(tab: str) -> list[dict[str, Any]]:
    """All for the queue, which reads most of them; a third for each other tab, in turn."""
    return STATES if tab == "queue" else STATES[TABS.index(tab) % EVERY :: EVERY]


@pytest.mark.parametrize("tab", TABS)
def test_no_state_of_the_browser_blocks_a_tab(dataset: Any, tab: str) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[1:4], "remove", reviewer="ann")
    fio.decide(dataset, ids[4], "relabel", text="another", reviewer="bob")
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value=tab)
    begun, failed = json.loads(json.dumps(app.state)), []
    for state in states_of(tab):
        app.state = {**json.loads(json.dumps(begun)), **state}
        app.send("on_tick" if "jobs" in state else "on_change_current_sample" if tab == "queue" else "on_load")
        if "Cannot show this panel" in json.dumps(app.drawn) or app.of("notify"):
            failed.append((state, app.of("notify")))
    assert failed == []


@pytest.mark.parametrize(("number", "shown"), [(-5, "1 to 10"), (0, "1 to 10"), (1, "11 to 12"), (2**40, "11 to 12")])
def test_a_page_that_is_not_there_is_the_nearest_one(make_dataset: Callable[..., Any], number: int, shown: str) -> None:
    dataset = make_dataset(14)
    written(dataset, tuple(range(12)))
    fio.decide(dataset, dataset.values("id")[:12], "remove")
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="apply")
    app.state["page"] = number
    app.send("on_earlier", value="none")
    assert f"Changes {shown} of 12" in json.dumps(app.send("on_earlier", value="x"))


NOTHING = (" ", "\u200b", "\u3164\u2800", "\u200d \u00a0", "\u2060")


@pytest.mark.parametrize("blank", NOTHING)
def test_a_text_that_shows_nothing_is_called_empty(blank: str) -> None:
    changes, words, history = helpers("change_list"), helpers("panel_words"), helpers("panel_history")
    assert changes._compared("a cat", blank) == "*(empty)*"
    assert changes._shown(blank) == "*(empty)*"
    assert (changes._compared("a cat", ""), changes._shown(None)) == (changes.MISSING, changes.MISSING)
    assert (words.shown(blank, 40), words.shown("", 40), words.shown("a\nb", 40)) == ("(empty)", "(none)", "a b")
    assert (words.shown_name(blank), words.shown_name("ann")) == ("(no name)", "ann")
    made = Decision("s", "keep", reviewer=blank)
    line = history.line_text([made], blank, made.time)
    assert line.startswith("Keep · (empty) · ")
    assert line.endswith(" · (no name)")


@pytest.mark.parametrize("blank", NOTHING)
def test_changes_of_blank_captions_have_no_empty_cells(dataset: Any, blank: str) -> None:
    ids = dataset.values("id")
    sample = dataset[ids[3]]
    sample["caption"] = blank
    sample.save()
    fio.decide(dataset, ids[3], "relabel", text="a cat", reviewer="ann")
    if blank.strip():
        fio.decide(dataset, ids[5], "relabel", text=blank, reviewer="ann")
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="apply")
    table = str(element_of(app.drawn, "changes_table")["default"])
    cells = [cell for line in table.splitlines() for cell in line.strip("|").split("|")]
    assert all(cell.strip() for cell in cells)
    assert table.count("(empty)") == (2 if blank.strip() else 1)


NAMES = {
    "ann": ("ann", "ann"),
    "  ann  ": ("ann", "ann"),
    "\U0001f600" * 250: ("\U0001f600" * 200, "\U0001f600" * 200),
    "x" + "\U0001f600" * 150 + "y" * 100: ("x" + "\U0001f600" * 150 + "y" * 49,) * 2,
    "ann\ud83d": ("ann", "ann"),
    "\u200b\u2060": ("\u200b\u2060", "(no name)"),
    "\u3164 \u2800": ("\u3164 \u2800", "(no name)"),
}
RUN_SCRIPT = """
const fs = require("fs");
const store = new Map();
let component, written = [];
globalThis.localStorage = {getItem: (k) => store.has(k) ? store.get(k) : null, setItem: (k, v) => store.set(k, v)};
globalThis.Event = class { constructor(type) { this.type = type; } };
globalThis.document = {addEventListener() {}, querySelector() { return null; }, querySelectorAll() { return []; }};
globalThis.window = globalThis;
globalThis.addEventListener = () => {};
globalThis.dispatchEvent = () => {};
globalThis.__fop__ = {
  PluginComponentType: {Component: 1},
  registerComponent: (made) => { if (made.name === "AuditReviewer") component = made.component; },
};
let state;
globalThis.React = {
  useState: (first) => {
    const at = state.at++;
    if (!(at in state.values)) state.values[at] = typeof first === "function" ? first() : first;
    return [state.values[at], (value) => { state.values[at] = value; }];
  },
  useEffect: (run) => run(),
  createElement: (tag, props, ...children) => ({tag, props, children}),
};
eval(fs.readFileSync(process.argv[2], "utf8"));
const answers = JSON.parse(process.argv[3]).map((typed) => {
  store.clear();
  const sent = [];
  const draw = () => { state.at = 0; return component({data: "", path: "p", onChange: (_, name) => sent.push(name)}); };
  state = {values: {}, at: 0};
  const named = draw().children[1].props;
  if (named.onClick) named.onClick();  // there is a name already: it is changed
  draw().children[1].props.onChange({target: {value: typed}});
  draw().children[1].props.onBlur({target: {dataset: {}}});
  state = {values: {}, at: 0};  // the page is loaded again
  const button = draw().children[1];
  return [store.get("audit-reviewer"), button.children[0], sent.at(-1)];
});
process.stdout.write(JSON.stringify(answers));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_cuts_names_between_characters_and_names_invisible_ones(tmp_path: Path) -> None:
    script = tmp_path / "run.js"
    script.write_text(RUN_SCRIPT)
    names = json.dumps(list(NAMES))
    done = subprocess.run(["node", str(script), str(SCRIPT), names], capture_output=True, text=True, check=True)
    answers = dict(zip(NAMES, json.loads(done.stdout), strict=True))
    assert answers == {typed: [kept, shown, kept] for typed, (kept, shown) in NAMES.items()}


def test_a_guarantee_is_said_with_a_number_that_can_be_read() -> None:
    search = ThresholdSearch(None, 2.3499999046325684, 12, 30, 25, 30, None)
    assert "with a misalignment of 2.35 or more" in guarantee_text(search, 0.9)


def test_queues_and_searches_of_an_event_are_kept_apart_and_made_again_after_a_decision(dataset: Any) -> None:
    base, calls = helpers("panel_base"), []

    class Context:
        pass

    first, second = Context(), Context()
    for ctx in (first, first, second):
        base.once_per_event(ctx, ("queue", "audit", "x"), lambda: calls.append("queue"))
        base.once_per_event(ctx, ("search", "audit", "x"), lambda: calls.append("search"))
    assert calls == ["queue", "search"] * 2
    base.forget(first)
    base.once_per_event(first, ("queue", "audit", "x"), lambda: calls.append("queue"))
    assert len(calls) == 5
    app = App(dataset, "@multimem/audit/audit_sample")
    app.sample = dataset.values("id")[7]
    app.send("on_change_current_sample")
    assert "**1 of 4** decided" in json.dumps(app.press("keep"))
    assert button_of(app.drawn, "keep")
