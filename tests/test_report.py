"""The report: what it says is counted by hand, and nothing in it runs, loads or reorders anything."""

from __future__ import annotations

import base64
import importlib
import io
import json
import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from audit_plugin import cli
from audit_plugin.arrays import AuditError, Samples, percent
from audit_plugin.audit.result import AuditResult, write_scores
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.tables import write_table
from audit_plugin.report import (
    ReportContent,
    listed_rows,
    read_cross_modal,
    report_html,
    report_of_table,
    svg_plots,
    write_report,
)
from audit_plugin.report.markup import HIDDEN, JOINERS, cut, marked, no_images, painter, visible
from audit_plugin.report.memorized_rows import memorized_section
from audit_plugin.report.page import cards
from audit_plugin.review.spot_check import estimate, plan_spot_check
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.scores import SCORES
from tests.browsing import CHROMIUM
from tests.cross_modal_fixtures import made_up as transfer_made_up
from tests.fiftyone_fixtures import result_for
from tests.pipeline_fixtures import QUICK, encoded_rows

HOSTILE = (
    "<script>document.body.dataset.hacked=1</script>",
    '"><img src=x onerror="document.body.dataset.hacked=1">',
    "</style></svg></details>]]><!-- <iframe src=//example.org>",
    "{{ 7 * 7 }}{% raw %}",
    "photo\u202egnp.exe\u2066\x00\x07\x1b[31m\ud800\u2028",
    "=cmd|' /C calc'!A0",
    "' onmouseover='document.body.dataset.hacked=1",
    "javascript:alert(1)",
)


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def content(n: int = 30, flags: dict[str, tuple[int, ...]] | None = None, **changes: Any) -> ReportContent:
    """An audit of n rows, the later the worse; `flags`: kind -> rows."""
    score = np.linspace(-2, 4, n)
    columns: dict[str, Any] = {"misalignment": score, "multimem": score[::-1] / 4, "alignment": -score}
    columns |= {f"is_{kind}": np.isin(np.arange(n), (flags or {}).get(kind, ())) for kind in FLAGS}
    bad = columns["is_misaligned"] | columns["is_outlier"] | columns["is_conflict"]
    columns["action"] = np.where(bad, "review", "keep").astype(object)
    columns["reason"] = np.where(bad, "media do not fit", "").astype(object)
    media = {"image": tuple(f"/none/{row}.png" for row in range(n)), "text": tuple(f"text {row}" for row in range(n))}
    samples = Samples(tuple(f"s{row}" for row in range(n)), media)
    return replace(ReportContent("photos", samples, columns), **changes)


def hostile_content() -> ReportContent:
    """Hostile text wherever the data can bring some."""
    n = len(HOSTILE)
    plain = content(n, {"misaligned": tuple(range(n)), "duplicate": (0, 1), "conflict": (1,)})
    texts = np.array(HOSTILE, dtype=object)
    columns = dict(plain.columns) | dict.fromkeys(("reason", "suggestion", "repair", "failure"), texts)
    columns |= {"action": np.full(n, "relabel", dtype=object), "duplicate_group": texts[[0, 0, *range(2, n)]]}
    voter = {"caption": HOSTILE[0], "similarity": 0.9, "agreement": 0.1, "weight": 1.0, "caption_index": 0}
    record = {"caption_index": 0, "words": [{"text": "x", "start": 1, "end": 7, "gain": 0.5}]}
    sides = [{"near": "image", "other": "text", "voters": [voter | {"id": name} for name in HOSTILE]}]
    notes = {name: {text: text for text in HOSTILE} for name in ("config", "versions", "encoder")}
    sentences = [{"sentence": text} for text in HOSTILE]
    measured = transfer_made_up([str(row) for row in range(2 * n)], list(HOSTILE) * 2)
    return ReportContent(
        HOSTILE[0],
        Samples(HOSTILE, {"image": HOSTILE, "text": HOSTILE}),
        columns,
        {**notes, "notes": HOSTILE, "repairs": sentences, "trained": HOSTILE[1], "attribution": {HOSTILE[1]: 0.5}},
        {name: [record | {"id": name, "neighbors": sides}] for name in HOSTILE},
        [{"sample": t, "kind": t, "text": t, "reviewer": t, "note": t, "time": t, "stale": True} for t in HOSTILE],
        made=HOSTILE[3],
        cross_modal=measured.summary | {"people": measured.identities, "notes": list(HOSTILE)},
    )


