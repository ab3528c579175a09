"""Which rows an export removes, and by whom."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.audit.export.plan import ExportPlan, Outcome, Rules, ScoreTable, Verdict, plan_export
from audit_plugin.audit.export.selection import budget_rows, read_selection, select_rows, write_selection
from audit_plugin.review import Decision, content_digest, verdicts
from tests.export_fixtures import marked

N = 8


def table(captions=(), n=N, **columns) -> ScoreTable:
    base = {
        "misalignment": np.arange(n, dtype=np.float32),
        "probability": np.linspace(0, 0.7, n, dtype=np.float32),
        "action": np.full(n, "keep", dtype=object),
        **{f"is_{kind}": np.zeros(n, dtype=bool) for kind in ("misaligned", "outlier", "duplicate")},
    }
    base |= {
        name: np.array(values, dtype=base[name].dtype if name in base else object) for name, values in columns.items()
    }
    ids = [f"s{row}" for row in range(n)] if not captions else [f"s{i}" for i in np.cumsum(np.array(captions) == 0) - 1]
    return ScoreTable(np.array(ids, dtype=object), np.array(captions, dtype=np.int64), base, {}, "scores.parquet")


def gone(plan: ExportPlan, text: str = "old") -> dict[int, str]:
    """Row -> by whom it is removed."""
    outcomes = [plan.outcome(row, text) for row in range(len(plan.why))]
    return {row: outcome.by for row, outcome in enumerate(outcomes) if outcome.why}


def flags(*rows: int) -> list[bool]:
    return [row in rows for row in range(N)]


def test_rows_are_removed_as_proposed_and_keep_their_captions_by_default():
    scores = table(
        action=marked(N, {1: "remove", 2: "relabel", 3: "review", 4: "relabel"}, "keep"),
        suggestion=marked(N, {2: "new"}),
        failure=marked(N, {6: "file not found"}),
    )
    plan = plan_export(scores, Rules(), {})
    assert gone(plan) == {1: "audit", 6: "export"}
    assert plan.outcome(6, "old").why == "not scored: file not found"
    assert plan.outcome(2, "old") == Outcome("", "audit", proposal="new")
    assert plan.outcome(2, "new").proposal is None  # it has this caption by now
    assert plan.outcome(4, "old").proposal is None  # a relabel without a suggestion


@pytest.mark.parametrize("rules", [{}, {"drop": ("outlier",)}, {"top_n": 1}, {"selection": {("s2", 0): 1.0}}])
def test_proposed_captions_are_applied_where_that_is_asked_for(rules):
    scores = table(action=marked(N, {2: "relabel", 4: "relabel"}, "keep"), suggestion=marked(N, {2: "new"}))
    assert plan_export(scores, Rules(**rules, relabel=True), {}).outcome(2, "old") == Outcome("", "audit", "new")
    assert plan_export(scores, Rules(**rules), {}).outcome(2, "old") == Outcome("", "audit", proposal="new")
    assert plan_export(scores, Rules(relabel=True), {}).outcome(4, "old").text is None
    decided = {("s2", 0): Verdict("keep", reviewer="ann")}
    assert plan_export(scores, Rules(**rules, relabel=True), decided).outcome(2, "old") == Outcome("", "ann")
    decided = {("s2", 0): Verdict("relabel", "hers", "ann")}
    assert plan_export(scores, Rules(**rules), decided).outcome(2, "old") == Outcome("", "ann", "hers")


def test_drop_replaces_the_proposed_actions():
    scores = table(
        action=marked(N, {1: "remove", 2: "relabel"}, "keep"),
        suggestion=marked(N, {2: "new"}),
        is_misaligned=flags(3, 4),
        is_outlier=flags(4, 5),
    )
    plan = plan_export(scores, Rules(drop=("misaligned",)), {})
    assert gone(plan) == {3: "audit", 4: "audit"}
    assert gone(plan_export(scores, Rules(drop=("misaligned", "outlier")), {})).keys() == {3, 4, 5}
    assert gone(plan_export(scores, Rules(drop=("relabel", "remove")), {})).keys() == {1, 2}


def test_of_duplicates_one_stays():
    groups = marked(N, {1: "s1", 2: "s1", 4: "s1", 5: "s5", 6: "s5"})
    scores = table(is_duplicate=flags(1, 2, 4, 5, 6), duplicate_group=groups, is_misaligned=flags(1))
    assert gone(plan_export(scores, Rules(drop=("duplicate",)), {})).keys() == {2, 4, 6}
    # where the representative leaves for another reason, another copy stays
    assert gone(plan_export(scores, Rules(drop=("misaligned", "duplicate")), {})).keys() == {1, 4, 6}
    decisions = {("s5", 0): Verdict("remove", reviewer="ann")}
    assert gone(plan_export(scores, Rules(drop=("duplicate",)), decisions)) == {2: "audit", 4: "audit", 5: "ann"}


def test_all_captions_of_the_copy_that_stays_stay():
    scores = table(
        captions=(0, 1, 0, 1, 0, 0, 0, 0),
        is_duplicate=flags(0, 1, 2, 3),
        duplicate_group=marked(N, {0: "s0", 1: "s0", 2: "s0", 3: "s0"}),
    )
    assert gone(plan_export(scores, Rules(drop=("duplicate",)), {})).keys() == {2, 3}


def test_kept_flags_stay_unless_another_flag_speaks_against_them():
    scores = table(
        action=marked(N, {1: "remove", 2: "remove", 3: "relabel"}, "keep"),
        suggestion=marked(N, {3: "new"}),
        is_outlier=flags(1, 2, 3),
        is_misaligned=flags(2),
    )
    plan = plan_export(scores, Rules(keep=("outlier",), relabel=True), {})
    assert gone(plan).keys() == {2}
    assert plan.outcome(3, "old").text is None
    assert plan_export(scores, Rules(keep=("outlier",)), {}).outcome(3, "old").proposal is None


def test_top_n_removes_the_most_misaligned():
    scores = table(is_misaligned=flags(2, 3, 4), misalignment=[0, 1, 9, 3, 4, 5, np.nan, 7])
    assert gone(plan_export(scores, Rules(top_n=2), {})).keys() == {2, 7}
    assert gone(plan_export(scores, Rules(drop=("misaligned",), top_n=2), {})).keys() == {2, 4}
    assert gone(plan_export(scores, Rules(top_n=0), {})) == {}


def test_top_n_of_duplicates_leaves_one_of_each():
    groups = marked(N, dict.fromkeys((2, 3, 4), "s2"))
    scores = table(is_duplicate=flags(2, 3, 4), duplicate_group=groups, misalignment=[0, 1, 9, 3, 4, 5, np.nan, 7])
    assert gone(plan_export(scores, Rules(drop=("duplicate",), top_n=5), {})).keys() == {3, 4}
    assert gone(plan_export(scores, Rules(drop=("duplicate",), top_n=1), {})).keys() == {4}


def test_top_n_of_duplicates_counts_no_copy_that_people_remove():
    groups = marked(N, dict.fromkeys((2, 3, 4), "s2"))
    scores = table(is_duplicate=flags(2, 3, 4), duplicate_group=groups, misalignment=[0, 1, 9, 3, 4, 5, np.nan, 7])
    for top_n in (5, None):
        plan = plan_export(scores, Rules(drop=("duplicate",), top_n=top_n), {("s2", 0): Verdict("remove")})
        assert plan.outcome(3, "old").why == "", top_n


def test_people_overrule_the_audit():
    scores = table(action=marked(N, {1: "remove", 2: "relabel"}, "keep"), suggestion=marked(N, {2: "new"}))
    decisions = {
        ("s1", 0): Verdict("keep", reviewer="ann"),
        ("s2", 0): Verdict("relabel", "theirs", "bob"),
        ("s3", 0): Verdict("remove", reviewer="ann", note="watermark"),
        ("unknown", 0): Verdict("remove"),
    }
    plan = plan_export(scores, Rules(), decisions)
    assert gone(plan) == {3: "ann"}
    assert plan.outcome(3, "x").why == "decision remove: watermark"
    assert (plan.outcome(2, "x").text, plan.outcome(2, "x").by) == ("theirs", "bob")
    assert plan.unknown == 1


def test_decisions_on_another_caption_are_not_followed():
    seen = hashlib.sha256(b"seen").hexdigest()[:32]
    scores = table(action=marked(N, {1: "remove"}, "keep"))
    plan = plan_export(scores, Rules(), {("s1", 0): Verdict("keep", text_digest=seen)})
    assert plan.outcome(1, "seen").why == ""
    assert plan.outcome(1, "another").stale
    assert plan.outcome(1, "another").by == "audit"


def test_a_relabel_that_was_applied_already_is_not_stale():
    seen = hashlib.sha256(b"seen").hexdigest()[:32]
    plan = plan_export(table(), Rules(), {("s1", 0): Verdict("relabel", "new", "ann", text_digest=seen)})
    assert not plan.outcome(1, "new").stale


def test_decisions_about_nothing_are_refused():
    with pytest.raises(AuditError, match="none of the 1 decisions is about a row of scores.parquet"):
        plan_export(table(), Rules(), {("650f", 0): Verdict("remove")})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(drop=("blurry",)), "'blurry' is not a flag of this audit; it has misaligned, outlier, duplicate"),
        (Rules(keep=("remove",)), "'remove' is not a flag"),
        (Rules(drop=("outlier",), keep=("misaligned",)), "exclude each other"),
        (Rules(keep=("misaligned",), top_n=3), "exclude each other"),
        (Rules(top_n=-1), "top-n is -1"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rules, message):
    with pytest.raises(AuditError, match=message):
        plan_export(table(), rules, {})


def test_the_ledger_counts_as_in_the_review():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    digest = content_digest("old", "f" * 64)

    def entry(number: int, sample: str, kind: str, **more) -> Decision:
        time = start + timedelta(seconds=number)
        return Decision(sample, kind, reviewer="ann", time=time, id=str(number), digest=digest, **more)

    entries = [
        entry(1, "a", "remove"),
        entry(2, "a", "keep"),  # the later one holds
        entry(3, "b", "remove"),
        entry(4, "b", "undone", undoes="3"),
        entry(5, "c", "relabel", text="new", caption=2),
        entry(6, "d", "skip"),
        entry(7, "e", "unsure"),
    ]
    result = verdicts(entries)
    assert {key: verdict.kind for key, verdict in result.items()} == {("a", 0): "keep", ("c", 2): "relabel"}
    assert not result["a", 0].is_stale("old")
    assert result["a", 0].is_stale("new")
    assert verdicts(entries, {"a": "1"}).keys() == {("1", 0)}


# --- selection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "rows"), [("30%", 30), ("30 %", 30), ("7", 7), ("100%", 100), ("0.5%", 1), ("100", 100)]
)
def test_budgets(budget, rows):
    assert budget_rows(budget, 100) == rows


@pytest.mark.parametrize("budget", ["", "0", "0%", "101%", "101", "-3", "1.5", "many", "30%%", "nan%"])
def test_budgets_out_of_range_are_refused(budget):
    with pytest.raises(AuditError, match="--budget is"):
        budget_rows(budget, 100)


def test_the_best_rows_are_selected_with_few_copies():
    scores = table(
        misalignment=[0, 1, 2, 3, 4, 5, np.nan, -9],
        action=marked(N, {7: "remove"}, "keep"),
        duplicate_group=marked(N, {0: "s0", 1: "s0", 2: "s0"}),
    )
    assert select_rows(scores, "4").rows.tolist() == [0, 3, 4, 5]
    assert select_rows(scores, "4", most_copies=2).rows.tolist() == [0, 1, 3, 4]
    chosen = select_rows(scores, "50%")
    assert chosen.weights == pytest.approx([1, 0.7, 0.6, 0.5], abs=1e-6)
    assert chosen.left_out == {"proposed to be removed, or not scored": 2, "copies beyond the cap": 2}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_keep_lists_read_back(tmp_path, suffix):
    scores = table(captions=(0, 1, 0, 1, 0, 0, 0, 0))
    scores.ids[4:6] = ["\u2212odd", "a\u202e\\u0041\n"]
    chosen = select_rows(scores, "6")
    write_selection(tmp_path / f"k{suffix}", scores, chosen, None)
    keys = [(str(scores.ids[row]), scores.caption(row)) for row in chosen.rows]
    assert read_selection(tmp_path / f"k{suffix}") == pytest.approx(dict(zip(keys, chosen.weights, strict=True)))


def test_uids_stand_as_often_as_they_weigh(tmp_path):
    scores = table(n=3, probability=[0, 0.5, 0.75])
    scores.ids[:] = [f"{number:032x}" for number in (5, 2**64, 3)]
    write_selection(tmp_path / "k.npy", scores, select_rows(scores, "3"), None)
    uids = np.load(tmp_path / "k.npy")
    assert uids.dtype == np.dtype("u8,u8")
    assert uids.tolist() == [(0, 3)] * 2 + [(0, 5)] * 8 + [(1, 0)] * 4


def test_other_files_are_not_keep_lists(tmp_path):
    for name, content in (
        ("a.csv", "x,y\n1,2\n"),
        ("b.parquet", "no"),
        ("c.jsonl", "{"),
        ("d.jsonl", json.dumps({"x": 1})),
        ("e.jsonl", "[1]"),
        ("f.jsonl", "[" * 100_000),
        ("g.jsonl", json.dumps({"id": "a", "caption_index": None})),
        ("h.csv", "id,caption_index\na,second\n"),
        ("i.csv", "id,weight\na,\n"),
        ("j.csv", "id\n" + "a" * 200_000),
        ("k.csv", "id,weight\na\n"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(AuditError, match="written by audit-plugin|cannot be read as Parquet"):
            read_selection(tmp_path / name)
    with pytest.raises(AuditError, match="cannot be read"):
        read_selection(tmp_path / "missing.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(AuditError, match="named pipe"):  # which would never end
        read_selection(tmp_path / "pipe.csv")


def test_only_the_selection_is_exported():
    plan = plan_export(table(), Rules(selection={("s1", 0): 1.0, ("s2", 0): 0.5}), {("s3", 0): Verdict("keep")})
    assert gone(plan).keys() == {0, 3, 4, 5, 6, 7}
    assert set(gone(plan).values()) == {"selection"}
