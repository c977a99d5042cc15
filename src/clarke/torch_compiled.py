"""What clarke uses of torch.compile's insides, under names that torch does not promise to keep.

Without them compiled programs run under an audit as ever, and none of their steps is judged.

Dynamo turns a function into bytecode that calls *compiled functions*, one for each graph: it finds
them as globals of the function's module, under names of its own. So another function may stand in
the place of each while somebody wants to know what it is called with, and nothing is compiled
otherwise, or again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import torch

from clarke.torch_private import never_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Self

_PREFIX = "__compiled_fn"
_set_versions: Final[Any] = torch._C._autograd._unsafe_set_version_counter  # noqa: SLF001 - as above
_DEPTH = 8  # functions around a compiled one that are looked through


class _Swapped(NamedTuple):
    """A global of the user's module, and what stands in its place."""

    scope: dict[str, Any]
    name: str
    own: Any
    other: Any


class CompiledCalls:
    """Lets something stand in the place of every compiled function, from `begin` to `stop`.

    Args:
        make: Called with a compiled function and the graph that it was made from, before a backend
            has changed that (None where it is not known); returns what is called in its place.
        take: Makes of a graph what `make` is given, while it is as dynamo has drawn it.
    """

    def __init__(self, make: Callable[[Any, Any], Any], take: Callable[[Any], Any]) -> None:
        self._make = make
        self._take = take
        self._swapped: list[_Swapped] = []
        self._drawn: list[Any] = []  # the last graph that went to a backend
        self._patches: list[tuple[Any, str, Any, Any]] = []

    def begin(self) -> None:
        """Begin, once torch.compile is in use; also where this has begun."""
        if self._patches:
            return
        utils: Any = importlib.import_module("torch._dynamo.utils")
        graphs: Any = importlib.import_module("torch._dynamo.output_graph")
        hook: Any = getattr(utils, "CleanupHook", None)
        manager: Any = getattr(utils, "CleanupManager", None)
        graph: Any = getattr(graphs, "OutputGraph", None)
        if manager is None or not hasattr(graph, "call_user_compiler"):
            return
        create, compiles = hook.create, graph.call_user_compiler

        def call_user_compiler(output: Any, gm: Any, *args: Any, **kwargs: Any) -> Any:
            self._drawn[:] = [self._take(gm)]
            return compiles(output, gm, *args, **kwargs)

        def create_hook(scope: dict[str, Any], name: str, value: Any) -> Any:
            found = create(scope, name, value)
            if name.startswith(_PREFIX):
                self._swap(scope, name, self._drawn.pop() if self._drawn else None)
            return found

        for owner, name, other in (
            (graph, "call_user_compiler", call_user_compiler),
            (hook, "create", staticmethod(create_hook)),
        ):
            self._patches.append((owner, name, owner.__dict__[name], other))
            setattr(owner, name, other)
        for cleanups in list(manager.instance.values.values()):
            for cleanup in cleanups:
                if cleanup.name.startswith(_PREFIX) and cleanup.name in cleanup.scope:
                    self._swap(cleanup.scope, cleanup.name, None)

    def _swap(self, scope: dict[str, Any], name: str, drawn: Any) -> None:
        own = scope[name]
        if drawn is None:
            graph = _graph_of(own)
            drawn = None if graph is None else self._take(graph)
        other = self._make(own, drawn)
        never_trace(other, calls_too=False)
        # Written down first: an interrupt may come at any step.
        self._swapped.append(_Swapped(scope, name, own, other))
        scope[name] = other

    def stop(self) -> None:
        """Put torch's own back; also where that has been done, or was never needed."""
        for owner, name, own, other in reversed(self._patches):
            if owner.__dict__.get(name) is other:
                setattr(owner, name, own)
        self._patches = []
        for one in self._swapped:
            if one.scope.get(one.name) is one.other:
                one.scope[one.name] = one.own
        self._swapped = []
        self._drawn.clear()


def runs_graph_itself(function: Any) -> bool:
    """Whether what a backend returned is the graph that it was given, which runs plainly."""
    owner = getattr(_innermost(function), "__self__", None)
    return isinstance(owner, torch.fx.GraphModule)


def _innermost(function: Any) -> Any:
    """A compiled function without what dynamo puts around it."""
    for _ in range(_DEPTH):
        inner = getattr(function, "_torchdynamo_orig_callable", None)
        if inner is None:
            break
        function = inner
    return function


def _graph_of(function: Any) -> Any:
    """The graph that a compiled function was made from, where it is known to hold it."""
    inner = _innermost(function)
    for owner in (
        getattr(inner, "__self__", None),
        getattr(getattr(inner, "zero_grad", None), "__self__", None),  # as AOTAutograd leaves it
    ):
        if isinstance(owner, torch.fx.GraphModule):
            return owner
    return None


class WrittenBack:
    """Memory as it was, to put it back without autograd's notice.

    Args:
        tensors: Those whose versions, autograd's counts of writes, are put back.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._copies: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._versions = [(t, t._version) for t in tensors if not t.is_inference()]

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._copies

    def remember(self, tensor: torch.Tensor) -> None:
        """Copy a tensor's memory."""
        memory = tensor.untyped_storage()
        with torch._C._DisableTorchDispatch():  # noqa: SLF001 - has no public name
            self._copies[memory._cdata] = (memory, memory.clone())

    def restore(self) -> None:
        """Put everything back; may be called repeatedly."""
        with torch._C._DisableTorchDispatch():  # noqa: SLF001 - has no public name
            for memory, copy in self._copies.values():
                memory.copy_(copy)
        changed = [(t, v) for t, v in self._versions if t._version != v]
        if changed:
            tensors, versions = zip(*changed, strict=True)
            _set_versions(tensors, versions)


