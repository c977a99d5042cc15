"""Theorems as files: structure and hypotheses, derived again without the model."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import clarke
from clarke.cli import make_app
from clarke.errors import ProofError
from clarke.proof import judge_stored, load
from reference.proofs import CANNOT_TELL, CHECKED, REJECTED, forged, independent, opened, own


def perceptron(*more):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), *more
    )


def pooled():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 2)
    )


def unbiased():
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))


def normed():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.once = nn.Linear(3, 3)

    def forward(self, x):
        return self.once(self.once(x).relu()).relu()


MODELS = {
    "one image": (perceptron, (1, 3)),
    "a batch": (perceptron, (4, 3)),
    "pooled": (pooled, (2, 1, 8, 8)),
    "unbiased": (unbiased, (1, 3)),
    "normed": (normed, (4, 3)),
    "shared": (Shared, (1, 3)),
    "smooth": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), (2, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_theorems_follow_again_from_their_file(tmp_path, name):
    made, shape = MODELS[name]
    path = tmp_path / "model.clarke"
    found = clarke.explain(made(), torch.randn(shape), save=path)
    stored = load(path)
    assert stored.is_theorem
    assert stored.claim["says"]["theorem"] == (
        None if found.theorem is None else found.theorem.name
    )
    assert own(path) == (CHECKED, "")
    assert independent(path) == (CANNOT_TELL, "a theorem, which is about all points")


def test_a_theorem_holds_no_value_of_a_parameter(tmp_path):
    net = perceptron()
    path = tmp_path / "model.clarke"
    clarke.explain(net, torch.randn(1, 3), save=path)
    _, tensors = opened(path)
    assert all(t.numel() == 1 for t in tensors.values())


def changed(content):
    """Other theorems, other hypotheses, other facts: each field of a claim."""
    claim = content["claim"]
    for theorem in ("ONE", "FOUR", "BIAS_SHIFT", "ANALYTIC", None):
        if theorem != claim["says"]["theorem"]:
            yield {**claim, "says": {**claim["says"], "theorem": theorem}}
    yield {**claim, "says": {**claim["says"], "strength": "GRADIENT"}}
    for name, holds in claim["says"]["hypotheses"].items():
        hypotheses = {**claim["says"]["hypotheses"], name: not holds}
        yield {**claim, "says": {**claim["says"], "hypotheses": hypotheses}}
    yield {**claim, "blind": not claim["blind"]}
    yield {**claim, "assumptions": ["it is right"]}
    for key in claim:
        yield {k: v for k, v in claim.items() if k != key}
        yield {**claim, key: 3}
    yield {**claim, "more": 1}


@pytest.mark.parametrize("name", ["one image", "pooled", "unbiased"])
def test_no_forged_theorem_follows(tmp_path, name):
    made, shape = MODELS[name]
    path = tmp_path / "model.clarke"
    clarke.explain(made(), torch.randn(shape), save=path)
    content, tensors = opened(path)
    count = 0
    for claim in changed(content):
        file = forged(tmp_path / "forged.clarke", {**content, "claim": claim}, tensors)
        assert own(file)[0] == REJECTED, claim
        count += 1
    assert count > 20
    for verdict in ("SMOOTH", "CLARKE"):
        file = forged(tmp_path / "forged.clarke", {**content, "verdict": verdict}, tensors)
        assert own(file)[0] == REJECTED
    file = forged(tmp_path / "forged.clarke", content, {**tensors, "more": torch.zeros(1)})
    assert own(file)[0] == REJECTED


def test_operations_that_are_taken_out_take_the_theorem_with_them(tmp_path):
    """A bias that is not added any more: Theorem 1 no longer follows."""
    path = tmp_path / "model.clarke"
    found = clarke.explain(perceptron(), torch.randn(1, 3), save=path)
    assert found.always_correct
    content, tensors = opened(path)
    for op in content["program"]["ops"]:
        if op["op"] == "aten::addmm.default":
            op["op"], op["args"] = "aten::mm.default", op["args"][1:]
            content["assumed"] = sorted({*content["assumed"], "aten::mm.default"})
            break
    status, why = own(forged(tmp_path / "forged.clarke", content, tensors))
    assert status == REJECTED
    assert "follows something else than it says" in why


def test_a_theorem_is_no_step_and_no_certificate(tmp_path):
    path = tmp_path / "model.clarke"
    clarke.explain(perceptron(), torch.randn(1, 3), save=path)
    with pytest.raises(ProofError, match="it holds a theorem, which `clarke verify` derives again"):
        clarke.load_certificate(path)
    with pytest.raises(ProofError, match="it holds a theorem, and no step to be judged"):
        judge_stored(load(path), 1)
    done = CliRunner().invoke(make_app("verify"), ["verify", str(path)])
    assert done.exit_code == 0
    assert "clarke: checked: Theorem 1" in done.output


def test_where_it_cannot_be_written(tmp_path):
    with pytest.raises(clarke.InputError, match="Cannot write"):
        clarke.explain(perceptron(), torch.randn(1, 3), save=tmp_path / "no" / "model.clarke")
