"""What clarke uses of torch under names that torch does not promise to keep.

Each part says what is lost where a version of torch lacks it.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch._guards import TracingContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

    from typing_extensions import Self

T = TypeVar("T")

_OWN_FUNCTIONS = ("torch._functorch._aot_autograd", "torch._higher_order_ops", "torch._dynamo")
_FRAMES: Final[Any] = torch._C._dynamo.eval_frame  # noqa: SLF001 - has no public name


# --- torch.compile -------------------------------------------------------------------------------


# Of this thread: what dynamo calls for every new frame; None or False where it is not at work.
# Functions of clarke's own must not be called before it has been asked.
watching_dynamo: Final[Any] = _FRAMES.get_eval_frame_callback
# What torch.jit.trace writes to; None where it is not at work.
tracing_graph: Final[Any] = torch._C._get_tracing_state  # noqa: SLF001 - has no public name


def never_trace(function: FunctionType, *, calls_too: bool) -> None:
    """Let torch.compile pass by a function, and by whatever it calls where `calls_too` says so.

    What stands between a compiled program and torch runs while dynamo watches each new frame, or is
    met by dynamo in what it traces. Before torch 2.7, dynamo tries to compile it nevertheless.
    """
    strategy = getattr(_FRAMES, "_FrameExecStrategy", None)
    function._torchdynamo_disable = True  # type: ignore[attr-defined]  # noqa: SLF001 - what torch.compiler.disable sets
    function._torchdynamo_disable_msg = None  # type: ignore[attr-defined]  # noqa: SLF001 - as above
    if strategy is not None:
        action = _FRAMES._FrameAction  # noqa: SLF001 - as above
        below = action.SKIP if calls_too else action.DEFAULT
        _FRAMES.set_code_exec_strategy(function.__code__, strategy(action.SKIP, below))


def is_traced() -> bool:
    """Whether torch is looking at a program, not running it: compiling, exporting, tracing."""
    return TracingContext.try_get() is not None or tracing_graph() is not None


def is_behind_the_scenes(function: type | None) -> bool:
    """Whether a `torch.autograd.Function` is torch's own wrapper of a program it has compiled."""
    return str(getattr(function, "__module__", "")).startswith(_OWN_FUNCTIONS)


class CompileNotice:
    """Tells when the program begins to use torch.compile; a context manager.

    Global hooks, however idle, are compiled into the programs that pass them, and change what
    compiled programs are valid for: they have to be gone before the first of these runs.

    Args:
        notify: Called once, at once if something has been compiled before.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify: Callable[[], None] | None = notify
        self._compile: Any = None

    def __enter__(self) -> Self:
        self._compile = torch.compile

        @functools.wraps(torch.compile)
        def compile_(*args: Any, **kwargs: Any) -> Any:
            self._tell()
            return self._compile(*args, **kwargs)

        torch.compile = compile_
        self.look()
        return self

    def __exit__(self, *exc: object) -> None:
        torch.compile = self._compile

    def look(self) -> None:
        """Ask dynamo, which may have been called by another name."""
        # Optimizers load dynamo, too, without a backend. Where none are listed, it is in use.
        dynamo = sys.modules.get("torch._dynamo.eval_frame")
        backends = {} if dynamo is None else getattr(dynamo, "cached_backends", {0: print})
        if any(callable(b) for b in backends.values()):
            self._tell()

    def _tell(self) -> None:
        notify, self._notify = self._notify, None
        if notify is not None:
            notify()
