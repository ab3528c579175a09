"""Hostile parameters, through the path that the App's server takes: each ends in a sentence, none in a traceback."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.media_fixtures import write_video
from tests.operator_requests import execute, form_for, module_of, notices_of, operator, request_of
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
tokens = importlib.import_module("audit_plugin.fiftyone_io.tokens")
ledger = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions").ledger

ROOT = Path(__file__).resolve().parents[1]
HOSTILE: list[Any] = [
    "\ud800", "a\0b", {"$gt": ""}, {"$where": "sleep(9)"}, [["a"]], [], {}, True, -1, 0.5, float("nan"), float("inf"),
    10**400, "x" * 1_000_000, "../../etc/passwd", "/dev/zero", "open_clip:ViT-B-32:/dev/zero", "clap:~/.ssh",
    "![x](http://e.example/x)", "no such thing",
]  # fmt: skip
# Parameters that no form has, or only after a choice; and what is chosen, so that legal values start no work.
MORE: dict[str, tuple[str, ...]] = {
    "decide": ("text", "seconds", "reviewer", "from_modal", "seen", "caption"),
    "decide_flagged": ("text", "threshold"),
    "undo_decision": ("reviewer", "from_modal"),
    "open_next": ("step",),
    "undo_changes": ("change_set",),
    "export_review": ("data", "format", "relabel", "decisions", "removed", "dataset", "replace"),
    "import_decisions": ("path",),
    "run_audit": ("image", "template", "tower", "checkpoint_f", "engine", "epochs", "split", "advanced", "view_target"),
}
VALUES = 7  # of `HOSTILE` for each field
EVERY = 5  # of the parameters of a panel's event one is hostile at a time: each event gets a fifth of them, in turn
IMPOSSIBLE = {"trials": 5}  # not a multiple of two
CHOSEN: dict[str, dict[str, Any]] = {
    "run_audit": IMPOSSIBLE,
    "removal_study": IMPOSSIBLE,
    "removal_curve": IMPOSSIBLE,
    "measure_cross_modal": IMPOSSIBLE,
    "measure_transfer": IMPOSSIBLE,
    "decide": {"decision": "keep"},
    "decide_flagged": {"kind": "misaligned", "decision": "keep"},
    "delete_audit": {"run": "no such audit"},
    "export_review": {"what": "removed"},
    "start_spot_check": {"size": 4},
}
REQUEST = ("selected", "selected_labels", "current_sample", "dataset_name", "dataset_id", "view")
PANELS = ("audit_panel", "audit_sample")
PANEL_PARAMETERS = (
    "value", "path", "idx", "data", "id", "row", "seen", "choice", "kind", "what", "run", "identities", "view",
    "operator", "values", "precision", "page",
)  # fmt: skip
STATE = (
    "run", "tab", "kind", "earlier", "row", "seen", "since", "thresholds", "queue", "head", "reviewer", "opened",
    "history", "precision", "page", "jobs", "redrawn",
)  # fmt: skip


def operators() -> list[str]:
    """Names of all operators that are no panels, as the plugin's file lists them."""
    listed = (ROOT / "fiftyone.yml").read_text(encoding="utf-8").partition("operators:")[2].partition("panels:")[0]
    return re.findall(r"^  - (\w+)", listed, re.MULTILINE)


