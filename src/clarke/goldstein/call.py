"""`clarke.goldstein`: gradients in a ball around a point."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.deadline import UNLIMITED
from clarke.errors import InputError, OutOfTimeError, UnsupportedError
from clarke.goldstein.pieces import Ball, CurvedError, Piece, pieces
from clarke.goldstein.result import Goldstein
from clarke.numerics import BALL_SAMPLES, BALL_SHARE, SET_SECONDS
from clarke.prepare import described, prepared
from clarke.proof.cells import NoInstructionsError
from clarke.proof.instructions import written_out
from clarke.steering import natural_gradient
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.prepare import Prepared
    from clarke.steering import Program

    Array = NDArray[np.float64]

_INSIDE = 1.0 / 128  # of the way into a piece, where its gradient is looked at


@leaves_no_trace
def goldstein(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    eps: float,
    norm: float = 2.0,
    wrt: Sequence[torch.Tensor] | None = None,
    samples: int = int(BALL_SAMPLES),
    seed: int = 0,
    seconds: float | None = SET_SECONDS,
) -> Goldstein:
    """Goldstein's subdifferential: mixtures of the gradients of all points within `eps`.

    Its smallest element is a direction along which ``function`` falls for at least `eps`, and its
    length tells whether a point is nearly stationary (Goldstein 1977), where Clarke's
    subdifferential at the point itself says nothing of a kink nearby.

    Of piecewise linear programs every piece that meets the closed ball is found, in exact
    arithmetic. Of others, and where that takes too long, gradients at random points of the ball
    are: all in the set, but not all of it. `Goldstein.exact` says which.

    Args:
        function: Returns a tensor with one element.
        inputs: Its arguments.
        eps: The ball's radius, positive.
        norm: 2 for a round ball; ``math.inf`` for one in which no entry moves more than `eps`.
        wrt: Leaves to differentiate with respect to; default as in `clarke.check`.
        samples: How many points are looked at where the set is not found exactly.
        seed: Seed of the private random generator.
        seconds: Time limit of clarke's own work, without the first run of the function; None for
            no limit.

    Raises:
        InputError: The call cannot be answered.
        UnsupportedError: Selections of pieces do not describe the program, or it reads numbers
            into Python, which may decide otherwise elsewhere in the ball.
    """
    if not 0 < eps < math.inf:
        raise InputError(f"eps is the radius of a ball, a positive number, not {eps!r}.")
    if norm not in (2, math.inf):
        raise InputError(f"norm is 2 for a round ball or math.inf for a cube, not {norm!r}.")
    with prepared(function, inputs, wrt, seconds) as run:
        program = described(run)
        if run.trace.scalar_reads:
            where = run.trace.scalar_reads[0].location
            raise UnsupportedError(
                f"The gradients in a ball cannot be told: at {where} a value is read into Python, "
                "which may decide otherwise beside the point."
            )
        centre = flatten(program.point)
        try:
            found = _exact(program, centre, Ball(Fraction(eps), norm == 2), run)
            exact = all(p.meets for p in found)
            why = "" if exact else "whether a piece only just meets the ball was not told"
            near = [p for p in found if p.meets]
        except (CurvedError, NoInstructionsError) as error:
            near, exact, why = [], False, f"it is not piecewise linear, as written: {error}"
        except OutOfTimeError:
            near, exact, why = [], False, "its pieces are too many"
        if not exact:
            near += _sampled(program, centre, eps, norm, samples, seed, run.deadline)
        return Goldstein(
            eps=float(eps),
            norm=float(norm),
            exact=exact,
            elements=torch.from_numpy(np.stack([p.gradient for p in near])),
            points=torch.from_numpy(np.stack([centre + p.near for p in near])),
            why=why,
            _inside=np.stack([p.near + _INSIDE * (p.inside - p.near) for p in near]),
            _point=program.point,
            _gradient=_Gradient(program.within(UNLIMITED)),
        )


class _Gradient:
    """A program's gradient at other points, as it runs there."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __call__(self, point: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return natural_gradient(self._program, point)


def _exact(program: Program, centre: Array, ball: Ball, run: Prepared) -> list[Piece]:
    cells, output = written_out(program, run.deadline)
    point = [Fraction(v) for v in centre.tolist()]
    part = run.deadline.part(BALL_SHARE)
    return pieces(cells.code, cells.constants, output, point, ball, part)


def _sampled(
    program: Program,
    centre: Array,
    eps: float,
    norm: float,
    samples: int,
    seed: int,
    deadline: Deadline,
) -> list[Piece]:
    """Gradients at random points of a ball: no kink is touched there, but by chance."""
    generator = np.random.default_rng(seed)
    size = len(centre)
    found = []
    for _ in range(samples):
        if deadline.passed:
            break
        step = generator.standard_normal(size)
        length = float(np.linalg.norm(step, ord=norm))
        step *= eps * generator.random() ** (1.0 / size) / length
        own = flatten(natural_gradient(program, unflatten(centre + step, program.point)))
        if np.isfinite(own).all():
            found.append(Piece(own, step, step, meets=True))
    return found
