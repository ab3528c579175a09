"""Rows to review as annotations of CVAT, and what people made of them as decisions.

CVAT reads annotations of a task's images from XML ("CVAT for images 1.1"), matched by the names of the files. Each row
is a tag of its image, or the box of an object, with the label `audit`; its attributes show the text, the suggestion and
the evidence, and the attribute `decision` is chosen by people. The same file comes back from an export.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Xml

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.spreadsheet import harmless, original

from .decisions import Decision
from .tasks import DECISIONS, ReviewTask, below_root, check_xml, common_root, kind_of, time_of

LABEL, UNDECIDED = "audit", "undecided"
MOST_CHARACTERS = 4096  # of an attribute's value in CVAT
SHOWN = ("text", "suggestion", "evidence", "proposal")
CARRIED = ("sample", "caption_index", "run", "digest")
CUT = "…"


def cvat_labels() -> list[dict[str, Any]]:
    """The labels of a task, as CVAT's form "Raw" takes them."""

    def attribute(name: str, kind: str, values: Sequence[str], mutable: bool) -> dict[str, Any]:
        default = values[0]
        return {"name": name, "input_type": kind, "mutable": mutable, "values": [*values], "default_value": default}

    chosen = attribute("decision", "select", [UNDECIDED, *DECISIONS], False)
    texts = [attribute(name, "text", [""], False) for name in ("new_text", *SHOWN, *CARRIED)]
    return [{"name": LABEL, "type": "any", "attributes": [chosen, *texts]}]


def cvat_annotations(tasks: Sequence[ReviewTask], run: str, media_root: str = "") -> bytes:
    """The annotations of the images in the order of the tasks, as XML.

    Args:
        tasks: rows to review, of images.
        run: key of the audit.
        media_root: the folder to which names are relative, as they are in the task; "": the deepest that holds them.

    Raises:
        AuditError: other media than images, or a file that lies elsewhere.
    """
    if others := sorted({task.media for task in tasks} - {"image"}):
        raise AuditError(f"CVAT takes annotations of images here, but rows are {others[0]}; use --format label-studio")
    media_root = media_root or common_root([task.path for task in tasks])
    root = Xml.Element("annotations")
    Xml.SubElement(root, "version").text = "1.1"
    images: dict[str, Xml.Element] = {}
    for task in tasks:
        if task.path not in images:
            size = dict(zip(("width", "height"), map(str, task.size), strict=True)) if all(task.size) else {}
            name = below_root(task.path, media_root)
            if not _fits_xml(name):
                raise AuditError(f"the name {name!r} has a character that XML cannot hold; rename the file")
            images[task.path] = Xml.SubElement(root, "image", {"id": str(len(images)), "name": name, **size})
        _add_row(images[task.path], task, run)
    Xml.indent(root)
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def image_names(tasks: Sequence[ReviewTask], media_root: str = "") -> list[str]:
    """The names of the images, most suspicious first: the order in which a task should have them."""
    media_root = media_root or common_root([task.path for task in tasks])
    return [below_root(path, media_root) for path in dict.fromkeys(task.path for task in tasks)]


def _add_row(image: Xml.Element, task: ReviewTask, run: str) -> None:
    if task.box and all(task.size):
        left, top, width, height = task.box
        ends = (left * task.size[0], top * task.size[1], (left + width) * task.size[0], (top + height) * task.size[1])
        corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{end:.2f}" for end in ends), strict=True))
        row = Xml.SubElement(
            image, "box", {"label": LABEL, "source": "auto", "occluded": "0", **corners, "z_order": "0"}
        )
    else:
        row = Xml.SubElement(image, "tag", {"label": LABEL, "source": "auto"})
    values = {
        "decision": UNDECIDED,
        "new_text": "",
        "text": task.text,
        "suggestion": task.suggestion,
        "evidence": "\n".join(task.evidence),
        "proposal": task.action,
        "sample": task.name,
        "caption_index": str(task.caption),
        "run": run,
        "digest": task.digest,
    }
    for name, value in values.items():
        cell = harmless(value, one_line=True)
        shown = cell if len(cell) <= MOST_CHARACTERS else cell[: MOST_CHARACTERS - len(CUT)] + CUT
        Xml.SubElement(row, "attribute", {"name": name}).text = shown


def decisions_from_cvat(data: bytes) -> list[Decision]:
    """The decisions of an export in the format "CVAT for images 1.1", in its order; rows left undecided have none.

    CVAT names no reviewer and no time for one annotation: they are those of the job or task, and of the export.

    Raises:
        AuditError: the file is no such export, or a row cannot be used; names its image.
    """
    check_xml(data, "the file of annotations")
    root = Xml.fromstring(data)
    if root.tag != "annotations":
        raise AuditError(f"the XML holds <{root.tag[:40]}>, not <annotations>; export as 'CVAT for images 1.1'")
    who = next((user.text for user in root.iterfind("meta//assignee/username") if user.text), "") or ""
    when = (root.findtext("meta/dumped") or "").strip()
    decisions = []
    for image in root.iterfind("image"):
        for row in (*image.iterfind("tag"), *image.iterfind("box")):
            if row.get("label") == LABEL:
                values = {str(entry.get("name")): entry.text or "" for entry in row.iterfind("attribute")}
                where = f"image {image.get('name', '')[:80]!r}"
                if values.get("decision", UNDECIDED) not in ("", UNDECIDED):
                    decisions.append(_decision(values, where, who, when))
    return decisions


def _decision(values: Mapping[str, str], where: str, who: str, when: str) -> Decision:
    if missing := [name for name in CARRIED if name not in values]:
        raise AuditError(f"{where} has a row without {missing[0]!r}; use the labels that `review export` wrote")
    kind = kind_of(values["decision"], where)
    text = ""
    if kind == "relabel":
        # typed texts are as they are; a suggestion was escaped when it was written
        text = values.get("new_text") or _suggestion(values.get("suggestion", ""), where)
    position = values["caption_index"]
    if not (position.isascii() and position.isdecimal() and len(position) < 10):
        raise AuditError(f"{where}: caption_index is {position[:40]!r}, not a position; export the annotations again")
    sample, run, digest = (original(values[name]) for name in ("sample", "run", "digest"))
    return Decision(sample, kind, int(position), text=text, digest=digest, reviewer=who, time=time_of(when), run=run)


def _suggestion(cell: str, where: str) -> str:
    if len(cell) == MOST_CHARACTERS and cell.endswith(CUT):
        raise AuditError(f"{where}: the suggestion is too long to come back from CVAT; type the text into new_text")
    return original(cell)


def _fits_xml(text: str) -> bool:
    return all(character.isprintable() or character == " " for character in text)
