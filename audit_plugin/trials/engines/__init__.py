"""Where pieces of work run: one by one in this process, or on the workers of Ray, with the same results."""

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

from .workers import EncoderRecipe

__all__ = ["LOCAL", "EncoderRecipe", "Engine", "opened"]

Work = Callable[[Any], Any]


@dataclass(frozen=True)
class Engine:
    """Where pieces of work run.

    Attributes:
        encoding: (how encoders are loaded, modality -> encoder's identity) -> a function that encodes contents in
            other processes, or None: in this process.
        search: (vectors, k, device, seed, progress) -> as `neighbors.nearest_neighbors`.
        each: (function, items) -> (item, the function's value), as they finish. The function must not depend on
            earlier calls, since it may run in any process, and again where one died.
    """

    encoding: Callable[[EncoderRecipe, Mapping[str, EncoderIdentity]], Encode | None]
    search: Callable[[Floats, int, str, int, Callable[[int, int], None]], SearchResult]
    each: Callable[[Work, Iterable[Any]], Iterator[tuple[Any, Any]]]


LOCAL = Engine(
    lambda _recipe, _identities: None,
    nearest_neighbors,
    lambda function, items: ((item, function(item)) for item in items),
)


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
