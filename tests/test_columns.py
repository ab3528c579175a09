from __future__ import annotations

import pytest

from audit_plugin.scoring.columns import JUDGE_COLUMNS, all_columns, column_help
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.scores import SCORES, compute_scores
from tests.core_fixtures import planted


def test_every_score_and_flag_has_its_column() -> None:
    columns = all_columns()
    assert all(columns[name].kind == "score" and columns[name].label == s.label for name, s in SCORES.items())
    assert all(columns[f"is_{kind}"].kind == "flag" for kind in FLAGS)
    found = {"copy_of", "leak_of", "text_problem", "image_problem", "box_problem"}
    found |= {column.name for column in JUDGE_COLUMNS if column.kind == "text"}
    assert found | {"culprit", "driver", "role", "action", "reason", "suggestion", "repair", "leak", "failure"} == {
        c.name for c in columns.values() if c.kind == "text" and c.name != "duplicate_group"
    }


@pytest.mark.parametrize("name", all_columns())
def test_a_column_is_named_and_explained_in_one_line(name: str) -> None:
    column = all_columns()[name]
    assert column.name == name
    assert column.kind in ("score", "flag", "text", "group")
    assert column.label[0].isupper()
    assert len(column.help) > 10
    assert "\n" not in column.help


@pytest.mark.parametrize("m", [2, 3])
def test_every_computed_column_can_be_explained(m: int) -> None:
    helps = {name: column_help(name) for name in compute_scores(planted(m).evidence)}
    assert len(set(helps.values())) == len(helps)  # each says something of its own
    assert helps["misalignment_image_text"] == "Misalignment of image and text alone, in robust deviations"
    assert helps["outlier_text"] == "Outlier of text alone, in units of the tail scale"
    assert "tandard error" in helps["multimem_stderr"]
    assert "Mean over pairs" in helps["multimem_mean"]
    if m == 3:
        assert helps["multimem_image_text"] == "MultiMem of image and text"
        assert helps["multimem_due_audio"] == "MultiMem contributed by audio"


@pytest.mark.parametrize("name", ["nothing", "misalignmentx", "is_", ""])
def test_an_unknown_column_is_an_error(name: str) -> None:
    with pytest.raises(KeyError):
        column_help(name)
