"""Points at which an operation's own derivative formula is in doubt, or wrong."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.kinks.samples import Sample


def formulas() -> Iterator[Sample]:
    """Singular matrices, one triangle of a matrix, duplicate indices, constant results."""
    singular = ((1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0),)
    regular = ((2.0, 0.3, 0.5, 3.0),)
    yield Sample(
        "linalg.det(x)", "diag(1, 0, 2)", lambda x: torch.linalg.det(x.reshape(3, 3)), singular
    )
    yield Sample("linalg.det(x)", "regular", lambda x: torch.linalg.det(x.reshape(2, 2)), regular)
    yield Sample(
        "linalg.eigvalsh(x)",
        "not symmetric",
        lambda x: torch.linalg.eigvalsh(x.reshape(2, 2)),
        regular,
    )
    yield Sample(
        "linalg.cholesky(x)",
        "not symmetric",
        lambda x: torch.linalg.cholesky(x.reshape(2, 2)),
        regular,
    )
    yield Sample(
        "linalg.pinv(x)",
        "rank 1",
        lambda x: torch.linalg.pinv(x.reshape(2, 2)),
        ((1.0, 1.0, 1.0, 1.0),),
    )
    yield Sample(
        "index_put(x, (0, 0), y)",
        "duplicate indices",
        lambda x, y: x.index_put((torch.tensor([0, 0]),), y),
        ((0.0, 0.0), (1.0, 2.0)),
    )
    yield Sample(
        "scatter(x, 0, (0, 0), y)",
        "duplicate indices",
        lambda x, y: x.scatter(0, torch.tensor([0, 0]), y),
        ((0.0, 0.0), (1.0, 2.0)),
    )
    yield Sample(
        "index_copy(x, 0, (0, 0), y)",
        "duplicate indices",
        lambda x, y: x.index_copy(0, torch.tensor([0, 0]), y),
        ((0.0, 0.0), (1.0, 2.0)),
    )
    yield Sample(
        "embedding(i, x, padding_idx=0)",
        "row 0 is read",
        lambda x: F.embedding(torch.tensor([0, 1]), x.reshape(2, 1), padding_idx=0),
        ((1.0, 2.0),),
    )
    yield Sample(
        "embedding(i, x, scale_grad_by_freq)",
        "a row is read twice",
        lambda x: F.embedding(torch.tensor([0, 0, 1]), x.reshape(2, 1), scale_grad_by_freq=True),
        ((1.0, 2.0),),
    )
    yield Sample(
        "polar(x, 0).real",
        "x = -1",
        lambda x: torch.polar(x, torch.full_like(x, 0.5)).real,
        ((-1.0,),),
    )
    yield Sample("ldexp(x, -1)", "x = 1", lambda x: torch.ldexp(x, torch.tensor([-1])), ((1.0,),))
    yield Sample("special.i0e(x)", "x = 0", torch.special.i0e, ((0.0,),))
    yield Sample("special.i1e(x)", "x = 0", torch.special.i1e, ((0.0,),))
    yield Sample(
        "special.airy_ai(x) + 0 x", "x = 1", lambda x: torch.special.airy_ai(x) + 0 * x, ((1.0,),)
    )
    yield Sample(
        "special.bessel_j0(x) + 0 x",
        "x = 1",
        lambda x: torch.special.bessel_j0(x) + 0 * x,
        ((1.0,),),
    )
    yield Sample(
        "linspace(x, 1, 3) + 0 x",
        "x = 0",
        lambda x: torch.linspace(x[0], 1.0, 3, dtype=x.dtype) + 0 * x,
        ((0.0,),),
    )
    yield Sample(
        "max_unpool1d(x, (0, 0))",
        "duplicate indices",
        lambda x: F.max_unpool1d(x[None, None], torch.tensor([[[0, 0]]]), [1], output_size=[2]),
        ((1.0, 2.0),),
    )
    yield Sample(
        "linalg.qr(x).R",
        "regular",
        lambda x: torch.linalg.qr(x.reshape(2, 2)).R,
        regular,
    )
    yield Sample(
        "ctc_loss(x)",
        "not normalised",
        lambda x: F.ctc_loss(
            x.reshape(2, 1, 2), torch.tensor([[1]]), torch.tensor([2]), torch.tensor([1])
        ),
        ((-0.5, -1.0, -0.7, -0.4),),
    )
