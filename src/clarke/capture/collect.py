"""Cut the immutable `Trace` of one result out of the live record."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from clarke.capture.asserts import in_assertion
from clarke.capture.functions import is_from_compiled, is_from_custom
from clarke.capture.live import NOTHING_KEPT, Node, Slot, is_rewritten
from clarke.capture.memory import refuse_missing
from clarke.capture.opaque import refuse_opaque
from clarke.capture.signs import Signs, StandIn
from clarke.capture.trace import External, OpRecord, Origin, ScalarRead, Trace
from clarke.deadline import UNLIMITED, Deadline
from clarke.errors import CaptureError, ModifiedSinceError, UnseenError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from clarke.capture.applied import Application
    from clarke.capture.recorder import Recorder

K = TypeVar("K")
V = TypeVar("V")

COMPILED: Final = (
    "Part of this ran under torch.compile, where clarke saw nothing and changed nothing: in a call "
    "that was not to be judged, or in a way that is not followed. Judge it uncompiled: the module "
    "before torch.compile (model._orig_mod), or the whole program under "
    "torch.compiler.set_stance('force_eager')."
)


def collect_trace(
    recorder: Recorder,
    output: torch.Tensor,
    *,
    all_reads: bool = False,
    opened: bool = False,
    variables: Collection[int] = (),
    ends: Mapping[int, torch.Tensor] = NOTHING_KEPT,
    deadline: Deadline = UNLIMITED,
) -> Trace:
    """All operations on which `output` depends, in evaluation order.

    Args:
        recorder: The record.
        output: The result.
        all_reads: Every value that went into Python may have decided a branch. By default only
            those read before the last operation: in a loop, metrics are read after the loss.
        opened: With those behind values that were detached, as far as they were recorded.
        variables: Slots of leaves behind which nothing is looked for, whatever their values were
            computed from.
        ends: Tensors, by slot, that count as leaves, whatever computed them.
        deadline: When to give up.

    Raises:
        CaptureError: The record does not know `output`.
        ModifiedSinceError: A tensor that the program read has been changed in place since.
    """
    slot = recorder.slot_of(output)
    if slot is not None and slot.within is not None:
        slot = recorder.read_leaf(output)  # straight from a custom Function
    if slot is None and output.is_leaf and output.requires_grad:
        slot = recorder.read_leaf(output)  # the identity: no operation ran
    if slot is not None:
        recorder.note_result(slot, output)
    if slot is None:
        _refuse_compiled(recorder, output)
    if slot is None:
        raise UnseenError(
            "clarke did not see how this tensor was computed. Compute it inside the function "
            "given to clarke.check, or inside the `with clarke.audit()` block."
        )
    nodes: dict[int, Node] = {}
    slots: dict[int, Slot] = {}
    walk = partial(_walk, deadline=deadline, opened=opened, variables=variables, ends=ends)
    walk([(slot, len(slot.storage.writers))], nodes, slots)
    reads = _scalar_reads(recorder, nodes, slots, walk, all_reads=all_reads)
    refuse_opaque(slots.values(), recorder.opaque)
    for s in slots.values() if recorder.tampered else ():
        changed = recorder.tampering(s)
        if changed is not None:
            raise ModifiedSinceError(
                f"A tensor was changed behind autograd's back at {changed.location} (through "
                "`.data` or an alias), so its recorded history no longer describes its values. "
                "Write to it with gradients on, or before it is used."
            )
    externals = {
        s.number: _external(s, s.held)
        for s in slots.values()
        if s.producer is None and s.held is not None and not (opened and _is_opened(s, variables))
    }
    externals |= {n: _as_leaf(_external(slots[n], x)) for n, x in ends.items() if n in slots}
    if slot.producer is None and slot.number not in externals:
        # The result itself is a leaf, or comes straight from a custom Function.
        externals[slot.number] = _external(slot, output)
    for e in externals.values():
        if e.origin is not Origin.CONSTANT:
            _refuse_compiled(recorder, e.tensor)
    runs = dict.fromkeys(n.within for n in nodes.values() if n.within is not None)
    applied = [run for run in runs if not run.is_plain]
    trace = Trace(
        ops=tuple(_op_record(nodes[i], applied) for i in sorted(nodes)),
        externals=MappingProxyType(externals),
        output=slot.number,
        scalar_reads=tuple(reads),
        slot_dtypes=MappingProxyType({s.number: s.dtype for s in slots.values()}),
        applied=tuple(a.frozen() for a in applied),
    )
    refuse_missing(trace, gathered=False)
    return trace


def _refuse_compiled(recorder: Recorder, tensor: torch.Tensor) -> None:
    why = recorder.unfollowed.get(tensor)
    if why:
        raise CaptureError(why)
    if is_from_compiled(tensor):
        raise UnseenError(COMPILED)


def _as_leaf(external: External) -> External:
    return replace(external, origin=Origin.LEAF, version=external.tensor._version, name="")


def is_behind(tensor: torch.Tensor, of: torch.Tensor, recorder: Recorder) -> bool:
    """Whether the second tensor was computed from the first, as far as its graph is still there."""
    first, second = recorder.slot_of(tensor), recorder.slot_of(of)
    slots: dict[int, Slot] = {}
    if first is None or second is None:
        return False
    with contextlib.suppress(CaptureError):
        _walk([(second, len(second.storage.writers))], {}, slots, UNLIMITED)
    return first is not second and first.number in slots


def collect_opened(
    recorder: Recorder,
    output: torch.Tensor,
    trace: Trace,
    variables: Collection[int] = (),
    ends: Mapping[int, torch.Tensor] = NOTHING_KEPT,
) -> Trace | None:
    """The trace with what its detached values were computed from; None where nothing is known."""
    if not any(e.stopped for e in trace.externals.values()):
        return None
    try:
        opened = collect_trace(recorder, output, opened=True, variables=variables, ends=ends)
    except (CaptureError, ModifiedSinceError):
        return None
    return opened if len(opened.ops) > len(trace.ops) else None


def _scalar_reads(
    recorder: Recorder,
    nodes: dict[int, Node],
    slots: dict[int, Slot],
    walk: Callable[..., None],
    *,
    all_reads: bool,
) -> list[ScalarRead]:
    """Values that went into Python, with the operations behind integers and booleans."""
    last = max(nodes, default=0)
    found = []
    for read in recorder.reads:
        slot = read.slot()
        if not (all_reads or read.at < last) or in_assertion(read.location):
            continue
        if slot is None:
            if read.held is None:  # a number: which one does not matter
                found.append(ScalarRead(read.number, read.location))
            continue
        if slot.masked and slot.producer is not None:
            more, others = dict(nodes), dict(slots)
            try:
                walk([(slot, len(slot.storage.writers))], more, others)
            except CaptureError:
                continue  # from an earlier iteration, whose graph has been freed
            nodes.update(more)
            slots.update(others)
        found.append(ScalarRead(slot.number, read.location, read.shape))
    return found


def _is_opened(slot: Slot, variables: Collection[int]) -> bool:
    """Whether a detached value is to be computed again from differentiated ones.

    What got its shape from these alone is a constant: a dropout's mask.
    """
    return slot.history is not None and slot.stopped and slot.number not in variables


def _walk(
    start: Iterable[tuple[Slot, int]],
    nodes: dict[int, Node],
    slots: dict[int, Slot],
    deadline: Deadline,
    *,
    opened: bool = False,
    variables: Collection[int] = (),
    ends: Collection[int] = (),
) -> None:
    todo = list(start)
    while todo:
        deadline.ask("reading the record: {} operations so far", len(nodes))
        slot, writers = todo.pop()
        slots[slot.number] = slot
        if slot.number in ends:
            continue
        before = list(slot.storage.writers[:writers])
        if slot.producer is not None:
            before.append(slot.producer)
        elif opened and slot.history is not None and _is_opened(slot, variables):
            before.append(slot.history)
        for node in before:
            if node.index in nodes:
                continue
            if node.released:
                raise CaptureError(
                    "Part of this graph has been freed by an earlier backward call "
                    f"(operation {node.func} at {node.location}). Call that backward with "
                    "retain_graph=True, or run the forward pass again."
                )
            nodes[node.index] = node
            # Of two lengths where there were no writers.
            todo.extend(zip(node.inputs, node.writers_before or repeat(0), strict=False))


def _frozen(found: Mapping[K, V]) -> Mapping[K, V]:
    """The same, so that nobody can change it; what a node holds is replaced, never changed."""
    return MappingProxyType(found) if found else NOTHING_KEPT


def _op_record(node: Node, applied: list[Application]) -> OpRecord:
    args, kwargs = node.arguments()
    return OpRecord(
        index=node.index,
        func=node.func,
        args=args,
        kwargs=_frozen(kwargs),
        outputs=node.outputs,
        differentiated=node.differentiated,
        location=node.location,
        reads_stopped=node.reads_stopped,
        varied=node.varied,
        hidden_write=node.hidden_write,
        resaved=node.resaved,
        within=applied.index(node.within) if node.within in applied else None,
        **values_of(node),
    )


def values_of(node: Node) -> dict[str, Any]:
    """What a record of an operation holds of its values."""
    signs = None if node.zeros is None else Signs(node.kept_outputs[0], node.zeros)
    return {
        "kept": _frozen(node.kept) if signs is None else StandIn(signs),
        "kept_outputs": _frozen(node.kept_outputs),
        "kept_lists": _frozen(node.kept_lists),
        "kept_named": _frozen(node.kept_named),
        "drawn": _frozen(node.drawn),
        "signs": signs,
        "early": node.early,
    }


def external_of(slot: Slot) -> External:
    """What a trace says of a tensor that no operation made."""
    if slot.held is None:  # pragma: no cover - asked of those only that are held
        raise CaptureError("internal: a tensor that was read is not held")
    return _external(slot, slot.held)


def _external(slot: Slot, tensor: torch.Tensor) -> External:
    name = ""
    if tensor.requires_grad and not (slot.storage.writers or _is_viewed_without(tensor)):
        if tensor.is_leaf:
            origin = Origin.LEAF
        else:
            grad_fn = tensor.grad_fn
            name = type(grad_fn).__name__
            origin = Origin.CUSTOM_FUNCTION if is_from_custom(tensor) else Origin.UNSEEN
    else:
        origin = Origin.CONSTANT
        if slot.storage.writers and tensor.requires_grad and slot.storage.snapshot is None:
            origin = Origin.UNSEEN
            name = type(tensor.grad_fn).__name__
    shown, version, whole = _gathered(slot, tensor)
    return External(
        slot=slot.number,
        tensor=shown,
        origin=origin,
        version=version,
        snapshot=slot.storage.snapshot,
        storage=slot.storage.number,
        name=name,
        location=slot.location,
        stopped=slot.stopped,
        cut_by=slot.cut_by,
        rewritten=is_rewritten(slot) or _moved(slot, tensor),
        before=None if _moved(slot, tensor) else slot.before,
        gathered=whole,
    )


def _is_viewed_without(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a view of a variable, made under ``no_grad``.

    It says that it requires a gradient, as its base does, and is a leaf; autograd gives it none.
    """
    base = tensor._base  # noqa: SLF001 - has no public name
    return tensor.is_leaf and base is not None and base.requires_grad


def _gathered(slot: Slot, tensor: torch.Tensor) -> tuple[torch.Tensor, int, torch.Tensor | None]:
    """What stands for a tensor in a trace, with its version, and the parameter it is, gathered."""
    gathered = slot.storage.gathered
    if gathered is None or not slot.storage.holds(tensor):
        return tensor, slot.version, None
    shape = torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)
    version = shape._version if gathered.version() == slot.version else -1
    return shape, version, gathered.whole()


def _moved(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether a tensor was given other memory after it had been read."""
    # Of a constant an alias is held, which keeps the old one; autograd has the tensor itself.
    original = tensor if slot.key is None else slot.key()
    return original is not None and not slot.storage.holds(original)
