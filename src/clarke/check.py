"""`clarke.check`: judge the gradient of one function at one point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Recorder, collect_trace
from clarke.decide import Decision, Settings, decide
from clarke.errors import CaptureError, InputError, ModifiedSinceError, WrongGradientError
from clarke.kinks import default_registry
from clarke.report import Report, build_report
from clarke.verdict import Verdict
from clarke.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.capture import Trace


def check(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    raise_exception: bool = False,
    settings: Settings | None = None,
) -> Report:
    """Judge whether the gradient that AD returns for ``function(*inputs)`` is a Clarke gradient.

    Args:
        function: Returns a tensor with one element that depends on leaves that require gradients:
            among `inputs`, or parameters that it uses. Run once; if all variables are float64 it
            is run again beside the point to confirm a positive verdict.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; by default every leaf that requires a
            gradient and is reached: first those among `inputs`, then in the order of first use.
        raise_exception: Raise if the gradient is proved wrong.
        settings: Limits of the search.

    Returns:
        A `Report` with verdict, gradient, touched kinks and certificate.

    Raises:
        InputError: The call cannot be answered (no gradient, several outputs, complex numbers).
        CaptureError: The program ran where clarke cannot watch (inference mode, torch.compile).
        WrongGradientError: With `raise_exception`, a proved wrong gradient.
    """
    arguments = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    _refuse_inputs(arguments)
    world = World()
    for x in arguments:
        if isinstance(x, torch.Tensor):
            world.save_tensor(x)
    registry = default_registry()
    recorder = Recorder(registry.keeps, refuses_compiled=True)
    recorder.places.on_root = world.save_module
    grads: tuple[torch.Tensor, ...] = ()
    try:
        with torch.enable_grad():
            with recorder:
                output = _scalar(function(*arguments), recorder)
                trace = collect_trace(recorder, output, all_reads=True)
                recorder.paused = True
                leaves = _leaves(trace, output, arguments, wrt)
                grads = _gradient(output, leaves)
            slots = {id(e.tensor): e.slot for e in trace.leaves()}
            rerun = _Rerun(function, arguments, leaves, world)
            every = all(x.dtype == torch.float64 for x in leaves)
            decision = decide(
                trace,
                registry,
                # A leaf that the trace lacks stands behind what cannot be judged at all.
                tuple(slots[id(x)] for x in leaves if id(x) in slots),
                grads,
                settings or Settings(),
                rerun.gradient if every else None,
            )
    except ModifiedSinceError as error:
        decision = Decision(Verdict.UNDECIDED, str(error))
    finally:
        world.restore()
    report = build_report(decision, grads)
    if raise_exception and report.verdict is Verdict.NOT_CLARKE:
        raise WrongGradientError(str(report), report)
    return report


def _refuse_inputs(arguments: Sequence[Any]) -> None:
    if torch.is_inference_mode_enabled():
        raise CaptureError(
            "clarke.check was called under torch.inference_mode, where no gradient is recorded. "
            "Leave the inference mode around the call."
        )
    for i, x in enumerate(arguments):
        if isinstance(x, torch.Tensor) and x.requires_grad and not x.is_leaf:
            raise InputError(
                f"Input {i} was computed from other tensors. Pass a leaf, for example "
                "x.detach().requires_grad_(), or compute it inside the function."
            )


def _scalar(output: Any, recorder: Recorder) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise InputError(
            f"The function returned {type(output).__name__}, not a tensor. Return the loss alone, "
            "for example with `lambda: model(x)['loss']`."
        )
    if output.is_complex():
        raise InputError("The function returned a complex number; a Clarke gradient needs a real.")
    if output.numel() != 1:
        raise InputError(
            f"The function returned a tensor of shape {tuple(output.shape)}; a gradient is that of "
            "one number. Reduce it, for example with .sum()."
        )
    if not output.requires_grad:
        why = (
            "it ran under torch.inference_mode"
            if recorder.saw_inference
            else "nothing that requires a gradient reaches it, or it ran under torch.no_grad"
        )
        raise InputError(
            f"The result does not require a gradient: {why}. "
            "Call requires_grad_() on the inputs, or leave the no-grad block."
        )
    return output


def _reached_leaves(output: torch.Tensor) -> list[torch.Tensor]:
    """All leaves in the autograd graph of a tensor."""
    found: dict[int, torch.Tensor] = {}
    seen: set[Any] = set()
    todo = [output.grad_fn] if output.grad_fn is not None else []
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        todo += [n for n, _ in node.next_functions if n is not None]
    return list(found.values())


def _leaves(
    trace: Trace, output: torch.Tensor, inputs: Sequence[Any], wrt: Sequence[torch.Tensor] | None
) -> list[torch.Tensor]:
    """The variables: inputs in their order, then other leaves in the order of first use."""
    known = {id(e.tensor): e.tensor for e in trace.leaves()}
    for x in _reached_leaves(output):
        known.setdefault(id(x), x)
    if wrt is None:
        first = [x for x in inputs if id(x) in known]
        chosen = list({id(x): x for x in (*first, *known.values())}.values())
    else:
        chosen = list(wrt)
        for i, x in enumerate(chosen):
            if id(x) not in known:
                raise InputError(
                    f"Tensor {i} of `wrt` is not a leaf that the result depends on. Pass "
                    "leaves that require gradients and are used by the function."
                )
    if any(x.is_complex() for x in chosen):
        raise InputError("A variable is complex; a Clarke gradient needs real variables.")
    return chosen


def _gradient(output: torch.Tensor, leaves: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    if not leaves:
        return ()
    try:
        # What the function uses may hang on a graph of the user's own: free nothing.
        grads = torch.autograd.grad(output, list(leaves), retain_graph=True, materialize_grads=True)
    except RuntimeError as error:
        if "use_reentrant" in str(error):
            raise InputError(
                "The program uses activation checkpointing with use_reentrant=True, for which "
                "autograd gives no gradient by torch.autograd.grad. "
                "Pass use_reentrant=False to torch.utils.checkpoint.checkpoint, "
                "or judge the loss.backward() of the training loop."
            ) from error
        if "second time" in str(error) or "freed" in str(error):
            raise InputError(
                "The graph of the result has already been freed by a backward call. Compute the "
                "result inside the function, without calling backward there."
            ) from error
        raise
    return tuple(g.detach() for g in grads)


class _Rerun:
    """Runs the user's function at other values of its variables."""

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        leaves: Sequence[torch.Tensor],
        world: World,
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._leaves = tuple(leaves)
        self._world = world

    def gradient(self, point: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """AD's gradient at `point`; the variables are put back afterwards."""
        self._world.restore()
        originals = [x.data for x in self._leaves]
        try:
            for x, value in zip(self._leaves, point, strict=True):
                x.data = value.detach().to(x.dtype).clone()
            with torch.enable_grad():
                output = self._function(*self._arguments)
            return _gradient(output, self._leaves)
        finally:
            for x, value in zip(self._leaves, originals, strict=True):
                x.data = value
            self._world.restore()


__all__ = ["check"]
