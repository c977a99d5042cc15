"""Masks and indices that were computed once, before a training or in its first step: pruning.

Once a graph has been freed they are constants like any other. Those of which the values have been
written into a buffer held on to the weights as they were, which later steps no longer have.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import clarke
from clarke.verdict import Verdict


def put(where):
    mask = torch.ones(3)
    mask[where] = 0
    return mask


def put_through_a_view(where):
    mask = torch.ones(3)
    mask.view(-1)[where] = 0
    return mask


MASKS = {
    "compared": lambda w: put(w.abs() > 0.5),
    "largest": lambda w: put(w.abs().topk(1).indices),
    "sorted": lambda w: put(w.abs().sort()[1][:1]),
    "scattered": lambda w: torch.zeros(3).scatter_(0, w.abs().topk(1).indices, 1.0),
    "filled": lambda w: torch.zeros(3).masked_fill_(w.abs() > 0.5, 1.0),
    "written through a view": lambda w: put_through_a_view(w.abs().topk(1).indices),
    "seen through a view": lambda w: put(w.abs().topk(1).indices).view(3, 1)[:, 0],
}


@pytest.mark.parametrize("made", MASKS)
def test_a_mask_of_the_first_weights_is_a_constant_of_later_steps(made):
    w = torch.tensor([0.0, 1.0, -3.0], requires_grad=True)
    with clarke.audit("raise") as audit:
        mask = MASKS[made](w)
        for _ in range(3):
            w.grad = None
            (w * mask).relu().sum().backward()
            with torch.no_grad():
                w -= 0.25 * w.grad
    assert all(s.correct for s in audit.steps), [s.reason for s in audit.steps]


def test_indices_are_kept_too():
    w = torch.tensor([0.0, 1.0, -3.0], requires_grad=True)
    with clarke.audit("raise") as audit:
        first, order = w.topk(2).indices, w.sort()[1]
        for _ in range(3):
            w.grad = None
            (w[first].relu() + w[order][1:].square()).sum().backward()
            with torch.no_grad():
                w -= 0.25 * w.grad
    assert all(s.correct for s in audit.steps), [s.reason for s in audit.steps]


def test_what_a_step_writes_into_its_buffer_is_no_constant_of_it():
    """A mask of this step's own weights, in a buffer that the last one has written to as well."""
    w, mask = torch.zeros(2, requires_grad=True), torch.zeros(2)
    with clarke.audit("raise") as audit:
        for _ in range(3):
            w.grad = None
            mask.zero_()
            mask.masked_fill_(w < 0, -2.0)
            (w * mask).sum().backward()
    assert [s.verdict for s in audit.steps] == [Verdict.UNDECIDED] * 3
    assert all("A comparison at an exact tie" in s.reason for s in audit.steps)


def test_pruned_networks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with clarke.audit("raise") as audit:
        prune.l1_unstructured(net[0], "weight", 0.5)
        prune.ln_structured(net[2], "weight", 0.3, n=2, dim=0)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(torch.eye(6)), torch.arange(6) % 3).backward()
            optimizer.step()
    assert all(s.correct for s in audit.steps), [s.reason for s in audit.steps]
