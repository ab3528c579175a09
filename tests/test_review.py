"""The review without a database: what decisions come to, the queue, the plan of changes, tables that harm nobody."""

from __future__ import annotations

import csv
import io
import math
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.review import (
    KINDS,
    UNDONE,
    Content,
    Decision,
    ReviewQueue,
    content_digest,
    decisions_from,
    decisions_to_csv,
    decisions_to_jsonl,
    plan_changes,
    queue,
    read_decisions,
    resolve,
    spot_order,
    stale,
    standing,
    strongest,
    to_redo,
    to_undo,
    unsettled,
    verdict,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def decision(at: int, kind: str = "keep", sample: str = "s", reviewer: str = "ann", **more: object) -> Decision:
    """The decision with id `at`, made `at` seconds after the start."""
    text = "new" if kind == "relabel" else ""
    values = {"text": text, "time": START + timedelta(seconds=at), "id": f"{at:04d}", **more}
    return Decision(sample, kind, reviewer=reviewer, **values)


# what a ledger comes to


def test_the_latest_decision_of_the_latest_reviewer_holds() -> None:
    ledger = [decision(1, "keep"), decision(2, "remove"), decision(3, "keep", reviewer="bob"), decision(4, sample="t")]
    found = resolve(ledger)
    assert {key: d.id for key, d in found.current.items()} == {("s", "", 0): "0003", ("t", "", 0): "0004"}
    assert {key: [d.id for d in ds] for key, ds in found.disagreements.items()} == {("s", "", 0): ["0002", "0003"]}


def test_relabels_to_other_texts_disagree_and_notes_do_not() -> None:
    same = [decision(1, "relabel"), decision(2, "relabel", reviewer="bob", note="sure")]
    assert not resolve(same).disagreements
    assert resolve([*same, decision(3, "relabel", reviewer="cid", text="other")]).disagreements


def test_a_skip_takes_back_ones_own_decision_but_nobody_elses() -> None:
    assert resolve([decision(1, "remove"), decision(2, "skip")]).current["s", "", 0].kind == "skip"
    both = resolve([decision(1, "remove"), decision(2, "skip", reviewer="bob")])
    assert both.current["s", "", 0].kind == "remove"
    assert not both.disagreements


def test_undone_entries_take_back_one_decision_or_a_batch() -> None:
    ledger = [decision(1), decision(2, "remove", batch="b"), decision(3, "remove", "t", batch="b")]
    last = to_undo(ledger, "ann")
    assert [d.id for d in last] == ["0002", "0003"]
    ledger += [decision(10 + at, UNDONE, d.sample, undoes=d.id) for at, d in enumerate(last)]
    assert {key: d.id for key, d in resolve(ledger).current.items()} == {("s", "", 0): "0001"}
    assert [d.id for d in to_undo(ledger, "ann")] == ["0001"]
    assert to_undo(ledger, "bob") == []


def undo_of(ledger: list[Decision], number: int, reviewer: str = "ann", redo: bool = False) -> list[Decision]:
    """The entries that undo or redo adds, as the database writes them."""
    last = to_redo(ledger, reviewer) if redo else to_undo(ledger, reviewer)
    return [
        replace(d, id=f"{number + at:04}", number=number + at, kind=UNDONE, text="", batch=f"u{number}", undoes=d.id)
        for at, d in enumerate(last)
    ]


def test_redo_brings_back_what_undo_took_at_its_place() -> None:
    ledger = [decision(1), decision(2, "remove", batch="b"), decision(3, "remove", "t", batch="b")]
    ledger = [replace(d, number=number) for number, d in enumerate(ledger, 1)]
    whole = resolve(ledger)
    assert to_redo(ledger, "ann") == []
    ledger += undo_of(ledger, 10)
    ledger += undo_of(ledger, 20)
    assert standing(ledger) == []
    assert to_redo(ledger, "bob") == []
    ledger += undo_of(ledger, 30, redo=True)
    assert [d.id for d in standing(ledger)] == ["0001"]
    ledger += undo_of(ledger, 40, redo=True)  # the batch as one
    assert resolve(ledger) == whole
    assert to_redo(ledger, "ann") == []
    ledger += undo_of(ledger, 50)
    assert [d.id for d in standing(ledger)] == ["0001"]
    ledger.append(replace(decision(60), number=60))
    assert to_redo(ledger, "ann") == []  # a new decision ends it


@given(st.lists(st.sampled_from(["decide", "undo", "redo"]), max_size=25))
def test_undo_and_redo_are_two_stacks(steps: list[str]) -> None:
    ledger: list[Decision] = []
    done: list[str] = []
    undone: list[str] = []
    for number, step in enumerate(steps, 1):
        if step == "decide":
            ledger.append(replace(decision(number, sample=f"s{number % 3}"), number=number))
            done.append(ledger[-1].id)
            undone = []
        elif step == "undo":
            ledger += undo_of(ledger, number)
            undone += [done.pop()] if done else []
        else:
            ledger += undo_of(ledger, number, redo=True)
            done += [undone.pop()] if undone else []
        assert [d.id for d in standing(ledger)] == done
        assert [d.id for d in standing(reversed(ledger))] == done


def test_entries_that_undo_each_other_end() -> None:
    ledger = [decision(1, UNDONE, undoes="0002"), decision(2, UNDONE, undoes="0001")]
    assert standing(ledger) == []


def test_a_disagreement_is_settled_by_whoever_decides_after_it() -> None:
    ledger = [replace(decision(1), number=1), replace(decision(2, "remove", reviewer="bob"), number=2)]
    (differing,) = unsettled(ledger).values()
    assert [d.reviewer for d in differing] == ["ann", "bob"]
    for reviewer in ("ann", "bob", "cid"):
        for kind in ("keep", "remove"):
            assert not unsettled([*ledger, replace(decision(3, kind, reviewer=reviewer), number=3)])
    assert unsettled([*ledger, replace(decision(3, "skip", reviewer="cid"), number=3)])
    assert not unsettled([replace(decision(1), number=1)])


@given(st.data())
def test_resolving_does_not_depend_on_the_order_of_reading(data: st.DataObject) -> None:
    draw = data.draw
    ledger: list[Decision] = []
    for at in range(draw(st.integers(1, 12))):
        reviewer = draw(st.sampled_from("ab"))
        if ledger and draw(st.booleans()):
            ledger += [
                decision(100 * at + n, UNDONE, d.sample, reviewer, undoes=d.id)
                for n, d in enumerate(to_undo(ledger, reviewer))
            ]
        else:
            ledger.append(decision(100 * at, draw(st.sampled_from(KINDS)), draw(st.sampled_from("xyz")), reviewer))
    shuffled = draw(st.permutations(ledger))
    assert resolve(shuffled) == resolve(ledger)
    # a naive reference: one stack per reviewer
    stacks: dict[str, list[Decision]] = {"a": [], "b": []}
    for entry in ledger:
        if entry.kind == UNDONE:
            stacks[entry.reviewer].pop()
        else:
            stacks[entry.reviewer].append(entry)
    for sample in "xyz":
        mine = [next((d for d in reversed(stack) if d.sample == sample), None) for stack in stacks.values()]
        mine = [d for d in mine if d]
        said = [d for d in mine if d.kind != "skip"] or mine
        expected = max(said, key=lambda d: d.order) if said else None
        assert resolve(ledger).current.get((sample, "", 0)) == expected


def test_a_decision_that_cannot_be_meant_is_refused() -> None:
    for values, word in (({"kind": "delete"}, "'delete'"), ({"kind": "relabel", "text": " "}, "no text")):
        with pytest.raises(AuditError, match=word):
            Decision("s", **values)
    with pytest.raises(AuditError, match="caption -1"):
        Decision("s", "keep", caption=-1)


def test_the_strongest_of_several_captions_and_verdicts() -> None:
    assert strongest(["keep", "relabel", "skip"]) == "relabel"
    assert strongest(["relabel", "remove"]) == "remove"
    assert strongest([]) == ""
    assert [verdict(kind) for kind in KINDS] == ["wrong", "wrong", "unsure", "right", ""]


# staleness


def test_stale_is_other_content_but_not_what_was_asked_for() -> None:
    seen = content_digest("old", "a" * 64)
    relabel, keep = decision(1, "relabel", digest=seen), decision(1, digest=seen)
    assert not stale(keep, seen)
    assert stale(keep, content_digest("new", "a" * 64))
    assert not stale(relabel, content_digest("new", "a" * 64))
    assert stale(relabel, content_digest("newer", "a" * 64))
    assert stale(relabel, content_digest("new", "b" * 64))
    assert not stale(keep, content_digest("old", ""))  # the file cannot be read now: that tells nothing
    assert stale(keep, content_digest(None, "a" * 64))
    assert not stale(decision(1), seen)  # made elsewhere, without a digest


# the plan of changes


def content(*texts: str | None, listed: bool = False, removed: bool = False) -> Content:
    return Content(texts, "m", listed, removed)


def planned(decisions: list[Decision], now: Content, done: frozenset[str] = frozenset()) -> list[tuple]:
    found = [replace(d, digest=d.digest or now.digest(d.caption)) for d in decisions]
    return [(c.kind, c.before, c.after) for c in plan_changes(found, {("s", ""): now}, done).changes]


def test_what_decisions_change() -> None:
    assert planned([decision(1, "relabel")], content("old")) == [("text", "old", "new")]
    assert planned([decision(1, "relabel")], content("new")) == []
    assert planned([decision(1, "relabel")], content(None)) == [("text", None, "new")]
    assert planned([decision(1, "remove")], content("old")) == [("removed", False, True)]
    assert planned([decision(1, "remove")], content()) == [("removed", False, True)]
    assert planned([decision(1, "remove")], content("old", removed=True)) == []
    for kind in ("keep", "unsure", "skip"):
        assert planned([decision(1, kind)], content("old")) == []
    assert planned([decision(1, "keep")], content("old", removed=True)) == [("removed", True, False)]
    assert planned([decision(1, "skip")], content("old", removed=True)) == []


def test_a_caption_leaves_its_list_and_the_last_one_takes_the_sample_along() -> None:
    two = content("a", "b", listed=True)
    first, second = decision(1, "remove"), decision(2, "remove", caption=1)
    assert planned([first], two) == [("texts", ("a", "b"), ("b",))]
    assert planned([first, second], two) == [("removed", False, True)]
    relabel = decision(2, "relabel", caption=1)
    assert planned([first, relabel], two) == [("texts", ("a", "b"), ("new",))]
    assert planned([relabel], two) == [("text", "b", "new")]


def test_what_was_carried_out_is_not_done_again_and_not_stale() -> None:
    first = decision(1, "remove", digest=content("a", "b", listed=True).digest(0))
    now = content("b", listed=True)
    assert [d.id for d in plan_changes([first], {("s", ""): now}).stale] == ["0001"]
    after = plan_changes([first], {("s", ""): now}, frozenset({"0001"}))
    assert (after.changes, after.stale) == ((), ())


def test_stale_and_lost_decisions_are_listed_and_change_nothing() -> None:
    old = decision(1, "remove", digest=content("old").digest(0))
    gone = decision(2, "remove", "elsewhere")
    plan = plan_changes([old, gone], {("s", ""): content("other")})
    assert (plan.changes, plan.stale, plan.lost) == ((), (old,), (gone,))


# the queue


def columns() -> dict[str, np.ndarray]:
    return {
        "misalignment": np.array([0.5, 9.0, 3.0, np.nan, 2.0]),
        "outlier": np.array([7.0, 0.0, 1.0, 8.0, 0.0]),
        "is_misaligned": np.array([False, True, True, False, False]),
        "is_outlier": np.array([True, False, False, True, False]),
        "action": np.array(["review", "review", "relabel", "review", "keep"], dtype=object),
    }


def test_the_queue_begins_with_the_worst_of_each_kind() -> None:
    assert queue(columns()).tolist() == [1, 3, 2, 0]
    assert queue(columns(), ["outlier"]).tolist() == [3, 0]
    assert queue({"misalignment": np.array([1.0, 2.0]), "action": np.array(["keep", "remove"])}).tolist() == [1]
    with pytest.raises(AuditError, match="'wrong'"):
        queue(columns(), ["wrong"])


def test_the_spot_check_is_drawn_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    n = 200
    ids = [f"{at:03d}" for at in range(n)]
    table = {"misalignment": rng.normal(size=n), "is_misaligned": rng.random(n) < 0.1}
    plan = spot_order(ids, table, 20)
    order = rng.permutation(n)
    other = spot_order([ids[at] for at in order], {name: v[order] for name, v in table.items()}, 20)
    assert [ids[row] for row in plan.rows] == [ids[order[row]] for row in other.rows]
    assert table["is_misaligned"][plan.rows].sum() == 10


def test_progress_counts_and_times() -> None:
    rows = tuple((str(row), 0) for row in range(412))
    seconds = [2.0, 4.0, 0.0, 100.0, *[4.0] * 33]
    decided = {row: decision(0, seconds=s) for row, s in zip(rows, seconds, strict=False)}
    decided[rows[-1]] = decision(0, "skip", seconds=9.0)  # not decided
    found = ReviewQueue(rows, decided).progress
    assert (found.done, found.total, found.seconds, found.minutes) == (37, 412, 4.0, 25.0)
    assert math.isnan(ReviewQueue(rows, {}).progress.seconds)


# tables

TEXTS = st.text(st.characters(), max_size=20) | st.text(
    st.sampled_from("='+-@\t\r\n \\u0041x\"',;\x1b\u202e"), max_size=9
)
DECISIONS = st.builds(
    Decision,
    sample=st.text(min_size=1, max_size=5),
    kind=st.sampled_from([k for k in KINDS if k != "relabel"]),
    text=TEXTS,
    note=TEXTS,
    reviewer=TEXTS,
    caption=st.integers(0, 9),
    seconds=st.floats(0, 1e6),
    time=st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
)


@given(st.lists(DECISIONS, max_size=4))
def test_tables_give_the_decisions_back(decisions: list[Decision]) -> None:
    assert decisions_from(decisions_to_csv(decisions), "csv") == decisions
    lines = decisions_to_jsonl(decisions)
    assert lines.isascii()
    assert decisions_from(lines, "jsonl") == decisions


def test_the_longest_text_is_read_back() -> None:
    longest = decision(0, "relabel", text="=" * 1_000_000)
    assert decisions_from(decisions_to_csv([longest]), "csv") == [longest]


def test_a_table_of_somebody_elses_needs_two_columns() -> None:
    (found,) = decisions_from("\ufeffsample,kind,note\r\nx,remove,'quoted'\r\n\r\n", "csv")
    assert (found.sample, found.kind, found.note) == ("x", "remove", "'quoted'")
    row = next(csv.reader(io.StringIO(decisions_to_csv([replace(found, text="@x\n")]).split("\r\n", 1)[1])))
    assert "'@x\n" in row


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("id,kind\nx,keep\n", "csv", "row 1 .* no 'sample'"),
        ("sample,kind,color\nx,keep,red\n", "csv", "column 'color'"),
        ("sample,kind\nx,keep\ny,delete\n", "csv", "row 3 .*'delete'"),
        ("sample,kind\nx\n", "csv", "row 2 .* 1 cells"),
        ('sample,kind\n"x,keep\n', "csv", "not valid CSV"),
        ("sample,kind,caption\nx,keep,first\n", "csv", "row 2 .*first"),
        ("sample,kind,time\nx,keep,noon\n", "csv", "row 2 .*noon"),
        ("sample,kind\n,keep\n", "csv", "row 2 .*empty"),
        ("{", "jsonl", "row 1 .* not valid JSON"),
        ("[" * 100_000, "jsonl", "row 1 .* not valid JSON"),
        ("[1]", "jsonl", "not a JSON object"),
        ('{"sample": 3, "kind": "keep"}', "jsonl", "sample is not a text"),
    ],
)
def test_tables_that_cannot_be_read_say_which_row(text: str, kind: str, words: str) -> None:
    with pytest.raises(AuditError, match=words):
        decisions_from(text, kind)


def test_files_that_are_no_tables_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with (tmp_path / "holes.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "latin.csv").write_bytes(b"sample,kind\ncaf\xe9,keep\n")
    cases = {
        "pipe.csv": "a named pipe, not a file",
        "holes.jsonl": "1,099,511,627,776 bytes",
        "latin.csv": "is not UTF-8",
        "none.csv": "cannot be read",
        "table.txt": "'table.txt'",
    }
    for name, words in cases.items():
        with pytest.raises(AuditError, match=words):
            read_decisions(tmp_path / name)
