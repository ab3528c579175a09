"""What the attacks carry out: datasets as they are before, and every command that changes one.

Each function runs in a process of its own, which has imported this module and not connected yet.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
from PIL import Image

from audit_plugin import fiftyone_io as fio
from audit_plugin.arrays import AuditError, Samples
from audit_plugin.cli import cache
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io import cross_modal, lease, runs, similarity
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.ledger import journal
from audit_plugin.fiftyone_io.leftovers import unfinished_name
from audit_plugin.fiftyone_io.read import items
from audit_plugin.fiftyone_io.results import findings, reports, thresholds
from audit_plugin.fiftyone_io.write import results
from audit_plugin.report import ReportContent
from tests.cross_modal_fixtures import made_up
from tests.fiftyone_fixtures import result_for
from tests.review_fixtures import written

ROWS, MANY = 6, 240
FUNCTIONS: dict[str, Callable[[], Any]] = {}
PLACE: dict[str, Path] = {}


def operation(function: Callable[[], Any]) -> Callable[[], Any]:
    FUNCTIONS[function.__name__] = function
    return function


def prepare(folder: Path) -> None:
    """Files that the operations read; several chunks for a few entries."""
    journal.CHUNK = results.CHUNK = items.CHUNK = 4
    if seconds := os.environ.get("AUDIT_CHAOS_EXPIRY"):
        lease.EXPIRY, lease.RENEWAL_SECONDS = timedelta(seconds=int(seconds)), int(seconds) / 10
    PLACE["folder"] = folder
    for row in range(ROWS + 2):
        if not picture(row).exists():
            Image.new("RGB", (8, 8), (row * 20, 90, 200 - row * 20)).save(picture(row))


def picture(row: int) -> Path:
    return PLACE["folder"] / f"{row}.png"


def dataset() -> Any:
    with database("loading the dataset"):
        return fo.load_dataset("d")


def config(**settings: Any) -> AuditConfig:
    return AuditConfig(text="caption", **settings)


# --- datasets -------------------------------------------------------------------------------------------------------


def new_dataset(**fields: Callable[[int], Any]) -> Any:
    made = fo.Dataset("d", persistent=True)
    fields = fields or {"caption": lambda row: f"caption {row}"}
    made.add_samples(
        [
            fo.Sample(filepath=str(picture(row)), tags=["own"], **{name: value(row) for name, value in fields.items()})
            for row in range(ROWS)
        ],
        progress=False,
    )
    return made


@operation
def plain() -> None:
    new_dataset()


@operation
def audited() -> None:
    made = new_dataset()
    made.add_sample_field("mine", fo.StringField)
    made.save_view("own_view", made.limit(2))
    results.write_result(made, audit_result(made), config())


def audit_result(view: Any, first: bool = True) -> Any:
    made = result_for(view, misaligned=(1, 3) if first else (2, 4), outlier=(2,) if first else (0, 5), run_dir="")
    return replace(made, columns={**made.columns, "suggestion": made.columns["reason"]})


@operation
def decided() -> None:
    audited()
    names = dataset().values("id")
    fio.decide(dataset(), names[1], "relabel", text="new 1", reviewer="ann")
    fio.decide(dataset(), [names[2], names[4]], "remove", reviewer="ann")
    fio.decide(dataset(), names[3], "keep", reviewer="bob")
    fio.decide(dataset(), names[5], "relabel", text="new 5", reviewer="bob")


@operation
def lists_decided() -> None:
    made = new_dataset(captions=lambda row: [f"a{row}", f"b{row}", f"c{row}"])
    written(made, (1,), "captions")
    names = made.values("id")
    fio.decide(made, names[0], "relabel", text="new", caption=2, reviewer="ann")
    fio.decide(made, names[1], "remove", caption=0, reviewer="ann")
    fio.decide(made, names[1], "relabel", text="other", caption=1, reviewer="ann")


@operation
def objects_decided() -> None:
    def boxes(row: int) -> Any:
        both = [fo.Detection(label=f"{name}{row}", bounding_box=[0.1, 0.1, 0.5, 0.5]) for name in "ab"]
        return fo.Detections(detections=both)

    made = new_dataset(boxes=boxes)
    patches = made.to_patches("boxes")
    written(patches, (2, 3), config=AuditConfig(text="boxes"))
    names = patches.values("id")
    fio.decide(made, names[1], "relabel", text="cat", reviewer="ann")
    fio.decide(made, names[2], "remove", reviewer="ann")


@operation
def groups_decided() -> None:
    made = fo.Dataset("d", persistent=True)
    made.add_group_field("group", default="left")
    for row in range(3):
        group = fo.Group()
        sides = [
            fo.Sample(filepath=str(picture(row + at)), group=group.element(side), caption=f"caption {row}")
            for at, side in enumerate(("left", "right"))
        ]
        made.add_samples(sides, progress=False)
    names = made.values("id")
    fio.decide(made, names[0], "remove", run="", reviewer="ann")
    fio.decide(made, names[2], "remove", run="", reviewer="ann")


@operation
def applied() -> None:
    decided()
    fio.apply(dataset())


@operation
def applied_and_decided() -> None:
    applied()
    fio.decide(dataset(), dataset().values("id")[0], "relabel", text="later", reviewer="ann")


@operation
def applied_twice() -> None:
    applied_and_decided()
    fio.apply(dataset())


@operation
def deleted() -> None:
    applied()
    fio.delete_removed(dataset(), 2)


@operation
def with_threshold() -> None:
    audited()
    set_threshold()


@operation
def with_later_sample() -> None:
    audited()
    dataset().add_sample(fo.Sample(filepath=str(picture(ROWS)), caption="later"))


@operation
def measured() -> None:
    made = new_dataset(caption=lambda row: f"caption {row}", who=lambda row: f"person {row % 2}")
    write_measurement(made)


def write_measurement(made: Any) -> None:
    settings = config(label="who", run="transfer")
    rows = fio.read_samples(made, settings)
    cross_modal.write_cross_modal(made, rows, made_up(made.values("id"), list(rows.labels)), settings)


@operation
def indexed() -> None:
    audited()
    build_index()


@operation
def with_demo() -> None:
    load_manifest_dataset()
    fo.load_dataset("demo").save_view("of_the_former", fo.load_dataset("demo").limit(1))


@operation
def many_audited() -> None:
    """So many samples that a kill at a random moment comes between their writes."""
    made = fo.Dataset("d", persistent=True)
    for row in range(MANY):
        if not many_picture(row).exists():
            many_picture(row).write_bytes(picture(row % ROWS).read_bytes())
    samples = [fo.Sample(filepath=str(many_picture(row)), caption=f"caption {row}") for row in range(MANY)]
    made.add_samples(samples, progress=False)
    results.write_result(made, result_for(made, range(1, MANY, 3), range(2, MANY, 3), run_dir=""), config())


def many_picture(row: int) -> Path:
    return PLACE["folder"] / f"many-{row}.png"


@operation
def many_decided() -> None:
    many_audited()
    names = dataset().values("id")
    fio.decide(dataset(), names[0::2], "remove", reviewer="ann")
    for start in range(1, 9, 2):
        fio.decide(dataset(), names[start::8], "relabel", text=f"new {start}", reviewer="ann")


@operation
def many_applied() -> None:
    many_decided()
    fio.apply(dataset())


@operation
def spot_checked() -> None:
    audited()
    start_spot_check()


@operation
def left_over() -> None:
    """What a dataset leaves that FiftyOne deleted: runs, results, views, decisions, changes, a spot check.

    A dataset that lives has all of that too, and one is half made by a process that died.
    """
    for name in ("alive", "gone"):
        applied()
        start_spot_check()
        dataset().name = name  # deleted last: an audit sweeps too
    made = fo.Dataset(unfinished_name(), persistent=True)
    made.add_samples([fo.Sample(filepath=str(picture(row))) for row in range(ROWS)], progress=False)
    fo.delete_dataset("gone")


@operation
def nothing() -> None:
    fo.list_datasets()


# --- commands -------------------------------------------------------------------------------------------------------


@operation
def apply() -> None:
    fio.apply(dataset())


@operation
def undo() -> None:
    fio.undo(dataset())


@operation
def recover() -> None:
    fio.recover(dataset())


@operation
def delete_removed() -> None:
    fio.delete_removed(dataset(), 2)


@operation
def delete_group() -> None:
    fio.apply(dataset())
    fio.delete_removed(dataset(), 4)


@operation
def decide() -> None:
    fio.decide(dataset(), dataset().values("id")[3], "remove", reviewer="ann", note="a note")


@operation
def decide_later_and_apply() -> None:
    fio.decide(dataset(), dataset().values("id")[0], "relabel", text="later", reviewer="ann")
    fio.apply(dataset())


@operation
def decide_batch() -> None:
    fio.decide(dataset(), dataset().values("id"), "keep", reviewer="cid")


@operation
def undo_last() -> None:
    fio.undo_last(dataset(), "ann")


@operation
def import_decisions() -> None:
    write_table(with_ids=False)
    fio.import_decisions(dataset(), PLACE["folder"] / "decisions.csv", run="audit", key="filepath")


@operation
def import_with_ids() -> None:
    write_table(with_ids=True)
    fio.import_decisions(dataset(), PLACE["folder"] / "with_ids.csv", run="audit", key="filepath")


def write_table(with_ids: bool) -> None:
    rows = [
        {"sample": str(picture(0)), "kind": "remove", "text": "", "reviewer": "eve"},
        {"sample": str(picture(1)), "kind": "relabel", "text": "by table", "reviewer": "eve"},
        {"sample": str(picture(3)), "kind": "keep", "text": "", "reviewer": "dan"},
    ]
    names = ["sample", "kind", "text", "reviewer", *(["id"] if with_ids else [])]
    path = PLACE["folder"] / ("with_ids.csv" if with_ids else "decisions.csv")
    temporary = path.with_name(f"{path.name}.{id(rows)}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows({**row, **({"id": f"key-{at}"} if with_ids else {})} for at, row in enumerate(rows))
    temporary.rename(path)


@operation
def repair() -> None:
    reason = dataset().values("audit_reason")[3]
    fio.repair_decisions(dataset(), "audit", reason, reviewer="ann")


@operation
def export_clean() -> None:
    fio.export_clean(dataset(), "clean")


@operation
def audit() -> None:
    results.write_result(dataset(), audit_result(dataset()), config())


@operation
def audit_again() -> None:
    results.write_result(dataset(), audit_result(dataset(), first=False), config())


@operation
def audit_of_half() -> None:
    view = dataset().limit(3)
    results.write_result(view, result_for(view, misaligned=(0,), outlier=(), run_dir=""), config())


@operation
def add_result() -> None:
    view = dataset().skip(ROWS)
    made = result_for(view, misaligned=(0,), outlier=(), run_dir="")
    made = replace(made, columns={**made.columns, "suggestion": made.columns["reason"]})
    results.add_result(view, made, config())


@operation
def set_threshold() -> None:
    thresholds.set_threshold(dataset(), "audit", "misaligned", 3.5)


@operation
def set_other_threshold() -> None:
    thresholds.set_threshold(dataset(), "audit", "misaligned", 1.5)


@operation
def take_threshold_back() -> None:
    thresholds.set_threshold(dataset(), "audit", "misaligned", None)


@operation
def map_embeddings() -> None:
    """With positions at hand: those of a real run need its folder."""
    from audit_plugin.audit import extend

    names = dataset().values("id")
    extend.embedding_map = lambda _: (tuple(names), np.arange(2.0 * len(names)).reshape(-1, 2))
    fio.map_embeddings(dataset(), "audit")


@operation
def delete_audit() -> None:
    fio.delete_audit(dataset(), "audit")


@operation
def measure() -> None:
    write_measurement(dataset())


@operation
def measure_labeled() -> None:
    made = dataset()
    if not made.has_sample_field("who"):
        made.add_sample_field("who", fo.StringField)
    made.set_values("who", [f"person {row % 2}" for row in range(ROWS)])
    write_measurement(made)


@operation
def delete_measurement() -> None:
    fio.delete_cross_modal_run(dataset(), "transfer")


@operation
def start_spot_check() -> None:
    fio.start_spot_check(dataset(), "audit", 4)


@operation
def decide_spot_check() -> None:
    row = fio.spot_check(dataset(), "audit").queue.rows[0]
    fio.record_spot_check(dataset(), "audit", row, "keep", reviewer="ann")
    assert fio.spot_check(dataset(), "audit").verdicts[0]


@operation
def prune_database() -> None:
    """`cache prune --database --yes`."""
    cache.prune(database=True, yes=True)


@operation
def build_index() -> None:
    """With vectors at hand: those of real media need an encoder."""
    names = np.array(dataset().values("id"))
    vectors = similarity.Vectors(np.eye(len(names), 8, dtype=np.float32), names)
    record = {
        "run": "audit",
        "modality": "image",
        "encoder": "offline",
        "text_key": "",
        "blocks": [["image", 8, False]],
    }
    similarity._audit_vectors = lambda *_: (vectors, record)
    similarity.build_index(dataset(), "audit", "image")


@operation
def compute_similarity() -> None:
    delete_own_index()  # FiftyOne refuses a key that exists
    vectors = np.eye(len(dataset()), 8, dtype=np.float32)
    fob.compute_similarity(dataset(), embeddings=vectors, backend=similarity.BACKEND, brain_key="own_index")


@operation
def add_to_index() -> None:
    build_index()  # its file is not among what is put back between cases
    names = dataset().values("id")
    index = dataset().load_brain_results("audit_image")
    index.add_to_index(np.ones((1, 8), dtype=np.float32), names[:1])


@operation
def delete_by_fiftyone() -> None:
    dataset().delete_run("audit")


@operation
def finish_deletions() -> None:
    fio.finish_deletions(dataset())


def delete_own_index(key: str = "own_index") -> None:
    if key in dataset().list_brain_runs():
        dataset().delete_brain_run(key)


@operation
def delete_index() -> None:
    delete_own_index("audit_image")


@operation
def delete_index_and_collect() -> None:
    """FiftyOne cannot delete what it does not list any more: the next operation of the tool ends it."""
    delete_own_index("audit_image")
    with lease.leased(dataset(), "testing"):
        runs.collect_runs(dataset())


def manifest(count: int = ROWS) -> Samples:
    images = tuple(str(picture(row)) for row in range(count))
    texts = tuple(f"caption {row}" for row in range(count))
    return Samples(tuple(f"row-{row}" for row in range(count)), {"image": images, "text": texts})


@operation
def load_manifest_dataset() -> None:
    words = {"kind": ("What it is", [f"k{row}" for row in range(ROWS)])}
    fio.load_manifest_dataset("demo", manifest(), words)


@operation
def load_personas() -> None:
    folder = PLACE["folder"] / "personas"
    folder.mkdir(exist_ok=True)
    heads = {
        "manifest.csv": ["id", "image", "description", "identity", "split"],
        "facts.csv": ["identity", "eye color"],
    }
    rows: dict[str, list[list[str]]] = {
        "manifest.csv": [[f"r{at}", str(picture(at)), f"person {at % 2}", f"p{at % 2}", "train"] for at in range(4)],
        "facts.csv": [["p0", "green"], ["p1", "blue"]],
    }
    for name, head in heads.items():
        if not (folder / name).exists():
            with (folder / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([head, *rows[name]])
    fio.load_personas("people", folder)


@operation
def import_scores() -> None:
    samples = manifest()
    columns = result_for(None, ids=samples.ids, run_dir="").columns
    content = ReportContent("table", samples, columns, {"config": config().to_dict(), "samples": ROWS})
    fio.import_scores(content, "imported", "audit", PLACE["folder"] / "media", others=2)


# --- what is looked at after a crash --------------------------------------------------------------------------------


@operation
def look() -> None:
    """All that a person may open on a dataset that a crash has left, each of which may refuse in one sentence."""
    for name in fo.list_datasets():
        look_at(fo.load_dataset(name))


def look_at(made: Any) -> None:
    steps: list[Callable[[], Any]] = [
        lambda: fio.list_audits(made),
        lambda: fio.audits_newest_first(made),
        lambda: fio.list_changes(made),
        lambda: fio.current_decisions(made),
        lambda: fio.plan_of(made),
        lambda: fio.list_cross_modal_runs(made),
        lambda: [made.load_saved_view(view).count() for view in made.list_saved_views()],
    ]
    for run in ("audit", *made.list_runs()):
        steps += [
            lambda run=run: fio.audit_info(made, run),
            lambda run=run: fio.audit_summary(made, run),
            lambda run=run: fio.queue_of(made, run),
            lambda run=run: findings.cards(made, run),
            lambda run=run: fio.flagged_view(made, run).count(),
            lambda run=run: reports.review_report(made, run),
            lambda run=run: fio.spot_check(made, run),
            lambda run=run: fio.cross_modal_results(made, run),
        ]
    for step in steps:
        permit(step)


def permit(step: Callable[[], Any]) -> None:
    """It may refuse, in one sentence."""
    try:
        step()
    except AuditError as error:
        if "\n" in str(error):
            raise ValueError("a refusal is one sentence") from error


@operation
def look_and_set() -> None:
    """As `look`; then a threshold, which changes the dataset."""
    look()
    for name in fo.list_datasets():
        permit(lambda name=name: thresholds.set_threshold(fo.load_dataset(name), "audit", "misaligned", 2.5))


@operation
def undo_all() -> None:
    """Every change set, the last first."""
    while any(change.state != "undone" for change in fio.list_changes(dataset())):
        fio.undo(dataset())


@operation
def recover_and_apply() -> None:
    fio.recover(dataset())
    fio.apply(dataset())


@operation
def recover_and_delete() -> None:
    fio.recover(dataset())
    if fio.clean_view(dataset()).count() < len(dataset()):
        fio.delete_removed(dataset(), 2)


@operation
def undo_twice() -> None:
    fio.undo(dataset())
    fio.undo(dataset())
