"""The queue and the panel of the open sample on a real database: as the App calls them, without a browser."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from audit_plugin.review.spot_check import SpotEstimate
from audit_plugin.scoring.wrong_pairs import Interval
from tests.findings_fixtures import made_up
from tests.panel_fixtures import HOSTILE, App, attributes, button_of, dataset, element_of, helpers, names_in
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")
changes = importlib.import_module("audit_plugin.fiftyone_io.ledger.changes")
decisions = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions")

__all__ = ["dataset"]  # a fixture


def test_the_queue_decides_relabels_and_takes_back(dataset: Any) -> None:
    app, ids = App(dataset), dataset.values("id")
    app.send("on_load")
    drawn = app.send("on_tab", value="queue")
    assert app.row == [ids[7], 0]  # the worst
    text = json.dumps(drawn)
    assert "**0 of 4** decided" in text
    hostile = drawn["queue"]["type"]["properties"][f"case_{ids[7]}_0"]["type"]["properties"]["pair"]
    caption = hostile["type"]["properties"]["texts"]["type"]["properties"]["caption"]
    assert caption["view"]["name"] == "LabelValueView"  # plain text, no markdown
    assert not {"\x07", "\u202e"} & set(caption["default"])
    pressed = app.drawn
    app.press("keep", pressed)
    app.press("keep", pressed)  # the second event of one click
    assert dataset[ids[7]].audit_decision == "keep"
    assert len(decisions.decisions(dataset)) == 1
    row = app.row
    app.press("typed")
    assert app.of("notify")[0]["variant"] == "warning"
    app.state["queue"] = {"edit": {f"typed_{row[0]}_0": "what it shows", f"note_{row[0]}_0": "seen twice"}}
    drawn = app.press("typed")
    assert "**2 of 4** decided" in json.dumps(drawn)
    last = decisions.decisions(dataset)[-1]
    assert (last.text, last.note, last.sample) == ("what it shows", "seen twice", row[0])
    assert 0 <= last.seconds < 600
    drawn = app.send("on_undo_last")
    assert app.row == row
    assert "**1 of 4** decided" in json.dumps(drawn)
    app.send("on_previous")
    assert app.row == [ids[7], 0]
    assert "Decided: **keep**" in json.dumps(app.send("on_tab", value="queue"))
    app.send("on_kind", value="duplicate")
    assert app.row[0] in ids[:2]


def test_a_button_decides_on_its_own_row_whatever_the_panel_shows_by_then(dataset: Any) -> None:
    """After a threshold was set the queue may not have the row that the state names."""
    app, ids = App(dataset), dataset.values("id")
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.send("on_tab", value="overview")
    app.slide("misaligned", 3.5)
    app.slide("misaligned", 3.4)
    app.use_threshold("misaligned")
    app.state["row"] = [ids[9], 0]  # no finding
    drawn = app.send("on_tab", value="queue")
    shown = button_of(drawn, "remove")["row"]
    assert shown != [ids[9], 0]
    app.press("remove")
    (made,) = decisions.decisions(dataset)
    assert (made.sample, made.kind) == (shown[0], "remove")
    assert button_of(app.drawn, "remove")["row"] != shown
    first = button_of(app.drawn, "keep")["row"]
    app.state["row"] = [ids[9], 0]
    app.send("on_next")
    assert button_of(app.drawn, "keep")["row"] != first


def test_a_decision_that_was_not_seen_is_never_replaced_without_asking(dataset: Any) -> None:
    """Two tabs show the same row; the second one's button is refused aloud, and then replaces what it shows."""
    first, second = App(dataset), App(dataset)
    for tab in (first, second):
        tab.send("on_load")
        tab.send("on_tab", value="queue")
    row = first.row
    first.press("remove")
    second.press("keep")
    assert [made.kind for made in decisions.decisions(dataset)] == ["remove"]
    (told,) = second.of("notify")
    assert told["variant"] == "warning"
    assert "decided meanwhile: remove" in told["message"]
    assert second.row == row
    assert "Decided: **remove**" in json.dumps(second.drawn)
    second.press("keep")
    assert [made.kind for made in decisions.decisions(dataset)] == ["remove", "keep"]
    assert second.row != row
    first.send("on_undo_last")
    second.send("on_previous")
    first.send("on_undo_last")
    second.press("remove")
    assert "undone meanwhile" in second.of("notify")[0]["message"]


