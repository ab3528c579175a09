"""The controlled protocol, per seed: arms, controls, two hops, unlearning and mitigation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints
from audit_plugin.crossmodal.statistics import (
    BOTH,
    NONE,
    Estimate,
    above_floor,
    estimate,
    is_aligned,
    modality_gap,
    pair_retrieval,
    per_identity,
    rate,
    retrieval_chance,
)
from audit_plugin.crossmodal.summary import compare_modalities, mitigation_gain
from audit_plugin.synthetic.personas import TEST, TRAIN

from .stages import PICTURE, TEXT, Schedule, align, ask, ask_names, forget, learn, read_outs, self_description
from .trunk import Trunk
from .world import WHO, World

MODALITIES = (PICTURE, TEXT)
REPLAY, DESCRIBED, UNALIGNED = "replay ", "described ", "unaligned "
HASTY = "hasty "  # all weights learn at one high rate: what that does to the alignment
HASTE = 1e-3
FORGOTTEN = 0.2  # share of the identities
Table = dict[str, Floats]


def run_seed(world: World, schedule: Schedule, seed: int, report: Callable[[str], None] = lambda _: None) -> Table:
    """Runs the protocol with one seed; the results are arrays by name.

    Returns:
        `recall/ARM/MODALITY` `[e]` for the arms image, text, both, none, "replay S", "described image",
        "hasty S" and "unaligned S";
        `curve/ARM/MODALITY` `[steps]`; `latent/ARM/MODALITY`, `chain/ARM/MODALITY` `[e]` of jobs over two hops and
        `hop/ARM` `[e]` of the second hop alone; `before|forget S|gold/MODALITY` `[f]` and `retain S/MODALITY` of
        unlearning; `retrieval`, `kept/ARM` `[e]` of held-out pairs before and after; `gap_norm` a scalar.
    """
    report(f"seed {seed}: align")
    start = align(world, schedule, seed)
    table: Table = _retrieval(start, world, "retrieval") | {"gap_norm": np.array(_gap_norm(start, world))}
    table |= _recall(start, world, NONE)
    models: dict[str, Trunk] = {}
    arms: dict[str, tuple[tuple[str, ...], bool]] = {PICTURE: ((PICTURE,), False), TEXT: ((TEXT,), False)}
    arms |= {BOTH: (MODALITIES, False), REPLAY + PICTURE: ((PICTURE,), True), REPLAY + TEXT: ((TEXT,), True)}
    for arm, (sources, replay) in arms.items():
        report(f"seed {seed}: {arm}")
        curve: dict[str, list[float]] = {m: [] for m in MODALITIES}
        watch = functools.partial(_watch, world, curve)
        models[arm] = learn(start, world, sources, schedule, seed, replay=replay, watch=watch)
        table |= _recall(models[arm], world, arm) | _hops(models[arm], world, arm)
        table |= {f"curve/{arm}/{m}": np.array(values) for m, values in curve.items()}
        table |= _retrieval(models[arm], world, f"kept/{arm}")
    report(f"seed {seed}: {DESCRIBED}{PICTURE}")
    texts = self_description(start, world, world.rows(TRAIN), seed)
    table |= _recall(learn(start, world, (PICTURE,), schedule, seed, described=texts), world, DESCRIBED + PICTURE)
    for source in MODALITIES:
        report(f"seed {seed}: {HASTY}{source}")
        hasty = learn(start, world, (source,), replace(schedule, learn_rate=HASTE, fresh=1.0), seed)
        table |= _recall(hasty, world, HASTY + source) | _retrieval(hasty, world, f"kept/{HASTY}{source}")
    never = align(world, schedule, seed, steps=0)
    for source in MODALITIES:
        report(f"seed {seed}: {UNALIGNED}{source}")
        table |= _recall(learn(never, world, (source,), schedule, seed), world, UNALIGNED + source)
    return table | _unlearning(start, models[BOTH], world, schedule, seed, report)


def _watch(world: World, curve: dict[str, list[float]], _step: int, model: Trunk) -> None:
    for modality, values in curve.items():
        values.append(float(np.mean(_right(model, world, modality, world.rows(TEST)))))


def _right(model: Trunk, world: World, modality: str, rows: Ints) -> Floats:
    """`[t]`: 1 where a row's identity is named."""
    return np.asarray(ask(model, world, WHO, rows, modality) == world.truth[WHO][rows], dtype=np.float64)


