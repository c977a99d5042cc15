"""Forget what autograd has freed: the record of a graph goes with the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from clarke.capture.live import Node, Slot
    from clarke.capture.recorder import Recorder

# Their derivatives need no values, so autograd frees nothing of them with the graph. (Measured; a
# product with a number is none of them.)
_SAVE_NOTHING = frozenset(
    f"aten::{name}"
    for name in (
        "add",
        "sub",
        "neg",
        "view",
        "_unsafe_view",
        "reshape",
        "expand",
        "sum",
        "mean",
        "cat",
        "stack",
        "transpose",
        "t",
        "permute",
        "squeeze",
        "unsqueeze",
        "select",
        "slice",
        "clone",
        "alias",
        "detach",
        "unbind",
        "split",
        "chunk",
        "flip",
        "roll",
    )
)


def release_nodes(recorder: Recorder, output: torch.Tensor) -> None:
    """Forget the differentiable history of `output`, as autograd has just done with its graph."""
    slot = recorder.slot_of(output)
    recorder.begin_epoch()
    if slot is None:
        return
    todo = [slot]
    found: dict[int, Node] = {}
    if slot.producer is not None:
        recorder.forget_reads(slot.producer.index)
    while todo:
        for node in made_by(todo.pop()):
            if node.index not in found and node.differentiated:
                found[node.index] = node
                todo.extend(node.inputs)
    # What saves nothing, down to the leaves, autograd lets differentiate again.
    whole: set[int] = set()
    for index in sorted(found):
        node = found[index]
        behind = [n for x in node.inputs for n in made_by(x) if n.differentiated]
        if saves_nothing(node) and all(n.index in whole for n in behind):
            whole.add(index)
        else:
            node.release()


def made_by(slot: Slot) -> list[Node]:
    """What computed a value, or wrote to its memory."""
    producer = [] if slot.producer is None else [slot.producer]
    return [*slot.storage.writers, *producer]


def saves_nothing(node: Node) -> bool:
    """Whether autograd needs no values to differentiate an operation."""
    return node.func._schema.name in _SAVE_NOTHING
