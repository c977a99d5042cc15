"""Run the user's function once under a recorder: trace, variables, gradient."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import (
    Made,
    PythonReads,
    Recorder,
    RefusingRecorder,
    collect_opened,
    collect_trace,
    values_again,
    without,
)
from clarke.constraints import resolve
from clarke.deadline import Deadline, check_seconds
from clarke.decide.applied import not_vouched
from clarke.decide.detached import declared_rate, numbers_read, opened_value
from clarke.decide.hazards import obstacle
from clarke.decide.otherwise import Sample
from clarke.decide.rates import Again
from clarke.errors import (
    CaptureError,
    ClarkeError,
    InputError,
    ReplayError,
    UnsupportedError,
)
from clarke.kinks import default_registry
from clarke.rerun import Rerun, as_written, gradient_of, reached_leaves
from clarke.steering import Program, analyse
from clarke.steering.fixed import narrowed
from clarke.undo import at_the_end, contextmanager
from clarke.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clarke.capture import Location, Trace
    from clarke.kinks import Registry
    from clarke.steering import Analysis


@dataclass(frozen=True, eq=False)
class Prepared:
    """One recorded run of a function.

    Attributes:
        trace: What ran.
        opened: The same with what detached values were computed from, where there are any.
        registry: The rules.
        leaves: The variables, in the order of the answer.
        gradient: What AD returned, one tensor per variable.
        output: The function's value.
        value: The function's value at other values of the variables, by running it again.
        rerun: AD's gradient at other values of the variables, by running the function again; None
            unless all variables are float64, or where it would draw other random numbers.
        beside: The same for variables of any type, as a hint: not for proofs.
        sample: What runs at other values of the variables, recorded anew.
        drew: The function drew random numbers.
        rewritten: Where the function changed one of its variables before using it, if it did.
        compiled: AD's gradient and the function's value where torch.compile runs what it has
            compiled of it, computed when asked for; None where nothing of it was compiled. All else
            here is of the function as it was written.
        deadline: When the call has to have an answer; counted from the end of the user's own run.
    """

    trace: Trace
    opened: Trace | None
    registry: Registry
    leaves: tuple[torch.Tensor, ...]
    gradient: tuple[torch.Tensor, ...]
    output: float
    value: Callable[[Sequence[torch.Tensor]], float]
    rerun: Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]] | None
    beside: Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]
    compiled: Callable[[], tuple[tuple[torch.Tensor, ...], float]] | None
    deadline: Deadline
    sample: Callable[[Sequence[torch.Tensor]], Sample]
    drew: bool
    rewritten: Location | None = None

    @property
    def values(self) -> tuple[Again, ...]:
        """Ways to the function's value: by running it, and in float64 from what was recorded."""
        if self.opened is None:
            return (Again(self.value),)
        return (Again(self.value), opened_value(self.opened, self.trace, self.slots, self.deadline))

    @property
    def slots(self) -> tuple[int, ...]:
        """Slots of the variables; a leaf that the trace lacks stands behind what is not seen."""
        known = {id(e.tensor): e.slot for e in self.trace.leaves()}
        return tuple(known[id(x)] for x in self.leaves if id(x) in known)


def vouched(run: Prepared, refusal: str) -> Analysis:
    """What ran with its touched kinks, where nothing on the way is out of reach.

    Args:
        run: The recorded run.
        refusal: Begins the message where something is.

    Raises:
        UnsupportedError: Something is: what nobody knows, a declared derivative, a custom Function
            that says otherwise than its forward.
    """
    analysis = analyse(run.trace, run.registry, run.deadline)
    analysis = resolve(analysis, run.registry, run.slots, run.deadline)
    found = obstacle(analysis, sees_values=False)
    found = found or not_vouched(analysis, run.registry, run.slots, run.deadline)
    found = found or declared_rate(analysis, run.slots, run.values, run.deadline)
    if found is not None:
        raise UnsupportedError(f"{refusal}: {found.reason}")
    return analysis


