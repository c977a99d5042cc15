"""Factorisations of matrices, and operations whose own derivative formula is not always true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.kinks import formulas as by
from clarke.kinks import matrices as at
from clarke.kinks.ctc import ctc_losses
from clarke.kinks.formulas import FormulaRule
from clarke.kinks.model import Hazard
from clarke.kinks.singular import SingularRule, differences_are_counted, rank_is_deficient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clarke.kinks.model import KinkRule

_STEEP = Hazard.INFINITE_SLOPE
_BEYOND = Hazard.BEYOND


def factorisations() -> Iterator[tuple[str, KinkRule]]:
    """(operator with overload, rule) of linear algebra."""
    # Beyond the edge of its domain it returns half of a factorisation.
    missing = tuple((at.factor_is_missing, hazard) for hazard in (_STEEP, Hazard.BEYOND))
    cholesky = FormulaRule(by.cholesky_factor, missing)
    yield "linalg_cholesky_ex", cholesky
    yield "cholesky", cholesky
    for name, exact, test, hazard in (
        ("cholesky_solve", by.solve_by_cholesky, at.factor_is_singular, _STEEP),
        ("_linalg_eigh", by.symmetric_eigen, at.eigenvalues_meet, Hazard.SEVERAL),
    ):
        yield name, FormulaRule(exact, ((test, hazard),))
    yield "cholesky_inverse", FormulaRule(by.inverse_by_cholesky)  # of a singular one: an error
    yield "linalg_eig", SingularRule(at.general_eigenvalues_meet, _STEEP)
    yield (
        "linalg_qr",
        SingularRule(at.sign_of_column_flips, Hazard.STEP, more=((at.columns_depend, _STEEP),)),
    )
    for name in ("linalg_lu", "linalg_lu_factor_ex"):
        yield name, SingularRule(at.pivots_tie, Hazard.STEP, more=((at.pivot_is_zero, _STEEP),))
    yield "linalg_lstsq", FormulaRule(by.least_squares, ((rank_is_deficient, Hazard.STEP),))
    yield "linalg_householder_product", FormulaRule(by.householder_matrix)
    yield "ormqr", FormulaRule(by.times_reflections)


def formulas() -> Iterator[tuple[str, KinkRule]]:
    """(operator with overload, rule) of others."""
    yield "_linalg_det", FormulaRule(by.determinant)
    yield "polar", FormulaRule(by.complex_by_polar)
    # Of order 0; other orders are lowered to norms of differences.
    for name in ("_cdist_forward", "_pdist_forward"):
        yield name, FormulaRule(by.constant, ((differences_are_counted, Hazard.STEP),))
    for rank in (2, 3):
        yield f"max_unpool{rank}d", FormulaRule(by.last_written, ((by.unpool_differs, _BEYOND),))
    yield "as_strided_scatter", FormulaRule(by.written_over, ((by.is_written_elsewhere, _BEYOND),))
    for overload in ("default", "Tensor"):
        yield f"_ctc_loss.{overload}", FormulaRule(ctc_losses, behind="_log_softmax")


def chunked() -> Iterator[tuple[str, KinkRule]]:
    """(name in the dispatcher, rule) of operations that PyTorch writes in Python."""
    for end in ("", "_no_reduction"):
        yield (
            f"torch_nn::_linear_cross_entropy_batch_chunked{end}.default",
            FormulaRule(by.chunked_cross_entropy),
        )