# hostile text


@given(st.text())
def test_visible_text_is_the_text_with_what_hides_in_boxes(text: str):
    page = Page(f"<p>{visible(text)}</p>")
    assert {tag for tag, _ in page.tags} <= {"p", "b"}
    assert all(attributes in ({}, {"class": "u"}) for _, attributes in page.tags)
    assert not [c for c in "".join(page.words) if unicodedata.category(c) in HIDDEN and c not in JOINERS]
    plain = "".join(c for c in text if unicodedata.category(c) not in HIDDEN or c in JOINERS)
    outside = "".join(Page(re.sub("<b .*?</b>", "", f"<p>{visible(text)}</p>")).words)
    assert outside.replace(" ", "") == plain.replace(" ", "")  # a line break in a box is followed by a space


def test_what_hides_is_named():
    assert visible("a\u202eb\x00") == 'a<b class="u">U+202E</b>b<b class="u">U+0000</b>'
    assert visible("<b>&\"'") == "&lt;b&gt;&amp;&#34;&#39;"
    assert visible("👩\u200d🔧 é سلام") == "👩\u200d🔧 é سلام"
    assert "\n" not in visible("one\ntwo")
    many = visible("\u202e" * 300)
    assert many.count("<b") == 100
    assert "\u202e" not in many


def test_words_are_marked_where_they_stand():
    assert marked("a <red> hat", [(8, 11), (2, 7)]) == "a <mark>&lt;red&gt;</mark> <mark>hat</mark>"
    assert marked("abc", [(0, 2), (1, 3), (2, 9), (-1, 2)]) == "<mark>ab</mark>c"  # overlaps, and beyond the end
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcd", 4) == "abcd"


def test_a_page_of_hostile_text_is_inert():
    html = report_html(hostile_content())
    page = Page(html)
    assert {tag for tag, _ in page.tags} & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "input",
    } == set()
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,")), (tag, attributes)
        # the data's words stand between tags only, never in one
        assert not [v for v in attributes.values() if v and ("hacked" in v or "cmd" in v)], (tag, attributes)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "url(" not in html
    assert "@import" not in html
    assert not {"\x00", "\u202e", "\u2066", "\u2028", "\x1b", "\x07"} & set(html)
    assert "49" not in re.findall(r"\{\{ 7 \* 7 \}\}|\b49\b", html)  # a template in the data is text
    words = "".join(page.words)
    assert all(text in words for text in HOSTILE if text.isascii() and text.isprintable())


def test_recall_across_modalities_is_a_section_where_it_was_measured(tmp_path: Path):
    assert "Cross-modal recall" not in report_html(content())
    found = transfer_made_up([f"s{row}" for row in range(30)], [f"p{row // 3}" for row in range(30)])
    page = report_html(content(cross_modal=found.summary | {"people": found.identities}))
    assert ">Cross-modal recall</h2>" in page
    assert page.count("<polyline") == 4
    assert "1</b> of 10 identities are recalled in one modality only" in page
    made = tmp_path / "found.json"
    ratio = {"value": None, "low": None, "high": None, "identities": 0}  # as JSON holds what is not known
    made.write_text(json.dumps(found.summary | {"transfer_ratio": {"image": ratio, "text": ratio}}))
    people = found.identities
    write_table(tmp_path / "found-identities.csv", {name: np.array([p[name] for p in people]) for name in people[0]})
    page = report_html(content(cross_modal=read_cross_modal(made)))
    assert "teach too little to say what is recalled across" in page
    assert "nan" not in page
    refused = transfer_made_up(["a", "b"], ["p", "q"], refused=True)
    page = report_html(content(cross_modal=refused.summary | {"people": refused.identities}))
    assert "not aligned" in page
    assert "in one modality only" not in page
    with pytest.raises(AuditError, match="not a report of audit-plugin cross-modal"):
        read_cross_modal(tmp_path / "none.json")