def _each(hits: Floats, world: World, rows: Ints) -> Floats:
    return per_identity(hits[None], world.identity[rows], world.audited)


def _recall(model: Trunk, world: World, arm: str) -> Table:
    rows = world.rows(TEST)
    return {f"recall/{arm}/{m}": _each(_right(model, world, m, rows), world, rows) for m in MODALITIES}


def _hops(model: Trunk, world: World, arm: str) -> Table:
    """Jobs: asked of the name alone, of a row directly, and of the name that the model gives the row."""
    rows = world.rows(TEST)
    job, names = world.truth["job"][rows], world.truth[WHO][rows]
    out = {f"hop/{arm}": _each(ask_names(model, world, "job", names) == job, world, rows)}
    for modality in MODALITIES:
        direct = ask(model, world, "job", rows, modality) == job
        chained = ask_names(model, world, "job", ask(model, world, WHO, rows, modality)) == job
        out[f"latent/{arm}/{modality}"] = _each(direct, world, rows)
        out[f"chain/{arm}/{modality}"] = _each(chained, world, rows)
    return out


def _retrieval(model: Trunk, world: World, name: str) -> Table:
    rows = world.rows(TEST)
    left, right = (read_outs(model, world, rows, modality) for modality in MODALITIES)
    return {name: _each(pair_retrieval(left, right, world.identity[rows]), world, rows)}


def _gap_norm(model: Trunk, world: World) -> float:
    left, right = (read_outs(model, world, world.rows(TEST), modality) for modality in MODALITIES)
    return modality_gap(left, right)


def _unlearning(
    start: Trunk, both: Trunk, world: World, schedule: Schedule, seed: int, report: Callable[[str], None]
) -> Table:
    """Forgets a fifth of the identities in one modality, in the other, in both; against retraining without them."""
    gone = np.random.default_rng((seed, 37)).permutation(world.audited)[: max(1, round(FORGOTTEN * world.audited))]
    rest = np.setdiff1d(np.arange(world.audited), gone)
    report(f"seed {seed}: gold")
    gold = learn(start, world, MODALITIES, schedule, seed, identities=rest.tolist())
    models = {"before": both, "gold": gold}
    for name, sources in ((PICTURE, (PICTURE,)), (TEXT, (TEXT,)), (BOTH, MODALITIES)):
        report(f"seed {seed}: forget {name}")
        models[f"forget {name}"] = forget(both, world, sources, gone.tolist(), schedule, seed)
    table: Table = {}
    for name, model in models.items():
        recall = _recall(model, world, name)
        for modality in MODALITIES:
            values = recall[f"recall/{name}/{modality}"]
            table[f"{name}/{modality}"] = values[gone]
            table[f"retain {name}/{modality}"] = values[rest]
    return table


