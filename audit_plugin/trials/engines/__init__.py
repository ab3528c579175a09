"""Where pieces of work run: one by one in this process, or on the workers of Ray. What comes out is the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from audit_plugin.arrays import Floats
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.embed import Encode
from audit_plugin.neighbors import SearchResult, nearest_neighbors

from .workers import Recipe

__all__ = ["LOCAL", "Engine", "Recipe", "opened"]

Work = Callable[[Any], Any]


@dataclass(frozen=True)
class Engine:
    """Where pieces of work run.

    Attributes:
        encoding: recipe of the encoders, modality -> their identities -> what encodes contents in other processes, or
            None: in this process.
        search: as `neighbors.nearest_neighbors`.
        each: function, items -> (item, what the function makes of it), as they are finished. The function must not
            depend on what it did before, since it may run in any process, and again where one died.
    """

    encoding: Callable[[Recipe, Mapping[str, EncoderIdentity]], Encode | None]
    search: Callable[[Floats, int, str, int, Callable[[int, int], None]], SearchResult]
    each: Callable[[Work, Iterable[Any]], Iterator[tuple[Any, Any]]]


def _one_by_one(function: Work, items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    return ((item, function(item)) for item in items)


LOCAL = Engine(lambda _recipe, _who: None, nearest_neighbors, _one_by_one)


@contextlib.contextmanager
def opened(config: AuditConfig) -> Iterator[Engine]:
    """The engine that the config names.

    Raises:
        AuditError: Ray is not installed, does not answer, or gave up on a piece of work.
    """
    if config.engine == "local":
        yield LOCAL
        return
    from .cluster import ray_engine

    with ray_engine(config.device) as engine:
        yield engine
