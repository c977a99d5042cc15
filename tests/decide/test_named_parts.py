"""Where derivatives part, told from adjoints of the same tensors at two points."""

import torch

from clarke.decide.disagree import _are_alike


def test_adjoints_of_two_sizes_are_not_alike():
    """A mask picks more entries beside the point than at it (losses over pairs that count)."""
    assert not _are_alike(torch.ones(24), torch.ones(0))
    assert not _are_alike(torch.ones(2), torch.tensor([1.0, 2.0]))
    assert _are_alike(torch.ones(2), torch.ones(2))
