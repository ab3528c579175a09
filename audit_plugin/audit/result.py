"""The result of an audit: the columns in the caller's order, and the summary of the whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Bools, Ints, Samples, count_text
from audit_plugin.config import AuditConfig, current_names
from audit_plugin.inputs.images import is_box_fault
from audit_plugin.inputs.tables import jsonable, read_table, write_json, write_table
from audit_plugin.scoring import flags as rules
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.memorized import memorized_lists
from audit_plugin.scoring.named_modality import named_modalities
from audit_plugin.scoring.outliers import count_user_groups
from audit_plugin.scoring.reflag import reflag
from audit_plugin.scoring.wrong_pairs import precision_entries, precision_of_flags, reported_of, summarize_wrong_pairs
from audit_plugin.trials import multimem
from audit_plugin.trials.run import RELIABLE
from audit_plugin.trials.split_protocol import group_report

from .prepare import Order, Prepared
from .score import Scored
from .text_notes import text_notes

if TYPE_CHECKING:
    import pandas

    from .export import ExportReport, Progress

# The columns that a notebook shows of the most suspicious rows
SHOWN = ("misalignment", "probability", "action", "reason", "suggestion")
ACTIONS = ("keep", "relabel", "remove", "review", "fix")
PACKAGES = (
    "audit-plugin",
    "torch",
    "numpy",
    "onnxruntime",
    "open-clip-torch",
    "faiss-cpu",
    "faiss-gpu",
    "faiss-gpu-cuvs",
)


@dataclass(frozen=True, repr=False)
class AuditResult:
    """One value per row and column, in the caller's row order, with where it came from.

    Attributes:
        ids: `[n]` as given.
        columns: column -> array of length n, in the order of the written table.
        summary: counts, reliability, probe recall, versions, timings: everything that is not per row.
        run_dir: where the arrays and the trained heads are.
        captions: `[n]`, which of its sample's captions a row is; empty where every sample has one.
        false_positive_rate: float32 `[n]`, the lowest expected false-positive rate at which a row is flagged as
            misaligned; NaN where not scored. None where it was not recorded.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    summary: Mapping[str, Any]
    run_dir: str = ""
    captions: tuple[int, ...] = ()
    false_positive_rate: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.ids):
                raise ValueError(f"column {name!r} has {len(values)} values for {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        counts = [f"{int(self.flagged(kind).sum()):,} {kind}" for kind in self.flag_kinds]
        failures = f", {self.summary['failures']:,} failures" if self.summary.get("failures") else ""
        return f"AuditResult({count_text(len(self), 'row')}: {', '.join(counts) or 'no flags'}{failures})"

    def _repr_html_(self) -> str:
        """For notebooks: how many rows each flag has, and the ten most suspicious rows."""
        counts = "".join(
            f"<tr><td>{kind}</td><td>{int(self.flagged(kind).sum()):,}</td></tr>" for kind in self.flag_kinds
        )
        shown = [name for name in SHOWN if name in self.columns]
        table = self.to_pandas()[shown]
        if "misalignment" in table:
            table = table.sort_values("misalignment", ascending=False)
        worst = table.head(10).to_html(escape=True)
        return f"<p>{count_text(len(self), 'row')}</p><table><tr><th>flag</th><th>rows</th></tr>{counts}</table>{worst}"

    @property
    def flag_kinds(self) -> list[str]:
        """The kinds of flags that the result has."""
        return [name.removeprefix("is_") for name in self.columns if name.startswith("is_")]

    def flagged(self, kind: str) -> Bools:
        """bool `[n]`: the rows flagged as `kind` (`misaligned`, `outlier`, ...).

        Raises:
            KeyError: the result has no such flag.
        """
        return np.asarray(self.columns[f"is_{kind}"], dtype=bool)

    def memorized_lists(self) -> dict[str, Ints]:
        """The rows flagged as memorized, int64, in three lists: misaligned, fitting, and explained by another flag.

        Within a list by MultiMem, highest first (`scoring.memorized`). `hot` of `trials.mitigation` takes such rows.
        """
        return memorized_lists(self.columns)

    def to_pandas(self) -> pandas.DataFrame:
        """A DataFrame of the columns, one row per row of the audit, with the ids as its index `id`.

        Where samples have several captions, `caption_index` says which one a row is.
        """
        import pandas

        captions = {"caption_index": np.array(self.captions)} if self.captions else {}
        return pandas.DataFrame({**captions, **self.columns}, index=pandas.Index(self.ids, name="id"))

    def rethreshold(self, kind: str, rate: float) -> AuditResult:
        """The same scores with other flags of one kind, and the actions and reasons that follow from them.

        Args:
            kind: misaligned, memorized, outlier, or another flag of `scoring.flags.FLAGS` that has a rule `by_rate`.
            rate: expected share of clean samples that are flagged by chance, between 0 and 1.

        Raises:
            AuditError: another kind, a rate out of range, or a result that does not hold what this takes.
        """
        if not 0 < rate < 1:
            raise AuditError(f"rate is {rate}; it must lie between 0 and 1")
        if "extends" in self.summary:
            raise AuditError("this result extends another run, whose samples set its thresholds: rethreshold that run")
        by_rate = {name: entry.by_rate for name, entry in rules.FLAGS.items() if entry.by_rate is not None}
        if kind not in by_rate:
            raise AuditError(f"kind {kind!r} has no rate; choose one of {', '.join(by_rate)}")
        if kind == "misaligned" and self.false_positive_rate is None:
            raise AuditError("this result holds no false-positive rates; load one that AuditResult.save wrote")
        scores: dict[str, Any] = {**self.columns, "false_positive_rate": self.false_positive_rate}
        flagged = by_rate[kind](scores, None, rate)
        columns = {**self.columns, **reflag(self.columns, {f"is_{kind}": flagged})}
        summary = {**self.summary, **count_outcomes(columns)}
        if kind == "misaligned" and (estimated := reported_of(summary)):  # the precision is that of these flags
            known = precision_of_flags(estimated, np.asarray(columns["misalignment"]), np.asarray(flagged))
            summary["estimated"] = {**estimated, **precision_entries(known)}
        return replace(self, columns=columns, summary=summary)

    def save(self, path: str | Path) -> None:
        """Writes the whole result to one Parquet file, which `load` reads back.

        `.parquet` is appended to a path that does not end in it, here and in `load`.

        Raises:
            AuditError: if the disk is full or the place cannot be written.
        """
        columns = {**_row_names(self), **self.columns}
        if self.false_positive_rate is not None:
            columns["false_positive_rate"] = self.false_positive_rate
        footer = json.dumps({"summary": jsonable(self.summary), "run_dir": self.run_dir})
        write_table(_parquet_path(path), columns, footer)

    def export(  # noqa: PLR0913 (one per option of the command)
        self,
        to: str | Path,
        samples: Samples | None = None,
        format: str = "",  # noqa: A002 (as the option is called)
        *,
        drop: Sequence[str] = (),
        keep: Sequence[str] = (),
        top_n: int | None = None,
        verdicts: Mapping[tuple[str, int], Any] | None = None,
        dry_run: bool = False,
        relabel: bool = False,
        select: str | Path | None = None,
        manifest: str | Path | None = None,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Writes what stays of the audited rows to a new place, ready to train on, as `audit-plugin export` does.

        Args:
            to: the new file or folder; `removed.parquet` and the datasheet `audit.md` are written beside a file, and
                into a folder. A name that ends in .zip is a folder, packed.
            samples: the audited rows, where they are in memory; None: those of the manifest.
            format: one of `inputs.formats.FORMATS`; "": by the ending of `to`.
            drop: flags whose rows are removed, in place of what the audit proposes; of duplicates one stays.
            keep: flags whose rows stay, whatever is proposed for them.
            top_n: only the n most misaligned rows are removed.
            verdicts: decisions of people, by (id, caption), which overrule the audit: `review.verdicts`.
            dry_run: nothing is written.
            relabel: captions that the audit proposes are applied, not only those that a person decided.
            select: a table written by `audit-plugin select`, of the rows to export; None: all.
            manifest: in place of the one that the summary names, whose media must lie in its folder.
            progress: called with (stage, rows done, rows).

        Raises:
            AuditError: the place is taken, the rows are not those of the result, or a flag is not known.
        """
        from .export import Rules, SamplesSource, ScoreTable, export_rows, manifest_source
        from .export.selection import read_selection

        if samples is not None and manifest is not None:
            raise AuditError("samples and manifest are both given; give one of them")
        captions = np.array(self.captions, dtype=np.int64)
        table = ScoreTable(np.array(self.ids, dtype=object), captions, self.columns, self.summary, "the result")
        path = Path(manifest) if manifest is not None else None
        source = SamplesSource(samples) if samples is not None else manifest_source(self.summary, path, "the result")
        selection = read_selection(Path(select)) if select is not None else None
        rules = Rules(tuple(drop), tuple(keep), top_n, selection, relabel)
        return export_rows(table, source, Path(to), format, rules, verdicts, progress, dry_run)

    @classmethod
    def load(cls, path: str | Path) -> AuditResult:
        """The result that `save` wrote.

        Raises:
            AuditError: the file cannot be read, or was not written by `save`.
        """
        columns, footer = read_table(_parquet_path(path))
        content = json.loads(footer or "{}")
        if "summary" not in content or "id" not in columns:
            raise AuditError(f"{path} was not written by AuditResult.save; read tables of scores with pandas")
        ids, captions = tuple(columns.pop("id")), tuple(columns.pop("caption_index", np.zeros(0, int)).tolist())
        rate = columns.pop("false_positive_rate", None)
        return cls(ids, columns, current_names(content["summary"]), content["run_dir"], captions, rate)


def _parquet_path(path: str | Path) -> Path:
    return Path(path) if str(path).endswith(".parquet") else Path(f"{path}.parquet")


def write_scores(path: Path, result: AuditResult) -> None:
    """Writes one row per row of a result, in its order, and the run's summary as `<stem>.json` beside it.

    The format follows from the suffix, see `write_table`; the footer of Parquet holds config, versions and seed, which
    decide the scores, and nothing that differs between equal runs: equal results give equal bytes.

    Raises:
        AuditError: if the disk is full or the place cannot be written.
    """
    config = dict(result.summary.get("config", {}))
    scoring = [f.name for f in fields(AuditConfig) if f.metadata["scores"] and f.name in config]
    footer = {
        "config": {name: config[name] for name in scoring},
        "encoder": result.summary.get("encoder", {}),
        "seed": config.get("seed"),
        "versions": result.summary.get("versions", {}),
    }
    columns = {**_row_names(result), **result.columns}
    digest = write_table(path, columns, json.dumps(jsonable(footer), sort_keys=True))
    # a kill between the two files would leave this table with another run's summary: its readers compare the digest
    write_json(path.with_suffix(".json"), {**result.summary, "run_dir": result.run_dir, "table_sha256": digest})


def _row_names(result: AuditResult) -> dict[str, NDArray[Any]]:
    """`id`, and `caption_index` where samples have several captions."""
    columns: dict[str, NDArray[Any]] = {"id": np.array(result.ids, dtype=object)}
    if result.captions:
        columns["caption_index"] = np.array(result.captions, dtype=np.int64)
    return columns


def result_columns(prepared: Prepared, scored: Scored) -> dict[str, Any]:
    """The written table, in its order: higher is more suspicious, NaN is not scored."""
    samples, order, evidence = prepared.samples, prepared.order, scored.evidence
    scores = dict(scored.scores)
    named = named_modalities(scores, scored.flags)
    columns: dict[str, Any] = {}

    for name in [c for c in scores if c == "misalignment" or c.startswith("misalignment_")]:
        columns[name] = order.back(scores.pop(name), np.float32(np.nan))
    for name, values in named.items():
        columns[name] = order.back(values, "")
    columns["probability"] = order.back(scored.calibration.probability, np.float32(np.nan))
    if evidence.trials is not None and evidence.trials.roles is not None:
        columns["role"] = order.back(np.array(evidence.trials.roles, dtype=object), "")
    for name, of_score in scores.items():
        columns[name] = order.back(of_score, np.float32(np.nan))
        if name == "duplicate":
            columns["duplicate_group"] = order.back(_group_names(evidence, samples, order), "")
    if samples.splits:
        columns["leak"] = order.back(evidence.leaks.other_splits, "")
    for kind, values in scored.flags.items():
        columns[f"is_{kind}"] = order.back(values, False)
    verdicts = {
        name: order.back(values, "keep" if name == "action" else "") for name, values in scored.verdicts.items()
    }
    failures = prepared.embedded.failures
    failure = np.array([failures.get(row, "") for row in range(order.total)], dtype=object)
    shows_nothing = [row for row, why in failures.items() if is_box_fault(why)]  # a box that cannot be cut out
    if shows_nothing:
        columns["is_box_problem"][shows_nothing] = True
        verdicts["box_problem"][shows_nothing] = failure[shows_nothing]
    columns |= {name: values for name, values in verdicts.items() if name not in rules.PROBLEMS or (values != "").any()}
    columns["failure"] = failure
    columns["action"][columns["failure"] != ""] = "fix"
    columns["reason"][columns["failure"] != ""] = "not scored: see failure"
    return columns


def _group_names(evidence: Evidence, samples: Samples, order: Order) -> Any:
    """Id of the group's representative (its first sample in canonical order) for groups of two or more."""
    out = np.full(len(evidence), "", dtype=object)
    for group in evidence.copy_groups.values():
        _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
        for i in np.flatnonzero((count_user_groups(group, evidence.user_groups) > 1) & (out == "")):
            out[i] = samples.ids[order.rows[first[inverse[i]]]]
    return out


def summarize(
    columns: Mapping[str, Any], prepared: Prepared, scored: Scored, config: AuditConfig, notes: Sequence[str]
) -> dict[str, Any]:
    """The summary of a result: counts, reliability, probe recall, settings, versions and notes."""
    evidence, embedded = scored.evidence, prepared.embedded
    memory, memory_notes = memory_summary(scored, config)
    misalignment, flagged = scored.scores["misalignment"], scored.flags["misaligned"]
    is_told = evidence.trials is not None  # of sets too small to train on, nobody has checked the model
    share_space = any(evidence.space[a] and evidence.space[a] == evidence.space[b] for a, b in evidence.pairs)
    return {
        "samples": len(prepared.samples),
        **count_outcomes(columns),
        **memory,
        "probe_recall": {kind: round(value, 4) for kind, value in scored.probe_recall.items()},
        "estimated_wrong_share": _rounded(scored.calibration.share) if is_told else None,
        "estimated": summarize_wrong_pairs(scored.calibration, misalignment, flagged, share_space) if is_told else {},
        "weights": {f"{a}_{b}": dict(weights) for (a, b), weights in evidence.weights.items()},
        "repairs": [repair.to_dict() for repair in scored.repairs],
        "suggestions": {"captions": int((columns["suggestion"] != "").sum()), "same_caption_again": scored.same_again},
        "trained": evidence.trials.trained if evidence.trials else "nothing",
        "neighbors": {space: dict(how) for space, how in evidence.search.items()},
        "encoder": {m: encoder.key for m, encoder in prepared.encoder_identities.items()},
        "encoded_now": dict(embedded.encoded),
        "notes": [*notes, *scored.notes, *memory_notes, *text_notes(prepared)],
        "false_positive_rate": config.false_positive_rate,
        "config": config.to_dict(),
        "versions": versions(),
    }


def count_outcomes(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of failures, of each flag and of each action."""
    return {
        "failures": int((columns["failure"] != "").sum()),
        "flags": {kind: int(columns[f"is_{kind}"].sum()) for kind in rules.FLAGS if f"is_{kind}" in columns},
        "actions": {a: int((columns["action"] == a).sum()) for a in ACTIONS},
    }


def memory_summary(scored: Scored, config: AuditConfig) -> tuple[dict[str, Any], list[str]]:
    """(summary of MultiMem over the set, notes for people).

    Reliability; the bulk's median and the cut beyond which a sample is called memorized; the mean of the top
    per cent as chosen and on trials that had no part in the choice; who drives the scores; the groups of a split.
    """
    trials = scored.evidence.trials
    if trials is None:
        return {"reliability": None, "trials": 0}, []
    notes = []
    values = multimem.adjusted_consistency(trials)
    measured = multimem.reliability(values, trials.member, trials.folds)
    if np.isfinite(measured) and measured < RELIABLE:
        need = multimem.trials_needed(measured, len(trials.member), RELIABLE, trials.folds)
        notes.append(f"reliability of MultiMem is {measured:.2f}, below {RELIABLE}; about {need} trials would reach it")
    finite = scored.scores["multimem"][np.isfinite(scored.scores["multimem"])]
    columns = {**scored.scores, "probability": scored.calibration.probability}
    top = max(len(finite) // 100, min(10, len(finite)))
    chosen, fresh = multimem.top_mean(values, trials.member, top, trials.folds)
    out: dict[str, Any] = {
        "reliability": _rounded(measured),
        "trials": len(trials.member),
        "memorized": {
            "median": _rounded(float(np.median(finite))) if len(finite) else None,
            "cut": _rounded(rules.memorized_cut(columns, config.false_positive_rate)),
            "top": top,
            "top_mean_as_chosen": _rounded(chosen),
            "top_mean_on_other_trials": _rounded(fresh),
        },
        "attribution": {},
    }
    total = float(np.nansum(scored.scores["multimem"]))
    for name in [name for name in scored.scores if name.startswith("multimem_")]:  # of pairs, and due to modalities
        if name not in ("multimem_stderr", "multimem_mean") and total:
            share = float(np.nansum(scored.scores[name])) / total
            out["attribution"][name.removeprefix("multimem_")] = round(share, 4)
    if trials.roles is not None:
        f_minus_g = values[0::2] - values[1::2]
        out["protocol"] = group_report(f_minus_g, trials.roles)
        notes.append(
            f"split protocol: {(trials.roles == 'reference').sum()} samples are the reference H and are not scored; "
            "MultiMem is given for candidates (f) and, mirrored, for independent samples (g)"
        )
    return out, notes


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def versions() -> dict[str, str]:
    """Versions of what the scores depend on."""
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed
