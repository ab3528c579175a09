"""The queue of an audit, spot checks and whole repairs, and the commands of the review, in a real database."""

from __future__ import annotations

import importlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.spreadsheet import original
from audit_plugin.review import Decision, ReviewQueue
from audit_plugin.scoring.suggest.join_bugs import UNCERTAIN
from tests.conftest import caption
from tests.review_fixtures import clock_moved, written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
cases = importlib.import_module("audit_plugin.fiftyone_io.results.cases")


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(8)
    written(made, (4, 1, 6))
    return made


@pytest.fixture
def objects(make_dataset: Callable[..., Any]) -> Any:
    """Two images with two boxes each, of the classes a and b."""

    def boxes(_row: int) -> Any:
        both = [fo.Detection(label=name, bounding_box=[0.1, 0.1, 0.5, 0.5]) for name in "ab"]
        return fo.Detections(detections=both)

    made = make_dataset(2, boxes=boxes)
    written(made.to_patches("boxes"), (2, 1), config=AuditConfig(text="boxes"))
    return made


def test_the_queue_shrinks_with_decisions_and_grows_with_changes(dataset: Any) -> None:
    ids = dataset.values("id")
    assert fio.queue_of(dataset, "audit").left == ((ids[4], 0), (ids[1], 0), (ids[6], 0))
    fio.decide(dataset, ids[4], "skip", reviewer="ann")
    fio.decide(dataset, ids[1], "keep", reviewer="ann", seconds=3.0)
    found = fio.queue_of(dataset, "audit")
    assert found.left == ((ids[6], 0), (ids[4], 0))
    assert (found.progress.done, found.progress.total, found.progress.seconds) == (1, 3, 3.0)
    sample = dataset[ids[1]]
    sample["caption"] = "another"
    sample.save()
    assert (ids[1], 0) in fio.queue_of(dataset, "audit").left
    assert fio.queue_of(dataset, "audit", ["outlier"]).left == ()
    assert fio.queue_of(dataset[1:5], "audit").progress.total == 2
    with pytest.raises(AuditError, match="no audit 'other'"):
        fio.queue_of(dataset, "other")


def test_captions_objects_and_groups_have_rows_of_their_own(
    make_dataset: Callable[..., Any], make_groups: Callable[..., Any]
) -> None:
    lists = make_dataset(3, captions=lambda row: [f"a{row}", f"b{row}"])
    written(lists, (3, 2), "captions")  # both of the second sample
    name = lists.values("id")[1]
    queue = fio.queue_of(lists, "audit")
    assert queue.left == ((name, 1), (name, 0))
    assert [cases.case_of(lists, "audit", row).text for row in queue.rows] == ["b1", "a1"]
    assert cases.row_to_show(lists, "audit", queue, name) == (name, 1)
    assert cases.row_to_show(lists, "audit", queue, lists.values("id")[0])[0] == lists.values("id")[0]
    fio.decide(lists, name, "keep", caption=1)
    assert fio.queue_of(lists, "audit").left == ((name, 0),)

    def boxes(row: int) -> Any:
        both = [fo.Detection(label=f"{name}{row}", bounding_box=[0.1, 0.1, 0.5, 0.5]) for name in "ab"]
        return fo.Detections(detections=both)

    objects = make_dataset(2, boxes=boxes)
    patches = objects.to_patches("boxes")
    written(patches, (2, 1), config=AuditConfig(text="boxes"))
    labels = patches.values("id")
    queue = fio.queue_of(objects, "audit")
    assert queue.left == ((labels[2], 0), (labels[1], 0))
    samples = objects.values("id")
    assert cases.row_to_show(objects, "audit", queue, samples[1]) == (labels[2], 0)
    assert cases.row_to_show(objects, "audit", queue, labels[1]) == (labels[1], 0)
    assert cases.sample_of(objects, "audit", (labels[1], 0)) == samples[0]
    assert cases.case_of(objects, "audit", (labels[2], 0)).text == "a1"
    fio.decide(objects, labels[2], "remove")
    assert fio.queue_of(objects, "audit").left == ((labels[1], 0),)

    groups = make_groups(3)
    config = AuditConfig(image="slice:picture", audio="slice:sound.filepath", text="slice:picture.caption")
    written(groups, (1,), config=config)
    (row,) = fio.queue_of(groups, "audit").left
    assert row == (groups.values("id")[1], 0)
    sounds = groups.select_group_slices("sound").values("id")
    assert cases.row_to_show(groups, "audit", fio.queue_of(groups, "audit"), sounds[1]) == row
    fio.decide(groups, row[0], "keep")
    assert fio.queue_of(groups, "audit").left == ()


