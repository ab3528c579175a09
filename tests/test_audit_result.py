"""The value that an audit returns: counts, a DataFrame, other thresholds, saved and loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.audit.result import AuditResult, write_scores
from audit_plugin.report import read_summary, report_of_table
from audit_plugin.scoring.flags import FLAGS, PROBLEMS, flag_by_rate, memorized_cut
from audit_plugin.scoring.reflag import reflag, reflag_needs
from audit_plugin.scoring.tails import tail_cut
from audit_plugin.scoring.wrong_pairs import precision_of_flags

N = 60


def made(rows: int = N) -> AuditResult:
    """Scores of a set whose last rows are bad, as an audit would flag them at 1 %."""
    rng = np.random.default_rng(0)
    misalignment = rng.standard_normal(rows).astype(np.float32)
    misalignment[-3:] += 9
    multimem = rng.standard_normal(rows).astype(np.float32)
    flags = {f"is_{kind}": np.zeros(rows, bool) for kind in FLAGS}
    flags["is_misaligned"][-3:] = True
    flags["is_memorized"] = multimem > memorized_cut({"multimem": multimem}, 0.01)
    texts = {name: np.full(rows, "", object) for name in ("reason", "suggestion", "failure")}
    action = np.full(rows, "keep", object)
    action[-3:] = "review"
    columns = {"misalignment": misalignment, "multimem": multimem, "outlier": rng.exponential(1, rows), **flags,
               "action": action, **texts}  # fmt: skip
    rate = np.exp(-np.clip(misalignment, 0, None)).astype(np.float32)
    ids = tuple(f"<b>id{row}</b>" for row in range(rows))
    return AuditResult(ids, columns, {"failures": 0, "flags": {}}, "/runs/1", false_positive_rate=rate)


def same(one: AuditResult, two: AuditResult) -> None:
    assert (one.ids, one.captions, one.run_dir, dict(one.summary)) == (
        two.ids, two.captions, two.run_dir, dict(two.summary),
    )  # fmt: skip
    assert list(one.columns) == list(two.columns)
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, two.columns[name])
        assert values.dtype == two.columns[name].dtype, name
    np.testing.assert_array_equal(one.false_positive_rate, two.false_positive_rate)


def test_the_repr_counts_rows_and_flags() -> None:
    assert repr(made()).startswith("AuditResult(60 rows: 3 misaligned, ")
    assert "2 failures" in repr(replace(made(), summary={"failures": 2}))
    assert repr(AuditResult(("a",), {}, {})) == "AuditResult(1 row: no flags)"


def test_the_notebook_shows_the_worst_rows_first_and_runs_no_html_of_the_data() -> None:
    page = made()._repr_html_()
    assert "<b>" not in page
    assert page.index("id59") < page.index("id0&lt;") if "id0&lt;" in page else "id59" in page
    assert "<td>misaligned</td><td>3</td>" in page


def test_a_dataframe_has_the_ids_as_its_index() -> None:
    result = replace(made(), captions=tuple(range(N)))
    table = result.to_pandas()
    assert table.index.name == "id"
    assert tuple(table.index) == result.ids
    assert list(table.columns) == ["caption_index", *result.columns]
    assert table["is_misaligned"].sum() == result.flagged("misaligned").sum() == 3
    assert "caption_index" not in made().to_pandas()


def test_flags_of_no_such_kind_are_a_key_error() -> None:
    with pytest.raises(KeyError, match="is_rotten"):
        made().flagged("rotten")


def test_a_higher_rate_flags_more_and_changes_actions_of_those_rows_only() -> None:
    result = made()
    more = result.rethreshold("misaligned", 0.5)
    assert (more.flagged("misaligned") == (result.false_positive_rate <= 0.5)).all()
    added = more.flagged("misaligned") & ~result.flagged("misaligned")
    assert added.sum() > 3
    assert set(more.columns["action"][added]) == {"review"}
    rest = ~(more.flagged("misaligned") != result.flagged("misaligned"))
    np.testing.assert_array_equal(more.columns["action"][rest], result.columns["action"][rest])
    assert more.summary["flags"]["misaligned"] == more.flagged("misaligned").sum()
    assert result.flagged("misaligned").sum() == 3  # the first one is unchanged
    for kind in FLAGS:
        if kind != "misaligned":
            np.testing.assert_array_equal(more.flagged(kind), result.flagged(kind))


def test_the_precision_of_a_summary_is_that_of_its_flags() -> None:
    result = made()
    scores = np.asarray(result.columns["misalignment"])
    edges = np.quantile(scores[np.isfinite(scores)], [0.0, 0.5, 0.9]).tolist()
    good = {"edges": edges, "share": [0.9, 0.4, 0.01], "low": [0.8, 0.3, 0.0], "high": [1.0, 0.45, 0.02]}
    own = {"in_one_space": False, "judged": len(scores), "pairs": 3, "pairs_interval": [1, 5], "precision": 0.99}
    own |= {"precision_interval": [0.98, 1.0], "good_above": good}
    more = replace(result, summary={**result.summary, "estimated": own}).rethreshold("misaligned", 0.5)
    known = precision_of_flags(own, scores, more.flagged("misaligned"))
    assert more.summary["estimated"]["precision_interval"] == [round(known.low, 4), round(known.high, 4)]
    assert known.low < 0.98
    assert more.summary["estimated"]["pairs"] == 3


def test_the_rate_of_the_audit_gives_its_own_flags() -> None:
    result = made()
    np.testing.assert_array_equal(
        result.rethreshold("memorized", 0.01).flagged("memorized"), result.flagged("memorized")
    )
    assert (result.rethreshold("outlier", 0.5).flagged("outlier") >= result.flagged("outlier")).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_flags_are_nested_in_the_rate(one: float, two: float) -> None:
    low, high = sorted((one, two))
    for kind in ("misaligned", "memorized"):
        fewer, more = (made().rethreshold(kind, rate).flagged(kind) for rate in (low, high))
        assert (fewer <= more).all()


def test_a_flag_that_was_added_follows_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit_plugin.scoring.flags.FLAGS", dict(FLAGS))

    @flag_by_rate("Odd", "unlike most", score="outlier")
    def odd(columns, known, rate):
        return columns["outlier"] > tail_cut(columns["outlier"], rate)

    result = made()
    columns = {**result.columns, "is_odd": np.zeros(N, bool)}
    assert replace(result, columns=columns).rethreshold("odd", 0.2).flagged("odd").any()


def test_there_and_back_is_the_same_result() -> None:
    result = made().rethreshold("misaligned", 0.01)
    same(result.rethreshold("misaligned", 0.3).rethreshold("misaligned", 0.01), result)


@pytest.mark.parametrize(("kind", "rate", "reason"), [
    ("misaligned", 0.0, "must lie between 0 and 1"), ("outlier", 1.0, "rate is 1.0"),
    ("duplicate", 0.1, "choose one of misaligned, memorized, outlier"),
])  # fmt: skip
def test_what_cannot_be_flagged_by_a_rate_is_said(kind: str, rate: float, reason: str) -> None:
    with pytest.raises(AuditError, match=reason):
        made().rethreshold(kind, rate)


def test_results_that_lack_what_it_takes_are_refused() -> None:
    with pytest.raises(AuditError, match="no false-positive rates"):
        replace(made(), false_positive_rate=None).rethreshold("misaligned", 0.1)
    with pytest.raises(AuditError, match="extends another run"):
        replace(made(), summary={"extends": 40}).rethreshold("outlier", 0.1)


def test_a_removal_stays_and_a_failed_row_keeps_its_flags() -> None:
    columns = {name: values.copy() for name, values in made().columns.items()}
    columns["action"][5], columns["reason"][5] = "remove", "exact duplicate"
    columns["failure"][6:8], columns["outlier"][6] = "image: gone", np.nan
    changed = reflag(columns, {"is_outlier": ~columns["is_outlier"]})
    assert (changed["action"][5], changed["reason"][5]) == ("remove", "exact duplicate")
    assert changed["is_outlier"][5] != columns["is_outlier"][5]
    assert changed["is_outlier"][6] == columns["is_outlier"][6]
    assert changed["is_outlier"][7] != columns["is_outlier"][7], "scored without the image"
    assert changed["action"][7] == columns["action"][7]


@pytest.mark.parametrize("kind", ["misaligned", "memorized", "outlier"])
def test_other_flags_read_what_is_said_to_be_needed_and_nothing_else(kind: str) -> None:
    class Recorded(dict[str, Any]):
        read: ClassVar[set[str]] = set()

        def __getitem__(self, name: str) -> Any:
            self.read.add(name)
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            self.read.add(name)
            return super().get(name, default)

    parts = {f"misalignment_{a}_{b}": np.ones(N) for a, b in ("xy", "xz", "yz")}
    due = {f"multimem_due_{name}": np.ones(N) for name in "xyz"}
    texts = {name: np.full(N, "", object) for name in (*PROBLEMS, "repair", "culprit", "driver")}
    columns = Recorded({**made().columns, **parts, **due, **texts, "suggestion_score": np.full(N, np.nan)})
    reflag(columns, {f"is_{kind}": ~columns[f"is_{kind}"]})
    assert {"text_problem", "suggestion_score", "misalignment_x_y", "driver"} <= columns.read
    assert [name for name in columns.read & set(columns) if not reflag_needs(name)] == []


def test_a_repair_stays_whatever_the_flags_of_its_rows_become() -> None:
    columns = {name: values.copy() for name, values in made().columns.items()} | {"repair": np.full(N, "", object)}
    columns["repair"][-1], columns["action"][-1], columns["reason"][-1] = "swap with a", "relabel", "a swap"
    changed = reflag(columns, {"is_misaligned": np.zeros(N, bool)})
    assert not changed["is_misaligned"].any()
    assert (changed["action"][-1], changed["reason"][-1]) == ("relabel", "a swap")
    assert (changed["action"][:-1] == "keep").all()


@pytest.mark.parametrize("captions", [(), tuple(row % 3 for row in range(N))])
def test_saved_and_loaded_it_is_the_same(captions: tuple[int, ...], tmp_path: Path) -> None:
    result = replace(made(), captions=captions)
    result.save(tmp_path / "result.parquet")
    same(AuditResult.load(tmp_path / "result.parquet"), result)
    assert [path.name for path in tmp_path.iterdir()] == ["result.parquet"]


def test_a_name_with_a_dot_keeps_it(tmp_path: Path) -> None:
    made().save(tmp_path / "audit.v2")
    assert [path.name for path in tmp_path.iterdir()] == ["audit.v2.parquet"]
    same(AuditResult.load(tmp_path / "audit.v2"), made())


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no table")
    with pytest.raises(AuditError, match=r"a\.parquet cannot be read as Parquet"):
        AuditResult.load(tmp_path / "a.parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(AuditError, match=r"b\.parquet was not written by AuditResult\.save"):
        AuditResult.load(tmp_path / "b.parquet")


def test_former_names_of_a_stored_summary_are_read(tmp_path: Path) -> None:
    replace(made(), summary={"recall": {"random": 0.5}}).save(tmp_path / "old.parquet")
    assert AuditResult.load(tmp_path / "old.parquet").summary == {"probe_recall": {"random": 0.5}}


def test_a_table_never_stands_beside_the_summary_of_another_run(tmp_path: Path) -> None:
    """A kill between the two files leaves them so: the readers compare them."""
    table = tmp_path / "scores.parquet"
    write_scores(table, made())
    assert "table_sha256" not in read_summary(table)
    summary = (tmp_path / "scores.json").read_bytes()
    write_scores(table, made(N + 1))
    (tmp_path / "scores.json").write_bytes(summary)
    for read in (read_summary, report_of_table):
        with pytest.raises(AuditError, match=r"scores\.json is not the summary of scores\.parquet as it is now: "):
            read(table)
    (tmp_path / "scores.json").unlink()
    assert "is not beside the table" in read_summary(table)["notes"][0]
