"""What a recorder knows of tensors and of the memory in which they lie."""

from __future__ import annotations

import weakref
from collections import deque
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture.deferred import Copy, View
from clarke.capture.live import (
    TENSOR,
    Detached,
    Node,
    Read,
    Slot,
    Storage,
    Tampering,
    Unrecorded,
    version_of,
)
from clarke.capture.opaque import described
from clarke.capture.operators import reads_shape_only
from clarke.capture.weak import TensorTable
from clarke.torch_others import PLAIN, Weak
from clarke.torch_private import at_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture.live import Gathered
    from clarke.capture.operators import Operators
    from clarke.capture.places import Places
    from clarke.capture.trace import Location

_VERSIONS = torch._C.DispatchKey.ADInplaceOrView
_exclude: Final[Any] = torch._C._dispatch_tls_set_dispatch_key_excluded  # noqa: SLF001 - has no public name
_is_excluded: Final[Any] = torch._C._dispatch_tls_is_dispatch_key_excluded  # noqa: SLF001 - as above
_COUNTED: Final = partial(_exclude, _VERSIONS, False)
_NOT_COUNTED: Final = partial(_exclude, _VERSIONS, True)
_DETACH: Final = torch.ops.aten.detach.default
_READS_REMEMBERED = 10_000
_PRUNED = 8
_SWEPT = 4096  # so many storages may be dead ones


def memory_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """Torch's own object for a tensor's memory; None for sparse tensors, which have none."""
    try:
        return tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return None


def _is_whole(tensor: torch.Tensor, parameter: torch.Tensor | None) -> bool:
    """Whether a tensor has all of a parameter's memory, in the same order."""
    if parameter is None or tensor.shape != parameter.shape:
        return False
    return tensor.stride() == parameter.stride() and tensor.dtype == parameter.dtype


def below_autograd() -> bool:
    """Whether autograd has handed on what runs; it has not where it copies a tensor itself."""
    return bool(_is_excluded(_VERSIONS))


def _counted_alias(tensor: torch.Tensor) -> torch.Tensor:
    """`detach()` with the tensor's own version counter.

    Below a dispatch mode an alias gets one of its own, which does not tell writes that autograd
    counts from those behind its back.
    """
    if tensor.is_inference():
        return tensor.detach()
    if not below_autograd():
        return tensor.detach()
    alias: torch.Tensor = at_once(_COUNTED, tensor.detach, _NOT_COUNTED)[1]
    return alias


def _is_cut_off(slot: Slot) -> bool:
    """Whether what made a value without gradient has one."""
    made_by = slot.producer
    return made_by is not None and made_by.differentiated and not reads_shape_only(made_by.func)


_MARKS: Final = (Detached, View)


class Concern(Enum):
    """What an operation on some tensors may have to do with a gradient."""

    NONE = "nothing"
    CUT = "they have just been cut off from what they were computed from"
    GRADIENT = "they have one, or are marked: computed from what has one"