# pictures


def jpeg(markup: str) -> Any:
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", markup)[1])))


def test_pictures_are_small_jpegs_or_say_why_not(tmp_path: Path, clips: list[str], sounds: list[str]):
    path, torn = tmp_path / "wide.png", tmp_path / "torn.png"
    Image.new("RGBA", (800, 200), (255, 0, 0, 0)).save(path)
    torn.write_bytes(b"\x89PNG<script>")
    draw = painter()
    found = draw("image", str(path), 160)
    assert (jpeg(found).format, jpeg(found).size) == ("JPEG", (160, 40))
    assert 'width="160" height="40"' in found
    assert min(jpeg(found).convert("L").getextrema()) > 250  # what is transparent is white
    assert jpeg(draw("image", str(path), 72)).size == (108, 27)  # sharp screens show more pixels
    assert 'width="72"' in draw("image", str(path), 72)
    assert jpeg(draw("video", clips[0], 160)).size == (32, 32)
    assert "sound" in draw("audio", sounds[0], 160)
    assert "file not found" in draw("image", str(tmp_path / "none.png"), 160)
    assert "not an image" in draw("image", str(torn), 160)
    assert "missing" in draw("image", None, 160)
    assert no_images("image", str(path), 160) == ""


def test_the_budget_is_kept(tmp_path: Path):
    for row in range(8):
        noise = np.random.default_rng(row).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{row}.png")
    one = len(painter()("image", str(tmp_path / "0.png"), 160))
    draw = painter(3 * one)
    found = [draw("image", str(tmp_path / f"{row}.png"), 160) for row in range(8)]
    assert sum(map(len, (f for f in found if "<img" in f))) <= 3 * one
    assert 2 <= sum("<img" in f for f in found) <= 3
    assert "too large" in found[-1]


# plots


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (-2.2, 3.4, [-2, -1, 0, 1, 2, 3]), (0.11, 0.31, [0.15, 0.2, 0.25, 0.3])],
)
def test_ticks_are_round_numbers_within(low: float, high: float, found: list[float]):
    assert svg_plots.ticks(low, high) == pytest.approx(found)


def heights(svg: str, kind: str) -> list[float]:
    return [float(h) for h in re.findall(rf'class="{kind}"[^>]*height="([\d.]+)"', svg)]


def test_the_histogram_draws_every_scored_row():
    values = np.array([0.0] * 10 + [1.0] * 5 + [2.0] * 5 + [np.nan])
    svg = svg_plots.histogram(values, values == 2, 2.0)
    assert len(heights(svg, "bar")) == 2
    assert len(heights(svg, "bad")) == 1
    assert heights(svg, "bar")[0] == pytest.approx(2 * heights(svg, "bad")[0], abs=0.2)  # 10 rows and 5
    assert "flagged from here" in svg
    assert svg_plots.histogram(np.full(3, np.nan), np.zeros(3, bool), None) == ""
    assert "<rect" in svg_plots.histogram(np.ones(3), np.zeros(3, bool), None)  # no spread


def test_the_scatter_plot_shows_the_flagged_ones_on_top_and_stays_small():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20_000))
    flagged = np.zeros(20_000, bool)
    flagged[:40] = True
    svg = svg_plots.scatter(x, y, flagged, ("a", "b", "c", "d"))
    assert svg.count("<circle") == svg_plots.MOST_POINTS
    assert len(svg) < 250_000
    kinds = re.findall(r'<circle class="(\w+)"', svg_plots.scatter(x[:90], y[:90], flagged[:90], ("a", "b", "c", "d")))
    assert kinds == ["point"] * 50 + ["badpoint"] * 40
    assert svg_plots.scatter(np.full(3, np.nan), y[:3], flagged[:3], "abcd") == ""


