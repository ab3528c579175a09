"""The caption in a text that holds markup, addresses or encoding damage: what is left when these are taken off.

What would leave a hole in a sentence is not taken off, and nothing is proposed then: a caption that says less, or
something else, is worse than one that a person looks at.
"""

from __future__ import annotations

import html
import re

import ftfy

READ = 10_000  # characters of a text that are looked at
LEAST_LEFT = 2  # words of a text that is proposed
ROUNDS = 6  # of cleaning, after which a text that still changes is not proposed: tags in entities in entities

# Tags between which words go on, and those that separate words.
INLINE = "abbr|b|big|code|em|font|i|small|span|strong|sub|sup|u"
BLOCKS = "a|blockquote|br|center|div|h[1-6]|hr|iframe|img|li|ol|p|pre|table|tbody|td|th|tr|ul"
NOT_TEXT = "script|style"
ATTRIBUTES = r"(?:\s{1,9}[\w:-]{1,40}\s{0,9}=[^<>]{0,2000})?\s{0,9}/?"
# Of forums: one that is never closed may be an index, "array[i]".
FORUM_INLINE = r"\[(?P<tag>b|i|u|color|size)(?:=[^\[\]]{0,200})?\](?=.{0,2000}?\[/(?P=tag)\])|\[/(?:b|i|u|color|size)\]"
FORUM_BLOCK = r"\[(?P<tag>url|quote|code)(?:=[^\[\]]{0,2000})?\](?=.{0,2000}?\[/(?P=tag)\])|\[/(?:url|quote|code)\]"
INLINE_TAG = re.compile(rf"</?(?:{INLINE}){ATTRIBUTES}>|{FORUM_INLINE}", re.IGNORECASE | re.DOTALL)
BLOCK_TAG = re.compile(
    rf"</?(?:{BLOCKS}){ATTRIBUTES}>|{FORUM_BLOCK}|<(?:bos|eos|pad|unk|start_of_text|end_of_text)>",
    re.IGNORECASE | re.DOTALL,
)
LINK = re.compile(r"!?\[([^\[\]]{0,2000})\]\((?:https?:|/|#)[^()\s]{0,2000}\)", re.IGNORECASE)  # of Markdown
# What stands for words, or is none of them: without it a hole is left.
UNCLEANABLE = re.compile(
    rf"</?(?:{NOT_TEXT}){ATTRIBUTES}>|\[/?img(?:=[^\[\]]{{0,200}})?\]"
    r"|\{\{[^{}]{0,200}\}\}|%\(\w{1,60}\)s|\$\{\w{1,60}\}",
    re.IGNORECASE,
)
ENTITY = re.compile(r"&(?:[a-z]{2,8}\d?|#\d{2,6}|#x[0-9a-f]{2,5});", re.IGNORECASE)

WITH_SCHEME = r"(?:https?://|www\.(?=[^\s.]))[^\s<>\"']{1,2000}"
DOMAIN = r"(?<![@\w.-])(?:[a-z0-9][\w-]{0,62}\.){0,3}[a-z0-9][\w-]{1,62}\.(?:com|net|org|info|biz|co\.uk)(?![\w.-]*\w)"
ADDRESSES = (  # a domain in a sentence is mostly a brand: "an Amazon.com box"
    re.compile(WITH_SCHEME, re.IGNORECASE),
    re.compile(rf"{DOMAIN}/[^\s<>\"']{{0,2000}}", re.IGNORECASE),
    re.compile(rf"{DOMAIN}(?=\W{{0,20}}$)", re.IGNORECASE),
    re.compile(rf"(?<=\bvisit )(?:{DOMAIN})|(?<=\bsee )(?:{DOMAIN})|(?<=\bvia )(?:{DOMAIN})", re.IGNORECASE),
)
AN_ADDRESS = re.compile(rf"{WITH_SCHEME}|{DOMAIN}/[^\s<>\"']{{0,2000}}", re.IGNORECASE)
A_DOMAIN = re.compile(DOMAIN, re.IGNORECASE)
AROUND = " ()<>\"'|,:;–—-"  # signs that set an address off from a caption
SETS_OFF = tuple("|–—-.!?")  # so that the words before it are complete
# Last words of what goes on with an address, in the languages that are most frequent on the web.
GOES_ON = {
    "a", "an", "and", "are", "at", "by", "for", "from", "here", "in", "is", "more", "of", "on", "or", "see",
    "source", "the", "this", "to", "via", "visit", "with", "auf", "aus", "bei", "der", "die", "das", "ein", "eine",
    "für", "im", "mit", "siehe", "und", "von", "zu", "chez", "dans", "de", "des", "du", "et", "la", "le", "les",
    "par", "sur", "voir", "con", "del", "desde", "el", "en", "los", "las", "por", "ver", "y", "da", "di", "il",
    "su", "una", "un", "com", "do", "no", "na", "em", "van", "op", "met", "het", "een",
}  # fmt: skip


