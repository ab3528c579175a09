"""A hostile page: open in the reviewer's browser on another origin, it sends the App's server all that a page can send.

Nothing may come of it: datasets, decisions, runs, queued work and files are as before, and no answer can be read.
"""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import own_database
from tests import browsing
from tests.browsing import App, need_browser

if TYPE_CHECKING:
    from tests.chaos.conftest import Chaos

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser, pytest.mark.timeout(3000)]
playwright = need_browser()
chromium = pytest.fixture(scope="module")(browsing.chromium)
ROOT = Path(__file__).resolve().parents[2]
URI = "@multimem/audit/"

# Two datasets with an audit each, decisions, an applied change set and a removed sample; tokens that are not valid for
# what the page wants: used, of another operator, of another dataset, and of a state that is no longer shown.
PREPARED = """
import sys
sys.path.insert(0, root)
from tests.review_fixtures import written
from audit_plugin.fiftyone_io import apply, decide, tokens
from audit_plugin.config import AuditConfig
for name in ("precious", "other"):
    dataset = fo.Dataset(name, persistent=True)
    dataset.add_samples([fo.Sample(filepath=path, caption=text) for path, text in rows])
    written(dataset, (4, 1, 6))
    ids = dataset.values("id")
    decide(dataset, ids[4], "remove", "audit")
    apply(dataset)
    decide(dataset, ids[1], "relabel", "audit", text="better")
dataset, other = fo.load_dataset("precious"), fo.load_dataset("other")
stale = {}
for purpose in purposes:
    used = tokens.new_token(dataset, purpose)
    tokens.use(used)
    stale[purpose] = ["", "0.0.0", used, tokens.new_token(dataset, "open_next"), tokens.new_token(other, purpose),
                      tokens.new_token(None, purpose), tokens.new_token(dataset, purpose, "another state")]
result = {"ids": dataset.values("id"), "stale": stale}
"""
# All documents of the database but those that FiftyOne writes whenever a dataset is opened, and the made secret.
SNAPSHOT = """
import hashlib, json
import fiftyone.core.odm as foo
from bson import json_util
database = foo.get_db_conn()
result = {}
for name in sorted(database.list_collection_names()):
    if name in ("audit_plugin.secrets", "config", "sessions", "system.views"):
        continue
    documents = []
    for document in database[name].find().sort("_id", 1):
        for volatile in ("last_loaded_at", "last_modified_at", "last_accessed_at"):
            document.pop(volatile, None)
        documents.append(json_util.dumps(document, sort_keys=True))
    if documents:
        result[name] = [len(documents), hashlib.sha256("".join(documents).encode()).hexdigest()]
"""
# The page: each request in one of the ways in which a page can send, the answers read where the browser lets it.
PAGE = """<!doctype html><title>A harmless page</title><script>
const ways = {
  fetch: (url, text) => fetch(url, {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"},
    body: text}),
  cookies: (url, text) => fetch(url, {method: "POST", mode: "no-cors", credentials: "include", body: text}),
  read: (url, text) => fetch(url, {method: "POST", body: text}).then(async (r) => { got.push(await r.text()); }),
  json: (url, text) => fetch(url, {method: "POST", headers: {"Content-Type": "application/json"}, body: text})
    .then(async (r) => { got.push(await r.text()); }),
  beacon: async (url, text) => navigator.sendBeacon(url, text),
  form: (url, text) => new Promise((done) => {
    const frame = document.createElement("iframe"), form = document.createElement("form");
    const input = document.createElement("input");
    frame.name = "f" + Math.random();
    Object.assign(form, {method: "POST", action: url, enctype: "text/plain", target: frame.name});
    input.name = text.slice(0, -1) + ',"junk":"';
    input.value = '"}';
    form.append(input);
    document.body.append(frame, form);
    frame.onload = () => {
      try { got.push(frame.contentDocument.body.innerText); } catch (error) {}
    };
    form.submit();
    setTimeout(() => { frame.remove(); form.remove(); done(); }, 300);
  }),
  image: (url, text) => new Promise((done) => {
    const image = new Image();
    image.onload = image.onerror = done;
    image.src = url + "?" + new URLSearchParams({body: text}).toString().slice(0, 2000);
  }),
  script: (url, text) => new Promise((done) => {
    const script = document.createElement("script");
    script.onload = script.onerror = () => { script.remove(); done(); };
    script.src = url + "?" + new URLSearchParams({body: text}).toString().slice(0, 2000);
    document.body.append(script);
  }),
  socket: (url, text) => new Promise((done) => {
    const socket = new WebSocket(url.replace("http", "ws"));
    socket.onopen = () => socket.send(text);
    socket.onmessage = (event) => got.push(event.data);
    socket.onerror = socket.onclose = done;
    setTimeout(done, 1000);
  }),
};
const got = [];
let sent = 0;
async function attack(requests) {
  const left = [...requests];
  const work = async () => {
    while (left.length) {
      const {way, url, body} = left.pop();
      try { await ways[way](url, JSON.stringify(body)); } catch (error) {}
      sent += 1;
    }
  };
  await Promise.all(Array.from({length: 6}, work));
  return {sent, got: got.filter((text) => text && text.includes("{"))};
}
</script><body>"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a precious file, and an export folder."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".ssh").mkdir()
    (folder / ".ssh" / "authorized_keys").write_text("ssh-ed25519 AAAA of the user\n")
    (folder / "exports").mkdir()
    (folder / "exports" / "report.html").write_text("an earlier report")
    (folder / "decisions.csv").write_text("sample,kind\n")
    return folder


@pytest.fixture(scope="module")
def app(home: Path, tmp_path_factory: pytest.TempPathFactory) -> App:
    """A server of its own, since its home and export folder are attacked."""
    settings = {"HOME": str(home), "AUDIT_EXPORT_DIR": str(home / "exports"), "PYTHONPATH": str(ROOT)}
    settings["FIFTYONE_PLUGINS_CACHE_ENABLED"] = "false"  # as FiftyOne is by default
    return browsing.launch(tmp_path_factory.mktemp("server"), **settings, **own_database.start())


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The address of the hostile page: another host name and another port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}/"
        server.shutdown()


def listed(part: str) -> list[str]:
    """Names that the plugin's file lists."""
    text = (ROOT / "fiftyone.yml").read_text(encoding="utf-8").partition(f"{part}:")[2]
    return re.findall(r"^  - (\w+)", re.split(r"^\w", text, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE)


def harmful(ids: list[str], home: Path) -> list[tuple[str, dict[str, Any]]]:
    """(operator or panel, parameters) of what a page would like to happen: at least one for each."""
    keys, row = str(home / ".ssh" / "authorized_keys"), [ids[1], 0]
    quick = {"encoder": "offline", "trials": 4, "epochs": 1, "device": "cpu", "text": "caption"}
    table = {"name": "x.csv", "content": "c2FtcGxlLGtpbmQKMSxrZWVwCg=="}
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("run_audit", {**quick, "run": "audit"}),
        ("run_audit", {**quick, "encoder": f"open_clip:ViT-B-32:{keys}"}),
        ("run_audit", {**quick, "train": "checkpoints", "checkpoint_f": f"open_clip:ViT-B-32:{keys}"}),
        ("scan_new", {"run": "audit"}),
        ("set_threshold", {"run": "audit", "kind": "misaligned", "threshold": 0.0}),
        ("map_embeddings", {"run": "audit"}),
        ("index_audit", {"run": "audit", "modality": "image"}),
        ("delete_audit", {"run": "audit"}),
        ("removal_study", quick),
        ("removal_curve", quick),
        ("measure_cross_modal", {**quick, "label": "caption", "run": "audit"}),
        ("measure_transfer", {**quick, "label": "caption"}),
        ("decide", {"decision": "remove", "reviewer": "root", "from_modal": True}),
        ("undo_decision", {"from_modal": True}),
        ("undo_decision", {"reviewer": "root"}),
        ("redo_decision", {"from_modal": True}),
        ("redo_decision", {"reviewer": "root"}),
        ("open_next", {"step": -1}),
        ("open_audit", {}),
        ("stop_run", {"job": "1", "hide": True}),
        ("review_tokens", {}),
        ("decide_flagged", {"kind": "misaligned", "decision": "remove", "threshold": -1e9}),
        ("decide_repair", {"repair": "x"}),
        ("start_spot_check", {"size": 4}),
        ("import_decisions", {"file": table, "key": "id"}),
        ("import_decisions", {"path": str(home / "decisions.csv")}),
        ("apply_decisions", {}),
        ("undo_changes", {"change_set": ""}),
        ("delete_removed", {"count": 1}),
        ("export_review", {"what": "report", "report": "report.html", "replace": True}),
        ("export_review", {"what": "decisions", "decisions": keys, "replace": True}),
        ("export_review", {"what": "removed", "removed": f"../..{keys}", "path": keys}),
        ("export_review", {"what": "removed", "removed": "new.txt"}),
        ("export_review", {"what": "data", "format": "csv", "data": "stolen"}),
        ("export_review", {"what": "dataset", "dataset": "stolen"}),
    ]
    for panel, event in (
        *(
            ("audit_panel", name)
            for name in (
                "on_decide",
                "on_undo_last",
                "on_redo_last",
                "on_set",
                "on_reset",
                "on_calibrated",
                "on_map",
                "on_open_form",
            )
        ),
        *(("audit_panel", name) for name in ("on_load", "on_start", "on_show", "_choose", "load_tab", "__init__")),
        ("audit_sample", "on_decide"),
        ("audit_sample", "on_load"),
    ):
        state = {"run": "audit", "row": row, "tab": "queue", "thresholds": {"misaligned": 0.0}}
        params = {
            "row": row,
            "choice": "remove",
            "kind": "misaligned",
            "run": "audit",
            "threshold": 0.0,
            "operator": "delete_audit",
        }
        wanted.append((panel, {**params, "panel_id": "p", "panel_state": state, "__method__": event}))
    return wanted


