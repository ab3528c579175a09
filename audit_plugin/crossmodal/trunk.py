"""Design A: a vision-language model small enough to train on a laptop, all of whose modalities share one trunk.

The input is a question and what it is about: the patches of a picture, the words of a description, or a name. A small
transformer reads both, and the place of the question answers from one vocabulary of names, trait values and facts.
Since all weights are shared, unlearning in one modality and answers over two hops say something about shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from audit_plugin.arrays import Ints

DIM, HEADS, BLOCKS = 64, 4, 2
PATCH = 8
PAD = 0
EMBED = "embed"  # the question whose read-out is what a picture and its description have in common


@dataclass(frozen=True)
class Vocabulary:
    """Words of the input, questions, and answers of the output, each numbered from 0 (words: from 1, 0 is padding)."""

    words: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]

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


class Block(nn.Module):
    """Attention and a layer of its own for every place, norms first."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.layer = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))

    def forward(self, places: Tensor, whole: Tensor, masked: Tensor) -> Tensor:
        """`[b, q, DIM]` of some places, which look at the whole `[b, t, DIM]` but for what is masked `[b, t]`."""
        seen = self.before(whole)
        asking = seen if places is whole else self.before(places)
        found, _ = self.attention(asking, seen, seen, key_padding_mask=masked, need_weights=False)
        out: Tensor = places + found
        return out + self.layer(self.between(out))


class Trunk(nn.Module):
    """The model. `content` is one of `picture`, `text`, `name`; every method takes batches of `[b, ...]`."""

    def __init__(self, vocabulary: Vocabulary, side: int, length: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            places = (side // PATCH) ** 2
            self.patch = nn.Linear(PATCH * PATCH * 3, DIM)
            self.place = nn.Parameter(0.02 * torch.randn(places, DIM))
            self.word = nn.Embedding(len(vocabulary.words) + 1, DIM, padding_idx=PAD)
            self.position = nn.Parameter(0.02 * torch.randn(length, DIM))
            self.question = nn.Embedding(len(vocabulary.questions), DIM)
            self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
            self.norm = nn.LayerNorm(DIM)
            # names are read and said by the same rows: who is named is who is meant
            self.answer = nn.Embedding(len(vocabulary.answers), DIM)
            nn.init.normal_(self.answer.weight, std=DIM**-0.5)

    def read(self, question: Tensor, content: Tensor) -> Tensor:
        """`[b, DIM]`: the read-out at the place of the question.

        Args:
            question: int `[b]`.
            content: uint8 pictures `[b, side, side, 3]`, or int word numbers `[b, length]`, or int answers `[b]`.
        """
        if content.dim() == 4:
            tokens = self.patch(patches(content)) + self.place
            padding = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        elif content.dim() == 2:
            tokens = self.word(content) + self.position
            padding = content == PAD
        else:
            tokens = self.answer(content)[:, None]
            padding = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        asked = self.question(question)[:, None]
        whole = torch.cat([asked, tokens], dim=1)
        masked = torch.cat([torch.zeros_like(padding[:, :1]), padding], dim=1)
        for block in self.blocks[:-1]:
            whole = block(whole, whole, masked)
        # nothing but the place of the question is read: the last block works it out for that alone
        out: Tensor = self.norm(self.blocks[-1](whole[:, :1], whole, masked))[:, 0]
        return out

    def answers(self, question: Tensor, content: Tensor) -> Tensor:
        """Logits `[b, answers]`."""
        return self.read(question, content) @ self.answer.weight.T

    def embed(self, question: Tensor, content: Tensor) -> Tensor:
        """Unit `[b, DIM]`."""
        return normalize(self.read(question, content), dim=1)


def patches(pictures: Tensor) -> Tensor:
    """float32 `[b, places, PATCH * PATCH * 3]` about 0, from uint8 `[b, side, side, 3]`."""
    b, side = pictures.shape[:2]
    grid = pictures.float().div(127.5).sub(1).view(b, side // PATCH, PATCH, side // PATCH, PATCH, 3)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(b, -1, PATCH * PATCH * 3)
