"""torchdiffeq: states and gradients through solvers of ordinary differential equations."""

from functools import partial

import torch
from torchdiffeq import odeint, odeint_adjoint

from field_suites import anywhere

TIMES = torch.tensor([0.0, 0.5], dtype=torch.float64)
LOOSE = {"rtol": 1e-2, "atol": 1e-3}
STEPS = {"options": {"step_size": 0.25}}
FIXED = ("euler", "midpoint", "rk4", "heun2", "heun3", "explicit_adams", "implicit_adams")
ADAPTIVE = ("dopri5", "bosh3", "adaptive_heun", "fehlberg2")
FIELDS = {
    "tanh": lambda _t, y: torch.tanh(y.flip(0)),
    "relu": lambda _t, y: torch.relu(y) - y.flip(0),
    "abs": lambda t, y: t - y.abs(),
}


class Field(torch.nn.Module):
    """A field as the adjoint method wants it."""

    def forward(self, t, y):
        return torch.tanh(y.flip(0)) + t


def solved(field, start, **options):
    """The last state."""
    return odeint(field, start, TIMES, **options)[-1]


def adjoint(start, **options):
    """The last state, with gradients by the adjoint equation."""
    return odeint_adjoint(Field(), start, TIMES, adjoint_params=(), **options)[-1]


PROGRAMS = (
    *(
        anywhere(f"odeint({m}, {n})", partial(solved, f, method=m, **STEPS), (2,))
        for m in FIXED
        for n, f in FIELDS.items()
    ),
    *(
        anywhere(f"odeint({m}, {n})", partial(solved, f, method=m, **LOOSE), (2,))
        for m in ADAPTIVE
        for n, f in FIELDS.items()
    ),
    anywhere("odeint_adjoint(rk4)", partial(adjoint, method="rk4", **STEPS), (2,)),
    anywhere("odeint_adjoint(dopri5)", partial(adjoint, rtol=1e-7, atol=1e-9), (2,)),
)