def requests_of(address: str, prepared: dict[str, Any], home: Path, is_long: bool) -> list[dict[str, Any]]:
    """All requests of the page: every harmful one with every kind of token, in several ways and to several places."""
    places = (
        "execute",
        "execute",
        "execute/generator",
        "resolve-type",
        "resolve-execution-options",
        "resolve-placements",
    )
    ways = ("fetch", "cookies", "read", "beacon", "form", "json", "image", "script", "socket")
    requests = []
    for count, (name, params) in enumerate(harmful(prepared["ids"], home)):
        event = params.get("__method__")
        stale = prepared["stale"][f"{name}.{event}" if event else name]
        body = {
            "operator_uri": URI + name,
            "dataset_name": "precious",
            "view": [],
            "selected": prepared["ids"][:3],
            "current_sample": prepared["ids"][1],
        }
        sent = [(way, place) for way in ways for place in dict.fromkeys(places)] if is_long else []
        sent += [("fetch", "execute"), (ways[count % len(ways)], places[count % len(places)])]
        for at, token in enumerate(stale):
            few = not is_long and at not in (0, 1 + count % (len(stale) - 1))
            for way, place in () if few else sent:
                signed = {**body, "params": {**params, "token": token}, "request_delegation": bool(at % 2)}
                requests.append({"way": way, "url": f"{address}/operators/{place}", "body": signed})
    return requests


