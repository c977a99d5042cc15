"""A slow, exact reference for small programs, independent of clarke.

Rational arithmetic throughout: `bouligand` and `contains` decide piecewise affine programs exactly;
`bouligand_subset` and `selections` bracket piecewise polynomial ones; `cases` generates programs
with points on their kinks, and `to_torch` gives the same program to PyTorch.
"""

from reference.affine import Cell, NotAffineError, bouligand, cells, selections
from reference.curves import (
    bouligand_subset,
    certainly_differentiable_gradient,
    curve_gradient,
    line_gradient,
    nearby_gradients,
)
from reference.expr import Expr, evaluate, touched
from reference.flags import bouligand_by_flags
from reference.hull import contains, exact, separation, strict_direction
from reference.known import KNOWN, Known
from reference.strategies import Case, cases, kink_points, programs
from reference.translate import ad_gradient, to_torch

__all__ = [
    "KNOWN",
    "Case",
    "Cell",
    "Expr",
    "Known",
    "NotAffineError",
    "ad_gradient",
    "bouligand",
    "bouligand_by_flags",
    "bouligand_subset",
    "cases",
    "cells",
    "certainly_differentiable_gradient",
    "contains",
    "curve_gradient",
    "evaluate",
    "exact",
    "kink_points",
    "line_gradient",
    "nearby_gradients",
    "programs",
    "selections",
    "separation",
    "strict_direction",
    "to_torch",
    "touched",
]
