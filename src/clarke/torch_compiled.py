"""What clarke uses of torch.compile's insides, under names that torch does not promise to keep.

Without them compiled programs run under an audit as ever, and none of their steps is judged.

Dynamo turns a function into bytecode that calls *compiled functions*, one for each graph: it finds
them as globals of the function's module, under names of its own. So another function may stand in
the place of each while somebody wants to know what it is called with, and nothing is compiled
otherwise, or again.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from clarke.torch_private import never_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PREFIX = "__compiled_fn"
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
        hook, manager = getattr(utils, "CleanupHook", None), getattr(utils, "CleanupManager", None)
        graph = getattr(graphs, "OutputGraph", None)
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
    """Whether what a backend returned is the graph that it was given: its operations run plainly."""
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
            torch._C._autograd._unsafe_set_version_counter(tensors, versions)  # noqa: SLF001 - has no public name


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
