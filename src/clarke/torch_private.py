"""What clarke uses of torch under names that torch does not promise to keep.

Each part says what is lost where a version of torch lacks it.
"""

from __future__ import annotations

import itertools
import operator
import sys
import threading
import weakref
from functools import partial
from operator import methodcaller
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch._C import _get_dispatch_stack_at, _len_torch_dispatch_stack
from torch._guards import TracingContext
from torch.overrides import _pop_mode
from torch.utils import _python_dispatch

from clarke.devices import device_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


T = TypeVar("T")

_OWN_FUNCTIONS = ("torch._functorch._aot_autograd", "torch._higher_order_ops", "torch._dynamo")
_FRAMES: Final[Any] = torch._C._dynamo.eval_frame  # noqa: SLF001 - has no public name


def at_once(*steps: Callable[[], T]) -> list[T]:
    """Call functions that are C's one after another, with no step of Python's in between.

    An interrupt cannot come between what is counted up and what is counted down again.
    """
    return list(map(methodcaller("__call__"), steps))


def run_of(overload: Any) -> Any:
    """What runs an operator overload, without a step of Python's on the way where there is one.

    Without it, the overload itself does the same and takes longer.
    """
    plainly = type(overload) is torch._ops.OpOverload
    return getattr(overload, "_op", overload) if plainly else overload


# --- torch.compile -------------------------------------------------------------------------------


# Of this thread: what dynamo calls for every new frame; None or False where it is not at work.
# Functions of clarke's own must not be called before it has been asked.
watching_dynamo: Final[Any] = _FRAMES.get_eval_frame_callback
# What torch.jit.trace writes to; None where it is not at work.
tracing_graph: Final[Any] = torch._C._get_tracing_state  # noqa: SLF001 - has no public name


# Whether `never_trace` keeps dynamo off what a function calls, since torch 2.7.
PASSES_BY: Final = hasattr(_FRAMES, "_FrameExecStrategy")


def under_eyes(function: Callable[..., T], eyes: Any) -> Callable[..., T]:
    """A function that runs under dynamo's eyes where its caller does not.

    Args:
        function: The function.
        eyes: What `watching_dynamo` returned where it is as it should be.
    """

    def call(*args: Any, **kwargs: Any) -> T:
        before = _FRAMES.set_eval_frame(eyes)
        try:
            return function(*args, **kwargs)
        finally:
            _FRAMES.set_eval_frame(before)

    return call


def never_trace(function: Callable[..., Any], *, calls_too: bool) -> None:
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


def name_as_written(name: str) -> str:
    """The name of a module or parameter, without the modules that torch.compile put around it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def is_traced() -> bool:
    """Whether torch is looking at a program, not running it: compiling, exporting, tracing."""
    return TracingContext.try_get() is not None or tracing_graph() is not None


def is_behind_the_scenes(function: type | None) -> bool:
    """Whether a `torch.autograd.Function` is torch's own wrapper of a program it has compiled."""
    return str(getattr(function, "__module__", "")).startswith(_OWN_FUNCTIONS)


def functions_defined() -> object:
    """Equal to what it was as long as no class of `torch.autograd.Function` has been defined.

    Without torch's counter it never is, and every class is looked at again each time.
    """
    counter = getattr(torch.autograd.function, "AUTOGRAD_FUNCTION_COUNTER", None)
    return object() if counter is None else repr(counter)


# --- the modes of a thread -----------------------------------------------------------------------

_top_hooks: Final[Any] = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)  # noqa: SLF001 - has no public name
_count_up: Final[Any] = torch._C._vmapmode_increment_nesting  # noqa: SLF001 - as above
_count_down: Final[Any] = torch._C._vmapmode_decrement_nesting  # noqa: SLF001 - as above
_pop_dispatch: Final = partial(torch._C._pop_torch_dispatch_stack, None)  # noqa: SLF001 - as above
_push_dispatch: Final[Any] = torch._C._push_on_torch_dispatch_stack  # noqa: SLF001 - as above
_functions_stacked: Final[Any] = torch._C._len_torch_function_stack  # noqa: SLF001 - as above
_FLAGS: Final = tuple(  # what torch's dispatch modes keep beside their stack
    name
    for name in vars(_python_dispatch)
    if name.startswith("_is_in_") and name.endswith(("mode", "internals"))
)


_forward_gradients: Final[Any] = getattr(torch._C, "_is_fwd_grad_enabled", None)


def may_be_in_forward() -> bool:
    """Whether a custom Function's forward may be running; the stack tells.

    Autograd switches forward mode off for it, which a program that switches gradients on again
    leaves as it is. Where torch does not say, one may.
    """
    return _forward_gradients is None or not _forward_gradients()


