"""What the terminal shows: progress, results, and the sentences and tables that the App and the page share.

Captions are hostile text; control and bidirectional characters are removed before they are printed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table

from audit_plugin.arrays import Samples, count_text
from audit_plugin.inputs.spreadsheet import clean, place_line
from audit_plugin.review.flag_quality import UNKNOWN, quality_of_summary
from audit_plugin.scoring.suggest.join_bugs import batch_text
from audit_plugin.scoring.wrong_pairs import NONE_DISTINGUISHED

if TYPE_CHECKING:
    from audit_plugin.audit.result import AuditResult
    from audit_plugin.review.comparison import Comparison

PLAIN_EVERY = 5.0
STEADY = 50
MANY_UNREAD = 0.05  # share of rows that could not be read, above which that is said first
WORST, LISTED, REPAIRS = 5, 10, 5
CAPTION_WIDTH = 60
ID_WIDTH = 200  # whole, to be looked up; only what no person would name so is cut
# Quadrants of MultiMem beyond alignment (`scoring.memorized.beyond_alignment`) over alignment: upper left, upper right,
# lower left, lower right of the medians.
QUADRANTS = (
    "misaligned, memorized more",
    "aligned, memorized more",
    "misaligned, memorized less",
    "aligned, memorized less",
)
PROBE_KINDS = {"random": "random mismatches", "neighborhood": "mismatches with a similar row"}


def console(stderr: bool = False) -> Console:
    """A console that prints text unchanged: no markup, no emoji names, no automatic colors."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def duration(seconds: float) -> str:
    """`12 s`, `3 min 05 s` or `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@dataclass
class _Stage:
    name: str
    first: int
    started: float
    task: TaskID
    shown: float = float("-inf")


class StageDisplay:
    """Shows the stages of an audit while it is open: bars in a terminal, a line every few seconds elsewhere."""

    def __init__(self, out: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._stage: _Stage | None = None
        columns = (TextColumn("{task.description:<14}", markup=False), BarColumn(), TextColumn("{task.fields[note]}"))
        self._bars = Progress(*columns, console=out, disable=not out.is_terminal)

    def __enter__(self) -> StageDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports `done` of `total` steps of a stage; another name starts another stage."""
        now = self._clock()
        current = self._stage
        if current is None or current.name != stage:
            task = self._bars.add_task(stage, total=total, note="")
            current = self._stage = _Stage(stage, done, now, task)
        elapsed = now - current.started
        # Steps that a resumed run found finished say nothing about the rate.
        new_steps = done - current.first
        note = f"{done:,}/{total:,}"
        if done >= total:
            note += f", {duration(elapsed)}"
        # The first steps include loading and warming up, so that their rate is far too low.
        elif elapsed > 0 and new_steps >= max(1, min(STEADY, 0.02 * total)):
            rate = new_steps / elapsed
            note += f", {rate:,.3g}/s, {duration((total - done) / rate)} left"
        self._bars.update(current.task, completed=done, total=total, note=note)
        if not self._out.is_terminal and (now - current.shown >= PLAIN_EVERY or done >= total):
            current.shown = now
            self._out.print(f"{stage}: {note}", soft_wrap=True)


def show_table(
    out: Console,
    title: str,
    header: Sequence[str | Column],
    rows: Iterable[Sequence[str]],
    sentences: Iterable[str] = (),
    places: Iterable[str] = (),
) -> None:
    """Prints a table, sentences below it, and the lines that name the files written."""
    table = Table(*header, title=title, title_justify="left", show_header=bool(header))
    for row in rows:
        table.add_row(*(clean(cell) for cell in row))
    out.print(table)
    for line in (*map(clean, sentences), *map(place_line, places)):
        out.print(line, soft_wrap=True)


def show_cost(out: Console, cost: Mapping[str, Any]) -> None:
    """Prints the estimated cost of an audit (`plan_audit`)."""
    rows = [("rows", f"{cost['rows']:,}"), ("rows that cannot be read", f"{cost['unreadable']:,}")]
    rows += [(f"to encode: {modality}", f"{count:,}") for modality, count in cost["encodes"].items()]
    rows.append(("time", f"about {duration(60 * cost['minutes'])}"))
    rows.append(("disk", f"about {cost['disk_mb']:,.1f} MB"))
    rows += [(name, str(cost[name])) for name in ("encoder", "device")]
    rows += [("download", sentence) for sentence in cost["downloads"] or ["none"]]
    show_table(out, "Estimated cost", (), rows)
    for note in cost["notes"]:
        out.print(clean(note), style="bold red", soft_wrap=True)


