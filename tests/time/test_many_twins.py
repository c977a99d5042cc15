"""Kinks of very many entries, each by itself: decided within the limit of a call."""

import subprocess
import sys

import pytest
import torch

import clarke
from clarke import Verdict

MANY = 4_000


@pytest.mark.parametrize(("sign", "verdict"), [(-1, Verdict.NOT_CLARKE), (1, Verdict.CLARKE)])
def test_thousands_of_twins(sign, verdict):
    x = torch.zeros(MANY, dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: (x.relu() + sign * (-x).relu()).sum(), (x,), seconds=60)
    assert report.verdict is verdict
    assert report.certificate.verify()
    if sign < 0:
        assert {c.reason for c in report.culprits} == {f"{MANY} touched kinks that must agree"}


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "verdict"), [(-1, Verdict.NOT_CLARKE), (1, Verdict.CLARKE)])
def test_a_hundred_thousand_twins(sign, verdict):
    x = torch.zeros(100_000, dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: (x.relu() + sign * (-x).relu()).sum(), (x,), seconds=60)
    assert report.verdict is verdict


@pytest.mark.slow
def test_shapes_of_elementwise_operations_load_no_compiler():
    code = (
        "import sys, torch, clarke\n"
        "x = torch.zeros(500, requires_grad=True)\n"
        "print(clarke.check(lambda x: (x.relu() - (-x).relu()).sum(), (x,)).verdict.name)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["NOT_CLARKE", "False"]