def find_markup(text: str) -> str:
    """The first piece of markup in a text, or ""."""
    matches = [pattern.search(text) for pattern in (INLINE_TAG, BLOCK_TAG, LINK, UNCLEANABLE)]
    found = [match for match in matches if match]
    if found:
        return min(found, key=lambda match: match.start())[0]
    return next((entity for entity in ENTITY.findall(text) if html.unescape(entity) != entity), "")


def find_address(text: str) -> str:
    """The first web address in a text, or ""."""
    for pattern in ADDRESSES:
        if found := pattern.search(text):
            return found[0]
    return ""


def unescape(text: str) -> str:
    """The text with its entities as letters; those without a semicolon stay: "&notes" is a word."""
    return ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def clean_text(text: str) -> str:
    """The text with its encoding repaired and without markup, and without addresses before and after it.

    "" where nothing changes or little is left, where something in a sentence would be missing, and of texts of more
    than `READ` characters.
    """
    if len(text) > READ:
        return ""
    before, cleaned = " ".join(text.split()), text
    for _ in range(ROUNDS):
        again = _clean_once(cleaned)
        if again == cleaned:
            break
        cleaned = again
    else:
        return ""
    has_words = len(cleaned.split()) >= min(LEAST_LEFT, len(before.split())) and any(map(str.isalpha, cleaned))
    has_faults = "\ufffd" in cleaned or find_markup(cleaned) or find_address(cleaned)
    return cleaned if has_words and not has_faults and cleaned != before else ""


def _clean_once(text: str) -> str:
    text = unescape(ftfy.fix_encoding(text))
    text = LINK.sub(r"\1", text)
    text = BLOCK_TAG.sub(" ", INLINE_TAG.sub("", text))
    return " ".join(_without_outer_addresses(text.split()))


def _without_outer_addresses(words: list[str]) -> list[str]:
    """The words without addresses before and after them, unless the last ones go on with the address: "more at".

    A domain alone may be a brand, "Booking.com staff", and is taken off only where a sign sets it off.
    """
    first, last = 0, len(words)
    while first < last and _is_address(words[first], _sets_off(words[first]) or _is_sign(words[first + 1 : first + 2])):
        first += 1
        while first < last and _is_sign(words[first : first + 1]):
            first += 1
    while last > first and _is_address(words[last - 1], last - 1 == first or _sets_off(words[last - 2], ",", ";")):
        last -= 1
        while last > first and _is_sign(words[last - 1 : last]):
            last -= 1
    left = words[first:last]
    if last == len(words) or not left:
        return left
    is_whole = left[-1].endswith(SETS_OFF) or _is_sign(words[last : last + 1])
    if left[-1].strip(AROUND).lower() in GOES_ON and not is_whole:
        return words[first:]
    left[-1] = left[-1].rstrip(AROUND)
    return left


def _is_address(word: str, is_set_off: bool) -> bool:
    alone, in_brackets = word.strip(AROUND), word.startswith(("(", "<"))
    return bool(AN_ADDRESS.fullmatch(alone)) or ((is_set_off or in_brackets) and bool(A_DOMAIN.fullmatch(alone)))


def _sets_off(word: str, *more: str) -> bool:
    return word.endswith((*SETS_OFF, ":", *more))


def _is_sign(words: list[str]) -> bool:
    """Whether there is a word, and it has no letter or digit that belongs to a caption: "-", "|"."""
    return bool(words) and not words[0].strip(AROUND)
