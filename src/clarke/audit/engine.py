"""Stand between the user's program and autograd's engine while an audit is open.

`Tensor.backward`, `torch.autograd.backward` and `torch.autograd.grad` all hand their arguments,
checked and brought to one form, to `torch.autograd._engine_run_backward`. A torch function mode
would see the first and the last only (before torch 2.13), and would cost every operation of the
program; replacing this one name costs nothing in between and misses nobody who imported
`backward` or `grad` by name.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import COMPILED, release_nodes
from clarke.errors import CaptureError, InputError
from clarke.torch_others import is_looked_at, shown, shows_functions
from clarke.torch_private import (
    PASSES_BY,
    is_traced,
    never_trace,
    under_eyes,
    watching_dynamo,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from typing_extensions import Self

    from clarke.capture import Recorder

_NAME = "_engine_run_backward"
_TORCH_FOLDER = str(Path(torch.__file__).parent) + os.sep
_GRADCHECK_FILE = str(Path(_TORCH_FOLDER, "autograd", "gradcheck.py"))
_OWN_FOLDER = str(Path(__file__).parents[1]) + os.sep
# As in capture/places.py: the project's own example programs and experiments are user code.
_USERS = (_OWN_FOLDER + "cli" + os.sep + "programs", _OWN_FOLDER + "experiments" + os.sep)


@dataclass(frozen=True, eq=False)
class BackwardCall:
    """One call of the engine.

    Attributes:
        roots: What is differentiated; all are tensors.
        weights: What it is multiplied with, one for each root; None for a root without gradient.
        inputs: With respect to what; empty for "all leaves".
        retain_graph: The graph stays usable.
        create_graph: The gradients are themselves differentiable.
        accumulates: The results are added to ``.grad``, not returned.
        run: Performs the call and returns what the engine returns.
        refused: Why it cannot be judged, if that is known already.
        is_beside: Whether this thread is now inside of another call that leaves ``.grad`` alone.
    """

    roots: tuple[torch.Tensor, ...]
    weights: tuple[torch.Tensor | None, ...]
    inputs: tuple[Any, ...]
    retain_graph: bool
    create_graph: bool
    accumulates: bool
    run: Callable[[], Any]
    refused: str = ""
    is_beside: Callable[[], bool] = lambda: False

    @property
    def frees_graph(self) -> bool:
        """Whether nothing of what is differentiated is left afterwards.

        With `inputs`, autograd keeps what lies before them; so does the record until it goes.
        """
        return not self.retain_graph and not self.inputs


class _Depth(threading.local):
    """How many engine calls of a thread are under way that leave ``.grad`` alone."""

    calls = 0


class Interceptor:
    """Hands the engine calls of one thread to a handler; used as a context manager.

    Calls made while the handler runs (by hooks, by reentrant checkpoints, by clarke itself) and
    calls of other threads pass through untouched.

    Attributes:
        glance: Called as the engine was, behind the caller's frame and the result, once it has
            run; if it returns True, the handler does not hear of the call. None: it hears of all.
    """

    def __init__(self, handler: Callable[[BackwardCall], Any]) -> None:
        self._handler = handler
        self._original: Callable[..., Any] | None = None
        self._thread = 0
        self._busy = False
        self._beside = _Depth()
        self.glance: Callable[..., bool] | None = None

    def __enter__(self) -> Self:
        current = getattr(torch.autograd, _NAME, None)
        if isinstance(current, Interceptor):
            raise InputError(
                "An audit is already running. Audits cannot be nested: leave the outer "
                "`with clarke.audit()` block first, or judge a single call with clarke.check."
            )
        if current is None:
            raise CaptureError(
                f"torch {torch.__version__} has no torch.autograd.{_NAME}, through which clarke "
                "follows backward calls. Use a version of torch that clarke was tested with."
            )
        never_trace(Interceptor.__call__, calls_too=False)
        never_trace(Interceptor._hand_over, calls_too=True)
        self._original = current
        self._thread = threading.get_ident()
        setattr(torch.autograd, _NAME, self)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let go of the engine; also where that has been done, or was never needed."""
        if getattr(torch.autograd, _NAME, None) is self:
            setattr(torch.autograd, _NAME, self._original)

    def listen(self) -> None:
        """The next call is handed over, whatever came of this one."""
        self._busy = False

    def __call__(self, roots: Any, *args: Any, **kwargs: Any) -> Any:
        """Stand in for the engine."""
        original = self._original
        if original is None:  # pragma: no cover - installed by __enter__ only
            raise CaptureError("internal: the interceptor is not installed")
        eyes = watching_dynamo()
        if self._busy or threading.get_ident() != self._thread:
            return self._pass_through(original, roots, args, kwargs)
        if eyes in (None, False):
            if not shows_functions(roots):
                return self._hand_over(original, roots, args, kwargs)
            engine = shown(original)
            with torch._C.DisableTorchFunction():
                return self._hand_over(engine, roots, args, kwargs)
        # Hooks and compiled autograd run here as they would without: under dynamo's eyes.
        if PASSES_BY:
            return self._hand_over(under_eyes(original, eyes), roots, args, kwargs)
        result = original(roots, *args, **kwargs)
        return self._hand_over(lambda *_args, **_kwargs: result, roots, args, kwargs, COMPILED)

    def _pass_through(
        self,
        engine: Callable[..., Any],
        roots: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A call inside of another, or of another thread; hooks on leaves run in it as well."""
        if kwargs.get("accumulate_grad", False):
            return engine(roots, *args, **kwargs)
        self._beside.calls += 1
        try:
            return engine(roots, *args, **kwargs)
        finally:
            self._beside.calls -= 1

    def _hand_over(
        self,
        engine: Callable[..., Any],
        roots: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        refused: str = "",
    ) -> Any:
        caller = None if is_traced() or is_looked_at() else _caller(sys._getframe(2))
        if caller is None:
            return engine(roots, *args, **kwargs)
        if self.glance is not None:
            self._busy = True
            try:
                result = engine(roots, *args, **kwargs)
                if self.glance(caller, result, roots, *args, **kwargs):
                    return result
            finally:
                self._busy = False
            made = result
            engine = lambda *_args, **_kwargs: made  # noqa: E731 - what follows looks at it only
        weights, retain_graph, create_graph, inputs = args[:4]
        call = BackwardCall(
            roots=tuple(roots),
            weights=tuple(weights),
            inputs=tuple(inputs or ()),
            retain_graph=bool(retain_graph),
            create_graph=bool(create_graph),
            accumulates=bool(kwargs.get("accumulate_grad", False)),
            run=lambda: engine(roots, *args, **kwargs),
            refused=refused,
            is_beside=lambda: self._beside.calls > 0,
        )
        self._busy = True
        self._beside.calls = 0  # an interrupt may have come before it was put back
        try:
            return self._handler(call)
        finally:
            self._busy = False


def _caller(frame: FrameType | None) -> FrameType | None:
    """Who differentiates; None for clarke itself and torch's gradcheck: at points of their own."""
    start = caller = frame
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_TORCH_FOLDER):
            if name.startswith(_OWN_FOLDER) and not name.startswith(_USERS):
                return None
            break
        if name == _GRADCHECK_FILE:
            return None
        frame = frame.f_back
    caller = frame or start
    while frame is not None:
        if frame.f_code.co_filename == _GRADCHECK_FILE:
            return None
        frame = frame.f_back
    return caller


def levels_up_to(file: str, line: int) -> int:
    """The `stacklevel` with which a caller's `warnings.warn` points at `file`:`line`."""
    frame = sys._getframe(1)
    level = 1
    while frame is not None:
        if frame.f_code.co_filename == file and frame.f_lineno == line:
            return level
        frame = frame.f_back  # type: ignore[assignment]
        level += 1
    return 2


def run_call(call: BackwardCall, recorder: Recorder) -> Any:
    """Let autograd do what the user asked for, unrecorded unless its results have a graph."""
    with contextlib.nullcontext() if call.create_graph else recorder.aside():
        return call.run()


def forget(call: BackwardCall, recorder: Recorder) -> None:
    """Drop the record of what a call differentiates, where autograd drops its graph."""
    if not call.frees_graph:
        return
    for root in call.roots:
        if isinstance(root, torch.Tensor):
            release_nodes(recorder, root)
