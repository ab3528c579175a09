from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.encoders.base import MAX_PIECES, split_text


@settings(deadline=None)
@given(st.text("ab \u00e9", min_size=1, max_size=120), st.integers(1, 20))
def test_splitting_loses_only_white_space_and_every_part_fits(text: str, limit: int) -> None:
    parts = split_text(text, lambda part: len(part) <= limit)
    if len(parts) < MAX_PIECES:
        assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(len(part) <= limit or len(part) < 2 for part in parts)
    assert len(parts) <= MAX_PIECES


def test_words_stay_whole_where_they_can() -> None:
    assert [p.strip() for p in split_text("one two three four", lambda part: len(part) <= 10)] == [
        "one two",
        "three four",
    ]
