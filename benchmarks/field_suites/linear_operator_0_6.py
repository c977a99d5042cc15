"""linear_operator: structured matrices."""

import linear_operator
import torch
from linear_operator import operators

from field_suites import anywhere

SQUARE, ROWS, VECTOR = (3, 3), (3, 2), (3,)


def positive(a):
    """A positive definite operator."""
    eye = torch.eye(a.shape[0], dtype=a.dtype)
    return linear_operator.to_linear_operator(a @ a.mT + eye)


PROGRAMS = (
    anywhere("solve", lambda a, b: linear_operator.solve(positive(a), b), SQUARE, ROWS),
    anywhere("logdet", lambda a: positive(a).logdet(), SQUARE),
    anywhere("inv_quad", lambda a, b: linear_operator.inv_quad(positive(a), b), SQUARE, ROWS),
    anywhere(
        "inv_quad_logdet",
        lambda a, b: linear_operator.inv_quad_logdet(positive(a), b, logdet=True)[1],
        *(SQUARE, ROWS),
    ),
    anywhere("matmul", lambda a, b: positive(a) @ b, SQUARE, ROWS),
    anywhere("diagonal", lambda a: positive(a).diagonal(), SQUARE),
    anywhere("sum", lambda a: positive(a).sum(-1), SQUARE),
    anywhere("mul", lambda a, b: (positive(a) * positive(b)).to_dense(), SQUARE, SQUARE),
    anywhere("cholesky", lambda a: positive(a).cholesky().to_dense(), SQUARE),
    anywhere("sqrt_inv_matmul", lambda a, b: positive(a).sqrt_inv_matmul(b), SQUARE, ROWS),
    anywhere("add_jitter", lambda a: positive(a).add_jitter(0.1).to_dense(), SQUARE),
    anywhere("DiagLinearOperator", lambda d, b: operators.DiagLinearOperator(d) @ b, VECTOR, ROWS),
    anywhere(
        "ToeplitzLinearOperator", lambda c, b: operators.ToeplitzLinearOperator(c) @ b, VECTOR, ROWS
    ),
    anywhere(
        "KroneckerProductLinearOperator",
        lambda a, b: operators.KroneckerProductLinearOperator(positive(a), positive(b)).to_dense(),
        *((2, 2), (2, 2)),
    ),
    anywhere(
        "LowRankRootLinearOperator",
        lambda r: operators.LowRankRootLinearOperator(r).add_jitter(1.0).logdet(),
        ROWS,
    ),
    anywhere("RootLinearOperator", lambda r: operators.RootLinearOperator(r).to_dense(), ROWS),
    anywhere(
        "BlockDiagLinearOperator",
        lambda a: operators.BlockDiagLinearOperator(
            linear_operator.to_linear_operator(a)
        ).to_dense(),
        (2, 2, 2),
    ),
    anywhere(
        "SumLinearOperator", lambda a, b: (positive(a) + positive(b)).to_dense(), SQUARE, SQUARE
    ),
)
