"""Programs with very many kinks: what is long asks the deadline (`kept_limits` in conftest.py)."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import clarke
from clarke.verdict import Verdict
from reference.leaves import zeros

D = torch.float64
MANY = 100_000


def recurrent():
    torch.manual_seed(0)
    net = nn.RNN(4, 4, nonlinearity="relu", bias=False).to(D)
    return lambda x: net(x)[0].sum()


WEIGHTS = torch.linspace(-1, 2, MANY, dtype=D)
CASES = {
    "weighted": (lambda x: (WEIGHTS * torch.relu(x)).sum(), lambda: zeros(MANY)),
    "summed up": (lambda x: torch.relu(x.cumsum(0)).sum(), lambda: zeros(MANY)),
    "spread": (lambda x: x.max() - x.min(), lambda: zeros(MANY)),
    "middle": (lambda x: x.kthvalue(MANY // 2).values, lambda: zeros(MANY)),
    "huber": (
        lambda x: functional.huber_loss(x[1:], x[:-1]) + functional.l1_loss(x[1:], x[:-1]),
        lambda: zeros(MANY),
    ),
    "recurrent": (recurrent(), lambda: zeros(150, 2, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_check_and_a_step_end_in_time(name):
    function, make = CASES[name]
    x = make()
    report = clarke.check(function, (x,), seconds=2)
    assert report.verdict.correct or report.verdict is Verdict.UNDECIDED
    with clarke.audit() as watch:
        function(x).backward()
    (step,) = watch.steps
    assert step.verdict.correct or step.verdict is Verdict.UNDECIDED
    assert step.verdict is not Verdict.UNDECIDED or step.reason
