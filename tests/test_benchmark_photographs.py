"""The readers of photographs, on small packages that are built here as the real ones are."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image

from audit_plugin.arrays import AuditError
from benchmarks import packages, photographs
from benchmarks.sets import load_set


def picture(path: Path, color: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)


def test_foods_have_their_names_and_a_picture_once(tmp_path: Path) -> None:
    folder = tmp_path / "photographs" / "foods"
    for code, color in {"A001": "red", "C015": "green", "O001": "blue", "O002": "blue"}.items():
        picture(folder / "assets" / f"{code}.jpeg", color)
    header = "Food Code; code,Food Name; name,Local Name; lang,Food Group; grup\n"
    rows = ['A001,"Amaranth seed, black-1","H. Rajgira; E. Love-lies-bleeding.",Cereals', "C015,Cabbage,,Vegetables"]
    rows += ['O001,"Goat, chops",,Meat', 'O002,"Goat, legs",,Meat']
    (folder / "index.csv").write_text(header + "\n".join(rows))
    clean = load_set("foods", data=tmp_path)
    assert clean.media["text"] == ("Amaranth seed, black (Love-lies-bleeding)", "Cabbage", "Goat, chops")
    assert clean.category == ("Cereals", "Vegetables", "Meat")


def test_stamps_are_photographs_with_a_text(tmp_path: Path) -> None:
    top = tmp_path / "photographs/stamps/usr/share/tuxpaint/stamps"
    names = ["animals/birds/crow", "animals/birds/nameless", "animals/insects/bee", "clothes/hat"]
    names += ["animals/birds/crow_mirror", "food/fruit/plastic/apple", "vehicles/bus"]
    for name in names:
        picture(top / f"{name}.png")
        if "nameless" not in name:
            (top / f"{name}.txt").write_text(f"A {name.split('/')[-1]}.\nUn {name}\n")
    clean = load_set("stamps", data=tmp_path)
    assert clean.media["text"] == ("A crow.", "A bus.")
    assert clean.category == ("animals", "vehicles")


def resources(files: dict[str, bytes]) -> bytes:
    """A Qt resource package of version 1 with one folder; every second file is packed by zlib."""
    named = {name: index for index, name in enumerate(["gcompris", *files])}
    names, offsets = b"", {}
    for name in named:
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    data, at = b"", {}
    for number, (name, content) in enumerate(files.items()):
        packed = struct.pack(">I", len(content)) + zlib.compress(content) if number % 2 else content
        at[name] = len(data)
        data += struct.pack(">I", len(packed)) + packed
    nodes = [struct.pack(">IHII", 0, 2, 1, 1), struct.pack(">IHII", offsets["gcompris"], 2, len(files), 2)]
    nodes += [struct.pack(">IHHHI", offsets[name], number % 2, 0, 0, at[name]) for number, name in enumerate(files)]
    tree = b"".join(nodes)
    start = 20
    header = b"qres" + struct.pack(">4I", 1, start, start + len(tree) + len(names), start + len(tree))
    return header + tree + names + data


def test_a_resource_package_gives_its_files_once(tmp_path: Path) -> None:
    package = tmp_path / "some.rcc"
    files = {"plain.webp": b"picture", "packed.qml": "text \N{SNOWMAN}".encode()}
    package.write_bytes(resources(files))
    folder = photographs._unpacked(package)
    assert (folder / "gcompris/plain.webp").read_bytes() == b"picture"
    assert (folder / "gcompris/packed.qml").read_text(encoding="utf-8") == "text \N{SNOWMAN}"
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} == {"some.rcc", "some"}
    package.unlink()
    assert photographs._unpacked(package) == folder  # not read again


@pytest.mark.parametrize("name", ["..", "../up", "/etc/x", "", "."])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "some.rcc").write_bytes(resources({name: b"up"}))
    with pytest.raises(AuditError, match="may lead out"):
        photographs._unpacked(tmp_path / "some.rcc")
    assert not (tmp_path / "some").exists()


def test_another_file_is_no_resource_package(tmp_path: Path) -> None:
    (tmp_path / "some.rcc").write_bytes(b"GIF89a" + bytes(30))
    with pytest.raises(AuditError, match="not a Qt resource package"):
        photographs._unpacked(tmp_path / "some.rcc")


def test_activities_are_named_by_boards_and_by_files(tmp_path: Path) -> None:
    rcc = tmp_path / "photographs/activities/usr/share/gcompris-qt/rcc"
    tops = {}
    for name in ("explore_monuments", "explore_world_animals", "explore_farm_animals", "erase", "categorization"):
        tops[name] = rcc / name / "gcompris/src/activities" / name / "resource"
        tops[name].mkdir(parents=True)
    picture(tops["explore_monuments"] / "petra.webp", "red")
    (tops["explore_monuments"] / "board").mkdir()
    inner = (tops["explore_monuments"] / "petra.webp").relative_to(rcc / "explore_monuments")
    board = f'{{ "title": qsTr("Petra"), "x": 1, "image2": "qrc:/{inner}" }}'
    (tops["explore_monuments"] / "board/board1_0.qml").write_text(board)
    picture(tops["erase"] / "red_panda.webp", "green")
    picture(tops["categorization"] / "images/tools/screwDriver2.webp", "blue")
    picture(tops["categorization"] / "images/monuments/monument1.webp", "white")  # names nothing
    picture(tops["categorization"] / "images/monuments/petra.webp", "red")  # the same picture again
    clean = load_set("activities", data=tmp_path)
    assert clean.media["text"] == ("Petra", "red panda", "screw driver")
    assert clean.category == ("explore_monuments", "erase", "tools")


def test_pictures_of_the_sky_with_a_proper_name(tmp_path: Path) -> None:
    top = tmp_path / "photographs/sky/usr/share/stellarium/nebulae/default"
    for name in ("m1.png", "n6992.png", "sh2-155_x.png", "m999.png", "mosaic_3.png", "barnard142-v.png"):
        picture(top / name)
    lines = ['NGC 6992 _("Network Nebula") # [1]', 'M 1 _("Crab Nebula")', 'M 1 _("Taurus A")', 'B 142 _("E Nebula")']
    (top / "names.dat").write_text("# names\n" + "\n".join(lines))
    clean = load_set("sky", data=tmp_path)
    assert dict(zip([key.split("/")[-1] for key in clean.ids], clean.media["text"], strict=True)) == {
        "barnard142-v.png": "E Nebula",
        "m1.png": "Crab Nebula",
        "n6992.png": "Network Nebula",
    }


def test_a_debian_package_is_unpacked_in_part_and_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("dpkg-deb"):
        pytest.skip("dpkg-deb is not installed")
    built = tmp_path / "built"
    (built / "DEBIAN").mkdir(parents=True)
    (built / "DEBIAN/control").write_text(
        "Package: some\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: d\n"
    )
    picture(built / "usr/share/some/a.png")
    picture(built / "usr/share/other/b.png")
    (built / "usr/share/some/link.png").symlink_to("/etc/passwd")
    subprocess.run(["dpkg-deb", "--build", built, tmp_path / "some.deb"], check=True, capture_output=True)

    run = subprocess.run

    def downloaded(command, **settings):
        if command[0] != "apt-get":
            return run(command, **settings)
        (Path(settings["cwd"]) / "some.deb").write_bytes((tmp_path / "some.deb").read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", downloaded)
    folder = packages.bring_debian("some=1", tmp_path / "set", ("usr/share/some/",))
    assert [path.name for path in sorted(folder.rglob("*")) if not path.is_dir()] == ["a.png"]


def test_a_debian_package_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no-such-package-at-all=1"):
        packages.bring_debian("no-such-package-at-all=1", tmp_path / "set", ("usr/",))
    assert not any(tmp_path.iterdir())
