"""Custom backward functions that are a little off, in narrow types and at entries that shrink."""

import pytest
import torch

import clarke
from clarke import Verdict
from reference.functions import square


def audited(factors, points, dtype):
    now = torch.ones(len(points[0]), dtype=dtype)
    own = square(now)
    w = torch.nn.Parameter(torch.tensor(points[0], dtype=dtype))
    with clarke.audit(lambda _: None, seconds=20) as audit:
        for factor, point in zip(factors, points, strict=True):
            w.grad = None
            now.copy_(torch.as_tensor(factor))
            with torch.no_grad():
                w.copy_(torch.tensor(point))
            (own.apply(w) * w).sum().backward()
    return [s.verdict for s in audit.steps]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_a_quarter_off_is_told_from_roundings(dtype, factor):
    point = [0.5, 1.5, -2.0, 3.0]
    told = audited([1.0, 1.0, factor, 1.0], [point] * 4, dtype)
    assert told[:2] == [Verdict.SMOOTH] * 2
    assert told[2] is Verdict.NOT_CLARKE
    assert told[3] is Verdict.SMOOTH


def test_what_an_entry_was_before_is_no_excuse():
    """The second entry shrinks a millionfold and is a third off, beside one that is large."""
    whole = torch.tensor([1.0, 1.0])
    told = audited(
        [whole, whole, torch.tensor([1.0, 0.5])],
        [[3.0, 2.0], [3.0, 2.0], [3.0, 2e-6]],
        torch.float32,
    )
    assert told[:2] == [Verdict.SMOOTH] * 2
    assert not told[2].correct
