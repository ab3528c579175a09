"""Time that the Audit panel takes to open on a large dataset, and each of its tabs, the first time and later.

Run as `python -m benchmarks.panel_open [--samples 100000] [--repeats 3]`. A dataset without media files gets what an
audit writes: fields, tags, the run, and explanations of the 2,000 rows that an audit explains at most. The events are
sent as the App's server sends them, without a browser, in a process of its own for each repeat, which has FiftyOne and
the plugin's operators loaded but has read nothing of the dataset. The JSON holds seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import own_database

os.environ.update(own_database.settings())  # before FiftyOne is imported

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
from fiftyone.operators.executor import ExecutionContext, Executor

from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io import write_result
from audit_plugin.scoring.flags import FLAGS
from benchmarks.record import write_report

URI = "@multimem/audit/audit_panel"
EXPLAINED = 2_000
SEED = 0
SHARES = {"misaligned": 0.03, "memorized": 0.01, "outlier": 0.01, "duplicate": 0.02, "conflict": 0.002, "vague": 0.005}
TABS = ("plots", "queue", "apply", "cross_modal", "overview")


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the dataset once, opens the panel in several processes, writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.panel_open", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--open", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.open:
        print("SECONDS", json.dumps(opened(options.open)))
        return
    with tempfile.TemporaryDirectory() as folder:
        dataset, seconds = audited(options.samples, Path(folder))
        try:
            runs = [in_a_process(dataset.name) for _ in range(options.repeats)]
        finally:
            dataset.delete()
    median = {step: round(statistics.median(run[step] for run in runs), 3) for step in runs[0]}
    longest = {step: round(max(run[step] for run in runs), 3) for step in runs[0]}
    report = {
        "samples": options.samples,
        "repeats": options.repeats,
        "seed": SEED,
        "load": os.getloadavg()[0],
        "writing": seconds,
        "median": median,
        "longest": longest,
    }
    write_report("panel-open", "How many seconds do the panel and its tabs take to open?", report)
    print(json.dumps(report, indent=1))


def audited(n: int, folder: Path) -> tuple[fo.Dataset, dict[str, float]]:
    """(a dataset with what an audit of it would have written, seconds of writing)."""
    dataset = fo.Dataset(persistent=True)
    start = time.perf_counter()
    dataset.add_samples(
        (fo.Sample(filepath=f"/none/{row}.png", caption=f"a picture of thing {row}") for row in range(n)),
        progress=False,
    )
    added = time.perf_counter() - start
    ids = dataset.values("id")
    result = made_up(ids, folder)
    start = time.perf_counter()
    write_result(dataset, result, AuditConfig(text="caption"))
    return dataset, {"samples": round(added, 1), "audit": round(time.perf_counter() - start, 1)}


def made_up(ids: Sequence[str], folder: Path) -> AuditResult:
    """Scores from normal distributions, the highest of each kind flagged."""
    rng, n = np.random.default_rng(SEED), len(ids)
    scores = {name: rng.standard_normal(n) for name in ("misalignment", "multimem", "alignment", "clip_score")}
    scores |= {name: rng.standard_normal(n) for name in ("outlier", "outlier_image", "outlier_text", "duplicate")}
    scores |= {"misalignment_image_text": scores["misalignment"], "multimem_stderr": rng.random(n)}
    scores |= {"probability": 1 / (1 + np.exp(3 - scores["misalignment"]))}
    flags = {}
    for kind in FLAGS:
        values = scores.get(FLAGS[kind].score, rng.random(n))
        flags[kind] = values > np.quantile(values, 1 - SHARES.get(kind, 0.0001))
    wrong = flags["misaligned"]
    texts = {
        "action": np.where(wrong, "relabel", "keep").astype(object),
        "reason": np.where(wrong, "the media do not belong together", "").astype(object),
        "suggestion": np.where(wrong, "a caption of another picture", "").astype(object),
    }
    columns = {**scores, **{f"is_{kind}": flag for kind, flag in flags.items()}, **texts}
    worst = np.argsort(-scores["misalignment"])[:EXPLAINED]
    explained = {ids[row]: [explanation(ids, row, float(scores["misalignment"][row]))] for row in worst.tolist()}
    (folder / "explanations.json").write_text(json.dumps({"format": 1, "notes": [], "samples": explained}))
    return AuditResult(tuple(ids), columns, {"samples": n, "false_positive_rate": 0.01}, str(folder))


def explanation(ids: Sequence[str], row: int, score: float) -> dict[str, Any]:
    """As large as those of an audit of pictures and captions."""
    voters = [
        {
            "id": ids[(row + step) % len(ids)],
            "caption_index": 0,
            "caption": f"a picture of thing {row + step}",
            "weight": 0.1,
            "similarity": 0.9,
            "agreement": 0.1,
        }
        for step in range(1, 11)
    ]
    sides = [
        {"near": modality, "other": other, "voters": voters}
        for modality, other in (("image", "text"), ("text", "image"))
    ]
    words = [{"text": word, "gain": 0.1} for word in ("a", "picture", "of", "thing")]
    head = {"id": ids[row], "caption_index": 0, "flags": ["misaligned"], "action": "relabel", "misalignment": score}
    return {**head, "neighbors": sides, "words": words, "duplicates": [], "conflicts": []}


def in_a_process(name: str) -> dict[str, float]:
    """`opened` of a fresh process, as after a start of the App, with this checkout as its only plugin."""
    command = [sys.executable, "-m", "benchmarks.panel_open", "--open", name]
    with tempfile.TemporaryDirectory() as plugins:
        Path(plugins, "audit").symlink_to(Path(__file__).resolve().parents[1])
        env = {**os.environ, "FIFTYONE_PLUGINS_DIR": plugins}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.rpartition("SECONDS")[2]))


def opened(name: str) -> dict[str, float]:
    """Step -> seconds."""
    dataset = fo.load_dataset(name)
    state: dict[str, Any] = {}
    drawn: dict[str, Any] = {}
    foo.get_operator(URI)  # the App lists all operators before it shows any
    seconds: dict[str, float] = {}

    def timed(step: str, event: str, **params: Any) -> None:
        params = {**button_params(drawn, f"{URI}#{event}"), **params}
        start = time.perf_counter()
        after, elements = send(dataset, state, event, **params)
        seconds[step] = time.perf_counter() - start
        state.update(after)
        drawn.update(elements)

    timed("open", "on_load")
    timed("open again", "on_load")
    for again in ("", " again"):
        for tab in TABS:
            timed(f"{tab}{again}", "on_tab", value=tab)
    timed("slide", "on_slide", kind="misaligned", run="audit", value=1.5)
    after, elements = send(dataset, state, "on_tab", value="queue")  # timed above; this draws the buttons
    state.update(after)
    drawn.update(elements)
    for step in ("decide", "decide again"):
        timed(step, "on_decide")
    state["tab"] = "overview"
    timed("open after a decision", "on_load")
    return seconds


def send(
    dataset: fo.Dataset, state: dict[str, Any], event: str, **params: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One event of the panel, as the App's server carries it out; the panel's state afterward, and what it draws."""
    request = {
        "dataset_name": dataset.name,
        "view": [],
        "params": {**params, "panel_id": "p", "panel_state": state, "__method__": event},
    }
    executor = Executor()
    ctx = ExecutionContext(request, executor=executor, operator_uri=URI)
    with ctx:
        foo.get_operator(URI).execute(ctx)
    steps = [step.to_json() for step in executor._requests]
    drawn = [step["params"]["output"] for step in steps if step["operator_uri"].endswith("show_panel_output")]
    if "failed" in drawn[-1]["type"]["properties"] or any(s["operator_uri"].endswith("notify") for s in steps):
        raise SystemExit(f"{event} failed: {json.dumps(steps, default=str)[-2000:]}")
    return dict(ctx.panel.state._data), drawn[-1]


def button_params(elements: Any, event: str) -> dict[str, Any]:
    """The parameters that the first drawn button of an event sends, if there is one."""
    if isinstance(elements, dict):
        if event in elements.values() and elements.get("params"):
            return dict(elements["params"])
        elements = list(elements.values())
    for element in elements if isinstance(elements, list) else ():
        if params := button_params(element, event):
            return params
    return {}


if __name__ == "__main__":
    main()