def test_next_and_previous_by_hand() -> None:
    rows = tuple((name, 0) for name in "abcd")
    queue = ReviewQueue(rows, {})
    assert queue.left == rows
    assert (queue.next(), queue.next(rows[1]), queue.next(rows[3])) == (rows[0], rows[2], rows[0])
    assert (queue.previous(rows[2]), queue.previous(rows[0]), queue.previous(None)) == (rows[1], rows[0], rows[0])
    decided = {rows[0]: Decision("a", "keep"), rows[2]: Decision("c", "skip")}
    queue = ReviewQueue(rows, decided)
    assert queue.left == (rows[1], rows[3], rows[2])
    assert [queue.next(rows[at]) for at in range(4)] == [rows[1], rows[3], rows[3], rows[1]]
    assert queue.progress.done == 1
    assert queue.row_of("a") == rows[0]
    decided |= {rows[1]: Decision("b", "keep"), rows[3]: Decision("d", "remove")}
    assert ReviewQueue(rows, decided).next(rows[3]) == rows[2]  # skipped: comes back last
    decided[rows[2]] = Decision("c", "unsure")
    assert ReviewQueue(rows, decided).next() is None
    assert ReviewQueue((), {}).previous(None) is None


def test_a_batch_leaves_out_what_is_decided_and_what_should_stay(dataset: Any) -> None:
    ids = dataset.values("id")
    assert fio.batch_rows(dataset, "audit", "misaligned", "keep") == ((ids[4], 0), (ids[1], 0), (ids[6], 0))
    fio.decide(dataset, ids[1], "remove", reviewer="ann")
    assert fio.batch_rows(dataset, "audit", "misaligned", "remove") == ((ids[4], 0), (ids[6], 0))
    scores = dict(zip(ids, dataset.values("audit_misalignment"), strict=True))
    above = fio.batch_rows(dataset, "audit", "misaligned", "keep", threshold=scores[ids[6]])
    assert {name for name, _ in above} == {name for name in ids if scores[name] >= scores[ids[6]]} - {ids[1]}
    dataset.set_values("audit_suggestion", {ids[4]: "", ids[6]: "better"}, key_field="id")
    assert fio.batch_rows(dataset, "audit", "misaligned", "relabel") == ((ids[6], 0),)
    dataset.set_values("audit_is_duplicate", {ids[2]: True, ids[3]: True}, key_field="id")
    dataset.set_values("audit_action", {ids[3]: "remove"}, key_field="id")
    assert fio.batch_rows(dataset, "audit", "duplicate", "remove") == ((ids[3], 0),)  # one of the group stays
    assert len(fio.batch_rows(dataset, "audit", "duplicate", "keep")) == 2
    with pytest.raises(AuditError, match="no score"):
        fio.batch_rows(dataset, "audit", "duplicate", "keep", threshold=1.0)
    with pytest.raises(AuditError, match="is unknown"):
        fio.batch_rows(dataset, "audit", "wrong", "keep")


