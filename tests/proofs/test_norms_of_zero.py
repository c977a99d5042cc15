"""Norms, deviations and nuclear norms where they have no derivative: what is proved verifies."""

import pytest
import torch

import clarke
from reference.proofs import CHECKED, REJECTED, independent, own


def nuclear(x):
    return torch.linalg.matrix_norm(x, "nuc")


PROGRAMS = {
    "rank one": (nuclear, [[1.0, 2.0], [2.0, 4.0]]),
    "rank one of three rows": (nuclear, [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]),
    "rank one with kinks": (lambda x: nuclear(x) + x.abs().sum(), [[1.0, 0.0], [0.0, 0.0]]),
    "rank zero": (nuclear, [[0.0, 0.0], [0.0, 0.0]]),
    "equal values": (lambda x: x.std(), [2.0, 2.0, 2.0]),
    "equal values that round": (lambda x: x.std(), [0.1, 0.1, 0.1]),
    "equal values in rows": (lambda x: x.std(1).sum(), [[1.0, 1.0], [2.0, 2.0]]),
    "equal values at kinks": (lambda x: torch.relu(x - 1).sum() + x.std(), [1.0, 1.0, 1.0]),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_proof_that_is_handed_out_verifies(tmp_path, name, dtype):
    function, point = PROGRAMS[name]
    x = torch.tensor(point, dtype=dtype, requires_grad=True)
    report = clarke.check(function, (x,), seconds=None)
    assert report.certificate is not None, str(report)
    assert report.certificate.defects() == ()
    path = report.save(tmp_path / "norm.clarke")
    assert own(path) == (CHECKED, "")
    assert independent(path)[0] != REJECTED
