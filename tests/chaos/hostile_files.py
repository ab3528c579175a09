"""What attacks by manifests and shards share: a private folder, files that were opened, and reports to look through."""

from __future__ import annotations

import base64
import io
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.report import ReportContent, report_html

PRIVATE_COLOR = (255, 0, 255)
SECONDS = 60.0  # after which a case hangs
MEGABYTES = 3000  # of the whole process
_watchers: list[list[str]] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watchers and isinstance(arguments[0], str | bytes | os.PathLike):
        _watchers[-1].append(os.fsdecode(arguments[0]))


sys.addaudithook(_on_event)


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """The paths of the files that are opened inside, links followed."""
    paths: list[str] = []
    _watchers.append(paths)
    try:
        yield paths
    finally:
        _watchers.pop()
        paths[:] = [os.path.realpath(path) for path in paths if "\0" not in path]


def png(color: str | tuple[int, int, int] = "green", side: int = 16) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), color).save(file, "PNG")
    return file.getvalue()


def private_folder(folder: Path) -> Path:
    """A folder with an image, a text and a tar file that nothing may read."""
    import tarfile

    private = folder / "private"
    private.mkdir()
    (private / "secret.png").write_bytes(png(PRIVATE_COLOR))
    (private / "secret.txt").write_text("private text")
    with tarfile.open(private / "secret.tar", "w") as file:
        file.add(private / "secret.png", "0.png")
    return private


def holds_private_pixels(html: str) -> bool:
    """Whether an image of a report shows the private one."""
    for data in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=int)
        if (abs(pixels - PRIVATE_COLOR).sum(-1) < 60).any():
            return True
    return False


def report_of(samples: Samples) -> str:
    """A report that shows all rows."""
    n = len(samples)
    columns = {
        "misalignment": np.linspace(1, 2, n),
        "is_misaligned": np.ones(n, dtype=bool),
        "action": np.array(["review"] * n, dtype=object),
        "failure": np.array([samples.problems.get(row, "") for row in range(n)], dtype=object),
    }
    return report_html(ReportContent("attack", samples, columns, media_source="column 'image' of attack"))


@dataclass
class Counts:
    """What the cases of an attack did."""

    private: Path
    good: Sequence[str] = ("g0", "g1", "g2")
    hangs: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    good_rows_lost: list[str] = field(default_factory=list)
    silent_wrong: list[str] = field(default_factory=list)
    cases: int = 0
    slowest: float = 0.0

    def run(self, name: str, read: Callable[[], Samples], refused: str = "", reasons: Sequence[str] = ()) -> None:
        """Runs a case, which is refused with a sentence or reads all good rows and gives a reason for each other one.

        `refused` and `reasons` are parts of the expected sentence, or of the reasons of the rows.
        """
        self.cases += 1
        begun = time.monotonic()
        signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(int(SECONDS) + 5)
        try:
            with opened_files() as opened:
                outcome = _outcome(read)
        except TimeoutError:
            self.hangs.append(name)
            return
        except BaseException as error:
            self.tracebacks.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            return
        finally:
            signal.alarm(0)
            self.slowest = max(self.slowest, time.monotonic() - begun)
        if any(path.startswith(str(self.private)) for path in opened):
            self.outside.append(name)
        if isinstance(outcome, str):
            if not refused or refused not in outcome or "\n" in outcome or len(outcome) > 1500:
                self.silent_wrong.append(f"{name}: {outcome[:300]!r}")
            return
        samples, whys, html = outcome
        if holds_private_pixels(html) or "private text" in html:
            self.outside.append(f"{name}: report")
        by_id = dict(zip(samples.ids, whys, strict=True))
        if lost := [row for row in self.good if by_id.get(row, "missing")]:
            self.good_rows_lost.append(f"{name}: {lost} {[by_id.get(row) for row in lost]}")
        others = " ".join(why for row, why in by_id.items() if row not in self.good)
        if refused or not all(reason in others for reason in reasons):
            self.silent_wrong.append(f"{name}: {by_id}"[:600])

    def check(self) -> dict[str, int]:
        """The numbers for the record; prints what is not as it must be."""
        faults = {
            name: getattr(self, name) for name in ("hangs", "tracebacks", "outside", "good_rows_lost", "silent_wrong")
        }
        for name, cases in faults.items():
            for case in cases:
                print(name, case)  # noqa: T201
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert megabytes < MEGABYTES
        print(f"{self.cases} cases, the slowest {self.slowest:.1f} s, {megabytes:.0f} MB")  # noqa: T201
        return {name: len(cases) for name, cases in faults.items()}


def _hangs(*_: object) -> None:
    raise TimeoutError


def _outcome(read: Callable[[], Samples]) -> str | tuple[Samples, list[str], str]:
    """The sentence with which it was refused; or the samples, what is wrong with each, and their report."""
    try:
        samples = read()
    except AuditError as error:
        return str(error)
    whys = []
    for row in range(len(samples)):
        why = samples.problems.get(row, "")
        for modality, values in samples.media.items():
            value = values[row]
            try:
                if not why and value is None:
                    why = f"no {modality}"
                elif not why and row < 100:
                    MODALITIES[modality].digest(value)
                    if modality == "image":
                        MODALITIES[modality].read(value)
            except MediaError as error:
                why = str(error)
        whys.append(why)
    shown = min(len(samples), 100)
    few = Samples(
        samples.ids[:shown],
        {name: values[:shown] for name, values in samples.media.items()},
        problems={row: why for row, why in samples.problems.items() if row < shown},
    )
    return samples, whys, report_of(few)
