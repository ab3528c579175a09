"""What a second opinion adds: a stub judge that is right about 90% of pairs, asked on a drawn set with wrong captions.

Run as `python -m benchmarks.judge` (about two minutes of a core). The answers come over HTTP from a server on this
machine that knows the truth and errs by chance; the audit, the questions and the combination are the real ones.
Expected: the combined probability ranks better than the score and than the judge, most so where wrong captions are near
misses; its probabilities are nearer to the truth; less of both where judge and score err together; and no flag changes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from audit_plugin.arrays import Bools, Floats
from audit_plugin.audit.result import AuditResult
from audit_plugin.judge import ask_judge, endpoint, plan_questions
from benchmarks.design import Cell
from benchmarks.gate import scored
from benchmarks.metrics import flag_quality, mean_of
from benchmarks.noise import Planted
from benchmarks.record import markdown_table, write_report

CELLS = (Cell("persons", "random", 0.1), Cell("persons", "hard", 0.1))
TRIALS = 16
SEED = 0
BUDGETS = (100, 200)
RIGHT = 0.9  # share of pairs, wrong and right ones alike, about which the judge is right
# How a judge errs: independently of our score, as the combination assumes, or tossing a coin where the score is wrong
ERRORS = ("at random", "with the score")
JUDGES = 4  # of each kind, that err about other pairs
NAMES = {"random": "of any other person", "hard": "near misses"}


def main() -> None:
    """Audits each cell, asks every judge, and writes results/judge.json."""
    question = f"Average precision of wrong pairs with a judge that is right about {RIGHT:.0%} of pairs"
    cells = [run_cell(cell) for cell in CELLS]
    write_report("judge", question, {"right": RIGHT, "judges": JUDGES, "trials": TRIALS, "cells": cells})


def run_cell(cell: Cell) -> dict[str, Any]:
    """What judges add to one audit."""
    with tempfile.TemporaryDirectory() as folder:
        planted, columns, summary = scored(cell, SEED, Path(folder), TRIALS)
        result = AuditResult(planted.samples.ids, columns, summary)
        groups = []
        for errors in ERRORS:
            for budget in BUDGETS:
                runs = [run_judge(result, planted, errors, budget, number, Path(folder)) for number in range(JUDGES)]
                groups.append({"errors": errors, "budget": budget, **summarize(runs)})
    return {"cell": cell.name, "rows": len(result), "wrong": int(planted.wrong.sum()), "judged": groups}


def run_judge(
    result: AuditResult, planted: Planted, errors: str, budget: int, number: int, folder: Path
) -> dict[str, Any]:
    """What one judge adds within one budget."""
    rates = np.full(len(result), 1 - RIGHT)
    if errors == "with the score":
        rates[np.abs(known(result.columns["probability"]) - planted.wrong) > 0.5] = 0.5
    captions = [text or "" for text in planted.samples.media["text"]]  # all of them differ
    truth = dict(zip(captions, zip(planted.wrong.tolist(), rates.tolist(), strict=True), strict=True))
    with stub_judge(truth, number) as url:
        to = endpoint(url, f"stub {errors} {number}")
        judged = ask_judge(plan_questions(result, planted.samples, to, folder / "answers", budget))
    return figures(judged, planted.wrong)


def figures(judged: AuditResult, wrong: Bools) -> dict[str, Any]:
    """Rankings over all rows and over the judged ones, squared errors of probabilities, rates, and the flags."""
    before, after = (known(judged.columns[name]) for name in ("probability", "judge_probability"))
    score, asked = known(judged.columns["misalignment"]), judged.columns["judge_asked"] != ""
    says_wrong = (judged.columns["judge_fits"] == "no").astype(float)
    flags = flag_quality(score, judged.flagged("misaligned"), wrong, float(judged.summary["false_positive_rate"]))
    about = judged.summary["judge"]
    return {
        "ap": {"misalignment": precision(score, wrong), "combined": precision(after, wrong)},
        "ap_of_judged": {
            "misalignment": precision(score[asked], wrong[asked]),
            "judge": precision(says_wrong[asked], wrong[asked]),
            "combined": precision(after[asked], wrong[asked]),
        },
        "squared_error_of_judged": {
            "probability": round(float(np.square(before - wrong)[asked].mean()), 5),
            "combined": round(float(np.square(after - wrong)[asked].mean()), 5),
        },
        **about["rates"],
        "flags": {name: flags[name] for name in ("flagged", "false_positive_rate", "recall")},
    }


def known(values: Floats) -> Floats:
    """float64 `[n]`, the least value where there is none."""
    return np.nan_to_num(np.asarray(values, dtype=np.float64), nan=float(np.nanmin(values)))


def precision(values: Floats, wrong: Bools) -> float:
    """Average precision; of equal values none comes first."""
    return round(float(average_precision_score(wrong, values)), 5)


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the judges; flags are those of the audit in every run."""
    means: dict[str, Any] = {
        part: {name: mean_of(run[part][name] for run in runs) for name in runs[0][part]}
        for part in ("ap", "ap_of_judged", "squared_error_of_judged", "flags")
    }
    means |= {name: mean_of(run[name] for run in runs) for name in ("false_alarms", "sensitivity")}
    return means | {"judges_that_lower_the_ap": sum(run["ap"]["combined"] < run["ap"]["misalignment"] for run in runs)}


