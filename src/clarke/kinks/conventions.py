"""What the installed PyTorch returns at kinks, measured by running the operations there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Recorder, collect_trace
from clarke.errors import InputError
from clarke.kinks.model import Call
from clarke.kinks.registry import OpKind, default_registry, overload_name
from clarke.kinks.samples import samples

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clarke.capture import OpRecord
    from clarke.kinks.model import Hazard, Touch
    from clarke.kinks.registry import Registry
    from clarke.kinks.samples import Sample


@dataclass(frozen=True)
class Convention:
    """One touched kink of one operation.

    Attributes:
        operation: The dispatcher's name of the overload that has the kink.
        call: What the user writes.
        kink: Where it is touched, in words.
        slopes: For each piece that meets there, its derivative with respect to all inputs, laid
            out flat; for a kink in one variable the first is the left slope and
            the last the right one. Empty where the operation has a hazard and no pieces.
        gradient: What autograd returns, laid out likewise.
        weights: Autograd's answer as weights of the pieces.
        hazard: What puts the point out of reach of pieces, if anything does.
    """

    operation: str
    call: str
    kink: str
    slopes: tuple[tuple[float, ...], ...]
    gradient: tuple[float, ...]
    weights: tuple[float, ...]
    hazard: Hazard | None

    @property
    def selects(self) -> bool:
        """Whether autograd takes one piece (a limiting gradient) instead of a mixture."""
        return self.hazard is None and max(self.weights, default=0.0) == 1.0


def measure(sample: Sample, registry: Registry) -> Convention:
    """Run a sample under the recorder and read its convention off the rule and autograd.

    Raises:
        InputError: The sample touches no kink that the registry knows, or several.
    """
    inputs = sample.tensors()
    recorder = Recorder(registry.keeps)
    with torch.enable_grad(), recorder:
        result = torch.as_tensor(sample.function(*inputs)).sum()
        trace = registry.lowered(collect_trace(recorder, result))
        recorder.paused = True
        gradient = _flat(result, list(inputs))
    found = [
        (op, known.rule.find(op))
        for op in trace.ops
        for known in (registry.known(op.func),)
        if known.kind is OpKind.RULED and known.rule is not None
    ]
    touched = [(op, touch) for op, touch in found if touch.count]
    if len(touched) != 1 or touched[0][1].count != 1:
        names = ", ".join(op.name for op, _ in touched) or "none"
        raise InputError(
            f"The sample {sample.call} at {sample.kink} should touch one kink of one operation; "
            f"touched: {names}. Choose another point."
        )
    op, touch = touched[0]
    with torch.enable_grad():
        slopes = _slopes(registry, op, touch)
    return Convention(
        operation=overload_name(op.func),
        call=sample.call,
        kink=sample.kink,
        slopes=slopes,
        gradient=gradient,
        weights=tuple(touch.weights.tolist()) if slopes else (),
        hazard=next(iter(touch.hazards), None),
    )


def _slopes(registry: Registry, op: OpRecord, touch: Touch) -> tuple[tuple[float, ...], ...]:
    """The derivatives of the pieces with respect to the operation's own inputs."""
    rule = registry.known(op.func).rule
    if rule is None:  # pragma: no cover - the caller found the touch with it
        return ()
    args: list[Any] = [op.kept.get(i, a) for i, a in enumerate(op.args)]
    leaves = []
    for i, value in enumerate(args):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            args[i] = value.detach().clone().requires_grad_()
            leaves.append(args[i])
    call = Call(op.func, tuple(args), op.kwargs)
    values = rule.candidates(call, touch)
    return tuple(_flat(v, leaves) for v in values) if values.requires_grad else ()


def _flat(value: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[float, ...]:
    if not value.requires_grad:
        return tuple(0.0 for leaf in leaves for _ in range(leaf.numel()))
    grads = torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
    return tuple(x for g in grads for x in g.reshape(-1).tolist())


def conventions(
    chosen: Iterable[Sample] | None = None, registry: Registry | None = None
) -> tuple[Convention, ...]:
    """The conventions of the installed torch, one for each sample.

    Args:
        chosen: Samples; by default all of `clarke.kinks.samples`.
        registry: Rules; by default PyTorch's own and those registered by the user.
    """
    known = registry or default_registry()
    return tuple(measure(sample, known) for sample in (samples() if chosen is None else chosen))
