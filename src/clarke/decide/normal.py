"""Bring a program's first-order structure into the normal form of `decide.outer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.sparse import csr_array, hstack, vstack

from clarke.constraints import find_relevant, unflatten
from clarke.constraints.relevance import Mixing
from clarke.deadline import UNLIMITED
from clarke.decide.absorbed import Nest
from clarke.decide.forms import CutProgram
from clarke.decide.outer import Atoms, Outer, Rows
from clarke.decide.ties import tie
from clarke.errors import BudgetError
from clarke.kinks import Hazard
from clarke.numerics import ZERO_FORM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.ties import Tied
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

_EXPLICIT: Final = 4_000_000  # entries of the forms' matrix
_DEEP: Final = 256  # kinks on one path
_SQUARE: Final = 3_000  # quantities of programs with nested kinks
_ABSORBED: Final = 8_000  # where largest of largest ones may become one largest (`absorbed`)
_BLOCK: Final = 256  # quantities whose slopes are held as dense rows at a time


def outer_estimate(
    program: Program,
    generator: torch.Generator,
    deadline: Deadline = UNLIMITED,
    *,
    joined: bool = True,
    whole: bool = False,
) -> Outer:
    """The outer estimate around the program's point, computed from scratch.

    Args:
        program: The program.
        generator: Private randomness.
        deadline: When to give up.
        joined: The largest of largest ones is one largest; False keeps the program's own kinks.
        whole: A kink with two pieces chooses between these; False writes it as the first piece and
            the positive part of their difference, of which kinks may share multiples.

    Raises:
        BudgetError: Selections do not describe the gradients around the point, or the program is
            too large.
    """
    relevance = find_relevant(program, generator, Mixing.ALL)
    beyond = [h for h in relevance.hazards if h is not Hazard.IMPROPER]
    if beyond or relevance.lost_masks:
        raise BudgetError("Selections do not describe all gradients around the point.")
    cut = CutProgram(program, relevance.relevant)
    tied = tie(cut, generator, deadline)
    return _Builder(cut, tied, generator, deadline, joined=joined, whole=whole).build()


class _Builder:
    """Writes the normal form."""

    def __init__(
        self,
        cut: CutProgram,
        tied: Tied,
        generator: torch.Generator,
        deadline: Deadline,
        *,
        joined: bool,
        whole: bool,
    ) -> None:
        self._cut, self._tied, self._deadline = cut, tied, deadline
        self._generator, self._joined = generator, joined
        kinks = cut.kinks
        self._split, self._side = tied.group >= 0, kinks.side
        if whole:
            # The larger of two convex functions is convex; a + max(0, b - a) hides that.
            own = np.bincount(tied.group[self._split], minlength=kinks.count)[tied.group] == 1
            self._side = np.where(own & self._split, np.sign(tied.slope).astype(int), kinks.side)
            self._split &= ~own
        self._free = ~self._split & ~tied.null
        leaders = np.flatnonzero(self._split & (tied.leader == np.arange(kinks.count)))
        self._leaders = leaders
        # Atoms: first the groups, then the kinks that choose among candidates of their own.
        self._atom = np.full(kinks.count, -1)
        self._atom[leaders] = np.arange(len(leaders))
        self._atom[self._split] = self._atom[tied.leader[self._split]]
        alone = np.flatnonzero(self._free)
        self._atom[alone] = len(leaders) + np.arange(len(alone))
        self._alone = alone
        # z = base + gain * atom: the base is the candidate where the leader is negative.
        turned = self._split & (tied.ratio < 0)
        self._base = kinks.first + turned
        self._gain = np.where(self._split, tied.slope * np.abs(tied.ratio), 0.0)
        self._gain[alone] = 1.0
        self._turned = turned

    def build(self) -> Outer:
        """The normal form."""
        cut, kinks = self._cut, self._cut.kinks
        own, through = cut.pull(cut.look.output[None], np.ones(1))
        if self._is_flat():
            weights = np.zeros(len(kinks.owner))
            based = self._split | self._tied.null
            np.add.at(weights, self._base[based], through[based])
            base = own + cut.pull(cut.look.candidates, weights)[0]
            noise = np.abs(own) + np.abs(cut.pull(cut.look.candidates, np.abs(weights))[0])
            out, size = np.zeros(self._count), np.zeros(self._count)
            linked = self._atom >= 0
            np.add.at(out, self._atom[linked], (through * self._gain)[linked])
            np.add.at(size, self._atom[linked], np.abs(through * self._gain)[linked])
            out[np.abs(out) <= ZERO_FORM * size] = 0.0
            return self._finished(base, noise, out, None, self._flat_shares(through, out, size))
        return self._nested(own, through)

    @property
    def _count(self) -> int:
        return len(self._leaders) + len(self._alone)

    def _is_flat(self) -> bool:
        """Whether no kink's arguments depend on another's result."""
        kinks = self._cut.kinks

        def random(count: int) -> Array:
            return torch.randn(count, dtype=torch.float64, generator=self._generator).numpy()

        for values, count in (
            (self._cut.look.candidates, len(kinks.owner)),
            (self._cut.look.switching, kinks.count),
        ):
            if bool(self._cut.pull(values, random(count))[1].any()):
                return False
        return True

    # ------------------------------------------------------------ quantities

    def _places(self) -> tuple[Index, Index]:
        """The candidates of kinks on their own, and their kinks, in the order of atoms."""
        owner = self._cut.kinks.owner
        places = np.flatnonzero(self._free[owner])
        return places, owner[places]

    def _atoms(self, levels: tuple[Index, ...], shares: Array | None) -> Atoms:
        """Quantity 0 is zero, then the leaders' switching functions, then candidates."""
        groups = len(self._leaders)
        places, owner = self._places()
        form = np.concatenate(
            [
                np.stack([np.zeros(groups, np.int64), 1 + np.arange(groups)], 1).reshape(-1),
                1 + groups + np.arange(len(places)),
            ]
        )
        owners = np.concatenate([np.arange(groups).repeat(2), self._atom[owner]])
        kinks = self._cut.kinks
        side = np.concatenate([np.ones(groups, np.int64), self._side[self._alone]])
        numbers: list[list[int]] = [[] for _ in range(self._count)]
        for atom, number in zip(self._atom.tolist(), kinks.number.tolist(), strict=True):
            if atom >= 0:
                numbers[atom].append(number)
        # Of max(0, s) the sign of s tells, which is among its quantities.
        told = np.concatenate([np.ones(groups, dtype=bool), kinks.by_values[self._alone]])
        curved = np.concatenate([np.zeros(groups, dtype=bool), kinks.round[self._alone]])
        named = tuple(tuple(n) for n in numbers)
        return Atoms(form, owners, side, curved, levels, named, shares, told)

    def _finished(
        self, base: Array, noise: Array, out: Array, mixing: Array | None, shares: Array | None
    ) -> Outer:
        levels = (np.arange(self._count),) if self._count else ()
        atoms = self._atoms(levels, shares)
        forms = _Passes(self._cut, self._leaders, self._places()[0], self._generator)
        if forms.size * self._cut.size <= _EXPLICIT:
            return Outer(base, noise, out, Rows(forms.matrix(self._deadline)), mixing, atoms)
        return Outer(base, noise, out, forms, mixing, atoms)

    def _own_shares(self) -> Array:
        """(K,) AD's weight of what a split kink gains above its base."""
        kinks = self._cut.kinks
        second = np.minimum(kinks.first + 1, len(kinks.owner) - 1)
        own: Array = kinks.weights[np.where(self._turned, kinks.first, second)]
        return own

    def _listed(self, grouped: Array) -> Array:
        """(L,) the shares of all quantities, from those of the groups."""
        places, _ = self._places()
        pairs = np.stack([1.0 - grouped, grouped], 1).reshape(-1)
        return np.concatenate([pairs, self._cut.kinks.weights[places]])

    def _flat_shares(self, through: Array, out: Array, size: Array) -> Array | None:
        """AD's shares, where those of kinks in one group amount to one between 0 and 1."""
        if not self._cut.kinks.proper:
            return None
        groups = len(self._leaders)
        taken = np.zeros(groups)
        mine = self._split
        np.add.at(taken, self._atom[mine], (through * self._gain * self._own_shares())[mine])
        total, room = out[:groups], ZERO_FORM * size[:groups]
        empty = total == 0
        if bool((np.abs(taken[empty]) > room[empty]).any()):
            return None
        shares = np.where(empty, 0.0, taken / np.where(empty, 1.0, total))
        slack = np.where(empty, 0.0, room / np.where(empty, 1.0, np.abs(total)))
        if bool(((shares < -slack) | (shares > 1 + slack)).any()):
            return None
        return self._listed(np.clip(shares, 0.0, 1.0))

    # ------------------------------------------------------------ nested kinks

    def _nested(self, own: Array, through: Array) -> Outer:
        """Put kinks' results into each other: T = A d + B(P T + Q r), solved for T."""
        cut, kinks = self._cut, self._cut.kinks
        groups = len(self._leaders)
        places, _ = self._places()
        based = np.flatnonzero(self._split | self._tied.null)
        picks = np.concatenate([places, self._base[based]])
        quantities = 2 + groups + len(picks)
        # Only kinks that choose among candidates of their own absorb others.
        most, columns = (_ABSORBED, 0) if len(self._alone) else (_SQUARE, kinks.count)
        if quantities > most or quantities * (cut.size + columns) > _EXPLICIT:
            raise BudgetError(f"{quantities} quantities are too many for an outer estimate.")
        candidates = self._rows(cut.look.candidates, picks)
        leaders = self._rows(cut.look.switching, self._leaders)
        linear = np.concatenate([np.zeros((1, cut.size)), leaders[0], candidates[0], own[None]])
        none = csr_array((1, kinks.count))
        between = vstack([none, leaders[1], candidates[1], csr_array(through[None])], format="csr")
        # A kink's result is its base (P) and its gain times an atom (Q).
        place = 1 + groups + len(places) + np.arange(len(based))
        base = csr_array((np.ones(len(based)), (based, place)), (kinks.count, quantities))
        linked = np.flatnonzero(self._atom >= 0)
        ends = (linked, self._atom[linked])
        gain = csr_array((self._gain[linked], ends), (kinks.count, self._count))
        step, right = between @ base, hstack([csr_array(linear), between @ gain], format="csr")
        solved = _unfolded(step, right)
        size = _unfolded(
            abs(between) @ base, hstack([abs(csr_array(linear)), abs(between) @ abs(gain)])
        )
        solved = csr_array(solved.multiply(abs(solved) > ZERO_FORM * size))
        mixing = csr_array(solved[:, cut.size :])
        mixing.eliminate_zeros()
        atoms = self._atoms((), self._nested_shares())
        noise = size[[-1]].toarray()[0, : cut.size]
        nest = Nest(solved[:, : cut.size].toarray(), mixing, atoms, noise)
        return nest.estimate(_levels, _EXPLICIT, joined=self._joined)

    def _rows(self, values: torch.Tensor, picks: Index) -> tuple[Array, csr_array]:
        """Gradients of some values by variables, and by kinks' results, most of which are zero."""
        linear, between = [], []
        for start in range(0, max(len(picks), 1), _BLOCK):
            some = values[torch.from_numpy(picks[start : start + _BLOCK])]
            own, through = self._cut.rows(some, self._deadline)
            linear.append(own)
            between.append(csr_array(through))
        found = csr_array(vstack(between, format="csr"))
        if found.nnz > _EXPLICIT:
            raise BudgetError(f"{found.nnz} slopes between kinks are too many to keep.")
        return np.concatenate(linear), found

    def _nested_shares(self) -> Array | None:
        """AD's shares, where kinks of one group have the same."""
        if not self._cut.kinks.proper:
            return None
        grouped = self._own_shares()[self._leaders]
        mine = self._split
        own = self._own_shares()[mine]
        if bool((np.abs(own - grouped[self._atom[mine]]) > ZERO_FORM).any()):
            return None
        return self._listed(grouped)


