"""A hook that changes a gradient is told from digits that cancel."""

import pytest
import torch

import clarke
from clarke import Verdict


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.25, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_hook_that_changes_a_gradient_is_named(factor, dtype):
    def function(x):
        y = 3 * x
        y.register_hook(lambda g: factor * g)
        return (y * y).sum()

    x = torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    with clarke.audit(seconds=10) as audit:
        function(x).backward()
    report = clarke.check(function, (x.detach().requires_grad_(),))
    assert report.verdict is Verdict.UNDECIDED
    assert audit.steps[0].verdict is Verdict.UNDECIDED
    for reason in (report.reason, audit.steps[0].reason):
        assert f"one entry is {36 * factor:.6g} in place of 36" in reason
        assert "register_hook" in reason
        assert "digits cancel" not in reason
