"""`clarke demo` and the training behind it."""

import json

import pytest
import torch
from typer.testing import CliRunner

import clarke
from clarke.cli import make_app
from clarke.experiments.digits import DigitsNet, Training, measure_overhead, read_digits
from clarke.experiments.kinked import judge_at_a_kink
from clarke.report.runs import read_run


def run(*arguments):
    return CliRunner().invoke(make_app("demo"), ["demo", *map(str, arguments)])


@pytest.fixture(scope="module")
def data():
    return read_digits()


def test_the_data(data):
    assert data.train_images.shape == (1437, 1, 8, 8)
    assert data.test_images.shape == (360, 1, 8, 8)
    assert data.train_images.min() == 0
    assert data.train_images.max() == 1
    assert data.test_labels.unique().numel() == 10
    assert torch.equal(data.train_labels, read_digits().train_labels)


def test_the_network_is_plain(data):
    training = Training(data)
    kinds = {type(m).__name__ for m in training.model.modules()}
    assert kinds == {"DigitsNet", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Linear"}
    assert not any(m._forward_hooks or m._backward_hooks for m in training.model.modules())
    assert DigitsNet()(data.test_images[:3]).shape == (3, 10)


def test_training_under_audit_is_the_same_and_correct(data):
    plain, audited = Training(data), Training(data)
    losses = [plain.step() for _ in range(4)]
    with clarke.audit("raise") as watch:
        assert [audited.step() for _ in range(4)] == losses
    for p, q in zip(plain.model.parameters(), audited.model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert all(s.correct for s in watch.steps), [s.reason for s in watch.steps]
    places = {p.module: p for p in watch.summary().places}
    assert list(places) == ["relu1", "pool1", "relu2", "pool2"]
    # A quarter and more of the windows of blank paper are tied.
    assert places["pool1"].touched_share > 0.2
    assert places["pool1"].elements == 4 * 64 * 16 * 16


def test_overhead_leaves_the_training_alone(data):
    training = Training(data)
    training.step()
    before = [p.clone() for p in training.model.parameters()]
    ticks = []
    found = measure_overhead(training, 2, lambda: ticks.append(1))
    assert all(map(torch.equal, before, training.model.parameters()))
    assert found.plain > 0
    assert found.audited > found.plain
    assert found.ratio == found.audited / found.plain
    assert (found.steps, len(ticks)) == (2, 2)


def test_the_command_in_text(tmp_path, monkeypatch):
    monkeypatch.setattr("clarke.cli.demo._TIMED", 2)
    result = run("--steps", 3, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "Accuracy" in result.output
    assert "3 backward calls, 3 judged" in result.output
    assert "pool1" in result.output
    assert "under audit" in result.output
    assert str(tmp_path / "run") in result.output
    assert "\x1b" not in result.output
    found = read_run(tmp_path / "run")
    assert [s.number for s in found.steps] == [1, 2, 3]
    assert found.summary["accuracy"] > 0
    assert found.summary["judged"] == 3


def test_the_command_in_json(tmp_path, monkeypatch):
    monkeypatch.setattr("clarke.cli.demo._TIMED", 2)
    result = run("--steps", 2, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["judged"] == 2
    assert data["overhead"]["ratio"] > 1
    assert sum(data["verdicts"].values()) == 2
    assert data["kink"]["verdict"] == "NOT_CLARKE"
    assert data["kink"]["repaired"]


def test_a_loss_that_goes_wrong_is_found_explained_and_repaired(data):
    found = judge_at_a_kink(data)
    assert found.report.verdict is clarke.Verdict.NOT_CLARKE
    assert found.repaired
    assert found.error > 0.1
    assert found.left < 1e-6
    text = str(found.report)
    assert "kinked.py" in text
    assert "binary_cross_entropy_with_logits" in text
    assert found.report.certificate.verify()


def test_bad_usage(tmp_path):
    assert run("--steps", 0).exit_code == 2
    assert run("--stepz", 3).exit_code == 2


def test_a_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(clarke.InputError, match=r"clarke\[demo\]"):
        read_digits()
