"""Media with a text file of the same name beside each, as img2dataset (`files`) and trainers of LoRA have them.

The text is in `a.txt` or `a.caption`, or it is the caption in `a.json`; that of a sound may be in LibriSpeech's lists.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.inputs.located import Located
from audit_plugin.inputs.names import USUAL_NAMES, columns_called
from audit_plugin.inputs.rows import ID_COLUMN, brief

from .folders import LOOKED_AT, NOUNS, endings_of, files_below, name_problem, names_of, read_text, walk
from .source import Row, Source

TEXT_ENDINGS = (".txt", ".caption")
WRITTEN = (*TEXT_ENDINGS, ".TXT", ".CAPTION")  # as files have them
LIST_ENDING = ".trans.txt"  # of LibriSpeech: lines of a name without ending, a blank, and what is said
MAX_TEXT_BYTES = 1 << 20
_BOX_LINE = re.compile(r"\d+(\s+-?[\d.]+(e-?\d+)?){4,}")


class MediaTextSource:
    """The media of one modality below a folder, each with the text beside it.

    Where a medium has a `.txt` and a `.caption`, these are two columns, of which one is named.
    """

    def __init__(self, folder: Path, modality: str) -> None:
        self.path = self.folder = folder
        self._modality = modality
        self.title = f"{NOUNS[modality]} with texts beside them"
        self._has_both = self._finds_both()
        names = [ending.removeprefix(".") for ending in TEXT_ENDINGS] if self._has_both else ["text"]
        self.header = [ID_COLUMN, modality, *names]
        self.columns: Mapping[str, str] = {modality: modality} | ({} if self._has_both else {"text": "text"})
        self.notes: list[str] = []

    def _finds_both(self) -> bool:
        """Whether a medium has a `.txt` and a `.caption`."""
        counts = Counter(os.path.splitext(path)[0] for path in files_below(self.folder, TEXT_ENDINGS))
        doubled = (str(self.folder / stem) for stem, count in counts.items() if count > 1)
        return any(os.path.lexists(stem + ending) for stem in doubled for ending in endings_of(self._modality))

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """One row per medium; the text is missing where none is beside it."""
        paths = files_below(self.folder, endings_of(self._modality))
        texts = set(files_below(self.folder, (*TEXT_ENDINGS, ".json")))
        if not paths:
            raise AuditError(f"{str(self.folder)!r} holds no {self._modality} files; name the folder that does")
        listed = _listed_texts(self.folder, texts) if self._modality == "audio" else {}
        stems = {os.path.splitext(path)[0] for path in paths}
        if any(path.endswith(WRITTEN) and os.path.splitext(path)[0] in stems for path in texts):
            texts = {path for path in texts if not path.endswith(".json")}  # with texts, JSON holds other things
        lists = (LIST_ENDING, ".json")
        alone = sum(os.path.splitext(path)[0] not in stems and not path.endswith(lists) for path in texts)
        self.notes = [f"left out: {count_text(alone, 'text')} without its {self._modality} beside it"] if alone else []
        for path, name in zip(paths, names_of(paths), strict=True):
            try:
                if problem := name_problem(path):
                    raise ValueError(problem)
                cells = self._texts_of(os.path.splitext(path)[0], texts, listed)
            except ValueError as error:
                yield Row(key=name, problem=str(error))
                continue
            yield Row({ID_COLUMN: name, self._modality: Located(str(self.folder / path)), **cells})

    def _texts_of(self, stem: str, texts: Collection[str], listed: Mapping[str, str]) -> dict[str, str | None]:
        """Column -> the text of a medium; raises `ValueError` where one cannot be read."""
        beside = [stem + ending for ending in WRITTEN if stem + ending in texts]
        if self._has_both:
            whole = {os.path.splitext(path)[1].lower().removeprefix("."): self._read(path) for path in beside}
            return {name: whole.get(name) for name in self.header[2:]}
        if beside:
            return {"text": self._read(beside[0])}
        if stem + ".json" in texts:
            return {"text": caption_in(self.folder / f"{stem}.json")}
        return {"text": listed.get(stem)}

    def _read(self, path: str) -> str:
        return read_text(self.folder / path, MAX_TEXT_BYTES).strip("\r\n")


def caption_in(path: Path) -> str | None:
    """The caption in a JSON file beside a medium, None where it has none.

    Raises:
        ValueError: it cannot be read, or several of its fields could be the caption.
    """
    try:
        fields = json.loads(read_text(path, MAX_TEXT_BYTES))
    except RecursionError:
        raise ValueError(f"{brief(path.name)} is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{brief(path.name)} cannot be parsed as JSON ({error.msg})") from None
    named = columns_called(USUAL_NAMES["text"], [*fields]) if isinstance(fields, dict) else []
    captions = {fields[name] for name in named if isinstance(fields[name], str)}
    if len(captions) > 1:
        raise ValueError(f"{brief(path.name)} holds different texts under {' and '.join(map(repr, named[:4]))}")
    return next(iter(captions), None)


def _listed_texts(folder: Path, texts: Collection[str]) -> dict[str, str]:
    """Path without ending -> text, of the lists of LibriSpeech, which lie beside the sounds."""
    listed: dict[str, str] = {}
    for path in sorted(text for text in texts if text.endswith(LIST_ENDING)):
        try:
            lines = read_text(folder / path, MAX_TEXT_BYTES).splitlines()
        except ValueError as error:
            raise AuditError(f"{error}; correct the file") from None
        parts = (line.partition(" ") for line in lines)
        listed |= {os.path.join(os.path.dirname(path), name): text for name, _, text in parts if text}
    return listed


def is_media_text(folder: Path, modality: str) -> bool:
    """Whether most of the first media below a folder have a text beside them."""
    files, with_text = 0, 0
    for path in itertools.islice(walk(folder, endings_of(modality), LOOKED_AT), LOOKED_AT):
        files += 1
        with_text += bool(_text_of(folder, path)) or _is_listed(folder, path)
        if files >= 20 and with_text == 0:
            return False
    return 2 * with_text > files


def open_media_text(folder: Path, modality: str) -> list[Source]:
    """The source of a folder; raises `AuditError` where the texts are boxes of YOLO."""
    for path in itertools.islice(walk(folder, endings_of(modality), LOOKED_AT), 20):
        if (text := _text_of(folder, path)).endswith(WRITTEN):
            try:
                lines = read_text(text, MAX_TEXT_BYTES).split("\n")
            except ValueError:
                continue
            if any(_BOX_LINE.fullmatch(line.strip()) for line in lines):
                raise AuditError(
                    f"{os.path.basename(text)} beside the images in {str(folder)!r} holds boxes of YOLO; add a "
                    "data.yaml with `train: .` and the `names` of the classes"
                )
    return [MediaTextSource(folder, modality)]


def _text_of(folder: Path, medium: str) -> str:
    """The text file of a medium; a JSON file only where it holds a caption."""
    stem = os.path.splitext(str(folder / medium))[0]
    for ending in WRITTEN:
        if os.path.lexists(stem + ending):
            return stem + ending
    try:
        return f"{stem}.json" if os.path.isfile(f"{stem}.json") and caption_in(Path(f"{stem}.json")) else ""
    except ValueError:
        return ""


def _is_listed(folder: Path, medium: str) -> bool:
    """Whether a list of LibriSpeech is beside a sound: `84-121123-0001.flac` is in `84-121123.trans.txt`."""
    return os.path.isfile(folder / f"{medium.rpartition('-')[0]}{LIST_ENDING}")


TEXT_READERS = {
    f"{modality}-text": (partial(open_media_text, modality=modality), partial(is_media_text, modality=modality))
    for modality in NOUNS
}
