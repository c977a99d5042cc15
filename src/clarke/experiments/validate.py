"""How often sufficient conditions say yes where the exact answer is known, and that none errs."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch

from clarke import BudgetError, InputError, UnsupportedError, check, subdifferential
from clarke.decide import Settings
from clarke.decide.limits import Limits
from clarke.experiments.random_networks import Network, NetworkClass, Variables, draw_network
from clarke.experiments.theorem8 import theorem_8_holds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from clarke import Subdifferential


_BUDGET = Limits(nodes=3_000, cells=600, kinks=64)
_BESIDE = 2.0**-30
_SAMPLES = 12
_CLOSE = 1e-6

EXACT = "exact enumeration"


class Answer(Enum):
    """What one method says of one gradient."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"
    OUTSIDE = "does not apply"

    @staticmethod
    def of(correct: bool | None) -> Answer:  # noqa: FBT001 - the three values of a verdict
        """The answer that a verdict's `correct` stands for."""
        return {True: Answer.YES, False: Answer.NO, None: Answer.UNDECIDED}[correct]


class Method(Enum):
    """The methods compared; each value is a column's title."""

    THEOREM_8 = "Theorem 8"
    WITNESS = "witness"
    EXACT = "exact set"
    CHECK = "clarke.check"


class Contradiction(Enum):
    """What must never happen."""

    THEOREM_8 = "Theorem 8 holds, and the gradient is not in the Bouligand subdifferential"
    WITNESS = "a witness is found, and the gradient is not in the Clarke subdifferential"
    CHECK = "the verdict of clarke.check differs from the exact set"
    PROOF = "a certificate does not verify"
    SAMPLE = "a gradient at a nearby point is not in the exact set"


@dataclass(frozen=True)
class Case:
    """One network, one choice of variables.

    Attributes:
        kind: The network's class.
        variables: What was differentiated.
        touched: Kinks touched.
        answers: What every method says.
        elements: Size of the Bouligand subdifferential, where it is completely known.
        contradictions: What should not have happened.
    """

    kind: NetworkClass
    variables: Variables
    touched: int
    answers: dict[Method, Answer]
    elements: int | None
    contradictions: tuple[Contradiction, ...]


def judge(network: Network, which: Variables) -> Case | None:
    """Ask every method; None if the loss does not depend on the variables."""
    leaves = network.variables(which)
    try:
        full = check(network.loss, wrt=leaves, settings=Settings(exact=_BUDGET), seconds=None)
    except InputError:
        return None
    # The exact enumeration is the last rung of the ladder: without it there is no answer.
    witnessed = None if full.theorem == EXACT else full.correct
    # Theorem 8 asks for own parameters in every layer, and differentiates all of them.
    applies = which is Variables.PARAMETERS and network.kind is not NetworkClass.TIED
    holds = applies and theorem_8_holds(network)
    flat = torch.cat([g.reshape(-1) for g in full.gradient])
    wrong: list[Contradiction] = []
    if full.correct is not None and not (full.certificate and full.certificate.verify()):
        wrong.append(Contradiction.PROOF)
    inside, elements = None, None
    try:
        found = subdifferential(network.loss, wrt=leaves, limits=_BUDGET, seconds=None)
    except (BudgetError, UnsupportedError):
        found = None
    if found is not None:
        membership = found.contains(list(full.gradient))
        inside = membership.inside
        if inside is not None and not membership.verify():
            wrong.append(Contradiction.PROOF)
        points = _listed(found)
        if points is not None:
            elements = len(points)
            if holds and not _is_among(flat, points):
                wrong.append(Contradiction.THEOREM_8)
            if not all(_is_among(g, points) for g in _beside(network, leaves)):
                wrong.append(Contradiction.SAMPLE)
    if holds and False in (inside, full.correct):
        wrong.append(Contradiction.THEOREM_8)
    if witnessed and False in (inside, full.correct):
        wrong.append(Contradiction.WITNESS)
    if None not in (inside, full.correct) and inside is not full.correct:
        wrong.append(Contradiction.CHECK)
    theorem = (Answer.YES if holds else Answer.NO) if applies else Answer.OUTSIDE
    answers = {
        Method.THEOREM_8: theorem,
        Method.WITNESS: Answer.of(witnessed),
        Method.EXACT: Answer.of(inside),
        Method.CHECK: Answer.of(full.correct),
    }
    return Case(network.kind, which, full.touched, answers, elements, tuple(dict.fromkeys(wrong)))


def _listed(found: Subdifferential) -> torch.Tensor | None:
    """All limiting gradients; None where they are too many, or some could not be proved."""
    if not found.complete:
        return None
    try:
        return None if found.limits.count > _BUDGET.cells else found.bouligand()
    except (BudgetError, UnsupportedError):  # known without a list, or as a sum of thin pieces
        return None


def _is_among(vector: torch.Tensor, points: torch.Tensor) -> bool:
    scale = max(float(points.abs().max()), float(vector.abs().max()), 1.0)
    return bool(((points - vector).abs().max(dim=1).values <= _CLOSE * scale).any())


def _beside(network: Network, leaves: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """AD's gradients at random points close by: each is close to a limiting gradient."""
    generator = torch.Generator().manual_seed(1)
    kept = [x.detach().clone() for x in leaves]
    for _ in range(_SAMPLES):
        with torch.no_grad():
            for x, k in zip(leaves, kept, strict=True):
                d = torch.randn(k.shape, dtype=k.dtype, generator=generator)
                x.copy_(k + _BESIDE * d)
        grads = torch.autograd.grad(network.loss(), leaves, materialize_grads=True)
        yield torch.cat([g.reshape(-1) for g in grads])
    with torch.no_grad():
        for x, k in zip(leaves, kept, strict=True):
            x.copy_(k)


def validate(networks: int, seed: int, jobs: int = 1) -> Iterator[tuple[Case, ...]]:
    """Judge random networks of every class, each with all three choices of variables.

    Args:
        networks: How many networks of each class.
        seed: Decides all of them.
        jobs: How many processes share the work; the answers do not depend on it.

    Yields:
        The cases of one network after the other.
    """
    work = [
        (kind, (seed * 64 + number) * 1_000_003 + i)
        for i in range(networks)
        for number, kind in enumerate(NetworkClass)
    ]
    if jobs == 1:
        yield from map(_judge_network, work)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_one_thread) as pool:
        yield from pool.map(_judge_network, work, chunksize=4)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _judge_network(work: tuple[NetworkClass, int]) -> tuple[Case, ...]:
    network = draw_network(*work)
    cases = [judge(network, which) for which in Variables]
    return tuple(c for c in cases if c is not None)


@dataclass(frozen=True)
class Line:
    """One line of the table: cases counted, those with several limiting gradients, answers."""

    title: str
    cases: int
    several: int
    counts: dict[tuple[Method, Answer], int]


def summarize(cases: Iterable[Case], title: str) -> Line:
    """Count."""
    cases = tuple(cases)
    counts = Counter((m, c.answers[m]) for c in cases for m in Method)
    several = sum(c.elements is not None and c.elements > 1 for c in cases)
    return Line(title, len(cases), several, dict(counts))


def contradictions(cases: Iterable[Case]) -> dict[Contradiction, int]:
    """How often each contradiction was met."""
    met = Counter(x for c in cases for x in c.contradictions)
    return {x: met[x] for x in Contradiction}


__all__ = [
    "Answer",
    "Case",
    "Contradiction",
    "Line",
    "Method",
    "contradictions",
    "judge",
    "summarize",
    "validate",
]
