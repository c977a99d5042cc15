"""Factorisations of matrices where they jump, and where eigenvalues meet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.kinks.samples import Sample

_IDENTITY = ((1.0, 0.0, 0.0, 1.0),)
_REGULAR = ((2.0, 0.3, 0.5, 3.0),)
_TRIANGLE = ((1.0, 2.0, 0.0, 3.0),)
_RANK_ONE = ((1.0, 2.0, 1.0, 2.0),)
_TIED = ((1.0, 2.0, 1.0, 3.0),)
_ZERO = ((0.0,),)


def _square(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(2, 2)


def _both(x: torch.Tensor) -> torch.Tensor:
    return _square(x) + _square(x).T


def _eigen() -> Iterator[Sample]:
    yield Sample(
        "linalg.eigvalsh(x + x.T)[-1]",
        "x = I",
        lambda x: torch.linalg.eigvalsh(_both(x))[-1],
        _IDENTITY,
    )
    yield Sample(
        "linalg.eigvalsh(x + x.T) ** 2",
        "x = I",
        lambda x: torch.linalg.eigvalsh(_both(x)).square().sum(),
        _IDENTITY,
    )
    yield Sample(
        "linalg.eigh(x + x.T) vectors",
        "x = diag(1, 2)",
        lambda x: torch.linalg.eigh(_both(x)).eigenvectors,
        ((1.0, 0.0, 0.0, 2.0),),
    )
    yield Sample(
        "linalg.eigh(x + x.T) vectors ** 2",
        "x = diag(1, 2)",
        lambda x: torch.linalg.eigh(_both(x)).eigenvectors.square(),
        ((1.0, 0.0, 0.0, 2.0),),
    )
    yield Sample(
        "linalg.eigh(x + x.T) vectors ** 2",
        "x = I",
        lambda x: torch.linalg.eigh(_both(x)).eigenvectors.square(),
        _IDENTITY,
    )
    yield Sample(
        "linalg.eigvals(x).real",
        "x = ((1, 1), (0, 1))",
        lambda x: torch.linalg.eigvals(_square(x)).real,
        ((1.0, 1.0, 0.0, 1.0),),
    )
    yield Sample(
        "abs(linalg.eigvals(x))",
        "a rotation",
        lambda x: torch.linalg.eigvals(_square(x)).abs(),
        ((0.0, -1.0, 1.0, 0.0),),
    )
    yield Sample(
        "abs(complex(x, y))", "x = y = 0", lambda x, y: torch.complex(x, y).abs(), ((0.0,), (0.0,))
    )


def _factors() -> Iterator[Sample]:
    for kink, values in (
        ("triangular", _TRIANGLE),
        ("x[0, 0] = 0", ((0.0, 1.0, 1.0, 2.0),)),
        # Its second pivot is exactly zero whatever kernel computes it.
        ("rank 1", ((1.0, 0.0, 1.0, 0.0),)),
    ):
        yield Sample("linalg.qr(x).R", kink, lambda x: torch.linalg.qr(_square(x)).R, values)
    for kink, values in (("regular", _REGULAR), ("tied pivots", _TIED), ("rank 1", _RANK_ONE)):
        yield Sample(
            "linalg.lu_factor_ex(x).LU",
            kink,
            lambda x: torch.linalg.lu_factor_ex(_square(x)).LU,
            values,
        )
    yield Sample(
        "linalg.lu_solve(lu_factor(x), I)",
        "tied pivots",
        lambda x: torch.linalg.lu_solve(
            *torch.linalg.lu_factor(_square(x)), torch.eye(2, dtype=x.dtype)
        ),
        _TIED,
    )
    for kink, values in (("regular", _REGULAR), ("rank 1", _RANK_ONE)):
        yield Sample(
            "linalg.lstsq(x, I).solution",
            kink,
            lambda x: torch.linalg.lstsq(_square(x), torch.eye(2, dtype=x.dtype)).solution,
            values,
        )
    yield Sample(
        "linalg.cholesky(x x.T)",
        "regular",
        lambda x: torch.linalg.cholesky(_square(x) @ _square(x).T),
        _REGULAR,
    )
    yield Sample(
        "linalg.cholesky_ex(x x.T).L",
        "rank 1",
        lambda x: torch.linalg.cholesky_ex(_square(x) @ _square(x).T).L,
        _RANK_ONE,
    )
    yield Sample(
        "cholesky_inverse(x)",
        "not triangular",
        lambda x: torch.cholesky_inverse(_square(x)),
        _REGULAR,
    )
    yield Sample(
        "cholesky_solve(I, x)",
        "not triangular",
        lambda x: torch.cholesky_solve(torch.eye(2, dtype=x.dtype), _square(x)),
        _REGULAR,
    )
    # A reflection by v = (1, 1) with tau = 1/2: the formula divides by 1 - tau |v|^2.
    yield Sample(
        "linalg.householder_product(x, y)",
        "y |v|^2 = 1",
        lambda x, y: torch.linalg.householder_product(x[:, None], y),
        ((0.0, 1.0), (0.5,)),
    )
    yield Sample(
        "ormqr(x, y, I)",
        "y |v|^2 = 1",
        lambda x, y: torch.ormqr(x[:, None], y, torch.eye(2, dtype=x.dtype)),
        ((0.0, 1.0), (0.5,)),
    )


def _others() -> Iterator[Sample]:
    yield Sample(
        "polar(x, 0.5).real", "x = 0", lambda x: torch.polar(x, torch.full_like(x, 0.5)).real, _ZERO
    )
    yield Sample("polygamma(1, x)", "x = 0", lambda x: torch.polygamma(1, x), _ZERO)
    yield Sample("frexp(x).mantissa", "x = 2", lambda x: torch.frexp(x).mantissa, ((2.0,),))
    yield Sample("frexp(x).mantissa", "x = 0", lambda x: torch.frexp(x).mantissa, _ZERO)
    yield Sample("copysign(x, y)", "x = 1, y = 0", torch.copysign, ((1.0,), (0.0,)))
    yield Sample("copysign(x, y)", "x = 0, y = 1", torch.copysign, ((0.0,), (1.0,)))
    yield Sample(
        "cdist(x, y, 0)",
        "x = (1, 2), y = (1, 3)",
        lambda x, y: torch.cdist(x[None], y[None], p=0.0) + 0 * x.sum(),
        ((1.0, 2.0), (1.0, 3.0)),
    )
    yield Sample(
        "as_strided_scatter(x, y, (1,), (1,))",
        "an entry is overwritten",
        lambda x, y: torch.as_strided_scatter(x, y, (1,), (1,)),
        ((1.0, 2.0), (3.0,)),
    )
    yield Sample(
        "max_unpool1d(max_pool1d(x, 2, 1))",
        "windows share their maximum",
        lambda x: F.max_unpool1d(
            *F.max_pool1d(x[None, None], 2, 1, return_indices=True), [2], [1], output_size=[3]
        ),
        ((1.0, 3.0, 2.0),),
    )
    yield Sample(
        "ctc_loss(log_softmax(x))",
        "all equal",
        lambda x: F.ctc_loss(
            x.reshape(2, 1, 2).log_softmax(-1),
            torch.tensor([[1]]),
            torch.tensor([2]),
            torch.tensor([1]),
        ),
        ((0.0, 0.0, 0.0, 0.0),),
    )


def matrices() -> Iterator[Sample]:
    """Points of factorisations, and of other operations whose own formula is in doubt."""
    yield from _eigen()
    yield from _factors()
    yield from _others()