def summarize(tables: Sequence[Mapping[str, Floats]], world: World) -> dict[str, Any]:
    """All seeds together, JSON-ready; the identity is the unit, averaged over seeds where the seeds share it.

    Findings are reported whether they appear or not; `controls` says which conditions of a valid measurement held.
    """
    rows = world.rows(TEST)
    chance, pair_chance = 1 / world.audited, retrieval_chance(world.identity[rows])

    def mean(name: str) -> Floats:
        return np.mean([table[name] for table in tables], axis=0)

    def flat(name: str) -> Floats:
        return np.concatenate([table[name] for table in tables])

    recall = {arm: {m: mean(f"recall/{arm}/{m}") for m in MODALITIES} for arm in _arms(tables[0])}
    retrieval = rate(mean("retrieval"))
    out: dict[str, Any] = {
        "modalities": list(MODALITIES),
        "identities": world.audited,
        "questions": len(rows),
        "chance": chance,
        "recall": {arm: {m: rate(values) for m, values in cells.items()} for arm, cells in recall.items()},
        "seeds": {
            arm: {m: [round(float(t[f"recall/{arm}/{m}"].mean()), 4) for t in tables] for m in MODALITIES}
            for arm in recall
        },
        "curve": {
            arm: {m: mean(f"curve/{arm}/{m}").tolist() for m in MODALITIES}
            for arm in recall
            if f"curve/{arm}/{PICTURE}" in tables[0]
        },
        "alignment": {"retrieval": retrieval, "chance": pair_chance},
        "modality_gap": {"mean": float(mean("gap_norm")), "seeds": [float(t["gap_norm"]) for t in tables]},
        "hops": _hop_cells(tables, mean),
        "unlearning": _forgotten(flat),
    }
    if is_aligned(retrieval, pair_chance):
        flat_recall = {(arm, m): values for arm, cells in recall.items() for m, values in cells.items()}
        out |= compare_modalities(flat_recall, MODALITIES, chance, REPLAY)
        out["self_description"] = mitigation_gain(flat_recall, DESCRIBED, PICTURE, TEXT)
    out["kept_alignment"] = {arm: rate(mean(f"kept/{arm}")) for arm in recall if f"kept/{arm}" in tables[0]}
    return out | {"controls": controls(out)}


def _arms(table: Mapping[str, Floats]) -> list[str]:
    return list(dict.fromkeys(name.split("/")[1] for name in table if name.startswith("recall/")))


def _hop_cells(tables: Sequence[Mapping[str, Floats]], mean: Callable[[str], Floats]) -> dict[str, Any]:
    arms = [name.removeprefix("hop/") for name in tables[0] if name.startswith("hop/")]
    return {
        arm: {
            "second": rate(mean(f"hop/{arm}")),
            **{kind: {m: rate(mean(f"{kind}/{arm}/{m}")) for m in MODALITIES} for kind in ("latent", "chain")},
        }
        for arm in arms
    }


def _forgotten(flat: Callable[[str], Floats]) -> dict[str, Any]:
    """Other identities are forgotten with every seed, so that each counts by itself."""
    out: dict[str, Any] = {}
    for way in (PICTURE, TEXT, BOTH):
        out[way] = {
            m: {
                "before": rate(flat(f"before/{m}")),
                "after": rate(flat(f"forget {way}/{m}")),
                "gold": rate(flat(f"gold/{m}")),
                "residual": residual(flat(f"before/{m}"), flat(f"forget {way}/{m}"), flat(f"gold/{m}")),
                "retained": rate(flat(f"retain forget {way}/{m}")),
            }
            for m in MODALITIES
        }
    return out


def residual(before: Floats, after: Floats, never: Floats) -> Estimate:
    """Recall that is left of forgotten identities `[e]`: (after - never) / (before - never).

    Args:
        before: unlearning.
        after: unlearning in some modality.
        never: the same identities under a model that never learned them.
    """
    return estimate(above_floor, [after, before, never])


def controls(summary: Mapping[str, Any]) -> dict[str, bool]:
    """Conditions of a valid measurement; the findings are none of them."""
    recall, chance = summary["recall"], summary["chance"]
    source = min(recall[m][m]["value"] for m in MODALITIES)
    stray = max(recall[UNALIGNED + s][t]["value"] for s, t in (MODALITIES, MODALITIES[::-1]))
    gold = max(summary["unlearning"][BOTH][m]["gold"]["value"] for m in MODALITIES)
    return {
        "source recall at least .95": source >= 0.95,
        "both-arm ceiling at least .95": min(recall[BOTH][m]["value"] for m in MODALITIES) >= 0.95,
        "the none arm at chance": max(recall[NONE][m]["value"] for m in MODALITIES) <= chance + 0.05,
        "without alignment no transfer": stray <= chance + 0.05,
        "retrained without: not recalled": gold <= 0.05,
        "aligned": "gap" in summary,
    }
