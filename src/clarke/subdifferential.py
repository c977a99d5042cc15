"""`clarke.subdifferential`: the set itself, for small problems."""

from __future__ import annotations

import html
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.absnormal import AbsNormalForm, abs_normal_form
from clarke.decide.answers import Answer, proof_of, slope_along
from clarke.decide.certificate import Certificate
from clarke.decide.curvature import local_minimum
from clarke.decide.descent import Frechet, Stationarity, frechet, stationarity
from clarke.decide.exact import rounding_of_set
from clarke.decide.limits import set_limits
from clarke.decide.membership import Membership, allowed_for, shaped_like
from clarke.decide.minimum import LocalMinimum
from clarke.decide.settext import set_text
from clarke.decide.source import (
    Source,
    granted_more,
    is_hull_known,
    listed_elements,
    listed_vertices,
    placed,
    rank_of,
    smallest_element,
)
from clarke.errors import InputError, UnsupportedError
from clarke.numerics import SET_SECONDS
from clarke.prepare import described, prepared
from clarke.steering import Program
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.decide.dependent import Rank
    from clarke.decide.limits import Limits
    from clarke.decide.limitset import LimitSet

    Array = NDArray[np.float64]
    Vector = Sequence[torch.Tensor] | torch.Tensor


@leaves_no_trace
def subdifferential(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    limits: Limits | None = None,
    exact: bool = False,
    seed: int = 0,
    seconds: float | None = SET_SECONDS,
) -> Subdifferential:
    """The Clarke subdifferential of ``function(*inputs)``.

    Where all pieces bend one way (``|A x|_1``, a maximum of affine functions), nothing is listed
    until somebody asks for a list: membership, smallest element and directional derivatives are
    answered for thousands of kinks.

    Args:
        function: Returns a tensor with one element.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; default as in `clarke.check`.
        limits: Budget of the enumeration; by default only time and memory bound it.
        exact: Take the gradients of switching functions as the floats that they are. By default
            those that depend on others but for rounding (a product of two matrices of low rank) do
            so exactly; `Subdifferential.rank` says within what.
        seed: Seed of the private random generator.
        seconds: Time limit of clarke's own work, without the first run of the function; None for
            no limit.

    Raises:
        InputError: The call cannot be answered.
        UnsupportedError: Selections of pieces do not describe the program here.
        BudgetError: Too many selections for memory or for `limits`; says how many.
        OutOfTimeError: No answer in time (a `BudgetError`); says how far it got.
    """
    with prepared(function, inputs, wrt, seconds) as run:
        program = described(run)
        budget = set_limits() if limits is None else limits
        source = Source(program, replace(budget, rounding=not exact), seed)
        _ = source.either
    return Subdifferential(source, run.gradient)