def files_of(home: Path) -> dict[str, bytes]:
    """Everything in the home folder but caches, which FiftyOne and PyTorch write."""
    parts = (path.relative_to(home) for path in home.rglob("*") if path.is_file() or path.is_symlink())
    return {
        str(part): (home / part).read_bytes()
        for part in parts
        if part.parts[0] not in (".cache", ".fiftyone", ".config")
    }


def ours(traceback: str) -> bool:
    """Whether a traceback of the server's log leads through the plugin; FiftyOne writes some of its own, of sockets."""
    return any(part in traceback for part in ("/audit_plugin/", "/plugins/audit/", str(ROOT / "operators")))


def purposes(ids: list[str], home: Path) -> list[str]:
    """What tokens are for: operators, and events of panels."""
    return [f"{name}.{p['__method__']}" if "__method__" in p else name for name, p in harmful(ids, home)]


def test_a_hostile_page_achieves_nothing(app: App, chromium: Any, elsewhere: str, home: Path, chaos: Chaos) -> None:
    assert {name for name, _ in harmful(["", ""], home)} == set(listed("operators")) | set(listed("panels"))
    rows, needed = browsing.persons(20)[:8], purposes(["", ""], home)
    prepared = app.do(PREPARED, rows=rows, root=str(ROOT), purposes=needed)
    requests = requests_of(app.address, prepared, home, chaos.is_long)
    page = chromium.new_context().new_page()
    page.goto(elsewhere)
    before, files = app.do(SNAPSHOT), files_of(home)
    answer = page.evaluate("requests => attack(requests)", requests)
    page.wait_for_timeout(2000)  # what was started by a beacon or a form
    after = app.do(SNAPSHOT)
    changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    touched = {*files.items()} ^ {*files_of(home).items()}
    assert answer["sent"] == len(requests)
    assert not answer["got"], answer["got"][:3]
    assert not touched
    assert not changed, (changed, before, after)
    # the page does reach the server: with a token that it cannot know, the same request does something
    valid = app.do(
        "from audit_plugin.fiftyone_io import tokens\nresult = tokens.new_token(fo.load_dataset('precious'), 'decide')"
    )
    body = {**requests[0]["body"], "operator_uri": f"{URI}decide", "request_delegation": False}
    body["params"] = {"decision": "keep", "token": valid}
    page.evaluate(
        "requests => attack(requests)", [{"way": "fetch", "url": f"{app.address}/operators/execute", "body": body}]
    )
    assert app.do(SNAPSHOT)["audit_plugin.decisions"][0] == before["audit_plugin.decisions"][0] + 1
    page.context.close()
    failures = [block for block in app.log.read_text().split("Traceback (most recent")[1:] if ours(block)]
    assert not failures, failures[0]
    chaos.record(
        "hostile_page", cases=len(requests), kind="hostile inputs", lost=len(changed), outside=len(touched),
        tracebacks=len(failures),
    )  # fmt: skip
