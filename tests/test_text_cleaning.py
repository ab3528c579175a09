"""The caption that is left of a text: what is taken off, what is kept, and when nothing is proposed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.scoring.text_checks import check_texts
from audit_plugin.scoring.text_cleaning import READ, clean_text, find_address, find_markup
from tests.captions import CLEAN, FAULTY, ORDINARY

CLEANED = {
    "cafÃ© tables": "café tables",
    "a man &amp; a dog": "a man & a dog",
    "a man &amp;amp; a dog": "a man & a dog",
    "a man &amp;amp;amp; a dog": "a man & a dog",
    "&lt;b&gt;red&lt;/b&gt; shirt": "red shirt",
    "<b>red</b> shirt<br/> for men": "red shirt for men",
    "red shirt<br/>for men": "red shirt for men",
    "H<sub>2</sub>O in a glass": "H2O in a glass",
    "a <b>r</b>ed boat": "a red boat",
    "[b]a boat[/b] at sea": "a boat at sea",
    "[b]a [i]red[/i] boat[/b] of [color=#f00]array[i][/color]": "a red boat of array[i]",
    "[quote]a boat[/quote] at sea[/b]": "a boat at sea",
    # the words of links stay
    "[a red boat](https://x)": "a red boat",
    "look: [a red boat](https://x.y/z) at sea": "look: a red boat at sea",
    "![a red boat](https://x.y/z.png)": "a red boat",
    "[url=https://a.b/c]a red boat[/url]": "a red boat",
    '<a href="https://a.b/c">a red boat</a> at sea': "a red boat at sea",
    # addresses before and after
    "wooden lamp - https://lamps.com/a": "wooden lamp",
    "wooden lamp https://lamps.com/a": "wooden lamp",
    "wooden lamp (www.lamps.de)": "wooden lamp",
    "wooden lamp | lamps.com": "wooden lamp",
    "https://lamps.com: a wooden lamp": "a wooden lamp",
    "lamps.com - a wooden lamp": "a wooden lamp",
    "a wooden lamp, lamps.com": "a wooden lamp",
    # a domain in a sentence is a brand
    "Booking.com staff &amp; guests": "Booking.com staff & guests",
    "an Amazon.com box &amp; a cat": "an Amazon.com box & a cat",
    "Booking.com, Hotels.com &amp; others": "Booking.com, Hotels.com & others",
    "www.lamps.de - a wooden lamp - www.lamps.de https://lamps.com": "a wooden lamp",
    "A lamp of wood. https://lamps.com": "A lamp of wood.",
    # signs of the caption's own stay
    "-5 degrees &amp; falling": "-5 degrees & falling",
    "rock&notes &amp; more": "rock&notes & more",
}
NOTHING = [
    "a red boat",
    "the letters array[i], x[b] and [u] on a screen",  # tags that are never closed
    "a  red   boat",  # only spaces differ
    "https://lamps.com/a",  # nothing is left
    "lamp https://lamps.com/a",  # one word of two
    "<b>!!!</b>",
    # a sentence would have a hole
    "see www.a.com for more",
    "a lamp from www.lamps.de",
    "more lamps at https://lamps.com",
    "eine Lampe von www.lamps.de",
    "une lampe de www.lampes.fr",
    "a lamp of https://lamps.com in a room",
    "a red <b>Amazon.com</b>",
    "photo of {{ product.name }}",
    "photo of ${name} at sea",
    "photo of %(name)s",
    "[img]http://a.b/c.png[/img] a red boat",
    "<script>alert('a red boat')</script> a red boat",
    # what is lost stays lost
    "<b>r\ufffdd</b> boat at sea",
    "a red boat &#xfffd; &amp; more",
    # of longer texts only a part is read
    f"<b>{'a red boat ' * READ}</b>",
]


@pytest.mark.parametrize("text", CLEANED)
def test_what_is_left_of_a_text(text: str) -> None:
    assert clean_text(text) == CLEANED[text]


@pytest.mark.parametrize("text", NOTHING)
def test_nothing_is_proposed_for_a_text_that_would_lose_something(text: str) -> None:
    assert clean_text(text) == ""


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_captions_are_not_changed(text: str) -> None:
    assert clean_text(text) in ("", " ".join(text.split()).replace("ﬁ", "fi"))


PARTS = st.sampled_from(
    [
        *("a", "red", "boat", " ", " ", "&", "amp;", "&amp;", "&amp;amp;", "&lt;", "b", "&gt;", "<b>", "</b>", "<br>"),
        *("[b]", "[/b]", "[", "](https://x.y)", "https://x.y", "www.x.com", "x.com", " - ", "|", "(", ")", "Ã©", "â€œ"),
        *("&#38;", "#38;", "&#x26;", "{{", "}}", "\ufffd", "&nbsp;", "\n", "see", "!", "é", "[url=", "]", "<eos>"),
    ]
)


@settings(deadline=None, max_examples=500)
@given(st.one_of(st.text(max_size=60), st.lists(PARTS, max_size=14).map("".join)))
def test_cleaning_once_is_enough(text: str) -> None:
    cleaned = clean_text(text)
    assert clean_text(cleaned) in ("", cleaned)
    assert not find_markup(cleaned)
    assert not find_address(cleaned)


@settings(deadline=None, max_examples=200)
@given(st.lists(PARTS, max_size=14).map("".join))
def test_letters_of_words_are_never_lost(text: str) -> None:
    """What is left holds the words outside markup and addresses in their order."""
    cleaned = clean_text(text)
    if cleaned:
        assert cleaned.count("boat") <= text.count("boat")
        assert cleaned.count("red") == text.count("red")


def test_a_text_that_still_has_a_fault_is_not_proposed() -> None:
    for text in ("<b>IMG_2034.jpg</b> at sea", "<b>buy now</b> a chair", "<p>No image available</p>", "<b>1 2</b> 3"):
        found = check_texts([*CLEAN, text])
        assert "markup" in found.problems[-1]
        assert found.cleaned[-1] == ""
    for text in FAULTY:
        cleaned = check_texts([*CLEAN, text]).cleaned[-1]
        assert not cleaned or not check_texts([*CLEAN, cleaned]).problems[-1]