# what is said


def test_worst_rows_first_what_asks_for_a_decision():
    found = content(30, {"misaligned": (5, 29), "outlier": (2,), "vague": (28,), "placeholder": (27,)})
    rows = listed_rows.worst_rows(found).tolist()
    assert rows[:4] == [29, 5, 2, 28]
    assert rows[4:] == [26, 25, 24, 23, 22, 21, 20, 19]  # filled up to 12 by score; the placeholder has its own section
    assert len(listed_rows.worst_rows(content(90, {"misaligned": tuple(range(80))}))) == 50


def test_places_among_all_rows_become_words():
    ranks = listed_rows.percentiles(np.array([3.0, 1.0, np.nan, 2.0, 2.0]))
    assert ranks[[0, 1, 3, 4]].tolist() == [1.0, 0.25, 0.75, 0.75]
    assert np.isnan(ranks[2])
    assert [listed_rows.level(r) for r in (1, 0.96, 0.8, 0.5, 0.1, 0.01)] == [
        "extreme", "very high", "high", "average", "low", "very low",
    ]  # fmt: skip
    assert [percent(share) for share in (0, 0.004, 0.25, 1)] == ["0%", "0.4%", "25%", "100%"]


def test_cards_name_the_model_or_the_spot_check():
    summary = {
        "false_positive_rate": 0.01,
        "probe_recall": {"random": 0.94, "neighborhood": 0.6},
        "estimated": {
            "in_one_space": False,
            "pairs": 43,
            "pairs_interval": [20, 60],
            "precision": 0.8,
            "precision_interval": [0.6, 0.9],
        },
        "memorized": {"cut": 0.9, "median": 0.5},
        "reliability": 0.52,
    }
    flags = {"misaligned": (27, 28, 29), "outlier": (1,), "memorized": (3, 4, 28)}
    by_model = {card["kind"]: card for card in cards(content(30, flags, summary=summary))}
    lines = dict(by_model["misaligned"]["lines"])
    assert by_model["misaligned"]["count"] == 3
    assert by_model["misaligned"]["source"].startswith("model-based")
    assert lines["estimated wrong pairs"] == "at least 20"
    assert lines["estimated precision"] == "at least 60%"
    assert "94%" in lines.values()
    memorized = dict(by_model["memorized"]["lines"])
    assert memorized["reliability (0 to 1): would another run rank alike?"] == "0.52 (low: use more trials)"
    assert memorized["misaligned as well: correct the captions"] == "1"
    assert memorized["fitting but rare: keep, collect more, or regroup"] == "2"
    assert memorized["explained by another flag: follow that flag"] == "0"
    assert memorized["rank correlation with held-out alignment"] == "1.00"  # of these made-up rows
    audit = content(30, flags, summary=summary)
    plan = plan_spot_check(audit.flags("misaligned"), audit.numbers("misalignment"), 20)
    verdicts = ["wrong" if audit.flags("misaligned")[row] else "right" for row in plan.rows]
    spot = {card["kind"]: card for card in cards(replace(audit, spot=estimate(plan, verdicts)))}["misaligned"]
    assert spot["source"].startswith("spot check")
    assert dict(spot["lines"])["estimated precision"] == "100% (100% to 100%)"  # all were seen
    assert dict(spot["lines"])["reviewed by a person"] == "20 rows"
    assert "at least 20" not in dict(spot["lines"]).values()


def memorized_part(audit: ReportContent) -> list[tuple[str, int, list[str], str]]:
    """Heading, size, ids and command of each list of memorized rows."""
    lists = memorized_section(audit, no_images)["lists"]
    return [(one["heading"], one["size"], [row["id"] for row in one["rows"]], one["command"]) for one in lists]


