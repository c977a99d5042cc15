"""`clarke.explain`: which theorem holds for a model, for all inputs and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import collect_trace
from clarke.errors import CaptureError, InputError
from clarke.kinks import default_registry
from clarke.prepare import saving_recorder
from clarke.theorems import Explanation, explain_trace
from clarke.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def explain(
    model: torch.nn.Module | Callable[..., Any],
    example_input: Any,
    *,
    wrt: Sequence[torch.Tensor] | None = None,
) -> Explanation:
    """Decide the theorems for one model from one forward pass.

    The model is run once, as it is (train or eval mode), on the example; random state, buffers
    and modes are put back. What is concluded holds for all inputs of these shapes and all values
    of the variables, with any analytic loss on top of the outputs: no value of the example is
    used, except where `Explanation.assumptions` says so.

    Args:
        model: A module, or any function that returns tensors.
        example_input: A tensor, a tuple of positional arguments, or a dict of keyword arguments.
        wrt: The variables; by default every leaf that requires a gradient and is used.

    Raises:
        InputError: No output requires a gradient, or a tensor of `wrt` is not used.
        CaptureError: The model ran where clarke cannot watch.
    """
    if torch.is_inference_mode_enabled():
        raise CaptureError(
            "clarke.explain was called under torch.inference_mode, where nothing is recorded. "
            "Leave the inference mode around the call."
        )
    world = World()
    registry = default_registry()
    recorder = saving_recorder(world, registry)
    try:
        with torch.enable_grad(), recorder:
            output = _one_number(_call(model, example_input))
            trace = collect_trace(recorder, output)
            recorder.paused = True
    finally:
        world.restore()
    leaves = {id(e.tensor): e.slot for e in trace.leaves()}
    for i, x in enumerate(wrt or ()):
        if id(x) not in leaves:
            raise InputError(
                f"Tensor {i} of `wrt` is not a leaf that the model's output depends on. Pass "
                "leaves that require gradients and are used by the model."
            )
    slots = list(leaves.values()) if wrt is None else [leaves[id(x)] for x in wrt]
    known = {(p.data_ptr(), p.shape): n for n, p in _named(model) if p.numel()}
    names = {
        s: known[e.tensor.data_ptr(), e.tensor.shape]
        for s, e in trace.externals.items()
        if (e.tensor.data_ptr(), e.tensor.shape) in known
    }
    return explain_trace(trace, registry, slots, names)


def _call(model: Callable[..., Any], example: Any) -> Any:
    if isinstance(example, torch.Tensor):
        return model(example)
    if isinstance(example, (tuple, list)):
        return model(*example)
    if hasattr(example, "items"):
        return model(**dict(example.items()))
    raise InputError(
        f"The example is a {type(example).__name__}. Pass a tensor, a tuple of arguments, or a "
        "dict of keyword arguments."
    )


def _named(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(model, torch.nn.Module):
        yield from model.named_parameters()


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "values") and callable(value.values):
        for item in value.values():
            yield from _tensors(item)


def _one_number(output: Any) -> torch.Tensor:
    """The sum of all differentiable outputs: it depends on what a loss could depend on."""
    found = [t for t in _tensors(output) if t.requires_grad and t.is_floating_point()]
    if not found:
        raise InputError(
            "No output of the model requires a gradient: there is nothing to differentiate. "
            "Call requires_grad_() on its parameters, and leave torch.no_grad."
        )
    total = torch.zeros((), dtype=torch.float64)
    for t in {id(t): t for t in found}.values():
        total = total + t.sum().to(torch.float64)
    return total


__all__ = ["explain"]
