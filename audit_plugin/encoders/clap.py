"""Encoders of sound and text in one space: CLAP models of `transformers`, from a folder or a model hub's name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.audio import RATE, READING, Sound
from audit_plugin.inputs.files import file_digest, first_line
from audit_plugin.store import raise_shortage

from .base import TEXT_BUCKETS, Encoder, EncoderIdentity, pad_to_bucket, split_text
from .devices import encode_on
from .open_clip import reachable

ENCODES = ("text", "audio")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ClapCheckpoint:
    """A CLAP model."""

    name: str  # folder or repository
    path: str  # its file of weights, in the folder of all its files; "" before the download

    def identity(self, modality: str) -> EncoderIdentity:
        """The key holds the digest of the weights."""
        space = f"clap:{file_digest(self.path, None)[:16]}"
        part = f"audio:{READING}" if modality == "audio" else modality
        return EncoderIdentity(f"{space}:{part}", space, english=True)


def locate(name: str) -> ClapCheckpoint:
    """The checkpoint of `clap:FOLDER_OR_NAME`. Uses no network.

    Raises:
        AuditError: neither a folder with weights nor the name of a repository.
    """
    from huggingface_hub import try_to_load_from_cache

    rest = name.partition(":")[2]
    folder = os.path.expanduser(rest)
    if os.path.isdir(folder):
        files = [os.path.join(folder, file) for file in _WEIGHTS]
        path = next((file for file in files if os.path.isfile(file)), None)
        if path is None:
            raise AuditError(f"folder {rest!r} holds no weights; it needs {' or '.join(_WEIGHTS)} beside config.json")
        return ClapCheckpoint(rest, path)
    if not _REPOSITORY.fullmatch(rest):
        raise AuditError(f"{rest!r} is neither a folder nor the name of a model; try clap:laion/clap-htsat-unfused")
    cached = [try_to_load_from_cache(rest, file) for file in _WEIGHTS]
    return ClapCheckpoint(rest, next((path for path in cached if isinstance(path, str)), ""))


def identify(name: str, modalities: tuple[str, ...]) -> dict[str, EncoderIdentity]:
    """Identities by modality; empty where the weights are not on this machine yet."""
    checkpoint = locate(name)
    return {modality: checkpoint.identity(modality) for modality in modalities} if checkpoint.path else {}


def load(name: str, modalities: tuple[str, ...], device: torch.device) -> dict[str, Encoder]:
    """Audio and text encoders of one CLAP model; downloads it if it is not cached."""
    try:
        from transformers import AutoFeatureExtractor, AutoTokenizer, ClapModel, logging
    except ImportError as error:
        raise_shortage(error)
        raise AuditError(
            f"encoder {name!r} needs the package transformers; install it with: pip install transformers"
        ) from error
    logging.set_verbosity_error()  # what it would report is checked below
    logging.disable_progress_bar()
    checkpoint = locate(name)
    if not checkpoint.path:
        checkpoint = _download(checkpoint)
    folder = os.path.dirname(checkpoint.path)
    try:
        model, report = ClapModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=checkpoint.path.endswith(".safetensors"),
            weights_only=True,
            output_loading_info=True,
        )
        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if report["missing_keys"]:
            raise ValueError(f"{len(report['missing_keys'])} weights are missing")
        if extractor.sampling_rate != RATE:
            raise ValueError(f"its sampling rate is {extractor.sampling_rate} Hz, not {RATE}")
    except Exception as error:  # a foreign folder fails in many ways; the user needs one sentence
        raise AuditError(
            f"{checkpoint.name!r} cannot be loaded as CLAP ({type(error).__name__}: {first_line(error)}); name "
            "a folder that ClapModel.save_pretrained and its processor wrote, or another model"
        ) from error
    model = model.to(device).eval()
    encoders = {
        "audio": _clap_audio(checkpoint.identity("audio"), model, extractor, device),
        "text": _clap_text(checkpoint.identity("text"), model, tokenizer, device),
    }
    return {modality: encoders[modality] for modality in modalities}


def _download(checkpoint: ClapCheckpoint) -> ClapCheckpoint:
    from huggingface_hub import hf_hub_download, snapshot_download

    if not reachable({"hf_hub": checkpoint.name}):
        raise AuditError(
            f"the model {checkpoint.name!r} is not cached and its server is out of reach; connect to a network, "
            "name a local folder, or use --encoder offline"
        )
    try:
        snapshot_download(checkpoint.name, allow_patterns=["*.json", "*.txt", _WEIGHTS[0]])
        if not locate(f"clap:{checkpoint.name}").path:
            hf_hub_download(checkpoint.name, _WEIGHTS[1])
    except Exception as error:  # a hub refuses in many ways
        raise AuditError(
            f"the model {checkpoint.name!r} cannot be downloaded ({type(error).__name__}); check its name, or name a "
            "folder"
        ) from error
    return locate(f"clap:{checkpoint.name}")


def preparer(name: str, _modality: str) -> Callable[[Any], list[np.ndarray]]:
    """What sounds are prepared with, without weights."""
    from transformers import AutoFeatureExtractor

    folder = os.path.dirname(locate(name).path)
    return _sound_preparer(AutoFeatureExtractor.from_pretrained(folder, local_files_only=True))


def _sound_preparer(extractor: Any) -> Callable[[Sound], list[np.ndarray]]:
    longest = extractor.nb_max_samples  # the extractor would cut longer ones at random

    def prepare(sound: Sound) -> list[np.ndarray]:
        parts = [piece[start : start + longest] for piece in sound.pieces for start in range(0, len(piece), longest)]
        return [extractor(part, sampling_rate=RATE, return_tensors="np")["input_features"][0] for part in parts]

    return prepare


def _clap_audio(identity: EncoderIdentity, model: Any, extractor: Any, device: torch.device) -> Encoder:
    def features(spectra: torch.Tensor) -> torch.Tensor:
        longer = torch.zeros(len(spectra), 1, dtype=torch.bool, device=device)  # `prepare` made none too long
        return _vectors(model.get_audio_features(spectra, is_longer=longer))

    return Encoder(identity, 8, _sound_preparer(extractor), encode_on(device, features))


def _clap_text(identity: EncoderIdentity, model: Any, tokenizer: Any, device: torch.device) -> Encoder:
    text = model.config.text_config
    # positions are counted from the padding token's number on
    limit = min(TEXT_BUCKETS[-1], text.max_position_embeddings - text.pad_token_id - 1)

    def prepare(caption: str) -> list[np.ndarray]:
        parts = split_text(caption, lambda part: len(tokenizer(part)["input_ids"]) <= limit)
        return [pad_to_bucket(tokenizer(part)["input_ids"], text.pad_token_id)[:limit] for part in parts]

    def features(ids: torch.Tensor) -> torch.Tensor:
        mask = (ids != text.pad_token_id).long()
        return _vectors(model.get_text_features(ids, attention_mask=mask))

    return Encoder(identity, 32, prepare, encode_on(device, features))


def _vectors(features: Any) -> Any:
    """`[b, d]`: some versions of transformers return the vectors, newer ones a record that holds them."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output
