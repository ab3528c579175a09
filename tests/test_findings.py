"""What the panel reads of an audit, and thresholds set by a person: against what is plainly in the fields."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.scoring.flags import FLAGS, PROBLEMS
from audit_plugin.scoring.reflag import reflag
from tests.findings_fixtures import SCORES, made_up

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
findings = importlib.import_module("audit_plugin.fiftyone_io.results.findings")
runs = importlib.import_module("audit_plugin.fiftyone_io.runs")
queues = importlib.import_module("audit_plugin.fiftyone_io.results.queues")
tables = importlib.import_module("audit_plugin.fiftyone_io.results.tables")
thresholds = importlib.import_module("audit_plugin.fiftyone_io.results.thresholds")
decisions = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions")


@pytest.fixture
def audited(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples, the first eight of them audited."""
    dataset = make_dataset(10)
    view = dataset[:8]
    fio.write_result(view, made_up(view.values("id")), AuditConfig())
    return dataset


def snapshot(dataset: Any) -> list[dict[str, Any]]:
    """All values; the order of tags means nothing."""
    rows = [sample.to_dict() | {"tags": sorted(sample.tags)} for sample in dataset]
    return [{name: value for name, value in row.items() if name != "last_modified_at"} for row in rows]


def test_cards_count_flags_and_tell_the_threshold(audited: Any) -> None:
    cards = {card.kind: card for card in findings.cards(audited, "audit")}
    assert list(cards) == list(FLAGS)
    assert {kind: card.count for kind, card in cards.items() if card.count} == {"misaligned": 3, "duplicate": 2}
    wrong = cards["misaligned"]
    assert (wrong.score, wrong.low, wrong.high, wrong.threshold, wrong.set_by_person) == (
        "misalignment",
        2.0,
        5.0,
        3.0,
        False,
    )
    nothing = cards["memorized"]  # from -5 to 0, median -2: the threshold stands a hundredth of the slider above
    assert (nothing.count, nothing.threshold, nothing.high) == (0, pytest.approx(0.02), pytest.approx(0.02))
    assert findings.count_above(audited, "audit", "memorized", nothing.threshold) == 0
    assert cards["duplicate"].score == ""


def test_counts_and_views_agree_at_every_threshold(audited: Any) -> None:
    for cut in (-1.0, 0.0, 1.0, 2.5, 3.0, 5.0, 5.1):
        view = findings.scored_above(audited, "audit", "misaligned", cut)
        expected = sorted((s for s in SCORES if s >= cut), reverse=True)
        assert view.values("audit_misalignment") == expected
        assert findings.count_above(audited, "audit", "misaligned", cut) == len(expected)
    assert findings.scored_between(audited, "audit", "misalignment", 1, 3).values("audit_misalignment") == [3, 2, 1]
    assert findings.flagged_as(audited, "audit", "misaligned").values("audit_misalignment") == [5, 4, 3]
    assert len(findings.flagged_as(audited, "audit", "duplicate")) == 2
    stages = str(findings.scored_above(audited, "audit", "misaligned", 1.0)._serialize())
    assert not any(name in stages for name in audited.values("id"))


def test_chosen_rows_are_shown_worst_first_whatever_their_order(audited: Any) -> None:
    ids = audited.values("id")
    for chosen in ([1, 3, 5, 7], [7, 1, 5, 3]):
        view = findings.view_of_rows(audited, "audit", [ids[row] for row in chosen])
        assert view.values("audit_misalignment") == [5, 4, 3, 2]
    captions = audited.values("caption")
    assert findings.texts_of_rows(audited, "audit", [ids[2], ids[0]]) == [captions[2], captions[0]]


def test_histogram_and_points_hold_every_scored_row(audited: Any) -> None:
    counts, edges = findings.histogram(audited, "audit", "misalignment", bins=5)
    assert counts.tolist() == [2, 1, 1, 1, 2]
    assert edges.tolist() == [0, 1, 2, 3, 4, 5]
    found = findings.points(audited, "audit", ("alignment", "multimem"))
    assert found["total"] == len(found["ids"]) == 7
    by_id = dict(zip(audited.values("id"), SCORES, strict=False))
    assert found["multimem"].tolist() == [-by_id[name] for name in found["ids"]]
    few = findings.points(audited, "audit", ("alignment", "multimem"), most=3)
    assert few["ids"] == findings.points(audited, "audit", ("alignment", "multimem"), most=3)["ids"]
    assert (len(few["ids"]), few["total"]) == (3, 7)
    assert set(findings.view_of_rows(audited, "audit", few["ids"]).values("id")) == set(few["ids"])
    with pytest.raises(AuditError, match="3,001"):
        findings.view_of_rows(audited, "audit", ["x"] * 3001)


