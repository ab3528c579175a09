"""The judge's server and its faults: what passes costs nothing, what stays is told, and the key goes nowhere else."""

from __future__ import annotations

import base64
import email.utils
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.judge import KEY_VARIABLE, ask_judge, asking, endpoint, plan_questions
from tests.judge_fixtures import (
    CAPTIONS,
    FITS,
    KEY,
    WRONG,
    Judge,
    Question,
    Reply,
    audited,
    audited_manifest,
    completion,
    failing,
    judge,
    judged,
    running_judge,
)
from tests.test_cli import run

__all__ = ["audited", "judge"]  # fixtures

CUT_OFF = b'{"choices": [{"message": {"content": "<think>Let me look"}, "finish_reason": "length"}]}'


def after_failures(count: int, failure: Callable[[], Reply]) -> Callable[[Question], Reply]:
    """The first `count` requests of each pair fail."""
    seen: dict[str, int] = {}

    def reply(question: Question) -> Reply:
        seen[question.caption] = seen.get(question.caption, 0) + 1
        return failure() if seen[question.caption] <= count else completion(FITS)

    return reply


@pytest.mark.parametrize(
    ("count", "failure"),
    [
        (2, lambda: failing(500)),
        (4, lambda: failing(503)),
        (2, lambda: failing(429)),
        (2, lambda: failing(429, Retry_After="nonsense")),
        (2, lambda: failing(429, Retry_After="-5")),
        (2, lambda: failing(429, Retry_After="nan")),
        (2, lambda: None),
        (1, lambda: (200, {"Content-Length": "100000"}, b'{"choices"')),
        (1, lambda: completion("I cannot say")),
        (1, lambda: (200, {}, b"<html>")),
    ],
    ids=["500", "503", "429", "wait?", "wait -5", "wait nan", "closed", "breaks off", "prose", "html"],
)
def test_a_passing_fault_costs_no_pair(
    count: int, failure: Callable[[], Reply], judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    judge.reply = after_failures(count, failure)
    result = judged(judge, audited, tmp_path / "answers")
    assert result.summary["judge"]["answered"] == 8
    assert len(judge.asked) == 8 * (count + 1)


@pytest.mark.parametrize("as_date", [False, True])
def test_the_time_that_a_server_names_is_waited_for_up_to_a_limit(
    as_date: bool, judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = email.utils.formatdate(time.time() + 10**6, usegmt=True) if as_date else "1000000"
    judge.reply = after_failures(1, lambda: failing(429, Retry_After=named))
    monkeypatch.setattr(asking, "MOST_WAIT", 0.4)
    start_time = time.monotonic()
    assert judged(judge, audited, tmp_path / "answers", 1).summary["judge"]["answered"] == 1
    assert 0.4 <= time.monotonic() - start_time < 5


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (lambda: (200, {}, b"x" * (asking.MOST_BYTES + 2)), "more than 1,048,576 bytes"),
        (lambda: completion("{" * 100), "holds no judgment"),
        (lambda: completion({**FITS, "confidence": 7}), "confidence"),
        (lambda: (200, {}, b'{"choices": []}'), "no chat completion"),
        (lambda: (200, {}, b'{"choices": {"0": 1}}'), "no chat completion"),
        (lambda: (200, {}, b'{"choices": [{"message": {"content": null}}]}'), "no text"),
        (lambda: (200, {}, b"[" * 100_000), "no chat completion"),
        (lambda: (200, {}, b'{"choices": [[]]}'), "no chat completion"),
        (lambda: (200, {}, CUT_OFF), "longer than 1,000 tokens"),
        (lambda: (200, {}, b"\xff\xfe"), "no chat completion"),
        (lambda: failing(413), "status 413"),
        (lambda: failing(400), "status 400"),
    ],
)
def test_an_unusable_answer_costs_its_pair_only(
    reply: Callable[[], Reply], why: str, judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    judge.reply = lambda question: reply() if question.caption == CAPTIONS[11] else completion(FITS)
    result = judged(judge, audited, tmp_path / "answers")
    assert result.summary["judge"]["answered"] == 7
    assert why in result.columns["judge_failure"][11]
    assert result.columns["judge_fits"][11] == ""
    assert result.columns["judge_probability"][11] == np.float32(0.1)
    judge.reply = lambda _question: completion(FITS)
    asked = len(judge.asked)
    assert judged(judge, audited, tmp_path / "answers").summary["judge"]["answered"] == 8
    assert len(judge.asked) == asked + 1  # it may have been a fault that is over


def test_what_a_wrong_server_answers_is_not_kept(
    judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    judge.reply = lambda _question: (200, {}, b"<html>sign in</html>")
    with pytest.raises(AuditError, match="no chat completion"):
        judged(judge, audited, tmp_path / "answers")
    judge.reply = lambda _question: completion(FITS)
    assert judged(judge, audited, tmp_path / "answers").summary["judge"]["answered"] == 8


def test_a_server_that_knows_no_response_format_is_asked_without(
    judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    judge.reply = lambda question: failing(400) if "temperature" in question.body else completion(FITS)
    assert judged(judge, audited, tmp_path / "answers").summary["judge"]["answered"] == 8
    assert "temperature" not in judge.asked[-1].body
    assert len(judge.asked) < 8 * 3  # what it takes is learnt


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    status: int, judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    with running_judge() as other:
        judge.reply = lambda _question: failing(status, Location=f"{other.url}/chat/completions")
        with pytest.raises(AuditError, match="redirects elsewhere") as caught:
            judged(judge, audited, tmp_path / "answers")
        assert other.asked == []
        assert other.url not in str(caught.value)


@pytest.mark.parametrize(("status", "asked"), [(401, 1), (402, 1), (404, 1), (400, 3), (403, 1), (500, 6), (429, 6)])
def test_a_server_that_refuses_everything_is_given_up_soon_and_its_words_are_not_shown(
    status: int, asked: int, judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    judge.reply = lambda _question: failing(status)
    with pytest.raises(AuditError, match=f"status {status}") as caught:
        judged(judge, audited, tmp_path / "answers", 12)
    assert len(judge.asked) <= asked * (asking.IN_A_ROW + asking.AT_ONCE)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not list((tmp_path / "answers").rglob("*.json"))  # no refusal is taken for an answer


def test_a_server_that_stops_answering_costs_the_pairs_after_it(
    judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "AT_ONCE", 1)
    judge.reply = lambda _question: completion(FITS) if len({*judge.captions}) <= 2 else None
    result = judged(judge, audited, tmp_path / "answers", 12)
    assert result.summary["judge"]["answered"] == 2
    assert len({*judge.captions}) == 2 + asking.IN_A_ROW
    judge.reply = lambda _question: completion(FITS)
    assert judged(judge, audited, tmp_path / "answers", 12).summary["judge"]["answered"] == 12


def test_a_server_that_is_not_there(audited: tuple[AuditResult, Samples], tmp_path: Path, judge: Judge) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(AuditError, match="the connection fails"):
        ask_judge(plan_questions(*audited, endpoint(url, "m"), tmp_path / "answers", 8))


def test_a_model_without_usable_answers_is_given_up(judge: Judge, tmp_path: Path) -> None:
    scores = audited_manifest(tmp_path, [f"caption {row}" for row in range(60)])
    judge.reply = lambda _question: (200, {}, CUT_OFF)
    code, _, err = run("judge", scores, "--url", judge.url, "--model", "m", "--out", tmp_path / "j.parquet")
    assert code == 2
    assert "longer than 1,000 tokens" in err
    assert len(judge.asked) <= asking.PARSE_TRIES * (asking.UNUSABLE + asking.AT_ONCE)


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


@contextmanager
def raw_server(judge: Judge, *pieces: bytes) -> Iterator[str]:
    """Sends a piece each .1 s to whoever connects, the last one again and again; gives its address."""

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(100)
            for piece in chain(pieces, repeat(pieces[-1])):
                if judge.over.wait(0.1):
                    return
                try:
                    connection.sendall(piece)
                except OSError:
                    return

    def accept() -> None:
        while not judge.over.is_set():
            try:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        judge.over.set()


DRIPS = {
    "nothing": [b""],
    "a header": [b"HTTP/1.1 200 OK\r\nX: ", b"x"],
    "a body": [HEAD + b"Content-Length: 100000\r\n\r\n", b"{"],
    "a body without length": [HEAD + b"\r\n", b"{"],
    "chunks": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"],
}


@pytest.mark.parametrize("pieces", DRIPS.values(), ids=DRIPS)
def test_a_server_that_is_too_slow_is_not_waited_for(
    pieces: list[bytes],
    judge: Judge,
    audited: tuple[AuditResult, Samples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.5)
    begin = time.monotonic()
    with raw_server(judge, *pieces) as url, pytest.raises(AuditError, match="no answer in time"):
        ask_judge(plan_questions(*audited, endpoint(url, "m"), tmp_path / "answers", 1))
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("pieces", DRIPS.values(), ids=DRIPS)
def test_an_interrupt_ends_an_answer_that_is_on_its_way(
    pieces: list[bytes], judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    with raw_server(judge, *pieces) as url:
        questions = plan_questions(*audited, endpoint(url, "m"), tmp_path / "answers", 1)
        begin = time.monotonic()
        interrupt = (threading.main_thread().ident, signal.SIGINT)  # which wakes it up, as Ctrl-C does
        threading.Timer(1, signal.pthread_kill, interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            ask_judge(questions)
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize("size", ["-1", "-5", "ffffffffffffffff", "x", ""])
def test_a_chunk_of_no_possible_size_costs_little(
    size: str, judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 2.0)
    chunk = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size.encode() + b"\r\n" + b"{" * 5_000_000
    begin = time.monotonic()
    with raw_server(judge, chunk, b"") as url, pytest.raises(AuditError, match="no pair was answered"):
        ask_judge(plan_questions(*audited, endpoint(url, "m"), tmp_path / "answers", 1))
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("key", ["EMPTY", "x", "token"])
def test_a_key_that_is_no_secret_costs_no_corrected_caption(
    key: str, judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    judge.reply = lambda _question: completion({**WRONG, "corrected_caption": f"a {key} of noise"})
    result = judged(judge, audited, tmp_path / "answers", 1)
    assert result.columns["judge_caption"][11] == f"a {key} of noise"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that this machine does not trust, with its key."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("there is no openssl to make a certificate")
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    options = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([openssl, *options, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_a_certificate_that_is_not_trusted_gets_nothing(
    certificate: Path, judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    with running_judge(certificate) as secure:
        with pytest.raises(AuditError, match="certificate of 127.0.0.1"):
            judged(secure, audited, tmp_path / "answers")
        assert secure.asked == []


@pytest.mark.parametrize("is_slow", [False, True])
def test_an_encrypted_connection(
    is_slow: bool,
    certificate: Path,
    judge: Judge,
    audited: tuple[AuditResult, Samples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with running_judge(certificate) as secure:
        if not is_slow:
            assert judged(secure, audited, tmp_path / "answers").summary["judge"]["answered"] == 8
            return
        monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.5)
        secure.reply = lambda _question: secure.over.wait(20) and None
        begin = time.monotonic()
        with pytest.raises(AuditError, match="no answer in time"):
            judged(secure, audited, tmp_path / "answers", 1)
        assert time.monotonic() - begin < 10


def test_a_proxy_sees_the_host_and_no_key(
    audited: tuple[AuditResult, Samples], tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = b""
    monkeypatch.setattr(asking, "NETWORK_TRIES", 1)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            nonlocal heard
            connection, _ = server.accept()
            with connection:
                heard = connection.recv(10_000)
                connection.sendall(f"HTTP/1.1 403 {KEY}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://ann:p%40ss@127.0.0.1:{server.getsockname()[1]}")
        to = endpoint("https://judge.invalid/v1", "m")
        with pytest.raises(AuditError) as caught:
            ask_judge(plan_questions(*audited, to, tmp_path / "answers", 1))
        thread.join(5)
    assert heard.startswith(b"CONNECT judge.invalid:443 HTTP/1.")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"ann:p@ss") in heard
    assert KEY.encode() not in heard
    assert KEY not in str(caught.value)


def test_an_interrupt_ends_all_requests_at_once_and_loses_no_answer(
    judge: Judge, audited: tuple[AuditResult, Samples], tmp_path: Path
) -> None:
    def reply(_question: Question) -> Reply:
        if len({*judge.captions}) > 4:
            judge.over.wait(60)
        return completion(FITS)

    def progress(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    judge.reply = reply
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask_judge(plan_questions(*audited, endpoint(judge.url, "vlm"), tmp_path / "answers", 12), progress)
    assert time.monotonic() - begin < 10
    kept, asked = len(list((tmp_path / "answers").rglob("*.json"))), len(judge.asked)
    assert 3 <= kept <= 4
    judge.reply = lambda _question: completion(FITS)
    assert judged(judge, audited, tmp_path / "answers", 12).summary["judge"]["answered"] == 12
    assert len(judge.asked) == asked + 12 - kept
