"""Peak memory and time of exports: every format of a manifest with many rows, and of shards to shards.

Run as `python -m benchmarks.export_memory [--rows 200000] [--files 2000]`. The rows share some small files, so that the
disk holds them; every row's file is opened and, where the format takes bytes, copied. Expected: below 1 GB of resident
memory for a million rows, and hardly more for many rows than for few.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.inputs.tables import write_table
from benchmarks.record import write_report

COLUMNS = {"image": "image", "text": "caption"}
SHARDS = {"image": "image", "text": "text"}
FORMATS = {"webdataset": "", "jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet", "parquet-bytes": ".parquet"}
FORMATS |= {"hf-parquet": "", "datacomp": ".npy"}
CHILD = """
import json, sys, threading, time

def memory():
    return dict(line.split(":", 1) for line in open("/proc/self/status"))

def watch():  # the highest resident memory, and what of it are pages of files: libraries, mapped arrays
    while True:
        kib = memory()
        seen.append((int(kib["VmRSS"].split()[0]), int(kib["RssFile"].split()[0])))
        seen[:] = [max(seen)]
        time.sleep(0.05)

seen = []
threading.Thread(target=watch, daemon=True).start()
from audit_plugin.cli import app
start = time.perf_counter()
sys.argv = ["audit-plugin", *sys.argv[1:]]
try:
    app()
except SystemExit as end:
    code = end.code
seconds = time.perf_counter() - start
# not ru_maxrss, which a process inherits from its parent
peak = int(memory()["VmHWM"].split()[0]) * 1024
result = {"code": code, "seconds": round(seconds, 1), "peak_bytes": peak, "file_bytes": max(seen)[1] * 1024}
print(json.dumps(result))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures each format in a process of its own, and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--bytes", type=int, default=2_000, help="size of each file")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    options = parser.parse_args(arguments)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = draw(folder, options.rows, options.files, options.bytes)
        scores = write_scores(folder / "scores.parquet", manifest, options.rows, COLUMNS, [])
        for form in options.formats:
            to = folder / f"out-{form}{FORMATS[form]}"
            results[form] = measure(scores, to, form)
            print(form, json.dumps(results[form]), flush=True)
            if form == "webdataset":
                ids = [f"{row:08d}" for row in range(options.rows) if row % 10 != 3]
                again = write_scores(folder / "again.parquet", to, len(ids), SHARDS, ids)
                results["shards to shards"] = measure(again, folder / "out-shards", form)
                print("shards to shards", json.dumps(results["shards to shards"]), flush=True)
    about = {"rows": options.rows, "bytes_per_file": options.bytes, "exports": results}
    write_report(f"export-memory-{options.rows}", "peak resident memory and seconds of exports", about)


def draw(folder: Path, rows: int, files: int, size: int) -> Path:
    """A manifest whose rows share some files of random bytes."""
    rng = np.random.default_rng(0)
    (folder / "media").mkdir()
    for number in range(files):
        (folder / "media" / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + rng.bytes(size))
    manifest = folder / "manifest.jsonl"
    with manifest.open("w") as file:
        for row in range(rows):
            caption = f"a caption of some length, as captions have it, that differs from all others: {row}"
            cells = {"id": f"{row:08d}", "image": f"media/{row % files}.jpg", "caption": caption, "uid": f"{row:032x}"}
            file.write(json.dumps(cells) + "\n")
    return manifest


def write_scores(path: Path, manifest: Path, rows: int, names: dict[str, str], ids: list[str]) -> Path:
    """Scores of which one row in ten is to be removed, and one in fifty to be relabeled."""
    number = np.arange(rows)
    action = np.where(number % 10 == 3, "remove", np.where(number % 50 == 7, "relabel", "keep")).astype(object)
    columns: dict[str, Any] = {
        "id": np.array(ids or [f"{row:08d}" for row in range(rows)], dtype=object),
        "misalignment": np.random.default_rng(1).normal(size=rows).astype(np.float32),
        "probability": np.full(rows, 0.1, dtype=np.float32),
        "is_misaligned": number % 10 == 3,
        "action": action,
        "reason": np.where(action == "keep", "", "media do not fit (misalignment 5.1)").astype(object),
        "suggestion": np.where(action == "relabel", "a better caption", "").astype(object),
        "failure": np.full(rows, "", dtype=object),
    }
    write_table(path, columns)
    path.with_suffix(".json").write_text(json.dumps({"manifest": str(manifest), "config": names}))
    return path


def measure(scores: Path, to: Path, form: str) -> dict[str, Any]:
    """Exit code, seconds, peak bytes of resident memory and bytes written, of one export in a process of its own."""
    command = ["export", str(scores), "--to", str(to), "--format", form]
    started = time.time()
    done = subprocess.run([sys.executable, "-c", CHILD, *command], capture_output=True, text=True, check=True)
    result = dict(json.loads(done.stdout.splitlines()[-1]))
    written = sum(path.stat().st_size for path in to.rglob("*")) if to.is_dir() else to.stat().st_size
    assert result["code"] == 0, done.stderr
    return {**result, "bytes_written": written, "wall_seconds": round(time.time() - started, 1)}


if __name__ == "__main__":
    main()
