"""The table of operators in docs/security.md is complete: each registered operator, with the parameters of its form."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.operator_requests import form_of, operator
from tests.test_operator_parameters import PANELS, operators

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
ROOT = Path(__file__).resolve().parents[1]
NOTICES = {"token", "cost", "what", "count", "none", "no_repair", "problem", "unknown", "refused"}


def rows() -> dict[str, list[str]]:
    """Operator -> the other cells of its row."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("### Operators")[2].partition("###")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")
    ]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


def test_each_operator_and_panel_has_a_row() -> None:
    assert set(rows()) == {*operators(), *PANELS}
    assert all(all(cells) and len(cells) == 3 for cells in rows().values())


def test_the_rows_name_the_parameters_of_the_forms_and_the_token(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4)
    for name, (parameters, _, protection) in rows().items():
        if name in PANELS or parameters.startswith("as "):
            continue
        named = set(re.findall(r"`(\w+)`", parameters))
        fields = set(form_of(name, dataset)) - NOTICES if hasattr(operator(name), "form") else set()
        settings = "the settings" in parameters
        assert settings or fields <= named | {"image", "audio", "video"}, (name, fields - named)
        assert hasattr(operator(name), "form") is protection.startswith("token"), name


def test_the_documents_are_linked() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "docs/security.md" in readme
    assert "SECURITY.md" in readme