def test_memorized_rows_are_listed_by_what_is_to_be_done_with_them() -> None:
    flags = {"memorized": (0, 1, 2, 3), "misaligned": (1, 2, 29), "outlier": (1,)}
    audit = content(30, flags, title="my scores.parquet")
    select = "audit-plugin select 'my scores.parquet' --memorized"
    assert memorized_part(audit) == [
        ("Memorized and misaligned", 1, ["s2"], f"{select} misaligned --out memorized-misaligned.csv"),
        ("Memorized but fitting", 2, ["s0", "s3"], f"{select} fitting --out memorized-fitting.csv"),
        ("Memorized, and explained by another flag", 1, ["s1"], f"{select} explained --out memorized-explained.csv"),
    ]
    html = report_html(audit, media=False)
    assert 'href="#memorized"' in html
    assert "rare, so keep it and collect more like it, or regroup it in training" in html
    assert memorized_part(replace(audit, title="photos"))[0][3] == "audit-plugin review list photos --kind memorized"


def test_where_no_row_is_memorized_the_highest_are_listed_and_it_is_said() -> None:
    audit = content(30, {"outlier": (0, 2)}, title="t.parquet")
    ((heading, size, ids, command),) = memorized_part(audit)
    assert (heading, size) == ("Highest MultiMem, not flagged", 12)
    assert ids == ["s1", *(f"s{row}" for row in range(3, 14))]  # what another flag explains would come last
    assert command == "audit-plugin select t.parquet --memorized highest --budget 12 --out memorized-highest.csv"
    assert "within what good pairs reach" in report_html(audit, media=False)
    assert dict(cards(audit)[1]["lines"])["highest MultiMem"] == "within what good pairs reach"
    # of the fitting rows alone, where only misaligned ones are memorized
    parts = memorized_part(content(30, {"memorized": (0,), "misaligned": (0, 1)}))
    assert [(heading, ids[:2]) for heading, _, ids, _ in parts] == [
        ("Memorized and misaligned", ["s0"]),
        ("Highest MultiMem of the fitting rows, not flagged", ["s2", "s3"]),
    ]


def test_without_multimem_there_is_no_section_on_memorized_rows() -> None:
    audit = content(30)
    bare = replace(audit, columns={name: v for name, v in audit.columns.items() if name != "multimem"})
    assert memorized_section(bare, no_images) == {}
    assert "#memorized" not in report_html(bare, media=False)


def test_groups_of_copies_stand_under_one_heading():
    names = np.array(["a", "a", "a", "b", "b", "c", "c", "", "", "d"], dtype=object)
    audit = content(10, {"duplicate": tuple(range(7)), "conflict": (4,), "placeholder": (5, 6)})
    audit = replace(audit, columns={**audit.columns, "duplicate_group": names})
    found = listed_rows.groups(audit, no_images)
    assert {kind: [g["size"] for g in g_all] for kind, g_all in found.items()} == {
        "conflict": [2], "placeholder": [2], "duplicate": [3],
    }  # fmt: skip
    assert [row["id"] for row in found["conflict"][0]["rows"]] == ["s4", "s3"]  # the one that contradicts first
    assert found["conflict"][0]["flagged"] == [True, False]


def test_decisions_are_counted_by_reviewer_and_kind():
    given = [("ann", "keep", "2026-01-02"), ("bo", "remove", "2026-01-01"), ("ann", "keep", "2026-01-03")]
    decisions = [{"sample": "s1", "kind": kind, "reviewer": who, "time": time} for who, kind, time in given]
    found = listed_rows.decision_tables(decisions)
    assert found["kinds"] == ["keep", "remove"]
    assert found["table"] == [{"reviewer": "ann", "counts": [2, 0]}, {"reviewer": "bo", "counts": [0, 1]}]
    assert found["total"] == [2, 1]
    assert [row["time"] for row in found["rows"]] == ["2026-01-03", "2026-01-02", "2026-01-01"]