class _Passes:
    """Linear parts of quantities of a program without nested kinks, by passes through it."""

    def __init__(
        self, cut: CutProgram, leaders: Index, places: Index, generator: torch.Generator
    ) -> None:
        self._cut, self._leaders, self._places = cut, leaders, places
        self._generator = generator

    @property
    def size(self) -> int:
        """U."""
        return 1 + len(self._leaders) + len(self._places)

    def times(self, direction: Array) -> Array:
        """A d."""
        along = unflatten(direction, self._cut.program.point)
        candidates, switching = self._cut.along(self._generator, along)
        return np.concatenate([[0.0], switching[self._leaders], candidates[self._places]])

    def pulled(self, weights: Array) -> Array:
        """Aᵀ y."""
        look, kinks = self._cut.look, self._cut.kinks
        switching, candidates = np.zeros(kinks.count), np.zeros(len(kinks.owner))
        switching[self._leaders] = weights[1 : 1 + len(self._leaders)]
        candidates[self._places] = weights[1 + len(self._leaders) :]
        return (
            self._cut.pull(look.switching, switching)[0]
            + self._cut.pull(look.candidates, candidates)[0]
        )

    def matrix(self, deadline: Deadline) -> Array:
        """A."""
        look = self._cut.look
        rows = [np.zeros((1, self._cut.size))]
        for values, picks in ((look.switching, self._leaders), (look.candidates, self._places)):
            rows.append(self._cut.rows(values[torch.from_numpy(picks)], deadline)[0])
        return np.concatenate(rows)


def _unfolded(step: csr_array, right: csr_array) -> csr_array:
    """The solution of ``X = right + step X``, where some power of `step` vanishes.

    By repetition: what is zero by structure stays exactly zero.
    """
    found = right = csr_array(right)
    for _ in range(_DEEP):
        again = csr_array(right + step @ found)
        if (again != found).nnz == 0:
            return found
        found = again
    raise BudgetError(f"More than {_DEEP} kinks follow each other.")


def _levels(atoms: Atoms, mixing: csr_array) -> tuple[Index, ...]:
    """Atoms in layers, each of which depends on earlier ones only."""
    needs = np.zeros((atoms.count, atoms.count), dtype=bool)
    row, column = mixing[atoms.form].nonzero()
    needs[atoms.owner[row], column] = True
    left = np.ones(atoms.count, dtype=bool)
    found = []
    while bool(left.any()):
        ready = left & ~(needs & left[None, :]).any(1)
        if not bool(ready.any()):
            raise BudgetError("The kinks depend on each other in a circle.")
        found.append(np.flatnonzero(ready))
        left &= ~ready
    return tuple(found)
