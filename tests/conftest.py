"""A database, a plugin folder and a cache of their own for the whole test session: never the user's."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import own_database

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(tempfile.mkdtemp(prefix="audit-tests-"))

# FiftyOne reads these when it is imported, which test modules may do at their top: fixtures would come too late
os.environ.update(
    FIFTYONE_DATABASE_DIR=str(HOME / "db"),
    FIFTYONE_PLUGINS_DIR=str(HOME / "plugins"),
    FIFTYONE_CONFIG_PATH=str(HOME / "config.json"),
    FIFTYONE_DO_NOT_TRACK="true",
    FIFTYONE_DATABASE_VALIDATION="false",
    FIFTYONE_PLUGINS_CACHE_ENABLED="true",
    FIFTYONE_SHOW_PROGRESS_BARS="false",
    XDG_CACHE_HOME=str(HOME / "cache"),
    XDG_DATA_HOME=str(HOME / "data"),  # exports: forms ask before they replace a file of an earlier run
)
for name in (
    "AUDIT_EXPORT_DIR",
    own_database.VARIABLE,
    own_database.MARK,
    "FIFTYONE_PRIVATE_DATABASE_PORT",
):  # a user's
    os.environ.pop(name, None)
if "PYTEST_XDIST_WORKER" in os.environ:  # one core each
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
(HOME / "plugins").mkdir()
(HOME / "plugins" / "audit").symlink_to(ROOT, target_is_directory=True)


# registered before FiftyOne registers the stop of its database, hence called after it
atexit.register(shutil.rmtree, HOME, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    """Each process that runs tests has a server of its own: FiftyOne joins any service of this machine otherwise."""
    if not config.getoption("numprocesses", None):  # with several processes the first one runs no tests
        os.environ.update(own_database.start())


def pytest_report_header() -> str:
    uri = os.environ.get(own_database.VARIABLE, "one for each process")
    return f"database: {uri if uri != own_database.NOWHERE else 'none, since FiftyOne has no mongod'}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes: each file as a whole to one of them, and all that drives a browser to the same one.

    Not xdist's own groups: with pytest 9.2 they have no effect, since ids of tests cannot be changed any more.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "browser" if Path(path).stem.startswith("test_app") else path

    return ByFile(config, log)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs beside the project: `clothing` (a folder per class), `bccd` (boxes)."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real photographs are not there ({folder})")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """60 small images, each of one color, so that color names can be their captions."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for row in range(60):
        rng = np.random.default_rng(row)
        pixels = np.clip(np.array(COLORS[row % len(COLORS)][1]) + rng.integers(-40, 40, (48, 48, 3)), 0, 255)
        paths.append(str(folder / f"{row:02d}.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """40 videos of four small frames: a pattern of colored squares each, no two alike."""
    av = pytest.importorskip("av")
    import numpy as np

    folder = tmp_path_factory.mktemp("clips")
    paths = [str(folder / f"{row:02d}.mp4") for row in range(40)]
    for row, path in enumerate(paths):
        rng = np.random.default_rng(row)
        squares = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1), dtype=int))
        with av.open(path, "w") as file:
            stream = file.add_stream("mpeg4", rate=4, width=32, height=32, pix_fmt="yuv420p")
            for _ in range(4):
                pixels = squares + rng.integers(-30, 30, (32, 32, 3))
                frame = av.VideoFrame.from_ndarray(np.clip(pixels, 0, 255).astype(np.uint8), format="rgb24")
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
    return paths


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """40 sounds of a quarter of a second: four tones after each other, no two sounds alike."""
    import wave

    import numpy as np

    folder = tmp_path_factory.mktemp("sounds")
    paths = [str(folder / f"{row:02d}.wav") for row in range(40)]
    for row, path in enumerate(paths):
        rng = np.random.default_rng(row)
        pitch = np.repeat(rng.uniform(100, 4000, 4), 1000)
        tone = 9000 * np.sin(2 * np.pi * pitch * np.arange(4000) / 16000) + rng.normal(0, 300, 4000)
        with wave.open(path, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(tone.astype("<i2").tobytes())
    return paths


COLORS = [
    ("red", (220, 40, 40)),
    ("green", (40, 200, 60)),
    ("blue", (40, 60, 220)),
    ("yellow", (230, 220, 50)),
    ("grey", (128, 128, 128)),
    ("black", (20, 20, 20)),
]


def caption(row: int) -> str:
    """What the picture of that row shows."""
    return f"a {COLORS[row % len(COLORS)][0]} square, number {row}"


@pytest.fixture(scope="session")
def captions() -> list[str]:
    """What each of the pictures shows."""
    return [caption(row) for row in range(60)]


@pytest.fixture
def make_dataset(pictures: list[str]) -> Iterator[Callable[..., Any]]:
    """Makes datasets of n pictures with captions; they are deleted after the test."""
    import fiftyone as fo

    made = []

    def make(n: int = 12, **fields: Callable[[int], Any]) -> fo.Dataset:
        dataset = fo.Dataset()
        made.append(dataset)
        fields = fields or {"caption": caption}
        dataset.add_samples(
            [
                fo.Sample(
                    filepath=pictures[row % len(pictures)],
                    tags=["own"],
                    **{name: value(row) for name, value in fields.items()},
                )
                for row in range(n)
            ]
        )
        return dataset

    yield make
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()


@pytest.fixture
def make_groups(pictures: list[str], clips: list[str], sounds: list[str]) -> Iterator[Callable[..., Any]]:
    """Makes grouped datasets with the slices picture, clip and sound; the captions are on the picture."""
    import fiftyone as fo

    made = []

    def make(n: int = 6, without: tuple[tuple[int, str], ...] = (), default: str = "picture") -> fo.Dataset:
        """`without`: (group, slice) that the group lacks."""
        dataset = fo.Dataset()
        made.append(dataset)
        dataset.add_group_field("group", default=default)
        for row in range(n):
            group = fo.Group()
            parts = {
                "picture": {"filepath": pictures[row], "caption": caption(row), "shop": row % 2},
                "clip": {"filepath": clips[row]},
                "sound": {"filepath": sounds[row]},
            }
            dataset.add_samples(
                [
                    fo.Sample(**part, tags=["own"], group=group.element(name))
                    for name, part in parts.items()
                    if (row, name) not in without
                ]
            )
        return dataset

    yield make
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()
