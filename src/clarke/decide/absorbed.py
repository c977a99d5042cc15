"""Kinks put into the kinks that read them: the largest of largest ones is one largest.

``max_i (l_i + c max_j m_ij)`` with ``c > 0`` is the largest of all ``l_i + c m_ij``. Both ends of
every atom's interval stay what they are, so that the estimate is the same set, without nesting.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_array, vstack

from clarke.decide.outer import Atoms, Outer, Rows
from clarke.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]
    Levels = Callable[[Atoms, csr_array], tuple[Index, ...]]

_MOST: Final = 20_000  # quantities that atoms may choose among afterwards
_DEEP: Final = 64  # kinks in a row


class Nest:
    """Quantities ``T = A d + R r`` with R sparse, before they become an estimate.

    Args:
        linear: (U, n) A; the result last.
        mixing: (U, J) R.
        atoms: The atoms, without levels.
        noise: (n,) the sum of absolute terms of the result.
    """

    def __init__(self, linear: Array, mixing: csr_array, atoms: Atoms, noise: Array) -> None:
        self._base, self._noise = linear[-1], noise
        self._out = mixing[[-1]].toarray()[0]
        self._linear, self._mixing, self._atoms = linear, csr_array(mixing), atoms

    def estimate(self, levels: Levels, most: int, *, joined: bool) -> Outer:
        """The estimate, if `joined` with what can be absorbed absorbed, and without unused atoms.

        Raises:
            BudgetError: More than `most` numbers are left.
        """
        for _ in range(_DEEP if joined else 0):
            if not self._absorb():
                break
        used = self._used()
        kept, places = np.flatnonzero(used), np.flatnonzero(used[self._atoms.owner])
        forms, form = np.unique(self._atoms.form[places], return_inverse=True)
        number = np.cumsum(used) - 1
        mixing, linear = self._mixing[forms][:, kept], self._linear[forms]
        if mixing.nnz and len(forms) * len(kept) > most:
            raise BudgetError(f"{len(forms)} quantities are too many for an outer estimate.")
        old = self._atoms
        atoms = Atoms(
            form.reshape(-1).astype(np.int64),
            number[old.owner[places]],
            old.side[kept],
            old.round[kept],
            (),
            tuple(old.kinks[j] for j in kept),
            None if old.shares is None else old.shares[places],
        )
        order = levels(atoms, mixing)
        atoms = replace(atoms, levels=order)
        dense = mixing.toarray() if mixing.nnz else None
        return Outer(self._base, self._noise, self._out[kept], Rows(linear), dense, atoms)

    def _used(self) -> NDArray[np.bool_]:
        used: NDArray[np.bool_] = self._out != 0
        owner = self._atoms.owner
        while True:
            again = used.copy()
            again[self._mixing[self._atoms.form[used[owner]]].nonzero()[1]] = True
            if bool((again == used).all()):
                return used
            used = again

    def _absorb(self) -> bool:
        """Put single atoms into the quantities that read them, once; whether there were any."""
        atoms, mixing = self._atoms, self._mixing
        places = np.flatnonzero(self._used()[atoms.owner])
        rows = mixing[atoms.form[places]]
        single = places[np.diff(rows.indptr) == 1]
        if not len(single):
            return False
        rows = mixing[atoms.form[single]]
        inner, factor = rows.indices.astype(np.int64), rows.data
        fits = np.sign(factor) * atoms.side[inner] == atoms.side[atoms.owner[single]]
        fits &= (atoms.side[inner] != 0) & ~atoms.round[inner] & ~atoms.round[atoms.owner[single]]
        single, inner, factor = single[fits], inner[fits], factor[fits]
        sizes = np.bincount(atoms.owner, minlength=atoms.count)
        if not len(single) or len(atoms.form) + int(sizes[inner].sum()) > _MOST:
            return False
        self._replace(single, inner, factor, sizes)
        return True

    def _replace(self, single: Index, inner: Index, factor: Array, sizes: Index) -> None:
        atoms = self._atoms
        first = np.searchsorted(atoms.owner, np.arange(atoms.count))
        count = sizes[inner]
        outer_place = np.repeat(single, count)
        step = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        inner_place = np.repeat(first[inner], count) + step
        scale = np.repeat(factor, count)
        outer_form, inner_form = atoms.form[outer_place], atoms.form[inner_place]
        linear = self._linear[outer_form] + scale[:, None] * self._linear[inner_form]
        mixing = csr_array(self._mixing[inner_form].multiply(scale[:, None]))
        stay = np.ones(len(atoms.form), dtype=bool)
        stay[single] = False
        form = np.concatenate([atoms.form[stay], len(self._linear) + np.arange(len(linear))])
        owner = np.concatenate([atoms.owner[stay], atoms.owner[outer_place]])
        order = np.argsort(owner, kind="stable")
        shares = atoms.shares
        if shares is not None:
            made = shares[outer_place] * shares[inner_place]
            shares = np.concatenate([shares[stay], made])[order]
        kinks = [set(k) for k in atoms.kinks]
        for own, other in {
            (int(o), int(i)) for o, i in zip(atoms.owner[single], inner, strict=True)
        }:
            kinks[own].update(atoms.kinks[other])
        named = tuple(tuple(sorted(k)) for k in kinks)
        self._atoms = Atoms(form[order], owner[order], atoms.side, atoms.round, (), named, shares)
        self._linear = np.concatenate([self._linear, linear])
        self._mixing = csr_array(vstack([self._mixing, mixing], format="csr"))
