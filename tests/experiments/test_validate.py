"""`clarke validate`: Algorithm 1 as in the paper, random networks, no contradictions."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import clarke
from clarke.cli import make_app
from clarke.cli.validate import lines, page
from clarke.experiments.random_networks import (
    Activation,
    Layer,
    Network,
    NetworkClass,
    Variables,
    draw_network,
)
from clarke.experiments.theorem8 import theorem_8_holds
from clarke.experiments.validate import (
    Answer,
    Case,
    Contradiction,
    Method,
    contradictions,
    judge,
    summarize,
    validate,
)
from reference.leaves import leaf

PAGE = Path(__file__).resolve().parents[2] / "docs" / "validation.md"


def dense(weight, bias, activation):
    return Layer(leaf(*weight), None if bias is None else leaf(*bias), activation)


def network(first, inputs, loss):
    readout = Layer(leaf(*loss), None, None)
    weights = torch.ones(len(inputs), 1, dtype=torch.float64)
    return Network(NetworkClass.DISTINCT, (first, readout), leaf(*inputs), weights)


def test_lemma_2_fails_theorem_8():
    """relu(w) - relu(-w): one weight for two neurons has no place in the class; two samples do."""
    opposed = network(dense([[0.0]], None, Activation.RELU), [[1.0], [-1.0]], [[1.0]])
    assert not theorem_8_holds(opposed)


def test_a_bias_makes_theorem_8_hold():
    shifted = network(dense([[0.0]], [0.0], Activation.RELU), [[1.0], [-1.0]], [[1.0]])
    assert theorem_8_holds(shifted)


def test_what_a_bias_cannot_settle_a_weight_can():
    """Hardsigmoid at both of its kinks: AD takes 0 at both, so one must rise and one fall."""
    both = dense([[3.0]], [0.0], Activation.HARDSIGMOID)
    assert theorem_8_holds(network(both, [[1.0], [-1.0]], [[1.0]]))


def test_pool_ties_between_equal_patches_do_not_count():
    weight = torch.ones(1, 1, 3, 3, dtype=torch.float64).requires_grad_()
    image = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    readout = Layer(leaf([1.0]), None, None)
    tied = Network(
        NetworkClass.POOLED_BARE,
        (Layer(weight, None, Activation.RELU, pooled=True), readout),
        image.requires_grad_(),
        torch.ones(1, 1, dtype=torch.float64),
    )
    assert tied.touches()
    assert theorem_8_holds(tied)


@pytest.mark.parametrize("kind", NetworkClass)
def test_networks_repeat_and_stand_on_kinks(kind):
    first, second = draw_network(kind, 5), draw_network(kind, 5)
    assert torch.equal(first.loss(), second.loss())
    assert first.touches()
    assert (
        len(first.variables(Variables.PARAMETERS))
        == (2 if kind.biased else 1) * (1 if kind is NetworkClass.TIED else 2) + 1
    )


def test_nothing_contradicts():
    cases = [case for part in validate(1, seed=7) for case in part]
    assert len(cases) == len(NetworkClass) * len(Variables)
    assert all(case.touched for case in cases)
    assert not any(contradictions(cases).values())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answers():
    cases = [case for part in validate(1, seed=7) for case in part]
    again = [case for part in validate(1, seed=7) for case in part]
    assert [c.answers for c in cases] == [c.answers for c in again]


@pytest.mark.slow
def test_processes_change_nothing(tmp_path):
    # In a fresh interpreter: what other tests leave in this one is handed to new processes.
    program = """
        from clarke.experiments.validate import validate

        if __name__ == "__main__":
            alone = [case.answers for part in validate(1, seed=3) for case in part]
            shared = [case.answers for part in validate(1, seed=3, jobs=2) for case in part]
            assert alone and alone == shared
    """
    script = tmp_path / "both.py"
    script.write_text(textwrap.dedent(program), encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wrong_gradient_is_counted_as_one():
    """Two opposite samples, no bias, differentiated by the weight: Lemma 2 in a network."""
    opposed = network(dense([[0.0]], None, Activation.RELU), [[1.0], [-1.0]], [[1.0]])
    opposed = Network(
        opposed.kind,
        opposed.layers,
        opposed.inputs,
        torch.tensor([[1.0], [-1.0]], dtype=torch.float64),
    )
    case = judge(opposed, Variables.FIRST_LAYER)
    assert case.answers[Method.EXACT] is Answer.NO
    assert case.answers[Method.CHECK] is Answer.NO
    assert case.answers[Method.WITNESS] is Answer.UNDECIDED
    assert case.elements == 1
    assert case.contradictions == ()
    report = clarke.check(opposed.loss, wrt=opposed.variables(Variables.FIRST_LAYER))
    assert report.element[0].tolist() == [[1.0]]


def test_false_claims_are_counted(monkeypatch):
    """If Theorem 8 were claimed at a wrong gradient, the comparison would say so."""
    opposed = network(dense([[0.0]], None, Activation.RELU), [[1.0], [-1.0]], [[1.0]])
    opposed = Network(
        opposed.kind,
        opposed.layers,
        opposed.inputs,
        torch.tensor([[1.0], [-1.0]], dtype=torch.float64),
    )
    monkeypatch.setattr("clarke.experiments.validate.theorem_8_holds", lambda _network: True)
    wrong = Network(opposed.kind, opposed.layers, opposed.inputs, opposed.weights)
    case = judge(wrong, Variables.PARAMETERS)
    assert case.answers[Method.EXACT] is Answer.NO
    assert Contradiction.THEOREM_8 in case.contradictions


def test_the_table_adds_up():
    answers = dict.fromkeys(Method, Answer.YES)
    cases = [Case(NetworkClass.BARE, Variables.INPUTS, 1, answers, 2, ())] * 3
    line = summarize(cases, "x")
    assert (line.cases, line.several) == (3, 3)
    assert line.counts[Method.EXACT, Answer.YES] == 3
    assert len(lines(cases)) == len(NetworkClass) * len(Variables) + 1
    assert "| all | 3 | 3 | 3 / 0 | 3 / 0 / 0 | 3 / 0 / 0 | 3 / 0 / 0 |" in page(cases, 1, 0)


@pytest.mark.slow
def test_the_command():
    result = CliRunner().invoke(
        make_app("validate"), ["validate", "--networks", "1", "--seed", "2", "--jobs", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "Contradictions:" in result.output
    assert "  0  Theorem 8 holds" in result.output


def test_the_page_counts_no_contradiction():
    text = PAGE.read_text("utf-8")
    for kind in Contradiction:
        assert f"| {kind.value} | 0 |" in text


@pytest.mark.slow
def test_the_page_is_what_the_command_prints():
    text = PAGE.read_text("utf-8")
    command = text.split("```sh\n", 1)[1].split("\n", 1)[0].split()
    result = CliRunner().invoke(make_app("validate"), command[1:])
    assert result.output == text
