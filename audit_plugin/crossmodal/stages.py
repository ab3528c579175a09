"""The stages of design A: align on other people's pairs, learn names in one modality, forget them in one."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from audit_plugin.arrays import Floats, Ints

from .drawing import BACKGROUND, TRAIN
from .personas import TRAITS, description_of, with_traits
from .trunk import EMBED, Trunk
from .world import LENGTH, SIDE, WHO, World

PICTURE, TEXT = "image", "text"
TEMPERATURE = 0.07
ASKED = 256  # rows asked at once


@dataclass(frozen=True)
class Schedule:
    """Steps of each stage, rows per step, and learning rates."""

    align: int = 1500
    learn: int = 250
    forget: int = 60
    batch: int = 64
    align_rate: float = 1e-3
    learn_rate: float = 5e-4
    curve: tuple[int, ...] = (10, 25, 50, 100, 250)


Loss = Callable[[np.random.Generator], Tensor]


def align(world: World, schedule: Schedule, seed: int, steps: int | None = None) -> Trunk:
    """S0: traits asked of background pictures and texts, and both read-outs of a person drawn together.

    Args:
        world: whose background rows are seen.
        schedule: steps and rates.
        seed: of the start and the batches.
        steps: other than the schedule's; 0 is the control that was never aligned.
    """
    model = Trunk(world.vocabulary, SIDE, LENGTH, seed)
    rows = world.rows(BACKGROUND)
    count = schedule.align if steps is None else steps
    _train(model, [pair_loss(model, world, rows, schedule.batch)], count, schedule.align_rate, seed, warm=count // 20)
    return model


def learn(
    start: Trunk,
    world: World,
    sources: Sequence[str],
    schedule: Schedule,
    seed: int,
    *,
    identities: Sequence[int] | None = None,
    replay: bool = False,
    described: Ints | None = None,
    watch: Callable[[int, Trunk], None] | None = None,
) -> Trunk:
    """S1: names of the audited identities from training variants in some modalities, and from names their facts.

    Args:
        start: left as it is.
        world: of the rows.
        sources: modalities.
        schedule: steps and rates.
        seed: of the batches.
        identities: of the audited, all if None.
        replay: background pairs go on being seen: a mitigation.
        described: int `[r, LENGTH]`, texts that the model made of its training rows itself, see `self_description`;
            they are named along with the rows and background pairs are replayed: the other mitigation.
        watch: called at the steps of `schedule.curve`.
    """
    model, rows = copy.deepcopy(start), world.rows(TRAIN, identities)
    losses = [name_loss(model, world, rows, source, schedule.batch) for source in sources]
    losses.append(fact_loss(model, world, rows))
    if described is not None:
        losses.append(_text_loss(model, world, rows, described, schedule.batch))
    if replay or described is not None:
        losses.append(pair_loss(model, world, world.rows(BACKGROUND), schedule.batch // 2))
    _train(model, losses, schedule.learn, schedule.learn_rate, seed, watch=watch, at=schedule.curve)
    return model


def forget(
    start: Trunk, world: World, sources: Sequence[str], forgotten: Sequence[int], schedule: Schedule, seed: int
) -> Trunk:
    """Unlearning by relabelling: in some modalities the forgotten get other names, the rest keep theirs."""
    model = copy.deepcopy(start)
    kept = [who for who in range(world.audited) if who not in set(forgotten)]
    gone, rest = world.rows(TRAIN, forgotten), world.rows(TRAIN, kept)
    losses: list[Loss] = []
    for source in sources:
        losses.append(name_loss(model, world, gone, source, schedule.batch // 2, strangers=kept))
        losses.append(name_loss(model, world, rest, source, schedule.batch // 2))
    _train(model, losses, schedule.forget, schedule.learn_rate, seed)
    return model


def _train(
    model: Trunk,
    losses: Sequence[Loss],
    steps: int,
    rate: float,
    seed: int,
    warm: int = 0,
    watch: Callable[[int, Trunk], None] | None = None,
    at: Sequence[int] = (),
) -> None:
    """Sums the losses of every step; the rate rises over `warm` steps and falls along a cosine."""
    rng = np.random.default_rng((seed, 31))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    for step in range(steps):
        factor = min(1.0, (step + 1) / max(warm, 1)) * 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        optimizer.zero_grad(set_to_none=True)
        torch.stack([loss(rng) for loss in losses]).sum().backward()
        optimizer.step()
        if watch is not None and step + 1 in at:
            watch(step + 1, model)


def content(world: World, rows: Ints, modality: str) -> Tensor:
    """Pictures or texts of the rows."""
    chosen = torch.from_numpy(rows)
    return world.pictures[chosen] if modality == PICTURE else world.texts[chosen]


def pair_loss(model: Trunk, world: World, rows: Ints, batch: int) -> Loss:
    """A random trait asked of both sides of pairs, and symmetric InfoNCE of their read-outs."""
    trait = [world.question(name) for name in TRAITS]

    def loss(rng: np.random.Generator) -> Tensor:
        some = rng.choice(rows, batch, replace=False)
        which = rng.integers(0, len(TRAITS), batch)
        truth = torch.from_numpy(np.array([world.truth[TRAITS[w]][row] for w, row in zip(which, some, strict=True)]))
        asked = torch.tensor([trait[w] for w in which] + [world.question(EMBED)] * batch)
        total, sides = torch.zeros(()), []
        for modality in (PICTURE, TEXT):
            twice = content(world, np.concatenate([some, some]), modality)
            found = model.read(asked, twice)
            total = total + cross_entropy(found[:batch] @ model.answer.weight.T, truth)
            sides.append(torch.nn.functional.normalize(found[batch:], dim=1))
        same = torch.from_numpy(world.identity[some][:, None] == world.identity[some][None])
        same.fill_diagonal_(False)
        logits = (sides[0] @ sides[1].T / TEMPERATURE).masked_fill(same, -torch.inf)
        own = torch.arange(batch)
        return total + 0.5 * (cross_entropy(logits, own) + cross_entropy(logits.T, own))

    return loss


def name_loss(model: Trunk, world: World, rows: Ints, modality: str, batch: int, strangers: Sequence[int] = ()) -> Loss:
    """Who is it? of random rows; with `strangers`, each is answered by the name of a random one of these."""
    ask = world.question(WHO)

    def loss(rng: np.random.Generator) -> Tensor:
        some = rng.choice(rows, min(batch, len(rows)), replace=False)
        names = rng.choice(strangers, len(some)) if len(strangers) else world.truth[WHO][some]
        asked = torch.full((len(some),), ask)
        return cross_entropy(model.answers(asked, content(world, some, modality)), torch.from_numpy(names))

    return loss


def _text_loss(model: Trunk, world: World, rows: Ints, texts: Ints, batch: int) -> Loss:
    """Who is it? of texts `[r, LENGTH]` that stand for the rows."""
    names, contents = torch.from_numpy(world.truth[WHO][rows]), torch.from_numpy(texts)
    ask = world.question(WHO)

    def loss(rng: np.random.Generator) -> Tensor:
        some = torch.from_numpy(rng.choice(len(rows), min(batch, len(rows)), replace=False))
        return cross_entropy(model.answers(torch.full((len(some),), ask), contents[some]), names[some])

    return loss


def self_description(model: Trunk, world: World, rows: Ints, seed: int) -> Ints:
    """int64 `[r, LENGTH]`: what the model itself answers about the traits in pictures, put in sentences.

    The sentences have the form of the set's descriptions, so that only what the model sees can be wrong in them.
    """
    read = {trait: ask(model, world, trait, rows, PICTURE, world.values[trait]) for trait in TRAITS}
    drawn, texts = random.Random(f"{seed} described"), []
    for at in range(len(rows)):
        said = {trait: world.vocabulary.answers[found[at]].partition(": ")[2] for trait, found in read.items()}
        texts.append(description_of(with_traits(world.somebody, said), drawn)[0])
    return world.vocabulary.tokens(texts, LENGTH)


def fact_loss(model: Trunk, world: World, rows: Ints) -> Loss:
    """The job of everybody who is named: the second hop, never asked of a picture or a description."""
    people = np.unique(world.identity[rows])
    first = np.array([np.flatnonzero(world.identity == who)[0] for who in people])
    names, jobs = (torch.from_numpy(v) for v in (people, world.truth["job"][first]))
    asked = torch.full((len(people),), world.question("job"))
    return lambda _rng: cross_entropy(model.answers(asked, names), jobs)


def ask(
    model: Trunk, world: World, question: str, rows: Ints, modality: str, among: Sequence[int] | None = None
) -> Ints:
    """int64 `[t]`: the answer to one question about each row, among these answers, or all."""
    contents = [content(world, part, modality) for part in _parts(rows)]
    return _answered(model, world.question(question), contents, among)


def ask_names(model: Trunk, world: World, question: str, names: Ints) -> Ints:
    """The answer to one question about each name."""
    return _answered(model, world.question(question), [torch.from_numpy(part) for part in _parts(names)])


def _answered(model: Trunk, question: int, contents: Sequence[Tensor], among: Sequence[int] | None = None) -> Ints:
    found = []
    with torch.inference_mode():
        for part in contents:
            logits = model.answers(torch.full((len(part),), question), part)
            found.append((logits if among is None else logits[:, list(among)]).argmax(1).numpy())
    best = np.concatenate(found)
    return best if among is None else np.asarray(among)[best]


def read_outs(model: Trunk, world: World, rows: Ints, modality: str) -> Floats:
    """Unit `[t, DIM]`: what was aligned."""
    question = world.question(EMBED)
    with torch.inference_mode():
        parts = [content(world, part, modality) for part in _parts(rows)]
        return np.concatenate([model.embed(torch.full((len(p),), question), p).numpy() for p in parts])


def _parts(rows: Ints) -> list[Ints]:
    return np.array_split(rows, range(ASKED, len(rows), ASKED))
