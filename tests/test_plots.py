from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.audit.removal_curve import METRICS, interval
from audit_plugin.report.png_plots import COLORS, _attribution, _groups, memorization_plot, removal_plot

RNG = np.random.default_rng(0)


def report(best: int = 20) -> dict[str, Any]:
    methods = {}
    for at, name in enumerate(("multimem", "cosine", "random")):
        cells = {}
        for n in (0, 10, 20):
            values = 0.4 + 0.001 * n * (2 - at) + 0.01 * np.arange(5)
            cell = interval(values) | {"gain": interval(values - 0.4 - 0.01 * np.arange(5)[::-1])}
            cells[str(n)] = {side: dict.fromkeys(METRICS, cell) for side in ("validation", "test")}
        methods[name] = {"amounts": cells, "recommended": {"amount": 0 if name == "random" else best}}
    return {"amounts": [0, 10, 20], "methods": methods}


def columns(n: int = 400) -> dict[str, Any]:
    values = 0.2 + 0.1 * RNG.standard_normal(n)
    values[:5] = np.nan
    return {"multimem": values, "multimem_stderr": values, "multimem_mean": values}


def four(n: int = 400) -> dict[str, Any]:
    out = columns(n)
    for name in ("image_text", "image_audio", "text_audio", "due_image", "due_text", "due_audio"):
        out[f"multimem_{name}"] = out["multimem"] / 3
    return out


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert not [key for key in picture.info if key.lower() in ("date", "software", "creation time")]
        return np.asarray(picture.convert("RGB")).astype(int)


def amount_of(color: str, picture: np.ndarray) -> int:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(picture - rgb).sum(-1) < 12).sum())


def test_removal_is_drawn_with_a_line_per_method_and_its_chosen_amount(tmp_path: Path) -> None:
    removal_plot(report(), tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape[1] == 900
    assert all(amount_of(color, picture) > 100 for color in COLORS[:3])
    assert amount_of(COLORS[3], picture) == 0
    removal_plot(report(best=0), tmp_path / "b.png")
    # the black rings are gone
    assert amount_of("#000000", picture) > amount_of("#000000", pixels(tmp_path / "b.png")) + 100


def test_equal_values_give_equal_bytes_whatever_the_users_style(tmp_path: Path) -> None:
    import matplotlib

    removal_plot(report(), tmp_path / "a.png")
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "pink"}):
        removal_plot(report(), tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    removal_plot(report(), tmp_path / "c.png", side="validation")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_two_modalities_have_one_panel_and_more_have_two(tmp_path: Path) -> None:
    memorization_plot(columns(), tmp_path / "two.png")
    memorization_plot(four(), tmp_path / "three.png", cut=0.4)
    one, two = pixels(tmp_path / "two.png"), pixels(tmp_path / "three.png")
    assert one.shape[1] == two.shape[1] == 900
    right = slice(600, None)
    assert amount_of(COLORS[1], one) == 0
    assert amount_of(COLORS[1], two[:, right]) > 1000
    assert amount_of(COLORS[0], two[:, right]) > 500


def test_groups_and_parts_are_read_from_the_columns() -> None:
    table = four(8)
    table["role"] = np.array(["", "f", "f", "g", "both", "none", "f", "reference"], dtype=object)
    table["multimem"] = np.array([np.nan, np.nan, 1, 1, 0, 0, 1, np.nan])
    groups = _groups(table, table["multimem"])
    assert [rows.sum() for rows in groups.values()] == [2, 1, 1, 1]
    assert list(_groups(columns(9), columns(9)["multimem"])) == ["samples"]
    for name in [n for n in table if n.startswith("multimem_")]:
        table[name] = np.where(np.isin(table["role"], ("f", "g")), 1.0, np.nan)
    parts = _attribution(table)
    assert list(parts) == [
        *(f"without {m}" for m in ("image", "text", "audio")),
        *("image + text", "image + audio", "text + audio"),
    ]
    assert all(np.nansum(values) == 4 for values in parts.values())  # both sides of the split, as members less not
    assert _attribution(columns()) == {}


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="nothing to draw"):
        memorization_plot({"multimem": np.full(4, np.nan)}, tmp_path / "x.png")
    with pytest.raises(AuditError, match="cannot be written"):
        removal_plot(report(), tmp_path / "no" / "x.png")
    assert not list(tmp_path.iterdir())
