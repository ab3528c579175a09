"""What to label next: the rows whose label would say most."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from audit_plugin.arrays import AuditError
from audit_plugin.cli import app
from audit_plugin.config import AuditConfig
from audit_plugin.review import MOST_UNCERTAIN, most_uncertain
from tests.findings_fixtures import made_up


def ids(n: int) -> np.ndarray:
    return np.array([f"s{row}" for row in range(n)], dtype=object)


def positions(table: dict) -> list[int]:
    """Positions of the samples of the rows, which have one text each."""
    return [int(name[1:]) for name, _ in most_uncertain({"id": ids(len(table["probability"])), **table})]


def test_what_to_label_next_is_by_entropy_and_near_duplicates_come_late() -> None:
    probability = np.array([0.5, 0.9, np.nan, 0.3, 0.04, 0.96, 0.45, 0.05])
    assert positions({"probability": probability}) == [0, 6, 3, 1, 7]
    groups = np.array(["", "a", "", "a", "", "", "b", ""], dtype=object)
    assert positions({"probability": probability, "duplicate_group": groups}) == [0, 6, 3, 7, 1]
    assert positions({"probability": np.full(3, np.nan)}) == []


def test_each_text_of_a_list_is_as_uncertain_as_itself() -> None:
    lists = np.empty(3, dtype=object)
    lists[:] = [[0.2, 0.99, 0.5], None, [0.01, math.nan]]
    table = {"id": ids(3), "probability": np.array([0.99, 0.4, 0.01]), "probability_list": lists}
    table["caption_index"] = np.array([1, -1, 0])
    expected = [("s0", 2), ("s1", 0), ("s0", 0)]
    assert most_uncertain(table) == expected
    table["duplicate_group"] = np.array(["d", "", "d"], dtype=object)
    assert most_uncertain(table) == expected  # texts of one picture say different things


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_most_uncertain_rows_are_those_nearest_to_a_half(probability: list[float]) -> None:
    ranked = positions({"probability": np.array(probability)})
    distances = [round(abs(probability[row] - 0.5), 9) for row in ranked]
    assert distances == sorted(distances)
    assert {*ranked} == {row for row, p in enumerate(probability) if 0.05 <= p <= 0.95}


@pytest.mark.fiftyone
def test_the_most_uncertain_come_first_flagged_or_not(make_dataset: Callable[..., Any]) -> None:
    fio = importlib.import_module("audit_plugin.fiftyone_io")
    dataset = make_dataset(8)
    ids = dataset.values("id")
    # probabilities .1, .6, none, .8, .2, .4, 0, 1
    fio.write_result(dataset, made_up(ids), AuditConfig())
    order = ((ids[1], 0), (ids[5], 0), (ids[3], 0), (ids[4], 0), (ids[0], 0))
    assert set(fio.queue_of(dataset, "audit", [MOST_UNCERTAIN]).left) == set(order)
    assert fio.queue_of(dataset, "audit", [MOST_UNCERTAIN]).left[2:] == order[2:]
    fio.decide(dataset, ids[3], "keep")
    assert (ids[3], 0) not in fio.queue_of(dataset, "audit", [MOST_UNCERTAIN]).left
    assert set(fio.queue_of(dataset[4:], "audit", [MOST_UNCERTAIN]).left) == {(ids[5], 0), (ids[4], 0)}
    with pytest.raises(AuditError, match="kind 'most uncertain' is unknown"):
        fio.queue_of(dataset, "audit", ["misaligned", MOST_UNCERTAIN])
    for decision in ("keep", "remove", "relabel"):  # an order is no finding that is decided at once
        with pytest.raises(AuditError, match="kind 'most uncertain' is unknown"):
            fio.batch_rows(dataset, "audit", MOST_UNCERTAIN, decision)
    listed = CliRunner().invoke(app, ["review", "list", dataset.name, "--kind", MOST_UNCERTAIN])
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()[1:]] == [
        row[0] for row in fio.queue_of(dataset, "audit", [MOST_UNCERTAIN]).left
    ]