def test_a_sample_without_findings_is_guarded_as_well(dataset: Any) -> None:
    """It is in no queue, but the panel beside it decides on it, and another tab may have done so."""
    ids = dataset.values("id")
    first, second = (App(dataset, "@multimem/audit/audit_sample") for _ in range(2))
    for tab in (first, second):
        tab.send("on_load")
        tab.sample = ids[6]
        assert "no finding" in json.dumps(tab.send("on_change_current_sample"))
    first.press("remove")
    second.press("keep")
    assert [made.kind for made in decisions.decisions(dataset)] == ["remove"]
    assert "decided meanwhile: remove" in second.of("notify")[0]["message"]
    assert "Decided: **remove**" in json.dumps(second.drawn)
    second.press("keep")
    assert [made.kind for made in decisions.decisions(dataset)] == ["remove", "keep"]


def test_a_button_of_the_spot_check_decides_in_it_whatever_is_chosen_by_then(dataset: Any) -> None:
    """And one of the queue never counts as blind."""
    foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 4)
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.send("on_kind", value="spot check")
    of_check = app.drawn
    row = button_of(of_check, "keep")["row"]
    app.send("on_kind", value="misaligned")
    if button_of(app.drawn, "keep")["row"] == row:
        app.send("on_next")
    of_queue, other = app.drawn, button_of(app.drawn, "remove")["row"]
    assert other != row
    app.press("keep", of_check)
    assert [(made.sample, made.source) for made in decisions.decisions(dataset)] == [(row[0], "spot-check")]
    app.send("on_kind", value="spot check")
    app.press("remove", of_queue)
    (_, made) = decisions.decisions(dataset)
    assert (made.sample, made.source) == (other[0], "person")
    app.send("on_decide", **{**button_of(app.drawn, "keep"), "kind": "worst"})
    assert "choose one of" in json.dumps(app.of("notify"))


