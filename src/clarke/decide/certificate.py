"""The one certificate: what ran, the vector that is judged, and the argument that proves something.

What differs from verdict to verdict is the `Argument`. Whatever it is, verifying rebuilds the
program from its recorded operations and has the argument compute everything that it claims again.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from clarke.capture import digest
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.recomputed import Defect, as_defects, rebuilt
from clarke.steering import Program
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clarke.capture import Trace
    from clarke.decide.model import Witness

    Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class Recording:
    """What ran, of which no program was made yet: a training step does not wait for one.

    Attributes:
        trace: The recorded operations.
        variables: External slots of the variables.
    """

    trace: Trace
    variables: tuple[int, ...]


class Argument(ABC):
    """What is claimed of a program and a vector, and what shows it: a part of a `Certificate`.

    A frozen dataclass of what somebody found. Nothing of it is trusted: `check` computes what it
    says from the program.

    Attributes:
        holds_sides: It proves something also where branches of Python rest on ties.
        judges: It is about the gradient that autograd returned; else about the set.
    """

    judges: ClassVar[bool] = True
    holds_sides: ClassVar[bool] = False

    @abstractmethod
    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Hold the claim against a program that was rebuilt.

        Args:
            program: What ran, made of its recorded operations and what they read alone.
            vector: The gradient that is judged, or the vector that was asked about.
            run: Also run the program beside the point.

        Raises:
            Defect: It does not hold.
        """

    def seal(self, certificate: Certificate) -> str:
        """A digest of everything in a certificate but its seal; a program counts by what ran.

        It binds parts that are valid apart from each other. That they are valid is no matter of
        seals: who changes a part and writes a new seal still has to pass the recomputation.
        """
        ran, vector = certificate.recording, certificate.gradient
        return digest(ran.trace, ran.variables, vector, certificate.argument)


@dataclass(frozen=True, eq=False, repr=False)
class Certificate:
    """A proof of a verdict, of a quick one, or that a vector is in a set or not.

    Attributes:
        program: What ran, and where.
        gradient: The gradient that is judged, one tensor for each variable; for a member of a set,
            the vector that was asked about, or zeros.
        argument: What is claimed of it, and what shows it.
        seal: Binds all of this, see `Argument.seal`.
    """

    program: Program | Recording
    gradient: Tensors
    argument: Argument
    seal: str = ""

    def __repr__(self) -> str:
        return f"Certificate({type(self.argument).__name__}, seal={self.seal[:8]!r})"

    @property
    def recording(self) -> Recording:
        """What ran, as it was recorded."""
        p = self.program
        return Recording(p.analysis.recorded, p.variables) if isinstance(p, Program) else p

    @property
    def replay(self) -> Program:
        """The program, made from its record if there is none yet."""
        p = self.program
        return p if isinstance(p, Program) else rebuilt(p.trace, p.variables, UNLIMITED, held=True)

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """Directions with their selections; none where the argument names no selection."""
        return getattr(self.argument, "witnesses", ())

    @property
    def weights(self) -> tuple[float, ...]:
        """Convex weights of the witnesses."""
        return tuple(getattr(self.argument, "weights", ())) if self.witnesses else ()

    def sealed(self) -> Certificate:
        """The same with a seal of its present contents."""
        return replace(self, seal=self.argument.seal(self))

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
        found: list[str] = []
        # Whoever asks while an audit is open asks for no part of the program that it records.
        aside = _unseen() if isinstance(self.program, Recording) else contextlib.nullcontext()
        with aside, Deadline.after(seconds) as deadline, as_defects(found):
            if self.seal != self.argument.seal(self):
                raise Defect(
                    "the certificate, or a tensor that its program read, has changed since it was "
                    "made"
                )
            ran, held = self.recording, self.argument.holds_sides
            self.check(rebuilt(ran.trace, ran.variables, deadline, held=held), run=run)
        return tuple(found)

    def check(self, program: Program, *, run: bool) -> None:
        """Check the argument for a program that was rebuilt.

        Raises:
            Defect: It does not hold.
        """
        if [g.shape for g in self.gradient] != [p.shape for p in program.point]:
            raise Defect("the gradient has another shape than the variables")
        self.argument.check(program, self.gradient, run=run)


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    """Nothing that runs is seen by modes that somebody else has opened."""
    with (
        torch._C.DisableTorchFunction(),
        torch._C._DisableTorchDispatch(),  # noqa: SLF001 - has no public name
    ):
        yield


def exactly(gradient: Sequence[torch.Tensor]) -> Tensors:
    """A gradient as a certificate holds it: in float64, and its own for ever."""
    return tuple(g.detach().to(torch.float64).clone() for g in gradient)
