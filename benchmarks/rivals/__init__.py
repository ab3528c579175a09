"""Methods of others for wrong pairs and outliers, re-implemented from their formulas, each a function of arrays.

`RIVALS` take a `Material` (a noisy set of pairs), `OUTLIERS` unit features `[n, d]`, `DUPLICATES` the same; all return
a suspicion `[n]`, higher = more suspicious. Each grid is walked over by `tuning.choose` on development cells; without
that the defaults of a function are its paper's. `LEMoN tuned` alone needs labels of right and wrong by its nature and
is to be listed apart.
"""

from __future__ import annotations

from .contrastive import clip_similarity, csls, negclip_loss, retrieval_rank
from .labeled import QUALITIES, confident_learning, datalab_near_duplicate, datalab_outlier, datalab_pair_outlier
from .lemon import lemon, tune
from .linear import logistic_regression, ridge
from .material import Material, Rival
from .neighbors import VARIANTS, deep_knn, discrepancy, neighbor_captions
from .outliers import isolation_forest, kth_neighbor, leaf_area, local_outlier_factor, mean_neighbors, uniqueness
from .trained import DATAMAP_VARIANTS, area_under_margin, datamap, pair_loss

__all__ = ["DUPLICATES", "OUTLIERS", "RIVALS", "Material", "Rival"]

NUMBERS = (5, 10, 20, 30, 50)
SHARES = (1.0, 0.5, 0.25, 0.15, 0.1, 0.05)


def _table(*rivals: Rival) -> dict[str, Rival]:
    return {rival.name: rival for rival in rivals}


RIVALS = _table(
    Rival("CLIP similarity", clip_similarity),
    Rival("negCLIPLoss", negclip_loss, {"temperature": (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2)}),
    Rival("CSLS", csls, {"k": (1, 2, *NUMBERS)}),
    Rival("retrieval rank", retrieval_rank),
    Rival("LEMoN fixed", lemon),
    Rival("LEMoN tuned", lemon, label_free=False, tune=tune),
    Rival("Deep k-NN", deep_knn, {"k": NUMBERS, "clusters": (30, 100, 200)}),
    Rival("Discrepancy", discrepancy, {"variant": VARIANTS, "k": (2, *NUMBERS[:3])}),
    Rival("neighbor captions", neighbor_captions, {"k": (2, *NUMBERS)}),
    Rival("Datalab outlier", datalab_pair_outlier, {"k": (10, 30)}),
    Rival(
        "confident learning",
        confident_learning,
        {"method": QUALITIES, "flagged_first": (True, False)},
        classes_only=True,
        needs=("probabilities",),
    ),
    Rival(
        "logistic regression",
        logistic_regression,
        {"margin": (True, False)},
        classes_only=True,
        needs=("probabilities",),
    ),
    Rival("ridge", ridge, {"temperature": (0.01, 0.02, 0.05, 0.1)}),
    Rival("pair loss", pair_loss, {"share": SHARES}, needs=("losses",)),
    Rival("AUM", area_under_margin, {"share": SHARES}, needs=("margins",)),
    Rival("Datamap", datamap, {"variant": DATAMAP_VARIANTS, "share": SHARES}, needs=("confidences",)),
)

OUTLIERS = _table(
    Rival("k-th neighbor", kth_neighbor, {"k": (1, *NUMBERS)}),
    Rival("mean k-NN", mean_neighbors, {"k": (1, *NUMBERS)}),
    Rival("LOF", local_outlier_factor, {"k": NUMBERS}),
    Rival("isolation forest", isolation_forest, {"trees": (100, 300)}),
    Rival("SelfClean", leaf_area),
    Rival("FiftyOne uniqueness", uniqueness),
    Rival("Datalab outlier", datalab_outlier, {"k": (10, 30)}),
)

DUPLICATES = _table(Rival("Datalab near-duplicate", datalab_near_duplicate, {"k": (10, 30)}))
