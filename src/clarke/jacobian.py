"""`clarke.jacobian`: limiting Jacobians of functions with several outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import nnls

from clarke.check import check
from clarke.constraints import flatten
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.elements import distinct
from clarke.decide.matrices import derivative_of, matrix_under, mixes_to, outputs_under
from clarke.decide.mixed import joint_choices
from clarke.decide.witnessed import Witnessed
from clarke.errors import BudgetError, ClarkeError, InputError, UnsupportedError
from clarke.grad import grad
from clarke.numerics import (
    CHECK_SECONDS,
    JACOBIAN_APART,
    JACOBIAN_LIKE,
    JACOBIAN_LISTED,
    SET_SECONDS,
)
from clarke.prepare import prepared
from clarke.subdifferential import subdifferential
from clarke.undo import leaves_no_trace
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.decide.certificate import Certificate
    from clarke.report import Report

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Jacobian:
    """A limit of Jacobians at nearby points: all rows belong to one selection of pieces.

    Attributes:
        certificate: The proof: a direction along which this selection is active at every kink. It
            speaks of a weighted sum of the outputs, with weights for which none of them cancels.
        shapes: Of the variables.
        dtype: Of the outputs.
    """

    certificate: Certificate
    shapes: tuple[torch.Size, ...]
    dtype: torch.dtype

    def __repr__(self) -> str:
        """What a prompt shows; the matrix is computed when it is asked for."""
        shapes = ", ".join(str(tuple(s)) for s in self.shapes)
        return f"Jacobian(variables of shape {shapes}; see .matrix, .blocks(), .pull() and .push())"

    @cached_property
    def matrix(self) -> torch.Tensor:
        """(m, n) one row for each number that the function returns, the variables flattened."""
        return torch.from_numpy(matrix_under(self.certificate.replay, self._choices)).to(self.dtype)

    def blocks(self) -> tuple[torch.Tensor, ...]:
        """The matrix by variable: (m, ...) with the variable's shape behind."""
        parts = self.matrix.split([s.numel() for s in self.shapes], dim=1)
        return tuple(p.reshape(-1, *s) for p, s in zip(parts, self.shapes, strict=True))

    def pull(self, weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The transposed Jacobian times (m,) weights, one tensor per variable: one replay."""
        y, leaves = outputs_under(self.certificate.replay, self._choices)
        found = derivative_of(y @ weights.reshape(-1).to(y), leaves)
        return tuple(g.to(self.dtype) for g in found)

    def push(self, *vectors: torch.Tensor) -> torch.Tensor:
        """(m,) the Jacobian times a vector, one tensor per variable: two backward passes."""
        y, leaves = outputs_under(self.certificate.replay, self._choices)
        weights = torch.zeros_like(y, requires_grad=True)
        pulled = derivative_of(y @ weights, leaves, create_graph=True)
        along = sum((g * v.to(g)).sum() for g, v in zip(pulled, vectors, strict=True))
        (found,) = derivative_of(torch.as_tensor(along), [weights])
        return found.to(self.dtype)

    @property
    def _choices(self) -> Mapping[int, torch.Tensor]:
        return self.certificate.witnesses[0].choices

    def verify(self, *, run: bool = True, seconds: float | None = None) -> bool:
        """Recompute the proof from the program, and the matrix from the proof.

        Args:
            run: Run the function beside the point along the direction, too.
            seconds: Time limit; None for no limit.
        """
        if not self.certificate.verify(run=run, seconds=seconds):
            return False
        again = matrix_under(self.certificate.replay, self._choices)
        own = self.matrix.double().numpy()
        if own.shape != again.shape:
            return False
        same = np.allclose(own, again, rtol=JACOBIAN_LIKE, atol=JACOBIAN_LIKE)
        return same and _adds_up(self.certificate, again)


@dataclass(frozen=True, eq=False)
class JacobianReport:
    """The verdict on a given Jacobian.

    Attributes:
        verdict: `SMOOTH`, `BOULIGAND` or `CLARKE` where it is in the Clarke subdifferential of
            the vector function, `NOT_CLARKE` where it is not; else `UNDECIDED`.
        reason: In words.
        element: A valid one: the given one where that is right; None where none was proved.
        parts: Limiting Jacobians of which it is a mixture.
        weights: Their convex weights.
        report: The verdict on a weighted sum of its rows, on which this rests.
    """

    verdict: Verdict
    reason: str
    element: torch.Tensor | None
    parts: tuple[torch.Tensor, ...]
    weights: tuple[float, ...]
    report: Report


class _Weighted:
    """The function as a scalar: the sum of its outputs with weights, which are a variable, too."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[torch.Tensor] | torch.Tensor,
        wrt: Sequence[torch.Tensor] | None,
    ) -> None:
        self._function = function
        self._inputs = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
        with prepared(lambda *x: self._flat(x).sum(), self._inputs, wrt) as run:
            self.variables = run.leaves
        self.outputs = self._flat(self._inputs).detach()
        if not bool(torch.isfinite(self.outputs).all()):
            raise InputError("The function's value is not finite here, so it has no Jacobian.")
        generator = torch.Generator().manual_seed(0)
        weights = torch.rand(self.outputs.shape, generator=generator, dtype=torch.float64) + 0.5
        self.weights = weights.to(self.outputs).requires_grad_()

    def _flat(self, inputs: Sequence[Any]) -> torch.Tensor:
        with torch.enable_grad():
            found = self._function(*inputs)
        parts = list(found) if isinstance(found, (tuple, list)) else [found]
        if not all(isinstance(p, torch.Tensor) for p in parts) or not parts:
            raise InputError("The function has to return a tensor, or several in a tuple or list.")
        return torch.cat([p.reshape(-1) for p in parts])

    def __call__(self, *arguments: Any) -> torch.Tensor:
        found: torch.Tensor = self._flat(arguments[:-1]) * arguments[-1]
        return found.sum()

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (*self._inputs, self.weights)

    @property
    def wrt(self) -> tuple[torch.Tensor, ...]:
        return (*self.variables, self.weights)

    def judge(self, gradient: Sequence[torch.Tensor], seconds: float | None) -> Report:
        """`check` of a weighted sum of rows."""
        given = [g.to(x.dtype) for g, x in zip(gradient, self.variables, strict=True)]
        return check(
            self,
            self.arguments,
            wrt=self.wrt,
            gradient=[*given, self.outputs],
            seconds=seconds,
        )


