"""Command that asks a vision-language model for a second opinion on the pairs of a finished audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import AuditError

from .datasets import scored_rows
from .manifests import MediaRoot, ScoredManifest
from .options import app, say
from .running import check_beside, check_output, shown_progress

if TYPE_CHECKING:
    from audit_plugin.arrays import Samples


@app.command()
def judge(
    scores: Annotated[Path, typer.Argument(help="Table written by score (.parquet)")],
    *,
    url: Annotated[
        str,
        typer.Option(help="Address of an OpenAI-compatible API, such as http://localhost:8000/v1 of vLLM or llama.cpp"),
    ],
    model: Annotated[str, typer.Option(help="Name of the vision-language model there")],
    budget: Annotated[
        int, typer.Option(min=1, max=100_000, help="Pairs to ask about at most, a quarter of them drawn at random")
    ] = 200,
    out: Annotated[
        Path, typer.Option(help="Table to write, the scores with the judge's columns: .parquet, .csv or .jsonl")
    ] = Path("judged.parquet"),
    manifest: ScoredManifest = None,
    media_root: MediaRoot = None,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Send to another machine over http://, unencrypted")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and to whom, without sending")
    ] = False,
) -> None:
    """Ask a vision-language model about suspicious pairs: images and captions are sent to the server of --url.

    The key is taken from the environment variable AUDIT_JUDGE_KEY.
    """
    from audit_plugin import judge as judging
    from audit_plugin.audit.result import AuditResult, write_scores
    from audit_plugin.report import read_scores, read_summary

    to = judging.endpoint(url, model, allow_http)
    check_output(out, (".parquet", ".csv", ".jsonl"), scores, *([Path(manifest)] if manifest else []))
    check_beside(out, (".json",), scores)
    columns = read_scores(scores)
    summary = {"versions": {}, **read_summary(scores)}  # by that key a summary is known as ours and replaced
    ids, captions = tuple(map(str, columns.pop("id"))), tuple(map(int, columns.pop("caption_index", ())))
    columns = {name: values for name, values in columns.items() if name not in judging.COLUMNS}
    result = AuditResult(ids, columns, summary, str(summary.get("run_dir") or ""), captions)
    questions = judging.plan_questions(
        result, _rows(scores, manifest, media_root), to, out.with_name(f"{out.stem}-answers"), budget
    )
    for line in questions.lines():
        say(line)
    if dry_run:
        say("nothing was sent")
        return
    with shown_progress() as progress:
        judged = judging.ask_judge(questions, progress)
    write_scores(out, judged)
    for line in _found(judged.summary["judge"]):
        say(line)
    say(f"judged: {out}; answers: {questions.folder}")


def _rows(scores: Path, manifest: str | None, media_root: Path | None) -> Samples:
    """The rows of a manifest, named or else recorded; of one that a table names, from its folder only."""
    from audit_plugin.audit.export import recorded_place
    from audit_plugin.report import recorded_manifest

    if manifest:
        return scored_rows(scores, manifest, media_root=media_root)[0]
    if not (recorded := recorded_manifest(scores)):
        raise AuditError("the images and captions are in the manifest that was scored; name it: --manifest")
    path, folder = recorded_place(recorded)
    root = media_root or folder
    say(f"manifest, as recorded in {scores.stem}.json: {recorded}; media are read from {root} only")
    return scored_rows(scores, path, media_root=root)[0]


def _found(summary: dict[str, Any]) -> list[str]:
    """What the judge found, in lines."""
    suspicious, control = summary["asked"] - summary["control"], summary["control"]
    in_control = summary["found_wrong_in_control"]
    lines = [
        f"found wrong: {summary['found_wrong'] - in_control:,} of {suspicious:,} suspicious pairs, {in_control:,} of "
        f"{control:,} control pairs"
    ]
    if rates := summary.get("rates"):
        lines.append(
            f"estimated: the judge finds {rates['sensitivity']:.0%} of wrong pairs, and calls "
            f"{rates['false_alarms']:.0%} of right ones wrong"
        )
    else:
        lines.append("too few answers, or no more in agreement with our probabilities than tossed coins: these stay")
    return lines + [f"no answer: {count:,} ({why})" for why, count in summary["failures"].items()]
