"""What the terminal shows: how far an audit is, and what it found. Captions are hostile text, shown harmlessly."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from audit_plugin.arrays import AuditResult, Samples

PLAIN_EVERY = 5.0
STEADY = 50
WORST = 5
CAPTION_WIDTH = 60
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
JOINER = "\u200d"
# Of held-out alignment against MultiMem: upper left, upper right, lower left, lower right of the medians.
QUADRANTS = ("fits badly, memorized", "fits, memorized", "fits badly, not learned", "fits by itself")
# Column, label, what a high value means, and whether high values are the suspicious ones.
SCORE_WORDS = (
    ("misalignment", "Misfit", "how badly picture and text fit each other", True),
    ("probability", "Probability wrong", "by the model", True),
    ("alignment", "Held-out fit", "as judged by models that had not seen the pair", False),
    ("multimem", "Memorization", "how much a model leans on having seen the pair (MultiMem)", True),
    ("outlier", "Strangeness", "how unlike the rest of the set", True),
)


def console(stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji names, no guessed colors."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def clean(text: str, width: int = 0) -> str:
    """Text without anything that moves the cursor, hides or reorders text; cut to `width` characters."""
    visible = (c if c == JOINER or unicodedata.category(c) not in HIDDEN else " " for c in text[: 4 * width or None])
    line = " ".join("".join(visible).split())
    return line if not width or len(line) <= width else line[: width - 1] + "…"


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
    """Shows the stages of an audit: bars in a terminal, a line every few seconds elsewhere.

    Call it as `display(stage, done, total)`; use it as a context manager.
    """

    def __init__(self, out: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._stage: _Stage | None = None
        columns = (TextColumn("{task.description:<14}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self._bars = Progress(*columns, console=out, disable=not out.is_terminal)

    def __enter__(self) -> StageDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports `done` of `total` steps of a stage; another name starts another stage."""
        now = self._clock()
        if self._stage is None or self._stage.name != stage:
            task = self._bars.add_task(stage, total=total, note="")
            self._stage = _Stage(stage, done, now, task)
        note = self._note(self._stage, done, total, now - self._stage.started)
        self._bars.update(self._stage.task, completed=done, total=total, note=note)
        if not self._out.is_terminal and (now - self._stage.shown >= PLAIN_EVERY or done >= total):
            self._stage.shown = now
            self._out.print(f"{stage}: {note}", soft_wrap=True)

    @staticmethod
    def _note(stage: _Stage, done: int, total: int, elapsed: float) -> str:
        count = f"{done:,}/{total:,}"
        # What a resumed run finds finished was not done in this time.
        fresh = done - stage.first
        if done >= total:
            return f"{count}, {duration(elapsed)}"
        # The first steps include loading and warming up: a rate of theirs would frighten people away.
        if elapsed <= 0 or fresh < max(1, min(STEADY, 0.02 * total)):
            return count
        rate = fresh / elapsed
        return f"{count}, {rate:,.3g}/s, {duration((total - done) / rate)} left"


def show_plan(out: Console, plan: Mapping[str, Any]) -> None:
    """Prints what an audit would cost."""
    table = Table(title="What it would take", show_header=False, title_justify="left")
    table.add_row("rows", f"{plan['rows']:,}")
    for modality, count in plan["encodes"].items():
        table.add_row(f"to encode: {modality}", f"{count:,}")
    table.add_row("time", f"about {duration(60 * plan['minutes'])}")
    table.add_row("disk", f"about {plan['disk_mb']:,.1f} MB")
    table.add_row("encoder", clean(str(plan["encoder"])))
    table.add_row("device", clean(str(plan["device"])))
    for sentence in plan["downloads"] or ["none"]:
        table.add_row("download", clean(sentence))
    out.print(table)


def show_result(out: Console, result: AuditResult, samples: Samples, places: Sequence[str]) -> None:
    """Prints the closing table, the worst rows and where the results are."""
    out.print(_summary_table(result))
    if len(samples.modalities) > 2 and (shares := result.summary.get("attribution")):
        out.print(_attribution_table(shares))
    if means := result.summary.get("protocol"):
        out.print(_protocol_table(means))
    worst = worst_rows(result.columns["misalignment"])
    if len(worst):
        out.print(_worst_table(result, samples, worst))
    for note in result.summary.get("notes", ()):
        out.print(clean(f"note: {note}"), soft_wrap=True)
    for place in places:
        out.print(place, soft_wrap=True)