@leaves_no_trace
def jacobian(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor,
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    generator: torch.Generator | None = None,
    seconds: float | None = CHECK_SECONDS,
) -> Jacobian:
    """An element of the B-subdifferential of a function with several outputs, with its proof.

    It is a limit of Jacobians at nearby points where the function is differentiable. Rows that are
    gradients each need not be one: autograd settles the kinks of each row by itself, or by
    conventions that no point nearby agrees with, and Newton's method on such a matrix may circle or
    stop. Here every kink is settled once, along one direction, for all rows.

    Args:
        function: Returns a tensor of any shape, or several.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; default as in `clarke.check`.
        generator: Source of the direction; by default seeded, so that calls repeat.
        seconds: Time limit of each of the two halves, finding and proving; None for no limit.

    Returns:
        A `Jacobian`; its `matrix` has a row for each output and a column for each entry of the
        variables, `pull` and `push` give products without it, `verify` recomputes it.

    Raises:
        InputError: The call cannot be answered.
        UnsupportedError: No Jacobian can be vouched for here, as for `clarke.grad`.
        OutOfTimeError: No answer in time.
    """
    with Deadline.after(seconds):
        scalar = _Weighted(function, inputs, wrt)
    found = grad(scalar, scalar.arguments, wrt=scalar.wrt, generator=generator, seconds=seconds)
    report = scalar.judge(found[:-1], seconds)
    proof = _of_one_selection(report.certificate)
    if proof is None or not _adds_up(proof, matrix_under(proof.replay, proof.witnesses[0].choices)):
        raise UnsupportedError(
            f"No Jacobian can be vouched for: {report.verdict.name}. {report.reason}"
        )
    return Jacobian(proof, tuple(x.shape for x in scalar.variables), scalar.outputs.dtype)


@leaves_no_trace
def check_jacobian(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor,
    jacobian: torch.Tensor,
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    seconds: float | None = CHECK_SECONDS,
) -> JacobianReport:
    """Judge whether a matrix is in the Clarke subdifferential of a function with several outputs.

    That is the hull of limits of Jacobians nearby. A weighted sum of the rows has to be a Clarke
    gradient of that sum of the outputs (Clarke's chain rule): where `clarke.check` refutes it, the
    matrix is refuted. Where it is proved by selections of pieces whose whole matrices mix to the
    given one, the matrix is proved. Else all selections are listed, if they are few.

    Args:
        function: Returns a tensor of any shape, or several.
        inputs: Its arguments.
        jacobian: (m, n) a row for each output, the variables flattened.
        wrt: Leaves to differentiate with respect to; default as in `clarke.check`.
        seconds: Time limit of each part.

    Raises:
        InputError: The call cannot be answered, or the matrix has another shape or is not finite.
    """
    scalar = _Weighted(function, inputs, wrt)
    shape = (len(scalar.outputs), sum(x.numel() for x in scalar.variables))
    if tuple(jacobian.shape) != shape or not bool(torch.isfinite(jacobian).all()):
        raise InputError(
            f"The Jacobian has to be finite, and of shape {shape}: a row for each output, a column "
            f"for each entry of the variables. This one is of shape {tuple(jacobian.shape)}."
        )
    given = jacobian.detach()
    row = given.double().T @ scalar.weights.detach().double()
    parts = row.split([x.numel() for x in scalar.variables])
    report = scalar.judge(
        [p.reshape(x.shape) for p, x in zip(parts, scalar.variables, strict=True)], seconds
    )
    blank = JacobianReport(Verdict.UNDECIDED, report.reason, None, (), (), report)
    if report.verdict is Verdict.NOT_CLARKE:
        return replace(
            blank,
            verdict=Verdict.NOT_CLARKE,
            reason="A weighted sum of its rows is no Clarke gradient of that sum of the outputs.",
            element=_some_element(function, inputs, wrt, seconds),
        )
    proof = report.certificate
    if report.correct and proof is not None and isinstance(proof.argument, Witnessed):
        found = [matrix_under(proof.replay, w.choices) for w in proof.witnesses]
        if mixes_to(found, proof.weights, given):
            return replace(
                blank,
                verdict=report.verdict,
                element=given,
                parts=tuple(torch.from_numpy(f) for f in found),
                weights=proof.weights,
            )
    return _listed(scalar, given, blank, seconds)


