"""`clarke.hunt`: look for points at which a function's gradient is wrong."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from clarke.deadline import Deadline
from clarke.errors import InputError, OutOfTimeError
from clarke.hunt.corpus import Corpus
from clarke.hunt.glance import Glances
from clarke.hunt.model import Find, Hunt
from clarke.hunt.points import endless, pool, systematic
from clarke.hunt.script import script_of
from clarke.hunt.shrink import rows_dropped, shrunk
from clarke.hunt.solve import followed
from clarke.hunt.subject import Subject, places
from clarke.numerics import (
    HUNT_CHECK_SECONDS,
    HUNT_LARGE,
    HUNT_PATIENCE,
    HUNT_REPEATS,
    HUNT_SECONDS,
    HUNT_SHRINK_CHECKS,
    HUNT_SHRINK_SHARE,
)
from clarke.undo import leaves_no_trace
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clarke.hunt.glance import Glance
    from clarke.hunt.subject import Look, Place, Point
    from clarke.report import Report


@leaves_no_trace
def hunt(
    function: Callable[..., Any],
    example_inputs: Sequence[Any] | torch.Tensor,
    *,
    seconds: float | None = HUNT_SECONDS,
    seed: int = 0,
    wrt: Sequence[torch.Tensor] | None = None,
    corpus: str | Path | None = None,
) -> Hunt:
    """Look for points at which autograd's gradient of ``function(*inputs)`` is wrong.

    Visits points on the function's kinks, which random points never are: special values, the
    program's own constants, equal and opposite entries, copies between inputs, degenerate
    geometry, and solutions of one to three switching equations at once. Where a new combination of
    kinks is touched and the gradient is unlike those nearby, `clarke.check` judges it. Every find
    is made as simple as possible.

    Args:
        function: Returns a tensor with one element, as for `check`.
        example_inputs: Arguments with which it runs. Floating point tensors among them are moved,
            targets included; other arguments stay. Those that require gradients are the
            variables; if none does and the function has no parameters, all are.
        seconds: Time limit of everything. A hunt ends earlier when nothing new is found.
        seed: Seed of the private random generator.
        wrt: Leaves to differentiate with respect to, as for `check`.
        corpus: A folder in which finds are kept, to be tried first next time.

    Returns:
        A `Hunt`, true when it found something. False is no proof that all gradients are right;
        `clarke.explain` gives one, where a theorem applies.

    Raises:
        InputError: The function cannot be judged at the example (no gradient, several outputs),
            or there is no floating point input to move.
    """
    deadline = Deadline.after(seconds)
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs
    subject, first = _subject(function, tuple(inputs), wrt)
    search = _Search(subject, Glances(subject, first.outer), deadline, Corpus(corpus, function))
    search.run(first, random.Random(seed))  # noqa: S311 - no secret
    return search.outcome()


def _subject(
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    wrt: Sequence[torch.Tensor] | None,
) -> tuple[Subject, Look]:
    """The function with its first look; the inputs require gradients where nothing else does."""
    subject = Subject(function, inputs, wrt)
    if not subject.moved:
        raise InputError(
            "There is no floating point tensor among the example inputs that could be moved onto "
            "a kink. Pass what the function is to be tried on as its arguments."
        )
    try:
        return subject, subject.look(subject.example)
    except InputError:
        if wrt is not None or any(a.requires_grad for a in subject.moved):
            raise
    fresh = {id(a): a.detach().clone().requires_grad_() for a in subject.moved}
    subject = Subject(function, [fresh.get(id(a), a) for a in inputs], wrt)
    return subject, subject.look(subject.example)


class _Search:
    """Coverage, and what was found."""

    def __init__(
        self, subject: Subject, glances: Glances, deadline: Deadline, corpus: Corpus
    ) -> None:
        self._subject = subject
        self._glances = glances
        self._deadline = deadline
        self._corpus = corpus
        self._began = time.monotonic()
        self._features: set[Any] = set()
        self._seen: set[Place] = set()
        self._visited: set[Any] = set()  # values of points: on coarse grids they come again
        self._touched: set[Place] = set()
        self._checks: Counter[Any] = Counter()
        self._glimpsed: set[Any] = set()
        self._done: set[Any] = set()  # keys of glances that were judged often enough
        self._late: list[tuple[Point, Any]] = []  # points for which `check` had too little time
        self._archive: list[Point] = []
        self._finds: dict[Any, Find] = {}
        self._nowhere: dict[Any, Find] = {}
        self._nonfinite: dict[Any, Find] = {}
        self._extreme: dict[Any, Find] = {}
        self._points = 0
        self._undecided = 0
        self._doubt = ""
        self._constants: dict[float, None] = {}

    def run(self, first: Look, rng: random.Random) -> None:
        """Visit points until nothing new is found, or time is up."""
        subject, values = self._subject, pool(first.constants)
        self._seen |= first.sites
        self._constants.update(dict.fromkeys(first.constants))
        kept = [p for p in self._corpus.points() if self._fits(p)]
        smallest = subject.examples[0]  # one row of a batch, where the function takes it
        for point in itertools.chain(kept, [subject.example], systematic(smallest, values)):
            if self._is_late():
                return
            self._visit(point)
        self._judge_late()
        values = pool(tuple(self._constants))
        # Without any kink there is nothing to hunt, unless a branch hides it.
        patience = HUNT_PATIENCE if self._seen else HUNT_PATIENCE / 8
        idle = 0
        points = endless(subject, values, self._archive, rng)
        while idle < patience and not self._is_late():
            idle = 0 if self._visit(next(points)) else idle + 1
        self._judge_late()

    def outcome(self) -> Hunt:
        """What was found so far."""
        return Hunt(
            tuple(self._finds.values()),
            tuple(self._nowhere.values()),
            tuple(self._extreme.values()),
            tuple(sorted(self._touched)),
            tuple(sorted(self._seen - self._touched)),
            self._points,
            self._undecided,
            time.monotonic() - self._began,
            self._doubt,
            self._holes(),
        )

    def _holes(self) -> tuple[Find, ...]:
        """What is not finite, without places of which a valid gradient was found elsewhere."""
        faults = [where for kind, where in self._finds if kind is Verdict.NONFINITE]
        return tuple(
            f for (_, at), f in self._nonfinite.items() if not any(p <= at for p in faults)
        )

    @property
    def _known(self) -> tuple[Any, ...]:
        """Keys of all that was found."""
        return (*self._finds, *self._nonfinite, *self._nowhere, *self._extreme)

    def _fits(self, point: Point) -> bool:
        example = self._subject.example
        return len(point) == len(example) and all(
            p.dtype == e.dtype and p.shape[1:] == e.shape[1:]
            for p, e in zip(point, example, strict=True)
        )

    def _visit(self, point: Point) -> bool:
        """Look at a point, and judge it where it is suspicious; whether it touches what is new."""
        self._points += 1
        values = _values(point)
        if values in self._visited:
            return False
        self._visited.add(values)
        glance = self._glances.glance(point, self._done)
        if glance is None or not (glance.odd or glance.coincidences - self._glimpsed):
            return False
        if not glance.valued and any(_is_extreme(x) for x in point):
            return False  # what is sound overflows there, too
        self._glimpsed |= glance.coincidences
        look = self._subject.tries(point)
        if look is None:
            return False
        self._constants.update(dict.fromkeys(look.constants))
        self._seen |= look.sites
        self._touched |= look.touched
        new = look.features - self._features
        self._features |= new
        if new and not any(_is_extreme(x) for x in point):
            self._archive.append(point)
        if glance.odd and (look.touched or not (glance.finite and glance.valued)):
            key = (look.touched, glance.finite, glance.valued)
            self._checks[key] += 1
            if self._explained(look, glance) or self._checks[key] > HUNT_REPEATS:
                self._done.add(glance.key)
            else:
                self._judge(point, key)
        return bool(new)

    def _is_late(self) -> bool:
        """Whether time is up; what Python loads on first use does not count."""
        try:
            self._deadline.ask("hunting")
        except OutOfTimeError:
            return True
        return False

    def _explained(self, look: Look, glance: Glance) -> bool:
        """Whether a fault that is known already can be the reason, and was seen often enough."""
        keys = [k for k in self._known if k[1] <= look.touched and k[1]]
        if not keys:
            return False
        kind = Verdict.NOT_CLARKE if glance.finite else Verdict.NONFINITE
        if (kind, look.touched) in self._finds or (kind, look.broken) in self._finds:
            return True  # by all that is touched, or by what made it so
        again = ("explained", keys[0])
        self._checks[again] += 1
        return self._checks[again] > HUNT_REPEATS

    def _check(self, point: Point, most: float = float(HUNT_CHECK_SECONDS)) -> Report | None:
        left = min(most, self._deadline.left)
        if left <= 0:
            return None
        try:
            return self._subject.judge(point, left)
        except Exception:  # noqa: BLE001 - the function may raise whatever it likes there
            return None

    def _judge(self, point: Point, key: Any, most: float = float(HUNT_CHECK_SECONDS)) -> None:
        report = self._check(point, most)
        if report is None:
            return
        if report.out_of_time and most == HUNT_CHECK_SECONDS and len(self._late) < HUNT_REPEATS:
            self._late.append((point, key))  # on a busy machine it may only need more
            return
        if report.verdict is Verdict.UNDECIDED:
            if not any(_is_extreme(x) for x in point):  # there nearby points are no neighbours
                self._undecided += 1
                self._doubt = self._doubt or report.reason
            self._checks[key] += 1  # dear, and likely to be the same again
        if _kind(report) is None or _key(report) in self._known:
            return
        self._keep(*self._simplest(report, point))

    def _judge_late(self) -> None:
        """Judge again, with more time, what `check` had too little for."""
        late, self._late = self._late, []
        for point, key in late:
            left = self._deadline.left / 2
            if left > HUNT_CHECK_SECONDS:
                self._judge(point, key, min(left, float(HUNT_SECONDS)))

    def _simplest(self, report: Report, point: Point) -> tuple[Report, Point]:
        """The same fault at a simpler point.

        First with `check` at the end alone; where it then denies the fault, or tells of another,
        with no more kinks touched than at the start, and at last with `check` at every step.
        """
        start, begun = self._subject.tries(point), self._glances.glance(point)
        best = report, point
        asked: dict[Any, Report | None] = {}

        def checked(tried: Point) -> Report | None:
            key = _values(tried)
            if key not in asked:
                asked[key] = self._check(tried)
            return asked[key]

        minor = _is_step(report) or any(_is_extreme(x) for x in point)
        for level in range(2 if minor else 3):
            until = self._deadline.part(float(HUNT_SHRINK_SHARE))

            def holds(tried: Point, level: int = level, until: Deadline = until) -> bool:
                nonlocal best
                self._points += 1
                glance = None if until.passed else self._glances.glance(tried)
                if glance is None or not glance.odd or begun is None:
                    return False
                if (glance.finite, glance.valued) != (begun.finite, begun.valued):
                    return False
                if level == 0:
                    return True
                look = self._subject.tries(tried)
                if look is None or start is None or not look.touched <= start.touched:
                    return False
                if level == 1:
                    return True
                again = checked(tried) if len(asked) < HUNT_SHRINK_CHECKS else None
                if again is None or not _same_fault(report, again):
                    return False
                best = again, tried
                return True

            simple = shrunk(rows_dropped(point, holds), holds, self._follow)
            simple = tuple(x + 0.0 for x in simple)  # no negative zeros
            again = checked(simple)
            if again is not None and _same_fault(report, again):
                return again, simple
            if again is not None and _kind(again) is not None:
                self._keep(again, simple)  # a fault of its own
        return best

    def _follow(self, point: Point, entry: tuple[int, int], new: float) -> Point | None:
        try:
            return None if self._is_late() else followed(self._subject, point, entry, new)
        except Exception:  # noqa: BLE001 - the function may not take the point
            return None

    def _keep(self, report: Report, point: Point) -> None:
        key = _key(report)
        found = self._finds
        if any(_is_extreme(x) for x in point):
            found = self._extreme
        elif _kind(report) is Verdict.NOT_LIPSCHITZ:
            found = self._nowhere if _is_step(report) else self._nonfinite
            if found is self._nonfinite and self._glances.overflows(point):
                found = self._extreme
        if key in found:
            return
        inputs, _ = self._subject.call(point)
        found[key] = Find(report, inputs, script_of(self._subject.function, inputs))
        if found is self._finds:
            self._corpus.keep(point)


def _values(point: Point) -> tuple[Any, ...]:
    """A point as a key."""
    return tuple((x.shape, *x.reshape(-1).tolist()) for x in point)


def _is_extreme(x: torch.Tensor) -> bool:
    """Whether an entry is so large, or so small, that sound programs overflow."""
    size = x.abs().to(torch.float64)
    tiny = (size > 0) & (size < HUNT_LARGE**-3)
    return bool(((size >= HUNT_LARGE) | tiny).any())


def _kind(report: Report) -> Verdict | None:
    """What a report is worth: a fault, a point with nothing to return, or neither."""
    match report.verdict:
        case Verdict.NOT_CLARKE:
            return Verdict.NOT_CLARKE
        case Verdict.NONFINITE:
            return Verdict.NONFINITE if report.element is not None else Verdict.NOT_LIPSCHITZ
        case Verdict.NOT_LIPSCHITZ:
            return Verdict.NOT_LIPSCHITZ
        case _:
            return None


def _is_step(report: Report) -> bool:
    """Whether there is nothing to return, and the gradient is a number all the same."""
    finite = all(bool(torch.isfinite(g).all()) for g in report.gradient)
    return finite and _kind(report) is Verdict.NOT_LIPSCHITZ


def _key(report: Report) -> tuple[Verdict | None, frozenset[Place]]:
    return _kind(report), places(report.culprits)


def _same_fault(report: Report, other: Report) -> bool:
    """The same kind, by the same operations or fewer of them."""
    return _kind(report) is _kind(other) and places(other.culprits) <= places(report.culprits)
