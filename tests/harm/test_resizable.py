"""Memory that a program resizes after a step (FSDP does, and savers of activations) can be."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import clarke


def relu(size):
    def loss(w):
        return (torch.relu(w) * w).sum()

    return loss, torch.linspace(-1, 1, size) + 2 / size**2


def convolved(size):
    """Zeros tie in the pools, so that codes and rows are made of what the layers read."""
    image = torch.zeros(2, 1, size, size)

    def loss(w):
        return functional.max_pool2d(torch.relu(functional.conv2d(image, w)), 2).sum()

    return loss, torch.ones(3, 1, 3, 3)


def gathered(size):
    index = torch.arange(size) % 5

    def loss(w):
        rows = w.expand(size, 3) * 1
        none = torch.zeros(5, 3)
        return none.scatter_reduce(0, index[:, None].expand(size, 3), rows, "amax").sum()

    return loss, torch.ones(3)


def pooled(size):
    def loss(w):
        return functional.max_pool1d(torch.relu(w)[None, None], 2).sum()

    return loss, torch.linspace(-1, 1, size) + 2 / size**2


@pytest.mark.parametrize(
    ("made", "size"),
    [
        (relu, 8),
        (relu, 1 << 13),
        (relu, 1 << 15),
        (convolved, 8),
        (convolved, 64),
        (gathered, 20),
        (pooled, 16),
        (pooled, 1 << 15),
    ],
)
def test_what_was_read_can_be_resized(made, size):
    loss, start = made(size)
    w, seen = nn.Parameter(start), []
    with clarke.audit(lambda _: None) as watching:
        for _ in range(3):  # from the second on, the program is known
            w.grad = None
            value = loss(w)
            node = value.grad_fn
            while node is not None:
                seen += [x for n in dir(node) if n.startswith("_saved") for x in saved(node, n)]
                node = node.next_functions[0][0] if node.next_functions else None
            value.backward()
    assert watching.steps[-1].verdict.correct
    assert all(x.untyped_storage().resizable() for x in (w, w.grad, *seen))
    assert seen
    w.data.untyped_storage().resize_(0)


def saved(node, name):
    value = getattr(node, name, None)
    return [value] if isinstance(value, torch.Tensor) else []
