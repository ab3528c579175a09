"""An open_clip training loop with both in-training mitigations: regrouped batches and noise on the most memorized.

    audit-plugin score pairs.csv --image image --text caption --out scores.parquet
    python examples/train_open_clip.py pairs.csv --scores scores.parquet --out model.pt

The lines marked (1) to (4) are all that a training loop of your own needs.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pyarrow.parquet as pq
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image

from audit_plugin.trials.mitigation import RegroupedBatchSampler, RepresentationNoise, most_memorized

TINY = "tiny"
TINY_PIXELS = 64


class Pairs(torch.utils.data.Dataset):
    """Images and captions of a CSV file; paths are relative to it."""

    def __init__(self, manifest: Path, image: str, text: str, transform: Callable, tokenizer: Callable) -> None:
        with manifest.open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.folder, self.image, self.text = manifest.parent, image, text
        self.transform, self.tokenizer = transform, tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        row = self.rows[index]
        with Image.open(self.folder / row[self.image]) as picture:
            pixels = self.transform(picture.convert("RGB"))
        return pixels, self.tokenizer(row[self.text])[0], index


def build(name: str) -> tuple[CLIP, Callable, Callable]:
    """(model, transform, tokenizer): an open_clip model without weights, or a tiny one that trains on a CPU."""
    if name != TINY:
        model, transform, _ = open_clip.create_model_and_transforms(name)
        return model, transform, open_clip.get_tokenizer(name)
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=16, image_size=TINY_PIXELS)
    model = CLIP(64, vision, CLIPTextCfg(context_length=32, width=64, heads=2, layers=2))
    transform = open_clip.image_transform(TINY_PIXELS, is_train=False)
    return model, transform, open_clip.tokenizer.SimpleTokenizer(context_length=32)


def read_scores(path: Path, ids: list[str], column: str) -> np.ndarray:
    """The score of each id, NaN where the audit has none."""
    table = pq.read_table(path, columns=["id", column]).to_pydict()
    by_id = dict(zip(table["id"], table[column], strict=True))
    scores = np.array([by_id.get(i, np.nan) for i in ids], dtype=np.float64)
    if not np.isfinite(scores).any():
        sys.exit(f"{path} has a {column} for none of the {len(ids)} ids: is it the audit of this set?")
    return scores


def train(args: argparse.Namespace) -> list[float]:
    """Trains and saves the model; returns each epoch's mean loss."""
    torch.manual_seed(args.seed)
    model, transform, tokenizer = build(args.model)
    model = model.to(args.device)
    data = Pairs(args.manifest, args.image, args.text, transform, tokenizer)
    scores = read_scores(args.scores, [row[args.id] for row in data.rows], args.score)

    hot = most_memorized(scores, args.share)  # (1) the rows to treat
    is_hot = torch.zeros(len(data), dtype=torch.bool)
    sampler = RegroupedBatchSampler(len(data), args.batch_size, seed=args.seed)  # (2) instead of shuffle=True
    noise = RepresentationNoise(args.sigma)
    loader = torch.utils.data.DataLoader(data, batch_sampler=sampler, num_workers=args.workers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.1)
    contrast, losses = ClipLoss(), []
    for epoch in range(args.epochs):
        if epoch == args.regroup_epoch:
            sampler.set_hot(hot)  # (3) from this epoch on
            is_hot[torch.from_numpy(hot)] = True
        sampler.set_epoch(epoch)
        model.train()
        total = 0.0
        for pixels, tokens, index in loader:
            image = model.encode_image(pixels.to(args.device))
            text = model.encode_text(tokens.to(args.device))
            treated = is_hot[index].to(args.device)
            image, text = noise(image, treated), noise(text, treated)  # (4) before the normalization
            image, text = (torch.nn.functional.normalize(x, dim=-1) for x in (image, text))
            loss = contrast(image, text, model.logit_scale.exp())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, np.log(100))
            total += float(loss) * len(index)
        losses.append(total / len(data))
        print(
            f"epoch {epoch + 1}/{args.epochs}: loss {losses[-1]:.3f}, {int(is_hot.sum())} samples regrouped", flush=True
        )
    if args.out:
        torch.save(model.state_dict(), args.out)
    return losses


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="CSV file of the pairs, the one that was audited")
    parser.add_argument("--scores", type=Path, required=True, help="scores.parquet of the audit")
    parser.add_argument("--id", default="id", help="column with the id")
    parser.add_argument("--image", default="image", help="column with the path of the image")
    parser.add_argument("--text", default="caption", help="column with the caption")
    parser.add_argument("--score", default="multimem", help="column of the scores that says who is hot")
    parser.add_argument("--share", type=float, default=0.05, help="share of the samples that is treated")
    parser.add_argument(
        "--sigma", type=float, default=0.1, help="noise per coordinate of the unit embedding, 0 for none"
    )
    parser.add_argument("--regroup-epoch", type=int, default=8, help="first epoch (from 0) with mitigation")
    parser.add_argument("--model", default=TINY, help="tiny, or a model of open_clip, without weights")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="where the trained weights go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    train(parse())
