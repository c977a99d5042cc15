"""entmax: sparse alternatives to softmax, and their losses."""

from functools import partial

import entmax as library
import torch

from field_suites import anywhere

CLASSES = torch.tensor([2, 0])
TABLE = (2, 4)
MAPS = ("sparsemax", "entmax15", "sparsemax_bisect", "entmax_bisect", "normmax_bisect")
LOSSES = ("SparsemaxLoss", "Entmax15Loss", "SparsemaxBisectLoss", "EntmaxBisectLoss")


def with_classes(loss, x):
    """A loss of two rows."""
    return loss(x, CLASSES)


PROGRAMS = (
    *(anywhere(n, partial(getattr(library, n), dim=-1), TABLE) for n in MAPS),
    anywhere("sparsemax(dim=0)", partial(library.sparsemax, dim=0), TABLE),
    anywhere("sparsemax(k=2)", partial(library.sparsemax, dim=-1, k=2), TABLE),
    anywhere("entmax15(k=2)", partial(library.entmax15, dim=-1, k=2), TABLE),
    anywhere("entmax_bisect(1.25)", partial(library.entmax_bisect, alpha=1.25), TABLE),
    anywhere("budget_bisect(2)", partial(library.budget_bisect, budget=2), TABLE),
    *(
        anywhere(f"{n}({r})", partial(with_classes, getattr(library, n)(reduction=r)), TABLE)
        for n in LOSSES
        for r in ("elementwise_mean", "sum")
    ),
)
