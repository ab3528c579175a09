"""Peak memory and time of one Parquet table with image bytes in it: its audit with own embeddings, and its exports.

Run as `python -m benchmarks.table_memory [--rows 200000] [--dim 64]`. Each row has a small PNG image of its own, a
caption and a vector on each side; one pair in twenty is exchanged. Nothing is unpacked: the table is the only file.
Expected for 200,000 rows: the audit below 2 GB of resident memory, the export to shards below 1 GB.

`peak_bytes` is the highest resident memory (VmHWM), `file_bytes` what of it are pages of files, which the system can
take back at any time: those of torch's libraries, mostly. Fewer epochs need the same memory and less time.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from audit_plugin.config import AuditConfig
from benchmarks.export_memory import CHILD
from benchmarks.record import write_report
from benchmarks.rivals.tuning import auroc

CHUNK, CLUSTER, SWAPPED, SIDE = 10_000, 50, 20, 24  # SIDE: of the images, in pixels
FORMATS = {"webdataset": "", "parquet": ".parquet", "parquet-bytes": ".parquet", "jsonl": ".jsonl"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the table, audits it and exports it, each command in a process of its own; writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=64, help="of the vectors on each side")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=AuditConfig().epochs)
    parser.add_argument("--formats", nargs="*", default=["webdataset", "parquet-bytes"])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = draw(folder, options.rows, options.dim)
        results: dict[str, Any] = {"table_bytes": table.stat().st_size}
        scores = folder / "scores.parquet"
        vectors = f"image={folder / 'image.npy'},text={folder / 'text.npy'}"
        settings = ["--embeddings", vectors, "--trials", str(options.trials), "--epochs", str(options.epochs)]
        settings += ["--run-dir", str(folder / "run")]
        steps = {"score": ["score", str(table), "--out", str(scores), *settings]}
        for form in options.formats:
            to = str(folder / f"out-{form}{FORMATS[form]}")
            steps[f"export {form}"] = ["export", str(scores), "--to", to, "--format", form]
        for step, command in steps.items():
            results[step] = measure(command)
            print(step, json.dumps(results[step]), flush=True)
        misalignment = pq.read_table(scores)["misalignment"].to_numpy()
        results["auroc"] = round(float(auroc(misalignment, np.arange(options.rows) % SWAPPED == 0)), 4)
    about = {"rows": options.rows, "dim": options.dim, "trials": options.trials, "epochs": options.epochs}
    about["steps"] = results
    write_report(f"table-memory-{options.rows}", "peak resident memory and seconds of one Parquet table", about)


def draw(folder: Path, rows: int, dim: int) -> Path:
    """A Parquet table of Hugging Face's layout, and `image.npy` and `text.npy` with the vectors of its rows."""
    rng = np.random.default_rng(0)
    kind = pa.schema({"id": pa.string(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()})})
    schema = kind.append(pa.field("caption", pa.string()))
    centers = rng.standard_normal((-(-rows // CLUSTER), dim))
    views = {side: rng.standard_normal((2 * dim, dim)) / dim**0.5 for side in ("image", "text")}
    files = {side: np.lib.format.open_memmap(folder / f"{side}.npy", "w+", np.float16, (rows, dim)) for side in views}
    with pq.ParquetWriter(folder / "table.parquet", schema) as writer:
        for start in range(0, rows, CHUNK):
            numbers = np.arange(start, min(rows, start + CHUNK))
            hidden = np.hstack([centers[numbers // CLUSTER], rng.standard_normal((len(numbers), dim))])
            for side, view in views.items():
                files[side][numbers] = hidden @ view + 0.1 * rng.standard_normal((len(numbers), dim))
            pixels = rng.integers(0, 255, (len(numbers), SIDE, SIDE, 3), dtype=np.uint8)
            image = [{"bytes": png(each), "path": f"{row}.png"} for each, row in zip(pixels, numbers, strict=True)]
            caption = [f"a picture of thing {row // CLUSTER}, seen from side {row % CLUSTER}" for row in numbers]
            ids = [f"{row:08d}" for row in numbers]
            writer.write_table(pa.table({"id": ids, "image": image, "caption": caption}, schema))
    swapped = np.arange(0, rows, SWAPPED)
    files["text"][swapped] = files["text"][np.roll(swapped, 1)]
    for file in files.values():
        file.flush()
    return folder / "table.parquet"


def png(pixels: Any) -> bytes:
    """An image as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def measure(command: list[str]) -> dict[str, Any]:
    """Exit code, seconds and peak bytes of resident memory of one command, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", CHILD, *command], stdout=subprocess.PIPE, text=True, check=True)
    result = dict(json.loads(done.stdout.splitlines()[-1]))
    assert result["code"] in (0, None), done.stdout
    return result


if __name__ == "__main__":
    main()
