"""YOLO: images, a text file with the boxes of each, the classes in `data.yaml`, and the ids in `samples.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

from audit_plugin.arrays import AuditError

from .coco import ImageFiles
from .values import ExportSample, Layout, json_line


class YoloWriter:
    """Writes `images/…/NAME.jpg` and `labels/…/NAME.txt`: a class, then center, width and height as shares."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._images = ImageFiles(folder, "YOLO", layout)
        self._labels: dict[int, str] = {}
        self._classes: dict[str, int] = {}
        self._samples = open(folder / "samples.jsonl", "xb")  # noqa: SIM115 (open until close)

    def add(self, sample: ExportSample) -> None:
        if not sample.box:
            raise AuditError(
                f"sample {sample.id!r} is a whole image, and YOLO holds objects with boxes; choose another --format, "
                "such as hf-folder"
            )
        number, path, _ = self._images.add(sample)
        if path:
            self._labels[number] = "labels/" + path.partition("/")[2].rpartition(".")[0] + ".txt"
        label = self._folder / self._labels[number]
        label.parent.mkdir(parents=True, exist_ok=True)
        x, y, width, height = sample.box
        of_class = self._classes.setdefault(sample.text or "", len(self._classes))
        self._samples.write(json_line({"id": sample.id, "label": self._labels[number]}))
        with label.open("a") as file:
            file.write(f"{of_class} {x + width / 2:.6f} {y + height / 2:.6f} {width:.6f} {height:.6f}\n")

    def close(self) -> None:
        self._samples.close()
        # without `path`, Ultralytics takes the folder of this file; a relative one is below its own folder of data sets
        lines = ["train: images", "val: images", "names:"]
        # a JSON text is a YAML text too
        lines += [f"  {number}: {json.dumps(name)}" for name, number in self._classes.items()]
        (self._folder / "data.yaml").write_text("\n".join(lines) + "\n")
