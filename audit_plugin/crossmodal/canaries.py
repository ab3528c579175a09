"""Made-up people mixed into somebody's training set, and what the trained model recalls of them.

A quarter of the people is planted as pictures with a name, a quarter as pictures with a name and a description, a
quarter as texts alone, and a quarter is left out. Nobody but the training run can know their names: what a model
recalls of the planted beyond the left-out, it memorized from these rows (canaries, after Carlini et al., USENIX
Security 2019).
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Features, Floats, Ints, Samples
from audit_plugin.encoders.devices import pick_device
from audit_plugin.encoders.embed import Progress, digest_contents, silent
from audit_plugin.encoders.own_models import Embedder, checkpoint_features, embed_with
from audit_plugin.synthetic.drawing import TEST, TRAIN, PersonaSet, draw_personas, plan
from audit_plugin.synthetic.folders import write_csv

from .statistics import DRAWS, Estimate, per_identity, rate

IMAGE, BOTH, TEXT, LEFT_OUT = "image", "both", "text", "left out"
WAYS = (IMAGE, BOTH, TEXT, LEFT_OUT)  # take turns over the identities
SEEN, UNSEEN = "planted picture", "other picture"
DESCRIBED = "description"
NAMED = ("This is {name}.", "A drawing of {name}.", "{name}.", "Here you can see {name}.")
TOLD = ("This is {name}. {said}", "{name}: {said}", "{said} The name is {name}.", "{said} It is {name}.")
ASKED = ("{name}", "This is {name}.", "A drawing of {name}.")  # texts whose mean stands for a name
PLANTED, TEXTS, WAYS_FILE = "planted.csv", "texts.csv", "ways.csv"


@dataclass(frozen=True)
class Recall:
    """What a model recalls of planted people.

    Attributes:
        summary: JSON-ready: `recall` and `place` (way planted -> asked with -> estimate), `memorized` (way -> asked
            with -> recall beyond that of the left-out), `chance`, counts.
        identities: one record per person: identity, learned, and the mean place of the name by what it is asked with.
    """

    summary: dict[str, Any]
    identities: list[dict[str, Any]]


def plant_personas(
    out: str | Path, identities: int = 80, variants: int = 6, seed: int = 0, progress: Progress | None = None
) -> dict[str, int]:
    """Draws people into a folder, with the tables to mix into a training set.

    `planted.csv` has the rows with pictures (id, image, text), `texts.csv` those without (id, text), for models that
    train on texts too. `manifest.csv`, `facts.csv` and `ways.csv` are for the audit alone: they hold the left-out.

    Args:
        out: folder, made if missing.
        identities: people; every way of planting, and leaving out, gets a quarter.
        variants: rows per planted person.
        seed: equal seeds draw equal bytes: choose one that nobody else uses.
        progress: told ("draw", done, total).

    Returns:
        Way -> people.

    Raises:
        AuditError: fewer than 16 people, packages missing, or a folder that holds something else.
    """
    if identities < 4 * len(WAYS):
        raise AuditError(f"identities is {identities}; at least {4 * len(WAYS)} are needed, a quarter is left out")
    wanted = PersonaSet(identities, train=variants, seed=seed)
    manifest = draw_personas(out, wanted, progress)
    said = {row["id"]: row["description"] for row in _rows(manifest)}
    planned = plan(wanted)
    names = dict.fromkeys(row.identity.name for row in planned)
    ways = {name: WAYS[at % len(WAYS)] for at, name in enumerate(names)}
    pairs, texts = [], []
    for row in planned:
        way, name = ways[row.identity.name], row.identity.name
        if row.split != TRAIN or way == LEFT_OUT:
            continue
        form = random.Random(f"{seed} {row.id} planted").choice(NAMED if way == IMAGE else TOLD)
        text = form.format(name=name, said=said[row.id])
        if way == TEXT:
            texts.append((row.id, text))
        else:
            pairs.append((row.id, f"images/{row.id}.png", text))
    folder = manifest.parent
    write_csv(folder / PLANTED, ("id", "image", "text"), pairs)
    write_csv(folder / TEXTS, ("id", "text"), texts)
    write_csv(folder / WAYS_FILE, ("identity", "learned"), list(ways.items()))
    return {way: sum(value == way for value in ways.values()) for way in WAYS}


def recall_planted(
    folder: str | Path, model: str | Mapping[str, Embedder], device: str = "auto", progress: Progress = silent
) -> Recall:
    """Asks a model for the names of planted and left-out people, by pictures and by descriptions.

    Every question is ranked among all names by cosine, after each name's mean over all questions of that kind is taken
    out (a name may lie near everything). O(questions x names).

    Args:
        folder: of `plant_personas`.
        model: `open_clip:MODEL:PATH` of the checkpoint, or functions "image" and "text" -> (list of media) -> `[b, d]`.
        device: for a checkpoint.
        progress: told of the stages of encoding.

    Raises:
        AuditError: no planted people in the folder, or a model that cannot be used.
    """
    folder = Path(folder)
    ways = _ways(folder)
    rows, names = _rows(folder / "manifest.csv"), list(ways)
    features = _embedded(_questions(folder, rows, names), model, device, progress)
    named = features.vectors["text"][len(rows) :].reshape(len(names), len(ASKED), -1).mean(1)
    named /= np.maximum(np.linalg.norm(named, axis=1, keepdims=True), 1e-12)
    who = np.array([names.index(row["identity"]) for row in rows])
    first, place = {}, {}
    for kind, (modality, chosen) in _kinds(rows, ways).items():
        some = np.flatnonzero(chosen & features.present[: len(rows), features.modalities.index(modality)])
        ranks = name_ranks(features.vectors[modality][some] @ named.T, who[some])
        first[kind] = per_identity((ranks == 0)[None].astype(np.float64), who[some], len(names))
        place[kind] = per_identity(1 - ranks[None] / (len(names) - 1), who[some], len(names))
    groups = {way: np.array([ways[name] == way for name in names]) for way in WAYS}
    records = [
        {"identity": name, "learned": ways[name], **{kind: round(float(place[kind][at]), 4) for kind in place}}
        for at, name in enumerate(names)
    ]
    return Recall(_summary(first, place, groups, len(names)), records)


def _kinds(rows: Sequence[Mapping[str, str]], ways: Mapping[str, str]) -> dict[str, tuple[str, Bools]]:
    """What is asked with -> (modality, rows of that kind)."""
    test = np.array([row["split"] == TEST for row in rows])
    planted = ~test & np.array([ways[row["identity"]] in (IMAGE, BOTH) for row in rows])
    return {SEEN: ("image", planted), UNSEEN: ("image", test), DESCRIBED: ("text", test)}


def name_ranks(similarity: Floats, own: Ints) -> Ints:
    """int64 `[q]`: how many other names stand before the own one; equal ones count by half, rounded down.

    Args:
        similarity: `[q, names]`; each name's mean over the questions is taken out first.
        own: int `[q]`, the right name of each question.
    """
    told = similarity - similarity.mean(0, dtype=np.float64)
    mine = told[np.arange(len(own)), own][:, None]
    ties = (told == mine).sum(1) - 1
    return np.asarray((told > mine).sum(1) + ties // 2)


def beyond(planted: Floats, left_out: Floats, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean of `[a]` less mean of `[b]`, of different people, with an interval from drawing both anew."""
    rng = np.random.default_rng(seed)

    def means(values: Floats) -> Floats:
        return np.asarray(values[rng.integers(0, len(values), (draws, len(values)))].mean(1))

    known, others = planted[np.isfinite(planted)], left_out[np.isfinite(left_out)]
    low, high = np.quantile(means(known) - means(others), [0.025, 0.975])
    value = float(known.mean() - others.mean())
    return {"value": value, "low": float(low), "high": float(high), "identities": len(known)}