def show_removal(out: Console, report: Mapping[str, Any], places: Sequence[str]) -> None:
    """Prints what the removal of each method's worst rows does to retrieval, and how many to remove."""
    names = ("chosen by", "rows to remove", "gain in T@5", "95 % interval")
    table = Table(*names, title="Gain over no removal, on the test rows", title_justify="left")
    for row in removal_rows(report):
        table.add_row(*(clean(cell) for cell in row))
    out.print(table)
    out.print(clean(removal_advice(report)), soft_wrap=True)
    for note in report["notes"]:
        out.print(clean(f"note: {note}"), soft_wrap=True)
    for place in places:
        out.print(place, soft_wrap=True)


def removal_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(method, recommended number of rows, gain over the control on test, its interval), as in the report."""
    rows = []
    for method, found in report["methods"].items():
        advice = found["recommended"]
        gain = advice["test_gain"]
        amount = f"{advice['amount']:,}" if advice["beats_control"] else "0 (none better than the control)"
        rows.append((method, amount, signed(gain["mean"]), reach(gain)))
    return rows


def removal_advice(report: Mapping[str, Any]) -> str:
    """What to do, in one sentence: the confirmed removal that gained most on validation rows, or none."""
    found = {name: entry["recommended"] for name, entry in report["methods"].items() if name != "random"}
    sure = {name: best for name, best in found.items() if best["beats_control"] and best["confirmed"]}
    if not sure:
        return "Recommended: remove none; no gain on the test rows stands out from chance."
    name = max(sure, key=lambda method: sure[method]["validation_gain"]["mean"])
    amount, gain = sure[name]["amount"], sure[name]["test_gain"]
    return (
        f"Recommended: look at the {amount:,} rows that {name} ranks highest; without them T@5 on the test rows "
        f"changes by {signed(gain['mean'])} ({reach(gain)})."
    )


def show_found(out: Console, found: Sequence[tuple[str, int, int]], auroc: float) -> None:
    """Prints how many of the planted faults of each kind were flagged: (kind, found, planted)."""
    table = Table("planted fault", "found", "missed", title="Planted faults", title_justify="left")
    for kind, hits, planted in found:
        table.add_row(kind, f"{hits:,}", f"{planted - hits:,}")
    out.print(table)
    out.print(f"AUROC of misalignment, swapped captions against clean rows: {auroc:.3f}", soft_wrap=True)


def any_score(result: AuditResult) -> bool:
    """Whether one row at least got a score of any kind."""
    floats = (values for values in result.columns.values() if values.dtype.kind == "f")
    return any(bool(np.isfinite(values).any()) for values in floats)


def worst_rows(scores: np.ndarray, count: int = WORST) -> np.ndarray:
    """The rows with the highest scores, int64 `[<= count]`, highest first; none without a score."""
    order = np.argsort(-scores, kind="stable")
    return order[np.isfinite(scores[order])][:count]


def _summary_table(result: AuditResult) -> Table:
    summary = result.summary
    table = Table(title="Audit", show_header=False, title_justify="left")
    table.add_row("samples", f"{summary['samples']:,}")
    table.add_row("failures", f"{summary['failures']:,}")
    for reason, count in _failures(result)[:3]:
        table.add_row("", f"{count:,}: {clean(reason, 100)}")
    for kind, count in summary["flags"].items():
        table.add_row(f"flagged {kind}", f"{count:,}")
    wrong = summary.get("wrong_share_model")
    table.add_row("wrong pairs, by the model", "not measured" if wrong is None else wrong_words(summary))
    for repair in (summary.get("repairs") or ())[:5]:
        table.add_row("repair", clean(str(repair["sentence"]), 160))
    reliability = summary["reliability"]
    table.add_row("reliability of multimem", "not measured" if reliability is None else f"{reliability:.2f}")
    if (best := summary.get("memorized")) and best["top_mean_on_other_trials"] is not None:
        chosen, fresh = best["top_mean_as_chosen"], best["top_mean_on_other_trials"]
        table.add_row(
            f"multimem of the top {best['top']}", f"{chosen:.2f}; {fresh:.2f} on trials that did not choose them"
        )
    if trained := summary.get("trained"):
        table.add_row("trained", clean(str(trained)))
    for kind, recall in summary["probe_recall"].items():
        table.add_row(f"recall on plants: {kind}", "not measured" if recall is None else f"{recall:.0%}")
    for modality, encoder in summary["encoder"].items():
        table.add_row(f"encoder of {modality}", clean(str(encoder)))
    for space, words in sought_words(summary).items():
        table.add_row(f"neighbors: {space}", words)
    for stage, seconds in summary["seconds"].items():
        table.add_row(f"seconds: {stage}", f"{seconds:,.1f}")
    return table


def sought_words(summary: Mapping[str, Any]) -> dict[str, str]:
    """Space -> how its neighbors were found and how many of them, measured on a sample."""
    return {
        space: how["method"] + (f"; recall {how['recall']:.1%}" if how["method"] != "exact" else "")
        for space, how in (summary.get("neighbors") or {}).items()
    }


def wrong_words(summary: Mapping[str, Any]) -> str:
    """How many pairs are wrong and how many of the flagged, by the model, with 90 % intervals."""
    found = summary.get("wrong_model") or {}
    if not found:
        return f"about {summary['wrong_share_model']:.1%}"
    low, high = found["pairs_interval"]
    if not found["pairs"]:
        return f"none that can be told from chance (at most about {high:,})"
    told = f"about {found['pairs']:,} ({low:,} to {high:,})"
    if found["precision"] is None:
        return told
    least, most = found["precision_interval"]
    return f"{told}; of the flagged, about {found['precision']:.0%} are wrong ({least:.0%} to {most:.0%})"


def _attribution_table(shares: Mapping[str, float]) -> Table:
    table = Table("memorization comes from", "share", title="Attribution", title_justify="left")
    for part, share in shares.items():
        table.add_row(part_name(part), f"{share:.1%}")
    return table


def part_name(part: str) -> str:
    """`due_image` is what goes away without the image, `image_text` what the pair holds."""
    alone = part.removeprefix("due_")
    return f"lost without {alone}" if alone != part else part.replace("_", " and ")


def _protocol_table(report: Mapping[str, Any]) -> Table:
    table = Table("group", "mean of multimem", "95 % interval", "samples", title="Groups", title_justify="left")
    for group, mean, reach, n in protocol_rows(report):
        table.add_row(group, mean, reach, n)
    return table


def protocol_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(group, mean, 95 % interval, samples) of the split protocol, and how near S_C and S_I mirror each other."""
    rows = [
        (name, signed(fact.get("mean")), reach(fact), f"{fact['n']:,}")
        for name, fact in report.get("groups", {}).items()
    ]
    if mirror := report.get("mirror"):
        rows.append(("candidate + independent (0 if mirrored)", signed(mirror.get("mean")), reach(mirror), ""))
    return rows


