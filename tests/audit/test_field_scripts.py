"""Training scripts that know nothing of clarke: same results, nothing accused, records that end."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import clarke
from clarke.verdict import Verdict

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    spec = importlib.util.spec_from_file_location("field_scripts", FOLDER / "scripts.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["field_scripts"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in ("truncated_lstm", "ppo", "neural_ode")]


@pytest.mark.parametrize("name", ["ddpg", pytest.param("vq_vae", marks=pytest.mark.slow), *SLOW])
def test_results_are_the_same_to_the_bit(scripts, name):
    script = FOLDER / "scripts" / f"{name}.py"
    plain, audited = (scripts.run(script, steps=3, audited=a) for a in (False, True))
    assert plain.printed == audited.printed
    assert plain.printed.count("step ") == 3
    assert scripts.same_bits(plain.weights, audited.weights)
    assert sum(audited.verdicts.values()) >= 3
    assert not audited.verdicts["NOT_CLARKE"]


def test_every_script_is_there(scripts):
    names = sorted(p.stem for p in scripts.FOLDER.glob("*.py"))
    assert len(names) == 12
    assert {"ppo", "neural_ode", "small_gpt", "aggregation_cnn"} <= set(names)


def test_different_weights_are_told_apart(scripts):
    one = {"a": torch.tensor([0.0, 1.0])}
    assert scripts.same_bits(one, {"a": torch.tensor([0.0, 1.0])})
    assert not scripts.same_bits(one, {"a": torch.tensor([0.0, 1.0 + 2e-7])})
    assert not scripts.same_bits([one], [])


def test_a_policys_own_actions_of_earlier_steps_are_constants():
    torch.manual_seed(0)
    policy = torch.nn.Linear(2, 3)
    state, lengths = torch.zeros(4, 2), []
    with clarke.audit(seconds=20) as audit:
        for _ in range(4):
            with torch.no_grad():
                action = policy(state).argmax(1)
            state = state + torch.where(torch.rand(4) < 0.5, action, 0)[:, None]
            loss = (policy(state).gather(1, action[:, None]) - 1).pow(2).mean()
            lengths.append(len(clarke.capture.collect_trace(audit._recorder, loss).ops))
            policy.zero_grad()
            loss.backward()
    assert lengths[1] == lengths[2] == lengths[3]
    assert all(s.verdict is Verdict.SMOOTH for s in audit.steps)


def test_what_was_detached_in_this_step_is_still_looked_at():
    x = torch.tensor([0.3, 1.7], dtype=torch.float64, requires_grad=True)
    with clarke.audit(seconds=20) as audit:
        for _ in range(2):
            (x + (x.round() - x).detach()).sum().backward()
    assert [s.verdict for s in audit.steps] == [Verdict.SURROGATE] * 2
