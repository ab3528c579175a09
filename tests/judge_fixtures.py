"""A judge on this machine, with the faults that servers have, and an audited manifest that it can be asked about."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from audit_plugin.arrays import Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.inputs.samples import read_samples
from audit_plugin.judge import KEY_VARIABLE, ask_judge, asking, endpoint, plan_questions
from tests.export_fixtures import write_manifest, write_scores

KEY = "sk-0123456789abcdef-secret"
CAPTIONS = [f"a picture of thing {row}" for row in range(12)]
FITS = {"claims": [], "fits": True, "wrong_words": [], "corrected_caption": None, "confidence": 0.9}
WRONG = {**FITS, "fits": False, "wrong_words": ["thing"], "corrected_caption": "a picture of noise"}
# (status, headers, body); None: the connection is closed without an answer
Reply = tuple[int, Mapping[str, str], bytes] | None


def completion(content: object, **headers: str) -> Reply:
    """A chat completion with a text, or with something as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return 200, headers, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def failing(status: int, **headers: str) -> Reply:
    """An error whose body repeats the key, as those of some servers do."""
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, f"bad key {KEY}".encode()


@dataclass
class Question:
    """One request, as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def caption(self) -> str:
        return json.loads(self.body["messages"][1]["content"][0]["text"])["caption"]

    @property
    def jpeg(self) -> bytes:
        kind, _, data = self.body["messages"][1]["content"][1]["image_url"]["url"].partition(",")
        assert kind == "data:image/jpeg;base64"
        return base64.b64decode(data)


@dataclass
class Judge:
    """A server; a test changes `reply` while it runs.

    Attributes:
        reply: question -> what is answered.
        asked: the questions, in the order in which they came.
        over: is set when the server stops, for replies that wait.
    """

    reply: Callable[[Question], Reply] = lambda _question: completion(FITS)
    asked: list[Question] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def captions(self) -> list[str]:
        return [question.caption for question in self.asked]


@contextmanager
def running_judge(certificate: Path | None = None) -> Iterator[Judge]:
    """A judge, over https:// with a certificate, with its key in the same file."""
    judge = Judge()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            question = Question(self.path, dict(self.headers), json.loads(body))
            judge.asked.append(question)
            reply = judge.reply(question)
            if reply is None:
                return
            status, headers, data = reply
            try:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | dict(headers)).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # whoever asked has left

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.handle_error = lambda *_: None  # clients that do not trust it
        judge.url = judge.url.replace("http", "https")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield judge
    finally:
        judge.over.set()
        server.shutdown()
        server.server_close()


def audited_manifest(folder: Path, captions: list[str], **columns: Any) -> Path:
    """A table of scores beside a manifest with one picture per caption, the last row the most misaligned."""
    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    for row, caption in enumerate(captions):
        pixels = np.random.default_rng(row).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
        rows.append({"id": f"r{row}", "image": f"{row}.png", "caption": caption})
    manifest = write_manifest(folder / "m.jsonl", rows)
    return write_scores(folder / "scores.parquet", manifest, [row["id"] for row in rows], columns=columns)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    monkeypatch.setattr(asking, "WAITS", (0.01,) * 5)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with running_judge() as server:
        yield server


@pytest.fixture
def audited(tmp_path: Path) -> tuple[AuditResult, Samples]:
    scores = audited_manifest(tmp_path, CAPTIONS)
    samples = read_samples(tmp_path / "m.jsonl", {"image": "image", "text": "caption"})
    table = pq.read_table(scores)
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "id"}
    return AuditResult(samples.ids, columns, {}), samples


def judged(judge: Judge, audited: tuple[AuditResult, Samples], folder: Path, budget: int = 8) -> AuditResult:
    return ask_judge(plan_questions(*audited, endpoint(judge.url, "vlm"), folder, budget))


def files_below(folder: Path) -> bytes:
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