@leaves_no_trace
def jacobians(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor,
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    seconds: float | None = SET_SECONDS,
) -> torch.Tensor:
    """All limits of Jacobians at nearby points: the B-subdifferential of a small map.

    Its hull is Clarke's generalized Jacobian. Arguments and errors are those of `jacobian`.

    Returns:
        (k, m, n) one matrix for each limit.

    Raises:
        BudgetError: There are more than 2000 selections of pieces.
        UnsupportedError: They are known only from below.
    """
    found, complete = _all_matrices(_Weighted(function, inputs, wrt), seconds)
    if not complete:
        raise UnsupportedError("Some selections could be neither proved nor excluded.")
    flat = np.stack(found).reshape(len(found), -1)
    room = JACOBIAN_LIKE * np.abs(flat).max(axis=0, initial=0.0)
    return torch.from_numpy(np.stack(found)[distinct(flat, room, UNLIMITED)])


def _all_matrices(scalar: _Weighted, seconds: float | None) -> tuple[list[Array], bool]:
    """The Jacobians of all selections that are proved, and whether these are all there are."""
    whole = subdifferential(scalar, scalar.arguments, wrt=scalar.wrt, seconds=seconds)
    limits = whole.limits.certain()
    if limits is None or limits.count > JACOBIAN_LISTED:
        raise BudgetError("There are too many selections of pieces to list their Jacobians.")
    found = [matrix_under(whole.program, joint_choices(own)) for _, own in limits.combinations()]
    return found, whole.complete


def _listed(
    scalar: _Weighted, given: torch.Tensor, blank: JacobianReport, seconds: float | None
) -> JacobianReport:
    """The verdict by all limiting Jacobians, if they are few and all known."""
    try:
        matrices, complete = _all_matrices(scalar, seconds)
    except ClarkeError as error:
        return replace(blank, reason=str(error))
    flat = np.stack([m.reshape(-1) for m in matrices])
    target = given.double().numpy().reshape(-1)
    scale = np.maximum(np.abs(flat).max(0), np.abs(target)).clip(min=1)
    system = np.vstack([(flat / scale).T, np.ones(len(flat))])
    weights, _ = nnls(system, np.append(target / scale, 1.0))
    weights = weights / weights.sum() if weights.sum() else weights
    used = np.flatnonzero(weights)
    shares, parts = tuple(weights[used].tolist()), [matrices[i] for i in used]
    mixed = tuple(torch.from_numpy(p) for p in parts)
    if used.size and mixes_to(parts, shares, given):
        kind = Verdict.BOULIGAND if len(parts) == 1 else Verdict.CLARKE
        return replace(blank, verdict=kind, reason="", element=given, parts=mixed, weights=shares)
    if not complete:
        return replace(blank, reason="Some selections could be neither proved nor excluded.")
    if np.abs(system @ weights - np.append(target / scale, 1.0)).max() < JACOBIAN_APART:
        return replace(blank, reason="It differs from the nearest mixture by little.")
    return replace(
        blank,
        verdict=Verdict.NOT_CLARKE,
        reason="Its rows are Clarke gradients, but no mixture of Jacobians nearby has them all.",
        element=torch.from_numpy(matrices[0]).to(given.dtype),
    )


def _some_element(
    function: Callable[..., Any], inputs: Any, wrt: Any, seconds: float | None
) -> torch.Tensor | None:
    try:
        return jacobian(function, inputs, wrt=wrt, seconds=seconds).matrix
    except ClarkeError:
        return None


def _of_one_selection(proof: Certificate | None) -> Certificate | None:
    """A proof for the first of its witnesses alone; a smooth point has two, opposite rays."""
    if proof is None or not isinstance(proof.argument, Witnessed):
        return None
    witness = proof.witnesses[0]
    if len(proof.witnesses) == 1 or not any(w.choices for w in proof.witnesses):
        return proof
    alone = replace(proof.argument, witnesses=(witness,), weights=(1.0,))
    return replace(proof, argument=alone, gradient=witness.gradient).sealed()


def _adds_up(proof: Certificate, matrix: Array) -> bool:
    """Whether the rows, weighted as in the proof, give the gradient that it proves."""
    if not isinstance(proof.argument, Witnessed):
        return False
    *gradient, _ = proof.gradient
    weights = proof.replay.point[-1].double().numpy()
    bounds = flatten(proof.argument.bounds[:-1])
    wanted = flatten(gradient)
    size = np.abs(weights) @ np.abs(matrix) + np.abs(wanted)
    return bool((np.abs(weights @ matrix - wanted) <= bounds + JACOBIAN_LIKE * size).all())
