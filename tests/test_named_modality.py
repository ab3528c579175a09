"""`culprit` and `driver`: named by hand-checked parts, only where a flag says that something is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.named_modality import most_memorized, most_misaligned, named_modalities
from audit_plugin.scoring.reflag import reflag

# Three modalities a, b, c; row 0: a is wrong (b and c agree), row 1: c is wrong, row 2: a part is unknown.
PARTS = {
    "misalignment": np.array([5.0, 4.0, 1.0]),
    "misalignment_a_b": np.array([5.0, 0.0, 1.0]),
    "misalignment_a_c": np.array([4.0, 4.0, np.nan]),
    "misalignment_b_c": np.array([0.0, 3.0, np.nan]),
    "multimem_due_a": np.array([2.0, 0.5, 1.0]),
    "multimem_due_b": np.array([1.0, 1.0, 1.0]),
    "multimem_due_c": np.array([0.0, 3.0, np.nan]),
}


def flags(**raised: list[int]) -> dict[str, np.ndarray]:
    return {kind: np.isin(np.arange(3), raised.get(kind, [])) for kind in FLAGS}


def test_the_modality_without_which_the_rest_agrees() -> None:
    # without a: max(b_c) = 0, without b: 4, without c: 5; row 1: 3, 4, 0; row 2: nothing known without a
    assert most_misaligned(PARTS, ("a", "b", "c")).tolist() == ["a", "c", ""]
    assert most_memorized(PARTS, ("a", "b", "c")).tolist() == ["a", "c", ""]


def test_nothing_is_named_where_no_flag_says_that_something_is_wrong() -> None:
    nothing = named_modalities(PARTS, flags())
    assert nothing["culprit"].tolist() == nothing["driver"].tolist() == ["", "", ""]
    some = named_modalities(PARTS, flags(misaligned=[0], conflict=[1], memorized=[1], outlier=[0, 1, 2]))
    assert some["culprit"].tolist() == ["a", "c", ""]
    assert some["driver"].tolist() == ["", "c", ""]


def test_of_two_modalities_either_may_be_wrong() -> None:
    two = {"misalignment": PARTS["misalignment"], "misalignment_a_b": PARTS["misalignment_a_b"]}
    every = flags(misaligned=[0, 1, 2], memorized=[0, 1, 2])
    assert named_modalities(two, every)["culprit"].tolist() == ["", "", ""]
    assert most_misaligned(PARTS, ("a", "b")).tolist() == most_memorized(PARTS, ("a", "b")).tolist() == ["", "", ""]


@pytest.mark.parametrize("kind", ["misaligned", "memorized"])
def test_another_threshold_names_what_it_flags_and_takes_back_what_it_does_not(kind: str) -> None:
    column = {"misaligned": "culprit", "memorized": "driver"}[kind]
    columns = {
        **PARTS,
        **{f"is_{name}": raised for name, raised in flags(**{kind: [0]}).items()},
        **{name: np.array(["a" if name == column else "", "", ""], dtype=object) for name in ("culprit", "driver")},
        "action": np.array(["keep"] * 3, dtype=object),
    }
    changed = reflag(columns, {f"is_{kind}": np.array([False, True, False])})
    assert changed[column].tolist() == ["", "c", ""]
    other = {"culprit": "driver", "driver": "culprit"}[column]
    assert changed[other].tolist() == ["", "", ""]
    columns.pop("culprit")
    assert "culprit" not in reflag(columns, {f"is_{kind}": np.array([False, True, False])})
