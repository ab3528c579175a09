"""The decisions of people as an export of the audited rows takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from audit_plugin.audit.export.plan import Key, Verdict

from .decisions import Decision, resolve

FOLLOWED = ("keep", "remove", "relabel")  # skip and unsure decide nothing


def verdicts(decisions: Iterable[Decision], id_of: Mapping[str, str] | None = None) -> dict[Key, Verdict]:
    """(id, caption) -> the decision that holds, of all entries of a ledger; those on objects by the object's id.

    `id_of`: what a decision calls a sample -> its id in the audit; None: the same.
    """
    current = resolve(decisions).current
    out = {}
    for (sample, label, caption), decision in current.items():
        name = label or sample
        name = name if id_of is None else id_of.get(name, "")
        if name and decision.kind in FOLLOWED:
            digest = decision.digest.partition(":")[2]
            verdict = Verdict(decision.kind, decision.text, decision.reviewer, decision.note, digest)
            out[name, caption] = verdict
    return out
