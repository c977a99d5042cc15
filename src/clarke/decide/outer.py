"""An outer estimate of the generalized gradients: every kink takes any of its pieces by itself.

The gradients of all selections, whether they are active anywhere nearby or not, contain every
limiting gradient, so that what lies outside of their hull is wrong without any enumeration. Kinks
with one switching function choose together: `relu(h)` and `relu(-h)` are one kink. Where the
function is a sum of convex pieces (Clarke regular), the estimate is the set itself.

In normal form every quantity is ``T = A d + R r`` along a direction ``d``: linear in ``d`` and in
the *atoms* r, each of which is a mean of some of these quantities (``max(0, s)`` is a mean of 0 and
s). See docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from clarke.deadline import UNLIMITED
from clarke.decide.project import project
from clarke.numerics import OUTSIDE, WEIGHTS_CONVEX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.project import Projection

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]


class Forms(Protocol):
    """The linear parts A of all quantities, (U, n)."""

    @property
    def size(self) -> int:
        """U."""

    def times(self, direction: Array) -> Array:
        """A d, (U,)."""

    def pulled(self, weights: Array) -> Array:
        """Aᵀ y, (n,)."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Linear parts as a matrix."""

    matrix: Array

    @property
    def size(self) -> int:
        """U."""
        return len(self.matrix)

    def times(self, direction: Array) -> Array:
        """A d."""
        found: Array = self.matrix @ direction
        return found

    def pulled(self, weights: Array) -> Array:
        """Aᵀ y."""
        found: Array = weights @ self.matrix
        return found


@dataclass(frozen=True, eq=False)
class Atoms:
    """The choices.

    Attributes:
        form: (L,) the quantities that an atom may be, atom by atom.
        owner: (L,) the atom of each, sorted.
        side: (J,) 1 where the atom is the largest of them, -1 the smallest, 0 any.
        round: (J,) where it is the length of the vector of them (a Euclidean norm of zero), and so
            the largest of their sums with weights of length 1.
        levels: Atoms in an order in which each depends on those before only.
        kinks: (J,) tuples of the touched kinks' numbers behind every atom.
        shares: (L,) the weights that AD gives to the quantities, where its gradient is one of the
            estimate's, else None.
        by_values: (J,) whether nothing but the values of its quantities tells which an atom is;
            None where that is not known.
    """

    form: Index
    owner: Index
    side: Index
    round: Mask
    levels: tuple[Index, ...]
    kinks: tuple[tuple[int, ...], ...]
    shares: Array | None
    by_values: Mask | None = None

    @property
    def count(self) -> int:
        """J."""
        return len(self.side)

    def are_shares(self, shares: Array) -> bool:
        """Whether (L,) weights make elements: convex ones, and of lengths those of length 1."""
        flat = ~self.round
        sums = np.bincount(self.owner, weights=shares, minlength=self.count)
        squares = np.bincount(self.owner, weights=shares * shares, minlength=self.count)
        return bool(
            (shares[flat[self.owner]] >= 0).all()
            and (np.abs(sums - 1) <= WEIGHTS_CONVEX)[flat].all()
            and (squares[self.round] <= 1 + WEIGHTS_CONVEX).all()
        )

    def members(self, atoms: Index) -> Index:
        """The places in `form` of some atoms, in order."""
        mine = np.zeros(self.count, dtype=bool)
        mine[atoms] = True
        return np.flatnonzero(mine[self.owner])


