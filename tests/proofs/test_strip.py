"""Files without names and paths: the proof holds, and nothing tells of its author."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import clarke
from clarke.cli import make_app
from clarke.proof import load
from clarke.proof.container import read_bytes, unpack


def saved(folder):
    torch.manual_seed(0)
    secret_network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        secret_network[0].bias.zero_()
    x = torch.zeros(2, 3, dtype=torch.float64)
    report = clarke.check(lambda: secret_network(x).sum())
    return report, report.save(folder / "step.clarke")


@pytest.mark.parametrize("kept", [False, True], ids=["proof", "kept step"])
def test_names_and_paths_go_and_the_proof_stays(tmp_path, kept):
    report, path = saved(tmp_path)
    if kept:
        w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        with clarke.audit(lambda _: None, keep=tmp_path / "kept"):
            (torch.relu(w) - torch.relu(-w)).sum().backward()
        (path,) = (tmp_path / "kept").iterdir()
    before = read_bytes(path)
    assert b"test_strip" in before
    done = CliRunner().invoke(make_app("strip"), ["strip", str(path)])
    assert done.exit_code == 0, done.output
    assert "parameters and data" in done.output
    assert "It still tells:" in " ".join(done.output.split())
    told = "and no proof" if kept else f"the verdict ({report.verdict.name}) and what proves it"
    assert f"the gradient, {told}" in " ".join(done.output.split())
    target = path.with_name(f"{path.name.removesuffix('.clarke')}.stripped.clarke")
    after = read_bytes(target)
    assert read_bytes(path) == before
    for word in (b"test_strip", b"saved", b"0.bias", b"0.weight", str(tmp_path).encode()):
        assert word not in after
    assert load(target).verdict is load(path).verdict
    if kept:
        assert clarke.proof.judge_stored(load(target), 20).verdict is clarke.Verdict.NOT_CLARKE
        return
    assert load(target).verdict is report.verdict
    assert load(target).defects() == ()
    content, tensors = unpack(after)
    assert content["program"]["ops"]
    old, old_tensors = unpack(before)
    assert {k: v for k, v in content.items() if k != "program"} == {
        k: v for k, v in old.items() if k != "program"
    }
    assert all(torch.equal(t, old_tensors[n]) for n, t in tensors.items())


def test_what_is_no_proof_is_left_alone(tmp_path):
    path = tmp_path / "other.clarke"
    path.write_bytes(b"PK\x03\x04 something else")
    done = CliRunner().invoke(make_app("strip"), ["strip", str(path)])
    assert done.exit_code != 0
    assert [p.name for p in tmp_path.iterdir()] == ["other.clarke"]
