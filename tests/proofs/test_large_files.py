"""Files of proofs of large programs: what follows from the rest of a file is left out of it."""

import pytest
import torch
from torch import nn

import clarke
from clarke.proof import load
from clarke.proof.slim import slim, whole
from reference.proofs import CANNOT_TELL, CHECKED, REJECTED, forged, independent, opened, own
from reference.zoo import leaf

WIDE = 300  # entries; the activation has no instructions, as if the program were too large


def step(touched, folder):
    """The file of a step of a network in float32, audited; its first bias is at a kink or not."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDE, 30), nn.ReLU(), nn.GELU(), nn.Linear(30, 3))
    x = torch.rand(2, WIDE)
    if touched:
        x[0] = 0
        with torch.no_grad():
            net[0].bias[:10] = 0
    saved = []
    with clarke.audit() as watch:
        watch.subscribe(lambda _, report: saved.append(report.save(folder / "step.clarke")))
        nn.functional.cross_entropy(net(x), torch.tensor([0, 1])).backward()
    return saved[0], sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("touched", [False, True])
def test_a_step_in_float32_is_small_and_verifies(tmp_path, touched):
    path, numbers = step(touched, tmp_path)
    stored = load(path)
    assert stored.verdict.name == ("BOULIGAND" if touched else "SMOOTH")
    assert own(path) == (CHECKED, "")
    assert independent(path)[0] == CANNOT_TELL
    # Parameters and gradient take 4 bytes each, what the replay makes of it 8; two opposite rays 8,
    # and directions that shift biases nothing.
    assert path.stat().st_size < (17 if touched else 25) * numbers + 2**15


def test_what_is_left_out_is_found_again(tmp_path):
    _, tensors = opened(step(True, tmp_path)[0])
    every = whole(tensors)
    again = slim(every)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[n], tensors[n]) for n in again)
    assert every["witness.0.gradient.0"].dtype == torch.float64
    assert len(every) > len(tensors) - 4


def big(path):
    """A file without instructions, of a program that the other checker has no words for."""
    report = clarke.check(
        lambda x: torch.relu(x).sort().values[-1].sin(), (leaf(0.0, 0.0, -1.0, -1.0, -1.0),)
    )
    return report.save(path)


def test_forged_slim_files_are_refused(tmp_path):
    path = big(tmp_path / "a")
    content, tensors = opened(path)
    assert set(content["instructions"]) == {"missing"}
    assert own(path)[0] == CHECKED
    places = torch.tensor([7], dtype=torch.int64)
    one = torch.ones(1, dtype=torch.float64)
    name = "witness.0.direction.0"
    for changed in (
        {name: one, f"{name}.places": places},
        {name: one, f"{name}.places": -places},
        {name: one, f"{name}.places": places.to(torch.int32)},
        {name: torch.ones(2), f"{name}.places": torch.tensor([1, 1])},
        {f"{name}.places": places},
        {name: torch.zeros(5, dtype=torch.float64)},
        {"witness.7.direction.0": one},
        {"witness.0.gradient.0": torch.zeros(5)},
        {"gradient.0": torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0])},
    ):
        kept = {k: v for k, v in tensors.items() if not set(changed) & {k, f"{k}.places"}}
        assert own(forged(tmp_path / "b", content, {**kept, **changed}))[0] == REJECTED
    del tensors[name]
    assert own(forged(tmp_path / "c", content, tensors))[0] == REJECTED


def test_a_gradient_that_needs_more_samples_of_roundings_is_read_with_them(tmp_path):
    """Of so many entries, one is off by more than the usual samples show."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Linear(60, 200), nn.GELU(), nn.Linear(200, 200), nn.GELU(), nn.Linear(200, 3)
    )
    saved = []
    with clarke.audit() as watch:
        watch.subscribe(lambda _, report: saved.append(report.save(tmp_path / "step.clarke")))
        nn.functional.cross_entropy(net(torch.randn(2, 60)), torch.tensor([0, 1])).backward()
    assert own(saved[0]) == (CHECKED, "")
