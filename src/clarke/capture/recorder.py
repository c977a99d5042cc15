"""A dispatch mode that writes down what runs. It records and judges nothing."""

from __future__ import annotations

import weakref
from collections import deque
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clarke.capture.applied import Application, Beside, running
from clarke.capture.aside import Aside
from clarke.capture.functions import is_from_custom, is_result_of, running_function
from clarke.capture.live import TENSOR, Node, Read, Slot, Storage, Writes
from clarke.capture.operators import Operator, Operators, follow_whole, is_whole, reads_shape_only
from clarke.capture.places import Places
from clarke.capture.saving import saves_otherwise
from clarke.capture.signs import ZeroFinder, signs_tell
from clarke.capture.trace import Keep, overload_of
from clarke.capture.weak import TensorTable
from clarke.torch_private import (
    at_once,
    leave_mode,
    mode_flags,
    never_trace,
    tracing_graph,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from clarke.capture.functions import DeclaredFunction
    from clarke.capture.trace import Location
    from clarke.compiled import Compiled

    Guard = Callable[[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]], object]
    EarlyLook = Callable[[Node, tuple[Any, ...], Any], object]

_DETACH = torch.ops.aten.detach.default
_ALIAS = torch.ops.aten.alias.default
_SCALAR = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001 - has no public name
_VERSIONS = torch._C.DispatchKey.ADInplaceOrView
_exclude: Final[Any] = torch._C._dispatch_tls_set_dispatch_key_excluded  # noqa: SLF001 - has no public name
_COUNTED: Final = partial(_exclude, _VERSIONS, False)
_NOT_COUNTED: Final = partial(_exclude, _VERSIONS, True)
_READS_REMEMBERED = 10_000
_PRUNED = 8
_SWEPT = 4096  # so many storages may be dead ones

K = TypeVar("K")


def gather_tensors(values: Iterable[Any], into: list[torch.Tensor]) -> None:
    """Append all tensors among some arguments."""
    for value in values:
        if isinstance(value, torch.Tensor):
            into.append(value)
        elif isinstance(value, (list, tuple)):
            if not _is_of_numbers(value):
                gather_tensors(value, into)
        elif isinstance(value, dict):
            gather_tensors(value.values(), into)


def _tensors_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    gather_tensors(args, found)
    gather_tensors(kwargs.values(), found)
    return found


