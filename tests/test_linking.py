from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.cli.install import linking

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the plugin belongs, in a plugin folder that does not exist yet."""
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path / "plugins dir"))
    return tmp_path / "plugins dir" / "@multimem" / "audit"


def no_links(*args, **kwargs):
    raise OSError("links are not supported")


def test_link_points_at_this_checkout_and_repeats(place):
    assert str(place) in linking.link()
    assert place.is_symlink()
    assert place.resolve() == ROOT
    assert "already linked" in linking.link()


def test_stale_link_of_ours_is_renewed(place, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "fiftyone.yml").write_text('name: "@multimem/audit"\n')
    place.parent.mkdir(parents=True)
    place.symlink_to(old)
    linking.link()
    assert place.resolve() == ROOT
    assert (old / "fiftyone.yml").exists()


def test_dangling_link_is_renewed(place, tmp_path):
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "gone")
    linking.link()
    assert place.resolve() == ROOT


@pytest.mark.parametrize("yml", ['name: "@other/audit"\n', None], ids=["another plugin", "no plugin at all"])
@pytest.mark.parametrize("as_link", [True, False])
def test_foreign_folder_is_left_alone(place, tmp_path, yml, as_link):
    folder = tmp_path / "foreign" if as_link else place
    folder.mkdir(parents=True)
    (folder / "precious.txt").write_text("mine")
    if yml:
        (folder / "fiftyone.yml").write_text(yml)
    if as_link:
        place.parent.mkdir(parents=True)
        place.symlink_to(folder)
    with pytest.raises(AuditError, match="audit") as error:
        linking.link()
    assert str(place) in str(error.value)
    assert (place / "precious.txt").read_text() == "mine"


def test_downloaded_copy_is_left_alone_and_named(place):
    place.mkdir(parents=True)
    (place / "fiftyone.yml").write_text('name: "@multimem/audit"\n')
    with pytest.raises(AuditError, match="fiftyone plugins delete @multimem/audit"):
        linking.link()
    assert place.is_dir()


def test_copies_where_links_are_impossible(place, monkeypatch):
    monkeypatch.setattr(Path, "symlink_to", no_links)
    assert linking.link().startswith("copied")
    assert (place / "__init__.py").read_bytes() == (ROOT / "__init__.py").read_bytes()
    assert (place / "fiftyone.yml").is_file()
    assert not (place / "tests").exists()
    assert not (place / ".venv").exists()
    (place / "__init__.py").write_text("old")
    assert linking.link().startswith("copied"), "a copy of ours is renewed"
    assert (place / "__init__.py").read_bytes() == (ROOT / "__init__.py").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="a file as a folder fails otherwise there")
def test_unwritable_place_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path / "file" / "plugins"))
    with pytest.raises(AuditError, match="set FIFTYONE_PLUGINS_DIR"):
        linking.link()


def test_plugin_folder_that_is_the_checkout_itself(monkeypatch):
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(ROOT))
    assert "already linked" in linking.link()
    assert not (ROOT / "@multimem").exists()


def test_settings_from_environment_then_file(tmp_path, monkeypatch):
    for key in ("PLUGINS_DIR", "DEFAULT_DATASET_DIR"):
        monkeypatch.delenv(f"FIFTYONE_{key}", raising=False)
    config = tmp_path / "config.json"
    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(config))
    assert linking.plugins_dir() == Path.home() / "fiftyone" / "__plugins__"
    config.write_text("not json")
    assert linking.fiftyone_setting("plugins_dir") is None
    config.write_text(json.dumps({"default_dataset_dir": str(tmp_path / "sets")}))
    assert linking.plugins_dir() == tmp_path / "sets" / "__plugins__"
    config.write_text(json.dumps({"plugins_dir": str(tmp_path / "from file")}))
    assert linking.plugins_dir() == tmp_path / "from file"
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path / "from env"))
    assert linking.plugins_dir() == tmp_path / "from env"


@pytest.mark.fiftyone
def test_same_folder_as_fiftyone_itself():
    fo = pytest.importorskip("fiftyone")
    assert str(linking.plugins_dir()) == fo.config.plugins_dir
