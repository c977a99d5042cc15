"""Linear rows in, a certificate out: a direction positive on all of them, or why there is none.

For rows A (m, n), :func:`find_witness` looks for d with A d > 0 on every row. By Gordan's theorem
(1873) either such a d exists or some y >= 0, y != 0 has Aᵀy = 0, so each answer carries its own
proof. The proofs are checked by :func:`verify_witness` and :func:`verify_contradiction`, in exact
rational arithmetic on the recorded floats, by code that shares nothing with the search.

Convex hulls of finitely many points are the same mathematics with a target in place of zero:
:func:`minimum_norm_point`, :func:`convex_weights` (checked by :func:`verify_membership`) and
:func:`separating_direction` (checked by :func:`verify_separation`).
"""

from clarke.feasibility.exact import verify_contradiction, verify_witness
from clarke.feasibility.exact_hull import verify_membership, verify_separation
from clarke.feasibility.hull import (
    Separation,
    convex_weights,
    minimum_norm_point,
    separating_direction,
)
from clarke.feasibility.outcome import Budget, Feasibility, Method, Outcome
from clarke.feasibility.solve import find_witness

__all__ = [
    "Budget",
    "Feasibility",
    "Method",
    "Outcome",
    "Separation",
    "convex_weights",
    "find_witness",
    "minimum_norm_point",
    "separating_direction",
    "verify_contradiction",
    "verify_membership",
    "verify_separation",
    "verify_witness",
]