def _is_of_numbers(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list of an operator's arguments holds numbers, as a size or a stride does."""
    # Schemas have no lists of numbers and tensors together.
    return not values or type(values[0]) is int


def _writers(slots: tuple[Slot, ...]) -> tuple[int, ...]:
    """How many operations have written to each one's memory so far."""
    return tuple([len(s.storage.writers) for s in slots])


def _became_variable(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether a constant was told to require a gradient after it had been read."""
    return (
        slot.held is not None
        and slot.producer is None
        and tensor.requires_grad
        and not slot.held.requires_grad
        and not slot.storage.writers
    )


def _was_unpacked(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether a tensor has a gradient that the operation which made it cannot have given it."""
    return (
        slot.producer is not None
        and not slot.producer.differentiated
        and tensor.requires_grad
        and not tensor.is_leaf
        and not slot.storage.writers
    )


def _changes_nothing(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a clamp is strictly inactive, here and nearby (cosine_similarity's hidden one)."""
    name = func._schema.name
    if name not in ("aten::clamp_min_", "aten::clamp_") or len(args) != 2 or args[1] is None:
        return False
    return bool((args[0] > args[1]).all())


def _memory_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """Torch's own object for a tensor's memory; None for sparse tensors, which have none."""
    try:
        return tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return None


def _counted_alias(tensor: torch.Tensor) -> torch.Tensor:
    """`detach()` with the tensor's own version counter.

    Below a dispatch mode an alias gets one of its own, which does not tell writes that autograd
    counts from those behind its back.
    """
    if tensor.is_inference():
        return tensor.detach()
    was = torch._C._dispatch_tls_is_dispatch_key_excluded(_VERSIONS)  # noqa: SLF001 - has no public name
    if not was:
        return tensor.detach()
    alias: torch.Tensor = at_once(_COUNTED, tensor.detach, _NOT_COUNTED)[1]
    return alias


class _Reading:
    """What one operation reads: its slots, and what they say together."""

    __slots__ = ("_location", "_read", "inputs", "varied")

    def __init__(self, read: Callable[[torch.Tensor, Location], Slot], location: Location) -> None:
        self._read = read
        self._location = location
        self.inputs: list[Slot] = []
        self.varied = False

    def pattern(self, value: Any) -> Any:
        """The value with `TENSOR` in the place of tensors."""
        if isinstance(value, torch.Tensor):
            slot = self._read(value, self._location)
            self.inputs.append(slot)
            if value.requires_grad or slot.virtual:
                self.varied = True
            return TENSOR
        if isinstance(value, (list, tuple)) and not _is_of_numbers(value):
            return type(value)([self.pattern(v) for v in value])
        return value


class Recorder(TorchDispatchMode):
    """Records the operations that run inside the ``with`` block.

    Args:
        keep: Says for an operator overload what must be kept of the values it reads; or what
            an earlier recorder knew of operators.
        functions: Custom Functions that are recorded as if they were operators.
        places: What an earlier recorder found out about the user's code, to go on with.
        compiled: Compiled loops, used on large tensors; None to do without.
        early: Called with the record of an operation whose values are kept, with what it reads and
            what it returned, while these are in the processor's caches. What it returns is kept
            with them, for whoever judges later.

    The record grows as nodes that are held by the tensors they made, so it is freed with them.
    Nothing is recorded while gradients are switched off, except that tensors computed there are
    remembered as detached.
    """

    def __init__(
        self,
        keep: Callable[[Any], Keep] | Operators,
        functions: Mapping[type, DeclaredFunction] = MappingProxyType({}),
        *,
        places: Places | None = None,
        compiled: Compiled | None = None,
        early: EarlyLook | None = None,
    ) -> None:
        super().__init__()
        self._functions = functions
        self._applied: tuple[object, Node] | None = None
        self._inside = False  # where autograd is off, but what runs is differentiated
        self._application: tuple[object, Application] | None = None
        self.places = places or Places()
        self.saw_inference = False
        # Memory that got values made from those it had; before the first
        # backward call.
        self.rewritten: dict[int, Location] = {}
        self.stands_aside = ""  # why nothing at all is recorded
        self.unfollowed: TensorTable[str] = TensorTable()  # why how some were made is not known
        self.paused = False
        self.rests = False  # it is not among the modes
        self.guard: Guard | None = None  # told before anything is written to
        self._flags: tuple[bool, ...] = ()
        self.count = 0
        self._operators = keep if isinstance(keep, Operators) else Operators(keep)
        self._zeros = ZeroFinder(compiled)
        self._early = early
        self._slot_count = self.epoch = 0  # backward calls whose record has been released
        self.begin_anew()

    def begin_anew(self) -> None:
        """Know nothing of what was recorded, as after a time in which nothing was."""
        self.reads: deque[Read] = deque(maxlen=_READS_REMEMBERED)
        self._slots: TensorTable[Slot | weakref.ref[Slot]] = TensorTable()
        self._storages: dict[int, weakref.ref[Storage]] = {}
        self._sweep_at = _SWEPT
        self._watched: dict[int, weakref.ref[Writes]] = {}
        # What has been written to, and by what, is known as long as torch's own memory lives: the
        # last tensor there may be one that has not been read, so that nothing else holds it.
        self._written: set[Storage] = set()
        self._prune_at = _PRUNED
        self._histories: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._cuts = False  # some memory holds values that were cut off
        self.tampered: weakref.WeakKeyDictionary[Storage, tuple[Location, bool]] = (
            weakref.WeakKeyDictionary()
        )

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # The default wraps the handler in a dynamo guard, which costs more than the handler.
        return False

    # A program under torch.compile runs as it would without; operators that take functions too.
    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Asked by dynamo: whether programs are compiled as if nobody watched."""
        return True

    def __enter__(self) -> Self:
        never_trace(Recorder.__torch_dispatch__, calls_too=True)
        self.places.start()
        self._flags = mode_flags()
        try:
            super().__enter__()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Record nothing any more; also where that has been done, or was never needed."""
        leave_mode(self, self._flags)
        self.places.stop()

    def aside(self) -> Aside:
        """Record nothing meanwhile; on top of the modes, step off, so that nothing goes through."""
        return Aside(self)

    # ---------------------------------------------------------------- lookups

    def slot_of(self, tensor: torch.Tensor) -> Slot | None:
        """The slot of a tensor that the record knows, or None."""
        return self._slot(tensor)

    def writes_to(self, tensor: torch.Tensor) -> Writes:
        """The unrecorded writes to a tensor's memory, counted as long as this is held."""
        memory = _memory_of(tensor)
        if memory is None:
            return Writes(None)
        entry = self._watched.get(memory._cdata)
        found = None if entry is None else entry()
        if found is None or not found.is_at(memory):
            found = Writes(memory)
            self._watched[memory._cdata] = weakref.ref(found)
            if len(self._watched) > self._sweep_at:
                self._watched = {k: v for k, v in self._watched.items() if v() is not None}
        return found

    def _slot(self, tensor: torch.Tensor) -> Slot | None:
        found = self._slots.get(tensor)
        return found() if isinstance(found, weakref.ref) else found

    def _storage_of(self, tensor: torch.Tensor) -> Storage:
        memory = _memory_of(tensor)
        if memory is None:
            return Storage(self._slot_count, None)
        address = memory._cdata
        entry = self._storages.get(address)
        found = None if entry is None else entry()
        if found is None or not found.is_at(memory):
            found = Storage(self._slot_count, memory)
            self._storages[address] = weakref.ref(found)
            if len(self._storages) > self._sweep_at:
                self._sweep()
        return found

    def _known_storage(self, tensor: torch.Tensor) -> Storage | None:
        memory = _memory_of(tensor)
        entry = None if memory is None else self._storages.get(memory._cdata)
        found = None if entry is None else entry()
        return found if found is None or memory is None or found.is_at(memory) else None

    def _sweep(self) -> None:
        self._storages = {k: v for k, v in self._storages.items() if v() is not None}
        # Where most of them are alive, the next look must not come soon.
        self._sweep_at = max(_SWEPT, 2 * len(self._storages))

    def _new_slot(self, tensor: torch.Tensor, location: Location) -> Slot:
        slot = self._unset_slot(tensor, location)
        self._slots.set(tensor, slot)
        return slot

    def _unset_slot(self, tensor: torch.Tensor, location: Location) -> Slot:
        """A new slot that is not yet known to be the tensor's."""
        self._slot_count += 1
        slot = Slot(
            self._slot_count, self.epoch, self._storage_of(tensor), tensor.dtype, 0, location
        )
        if slot.storage.first is None:
            slot.storage.first = weakref.ref(slot)
        return slot

    def _hold(self, slot: Slot, tensor: torch.Tensor) -> None:
        # The dictionary must not keep its own key alive through the slot: of a constant an alias is
        # held, and the slot of a variable lives as long as the operations that read it.
        slot.key = weakref.ref(tensor)
        if slot.storage.cut and not tensor.requires_grad:
            slot.stopped = True
        if tensor.requires_grad:
            slot.held = tensor
            self._slots.set(tensor, weakref.ref(slot))
        else:
            slot.held = _counted_alias(tensor)
        slot.version = tensor._version if not tensor.is_inference() else 0
        slot.storage.add_external(slot)

    def read_leaf(self, tensor: torch.Tensor) -> Slot:
        """The slot of a leaf that no operation has read."""
        return self._read(tensor, self.places.here()[0])

    def _read(self, tensor: torch.Tensor, location: Location) -> Slot:
        slot: Slot | None = self._slot(tensor)
        if slot is not None and tensor.requires_grad and self._is_followed(slot, tensor):
            return slot  # the common case, which none of what follows is about
        if slot is not None and slot.epoch < self.epoch:
            self._make_past(slot, tensor)
        if slot is None and tensor.requires_grad:
            slot = self._unset_slot(tensor, location)  # as a variable, by `_hold`
            self._make_constant(slot.storage)
        elif slot is None or _became_variable(slot, tensor):
            slot = self._new_slot(tensor, location)
            self._make_constant(slot.storage)
        elif (
            slot.producer is None
            and slot.held is not None
            and (slot.storage.retired or not slot.storage.holds(tensor))
        ):
            slot = self._new_slot(tensor, location)  # ``.data`` may have been given other memory
        elif (
            slot.producer is not None
            and not slot.producer.differentiated
            and _was_unpacked(slot, tensor)
        ):
            return self._packed(slot, tensor, location)
        if slot.held is None and slot.producer is None:
            if not self._is_applied(slot, tensor):
                self._hold(slot, tensor)
        elif slot.producer is not None and not (
            tensor.requires_grad or slot.masked or (slot.virtual and self._inside)
        ):
            # Computed from differentiated values, but cut off: from here on a constant.
            by_value = slot.producer.differentiated and not reads_shape_only(slot.producer.func)
            slot.stopped = slot.stopped or by_value
            if slot.virtual:  # kept by a forward, or a result that its author calls a constant
                slot.cut_by, slot.virtual = overload_of(_DETACH), False
            elif by_value:
                slot.cut_by = overload_of(slot.producer.func)
            elif slot.stopped:
                slot.cut_by = next((s.cut_by for s in slot.producer.inputs if s.cut_by), "")
            slot.history, slot.producer = slot.producer, None
            self._histories.add(slot)
            self._hold(slot, tensor)
        return slot

    def _is_followed(self, slot: Slot, tensor: torch.Tensor) -> bool:
        """Whether the record knows what a tensor with a gradient was computed by."""
        made_by = slot.producer
        common = made_by is not None and made_by.differentiated
        if self._inside or (common and not (slot.virtual or slot.storage.writers)):
            return common
        # Also what was made of comparisons or integers, or written part by part.
        return self.note_result(slot, tensor) or common

    def _make_past(self, slot: Slot, tensor: torch.Tensor) -> None:
        """Make a constant of what was made of detached values before the last graph was freed.

        What a policy without gradients has made of its own actions, step after step, is one long
        chain otherwise.
        """
        made_by = slot.producer
        if tensor.requires_grad or slot.storage.writers:
            return
        if made_by is not None and made_by.differentiated:
            return
        slot.producer, slot.masked, slot.stopped, slot.cut_by = None, False, False, ""
        if slot.held is None:
            self._hold(slot, tensor)

    def _make_constant(self, storage: Storage) -> None:
        """Hold a buffer that got its shape from a variable, once a view of it is read.

        Replays make such a view and the buffer from one copy of their memory.
        """
        first = None if storage.first is None else storage.first()
        if first is None or first.producer is None or storage.writers:
            return
        buffer = None if first.key is None else first.key()
        if buffer is not None and not buffer.requires_grad:
            first.producer = None
            self._hold(first, buffer)

    def _call(self, location: Location) -> Node | None:
        """The node of the declared Function whose forward is running, if one is."""
        running = running_function(self._functions)
        if running is None:
            return None
        function, args, run = running
        if self._applied is not None and self._applied[0] is run:
            return self._applied[1]
        self.count += 1
        node = Node(self.count, function, location)
        slots = [self._read(a, location) if isinstance(a, torch.Tensor) else None for a in args]
        node.pattern = tuple(a if s is None else TENSOR for a, s in zip(args, slots, strict=True))
        node.inputs = tuple(s for s in slots if s is not None)
        node.writers_before = _writers(node.inputs)
        node.varied = frozenset(i for i, a in enumerate(args) if getattr(a, "requires_grad", False))
        node.differentiated = bool(node.varied)
        node.reads_stopped = any(s.stopped for s in node.inputs)
        self._keep_inputs(node, args, {}, [])
        self._applied = (run, node)
        return node

    def _is_applied(self, slot: Slot, tensor: torch.Tensor) -> bool:
        """Whether a tensor is what a declared Function returned; makes it the producer."""
        node, slot.within = slot.within, None
        if node is None and self._applied is not None:
            node = self._applied[1]  # it came from elsewhere: from NumPy, from a kernel
        if node is None or node.outputs or not is_result_of(tensor, node.func):
            return False
        slot.producer, slot.stopped = node, False
        node.outputs = (slot.number,)
        node.kept_outputs = {0: self._kept_value(node, tensor, [])}
        self.tampered.pop(slot.storage, None)  # by its own forward
        return True

    def _packed(self, slot: Slot, tensor: torch.Tensor, location: Location) -> Slot:
        """The slot of the result of which autograd kept `tensor` for its backward pass.

        Differentiating a gradient reads it again, as another tensor in the same memory. Where that
        result is not found, this is one that was computed out of sight.
        """
        memory = tensor.untyped_storage()
        first = None if slot.storage.first is None else slot.storage.first()
        if (
            first is not None
            and first.producer is not None
            and first.producer.differentiated
            and first.dtype == tensor.dtype
            and tensor.numel() * tensor.element_size() == memory.nbytes()
            and not is_from_custom(tensor)
        ):
            self._slots.set(tensor, first)
            return first
        slot = self._new_slot(tensor, location)
        self._hold(slot, tensor)
        return slot

    # ---------------------------------------------------------------- the handler

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused or self.stands_aside or self._is_unwatched(func):
            return func(*args, **kwargs)
        operator = self._operators.of(func)
        tensors = (
            [a for a in args if isinstance(a, torch.Tensor)]
            if not (operator.lists or (kwargs and operator.tensors_named))
            else _tensors_among(args, kwargs)
        )
        relevant = self.matters(tensors)
        names = operator.written_names
        if not relevant and not names:
            # A comparison of a detached value may stand at a tie.
            if not any(self._is_detached(t) for t in tensors):
                return func(*args, **kwargs)
            relevant = True
        written: list[torch.Tensor] = []
        if self.guard is not None:
            self.guard(tensors, *operator.changed(args, kwargs))
        if names:
            gather_tensors((args[i] for i in operator.written if i < len(args)), written)
            gather_tensors((kwargs[n] for n in names if n in kwargs), written)
            if not (self.epoch or operator.overwrites):
                self._note_rewritten(written)
        if not relevant or (written and self._updates_constants(tensors, written)):
            cut = relevant or (bool(written) and any(self._is_detached(t) for t in tensors))
            self.note_writes(written, cut=cut)
            return func(*args, **kwargs)
        location, application = self._here(func)
        if operator.reads:
            self._note_reads(operator, tensors, location, application)
            if func is _SCALAR:
                return func(*args, **kwargs)
        if not (torch.is_grad_enabled() or self._inside):
            return self._run_stopped(func, args, kwargs, written, location)
        return self._record(operator, args, kwargs, written, location, application)

    def _here(self, func: Any) -> tuple[Location, Application | None]:
        """Where an operation runs, and the custom Function in whose forward it does."""
        location, self._inside = self.places.here()
        if not self._inside and (func is _DETACH or self._application is not None):
            self._inside = self.places.in_forward()  # which may switch gradients on
        return location, self._running(location) if self._inside else None

    def _running(self, location: Location) -> Application | None:
        """The custom Function in whose forward the program is, if its parts are recorded."""
        found = running(self._functions.keys(), self.places.forwards())
        if isinstance(found, Beside):
            self._inside = found is Beside.PROGRAM
            return None
        kind, args, run = found
        if self._application is not None and self._application[0] is run:
            return self._application[1]
        application = Application(kind, args, location)
        self._application = (run, application)
        for position, value in enumerate(args):
            if isinstance(value, torch.Tensor) and (value.requires_grad or self._is_marked(value)):
                application.given[position] = self._read(value, location)
        return application

    def note_result(self, slot: Slot, tensor: torch.Tensor) -> bool:
        """A tensor has a gradient that was made without: whether a custom Function returned it."""
        slot.virtual = False
        made_by = slot.storage.writers[-1] if slot.storage.writers else slot.producer
        if made_by is None or made_by.within is None:
            return False
        return made_by.within.note_result(tensor, slot.number)

    def matters(self, tensors: list[torch.Tensor]) -> bool:
        """Whether an operation on these may have to do with a gradient."""
        for tensor in tensors:
            if tensor.requires_grad:
                return True
        return any(map(self._is_marked, tensors))

    def _is_unwatched(self, func: Any) -> bool:
        """Whether the mode is one in which nothing can be recorded; notes which."""
        if torch.is_inference_mode_enabled():
            self.saw_inference = True
            return True
        # torch.jit.trace looks at the program; an operator that takes functions runs them apart.
        return tracing_graph() is not None or not hasattr(func, "_schema")

    def _note_rewritten(self, written: list[torch.Tensor]) -> None:
        for memory in map(_memory_of, written):
            if memory is not None:
                self.rewritten[memory._cdata] = self.places.here()[0]

    def _updates_constants(self, tensors: list[torch.Tensor], written: list[torch.Tensor]) -> bool:
        """Whether an operation writes detached values to leaves or constants that were read before.

        Such as ``target.data.copy_(0.9 * target.data + 0.1 * online.data)``: for what is computed
        from then on they are leaves and constants with other values.
        """
        for tensor in tensors:
            slot: Slot | None = self._slot(tensor)
            if tensor.requires_grad or (slot is not None and (slot.masked or slot.virtual)):
                return False
        for tensor in written:
            storage = self._known_storage(tensor)
            if storage is not None and self.epoch and storage.writers:
                if any(n.differentiated and not n.released for n in storage.writers):
                    return False
                self._retire(tensor, storage)
                continue
            if storage is None and self.epoch:
                continue  # in the first graph, what is read from there is marked as detached
            if storage is None or storage.writers or not storage.externals:
                return False
            first = None if storage.first is None else storage.first()
            if first is not None and first.producer is not None:
                return False
        return True

    def _retire(self, tensor: torch.Tensor, storage: Storage) -> None:
        """Leave the history of some memory to graphs that know it; for others it begins anew."""
        storage.retired = True
        self._written.discard(storage)
        self._storages.pop(tensor.untyped_storage()._cdata, None)

    def _is_marked(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor matters although it does not require a gradient."""
        slot: Slot | None = self._slot(tensor)
        if slot is None:
            if not self._cuts:
                return False
            storage = self._known_storage(tensor)
            return storage is not None and storage.cut
        return slot.masked or slot.stopped or slot.virtual

    def _is_detached(self, tensor: torch.Tensor) -> bool:
        """Whether a value has just been cut off from what it was computed from."""
        slot = self._slot(tensor)
        made_by = None if slot is None else slot.producer
        if made_by is None or tensor.requires_grad:
            return False
        return made_by.differentiated and not reads_shape_only(made_by.func)

    def note_read(self, tensor: torch.Tensor) -> None:
        """The values of a tensor go into Python, unseen by the dispatcher."""
        # What a declared Function's forward reads is part of what was declared.
        if not (self.paused or (self._functions and running_function(self._functions))):
            self._note_read(tensor, self.places.here()[0])

    def _note_read(self, tensor: torch.Tensor, location: Location) -> None:
        slot = self._slot(tensor)
        if slot is None and tensor.requires_grad and tensor.is_leaf:
            slot = self._read(tensor, location)  # before any operation reads it
        if slot is not None:
            # The truth value of a branch is a temporary: held, or its comparison would be lost.
            held = None if tensor.is_floating_point() else slot
            self.reads.append(Read(self.count, weakref.ref(slot), held, location, slot.number))

    def _note_reads(
        self,
        operator: Operator,
        tensors: list[torch.Tensor],
        location: Location,
        application: Application | None,
    ) -> None:
        """Numbers, or how many there are of a kind; of masks the operations tell that later."""
        for tensor in tensors:
            if operator.func is _SCALAR or tensor.is_floating_point():
                self._note_read(tensor, location)
            if application is not None and tensor.is_floating_point():
                application.reads.append(location)

    def take_for(self, tensor: torch.Tensor, recorded: torch.Tensor) -> int:
        """What a compiled program returned stands for what was recorded of it as written.

        Returns:
            The number of the operation that made it; 0 where it is a constant.
        """
        slot = self._slot(recorded)
        if slot is None:
            return 0
        memory, own = _memory_of(tensor), _memory_of(recorded)
        if memory is not None and own is not None and memory is not own:
            # With its views and what was written there.
            slot.storage.move(memory)
            self._storages[memory._cdata] = weakref.ref(slot.storage)
            self._storages.pop(own._cdata, None)
        self._slots.set(tensor, slot)
        made_by = slot.storage.writers[-1] if slot.storage.writers else slot.producer
        return 0 if made_by is None else made_by.index

    def written_as(self, tensor: torch.Tensor, recorded: torch.Tensor) -> None:
        """A compiled program has written to a tensor what was recorded of it as written."""
        location = self.places.here()[0]
        slot, source = self._read(tensor, location), self._read(recorded, location)
        self.count += 1
        node = Node(self.count, torch.ops.aten.copy_.default, location)
        node.pattern, node.inputs = (TENSOR, TENSOR), (slot, source)
        node.writers_before = _writers(node.inputs)
        node.varied = frozenset({0, 1}) if tensor.requires_grad else frozenset({1})
        node.differentiated, node.outputs = True, (slot.number,)
        self._add_writer(slot.storage, node)

    def note_cut(self, tensors: Iterable[torch.Tensor]) -> None:
        """These were computed out of sight, with gradients off, from differentiated values."""
        for tensor in tensors:
            if not tensor.requires_grad and tensor.is_floating_point():
                slot = self._slot(tensor) or self._new_slot(tensor, self.places.here()[0])
                slot.stopped = True

    def begin_epoch(self) -> None:
        """A graph has been freed: what was cut off before is a constant for what comes."""
        self.epoch += 1
        for slot in self._histories:
            slot.history = None
        self._histories.clear()

    def forget_reads(self, index: int) -> None:
        """Forget the values that went into Python before operation `index`."""
        while self.reads and self.reads[0].at < index:
            self.reads.popleft()

    def _record(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: list[torch.Tensor],
        location: Location,
        application: Application | None,
    ) -> Any:
        self.count += 1
        func = operator.func
        # Where gradients are off anyway, a detach cuts nothing off.
        passes = application is not None and func is _DETACH
        node = Node(self.count, _ALIAS if passes else func, location)
        node.within = application
        whole = operator.casts and self._are_whole(args[0], kwargs.get("dtype"))
        varied = self._read_arguments(node, args, kwargs)
        self._applied = None
        node.varied = self._operators.positions(varied)
        node.resaved = node.differentiated and saves_otherwise()
        masked = written_before = False
        for slot in node.inputs:
            if slot.masked:
                masked = True
            if slot.stopped:
                node.reads_stopped = True
            if slot.storage.writers:
                written_before = True
        if written_before:
            node.writers_before = _writers(node.inputs)
        if masked and operator.counts:
            # The number of results may go into Python unseen.
            self.reads += [
                Read(self.count, weakref.ref(s), s, location, s.number, shape=True)
                for s in node.inputs
                if s.masked and s.dtype == torch.bool
            ]
        for tensor in written:
            self.protect(tensor)
        keeps = operator.keep.of(kwargs.get("dtype"))
        signs = keeps is Keep.SIGNS and not kwargs and signs_tell(args[0])
        if signs:
            node.zeros = self._zeros.find(args[0])
        elif keeps is not Keep.NOTHING and not whole:  # where those jump, what made them knows
            self._keep_inputs(node, args, kwargs, written)
        out = func(*args, **kwargs)
        if keeps is Keep.VALUES:
            self._look(node, operator, args, out)
        opened = self._inside and node.differentiated and (passes or not operator.cuts)
        keeps_results = keeps is not Keep.NOTHING and not signs
        self._bind_outputs(
            node, operator, out, written, masked=masked, keeps=keeps_results, virtual=opened
        )
        if signs:
            # Also of an in-place ReLU: its result may be overwritten in turn, and is then copied.
            node.kept_outputs = {0: self._kept_value(node, out, [])}
        return out

    def _read_arguments(
        self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[int]:
        """Note what an operation reads; returns the positions of what is differentiated."""
        location, entries = node.location, self._slots.entries
        inputs: list[Slot] = []
        varied: list[int] = []
        pattern = list(args)
        for position, value in enumerate(args):
            if isinstance(value, torch.Tensor):
                requires = value.requires_grad
                # The common case, which `_read` would find out again: another operation's result.
                entry = entries.get(id(value)) if requires else None
                slot: Any = entry.value if entry is not None and entry() is value else None
                made_by = slot.producer if type(slot) is Slot else None
                plain = made_by is not None and made_by.differentiated and not slot.virtual
                if not plain or slot.storage.writers:
                    slot = self._read(value, location)
                inputs.append(slot)
                pattern[position] = TENSOR
                if requires or slot.virtual:
                    varied.append(position)
            elif isinstance(value, (list, tuple)) and not _is_of_numbers(value):
                reading = _Reading(self._read, location)
                pattern[position] = reading.pattern(value)
                inputs += reading.inputs
                if reading.varied:
                    varied.append(position)
        node.pattern = tuple(pattern)
        node.differentiated = bool(varied)
        if kwargs:
            reading = _Reading(self._read, location)
            node.named = {k: reading.pattern(v) for k, v in kwargs.items()}
            inputs += reading.inputs
            node.differentiated = node.differentiated or reading.varied
        node.inputs = tuple(inputs)
        return varied

    def _are_whole(self, tensor: torch.Tensor, dtype: torch.dtype | None) -> bool:
        """Whether a cast finds whole numbers; they are then not cut off before it."""
        if dtype is None or dtype.is_floating_point or dtype.is_complex:
            return False
        slot: Slot | None = self._slot(tensor)
        made_by = None if slot is None or slot.storage.writers else slot.producer
        if slot is None or made_by is None or not is_whole(made_by):
            return False
        if not tensor.requires_grad:
            slot.masked = True
            follow_whole(made_by)
        return True

    def _look(self, node: Node, operator: Operator, args: tuple[Any, ...], out: Any) -> None:
        """Note what can be seen of an operation's values only now."""
        if operator.draws:
            node.drawn = {i: args[i].detach().clone() for i in operator.written if i < len(args)}
        if self._early is not None and node.differentiated and not operator.written_names:
            node.early = self._early(node, args, out)

    def _bind_outputs(
        self,
        node: Node,
        operator: Operator,
        out: Any,
        written: list[torch.Tensor],
        *,
        masked: bool,
        keeps: bool,
        virtual: bool,
    ) -> None:
        """Give the results of an operation their slots, and note what it wrote to."""
        differentiated = node.differentiated
        if not (written or keeps) and isinstance(out, torch.Tensor):
            node.outputs = (self._made(node, operator, out, masked=masked, virtual=virtual).number,)
            return
        outputs: list[int | None] = []
        kept: dict[int, torch.Tensor] = {}
        flat = out if isinstance(out, (list, tuple)) else (out,)
        # A maximum with its index: the value belongs to the choice as the index does.
        indexed = (
            len(flat) == 2
            and isinstance(flat[1], torch.Tensor)
            and not (flat[1].is_floating_point() or flat[1].is_complex())
        )
        for position, value in enumerate(flat):
            if not isinstance(value, torch.Tensor):
                outputs.append(None)
                continue
            same = bool(written) and any(t is value for t in written)
            slot = self._slot(value) if same else None
            if slot is None:
                slot = self._made(node, operator, value, masked=masked, virtual=virtual)
            outputs.append(slot.number)
            if keeps and not value.is_floating_point():
                kept[position] = value
            elif keeps and not written and (indexed or operator.draws):
                kept[position] = self._kept_value(node, value, written)
        node.outputs = tuple(outputs)
        if kept:
            node.kept_outputs = kept
        for tensor in written:
            slot = self._slot(tensor)
            if slot is not None:
                self._add_writer(slot.storage, node)
                slot.masked = slot.masked or (masked and not differentiated)
                cut = node.reads_stopped and not (differentiated or tensor.requires_grad)
                if cut and self.epoch == 0:
                    slot.stopped = slot.storage.cut = self._cuts = True

    def _made(
        self, node: Node, operator: Operator, value: torch.Tensor, *, masked: bool, virtual: bool
    ) -> Slot:
        """The slot of a new result."""
        slot = self._new_slot(value, node.location)
        slot.producer = node
        if operator.shape_only:
            slot.key = weakref.ref(value)
        discrete = not (value.is_floating_point() or value.is_complex())
        # Of a detached value too: a comparison of it may stand at a tie.
        slot.masked = masked or (discrete and (node.differentiated or node.reads_stopped))
        slot.stopped = node.reads_stopped and not node.differentiated
        slot.virtual = virtual and not discrete
        return slot

    def _add_writer(self, storage: Storage, node: Node) -> None:
        storage.add_writer(node)
        self._written.add(storage)
        if len(self._written) > self._prune_at:
            self._written = {s for s in self._written if s.is_alive()}
            self._prune_at = max(_PRUNED, 2 * len(self._written))

    def _keep_inputs(
        self,
        node: Node,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: list[torch.Tensor],
    ) -> None:
        if kwargs:
            node.kept_named = {
                name: self._kept_value(node, value, written)
                for name, value in kwargs.items()
                if isinstance(value, torch.Tensor)
            }
        kept: dict[int, torch.Tensor] = {}
        lists: dict[tuple[int, int], torch.Tensor] = {}
        for position, value in enumerate(args):
            if isinstance(value, torch.Tensor):
                kept[position] = self._kept_value(node, value, written)
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, torch.Tensor):
                        lists[position, i] = self._kept_value(node, item, written)
        node.kept = kept
        if lists:
            node.kept_lists = lists

    def _kept_value(
        self, node: Node, value: torch.Tensor, written: list[torch.Tensor]
    ) -> torch.Tensor:
        if written and any(value is w for w in written):
            return value.detach().clone()
        slot = self._slot(value)
        if slot is not None:
            slot.storage.add_kept(node)
        return value.detach()

    def protect(self, tensor: torch.Tensor) -> None:
        """Copy what an operation is about to overwrite and the record still needs."""
        storage = self._known_storage(tensor)
        if storage is None:
            return
        self._protect_kept_only(storage)
        if storage.snapshot is None and not storage.writers and storage.externals:
            flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            flat.set_(tensor.untyped_storage())
            storage.snapshot = flat.clone()

    def note_writes(self, written: list[torch.Tensor], *, cut: bool = False) -> None:
        """Leaves and constants are about to be overwritten by what is not recorded.

        Args:
            written: What is written to.
            cut: With values that were computed from differentiated ones.
        """
        for tensor in written:
            if self._watched:
                self._count_write(tensor)
            storage = self._known_storage(tensor)
            if storage is None and cut and self.epoch == 0:
                storage = self._storage_of(tensor)
                self._written.add(storage)
            if storage is None:
                continue
            for past in self._histories:
                if past.storage is storage:
                    past.history = None  # no longer what that operation made
            self._protect_kept_only(storage)
            # After a backward call it is another graph that they were computed in: constants.
            storage.cut = self.epoch == 0 and (storage.cut or cut)
            self._cuts = self._cuts or storage.cut
            if storage.first is None:
                continue  # nothing has been read from there
            references, storage.externals = storage.externals, ()
            if storage.writers or not references:
                # Only matters if something differentiable lies there: see `collect_trace`.
                # Behind recorded writes, constants there have another value, too.
                self.tampered[storage] = (self.places.here()[0], bool(storage.writers))
                continue
            for reference in references:
                slot = reference()
                if slot is None or slot.held is None:
                    continue
                original = slot.held
                slot.rewritten = (original, 0 if original.is_inference() else original._version)
                if not original.requires_grad and not storage.writers:
                    slot.held = original.detach().clone()
                    slot.version = slot.held._version
                key = None if slot.key is None else slot.key()
                if key is not None and self._slot(key) is slot:
                    self._slots.drop(key)

    def _count_write(self, tensor: torch.Tensor) -> None:
        memory = _memory_of(tensor)
        entry = None if memory is None else self._watched.get(memory._cdata)
        writes = None if entry is None else entry()
        if writes is not None and memory is not None and writes.is_at(memory):
            writes.count += 1

    def _protect_kept_only(self, storage: Storage) -> None:
        for reference in storage.kept:
            node = reference()
            if node is not None:
                self._copy_kept(node, storage)
        storage.kept = ()

    def _copy_kept(self, node: Node, storage: Storage) -> None:
        node.kept = self._copied(node.kept, storage)
        node.kept_lists = self._copied(node.kept_lists, storage)
        node.kept_named = self._copied(node.kept_named, storage)
        node.kept_outputs = self._copied(node.kept_outputs, storage, discrete=False)

    def _copied(
        self, kept: Mapping[K, torch.Tensor], storage: Storage, *, discrete: bool = True
    ) -> Mapping[K, torch.Tensor]:
        """Kept values, those in some memory copied; integers and booleans only if `discrete`."""
        return {
            key: value.clone()
            if (discrete or value.is_floating_point()) and self._known_storage(value) is storage
            else value
            for key, value in kept.items()
        }

    def _hidden_node(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], location: Location
    ) -> Node:
        """The record of a write to a differentiated tensor while gradients are off."""
        node = Node(self.count, func, location)
        node.hidden_write = True
        if func._schema.name.endswith("_"):
            self._note_arguments(node, args, kwargs)
            node.outputs = (node.inputs[0].number,)
        return node

    def _note_arguments(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Give a record its arguments, whatever they are."""
        reading = _Reading(self._read, node.location)
        node.pattern = tuple(reading.pattern(a) for a in args)
        node.named = {k: reading.pattern(v) for k, v in kwargs.items()}
        node.inputs = tuple(reading.inputs)
        node.writers_before = _writers(node.inputs)

    def _stopped_node(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], location: Location
    ) -> Node | None:
        """The record of an operation on differentiated values alone, made without gradients.

        What else it might read (a batch of an evaluation) must not be held any longer. Random
        numbers stay what they were.
        """
        operator = self._operators.of(func)
        if operator.draws:
            return None
        tensors: list[torch.Tensor] = []
        gather_tensors((*args, *kwargs.values()), tensors)
        for tensor in tensors:
            if not (tensor.requires_grad or tensor.numel() == 1):
                slot = self._slot(tensor)
                if slot is None or slot.history is None:
                    return None
        self.count += 1
        node = Node(self.count, func, location)
        self._note_arguments(node, args, kwargs)
        node.reads_stopped = True
        if operator.keep is not Keep.NOTHING:
            self._keep_inputs(node, args, kwargs, [])
        return node

    def _run_stopped(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: list[torch.Tensor],
        location: Location,
    ) -> Any:
        """Run with gradients switched off: outputs are remembered as detached."""
        if written and _changes_nothing(func, args):
            return func(*args, **kwargs)
        call = self._call(location) if self._functions else None
        for tensor in written:
            slot: Slot | None = self._slot(tensor)
            if slot is not None and tensor.requires_grad and not tensor.is_leaf:
                self.protect(tensor)
                self.count += 1
                node = self._hidden_node(func, args, kwargs, location)
                self._add_writer(slot.storage, node)
            else:
                # A leaf's new value is its own, as when a module draws its first weights.
                self.note_writes([tensor], cut=not tensor.requires_grad)
        history = None if written or call else self._stopped_node(func, args, kwargs, location)
        out = func(*args, **kwargs)
        flat = out if isinstance(out, (list, tuple)) else (out,)
        outputs: list[int | None] = []
        for value in flat:
            if not isinstance(value, torch.Tensor):
                outputs.append(None)
            elif not any(value is w for w in written):
                slot = self._slot(value)
                if slot is None:
                    slot = self._new_slot(value, location)
                slot.stopped = True
                slot.within = call
                outputs.append(slot.number)
                if history is not None:
                    slot.history = history
                    self._histories.add(slot)
        if history is not None:
            history.outputs = tuple(outputs)
        for tensor in written if call is not None else ():
            if not tensor.requires_grad and self._slot(tensor) is None:
                self._new_slot(tensor, location).within = call
        return out
