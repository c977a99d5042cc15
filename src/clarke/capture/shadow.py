"""What a compiled program computes, recorded from a run of what was compiled, beside it.

The user's program goes on with what the compiled function returns, to the last bit. Before that
one runs, the program that it was made from runs once under the recorder, with the same arguments,
in a world that is put back: random states, memory that it writes to, modes, and whatever else it
changes. What the compiled function then returns is taken for what was recorded, if it is that but
for roundings; the verdict is about the compiled program's own gradient (`decide.compiler`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture.aside import Rest
from clarke.capture.saving import saving_plainly
from clarke.capture.trace import Location
from clarke.capture.unharmed import (
    Generators,
    Guard,
    QuietThread,
    WritesGradientError,
    memory_of,
)
from clarke.capture.written import Written, tensors_of, written
from clarke.errors import ClarkeError, in_a_line
from clarke.numerics import COMPILED_ROUNDED
from clarke.torch_compiled import (
    CompiledCalls,
    WrittenBack,
    flat_tensors,
    runs_graph_itself,
)
from clarke.torch_private import is_entered, is_traced, never_trace, only_modes
from clarke.undo import at_the_end, leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from typing_extensions import Self

    from clarke.capture.recorder import Recorder
    from clarke.capture.trace import Trace

_REMEMBERED = 4096  # runs, of which the traces of several backward calls may consist
_MOST_AHEAD = 8  # forward passes between one and its backward call that are allowed for
_PLAIN_TYPES: Final = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
_NUMBERS: Final = (int, float, bool, str, type(None), torch.dtype, torch.device)
_NOT_HELD = "Part of this ran under torch.compile"
_INSTEAD = (
    "Judge it uncompiled: the module before torch.compile (model._orig_mod), or the whole program "
    "under torch.compiler.set_stance('force_eager')."
)


@dataclass(frozen=True, eq=False)
class Shadow:
    """One call of a compiled function that was recorded.

    Attributes:
        drew: It drew random numbers.
        gap: The largest difference of a result from that of the program as written, where it is
            more than roundings; 0 elsewhere.
        told: The same in words, with the place.
    """

    drew: bool
    gap: float = 0.0
    told: str = ""


@dataclass(frozen=True, eq=False)
class _Run:
    """What the program as written returned, and what it made of arguments that it wrote to."""

    results: tuple[Any, ...]
    drew: bool
    written: tuple[tuple[torch.Tensor, torch.Tensor], ...]


class Shadows:
    """Follows compiled functions while an audit is open; a context manager.

    Args:
        recorder: Records what ran.
        wanted: Whether the next backward call is going to be judged.
        declared: What was declared of custom Functions, which dynamo's graphs do not name: those
            with pieces, and those with a derivative of their own.

    Attributes:
        ahead: So many calls before it is judged, a call's graph is made at most.
    """

    def __init__(
        self,
        recorder: Recorder,
        wanted: Callable[[], bool],
        declared: Callable[[], tuple[Collection[type], Collection[type]]],
    ) -> None:
        self._recorder = recorder
        self._wanted = wanted
        self._declared = declared
        self._thread = threading.get_ident()
        self._rest = Rest(recorder)
        self._begun = False
        self._rested = False
        self.ahead = 0
        self._calls = CompiledCalls(self._stand_in, _taken)
        self._shadows: dict[int, Shadow] = {}  # by operation in the record

    def __enter__(self) -> Self:
        never_trace(Shadows._called, calls_too=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def begin(self) -> None:
        """The program uses torch.compile."""
        self._calls.begin()
        self._begun = True

    def stop(self) -> None:
        """Follow nothing any more; also where that has been done."""
        self._rest.stop()
        self._calls.stop()
        self._begun = False

    def rest(self, *, rests: bool) -> None:
        """Let the recorder rest until a call is to be judged, where the program is compiled."""
        if self._begun and rests:
            self._rested = True
            self._rest.start()
        else:
            self._rest.stop()

    def learn(self, missed: Callable[[], bool]) -> None:
        """See whether a judged call's graph was made before its turn, while the recorder rested."""
        if self._rested and self.ahead < _MOST_AHEAD:
            self.ahead += missed()

    # ---------------------------------------------------------------- what is known

    def __bool__(self) -> bool:
        return bool(self._shadows)

    def of(self, trace: Trace) -> tuple[Shadow, ...]:
        """The compiled functions that a trace is made of."""
        found = (self._shadows.get(op.index) for op in trace.ops)
        return tuple(s for s in found if s is not None)

    # ---------------------------------------------------------------- one call

    def _stand_in(self, compiled: Any, program: Written | None) -> Any:
        """What is called in the place of a compiled function."""
        plain = runs_graph_itself(compiled)

        def stand_in(*args: Any) -> Any:
            recorder = self._recorder
            if recorder.rests or recorder.paused or threading.get_ident() != self._thread:
                return compiled(*args)
            return self._called(compiled, program, args, plain=plain)

        return stand_in

    def _called(
        self, compiled: Any, program: Written | None, args: tuple[Any, ...], *, plain: bool
    ) -> Any:
        recorder = self._recorder
        if recorder.stands_aside or not is_entered(recorder) or is_traced():
            return compiled(*args)
        wanted = self._wanted()
        if plain and wanted and (program is None or program.refusal):
            return compiled(*args)  # and is recorded like anything else
        run: _Run | str = ""
        graded = torch.is_grad_enabled()
        matters = recorder.matters(list(tensors_of(args)))
        if wanted and graded and matters:
            run = "is not known to clarke" if program is None else self._recorded(program, args)
        for tensor, _ in run.written if isinstance(run, _Run) else ():
            recorder.read_leaf(tensor)
            recorder.protect(tensor)
        with recorder.aside():
            result = compiled(*args)
        if isinstance(run, _Run):
            self._bind(run, args, result)
        elif run:
            self._refuse(result, f"{_NOT_HELD}, and what was compiled {run}. {_INSTEAD}")
        elif matters and not graded:
            recorder.note_cut(flat_tensors(result))
        return result

    def _refuse(self, result: Any, why: str) -> None:
        for tensor in tensors_of(result):
            if tensor.requires_grad:
                self._recorder.unfollowed.set(tensor, why)

    def _recorded(self, program: Written, args: tuple[Any, ...]) -> _Run | str:
        """A recorded run of the program; or why there is none, in words."""
        if program.refusal:
            return f"uses {program.refusal}"
        name = self._misnamed(program)
        if name:
            return (
                f"may use {name}, a custom autograd.Function that was declared "
                "(register_function): torch.compile does not tell the name"
            )
        for a in args:
            known = type(a) in _PLAIN_TYPES if isinstance(a, torch.Tensor) else None
            if known is False or (known is None and not isinstance(a, _NUMBERS)):
                return f"takes an argument of type {type(a).__name__}"
        try:
            try:
                return self._apart(program, args)
            except WritesGradientError as error:
                return self._apart(program, args, error.places)
        except WritesGradientError:
            return "writes to a tensor that it was given and to a view of it"
        except ClarkeError as error:
            return f"could not be followed: {error}"
        except Exception as error:  # noqa: BLE001 - no failure here may reach the training
            return f"raises {in_a_line(error)} when it runs uncompiled"

    def _misnamed(self, program: Written) -> str:
        """A declared Function that a program may apply without being seen to; "" for none."""
        if not program.applies:
            return ""
        pieces, surrogates = self._declared()
        for kinds, allowed in ((pieces, (False,)), (surrogates, (False, True))):
            for kind in kinds:
                if any(d.is_of(kind) not in allowed for d in program.applies):
                    return kind.__name__
        return ""

    @leaves_no_trace
    def _apart(self, program: Written, args: tuple[Any, ...], copied: tuple[int, ...] = ()) -> _Run:
        """Run the program with nothing but the recorder watching, and put everything back.

        Args:
            program: The program.
            args: Its arguments.
            copied: Those in whose place it is given copies.
        """
        recorder, memory = self._recorder, WrittenBack(tensors_of(args))
        generators = Generators(a for a in args if isinstance(a, torch.Generator))
        quiet, cached = QuietThread(), torch.is_autocast_cache_enabled()
        for action in (generators.restore, memory.restore, quiet.stop):
            at_the_end(action)
        at_the_end(partial(torch.set_autocast_cache_enabled, cached))
        at_the_end(partial(setattr, recorder.places, "pinned", None))
        start, _ = recorder.places.here()

        def at(place: tuple[str, str, int, str]) -> None:
            recorder.places.pinned = _placed(start, place)

        quiet.start()
        only_modes(recorder)
        # What is kept there would be used by the user's program, and be part of its graph.
        torch.set_autocast_cache_enabled(False)
        with (
            torch._C.DisableTorchFunction(),
            saving_plainly(),
            torch.autograd.set_detect_anomaly(False),
        ):
            copies = {i: args[i].clone() for i in copied}
            only_modes(recorder, Guard(args, memory, recorder.operators))
            given = [copies.get(i, a) for i, a in enumerate(args)]
            results = tuple(flat_tensors(program.run(given, at)))
            written_to = tuple((args[i], copy) for i, copy in copies.items())
            return _Run(results, generators.have_drawn(), written_to)

    def _bind(self, run: _Run, args: tuple[Any, ...], result: Any) -> None:
        """Take what a compiled function returned for what was recorded."""
        recorder = self._recorder
        pairs = [
            (a, b)
            for a, b in zip(run.results, flat_tensors(result), strict=True)
            if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a is not b
        ]
        gap, told = 0.0, ""
        with torch._C._DisableTorchDispatch():  # noqa: SLF001 - has no public name
            for number, (a, b) in enumerate(pairs):
                found, where = _beyond_rounding(a, b)
                if found > gap:
                    gap, told = found, f"result {number} {where}"
        shadow = Shadow(run.drew, gap, told)
        given = {memory_of(t) for t in tensors_of(args)}
        for a, b in pairs:
            if _is_other(a, b, given):
                why = "returns another kind of tensor than it does uncompiled"
                self._refuse([b], f"{_NOT_HELD}, and what was compiled {why}. {_INSTEAD}")
                continue
            made_by = recorder.take_for(b, a)
            if made_by:
                self._shadows[made_by] = shadow
        for tensor, copy in run.written:
            recorder.written_as(tensor, copy)
            self._shadows[recorder.count] = shadow
        while len(self._shadows) > _REMEMBERED:
            self._shadows.pop(next(iter(self._shadows)))