def test_a_row_whose_decision_was_undone_elsewhere_stays(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    row = app.row
    app.press("keep")
    app.send("on_previous")
    assert app.row == row
    decisions.undo_last(dataset)
    app.send("on_change_current_sample")
    assert app.row == row
    assert "Decided" not in json.dumps(app.drawn)
    app.press("remove")
    assert not [notice for notice in app.of("notify") if notice["variant"] == "warning"]
    assert decisions.decisions(dataset)[-1].kind == "remove"


def test_an_open_sample_disturbs_no_panel_without_an_audit(make_dataset: Callable[..., Any]) -> None:
    app = App(make_dataset(3))
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.sample = app.dataset.first().id
    app.send("on_change_current_sample")
    assert not app.of("notify")


def test_the_panel_leaves_what_was_decided_beside_the_open_sample(dataset: Any) -> None:
    app, ids = App(dataset), dataset.values("id")
    app.send("on_load")
    app.send("on_tab", value="queue")
    row = app.row
    decisions.decide(dataset, row[0], "remove", "audit")
    app.sample = ids[0]
    app.send("on_change_current_sample")
    assert app.row != row
    assert "**1 of 4** decided" in json.dumps(app.drawn)
    shown = app.row
    app.send("on_previous")
    assert app.row == row  # a decided row can be looked at, and stays
    app.send("on_change_current_sample")
    assert app.row == row
    assert shown != row


def test_a_spot_check_is_blind_and_its_estimate_replaces_the_audit_s(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    drawn = app.send("on_kind", value="spot check")
    assert "draw" in names_in(drawn)
    assert "keep" not in names_in(drawn)
    app.send("on_open_form", operator="start_spot_check")
    assert app.of("prompt_user_for_operation")[0]["operator_uri"] == "@multimem/audit/start_spot_check"
    foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 4)
    drawn = app.send("on_form_done")
    assert "**0 of 4** decided" in json.dumps(drawn)
    assert not {"scores", "reason", "suggested"} & names_in(drawn)  # nothing that leads
    while app.row:
        drawn = app.press("remove")
    assert "draw" in names_in(drawn)
    assert "wrong among the flagged: 100% (" in json.dumps(drawn)
    assert {d.source for d in decisions.decisions(dataset)} == {"spot-check"}
    overview = json.dumps(app.send("on_tab", value="overview"))
    assert "Wrong among the flagged: 100% (" in overview
    assert "(Spot check, 90% intervals.)" in overview


def test_the_panel_beside_an_open_sample_decides_and_goes_on(dataset: Any) -> None:
    ids = dataset.values("id")
    app = App(dataset, "@multimem/audit/audit_sample")
    assert set(app.send("on_load")) == {"none"}
    app.sample = ids[7]
    drawn = app.send("on_change_current_sample")
    assert {f"case_{ids[7]}_0", "keep", f"typed_{ids[7]}_0"} <= names_in(drawn)
    app.state["edit"] = {f"typed_{ids[7]}_0": "what it shows"}
    app.press("typed")
    assert app.of("open_sample")[0]["id"] == fio.queue_of(dataset, "audit").left[0][0] != ids[7]
    assert decisions.decisions(dataset)[-1].text == "what it shows"
    app.sample = ids[6]  # without a finding it can be decided as well
    assert "no finding" in json.dumps(app.send("on_change_current_sample"))
    app.sample = ids[9]  # came after the audit
    assert "keep" in names_in(app.send("on_change_current_sample"))


def test_texts_are_whole_sentences_where_a_number_is_missing() -> None:
    panel_review, panel_case = helpers("panel_review"), helpers("panel_case")
    unknown, wrong = Interval(math.nan, math.nan, math.nan), Interval(12.0, 4.0, 20.0)
    estimate = SpotEstimate(unknown, unknown, wrong, unknown, 10, 0, 0.9, 5, 40)
    text = panel_review.spot_check_text(SimpleNamespace(estimate=lambda: estimate))
    assert text.endswith(
        "(10 decided, 90% intervals): wrong among the flagged: too few labels to tell; in the "
        "whole set: about 12 of 40 (4 to 20)."
    )
    estimate = replace(estimate, wrong=unknown)
    text = panel_review.spot_check_text(SimpleNamespace(estimate=lambda: estimate))
    assert text.endswith("; in the whole set: not known.")
    assert helpers("forms")._minutes_text(1.3) == "1 minute"
    assert panel_case.score_line("multimem", 0.69, 299 / 300).endswith(" 0.69, higher than 99% of the set")
    assert panel_case.score_line("multimem", 0.69, 0.29).endswith(" 0.69, higher than 29% of the set")


def test_only_pictures_are_drawn_as_images() -> None:
    drawn = {}
    for media in ("image", "video", "audio", "unknown"):
        parent = foo.types.Object()
        helpers("panel_case").show_file(parent, "file", f"/a.{media}", media, "90px")
        drawn[media] = type(parent.properties["file"].view).__name__ if parent.properties else ""
    assert drawn == {"image": "ImageView", "video": "MediaPlayerView", "audio": "", "unknown": ""}


def test_words_that_a_suggestion_changes_are_marked_and_hostile_ones_are_inert() -> None:
    words = helpers("panel_words")
    assert words.word_changes("a red  hat", "a blue hat today") == [
        ("same", "a"),
        ("removed", "red"),
        ("added", "blue"),
        ("same", "hat"),
        ("added", "today"),
    ]
    assert words.word_changes("", "new words") == [("added", "new words")]
    assert words.word_changes("gone", "") == [("removed", "gone")]
    assert words.word_changes("as it is", "as  it\nis") == [("same", "as it is")]
    assert [words.cut("12345", most) for most in (6, 5, 4)] == ["12345", "12345", "123…"]
    assert words.changes_text("a red hat", "a blue hat", 100) == "a ~~red~~ **blue** hat"
    assert words.changes_text("one two three", "four five six", 100) == "four five six"  # another caption
    assert words.changes_text("a b c d", "a b c e f", 7) == "a b c ~~d~~ **…**"  # what follows is cut off
    for hostile in (HOSTILE, "~~x~~ **y**", "*", "~~", "![i](http://e.example/i.png)", "<b>", "http://e.example"):
        shown = words.changes_text(f"the same words and {hostile}", f"the same words or {hostile} here {hostile}", 600)
        bare = re.sub(r"\\.", "", shown)  # without what is escaped
        assert re.findall(r"~~|\*\*", bare) == ["~~", "~~", "**", "**", "**", "**"], shown
        assert not re.search(r"[<>!\[\]`]|://", bare), shown


def test_a_caption_is_edited_in_a_field_that_holds_it_and_nothing_else_counts_as_a_relabel(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.press("keep")  # of the hostile one
    name, _ = app.row
    field = element_of(app.drawn, f"typed_{name}_0")
    assert field["view"]["componentsProps"]["field"]["defaultValue"] == dataset[name].caption
    assert field.get("default") is None  # which would be sent with each event
    made = decisions.decisions(dataset)
    present = dataset[name].caption
    for typed in (None, "", "  ", present, f" {present}\n", present.replace(" ", "  ")):
        app.state["queue"] = {"edit": {} if typed is None else {f"typed_{name}_0": typed}}
        app.press("typed")
        (told,) = app.of("notify")
        assert told["variant"] == "warning"
        assert repr(present) in told["message"]
        assert ("empty" in told["message"]) == (typed is not None and not typed.strip())
        assert app.row == [name, 0]
    assert decisions.decisions(dataset) == made
    app.state["queue"] = {"edit": {f"typed_{name}_0": "half typed"}}
    drawn = app.send("on_history")  # drawn again
    assert element_of(drawn, f"typed_{name}_0")["view"]["componentsProps"]["field"]["defaultValue"] == "half typed"
    for state in ({"edit": "x"}, {"edit": {f"typed_{name}_0": 3}}, {"edit": {"classes": 4}}):
        app.state["queue"] = state  # from a browser that sends anything
        app.press("typed")
        assert app.of("notify")
        app.send("on_previous")
        app.send("on_next")
    assert decisions.decisions(dataset) == made
    app.state["queue"] = {"edit": {f"typed_{name}_0": f"{present} today\n"}}
    app.press("typed")
    assert decisions.decisions(dataset)[-1].text == f"{present} today"


def test_a_long_caption_is_never_cut_by_editing_it(make_dataset: Callable[..., Any]) -> None:
    words = helpers("panel_words")
    assert words.editable("two  words\nand a line \u202e") == "two words\nand a line"
    assert words.editable("x" * words.MOST_EDITED) == "x" * words.MOST_EDITED
    assert words.editable("x" * (words.MOST_EDITED + 1)) == ""
    dataset = make_dataset(8, caption=lambda row: f"{row}" * (words.MOST_EDITED + 1))
    fio.write_result(dataset, made_up(dataset.values("id")), config.AuditConfig(text="caption"))
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.press("typed")
    assert app.of("notify")[0]["variant"] == "warning"
    assert not decisions.decisions(dataset)
    app.press("keep")
    assert len(decisions.decisions(dataset)) == 1


def test_keys_are_on_the_buttons_that_they_press(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    drawn = app.send("on_tab", value="queue")
    assert attributes(drawn, "data-audit-key") == {
        "Keep (1)": "1",
        "Remove (2)": "2",
        "Skip (4)": "4",
        "Unsure (5)": "5",
        "Relabel (Enter)": "Enter",
        "Previous (b)": "b",
        "Next (n)": "n",
        "Undo (u)": "u",
        "Redo (y)": "y",
        "Decisions (d)": "d",
    }
    before = {*attributes(drawn, "data-audit-drawn").values()}
    after = {*attributes(app.send("on_next"), "data-audit-drawn").values()}
    assert before.isdisjoint(after)  # each drawing can be told from the one before


def test_an_event_makes_the_queue_once(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app, made = App(dataset), []
    real = fio.queue_of
    app.send("on_load")
    monkeypatch.setattr(fio, "queue_of", lambda *asked: (made.append(asked), real(*asked))[1])
    for event, params in (
        ("on_tab", {"value": "queue"}),
        ("on_next", {}),
        ("on_previous", {}),
        ("on_history", {}),
        ("on_load", {}),
        ("on_change_current_sample", {}),
    ):
        app.send(event, **params)
        assert len(made) == 1, event
        made.clear()
    app.press("keep")
    assert len(made) == 1  # whether the button shows the decision that holds is asked of its row alone
    made.clear()
    app.send("on_undo_last")
    assert len(made) == 1
    made.clear()
    app.press("remove", {**app.drawn, "seen": "x"})
    assert len(made) == 1


def test_classes_are_asked_of_all_samples_once_and_follow_every_change(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = importlib.import_module("audit_plugin.fiftyone_io.results.cases")
    dataset = make_dataset(8)
    dataset.set_values("kind", [fo.Classification(label=("cat", "dog")[row % 2]) for row in range(8)])
    written(dataset, (4, 1), text="kind")
    asked, real = [], cases.used_classes
    monkeypatch.setattr(
        cases, "used_classes", lambda root, place, since=None: (asked.append(since), real(root, place, since))[1]
    )
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.press("keep")
    app.send("on_previous")
    assert asked.count(None) == 1 < len(asked)
    sample = dataset.first()
    sample.kind.label = "lynx"
    sample.save()
    assert cases.classes_of(dataset, "audit") == ("cat", "dog", "lynx")
    dataset.add_sample(fo.Sample(filepath=sample.filepath, kind=fo.Classification(label="owl")))
    assert cases.classes_of(dataset, "audit") == ("cat", "dog", "lynx", "owl")
    assert asked.count(None) == 2
    dataset.default_classes = ["ant"]
    assert cases.classes_of(dataset, "audit")[0] == "ant"
    monkeypatch.setattr(cases, "CLASSES_SECONDS", 0)
    dataset.match({"kind.label": "lynx"}).set_values("kind.label", ["cat"])
    assert cases.classes_of(dataset, "audit") == ("ant", "cat", "dog", "owl")


def test_a_list_says_which_caption_is_in_question_and_what_is_removed(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    dataset.clear_sample_field("caption")
    dataset.delete_sample_field("caption")
    dataset.set_values("captions", [[f"first {row}", f"second {row}"] for row in range(8)])
    written(dataset, (4, 1), text="captions")
    app = App(dataset)
    app.send("on_load")
    drawn = app.send("on_tab", value="queue")
    name, caption = app.row
    assert f'"Caption {caption + 1} of 2"' in json.dumps(drawn)
    assert element_of(drawn, "remove")["view"]["label"] == "Remove caption (2)"
    decisions.decide(dataset, [(name, 1 - caption)], "remove")
    drawn = app.send("on_tab", value="queue")
    assert element_of(app.send("on_change_current_sample"), "remove")["view"]["label"] == "Remove sample (2)"
    app.press("remove")
    (change,) = fio.plan_of(dataset).changes
    assert (change.sample, change.kind) == (name, "removed")  # as the button said


def test_a_class_is_chosen_from_the_classes_and_a_new_one_is_asked_for(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    dataset.set_values("kind", [fo.Classification(label=("cat", "dog")[row % 2]) for row in range(8)])
    written(dataset, (4, 1), text="kind")
    app = App(dataset)
    app.send("on_load")
    drawn = app.send("on_tab", value="queue")
    name, _ = app.row
    field = element_of(drawn, f"typed_{name}_0")
    assert [choice["value"] for choice in field["view"]["choices"]] == ["cat", "dog"]
    assert '"Class"' in json.dumps(drawn)

    def relabel(text: str, is_new: bool = False) -> list[dict[str, Any]]:
        fields = {f"typed_{name}_0": text, f"new_{name}_0": is_new}
        app.state["queue"] = {"edit": {"classes": fields}}
        app.press("typed")
        return [told for told in app.of("notify") if told["variant"] == "warning"]

    assert "'lynx' is not among the 2 classes" in relabel("lynx")[0]["message"]
    assert "present one: 'cat'" in relabel("cat", is_new=True)[0]["message"]
    assert not decisions.decisions(dataset)
    assert not relabel("lynx", is_new=True)
    name, _ = app.row
    assert not relabel("cat")
    assert [made.text for made in decisions.decisions(dataset)] == ["lynx", "cat"]
