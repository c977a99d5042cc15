"""What is written to: by recorded operations, and behind the record's back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from clarke.capture.arguments import tensors_among
from clarke.capture.book import memory_of
from clarke.capture.deferred import View
from clarke.capture.live import Detached, Node, Slot, Tampering
from clarke.capture.reading import Reading
from clarke.capture.trace import Keep
from clarke.torch_private import may_be_in_forward

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clarke.capture.applied import Application
    from clarke.capture.functions import DeclaredFunction
    from clarke.capture.live import Storage
    from clarke.capture.operators import Operators
    from clarke.capture.places import Places
    from clarke.capture.trace import Location

K = TypeVar("K")
_differentiating: Final = torch.is_grad_enabled  # looked up once: every operation asks it


def _changes_nothing(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a clamp is strictly inactive, here and nearby (cosine_similarity's hidden one)."""
    name = func._schema.name
    if name not in ("aten::clamp_min_", "aten::clamp_") or len(args) != 2 or args[1] is None:
        return False
    return bool((args[0] > args[1]).all())


def _addresses_of(tensors: list[torch.Tensor]) -> list[int]:
    """Of each one's memory, where torch's own object for it is; 0 where there is none."""
    try:
        return [tensor.untyped_storage()._cdata for tensor in tensors]
    except (RuntimeError, NotImplementedError):  # as for `memory_of`
        memories = map(memory_of, tensors)
        return [0 if memory is None else memory._cdata for memory in memories]


