"""The output folder of clip-retrieval goes in as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from audit_plugin import cli
from audit_plugin.arrays import AuditError
from audit_plugin.inputs.clip_retrieval import is_clip_retrieval, read_clip_retrieval
from audit_plugin.inputs.tables import read_json

N, D = 60, 16
NO_KEYS: dict[str, str | None] = {"group": None, "label": None, "role": None, "split": None}


def write_folder(folder: Path, parts: int = 12, **columns: Any) -> tuple[np.ndarray, np.ndarray]:
    """As its writer does: numbered parts in three folders, the metadata with a path and a caption per row."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((N, D))
    image, text = (hidden + 0.3 * rng.standard_normal((N, D)) for _ in range(2))
    image, text = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (image, text))
    image, text = image.astype(np.float16), text.astype(np.float16)
    text[[0, 1]] = text[[1, 0]]
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, rows in enumerate(np.array_split(np.arange(N), parts)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", image[rows])
        np.save(folder / "text_emb" / f"text_emb_{number}.npy", text[rows])
        table = {
            "image_path": [f"{row:09d}" if row % 2 else f"/data/{row}.jpg" for row in rows],
            "caption": [f"the text of {row}" for row in rows],
            "url": [f"http://x/{row}" for row in rows],
            "source": ["web" if row % 3 else "books" for row in rows],
            **{name: [values[row] for row in rows] for name, values in columns.items()},
        }
        pyarrow.parquet.write_table(pa.table(table), folder / "metadata" / f"metadata_{number}.parquet")
    return image, text


def test_rows_of_all_parts_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    image, text = write_folder(tmp_path)
    assert is_clip_retrieval(tmp_path)
    samples = read_clip_retrieval(tmp_path, {}, {**NO_KEYS, "group": "source"})
    assert samples.ids == tuple(map(str, range(N)))
    assert samples.media["text"] == tuple(f"the text of {row}" for row in range(N))
    assert samples.media["image"][:3] == ("/data/0.jpg", None, "/data/2.jpg")
    assert samples.groups[:4] == ("books", "web", "web", "books")
    np.testing.assert_array_equal(samples.vectors["image"][0:N], image)
    np.testing.assert_array_equal(samples.vectors["text"][0:N], text)


def test_other_columns_and_ids_of_the_metadata_can_be_used(tmp_path: Path) -> None:
    write_folder(tmp_path, id=[f"sample {row}" for row in range(N)])
    samples = read_clip_retrieval(tmp_path, {"text": "url"}, NO_KEYS)
    assert (samples.ids[5], samples.media["text"][5]) == ("sample 5", "http://x/5")
    with pytest.raises(AuditError, match="metadata_0.parquet has no column 'captoin'; did you mean 'caption'"):
        read_clip_retrieval(tmp_path, {"text": "captoin"}, NO_KEYS)


def test_it_is_scored_as_embeddings_of_one_space(tmp_path: Path) -> None:
    image, text = write_folder(tmp_path / "clip")
    out = tmp_path / "scores.parquet"
    done = CliRunner().invoke(
        cli.app, ["score", str(tmp_path / "clip"), "--trials", "4", "--epochs", "4", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    scores = pyarrow.parquet.read_table(out).to_pandas()
    cosine = (image.astype(np.float32) * text.astype(np.float32)).sum(1)
    np.testing.assert_allclose(scores["clip_score"], cosine, atol=1e-3)
    assert set(scores.sort_values("misalignment").id[-2:]) == {"0", "1"}
    summary = read_json(out.with_suffix(".json"))
    assert summary["encoder"] == {"image": "own:float16:16", "text": "own:float16:16"}
    assert summary["config"]["same_space"] is True


def test_one_kind_of_embeddings_and_the_other_modality_encoded(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for path in (tmp_path / "text_emb").iterdir():
        path.unlink()
    (tmp_path / "text_emb").rmdir()
    samples = read_clip_retrieval(tmp_path, {}, NO_KEYS)
    assert set(samples.vectors) == {"image"}
    assert samples.modalities == ("image", "text")


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    image, _ = write_folder(tmp_path)
    np.save(tmp_path / "img_emb" / "img_emb_3.npy", image[:4])
    with pytest.raises(AuditError, match="metadata_3.parquet has 5 rows, and its file of image embeddings 4"):
        read_clip_retrieval(tmp_path, {}, NO_KEYS)
    (tmp_path / "img_emb" / "img_emb_3.npy").unlink()
    with pytest.raises(AuditError, match="has 11 files in img_emb and 12 in metadata, whose numbers should be equal"):
        read_clip_retrieval(tmp_path, {}, NO_KEYS)


def test_other_folders_are_not_taken_for_one(tmp_path: Path) -> None:
    assert not is_clip_retrieval(tmp_path)
    (tmp_path / "img_emb").mkdir()
    assert not is_clip_retrieval(tmp_path)
    (tmp_path / "file.csv").write_text("a")
    assert not is_clip_retrieval(tmp_path / "file.csv")
