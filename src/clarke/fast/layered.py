"""What a quick verdict carries: one direction for each layer, and how to check them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clarke.capture import digest
from clarke.constraints import build_rows, find_relevant, random_tangents
from clarke.decide.allowed import least_bounds
from clarke.decide.certificate import Argument, Certificate
from clarke.decide.model import Witness, ray_witness
from clarke.decide.recomputed import Defect
from clarke.decide.rounding import Rounding
from clarke.decide.tolerance import added, larger
from clarke.decide.verification import derivatives_along
from clarke.decide.witnessed import Witnessed
from clarke.numerics import LAYER_SCALES
from clarke.steering import selected_gradient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.steering import Program

    Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class Layered(Argument):
    """Directions for single parameters, in the order in which the program uses them.

    Every relevant kink has a last parameter among these on which it depends, and that one's
    direction selects AD's piece. So for all small enough s, the direction with the last one whole,
    the one before times s, the one before that times s*s and so on selects AD's pieces everywhere:
    a witness of all kinks together (Theorem 8 of the paper).

    A training step must not wait for proofs that nobody asks for: rows, kinks and gradients are
    found when the certificate is verified, by the same code as for every other one.

    Attributes:
        directions: By parameter's slot in the trace, in order.
    """

    directions: Mapping[int, torch.Tensor]

    def seal(self, certificate: Certificate) -> str:
        """Binds directions, variables and which operations and tensors the trace holds.

        By identity, since this is made at every step: the records keep their objects alive. Values
        are computed again in any case. The gradient would take a pass over it.
        """
        trace, variables = certificate.recording.trace, certificate.recording.variables
        ops = [(id(op.func), id(op.args), id(op.kwargs), op.outputs) for op in trace.ops]
        read = [
            (slot, e.tensor.data_ptr(), e.version, e.tensor._version)
            for slot, e in trace.externals.items()
            if e.tensor.layout == torch.strided and not e.tensor.is_inference()
        ]
        parts = (repr(ops), repr(read), trace.output, repr(variables))
        return digest(*parts, list(self.directions), list(self.directions.values()))

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Put the directions together to a witness of all kinks, and check that one."""
        self.whole(program, vector).argument.check(program, vector, run=run)

    def whole(self, program: Program, vector: Tensors) -> Certificate:
        """The certificate of all kinks together, which says the same without layers.

        Raises:
            Defect: No scale of the directions satisfies all rows.
        """
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
        if not rounding.covers(vector):
            raise Defect("AD's gradient is not that of its selection")
        replay = Rounding(program, own, double=True).bounds
        least = least_bounds(program, vector, witnesses, weights)
        proof = Witnessed(
            witnesses=witnesses,
            weights=weights,
            bounds=added(added(rounding.bounds, replay), least),
            replay_bounds=larger(rounding.bounds, replay),
        )
        return Certificate(program, vector, proof).sealed()

    def _joint(
        self,
        program: Program,
        relevant: torch.Tensor,
        own: tuple[torch.Tensor, ...],
    ) -> Witness:
        if not set(self.directions) <= set(program.variables):
            raise Defect("there is a direction for what is no variable")
        rows = build_rows(program, {}, relevant)
        for scale in LAYER_SCALES:
            direction = self._direction(program, scale)
            try:
                along = derivatives_along(rows, direction)
            except Defect:
                continue
            return Witness(direction, {}, own, along, rows.kinks.numpy())
        raise Defect("no scale of the layers' directions satisfies all rows")

    def _direction(self, program: Program, scale: float) -> Tensors:
        """The directions put together, one tensor for each variable."""
        powers = {s: scale**i for i, s in enumerate(reversed(list(self.directions)))}
        return tuple(
            self.directions[slot].reshape(p.shape) * powers[slot]
            if slot in self.directions
            else torch.zeros_like(p)
            for slot, p in zip(program.variables, program.point, strict=True)
        )