class Subdifferential:
    """A Clarke subdifferential; see `subdifferential`.

    Vectors go in and come out as one tensor per variable; a single tensor stands for itself.
    What may take long takes `seconds`, its time limit (None: no limit), and raises
    `OutOfTimeError` (a `BudgetError`) when it ends.
    """

    def __init__(self, source: Source, gradient: tuple[torch.Tensor, ...]) -> None:
        self._source = source
        self._program = source.program.within(UNLIMITED)
        self._gradient = gradient

    def __repr__(self) -> str:
        known = self._source.known
        found = "not listed" if known is None else f"combinations of pieces={known.count}"
        return f"Subdifferential({found}, complete={self.complete}, AD={self._gradient})"

    def __str__(self) -> str:
        return set_text(self, self._source.known)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    @property
    def gradient(self) -> tuple[torch.Tensor, ...]:
        """What AD returned."""
        return self._gradient

    @property
    def program(self) -> Program:
        """What ran."""
        return self._program

    @property
    def limits(self) -> LimitSet:
        """The limiting gradients as sums of independent groups; listed now if they were not."""
        with Deadline.after(SET_SECONDS) as deadline:
            return self._source.listed(deadline)

    @property
    def complete(self) -> bool:
        """The set is exactly known: every selection was either proved active or excluded.

        Where all pieces bend one way and nothing was listed yet, this speaks of the hull.
        """
        return self._is_listed_whole

    @property
    def _is_listed_whole(self) -> bool:
        known = self._source.known
        return known is None or all(c.complete for c in known.components)

    @property
    def rank(self) -> Rank | None:
        """How many of the switching functions' gradients are independent, and within what.

        None where kinks depend on each other, or have more than two pieces.
        """
        return rank_of(self.limits)

    @leaves_no_trace
    def count(self, *, seconds: float | None = SET_SECONDS) -> int:
        """How many combinations of pieces occur beside the point, without listing them.

        Each gives a limiting gradient; some may be equal.
        """
        with Deadline.after(seconds) as deadline:
            return self._source.count(deadline)

    @leaves_no_trace
    def stream(
        self, block: int = 4096, *, seconds: float | None = SET_SECONDS
    ) -> Iterator[torch.Tensor]:
        """The limiting gradients in blocks of (k, n), one row for every combination of pieces.

        Rows may be equal. The first block comes when all combinations are known, as bits.

        Args:
            block: Rows at a time.
            seconds: Time limit of finding the combinations.

        Raises:
            UnsupportedError: The set is not completely known; see `found`.
        """
        with Deadline.after(seconds) as deadline:
            limits = self._source.listed(deadline)
        self._require_complete()
        return (torch.from_numpy(points) for points in limits.blocks(block))

    @leaves_no_trace
    def bouligand(self, *, seconds: float | None = SET_SECONDS) -> torch.Tensor:
        """(k, n) the elements of the Bouligand subdifferential, variables flattened in order.

        Raises:
            BudgetError: More than a million combinations; `stream` gives them one after the other,
                `contains` and `min_norm` need no list.
            UnsupportedError: The set is not completely known; see `found`.
        """
        found = self.found(seconds=seconds)
        self._require_complete()
        return found

    @leaves_no_trace
    def found(self, *, seconds: float | None = SET_SECONDS) -> torch.Tensor:
        """(k, n) the limiting gradients that directions prove: all of them where `complete`.

        Raises:
            BudgetError: As `bouligand`.
        """
        with Deadline.after(seconds) as deadline:
            return torch.from_numpy(listed_elements(self._source, self._rounding, deadline))

    @leaves_no_trace
    def vertices(self, *, seconds: float | None = SET_SECONDS) -> torch.Tensor:
        """(k, n) the vertices of the Clarke subdifferential, variables flattened in order.

        Raises:
            BudgetError: As `bouligand`.
            UnsupportedError: As `bouligand`.
        """
        with Deadline.after(seconds) as deadline:
            found = listed_vertices(self._source, self._rounding, deadline)
            self._require_hull(deadline)
        return torch.from_numpy(found)

    @leaves_no_trace
    def contains(
        self,
        vector: Vector,
        *,
        tolerance: float | None = None,
        seconds: float | None = SET_SECONDS,
    ) -> Membership:
        """Whether a vector is in the set, with a certificate either way.

        Args:
            vector: One tensor per variable, or a single tensor.
            tolerance: Error of an entry that counts as rounding, relative to the larger of that
                entry and its largest value in the set. By default 16 roundings of the vector's
                type, and as much as rounding may leave of what the set is computed from.
            seconds: Time limit.
        """
        target = self._flat(vector)
        parts = shaped_like(self._program.point, vector)
        allowed = allowed_for(self._source.either, parts, tolerance)
        with Deadline.after(seconds) as deadline:
            found = placed(self._source, target, allowed, deadline)
            if not found.inside and tolerance is None:
                # What cancels in the set's computation is looked for where it could matter.
                found = granted_more(self._source, found, target, self._rounding, deadline)
            argument = replace(found, asked=tolerance)
            return Membership(Certificate(self._program, parts, argument).sealed())

    @leaves_no_trace
    def min_norm(self, *, seconds: float | None = SET_SECONDS) -> tuple[torch.Tensor, ...]:
        """The element of smallest Euclidean norm, one tensor per variable.

        Raises:
            UnsupportedError: The set is not completely known.
        """
        with Deadline.after(seconds) as deadline:
            self._require_hull(deadline)
            return smallest_element(self._source, deadline)

    @leaves_no_trace
    def directional(self, direction: Vector, *, seconds: float | None = SET_SECONDS) -> float:
        """The directional derivative ``lim (f(w + t d) - f(w)) / t``, t falling to zero."""
        with Deadline.after(seconds) as deadline:
            return self._slope_along(self._flat(direction), deadline)

    @leaves_no_trace
    def is_stationary(self, *, seconds: float | None = SET_SECONDS) -> Stationarity:
        """Whether zero is in the set; and a direction of first-order descent if there is one.

        Of many cells as many are looked at for a direction as time allows.
        """
        with Deadline.after(seconds) as deadline:
            at = unflatten(np.zeros(self._source.size), self._program.point)
            zero = self.contains(at, seconds=None if seconds is None else deadline.left)
            own = self._source, self._rounding, self._slope_along, deadline
            return replace(stationarity(*own, inside=zero.inside), certificate=zero.certificate)

    @leaves_no_trace
    def certificate(
        self,
        answer: Answer,
        direction: Vector | None = None,
        *,
        seconds: float | None = SET_SECONDS,
    ) -> Certificate:
        """The proof of an answer, to be verified or saved; others come with `contains` and so on.

        Args:
            answer: "min_norm", "vertices", "rank", or "directional".
            direction: Of "directional".
            seconds: Time limit.
        """
        along = None if direction is None else self._flat(direction)
        with Deadline.after(seconds) as deadline:
            if answer in ("min_norm", "vertices"):
                self._require_hull(deadline)
            return proof_of(self._source, answer, along, self._rounding, deadline)

    @leaves_no_trace
    def frechet(self, vector: Vector, *, seconds: float | None = SET_SECONDS) -> Frechet:
        """Whether a vector is a Frechet subgradient: no directional derivative is less than its.

        These are fewer than Clarke's gradients: ``-|x|`` has none at 0. All of them, as all
        elements of `bouligand()`, are in Mordukhovich's subdifferential.
        """
        target = self._flat(vector)
        with Deadline.after(seconds) as deadline:
            allowed = self._rounding
            return frechet(self._source, target, allowed, self._slope_along, deadline)

    @leaves_no_trace
    def is_local_minimum(self, *, seconds: float | None = SET_SECONDS) -> LocalMinimum:
        """Whether the point is a local minimum: by slopes, and by curvature where some are zero.

        If all slopes are positive it is a strict one, and if one is negative it is none. If some
        are zero and none is negative, it is one where the function is piecewise linear; else the
        curvature in every cell decides, along the directions without a slope. `minimum` is None
        where that is zero and higher orders count, and where cells are curved.

        Raises:
            UnsupportedError: The set is not completely known.
        """
        self._require_complete()
        with Deadline.after(seconds) as deadline:
            return local_minimum(self._source, self._rounding, self._slope_along, deadline)

    @leaves_no_trace
    def abs_normal_form(self, *, seconds: float | None = SET_SECONDS) -> AbsNormalForm:
        """The function's first order as ``z = c + Z x + L |z|``, ``y = b + J x + Y |z|``.

        The form that nonsmooth solvers exchange; `x` is the step from the point. It can be called,
        and is then a program again.

        Raises:
            UnsupportedError: A kink has more than two pieces.
        """
        with Deadline.after(seconds) as deadline:
            return abs_normal_form(self._program.within(deadline), self._source.generator())

    def _slope_along(self, direction: Array, deadline: Deadline) -> float:
        return slope_along(self._program.within(deadline), direction)

    @leaves_no_trace
    def plot(self, path: str | None = None, *, seconds: float | None = SET_SECONDS) -> Any:
        """Draw the set in two or three dimensions with AD's gradient (needs the extra `plot`).

        Args:
            path: Where to save the picture; None only returns the figure.
            seconds: Time limit of computing what is drawn.

        Raises:
            InputError: The variables have another number of entries than 2 or 3.
        """
        from clarke.report.picture import draw_set

        size = self._source.size
        if size not in (2, 3):
            raise InputError(f"A picture needs 2 or 3 variables, not {size}. Pass fewer in `wrt`.")
        figure = draw_set(self.vertices(seconds=seconds).numpy(), flatten(self._gradient))
        if path is not None:
            figure.savefig(path)
        return figure

    # ---------------------------------------------------------------- private

    def _flat(self, vector: Vector) -> Array:
        parts = [vector] if isinstance(vector, torch.Tensor) else list(vector)
        if not all(isinstance(p, torch.Tensor) for p in parts):
            raise InputError(
                "A vector is a tensor, or a sequence of tensors, one for each variable: "
                "torch.tensor(v, dtype=torch.float64) makes one of numbers."
            )
        flat = flatten(parts)
        if len(flat) != self._source.size:
            raise InputError(
                f"The vector has {len(flat)} entries; the variables have {self._source.size}."
            )
        return flat

    @cached_property
    def _rounding(self) -> Array:
        """(n,) how far rounding alone may have moved the entries of gradients in the set."""
        return rounding_of_set(self._program, self._source.either)

    def _require_hull(self, deadline: Deadline) -> None:
        known = self._source.known
        if known is None or not is_hull_known(known, self._rounding, deadline):
            self._require_complete()

    def _require_complete(self) -> None:
        if not self._is_listed_whole:
            raise UnsupportedError(
                "Its elements are known only from below: some selections could be neither proved "
                "nor excluded (their switching functions agree to first order). .found() lists "
                "what is proved, and .contains() answers where that decides."
            )