class ThreadState:
    """The modes of this thread, as they are now, to put them back: once or several times."""

    def __init__(self) -> None:
        self._grad = torch.is_grad_enabled()
        self._modes = modes()
        self._flags = [getattr(_python_dispatch, name) for name in _FLAGS]
        self._functions = _functions_stacked()
        self._seen = torch._C._is_torch_function_enabled()  # noqa: SLF001 - has no public name
        self._hooks = saved_tensors_hooks()
        self._anomaly = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
        self._autocast = {d: torch.is_autocast_enabled(d) for d in device_types()}
        self._nesting = _autocast_nesting()

    def restore(self) -> None:
        """Put back what has changed."""
        now = modes()
        if now != self._modes:
            _stack(self._modes)
        for name, value in zip(_FLAGS, self._flags, strict=True):
            setattr(_python_dispatch, name, value)
        while _functions_stacked() > self._functions:
            _pop_mode()
        if self._seen and not torch._C._is_torch_function_enabled():  # noqa: SLF001 - as above
            torch._C.DisableTorchFunction().__exit__(None, None, None)  # of one never entered
        while (found := saved_tensors_hooks()) is not None and found != self._hooks:
            torch._C._autograd._pop_saved_tensors_default_hooks()  # noqa: SLF001 - as above
        torch.set_anomaly_enabled(*self._anomaly)
        for device, cast in self._autocast.items():
            torch.set_autocast_enabled(device, cast)
        while _autocast_nesting() > self._nesting:
            torch.autocast_decrement_nesting()
        torch._C._set_grad_enabled(self._grad)  # noqa: SLF001 - without a mode's eyes


def mode_flags() -> tuple[bool, ...]:
    """What torch keeps of the modes of this thread beside their stack."""
    return tuple(getattr(_python_dispatch, name) for name in _FLAGS)


def leave_mode(mode: Any, flags: tuple[bool, ...]) -> None:
    """Take a dispatch mode off the stack, wherever it is there; also where it is not.

    Args:
        mode: The mode.
        flags: `mode_flags` from before it was entered.
    """
    now = modes()
    if not any(m is mode for m in now):
        return
    for name, value in zip(_FLAGS, flags, strict=True):
        setattr(_python_dispatch, name, value)
    _stack(tuple(m for m in now if m is not mode))


def is_on_top(mode: Any) -> bool:
    """Whether operations meet this dispatch mode first."""
    depth = _len_torch_dispatch_stack()
    return depth > 0 and _get_dispatch_stack_at(depth - 1) is mode


def is_entered(mode: Any) -> bool:
    """Whether a dispatch mode is on the stack."""
    return any(m is mode for m in modes())


def step_off() -> None:
    """Take the uppermost dispatch mode off the stack."""
    _pop_dispatch()


def step_on(mode: Any) -> None:
    """Put a dispatch mode on top of the stack."""
    _push_dispatch(mode)


def take_off(mode: Any) -> int:
    """Take a dispatch mode off the stack, wherever it is there; returns how many are below it."""
    now = modes()
    _stack(tuple(m for m in now if m is not mode))
    return next((i for i, m in enumerate(now) if m is mode), len(now))


def put_on(mode: Any, below: int) -> None:
    """Put a dispatch mode on the stack, above so many others."""
    now = tuple(m for m in modes() if m is not mode)
    _stack((*now[:below], mode, *now[below:]))


def only_modes(*modes: Any) -> None:
    """Make these the dispatch modes of this thread; `ThreadState` puts the others back."""
    _stack(modes)


def _stack(wanted: tuple[Any, ...]) -> None:
    """Make these the dispatch modes of this thread."""
    now = modes()
    pairs = zip(now, wanted, strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda p: p[0] is p[1], pairs))
    # At once: those above may be the user's.
    at_once(
        *[_pop_dispatch] * (len(now) - common),
        *(partial(_push_dispatch, m) for m in wanted[common:]),
    )


def modes() -> tuple[Any, ...]:
    """The dispatch modes of this thread, the lowest first."""
    return tuple([_get_dispatch_stack_at(i) for i in range(_len_torch_dispatch_stack())])


def _autocast_nesting() -> int:
    return int(at_once(torch.autocast_increment_nesting, torch.autocast_decrement_nesting)[1])


def vmap_nesting() -> int:
    """How many of autograd's own vmaps (``is_grads_batched``) are running."""
    return int(at_once(_count_up, _count_down)[0]) - 1


_wrapped: Final[Any] = torch._C._functorch.is_functorch_wrapped_tensor  # noqa: SLF001 - as above
_at_work: Final[Any] = torch._C._are_functorch_transforms_active  # noqa: SLF001 - as above