@dataclass(frozen=True, eq=False)
class Outer:
    """The outer estimate in normal form.

    Attributes:
        base: (n,) the result's linear part.
        noise: (n,) the sum of its absolute terms.
        out: (J,) the result's coefficients of the atoms.
        forms: The linear parts of all quantities.
        mixing: (U, J) their coefficients of the atoms; None where they have none.
        atoms: The atoms.
    """

    base: Array
    noise: Array
    out: Array
    forms: Forms
    mixing: Array | None
    atoms: Atoms

    # ------------------------------------------------------------ the support function

    def bounds(self, direction: Array) -> tuple[Array, Array, Array, Array]:
        """For every atom its largest and smallest value along a direction, (J,).

        And the weights with which each is a sum of the atom's quantities, (L,).
        """
        atoms = self.atoms
        linear = self.forms.times(direction)
        high, low = np.zeros(atoms.count), np.zeros(atoms.count)
        top, bottom = np.zeros(len(atoms.form)), np.zeros(len(atoms.form))
        for level in atoms.levels:
            places = atoms.members(level)
            form = atoms.form[places]
            most = least = linear[form]
            if self.mixing is not None:
                up, down = np.maximum(self.mixing[form], 0), np.minimum(self.mixing[form], 0)
                most, least = most + up @ high + down @ low, least + up @ low + down @ high
            curved = atoms.round[atoms.owner[places]]
            if bool(curved.any()):
                far = np.where(np.abs(most) > np.abs(least), most, least)[curved]
                self._lengths(places[curved], far, (high, low, top, bottom))
            places, most, least = places[~curved], most[~curved], least[~curved]
            owner = atoms.owner[places]
            for values, kept, where, sign in ((most, high, top, 1.0), (least, low, bottom, -1.0)):
                order = np.lexsort((-sign * values, owner))
                apart = np.ones(len(order), dtype=bool)
                apart[1:] = np.diff(owner[order]) != 0
                first = order[apart]
                kept[owner[first]] = values[first]
                where[places[first]] = 1.0
        return high, low, top, bottom

    def _lengths(self, places: Index, far: Array, found: tuple[Array, Array, Array, Array]) -> None:
        """Write the bounds of atoms that are the lengths of their quantities' vectors."""
        high, low, top, bottom = found
        owner = self.atoms.owner[places]
        largest = np.zeros(self.atoms.count)
        np.maximum.at(largest, owner, np.abs(far))
        unit = far / np.where(largest > 0, largest, 1.0)[owner]
        length = np.sqrt(np.bincount(owner, unit**2, self.atoms.count))
        high[owner] = (length * largest)[owner]
        low[owner] = -high[owner]
        top[places] = unit / np.where(length > 0, length, 1.0)[owner]
        bottom[places] = -top[places]

    def extreme(self, direction: Array) -> tuple[float, Array]:
        """The largest inner product with an element of the estimate, and that element, (n,)."""
        high, low, top, bottom = self.bounds(direction)
        up, down = np.maximum(self.out, 0), np.minimum(self.out, 0)
        value = float(self.base @ direction + up @ high + down @ low)
        weights = self._gathered(up, down, top, bottom)
        return value, self.base + self.forms.pulled(weights)

    def _gathered(self, up: Array, down: Array, top: Array, bottom: Array) -> Array:
        """(U,) how often an element takes every quantity."""
        atoms = self.atoms
        up, down = up.copy(), down.copy()
        weights = np.zeros(self.forms.size)
        for level in reversed(atoms.levels):
            places = atoms.members(level)
            owner = atoms.owner[places]
            for own in (up[owner] * top[places], down[owner] * bottom[places]):
                used = np.flatnonzero(own)
                taken, form = own[used], atoms.form[places[used]]
                np.add.at(weights, form, taken)
                if self.mixing is not None:
                    rows = self.mixing[form]
                    more, less = np.maximum(rows, 0), np.minimum(rows, 0)
                    some, other = np.maximum(taken, 0), np.minimum(taken, 0)
                    up += some @ more + other @ less
                    down += some @ less + other @ more
        return weights

    def mean(self, shares: Array) -> Array:
        """The element with these weights of the quantities, (L,)."""
        atoms = self.atoms
        factor = self.out.copy()
        weights = np.zeros(self.forms.size)
        for level in reversed(atoms.levels):
            places = atoms.members(level)
            form = atoms.form[places]
            taken = factor[atoms.owner[places]] * shares[places]
            np.add.at(weights, form, taken)
            if self.mixing is not None:
                factor += taken @ self.mixing[form]
        return self.base + self.forms.pulled(weights)

    # ------------------------------------------------------------ regular parts

    def regular(self, part: Mask | None = None) -> bool:
        """Whether the estimate is the set: all atoms that count are maxima, or all minima.

        Args:
            part: (J,) the atoms to look at, which depend on no others.
        """
        mine = np.ones(self.atoms.count, dtype=bool) if part is None else part
        return self.bends(1.0, mine) or self.bends(-1.0, mine)

    def bends(self, sign: float, mine: Mask) -> bool:
        """Whether a part is a sum of maxima (1), or of minima (-1)."""
        atoms = self.atoms
        up = (sign * self.out > 0) & mine
        down = (sign * self.out < 0) & mine
        for level in reversed(atoms.levels):
            if bool((up[level] & (atoms.side[level] != 1)).any()):
                return False
            if bool((down[level] & (atoms.side[level] != -1)).any()):
                return False
            if self.mixing is None:
                continue
            curved = level[atoms.round[level] & (up[level] | down[level])]
            if bool(self.mixing[atoms.form[atoms.members(curved)]].any()):
                return False  # a norm of what bends
            for same, other, wanted in ((up, down, up.copy()), (down, up, down.copy())):
                chosen = level[wanted[level]]
                if len(chosen):
                    rows = self.mixing[atoms.form[atoms.members(chosen)]]
                    np.logical_or(same, (rows > 0).any(0), out=same)
                    np.logical_or(other, (rows < 0).any(0), out=other)
        return True

    def parts(self) -> list[tuple[Mask, Mask]]:
        """Atoms (J,) and entries of variables (n,) that have nothing to do with all others.

        Only where the linear parts are known as a matrix; else everything is one part.
        """
        atoms, n = self.atoms, len(self.base)
        if not isinstance(self.forms, Rows):
            return [(np.ones(atoms.count, dtype=bool), np.ones(n, dtype=bool))]
        used = self._used()
        mine = used[atoms.owner]
        form, owner = atoms.form[mine], atoms.owner[mine]
        entries = csr_array(self.forms.matrix[form] != 0)
        row, column = entries.nonzero()
        ends = [(owner[row], atoms.count + column)]
        if self.mixing is not None:
            row, column = np.nonzero(self.mixing[form])
            ends.append((owner[row], column))
        left, right = (np.concatenate(e) for e in zip(*ends, strict=True))
        size = atoms.count + n
        graph = csr_array((np.ones(len(left)), (left, right)), shape=(size, size))
        labels = connected_components(graph, directed=False)[1]
        found = []
        for label in np.unique(labels[: atoms.count][used]):
            own = labels == label
            found.append((own[: atoms.count] & used, own[atoms.count :]))
        rest = ~np.isin(labels[atoms.count :], labels[: atoms.count][used])
        if bool(rest.any()):
            found.append((np.zeros(atoms.count, dtype=bool), rest))
        return found

    def _used(self) -> Mask:
        """(J,) the atoms on which the result depends."""
        used: Mask = self.out != 0
        for level in reversed(self.atoms.levels):
            chosen = level[used[level]]
            if self.mixing is not None and len(chosen):
                rows = self.mixing[self.atoms.form[self.atoms.members(chosen)]]
                used = used | (rows != 0).any(0)
        return used

    # ------------------------------------------------------------ membership

    def restricted(self, mine: Mask, entries: Mask) -> tuple[Outer, Index]:
        """The estimate of one part, and the entries of variables that are its own."""
        atoms = self.atoms
        if not isinstance(self.forms, Rows) or bool(mine.all() and entries.all()):
            return self, np.arange(len(self.base))
        columns = np.flatnonzero(entries)
        kept = np.flatnonzero(mine)
        places = np.flatnonzero(mine[atoms.owner])
        used, form = np.unique(atoms.form[places], return_inverse=True)
        number = np.cumsum(mine) - 1
        part = Atoms(
            form.reshape(-1),
            number[atoms.owner[places]],
            atoms.side[kept],
            atoms.round[kept],
            tuple(number[own] for lv in atoms.levels if len(own := lv[mine[lv]])),
            tuple(atoms.kinks[j] for j in kept),
            None if atoms.shares is None else atoms.shares[places],
            None if atoms.by_values is None else atoms.by_values[kept],
        )
        mixing = None if self.mixing is None else self.mixing[np.ix_(used, kept)]
        forms = Rows(self.forms.matrix[np.ix_(used, columns)])
        base, noise = self.base[columns], self.noise[columns]
        return Outer(base, noise, self.out[kept], forms, mixing, part), columns

    def project(
        self, target: Array, rounds: int, deadline: Deadline = UNLIMITED
    ) -> Projection[bytes]:
        """The nearest point of the estimate."""
        scale = max(float(np.abs(target).max(initial=0)), float(self.noise.max(initial=0)))

        def extreme(direction: Array) -> tuple[bytes, Array]:
            element = self.extreme(direction)[1]
            return element.tobytes(), element

        return project(extreme, target, target - self.base, scale, rounds, deadline)

    def gap(self, target: Array, direction: Array) -> float:
        """By how much a direction separates a gradient from the estimate; negative if it may not.

        Less what roundings of the estimate's terms may amount to.
        """
        high, low, _, _ = self.bounds(direction)
        up, down = np.maximum(self.out, 0), np.minimum(self.out, 0)
        value = float(self.base @ direction + up @ high + down @ low)
        size = float(self.noise @ np.abs(direction)) + float(
            np.abs(self.out) @ np.maximum(np.abs(high), np.abs(low))
        )
        return float(target @ direction) - value - OUTSIDE * size
