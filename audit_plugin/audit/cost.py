"""Estimates what an audit would cost, without running it."""

from __future__ import annotations

from typing import Any

from audit_plugin.arrays import MODALITIES, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.devices import pick_device
from audit_plugin.encoders.embed import Contents, digest_contents, silent
from audit_plugin.encoders.own_embeddings import OWN_NAME, encoded_part, own_identities
from audit_plugin.encoders.precision import known_key
from audit_plugin.encoders.prompts import prompted_identities, split_templates
from audit_plugin.encoders.registry import identify, resolve_name
from audit_plugin.store import FeatureCache

from .prepare import check_samples
from .reading_notes import unread_notes

# How many times as fast as the usual rates the networks of `offline` run on a CPU (docs/speed.md), read cautiously.
OFFLINE_SPEEDUP = {"image": 5.0, "text": 5.0, "video": 5.0}


def plan_audit(samples: Samples, config: AuditConfig | None = None) -> dict[str, Any]:
    """What `run_audit` would cost: rows, those that cannot be read, contents to encode, minutes, disk, downloads.

    Encodes and trains nothing.

    By rough rates of two cores, or of one GPU, rounded up: an estimate to decide by, not a promise.
    """
    config = config or AuditConfig()
    check_samples(samples, config)
    own_identities(samples, config)
    device, encoded = pick_device(config.device), encoded_part(samples)
    name = resolve_name(config.encoder, encoded.modalities) if encoded.modalities else OWN_NAME
    contents = digest_contents(encoded, silent) if encoded.modalities else Contents({}, {})
    encodes, downloads = _to_encode(encoded, contents, name, config, device) if encoded.modalities else ({}, [])

    training = {"heads": 2e-5, "towers": 8e-4, "checkpoints": 0.0}[config.train] * (1 if device == "cpu" else 0.02)
    seconds = 0.0
    for modality, count in encodes.items():
        by_cpu, by_gpu = MODALITIES[modality].per_second
        by_cpu *= OFFLINE_SPEEDUP.get(modality, 1.0) if name == "offline" else 1.0
        seconds += count / (by_cpu if device == "cpu" else by_gpu) * (config.views + 1)
    trials = config.trials or AuditConfig().trials  # how many will do is known when they are trained
    seconds += 10 + training * len(samples) * trials * config.epochs
    disk = sum(count * 2 * 1280 for count in encodes.values()) + trials * 850_000
    disk += sum(len(vectors) * vectors.shape[1] * 4 for vectors in samples.vectors.values())
    return {
        "rows": len(samples),
        "encodes": encodes,
        "minutes": round(seconds / 60 + 0.05, 1),
        "disk_mb": round(disk / 1e6, 1),
        "encoder": name,
        "device": device,
        "downloads": downloads,
        "unreadable": len(contents.failures),
        "notes": unread_notes(samples, contents.failures),
    }


def _to_encode(
    samples: Samples, contents: Contents, name: str, config: AuditConfig, device: str
) -> tuple[dict[str, int], list[str]]:
    """(modality -> contents that the cache lacks, what has to be downloaded) for the encoders of a resolved name."""
    identities = prompted_identities(identify(name, samples.modalities, device), split_templates(config.template))
    if not identities:  # the encoder was never loaded here: what is cached cannot be known
        encodes = {m: len({value for value in samples.media[m] if value}) for m in samples.modalities}
        return encodes, [f"weights of {name} from their model hub; its model card tells size and license"]
    digests = contents.digests
    keys = {m: known_key(identity, config.precision, device) for m, identity in identities.items()}
    return {m: len({d for d in digests[m] if d} - FeatureCache(keys[m]).known()) for m in samples.modalities}, []
