"""What is on disk: run folders and feature caches. Atomic, resumable, checked when read, locked, private."""

from .features import OWN, FeatureCache
from .files import (
    Damaged,
    cache_root,
    digest_of,
    kind_of_file,
    lock_if_free,
    open_regular,
    private_folder,
    read_json,
    read_regular,
    remove_leftovers,
    sealed_json,
    writable_file,
    write_atomically,
    write_bytes,
)
from .runs import RunFolder, load_json, stored_identity
from .shortages import causes_of, check_memory, disk_error, plain_error, raise_shortage, size_text

__all__ = [
    "OWN",
    "Damaged",
    "FeatureCache",
    "RunFolder",
    "cache_root",
    "causes_of",
    "check_memory",
    "digest_of",
    "disk_error",
    "kind_of_file",
    "load_json",
    "lock_if_free",
    "open_regular",
    "plain_error",
    "private_folder",
    "raise_shortage",
    "read_json",
    "read_regular",
    "remove_leftovers",
    "sealed_json",
    "size_text",
    "stored_identity",
    "writable_file",
    "write_atomically",
    "write_bytes",
]
