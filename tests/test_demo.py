from __future__ import annotations

import csv
import io
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.audit.result import AuditResult
from audit_plugin.synthetic import demo as planning
from audit_plugin.synthetic.demo import (
    FAULTS,
    auroc,
    count_flagged_faults,
    draw_demo,
    fault_counts,
    plan_rows,
    swap_auroc,
)
from audit_plugin.synthetic.oddities import COPY_WAYS, SUBJECTS, altered, odd_svg, placeholder_png
from audit_plugin.synthetic.persons import MIN_TRAITS_APART, SIDE, draw_persons, person_svg
from audit_plugin.synthetic.render import draw_all
from audit_plugin.synthetic.sentences import FORMS, contradictions, describe

ROOT = Path(__file__).parents[1]
SMALL = 40


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rows():
    return plan_rows(600, 7)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "set"
    seen = []
    draw_demo(out, SMALL, 3, lambda stage, done, total: seen.append((stage, done, total)))
    return out, seen


def of(rows, fault):
    return [row for row in rows if row.fault == fault]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB").resize((64, 64)), dtype=float)


def test_the_plan_has_the_promised_counts(rows):
    counts = {fault: len(of(rows, fault)) for fault in (*FAULTS, "none")}
    assert counts == {"swapped": 60, "vague": 20, "non-persona": 20, "conflict": 20, "placeholder": 15, "none": 465}
    assert len({row.id for row in rows}) == 600


@given(st.integers(20, 20_000))
def test_counts_scale_and_leave_most_rows_alone(samples):
    counts = fault_counts(samples)
    assert counts["swapped"] == max(2, round(samples / 10))
    assert min(counts.values()) >= 1
    assert sum(counts.values()) <= 0.35 * samples


def test_ids_do_not_give_the_faults_away(rows):
    places = [i for i, row in enumerate(rows) if row.fault != "none"]
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert abs(np.mean(places) - 300) < 60


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.integers(20, 200))
@example(29672, 20)  # the first two persons differ in too little
def test_swaps_trade_captions_and_contradict_the_picture(seed, samples):
    swapped = of(plan_rows(samples, seed), "swapped")
    assert sorted(row.caption for row in swapped) == sorted(row.detail for row in swapped)  # a permutation
    assert all(row.caption != row.detail for row in swapped)
    assert all(contradictions(row.named, row.person) >= 3 for row in swapped)


def test_a_caption_contradicts_nothing_in_its_own_picture(rows):
    for row in of(rows, "none"):
        assert contradictions(row.named, row.person) == 0


def test_captions_of_persons_are_unique_and_name_at_least_four_attributes(rows):
    own = [row for row in rows if row.fault in ("none", "swapped", "conflict", "placeholder")]
    assert len({row.caption for row in own}) == len(own)
    assert min(len(row.named) for row in own) >= 4


def test_a_caption_says_the_attributes_it_claims_to_name(rows):
    words = {"black": "black", "navy": "navy", "yellow": "yellow", "orange": "orange", "white": "white"}
    checked = 0
    for row in of(rows, "none"):
        if row.named["clothes color"] in words:
            assert words[row.named["clothes color"]] in row.caption.lower()
            checked += 1
        if "beard" in row.named:
            assert re.search("beard|moustache", row.caption)
        if "glasses" in row.named:
            assert re.search("glasses|spectacles|shades|eyepatch", row.caption.lower())
        # What is not there is not spoken of.
        if not row.person.beard:
            assert not re.search("beard|moustache", row.caption.lower())
        if "hat" in row.person.head.tags:
            assert not re.search("hair|braid|afro|curls|bald", row.caption.lower())
    assert checked > 50


def test_captions_are_english_in_many_forms(rows):
    captions = [row.caption for row in of(rows, "none")]
    assert len(FORMS) >= 8
    assert len({caption.split()[0] for caption in captions}) > 15
    assert len({" ".join(re.findall(r"\w+", c)[:2]) for c in captions}) > 30
    for caption in captions:
        assert not re.search(r"\ba [aeio]|\ban [^aeiouAEIOU]|  |\{|\}|,,| \.|\ba a\b", caption), caption
        assert caption[0].isupper()
        assert caption.endswith(".")


def test_persons_differ_from_each_other_in_several_attributes():
    traits = [list(person.traits().values()) for person in draw_persons(150, random.Random(5))]
    apart = [sum(a != b for a, b in zip(one, two, strict=True)) for i, one in enumerate(traits) for two in traits[:i]]
    assert min(apart) >= MIN_TRAITS_APART


def test_every_color_has_a_choice_whatever_is_around_it():
    # An empty choice would raise: 1,000 persons pass every mixture of skin, backdrop and clothes.
    assert len(draw_persons(1000, random.Random(0))) == 1000


