"""A second opinion on suspicious pairs, by a vision-language model that the user names; nothing is sent unasked.

`plan_questions` says what would be sent and sends nothing; `ask_judge` asks and gives the result with the columns of
`COLUMNS` beside its own, which stay as they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Ints, Samples, count_text
from audit_plugin.audit.result import AuditResult
from audit_plugin.inputs.files import failure_of
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.scoring.columns import JUDGE_COLUMNS
from audit_plugin.scoring.personal_data import hide_personal_data
from audit_plugin.store import private_folder, raise_shortage, size_text

from .answers import MOST_CAPTION, PROMPT_VERSION, SIDE, Answer, answer_key, keep_answer, kept_answer, question
from .asking import KEY_VARIABLE, Endpoint, ask_all, endpoint
from .combining import choose_pairs, combine

__all__ = ["COLUMNS", "KEY_VARIABLE", "Endpoint", "Questions", "ask_judge", "endpoint", "plan_questions"]

COLUMNS = tuple(column.name for column in JUDGE_COLUMNS)
MEASURED = 8  # questions that are made to say how many bytes all of them take

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Questions:
    """What is asked of whom: made by `plan_questions`.

    Attributes:
        result: of the audit.
        samples: its rows, with images and captions.
        to: the server.
        folder: of the answers.
        rows: int64 `[q]`, the most suspicious ones first.
        is_control: bool `[q]`, drawn at random of the others.
        keys: `[q]`, names of the answers.
        kept: answers that are there already.
        failures: position of a row that cannot be asked about -> why.
        size: about how many bytes are sent.
        left_out: why rows may not be sent -> number of rows.
    """

    result: AuditResult
    samples: Samples
    to: Endpoint
    folder: Path
    rows: Ints
    is_control: Bools
    keys: Sequence[str]
    kept: Mapping[str, Answer]
    failures: Mapping[int, str]
    size: int
    left_out: Mapping[str, int]

    @property
    def open(self) -> dict[str, int]:
        """Key of an answer that is not there -> a row that it is about; equal pairs are asked about once."""
        return {key: int(row) for key, row in zip(self.keys, self.rows, strict=True) if key and key not in self.kept}

    def lines(self) -> list[str]:
        """What is sent, to whom, for people."""
        control = int(self.is_control.sum())
        chosen = f"{len(self.rows) - control:,} most suspicious and {control:,} random control pairs"
        lines = [
            f"{chosen} of {count_text(len(self.result), 'row')}; {count_text(len(self.kept), 'answer')} there already"
        ]
        key = f"with the key of {KEY_VARIABLE}" if self.to.key else f"without a key ({KEY_VARIABLE} is not set)"
        lines.append(
            f"{count_text(len(self.open), 'pair')} (image of at most {SIDE} pixels, and caption), about "
            f"{size_text(self.size)}, to {self.to.name}, model {self.to.model}, {key}"
        )
        return lines + [f"never sent: {count_text(count, 'row')} ({why})" for why, count in self.left_out.items()]

    def answer(self, position: int, answers: Mapping[str, Answer]) -> Answer:
        """What is known about one of `rows`."""
        if position in self.failures:
            return Answer(failure=self.failures[position])
        return answers[self.keys[position]]


def plan_questions(result: AuditResult, samples: Samples, to: Endpoint, folder: str | Path, budget: int) -> Questions:
    """What a judge would be asked: at most `budget` pairs, the highest misalignment first, a quarter drawn at random.

    Rows that failed, that lack an image or a caption, whose caption is very long, or that hold personal data (as the
    audit or this search finds them) are not sent. Nothing is sent here.

    Args:
        result: of an audit.
        samples: its rows.
        to: see `endpoint`.
        folder: where answers are kept, so that nothing is sent twice; it need not be there yet.
        budget: number of pairs at most.

    Raises:
        AuditError: the rows are others, have no images or captions, or none of them can be sent.
    """
    if samples.ids != result.ids or samples.caption != result.captions:
        raise AuditError("the samples are not the rows of the result; give those that were audited")
    if not {"image", "text"} <= {*samples.media} or "misalignment" not in result.columns:
        raise AuditError("a judge looks at images and captions, which these rows do not both have")
    if budget < 1:
        raise AuditError(f"budget is {budget}; give the number of pairs to ask about, at least 1")
    eligible, left_out = _eligible(result, samples)
    captions = result.captions or (0,) * len(result)
    scores = np.asarray(result.columns["misalignment"], dtype=np.float64)
    names = list(zip(result.ids, captions, strict=True))
    suspicious, control = choose_pairs(scores, names, eligible, budget)
    rows = np.concatenate([suspicious, control])
    if not len(rows):
        raise AuditError("no row has a score, an image and a caption that may be sent")
    keys, failures = _keys(samples, rows, to.model)
    answers = {
        key: kept_answer(Path(folder), key, _caption(samples, row)) for key, row in zip(keys, rows, strict=True) if key
    }
    kept = {key: answer for key, answer in answers.items() if answer is not None}
    to_ask = [row for key, row in zip(keys, rows.tolist(), strict=True) if key and key not in kept]
    return Questions(
        result=result,
        samples=samples,
        to=to,
        folder=Path(folder),
        rows=rows,
        is_control=np.arange(len(rows)) >= len(suspicious),
        keys=keys,
        kept=kept,
        failures=failures,
        size=_bytes(samples, to_ask),
        left_out=left_out,
    )


def ask_judge(questions: Questions, progress: Progress | None = None) -> AuditResult:
    """Asks what is not answered yet; the result with the columns of `COLUMNS`, and `judge` in its summary.

    The columns of the audit are the same objects, so flags, actions and suggestions do not change. Each answer is kept
    as soon as it is there: after an interrupt the same call goes on. The result depends on the answers only.

    Raises:
        AuditError: no pair is answered, the server refuses all requests, or answers cannot be kept.
    """
    private_folder(questions.folder)  # before anything is sent
    samples, waiting = questions.samples, questions.open
    keys, answers = list(waiting), dict(questions.kept)
    pairs = [(samples.media["image"][row] or "", _caption(samples, row)) for row in waiting.values()]

    def keep(position: int, answer: Answer) -> None:
        keep_answer(questions.folder, keys[position], answer)

    if progress:
        progress("asking the judge", 0, len(pairs))
    with closing(ask_all(questions.to, pairs, keep)) as arriving:
        for done, (position, answer) in enumerate(arriving, 1):
            answers[keys[position]] = answer
            if progress:
                progress("asking the judge", done, len(pairs))
    of_rows = [questions.answer(position, answers) for position in range(len(questions.rows))]
    if all(answer.fits is None for answer in of_rows):
        raise AuditError(
            f"no pair was answered ({of_rows[0].failure}); check --url, --model and {KEY_VARIABLE}, and run it again"
        )
    columns, summary = _outcome(questions, of_rows)
    result = questions.result
    return replace(result, columns={**result.columns, **columns}, summary={**result.summary, "judge": summary})


def _eligible(result: AuditResult, samples: Samples) -> tuple[Bools, dict[str, int]]:
    """(bool `[n]`, the rows that may be sent; why others may not -> their number)."""
    n = len(result)
    images, texts = samples.media["image"], samples.media["text"]
    failed = np.array([bool(text) for text in result.columns.get("failure", [""] * n)], dtype=bool)
    failed |= ~np.isfinite(np.asarray(result.columns["misalignment"], dtype=np.float64))
    missing = np.array([not image or not text for image, text in zip(images, texts, strict=True)], dtype=bool)
    long = np.array([len(text or "") > MOST_CAPTION for text in texts], dtype=bool)
    personal = np.array(result.columns.get("is_personal", np.zeros(n)), dtype=bool)
    for row in np.flatnonzero(~(failed | missing | long | personal)):  # a table may be older than its captions
        personal[row] = bool(hide_personal_data(texts[row] or "")[0])
    reasons = {
        "not scored": failed,
        "no image or no caption": missing,
        f"a caption of more than {MOST_CAPTION:,} characters": long,
        "personal data in the caption": personal,
    }
    eligible, left_out = np.ones(n, dtype=bool), {}
    for why, rows in reasons.items():
        if count := int((rows & eligible).sum()):
            left_out[why] = count
        eligible &= ~rows
    return eligible, left_out


def _keys(samples: Samples, rows: Ints, model: str) -> tuple[list[str], dict[int, str]]:
    """(names of the answers, "" where an image cannot be read; position -> why)."""
    keys, failures = [], {}
    for position, row in enumerate(rows):
        try:
            digest = MODALITIES["image"].digest(samples.media["image"][row] or "")
            keys.append(answer_key(digest, _caption(samples, row), model))
        except Exception as error:
            raise_shortage(error)
            failures[position] = f"not asked: {failure_of(error)}"
            keys.append("")
    return keys, failures


def _caption(samples: Samples, row: int) -> str:
    return samples.media["text"][row] or ""


def _bytes(samples: Samples, rows: Sequence[int]) -> int:
    """About how many bytes the questions about some rows take, by the mean of a few of them."""
    sizes = []
    for row in rows[:: max(1, len(rows) // MEASURED)]:
        try:
            sizes.append(len(json.dumps(question(samples.media["image"][row] or "", _caption(samples, row)))))
        except Exception as error:
            raise_shortage(error)
            failure_of(error)
    return round(np.mean(sizes) * len(rows)) if sizes else 0


def _outcome(questions: Questions, answers: Sequence[Answer]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the columns of `COLUMNS`, what the summary says of the judge)."""
    result, rows, is_control = questions.result, questions.rows, questions.is_control
    n = len(result)
    columns: dict[str, Any] = {name: np.full(n, "", dtype=object) for name in COLUMNS}
    columns["judge_confidence"] = np.full(n, np.nan, dtype=np.float32)
    ours = np.asarray(result.columns.get("probability", np.full(n, np.nan)), dtype=np.float32)
    columns["judge_probability"] = ours.copy()
    columns["judge_asked"][rows] = np.where(is_control, "control", "suspicious")
    for row, answer in zip(rows, answers, strict=True):
        columns["judge_failure"][row] = answer.failure
        if answer.fits is None:
            continue
        columns["judge_fits"][row] = "yes" if answer.fits else "no"
        columns["judge_confidence"][row] = answer.confidence
        columns["judge_words"][row] = json.dumps(answer.words, ensure_ascii=False) if answer.words else ""
        columns["judge_caption"][row] = answer.caption
    answered = np.array([answer.fits is not None for answer in answers])
    says_wrong = np.array([answer.fits is False for answer in answers])
    judged = rows[answered]
    after, rates = combine(ours[judged], says_wrong[answered], is_control[answered])
    columns["judge_probability"][judged] = after
    summary: dict[str, Any] = {
        "host": questions.to.name,
        "model": questions.to.model,
        "prompt": PROMPT_VERSION,
        "asked": len(rows),
        "control": int(is_control.sum()),
        "answered": int(answered.sum()),
        "found_wrong": int(says_wrong.sum()),
        "found_wrong_in_control": int((says_wrong & is_control).sum()),
        "failures": dict(sorted(Counter(answer.failure for answer in answers if answer.failure).items())),
    }
    if rates:
        summary["rates"] = {name: round(rate, 4) for name, rate in rates._asdict().items()}
    return columns, summary