class Writing(Reading):
    """Follows writes, and what runs while gradients are switched off; arguments as of `Reading`.

    Attributes:
        rewritten: Memory that got values made from those it had, before the first backward call.
    """

    _application: tuple[object, Application] | None

    def __init__(
        self, operators: Operators, places: Places, functions: Mapping[type, DeclaredFunction]
    ) -> None:
        super().__init__(operators, places, functions)
        self.rewritten: dict[int, Location] = {}

    def note_writes(self, written: list[torch.Tensor], *, cut: bool = False) -> None:
        """Leaves and constants are about to be overwritten by what is not recorded.

        Args:
            written: What is written to.
            cut: With values that were computed from differentiated ones.
        """
        self._slots.sweep()  # what nobody holds any more need not be looked at
        addresses = _addresses_of(written)
        self.unrecorded.note(addresses)
        marks, storages = cut and self.epoch == 0, self._storages
        for tensor, address in zip(written, addresses, strict=True):
            entry = storages.get(address)
            storage = None if entry is None else entry()
            if storage is None and not marks:
                continue
            memory = memory_of(tensor)
            if storage is not None and memory is not None and not storage.is_at(memory):
                storage = None
            if storage is None and marks:
                storage = self._storage_of(tensor)
                self._written.add(storage)
            if storage is None or storage.gathered is not None:
                continue  # writes to what is gathered are counted: it is filled with what it is
            self._overwritten(storage, cut=cut)

    def _overwritten(self, storage: Storage, *, cut: bool) -> None:
        """Leaves and constants in some memory that is known are about to be overwritten."""
        for past in self._histories if len(self._histories) else ():
            if past.storage is storage:
                past.history = None  # no longer what that operation made
        self._protect_kept_only(storage)
        # After a backward call it is another graph that they were computed in: constants.
        storage.cut = self.epoch == 0 and (storage.cut or cut)
        self._cuts = self._cuts or storage.cut
        if storage.first is None:
            return  # nothing has been read from there
        references, storage.externals = storage.externals, ()
        if storage.writers or not references:
            # Only matters if something differentiable lies there: see `collect_trace`.
            # Behind recorded writes, constants there have another value, too.
            where, behind = self.places.here()[0], bool(storage.writers)
            self.tampered[storage] = Tampering(where, behind, self._slot_count)
            return
        for reference in references:
            slot = reference()
            if slot is None or slot.held is None:
                continue
            original = slot.held
            slot.rewritten = (original, 0 if original.is_inference() else original._version)
            if not original.requires_grad and not storage.writers:
                slot.held = original.detach().clone()
                slot.version = slot.held._version
            elif original.is_leaf and slot.before is None and slot.epoch == self.epoch:
                slot.before = original.detach().clone()  # of others the graph has been freed
            key = None if slot.key is None else slot.key()
            if key is not None and self._slot(key) is slot:
                self._slots.drop(key)

    def _note_rewritten(self, written: list[torch.Tensor]) -> None:
        for memory in map(memory_of, written):
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

    # ---------------------------------------------------------------- with gradients switched off

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
        if not self._is_followed_further(tensors_among(args, kwargs)):
            return None
        self.count += 1
        node = self._node_without_gradients(self.count, func, args, kwargs, location)
        if operator.keep is not Keep.NOTHING:
            self._keep_inputs(node, args, kwargs, [])
        return node

    def _node_without_gradients(
        self,
        number: int,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        location: Location,
    ) -> Node:
        node = Node(number, func, location)
        self._note_arguments(node, args, kwargs)
        node.reads_stopped = True
        return node

    def _viewed(self, view: View, tensor: torch.Tensor) -> Slot:
        """Record a view that somebody asks for, made without gradients."""
        location = self.places.here()[0]
        history = self._node_without_gradients(view.number, view.func, view.args, {}, location)
        slot = self._new_slot(tensor, location)
        self._stop(slot, history)
        history.outputs = (slot.number,)
        return slot

    def _stop(self, slot: Slot, history: Node | None) -> None:
        """Note that a value is cut off from what made it."""
        slot.stopped = True
        if history is not None:
            slot.history = history
            self._histories.add(slot)

    def _is_lost(self, tensors: list[torch.Tensor]) -> bool:
        """Whether the results of an operation are constants, of which no more is said.

        Those made without gradients from more than differentiated values, once a graph has been
        freed: rollouts, targets, evaluations.
        """
        lost = self.epoch > 0 and self._makes_constants()
        return lost and not self._is_followed_further(tensors)

    def _makes_constants(self) -> bool:
        """Whether gradients are off, and no custom Function's forward is running."""
        return not (_differentiating() or self._application is not None or may_be_in_forward())

    def _is_followed_further(self, tensors: list[torch.Tensor]) -> bool:
        """Whether an operation without gradients reads differentiated values alone."""
        for tensor in tensors:
            if not (tensor.requires_grad or tensor.numel() == 1):
                slot = self._slots.get(tensor)
                if not isinstance(slot, View) and (type(slot) is not Slot or slot.history is None):
                    return False
        return True

    def _note_detached(self, results: Iterable[Any], location: Location) -> None:
        """Remember results as detached, of which nothing more is known.

        Later than the first graph they are constants: what was made from them is in no graph.
        """
        detached = Detached(self.epoch, location)
        for value in results:
            if isinstance(value, torch.Tensor):
                slot = self._slot(value)
                if slot is not None:
                    slot.stopped = True
                elif not self.epoch:
                    self._slots.set(value, detached)

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
        if history is None and call is None and not written:
            self._note_detached(flat, location)
            return out
        outputs: list[int | None] = []
        for value in flat:
            if not isinstance(value, torch.Tensor):
                outputs.append(None)
            elif not any(value is w for w in written):
                slot = self._slot(value)
                if slot is None:
                    slot = self._new_slot(value, location)
                self._stop(slot, history)
                slot.within = call
                outputs.append(slot.number)
        if history is not None:
            history.outputs = tuple(outputs)
        if call is not None:
            self._note_made_within(written, location, call)
        return out

    def _note_made_within(
        self, written: Iterable[torch.Tensor], location: Location, call: Node | None
    ) -> None:
        """Remember what a declared Function wrote to as its own."""
        for tensor in written:
            if not tensor.requires_grad and self._slot(tensor) is None:
                self._new_slot(tensor, location).within = call
