"""What certificates share: a proof that is verified by computing everything again, and its seal."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from clarke.capture import Origin, digest, input_slots, refilled, without_values
from clarke.constraints import resolve
from clarke.deadline import Deadline
from clarke.decide.hazards import obstacle
from clarke.errors import ClarkeError, OutOfTimeError, in_a_line
from clarke.kinks import OpKind, default_registry
from clarke.kinks.smooth import OpClass, classify
from clarke.steering import Program, analyse
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from clarke.capture import Trace
    from clarke.decide.model import Witness

    Tensors = tuple[torch.Tensor, ...]

# What a program that was tampered with may raise when it runs.
_FAILURES = (
    ClarkeError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Defect(Exception):  # noqa: N818 - what is wrong with a proof, not with the program
    """Why a certificate does not hold; its text goes into `defects`."""


def seal_of(proof: Any) -> str:
    """A digest of everything in a certificate but its seal; a program counts by what ran.

    The seal binds parts that are valid apart from each other. That they are valid is no matter of
    seals: who changes a part and writes a new seal still has to pass the recomputation.
    """
    parts: list[Any] = [type(proof).__name__]
    for f in fields(proof):
        value = getattr(proof, f.name)
        if f.name == "seal":
            continue
        if isinstance(value, Program):
            value = (value.analysis.recorded, value.variables)
        parts.append((f.name, value))
    return digest(parts)


@contextlib.contextmanager
def as_defects(found: list[str]) -> Iterator[None]:
    """Collect what makes a certificate fail: a `Defect`, or a program that cannot run.

    Raises:
        OutOfTimeError: The deadline passed; nothing is said of the certificate then.
    """
    try:
        yield
    except OutOfTimeError:
        raise
    except Defect as error:
        found.append(str(error))
    except _FAILURES as error:
        found.append(f"the program cannot be judged again: {in_a_line(error)}")


class Recomputed(ABC):
    """A proof that is verified by computing everything again; dataclasses with these fields.

    Attributes:
        program: What ran.
        point: The point, one tensor per variable.
        seal: Binds all parts of the proof, see `seal_of`.
        holds_sides: It proves something also where branches of Python rest on ties.
    """

    program: Program
    point: Tensors
    seal: str
    holds_sides: ClassVar[bool] = False

    def sealed(self) -> Self:
        """The same with a seal of its present contents."""
        return replace(self, seal=seal_of(self))  # type: ignore[type-var]

    def verify(self, *, run: bool = True, seconds: float | None = None) -> bool:
        """Recompute everything from the program and the point; True if the proof holds.

        Args:
            run: Also run the program beside the point.
            seconds: Time limit.

        Raises:
            OutOfTimeError: The limit passed, which says nothing of the proof.
        """
        return not self.defects(run=run, seconds=seconds)

    @leaves_no_trace
    def defects(self, *, run: bool = True, seconds: float | None = None) -> tuple[str, ...]:
        """What is wrong with the proof, in words; empty when it holds. Arguments as `verify`."""
        with Deadline.after(seconds) as deadline:
            return self.defects_within(deadline, run=run)

    def defects_within(self, deadline: Deadline, *, run: bool) -> tuple[str, ...]:
        """The same, as a part of a call that has a deadline."""
        found: list[str] = []
        with as_defects(found):
            if self.seal != seal_of(self):
                raise Defect(
                    "the certificate, or a tensor that its program read, has changed since it was "
                    "made"
                )
            recorded = self.program.analysis.recorded
            program = rebuilt(recorded, self.program.variables, deadline, held=self.holds_sides)
            shapes = [t.shape for t in self.point] == [t.shape for t in program.point]
            if not shapes or not all(map(torch.equal, self.point, program.point)):
                raise Defect("the point is not that of the program")
            self.recompute(program, run=run)
        return tuple(found)

    @abstractmethod
    def recompute(self, program: Program, *, run: bool) -> None:
        """Check the claim against a program that was rebuilt.

        Raises:
            Defect: It does not hold.
        """


class WithoutSelection(Recomputed):
    """A proof that names no selection: it speaks of all of them."""

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """None: no selection is named."""
        return ()

    @property
    def weights(self) -> tuple[float, ...]:
        """None: no mixture is claimed."""
        return ()


def rebuilt(
    trace: Trace, variables: Sequence[int], deadline: Deadline, *, held: bool = False
) -> Program:
    """The program of a trace, from its operations and what they read alone.

    Args:
        trace: What ran.
        variables: External slots of the variables.
        deadline: Of the verification.
        held: The proof selects the sides that ran where branches of Python rest on ties.

    Raises:
        Defect: Something in it is out of reach of any proof.
    """
    _check_flags(trace, variables)
    registry = default_registry()

    def repeatable(func: Any) -> bool:
        return registry.known(func).kind is not OpKind.RANDOM

    again = refilled(without_values(trace, repeatable), registry.keeps)
    analysis = resolve(analyse(again, registry, deadline), registry, variables)
    blocked = obstacle(analysis, sees_values=True, held=held)
    if blocked is not None:
        raise Defect(f"the program is out of reach: {blocked.reason}")
    return Program(analysis, variables, deadline=deadline)


def _check_flags(trace: Trace, variables: Sequence[int]) -> None:
    """Whether variables, and operations on differentiated values, are recorded as such.

    Kinks are looked for at those only. What the program detached stands in a trace as a tensor that
    it read, so that only operations with integer or truth values may cut a path.
    """
    leaves = {slot for slot, e in trace.externals.items() if e.origin is Origin.LEAF}
    if len({*variables}) != len(variables) or not leaves.issuperset(variables):
        raise Defect("a variable is named twice, or recorded as what does not vary")
    # What depends on other leaves only is a constant to these variables, unless memory is shared.
    own = {trace.externals[v].storage for v in variables}
    live = {s for s in leaves if s in variables or trace.externals[s].storage in own}
    for op in trace.ops:
        read = live.intersection(input_slots(op))
        if not read:
            continue
        results = [s for s in op.outputs if s is not None]
        if op.differentiated:
            # No path goes through whole numbers: `argmax().float()` is a constant.
            live.update(s for s in results if _is_real(trace.slot_dtypes.get(s)))
        # No derivative comes through a mask that is cast to numbers.
        elif (
            classify(op.name) not in (OpClass.CONSTANT, OpClass.DISCRETE)
            and any(trace.slot_dtypes[s].is_floating_point for s in results)
            and any(trace.slot_dtypes[s].is_floating_point for s in read)
        ):
            raise Defect(f"{op.shown} reads differentiated values, but is recorded as constant")


def _is_real(dtype: torch.dtype | None) -> bool:
    return dtype is None or dtype.is_floating_point or dtype.is_complex