def test_a_spot_check_is_drawn_decided_and_estimated(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(60)
    flagged = tuple(range(0, 20))
    written(dataset, flagged)
    with pytest.raises(AuditError, match="no spot check"):
        fio.spot_check(dataset, "audit")
    ids = dataset.values("id")
    fio.decide(dataset, ids, "remove")  # in a batch: no verdicts
    check = fio.start_spot_check(dataset, "audit", 20)
    assert len(check.queue.rows) == 20
    assert set(check.verdicts) == {""}
    bad = {ids[row] for row in flagged[:15]}
    assert sum(name in {ids[row] for row in flagged} for name, _ in check.queue.rows) == 10
    for row in check.queue.rows:
        fio.record_spot_check(dataset, "audit", row, "remove" if row[0] in bad else "keep", reviewer="ann")
    done = fio.spot_check(dataset, "audit")
    assert done.queue.rows == check.queue.rows
    assert [v == "wrong" for v in done.verdicts] == [name in bad for name, _ in check.queue.rows]
    found = done.estimate()
    assert found.reviewed == 20
    assert found.precision.low <= 15 / 20 <= found.precision.high
    assert found.wrong.low <= 15 <= found.wrong.high
    fio.undo_last(dataset, "ann")
    assert fio.spot_check(dataset, "audit").verdicts[-1] == ""
    assert math.isnan(fio.start_spot_check(dataset, "audit", 20).estimate().precision.value)


def test_a_spot_check_takes_the_decisions_after_its_start_whatever_the_clock_says(dataset: Any) -> None:
    with clock_moved(400):
        old = fio.start_spot_check(dataset, "audit", 4)
        fio.record_spot_check(dataset, "audit", old.queue.rows[0], "keep")
        fio.start_spot_check(dataset, "audit", 5, seed=1)
    new = fio.spot_check(dataset, "audit")
    assert (len(new.queue.rows), set(new.verdicts)) == (5, {""})  # the latest, without what was decided before
    fio.record_spot_check(dataset, "audit", new.queue.rows[1], "remove")
    assert fio.spot_check(dataset, "audit").verdicts[:2] == ("", "wrong")
    for row, kind in (((1, 2, 3), "keep"), (5, "keep"), (new.queue.rows[0], {"a": 1}), (new.queue.rows[0], "undone")):
        with pytest.raises(AuditError, match="row|unknown"):
            fio.record_spot_check(dataset, "audit", row, kind)


def test_the_search_for_a_threshold_goes_on_from_the_decisions(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(60)
    written(dataset, tuple(range(30)))
    ids = dataset.values("id")
    fio.decide(dataset, ids, "keep")  # in a batch: no labels
    check = fio.threshold_check(dataset, "audit")
    assert (len(check.rows), check.labels) == (60, {})
    ahead = check.ahead(0.9, 40, 5)
    asked = []
    while (row := check.search(0.9).next_row) is not None:
        asked.append(check.rows[row])
        fio.decide(dataset, check.rows[row][0], "remove" if check.rows[row][0] in ids[:25] else "keep", reviewer="ann")
        check = fio.threshold_check(dataset, "audit")
    assert asked[:2] == ahead[:2]
    search = check.search(0.9)
    assert search.labeled == len(asked) == len(check.labels)
    assert 0 < search.rows <= 27
    fio.undo_last(dataset, "ann")
    assert check.rows[fio.threshold_check(dataset, "audit").search(0.9).next_row] == asked[-1]


def test_a_repair_is_decided_at_one_stroke(dataset: Any) -> None:
    ids = dataset.values("id")
    made = fio.repair_decisions(dataset, "audit", "why", reviewer="ann")
    assert {d.sample: d.text for d in made} == {ids[row]: f"better {row}" for row in (1, 4, 6)}
    assert {(d.source, d.note) for d in made} == {("repair", "why")}
    fio.apply(dataset)
    assert dataset.values("caption")[4] == "better 4"
    fio.undo(dataset)
    assert len(fio.undo_last(dataset, "ann")) == 3
    with pytest.raises(AuditError, match="belongs to the repair 'else'"):
        fio.repair_decisions(dataset, "audit", "else")


def test_rows_at_an_uncertain_end_are_left_out_of_the_batch_and_asked_about(dataset: Any) -> None:
    ids = dataset.values("id")
    sample = dataset[ids[6]]
    sample["audit_reason"] = f"{UNCERTAIN}why"
    sample.save()
    assert fio.uncertain_rows(dataset, "audit", "why") == [ids[6]]
    assert fio.uncertain_rows(dataset, "audit", "else") == []
    assert [d.sample for d in fio.repair_decisions(dataset, "audit", "why", "ann")] == [ids[1], ids[4]]
    assert fio.queue_of(dataset, "audit").left == ((ids[6], 0),)  # the only one that is still asked about
    made = fio.repair_decisions(dataset, "audit", "why", "ann", uncertain=True)
    assert {d.sample for d in made} == {ids[row] for row in (1, 4, 6)}
    for row in (1, 4):
        sample = dataset[ids[row]]
        sample["audit_reason"] = f"{UNCERTAIN}why"
        sample.save()
    with pytest.raises(AuditError, match=r"all rows of the repair 'why' are uncertain; .* uncertain=True"):
        fio.repair_decisions(dataset, "audit", "why", "ann")


# the command line


def review(*arguments: object, code: int = 0) -> str:
    from audit_plugin.cli import app

    done = CliRunner().invoke(app, ["review", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def test_a_copy_names_the_decisions_that_it_does_not_hold(dataset: Any) -> None:
    from audit_plugin.cli import app

    name, ids = dataset.name, dataset.values("id")
    review("decide", name, "remove", ids[1])
    said = CliRunner().invoke(app, ["export", name, "--to", f"{name}-copy"]).output
    assert f"{len(ids)} of {len(ids)} samples: dataset" in said
    assert (
        f"1 decided change is not applied, and not in the copy; to apply them first: audit-plugin review apply {name}"
        in said
    )
    review("apply", name)
    said = CliRunner().invoke(app, ["export", name, "--to", f"{name}-clean"]).output
    assert f"{len(ids) - 1} of {len(ids)} samples: dataset" in said
    assert "not applied" not in said


def test_a_review_from_the_command_line(dataset: Any, tmp_path: Path) -> None:
    name, ids = dataset.name, dataset.values("id")
    header, *rows, progress = review("list", name).splitlines()
    assert header.split("\t")[:5] == ["id", "caption_index", "path", "text", "suggestion"]
    assert [row.split("\t")[0] for row in rows] == [ids[4], ids[1], ids[6]]
    cells = [dataset[ids[4]].filepath, caption(4), "better 4", "3", "0.3", "misaligned", "relabel", "why"]
    assert rows[0].split("\t") == [ids[4], "0", *cells]
    assert progress == "0 of 3 decided"
    assert "decided relabel for 1" in review("decide", name, "relabel", ids[4])
    review("decide", name, "remove", ids[1], ids[6], "--reviewer", "ann", "--note", "bad")
    review("decide", name, "keep", ids[6], "--reviewer", "\x1b[31mbob")
    listed = review("list", name)
    assert f"disagreement on {ids[6]}" in listed
    assert "\x1b" not in listed
    review("undo", name, "--decision", "--reviewer", "\x1b[31mbob")
    assert review("apply", name, "--dry-run").startswith("3 changes")
    assert "1 relabeled, 2 removed" in review("apply", name)
    assert dataset.values("caption")[4] == "better 4"
    table, removed = tmp_path / "d.csv", tmp_path / "removed.txt"
    review("export", name, "--decisions", table, "--removed", removed)
    assert removed.read_text().split() == [ids[1], ids[6]]
    assert review("import", name, table).startswith("0 new")
    review("decide", name, "remove", ids[0])
    assert "3 samples of" in review("apply", name, "--delete", 2, code=2)  # those of this command count
    assert review("apply", name, "--dry-run").splitlines()[-1] == "3 samples are marked as removed already"
    assert review("apply", name, "--delete", 3).startswith("applied: 3 deleted")
    assert "3 deleted" in review("undo", name)
    assert "1 removed" in review("undo", name)
    assert "undone" in review("undo", name)
    dataset.reload()
    assert dataset.sort_by("id").values("caption") == [caption(row) for row in range(8)]
    drawn = review("spot-check", name, "--start", 4).splitlines()
    assert drawn[-1] == "0 of 4 decided"
    decided = review("spot-check", name, "--decide", "keep", "--sample", drawn[0])
    assert "1 of 4 decided" in decided
    assert "nan" not in decided
    assert dataset[drawn[0]]["audit_decision"] == "keep"


def test_a_search_in_a_pipe_lists_what_to_decide_on_and_ends_with_the_guarantee(
    make_dataset: Callable[..., Any],
) -> None:
    from audit_plugin.cli import app

    dataset = make_dataset(30)
    written(dataset, tuple(range(20)))
    ids, arguments = dataset.values("id"), ["review", "spot-check", dataset.name, "--precision", "0.8"]
    for _ in range(10):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        header, *rows = done.stdout.splitlines()
        assert header.split("\t")[:4] == ["id", "caption_index", "path", "text"]
        if not rows:
            break
        assert "labels; " in done.stderr
        assert "to go on: the same command" in done.stderr
        for row in rows:
            name = row.split("\t")[0]
            review("decide", dataset.name, "remove" if name in ids[:18] else "keep", name)
    assert "guarantee: with a probability of at least 90% over the random draw, at least 80% of the" in done.stderr
    assert "the operator Set threshold" in done.stderr
    assert "99.5%" in CliRunner().invoke(app, [*arguments[:-1], "0.995"]).stderr
    assert "leave out --start" in review(*arguments[1:], "--start", 4, code=2)
    assert "precision 2.0 is not between" in review(*arguments[1:-1], 2.0, code=2)


def test_a_search_on_a_terminal_asks_by_keys_and_loses_nothing(make_dataset: Callable[..., Any]) -> None:
    """On a real terminal: two labels, an unknown key, an interrupt; then one more and q."""
    dataset = make_dataset(30)
    written(dataset, tuple(range(20)))
    arguments = ["review", "spot-check", dataset.name, "--precision", "0.8"]
    said, code = on_a_terminal(arguments, ["w", "xr", "\x03"])
    assert "0 of about" in said
    assert "2 of about" in said
    assert "3 of about" not in said
    assert code == 130
    said, code = on_a_terminal(arguments, ["u", "q"])
    assert "3 of about" in said
    assert "the decisions are kept" in said
    assert code == 0
    assert sorted(fio.threshold_check(dataset, "audit").labels.values()) == ["right", "unsure", "wrong"]


def on_a_terminal(arguments: list[str], keys: list[str]) -> tuple[str, int]:
    """Runs a command on a pseudo-terminal, with keys for each question in turn; what it said, and its exit code."""
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    termios = importlib.import_module("termios")
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-m", "audit_plugin", *arguments])
    said, waiting = "", list(keys)
    while True:
        if not select.select([terminal], [], [], 120)[0]:
            os.kill(child, signal.SIGKILL)
            pytest.fail(f"the command waits: {said}")
        try:
            part = os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # Linux: the other side has ended
            break
        if not part:
            break
        said += part
        if waiting and said.count("q quit: ") > len(keys) - len(waiting):
            while termios.tcgetattr(terminal)[3] & termios.ICANON:  # what is typed before single keys are read is lost
                time.sleep(0.01)
            os.write(terminal, waiting.pop(0).encode())
    os.close(terminal)
    return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_command_line_says_what_is_wrong(dataset: Any) -> None:
    assert "nothing to export" in review("export", dataset.name, code=2)
    assert "does not exist" in review("list", "no-such-dataset", code=2)
    decide = ("spot-check", dataset.name, "--start", 4, "--decide", "keep")
    assert "--decide needs --sample" in review(*decide, code=2)
    assert "is not in the spot check" in review(*decide, "--sample", "another", code=2)
    assert "nothing is applied" in review("undo", dataset.name, code=2)


def test_a_list_in_a_pipe_is_tab_separated_and_reverts_exactly(dataset: Any) -> None:
    from audit_plugin.cli import app

    ids, hostile = dataset.values("id"), "=1+1\t\x1b[31mred\r\nnext \\u0009 \u202e"
    dataset.set_values("caption", [hostile] * 8)
    done = CliRunner().invoke(app, ["review", "list", dataset.name, "--limit", "2"])
    lines = done.stdout.split("\n")
    assert (len(lines), lines[-1]) == (4, "")
    cells = [line.split("\t") for line in lines[1:3]]
    assert [row[0] for row in cells] == [ids[4], ids[1]]
    assert all(len(row) == 10 and row[3].isprintable() and original(row[3]) == hostile for row in cells)
    assert done.stderr == "0 of 3 decided\n"


def test_a_list_on_a_terminal_is_a_table(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "200", "NO_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    dataset.set_values("caption", ["[red]\x1b[2J\u202e of a cat"] * 8)
    out = review("list", dataset.name)
    assert "To review" in out
    assert "[red] [2J of a cat" in " ".join(out.split())
    for part in ("better 4", "misalignment 3.00, probability 0.30", "misaligned: why", dataset.values("id")[4]):
        assert part in out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out


def test_a_batch_skips_what_cannot_be_decided_and_counts_why(dataset: Any) -> None:
    name, ids = dataset.name, dataset.values("id")
    gone = "0" * 24
    said = review("decide", name, "relabel", ids[4], ids[0], gone, ids[2], "no id", "--reviewer", "ann")
    assert "decided relabel for 1;" in said
    assert f"skipped 2: no suggestion of the audit ({ids[0]}, ...)" in said
    assert f"skipped 2: not in the dataset ({gone}, ...)" in said
    assert [(d.sample, d.text) for d in fio.decisions(dataset)] == [(ids[4], "better 4")]
    assert "skipped 1: no caption 3" not in review("decide", name, "keep", ids[1], ids[4])
    assert "has no caption 3, but 1" in review("decide", name, "keep", ids[1], ids[4], "--caption", 3, code=2)
    assert "is not a sample or object" in review("decide", name, "keep", gone, code=2)
    assert "has no suggestion" in review("decide", name, "relabel", ids[0], ids[2], code=2)
    assert len(fio.decisions(dataset)) == 3


def test_captions_of_some_samples_only_are_decided(make_dataset: Callable[..., Any]) -> None:
    lists = make_dataset(3, captions=lambda row: ["one", "two"][: row + 1])
    written(lists, (3, 2), "captions")
    ids = lists.values("id")
    made, skipped = fio.decide_batch(lists, ids[:2], "keep", caption=1)
    assert [(d.sample, d.caption) for d in made] == [(ids[1], 1)]
    assert skipped == {(ids[0], 1): "no caption 1"}


def test_a_class_that_the_set_lacks_has_to_be_asked_for(objects: Any) -> None:
    label = objects.values("boxes.detections.id", unwind=True)[2]
    relabel = ("decide", objects.name, "relabel", label, "--text")
    refused = review(*relabel, "aa", code=2)
    assert f"'aa' is not among the 2 classes of dataset {objects.name!r} (a); correct it, or add it with" in refused
    assert not fio.decisions(objects)
    assert "decided relabel for 1" in review(*relabel, "b")
    assert "decided relabel for 1" in review(*relabel, "aa", "--new-class")
    objects.default_classes = ["declared"]
    objects.save()
    assert "decided relabel for 1" in review(*relabel, "declared")


def test_captions_are_not_classes(dataset: Any) -> None:
    assert "decided relabel" in review("decide", dataset.name, "relabel", dataset.first().id, "--text", "anything")


@pytest.mark.parametrize("kind", ["Classification", "Classifications"])
def test_labels_of_samples_are_classes(kind: str, make_dataset: Callable[..., Any]) -> None:
    def label(row: int) -> Any:
        one = fo.Classification(label="abcd"[row])
        return one if kind == "Classification" else fo.Classifications(classifications=[one])

    made = make_dataset(4, cls=label)
    written(made, (1,), "cls")
    with pytest.raises(AuditError, match="'e' is not among the 4 classes"):
        fio.decide_batch(made, [made.first().id], "relabel", text="e")
    assert fio.decide_batch(made, [made.first().id], "relabel", text="d")[1] == {}


def test_words_are_those_of_the_caption_that_was_explained() -> None:
    words = [{"text": "red", "gain": 0.2}]
    assert cases.misaligned_words({"caption_index": 2, "words": words}, 1) == (), "they are another text's"
    assert cases.misaligned_words({"caption_index": 2, "words": words}, 2) == ("red",)
