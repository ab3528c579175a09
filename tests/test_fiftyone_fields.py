"""Which field is the caption, views made by `group_by`, read-only fields, and fields that were renamed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from tests.conftest import caption
from tests.review_fixtures import documents, written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")

QUICK = AuditConfig(encoder="offline", trials=2, epochs=2)


def dress(row: int) -> str:
    return f"a dress, number {row}"


def cat(_row: int) -> Any:
    return fo.Classification(label="cat")


# --- which field is the caption ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({"text_url": lambda row: f"http://example.org/{row}", "alt": dress}, "alt"),
        ({"caption_model": lambda _: "blip2", "sentence": dress}, "sentence"),
        ({"title_lang": lambda _: "en", "sentence": dress}, "sentence"),
        ({"label_source": lambda _: "human", "species": cat}, "species"),
        ({"captionModel": lambda _: "blip2", "words": dress}, "words"),
        ({"context": dress, "short_caption": dress}, "short_caption"),
        ({"text": dress, "caption": dress, "my_caption": dress}, "caption"),
        ({"caption_en": dress, "title": dress}, "title"),
        ({"captions": lambda row: [dress(row), "b"], "text": dress}, "captions"),
        ({"caption": lambda row: f"/captions/{row}.txt", "words": dress}, "words"),
        ({"caption": lambda row: f"{row}.txt", "words": dress}, "words"),
        ({"caption": str, "words": dress}, "words"),
        ({"ground_truth": cat, "prediction": cat}, "ground_truth"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)
def test_the_caption_is_picked_by_its_name_and_contents(
    make_dataset: Callable[..., Any], fields: dict[str, Any], chosen: str
) -> None:
    dataset = make_dataset(3, **fields)
    assert fio.caption_field(dataset) == chosen
    assert fio.caption_field(dataset.limit(2)) == chosen


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"caption_en": dress, "caption_de": dress}, "fields 'caption_en' and 'caption_de' .* equally likely"),
        ({"caption": dress, "captions": lambda row: [dress(row)]}, "'caption' and 'captions' .* name one as text"),
        ({"sentence": dress, "text": dress}, "equally likely captions"),
        ({"caption_model": lambda _: "blip2"}, "no field that is clearly the caption .*caption_model"),
        ({"words": dress, "remark": dress}, "no field that is clearly the caption"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)
def test_where_the_caption_is_not_clear_the_user_is_asked(
    make_dataset: Callable[..., Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(AuditError, match=message):
        fio.caption_field(make_dataset(3, **fields))


# --- group_by ------------------------------------------------------------------------------------------------------


def test_a_view_made_by_group_by_is_audited_sample_by_sample(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    dataset = make_dataset(40, caption=caption, scene=lambda row: f"s{row // 4}")
    view = dataset.group_by("scene")
    assert fio.caption_field(view) == "caption"
    assert fio.default_media(view) == {"image": "filepath"}
    assert fio.media_choices(view)["image"][0] == "filepath"
    assert fio.estimate_cost(view, QUICK)["rows"] == 40
    result = fio.audit_view(view, QUICK)
    assert sorted(result.ids) == sorted(dataset.values("id"))
    assert None not in dataset.values("audit_misalignment")
    assert fio.audit_info(dataset, "audit").slices == []
    part = dataset.limit(8).group_by("scene")
    assert len(fio.audit_view(part, AuditConfig(encoder="offline", trials=2, epochs=2, run="part")).ids) == 8
    dataset.save_view("grouped", view)
    assert len(fio.read_samples(fio.load_view(dataset.name, "grouped"), QUICK)) == 40


# --- read-only fields ----------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(8)
    written(made, (4, 1))
    return made


def read_only(dataset: Any, name: str, value: bool = True) -> None:
    field = dataset.get_field(name)
    field.read_only = value
    field.save()


def test_a_read_only_caption_is_never_relabeled(dataset: Any) -> None:
    first, second = dataset.values("id")[:2]
    fio.decide(dataset, first, "relabel", text="new words")
    fio.decide(dataset, second, "remove")
    read_only(dataset, "caption")
    before = documents(dataset)
    with pytest.raises(AuditError, match=r"'caption' .* is read-only .* nothing was changed. To allow it: .*False"):
        fio.apply(dataset)
    assert documents(dataset) == before
    assert fio.list_changes(dataset) == []
    read_only(dataset, "caption", False)
    assert fio.apply(dataset).counts["relabeled"] == 1
    read_only(dataset, "caption")
    with pytest.raises(AuditError, match="read-only and the undo would change it"):
        fio.undo(dataset)
    assert dataset[first]["caption"] == "new words"


def test_removals_need_no_caption_that_can_be_written(dataset: Any) -> None:
    fio.decide(dataset, dataset.first().id, "remove")
    read_only(dataset, "caption")
    assert fio.apply(dataset).counts["removed"] == 1


@pytest.mark.parametrize("name", ["tags", "audit_misalignment"])
def test_results_are_not_written_into_read_only_fields(dataset: Any, name: str) -> None:
    read_only(dataset, name)
    before = documents(dataset)
    with pytest.raises(AuditError, match=f"'{name}' .* is read-only"):
        fio.check_writable(dataset, "audit")
    if name == "tags":
        fio.decide(dataset, dataset.first().id, "remove", run="")
        before = documents(dataset)
        with pytest.raises(AuditError, match="'tags' .* is read-only"):
            fio.apply(dataset)
    assert documents(dataset) == before


def test_decisions_are_not_shown_in_a_read_only_field(dataset: Any) -> None:
    fio.decide(dataset, dataset.first().id, "keep")
    read_only(dataset, "audit_decision")
    with pytest.raises(AuditError, match="'audit_decision' .* is read-only"):
        fio.decide(dataset, dataset.last().id, "keep")
    assert len(fio.decisions(dataset)) == 1


# --- renamed fields ------------------------------------------------------------------------------------------------


def test_decisions_on_a_renamed_caption_are_applied_and_undone(dataset: Any) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[0], "remove")
    fio.decide(dataset, ids[1], "relabel", text="new words")
    dataset.rename_sample_field("caption", "sentence")
    sample = dataset[ids[2]]
    before = documents(dataset)
    done = fio.apply(dataset)
    assert (done.counts["removed"], done.counts["relabeled"], done.stale) == (1, 1, 0)
    assert dataset.values("sentence") == [caption(0), "new words", *map(caption, range(2, 8))]
    assert dataset.match_tags("audit:removed").values("id") == [ids[0]]
    assert not dataset.has_sample_field("caption")
    assert sample.id == ids[2]
    fio.undo(dataset)
    assert documents(dataset) == before


def test_a_renamed_list_of_captions_is_found(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4, captions=lambda row: [caption(row), f"another {row}"])
    name = dataset.first().id
    fio.decide(dataset, [(name, 1)], "relabel", run="", text="new words")
    dataset.rename_sample_field("captions", "alts")
    assert fio.apply(dataset).counts["relabeled"] == 1
    assert dataset.first()["alts"] == [caption(0), "new words"]


def test_what_changed_after_the_renaming_is_stale(dataset: Any) -> None:
    ids = dataset.values("id")
    for name in ids[:3]:
        fio.decide(dataset, name, "remove")
    dataset.rename_sample_field("caption", "sentence")
    sample = dataset[ids[0]]
    sample["sentence"] = "edited"
    sample.save()
    done = fio.apply(dataset)
    assert (done.counts["removed"], done.stale) == (2, 1)


@pytest.mark.parametrize("copies", [0, 2])
def test_a_caption_that_is_gone_or_twice_there_names_the_remedy(dataset: Any, copies: int) -> None:
    fio.decide(dataset, dataset.first().id, "relabel", text="new words")
    texts = dataset.values("caption")
    dataset.delete_sample_field("caption")
    for number in range(copies):
        dataset.set_values(f"copy_{number}", texts)
    why = "'copy_0' and 'copy_1' hold the same texts" if copies else "no other field holds the reviewed texts"
    with pytest.raises(AuditError, match=f"field 'caption'.* any more, and {why}; rename the field back"):
        fio.apply(dataset)
    assert fio.list_changes(dataset) == []


def test_scores_of_flat_and_grouped_views_are_the_same(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    dataset = make_dataset(40, caption=caption, scene=lambda row: f"s{row % 5}")
    fio.audit_view(dataset, QUICK)
    flat = dict(zip(*dataset.values(["id", "audit_misalignment"]), strict=True))
    fio.audit_view(dataset.group_by("scene"), QUICK)
    again = dict(zip(*dataset.values(["id", "audit_misalignment"]), strict=True))
    assert np.allclose(*([values[name] for name in flat] for values in (flat, again)), atol=1e-5)