def signed(value: float | None) -> str:
    """A difference in four digits with its sign."""
    return "not measured" if value is None else f"{value:+.4f}"


def reach(fact: Mapping[str, Any]) -> str:
    """The interval of a fact; "" where there is none."""
    low, high = fact.get("low"), fact.get("high")
    return "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def _failures(result: AuditResult) -> list[tuple[str, int]]:
    """The reasons of failed rows, the most frequent first, each with its count."""
    reasons = [str(reason) for reason in result.columns["failure"] if reason]
    counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons[:1000])}
    return sorted(counts.items(), key=lambda item: -item[1])


def _worst_table(result: AuditResult, samples: Samples, rows: np.ndarray) -> Table:
    table = Table(title="Most suspicious", title_justify="left")
    table.add_column("id", overflow="fold")
    table.add_column("misalignment", justify="right")
    shown = "text" if "text" in samples.media else next(iter(samples.media), "")
    table.add_column("caption" if shown == "text" else shown, overflow="fold")
    captions = samples.media.get(shown, ("",) * len(samples))
    for row in rows:
        value = captions[row] or ""
        caption = clean(value if shown == "text" else os.path.basename(value), CAPTION_WIDTH)
        table.add_row(clean(samples.ids[row], 40), f"{result.columns['misalignment'][row]:.3f}", caption)
    return table