def is_transformed() -> bool:
    """Whether torch.func or autograd's own vmap (``is_grads_batched``) is running."""
    return bool(_at_work()) or vmap_nesting() > 0


def is_of_transform(value: object) -> bool:
    """Whether a tensor is one that torch.func shows to the function that it transforms."""
    return isinstance(value, torch.Tensor) and bool(_wrapped(value))


# The innermost of `torch.autograd.graph.saved_tensors_hooks`; None if there are none.
saved_tensors_hooks: Final[Callable[[], tuple[Any, Any] | None]] = (
    partial(_top_hooks, True) if _top_hooks is not None else lambda: None  # an older torch
)


# --- other processes -----------------------------------------------------------------------------


def processes() -> int:
    """How many processes compute together under torch.distributed; one where it is not used."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 1
    return int(distributed.get_world_size())


def default_store(prefix: str) -> tuple[Any, int, int]:
    """What torch's processes have found each other by, this one's number, and how many they are.

    A connection of its own, so that nobody of the program's waits for ours, and a prefix of its
    own, so that no name is met twice.
    """
    distributed: Any = sys.modules["torch.distributed"]
    store = distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - has no public name
    own = store.clone() if hasattr(store, "clone") else store
    rank, world = distributed.get_rank(), distributed.get_world_size()
    return distributed.PrefixStore(prefix, own), int(rank), int(world)


def replicas(root: torch.nn.Module) -> list[Any]:
    """The `DistributedDataParallel` modules in a module, itself included."""
    found: Any = sys.modules.get("torch.nn.parallel.distributed")
    kind = getattr(found, "DistributedDataParallel", None)
    return [] if kind is None else [m for m in root.modules() if isinstance(m, kind)]


def shared_parameters(replica: Any) -> list[torch.Tensor]:
    """The parameters whose gradients a `DistributedDataParallel` module puts together."""
    return [p for p in replica._module_parameters if p.requires_grad]  # noqa: SLF001 - has no public name


def why_not_shared(replica: Any) -> str:
    """Why a backward pass leaves the gradients of such a module as they are; "" if it does not."""
    if not replica.require_backward_grad_sync:
        return "no_sync"
    join = getattr(replica, "_join_config", None)
    if join is not None and join.enable:
        return "join"
    return "" if replica.process_group.size() == processes() else "group"


def step_number(replica: Any) -> str:
    """How many collectives the processes of such a module have gone through, and in which group.

    The same on all of them after the same averaging. "" where torch does not count.
    """
    group = replica.process_group
    try:
        return f"{group.group_name}/{group._get_sequence_number_for_group()}"  # noqa: SLF001 - has no public name
    except (AttributeError, RuntimeError):  # pragma: no cover - a backend that does not count
        return ""


def is_of_replica(function: type) -> bool:
    """Whether a `torch.autograd.Function` is what such a module hands its outputs through."""
    return str(function.__module__) == "torch.nn.parallel.distributed"


def comm_hooks(replica: Any) -> list[str]:
    """The names of the hooks by which such a module sends gradients."""
    found = getattr(replica, "_comm_hooks", ())
    return [getattr(hook, "__qualname__", type(hook).__name__) for hook, _ in found]


# Those of torch that send the mean in a narrower type and change nothing else.
ROUNDING_HOOKS: Final = MappingProxyType(
    {"fp16_compress_hook": torch.float16, "bf16_compress_hook": torch.bfloat16}
)


# --- forward mode differentiation ----------------------------------------------------------------

_LEVEL: Final = 0  # torch has one only, for all threads
_open_level: Final[Any] = torch._C._enter_dual_level  # noqa: SLF001 - a public name asks more
_close_level: Final[Any] = torch._C._exit_dual_level  # noqa: SLF001 - as above
_make_dual: Final[Any] = torch._VF._make_dual  # noqa: SLF001 - as above
_unpack_dual: Final[Any] = torch._VF._unpack_dual  # noqa: SLF001 - as above
is_made_of_zeros: Final[Any] = torch.Tensor._is_zerotensor  # noqa: SLF001 - a tangent of none
_enter_functions: Final[Any] = torch._C._push_on_torch_function_stack  # noqa: SLF001 - as above
_leave_functions: Final[Any] = torch._C._pop_torch_function_stack  # noqa: SLF001 - as above
_get_function_state: Final[Any] = torch._C._get_torch_function_state  # type: ignore[attr-defined]  # noqa: SLF001 - as above
_set_function_state: Final[Any] = torch._C._set_torch_function_state  # type: ignore[attr-defined]  # noqa: SLF001 - as above
_FUNCTIONS_SEEN: Final[Any] = torch._C._TorchFunctionState.ENABLED  # type: ignore[attr-defined]  # noqa: SLF001 - as above
_one_at_a_time: Final = threading.RLock()  # there is one level in a process, so there is one lock
_unlock: Final[Any] = _one_at_a_time.__exit__  # which takes whatever it is given


class _OpenLevel(bytearray):
    """Stands for the level while it is open; its end closes it.

    A buffer, so that a `memoryview` can hold it.
    """

    __slots__ = ("__weakref__", "closes")
    closes: tuple[Any, ...]


def forward_mode(sees: Any = None) -> memoryview:
    """A context manager in which tensors may carry tangents: `make_dual`, `unpack_dual`.

    A torch function mode, if given, sees what is called, also where such modes are switched off.

    Torch has one level of forward mode for the whole process, and takes a second for an error. So
    clarke's threads come one after another, and a thread of the user's that opens or closes the
    level meanwhile waits. Where the user has it open, it is shared: tangents belong to tensors, and
    neither side meets those of the other.

    KeyboardInterrupt may come between any two steps of Python's, and a level that stays open ends
    forward mode for the process. Here what is done and what has to be undone are written down in
    one step of C's. Undoing is another: leaving a `memoryview` drops the object behind it, and
    weak references to that then call what they were given, all without a line of Python.
    """
    locked: list[bool] = []
    opened: list[int] = []
    entered: list[tuple[()]] = []
    switched: list[Any] = []
    state = _get_function_state()
    stood_in: tuple[list[Any], ...] = ([], [])
    owner, doors = _doors()
    # Nothing but this list holds the level until it is handed over: a frame lives on as long as
    # somebody looks at it, or at one that was called from it, as debuggers, errors and what runs
    # at a collection of garbage do.
    level = [_OpenLevel()]
    # What to do at the end, which is nothing while the lists are empty.
    level[0].closes = (
        _at_end(level, map(_unlock, locked)),
        *(
            _at_end(level, map(setattr, here, (n,), (was,)))
            for here, (n, was) in zip(stood_in, doors, strict=True)
        ),
        _at_end(level, map(_close_level, opened)),
        _at_end(level, itertools.starmap(_leave_functions, entered)),
        _at_end(level, map(_set_function_state, switched)),
    )
    try:
        locked.extend(itertools.starmap(_one_at_a_time.acquire, ((),)))
        for here, (name, _), other in zip(
            stood_in, doors, (_wait_and_open, _wait_and_close), strict=True
        ):
            here.append(owner)
            setattr(owner, name, other)
        try:  # noqa: SIM105 - suppress() is a function of Python's
            opened.extend(itertools.starmap(_open_level, ((),)))
        except RuntimeError:
            pass  # the user has it open
        if sees is not None:
            done = map(operator.not_, itertools.starmap(_enter_functions, ((sees,),)))  # not None
            entered.extend(itertools.compress(((),), done))
            switched.append(state)
            _set_function_state(_FUNCTIONS_SEEN)
        return memoryview(level.pop())
    except BaseException:
        level.clear()
        raise


def _at_end(level: list[_OpenLevel], actions: Iterator[Any]) -> Any:
    """Take one step of an iterator when the level is gone; hold what is returned until then."""
    return weakref.ref(level[0], partial(next, actions))


def _doors() -> tuple[Any, tuple[tuple[str, Any], tuple[str, Any]]]:
    """Where torch's own Python finds what opens and what closes the level."""
    inner: Any = sys.modules.get("torch._functorch.predispatch")
    if inner is not None and hasattr(inner, "_enter_dual_level_impl"):  # since torch 2.9
        names = ("_enter_dual_level_impl", "_exit_dual_level_impl")
    else:  # pragma: no cover - an older torch
        inner, names = torch._C, ("_enter_dual_level", "_exit_dual_level")
    return inner, ((names[0], _open_level), (names[1], _close_level))


def _wait_and_open() -> Any:
    """Stands for torch's while clarke has the level open."""
    with _one_at_a_time:
        return _open_level()


def _wait_and_close(level: int) -> Any:
    """Stands for torch's while clarke has the level open, or shares it."""
    with _one_at_a_time:
        return _close_level(level)


def make_dual(value: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
    """A tensor that carries a tangent; inside of `forward_mode`."""
    found: torch.Tensor = _make_dual(value, tangent, level=_LEVEL)
    return found


def unpack_dual(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A tensor without its tangent, and that, if it has one; inside of `forward_mode`."""
    primal, tangent = _unpack_dual(value, level=_LEVEL)
    return primal, tangent


def node_number(node: Any) -> int:
    """How many nodes of autograd's graph this thread had made before this one."""
    number: int = node._sequence_nr()  # noqa: SLF001 - has no public name
    return number
