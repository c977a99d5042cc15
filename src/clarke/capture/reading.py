"""What an operation reads: which variable, constant or result a tensor is to the record."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture.arguments import Arguments
from clarke.capture.asserts import is_validating
from clarke.capture.book import Book
from clarke.capture.functions import is_from_custom, is_result_of, running_function
from clarke.capture.live import (
    TENSOR,
    Node,
    Read,
    Slot,
    became_variable,
    is_constant,
    is_read_again,
    is_written_unseen,
    place_of,
    version_of,
    was_unpacked,
)
from clarke.capture.operators import follow_whole, is_whole, reads_shape_only
from clarke.capture.trace import overload_of
from clarke.torch_others import Weak

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.capture.functions import DeclaredFunction
    from clarke.capture.live import Storage
    from clarke.capture.operators import Operators
    from clarke.capture.places import Places
    from clarke.capture.trace import Location

_DETACH = torch.ops.aten.detach.default


def writers_before(slots: tuple[Slot, ...]) -> tuple[int, ...]:
    """How many operations have written to each one's memory so far."""
    return tuple([len(s.storage.writers) for s in slots])


class Reading(Book):
    """Gives what operations read its slots.

    Args:
        operators: What is known of operators.
        places: Where the program is.
        functions: Custom Functions that are recorded as if they were operators.
    """

    def __init__(
        self, operators: Operators, places: Places, functions: Mapping[type, DeclaredFunction]
    ) -> None:
        super().__init__(operators, places)
        self._functions = functions
        self._applied: tuple[object, Node] | None = None
        self._derived_from: tuple[Slot | None, ...] = ()

    def read_leaf(self, tensor: torch.Tensor) -> Slot:
        """The slot of a leaf that no operation has read."""
        return self._read(tensor, self.places.here()[0])

    def _read(self, tensor: torch.Tensor, location: Location) -> Slot:
        slot: Slot | None = self._slot(tensor)
        if slot is None:
            if (
                tensor.requires_grad
                and self.gathered is None
                and not (self._written or self._applied)
            ):
                return self._new_variable(tensor, location)
        elif tensor.requires_grad:  # the common cases
            if slot.held is tensor and is_read_again(slot, tensor):
                if slot.version != tensor._version and is_written_unseen(slot, tensor):
                    return self._new_variable(tensor, location)
                slot.virtual = False
                return slot
            if self._is_followed(slot, tensor):
                return slot
        elif is_constant(slot, tensor) and not (slot.storage.writers and slot.epoch < self.epoch):
            return slot
        return self._looked_at(slot, tensor, location)

    def _new_variable(self, tensor: torch.Tensor, location: Location) -> Slot:
        """The slot of a leaf that is read for the first time, where nothing else is to be asked."""
        slot = self._unset_slot(tensor, location)
        storage = slot.storage
        if storage.first is None or storage.first() is not slot:
            self._make_constant(storage)
        slot.key, slot.held, slot.version = Weak(tensor), tensor, version_of(slot, tensor)
        own = weakref.ref(slot)
        self._slots.set(tensor, own)
        if storage.externals:
            storage.add_external(slot)
        else:
            storage.externals = [own]
        return slot

    def _looked_at(self, slot: Slot | None, tensor: torch.Tensor, location: Location) -> Slot:
        """The slot of a tensor that is neither a result with a gradient nor a known variable."""
        if slot is not None and slot.epoch < self.epoch and not tensor.requires_grad:
            if slot.storage.writers and all(map(self._is_past, slot.storage.writers)):
                self._retire(tensor, slot.storage)
                slot = None
            else:
                self._make_past(slot, tensor)
        if tensor.requires_grad and tensor.is_leaf and self._is_written(slot, tensor):
            return self._written_leaf(slot, tensor, location)
        if slot is None and tensor.requires_grad:
            slot = self._unset_slot(tensor, location)  # as a variable, by `_hold`
            self._make_constant(slot.storage)
            if slot.storage.writers:
                self.note_result(slot, tensor)
        elif slot is None or became_variable(slot, tensor):
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
            and was_unpacked(slot, tensor)
        ):
            return self._packed(slot, tensor, location)
        if slot.held is None and slot.producer is None:
            if not self._is_applied(slot, tensor):
                self._hold(slot, tensor)
                slot.virtual = self._inside and slot.storage.virtual
        elif slot.producer is not None and (
            tensor.is_leaf and not self._inside
            if tensor.requires_grad
            else not (
                slot.masked or (slot.virtual and self._inside) or self._is_kept(slot.producer)
            )
        ):
            self._cut_off(slot, slot.producer, tensor)
        return slot

    def _is_kept(self, made_by: Node) -> bool:
        """Whether an operation kept a value for its derivative, which now reads it.

        A normalisation's mean and deviation, say: to autograd they are constants, but the second
        derivative of the operation counts with what they are of the input, which is read as well.
        """
        return any(s is not None and s in made_by.inputs for s in self._derived_from)

    def _cut_off(self, slot: Slot, made_by: Node, tensor: torch.Tensor) -> None:
        """Make a constant of what was computed from differentiated values, but cut off.

        Or a leaf, where the program has asked for its gradient.
        """
        by_value = made_by.differentiated and not reads_shape_only(made_by.func)
        slot.stopped = slot.stopped or by_value
        if slot.virtual:  # kept by a forward, or a result that its author calls a constant
            slot.cut_by, slot.virtual = overload_of(_DETACH), False
        elif by_value:
            slot.cut_by = overload_of(made_by.func)
        elif slot.stopped:
            slot.cut_by = next((s.cut_by for s in made_by.inputs if s.cut_by), "")
        slot.history, slot.producer = made_by, None
        self._histories.add(slot)
        self._hold(slot, tensor)

    def _is_written(self, slot: Slot | None, leaf: torch.Tensor) -> bool:
        """Whether a leaf's memory has been written to before it was known as one."""
        if self._inside or (slot is not None and slot.producer is None and slot.held is leaf):
            return False
        storage = self._known_storage(leaf)
        return storage is not None and bool(storage.writers)

    def _written_leaf(self, known: Slot | None, leaf: torch.Tensor, location: Location) -> Slot:
        """The slot of a tensor that was told to require a gradient after values were written there.

        They are what it holds, not what it was computed by; that of others there remains.
        """
        cut = known is not None and (known.stopped or known.storage.cut)
        cut = cut or any(n.reads_stopped for n in self._storage_of(leaf).writers)
        self._retire(leaf, self._storage_of(leaf))
        slot = self._unset_slot(leaf, location)
        self._hold(slot, leaf)
        slot.stopped = cut
        return slot

    def _is_followed(self, slot: Slot, tensor: torch.Tensor) -> bool:
        """Whether the record knows what a tensor with a gradient was computed by."""
        made_by = slot.producer
        if made_by is not None and tensor.is_leaf and not self._inside:
            return False  # it has been told to require one of its own
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
        if slot.storage.writers:
            return
        if made_by is not None and made_by.differentiated and slot.dtype.is_floating_point:
            return  # of its other results there may be a gradient
        slot.producer, slot.masked, slot.stopped, slot.cut_by = None, False, False, ""
        if slot.held is None:
            self._hold(slot, tensor)

    def _is_past(self, writer: Node) -> bool:
        """Whether what wrote somewhere did so before the last graph was freed, with no gradient."""
        return not writer.differentiated and writer.index <= self.epoch_begun

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

    def _packed(self, slot: Slot, tensor: torch.Tensor, location: Location) -> Slot:
        """The slot of the result of which autograd kept `tensor` for its backward pass.

        Differentiating a gradient reads it again, as another tensor in the same memory. Where that
        result is not found, this is one that was computed out of sight.
        """
        kept = self._result_there(slot.storage, tensor)
        if kept is not None and not is_from_custom(tensor):
            self._slots.set(tensor, kept)
            return kept
        slot = self._new_slot(tensor, location)
        self._hold(slot, tensor)
        return slot

    @staticmethod
    def _result_there(storage: Storage, tensor: torch.Tensor) -> Slot | None:
        """The differentiated result that fills some memory, or was written to that part of it."""
        place = place_of(tensor)
        found = [s for n in reversed(storage.writers) for s in n.inputs if s.place == place]
        whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        if storage.first is not None and whole and not storage.writers:
            found = [s for s in (storage.first(),) if s is not None]
        for slot in found:
            made_by = slot.producer
            if made_by is not None and made_by.differentiated and slot.dtype == tensor.dtype:
                return slot
        return None

    def note_result(self, slot: Slot, tensor: torch.Tensor) -> bool:
        """A tensor has a gradient that was made without: whether a custom Function returned it."""
        slot.virtual = False
        made_by = slot.storage.writers[-1] if slot.storage.writers else slot.producer
        if made_by is None or made_by.within is None:
            return False
        return made_by.within.note_result(tensor, slot.number)

    def _note_read(self, tensor: torch.Tensor, location: Location) -> None:
        if is_validating():
            return  # as if the user had written the assertion
        slot = self._slot(tensor)
        if slot is None and tensor.requires_grad and tensor.is_leaf:
            slot = self._read(tensor, location)  # before any operation reads it
        if slot is not None:
            # The truth value of a branch is a temporary: held, or its comparison would be lost.
            held = None if tensor.is_floating_point() else slot
            self.reads.append(Read(self.count, weakref.ref(slot), held, location, slot.number))

    # ---------------------------------------------------------------- arguments

    def _read_singly(self, node: Node, args: tuple[Any, ...]) -> list[int]:
        """Note what an operation reads; returns the positions of what is differentiated.

        Of one that has no tensors in lists, and nothing by name.
        """
        location, entries = node.location, self._slots.entries
        inputs: list[Slot] = []
        varied: list[int] = []
        pattern = list(args)
        for position, value in enumerate(args):
            if not isinstance(value, torch.Tensor):
                continue
            requires = value.requires_grad
            # The common case, which `_read` would find out again: another operation's result.
            entry = entries.get(id(value)) if requires else None
            slot: Any = entry.value if entry is not None and entry() is value else None
            made_by = slot.producer if type(slot) is Slot else None
            plain = made_by is not None and made_by.differentiated and not slot.virtual
            if not plain or value.is_leaf or slot.storage.writers:
                slot = self._read(value, location)
            inputs.append(slot)
            pattern[position] = TENSOR
            if requires or slot.virtual:
                varied.append(position)
        node.pattern, node.inputs = tuple(pattern), tuple(inputs)
        node.differentiated = bool(varied)
        return varied

    def _read_arguments(
        self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[int]:
        """The same of any operation: its tensors may come in lists or by name."""
        reading, pattern = Arguments(self._read, node.location), []
        varied: list[int] = []
        for position, value in enumerate(args):
            reading.varied = False
            pattern.append(reading.pattern(value))
            if reading.varied:
                varied.append(position)
        node.pattern = tuple(pattern)
        reading.varied = bool(varied)
        if kwargs:
            node.named = {k: reading.pattern(v) for k, v in kwargs.items()}
        node.differentiated = reading.varied
        node.inputs = tuple(reading.inputs)
        return varied

    def _note_arguments(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Give a record its arguments, whatever they are."""
        reading = Arguments(self._read, node.location)
        node.pattern = tuple(reading.pattern(a) for a in args)
        node.named = {k: reading.pattern(v) for k, v in kwargs.items()}
        node.inputs = tuple(reading.inputs)
        node.writers_before = writers_before(node.inputs)

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

    # ---------------------------------------------------------------- declared Functions

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
        node.writers_before = writers_before(node.inputs)
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
