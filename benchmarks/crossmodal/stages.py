"""The stages of the controlled protocol: align on other people's pairs, learn names in one modality, forget them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from audit_plugin.arrays import Floats, Ints
from audit_plugin.synthetic.looks import BEARDS, GLASSES, HAIRS
from audit_plugin.synthetic.personas import BACKGROUND, TRAIN, TRAITS, PersonaIdentity, description_of

from .trunk import Trunk
from .world import LENGTH, SIDE, WHO, World

PICTURE, TEXT = "image", "text"
TEMPERATURE = 0.07
ASKED = 256  # rows asked at once
MOVED = 4  # pixels


@dataclass(frozen=True)
class Schedule:
    """Steps of each stage, rows per step, and learning rates; `fresh`: new names learn so many times as fast."""

    align: int = 1000
    learn: int = 150
    forget: int = 60
    batch: int = 64
    align_rate: float = 2e-3
    learn_rate: float = 3e-4
    forget_rate: float = 1e-3
    fresh: float = 60.0
    curve: tuple[int, ...] = (10, 25, 50, 100, 150)


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
    _train(
        model,
        [pair_loss(model, world, rows, schedule.batch, named=True)],
        count,
        schedule.align_rate,
        seed,
        warm=count // 20,
    )
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
        # not their names: each of these, asked for again, would be one more wrong answer for the new ones
        losses.append(pair_loss(model, world, world.rows(BACKGROUND), schedule.batch // 2, named=False))
    rate, fresh = schedule.learn_rate, schedule.fresh
    _train(model, losses, schedule.learn, rate, seed, fresh=fresh, watch=watch, at=schedule.curve)
    return model


def forget(
    start: Trunk, world: World, sources: Sequence[str], forgotten: Sequence[int], schedule: Schedule, seed: int
) -> Trunk:
    """Unlearning by relabeling: in some modalities the forgotten people get other names, the rest keep their own."""
    model = copy.deepcopy(start)
    remaining = [identity for identity in range(world.audited) if identity not in set(forgotten)]
    gone, rest = world.rows(TRAIN, forgotten), world.rows(TRAIN, remaining)
    losses: list[Loss] = []
    for source in sources:
        losses.append(name_loss(model, world, gone, source, schedule.batch // 2, strangers=remaining))
        losses.append(name_loss(model, world, rest, source, schedule.batch // 2))
    _train(model, losses, schedule.forget, schedule.forget_rate, seed)
    return model


def _train(
    model: Trunk,
    losses: Sequence[Loss],
    steps: int,
    rate: float,
    seed: int,
    warm: int = 0,
    fresh: float = 1.0,
    watch: Callable[[int, Trunk], None] | None = None,
    at: Sequence[int] = (),
) -> None:
    """Sums the losses of every step; rates rise over `warm` steps and fall along a cosine.

    New names learn `fresh` times as fast as the rest: they are to be found where the read-outs are, instead of dragging
    these to where they happen to be.
    """
    rng = np.random.default_rng((seed, 31))
    rest = [weights for name, weights in model.named_parameters() if name != "new"]
    groups = [{"params": rest, "top": rate}, {"params": [model.new], "top": fresh * rate}]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
    for step in range(steps):
        factor = min(1.0, (step + 1) / max(warm, 1)) * 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * factor
        optimizer.zero_grad(set_to_none=True)
        torch.stack([loss(rng) for loss in losses]).sum().backward()
        optimizer.step()
        if watch is not None and step + 1 in at:
            watch(step + 1, model)


def content(world: World, rows: Ints, modality: str, rng: np.random.Generator | None = None) -> Tensor:
    """Pictures or texts of the rows; to learn from, given `rng`, pictures are moved a little and half are mirrored."""
    chosen = torch.from_numpy(rows)
    if modality == TEXT:
        return world.texts[chosen]
    pictures = world.pictures[chosen]
    if rng is None:
        return pictures
    mirrored = torch.from_numpy(rng.random(len(rows)) < 0.5)
    pictures[mirrored] = pictures[mirrored].flip(2)
    wide = torch.nn.functional.pad(pictures.permute(0, 3, 1, 2).float(), (MOVED,) * 4, mode="replicate")
    wide = wide.permute(0, 2, 3, 1).byte()
    places = rng.integers(0, 2 * MOVED + 1, (len(rows), 2))
    return torch.stack([one[y : y + SIDE, x : x + SIDE] for one, (y, x) in zip(wide, places, strict=True)])


def pair_loss(model: Trunk, world: World, rows: Ints, batch: int, named: bool) -> Loss:
    """All traits asked of both sides of pairs, with `named` the name too; symmetric InfoNCE of what answers for it."""
    asked = (*TRAITS, WHO) if named else TRAITS
    questions = [world.question(name) for name in (*TRAITS, WHO)]
    values = torch.from_numpy(np.stack([world.truth[name] for name in asked], axis=1))

    def loss(rng: np.random.Generator) -> Tensor:
        batch_rows = rng.choice(rows, batch, replace=False)
        total, sides = torch.zeros(()), []
        truth = values[torch.from_numpy(batch_rows)].reshape(-1)
        for modality in (PICTURE, TEXT):
            states = model.read(questions, content(world, batch_rows, modality, rng))
            answer_logits = states[:, : len(asked)].reshape(len(truth), -1) @ model.answer_vectors().T
            total = total + len(asked) * cross_entropy(answer_logits, truth)
            sides.append(torch.nn.functional.normalize(states[:, -1], dim=1))
        same = torch.from_numpy(world.identity[batch_rows][:, None] == world.identity[batch_rows][None])
        same.fill_diagonal_(False)
        logits = (sides[0] @ sides[1].T / TEMPERATURE).masked_fill(same, -torch.inf)
        own = torch.arange(batch)
        return total + 0.5 * (cross_entropy(logits, own) + cross_entropy(logits.T, own))

    return loss


def name_loss(model: Trunk, world: World, rows: Ints, modality: str, batch: int, strangers: Sequence[int] = ()) -> Loss:
    """Loss of naming random rows; with `strangers`, the target is the name of a random one of these."""
    question = world.question(WHO)

    def loss(rng: np.random.Generator) -> Tensor:
        batch_rows = rng.choice(rows, min(batch, len(rows)), replace=False)
        names = rng.choice(strangers, len(batch_rows)) if len(strangers) else world.truth[WHO][batch_rows]
        return cross_entropy(
            model.answers(question, content(world, batch_rows, modality, rng)), torch.from_numpy(names)
        )

    return loss


def _text_loss(model: Trunk, world: World, rows: Ints, texts: Ints, batch: int) -> Loss:
    """Loss of naming texts `[r, LENGTH]` that stand for the rows."""
    names, contents = torch.from_numpy(world.truth[WHO][rows]), torch.from_numpy(texts)
    question = world.question(WHO)

    def loss(rng: np.random.Generator) -> Tensor:
        batch_rows = torch.from_numpy(rng.choice(len(rows), min(batch, len(rows)), replace=False))
        return cross_entropy(model.answers(question, contents[batch_rows]), names[batch_rows])

    return loss


def self_description(model: Trunk, world: World, rows: Ints, seed: int) -> Ints:
    """int64 `[r, LENGTH]`: what the model itself answers about the traits in pictures, put in sentences.

    The sentences have the form of the set's descriptions, so that only what the model sees can be wrong in them.
    """
    read = {trait: ask(model, world, trait, rows, PICTURE, world.values[trait]) for trait in TRAITS}
    drawn, texts = random.Random(f"{seed} described"), []
    for at in range(len(rows)):
        traits = {trait: world.vocabulary.answers[answers[at]].partition(": ")[2] for trait, answers in read.items()}
        texts.append(description_of(_with_traits(world.somebody, traits), drawn)[0])
    return world.vocabulary.tokens(texts, LENGTH)


def _with_traits(identity: PersonaIdentity, traits: Mapping[str, str]) -> PersonaIdentity:
    """The identity with other values of all `TRAITS`, as they may be read off a picture, rightly or not."""
    heads, beards, glasses = ({look.name: look for look in looks} for looks in (HAIRS, BEARDS, GLASSES))
    beard = beards.get(traits["beard"])
    person = replace(
        identity.person,
        head=heads[traits["head"]],
        head_color=traits["head color"],
        beard=beard,
        beard_color=(traits["beard color"] or traits["head color"]) if beard else "",
        glasses=glasses.get(traits["glasses"]),
        skin=traits["skin"],
    )
    return replace(identity, person=person)


def fact_loss(model: Trunk, world: World, rows: Ints) -> Loss:
    """The job of everybody who is named: the second hop, never asked of a picture or a description."""
    people = np.unique(world.identity[rows])
    first = np.array([np.flatnonzero(world.identity == person)[0] for person in people])
    names, jobs = (torch.from_numpy(v) for v in (people, world.truth["job"][first]))
    question = world.question("job")
    return lambda _rng: cross_entropy(model.answers(question, names), jobs)


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
    best_parts = []
    with torch.inference_mode():
        for part in contents:
            logits = model.answers(question, part)
            best_parts.append((logits if among is None else logits[:, list(among)]).argmax(1).numpy())
    best = np.concatenate(best_parts)
    return best if among is None else np.asarray(among)[best]


def read_outs(model: Trunk, world: World, rows: Ints, modality: str) -> Floats:
    """Unit `[t, DIM]`: what was aligned."""
    question = world.question(WHO)
    with torch.inference_mode():
        parts = [content(world, part, modality) for part in _parts(rows)]
        return np.concatenate([model.embed(question, part).numpy() for part in parts])


def _parts(rows: Ints) -> list[Ints]:
    return np.array_split(rows, range(ASKED, len(rows), ASKED))
