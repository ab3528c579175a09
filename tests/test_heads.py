from __future__ import annotations

import numpy as np
import pytest
import torch

from audit_plugin.encoders.devices import use_matmul_precision
from audit_plugin.trials import heads as heads_module
from audit_plugin.trials.heads import Heads, train_group
from tests.core_fixtures import unit

N, DIM = 96, 12


def inputs(m: int = 2) -> list[torch.Tensor]:
    """m noisy looks at one hidden vector per row."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((N, DIM))
    return [torch.from_numpy(unit(hidden + 0.4 * rng.standard_normal((N, DIM))) * np.sqrt(DIM, dtype=np.float32))
            for _ in range(m)]  # fmt: skip


def masks(trials: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    member = np.zeros((trials, N), bool)
    for row in member:
        row[rng.permutation(N)[: N // 2]] = True
    return member


ALONE = np.arange(N)[:, None]


def loss_of(heads: Heads, x: list[torch.Tensor], trial: int, rows: np.ndarray, repeats: np.ndarray = ALONE) -> float:
    embeddings = [e[torch.from_numpy(rows)][None] for e in heads.embed(x, trial)]
    return float(heads_module.contrastive_loss(embeddings, torch.from_numpy(repeats[rows])[None]))


def ranks(heads: Heads, x: list[torch.Tensor], trial: int, rows: np.ndarray) -> float:
    """Mean rank of the own text among the rows' texts (0 is best)."""
    a, b = (e[torch.from_numpy(rows)] for e in heads.embed(x, trial))
    similarity = a @ b.T
    return float((similarity > similarity.diagonal()[:, None]).sum(1).float().mean())


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    first, second, other = (
        train_group(inputs(), masks(2), [0, 1], ALONE, 3, seed, N // 2).arrays() for seed in (0, 0, 1)
    )
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_a_trial_depends_on_its_number_not_on_its_company() -> None:
    x, member = inputs(), masks(3)
    alone = train_group(x, member[1:2], [1], ALONE, 5, 0, N // 2)
    together = train_group(x, member, [0, 1, 2], ALONE, 5, 0, N // 2)
    other_way = train_group(x, member[[1, 0]], [1, 0], ALONE, 5, 0, N // 2)
    for company, place in ((together, 1), (other_way, 0)):
        for mine, theirs in zip(alone.embed(x, 0), company.embed(x, place), strict=True):
            assert (mine - theirs).abs().max() < 2e-3
    strangers = train_group(x, member[1:2], [2], ALONE, 5, 0, N // 2)
    assert (strangers.embed(x, 0)[0] - alone.embed(x, 0)[0]).abs().max() > 0.1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("n", "dim"), [(40, 8), (N, DIM), (700, 150), (600, 256)])
def test_any_number_of_threads_gives_equal_bytes(n: int, dim: int, precision: str) -> None:
    rng = np.random.default_rng(2)
    x = [torch.from_numpy(unit(rng.standard_normal((n, dim))) * np.float32(np.sqrt(dim))) for _ in range(2)]
    member = np.stack([rng.permutation(n) < n // 2 for _ in range(8)])
    usual, trained = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8, 16):
            torch.set_num_threads(threads)
            with use_matmul_precision(precision, "cpu"):
                heads = train_group(x, member, list(range(8)), np.arange(n)[:, None] // 2, 2, 0, n // 2)
            assert torch.get_num_threads() == threads
            trained.append(b"".join(values.tobytes() for values in heads.arrays().values()))
    finally:
        torch.set_num_threads(usual)
    assert len(set(trained)) == 1


@pytest.mark.parametrize("m", [2, 3])
def test_training_lowers_the_loss(m: int) -> None:
    x, member = inputs(m), masks(2)
    rows = np.flatnonzero(member[0])
    start = train_group(x, member, [0, 1], ALONE, 1, 0, N // 2)
    trained = train_group(x, member, [0, 1], ALONE, 30, 0, N // 2)
    assert loss_of(trained, x, 0, rows) < 0.5 * loss_of(start, x, 0, rows)


def test_members_are_remembered_and_the_others_learned_from_them() -> None:
    x, member = inputs(), masks(4)
    heads = train_group(x, member, [0, 1, 2, 3], ALONE, 40, 0, N // 2)
    inside = np.mean([ranks(heads, x, t, np.flatnonzero(member[t])) for t in range(4)])
    outside = np.mean([ranks(heads, x, t, np.flatnonzero(~member[t])) for t in range(4)])
    assert inside < 0.5 * outside
    assert outside < 0.5 * (N / 2 - 1) / 2  # chance is the middle of the 47 other texts


def test_a_sample_that_was_no_member_leaves_no_trace() -> None:
    member = masks(1)
    x, changed = inputs(), inputs()
    for modality in changed:
        modality[torch.from_numpy(~member[0])] = 7.0
    first, second = (train_group(v, member, [0], ALONE, 3, 0, N // 2).arrays() for v in (x, changed))
    assert all((first[name] == second[name]).all() for name in first)


def test_the_loss_by_hand() -> None:
    # two samples, both sides the unit axes: logits are 1/tau on the diagonal and 0 off it, so both directions give
    # log(e^(1/tau) + 1) - 1/tau = log(1 + e^(-1/tau))
    axes = torch.eye(2)[None]
    want = np.log1p(np.exp(-1 / heads_module.TEMPERATURE))
    apart, one_group = torch.tensor([[[0], [1]]]), torch.tensor([[[0], [0]]])
    assert float(heads_module.contrastive_loss([axes, axes], apart)) == pytest.approx(want, abs=1e-6)
    # texts exchanged: log(1 + e^(1/tau)); three modalities: the mean over the pairs
    wrong = float(heads_module.contrastive_loss([axes, axes.flip(1)], apart))
    assert wrong == pytest.approx(1 / heads_module.TEMPERATURE, rel=1e-4)
    assert float(heads_module.contrastive_loss([axes, axes.flip(1), axes], apart)) == pytest.approx(
        2 / 3 * wrong, rel=1e-4
    )
    # with nothing to be told from, nothing is asked
    assert float(heads_module.contrastive_loss([axes, axes.flip(1)], one_group)) == 0


def test_repeats_in_any_column_are_no_negatives() -> None:
    rng = np.random.default_rng(2)
    a, b = (torch.from_numpy(unit(rng.standard_normal((6, 4)))) for _ in range(2))
    repeats = np.array([[0, 0], [0, 1], [1, 1], [2, 2], [3, 3], [4, 2]])
    logits = (a @ b.T / heads_module.TEMPERATURE).double().numpy()
    want = 0.0
    for i in range(6):
        rest = [j for j in range(6) if j == i or not (repeats[i] == repeats[j]).any()]
        want += (0.5 * (np.logaddexp.reduce(logits[i, rest]) + np.logaddexp.reduce(logits[rest, i])) - logits[i, i]) / 6
    got = heads_module.contrastive_loss([a[None], b[None]], torch.from_numpy(repeats)[None])
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_columns_that_tell_nothing_new_are_left_out() -> None:
    unique, twice, renamed = np.arange(5), np.array([7, 7, 1, 2, 7]), np.array([0, 0, 9, 4, 0])
    other = np.array([0, 1, 2, 2, 3])
    found = heads_module.informative_columns(np.stack([unique, twice, renamed, other], axis=1))
    assert found.tolist() == [[0, 0], [0, 1], [1, 2], [2, 2], [0, 3]]
    assert heads_module.informative_columns(unique[:, None]).shape == (5, 0)


def test_heads_trained_in_bf16_say_the_same() -> None:
    x, member = inputs(), masks(4)
    found = []
    for precision in ("fp32", "bf16"):
        with use_matmul_precision(precision, "cpu"):
            heads = train_group(x, member, [0, 1, 2, 3], ALONE, 20, 0, N // 2)
        pairs = [heads.embed(x, t) for t in range(4)]
        found.append(np.stack([(a * b).sum(1).numpy() for a, b in pairs]))
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > 0.999


def test_a_set_smaller_than_a_batch_and_one_larger_can_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    x, member = inputs(), masks(2)
    for batch in (256, 20):
        monkeypatch.setattr(heads_module, "BATCH", batch)
        embeddings = train_group(x, member, [0, 1], ALONE, 2, 0, N // 2).embed(x, 1)
        assert all(torch.isfinite(e).all() for e in embeddings)


def test_the_usual_size_sets_the_steps_whatever_a_trial_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of one group step together: one of 40 members goes round again, one of 60 leaves some out."""
    monkeypatch.setattr(heads_module, "BATCH", 25)
    batches: list[tuple[int, ...]] = []
    loss = heads_module.contrastive_loss

    def count(embeddings: list[torch.Tensor], same: torch.Tensor) -> torch.Tensor:
        batches.append(tuple(same.shape[:2]))
        return loss(embeddings, same)

    monkeypatch.setattr(heads_module, "contrastive_loss", count)
    member = np.stack([np.arange(N) < 40, np.arange(N) >= 36])
    heads = train_group(inputs(), member, [0, 1], ALONE, 3, 0, 50)
    # each of two trials takes six steps of 25 rows, together or, where there are several threads, one by one
    assert [size for trials, size in batches for _ in range(trials)] == [25] * 12
    assert all(torch.isfinite(e).all() for trial in (0, 1) for e in heads.embed(inputs(), trial))


def test_embeddings_are_unit_rows_and_heads_survive_the_way_to_disk() -> None:
    x = inputs(3)
    heads = train_group(x, masks(2), [0, 1], ALONE, 1, 0, N // 2)
    again = Heads.from_arrays(heads.arrays(), 3, "cpu")
    for trial in (0, 1):
        for one, two in zip(heads.embed(x, trial), again.embed(x, trial), strict=True):
            assert one.shape == (N, heads_module.OUTPUT_DIM)
            assert torch.equal(one, two)
            torch.testing.assert_close(one.norm(dim=1), torch.ones(N))


def test_how_many_rows_are_read_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = train_group(inputs(), masks(2), [0, 1], ALONE, 1, 0, N // 2)
    whole = heads.embed(inputs(), 1)
    monkeypatch.setattr(heads_module, "READ_ROWS", 7)
    for a, b in zip(whole, heads.embed(inputs(), 1), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("m", [2, 3])
def test_the_gradient_by_hand_is_that_of_the_formula(m: int) -> None:
    rng = np.random.default_rng(3)
    raw = [torch.from_numpy(rng.standard_normal((2, 14, 6))).requires_grad_() for _ in range(m)]
    same = torch.from_numpy(rng.integers(0, 9, (2, 14, 2)))

    def formula(embeddings: list[torch.Tensor]) -> torch.Tensor:
        repeated = (same[:, :, None, :] == same[:, None, :, :]).any(-1) & ~torch.eye(14, dtype=torch.bool)
        pairs = [(a, b) for a in range(m) for b in range(a + 1, m)]
        total = torch.zeros((), dtype=torch.float64)
        for a, b in pairs:
            logits = embeddings[a] @ embeddings[b].transpose(1, 2) / heads_module.TEMPERATURE
            logits = logits.masked_fill(repeated, -torch.inf)
            nce = 0.5 * (logits.logsumexp(1) + logits.logsumexp(2)) - logits.diagonal(dim1=1, dim2=2)
            total = total + nce.mean(1).sum() / len(pairs)
        return total

    units = [torch.nn.functional.normalize(x, dim=-1) for x in raw]
    fast, slow = heads_module.contrastive_loss(units, same), formula(units)
    torch.testing.assert_close(fast, slow)
    for mine, theirs in zip(
        torch.autograd.grad(fast, raw, retain_graph=True), torch.autograd.grad(slow, raw), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_adamw_is_that_of_torch() -> None:
    """The weights of torch.optim.AdamW and its schedule, which import torch's compiler, to rounding of the rate."""
    steps, rate = 7, 5e-3
    rng = np.random.default_rng(0)
    values = [torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in ((3, 4), (2, 1, 5))]
    ours, theirs = ([value.clone().requires_grad_() for value in values] for _ in range(2))
    update = heads_module.AdamW(ours)
    optimizer = torch.optim.AdamW(theirs, lr=rate, weight_decay=heads_module.WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        gradients = [torch.from_numpy(rng.standard_normal(w.shape).astype(np.float32)) for w in values]
        for mine, other, gradient in zip(ours, theirs, gradients, strict=True):
            mine.grad, other.grad = gradient.clone(), gradient.clone()
        update.step(rate * (1 + np.cos(np.pi * step / steps)) / 2)
        assert all(w.grad is None for w in ours)
        optimizer.step()
        schedule.step()
    for mine, other, before in zip(ours, theirs, values, strict=True):
        assert not torch.equal(mine, before)
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-7)
