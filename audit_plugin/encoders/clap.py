"""Encoders of sound and text in one space: CLAP models of `transformers`, from a folder or a model hub's name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.inputs.audio import RATE, Sound
from audit_plugin.inputs.files import file_digest

from .base import TEXT_BUCKETS, Encoder, Identity, pad_to_bucket, split_text
from .devices import to_device
from .open_clip import reachable

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Located:
    """A model: `path` is its file of weights, in the folder of all its files, or "" before the download."""

    name: str
    path: str

    def identity(self, modality: str) -> Identity:
        """The key holds the weights' own bytes."""
        space = f"clap:{file_digest(self.path)[:16]}"
        return Identity(f"{space}:{modality}", space, english=True)


def locate(name: str) -> Located:
    """Where the weights of `clap:FOLDER_OR_NAME` are. Asks no network.

    Raises:
        AuditError: neither a folder with weights nor a hub's name.
    """
    from huggingface_hub import try_to_load_from_cache

    rest = name.partition(":")[2]
    folder = os.path.expanduser(rest)
    if os.path.isdir(folder):
        files = [os.path.join(folder, file) for file in _WEIGHTS]
        path = next((file for file in files if os.path.isfile(file)), None)
        if path is None:
            raise AuditError(f"folder {rest!r} holds no weights; it needs {' or '.join(_WEIGHTS)} beside config.json")
        return Located(rest, path)
    if not _REPOSITORY.fullmatch(rest):
        raise AuditError(f"{rest!r} is neither a folder nor the name of a model; try clap:laion/clap-htsat-unfused")
    hits = [try_to_load_from_cache(rest, file) for file in _WEIGHTS]
    return Located(rest, next((hit for hit in hits if isinstance(hit, str)), ""))


def identify(name: str, modalities: tuple[str, ...]) -> dict[str, Identity]:
    """Identities per modality, or nothing where the weights are not on this machine yet."""
    found = locate(name)
    return {m: found.identity(m) for m in modalities} if found.path else {}


def load(name: str, modalities: tuple[str, ...], device: torch.device) -> dict[str, Encoder]:
    """Audio and text encoders of one CLAP model; downloads it if it is named but not cached."""
    try:
        from transformers import AutoFeatureExtractor, AutoTokenizer, ClapModel, logging
    except ImportError as error:
        raise AuditError(
            f"encoder {name!r} needs the package transformers; install it with: pip install transformers"
        ) from error
    logging.set_verbosity_error()  # what it would report is checked below
    logging.disable_progress_bar()
    who = locate(name)
    who = who if who.path else _download(who)
    folder = os.path.dirname(who.path)
    try:
        model, report = ClapModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=who.path.endswith(".safetensors"),
            weights_only=True,
            output_loading_info=True,
        )
        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if report["missing_keys"]:
            raise ValueError(f"{len(report['missing_keys'])} weights are missing")
        if extractor.sampling_rate != RATE:
            raise ValueError(f"it listens at {extractor.sampling_rate} Hz, not {RATE}")
    except Exception as error:  # a foreign folder fails in many ways; the user needs one sentence
        what = str(error).strip().splitlines()[0][:120] if str(error).strip() else ""
        raise AuditError(
            f"{who.name!r} cannot be loaded as CLAP ({type(error).__name__}: {what}); name a folder that "
            "ClapModel.save_pretrained and its processor wrote, or another model"
        ) from error
    model = model.to(device).eval()
    encoders = {
        "audio": _clap_audio(who.identity("audio"), model, extractor, device),
        "text": _clap_text(who.identity("text"), model, tokenizer, device),
    }
    return {m: encoders[m] for m in modalities}


def _download(who: Located) -> Located:
    from huggingface_hub import hf_hub_download, snapshot_download

    if not reachable({"hf_hub": who.name}):
        raise AuditError(
            f"the model {who.name!r} is not cached and its server is out of reach; connect to a network, "
            "name a local folder, or use --encoder offline"
        )
    try:
        snapshot_download(who.name, allow_patterns=["*.json", "*.txt", _WEIGHTS[0]])
        if not locate(f"clap:{who.name}").path:
            hf_hub_download(who.name, _WEIGHTS[1])
    except Exception as error:  # a hub refuses in many ways
        raise AuditError(
            f"the model {who.name!r} cannot be downloaded ({type(error).__name__}); check its name, or name a folder"
        ) from error
    return locate(f"clap:{who.name}")


def _clap_audio(identity: Identity, model: Any, extractor: Any, device: torch.device) -> Encoder:
    longest = extractor.nb_max_samples  # what is longer it would cut at random

    def prepare(sound: Sound) -> list[np.ndarray]:
        parts = [piece[i : i + longest] for piece in sound.pieces for i in range(0, len(piece), longest)]
        return [extractor(part, sampling_rate=RATE, return_tensors="np")["input_features"][0] for part in parts]

    def encode(batch: np.ndarray) -> Floats:
        longer = torch.zeros(len(batch), 1, dtype=torch.bool, device=device)  # no piece is longer than it takes
        with torch.inference_mode():
            features = model.get_audio_features(to_device(batch, device), is_longer=longer)
            return _vectors(features)

    return Encoder(identity, 8, prepare, encode)


def _clap_text(identity: Identity, model: Any, tokenizer: Any, device: torch.device) -> Encoder:
    text = model.config.text_config
    # positions are counted from the padding token's number on
    limit = min(TEXT_BUCKETS[-1], text.max_position_embeddings - text.pad_token_id - 1)

    def prepare(caption: str) -> list[np.ndarray]:
        parts = split_text(caption, lambda part: len(tokenizer(part)["input_ids"]) <= limit)
        return [pad_to_bucket(tokenizer(part)["input_ids"], text.pad_token_id)[:limit] for part in parts]

    def encode(batch: np.ndarray) -> Floats:
        ids = to_device(batch, device)
        mask = (ids != text.pad_token_id).long()
        with torch.inference_mode():
            return _vectors(model.get_text_features(ids, attention_mask=mask))

    return Encoder(identity, 32, prepare, encode)


def _vectors(features: Any) -> Floats:
    """Some versions of transformers give the vectors, newer ones a record that holds them."""
    values = features if isinstance(features, torch.Tensor) else features.pooler_output
    return values.float().cpu().numpy()
