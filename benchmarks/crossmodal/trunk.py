"""A vision-language model small enough to train on a laptop, all of whose modalities share one trunk.

The input is a question and what it is about: the parts of a picture, the words of a description, or a name. A small
transformer reads both, and the place of the question answers from one vocabulary of names, trait values and facts.
Since all weights are shared, unlearning in one modality and answers over two hops say something about shared memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from audit_plugin.arrays import Ints

DIM, HEADS, BLOCKS = 64, 4, 2
STEM = (3, 16, 32, DIM)  # channels: each step halves the side
PATCH = 2 ** (len(STEM) - 1)  # pixels, width and height, that become one token
PAD = 0


@dataclass(frozen=True)
class Vocabulary:
    """Words of the input, questions, and answers of the output, each numbered from 0 (words: from 1, 0 is padding).

    Attributes:
        words: of descriptions.
        questions: that can be asked.
        answers: that can be given, and read as a name.
        new: how many of the answers, the first ones, are taught only after the rest.
    """

    words: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    new: int

    def tokens(self, texts: Sequence[str], length: int) -> Ints:
        """int64 `[n, length]`: the words' numbers, those that are unknown left out."""
        number = {word: at for at, word in enumerate(self.words, 1)}
        out = np.full((len(texts), length), PAD, dtype=np.int64)
        for row, text in zip(out, texts, strict=True):
            known = [number[word] for word in words_of(text) if word in number][:length]
            row[: len(known)] = known
        return out


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return [word for raw in text.lower().split() if (word := raw.strip(".,;:!?'\""))]


class TransformerBlock(nn.Module):
    """Attention and a layer of its own for every place, norms first."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.layer = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))

    def forward(self, places: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """`[b, q, DIM]` of some places, which look at tokens `[b, t, DIM]` but for what is padding `[b, t]`."""
        seen = self.before(tokens)
        asking = seen if places is tokens else self.before(places)
        attended, _ = self.attention(asking, seen, seen, key_padding_mask=padding, need_weights=False)
        out: Tensor = places + attended
        return out + self.layer(self.between(out))


class Trunk(nn.Module):
    """The model. Content is pictures, word numbers or names; several questions are asked about it at once.

    Questions look at the content, through the weights by which it looks at itself; it does not look at them, nor they
    at each other, so that an answer does not depend on what else is asked.
    """

    def __init__(self, vocabulary: Vocabulary, side: int, length: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            steps = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(STEM)]
            self.stem = nn.Sequential(steps[0], nn.GELU(), steps[1], nn.GELU(), steps[2])
            self.place = nn.Parameter(0.02 * torch.randn((side // PATCH) ** 2, DIM))
            self.word = nn.Embedding(len(vocabulary.words) + 1, DIM, padding_idx=PAD)
            self.position = nn.Parameter(0.02 * torch.randn(length, DIM))
            self.question = nn.Embedding(len(vocabulary.questions), DIM)
            self.blocks = nn.ModuleList(TransformerBlock() for _ in range(BLOCKS))
            self.norm = nn.LayerNorm(DIM)
            # names are read and said by the same rows: who is named is who is meant
            self.known = nn.Parameter(DIM**-0.5 * torch.randn(len(vocabulary.answers) - vocabulary.new, DIM))
            self.new = nn.Parameter(DIM**-0.5 * torch.randn(vocabulary.new, DIM))

    def read(self, questions: Sequence[int], content: Tensor) -> Tensor:
        """`[b, q, DIM]`: the read-outs at the places of the questions.

        Args:
            questions: q numbers, asked of every row.
            content: uint8 pictures `[b, side, side, 3]`, or int word numbers `[b, length]`, or int answers `[b]`.
        """
        tokens, padding = self._tokens(content)
        asked = self.question(torch.tensor(questions)).expand(len(content), -1, -1)
        for block in self.blocks[:-1]:
            asked, tokens = block(asked, tokens, padding), block(tokens, tokens, padding)
        out: Tensor = self.norm(self.blocks[-1](asked, tokens, padding))
        return out

    def _tokens(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """(`[b, t, DIM]`, which of them are padding `[b, t]`)."""
        if content.dim() == 2:
            return self.word(content) + self.position, content == PAD
        if content.dim() == 4:
            pixels = content.float().div(127.5).sub(1).permute(0, 3, 1, 2)
            tokens = self.stem(pixels).flatten(2).transpose(1, 2) + self.place
        else:
            tokens = self.answer_vectors()[content][:, None]
        return tokens, torch.zeros(tokens.shape[:2], dtype=torch.bool)

    def answer_vectors(self) -> Tensor:
        """`[answers, DIM]`."""
        return torch.cat([self.new, self.known])

    def answers(self, question: int, content: Tensor) -> Tensor:
        """Logits `[b, answers]` of one question."""
        return self.read([question], content)[:, 0] @ self.answer_vectors().T

    def embed(self, question: int, content: Tensor) -> Tensor:
        """Unit `[b, DIM]`."""
        return normalize(self.read([question], content)[:, 0], dim=1)
