"""Weights at kinks that give a vector, by one linear program, where all pieces bend one way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack, vstack
from scipy.sparse.linalg import lsqr

from clarke.decide.outer import Rows
from clarke.numerics import SOLVER_ZERO, UNIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.outer import Atoms, Outer

    Array = NDArray[np.float64]


def weights_by_program(
    outer: Outer, turned: Array, target: Array, units: Array, deadline: Deadline
) -> tuple[Array, Array] | None:
    """Weights of the candidates, (L,), of the nearest element, and the multipliers, (n,).

    The unknowns are how often every candidate is taken: those of one kink together as often as
    the kink counts in the result and in the candidates that are taken elsewhere.

    Args:
        outer: The estimate, which is the set.
        turned: (J,) -1 for the atoms that count with a negative sign, 1 for others.
        target: (n,) the vector.
        units: (n,) the size of each entry; infinite where it does not count.
        deadline: When to give up.
    """
    keep = np.isfinite(units)
    columns, sums, ends = _flows(outer, turned)
    rows = columns / units[keep, None] if keep.all() else columns[keep] / units[keep, None]
    right = np.concatenate([((target - outer.base) / units)[keep], ends])
    count, off = rows.shape[1], int(keep.sum())
    slack, empty = eye_array(off), csr_array((len(ends), off))
    whole = vstack(
        [hstack([csr_array(rows), slack, -slack]), hstack([sums, empty, empty])], format="csr"
    )
    cost = np.concatenate([np.zeros(count), np.ones(2 * off)])
    options = {} if np.isinf(deadline.left) else {"time_limit": max(deadline.left, 0.0)}
    found = linprog(cost, A_eq=whole, b_eq=right, method="highs", options=options)
    if found.x is None:
        deadline.ask("solving a linear program of {} weights", count)
        return None
    taken = _polished(whole[:, :count], right, found.x[:count])
    direction = np.zeros(len(target))
    direction[keep] = found.eqlin.marginals[:off] / units[keep]
    return _shared(outer.atoms, taken), direction


def _flows(outer: Outer, turned: Array) -> tuple[Array, csr_array, Array]:
    """What taking a candidate once adds, (n, L); the sums for every kink, and their ends."""
    atoms = outer.atoms
    places = np.arange(len(atoms.form))
    columns = (turned[atoms.owner, None] * linear_parts_of(outer)[atoms.form]).T
    sums = csr_array((np.ones(len(places)), (atoms.owner, places)))
    if outer.mixing is not None:
        sums = sums - csr_array(np.abs(outer.mixing[atoms.form])).T
    return columns, csr_array(sums), np.abs(outer.out)


def _shared(atoms: Atoms, taken: Array) -> Array:
    """(L,) weights of candidates from how often they are taken."""
    sums = np.bincount(atoms.owner, weights=taken, minlength=atoms.count)
    shares = np.divide(
        taken, sums[atoms.owner], out=np.zeros_like(taken), where=sums[atoms.owner] > 0
    )
    first = np.unique(atoms.owner, return_index=True)[1]
    shares[first[sums == 0]] = 1.0
    return shares


def _polished(rows: csr_array, right: Array, taken: Array) -> Array:
    """A solution to the last digits: a linear program's is good to 1e-7."""
    found = np.maximum(taken, 0.0)
    used = np.flatnonzero(found > SOLVER_ZERO * found.max(initial=0.0))
    own = rows[:, used]
    for _ in range(2):
        # Many rows are sums of two weights: sparse, and iterations few.
        step = lsqr(own, right - rows @ found, atol=UNIT, btol=UNIT)[0]
        found[used] = np.maximum(found[used] + step, 0.0)
    return found


def linear_parts_of(outer: Outer) -> Array:
    """The linear parts of all quantities."""
    if not isinstance(outer.forms, Rows):
        raise TypeError("A regular set needs the linear parts as a matrix.")
    return outer.forms.matrix