def test_new_samples_and_changes_are_seen_at_once(audited: Any) -> None:
    assert findings.count_new(audited, "audit") == 2
    without_results = runs.audited_items(audited, "audit").without_results()
    assert without_results.values("id") == audited.values("id")[8:]
    audited.add_sample(fo.Sample(filepath=audited.first().filepath))
    assert findings.count_new(audited, "audit") == 3
    assert findings.count_above(audited, "audit", "misaligned", 4.5) == 1
    sample = audited[audited.values("id")[0]]
    sample["audit_misalignment"] = 4.75
    sample.save()
    assert findings.count_above(audited, "audit", "misaligned", 4.5) == 2
    audited.delete_samples([sample])
    assert findings.count_above(audited, "audit", "misaligned", 4.5) == 1


READ = ("id", "misalignment", "alignment", "is_misaligned", "action", "suggestion")


def all_read(dataset: Any) -> dict[str, list[Any]]:
    """Whole columns and the flagged rows, NaN as None."""
    whole, flagged = tables.read_columns(dataset, "audit", READ), tables.read_flagged(dataset, "audit")
    found = {**whole, **{f"flagged {name}": values for name, values in flagged.items()}}
    found |= {f"queue of {kinds}": fio.queue_of(dataset, "audit", kinds).rows for kinds in ((), ("misaligned",))}
    plain = {name: list(values) for name, values in found.items()}
    return {name: [None if v != v else v for v in values] for name, values in plain.items()}  # noqa: PLR0124 (NaN)


def change_at_random(dataset: Any, rng: np.random.Generator) -> None:
    """One of the ways in which samples change."""
    ids = dataset.values("id")
    sample = dataset[ids[rng.integers(len(ids))]]
    way = rng.integers(7)
    if way == 0:
        sample["audit_misalignment"] = float(rng.normal())
        sample.save()
    elif way == 1:
        sample["audit_is_misaligned"] = not sample.audit_is_misaligned
        sample.save()
    elif way == 2:
        dataset.add_sample(fo.Sample(filepath=sample.filepath))
    elif way == 3:
        dataset.delete_samples([sample])
    elif way == 4:
        sample["audit_action"] = str(rng.choice(["keep", "review"]))  # also on a sample that was not audited
        sample.save()
    elif way == 5:
        decisions.decide(dataset, sample.id, "keep")
    else:
        dataset.select(ids[::2]).set_values("audit_alignment", rng.normal(size=len(ids[::2])).tolist())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("slack", "settled"), [(0, 1), (60, 1), (60, 0.005)])
