"""Asks an OpenAI-compatible server: where to, with which key, how often, and for how long.

Nothing that a server sends is shown or passed on but an answer's text: errors are told by their status, since the body
of one may repeat the key. No redirect is followed, so that key and images go to the named host only.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import ipaddress
import json
import math
import os
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.spreadsheet import clean
from audit_plugin.inputs.threads import ReadingThreads

from .answers import SCHEMA, Answer, UnusableError, parse_answer, question

KEY_VARIABLE = "AUDIT_JUDGE_KEY"
AT_ONCE = 4  # requests
CONNECT_SECONDS = 20.0
ANSWER_SECONDS = 300.0  # from the first byte that is sent to the last one that is read: a small machine takes minutes
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try, where the server names no time
MOST_WAIT = 60.0  # seconds, whatever the server says
NETWORK_TRIES = 3
PARSE_TRIES = 2
MOST_BYTES, PIECE = 1 << 20, 1 << 16  # of an answer
MOST_TOKENS = 1000
SECRET_LENGTH = 16  # characters of a key, from which on it may be a secret
IN_A_ROW = 3  # pairs that got no answer for want of the server: then it is given up
UNUSABLE = 10  # pairs with no usable answer before the first one that has: then the others are not asked
AGAIN = "run the same command again: the answers that came are kept"
# What is sent beside model and messages. Servers differ in what they know: one that refuses is asked for less.
FORMAT = {"type": "json_schema", "json_schema": {"name": "judgment", "strict": True, "schema": SCHEMA}}
FORMS: tuple[dict[str, Any], ...] = (
    {"temperature": 0, "max_tokens": MOST_TOKENS, "response_format": FORMAT},
    {"temperature": 0, "max_tokens": MOST_TOKENS},
    {},
)
_REFUSED = (400, 415, 422)  # perhaps for what is sent beside the messages
_BUSY = (408, 409, 425, 429)
_REMEDIES = {401: f"check {KEY_VARIABLE}", 402: "check your account", 404: "check --url and --model"}


class _UnavailableError(Exception):
    """The server did not answer, or was busy, at every try; the message says how."""


class _RefusedError(Exception):
    """The server takes a request in no form; the message says how."""


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask; see `endpoint`. The key is shown nowhere."""

    host: str
    port: int
    path: str
    model: str
    is_secure: bool
    key: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def endpoint(url: str, model: str, allow_http: bool = False) -> Endpoint:
    """The chat completions of a server, with the key of the environment variable `AUDIT_JUDGE_KEY` if it is set.

    Args:
        url: of the API, such as `http://localhost:8000/v1` or `https://api.example.com/v1`.
        model: as the server names it.
        allow_http: images, captions and key may go to another machine unencrypted.

    Raises:
        AuditError: the address or the key cannot be used.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urllib.parse.urlsplit("")
    if parts.scheme not in ("http", "https") or not host or not (url.isascii() and url.isprintable()) or " " in url:
        raise AuditError("the address of the judge cannot be read; write it as in https://api.example.com/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise AuditError(
            f"the address of the judge holds a user, query or fragment; name it without, and the key in {KEY_VARIABLE}"
        )
    is_secure = parts.scheme == "https"
    if not is_secure and not _is_this_machine(host) and not allow_http:
        raise AuditError(
            f"http:// would send images, captions and key to {host} unencrypted; use https://, or allow it with "
            "--allow-http"
        )
    if not model or len(model) > 200 or not model.isprintable():
        raise AuditError("the model of the judge has no name that can be used; name it as the server does")
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or any(not sign.isprintable() or sign == " " for sign in key):
        raise AuditError(f"{KEY_VARIABLE} holds characters that no key has; set it again")
    path = parts.path.rstrip("/")
    path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
    return Endpoint(host, (443 if is_secure else 80) if port is None else port, path, model, is_secure, key)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ask_all(
    to: Endpoint, pairs: Sequence[tuple[str, str]], keep: Callable[[int, Answer], None]
) -> Generator[tuple[int, Answer], None, None]:
    """(position, answer) of each pair (image, caption), as they come, `AT_ONCE` at once; usable or not.

    Once `IN_A_ROW` pairs got no answer for want of the server, the others are not asked. Leaving the loop early, by an
    interrupt, ends all requests.

    Args:
        to: whom to ask.
        pairs: path of an image, and its caption.
        keep: called with each usable answer as soon as it is there; in several threads.

    Raises:
        AuditError: the server refuses all requests alike.
    """
    with ReadingThreads(AT_ONCE) as threads:
        asker = _Asker(to, threads)

        def ask(position: int) -> Answer:
            answer = asker.ask(*pairs[position])
            if answer.fits is not None:  # a server that answers something else may be the wrong one, or recover
                keep(position, answer)
            return answer

        tasks = {threads.submit(ask, position): position for position in range(len(pairs))}
        for task in as_completed(tasks):
            yield tasks[task], task.result()


class _Asker:
    """Asks in several threads, which learn together what the server takes and whether it answers at all."""

    def __init__(self, to: Endpoint, threads: ReadingThreads) -> None:
        self.to, self.threads = to, threads
        self.form = 0  # of `FORMS`, the first that the server took
        self.has_answered = False
        self.missed = 0  # pairs in a row
        self.is_of_use = False  # there was a usable answer
        self.unusable = 0  # pairs before it

    def ask(self, image: str, caption: str) -> Answer:
        """The answer, or why there is none."""
        if failure := self._given_up():
            return Answer(failure=f"not asked: {failure}")
        try:
            messages = question(image, caption)
            for _ in range(PARSE_TRIES):
                try:
                    answer = parse_answer(self._content(messages), caption)
                    self.is_of_use = True
                    return self._without_key(answer)
                except UnusableError as error:
                    failure = str(error)
        except MediaError as error:
            return Answer(failure=f"not asked: {error}")
        except _UnavailableError as error:
            self.missed += 1
            return Answer(failure=str(error))
        except _RefusedError as error:  # of one pair, by a filter of contents, or of all of them
            self.missed += not self.has_answered
            return Answer(failure=str(error))
        self.unusable += 1
        return Answer(failure=failure)

    def _given_up(self) -> str:
        """Why no more pairs are asked about; "" while they are."""
        if self.missed >= IN_A_ROW:
            return "the judge stopped answering"
        if self.unusable >= UNUSABLE and not self.is_of_use:
            return f"none of the first {UNUSABLE} answers could be used"
        return ""

    def _without_key(self, answer: Answer) -> Answer:
        """A server knows the key, and could write it into our result; short ones, such as "EMPTY", are no secrets."""
        key = self.to.key
        if len(key) < SECRET_LENGTH or key not in "".join(answer.caption.split()):
            return answer
        return replace(answer, caption="")

    def _content(self, messages: list[dict[str, Any]]) -> str:
        """The text of an answer; asks for less where the server refuses what stands beside the messages."""
        for form in range(self.form, len(FORMS)):
            body = json.dumps({"model": self.to.model, "messages": messages, **FORMS[form]}).encode()
            status, data = self._persistently(body)
            if status == 200:
                if not self.has_answered:  # later, a refusal is one of a pair's contents
                    self.form = form
                self.has_answered, self.missed = True, 0
                return _text_of(data)
            if status not in _REFUSED:
                break
        raise _RefusedError(f"refused (status {status})")

    def _persistently(self, body: bytes) -> tuple[int, bytes]:
        """(status, body) once the server is neither busy nor out of reach.

        Raises:
            _UnavailableError: it stays so.
            AuditError: it would refuse every pair.
        """
        lost = 0
        for wait in (*WAITS, None):
            try:
                status, named_wait, data = self._exchange(body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.threads.check()
                if isinstance(error, ssl.SSLCertVerificationError):
                    raise AuditError(f"the certificate of {self.to.name} is not valid; check --url") from None
                lost, named_wait, what = lost + 1, 0.0, _network_error(error)
                if lost == NETWORK_TRIES or isinstance(error, TimeoutError):  # a slow model stays slow
                    raise _UnavailableError(what) from None
            else:
                if 300 <= status < 400:
                    raise AuditError(
                        f"{self.to.name} redirects elsewhere, which is not followed; name that --url itself"
                    )
                if status in _REMEDIES:
                    raise AuditError(f"{self.to.name} refuses (status {status}); {_REMEDIES[status]}, and {AGAIN}")
                if status not in _BUSY and status < 500:
                    return status, data
                what = f"status {status}"
            if wait is None:
                raise _UnavailableError(what)
            self._sleep(min(max(wait, named_wait), MOST_WAIT))
        raise AssertionError  # the last try returns or raises

    def _sleep(self, seconds: float) -> None:
        stopped = threading.Event()
        with _ended_by(self.threads, stopped.set):
            stopped.wait(seconds)
        self.threads.check()

    def _exchange(self, body: bytes) -> tuple[int, float, bytes]:
        """(status, seconds to wait, body) of one request; the body of an error is not read."""
        connection = _connection(self.to)
        is_overdue = threading.Event()
        opened: list[socket.socket] = []  # the connection forgets its own before it reads an answer's body

        def end() -> None:
            for open_socket in opened:  # whoever reads or writes wakes up; close() would not wake it
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

        def end_late() -> None:
            is_overdue.set()
            end()

        # a server that sends a byte now and then never runs into the limit of a single read
        watch = threading.Timer(ANSWER_SECONDS, end_late)
        watch.daemon = True
        try:
            with _ended_by(self.threads, end):
                connection.connect()
                opened.append(connection.sock)
                self.threads.check()
                connection.sock.settimeout(ANSWER_SECONDS)
                watch.start()
                connection.request("POST", self.to.path, body, _headers(self.to))
                response = connection.getresponse()
                if response.status != 200:
                    return response.status, _named_wait(response.getheader("Retry-After", "")), b""
                data = _beginning(response)
                if is_overdue.is_set():
                    raise TimeoutError
                if len(data) <= MOST_BYTES and response.length:
                    raise ConnectionError("breaks off")
                return 200, 0.0, data
        except (OSError, http.client.HTTPException, ValueError):
            if is_overdue.is_set():
                raise TimeoutError from None
            raise
        finally:
            watch.cancel()
            connection.close()


def _beginning(response: http.client.HTTPResponse) -> bytes:
    """Up to `MOST_BYTES` of a body and a little more, piece by piece: the sizes that a server names may be wrong."""
    data = bytearray()
    while len(data) <= MOST_BYTES and (piece := response.read1(PIECE)):
        data += piece
    return bytes(data)


class _ended_by:  # noqa: N801 (used like a function)
    """While it is open, giving up the work calls `end`."""

    def __init__(self, threads: ReadingThreads, end: Callable[[], None]) -> None:
        self.threads, self.end = threads, end

    def __enter__(self) -> None:
        self.threads.add(self.end)

    def __exit__(self, *_: object) -> None:
        self.threads.discard(self.end)


def _connection(to: Endpoint) -> http.client.HTTPConnection:
    """Not connected yet. Encrypted ones pass the user's proxy, which sees the host only; others never do."""
    if not to.is_secure:
        return http.client.HTTPConnection(to.host, to.port, timeout=CONNECT_SECONDS)
    context = ssl.create_default_context()
    proxy = "" if urllib.request.proxy_bypass(to.host) else urllib.request.getproxies().get("https", "")
    if not proxy:
        return http.client.HTTPSConnection(to.host, to.port, timeout=CONNECT_SECONDS, context=context)
    place = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    through = http.client.HTTPSConnection(
        place.hostname or "", place.port or 80, timeout=CONNECT_SECONDS, context=context
    )
    login = f"{urllib.parse.unquote(place.username or '')}:{urllib.parse.unquote(place.password or '')}"
    basic = {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if place.username else {}
    through.set_tunnel(to.host, to.port, headers=basic)
    return through


def _headers(to: Endpoint) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
    return headers | ({"Authorization": f"Bearer {to.key}"} if to.key else {})


def _text_of(data: bytes) -> str:
    """The text of the first choice.

    Raises:
        UnusableError: the body is too large, or not that of a chat completion.
    """
    if len(data) > MOST_BYTES:
        raise UnusableError(f"the answer has more than {MOST_BYTES:,} bytes")
    try:
        choice = json.loads(data)["choices"][0]
        content, is_cut = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise UnusableError("the answer is no chat completion") from None
    if is_cut:
        raise UnusableError(f"the answer is longer than {MOST_TOKENS:,} tokens: a model that reasons first needs more")
    if not isinstance(content, str):
        raise UnusableError("the answer is no text")
    return content


def _named_wait(text: str) -> float:
    """Seconds of a `Retry-After`, which is a number or a date; 0 where it cannot be read."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _network_error(error: Exception) -> str:
    """Our own words: those of a library may repeat what a server or proxy sent."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no such host, or no network"
    return clean(f"the connection fails ({type(error).__name__})")
