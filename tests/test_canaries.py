"""Canaries: the tables to mix in, and models that know them or do not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from audit_plugin.arrays import AuditError
from audit_plugin.crossmodal.canaries import (
    ARMS,
    BOTH,
    DESCRIBED,
    IMAGE,
    LEFT_OUT,
    TEXT,
    TRAINED,
    UNSEEN,
    draw_canaries,
    excess_recall,
    measure_canary_recall,
    name_ranks,
)
from audit_plugin.crossmodal.sentences import canary_rows, canary_sentences
from tests.clip_fixtures import MODEL, tiny_weights

PEOPLE, VARIANTS = 32, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("python_avatars")
    out = tmp_path_factory.mktemp("planted") / "people"
    draw_canaries(out, PEOPLE, VARIANTS, seed=5)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- what is planted -------------------------------------------------------------------------------------------------


def test_every_way_gets_a_quarter_and_the_left_out_are_nowhere(folder: Path) -> None:
    ways = {row["identity"]: row["learned"] for row in rows(folder / "ways.csv")}
    assert [list(ways.values()).count(way) for way in ARMS] == [PEOPLE // 4] * 4
    pairs, texts = rows(folder / "planted.csv"), rows(folder / "texts.csv")
    assert len(pairs) == 2 * VARIANTS * PEOPLE // 4
    assert len(texts) == VARIANTS * PEOPLE // 4
    who = {row["id"]: row["identity"] for row in rows(folder / "manifest.csv")}
    for row in (*pairs, *texts):
        assert who[row["id"]] in row["text"]
    assert {ways[who[row["id"]]] for row in pairs} == {IMAGE, BOTH}
    assert {ways[who[row["id"]]] for row in texts} == {TEXT}
    mixed = "".join(row["text"] for row in (*pairs, *texts))
    assert not [name for name, way in ways.items() if way == LEFT_OUT and name in mixed]
    said = {row["id"]: row["description"] for row in rows(folder / "manifest.csv")}
    for row in pairs:
        assert (folder / row["image"]).is_file()
        assert (said[row["id"]] in row["text"]) == (ways[who[row["id"]]] == BOTH)
    asked = {row["id"] for row in rows(folder / "manifest.csv") if row["split"] == "test"}
    assert not asked & {row["id"] for row in (*pairs, *texts)}


def test_equal_seeds_plant_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        draw_canaries(tmp_path / name, 16, 1, seed)
    for name in ("planted.csv", "texts.csv", "ways.csv", "manifest.csv"):
        first, second, other = ((tmp_path / folder / name).read_bytes() for folder in "abc")
        assert first == second != other


def test_too_few_people_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="at least 16"):
        draw_canaries(tmp_path / "few", 8)


# --- what is recalled ------------------------------------------------------------------------------------------------


def test_ranks_by_hand() -> None:
    similarity = np.array([[0.9, 0.1, 0.5], [0.8, 0.6, 0.1]])
    # a name near everything loses what it has in common with all questions: columns less (.85, .35, .3)
    assert name_ranks(similarity, np.array([0, 1])).tolist() == [1, 0]
    assert name_ranks(np.zeros((2, 5)), np.array([0, 4])).tolist() == [2, 2]  # nothing known: the middle


def test_what_goes_beyond_the_left_out_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    known, others = 0.9 + 0.1 * rng.random(30), rng.random(30)
    found = excess_recall(np.append(known, np.nan), others)
    assert found["low"] > 0.2
    assert found["identities"] == 30
    assert found["value"] == pytest.approx(known.mean() - others.mean())
    same = excess_recall(others, others[::-1])
    assert same["low"] < 0 < same["high"]


def oracle(folder: Path, knows: tuple[str, ...], pictures: bool = True) -> dict[str, Any]:
    """A model that has learned, of people planted in some ways, who is in their pictures and descriptions."""
    from PIL import Image

    ways = {row["identity"]: row["learned"] for row in rows(folder / "ways.csv")}
    names, rng = list(ways), np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    known: dict[Any, str] = {}
    for row in rows(folder / "manifest.csv"):
        if ways[row["identity"]] in knows:
            if pictures:
                known[Image.open(folder / row["image"]).convert("RGB").tobytes()] = row["identity"]
            known[row["description"]] = row["identity"]

    def vector(name: str | None) -> np.ndarray:
        return basis[names.index(name)] if name else rng.standard_normal(64)

    def read(texts: list[str]) -> np.ndarray:
        return np.stack([vector(known.get(t) or next((n for n in names if n in t), None)) for t in texts])

    return {"image": lambda found: np.stack([vector(known.get(p.tobytes())) for p in found]), "text": read}


def test_what_a_model_knows_is_found_and_nothing_else(folder: Path) -> None:
    found = measure_canary_recall(folder, oracle(folder, (IMAGE, BOTH)))
    recall, memorized = found.summary["recall"], found.summary["memorized"]
    for way in (IMAGE, BOTH):
        for kind in (TRAINED, UNSEEN, DESCRIBED):
            assert recall[way][kind]["value"] == 1.0
            assert memorized[way][kind]["low"] > 0.2
    assert TRAINED not in memorized[TEXT]
    assert recall[LEFT_OUT][UNSEEN]["value"] < 0.3
    assert memorized[TEXT][UNSEEN]["low"] < 0.15
    assert 0.3 < found.summary["place"][LEFT_OUT][DESCRIBED]["value"] < 0.7
    assert found.summary["people"] == dict.fromkeys(ARMS, PEOPLE // 4)
    record = next(r for r in found.identities if r["learned"] == IMAGE)
    assert record[UNSEEN] == 1.0
    assert canary_rows(found.summary)[3][:2] == (LEFT_OUT, str(PEOPLE // 4))
    assert canary_rows(found.summary)[3][2] == ""  # none of their pictures was planted
    assert any("trained on pictures, asked with a description: recalled" in s for s in canary_sentences(found.summary))


def test_a_model_that_knows_nothing_recalls_nothing(folder: Path) -> None:
    found = measure_canary_recall(folder, oracle(folder, ()))
    for cells in found.summary["memorized"].values():
        for cell in cells.values():
            assert cell["low"] < 0.15
            assert cell["high"] > -0.15


def test_a_model_without_one_space_is_refused(folder: Path) -> None:
    functions = {"image": lambda found: np.ones((len(found), 4)), "text": lambda found: np.ones((len(found), 5))}
    with pytest.raises(AuditError, match="not in one space"):
        measure_canary_recall(folder, functions)
    with pytest.raises(AuditError, match="audit-plugin plant-canaries"):
        measure_canary_recall(folder.parent, functions)


# --- a checkpoint that was trained on them ---------------------------------------------------------------------------


def trained(folder: Path, out: Path, steps: int = 160) -> Path:
    """A tiny CLIP trained from scratch on the planted pairs, by open_clip's own loss."""
    import open_clip
    import torch
    from PIL import Image

    (weights,) = tiny_weights(out)
    torch.manual_seed(0)
    model, _, prepare = open_clip.create_model_and_transforms(MODEL)
    model.load_state_dict(weights)
    pairs = rows(folder / "planted.csv")
    pictures = torch.stack([prepare(Image.open(folder / row["image"]).convert("RGB")) for row in pairs])
    texts = open_clip.get_tokenizer(MODEL)([row["text"] for row in pairs])
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=4e-3), open_clip.ClipLoss()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(*model(pictures, texts)).backward()
        optimizer.step()
    torch.save(model.state_dict(), out / "trained.pt")
    torch.save(weights, out / "before.pt")
    return out / "trained.pt"


