"""What a quick verdict carries: one direction for each layer, and how to check them together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from clarke.capture import digest
from clarke.constraints import build_rows, find_relevant, random_tangents
from clarke.deadline import Deadline
from clarke.decide.allowed import least_bounds
from clarke.decide.certificate import Certificate
from clarke.decide.model import Witness, ray_witness
from clarke.decide.recomputed import Defect, as_defects, rebuilt
from clarke.decide.rounding import Rounding
from clarke.decide.tolerance import added, larger
from clarke.decide.verification import derivatives_along
from clarke.numerics import LAYER_SCALES
from clarke.steering import selected_gradient
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from clarke.capture import Trace
    from clarke.steering import Program


@dataclass(frozen=True, eq=False)
class LayerCertificate:
    """Directions for single parameters, in the order in which the program uses them.

    Every relevant kink has a last parameter among these on which it depends, and that one's
    direction selects AD's piece. So for all small enough s, the direction with the last one whole,
    the one before times s, the one before that times s*s and so on selects AD's pieces everywhere:
    a witness of all kinks together (Theorem 8 of the paper).

    A training step must not wait for proofs that nobody asks for: rows, kinks and gradients are
    found when the certificate is verified, by the same code as for every other one.

    Attributes:
        directions: By parameter's slot in the trace, in order.
        trace, variables, gradient: What was judged.
        seal: Binds directions, variables and which operations and tensors the trace holds; their
            values are computed again in any case.
    """

    directions: Mapping[int, torch.Tensor]
    trace: Trace
    variables: tuple[int, ...]
    gradient: tuple[torch.Tensor, ...]
    seal: str = ""

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """None at hand: they are put together when the certificate is verified."""
        return ()

    @property
    def weights(self) -> tuple[float, ...]:
        """As `witnesses`."""
        return ()

    def sealed(self) -> Self:
        """The same with a seal of its present contents."""
        return replace(self, seal=self._seal())

    def _seal(self) -> str:
        # By identity, since this is made at every step: the records keep their objects alive.
        ops = [(id(op.func), id(op.args), id(op.kwargs), op.outputs) for op in self.trace.ops]
        read = [
            (slot, e.tensor.data_ptr(), e.version, e.tensor._version)
            for slot, e in self.trace.externals.items()
            if e.tensor.layout == torch.strided and not e.tensor.is_inference()
        ]
        parts = (repr(ops), repr(read), self.trace.output, repr(self.variables))
        return digest(*parts, list(self.directions), list(self.directions.values()))

    def direction(self, scale: float) -> tuple[torch.Tensor, ...]:
        """The directions put together, one tensor for each variable."""
        found = []
        powers = {s: scale**i for i, s in enumerate(reversed(list(self.directions)))}
        for slot in self.variables:
            own = self.directions.get(slot)
            shape = self.trace.externals[slot].tensor.shape
            zero = torch.zeros(shape, dtype=torch.float64)
            found.append(zero if own is None else own.reshape(shape) * powers[slot])
        return tuple(found)

    def verify(self, *, run: bool = True, seconds: float | None = None) -> bool:
        """Check everything again, without fingerprints and layers; see `defects`."""
        return not self.defects(run=run, seconds=seconds)

    @leaves_no_trace
    def defects(self, *, run: bool = True, seconds: float | None = None) -> tuple[str, ...]:
        """What is wrong, in words; empty when the certificate holds.

        The program is computed and replayed again: relevant kinks are found by tangents and
        adjoints, and the directions, put together, become the witness of a `Certificate`, which is
        verified as any other.

        Args:
            run: Also run the program along the direction.
            seconds: Time limit.

        Raises:
            OutOfTimeError: The limit passed, which says nothing of the proof.
        """
        found: list[str] = []
        # Whoever asks while an audit is open asks for no part of the program that it records.
        with (
            torch._C.DisableTorchFunction(),
            torch._C._DisableTorchDispatch(),  # noqa: SLF001 - has no public name
            Deadline.after(seconds) as deadline,
            as_defects(found),
        ):
            if self.seal != self._seal():
                raise Defect("the certificate, or what its program read, has changed")
            found += self.whole(deadline).defects_within(deadline, run=run)
        return tuple(found)

    def whole(self, deadline: Deadline) -> Certificate:
        """The certificate of all kinks together, which says the same without layers.

        Raises:
            Defect: No scale of the directions satisfies all rows.
        """
        program = rebuilt(self.trace, self.variables, deadline)
        generator = torch.Generator().manual_seed(0)
        relevance = find_relevant(program, generator)
        own = selected_gradient(program)
        witnesses: tuple[Witness, ...]
        weights: tuple[float, ...]
        if bool(relevance.relevant.any()):
            witnesses = (self._joint(program, relevance.relevant, own),)
            weights = (1.0,)
        else:
            # Then directions need nothing of themselves: contents tell less than the program.
            ahead = random_tangents(program, generator)
            rays = (ahead, tuple(-d for d in ahead))
            witnesses = tuple(ray_witness(d, own) for d in rays)
            weights = (0.5, 0.5)
        rounding = Rounding(program, own)
        if not rounding.covers(self.gradient):
            raise Defect("AD's gradient is not that of its selection")
        replay = Rounding(program, own, double=True).bounds
        least = least_bounds(program, self.gradient, witnesses, weights)
        certificate = Certificate(
            program=program,
            gradient=self.gradient,
            point=program.point,
            witnesses=witnesses,
            weights=weights,
            bounds=added(added(rounding.bounds, replay), least),
            replay_bounds=larger(rounding.bounds, replay),
        )
        return certificate.sealed()

    def _joint(
        self,
        program: Program,
        relevant: torch.Tensor,
        own: tuple[torch.Tensor, ...],
    ) -> Witness:
        if not set(self.directions) <= set(self.variables):
            raise Defect("there is a direction for what is no variable")
        rows = build_rows(program, {}, relevant)
        for scale in LAYER_SCALES:
            direction = self.direction(scale)
            try:
                along = derivatives_along(rows, direction)
            except Defect:
                continue
            return Witness(direction, {}, own, along, rows.kinks.numpy())
        raise Defect("no scale of the layers' directions satisfies all rows")
