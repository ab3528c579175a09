"""A web server of this machine with the faults that servers have, and a storage in memory."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import html
import re
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What a server has and does; a test changes it while the server runs.

    Attributes:
        files: path -> content.
        links: path of a folder -> what its page links to, in place of what is there.
        status: path -> status in place of the content.
        cut: path -> how often its content breaks off in the middle.
        stalled: paths whose content stops in the middle and never goes on.
        user: `user:password` that every request must carry, "" for none.
        signature: query that every request of a file must carry, "" for none.
        ranges: parts of files are served.
        tells_ranges: whether they are, it tells.
        versions: `ETag` and `Last-Modified` are told.
        sizes: `Content-Length` is told.
        asked: (method, path) -> requests.
        broken: (path, first byte) -> how often a part of a file breaks off in the middle.
        becomes: (path, first byte) -> new content of the file, once this part is asked for.
        parts: (path, first byte) -> requests of parts of files.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, list[str]] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    cut: Counter[str] = field(default_factory=Counter)
    stalled: set[str] = field(default_factory=set)
    user: str = ""
    signature: str = ""
    ranges: bool = True
    tells_ranges: bool = True
    versions: bool = True
    sizes: bool = True
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: Counter[tuple[str, int]] = field(default_factory=Counter)
    becomes: dict[tuple[str, int], bytes] = field(default_factory=dict)
    parts: Counter[tuple[str, int]] = field(default_factory=Counter)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def fetched(self) -> dict[str, int]:
        """Path -> how often its content was asked for."""
        return {path: count for (method, path), count in self.asked.items() if method == "GET"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.answer("HEAD")

    def do_GET(self) -> None:
        self.answer("GET")

    def answer(self, method: str) -> None:
        site = self.site
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        site.asked[method, path] += 1
        token = "Basic " + base64.b64encode(site.user.encode()).decode()
        if site.user and self.headers.get("Authorization") != token:
            return self.refuse(401)
        if site.signature and address.query != site.signature and not path.endswith("/"):
            return self.refuse(403)
        if path in site.status:
            return self.refuse(site.status[path])
        if path.endswith("/"):
            return self.page(method, path)
        if path not in site.files:
            return self.refuse(404)
        return self.content(method, path)

    def refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def page(self, method: str, path: str) -> None:
        names = self.site.links.get(path)
        if names is None:
            below = [name[len(path) :] for name in self.site.files if name.startswith(path)]
            names = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in below})
            names = ["../", "?C=N;O=D", *map(urllib.parse.quote, names)]
        body = "".join(f'<a href="{html.escape(name)}">x</a>\n' for name in names).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if method == "GET":
            self.wfile.write(body)

    def content(self, method: str, path: str) -> None:
        site, data = self.site, self.site.files[path]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and site.ranges:
            start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            data = data[start:end]
            site.parts[path, start] += 1
            site.files[path] = site.becomes.pop((path, start), site.files[path])
            if site.broken[path, start] > 0:
                site.broken[path, start] -= 1
                site.cut[path] += 1
        else:
            self.send_response(200)
        if site.versions:
            self.send_header("ETag", f'"{hashlib.md5(site.files[path]).hexdigest()}"')
            self.send_header("Last-Modified", email.utils.formatdate(0, usegmt=True))
        if site.tells_ranges:
            self.send_header("Accept-Ranges", "bytes" if site.ranges else "none")
        if site.sizes:
            self.send_header("Content-Length", str(len(data)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if method == "HEAD":
            return
        if path in site.stalled:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            site.over.wait(30)
            self.close_connection = True
        elif site.cut[path] > 0:
            site.cut[path] -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Site]:
    """A server on a free port of this machine, until the block is left."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Returns as soon as a condition holds; fails where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
