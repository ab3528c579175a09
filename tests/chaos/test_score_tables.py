"""Hostile tables of scores with their summaries: what is read with them is only what was named."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.explain import FORMAT, PART
from audit_plugin.audit.result import AuditResult, write_scores
from audit_plugin.report import read_cross_modal, read_scores, report_html, report_of_table

from .conftest import Chaos
from .hostile_files import holds_private_pixels, opened_files, private_folder

N = 4
NESTED: Any = json.loads("[" * 900 + "]" * 900)
KEYS = """
    config encoder versions seconds neighbors flags probe_recall attribution estimated memorized notes repairs
    false_positive_rate trained trials reliability run_dir manifest
"""
WRONG: tuple[Any, ...] = (
    7, "text", [1], ["x"], {"a": 1}, {"a": {"b": []}}, [{"a": 1}], True, -1e308, NESTED, "\u202e\u001b[31m<script>",
)  # fmt: skip


def columns() -> dict[str, Any]:
    return {
        "misalignment": np.linspace(1, 2, N).astype(np.float32),
        "duplicate_group": np.array([""] * N, dtype=object),
        "is_misaligned": np.ones(N, dtype=bool),
        "action": np.array(["review"] * N, dtype=object),
        "reason": np.array(["odd"] * N, dtype=object),
        "failure": np.array([""] * N, dtype=object),
    }


def result(**more: Any) -> AuditResult:
    summary = {"samples": N, "versions": {"audit_plugin": "0"}, "config": {"image": "image", "text": "caption"}}
    return AuditResult(tuple(map(str, range(N))), columns() | more, summary)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "from_elsewhere" / "scores.parquet"
    write_scores(path, result())
    return path


def page(path: Path, samples: Samples | None = None) -> str:
    """The report; "" where the table is refused with one sentence."""
    try:
        return report_html(report_of_table(path, samples))
    except AuditError as error:
        sentence = str(error)
    if "\n" in sentence or len(sentence) > 1500:
        raise ValueError(sentence)
    return ""


def private_run(folder: Path) -> Path:
    """A run folder of the user with captions that are in no report."""
    run = folder / "run"
    run.mkdir()
    voter = {"id": "1", "caption": "private text", "similarity": 1.0, "agreement": 0.0}
    side = {"near": "image", "other": "text", "voters": [voter]}
    records = {str(row): [{"id": str(row), "caption_index": 0, "neighbors": [side]}] for row in range(N)}
    (run / f"{PART}.json").write_text(json.dumps({"format": FORMAT, "notes": ["private text"], "samples": records}))
    return run


def test_a_run_folder_elsewhere_is_not_read(chaos: Chaos, table: Path, tmp_path: Path) -> None:
    private = private_folder(tmp_path)
    run, summary = private_run(private), json.loads(table.with_suffix(".json").read_text())
    link = table.parent / "linked"
    link.symlink_to(run)
    recorded = (run, link, table.parent / ".." / "private" / "run", Path("/proc/self/root") / str(run)[1:])
    outside = 0
    for folder in recorded:
        more = {"run_dir": str(folder), "manifest": str(private / "secret.txt")}
        table.with_suffix(".json").write_text(json.dumps(summary | more))
        with opened_files() as opened:
            html = page(table)
        assert "was not read" in html
        outside += "private text" in html or any(path.startswith(str(private)) for path in opened)
    chaos.record("hostile_run_folders", len(recorded), "hostile inputs", outside=outside)
    # it is read where it is named
    assert "private text" in report_html(report_of_table(table, run_dir=run))


def test_hostile_summaries_and_tables(chaos: Chaos, table: Path) -> None:
    original = json.loads(table.with_suffix(".json").read_text())
    del original["table_sha256"]
    cases = tracebacks = outside = 0

    def attempt(name: str, read: Callable[[], object]) -> None:
        nonlocal cases, tracebacks, outside
        cases += 1
        try:
            html = read()
        except AuditError:
            return
        except BaseException as error:
            tracebacks += 1
            print(name, type(error).__name__, error)  # noqa: T201
            return
        outside += isinstance(html, str) and ("<script" in html or "\x1b" in html or "\u202e" in html)

    for key in KEYS.split():
        for value in WRONG:
            table.with_suffix(".json").write_text(json.dumps(original | {key: value}))
            attempt(f"{key}: {value!r:.40}", lambda: page(table))
    for data in (b"", b"[]", b"{", b"[" * 1_000_000, b"\xff", b'{"a": ' + b"9" * 100_000 + b"}", b"null"):
        table.with_suffix(".json").write_bytes(data)
        attempt(f"summary {data[:9]!r}", lambda: page(table))
        attempt(f"recall {data[:9]!r}", lambda: read_cross_modal(table.with_suffix(".json")))
    table.with_suffix(".json").unlink()
    good = pq.read_table(table)
    for name in good.column_names:
        for values in (["x"] * N, [1] * N, [1.5] * N, [None] * N, [[1]] * N, [{"a": 1}] * N, [b"x"] * N, [True] * N):
            changed = good.set_column(good.column_names.index(name), name, pa.array(values))
            pq.write_table(changed, table)
            attempt(f"{name} of {values[0]!r}", lambda: page(table))
    for name in ("<script>", "x" * 1_000_000, "a.b", "$where", "\u202e", "id"):
        pq.write_table(good.append_column(name, pa.array(range(N))), table)
        attempt(f"column {name[:9]!r}", lambda: page(table))
    rows = 6_000_000
    pq.write_table(pa.table({"id": pa.nulls(rows), "misalignment": pa.nulls(rows), "action": pa.nulls(rows)}), table)
    attempt("nulls", lambda: read_scores(table))
    table.write_bytes(b"PAR1" + b"\xff" * 100 + b"PAR1")
    attempt("damaged", lambda: read_scores(table))
    chaos.record("hostile_score_tables", cases, "hostile inputs", tracebacks=tracebacks, outside=outside)


def test_images_in_a_report_are_bare_pixels(table: Path, tmp_path: Path) -> None:
    file, secret = io.BytesIO(), b"private comment of a file"
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    icc = b"private profile" * 20
    Image.new("RGB", (40, 40), "green").save(file, "JPEG", comment=secret, exif=exif, icc_profile=icc)
    paths = []
    for row in range(N):
        path = tmp_path / f"{row}.jpg"
        path.write_bytes(file.getvalue() + secret)
        paths.append(str(path))
    samples = Samples(tuple(map(str, range(N))), {"image": tuple(paths), "text": ("a",) * N})
    content = report_of_table(table, samples, media_source="column 'image' of m.csv")
    html = report_html(content)
    images = [base64.b64decode(data) for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)]
    assert len(images) >= N
    assert not [data for data in images if b"private" in data]
    assert "of the media named by column &#39;image&#39; of m.csv" in html
    assert not holds_private_pixels(html)
    assert "This report holds no images" in report_html(content, media=False)
