"""Points to judge at: leaves that require gradients, in float64 if nothing else is said."""

import torch


def leaf(*values, dtype=torch.float64):
    """A vector of these entries."""
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def zeros(*shape, dtype=torch.float64):
    """A tensor of zeros."""
    return torch.zeros(shape, dtype=dtype, requires_grad=True)
