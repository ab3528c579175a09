"""Tokens: proof that a request of the App comes from a form or button that this server made.

Any web page may send requests to FiftyOne's server, but it cannot read the answers, and a token is only in answers. A
token is signed with a secret in the database, so that the processes of queued runs can check it as well. It is good
for one purpose, one dataset and one state of what was shown, once, for a day.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import secrets
import time
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from .database import database

SECRETS, USED = "audit_plugin.secrets", "audit_plugin.used_tokens"
GOOD_SECONDS = 24 * 3600
KEPT_SECONDS = 30 * 24 * 3600  # of used tokens: queued runs may wait for longer than a day


def new_token(dataset: fo.Dataset | None, purpose: str, shown: Any = None) -> str:
    """A token for one use.

    Args:
        dataset: what may be changed with it.
        purpose: which operator, or which event of a panel, it is for.
        shown: JSON-ready values that describe what the form shows; where they differ later, the token is not valid.
    """
    made, nonce = f"{int(time.time()):x}", secrets.token_hex(16)
    return f"{made}.{nonce}.{_signature(made, nonce, dataset, purpose, shown)}"


def is_valid(token: Any, dataset: fo.Dataset | None, purpose: str, shown: Any = None, queued: bool = False) -> bool:
    """Whether a token was made for this, and is not too old; that of a queued run may be of any age."""
    parts = token.split(".") if isinstance(token, str) and token.isascii() and len(token) < 200 else []
    if len(parts) != 3:
        return False
    made, nonce, signature = parts
    if not hmac.compare_digest(signature, _signature(made, nonce, dataset, purpose, shown)):
        return False
    return queued or abs(time.time() - int(made, 16)) < GOOD_SECONDS


def use(token: str) -> bool:
    """Use a valid token up; False if it was used before."""
    nonce, now = token.split(".")[1], datetime.now(UTC)
    with database("checking a form"):
        used = foo.get_db_conn()[USED]
        used.create_index("time", expireAfterSeconds=KEPT_SECONDS)
        try:
            used.insert_one({"_id": nonce, "time": now})
        except DuplicateKeyError:
            return False
    return True


def seconds_since_use(token: str) -> float:
    """How long ago a valid token was used up; infinite for one that was not."""
    with database("checking a form"):
        used = foo.get_db_conn()[USED].find_one({"_id": token.split(".")[1]})
    return (datetime.now(UTC) - used["time"].replace(tzinfo=UTC)).total_seconds() if used else math.inf


def digest(*values: Any) -> str:
    """A short name of JSON-ready values, for `shown`."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _signature(made: str, nonce: str, dataset: fo.Dataset | None, purpose: str, shown: Any) -> str:
    identity = str(dataset._doc.id) if dataset is not None else ""
    text = json.dumps([made, nonce, identity, purpose, digest(shown)])
    return hmac.new(_secret(), text.encode(), hashlib.sha256).hexdigest()


def _secret() -> bytes:
    """The secret of this database, made by whoever needs it first."""
    query, new = {"_id": "tokens"}, {"$setOnInsert": {"secret": secrets.token_hex(32)}}
    with database("checking a form"):
        collection = foo.get_db_conn()[SECRETS]
        document = collection.find_one(query)
        if document is None:
            try:
                document = collection.find_one_and_update(query, new, upsert=True, return_document=ReturnDocument.AFTER)
            except DuplicateKeyError:  # another process was faster
                document = collection.find_one(query)
    return bytes.fromhex(document["secret"])