def described(run: Prepared) -> Program:
    """What ran, if selections of pieces describe it around the point.

    Raises:
        UnsupportedError: They do not; says why.
    """
    analysis = vouched(run, "The set cannot be computed")
    read = numbers_read(run.trace)
    if read:
        raise UnsupportedError(
            f"The set cannot be computed: {read[0]}, and what that decides beside the point "
            "cannot be seen. Read it outside of the function."
        )
    return Program(analysis, run.slots, deadline=run.deadline)


def saving_recorder(world: World, registry: Registry) -> RefusingRecorder:
    """A recorder that lets `world` remember every module before it first runs."""
    recorder = RefusingRecorder(registry.keeps, registry.functions)

    def save(root: torch.nn.Module) -> None:
        recorder.paused = True  # copies of parameters are no part of the program
        try:
            world.save_module(root)
        finally:
            recorder.paused = False

    recorder.places.on_root = save
    return recorder


@contextmanager
def prepared(
    function: Callable[..., Any],
    inputs: Sequence[Any] | torch.Tensor,
    wrt: Sequence[torch.Tensor] | None,
    seconds: float | None = None,
) -> Iterator[Prepared]:
    """Record one run; on leaving, the user's world is as it was found.

    Args:
        function: The user's.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; None for all.
        seconds: Time limit of all that follows the recorded run; None for no limit.

    Raises:
        InputError: The function or its inputs have no single real gradient.
        CaptureError: The program ran where clarke cannot watch.
        ModifiedSinceError: A tensor that it read was changed behind autograd's back.
        OutOfTimeError: The record is too long to be read in time.
    """
    check_seconds(seconds)
    if not callable(function):
        raise InputError(
            f"A function is needed, not its value ({type(function).__name__}). Pass one that "
            "computes the loss, for example `lambda: loss_of(model(data))`."
        )
    arguments = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    _refuse_inputs(arguments)
    world = World()
    at_the_end(world.restore)
    for x in arguments:
        if isinstance(x, torch.Tensor):
            world.save_tensor(x)
    registry = default_registry()
    recorder = saving_recorder(world, registry)
    tensors = [x for x in arguments if isinstance(x, torch.Tensor)]
    given = {id(x): x.requires_grad for x in tensors}  # the function may turn it on
    made = Made()
    opened = ExitStack()
    try:
        with without(Recorder), opened, torch.enable_grad():
            with made, recorder:
                with PythonReads(recorder):
                    result = _called(function, arguments, recorder)
                output = _scalar(result, recorder)
                deadline = opened.enter_context(Deadline.after(seconds))
                trace = collect_trace(recorder, output, all_reads=True, deadline=deadline)
                wider = collect_opened(recorder, output, trace)
                recorder.paused = True
                known = _known_leaves(trace, output, arguments)
                changed = {id(x) for x in known if not world.holds_still(x)}
            written = as_written(function) if recorder.compiled else function
            drew = world.has_drawn()
            rerun = Rerun(written, arguments, known, world, deadline)
            leaves = _leaves(known, given, made, rerun) if wrt is None else _named(known, wrt)
            if any(x.is_complex() for x in leaves):
                raise InputError("A variable is complex; a Clarke gradient needs real variables.")
            gradient = gradient_of(output, leaves)
            rerun = Rerun(written, arguments, leaves, world, deadline)
            compiled = Rerun(function, arguments, leaves, world, deadline)
            every = all(x.dtype == torch.float64 for x in leaves) and not _draws_by_values(trace)
            own = {id(x) for x in leaves}
            yield Prepared(
                narrowed(trace, {e.slot for e in trace.leaves() if id(e.tensor) in own}),
                wider,
                registry,
                tuple(leaves),
                gradient,
                float(output.detach()),
                rerun.value,
                rerun.gradient if every else None,
                rerun.gradient,
                compiled.here if recorder.compiled else None,
                deadline,
                partial(_sample, rerun, registry, own),
                drew,
                _rewritten([x for x in leaves if id(x) in changed], recorder),
            )
    finally:
        world.restore()