def test_the_page_says_what_the_audit_found():
    audit = content(30, {"misaligned": (29,)}, made="2026-01-01 10:00 UTC")
    audit = replace(audit, decisions=[{"sample": "s29", "kind": "relabel", "text": "a hat", "reviewer": "ann"}])
    text = " ".join("".join(Page(report_html(audit, media=False)).words).split())
    for words in ("Of 30 rows, 1 should be reviewed", "text 29", "Decided by ann", "relabel: a hat", "extreme · 4.00"):
        assert words in text
    assert "<img" not in report_html(audit, media=False)
    nothing = ReportContent("t", Samples((), {}), {})
    assert "No action is proposed for any of the 0 rows" in " ".join(report_html(nothing).split())


# from a table


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples, AuditResult]:
    """A table that was really scored, its rows and its result."""
    folder = tmp_path_factory.mktemp("scored")
    cache, samples = encoded_rows(folder, 80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(cache))
        result = run_audit(samples, QUICK, run_dir=folder / "run")
    write_scores(folder / "scores.parquet", result)
    return folder / "scores.parquet", samples, result


def test_a_report_of_a_table(scored: tuple[Path, Samples, AuditResult], tmp_path: Path):
    path, samples, result = scored
    found = report_of_table(path, samples)
    assert found.samples == samples
    assert np.array_equal(found.numbers("misalignment"), result.columns["misalignment"].astype(float), equal_nan=True)
    assert set(found.explanations) == {
        samples.ids[row] for row in np.flatnonzero([result.columns[f"is_{k}"] for k in FLAGS]) % len(samples)
    } | {i for i, action in zip(samples.ids, result.columns["action"], strict=True) if action != "keep"}
    write_report(found, tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "offline:all-MiniLM-L6-v2" in html
    assert html.count('<article class="item') == len(listed_rows.worst_rows(found))
    bare = report_of_table(path)
    assert bare.samples.media == {}
    assert "name the manifest" in report_html(bare)


def test_a_summary_of_a_former_version_is_read_under_the_names_of_today(
    scored: tuple[Path, Samples, AuditResult], tmp_path: Path
):
    shutil.copy(scored[0], tmp_path / "s.parquet")
    former = {"false_alarms": 0.05, "recall": {"random": 0.5}, "neighbours": {"image": {"method": "exact"}}}
    (tmp_path / "s.json").write_text(json.dumps(former))
    summary = report_of_table(tmp_path / "s.parquet").summary
    assert summary["false_positive_rate"] == 0.05
    assert summary["probe_recall"] == {"random": 0.5}
    assert "50% of random mismatches would be flagged" in report_html(report_of_table(tmp_path / "s.parquet"))


def test_every_score_and_flag_of_the_tables_is_shown():
    columns = {name: np.arange(30.0) for name in SCORES}
    audit = content(30, {kind: (29,) for kind in FLAGS if kind != "placeholder"})
    page = report_html(replace(audit, columns={**audit.columns, **columns}), media=False)
    for entry in (*SCORES.values(), *FLAGS.values()):
        assert entry.label in page


def test_what_is_no_table_of_this_audit(scored: tuple[Path, Samples, AuditResult], tmp_path: Path):
    path, samples, _ = scored
    with pytest.raises(AuditError, match=r"80 rows that are not the 80 of scores.parquet"):
        report_of_table(path, replace(samples, ids=samples.ids[::-1]))
    with pytest.raises(AuditError, match="does not exist"):
        report_of_table(tmp_path / "none.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(AuditError, match="cannot be read as Parquet"):
        report_of_table(tmp_path / "torn.parquet")
    shutil.copy(path, tmp_path / "alone.parquet")
    alone = report_of_table(tmp_path / "alone.parquet")  # without its summary and its run folder
    assert "alone.json is not beside the table" in report_html(alone)
    assert alone.explanations == {}


def test_a_full_report_of_noise_stays_below_five_megabytes(tmp_path: Path):
    for row in range(60):
        noise = np.random.default_rng(row).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{row}.png")
    audit = content(60, {"misaligned": tuple(range(60))})
    long = tuple("\u202e<'\"&" * 2000 for _ in range(60))
    media = {"image": tuple(str(tmp_path / f"{row}.png") for row in range(60)), "text": long}
    sides = [
        {"near": near, "other": "text", "voters": [{"id": f"s{r}", "caption": long[0]} for r in range(5)]}
        for near in ("image", "text")
    ]
    why = {name: [{"caption_index": 0, "neighbors": sides}] for name in audit.samples.ids}
    audit = replace(audit, samples=replace(audit.samples, media=media), explanations=why)
    write_report(audit, tmp_path / "r.html")
    assert 1_000_000 < (tmp_path / "r.html").stat().st_size < 5_000_000


def test_the_commands(scored: tuple[Path, Samples, AuditResult], tmp_path: Path):
    path, samples, _ = scored
    rows = [
        json.dumps({"id": i, "image": p, "text": t})
        for i, p, t in zip(samples.ids, *samples.media.values(), strict=True)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(rows))
    named = ["--manifest", str(tmp_path / "m.jsonl"), "--image", "image", "--text", "text"]

    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        return done.exit_code, done.output

    code, said = run("report", path, "--out", tmp_path / "new" / "r.html", *named)
    assert (code, said[:7]) == (0, "report:")
    assert "the text of row 3" in (tmp_path / "new" / "r.html").read_text(encoding="utf-8")
    code, said = run("report", path, "--out", tmp_path / "r.txt")
    assert code == 2
    assert "ends in '.txt'; choose .html or .htm" in said
    code, said = run("compare", path, path)
    assert code == 0
    assert "80 rows in both, 0 removed, 0 new" in said
    assert "misalignment 1.000" in said
    assert run("compare", path, "nothing")[0] == 2


# from a dataset


@pytest.mark.fiftyone
def test_a_report_of_a_dataset_and_two_of_its_runs_compared(make_dataset: Callable[..., Any], tmp_path: Path):
    fio, reports = (importlib.import_module(f"audit_plugin.fiftyone_io{m}") for m in ("", ".results.reports"))
    dataset = make_dataset(12)
    view = dataset[2:10]
    fio.write_result(view, result_for(view), AuditConfig(text="caption"))
    fio.write_result(view, result_for(view, misaligned=(3, 5)), AuditConfig(run="later", text="caption"))
    found = reports.report_of_dataset(dataset, "audit", [{"sample": view.values("id")[1], "kind": "keep"}])
    assert found.samples.ids == tuple(view.values("id"))
    assert found.samples.media["text"] == tuple(view.values("caption"))
    assert np.isnan(found.numbers("misalignment")[0])
    assert found.numbers("misalignment")[1:].tolist() == list(range(1, 8))
    assert np.flatnonzero(found.flags("misaligned")).tolist() == [1, 3]
    assert found.summary["reliability"] == 0.9
    html = report_html(found)
    assert "Reason: because of 3" in html
    assert html.count("data:image/jpeg") == 7  # the row that failed has no place among the worst
    before, after = (reports.audit_scores(dataset, run) for run in ("audit", "later"))
    change = importlib.import_module("audit_plugin.review.comparison").compare(before, after).kinds["misaligned"]
    ids = view.values("id")
    assert (change.fixed, change.still, change.newly) == (((ids[1], 0),), ((ids[3], 0),), ((ids[5], 0),))
    with pytest.raises(AuditError, match="has no audit 'other'"):
        reports.report_of_dataset(dataset, "other")
    done = CliRunner().invoke(cli.app, ["report", dataset.name, "--run", "later", "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(cli.app, ["compare", f"{dataset.name}:audit", f"{dataset.name}:later"])
    assert "8 rows in both" in done.output


@pytest.mark.fiftyone
def test_of_several_captions_the_worst_is_reported(make_dataset: Callable[..., Any]):
    fio, reports = (importlib.import_module(f"audit_plugin.fiftyone_io{m}") for m in ("", ".results.reports"))
    dataset = make_dataset(4, captions=lambda row: [f"c{row}", f"d{row}"])
    config = AuditConfig(text="captions")
    rows = fio.read_samples(dataset, config)
    fio.write_result(dataset, result_for(dataset, ids=rows.ids), config, captions=fio.caption_numbers(rows))
    found = reports.report_of_dataset(dataset, "audit")
    assert found.samples.media["text"] == ("d0", "d1", "d2", "d3")  # the later the worse
    assert found.samples.caption == (1, 1, 1, 1)
    assert "is_misaligned_list" not in found.columns


@pytest.mark.fiftyone
def test_groups_and_objects_are_reported(make_groups: Callable[..., Any], pictures: list[str]):
    fo = pytest.importorskip("fiftyone")
    fio, reports = (importlib.import_module(f"audit_plugin.fiftyone_io{m}") for m in ("", ".results.reports"))
    groups = make_groups(6)
    config = AuditConfig(image="slice:picture", text="slice:picture.caption", audio="slice:sound")
    rows = fio.read_samples(groups, config)
    fio.write_result(groups, result_for(groups, ids=rows.ids), config)
    found = reports.report_of_dataset(groups, "audit")
    assert found.samples.ids == rows.ids
    assert found.samples.media == rows.media
    assert found.numbers("misalignment")[1:].tolist() == [1, 2, 3, 4, 5]
    assert len(reports.audit_scores(groups, "audit")["id"]) == 6  # one row per group, not per slice
    dataset = fo.Dataset()
    boxes = [fo.Detection(label=f"label {i}", bounding_box=[0.1 * i, 0.1, 0.3, 0.5]) for i in range(4)]
    dataset.add_sample(fo.Sample(filepath=pictures[0], truth=fo.Detections(detections=boxes)))
    view = dataset.to_patches("truth")
    fio.write_result(view, result_for(view), AuditConfig(text="truth"))
    found = reports.report_of_dataset(dataset, "audit")
    assert found.samples.ids == tuple(view.values("id"))
    assert found.samples.media["text"] == tuple(f"label {i}" for i in range(4))
    assert np.flatnonzero(found.flags("misaligned")).tolist() == [1, 3]
    assert report_html(found).count("data:image/jpeg") == 3
    dataset.delete()


# in a browser


@pytest.mark.browser
def test_in_a_browser_nothing_runs_loads_or_is_cut_off(tmp_path: Path):
    if not CHROMIUM:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "r.html"
    write_report(hostile_content(), path)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        colors = []
        for scheme, width in (("light", 1280), ("dark", 390)):
            page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
            asked: list[str] = []
            said: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("dialog", lambda dialog, said=said: said.append(dialog.message))
            page.route(lambda url: url.startswith("http"), lambda route: route.abort())
            page.goto(path.as_uri())
            for details in page.locator("details").all():
                details.evaluate("e => e.open = true")
            for item in page.locator(".item .caption").all()[:20]:
                item.hover()
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
            assert said == []
            assert page.evaluate("document.body.dataset.hacked") is None
            assert page.evaluate("document.scripts.length") == 0
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            for text in (HOSTILE[0], "photo", "=cmd|' /C calc'!A0"):
                assert page.locator(".item").get_by_text(text).first.is_visible()
            marks = page.locator(".item .caption b.u").all_inner_texts()
            assert {"U+202E", "U+0000", "U+001B", "U+D800", "U+2028"} <= set(marks)
            colors.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert colors[0] != colors[1]
        browser.close()
