"""Made-up people: what stays, what varies, and that words and pictures tell of the same person."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.synthetic.looks import BEARDS, GLASSES, HAIR_COLORS, HAIRS, SKINS, Look
from audit_plugin.synthetic.personas import (
    FACTS,
    TRAITS,
    PersonaIdentity,
    PersonaSet,
    description_of,
    draw_identities,
    draw_personas,
    plan_personas,
    variant,
)
from audit_plugin.synthetic.sentences import COLOR_WORDS, SKIN_WORDS

SMALL = PersonaSet(identities=4, background=3, train=2, test=1, pairs=1, side=128, seed=5)


@pytest.fixture(scope="module")
def people() -> list[PersonaIdentity]:
    return draw_identities(60, random.Random(1))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("personas") / "set"
    draw_personas(folder, SMALL)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def words_of(color: str) -> tuple[str, ...]:
    return COLOR_WORDS.get(color, (color,))


def said_look(text: str, looks: tuple[Look, ...], colors: dict[str, str]) -> tuple[str, str]:
    """(look, color) whose phrase stands in a text, "" where none does; the longest phrase counts."""
    found = []
    for look in looks:
        for phrase in look.phrases:
            for color in colors if "{c}" in phrase else ("",):
                for word in words_of(color):
                    said = phrase.format(c=word)
                    if re.search(rf"\b{re.escape(said)}\b", text, re.IGNORECASE):
                        found.append((len(said), look.name, color))
    return max(found)[1:] if found else ("", "")


# --- identities ------------------------------------------------------------------------------------------------------


def test_identities_differ_and_have_names_of_their_own(people: list[PersonaIdentity]) -> None:
    assert len({who.name for who in people}) == len(people)
    codes = [tuple(who.traits().values()) for who in people]
    assert min(sum(a != b for a, b in zip(x, y, strict=True)) for i, x in enumerate(codes) for y in codes[:i]) >= 2
    more = draw_identities(30, random.Random(2), people)
    assert not {who.name for who in more} & {who.name for who in people}
    assert not {tuple(who.traits().values()) for who in more} & set(codes)
    assert all(who.facts[fact] in values for who in people for fact, values in FACTS.items())
    assert draw_identities(60, random.Random(1)) == people


def test_traits_stay_while_everything_else_varies(people: list[PersonaIdentity]) -> None:
    for who in people[:20]:
        rng = random.Random(who.name)
        looks = [variant(who, rng) for _ in range(12)]
        for person in looks:
            assert {name: person.traits()[name] for name in TRAITS} == who.traits()
        for name in ("backdrop", "clothes", "clothes color", "mood"):
            assert len({person.traits()[name] for person in looks}) > 1


def test_a_description_says_the_traits_that_it_claims_to_name_and_nothing_else(people: list[PersonaIdentity]) -> None:
    forms = set()
    for who in people[:25]:
        rng = random.Random(who.name)
        for _ in range(6):
            text, named = description_of(who, rng)
            head, color = said_look(text, HAIRS, HAIR_COLORS)
            beard, beard_color = said_look(text, BEARDS, HAIR_COLORS)
            glasses, _ = said_look(text, GLASSES, {"": ""})
            skin = [name for name, words in SKIN_WORDS.items() if any(f"{word} skin" in text.lower() for word in words)]
            read = {"head": head, "head color": color, "beard": beard, "beard color": beard_color, "glasses": glasses}
            read |= {"skin": skin[0] if skin else ""}
            assert {name: value for name, value in read.items() if value} == named, text
            assert all(who.traits()[name] == value for name, value in named.items())
            assert len(named) >= 2
            assert not any(part in text for part in who.name.split())
            forms.add(text)
    assert len(forms) > 0.9 * 6 * 25


# --- the set on the disk ---------------------------------------------------------------------------------------------


def test_pictures_show_the_traits(drawn: Path) -> None:
    facts = {row["identity"]: row for row in table(drawn / "facts.csv")}
    for row in table(drawn / "manifest.csv"):
        with Image.open(drawn / row["image"]) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
        trait = facts[row["identity"]]

        def share(code: str, pixels: np.ndarray = pixels) -> float:
            color = [int(code[i : i + 2], 16) for i in (1, 3, 5)]
            return float((abs(pixels - color).max(1) <= 3).mean())

        assert max(SKINS, key=lambda name: share(SKINS[name])) == trait["skin"]
        if trait["head color"]:
            assert share(HAIR_COLORS[trait["head color"]]) > 0.003


def test_the_tables_say_who_is_where_and_what_is_kept_for_tests(drawn: Path) -> None:
    rows, facts = table(drawn / "manifest.csv"), table(drawn / "facts.csv")
    assert [row["split"] for row in rows] == ["train", "train", "test"] * 4 + ["background"] * 3
    assert len({row["identity"] for row in rows}) == len(facts) == 7
    assert list(facts[0]) == ["identity", *TRAITS, *FACTS]
    background = {row["identity"] for row in rows if row["split"] == "background"}
    assert not background & {row["identity"] for row in rows if row["split"] != "background"}
    assert all(row["identity"] not in row["description"] for row in rows)


def test_the_same_seed_gives_the_same_bytes_and_a_whole_set_is_left_alone(drawn: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    draw_personas(again, SMALL)
    for path in sorted(p for p in drawn.rglob("*") if p.is_file()):
        assert (again / path.relative_to(drawn)).read_bytes() == path.read_bytes()
    before = (again / "images/person-00000-00.png").stat().st_mtime_ns
    draw_personas(again, SMALL)
    assert (again / "images/person-00000-00.png").stat().st_mtime_ns == before
    (again / "images/person-00000-00.png").unlink()
    draw_personas(again, SMALL)
    assert (again / "images/person-00000-00.png").is_file()
    assert [r.identity.name for r in plan_personas(PersonaSet(4, seed=1))] != [
        r.identity.name for r in plan_personas(PersonaSet(4))
    ]


def test_a_folder_with_other_things_and_a_set_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AuditError, match="is not empty and is not a persona set"):
        draw_personas(tmp_path, SMALL)
    with pytest.raises(AuditError, match="identities is 1"):
        PersonaSet(identities=1)
    with pytest.raises(AuditError, match="must be at least 1"):
        PersonaSet(test=0)
