"""The paper's split protocol (Wang et al., arXiv 2606.22220): which samples f, g, both or neither see, and the report.

Sets and roles: shared S_S = "both", candidates S_C = "f", independent S_I = "g", external S_E = "none", held-out
reference H = "reference". f and g are trained on equally many samples; MultiMem = CMC_f - CMC_g is memorization on
S_C, its mirror image on S_I, and about 0 on S_S and S_E.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import ROLES, AuditError, Bools, Floats, Ints, count_text, dense_ids, mean_interval

SHARE = 0.1  # of the samples, for each of S_C, S_I, S_E and H
MAX_REFERENCE = 1000  # samples of H, however large the set
GROUPS = {"shared": "both", "candidate": "f", "independent": "g", "external": "none"}
TESTS = (("candidate", "shared"), ("shared", "independent"), ("shared", "external"))


def split_roles(
    groups: Ints, seed: int, labels: Sequence[str] | None = None, reference: Bools | None = None
) -> NDArray[np.str_]:
    """Draws the split: a tenth each for S_C, S_I, S_E and H (H at most 1,000), the rest for S_S.

    Args:
        groups: `[n]` leave-together groups, which keep one role; rows in canonical order, which the draw follows.
        seed: of the draw.
        labels: `[n]` classes; H then holds equally many of each (to within one), but at most half of a class,
            so that the models are trained on every class.
        reference: bool `[n]`, an H that the user chose, or None. Whole groups join it.

    Returns:
        `[n]` of `ROLES`. S_C and S_I are of equal size, as near as groups allow.

    Raises:
        AuditError: too few samples or groups for five sets of at least two.
    """
    rng = np.random.default_rng((seed, 31))
    n = len(groups)
    group = dense_ids(groups, by_first_row=True)  # canonical, whatever the groups are called
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])  # rows of each group
    drawn = [members[i] for i in rng.permutation(len(members))]
    size = round(SHARE * n)
    roles = np.full(n, "both", dtype=f"<U{max(map(len, ROLES))}")
    one_class = np.zeros(n, dtype=np.int64)

    classes = dense_ids(labels) if labels else one_class
    quota = np.array([min(size, MAX_REFERENCE)])
    if labels:
        quota = _equal_shares(np.bincount(classes) // 2, int(quota[0]), rng)
    if reference is None:
        drawn = _assign(roles, "reference", drawn, classes, quota)
    else:
        roles[np.isin(groups, groups[reference])] = "reference"
        drawn = [rows for rows in drawn if roles[rows[0]] != "reference"]
    drawn = _assign(roles, "none", drawn, one_class, np.array([size]))
    drawn = _assign(roles, "f", drawn, one_class, np.array([size]))
    _assign(roles, "g", drawn, one_class, np.array([int((roles == "f").sum())]))

    counts = Counter(roles.tolist())
    if min(counts[role] for role in ROLES) < 2:
        raise AuditError(
            f"{n} samples in {len(members)} leave-together groups are too few for the split protocol, which needs "
            "five sets of two or more; use --protocol ensemble"
        )
    return roles


def _assign(roles: NDArray[np.str_], role: str, drawn: list[Ints], classes: Ints, quota: Ints) -> list[Ints]:
    """Gives `role` to groups in the order drawn while each class has room for them whole; returns the others."""
    room = Counter(dict(enumerate(quota.tolist())))
    rest = []
    for rows in drawn:
        wanted = Counter(classes[rows].tolist())
        if all(room[code] >= count for code, count in wanted.items()):
            room.subtract(wanted)
            roles[rows] = role
        else:
            rest.append(rows)
    return rest


def _equal_shares(available: Ints, total: int, rng: np.random.Generator) -> Ints:
    """Int `[classes]` of sum at most `total`: equal numbers, less only where a class has no more; the rest by lot."""
    sums = [np.minimum(available, level).sum() for level in range(1, total + 1)]
    level = int(np.searchsorted(sums, total, side="right"))  # the highest at which the shares still fit
    shares = np.minimum(available, level)
    more = rng.permutation(np.flatnonzero(available > level))[: total - int(shares.sum())]
    shares[more] += 1
    return shares


def train_roles(roles: Sequence[str] | NDArray[np.str_], seed: int = 0) -> tuple[Bools, Bools, Bools]:
    """What given roles mean for f and g.

    Args:
        roles: `[n]` of `ROLES`, "" is "none". Rows must be in canonical order where no row is "reference".
        seed: of the draw that halves the rows seen by none where no reference is named.

    Returns:
        (member bool `[2, n]`: seen by f, seen by g; reference H bool `[n]`; offset bool `[n]`: S_E, on which the
        drift between f and g is estimated). The three sets do not overlap.

    Raises:
        AuditError: no row is "f" or none is "g", or too few are unseen.
    """
    values = np.asarray(roles, dtype=str)
    both, reference = values == "both", values == "reference"
    offset = (values == "none") | (values == "")
    for role, other in (("f", "g"), ("g", "f")):
        if not (values == role).any():
            raise AuditError(
                f"no row has the role {role}: nothing was seen by {role} alone; name the samples that {role} was "
                f"trained on and {other} was not in the field given as --role"
            )
    if not reference.any():
        unseen = np.random.default_rng((seed, 37)).permutation(np.flatnonzero(offset))
        reference[unseen[: len(unseen) // 2]] = True
        offset &= ~reference
    if not offset.any() or not reference.any():
        raise AuditError(
            f"{count_text(int(offset.sum()), 'row has', 'rows have')} "
            "the role none beside the reference; f and g are compared on samples that "
            "neither has seen, so give the role none to some (two at least, better several hundred)"
        )
    return np.stack([both | (values == "f"), both | (values == "g")]), reference, offset


def group_report(differences: Floats, roles: Sequence[str] | NDArray[np.str_]) -> dict[str, Any]:
    """The statistics of a split, JSON-ready; what cannot be computed is None.

    Args:
        differences: `[q, n]`, CMC_f - CMC_g per repeat. Where the offset was estimated on S_E and removed, the mean
            of S_E is 0 by construction. Rows that are not finite in every repeat are left out.
        roles: `[n]` of `ROLES`.

    Returns:
        `repeats`; `groups`: name -> `mean` over samples and repeats, `low` and `high` (95% t-interval over the
        repeats' means), `sd` over the samples of one repeat (root mean square over repeats), `n`; `tests`:
        "a_b" -> Welch's `t` and two-sided `p` between the samples of two groups, each sample's value its mean over
        repeats; `mirror`: mean(S_C) + mean(S_I), 0 where swapping f and g only changes the sign, with its interval.
    """
    values = np.asarray(roles, dtype=str)
    values = np.where(values == "", "none", values)
    finite = np.isfinite(differences).all(axis=0)
    scores = {name: differences[:, finite & (values == role)].astype(np.float64) for name, role in GROUPS.items()}
    means, groups = {}, {}
    for name, group in scores.items():
        n = group.shape[1]
        means[name] = group.mean(axis=1) if n else np.full(len(group), np.nan)  # [q]
        spread = np.sqrt(group.var(axis=1, ddof=1).mean()) if n > 1 else np.nan
        groups[name] = {**_interval(means[name]), "sd": _number(spread), "n": n}
    return {
        "repeats": len(differences),
        "groups": groups,
        "tests": {f"{a}_{b}": _welch(scores[a], scores[b]) for a, b in TESTS},
        "mirror": _interval(means["candidate"] + means["independent"]),
    }


def _interval(repeats: Floats) -> dict[str, float | None]:
    """Mean of `[q]` values with its 95% t-interval."""
    return dict(zip(("mean", "low", "high"), map(_number, mean_interval(repeats)), strict=True))


def _welch(a: Floats, b: Floats) -> dict[str, float | None]:
    from scipy.stats import ttest_ind

    left, right = a.mean(axis=0), b.mean(axis=0)
    if min(len(left), len(right)) < 2 or left.var() == right.var() == 0:
        return {"t": None, "p": None}
    test = ttest_ind(left, right, equal_var=False)
    return {"t": _number(test.statistic), "p": _number(test.pvalue)}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
