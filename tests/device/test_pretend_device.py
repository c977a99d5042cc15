"""What an accelerator would meet, on one that is pretended (`pretend.Device`), in another process.

While the program runs, nothing waits for the device; no operation mixes devices; bits and verdicts
are those of the processor. The tests for real accelerators run there, too.
"""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from torch.utils import backend_registration

from reference.networks import PROGRAMS

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)
HERE = Path(__file__).parent


def trained(device, make, shape, audit):
    """Parameters after three steps; who waited while the program ran."""
    import torch

    torch.manual_seed(0)
    model = make().to("pretend")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    device.waits.clear()
    with audit:
        for _ in range(3):
            x = torch.randn(shape).to("pretend")
            optimizer.zero_grad()
            with device.counting():
                found = model(x)
                loss = (found[0] if isinstance(found, tuple) else found).square().mean()
            loss.backward()
            optimizer.step()
    return [p.detach().cpu().tolist() for p in model.parameters()], list(device.waits)


def tell():
    """All that is to be found out on the device."""
    import torch

    import clarke
    from device.pretend import Device

    device = Device()
    found = {}
    for name, (make, shape) in PROGRAMS.items():
        plain, _ = trained(device, make, shape, nullcontext())
        audit = clarke.audit(seconds=60)
        same, waits = trained(device, make, shape, audit)
        found[name] = [plain == same, [s.verdict.name for s in audit.steps], waits]
    w = torch.zeros(4, device="pretend", requires_grad=True)
    with device.counting():
        float(w.sum().detach())
        w[w > 1].detach()
        w.detach().cpu()
    found["noticed"] = [n for n, *_ in device.waits[-3:]]
    try:
        w + torch.ones(4)
    except RuntimeError as error:
        found["mixed"] = str(error)
    sys.stdout.write(json.dumps(found))


def run_there(*command):
    paths = [str(HERE.parents[1] / "src"), str(HERE.parent), str(HERE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def found():
    told = run_there("-W", "ignore", "-c", "import test_pretend_device as t; t.tell()")
    assert told.returncode == 0, told.stderr[-2000:]
    return json.loads(told.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["perceptron", "pools", "recurrent", "attention"])
def test_nothing_waits_and_no_bit_changes(found, name):
    same, verdicts, waits = found[name]
    assert same
    assert verdicts == ["SMOOTH"] * 3
    assert waits == []


def test_it_would_be_noticed(found):
    assert found["noticed"] == ["_local_scalar_dense", "index", "_copy_from"]
    assert "same device" in found["mixed"]


@pytest.mark.slow
def test_the_tests_of_real_accelerators():
    options = "-q", "-p", "no:cacheprovider", "-p", "no:logging", "-p", "device.pretended"
    told = run_there("-m", "pytest", *options, str(HERE / "test_on_device.py"))
    assert told.returncode == 0, told.stdout[-3000:]
    assert "10 passed" in told.stdout