@pytest.fixture(scope="module")
def dataset(pictures: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Eight samples, two of them misaligned."""
    made = fo.Dataset()
    made.add_samples([fo.Sample(filepath=path, caption=f"number {row}") for row, path in enumerate(pictures[:8])])
    written(made, (4, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_EXPORT_DIR", str(tmp_path_factory.mktemp("exports")))
        yield made
    ledger().delete_many({"dataset": made._doc.id})
    made.delete()


@pytest.fixture
def attack(dataset: Any, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """Sends a request with a valid token; returns its notices, and fails on a traceback."""

    def send(name: str, params: dict[str, Any], /, **more: Any) -> list[str]:
        request = request_of(dataset, params, **more)
        form = form_for(name, request)
        token = form["token"]["default"] if "token" in form else tokens.new_token(dataset, name)
        request["params"] = {"token": token, **request["params"]}
        notices = notices_of(execute(name, request)[1])
        assert not [record for record in caplog.records if record.exc_info], (name, params, caplog.text[-2000:])
        assert all(len(sentence) <= 500 and "Unexpected" not in sentence for sentence in notices), (name, notices)
        return notices

    caplog.set_level(logging.ERROR)
    return send


def fields_of(dataset: Any, name: str) -> list[str]:
    """Names of the parameters of an operator."""
    fields = set(form_for(name, request_of(dataset, CHOSEN.get(name, {})))) | set(MORE.get(name, ()))
    return sorted(fields - {"token"})


def some_values(name: str, fields: list[str]) -> list[tuple[str, Any]]:
    """(field, value): another part of the values for each field; the attack in `chaos` sends all of them."""
    first = sum(map(ord, name))
    return [
        (field, HOSTILE[(first + VALUES * number + at) % len(HOSTILE)])
        for number, field in enumerate(fields)
        for at in range(VALUES)
    ]


@pytest.mark.parametrize("name", operators())
def test_hostile_parameters_of_each_operator(dataset: Any, attack: Callable[..., list[str]], name: str) -> None:
    for field, value in some_values(name, fields_of(dataset, name)):
        attack(name, {**CHOSEN.get(name, {}), field: value})


def test_every_hostile_value_is_sent_somewhere(dataset: Any) -> None:
    sent = {id(value) for name in operators() for _, value in some_values(name, fields_of(dataset, name))}
    assert {id(value) for value in HOSTILE} == sent


@pytest.mark.parametrize("name", operators())
def test_hostile_selections_datasets_and_views(attack: Callable[..., list[str]], name: str) -> None:
    values = (["\ud800"], [{"label_id": {"$gt": ""}}], "x" * 1000, 7, {"$gt": ""})
    for count, part in enumerate(REQUEST, sum(map(ord, name))):
        attack(name, dict(CHOSEN.get(name, {})), **{part: values[count % len(values)]})


@pytest.mark.parametrize(
    "name", [name for name in operators() if name not in ("open_next", "open_audit", "review_tokens")]
)
def test_without_a_valid_token_nothing_is_done(dataset: Any, make_dataset: Callable[..., Any], name: str) -> None:
    before = ledger().count_documents({"dataset": dataset._doc.id})
    others = tokens.new_token(dataset, "open_next"), tokens.new_token(make_dataset(2), name)
    for count, token in enumerate(("", None, 7, {"$gt": ""}, "x.y.z", "\ud800", *others)):
        more = {"selected": dataset.values("id")[:1], "request_delegation": bool(count % 2)}
        (message,) = notices_of(execute(name, request_of(dataset, {"token": token}, **more))[1])
        assert message == "The form is out of date; open it again" or name == "decide_repair", message
    assert ledger().count_documents({"dataset": dataset._doc.id}) == before


def test_a_token_is_good_for_one_use_one_purpose_and_a_day(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens.new_token(dataset, "decide", ["shown"])
    assert tokens.is_valid(token, dataset, "decide", ["shown"])
    assert not tokens.is_valid(token, dataset, "decide", ["other"])
    assert not tokens.is_valid(token, None, "decide", ["shown"])
    made, nonce, signature = token.split(".")
    assert not tokens.is_valid(f"{int(made, 16) + 1:x}.{nonce}.{signature}", dataset, "decide", ["shown"])
    assert [tokens.use(token), tokens.use(token)] == [True, False]
    later = tokens.time.time() + 25 * 3600
    monkeypatch.setattr(tokens.time, "time", lambda: later)
    assert not tokens.is_valid(token, dataset, "decide", ["shown"])
    assert tokens.is_valid(token, dataset, "decide", ["shown"], queued=True)


def test_a_request_is_carried_out_once(dataset: Any) -> None:
    request = request_of(dataset, {"decision": "keep"}, selected=dataset.values("id")[:1])
    request["params"]["token"] = form_for("decide", request)["token"]["default"]
    again = {**request, "params": dict(request["params"])}
    assert execute("decide", request)[0]["decided"] == 1
    assert notices_of(execute("decide", again)[1]) == ["The form is out of date; open it again"]
    ledger().delete_many({"dataset": dataset._doc.id})


def test_models_are_loaded_from_the_folder_of_the_app_only(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, inside = module_of("checks"), tmp_path / "models" / "own.pt"
    inside.parent.mkdir()
    inside.touch()
    outside = tmp_path / "other.pt"
    outside.touch()
    error = importlib.import_module("audit_plugin.arrays").AuditError
    with pytest.raises(error, match="AUDIT_MODEL_DIR of the server, which is not set here"):
        checks.settings({"encoder": f"open_clip:ViT-B-32:{inside}"})
    monkeypatch.setenv("AUDIT_MODEL_DIR", str(inside.parent))
    assert checks.settings({"encoder": f"open_clip:ViT-B-32:{inside}"}).encoder.endswith("own.pt")
    for name in ("open_clip:ViT-B-32:{}", "clap:{}", "offline+clap:{}"):
        for path in (outside, inside.parent / ".." / "other.pt", "~/x", "../x", f"{inside}+/../../other.pt"):
            with pytest.raises(error, match="names a file of the server"):
                checks.settings({"encoder": name.format(path)})
    for public in ("auto", "offline", "open_clip:ViT-B-32:laion2b_s34b_b79k", "clap:laion/clap-htsat-unfused+offline"):
        assert checks.settings({"encoder": public}).encoder == public


# --- the panels' events ----------------------------------------------------------------------------------------------


def send_event(dataset: Any, panel: str, event: Any, params: dict[str, Any], state: Any, **more: Any) -> list[Any]:
    """What the App is told to do after an event of a panel."""
    sent = {**params, "panel_id": "p", "panel_state": state, "__method__": event}
    return execute(panel, request_of(dataset, sent, **more))[1]


def events(panel: str) -> list[str]:
    """Names of a panel's events."""
    return [name for name in dir(type(operator(panel))) if hasattr(getattr(type(operator(panel)), name), "is_event")]


@pytest.mark.parametrize("panel", PANELS)
def test_hostile_events(dataset: Any, caplog: pytest.LogCaptureFixture, panel: str) -> None:
    row, count = [dataset.first().id, 0], 0
    state, base = {"run": "audit", "tab": "overview", "row": row}, {"row": row, "choice": "keep", "kind": "misaligned"}
    assert len(events(panel)) > 2
    for number, event in enumerate(events(panel)):
        cases = [({**base, name: HOSTILE[(count := count + 1) % len(HOSTILE)]}, state) for name in PANEL_PARAMETERS]
        cases += [(base, {**state, name: HOSTILE[(count := count + 1) % len(HOSTILE)]}) for name in STATE]
        cases.append((base, {**state, "head": {"reviewer": HOSTILE[(count := count + 1) % len(HOSTILE)]}}))
        for params, sent in cases[number % EVERY :: EVERY]:
            token = tokens.new_token(dataset, f"{panel}.{event}")
            steps = send_event(dataset, panel, event, {**params, "token": token}, dict(sent))
            assert all("Unexpected" not in sentence for sentence in notices_of(steps)), (params, sent, steps)
    assert not [record for record in caplog.records if record.exc_info], caplog.text[-3000:]
    ledger().delete_many({"dataset": dataset._doc.id})


@pytest.mark.parametrize(
    ("panel", "event"),
    [
        ("audit_panel", name)
        for name in ("on_decide", "on_undo_last", "on_redo_last", "on_set", "on_reset", "on_calibrated")
    ]
    + [("audit_sample", "on_decide")],
)
def test_events_that_change_something_need_a_token(dataset: Any, panel: str, event: str) -> None:
    row = [dataset.first().id, 0]
    state = {"run": "audit", "row": row, "thresholds": {"misaligned": 0.5}}
    before, decided = (
        len(dataset.match_tags("audit:misaligned")),
        ledger().count_documents({"dataset": dataset._doc.id}),
    )
    for token in (None, "x.y.z", tokens.new_token(dataset, "decide")):
        params = {"row": row, "choice": "keep", "kind": "misaligned", "token": token}
        messages = notices_of(send_event(dataset, panel, event, params, dict(state)))
        assert messages == ["The form is out of date; open it again"]
    assert ledger().count_documents({"dataset": dataset._doc.id}) == decided
    assert len(dataset.match_tags("audit:misaligned")) == before


@pytest.mark.parametrize(
    "method", ["_choose", "load_tab", "render", "show_apply", "__init__", "form_button", 7, {"a": 1}]
)
@pytest.mark.parametrize("panel", PANELS)
def test_only_events_of_a_panel_can_be_called(dataset: Any, panel: str, method: Any) -> None:
    assert send_event(dataset, panel, method, {}, {}) == []


STAGES = "fiftyone.core.stages."


@pytest.mark.parametrize("name", [*operators(), *PANELS])
def test_a_view_calls_nothing_and_writes_nothing(dataset: Any, tmp_path: Path, name: str) -> None:
    videos = fo.Dataset()
    videos.add_samples([fo.Sample(filepath=write_video(tmp_path / "a.mp4", [(9, 9, 9)] * 8), caption="a")])
    written, outside = tmp_path / "written", tmp_path / "outside"
    call = {"_cls": "os.system", "kwargs": [["command", f"touch {written}"]]}
    sampling = {"sample_frames": True, "output_dir": str(outside)}
    frames = {"_cls": f"{STAGES}ToFrames", "kwargs": [["config", sampling], ["_state", None]]}
    flat = {"_cls": f"{STAGES}ToFrames", "kwargs": list(map(list, sampling.items()))}
    inner = {"_cls": f"{STAGES}Concat", "kwargs": [["samples", [call]]]}
    params = {"__method__": "on_load", "text": "caption", "what": "dataset"}
    for place, view, more in (
        (dataset, [call], {}),
        (dataset, [inner], {}),
        (dataset, [], {"extended": {"os.system": [["command", f"touch {written}"]]}}),
        (dataset, [], {"params": {"view_target": "CUSTOM_VIEW_TARGET", "custom_view_target": [call]}}),
        (videos, [frames], {}),
        (videos, [flat], {}),
        (videos, [], {"extended": {f"{STAGES}ToFrames": flat["kwargs"]}}),
    ):
        request = {"panel_id": "p", "panel_state": {}, **request_of(place, params), **more, "view": view}
        request["params"] = {**params, **more.get("params", {})}
        form_for(name, request)
        execute(name, request)
        assert not written.exists()
        assert not outside.exists()
    videos.delete()


def test_a_view_of_frames_that_were_sampled_stays_open(tmp_path: Path) -> None:
    videos = fo.Dataset()
    videos.add_samples([fo.Sample(filepath=write_video(tmp_path / "a.mp4", [(9, 9, 9)] * 8), caption="a")])
    frames = videos.to_frames(sample_frames=True, output_dir=str(tmp_path / "frames"))
    assert "Cannot show" not in str(form_for("run_audit", request_of(frames, {})))
    assert "Cannot show" not in str(form_for("delete_audit", request_of(frames[:1], {})))
    videos.delete()
