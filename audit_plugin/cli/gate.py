"""The options `--fail-if`, `--junit` and `--markdown`: conditions on the result under which a command fails."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import AuditError

from .options import say
from .running import check_output

if TYPE_CHECKING:
    from audit_plugin.arrays import Samples
    from audit_plugin.audit.gate import Condition

FailIf = Annotated[
    list[str] | None,
    typer.Option(
        help="Exit with code 3 where this holds, such as 'misaligned > 2%' or 'duplicate >= 10': a flag, leak or "
        "failed, and a number or percentage of rows; several: repeated, or separated by commas. Estimates are judged "
        "by the lower end of their 90% interval"
    ),
]
Junit = Annotated[Path | None, typer.Option(help="With --fail-if: JUnit report to write, .xml")]
Markdown = Annotated[Path | None, typer.Option(help="With --fail-if: Markdown summary to write, .md")]
ENDINGS = {"--junit": ".xml", "--markdown": ".md"}
OPTIONS = {"fail_if": FailIf, "junit": Junit, "markdown": Markdown}


@dataclass(frozen=True)
class Gate:
    """The conditions of a command, and the files to write: see `gated`."""

    conditions: tuple[Condition, ...] = ()
    junit: Path | None = None
    markdown: Path | None = None

    def check(self, *others: Path, samples: Samples | None = None, dry_run: bool = False) -> None:
        """Raises `AuditError`, before any work is done, for files that cannot be written, and in a dry run.

        Such are `others`, the inputs and outputs of the command, media of the samples, and files of other programs.
        """
        from audit_plugin.report.gate import is_gate_report

        if dry_run and self.conditions:
            raise AuditError("--fail-if judges an audit, and --dry-run makes none; leave one of them out")
        named = [(o, path) for o, path in (("--junit", self.junit), ("--markdown", self.markdown)) if path is not None]
        for option, path in named:
            if not self.conditions:
                raise AuditError(f"{option} needs --fail-if, whose outcome it reports; add a condition")
            check_output(path, (ENDINGS[option],), *others, samples=samples, option=option)
            if path.absolute() in [other.absolute() for other in others]:  # it may not exist yet
                raise AuditError(f"{option} {str(path)!r} is another output of this command; name another file")
            if path.exists() and not is_gate_report(path):
                raise AuditError(
                    f"{option} {str(path)!r} is not a report of this tool and would be replaced; name another"
                )

    def report(self, columns: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
        """Judges a result, writes the files and prints the outcome; the sentence to fail with, "" where it passes."""
        if not self.conditions:
            return ""
        from audit_plugin.audit.gate import judge
        from audit_plugin.report.gate import headline, junit_xml, markdown_summary, outcome
        from audit_plugin.store import write_bytes

        judgments = judge(self.conditions, columns, summary)
        contents = ((self.junit, junit_xml(judgments)), (self.markdown, markdown_summary(judgments).encode()))
        for path, content in contents:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, content)
        for judgment in judgments:
            say(f"{outcome(judgment)}: {judgment.condition}: {judgment.sentence()}")
        if any(judgment.fails for judgment in judgments):
            return headline(judgments)
        say(headline(judgments))
        return ""


def gated(body: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of the gate to a command, which receives them as `gate`."""

    @functools.wraps(body)
    def run(
        *arguments: Any, fail_if: list[str] | None, junit: Path | None, markdown: Path | None, **values: Any
    ) -> None:
        conditions: tuple[Condition, ...] = ()
        if fail_if:
            from audit_plugin.audit.gate import parse_conditions

            conditions = parse_conditions(fail_if)
        body(*arguments, gate=Gate(conditions, junit, markdown), **values)

    own = [p for p in inspect.signature(body, eval_str=True).parameters.values() if p.name != "gate"]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in OPTIONS.items()
    ]
    run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *options)}
    return run
