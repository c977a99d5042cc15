"""`clarke.testing.gradcheck` with torch's own options, at kinks."""

import pytest
import torch

from clarke.testing import gradcheck
from reference.leaves import leaf


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_forward_mode(at):
    assert gradcheck(torch.relu, leaf(at), check_forward_ad=True)


def test_outputs_without_gradient_are_what_torch_says():
    def f(x):
        return (x * 1.0).long()

    expected = torch.autograd.gradcheck(f, leaf(1.0), raise_exception=False)
    assert gradcheck(f, leaf(1.0), raise_exception=False) is expected
