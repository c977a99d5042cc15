"""Random small compositions at lattice points, against limits of gradients sampled nearby."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.decide.nonfinite import limit_along
from clarke.feasibility import convex_weights
from clarke.verdict import Verdict

INF = float("inf")

OPERATIONS = (
    lambda x: x.sort().values,
    lambda x: x.sort(descending=True).values,
    lambda x: x.topk(2).values,
    lambda x: x.topk(2, largest=False).values,
    lambda x: x.kthvalue(2).values[None],
    lambda x: x.median()[None],
    lambda x: x.median(0).values[None],
    lambda x: x.cummax(0).values,
    lambda x: x.cummin(0).values,
    lambda x: torch.linalg.vector_norm(x, 1)[None],
    lambda x: torch.linalg.vector_norm(x, INF)[None],
    lambda x: torch.linalg.vector_norm(x, -INF)[None],
    lambda x: torch.linalg.vector_norm(x)[None],
    lambda x: x.aminmax().max - x.aminmax().min[None],
    lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none"),
    lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none", beta=0.0),
    lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none"),
    lambda x: torch.fmax(x, -x),
    lambda x: torch.fmin(x, torch.zeros_like(x)),
    lambda x: F.multi_margin_loss(x[None], torch.tensor([0]))[None],
    lambda x: torch.zeros(2, dtype=x.dtype).scatter_reduce(
        0, torch.tensor([0, 1] * 9)[: x.numel()], x, "amax"
    ),
    lambda x: torch.cdist(x[:, None], x[:, None] + 1, p=1.0).reshape(-1)[:3],
    F.relu,
    lambda x: x.abs(),
    lambda x: x.std()[None],
    lambda x: torch.copysign(x, torch.ones_like(x)),
    lambda x: x * x - x,
)


def program(generator):
    """A random function R^3 -> R, its operations joined by small integer matrices."""

    def pick(n):
        return int(torch.randint(0, n, (1,), generator=generator))

    def matrix(rows, columns):
        drawn = torch.randint(-1, 2, (rows, columns), generator=generator)
        return drawn.to(torch.float64)

    steps = [(OPERATIONS[pick(len(OPERATIONS))], matrix(3, 3)) for _ in range(1 + pick(2))]
    weights = torch.randint(-2, 3, (9,), generator=generator).to(torch.float64)

    def f(x):
        total = 0.0
        for operation, A in steps:
            x = A @ x
            out = operation(x).reshape(-1)
            total = total + (weights[: out.numel()] * out).sum()
            x = torch.cat([out, x])[:3]
        return total

    return f


def gradient(f, at):
    (x,) = (p.detach().clone().requires_grad_() for p in at)
    return torch.autograd.grad(f(x), [x], materialize_grads=True)


@pytest.mark.parametrize("seed", range(90))
def test_never_a_false_verdict(seed):
    generator = torch.Generator().manual_seed(seed)
    f = program(generator)
    point = torch.randint(-1, 2, (3,), generator=generator).to(torch.float64)
    x = point.clone().requires_grad_()
    if not f(x).requires_grad:
        return
    report = clarke.check(f, (x,))
    limits = []
    for _ in range(40):
        ray = (torch.randn(3, dtype=torch.float64, generator=generator),)
        found = limit_along(lambda at: gradient(f, at), (point,), ray)
        if found is not None:
            limits.append(found[0].numpy())
    if len(limits) < 40:
        return
    (g,) = report.gradient
    inside = bool(torch.isfinite(g).all()) and (
        convex_weights(np.stack(limits), g.numpy(), tolerance=1e-5) is not None
    )
    close = [bool(np.abs(v - g.numpy()).max() < 1e-5) for v in limits]
    if report.verdict is Verdict.SMOOTH:
        assert all(close)
    elif report.verdict in (Verdict.BOULIGAND, Verdict.CLARKE):
        # Thin cells escape sampling; their witness must then show the limit itself.
        assert inside or report.certificate.verify()
    elif report.verdict is Verdict.NOT_CLARKE:
        assert not inside
    elif report.verdict is Verdict.NOT_LIPSCHITZ:
        assert not torch.isfinite(torch.as_tensor(np.stack(limits))).all()
