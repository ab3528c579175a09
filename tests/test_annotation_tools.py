"""Rows to review go to Label Studio and CVAT and come back as decisions, in their documented formats."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.review import (
    Decision,
    ReviewTask,
    cvat_annotations,
    cvat_labels,
    image_names,
    label_studio_config,
    label_studio_tasks,
    read_decisions,
)
from audit_plugin.review.cvat import MOST_CHARACTERS, decisions_from_cvat
from audit_plugin.review.label_studio import decisions_from_label_studio
from tests.review_fixtures import written

HOSTILE = "=1+1\t<b onclick=x>&amp;</b> ]]> \x00\x1b[31m\u202e\ud800\ufffe $image {{7*7}} \\u0009\r\n"
TEXTS = st.text(st.characters(), max_size=30) | st.text(
    st.sampled_from("<>&'\"]=+\\u0041\t\r\n\x00\x1b\u202e"), max_size=9
)
NOW = "2024-05-01T10:20:30.123456Z"
TIME = datetime(2024, 5, 1, 10, 20, 30, 123000, tzinfo=UTC)


def task(name: str = "a", text: str = "a cat", suggestion: str = "a dog", **more: Any) -> ReviewTask:
    values: dict[str, Any] = {"path": f"/data/pictures/{name}.png", "media": "image", "action": "relabel"}
    evidence = ("misaligned: why", "misalignment 3.00")
    values |= {"evidence": evidence, "score": 0.75, "digest": "d:e", "caption": 0} | more
    return ReviewTask(name=name, text=text, suggestion=suggestion, **values)


def annotated(tasks: str, choices: Sequence[tuple[str, str]], **more: Any) -> str:
    """What Label Studio exports as JSON after people chose (decision, typed text) for the first tasks."""
    exported = json.loads(tasks)
    for number, (record, (decision, typed)) in enumerate(zip(exported, choices, strict=False)):
        result = [{"id": "x", "from_name": "decision", "to_name": "media", "type": "choices"}]
        result[0]["value"] = {"choices": [decision]}  # type: ignore[assignment]
        if typed:
            value = {"text": [typed]}
            result.append({"from_name": "new_text", "to_name": "media", "type": "textarea", "value": value})  # type: ignore[dict-item]
        annotation = {"id": number, "result": result, "was_cancelled": False, "created_at": NOW, "updated_at": NOW}
        annotation |= {"completed_by": {"id": 7, "email": "ann@example.org"}, "lead_time": 4.5} | more
        record |= {"id": 100 + number, "annotations": [annotation], "drafts": []}
    for record in exported[len(choices) :]:
        record["annotations"] = []
    return json.dumps(exported)


def cvat_export(annotations: bytes, choices: Sequence[tuple[str, str]], meta: bool = True) -> bytes:
    """What CVAT exports after people chose (decision, typed text) for the first rows."""
    root = Xml.fromstring(annotations)
    rows = [row for image in root.iter("image") for row in image]
    for row, (decision, typed) in zip(rows, choices, strict=False):
        values = {entry.get("name"): entry for entry in row}
        values["decision"].text, values["new_text"].text = decision, typed
    if meta:
        job = Xml.SubElement(Xml.SubElement(root, "meta"), "job")
        Xml.SubElement(Xml.SubElement(job, "assignee"), "username").text = "ann"
        Xml.SubElement(root.find("meta"), "dumped").text = "2024-05-01 10:20:30.123456+00:00"  # type: ignore[arg-type]
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True))


# --- Label Studio ------------------------------------------------------------------------------------------------


def test_tasks_of_label_studio_have_the_proposal_as_prediction() -> None:
    boxed = task("b c", box=(0.1, 0.2, 0.5, 0.25), action="review", score=math.nan)
    records = json.loads(label_studio_tasks([task(), boxed], "audit"))
    first, second = records
    assert first["data"]["media"] == "/data/local-files/?d=data/pictures/a.png"
    assert first["data"]["evidence"] == "misaligned: why\nmisalignment 3.00"
    assert second["data"]["media"].endswith("b%20c.png")
    assert [record["data"]["rank"] for record in records] == [1, 2]
    assert first["predictions"][0]["score"] == 0.75
    results = [(r["from_name"], r["type"], r["value"]) for r in first["predictions"][0]["result"]]
    assert results == [("decision", "choices", {"choices": ["relabel"]}), ("new_text", "textarea", {"text": ["a dog"]})]
    (box,) = second["predictions"][0]["result"]  # an action of "review" is no decision
    assert box["value"] == {"x": 10, "y": 20, "width": 50, "height": 25, "rotation": 0}
    assert "score" not in second["predictions"][0]


@pytest.mark.parametrize("media", ["image", "audio", "video"])
def test_the_interface_names_every_control_and_field_of_the_tasks(media: str) -> None:
    tasks = [task(media=media, box=(0, 0, 1, 1) if media == "image" else ())]
    config = Xml.fromstring(label_studio_config(tasks))
    names = {element.get("name") for element in config.iter() if element.get("name")}
    record = json.loads(label_studio_tasks(tasks, "audit"))[0]
    assert {region["from_name"] for region in record["predictions"][0]["result"]} <= names
    assert {region["to_name"] for region in record["predictions"][0]["result"]} == {"media"}
    fields = {value[1:] for element in config.iter() if (value := element.get("value", "")).startswith("$")}
    assert fields <= set(record["data"])
    assert config[0].tag == media.capitalize()
    with pytest.raises(AuditError, match="of the kinds image, video"):
        label_studio_config([task(), task(media="video")])


def test_annotations_of_label_studio_become_decisions() -> None:
    tasks = label_studio_tasks([task(name) for name in "abcdef"], "audit")
    choices = [("keep", ""), ("remove", ""), ("relabel", "a bird"), ("relabel", "a dog"), ("unsure", "")]
    made = decisions_from_label_studio(annotated(tasks, choices))
    assert [(d.sample, d.kind, d.text) for d in made] == [
        ("a", "keep", ""), ("b", "remove", ""), ("c", "relabel", "a bird"), ("d", "relabel", "a dog"),
        ("e", "unsure", ""),
    ]  # fmt: skip
    same = {(d.reviewer, d.time, d.seconds, d.run, d.digest, d.caption) for d in made}
    assert same == {("ann@example.org", TIME, 4.5, "audit", "d:e", 0)}


def test_several_annotators_skips_and_numbers_of_users() -> None:
    exported = json.loads(annotated(label_studio_tasks([task()], "audit"), [("keep", "")], completed_by=3))
    first = exported[0]["annotations"][0]
    exported[0]["annotations"] += [first | {"completed_by": 4, "was_cancelled": True, "result": []}]
    exported[0]["annotations"] += [first | {"completed_by": None, "result": []}]  # submitted without a choice
    made = decisions_from_label_studio(json.dumps(exported))
    assert [(d.kind, d.reviewer) for d in made] == [("keep", "label-studio user 3"), ("skip", "label-studio user 4")]


def test_the_flat_export_of_label_studio() -> None:
    data = json.loads(label_studio_tasks([task(), task("b"), task("c")], "audit"))
    about = {"annotator": 2, "annotation_id": 9, "created_at": NOW, "updated_at": NOW, "lead_time": 1e6, "id": 5}
    rows = [data[0]["data"] | about | {"decision": "relabel", "new_text": "a bird"}]
    rows += [data[1]["data"] | about | {"decision": {"choices": ["keep"]}, "new_text": []}, data[2]["data"] | {"id": 6}]
    made = decisions_from_label_studio(json.dumps(rows))
    assert [(d.sample, d.kind, d.text, d.reviewer, d.seconds) for d in made] == [
        ("a", "relabel", "a bird", "label-studio user 2", 0.0), ("b", "keep", "", "label-studio user 2", 0.0)
    ]  # fmt: skip


@given(TEXTS, TEXTS, TEXTS)
def test_hostile_captions_come_back_from_label_studio_as_they_were(text: str, suggestion: str, typed: str) -> None:
    asked = task(text=text, suggestion=suggestion, evidence=(text,))
    tasks = label_studio_tasks([asked], "audit")
    assert tasks.isascii()
    assert not any(ord(character) < 32 and character != "\n" for character in tasks)
    if typed.strip():
        assert decisions_from_label_studio(annotated(tasks, [("relabel", typed)]))[0].text in (typed, suggestion)
    if suggestion.strip():
        accepted = [json.loads(tasks)[0]["predictions"][0]["result"][1]["value"]["text"][0]]
        assert decisions_from_label_studio(annotated(tasks, [("relabel", accepted[0])]))[0].text == suggestion
        assert decisions_from_label_studio(annotated(tasks, [("relabel", "")]))[0].text == suggestion


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "not a list of tasks"),
        ("[1]", "not a list of tasks"),
        ("[", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('[{"data": {}}]', "task 1 has no data.audit.sample"),
        ('[{"data": {"audit": {"sample": 5}}, "decision": "keep"}]', "sample is 5, not a text"),
        ('[{"data": {"audit": {"sample": "a"}}, "annotations": 5}]', "holds 5 where a list"),
        ('[{"audit": {"sample": "a"}, "decision": "explode"}]', "has the decision 'explode'; use one of keep, remove"),
        ('[{"audit": {"sample": "a"}, "decision": ["keep", "remove"]}]', "has 2 values of decision"),
        ('[{"audit": {"sample": "a"}, "decision": {"choices": [{}]}}]', "decision is {}, not a text"),
        ('[{"audit": {"sample": "a"}, "decision": "relabel"}]', "has no text; give one"),
        ('[{"audit": {"sample": "a"}, "decision": "keep", "annotator": [1]}]', "the annotator is [1]"),
        ('[{"audit": {"sample": "a"}, "decision": "keep", "created_at": "yesterday"}]', "not a time in ISO format"),
        ('[{"audit": {"sample": "a", "caption": -1}, "decision": "keep"}]', "caption"),
        ('[{"audit": {"sample": "a", "caption": "x"}, "decision": "keep"}]', "caption"),
    ],
)
def test_other_json_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(AuditError) as error:
        decisions_from_label_studio(text)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_media_outside_of_the_served_folder_are_refused() -> None:
    inside = json.loads(label_studio_tasks([task()], "audit", "/data"))
    assert inside[0]["data"]["media"].endswith("?d=pictures/a.png")
    with pytest.raises(AuditError, match="does not lie in '/data/other'"):
        label_studio_tasks([task()], "audit", "/data/other")
    with pytest.raises(AuditError, match="does not lie in"):
        label_studio_tasks([task(path="/data/../etc/passwd")], "audit", "/data")


# --- CVAT --------------------------------------------------------------------------------------------------------


def test_annotations_of_cvat_are_tags_and_boxes_with_the_attributes_of_the_labels() -> None:
    boxed = {"box": (0.1, 0.2, 0.5, 0.25), "size": (200, 100)}
    tasks = [task("a"), task("b", path="/data/more/b.png", **boxed), task("a2", path="/data/pictures/a.png", caption=1)]
    root = Xml.fromstring(cvat_annotations(tasks, "audit"))
    assert root.findtext("version") == "1.1"
    assert [(image.get("id"), image.get("name")) for image in root.iter("image")] == [
        ("0", "pictures/a.png"),
        ("1", "more/b.png"),
    ]
    assert image_names(tasks) == ["pictures/a.png", "more/b.png"]
    assert [[row.tag for row in image] for image in root.iter("image")] == [["tag", "tag"], ["box"]]
    box = root.find("image/box")
    assert box is not None
    assert [box.get(side) for side in ("xtl", "ytl", "xbr", "ybr")] == ["20.00", "20.00", "120.00", "45.00"]
    (label,) = cvat_labels()
    known = {entry["name"] for entry in label["attributes"]}
    assert {entry.get("name") for entry in root.iter("attribute")} == known
    assert label["name"] == box.get("label")
    assert all(
        set(entry) == {"name", "input_type", "mutable", "values", "default_value"} for entry in label["attributes"]
    )


def test_annotations_of_cvat_become_decisions() -> None:
    tasks = [task(name, caption=at) for at, name in enumerate("abcdef")]
    choices = [("keep", ""), ("remove", ""), ("relabel", "a bird"), ("relabel", ""), ("unsure", "")]
    made = decisions_from_cvat(cvat_export(cvat_annotations(tasks, "audit"), choices))
    assert [(d.sample, d.caption, d.kind, d.text) for d in made] == [
        ("a", 0, "keep", ""), ("b", 1, "remove", ""), ("c", 2, "relabel", "a bird"), ("d", 3, "relabel", "a dog"),
        ("e", 4, "unsure", ""),
    ]  # fmt: skip
    assert {(d.reviewer, d.time, d.run, d.digest) for d in made} == {("ann", TIME, "audit", "d:e")}
    nobody = decisions_from_cvat(cvat_export(cvat_annotations(tasks, "audit"), choices, meta=False))
    assert {d.reviewer for d in nobody} == {""}


@given(TEXTS, TEXTS)
def test_hostile_captions_come_back_from_cvat_as_they_were(text: str, suggestion: str) -> None:
    tasks = cvat_annotations([task(text=text, suggestion=suggestion, evidence=(text,))], "audit")
    root = Xml.fromstring(tasks)  # well-formed, whatever the captions hold
    assert [element.tag for element in root.iter()].count("tag") == 1
    if suggestion.strip():
        assert decisions_from_cvat(cvat_export(tasks, [("relabel", "")]))[0].text == suggestion


def test_texts_longer_than_cvat_takes_are_cut_and_not_taken_back() -> None:
    tasks = cvat_annotations([task(suggestion="x" * 5000)], "audit")
    longest = max(len(entry.text or "") for entry in Xml.fromstring(tasks).iter("attribute"))
    assert longest == MOST_CHARACTERS
    with pytest.raises(AuditError, match="too long to come back from CVAT; type the text"):
        decisions_from_cvat(cvat_export(tasks, [("relabel", "")]))


BOMB = b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><annotations>&d;</annotations>'


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not XML"),
        (b"<annotations>", "is not XML"),
        (b"\xff\xfe\x00", "is not XML"),
        (BOMB, "defines a document type"),
        (BOMB.decode().encode("utf-16"), "defines a document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "defines a document type"),
        (b"<html/>", "holds <html>, not <annotations>"),
        (b'<annotations><image name="i"><tag label="audit"><attribute name="decision">keep</attribute></tag></image>'
         b"</annotations>", "image 'i' has a row without 'sample'"),
    ],
)  # fmt: skip
def test_other_xml_is_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(AuditError) as error:
        decisions_from_cvat(data)
    assert sentence in str(error.value)


def test_decisions_and_positions_of_cvat_are_checked() -> None:
    tasks = cvat_annotations([task()], "audit")
    with pytest.raises(AuditError, match="image 'a.png' has the decision 'explode'"):
        decisions_from_cvat(cvat_export(tasks, [("explode", "")]))
    with pytest.raises(AuditError, match="caption_index is '-1'"):
        decisions_from_cvat(cvat_export(tasks.replace(b">0<", b">-1<"), [("keep", "")]))
    with pytest.raises(AuditError, match="rows are video; use --format label-studio"):
        cvat_annotations([task(media="video")], "audit")
    with pytest.raises(AuditError, match="a character that XML cannot hold"):
        cvat_annotations([task(path="/data/\x00.png")], "audit")


def test_other_labels_in_the_same_export_are_left_alone() -> None:
    exported = cvat_export(cvat_annotations([task()], "audit"), [("keep", "")])
    more = exported.replace(b"</image>", b'<box label="person" xtl="0"/><tag label="night"/></image>')
    assert decisions_from_cvat(more) == decisions_from_cvat(exported)


# --- with a dataset ----------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(8)
    written(made, (4, 1, 6))
    return made


def review(*arguments: object, code: int = 0) -> str:
    from typer.testing import CliRunner

    from audit_plugin.cli import app

    done = CliRunner().invoke(app, ["review", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.fiftyone
@pytest.mark.parametrize("tool", ["label-studio", "cvat"])
def test_the_round_trip_of_a_dataset(tool: str, dataset: Any, tmp_path: Path) -> None:
    fio: Any = importlib.import_module("audit_plugin.fiftyone_io")
    ids = dataset.values("id")
    dataset.set_values("caption", [f"{HOSTILE.encode('utf-8', 'replace').decode()}{row}" for row in range(8)])
    tasks = tmp_path / ("t.json" if tool == "label-studio" else "t.xml")
    said = review("export", dataset.name, "--to", tasks, "--format", tool)
    assert said.startswith(f"3 rows to review: {tasks}")
    choices = [("relabel", ""), ("remove", ""), ("keep", "")]
    if tool == "label-studio":
        assert [record["data"]["audit"]["sample"] for record in json.loads(tasks.read_text())] == [
            ids[4],
            ids[1],
            ids[6],
        ]
        assert (tmp_path / "t-interface.xml").is_file()
        (tmp_path / "back.json").write_text(annotated(tasks.read_text(), choices))
        back, reviewer = tmp_path / "back.json", "ann@example.org"
    else:
        assert len((tmp_path / "t-images.txt").read_text().splitlines()) == 3
        assert json.loads((tmp_path / "t-labels.json").read_text()) == cvat_labels()
        (tmp_path / "back.xml").write_bytes(cvat_export(tasks.read_bytes(), choices))
        back, reviewer = tmp_path / "back.xml", "ann"
    assert review("import", dataset.name, back) == "3 new decisions\n"
    assert review("import", dataset.name, back) == "0 new decisions\n"
    made = fio.decisions(dataset)
    assert {(d.sample, d.kind, d.text) for d in made} == {
        (ids[4], "relabel", "better 4"), (ids[1], "remove", ""), (ids[6], "keep", "")
    }  # fmt: skip
    assert {(d.reviewer, d.time, d.source, d.run, d.field) for d in made} == {
        (reviewer, TIME, "import", "audit", "caption")
    }
    assert fio.queue_of(dataset, "audit").left == ()
    assert "1 relabeled, 1 removed" in review("apply", dataset.name)


@pytest.mark.fiftyone
def test_a_caption_that_changed_in_between_makes_its_decision_stale(dataset: Any, tmp_path: Path) -> None:
    fio: Any = importlib.import_module("audit_plugin.fiftyone_io")
    fio.export_tasks(dataset, tmp_path / "t.json", "label-studio")
    back = tmp_path / "back.json"
    back.write_text(annotated((tmp_path / "t.json").read_text(), [("remove", "")]))
    sample = dataset[dataset.values("id")[4]]
    sample["caption"] = "another"
    sample.save()
    fio.import_decisions(dataset, back, "audit")
    assert len(fio.plan_of(dataset).stale) == 1


@pytest.mark.fiftyone
@pytest.mark.parametrize("tool", ["label-studio", "cvat"])
def test_objects_are_boxes(tool: str, make_dataset: Callable[..., Any], tmp_path: Path) -> None:
    import fiftyone as fo

    fio: Any = importlib.import_module("audit_plugin.fiftyone_io")

    def boxes(_row: int) -> Any:
        both = [fo.Detection(label=name, bounding_box=[0.25, 0.25, 0.5, 0.5]) for name in "ab"]
        return fo.Detections(detections=both)

    made = make_dataset(2, boxes=boxes)
    made.compute_metadata()
    written(made.to_patches("boxes"), (2, 1), config=AuditConfig(text="boxes"))
    path = tmp_path / ("t.json" if tool == "label-studio" else "t.xml")
    count, _ = fio.export_tasks(made, path, tool)
    assert count == 2
    back = path.with_stem("back")
    if tool == "label-studio":
        assert json.loads(path.read_text())[0]["predictions"][0]["result"][0]["from_name"] == "box"
        back.write_text(annotated(path.read_text(), [("relabel", "b"), ("remove", "")]))
    else:
        assert [row.tag for image in Xml.parse(path).getroot().iter("image") for row in image] == ["box", "box"]
        back.write_bytes(cvat_export(path.read_bytes(), [("relabel", "b"), ("remove", "")]))
    assert fio.import_decisions(made, back, "audit") == 2
    labels = made.values("boxes.detections.id", unwind=True)
    assert [(d.label, d.kind, d.text) for d in fio.decisions(made)] == [
        (labels[2], "relabel", "b"),
        (labels[1], "remove", ""),
    ]


@pytest.mark.fiftyone
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "t.csv"], "'t.csv' is not the file of a label-studio export; let it end in .json"),
        (["--to", "t.json", "--format", "prodigy"], "format 'prodigy' is unknown; use one of label-studio, cvat"),
        (["--to", "t.json", "--kind", "outlier"], "audit 'audit' has no undecided rows; nothing is left to review"),
        (["--to", "t.json", "--media-root", "/nowhere"], "does not lie in '/nowhere'"),
        (["--to", "mine.json"], "'mine.json' exists already; name another file"),
    ],
)
def test_what_cannot_be_exported(
    arguments: list[str], sentence: str, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text("{}")
    assert sentence in review("export", dataset.name, *arguments, code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


def test_read_decisions_knows_the_tools_by_their_endings(tmp_path: Path) -> None:
    exported = annotated(label_studio_tasks([task()], "audit"), [("keep", "")])
    (tmp_path / "a.json").write_text(exported)
    (tmp_path / "a.xml").write_bytes(cvat_export(cvat_annotations([task()], "audit"), [("keep", "")]))
    made = [read_decisions(tmp_path / name) for name in ("a.json", "a.xml")]
    assert [[(d.sample, d.kind) for d in of_tool] for of_tool in made] == [[("a", "keep")]] * 2
    assert made[0] == [replace(made[1][0], reviewer="ann@example.org", seconds=4.5)]
    assert isinstance(made[0][0], Decision)
