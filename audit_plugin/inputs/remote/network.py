"""Talks to remote storage through fsspec: opens it, tries again where the network failed, and says what went wrong.

Messages of libraries may repeat addresses with their secrets: none is passed on as it is, nor as a cause.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.threads import StoppedError
from audit_plugin.store import causes_of, plain_error

from .addresses import WEB, shown

Result = TypeVar("Result")

CONNECT_SECONDS, SILENT_SECONDS = 20.0, 60.0  # of web servers; other storage has limits of its own
WAITS = (1.0, 4.0)  # seconds before the second and the third try
AGAIN = "run the same command again: what was fetched is kept"
# Protocol -> the package that speaks it, where its name differs from that of the module in fsspec's table.
PACKAGES = {"http": "aiohttp", "https": "aiohttp"}
HOSTS = {"hf": "huggingface.co"}  # of storage whose addresses name none
CREDENTIALS = {
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public bucket FSSPEC_S3_ANON=true",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS; for a public bucket FSSPEC_GCS_TOKEN=anon",
    "hf": "HF_TOKEN",
    "http": "a user and password, or a signature, in the address",
}
CREDENTIALS |= {"s3a": CREDENTIALS["s3"], "gcs": CREDENTIALS["gs"], "https": CREDENTIALS["http"]}
# Names of exceptions that packages raise when a server cannot be reached, or breaks off.
_FAILED = re.compile(
    r"Timeout|Connect|Disconnect|Payload|EndpointConnection|IncompleteRead|ProtocolError|SSL|DNS|gaierror"
)


class UnavailableError(Exception):
    """One file cannot be had, and the others may; the message says why."""


class MissingError(UnavailableError):
    """There is no such file."""


class NotWholeError(ConnectionError):
    """What arrived of a file is not what the storage told; the message says how."""


def opened(protocol: str, url: str) -> tuple[Any, str]:
    """(the file system of fsspec, the path of an address in it).

    Raises:
        AuditError: the protocol is not known, or its package is missing.
    """
    import fsspec
    from fsspec.core import url_to_fs

    options: dict[str, Any] = {"skip_instance_cache": True}  # what it once listed may have changed
    try:
        fsspec.get_filesystem_class(protocol)
        if protocol in WEB:
            options |= _web_options()
        file_system, path = url_to_fs(url, **options)
    except ImportError:
        raise _missing(protocol) from None
    except ValueError:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "hf", "https"))
        raise AuditError(f"{protocol}:// is no storage that fsspec knows; it knows {known} and others") from None
    except Exception as error:  # each package checks its settings in its own way
        raise AuditError(f"{shown(url)} cannot be opened ({_scrubbed(error)}); {_remedy(protocol)}") from None
    return file_system, path


def _missing(protocol: str) -> AuditError:
    from fsspec.registry import known_implementations

    module = known_implementations[protocol]["class"].partition(".")[0]
    package = PACKAGES.get(protocol, module)
    extra = 'pip install "audit-plugin[remote]", or ' if protocol in CREDENTIALS else ""
    if package == "fsspec":  # of some protocols only fsspec's own sentence names what it needs
        return AuditError(f"{protocol}:// needs another package: {known_implementations[protocol].get('err', '')}")
    return AuditError(f"{protocol}:// needs the package {package}: {extra}pip install {package}")


def _web_options() -> dict[str, Any]:
    """Limits of silence instead of one for a whole file, the user's proxies, and what FSSPEC_HTTP sets."""
    import aiohttp
    from fsspec.config import conf

    own = {**conf.get("http", {}), **conf.get("https", {})}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return {
        "headers": {"Accept-Encoding": "identity", **own.get("headers", {})},  # so that sizes are those of files
        "client_kwargs": {"timeout": timeout, "trust_env": True, **own.get("client_kwargs", {})},
    }


def attempted(call: Callable[[], Result], url: str) -> Result:
    """What `call` returns; where the network fails, it is called again.

    Args:
        call: reads something from the storage.
        url: what it reads, for messages.

    Raises:
        UnavailableError: the storage says that there is no such thing, or that it may not be read.
        AuditError: it cannot be reached, or does not answer as it should.
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except (AuditError, StoppedError, UnavailableError):
            raise
        except Exception as error:
            if sentence := plain_error(error):  # this machine's disk or memory
                raise AuditError(sentence) from None
            kind, what = _judged(error)
            if kind == "network" and wait is not None:
                time.sleep(wait)
                continue
            raise _sentence(kind, what, shown(url)) from None
    raise AssertionError  # the last try returns or raises


def _sentence(kind: str, what: str, url: str) -> Exception:
    protocol, _, rest = url.partition("://")
    if kind == "missing":
        return MissingError(f"{url!r} does not exist")
    if kind == "denied":
        return UnavailableError(f"{url!r} may not be read ({what}); {_remedy(protocol)}")
    if kind == "network":
        tries = len(WAITS) + 1
        host = HOSTS.get(protocol) or rest.partition("/")[0]
        return AuditError(
            f"{host} cannot be reached, or breaks off ({what}, {tries} tries, at {url}); check the network, and {AGAIN}"
        )
    return UnavailableError(f"{url!r} cannot be read ({what})")


def _remedy(protocol: str) -> str:
    names = CREDENTIALS.get(protocol, "those that its package for fsspec names")
    return f"check the address and your credentials ({names})"


def _judged(error: Exception) -> tuple[str, str]:
    """(missing, denied, network or other; what happened) of an error of any package."""
    causes = list(causes_of(error))
    status = next(filter(None, map(_status, causes)), 0)
    if status >= 400:
        kinds = {404: "missing", 410: "missing", 401: "denied", 403: "denied", 407: "denied"}
        kinds |= dict.fromkeys((408, 429, 502, 503, 504), "network")  # a busy server, or one in between
        return kinds.get(status, "other"), f"status {status}"
    for cause in causes:
        name = type(cause).__name__
        if isinstance(cause, NotWholeError):
            return "network", str(cause)
        if isinstance(cause, PermissionError) or "Credential" in name or "Auth" in name:
            return "denied", "no permission" if isinstance(cause, PermissionError) else name
        if isinstance(cause, ConnectionError | TimeoutError) or _FAILED.search(name):
            return "network", "no answer in time" if "Timeout" in name else "connection failed"
    is_missing = any(isinstance(cause, FileNotFoundError) for cause in causes)
    return ("missing", "") if is_missing else ("other", _scrubbed(error))


def _status(error: BaseException) -> int:
    """The status of HTTP that an exception of aiohttp, requests or gcsfs carries; 0 for none."""
    is_of_gcsfs = type(error).__name__ == "HttpError"  # elsewhere `code` has other meanings
    value = error.code if is_of_gcsfs and hasattr(error, "code") else getattr(error, "status", None)
    value = value or getattr(getattr(error, "response", None), "status_code", None)
    return int(value) if isinstance(value, int | str) and str(value).isdigit() else 0


def _scrubbed(error: BaseException) -> str:
    """Type and message of an error in one line, without words that may be addresses, keys or signatures."""
    words = str(error).split()[:20]
    plain = [word if len(word) <= 30 and not re.search(r"[/=@?&]", word) else "…" for word in words]
    return " ".join([f"{type(error).__name__}:", *plain]).removesuffix(":")[:160]
