"""Every hostile value in every parameter of every operator of the App: each request ends in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.conftest import Chaos
from tests.test_operator_parameters import CHOSEN, HOSTILE, attack, dataset, fields_of, operators

pytestmark = [pytest.mark.fiftyone, pytest.mark.timeout(3000)]
__all__ = ["attack", "dataset"]  # fixtures


def test_every_hostile_value_in_every_parameter(
    chaos: Chaos, dataset: Any, attack: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """In the short form one operator, since `test_operator_parameters` sends some values to each of them."""
    cases = tracebacks = 0
    for name in operators() if chaos.is_long else ["decide"]:
        for field in fields_of(dataset, name):
            for number, value in enumerate(HOSTILE):
                cases += 1
                try:
                    attack(name, {**CHOSEN.get(name, {}), field: value})
                except AssertionError as error:
                    tracebacks += 1
                    caplog.clear()
                    print(f"{name} {field}, value {number}: {str(error)[:1000]}")  # noqa: T201
    chaos.record("hostile_parameters", cases, "hostile inputs", tracebacks=tracebacks)