def test_every_part_named_in_the_tables_can_be_drawn():
    drawn = {person_svg(person) for person in draw_persons(250, random.Random(1))}
    assert len(drawn) == 250


def test_conflicts_copy_distinct_clean_pictures_that_their_caption_contradicts(rows):
    conflicts = of(rows, "conflict")
    assert all(row.source.fault == "none" for row in conflicts)
    assert len({row.source.id for row in conflicts}) == 20
    assert all(contradictions(row.named, row.source.person) >= 3 for row in conflicts)
    assert {row.way for row in conflicts} == set(COPY_WAYS)


def test_vague_captions_differ_and_name_nothing(rows):
    captions = [row.caption for row in of(rows, "vague")]
    assert len(set(captions)) == 20
    assert not any(re.search("hair|shirt|hat|beard|glasses|smil", caption) for caption in captions)


def test_odd_pictures_are_all_different():
    import resvg_py

    drawn = [bytes(resvg_py.svg_to_bytes(svg_string=odd_svg(i, random.Random(i))[0], width=64)) for i in range(20)]
    assert len(SUBJECTS) == 20
    assert len({caption for caption, _ in SUBJECTS}) == 20
    small = [pixels(png) for png in drawn]
    assert min(np.abs(a - b).mean() for i, a in enumerate(small) for b in small[:i]) > 8


@pytest.mark.parametrize("way", COPY_WAYS)
def test_an_altered_copy_looks_the_same_and_has_other_bytes(way):
    import resvg_py

    one, other = (
        bytes(resvg_py.svg_to_bytes(svg_string=person_svg(p), width=SIDE, height=SIDE))
        for p in draw_persons(2, random.Random(4))
    )
    copy = altered(one, way)
    assert copy != one
    assert 0 < np.abs(pixels(copy) - pixels(one)).mean() < 8 < np.abs(pixels(other) - pixels(one)).mean()


def test_the_placeholder_is_a_grey_card_with_writing():
    card = pixels(placeholder_png())
    assert np.ptp(card, axis=2).max() < 3
    assert card[44:52, 8:56].min() < 190  # the line of text


def test_the_folder_holds_what_the_tables_say(small):
    out, seen = small
    rows, truth = read(out / "manifest.csv"), read(out / "truth.csv")
    assert list(rows[0]) == ["id", "image", "caption"]
    assert list(truth[0]) == ["id", "fault", "detail"]
    assert [row["id"] for row in rows] == [row["id"] for row in truth]
    assert {Image.open(out / row["image"]).format for row in rows} == {"PNG"}
    assert len(list((out / "images").iterdir())) == SMALL
    faults = {row["id"]: row["fault"] for row in truth}
    same = {(out / row["image"]).read_bytes() for row in rows if faults[row["id"]] == "placeholder"}
    assert same == {placeholder_png()}
    assert seen[-1] == ("draw", SMALL, SMALL)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_the_truth_names_the_row_whose_caption_was_taken(small):
    out, _ = small
    plan = {row.id: row for row in plan_rows(SMALL, 3)}
    for row in read(out / "truth.csv"):
        if row["fault"] == "swapped":
            donor = row["detail"].removeprefix("caption of ")
            assert plan[donor].detail == plan[row["id"]].caption
        if row["fault"] == "conflict":
            assert plan[row["detail"].split()[-1]].fault == "none"