def show_result(out: Console, result: AuditResult, samples: Samples, places: Sequence[str]) -> None:
    """Prints the summary, the most suspicious rows, notes, and the files written."""
    summary = result.summary
    if summary["failures"] > MANY_UNREAD * len(result):
        sentence = (
            f"{summary['failures']:,} of {count_text(len(result), 'row')} "
            "could not be read; see the notes below the tables"
        )
        out.print(sentence, style="bold red", soft_wrap=True)
    show_table(out, "Audit", (), _summary_rows(result))
    shares = summary.get("attribution")
    if len(samples.modalities) > 2 and shares:
        rows = [(part_name(part), f"{share:.1%}") for part, share in shares.items()]
        show_table(out, "Attribution of MultiMem", ("part", "share"), rows)
    if protocol := summary.get("protocol"):
        header = ("group", "mean MultiMem", "95% interval", "samples")
        show_table(out, "Groups of the split protocol", header, protocol_rows(protocol))
    _show_worst(out, result, samples)
    for line in (*(clean(f"note: {note}") for note in summary.get("notes", ())), *map(place_line, places)):
        out.print(line, soft_wrap=True)


def show_removal(out: Console, report: Mapping[str, Any], places: Sequence[str]) -> None:
    """Prints how removing each method's worst rows changes retrieval, and the recommendation."""
    header = ("method", "rows to remove", "gain in top-5 retrieval accuracy", "95% interval")
    sentences = [removal_advice(report), *(f"note: {note}" for note in report["notes"])]
    show_table(out, "Gain over no removal, on the test rows", header, removal_rows(report), sentences, places)


