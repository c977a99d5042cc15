"""What a quick verdict carries: one direction for each layer, and how to check them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import refilled
from clarke.constraints import build_rows, find_relevant
from clarke.decide.confirm import confirm
from clarke.decide.rounding import Rounding
from clarke.feasibility import verify_witness
from clarke.steering import Pieces, Program, analyse, natural_gradient, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import Trace
    from clarke.decide import Witness
    from clarke.kinks import Registry

_SCALES = (2.0**-8, 2.0**-14, 2.0**-20, 2.0**-26)


@dataclass(frozen=True, eq=False)
class LayerCertificate:
    """Directions for single parameters, in the order in which the program uses them.

    Every relevant kink has a last parameter among these on which it depends, and that one's
    direction selects AD's piece. So for all small enough s, the direction with the last one whole,
    the one before times s, the one before that times s*s and so on selects AD's pieces everywhere:
    a witness of all kinks together (Theorem 8 of the paper).

    Attributes:
        directions: By parameter's slot in the trace, in order.
        rows: For parameters settled by linear conditions: the rows and the direction's part.
        trace, registry, variables, gradient: What was judged.
        witnesses, weights: None: the proof goes layer by layer.
    """

    directions: Mapping[int, torch.Tensor]
    rows: tuple[tuple[Any, Any], ...]
    trace: Trace
    registry: Registry
    variables: tuple[int, ...]
    gradient: tuple[torch.Tensor, ...]
    witnesses: tuple[Witness, ...] = field(default=())
    weights: tuple[float, ...] = field(default=())

    def direction(self, scale: float) -> tuple[torch.Tensor, ...]:
        """The directions put together, one tensor for each variable."""
        found = []
        powers = {s: scale**i for i, s in enumerate(reversed(list(self.directions)))}
        for slot in self.variables:
            own = self.directions.get(slot)
            shape = self.trace.externals[slot].tensor.shape
            zero = torch.zeros(shape, dtype=torch.float64)
            found.append(zero if own is None else own * powers[slot])
        return tuple(found)

    def verify(self, *, run: bool = True) -> bool:
        """Check everything again, without fingerprints and layers; see `defects`."""
        return not self.defects(run=run)

    def defects(self, *, run: bool = True) -> tuple[str, ...]:
        """What is wrong, in words; empty when the certificate holds.

        The program is replayed in float64: relevant kinks are found by tangents and adjoints, the
        rows of all of them are taken along the joint direction, and the gradient of AD's selection
        is compared with AD's gradient. With `run`, gradients along the ray must tend to it.
        """
        for rows, direction in self.rows:
            if not verify_witness(rows, direction):
                return ("the rows of a layer are not all positive",)
        trace = refilled(self.trace, self.registry.keeps)
        program = Program(analyse(trace, self.registry), self.variables)
        generator = torch.Generator().manual_seed(0)
        relevance = find_relevant(program, generator)
        if relevance.hazards or relevance.lost_masks:
            return ("the replay met a point that selections cannot express",)
        own = selected_gradient(program)
        rounding = Rounding(program, own)
        if not rounding.covers(self.gradient):
            return ("AD's gradient is not that of its selection",)
        direction = self._joint(program, relevance.relevant)
        if direction is None:
            return ("no scale of the layers' directions satisfies all rows",)
        if run:
            # Values near kinks are rounding: then recorded pieces elsewhere than at the ties.
            for pieces in (Pieces.NATURAL, Pieces.HELD):
                outcome = confirm(
                    partial(natural_gradient, program, pieces=pieces),
                    program.point,
                    direction,
                    own,
                    bounds=rounding.bounds,
                )
                if outcome.confirmed:
                    break
            if not outcome.confirmed:
                return (f"gradients along the direction differ by {outcome.error:.1e}",)
        return ()

    def _joint(self, program: Program, relevant: torch.Tensor) -> Sequence[torch.Tensor] | None:
        if not bool(relevant.any()):
            generator = torch.Generator().manual_seed(1)
            return tuple(
                torch.randn(p.shape, dtype=torch.float64, generator=generator)
                for p in program.point
            )
        rows = build_rows(program, {}, relevant)
        for scale in _SCALES:
            direction = self.direction(scale)
            if bool((rows.times(direction) > 0).all()):
                return direction
        return None
