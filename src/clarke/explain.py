"""`clarke.explain`: which theorem holds for a model, for all inputs and parameters."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, is_dataclass
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import PythonReads, collect_trace
from clarke.deadline import Deadline, check_seconds
from clarke.devices import RandomStates
from clarke.errors import CaptureError, InputError
from clarke.kinks import default_registry
from clarke.numerics import CHECK_SECONDS
from clarke.prepare import saving_recorder
from clarke.proof import save_theorem
from clarke.theorems import Context, Explanation, explain_trace
from clarke.torch_private import name_as_written
from clarke.undo import at_the_end, leaves_no_trace
from clarke.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from os import PathLike

    from clarke.capture import Trace
    from clarke.kinks import Registry


@leaves_no_trace
def explain(
    model: torch.nn.Module | Callable[..., Any],
    example_input: Any,
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    seconds: float | None = CHECK_SECONDS,
    save: str | PathLike[str] | None = None,
) -> Explanation:
    """Decide the theorems for one model from one forward pass.

    The model is run once, as it is (train or eval mode), on the example; random state, buffers
    and modes are put back. What torch.compile would run compiled runs as it was written, and is
    taken to compute that. What is concluded holds for all inputs of these shapes and all values
    of the variables, with any analytic loss on top of the outputs: no value of the example is
    used, except where `Explanation.assumptions` says so.

    Args:
        model: A module, or any function that returns tensors.
        example_input: A tensor, a tuple of positional arguments, or a dict of keyword arguments.
        wrt: The variables; by default every leaf that requires a gradient and is used.
        seconds: Time limit of clarke's own work, without the model's forward pass; None for no
            limit.
        save: A file for the theorem, which ``clarke verify`` derives again without the model. It
            holds the operations with the shapes of parameters, and not their values.

    Raises:
        InputError: No output requires a gradient, or a tensor of `wrt` is not used; or the file
            cannot be written.
        UnsupportedError: The model holds what has no form in a file, such as a custom Function.
        CaptureError: The model ran where clarke cannot watch.
        OutOfTimeError: No answer in time.
    """
    check_seconds(seconds)
    if torch.is_inference_mode_enabled():
        raise CaptureError(
            "clarke.explain was called under torch.inference_mode, where nothing is recorded. "
            "Leave the inference mode around the call."
        )
    if any(t.numel() == 0 for t in _tensors(example_input)):
        raise InputError(
            "A tensor of the example has no elements, so nothing of the model is seen. "
            "Pass an example of the size that the model is used with."
        )
    _refuse_hooks(model)
    world = World()
    at_the_end(world.restore)
    registry = default_registry()
    opened = ExitStack()
    kept = {t.untyped_storage()._cdata for t in _memory(model)}
    try:
        trace, inputs, drew, compiled = _recorded(model, example_input, world, registry)
        deadline = opened.enter_context(Deadline.after(seconds))
        ours = _cuts_inputs_only(trace, model, example_input, world, registry)
        # Of what the model reads besides its inputs, values count as its own.
        unseen = [t for t in _tensors(example_input) if id(t) not in inputs.seen]
        own = _held_in(trace, kept) if unseen or drew else None
        slots = _variables(trace, inputs, wrt)
        names = _names(trace, model)
        # Before buffers are put back: those that the model changed were read as they are now.
        blind = not inputs.made and any(t.is_floating_point() for t in unseen)
        context = Context(
            own,
            cuts_inputs_only=ours,
            blind=blind,
            assumptions=(*_taken(example_input), *((_COMPILED,) if compiled else ())),
            deadline=deadline,
        )
        found = explain_trace(trace, registry, slots, names, context)
        if save is not None:
            save_theorem(trace, slots, found, context, save)
        return found
    finally:
        opened.close()
        world.restore()


def _held_in(trace: Trace, kept: Collection[int]) -> frozenset[int]:
    """Slots of what a trace reads from some memory."""
    strided = {s: e.tensor for s, e in trace.externals.items() if e.tensor.layout == torch.strided}
    return frozenset(s for s, t in strided.items() if t.untyped_storage()._cdata in kept)


def _variables(trace: Trace, inputs: _Inputs, wrt: Sequence[torch.Tensor] | None) -> list[int]:
    """Slots of the leaves to differentiate with respect to."""
    leaves = {id(e.tensor): e.slot for e in trace.leaves() if id(e.tensor) not in inputs.made}
    for i, x in enumerate(wrt or ()):
        if id(x) not in leaves:
            raise InputError(
                f"Tensor {i} of `wrt` is not a leaf that the model's output depends on. Pass "
                "leaves that require gradients and are used by the model."
            )
    if not leaves:
        raise InputError(_NOTHING)
    return list(leaves.values()) if wrt is None else [leaves[id(x)] for x in wrt]


def _names(trace: Trace, model: Any) -> dict[int, str]:
    """What parameters are called, by slot."""
    known = {
        (p.data_ptr(), p.shape): n
        for n, p in _named(model)
        if p.numel() and p.layout == torch.strided
    }
    return {
        s: known[e.tensor.data_ptr(), e.tensor.shape]
        for s, e in trace.externals.items()
        if e.tensor.layout == torch.strided and (e.tensor.data_ptr(), e.tensor.shape) in known
    }


_COMPILED = "torch.compile's program computes the function as it was written"
_NOTHING = (
    "No output of the model requires a gradient: there is nothing to differentiate. "
    "Call requires_grad_() on its parameters, and leave torch.no_grad."
)


@dataclass(frozen=True, eq=False)
class _Inputs:
    """An example whose numbers require gradients, so that what is computed from them is recorded.

    Attributes:
        example: The same structure.
        seen: Identities of the user's tensors that are followed.
        made: Those of the leaves that stand for them.
        held: Keeps both alive.
    """

    example: Any
    seen: frozenset[int]
    made: frozenset[int]
    held: tuple[torch.Tensor, ...]


def _copied(example: Any, *, watched: bool) -> _Inputs:
    """The example in tensors that the model may write to; with `watched` its numbers followed."""
    seen: set[int] = set()
    made: dict[int, torch.Tensor] = {}

    def follow(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.requires_grad:
                seen.add(id(value))
            elif watched and value.is_floating_point() and value.layout == torch.strided:
                seen.add(id(value))
                leaf = value.detach().clone().requires_grad_()
                made[id(leaf)] = leaf
                return leaf.clone()
            return value if value.requires_grad else value.clone()
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(follow, value))
        if type(value) in (list, tuple):
            return type(value)([follow(v) for v in value])
        if isinstance(value, Mapping) and (value is example or type(value) in (dict, OrderedDict)):
            return {k: follow(v) for k, v in value.items()}
        return value

    found = follow(example)
    return _Inputs(found, frozenset(seen), frozenset(made), tuple(made.values()))


def _recorded(
    model: Any, example: Any, world: World, registry: Registry
) -> tuple[Trace, _Inputs, bool, bool]:
    """One forward pass, as `_record`, with what is computed from the inputs followed if it can."""
    try:
        return _record(model, example, world, registry, watched=True)
    except (RuntimeError, TypeError):
        # Such as the `numpy()` of a tensor that requires a gradient; or an error of the model's
        # own, which comes again.
        world.restore()
        return _record(model, example, world, registry, watched=False)


def _record(
    model: Any, example: Any, world: World, registry: Registry, *, watched: bool
) -> tuple[Trace, _Inputs, bool, bool]:
    """One forward pass: trace, inputs; whether random numbers were drawn, whether compiled."""
    recorder = saving_recorder(world, registry)
    random = RandomStates()
    with torch.enable_grad(), recorder, PythonReads(recorder):
        inputs = _copied(example, watched=watched)
        output = _one_number(_call(model, inputs.example))
        trace = collect_trace(recorder, output, all_reads=True)
        recorder.paused = True
    held = (e.tensor.untyped_storage()._cdata for e in trace.leaves())
    where = next((recorder.rewritten[m] for m in held if m in recorder.rewritten), None)
    if where is not None:
        raise CaptureError(
            f"The model rewrites a parameter of its own at {where} (as max_norm of "
            "an embedding does), so what is differentiated is not the value that it is given, and "
            "nothing holds for all values of it. Rewrite parameters outside of the model."
        )
    drew = random.have_changed()
    return trace, inputs, drew, recorder.compiled


def _cuts_inputs_only(
    trace: Trace, model: Any, example: Any, world: World, registry: Registry
) -> bool:
    """Whether everything that was detached was computed from inputs alone.

    Then it is a constant with a value of its own for every input; such as the features of a frozen
    part, or a mask. It is, if nothing is detached where inputs are constants themselves.
    """
    if not any(e.stopped for e in trace.externals.values()):
        return False
    world.restore()
    other, *_ = _record(model, example, world, registry, watched=False)
    return not any(e.stopped for e in other.externals.values())


def _taken(example: Any) -> tuple[str, ...]:
    """What of an example is taken as it is."""
    found = []
    if any(not t.is_floating_point() for t in _tensors(example)):
        found.append("no branch in Python depends on an integer or boolean input")
    if _has_numbers(example):
        found.append("arguments that are no tensors stay as they are")
    return tuple(found)


def _has_numbers(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_numbers, value))
    if isinstance(value, Mapping):
        return any(map(_has_numbers, value.values()))
    return isinstance(value, (bool, int, float, complex, str))


def _memory(model: Any) -> Iterator[torch.Tensor]:
    if isinstance(model, torch.nn.Module):
        yield from (t for t in (*model.parameters(), *model.buffers()) if t.layout == torch.strided)


def _refuse_hooks(model: Any) -> None:
    for name, parameter in _named(model):
        if parameter._backward_hooks:  # noqa: SLF001 - torch has no public name for it
            raise InputError(
                f"The parameter {name} has a hook, which may change its gradient: of that nothing "
                "can be said. Remove it for the call."
            )


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
        yield from ((name_as_written(n), p) for n, p in model.named_parameters())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a structure of the usual containers.

    Raises:
        InputError: It holds something else, in which tensors may be.
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "values") and callable(value.values):
        for item in value.values():
            yield from _tensors(item)
    elif (is_dataclass(value) and not isinstance(value, type)) or isinstance(
        value, SimpleNamespace
    ):
        for item in vars(value).values():
            yield from _tensors(item)
    elif not (value is None or isinstance(value, (bool, int, float, complex, str, bytes, Enum))):
        raise InputError(
            f"A {type(value).__name__} among the model's inputs or outputs may hold tensors. "
            "Return tensors, or lists, tuples, dicts and dataclasses of them."
        )


def _one_number(output: Any) -> torch.Tensor:
    """The sum of all differentiable outputs: it depends on what a loss could depend on."""
    found = [t for t in _tensors(output) if t.requires_grad and t.is_floating_point()]
    if not found:
        raise InputError(_NOTHING)
    total = torch.zeros((), dtype=torch.float64)
    for t in {id(t): t for t in found}.values():
        total = total + t.sum().to(torch.float64)
    return total


__all__ = ["explain"]