def removal_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(method, recommended number of rows, gain over the control on test, its 95% interval)."""
    rows = []
    for method, entry in report["methods"].items():
        best = entry["recommended"]
        amount = f"{best['amount']:,}" if best["beats_control"] else "0 (none better than the control)"
        rows.append((method, amount, signed(best["test_gain"]["mean"]), interval(best["test_gain"])))
    return rows


def removal_advice(report: Mapping[str, Any]) -> str:
    """The recommendation in one sentence: the confirmed removal with the largest gain on validation rows, or none."""
    confirmed = {}
    for method, entry in report["methods"].items():
        best = entry["recommended"]
        if method != "random" and best["beats_control"] and best["confirmed"]:
            confirmed[method] = best
    if not confirmed:
        return "Recommended: remove none; no gain on the test rows is distinguishable from chance."
    method = max(confirmed, key=lambda name: confirmed[name]["validation_gain"]["mean"])
    amount, gain = confirmed[method]["amount"], confirmed[method]["test_gain"]
    return (
        f"Recommended: review the {count_text(amount, 'row')} "
        f"that {method} ranks highest; without them top-5 retrieval accuracy "
        f"on the test rows changes by {signed(gain['mean'])} ({interval(gain)})."
    )


def show_detected(
    out: Console, counts: Sequence[tuple[str, int, int]], auroc: float, places: Sequence[str] = ()
) -> None:
    """Prints how many of the planted errors of each kind were flagged: (kind, flagged, planted)."""
    rows = [(kind, f"{flagged:,}", f"{planted - flagged:,}") for kind, flagged, planted in counts]
    sentence = f"AUROC of misalignment, swapped captions against clean rows: {auroc:.3f}"
    show_table(out, "Planted errors", ("kind", "flagged", "missed"), rows, [sentence], places)


def show_queue(out: Console, rows: Iterable[tuple[str, int, str, str, str, Mapping[str, float], str]]) -> None:
    """Prints rows to review: (id, position of the text, path, text, suggestion, score -> value, why)."""
    header = [
        Column(name, overflow="fold") for name in ("id", "file", "caption or label", "suggestion", "scores", "why")
    ]
    cells = []
    for name, caption, path, text, suggestion, scores, why in rows:
        shown = f"{name} (caption {caption})" if caption else name
        values = ", ".join(f"{score} {value:.2f}" for score, value in scores.items())
        cells.append((shown, path, clean(text, CAPTION_WIDTH), clean(suggestion, CAPTION_WIDTH), values, why))
    if cells:
        show_table(out, "To review", header, cells)


def show_comparison(out: Console, comparison: Comparison) -> None:
    """Prints what changed between two audits, and the first rows that are newly or still misaligned."""
    changes = ("fixed", "still flagged", "newly flagged", "removed from the set", "new in the set", "not scored")
    header = (Column("flag", no_wrap=True), *changes)
    rows = []
    for kind, change in comparison.kinds.items():
        parts = (change.fixed, change.still, change.newly, change.gone, change.added, change.unknown)
        rows.append((kind, *(f"{len(keys):,}" for keys in parts)))
    common, gone, added = comparison.common, len(comparison.gone), len(comparison.added)
    sentences = [f"{count_text(common, 'row')} in both, {gone:,} removed, {added:,} new"]
    if comparison.correlation:
        values = ", ".join(f"{name} {value:.3f}" for name, value in comparison.correlation.items())
        sentences.append(f"rank correlation of the scores (1: same order): {values}")
    misaligned = comparison.kinds["misaligned"]
    for label, keys in (("newly misaligned", misaligned.newly), ("still misaligned", misaligned.still)):
        if keys:
            names = [clean(name, ID_WIDTH) + (f" (caption {at})" if at else "") for name, at in keys[:LISTED]]
            more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
            sentences.append(f"{label}: {', '.join(names)}{more}")
    show_table(out, "From the earlier audit to the later one", header, rows, sentences)


def any_score(result: AuditResult) -> bool:
    """Whether at least one row has a score of any kind."""
    return any(np.isfinite(values).any() for values in result.columns.values() if values.dtype.kind == "f")


def worst_rows(scores: np.ndarray) -> np.ndarray:
    """The rows with the highest scores, int64 `[<= WORST]`, highest first; rows without a score are left out."""
    order = np.argsort(-scores, kind="stable")
    return order[np.isfinite(scores[order])][:WORST]


def _summary_rows(result: AuditResult) -> list[tuple[str, str]]:
    """(what, value) of the summary, in the order in which they are printed."""
    summary = result.summary
    rows = [("samples", f"{summary['samples']:,}"), ("failures", f"{summary['failures']:,}")]
    reasons = Counter(str(reason) for reason in result.columns["failure"] if reason)
    rows += [("", f"{count:,}: {clean(reason, 100)}") for reason, count in reasons.most_common(3)]
    rows += [(f"flagged {kind}", f"{count:,}") for kind, count in summary["flags"].items()]
    rows.append(("estimated wrong pairs", wrong_pairs(summary)))
    for repair in (summary.get("repairs") or ())[:REPAIRS]:
        rows.append(("suggested repair", clean(f"{repair['sentence']}. The batch {batch_text(repair)}", 400)))
    if suggested := summary.get("suggestions"):
        again = suggested["same_caption_again"]
        rows.append(
            ("suggested captions", f"{suggested['captions']:,}" + (f"; same caption again: {again:,}" if again else ""))
        )
    reliability = summary["reliability"]
    rows.append(("reliability of MultiMem", "not measured" if reliability is None else f"{reliability:.2f}"))
    top = summary.get("memorized")
    if top and top["top_mean_on_other_trials"] is not None:
        chosen, other = top["top_mean_as_chosen"], top["top_mean_on_other_trials"]
        rows.append((f"MultiMem of the top {top['top']}", f"{chosen:.2f}; {other:.2f} on independent trials"))
    if trained := summary.get("trained"):
        rows.append(("trained", str(trained)))
    for kind, share in summary["probe_recall"].items():
        name = PROBE_KINDS.get(kind, kind)
        rows.append((f"probe recall, {name}", "not measured" if share is None else f"{share:.0%} would be flagged"))
    rows += [(f"encoder of {modality}", str(encoder)) for modality, encoder in summary["encoder"].items()]
    rows += [(f"neighbors: {space}", method) for space, method in neighbor_methods(summary).items()]
    rows += [(f"seconds: {stage}", f"{seconds:,.1f}") for stage, seconds in summary["seconds"].items()]
    return rows


def neighbor_methods(summary: Mapping[str, Any]) -> dict[str, str]:
    """Space -> how its neighbors were searched, with the recall of an approximate search."""
    return {
        space: search["method"] + (f"; recall {search['recall']:.1%}" if search["method"] != "exact" else "")
        for space, search in (summary.get("neighbors") or {}).items()
    }


def wrong_pairs(summary: Mapping[str, Any]) -> str:
    """How many pairs are wrong and how many of the flagged ones, as far as the model can tell."""
    quality = quality_of_summary(summary)
    if quality.precision is None or quality.wrong_text in (UNKNOWN, NONE_DISTINGUISHED):
        return quality.wrong_text
    return f"{quality.wrong_text}; precision of the flags {quality.precision_text}"


def part_name(part: str) -> str:
    """A part of MultiMem: `due_image` is lost without the image, `image_text` is held by the pair."""
    modality = part.removeprefix("due_")
    return f"lost without {modality}" if modality != part else part.replace("_", " and ")


def protocol_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(group, mean, 95% interval, samples) of the split protocol, and whether S_C and S_I mirror each other."""
    rows = []
    for name, group in report.get("groups", {}).items():
        rows.append((name, signed(group.get("mean")), interval(group), f"{group['n']:,}"))
    if mirror := report.get("mirror"):
        rows.append(("candidate + independent (0 if mirrored)", signed(mirror.get("mean")), interval(mirror), ""))
    return rows


def signed(value: float | None) -> str:
    """A difference with its sign and four decimals."""
    return "not measured" if value is None else f"{value:+.4f}"


def interval(estimate: Mapping[str, Any]) -> str:
    """`low to high` of an estimate; "" where there is none."""
    low, high = estimate.get("low"), estimate.get("high")
    return "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def _show_worst(out: Console, result: AuditResult, samples: Samples) -> None:
    """Prints the most suspicious rows with their captions, or with their files if they have none."""
    modality = "text" if "text" in samples.media else next(iter(samples.media), "")
    media = samples.media.get(modality, ("",) * len(samples))
    rows = []
    for row in worst_rows(result.columns["misalignment"]):
        value = media[row] or ""
        text = value if modality == "text" else os.path.basename(value)
        score = f"{result.columns['misalignment'][row]:.3f}"
        rows.append((clean(samples.ids[row], ID_WIDTH), score, clean(text, CAPTION_WIDTH)))
    content = Column("caption" if modality == "text" else modality, overflow="fold")
    if rows:
        header = (Column("id", overflow="fold"), Column("misalignment", justify="right"), content)
        show_table(out, "Most suspicious", header, rows)