def compiles_backward() -> bool:
    """Whether backward passes are compiled, too: hooks are then part of what is compiled."""
    found: Any = sys.modules.get("torch._dynamo.compiled_autograd")
    return bool(getattr(found, "compiled_autograd_enabled", False))


def plain_backward() -> contextlib.AbstractContextManager[Any]:
    """Backward passes run uncompiled."""
    found: Any = sys.modules.get("torch._dynamo.compiled_autograd")
    if not compiles_backward() or not hasattr(found, "_disable"):
        return contextlib.nullcontext()
    return cast("contextlib.AbstractContextManager[Any]", found._disable())  # noqa: SLF001 - has no public name


def flat_tensors(result: Any) -> Iterator[Any]:
    """What a compiled function returned, one by one."""
    yield from result if isinstance(result, (tuple, list)) else (result,)


# --- which programs run compiled ------------------------------------------------------------------


def runs_as_written() -> bool:
    """Whether compiled programs run uncompiled now, as in `torch.compiler.set_stance`."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return getattr(getattr(dynamo, "_stance", None), "stance", "") == "force_eager"


def runs_compiled() -> bool:
    """Whether the caller runs in what dynamo has compiled, where it does not watch.

    Also where that `runs_as_written`. Never without the names of torch 2.13.
    """
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is None:
        return False
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "compile_wrapper" and code.co_filename == dynamo.__file__:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


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
        self._stopped = False

    def __enter__(self) -> Self:
        self._compile = torch.compile

        @functools.wraps(torch.compile)
        def compile_(*args: Any, **kwargs: Any) -> Any:
            self._tell()
            return self._compile(*args, **kwargs)

        compile_.stands_in = self  # type: ignore[attr-defined]  # for whoever takes it away
        torch.compile = compile_
        self.look()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Put torch's own function back, where that is to be done."""
        self._stopped = True
        # Those of other threads come and go in any order: whoever is on top takes others along.
        while True:
            there: Any = getattr(torch.compile, "stands_in", None)
            if not isinstance(there, CompileNotice) or not there._stopped:  # noqa: SLF001 - of this class
                return
            torch.compile = there._compile  # noqa: SLF001 - as above

    def look(self) -> None:
        """Ask dynamo, which may have been called by another name."""
        # Optimizers load dynamo, too, without a backend. Where none are listed, it is in use.
        dynamo = sys.modules.get("torch._dynamo.eval_frame")
        backends = {} if dynamo is None else getattr(dynamo, "cached_backends", {0: print})
        if any(callable(b) for b in backends.values()):
            self._tell()

    def _tell(self) -> None:
        notify, self._notify = self._notify, None
        if notify is not None and not self._stopped:
            notify()


class _StanceOfThreads:
    """Stands for the stance of torch.compile, which is one for all threads: in some it is another.

    Attributes:
        other: What it stands for.
        eager: The threads in which compiled programs run uncompiled.
    """

    def __init__(self, other: Any) -> None:
        self.other = other
        self.eager: dict[int, None] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.other, name)

    @property
    def stance(self) -> str:
        return "force_eager" if threading.get_ident() in self.eager else str(self.other.stance)


class AsWritten:
    """In this thread compiled programs run as they were written; a context manager, used once.

    Where nothing has been compiled, nothing is touched. Whatever an interrupt cuts short is done by
    another `stop`. Threads that switch at the very same moment may lose it; compiled programs
    then run compiled, which whoever records notices.

    Attributes:
        forced: Programs would run compiled if this were not entered.
    """

    def __init__(self) -> None:
        self.forced = False
        self._mine: _StanceOfThreads | None = None
        self._filters: list[Any] = []
        self._notice = CompileNotice(self._force)
        # Of hooks, such as those that follow which module runs; the user's are met elsewhere.
        told = re.compile("Using `torch.compile.module.` when there are global hooks")
        self._quiet = ("ignore", told, UserWarning, None, 0)

    def __enter__(self) -> Self:
        self._notice.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let them run compiled again; also where that has been done."""
        self._notice.stop()
        # By identity: an equal one may be another thread's.
        for filters in (self._filters, cast("list[Any]", warnings.filters)):
            for entry in [f for f in filters if f is self._quiet]:
                filters.remove(entry)
        mine = self._mine
        if mine is None:
            return
        mine.eager.pop(threading.get_ident(), None)
        dynamo: Any = sys.modules["torch._dynamo.eval_frame"]
        if dynamo._stance is mine and not mine.eager:  # noqa: SLF001 - has no public name
            dynamo._stance = mine.other  # noqa: SLF001 - as above

    def _force(self) -> None:
        if runs_as_written():
            return
        self.forced = True
        dynamo: Any = importlib.import_module("torch._dynamo.eval_frame")
        now = dynamo._stance  # noqa: SLF001 - has no public name
        # Written down first: an interrupt may come at any step.
        self._mine = mine = now if isinstance(now, _StanceOfThreads) else _StanceOfThreads(now)
        mine.eager[threading.get_ident()] = None
        dynamo._stance = mine  # noqa: SLF001 - as above
        self._filters = cast("list[Any]", warnings.filters)
        self._filters.insert(0, self._quiet)
