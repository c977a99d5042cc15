"""Kinks behind buffers that were made without gradients and written part by part.

What reads the whole buffer and what writes to a part of it are two tensors, neither made by a
recorded operation: that they lie in one memory decides whether the kinks count.
"""

import pytest
import torch

import clarke
from clarke import Verdict
from reference.leaves import leaf as point

pytestmark = pytest.mark.filterwarnings("ignore")


def part(x, size=2):
    out = torch.zeros(size, dtype=x.dtype)
    out[: x.numel()] = x
    return out


def wrapped(x):
    """Padded with its own other end, as circular padding does it."""
    out = torch.empty(x.numel() + 2, dtype=x.dtype)
    out[1:-1] = x
    out[:1] = out[-2:-1]
    out[-1:] = out[1:2]
    return out


def rectified_part(x):
    out = torch.zeros(2, dtype=x.dtype)
    view = out[:1]
    view.add_(x)
    view.relu_()
    return out


def circular(x):
    return torch.nn.functional.pad(x[None], (1, 1), "circular")[0]


def identity(x):
    return torch.relu(x) - torch.relu(-x)


# Function, point, the ends of its set, whether autograd is right
CASES = {
    "a relu of a part": (lambda x: torch.relu(part(x)).sum(), (0.0,), {(0.0,), (1.0,)}, True),
    "the identity of a part": (lambda x: identity(part(x)).sum(), (0.0,), {(1.0,)}, False),
    "an absolute value": (lambda x: (2 * part(x)).abs().sum(), (0.0,), {(2.0,), (-2.0,)}, True),
    "twice": (lambda x: torch.relu(torch.relu(part(x))).sum(), (0.0,), {(0.0,), (1.0,)}, True),
    "a relu before": (
        lambda x: torch.relu(part(torch.relu(x))).sum(),
        (0.0,),
        {(0.0,), (1.0,)},
        True,
    ),
    "rectified in place": (
        lambda x: torch.relu(rectified_part(x)).sum(),
        (0.0,),
        {(0.0,), (1.0,)},
        True,
    ),
    "wrapped by hand": (
        lambda x: torch.relu(wrapped(torch.relu(x))).sum(),
        (0.0, 1.0),
        {(0.0, 2.0), (2.0, 2.0)},
        True,
    ),
    "circular padding": (
        lambda x: torch.relu(circular(torch.relu(x))).sum(),
        (0.0, 1.0, 1.0),
        {(0.0, 1.0, 2.0), (2.0, 1.0, 2.0)},
        True,
    ),
    "a maximum": (lambda x: part(x, 3).amax(), (0.0, -1.0), {(0.0, 0.0), (1.0, 0.0)}, True),
}


@pytest.mark.parametrize("name", CASES)
def test_kinks_behind_a_buffer_count(name):
    function, at, ends, right = CASES[name]
    x = point(*at)
    found = clarke.subdifferential(function, x)
    assert found.complete
    assert {tuple(v.tolist()) for v in found.vertices()} == ends
    report = clarke.check(function, x, seconds=60)
    assert report.correct is right
    assert report.verdict is not Verdict.SMOOTH
    assert report.certificate.verify(seconds=60)
    for quick in (True, False):
        with clarke.audit(settings=clarke.Settings(quick=quick), seconds=60) as audit:
            function(point(*at)).backward()
        assert audit.steps[0].verdict is report.verdict


class Buffered(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x):
        return identity(part(self.weight * x, 3)).sum()


def test_no_theorem_takes_such_kinks_for_constant():
    assert not clarke.explain(Buffered(), torch.ones(2)).always_correct
