"""The abs-normal form of a program's first order: what nonsmooth solvers exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.decide.normal import outer_estimate
from clarke.decide.outer import Rows
from clarke.errors import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.decide.outer import Outer
    from clarke.steering import Program

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AbsNormalForm:
    """A piecewise linear function: ``z = c + Z x + L |z|``, ``y = b + J x + Y |z|``.

    The form of Griewank (*On stable piecewise linearization and generalized algorithmic
    differentiation*, 2013), written for one result. `x` is the step from the point; `c` is zero,
    since every switching variable is one of a kink that the point touches.

    Attributes:
        Z: (s, n).
        L: (s, s), strictly lower triangular.
        J: (n,).
        Y: (s,).
        b: The function's value.
        c: (s,).
    """

    Z: Array
    L: Array
    J: Array
    Y: Array
    b: float
    c: Array

    def switching(self, step: Array) -> Array:
        """(s,) the switching variables at a step from the point."""
        z = self.c + self.Z @ step
        for i in range(len(z)):
            z[i] += self.L[i, :i] @ np.abs(z[:i])
        found: Array = z
        return found

    def value(self, step: Array) -> float:
        """The function at a step from the point."""
        return float(self.b + self.J @ step + self.Y @ np.abs(self.switching(step)))

    def __call__(self, step: torch.Tensor) -> torch.Tensor:
        """The same as a program of PyTorch's, to be differentiated."""
        rows, before = torch.from_numpy(self.Z), torch.from_numpy(self.L)
        z: list[torch.Tensor] = []
        for i in range(len(self.c)):
            own = float(self.c[i]) + rows[i] @ step
            if i and bool((before[i, :i] != 0).any()):
                own = own + before[i, :i] @ torch.stack(z).abs()
            z.append(own)
        smooth = self.b + torch.from_numpy(self.J) @ step
        return smooth + torch.from_numpy(self.Y) @ torch.stack(z).abs() if z else smooth


def abs_normal_form(program: Program, generator: torch.Generator) -> AbsNormalForm:
    """The abs-normal form around a program's point.

    Raises:
        UnsupportedError: A kink has more than two pieces; write such maxima pair by pair.
    """
    outer = outer_estimate(program, generator, program.deadline, joined=False)
    atoms = outer.atoms
    pairs = np.bincount(atoms.owner, minlength=atoms.count) == 2
    if not isinstance(outer.forms, Rows) or not bool(pairs.all()) or _many_sided(outer):
        raise UnsupportedError(
            "The abs-normal form knows kinks with two pieces on either side of one switching "
            "function; here is another kind, or there are too many. Write a maximum of several as "
            "maxima of two."
        )
    order = np.concatenate(atoms.levels) if atoms.count else np.zeros(0, dtype=np.int64)
    above = atoms.form[1::2][order]
    # Every kink gives max(0, s) = (s + |s|) / 2 of its switching function s = A d + R max(0, s).
    linear = outer.forms.matrix[above]
    half = np.zeros((atoms.count, atoms.count))
    if outer.mixing is not None:
        half = outer.mixing[np.ix_(above, order)] / 2
    solved = np.linalg.solve(np.eye(atoms.count) - half, np.concatenate([linear, half], axis=1))
    rows = solved[:, : linear.shape[1]]
    before = np.tril(solved[:, linear.shape[1] :], -1)
    out = outer.out[order] / 2
    with torch.no_grad():
        value = float(program.run(grad=False).output)
    return AbsNormalForm(
        Z=rows,
        L=before,
        J=outer.base + out @ rows,
        Y=out + out @ before,
        b=value,
        c=np.zeros(atoms.count),
    )


def _many_sided(outer: Outer) -> bool:
    """Whether some kink chooses among candidates of its own instead of zero and a function."""
    return bool((outer.atoms.form[::2] != 0).any())
