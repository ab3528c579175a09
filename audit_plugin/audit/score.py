"""From prepared samples to scores, flags and suggestions, in canonical order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Features, Floats, SampleFacts, count_text
from audit_plugin.encoders.devices import release_memory, small_by_one_thread
from audit_plugin.neighbors.altered_copies import find_altered_copies
from audit_plugin.neighbors.image_copies import group_image_copies
from audit_plugin.neighbors.neighborhood import Search, find_neighborhood
from audit_plugin.scoring import flags as rules
from audit_plugin.scoring.calibration import Calibration, calibrate
from audit_plugin.scoring.cleaned_texts import suggest_cleaned
from audit_plugin.scoring.evidence import Evidence, build_evidence
from audit_plugin.scoring.evidence_weights import separation
from audit_plugin.scoring.problem_texts import problem_texts
from audit_plugin.scoring.scores import compute_scores, of_known, pair_misalignment, robust_z
from audit_plugin.scoring.suggest.captions import Captioner, apply_suggestions, ask_captioner, suggest
from audit_plugin.scoring.suggest.join_bugs import Repair
from audit_plugin.store import RunFolder
from audit_plugin.trials.run import Job, Learn, TrialPlan, train_trials

from .prepare import Prepared

SMALL_SET = 300  # scored samples below which a note says how far the ranking can be trusted


def gather_evidence(
    features: Features,
    facts: SampleFacts,
    learn: Learn,
    job: Job,
    plan: TrialPlan | None = None,
    image_paths: Sequence[str] = (),
) -> tuple[Evidence, list[str]]:
    """(evidence on n complete samples in canonical order, notes): finds neighbors, trains the trials and reads them.

    `learn`: (plan, shared_ids) -> how trials come about; `plan`: masks of a finished run, or None: drawn here;
    `image_paths` `[n]`: by whose pixels altered copies are distinguished from look-alikes, or empty: by features alone.
    """
    neighborhood = find_neighborhood(features, facts, search_of(job), job.run, job.progress)
    copies = {"image": group_image_copies(image_paths, facts, neighborhood)} if image_paths else {}
    altered = (
        find_altered_copies(image_paths, facts, neighborhood, copies["image"], job.progress) if image_paths else None
    )
    release_memory()
    trials, notes = train_trials(learn, facts, neighborhood.leave_together, job, plan)
    release_memory()
    evidence = build_evidence(features, facts, neighborhood, trials, job, copies, altered)
    if trials is None:
        by_frozen = "memorization is not scored, and misalignment by the frozen encoders and nearest neighbors alone"
        is_scored = bool(evidence.held_out) and bool(np.isfinite(evidence.held_out["zero_shot"]).any())
        consequence = by_frozen if is_scored else "misalignment and memorization are not scored"
        notes = [f"{note}: {consequence}" for note in notes]
    return evidence, [*neighborhood.notes, *(altered.notes if altered else ()), *notes]


def search_of(job: Job) -> Search:
    """The engine's search for neighbors under the settings of a job: (vectors, report) -> `SearchResult`."""
    config = job.config
    return lambda vectors, report: job.engine.search(vectors, config.neighbors, job.device, config.seed, report)


@dataclass(frozen=True)
class Scored:
    """Scores, flags and suggestions of the complete rows in canonical order, and what holds for the set.

    Attributes:
        evidence: what it was made from.
        scores: column -> `[n]`.
        calibration: how many pairs are wrong, and how likely each one is.
        flags: kind -> bool `[n]`.
        verdicts: `flags.PROBLEMS`, `action`, `reason`, `suggestion`, `repair` -> object `[n]`.
        probe_recall: kind of probe pairs -> share of them that would be flagged.
        repairs: suggested corrections of join bugs.
        same_again: rows that would get the caption that they have, and so get no suggestion.
        notes: for people.
    """

    evidence: Evidence
    scores: Mapping[str, Floats]
    calibration: Calibration
    flags: Mapping[str, Bools]
    verdicts: Mapping[str, Any]
    probe_recall: Mapping[str, float]
    repairs: tuple[Repair, ...] = ()
    same_again: int = 0
    notes: tuple[str, ...] = ()