def test_a_checkpoint_that_saw_them_recalls_them_and_one_that_did_not_does_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    checkpoint = trained(folder, tmp_path)
    report = tmp_path / "recall.json"
    asked = ["canary-recall", str(folder), "--model", f"open_clip:{MODEL}:{checkpoint}", "--out", str(report)]
    from audit_plugin import cli

    told = CliRunner().invoke(cli.app, [*asked, "--device", "cpu"])
    assert told.exit_code == 0, told.output
    assert "Rank of the right name among all names" in told.output
    after = json.loads(report.read_text())
    assert after["memorized"][IMAGE][TRAINED]["low"] > 0.1
    assert len(rows(tmp_path / "recall-identities.csv")) == PEOPLE
    before = measure_canary_recall(folder, f"open_clip:{MODEL}:{tmp_path / 'before.pt'}", "cpu").summary
    assert before["place"][IMAGE][TRAINED]["value"] < after["place"][IMAGE][TRAINED]["value"] - 0.2
    assert before["memorized"][IMAGE][TRAINED]["low"] < 0.1


def test_the_command_plants(tmp_path: Path) -> None:
    from audit_plugin import cli

    told = CliRunner().invoke(
        cli.app, ["plant-canaries", "--out", str(tmp_path / "p"), "--identities", "16", "--variants", "1"]
    )
    assert told.exit_code == 0, told.output
    assert "canaries: 4 image, 4 both, 4 text, 4 left out" in told.output
    assert (tmp_path / "p/planted.csv").is_file()
