"""Rules for complex arguments. Other operations with rules are unknown there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clarke.kinks import singular as at
from clarke.kinks.model import Hazard
from clarke.kinks.singular import SingularRule
from clarke.kinks.table_matrices import factorisations
from clarke.kinks.table_singular import singular_points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clarke.kinks.model import KinkRule

# Their rules never compare entries, and no branch cut is crossed. Where eigenvectors or singular
# vectors are used in a way that sees their phase, autograd itself refuses.
_SAME: Final = frozenset(
    {
        "_linalg_det",
        "_linalg_eigh",
        "_linalg_svd",
        "cholesky",
        "cholesky_inverse",
        "cholesky_solve",
        "linalg_cholesky_ex",
        "linalg_eig",
        "linalg_pinv.atol_rtol_tensor",
        "linalg_vector_norm",
        "reciprocal",
    }
)


def complex_rules() -> Iterator[tuple[str, KinkRule]]:
    """(operator with overload, rule)."""
    yield "abs", SingularRule(at.first_is_zero, Hazard.CONE)
    yield "sgn", SingularRule(at.first_is_zero, Hazard.STEP)  # z / |z|
    for table in (singular_points(), factorisations()):
        for name, rule in table:
            if name in _SAME:
                yield name, rule
