"""COCO: `annotations.json` with captions, or with boxes where the samples are objects in images, and the images."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.image_size import upright_size

from .values import ExportSample, Layout, MediaFolder, Medium, as_json


class ImageFiles:
    """Images of an export, of which each is copied once, however many objects or captions it has.

    Args:
        folder: of the export.
        form: name of the format, for messages.
        layout: of the source; `AuditError` if it has no images.
    """

    def __init__(self, folder: Path, form: str, layout: Layout) -> None:
        if "image" not in layout.media:
            raise AuditError(
                f"{form} holds images, but {', '.join(layout.columns)} were audited; choose another format"
            )
        self._folder = folder
        self._files = MediaFolder(folder, "images")
        self._numbers: dict[int, int] = {}
        self._count = 0

    def add(self, sample: ExportSample) -> tuple[int, str, tuple[int, int]]:
        """(number of the image, its path or "" if it was there, width and height in pixels or 0)."""
        medium = sample.media.get("image")
        if medium is None:
            raise MediaError("has no image")
        key = _key(medium)
        if key in self._numbers:
            return self._numbers[key], "", (0, 0)
        path = self._files.copy(sample.id, medium, "image")
        try:
            size = upright_size(str(self._folder / path))
        except MediaError:
            (self._folder / path).unlink()
            raise
        self._count += 1
        self._numbers[key] = self._count
        return self._count, path, size


def _key(medium: Medium) -> int:
    content = medium if isinstance(medium, bytes) else b"path " + medium.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "big")


class CocoWriter:
    """Writes annotations with a caption each; or, of objects, with a box and a category, which is the text."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._images = ImageFiles(folder, "COCO", layout)
        self._lists = {name: _JsonList() for name in ("images", "annotations")}
        self._categories: dict[str, int] = {}
        self._sizes: dict[int, tuple[int, int]] = {}  # of images with objects

    def add(self, sample: ExportSample) -> None:
        number, path, size = self._images.add(sample)
        if path:
            named: dict[str, Any] = {} if sample.box else {"sample_id": sample.id, **sample.fields}
            own = {"id": number, "file_name": path, "width": size[0], "height": size[1]}
            self._lists["images"].add({**named, **own})
        if not sample.box:
            for text in sample.texts:
                if text is not None:
                    self._annotate({"image_id": number, "caption": text, "sample_id": sample.id})
            return
        if path:
            self._sizes[number] = size
        width, height = self._sizes[number]
        x, y, w, h = sample.box
        box = [round(x * width, 2), round(y * height, 2), round(w * width, 2), round(h * height, 2)]
        category = self._categories.setdefault(sample.text or "", len(self._categories) + 1)
        annotation = {"image_id": number, "category_id": category, "bbox": box, "area": round(box[2] * box[3], 2)}
        self._annotate({**annotation, "iscrowd": 0, "sample_id": sample.id})

    def close(self) -> None:
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        with open(self._folder / "annotations.json", "xb") as out:
            out.write(b'{"info": {"description": "exported by audit-plugin"}, "licenses": [],\n')
            for name, entries in self._lists.items():
                out.write(f'"{name}": [\n'.encode())
                entries.move_to(out)
                out.write(b"],\n")
            out.write(
                b'"categories": ' + json.dumps(categories, ensure_ascii=False).encode("utf-8", "replace") + b"}\n"
            )

    def _annotate(self, entry: dict[str, Any]) -> None:
        entries = self._lists["annotations"]
        entries.add({"id": entries.count + 1, **entry})


class _JsonList:
    """Entries of a JSON list, on the disk until all of them are known."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (open until it is moved)
        self.count = 0

    def add(self, entry: dict[str, Any]) -> None:
        comma = b",\n" if self.count else b""
        self._file.write(comma + json.dumps(as_json(entry), ensure_ascii=False).encode("utf-8", "replace"))
        self.count += 1

    def move_to(self, out: IO[bytes]) -> None:
        self._file.seek(0)
        shutil.copyfileobj(self._file, out)
        self._file.close()
