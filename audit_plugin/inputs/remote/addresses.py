"""Addresses of remote storage: what is one, what of it is secret, and where its pattern begins."""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.rows import brief

LOCAL = ("file", "local")
WEB = ("http", "https")
NO_USER = ("github", "git", "hf")  # where @ stands before a revision
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")
_PATTERN = re.compile(r"[*?\[]|\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}")
_WEB_PATTERN = re.compile(r"[*\[]|\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}")  # ? begins a query
_HOST = re.compile(r"[^:@\[\]]*(:\d*)?|\[[0-9a-fA-F:.]+\](:\d*)?")


@dataclass(frozen=True)
class Address:
    """An address that a user named, in its parts.

    Attributes:
        protocol: in small letters.
        folder: the address of the folder, with a user and password where there are any, without a slash at the end.
        name: of the file in it, or a pattern from it on; "" where the folder itself is meant.
        query: of a web address, with its question mark.
    """

    protocol: str
    folder: str
    name: str
    query: str = ""

    @property
    def url(self) -> str:
        return f"{self.folder}/{self.name}{self.query}" if self.name else self.folder

    @property
    def local_name(self) -> str:
        """The name, or pattern, as it is on a disk."""
        return urllib.parse.unquote(self.name) if self.protocol in WEB else self.name

    @property
    def is_pattern(self) -> bool:
        return bool(_pattern_of(self.protocol).search(self.name))


def is_remote(source: str | Path) -> bool:
    """Whether a source is an address of remote storage, such as `s3://bucket/pairs.csv`, and no path.

    Raises:
        AuditError: it was one, and lost a slash.
    """
    text = str(source)
    if isinstance(source, Path) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/[^/]", text) and not os.path.lexists(source):
        raise AuditError(
            f"a Path cannot hold the address {brief(shown(text.replace(':/', '://', 1)))}; pass it as text"
        )
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme[1].lower() not in LOCAL


def shown(url: str) -> str:
    """An address without what may be secret: a user with a password, and the query of a web address."""
    protocol, _, rest = url.partition("://")
    protocol = protocol.lower()
    if protocol in WEB:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    if protocol not in NO_USER:
        host = host.rpartition("@")[2]
    return f"{protocol}://{host}{slash}{path}"


def name_of(source: str | Path) -> str:
    """The name by which a summary records a source: an absolute path, or an address without secrets."""
    return shown(str(source)) if is_remote(source) else os.path.abspath(source)


def parsed(url: str) -> Address:
    """The parts of an address.

    Raises:
        AuditError: it is a chain of several, or cannot be read.
    """
    protocol, _, rest = url.partition("://")
    protocol, query = protocol.lower(), ""
    if protocol in WEB:
        query = urllib.parse.urlsplit(url).query
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
        host, _, path = rest.partition("/")
        is_cut = ":" in host and "@" in path.partition("/")[0]  # by a slash in a password
        if not host or not _HOST.fullmatch(host.rpartition("@")[2]) or is_cut:
            raise AuditError(
                f"the {protocol} address names no host that can be read; write signs such as / : @ in a user or "
                "password as %2F %3A %40"
            )
    if "::" in rest or "\0" in rest:
        raise AuditError(f"{brief(shown(url))} is more than one address; name a file or folder of one storage")
    base = rest.rstrip("/")
    pattern = _pattern_of(protocol).search(rest)
    if pattern:
        folder = rest[: pattern.start()].rpartition("/")[0]
        name = rest[len(folder) + 1 :]
    elif rest.endswith("/") or "/" not in base:
        folder, name = base, ""
    else:
        folder, _, name = base.rpartition("/")
    if not folder:
        raise AuditError(f"{brief(shown(url))} names no folder to begin in; name a bucket or a host")
    return Address(protocol, f"{protocol}://{folder}", name, f"?{query}" if query and name else "")


def _pattern_of(protocol: str) -> re.Pattern[str]:
    return _WEB_PATTERN if protocol in WEB else _PATTERN


def below(folder: str, address: str) -> str:
    """The path from a folder of what a storage lists or a manifest names, "" where it does not lie below.

    Args:
        folder: address of the folder, as `address` begins where it lies in it.
        address: of a file.
    """
    start = folder.rstrip("/") + "/"
    if not address.startswith(start):
        return ""
    path = address[len(start) :]
    if folder.partition("://")[0].lower() in WEB:
        path = "" if re.search(r"[?#]", path) else urllib.parse.unquote(path)
    return path if stays_below(path) else ""


def stays_below(path: str) -> bool:
    """Whether a relative path leads to a file below where it begins, on each system."""
    return all(part not in ("", ".", "..") and "\0" not in part and "\\" not in part for part in path.split("/"))


def within(folder: str, path: str) -> str:
    """The address of a file that lies at a relative path in a folder."""
    is_web = folder.partition("://")[0].lower() in WEB
    return f"{folder.rstrip('/')}/{urllib.parse.quote(path) if is_web else path}"
