"""Two audits side by side: counted by hand, against sets, and against scipy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import spearmanr

from audit_plugin.arrays import AuditError
from audit_plugin.report.display import show_comparison
from audit_plugin.review.comparison import ANY, compare
from audit_plugin.scoring.flags import FLAGS


def audit(ids: str, misaligned: str = "", outlier: str = "", failed: str = "", **scores: Any) -> dict[str, Any]:
    """Columns of an audit whose rows are called by single letters."""
    return {
        "id": list(ids),
        "is_misaligned": [name in misaligned for name in ids],
        "is_outlier": [name in outlier for name in ids],
        "failure": ["file not found" if name in failed else "" for name in ids],
        **scores,
    }


def names(keys: tuple[tuple[str, int], ...]) -> str:
    return "".join(name for name, _ in keys)


def test_what_became_of_each_row():
    before = audit("abcdefg", misaligned="abeg", outlier="ac")
    after = audit("gfdcbaxy", misaligned="bdy", outlier="a", failed="g")
    found = compare(before, after)
    change = found.kinds["misaligned"]
    assert [names(k) for k in (change.fixed, change.still, change.newly)] == ["a", "b", "d"]
    assert [names(k) for k in (change.gone, change.added, change.unknown)] == ["e", "y", "g"]
    assert names(found.kinds["outlier"].fixed) == "c"
    both = found.kinds[ANY]  # a was misaligned and an outlier, and is still one of them
    assert [names(k) for k in (both.fixed, both.still, both.newly)] == ["c", "ab", "d"]
    assert (found.common, names(found.gone), names(found.added)) == (6, "e", "xy")
    assert set(found.kinds) == {ANY, *FLAGS}


def test_captions_of_one_sample_are_rows_of_their_own():
    before = {"id": ["a", "a", "b"], "caption_index": [0, 1, 0], "is_misaligned": [True, False, False]}
    after = {"id": ["a", "a", "b"], "caption_index": [1, 0, 0], "is_misaligned": [True, False, False]}
    change = compare(before, after).kinds["misaligned"]
    assert (change.fixed, change.newly) == ((("a", 0),), (("a", 1),))


def test_flags_and_samples_are_named_in_full_in_a_narrow_terminal():
    out, name = io.StringIO(), "train/t-shirt/a8c5bdc9-1e18-4a83-b54d-57d7e519fbf9"
    table = {"id": [name], "is_misaligned": [True], "is_outlier": [False], "failure": [""]}
    show_comparison(Console(file=out, width=80), compare(table, table))
    assert f"still misaligned: {name}" in out.getvalue()
    assert all(f"│ {name} " in out.getvalue() for name in ("misaligned", "placeholder"))


def test_what_cannot_be_compared():
    with pytest.raises(AuditError, match=r"no row in common \(2 and 1 rows"):
        compare(audit("ab"), audit("c"))
    with pytest.raises(AuditError, match="row 'b' occurs twice in the later audit"):
        compare(audit("ab"), audit("abb"))


def test_rank_correlation_is_over_the_rows_that_both_scored():
    first, second = [1.0, 2.0, 2.0, 5.0, np.nan, 9.0], [0.1, 0.5, 0.3, 0.9, 0.2, np.nan]
    found = compare(audit("abcdef", misalignment=first, outlier=[1.0] * 6), audit("abcdef", misalignment=second))
    assert found.correlation["misalignment"] == pytest.approx(spearmanr(first[:4], second[:4]).statistic)
    assert set(found.correlation) == {"misalignment"}  # the other audit has no outlier score
    flat = compare(audit("abc", outlier=[1.0] * 3), audit("abc", outlier=[1.0, 2.0, 3.0]))
    assert flat.correlation == {}  # no spread, no order to compare


rows = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.booleans(), st.booleans()), min_size=1)


@given(rows, rows)
def test_each_flag_is_counted_once_and_the_way_back_mirrors_it(before: dict[str, Any], after: dict[str, Any]):
    if not set(before) & set(after):
        return
    old, new = (
        audit("".join(d), "".join(k for k, v in d.items() if v[0]), "".join(k for k, v in d.items() if v[1]))
        for d in (before, after)
    )
    there, back = compare(old, new), compare(new, old)
    for kind, at in (("misaligned", 0), ("outlier", 1)):
        was, now = ({k for k, v in d.items() if v[at]} for d in (before, after))
        change, other = there.kinds[kind], back.kinds[kind]
        assert set(names(change.fixed)) == (was - now) & set(after)
        assert set(names(change.still)) == was & now == set(names(other.still))
        assert set(names(change.newly)) == (now - was) & set(before) == set(names(other.fixed))
        assert set(names(change.gone)) == was - set(after) == set(names(other.added))
        assert len(change.fixed) + len(change.still) + len(change.gone) == len(was)
