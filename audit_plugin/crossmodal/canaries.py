"""Canaries: made-up people mixed into a user's training set, and what the trained model recalls of them.

A quarter of the people is trained on as pictures with a name, a quarter as pictures with a name and a description, a
quarter as texts alone, and a quarter is left out. Nobody but the training run can know their names: what a model
recalls of the canaries beyond the people left out, it memorized from these rows (Carlini et al., USENIX Security 2019).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Features, Floats, Ints, Samples
from audit_plugin.encoders.devices import pick_device
from audit_plugin.encoders.embed import Progress, digest_contents, silent
from audit_plugin.encoders.own_models import Embedder, checkpoint_features, embed_with
from audit_plugin.synthetic.folders import read_rows, write_rows
from audit_plugin.synthetic.personas import TEST, TRAIN, PersonaSet, description_text, draw_personas, plan_personas

from . import statistics
from .statistics import Estimate, per_identity, rate, with_interval

IMAGE, BOTH, TEXT, LEFT_OUT = "image", "both", "text", "left out"
ARMS = (IMAGE, BOTH, TEXT, LEFT_OUT)  # what the model is trained on; the identities take turns
TRAINED, UNSEEN, DESCRIBED = "planted picture", "other picture", "description"  # what a question shows
NAME_ONLY = ("This is {name}.", "A drawing of {name}.", "{name}.", "Here you can see {name}.")
NAME_AND_DESCRIPTION = (
    "This is {name}. {said}",
    "{name}: {said}",
    "{said} The name is {name}.",
    "{said} It is {name}.",
)
NAME_PROMPTS = ("{name}", "This is {name}.", "A drawing of {name}.")  # the mean of their vectors stands for a name
PAIRS_FILE, TEXTS_FILE, ARMS_FILE = "planted.csv", "texts.csv", "ways.csv"


@dataclass(frozen=True)
class CanaryResult:
    """What a model recalls of canaries.

    Attributes:
        summary: JSON-ready: `recall` and `place` (arm -> asked with -> share of names ranked first, and mean relative
            rank of the right name, 1 for the first), `memorized` (arm -> asked with -> `place` beyond that of the
            people left out), `chance`, counts.
        identities: one record per person: identity, learned (the arm), and `place` by what it is asked with.
    """

    summary: dict[str, Any]
    identities: list[dict[str, Any]]


def draw_canaries(
    out: str | Path, identities: int = 80, variants: int = 6, seed: int = 0, progress: Progress | None = None
) -> dict[str, int]:
    """Draws made-up people into a folder, with the tables to mix into a training set.

    `planted.csv` has the rows with pictures (id, image, text), `texts.csv` those without (id, text), for models that
    train on texts too. `manifest.csv`, `facts.csv` and `ways.csv` are for the audit alone: they hold the people left
    out. Every canary has as many rows as `variants`. Equal seeds draw equal bytes: choose one that nobody else uses.

    Returns:
        Arm -> people, a quarter of the `identities` each.

    Raises:
        AuditError: fewer than 16 people, packages missing, or a folder that holds something else.
    """
    if identities < 4 * len(ARMS):
        raise AuditError(f"identities is {identities}; at least {4 * len(ARMS)} are needed, a quarter is left out")
    settings = PersonaSet(identities, train=variants, seed=seed)
    folder = draw_personas(out, settings, progress).parent
    rows = plan_personas(settings)
    names = dict.fromkeys(row.identity.name for row in rows)
    arms = {name: ARMS[number % len(ARMS)] for number, name in enumerate(names)}
    pairs, texts = [], []
    for row in rows:
        name = row.identity.name
        arm = arms[name]
        if row.split != TRAIN or arm == LEFT_OUT:
            continue
        forms = NAME_ONLY if arm == IMAGE else NAME_AND_DESCRIPTION
        form = random.Random(f"{seed} {row.id} planted").choice(forms)
        text = form.format(name=name, said=description_text(row, settings))
        if arm == TEXT:
            texts.append((row.id, text))
        else:
            pairs.append((row.id, f"images/{row.id}.png", text))
    write_rows(folder / PAIRS_FILE, ("id", "image", "text"), pairs)
    write_rows(folder / TEXTS_FILE, ("id", "text"), texts)
    write_rows(folder / ARMS_FILE, ("identity", "learned"), list(arms.items()))
    return {arm: list(arms.values()).count(arm) for arm in ARMS}


def measure_canary_recall(
    folder: str | Path, model: str | Mapping[str, Embedder], device: str = "auto", progress: Progress = silent
) -> CanaryResult:
    """Asks a model for the names of canaries and of people left out, by pictures and by descriptions.

    Every question is ranked among all names by cosine, see `name_ranks`. O(questions x names). The `model` is
    `open_clip:MODEL:PATH` of a checkpoint, or functions "image" and "text" -> (list of media) -> `[b, d]`.

    Raises:
        AuditError: no canaries in the folder, or a model that cannot be used.
    """
    folder = Path(folder)
    if not (folder / ARMS_FILE).is_file():
        raise AuditError(
            f"{str(folder)!r} holds no canaries; make some with: audit-plugin plant-canaries --out {folder}"
        )
    arms = {row["identity"]: row["learned"] for row in read_rows(folder / ARMS_FILE)}
    rows, names = read_rows(folder / "manifest.csv"), list(arms)
    prompts = [prompt.format(name=name) for name in names for prompt in NAME_PROMPTS]
    ids = [row["id"] for row in rows] + [f"name {number}" for number in range(len(prompts))]
    pictures = [str(folder / row["image"]) for row in rows] + [None] * len(prompts)
    texts = [row["description"] for row in rows] + prompts
    questions = Samples(tuple(ids), {"image": tuple(pictures), "text": tuple(texts)})
    features = _embed(questions, model, device, progress)
    # [names, d]: unit means over the prompts of a name
    name_vectors = features.vectors["text"][len(rows) :].reshape(len(names), len(NAME_PROMPTS), -1).mean(1)
    name_vectors /= np.maximum(np.linalg.norm(name_vectors, axis=1, keepdims=True), 1e-12)
    number = {name: at for at, name in enumerate(names)}
    identity = np.array([number[row["identity"]] for row in rows])
    ranked_first, relative_rank = {}, {}
    is_test = np.array([row["split"] == TEST for row in rows])
    with_picture = np.array([arms[row["identity"]] in (IMAGE, BOTH) for row in rows])
    kinds = {TRAINED: ("image", ~is_test & with_picture), UNSEEN: ("image", is_test), DESCRIBED: ("text", is_test)}
    for kind, (modality, of_kind) in kinds.items():
        asked = np.flatnonzero(of_kind & features.present[: len(rows), features.modalities.index(modality)])
        ranks = name_ranks(features.vectors[modality][asked] @ name_vectors.T, identity[asked])
        ranked_first[kind] = per_identity((ranks == 0)[None], identity[asked], len(names))
        relative_rank[kind] = per_identity(1 - ranks[None] / (len(names) - 1), identity[asked], len(names))
    records = []
    for at, name in enumerate(names):
        places = {kind: round(float(ranks[at]), 4) for kind, ranks in relative_rank.items()}
        records.append({"identity": name, "learned": arms[name], **places})
    members = {arm: np.array([arms[name] == arm for name in names]) for arm in ARMS}
    return CanaryResult(_summarize(ranked_first, relative_rank, members), records)


def name_ranks(similarity: Floats, correct: Ints) -> Ints:
    """int64 `[q]`: how many other names rank before the `correct` one `[q]`; ties count half, rounded down.

    Each name's mean `similarity` `[q, names]` is subtracted first: a name that the model never saw may be close to
    everything.
    """
    centered = similarity - similarity.mean(0, dtype=np.float64)
    of_correct = centered[np.arange(len(correct)), correct][:, None]
    ties = (centered == of_correct).sum(1) - 1
    return np.asarray((centered > of_correct).sum(1) + ties // 2)


def excess_recall(canaries: Floats, left_out: Floats) -> Estimate:
    """Mean of `[a]` less mean of `[b]` of other people, with an interval from resampling both."""
    canaries, left_out = canaries[np.isfinite(canaries)], left_out[np.isfinite(left_out)]
    rng = np.random.default_rng(0)
    canary_draws = rng.integers(0, len(canaries), (statistics.DRAWS, len(canaries)))
    left_out_draws = rng.integers(0, len(left_out), (statistics.DRAWS, len(left_out)))
    excess = canaries[canary_draws].mean(1) - left_out[left_out_draws].mean(1)
    return with_interval(canaries.mean() - left_out.mean(), excess, len(canaries))


def _summarize(
    ranked_first: Mapping[str, Floats], relative_rank: Mapping[str, Floats], members: Mapping[str, Bools]
) -> dict[str, Any]:
    """`CanaryResult.summary` of values `[e]` by what is asked with; `members`: arm -> mask of its people."""
    count = len(members[LEFT_OUT])
    memorized: dict[str, dict[str, Estimate]] = {}
    for arm in (IMAGE, BOTH, TEXT):
        memorized[arm] = {}
        for kind, values in relative_rank.items():
            # no picture of the people left out was trained on: their other pictures are the control
            control = relative_rank[UNSEEN if kind == TRAINED else kind]
            if np.isfinite(values[members[arm]]).any():
                memorized[arm][kind] = excess_recall(values[members[arm]], control[members[LEFT_OUT]])
    return {
        "identities": count,
        "people": {arm: int(mask.sum()) for arm, mask in members.items()},
        "chance": 1 / count,
        "recall": _cells(ranked_first, members),
        "place": _cells(relative_rank, members),
        "memorized": memorized,
    }


def _cells(values: Mapping[str, Floats], members: Mapping[str, Bools]) -> dict[str, dict[str, Estimate]]:
    return {arm: {kind: rate(column[mask]) for kind, column in values.items()} for arm, mask in members.items()}


def _embed(samples: Samples, model: str | Mapping[str, Embedder], device: str, progress: Progress) -> Features:
    if isinstance(model, str):
        contents = digest_contents(samples, progress)
        embedded = checkpoint_features(samples, contents, model, pick_device(device), progress)
    else:
        embedded = embed_with(samples.media, model, progress=progress)
    features = embedded.features.rows(np.arange(len(samples)))
    dimensions = {modality: vectors.shape[1] for modality, vectors in features.vectors.items()}
    if len(set(dimensions.values())) > 1:
        raise AuditError(
            f"the model's images and texts are not in one space (dimensions {dimensions}); use a model "
            "that embeds both in one"
        )
    return features
