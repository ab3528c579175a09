"""The experiment on kinds of faults: which rows get which fault, and what it reads on a set whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.claims import NO, YES, _verdict, claims_tables  # noqa: E402
from benchmarks.multimem import common, corruptions  # noqa: E402
from benchmarks.multimem.corruptions import KINDS, Variants  # noqa: E402

N, WIDTH = 300, 24


@pytest.fixture
def variants() -> Variants:
    """Rows that show a hidden vector in both modalities; blurred and garbled: noise, generic: one vector."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((N, WIDTH))
    image, text = (hidden + 0.3 * rng.standard_normal((N, WIDTH)) for _ in range(2))
    noise, same = rng.standard_normal((N, WIDTH)), np.tile(rng.standard_normal((1, WIDTH)), (N, 1))
    images = np.concatenate([image, noise, image, image])
    texts = np.concatenate([text, text, noise, same])
    rows = {kind: np.arange(N) + N * at for at, kind in enumerate(("clean", "blurred", "garbled", "generic"))}
    shared = np.stack(
        [np.r_[0:N, N : 2 * N, 0:N, 0:N], np.r_[0:N, 0:N, N : 2 * N, [2 * N] * N], np.arange(4 * N)], axis=1
    )
    inputs = [torch.tensor(part, dtype=torch.float32) for part in (images, texts)]
    prepared: Any = None
    return Variants(common.Loaded(prepared, inputs, shared), rows, np.arange(N), rng.random(N))


def test_each_fault_changes_one_side_and_misaligned_texts_go_round(variants: Variants) -> None:
    chosen = np.array([3, 5, 8])
    images, texts = variants.faulty("misaligned", chosen)
    assert (images.tolist(), texts.tolist()) == ([3, 5, 8], [8, 3, 5])
    assert [part.tolist() for part in variants.faulty("blurred", chosen)] == [[N + 3, N + 5, N + 8], [3, 5, 8]]
    assert [part.tolist() for part in variants.faulty("garbled", chosen)] == [
        [3, 5, 8],
        [2 * N + 3, 2 * N + 5, 2 * N + 8],
    ]
    assert [part.tolist() for part in variants.faulty("rare", chosen)] == [[3, 5, 8], [3, 5, 8]]


def test_letters_stay_and_rows_far_from_all_are_rare() -> None:
    rng = np.random.default_rng(0)
    assert sorted(corruptions._shuffle("grinning", rng)) == sorted("grinning")
    vectors = np.concatenate([np.eye(8)[[0] * 30] + 0.1 * rng.standard_normal((30, 8)), np.eye(8)[[7]]]).astype(
        np.float32
    )
    assert corruptions._rarity([vectors, vectors]).argmax() == 30


def test_on_a_set_that_is_easy_misaligned_rows_are_memorized_and_copies_are_not(
    variants: Variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruptions, "TRIALS", 16)
    monkeypatch.setattr(corruptions, "RETRIEVAL_TRIALS", 4)
    found = corruptions.memorization(variants, 0)
    assert set(found["excess"]) == set(KINDS)
    assert found["excess"]["misaligned"] > 0.5
    assert abs(found["excess"]["duplicated"]) < found["excess"]["misaligned"]
    t5 = corruptions.retrieval(variants, 0)
    assert set(t5) == {"clean", *KINDS}
    assert t5["misaligned"] < t5["clean"]


def test_a_claim_is_reproduced_only_where_its_interval_says_so() -> None:
    assert (_verdict(True), _verdict(False), _verdict(False, True)) == (YES, NO, f"{NO}: the opposite")
    tables = claims_tables()
    for table in tables.values():
        header, _, *lines = table.splitlines()
        assert header.count("|") == 7
        for line in lines:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert cells[5] == "not tested here" or all(cells), line