def test_what_is_kept_in_memory_is_what_the_database_holds(
    audited: Any, seed: int, slack: float, settled: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SLACK", timedelta(seconds=slack))  # within the slack all is read again
    monkeypatch.setattr(tables, "SETTLED", timedelta(seconds=settled))  # but what changed before, and was read
    rng = np.random.default_rng(seed)
    for _ in range(15):
        for _ in range(rng.integers(1, 4)):
            change_at_random(audited, rng)
        time.sleep(2 * settled if settled < 1 else 0)
        kept = all_read(audited)
        tables._tables.clear()
        assert kept == all_read(audited)
        ids = [name for name, action in zip(*audited.values(["id", "audit_action"]), strict=True) if action is not None]
        assert kept["id"] == ids
        marked = zip(*audited.values(["id", "audit_action", "audit_is_misaligned", "audit_is_duplicate"]), strict=True)
        assert kept["flagged id"] == sorted(n for n, action, *f in marked if action not in (None, "keep") or any(f))
    decisions.ledger().delete_many({"dataset": audited._doc.id})


def test_after_a_decision_only_its_sample_is_read_again(audited: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = audited.values("id")
    monkeypatch.setattr(tables, "SLACK", timedelta(0))  # all samples are younger than it
    all_read(audited)
    before = tables.read_columns(audited, "audit", ("misalignment",))["misalignment"]

    def never(*_: Any) -> None:
        raise AssertionError("whole columns are read again")

    monkeypatch.setattr(tables, "_read", never)
    decisions.decide(audited, ids[7], "keep")
    with monkeypatch.context() as patched:
        patched.setattr(queues, "queue", never)  # a decision does not change the order of the queue
        assert fio.queue_of(audited, "audit").progress.done == 1
    sample = audited[ids[6]]
    sample["audit_misalignment"] = 9.0
    sample.save()
    assert all_read(audited)["misalignment"][6] == 9.0
    assert before[6] == 0.0  # whoever holds the old values keeps them
    with pytest.raises(ValueError, match="read-only"):
        before[0] = 1
    decisions.ledger().delete_many({"dataset": audited._doc.id})


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo", "America/New_York"])
def test_what_changed_at_once_is_read_once(audited: Any, zone: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold changes more samples than are read one by one: decisions soon after it are as fast as later ones."""
    monkeypatch.setattr(fo.config, "timezone", zone)  # in which FiftyOne gives times
    monkeypatch.setattr(tables, "MOST_CHANGED", 3)
    monkeypatch.setattr(tables, "SETTLED", timedelta(milliseconds=20))
    ids = audited.values("id")
    all_read(audited)
    audited.set_values("audit_alignment", [float(row) for row in range(len(ids))])
    time.sleep(0.05)
    all_read(audited)

    def never(*_: Any) -> None:
        raise AssertionError("whole columns are read again")

    monkeypatch.setattr(tables, "_read", never)
    for row in (7, 6):
        decisions.decide(audited, ids[row], "keep")
        assert tables.read_columns(audited, "audit", ("alignment",))["alignment"][5] == 5.0
    decisions.ledger().delete_many({"dataset": audited._doc.id})


def test_after_a_bulk_write_long_ago_a_decision_reads_no_whole_column(
    audited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_CHANGED", 3)
    monkeypatch.setattr(tables, "SLACK", timedelta(milliseconds=50))
    audited.set_values("audit_alignment", [0.0] * len(audited))  # all at one time
    time.sleep(0.2)
    all_read(audited)

    def never(*_: Any) -> None:
        raise AssertionError("whole columns are read again")

    monkeypatch.setattr(tables, "_read", never)
    sample = audited[audited.values("id")[4]]
    sample["audit_alignment"] = 7.0
    sample.save()
    assert tables.read_columns(audited, "audit", ("alignment",))["alignment"][4] == 7.0


def test_a_time_that_is_none_is_long_ago(audited: Any) -> None:
    all_read(audited)
    ids = audited.values("id")
    audited._sample_collection.update_one({}, {"$set": {"created_at": "yesterday"}})
    audited.select(ids[5:6]).set_values("audit_alignment", [7.0])
    assert all_read(audited)["alignment"][5] == 7.0


def test_many_samples_are_read_in_parts(audited: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = all_read(audited)
    for rows, values in ((3, 4), (5, 2), (10, 1), (1, 100)):
        monkeypatch.setattr(tables, "ROWS", rows)
        monkeypatch.setattr(tables, "VALUES", values)
        tables._tables.clear()
        assert all_read(audited) == expected


def test_a_row_stands_where_its_scores_are_among_all(audited: Any) -> None:
    ids = audited.values("id")
    assert findings.score_ranks(audited, "audit", (ids[6], 0)) == {
        "misalignment": (0.0, 0.0),
        "multimem": (0.0, pytest.approx(6 / 7)),
        "alignment": (1.0, pytest.approx(6 / 7)),
    }
    assert findings.score_ranks(audited, "audit", (ids[3], 0))["misalignment"] == (4.0, pytest.approx(5 / 7))
    for name in (ids[2], ids[9], "0" * 24):  # not scored, not audited, not there
        assert findings.score_ranks(audited, "audit", (name, 0)) == {}


def test_audits_newest_first_and_what_is_missing_is_said(audited: Any) -> None:
    fio.write_result(audited[:8], made_up(audited[:8].values("id")), AuditConfig(run="a_later"))
    assert fio.audits_newest_first(audited) == ["a_later", "audit"]
    assert fio.audit_summary(audited, "audit")["samples"] == 8
    with pytest.raises(AuditError, match="no column 'outlier'"):
        findings.histogram(audited, "audit", "outlier")
    with pytest.raises(AuditError, match="no audit 'other'"):
        findings.cards(audited, "other")


def test_a_threshold_flags_tags_and_proposes_and_can_be_taken_back(audited: Any) -> None:
    before = snapshot(audited)
    assert thresholds.set_threshold(audited, "audit", "misaligned", 2.0) == 1
    ids = audited.values("id")
    assert audited.match_tags("audit:misaligned").values("id") == [ids[row] for row in (1, 3, 5, 7)]
    assert audited[ids[5]].audit_action == "relabel"  # it has a suggestion
    assert thresholds.set_threshold(audited, "audit", "misaligned", 3.5) == 2
    assert audited.match_tags("audit:misaligned").values("id") == [ids[row] for row in (3, 7)]
    assert (audited[ids[1]].audit_action, audited[ids[1]].audit_is_misaligned) == ("keep", False)
    assert thresholds.set_threshold(audited, "audit", "misaligned", 0.0) == 5
    assert audited[ids[0]].audit_action == "remove"
    assert audited[ids[2]].audit_action == "keep"  # never scored
    assert fio.audit_info(audited, "audit").thresholds == {"misaligned": 0.0}
    card = findings.cards(audited, "audit")[0]
    assert (card.set_by_person, card.threshold, card.count) == (True, 0.0, 7)
    thresholds.set_threshold(audited, "audit", "misaligned", None)
    assert snapshot(audited) == before
    assert fio.audit_info(audited, "audit").thresholds == {}


def test_a_threshold_gives_what_the_result_itself_would_give(make_dataset: Callable[..., Any]) -> None:
    """Whatever else was found of the rows: problems, repairs, cleaned and other suggestions."""
    dataset = make_dataset(8)
    result = made_up(dataset.values("id"))
    texts = {name: np.full(8, "", dtype=object) for name in (*PROBLEMS, "repair")}
    texts["copy_of"][1], texts["text_problem"][3], texts["image_problem"][5] = "cropped copy of b", "price", "blurred"
    texts["repair"][7] = "swap with a"
    flags = {f"is_{kind}": np.zeros(8, dtype=bool) for kind in ("likely_copy", "text_problem", "image_problem")}
    flags["is_likely_copy"][1], flags["is_text_problem"][[3, 4]], flags["is_image_problem"][5] = True, True, True
    suggestion = np.array(["", "another", "", "cleaned", "cleaned too", "fits better", "", "b"], dtype=object)
    gain = np.array([np.nan, 3.0, np.nan, np.nan, np.nan, 2.0, np.nan, 1.0])
    more = {**texts, **flags, "suggestion": suggestion, "suggestion_score": gain}
    columns: dict[str, Any] = {**result.columns, **more}
    fio.write_result(dataset, replace(result, columns=columns), AuditConfig())
    for kind, score, cut in (("misaligned", "misalignment", 0.5), ("misaligned", "misalignment", 4.5),
                             ("memorized", "multimem", -2.0)):  # fmt: skip
        thresholds.set_threshold(dataset, "audit", kind, cut)
        expected = {**columns, **reflag(columns, {f"is_{kind}": columns[score] >= cut})}
        for name in ("action", "reason", f"is_{kind}"):
            assert [value or "" for value in dataset.values(f"audit_{name}")] == [v or "" for v in expected[name]], name
        thresholds.set_threshold(dataset, "audit", kind, None)


def test_thresholds_of_two_kinds_are_taken_back_in_any_order(audited: Any) -> None:
    before = snapshot(audited)
    thresholds.set_threshold(audited, "audit", "misaligned", 1.0)
    thresholds.set_threshold(audited, "audit", "memorized", -2.0)
    thresholds.set_threshold(audited, "audit", "misaligned", None)
    after = snapshot(audited)
    thresholds.set_threshold(audited, "audit", "memorized", None)
    assert snapshot(audited) == before
    thresholds.set_threshold(audited, "audit", "memorized", -2.0)
    assert snapshot(audited) == after


def test_a_users_own_tag_stays_and_deleting_the_audit_takes_all_else(audited: Any) -> None:
    ids = audited.values("id")
    plain = audited.clone()
    fio.delete_audit(plain, "audit")
    audited.select(ids[5]).tag_samples("audit:misaligned")  # by hand, before the threshold reaches it
    thresholds.set_threshold(audited, "audit", "misaligned", 1.0)
    thresholds.set_threshold(audited, "audit", "misaligned", 4.5)
    assert set(audited.match_tags("audit:misaligned").values("id")) == {ids[5], ids[7]}
    thresholds.set_threshold(audited, "audit", "misaligned", 1.0)
    fio.delete_audit(audited, "audit")
    assert audited.match_tags("audit:misaligned").values("id") == [ids[5]]
    assert set(audited.get_field_schema()) == set(plain.get_field_schema())
    plain.delete()


@pytest.mark.parametrize(
    ("kind", "cut", "words"),
    [
        ("duplicate", 1.0, "no score"),
        ("misaligned", float("nan"), "not a finite number"),
        ("outlier", 1.0, "'outlier'"),
    ],
)
def test_what_cannot_be_a_threshold_is_said(audited: Any, kind: str, cut: float, words: str) -> None:
    before = snapshot(audited)
    with pytest.raises(AuditError, match=words):
        thresholds.set_threshold(audited, "audit", kind, cut)
    assert snapshot(audited) == before


def check_flagged(dataset: Any, ids: Any) -> None:
    """The flagged rows of `made_up`, whatever they are rows of."""
    flagged = tables.read_flagged(dataset, "audit")
    assert dict(zip(flagged["id"], flagged["is_misaligned"], strict=True)) == {ids[r]: r > 0 for r in (0, 1, 3, 7)}
    assert flagged["action"].tolist().count("remove") == 1
    assert np.isnan(flagged["outlier"]).all()
    assert findings.score_ranks(dataset, "audit", (ids[3], 0))["misalignment"] == (4.0, pytest.approx(5 / 7))


def test_an_audit_without_what_it_read_cannot_be_mapped(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(20)  # too few to train on
    fio.audit_view(dataset, AuditConfig(encoder="offline", trials=4, epochs=2, device="cpu"))
    with pytest.raises(AuditError, match="cannot be mapped"):
        fio.map_embeddings(dataset, "audit")


def test_groups_count_once_and_are_found(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(8)
    settings = AuditConfig(text="caption", image="slice:picture", audio="slice:sound")
    ids = fio.read_samples(dataset, settings).ids
    fio.write_result(dataset, made_up(list(ids)), settings)
    card = findings.cards(dataset, "audit")[0]
    assert (card.count, card.threshold) == (3, 3.0)
    assert len(findings.scored_above(dataset, "audit", "misaligned", 2.0)) == 4
    assert findings.count_new(dataset, "audit") == 0
    found = findings.points(dataset, "audit", ("alignment", "multimem"))
    assert len(findings.view_of_rows(dataset, "audit", found["ids"][:3])) == 3
    check_flagged(dataset, ids)
    thresholds.set_threshold(dataset, "audit", "misaligned", 2.0)
    for name in ("picture", "sound"):
        assert len(dataset.select_group_slices(name).match_tags("audit:misaligned")) == 4
    assert findings.cards(dataset, "audit")[0].count == 4


def test_objects_are_counted_and_found(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4)
    box = [0.1, 0.1, 0.5, 0.5]
    boxes = [fo.Detections(detections=[fo.Detection(label=x, bounding_box=box) for x in "ab"]) for _ in range(4)]
    dataset.set_values("truth", boxes)
    patches = dataset.to_patches("truth")
    fio.write_result(patches, made_up(patches.values("id")), AuditConfig())
    card = findings.cards(dataset, "audit")[0]
    assert (card.count, card.threshold) == (3, 3.0)
    assert len(findings.scored_above(dataset, "audit", "misaligned", 2.0)) == 4
    found = findings.points(dataset, "audit", ("alignment", "multimem"))
    assert set(findings.view_of_rows(dataset, "audit", found["ids"][:3]).values("id")) == set(found["ids"][:3])
    check_flagged(dataset, patches.values("id"))
    with pytest.raises(AuditError, match="objects"):
        thresholds.set_threshold(dataset, "audit", "misaligned", 2.0)


@pytest.mark.parametrize("objects", [False, True])
def test_the_map_is_a_part_of_the_audit(make_dataset: Callable[..., Any], objects: bool) -> None:
    dataset = make_dataset(40)
    boxes = [fo.Detections(detections=[fo.Detection(label=f"{r}", bounding_box=[0, 0, 1, 1])]) for r in range(40)]
    dataset.set_values("truth", boxes)
    before = set(dataset.get_field_schema(flat=True))
    audited = dataset.to_patches("truth") if objects else dataset
    fio.audit_view(audited, AuditConfig(encoder="offline", trials=4, epochs=2, device="cpu"))
    assert not findings.has_column(dataset, "audit", findings.MAP[0])
    assert fio.map_embeddings(dataset, "audit") == 40
    found = tables.read_columns(dataset, "audit", findings.MAP)
    assert found["map_x"].std() == pytest.approx(1, abs=1e-3)  # the unit is the first direction's deviation
    assert 0 < found["map_y"].std() <= 1
    fio.delete_audit(dataset, "audit")
    dataset.reload()
    assert {name for name in dataset.get_field_schema(flat=True) if "map_" in name} == set()
    assert set(dataset.get_field_schema(flat=True)) == before
