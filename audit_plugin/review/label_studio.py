"""Rows to review as tasks of Label Studio, and its annotations as decisions.

Tasks are in its JSON format for imports, most suspicious first, the audit's proposal as a prediction. Annotations are
read from its exports JSON and JSON-MIN. Captions are hostile text: `Text` tags show them as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.spreadsheet import visible

from .checks import shortened
from .decisions import Decision
from .tasks import DECISIONS, ReviewTask, below_root, kind_of, seconds_of, text_at, time_of

MODEL = "audit-plugin"
LOCAL_FILES = "/data/local-files/?d="  # where Label Studio serves files of its own machine
TAGS = {"image": "Image", "audio": "Audio", "video": "Video"}
CONFIG = """<View>
  <{tag} name="media" value="$media"/>{box}
  <Header value="Text"/>
  <Text name="text" value="$text" valueType="text"/>
  <Header value="Suggestion of the audit"/>
  <Text name="suggestion" value="$suggestion" valueType="text"/>
  <Header value="Evidence"/>
  <Text name="evidence" value="$evidence" valueType="text"/>
  <Choices name="decision" toName="media" choice="single-radio" required="true" showInline="true">
{choices}
  </Choices>
  <TextArea name="new_text" toName="media" rows="2" maxSubmissions="1" editable="true"
            placeholder="relabel: the new text; empty: the suggestion"/>
</View>
"""
RECTANGLE = '\n  <Rectangle name="box" toName="media" canRotate="false"/>'


def label_studio_config(tasks: Sequence[ReviewTask]) -> str:
    """The labeling interface of a project for the tasks, which have one kind of media."""
    kinds = sorted({task.media for task in tasks})
    if len(kinds) > 1 or not set(kinds) <= set(TAGS):
        raise AuditError(
            f"the rows hold media of the kinds {', '.join(kinds)}; export rows of one of {', '.join(TAGS)}"
        )
    choices = "\n".join(f'    <Choice value="{decision}"/>' for decision in DECISIONS)
    box = RECTANGLE if any(task.box for task in tasks) else ""
    return CONFIG.format(tag=TAGS[kinds[0]] if kinds else TAGS["image"], box=box, choices=choices)


def label_studio_tasks(tasks: Sequence[ReviewTask], run: str, media_root: str = "/") -> str:
    """The tasks as JSON, ASCII only, in their order.

    Args:
        tasks: rows to review.
        run: key of the audit.
        media_root: the folder that Label Studio serves, its `LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`.

    Raises:
        AuditError: a file lies elsewhere.
    """
    records = [_task(task, rank, run, media_root) for rank, task in enumerate(tasks, 1)]
    return json.dumps(records, indent=1) + "\n"


def _task(task: ReviewTask, rank: int, run: str, media_root: str) -> dict[str, Any]:
    data = {
        "media": LOCAL_FILES + quote(below_root(task.path, media_root)),
        "text": visible(task.text),
        "suggestion": visible(task.suggestion),
        "evidence": visible("\n".join(task.evidence)),
        "rank": rank,
        # what comes back with the annotations, and is not shown
        "audit": {
            "sample": task.name,
            "caption": task.caption,
            "run": run,
            "digest": task.digest,
            "suggestion": task.suggestion,
        },
    }
    prediction: dict[str, Any] = {"model_version": MODEL, "result": _proposed(task)}
    if math.isfinite(task.score):
        prediction["score"] = round(task.score, 4)
    return {"data": data, "predictions": [prediction]}


def _proposed(task: ReviewTask) -> list[dict[str, Any]]:
    def region(name: str, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": name, "from_name": name, "to_name": "media", "type": kind, "value": value}

    regions = []
    if task.box:
        x, y, width, height = (round(100 * side, 4) for side in task.box)
        box = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
        regions.append(region("box", "rectangle", box))
    if task.proposal:
        regions.append(region("decision", "choices", {"choices": [task.proposal]}))
    if task.proposal == "relabel":
        regions.append(region("new_text", "textarea", {"text": [visible(task.suggestion)]}))
    return regions


def decisions_from_label_studio(text: str) -> list[Decision]:
    """The decisions of an export, JSON or JSON-MIN, in its order; tasks that nobody annotated have none.

    Raises:
        AuditError: the file is no such export, or an annotation cannot be used; names the task.
    """
    try:
        tasks = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise AuditError(f"the annotations are not valid JSON ({error}); export them again") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise AuditError("the annotations are not a list of tasks; export them from Label Studio as JSON or JSON-MIN")
    return [decision for number, task in enumerate(tasks, 1) for decision in _decisions(task, f"task {number}")]


def _decisions(task: Mapping[str, Any], where: str) -> Iterator[Decision]:
    """One per annotator."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    audit = data.get("audit")
    if not isinstance(audit, dict) or not audit.get("sample"):
        raise AuditError(
            f"{where} has no data.audit.sample; import tasks that `review export` wrote, with all their data"
        )
    if "annotations" not in task:
        if "decision" in task:  # JSON-MIN: a row per annotation
            yield _decision(audit, task, _first(task, "decision", where), _first(task, "new_text", where), where)
        return
    for annotation in _list(task["annotations"], where):
        if annotation.get("was_cancelled"):
            yield _decision(audit, annotation, "skip", "", where)
            continue
        values = {
            str(region.get("from_name")): region.get("value") for region in _list(annotation.get("result"), where)
        }
        decision = _first(values, "decision", where)
        if decision:
            yield _decision(audit, annotation, decision, _first(values, "new_text", where), where)


def _decision(audit: Mapping[str, Any], annotation: Mapping[str, Any], kind: str, typed: str, where: str) -> Decision:
    suggestion = text_at(audit, "suggestion", where)
    text = ""
    if kind == "relabel":
        # what was proposed, and left as it is, is the suggestion itself and not how it was shown
        text = suggestion if typed in ("", visible(suggestion)) else typed
    return Decision(
        text_at(audit, "sample", where),
        kind if kind == "skip" else kind_of(kind, where),
        audit.get("caption") or 0,
        text=text,
        digest=text_at(audit, "digest", where),
        reviewer=_reviewer(annotation, where),
        time=time_of(annotation.get("updated_at") or annotation.get("created_at")),
        run=text_at(audit, "run", where),
        seconds=seconds_of(annotation.get("lead_time")),
    )


def _reviewer(annotation: Mapping[str, Any], where: str) -> str:
    """Who annotated: an address, or the number of a user."""
    user = annotation.get("completed_by", annotation.get("annotator"))
    if isinstance(user, dict):
        user = user.get("email") or user.get("id")
    if isinstance(user, str):
        return user
    if isinstance(user, int) and not isinstance(user, bool):
        return f"label-studio user {user}"
    if user is None:
        return ""
    raise AuditError(f"{where}: the annotator is {shortened(user)}; export the annotations again")


def _first(values: Mapping[str, Any], name: str, where: str) -> str:
    """The only text of a control: a text, a list of one, or an object with such a list."""
    value = values.get(name)
    if isinstance(value, dict):
        value = value.get("choices", value.get("text"))
    if isinstance(value, list):
        if len(value) > 1:
            raise AuditError(f"{where} has {len(value)} values of {name}; leave one of them")
        value = value[0] if value else ""
    if value is not None and not isinstance(value, str):
        raise AuditError(f"{where}: {name} is {shortened(value)}, not a text; export the annotations again")
    return value or ""


def _list(value: Any, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise AuditError(f"{where} holds {shortened(value)} where a list of annotations belongs; export them again")
    return value
