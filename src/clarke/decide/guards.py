"""Guards: comparisons that put another value in the place of one point, or of a small part.

``where(x == 0, 1, sin(s) / s)`` with ``s = where(x == 0, 1, x)`` has at 0 the value 1, and nowhere
else the branch that it takes there. No selection of pieces at the point tells what the function is
beside it, since the branch that holds there is not defined at the point. But the function beside it
is what matters: gradients along rays tend to a limit, and where all rays agree and values come
back to the point's own, that limit is the only one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import find_relevant, flatten, unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.beside import Beside
from clarke.decide.certificate import Argument, Certificate, exactly
from clarke.decide.model import Decision, Witness, ray_witness
from clarke.decide.recomputed import Defect
from clarke.decide.settle import settled, steepness
from clarke.decide.surroundings import agrees, only_guards, surroundings
from clarke.decide.verification import fresh_generator, own_gradient
from clarke.numerics import BESIDE_AGREES, BESIDE_APART, LIMIT_ERRORS
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.constraints import Relevance
    from clarke.deadline import Deadline
    from clarke.decide.surroundings import Surroundings
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class OneLimit(Argument):
    """Gradients along rays on all sides tend to one limit: what AD returned, or something else.

    The proof is by samples: `verify` computes every limit again, and those on other rays.

    Attributes:
        limit: (n,) where gradients tend to on every ray.
        error: (n,) what rounding leaves open of it.
        equal: Whether the proof is that they are the same; else that they are apart.
        witnesses: The rays.
        weights: Equal weights of the witnesses.
    """

    limit: Array
    error: Array
    equal: bool
    witnesses: tuple[Witness, ...]
    weights: tuple[float, ...]

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Look at the surroundings anew, on other rays, and at the limits along those named."""
        generator = fresh_generator()
        own = own_gradient(program)
        shapes = [p.shape for p in program.point]
        each = [p for w in self.witnesses for p in (w.direction, w.gradient)]
        if any([t.shape for t in parts] != shapes for parts in each):
            raise Defect("a gradient or a ray has another shape than the variables")
        relevance = find_relevant(program, generator)
        found = surroundings(program, own, relevance, generator, program.deadline)
        if isinstance(found, str):
            raise Defect(found)
        if not found.alike or not (self.equal or found.whole):
            raise Defect("not all gradients beside the point tend to one limit")
        limit = np.mean([r.gradient for r in found.limits], axis=0)
        if self.limit.shape != limit.shape or self.error.shape != limit.shape:
            raise Defect("the limit has another shape than the variables")
        if not agrees(self.limit, limit, found.error):
            raise Defect("the limit is another one")
        if not bool((self.error <= LIMIT_ERRORS * found.error.max(initial=0.0)).all()):
            raise Defect("more counts as rounding than the limits leave open")
        wrong = replace(self, error=found.error).own_defects(vector)
        if wrong:
            raise Defect(wrong[0])
        if self.weights != tuple(1 / len(self.witnesses) for _ in self.witnesses):
            raise Defect("the rays do not count alike")
        for i, w in enumerate(self.witnesses if run else ()):
            beside = Beside(program, torch.Generator().manual_seed(0))
            samples = beside.along(w.direction)
            along = settled(samples, w.direction)
            if along is None or not agrees(along.gradient, limit, found.error):
                raise Defect(f"gradients along witness {i} do not tend to the limit")
            if steepness(beside.here, samples) is not None:
                raise Defect(f"values along witness {i} do not come back to the point's own")

    def own_defects(self, vector: Tensors) -> tuple[str, ...]:
        """What the judge asks of its own proof: that the gradient is to the limit as it says."""
        if self.equal != agrees(flatten(vector), self.limit, self.error):
            return ("the gradient is not to the limit as the proof says",)
        if not self.equal and not apart(flatten(vector), self.limit, self.error):
            return ("the gradient is too near to the limit to be told from it",)
        if not self.witnesses:
            return ("there are no rays",)
        for i, w in enumerate(self.witnesses):
            plain = not (len(w.rows) or len(w.kinks) or w.choices)
            if not plain or not agrees(flatten(w.gradient), self.limit, self.error):
                return (f"witness {i} has another limit",)
        return ()


def apart(one: Array, two: Array, error: Array) -> bool:
    """Whether two gradients differ by far more than the error of limits."""
    size = np.maximum(np.abs(one), np.abs(two))
    return bool((np.abs(one - two) > BESIDE_APART * np.maximum(size, error / BESIDE_AGREES)).any())


def lipschitz_around_guards(program: Program, relevance: Relevance) -> bool:
    """Whether guards alone jump, and not the function around them, as far as samples tell."""
    if not only_guards(program, relevance):
        return False
    own = own_gradient(program)
    found = surroundings(program, own, relevance, fresh_generator(), program.deadline)
    return not isinstance(found, str)


def judge_guard(
    program: Program,
    gradient: Tensors,
    relevance: Relevance,
    generator: torch.Generator,
    otherwise: Decision,
    deadline: Deadline = UNLIMITED,
) -> Decision | None:
    """A verdict where gradients around a guard tell it; None where limits of rays differ.

    Args:
        program: The program.
        gradient: What AD returned.
        relevance: Its relevant kinks.
        generator: Private randomness.
        otherwise: The undecided verdict, which names the guard.
        deadline: When to stop looking.
    """
    found = surroundings(program, gradient, relevance, generator, deadline)
    name = otherwise.culprits[0]
    if isinstance(found, str):
        return replace(otherwise, reason=f"{name}. {found}")
    if not found.alike:
        return None
    equal = agrees(flatten(gradient), found.limits[0].gradient, found.error)
    proof = _proof(found, program, equal=equal)
    # The limits have just been computed along all rays: they need no second run.
    if not (equal or found.whole) or proof.own_defects(gradient):
        return otherwise
    place = f"{name.operation} at {name.location}"
    if equal:
        verdict = Verdict.SMOOTH if found.whole else Verdict.BOULIGAND
        reason = f"Around {place} gradients tend to one limit on every ray, and AD's is that one."
    else:
        verdict = Verdict.NOT_CLARKE
        gap = float(np.linalg.norm(flatten(gradient) - proof.limit))
        reason = (
            f"{verdict.value} Gradients at nearby points all tend to one that lies {gap:.3g} "
            f"away: {place} takes at the point a branch that holds nowhere around it."
        )
    return Decision(
        verdict,
        reason,
        Certificate(program, exactly(gradient), proof).sealed(),
        "limits around a guard",
        culprits=() if equal else otherwise.culprits,
        analysis=program.analysis,
        relevance=relevance,
        element=None if equal else unflatten(proof.limit, program.point),
    )


def _proof(found: Surroundings, program: Program, *, equal: bool) -> OneLimit:
    """That a gradient is the limit of all, or is not."""
    rays = tuple(
        ray_witness(r.direction, unflatten(r.gradient, program.point)) for r in found.limits
    )
    share = tuple(1 / len(rays) for _ in rays)
    mean = np.mean([r.gradient for r in found.limits], axis=0)
    return OneLimit(mean, found.error, equal, rays, share)
