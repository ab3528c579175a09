"""Which words of a caption its medium speaks against.

For each word w that enough captions have, a ridge regression predicts from the medium's features x, out of fold
(`scoring.linear`), whether the caption has it. With the mean prediction m1 of the captions that have the word, m0 of
those that do not, and the pooled variance s^2, the log likelihood ratio of a prediction p that the caption lacks it is

    gain = (m0 - m1) (2 p - m0 - m1) / (2 s^2)

the mean over the media beside the text. Where the features tell nothing of a word, so that m1 <= m0, its gain is 0; of
rare words nothing is said, nor of scripts that put no blanks between words. No encoder is needed, so that texts under
your own embeddings are examined as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence, Set

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, dense_ids
from audit_plugin.scoring.contrast import draw_pool
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.linear import cross_fit
from audit_plugin.scoring.suggest.pair_scores import text_pairs

from .records import Records, rounded

LEAST_CAPTIONS = 5  # that have a word
COMMON = 0.5  # a word that stands in more than this share of the captions is grammar, not what is wrong with one
MOST_WORDS = 1000  # that are predicted, the most frequent ones
FIT_ROWS = 20_000  # at most, to which the regressions are fitted
LEAST_GAIN = 2.0  # of a word that is named; chosen on persons and photographs, with other faults than those reported
CHARACTERS = 2000  # of a caption that are looked at
LEAST_VARIANCE = 1e-9

Span = tuple[int, int, str]  # first character, the one after the last, the word in lower case without punctuation


def misfit_words(evidence: Evidence, captions: Sequence[str], rows: Ints, seed: int) -> Records:
    """Row -> `words` with a gain of `LEAST_GAIN`: text, start, end (characters of the caption) and gain, highest first.

    Args:
        evidence: on n samples.
        captions: `[n]`, of the first modality that is text.
        rows: `[q]`, whose captions are examined.
        seed: of the folds.
    """
    records: Records = {int(row): {"words": []} for row in rows}
    spans = {int(row): spans_of(captions[row]) for row in rows}
    fitted = draw_pool(evidence.known_rows, seed, FIT_ROWS)
    words = frequent_words(
        [captions[row] for row in fitted], {word for of_row in spans.values() for *_, word in of_row}
    )
    media = {medium for medium, _ in text_pairs(evidence)}
    if not media or not words:
        return records
    used = np.union1d(rows, fitted)
    has_word = word_table([captions[row] for row in used], words)
    gains = np.mean([_gains(evidence, medium, used, has_word, seed) for medium in sorted(media)], axis=0)
    number = {word: at for at, word in enumerate(words)}
    for row, of_row in spans.items():
        own = gains[np.searchsorted(used, row)]
        found = [
            {"text": captions[row][start:end], "start": start, "end": end, "gain": rounded(own[number[word]])}
            for start, end, word in of_row
            if len(of_row) > 1 and word in number and own[number[word]] >= LEAST_GAIN
        ]
        records[row]["words"] = sorted(found, key=lambda word: (-word["gain"], word["start"]))
    return records


def spans_of(caption: str) -> list[Span]:
    """The words of a caption, one for each stretch without blanks."""
    found = []
    for match in re.finditer(r"\S+", caption[:CHARACTERS]):
        if word := _bare(match[0]).lower():
            found.append((*match.span(), word))
    return found


def _bare(word: str) -> str:
    """A word without the punctuation around it; marks, such as the vowel signs of Hindi and Thai, belong to it."""
    if word.isalnum():
        return word
    kept = [at for at, sign in enumerate(word) if unicodedata.category(sign)[0] in "LNM"]
    return word[kept[0] : kept[-1] + 1] if kept else ""


def frequent_words(captions: Sequence[str], among: Set[str]) -> list[str]:
    """The words of `among` that at least `LEAST_CAPTIONS` captions have and at most a share `COMMON` of them."""
    count = Counter(word for caption in captions for word in {word for *_, word in spans_of(caption)} & among)
    kept = [word for word, times in count.items() if LEAST_CAPTIONS <= times <= COMMON * len(captions)]
    return sorted(kept, key=lambda word: (-count[word], word))[:MOST_WORDS]


def word_table(captions: Sequence[str], words: Sequence[str]) -> Floats:
    """float32 `[n, v]`: 1 where a caption has a word."""
    number = {word: at for at, word in enumerate(words)}
    table = np.zeros((len(captions), len(words)), dtype=np.float32)
    for row, caption in enumerate(captions):
        table[row, [number[word] for *_, word in spans_of(caption) if word in number]] = 1
    return table


def _gains(evidence: Evidence, medium: str, used: Ints, has_word: Floats, seed: int) -> Floats:
    """float32 `[u, v]`: what the features of the rows `used` `[u]` say against each word; see the module."""
    known = None if evidence.known is None else evidence.known[used]
    groups = dense_ids(evidence.leave_together[used])
    predicted = cross_fit(evidence.vectors[medium][used], has_word, groups, known, seed).predict()
    fitted = np.ones(len(used), dtype=bool) if known is None else known
    return likelihood_ratios(predicted, has_word, fitted)


def likelihood_ratios(predicted: Floats, has_word: Floats, fitted: Bools) -> Floats:
    """float32 `[n, v]`: log likelihood ratios against the word, of predictions `[n, v]`.

    `has_word`: 0 or 1, `[n, v]`, each in some of the rows `fitted` (bool `[n]`), which the means and variances are of.
    """
    of_fitted, has = predicted[fitted].astype(np.float64), has_word[fitted].astype(np.float64)
    with_word = (of_fitted * has).sum(0) / has.sum(0)
    without = (of_fitted * (1 - has)).sum(0) / (1 - has).sum(0)
    variance = np.square(of_fitted - np.where(has > 0, with_word, without)).mean(0)
    ratio = (without - with_word) * (2 * predicted - with_word - without) / (2 * np.maximum(variance, LEAST_VARIANCE))
    return np.where(with_word > without, ratio, 0.0).astype(np.float32)
