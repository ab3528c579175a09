from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.encoders.embed import silent
from audit_plugin.trials import towers
from audit_plugin.trials.towers import TowerData, TowerSpec, embed_tower, parse_tower, prepare_towers, train_tower
from tests.clip_fixtures import MODEL, tiny_checkpoints

open_clip = pytest.importorskip("open_clip")
ROOT = Path(__file__).resolve().parents[1]
CPU = "cpu"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model too small to know anything, whose name open_clip knows from here on."""
    return tiny_checkpoints(tmp_path_factory.mktemp("towers"), "a")


@pytest.fixture(scope="module")
def noise() -> TowerData:
    """48 images of random blocks and unrelated texts: whatever is learned of them is memorized."""
    rng = np.random.default_rng(0)
    tokens = np.concatenate([rng.integers(1, 40, (48, 5)), np.full((48, 1), 40)], axis=1).astype(np.int32)
    images = rng.integers(0, 256, (48, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    return TowerData(images, tokens, 41, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


@pytest.fixture(scope="module")
def quick() -> TowerSpec:
    return replace(parse_tower("small", 2), batch=12)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())


# --- names ---------------------------------------------------------------------------------------------------------


def test_the_names_of_towers(tiny: Path) -> None:
    small, scratch, tuned = (parse_tower(name, 7) for name in ("small", MODEL, f"{MODEL}:{tiny / 'a.pt'}"))
    assert (small.model, small.weights, small.epochs, small.image_size) == ("small", "", 7, 32)
    assert (scratch.model, scratch.weights, scratch.image_size, scratch.context_length) == (MODEL, "", 32, 16)
    assert (tuned.weights, len(tuned.digest)) == (str(tiny / "a.pt"), 16)
    assert tuned.learning_rate < scratch.learning_rate / 10
    assert "from scratch" in towers.describe(small)
    assert "may have seen the data" in towers.describe(tuned)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ViT-B-33", "did you mean"),
        ("ViT-B-32:no-such-weights", "neither a checkpoint file nor weights"),
        (f"{MODEL}:/no/such/file.pt", "neither a checkpoint file nor weights"),
        ("coca_ViT-B-32", "two towers"),
        ("", "is not an open_clip model"),
    ],
)
def test_names_that_mean_nothing(tiny: Path, name: str, says: str) -> None:
    with pytest.raises(AuditError, match=says):
        parse_tower(name, 1)


def test_weights_out_of_reach_are_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1")
    with pytest.raises(AuditError, match="--tower small"):
        parse_tower("ViT-B-32:laion2b_s34b_b79k", 1)


def test_openai_weights_keep_their_activation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cached.pt"
    path.write_bytes(b"weights")
    monkeypatch.setattr(towers.clip, "cached_weights", lambda *_: str(path))
    assert (
        parse_tower("ViT-B-32:openai", 1).quick_gelu == open_clip.get_pretrained_cfg("ViT-B-32", "openai")["quick_gelu"]
    )
    assert not parse_tower("ViT-B-32:laion2b_s34b_b79k", 1).quick_gelu


# --- data ----------------------------------------------------------------------------------------------------------


def test_preparing(pictures: list[str], captions: list[str]) -> None:
    spec = parse_tower("small", 1)
    data = prepare_towers({"text": captions, "image": pictures}, spec, silent)
    assert (data.images.shape, data.images.dtype) == ((60, 32, 32, 3), np.uint8)
    assert data.modalities == ("text", "image")
    full = open_clip.SimpleTokenizer(context_length=24)(captions).numpy()
    used = np.union1d(full, [0])
    length = data.tokens.shape[1]
    np.testing.assert_array_equal(used[data.tokens], full[:, :length])
    assert not full[:, length:].any()
    assert data.vocabulary == len(used)
    np.testing.assert_array_equal(data.tokens.argmax(1), full.argmax(1))  # where the tower looks for the text's end


def test_images_are_what_open_clip_makes_of_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)).resize(
        (96, 64), Image.Resampling.BICUBIC
    )
    smooth.save(tmp_path / "wide.png")
    data = prepare_towers({"image": [str(tmp_path / "wide.png")], "text": ["x"]}, parse_tower("small", 1), silent)
    theirs = open_clip.image_transform(32, is_train=False, mean=data.mean, std=data.std)(smooth)
    ours = towers._normalized(torch.from_numpy(data.images), data)[0]
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=0.02)


def test_long_texts_are_cut(pictures: list[str]) -> None:
    data = prepare_towers({"image": pictures[:2], "text": ["word " * 60, "short"]}, parse_tower("small", 1), silent)
    assert data.tokens.shape == (2, 24)


def test_a_medium_that_went_bad(tmp_path: Path, pictures: list[str]) -> None:
    (tmp_path / "torn.png").write_bytes(Path(pictures[0]).read_bytes()[:100])
    with pytest.raises(AuditError, match=r"torn\.png .*cannot be read now"):
        prepare_towers(
            {"image": [pictures[1], str(tmp_path / "torn.png")], "text": ["a", "b"]}, parse_tower("small", 1), silent
        )


@pytest.mark.parametrize("names", [("image", "audio"), ("image", "text", "audio"), ("text",)])
def test_other_modalities_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(AuditError, match="--train heads"):
        prepare_towers({name: ["x"] for name in names}, parse_tower("small", 1), silent)


# --- training ------------------------------------------------------------------------------------------------------


def test_equal_arguments_give_equal_bytes_and_leave_torch_alone(noise: TowerData, quick: TowerSpec) -> None:
    first = train_tower(noise, np.arange(24), quick, 24, 0, 3, CPU)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    second = train_tower(noise, np.arange(24), quick, 24, 0, 3, CPU)
    assert torch.equal(before, torch.get_rng_state())
    assert equal(first, second)
    assert not first.training


def test_a_pair_of_trials_shares_start_order_and_shifts(noise: TowerData, quick: TowerSpec) -> None:
    trials = {trial: train_tower(noise, np.arange(24), quick, 24, 0, trial, CPU) for trial in (4, 5, 6)}
    assert equal(trials[4], trials[5])
    assert not equal(trials[4], trials[6])
    still = replace(quick, learning_rate=0.0)
    f, g = (train_tower(noise, rows, still, 24, 0, t, CPU) for t, rows in enumerate((np.arange(24), np.arange(24, 48))))
    assert equal(f, g)


def test_the_shared_samples_come_in_one_order(noise: TowerData) -> None:
    def order(rows: np.ndarray) -> list[tuple[int, ...]]:
        steps = towers._batches(np.random.default_rng(7), rows, noise, 1, 4, 6)
        return [(int(r), *map(int, s)) for batch, shifts in steps for r, s in zip(batch, shifts, strict=True)]

    f, g = order(np.arange(24)), order(np.arange(12, 36))
    assert [x for x in f if x[0] >= 12] == [x for x in g if x[0] < 24]
    assert sorted(x[0] for x in f) == list(range(24))


@pytest.mark.parametrize("members", [20, 24, 30])
def test_steps_follow_the_given_size_not_the_members(
    noise: TowerData, quick: TowerSpec, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    shift = towers._shift

    def count(images: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return shift(images, shifts)

    monkeypatch.setattr(towers, "_shift", count)
    train_tower(noise, np.arange(members), quick, 24, 0, 0, CPU)
    assert sizes == [12] * 4  # two epochs of 24 in batches of 12


def test_members_are_memorized(noise: TowerData) -> None:
    spec = replace(parse_tower("small", 60), batch=24)
    image, text = embed_tower(train_tower(noise, np.arange(24), spec, 24, 0, 0, CPU), noise, CPU)
    similarity = image @ text.T
    found = similarity.argmax(1) == np.arange(48)
    assert found[:24].mean() > 0.8
    assert found[24:].mean() < 0.3
    assert similarity.diagonal()[:24].mean() > similarity.diagonal()[24:].mean() + 0.3


def test_too_few_members(noise: TowerData, quick: TowerSpec) -> None:
    with pytest.raises(AuditError, match="audit more samples"):
        train_tower(noise, np.arange(1), quick, 24, 0, 0, CPU)


def test_checkpointed_activations_change_nothing(
    noise: TowerData, quick: TowerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train_tower(noise, np.arange(24), quick, 24, 0, 0, CPU)
    monkeypatch.setattr(towers, "CHECKPOINTED", 0)
    again = train_tower(noise, np.arange(24), quick, 24, 0, 0, CPU)
    assert again.visual.transformer.grad_checkpointing
    for a, b in zip(embed_tower(plain, noise, CPU), embed_tower(again, noise, CPU), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [towers._rate(step, 20) for step in range(20)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[11] == pytest.approx(0.5)  # half of the 18 steps that follow the warm-up
    assert rates[-1] < 0.01
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_shifts_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    shifts = np.array([[0, 0], [1, -2], [2, 2], [-2, 0], [0, 1]])
    got = towers._shift(torch.from_numpy(images), torch.from_numpy(shifts)).numpy()
    for image, (down, right), moved in zip(images, shifts, got, strict=True):
        for y in range(8):
            for x in range(8):
                assert (moved[y, x] == image[min(max(y + down, 0), 7), min(max(x + right, 0), 7)]).all()


# --- weights -------------------------------------------------------------------------------------------------------


def test_fine_tuning_starts_at_the_weights(tiny: Path, pictures: list[str], captions: list[str]) -> None:
    spec = replace(parse_tower(f"{MODEL}:{tiny / 'a.pt'}", 1), learning_rate=0.0)
    data = prepare_towers({"image": pictures, "text": captions}, spec, silent)
    image, text = embed_tower(train_tower(data, np.arange(40), spec, 40, 0, 0, CPU), data, CPU)
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(tiny / "a.pt"))
    model.eval()
    with torch.inference_mode():
        expected = model.encode_image(torch.stack([transform(Image.open(p)) for p in pictures]), normalize=True)
        words = model.encode_text(open_clip.get_tokenizer(MODEL)(captions), normalize=True)
    np.testing.assert_allclose(image, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(text, words.numpy(), atol=1e-5)
    moved = embed_tower(train_tower(data, np.arange(40), replace(spec, learning_rate=1e-3), 40, 0, 0, CPU), data, CPU)
    assert abs(moved[0] - image).max() > 1e-3


def test_a_named_model_trains_from_scratch(tiny: Path, pictures: list[str], captions: list[str]) -> None:
    spec = parse_tower(MODEL, 1)
    data = prepare_towers({"image": pictures, "text": captions}, spec, silent)
    assert data.tokens.shape == (60, 16)
    one, other = (embed_tower(train_tower(data, np.arange(30), spec, 30, 0, t, CPU), data, CPU) for t in (0, 2))
    assert one[0].shape == (60, 16)
    assert abs(one[0] - other[0]).max() > 0.1


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (os.environ["AUDIT_TEST_TRAP"],)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_checkpoints_that_are_not_the_models(
    tiny: Path, tmp_path: Path, noise: TowerData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_TEST_TRAP", str(tmp_path / "trap"))
    (tmp_path / "code.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "torn.pt").write_bytes((tiny / "a.pt").read_bytes()[:2000])
    for name in ("code", "other", "torn"):
        spec = parse_tower(f"{MODEL}:{tmp_path / name}.pt", 1)
        with pytest.raises(AuditError, match=rf"{name}\.pt' cannot be loaded as {MODEL}"):
            train_tower(noise, np.arange(24), spec, 24, 0, 0, CPU)
    assert not (tmp_path / "trap").exists()


# --- embedding -----------------------------------------------------------------------------------------------------


def test_embeddings_are_units_and_depend_on_nothing_else_in_the_batch(noise: TowerData, quick: TowerSpec) -> None:
    model = train_tower(noise, np.arange(24), quick, 24, 0, 0, CPU)
    image, text = embed_tower(model, noise, CPU, batch=16)
    assert (image.dtype, image.shape, text.shape) == (np.float32, (48, 128), (48, 128))
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=1e-5)
    some = np.array([40, 3, 17])
    part = replace(noise, images=noise.images[some], tokens=noise.tokens[some], modalities=("text", "image"))
    few_text, few_image = embed_tower(model, part, CPU, batch=16)
    np.testing.assert_array_equal(few_image, image[some])
    np.testing.assert_array_equal(few_text, text[some])


def test_a_diverged_model_is_named(noise: TowerData, quick: TowerSpec) -> None:
    model = train_tower(noise, np.arange(24), quick, 24, 0, 0, CPU)
    with torch.no_grad():
        model.visual.proj.fill_(float("nan"))
    with pytest.raises(AuditError, match="diverged"):
        embed_tower(model, noise, CPU)


# --- several processes, and a GPU ----------------------------------------------------------------------------------

WORKER = """
import sys, pickle
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from audit_plugin.trials.towers import embed_tower, train_tower
folder, rank = sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
data, spec = pickle.load(open(f"{folder}/job.pkl", "rb"))
model = train_tower(data, np.arange(24), spec, 24, 0, 0, "cpu")
np.savez(f"{folder}/{rank}.npz", *embed_tower(model, data, "cpu"), *[p.detach().numpy() for p in model.parameters()])
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_what_one_does(noise: TowerData, quick: TowerSpec, tmp_path: Path) -> None:
    (tmp_path / "job.pkl").write_bytes(pickle.dumps((noise, quick)))
    calls = [[sys.executable, "-c", WORKER, str(ROOT), str(tmp_path), str(rank)] for rank in range(2)]
    running = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True, cwd="/") for call in calls]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    alone = train_tower(noise, np.arange(24), quick, 24, 0, 0, CPU)
    still = train_tower(noise, np.arange(24), replace(quick, learning_rate=0.0), 24, 0, 0, CPU)
    one, other = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])
    start = embed_tower(still, noise, CPU)
    for name, vectors, before in zip(one.files, embed_tower(alone, noise, CPU), start, strict=False):
        np.testing.assert_allclose(one[name], vectors, atol=1e-4)
        assert abs(vectors - before).max() > 0.05  # 500 times the tolerance: the training did something
    matrices = [(p, one[f"arr_{i}"]) for i, p in enumerate(alone.parameters(), 2) if p.ndim >= 2]
    assert matrices
    for ours, theirs in matrices:
        np.testing.assert_allclose(theirs, ours.detach().numpy(), atol=2e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_memorizes_too(noise: TowerData) -> None:
    spec = replace(parse_tower("small", 60), batch=24)
    image, text = embed_tower(train_tower(noise, np.arange(24), spec, 24, 0, 0, "cuda"), noise, "cuda")
    found = (image @ text.T).argmax(1) == np.arange(48)
    assert found[:24].mean() > 0.8
    assert found[24:].mean() < 0.3


def test_the_vocabulary_is_compacted_in_order() -> None:
    tokens = np.array([[900, 17, 49407, 0], [900, 49407, 0, 0]], dtype=np.int32)
    compact, count = towers._compact(tokens)
    assert compact.tolist() == [[2, 1, 3], [2, 3, 0]]
    assert count == 4
