"""What is trained, from end to end: whole towers that are interrupted, and people's own two models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from tests.core_fixtures import unit
from tests.pipeline_fixtures import cells, encoded_rows

N = 80
TOWERS = AuditConfig(encoder="offline", train="towers", trials=4, epochs=1)


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    cache, rows = encoded_rows(tmp_path, N)
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(cache))
    return rows


def test_interrupted_towers_go_on_after_the_last_finished_trial(samples: Samples, tmp_path: Path) -> None:
    whole = run_audit(samples, TOWERS, run_dir=tmp_path / "whole")

    def stop(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("train", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_audit(samples, TOWERS, stop, tmp_path / "run")
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("trials_*.npz")}
    assert sorted(finished) == ["trials_0000.npz", "trials_0001.npz"]
    resumed = run_audit(samples, TOWERS, run_dir=tmp_path / "run")
    assert {name: (tmp_path / "run" / name).stat().st_mtime_ns for name in finished} == finished
    assert cells(resumed) == cells(whole)
    assert resumed.summary["trained"] == "whole image and text towers (small) from scratch: nothing saw the data before"
    assert np.isfinite(resumed.columns["multimem"]).all()


def test_towers_go_on_after_a_medium_that_went_bad_is_restored_or_left_out(samples: Samples, tmp_path: Path) -> None:
    """Training on fewer rows than the masks were drawn for would change every trial: the run ends, and resumes."""
    whole = run_audit(samples, TOWERS, run_dir=tmp_path / "whole")
    medium = Path(samples.media["image"][5] or "")
    data = medium.read_bytes()

    def tear(stage: str, _done: int, _total: int) -> None:
        if stage == "neighbors":
            medium.write_bytes(data[:30])

    with pytest.raises(AuditError, match=rf"{medium.name} was read before and cannot be read now .*; restore it"):
        run_audit(samples, TOWERS, tear, tmp_path / "run")
    without = run_audit(samples, TOWERS, run_dir=tmp_path / "without")
    assert [row for row, reason in enumerate(without.columns["failure"]) if reason] == [5]
    medium.write_bytes(data)
    assert cells(run_audit(samples, TOWERS, run_dir=tmp_path / "run")) == cells(whole)


def test_other_weights_under_the_same_name_are_another_run(samples: Samples, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    config = replace(TOWERS, tower=f"RN50:{weights}")
    weights.write_bytes(b"one")
    from audit_plugin.trials.learners import learner_identity

    before = learner_identity(config)
    weights.write_bytes(b"two")
    assert len(before) == 16
    assert learner_identity(config) != before
    assert learner_identity(TOWERS) == ""


# --- the user's own f and g ----------------------------------------------------------------------------------------


def models(memory: float = 1.0) -> tuple[dict, dict]:
    """f and g as functions. Texts point where their row's number points; images do so as far as they were learned.

    f knows the rows 0 to 59, g the rows 0 to 39 and 60 to 79: what it does not know it places half at random.
    """
    rng = np.random.default_rng(0)
    truth, noise = unit(rng.standard_normal((256, 16))), unit(rng.standard_normal((256, 16)))

    def functions(known: set[int]) -> dict:
        def text(values: list[str]) -> np.ndarray:
            return truth[[int(value.split()[-1]) for value in values]]

        def image(values: list) -> np.ndarray:
            rows = [value.getpixel((0, 0))[0] for value in values]  # the fixture's images are their row's number
            return np.stack([truth[r] + (0 if r in known else memory) * noise[r] for r in rows])

        return {"image": image, "text": text}

    return functions(set(range(60))), functions({*range(40), *range(60, N)})


def with_roles(samples: Samples, unseen: tuple[str, str] = ("none", "reference")) -> Samples:
    roles = ["both"] * 28 + [unseen[row % 2] for row in range(12)] + ["f"] * 20 + ["g"] * 20
    return replace(samples, roles=tuple(roles))


def audit(samples: Samples, tmp_path: Path, **settings: object) -> AuditResult:
    config = AuditConfig(encoder="offline", train="checkpoints", **settings)  # type: ignore[arg-type]
    return run_audit(samples, config, run_dir=tmp_path / "run", models=models())


def test_two_models_are_compared_on_what_only_one_of_them_saw(samples: Samples, tmp_path: Path) -> None:
    result = audit(with_roles(samples), tmp_path)
    multimem, role = result.columns["multimem"], result.columns["role"]
    assert (multimem[role == "f"] > 0.05).all()
    assert (multimem[role == "g"] > 0.05).all()  # mirrored: as a member less as a non-member
    assert np.isnan(multimem[np.isin(role, ("both", "none", "reference"))]).all()
    means = {name: group["mean"] for name, group in result.summary["protocol"]["groups"].items()}
    assert means["candidate"] > 0.05
    assert abs(means["shared"]) < 0.02
    assert means["independent"] < -0.05
    assert result.summary["trained"].startswith("nothing: your own f and g")
    assert result.summary["reliability"] is None
    assert np.isnan(result.columns["multimem_stderr"]).all()  # one pair of models gives no error bar


def test_without_a_named_reference_half_of_the_unseen_serves(samples: Samples, tmp_path: Path) -> None:
    result = audit(with_roles(samples, ("none", "none")), tmp_path)
    roles = result.columns["role"].tolist()
    assert (roles.count("reference"), roles.count("none")) == (6, 6)


def test_other_models_are_another_run(samples: Samples, tmp_path: Path) -> None:
    audit(with_roles(samples), tmp_path)
    config = AuditConfig(encoder="offline", train="checkpoints")
    with pytest.raises(AuditError, match="belongs to another run .models was"):
        run_audit(with_roles(samples), config, run_dir=tmp_path / "run", models=models(0.5))


def test_checkpoints_that_nobody_named_or_roles_that_nobody_gave(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="name the field or column that says what f and g saw"):
        audit(samples, tmp_path)
    with pytest.raises(AuditError, match="name both models: checkpoint_f and checkpoint_g"):
        run_audit(with_roles(samples), AuditConfig(encoder="offline", train="checkpoints"), run_dir=tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "towers", "tower": "no-such-model"}, "open_clip knows no model 'no-such-model'"),
        ({"train": "towers", "media": "audio"}, "train is towers, which takes image and text, not image, audio"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_read(settings: dict, message: str, samples: Samples) -> None:
    if other := settings.pop("media", ""):
        samples = replace(samples, media={"image": samples.media["image"], other: samples.media["text"]})
    told: list[str] = []
    with pytest.raises(AuditError, match=message):
        run_audit(samples, AuditConfig(encoder="offline", **settings), lambda stage, *_: told.append(stage))
    assert told == []


def test_views_are_for_heads_alone() -> None:
    with pytest.raises(AuditError, match="views is 2; augmented views need train=heads"):
        replace(TOWERS, views=2)
