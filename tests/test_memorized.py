"""The lists of memorized rows: what another flag explains comes last, everywhere; nothing flagged is still ranked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from audit_plugin.arrays import AuditError
from audit_plugin.audit.export.plan import ScoreTable
from audit_plugin.audit.export.selection import select_memorized
from audit_plugin.audit.score import score_probes
from audit_plugin.cli import app
from audit_plugin.inputs.tables import write_table
from audit_plugin.review import queue
from audit_plugin.scoring.calibration import calibrate
from audit_plugin.scoring.flags import FLAGS, PROBLEMS, propose_actions, raise_flags
from audit_plugin.scoring.memorized import (
    ADVICE,
    EXPLAINED_BY,
    beyond_alignment,
    is_explained,
    memorized_lists,
    rank_memorized,
)
from audit_plugin.scoring.scores import compute_scores
from tests.core_fixtures import CONFIG, N, planted


def table(multimem: Sequence[float], **raised: Sequence[int]) -> dict[str, Any]:
    """Columns of a result with these MultiMem, `kind=[rows]` flagged."""
    n = len(multimem)
    flags = {f"is_{kind}": np.isin(np.arange(n), raised.get(kind, [])) for kind in FLAGS}
    return {"multimem": np.array(multimem, np.float32), "misalignment": np.zeros(n, np.float32), **flags}


# MultiMem 9 to 5 flagged; row 0 an outlier, row 2 misaligned, row 4 misaligned and a conflict
EXAMPLE = table([9, 8, 7, 6, 5, np.nan, 4, 3], memorized=range(5), misaligned=[2, 4, 6], outlier=[0, 7], conflict=[4])


def test_rows_that_another_flag_explains_come_last() -> None:
    odd = ("outlier", "duplicate", "likely_copy", "leak", "conflict", "placeholder", "vague", "boilerplate")
    odd += ("text_problem", "image_problem", "box_problem")
    assert odd == EXPLAINED_BY
    assert np.flatnonzero(is_explained(EXAMPLE)).tolist() == [0, 4, 7]
    assert rank_memorized(EXAMPLE).tolist() == [1, 2, 3, 6, 0, 4, 7]  # row 5 has no MultiMem
    assert rank_memorized(EXAMPLE, np.array([5, 0, 3])).tolist() == [3, 5, 0]
    lists = memorized_lists(EXAMPLE)
    assert {name: rows.tolist() for name, rows in lists.items()} == {
        "misaligned": [2],
        "fitting": [1, 3],
        "explained": [0, 4],
    }
    assert list(lists) == list(ADVICE)


def test_the_queue_of_memorized_rows_has_this_order_and_that_of_others_is_unchanged() -> None:
    assert queue(EXAMPLE, ["memorized"]).tolist() == [1, 2, 3, 0, 4]
    assert queue({**EXAMPLE, "outlier": np.arange(8.0)}, ["outlier"]).tolist() == [7, 0]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_the_ranking_is_that_of_a_sort_by_hand(rows: list[tuple]) -> None:
    values, memorized, misaligned, odd = zip(*rows, strict=True)
    where = {name: np.flatnonzero(v).tolist() for name, v in (("memorized", memorized), ("misaligned", misaligned))}
    columns = table(values, **where, vague=np.flatnonzero(odd).tolist())
    by_hand = sorted(range(len(rows)), key=lambda row: (odd[row], -values[row], row))
    assert rank_memorized(columns).tolist() == by_hand
    lists = memorized_lists(columns)
    assert sorted(np.concatenate(list(lists.values())).tolist()) == where["memorized"]  # each in one list
    for name, members in lists.items():
        assert members.tolist() == [row for row in by_hand if row in set(members.tolist())]
        for row in members.tolist():
            assert name == ("explained" if odd[row] else "misaligned" if misaligned[row] else "fitting")


def test_where_nothing_is_flagged_the_rows_are_ranked_all_the_same() -> None:
    columns = table([1, 3, 2, np.nan], vague=[1])
    assert all(len(rows) == 0 for rows in memorized_lists(columns).values())
    assert rank_memorized(columns).tolist() == [2, 0, 1]
    assert rank_memorized(table([np.nan, np.nan])).tolist() == []
    assert rank_memorized({"misalignment": np.zeros(2)}).tolist() == []


@lru_cache
def flagged_set() -> dict[str, Any]:
    """The columns of the planted set, scored and flagged as an audit does."""
    evidence = planted().evidence
    scores = compute_scores(evidence)
    calibration = calibrate(scores["misalignment"], score_probes(evidence, scores))
    known = {"probability": calibration.probability, "false_positive_rate": calibration.false_positive_rate}
    flags = raise_flags({**scores, **known}, evidence, CONFIG.false_positive_rate)
    return {**scores, **{f"is_{kind}": values for kind, values in flags.items()}}


def test_first_come_wrong_pairs_and_hardly_any_clean_one_is_flagged() -> None:
    """Of the 24 pairs that were swapped, two thirds are among the first 24; by MultiMem alone outliers take places."""
    columns, rows = flagged_set(), planted().rows
    swapped = np.isin(np.arange(N), rows["swapped"])
    first = rank_memorized(columns)[: swapped.sum()]
    by_multimem = np.argsort(-columns["multimem"], kind="stable")[: swapped.sum()]
    assert swapped[first].sum() >= 16
    assert swapped[first].sum() > swapped[by_multimem].sum()
    assert columns["is_memorized"][rows["clean"]].mean() <= 0.01
    assert swapped[memorized_lists(columns)["misaligned"]].mean() > 0.8
    assert np.isin(rank_memorized(columns)[-4:], np.flatnonzero(is_explained(columns))).all()


def scored(folder: Path, columns: dict[str, Any]) -> Path:
    """A table of scores as `score` writes it."""
    n = len(columns["multimem"])
    ids, action = (np.array([f"{word}{row}" for row in range(n)], dtype=object) for word in ("r", "keep"))
    action[:] = "keep"
    write_table(folder / "scores.parquet", {"id": ids, **columns, "action": action})
    return folder / "scores.parquet"


def test_one_command_writes_exactly_a_list(tmp_path: Path) -> None:
    scores = scored(tmp_path, {**EXAMPLE, "probability": np.linspace(0, 0.7, 8)})

    def run(*arguments: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["select", str(scores), *map(str, arguments)])
        assert done.exit_code == code, done.output
        return done.output

    def written(name: str) -> list[tuple[str, float]]:
        with (tmp_path / name).open(newline="") as file:
            return [(row["id"], round(float(row["weight"]), 6)) for row in csv.DictReader(file)]

    assert "2 of 8 rows selected (list 'fitting' of memorized rows)" in run(
        "--memorized", "fitting", "--out", tmp_path / "a.csv"
    )
    assert written("a.csv") == [("r1", 0.9), ("r3", 0.7)]
    run("--memorized", "explained", "--budget", 1, "--out", tmp_path / "b.csv")
    assert written("b.csv") == [("r0", 1.0)]
    run("--memorized", "highest", "--budget", "50%", "--out", tmp_path / "c.csv")
    assert [name for name, _ in written("c.csv")] == ["r1", "r2", "r3", "r6"]
    assert "nothing says how many rows" in run("--out", tmp_path / "d.csv", code=2)
    assert "leave them out" in run("--memorized", "fitting", "--copies", 2, "--out", tmp_path / "d.csv", code=2)
    assert not (tmp_path / "d.csv").exists()


@pytest.mark.parametrize(
    ("name", "budget", "message"),
    [
        ("rare", "", "--memorized is 'rare'; name one of the lists misaligned, fitting, explained, highest"),
        ("highest", "", "say with --budget how many"),
        ("fitting", "", "the list 'fitting' of memorized rows of t is empty; to see the highest MultiMem"),
        ("highest", "9", "give a share such as 30%, or a number of rows from 1 to 3"),
    ],
)
def test_a_list_that_is_not_there_is_refused_with_what_to_do(name: str, budget: str, message: str) -> None:
    columns = table([1, 3, 2])
    scores = ScoreTable(np.array(["a", "b", "c"], dtype=object), np.zeros(0, np.int64), columns, {}, "t")
    with pytest.raises(AuditError, match=message):
        select_memorized(scores, name, budget)


def test_what_is_memorized_beyond_alignment_is_the_rest_of_a_line() -> None:
    alignment = np.array([0.0, 1.0, 2.0, np.nan, 1.0])
    found = beyond_alignment(np.array([3.0, 2.0, 1.0, 5.0, np.nan]), alignment)
    np.testing.assert_allclose(found, [0, 0, 0, np.nan, np.nan], atol=1e-12)  # 3 - alignment
    rng = np.random.default_rng(0)
    alignment, extra = rng.standard_normal((2, 500))
    left = beyond_alignment(2 - 0.9 * alignment + extra, alignment)
    assert abs(left.mean()) < 1e-9
    assert abs(np.corrcoef(left, alignment)[0, 1]) < 1e-9
    assert np.corrcoef(left, extra)[0, 1] > 0.99
    assert len(beyond_alignment(np.zeros(0), np.zeros(0))) == 0


def test_a_memorized_row_that_another_caption_fits_better_is_not_said_to_fit() -> None:
    """As of class labels, where a classifier names another class though the score is not flagged."""
    columns = table([3, 2, 1], memorized=[0, 1, 2])
    columns["suggestion_score"] = np.array([np.nan, 0.9, np.nan])
    lists = {name: rows.tolist() for name, rows in memorized_lists(columns).items()}
    assert lists == {"misaligned": [1], "fitting": [0, 2], "explained": []}
    none, n = np.zeros(3, dtype=bool), 3
    flags = dict.fromkeys(FLAGS, none) | {"memorized": ~none}
    found = {name: np.full(n, "", dtype=object) for name in PROBLEMS}
    scores = {"misalignment": np.zeros(n), "outlier": np.zeros(n)}
    suggestions = np.array(["", "another", ""], dtype=object)
    action, reason = propose_actions(flags, suggestions, none, np.full(n, "", object), scores, found)
    assert action.tolist() == ["keep", "review", "keep"]
    assert reason[1] == "another text may fit better; a model memorizes it"
    assert reason[0].startswith("fits, but is memorized")