def _is_other(a: torch.Tensor, b: torch.Tensor, given: set[int]) -> bool:
    """Whether one result cannot stand for the other.

    Args:
        a: A result.
        b: The other one.
        given: The memory of what the program was given, which both have to share, or none.
    """
    alike = (a.requires_grad, a.shape, a.dtype, a.layout) == (
        *(b.requires_grad, b.shape, b.dtype, b.layout),
    )
    one, two = memory_of(a), memory_of(b)
    return not alike or (one != two and (one in given or two in given))


def _taken(graph: Any) -> Written | None:
    """The program behind a graph; None where it has a form that is not known."""
    try:
        return written(graph)
    except Exception:  # noqa: BLE001 - the user's compilation goes on
        return None


def _placed(start: Location, place: tuple[str, str, int, str]) -> Location:
    """A location below that of the compiled function's call."""
    below, file, line, function = place
    module = ".".join(name for name in (start.module, below) if name)
    if not file:
        return Location(module, start.file, start.line, start.function)
    return Location(module, file, line, function)


def _beyond_rounding(a: torch.Tensor, b: torch.Tensor) -> tuple[float, str]:
    """How far two results are apart, and where, if by more than roundings."""
    if not a.is_floating_point() or a.shape != b.shape or not a.numel() or torch.equal(a, b):
        return 0.0, ""
    one, two = a.detach().to(torch.float64), b.detach().to(torch.float64)
    same = torch.eq(one, two) | (torch.isnan(one) & torch.isnan(two))
    gaps = torch.where(same, 0.0, (one - two).abs()).nan_to_num(nan=torch.inf).reshape(-1)
    room = torch.finfo(a.dtype).eps ** float(COMPILED_ROUNDED)
    sizes = torch.maximum(one.abs(), two.abs()).nan_to_num(posinf=0)
    worst = float(gaps.max())
    if worst <= room * float(sizes.max()):
        return 0.0, ""
    at = int(gaps.argmax())
    place = [int(k) for k in torch.unravel_index(torch.tensor(at), a.shape)]
    found, beside = float(two.reshape(-1)[at]), float(one.reshape(-1)[at])
    return worst, f"at {place}: {found:.6g} compiled, {beside:.6g} as written"