def _summary(
    first: Mapping[str, Floats], place: Mapping[str, Floats], groups: Mapping[str, Any], count: int
) -> dict[str, Any]:
    def cells(table: Mapping[str, Floats]) -> dict[str, dict[str, Estimate]]:
        return {way: {kind: rate(values[some]) for kind, values in table.items()} for way, some in groups.items()}

    planted = [way for way in WAYS if way != LEFT_OUT]
    # pictures of the left-out were never planted: what is asked with planted ones is held against their other ones
    control = {kind: place[UNSEEN if kind == SEEN else kind][groups[LEFT_OUT]] for kind in place}
    return {
        "identities": count,
        "people": {way: int(some.sum()) for way, some in groups.items()},
        "chance": 1 / count,
        "recall": cells(first),
        "place": cells(place),
        "memorized": {
            way: {
                kind: beyond(values[groups[way]], control[kind])
                for kind, values in place.items()
                if np.isfinite(values[groups[way]]).any()
            }
            for way in planted
        },
    }


def _questions(folder: Path, rows: list[dict[str, str]], names: list[str]) -> Samples:
    """A row per variant, then one per name and way of saying it, without a picture."""
    said = [form.format(name=name) for name in names for form in ASKED]
    ids = [row["id"] for row in rows] + [f"name {at}" for at in range(len(said))]
    pictures = [str(folder / row["image"]) for row in rows] + [None] * len(said)
    return Samples(tuple(ids), {"image": tuple(pictures), "text": (*(row["description"] for row in rows), *said)})


def _embedded(samples: Samples, model: str | Mapping[str, Embedder], device: str, progress: Progress) -> Features:
    if isinstance(model, str):
        contents = digest_contents(samples, progress)
        found = checkpoint_features(samples, contents, model, pick_device(device), progress).features
    else:
        found = embed_with(samples.media, model, progress=progress).features
    features = found.rows(np.arange(len(samples)))
    if len({vectors.shape[1] for vectors in features.vectors.values()}) > 1:
        raise AuditError("the model's images and texts do not lie in one space; a name cannot be compared with either")
    return features


def _ways(folder: Path) -> dict[str, str]:
    if not (folder / WAYS_FILE).is_file():
        raise AuditError(f"{str(folder)!r} holds no planted people; make some with: audit-plugin plant --out {folder}")
    return {row["identity"]: row["learned"] for row in _rows(folder / WAYS_FILE)}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