class Book:
    """Slots by tensor, storages by memory; what is common to all that a recorder does with them.

    Args:
        operators: What is known of operators.
        places: Where the program is.

    Attributes:
        places: Where the program is.
        reads: Values that went into Python.
        unrecorded: Writes to memory that are no operations of the record.
        count: Operations recorded so far.
        epoch, epoch_begun: Backward calls whose record has been released; `count` at the last.
        tampered: Memory that was changed behind autograd's back.
        gathered: Tells whose memory that comes and goes a tensor lies in, if such memory is in use.
        opaque: The first operation since a graph was freed on tensors that are not followed.
    """

    def __init__(self, operators: Operators, places: Places) -> None:
        super().__init__()
        self._operators = operators
        self.places = places
        self.count = self.epoch = self.epoch_begun = self._slot_count = 0
        self.unrecorded = Unrecorded()
        self.gathered: Callable[[torch.Tensor], Gathered | None] | None = None
        self._inside = False  # where autograd is off, but what runs is differentiated
        self.begin_anew()

    def begin_anew(self) -> None:
        """Know nothing of what was recorded, as after a time in which nothing was."""
        self.reads: deque[Read] = deque(maxlen=_READS_REMEMBERED)
        self._slots: TensorTable[Slot | weakref.ref[Slot] | Copy | View | Detached] = TensorTable()
        self._storages: dict[int, weakref.ref[Storage]] = {}
        self._sweep_at = _SWEPT
        # What has been written to, and by what, is known as long as torch's own memory lives: the
        # last tensor there may be one that has not been read, so that nothing else holds it.
        self._written: set[Storage] = set()
        self._prune_at = _PRUNED
        self._histories: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._cuts = self._virtual = False  # some memory has cut off values; a forward's own
        self.opaque: Node | None = None
        self.tampered: weakref.WeakKeyDictionary[Storage, Tampering] = weakref.WeakKeyDictionary()

    # ---------------------------------------------------------------- lookups

    def slot_of(self, tensor: torch.Tensor) -> Slot | None:
        """The slot of a tensor that the record knows, or None."""
        return self._slot(tensor)

    def tampering(self, slot: Slot) -> Tampering | None:
        """What changed behind autograd's back after a tensor was read, if anything did.

        What autograd does not follow was held, with the value it had, when it was read.
        """
        found = self.tampered.get(slot.storage)
        if found is None or slot.number > found.before:
            return None
        return found if slot.producer is not None or found.behind_writes else None

    def tensor_of(self, function: object, number: int) -> torch.Tensor | None:
        """The tensor that is a result of this node of autograd's graph, if it is there."""
        for entry in list(self._slots.entries.values()):
            tensor = entry()
            if tensor is not None and tensor.output_nr == number and tensor.grad_fn is function:
                return tensor
        return None

    def _slot(self, tensor: torch.Tensor) -> Slot | None:
        found = self._slots.get(tensor)
        if found is None or type(found) is Slot:
            return found
        if isinstance(found, Copy):
            return self._recorded(found, tensor)
        if isinstance(found, Detached):
            slot = self._new_slot(tensor, found.location)
            slot.epoch, slot.stopped = found.epoch, True
            return slot
        if isinstance(found, View):
            return self._viewed(found, tensor) if found.epoch == self.epoch else None
        return found() if isinstance(found, weakref.ref) else None

    def _viewed(self, view: View, tensor: torch.Tensor) -> Slot:
        """Record a view that somebody asks for, made without gradients."""
        raise NotImplementedError

    def _recorded(self, copy: Copy, tensor: torch.Tensor) -> Slot:
        """Record what was not worth recording before somebody asked for its result."""
        node = Node(copy.number, _DETACH, copy.location)
        node.pattern, node.inputs = (TENSOR,), (copy.of,)
        node.varied, node.differentiated = self._operators.positions([0]), True
        slot = self._new_slot(tensor, copy.location)
        slot.epoch, slot.producer = copy.epoch, node
        node.outputs = (slot.number,)
        return slot

    def _storage_of(self, tensor: torch.Tensor) -> Storage:
        try:
            memory = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):  # as for `memory_of`
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
        memory = memory_of(tensor)
        entry = None if memory is None else self._storages.get(memory._cdata)
        found = None if entry is None else entry()
        return found if found is None or memory is None or found.is_at(memory) else None

    def _sweep(self) -> None:
        self._storages = {k: v for k, v in self._storages.items() if v() is not None}
        # Where most of them are alive, the next look must not come soon.
        self._sweep_at = max(_SWEPT, 2 * len(self._storages))

    def _is_marked(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor matters although it does not require a gradient."""
        return self._bears_mark(self._slot(tensor), tensor)

    def _bears_mark(self, slot: Slot | None, tensor: torch.Tensor) -> bool:
        if slot is not None:
            return slot.masked or slot.stopped or slot.virtual
        if not (self._cuts or self._virtual):
            return False
        found = self._known_storage(tensor)
        return found is not None and (found.cut or (self._inside and found.virtual))

    def _concern(self, tensors: list[torch.Tensor]) -> Concern:
        """What an operation on these may have to do with a gradient."""
        for tensor in tensors:
            if tensor.requires_grad:
                return Concern.GRADIENT
        entries, found = self._slots.entries, Concern.NONE
        for tensor in tensors:
            entry = entries.get(id(tensor))
            if (entry is None or entry() is not tensor) and not (self._cuts or self._virtual):
                continue
            if entry is not None and type(entry.value) in _MARKS and entry() is tensor:
                return Concern.GRADIENT
            slot = self._slot(tensor)
            if self._bears_mark(slot, tensor):
                return Concern.GRADIENT
            if slot is not None and _is_cut_off(slot):
                found = Concern.CUT
        return found

    def _writes_cut(
        self, concern: Concern, tensors: list[torch.Tensor], written: list[torch.Tensor]
    ) -> bool:
        """Whether what is written somewhere was computed from what has a gradient."""
        if concern is Concern.GRADIENT:
            return True
        return bool(written) and any(self._is_detached(t) for t in tensors)

    def _is_detached(self, tensor: torch.Tensor) -> bool:
        """Whether a value has just been cut off from what it was computed from."""
        slot = self._slot(tensor)
        return slot is not None and not tensor.requires_grad and _is_cut_off(slot)

    # ---------------------------------------------------------------- new ones

    def _new_slot(self, tensor: torch.Tensor, location: Location) -> Slot:
        slot = self._unset_slot(tensor, location)
        self._slots.set(tensor, slot)
        return slot

    def _unset_slot(self, tensor: torch.Tensor, location: Location) -> Slot:
        """A new slot that is not yet known to be the tensor's."""
        self._slot_count += 1
        storage = self._storage_of(tensor)
        slot = Slot(self._slot_count, self.epoch, storage, tensor.dtype, location)
        if tensor.is_nested or type(tensor) not in PLAIN:
            slot.opaque = described(tensor)
        if storage.first is None:
            storage.first = weakref.ref(slot)
        return slot

    def _hold(self, slot: Slot, tensor: torch.Tensor) -> None:
        # The dictionary must not keep its own key alive through the slot: of a constant an alias is
        # held, and the slot of a variable lives as long as the operations that read it.
        slot.key = Weak(tensor)
        gathered = None if self.gathered is None else self.gathered(tensor)
        if gathered is not None:
            slot.storage.gathered = gathered
        if slot.storage.cut and not tensor.requires_grad:
            slot.stopped = True
        if tensor.requires_grad:
            slot.held = tensor
            self._slots.set(tensor, weakref.ref(slot))
        else:
            slot.held = _counted_alias(tensor)
            if gathered is not None and not _is_whole(tensor, gathered.whole()):
                slot.held = tensor.detach().clone()
        slot.version = version_of(slot, tensor)
        slot.storage.add_external(slot)

    def _add_writer(self, storage: Storage, node: Node) -> None:
        storage.add_writer(node)
        self._written.add(storage)
        if len(self._written) > self._prune_at:
            self._written = {s for s in self._written if s.is_alive()}
            self._prune_at = max(_PRUNED, 2 * len(self._written))

    def _retire(self, tensor: torch.Tensor, storage: Storage) -> None:
        """Leave the history of some memory to graphs that know it; for others it begins anew."""
        storage.retired = True
        self._written.discard(storage)
        self._storages.pop(tensor.untyped_storage()._cdata, None)

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
            if slot.storage.gathered is not None:
                return value.detach().clone()  # it is freed before anybody looks
            slot.storage.add_kept(node)
        return value.detach()

    # ---------------------------------------------------------------- numbers that went into Python

    def begin_epoch(self) -> None:
        """A graph has been freed: what was cut off before is a constant for what comes."""
        self.epoch, self.epoch_begun = self.epoch + 1, self.count
        self.opaque = None
        for slot in self._histories if len(self._histories) else ():  # to begin takes long
            slot.history = None
        self._histories.clear()

    def forget_reads(self, index: int) -> None:
        """Forget the values that went into Python before operation `index`."""
        while self.reads and self.reads[0].at < index:
            self.reads.popleft()
