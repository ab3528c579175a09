"""The command that shows, within a minute of the installation, what an audit finds in a small real set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from audit_plugin.config import AuditConfig

from .manifests import read_samples
from .options import NOTHING_SCORED, app, stop
from .running import audited

WORST = 10


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for images, manifest and scores")] = Path("audit-quickstart"),
) -> None:
    """Audit 300 handwritten digits, the captions of ten exchanged, and list the ten worst pairs. Needs no network."""
    from audit_plugin.audit.result import write_scores
    from audit_plugin.report.display import any_score, console, show_table
    from audit_plugin.synthetic.quickstart import write_digits

    digits = write_digits(out)
    # the encoders that come with the installation, and few trials: it shall take seconds
    config = AuditConfig(image="image", text="caption", encoder="offline", trials=8)
    rows, config = read_samples(digits.manifest, config)
    result = audited(rows, config)
    if not any_score(result):
        stop(NOTHING_SCORED, f"nothing could be scored: {next((f for f in result.columns['failure'] if f), '')}")
    scores = out / "scores.parquet"
    write_scores(scores, replace(result, summary={**result.summary, "manifest": str(digits.manifest.absolute())}))

    table = result.to_pandas().assign(caption=rows.media["text"]).nlargest(WORST, "misalignment")
    own = [digits.originals.get(name, "") for name in table.index]
    truth = [f"exchanged: shows {'an' if name == 'eight' else 'a'} {name}" if name else "" for name in own]
    scores_of_rows = [f"{score:.2f}" for score in table["misalignment"]]
    show_table(
        console(),
        f"The {WORST} worst of {len(rows)} pairs",
        ("id", "misalignment", "caption", ""),
        zip(table.index, scores_of_rows, table["caption"], truth, strict=True),
        [f"{sum(map(bool, own))} of these {WORST} were exchanged before the audit, of {len(digits.originals)} in all"],
        [
            f"to see them with the evidence: audit-plugin report {scores}",
            "your own data: audit-plugin score pairs.csv --image IMAGE_COLUMN --text CAPTION_COLUMN",
        ],
    )
