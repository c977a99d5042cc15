"""Steps of a program that ran before are kept as its first one was."""

import torch

import clarke
from clarke import Verdict
from clarke.proof import load


def steps(count):
    x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    for _ in range(count):
        kinked = x.clamp(min=0) - x * target + torch.log1p(torch.exp(-x.abs()))
        kinked.mean().backward()
        x.grad = None


def test_every_step_is_kept(tmp_path):
    with clarke.audit(on_wrong=lambda _: None, keep=tmp_path, seconds=60) as audit:
        steps(4)
    assert [s.verdict for s in audit.steps] == [Verdict.NOT_CLARKE] * 4
    files = sorted(tmp_path.glob("*.clarke"))
    assert len(files) == 4
    for file in files:
        assert load(file).gradient[0].shape == (4,)


def test_steps_without_time_end_no_training(tmp_path):
    with clarke.audit(keep=tmp_path, seconds=1e-9) as audit:
        steps(4)
    assert [s.verdict for s in audit.steps] == [Verdict.UNDECIDED] * 4