def _sample(
    rerun: Rerun, registry: Registry, own: set[int], point: Sequence[torch.Tensor]
) -> Sample:
    """What the function runs at another point.

    Args:
        rerun: The function.
        registry: The rules.
        own: The variables, by identity.
        point: Their values.

    Raises:
        ClarkeError: It does not run there, or cannot be watched.
    """
    recorder = RefusingRecorder(registry.keeps, registry.functions)
    with rerun.moved(point), torch.enable_grad():
        try:
            with recorder, PythonReads(recorder):
                result = rerun.run()
        except ClarkeError:
            raise
        except Exception as error:  # of any kind: it is the user's function, at other values
            raise ReplayError(f"The function does not run beside the point: {error}") from error
        trace = collect_trace(recorder, _scalar(result, recorder), all_reads=True)
        trace = narrowed(trace, {e.slot for e in trace.leaves() if id(e.tensor) in own})
        return Sample(trace, values_again(trace))


def _draws_by_values(trace: Trace) -> bool:
    """How many numbers rrelu draws depends on its input: beside the point others come out."""
    return any(op.name.startswith("aten::rrelu_with_noise") and op.drawn for op in trace.ops)


def _rewritten(changed: Sequence[torch.Tensor], recorder: RefusingRecorder) -> Location | None:
    """Where one of some variables was written to by the function itself."""
    held = (x.untyped_storage()._cdata for x in changed if x.layout == torch.strided)
    return next((recorder.rewritten[m] for m in held if m in recorder.rewritten), None)


def _called(
    function: Callable[..., Any], arguments: tuple[Any, ...], recorder: RefusingRecorder
) -> Any:
    try:
        return function(*arguments)
    except RuntimeError as error:
        if recorder.refusal is not None and error is not recorder.refusal:
            raise recorder.refusal from error
        raise


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


def _scalar(output: Any, recorder: RefusingRecorder) -> torch.Tensor:
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
            else "nothing that requires a gradient reaches it (or a branch of Python returned a "
            "constant), or it ran under torch.no_grad"
        )
        raise InputError(
            f"The result does not require a gradient: {why}. "
            "Call requires_grad_() on the inputs, or leave the no-grad block."
        )
    return output


def _known_leaves(
    trace: Trace, output: torch.Tensor, inputs: Sequence[Any]
) -> tuple[torch.Tensor, ...]:
    """All leaves: inputs in their order, then others in the order of first use."""
    known = {id(e.tensor): e.tensor for e in trace.leaves()}
    for x in reached_leaves(output):
        known.setdefault(id(x), x)
    first = [x for x in inputs if id(x) in known]
    return tuple({id(x): x for x in (*first, *known.values())}.values())


def _leaves(
    known: Sequence[torch.Tensor], given: dict[int, bool], made: Made, rerun: Rerun
) -> list[torch.Tensor]:
    """The variables: what the function was given or closes over, not what it makes itself."""
    own = {id(x): False if id(x) in given else made.is_made(x) for x in known}
    if None in own.values():
        again = {id(x) for x in rerun.leaves()}
        own = {i: i not in again if m is None else m for i, m in own.items()}
    old = [x for x in known if not own[id(x)]]
    chosen = [x for x in old if given.get(id(x), True)] or old
    if not chosen:
        raise InputError(
            "Every leaf that the result depends on is made by the function itself, so there is no "
            "gradient for anybody to use. Make it before the call, and pass it as an input."
        )
    return chosen


def _named(known: Sequence[torch.Tensor], wrt: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    found = {id(x) for x in known}
    for i, x in enumerate(wrt):
        if id(x) not in found:
            raise InputError(
                f"Tensor {i} of `wrt` is not a leaf that the result depends on. Pass "
                "leaves that require gradients and are used by the function."
            )
    return list(wrt)