def judge_table(report: dict[str, Any]) -> str:
    """A paragraph, and one row per set of wrong captions, kind of judge and budget."""
    header = (
        "wrong captions",
        "the judge errs",
        "pairs asked about",
        "AP of all rows: `misalignment` → `judge_probability`",
        "AP of the judged pairs: `misalignment`, judge alone, `judge_probability`",
        "squared error of the judged pairs: `probability` → `judge_probability`",
        "estimated false-positive rate, sensitivity",
    )
    rows, flags, worse = [], [], 0
    for cell in report["cells"]:
        for group in cell["judged"]:
            ap, judged, error = group["ap"], group["ap_of_judged"], group["squared_error_of_judged"]
            row = [NAMES[cell["cell"].split("-")[1]], group["errors"], str(group["budget"])]
            row += [f"{ap['misalignment']:.3f} → {ap['combined']:.3f}"]
            row += [", ".join(f"{judged[name]:.3f}" for name in ("misalignment", "judge", "combined"))]
            row += [f"{error['probability']:.3f} → {error['combined']:.3f}"]
            rows.append([*row, f"{group['false_alarms']:.0%}, {group['sensitivity']:.0%}"])
            worse += group["judges_that_lower_the_ap"]
        flags.append(f"{cell['judged'][0]['flags']['false_positive_rate']:.1%}")
    first = report["cells"][0]
    runs = report["judges"] * len(rows)
    paragraph = f"""{first["rows"]} drawn persons with {first["wrong"]} wrong captions, and in place of a model a stub
that is right about {report["right"]:.0%} of pairs; one kind is right about half of those that the score gets wrong
(`python -m benchmarks.judge`, a development set, means over {report["judges"]} judges a row). In {worse} of {runs} runs
the ranking of all rows became worse. The flags are those of the audit in each run, with a realized false-positive
rate of {" and ".join(flags)}. No real model was measured."""
    return "\n".join([paragraph, "", *markdown_table(header, rows)])


@contextmanager
def stub_judge(truth: dict[str, tuple[bool, float]], number: int) -> Iterator[str]:
    """The address of a judge; `truth`: caption -> (is wrong, how often the judge errs), the same pairs each time."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_POST(self) -> None:
            """Answers about the caption of a question."""
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            caption = json.loads(question["messages"][1]["content"][0]["text"])["caption"]
            digest = hashlib.sha256(f"{number} {caption}".encode()).digest()
            is_wrong, rate = truth[caption]
            errs = int.from_bytes(digest[:8], "big") < rate * 2**64
            answer = {"fits": is_wrong == errs, "confidence": 1.0}
            data = json.dumps({"choices": [{"message": {"content": json.dumps(answer)}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