def score(prepared: Prepared, evidence: Evidence, job: Job, captioner: Captioner | None = None) -> Scored:
    """Scores, flags and suggestions for the complete rows, in canonical order; see `run_audit` for the captioner."""
    job.progress("score", 0, 1)
    with small_by_one_thread(len(evidence)):
        scores = compute_scores(evidence)
        probes = score_probes(evidence, scores)
        calibration = calibrate(scores["misalignment"], probes)
    calibrated = {"probability": calibration.probability, "false_positive_rate": calibration.false_positive_rate}
    flags = rules.raise_flags({**scores, **calibrated}, evidence, job.config.false_positive_rate)

    captions = prepared.media(prepared.text_modalities[0]) if prepared.text_modalities else [""] * len(evidence)
    canonical_of = prepared.order.back(np.arange(len(evidence)), -1)  # canonical number of each of the caller's rows
    release_memory()  # the search for captions needs the most
    callers_ids = prepared.samples.ids
    with small_by_one_thread(len(evidence)):
        suggestions = suggest(evidence, flags["misaligned"], captions, job.config.seed, canonical_of, callers_ids)
    media = [m for m in prepared.samples.modalities if m not in prepared.text_modalities]
    if captioner is not None and prepared.text_modalities and media and all(prepared.media(media[0])):
        suggestions = ask_captioner(suggestions, flags["misaligned"], captions, prepared.media(media[0]), captioner)
    ids = [prepared.samples.ids[row] for row in prepared.order.rows]
    removals = rules.why_removed(evidence, ids)
    suggestions, cleaned = suggest_cleaned(suggestions, evidence, flags, scores, removals != "")
    found = problem_texts(evidence, ids)
    texts = suggestions.captions
    action, reason = rules.propose_actions(flags, texts, cleaned, removals, scores, found)
    action, reason = apply_suggestions(action, reason, suggestions)
    job.progress("score", 1, 1)
    return Scored(
        evidence=evidence,
        scores={**scores, "suggestion_score": suggestions.score},
        calibration=calibration,
        flags=flags,
        verdicts={
            **found,
            "action": action,
            "reason": reason,
            "suggestion": suggestions.captions,
            "repair": suggestions.repair,
        },
        probe_recall=probe_recall(probes, scores["misalignment"], flags["misaligned"]),
        repairs=suggestions.repairs,
        same_again=suggestions.same_again,
        notes=(
            *(note for note in (small_set_note(scores["misalignment"], probes), suggestions.note) if note),
            *text_problem_notes(evidence),
            *evidence.image_problems.notes,
            *evidence.box_problems.notes,
            *personal_notes(flags, ids),
        ),
    )


def score_probes(evidence: Evidence, scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """Kind of probe pairs -> their misalignment `[q]`: the worst pair of modalities, on the scale of the samples."""
    if not evidence.probe_evidence:
        return {}
    worst_of_samples = np.fmax.reduce([scores[f"misalignment_{a}_{b}"] for a, b in evidence.pairs])
    scale = of_known(worst_of_samples, evidence.known)
    probes = {}
    for probe_kind, on_probes in evidence.probe_evidence.items():
        by_pair = []
        for position, pair in enumerate(evidence.pairs):
            of_pair = {kind: values[position] for kind, values in on_probes.items()}
            by_pair.append(pair_misalignment(evidence, pair, of_pair))
        worst = np.fmax.reduce(by_pair)
        probes[probe_kind] = worst if len(by_pair) == 1 else robust_z(worst, scale)
    return probes


def probe_recall(probes: Mapping[str, Floats], scores: Floats, flagged: Bools) -> dict[str, float]:
    """Kind of probe pairs -> share of them that score as high as the lowest flagged sample."""
    threshold = float(scores[flagged].min()) if flagged.any() else float("inf")
    scored = {kind: values[np.isfinite(values)] for kind, values in probes.items()}
    return {kind: float(np.mean(values >= threshold)) for kind, values in scored.items() if len(values)}


def small_set_note(scores: Floats, probes: Mapping[str, Floats]) -> str:
    """How far the ranking by scores `[n]` can be trusted, by probe pairs that are wrong like exchanged captions.

    "" from `SMALL_SET` scored samples on, and where nothing is scored.
    """
    n, of_probes = int(np.isfinite(scores).sum()), probes.get("random", np.empty(0))
    share = separation(scores, of_probes)
    if n >= SMALL_SET or share < 0:
        return ""
    return (
        f"{count_text(n, 'scored sample')}: a small set, whose ranking is uncertain; pairs that were mismatched at "
        f"random from it rank above {share:.0%} of its samples on average, where 50% would be chance "
        f"(measured on {count_text(int(np.isfinite(of_probes).sum()), 'probe pair')})"
    )


def text_problem_notes(evidence: Evidence) -> list[str]:
    """What the checks of texts say of the set, with the modality where several are text."""
    notes = []
    for name, found in evidence.text_problems.items():
        of_modality = f"{name}: " if len(evidence.text_problems) > 1 else ""
        notes += [f"{of_modality}{note}" for note in found.notes]
    return notes


def personal_notes(flags: Mapping[str, Bools], ids: Sequence[str]) -> list[str]:
    """A sentence where texts hold personal data: how many of them a model memorizes is what a privacy review asks.

    Samples are counted, which `ids` `[n]` name: one may have several captions, and each of them a row.
    """
    samples = {ids[int(row)] for row in np.flatnonzero(flags["personal"])}
    memorized = {ids[int(row)] for row in np.flatnonzero(flags["personal"] & flags["memorized"])}
    if not samples:
        return []
    return [
        f"{count_text(len(samples), 'sample has', 'samples have')} personal data in a text, of which a model memorizes "
        f"{len(memorized)}; the column text_problem names the kinds"
    ]


def save_evidence(evidence: Evidence, ids: Sequence[str], run: RunFolder) -> None:
    """Each pair's separate evidence beside the ids: for benchmarks, and for people who weigh it their own way."""
    if not evidence.held_out:
        return
    arrays = {}
    for position, (a, b) in enumerate(evidence.pairs):
        for kind, values in evidence.parts[a, b].items():
            arrays[f"{kind}_{a}_{b}"] = values
        if "cosine" in evidence.held_out:
            arrays[f"cosine_{a}_{b}"] = evidence.held_out["cosine"][position]
    run.save("evidence", ids=np.array(ids), **arrays)