def test_equal_seeds_give_equal_bytes_and_other_seeds_another_set(small, tmp_path):
    out, _ = small
    draw_demo(tmp_path / "again", SMALL, 3)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert all((out / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    assert [row.caption for row in plan_rows(SMALL, 4)] != [row.caption for row in plan_rows(SMALL, 3)]


def test_a_whole_set_is_kept_and_a_torn_one_drawn_again(small, tmp_path):
    out = tmp_path / "set"
    draw_demo(out, 20, 1)
    image = next((out / "images").iterdir())
    before = image.stat().st_mtime_ns
    draw_demo(out, 20, 1, lambda *_: pytest.fail("drew a set that was whole"))
    assert image.stat().st_mtime_ns == before
    image.unlink()
    draw_demo(out, 20, 1)
    assert image.is_file()
    draw_demo(out, 21, 1)
    assert len(read(out / "manifest.csv")) == len(list((out / "images").iterdir())) == 21


def test_an_interrupted_drawing_is_not_taken_for_whole(tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_demo(tmp_path / "set", 20, 1, stop)
    draw_demo(tmp_path / "set", 20, 1)
    draw_demo(tmp_path / "whole", 20, 1)
    for name in ("manifest.csv", "truth.csv", "demo.json"):
        assert (tmp_path / "set" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AuditError, match="another folder with --out"):
        draw_demo(tmp_path, 20)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(AuditError, match="another folder"):
        draw_demo(tmp_path / "thesis.txt", 20)


def test_a_draft_of_the_marker_does_not_lock_the_folder(tmp_path):
    (tmp_path / f"{planning.MARKER}.part").write_text('{"half')  # what a kill left
    draw_demo(tmp_path, 60, 0)
    assert len(list((tmp_path / "images").iterdir())) == 60


def test_pictures_that_cannot_be_drawn_are_said_in_a_sentence_and_nothing_else_is_printed(tmp_path, capfd):
    svg = person_svg(draw_persons(1, random.Random(0))[0])
    with pytest.raises(AuditError, match=r"gone/a\.png cannot be written \(No such file or directory\)"):
        draw_all([(str(tmp_path / "gone" / "a.png"), svg)], SIDE, print)
    with pytest.raises(AuditError, match=r"the process that draws .*b\.png ended early \(.*Error"):
        draw_all([(str(tmp_path / "b.png"), "no drawing")], SIDE, print)
    assert capfd.readouterr() == ("", "")


def test_a_table_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / planning.MARKER).write_text("{}")
    (tmp_path / "manifest.csv").mkdir()
    with pytest.raises(AuditError, match=r"manifest\.csv cannot be written \(Is a directory\)"):
        draw_demo(tmp_path, 20, 0)


def test_too_few_samples_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(AuditError, match="samples is 19"):
        draw_demo(tmp_path / "set", 19)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("package", ["python_avatars", "resvg_py"])
def test_a_missing_package_is_named_with_its_remedy(package, tmp_path):
    code = f"""
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Gone())
from audit_plugin.arrays import AuditError
from audit_plugin.synthetic.demo import draw_demo
try:
    draw_demo("set", 20)
except AuditError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert f"{package.replace('_', '-')} is not installed" in done.stdout
    assert 'pip install "audit-plugin[demo]"' in done.stdout


def test_a_script_without_a_main_guard_can_draw(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from audit_plugin.synthetic.demo import draw_demo\nprint(draw_demo('set', 60))\n")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert Path(done.stdout.strip()) == Path("set/manifest.csv")


def result_for(truth, misalignment, **flags):
    ids = tuple(row["id"] for row in truth)
    columns = {"misalignment": np.array(misalignment, dtype=np.float32)}
    for flag in ("is_misaligned", "is_vague", "is_outlier", "is_conflict", "is_placeholder"):
        columns[flag] = np.array([row["id"] in flags.get(flag, ()) for row in truth])
    return AuditResult(ids=ids, columns=columns, summary={})


def test_found_and_missed_are_counted_by_each_kinds_own_flag(small):
    out, _ = small
    truth = read(out / "truth.csv")
    by_kind = {kind: [row["id"] for row in truth if row["fault"] == kind] for kind in FAULTS}
    result = result_for(
        truth[::-1],
        [0.0] * SMALL,
        is_misaligned=[*by_kind["swapped"][:3], *by_kind["vague"]],
        is_placeholder=by_kind["placeholder"],
    )
    counts = fault_counts(SMALL)
    assert count_flagged_faults(out / "truth.csv", result) == [
        ("swapped", 3, counts["swapped"]),
        ("vague", 0, counts["vague"]),
        ("non-persona", 0, counts["non-persona"]),
        ("conflict", 0, counts["conflict"]),
        ("placeholder", counts["placeholder"], counts["placeholder"]),
    ]


def test_swap_auroc_sets_swaps_against_rows_without_a_fault(small):
    out, _ = small
    truth = read(out / "truth.csv")
    ranks = {"swapped": 2.0, "none": 1.0}  # the other faults rank highest and must not count
    scores = [ranks.get(row["fault"], 3.0) for row in truth]
    assert swap_auroc(out / "truth.csv", result_for(truth, scores)) == 1.0
    scores[next(i for i, row in enumerate(truth) if row["fault"] == "none")] = float("nan")
    assert swap_auroc(out / "truth.csv", result_for(truth, scores)) == 1.0
    assert swap_auroc(out / "truth.csv", result_for(truth, [-s for s in scores])) == 0.0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_auroc_counts_pairs_with_ties_half(bad, good):
    pairs = [1.0 if b > g else 0.5 if b == g else 0.0 for b in bad for g in good]
    assert auroc(np.float32(bad), np.float32(good)) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc(np.float32([]), np.float32(good)))


def test_a_sentence_without_hair_to_speak_of_still_has_a_predicate():
    rng = random.Random(2)
    hatted = [person for person in draw_persons(200, rng) if "hat" in person.head.tags and not person.beard]
    for person in hatted:
        caption, named = describe(person, rng)
        assert "mood" in named or "skin" in named
        assert not re.search(r"with\s*[,.;]|who has\s*[.,]|has and", caption)


def test_the_plan_can_be_made_without_any_optional_package():
    assert "python_avatars" not in planning.__dict__
