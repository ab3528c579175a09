"""What is passed is checked at the door: what is right is given back, what is not is named in a short sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.review import check_name, check_path, check_seconds, check_text, check_whole, shortened

CHECKS = {"name": check_name, "text": check_text, "whole": check_whole, "seconds": check_seconds, "path": check_path}
ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=9) | st.text(st.characters())
    | st.lists(st.integers(), max_size=3) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
)  # fmt: skip


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def outcome(check: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    """What a check gives back, or its error."""
    try:
        return check(name, value)
    except AuditError as error:
        return error


@given(ANYTHING)
def test_whatever_is_passed_comes_back_or_is_refused_in_a_short_sentence(value: Any) -> None:
    for name, check in CHECKS.items():
        found = outcome(check, name, value)
        if isinstance(found, AuditError):
            assert str(found).startswith(name)
            assert len(str(found)) < 200
            assert "\n" not in str(found)
            str(found).encode("utf-8")
        else:
            assert found == (Path(value) if name == "path" else value)


def test_a_value_is_shown_in_short() -> None:
    for value in (10**5000, Odd(), "x" * 10**6, ["y" * 1000] * 1000, {"\ud800": Odd()}):
        assert len(shortened(value)) < 400
        shortened(value).encode("utf-8")


def test_numbers_by_hand() -> None:
    assert check_whole("n", np.int64(7)) == 7
    assert check_whole("n", 2**31 - 1) == 2**31 - 1
    assert check_seconds("s", np.float32(0.5)) == 0.5
    assert check_seconds("s", 10**9) == 1e9
    for value in (2**31, -1, True, 1.0, "1", None, np.float64(1)):
        with pytest.raises(AuditError, match="^n "):
            check_whole("n", value)
    for value in (math.nan, math.inf, -0.1, 2e9, "1", True, None, 1j):
        with pytest.raises(AuditError, match="^s "):
            check_seconds("s", value)


def test_texts_by_hand() -> None:
    assert check_text("t", "a\0\ud800\u202e\n") == "a\0\ud800\u202e\n"  # captions may be hostile
    assert check_name("n", "\x1b[31mb\u00f6b \u202e") == "\x1b[31mb\u00f6b \u202e"
    assert check_path("p", "a/\udc80") == Path("a/\udc80")  # the bytes of a name that is not UTF-8
    for value in ("a\0", "\ud800", "\udc80", "x" * 1001):
        with pytest.raises(AuditError, match="^n "):
            check_name("n", value)
    for value in ("a\0", "\ud800", "", b"a"):
        with pytest.raises(AuditError, match="^p "):
            check_path("p", value)
