"""A sum of accumulated gradients is judged when somebody uses it, and told everywhere alike."""

import json
import sys

import pytest
import torch
from torch import nn

import clarke
from clarke import Verdict
from clarke.integrations.recording import record
from clarke.report.runs import read_run

SCRIPT = """
import torch
from torch import nn

torch.manual_seed(0)
actor, critic = nn.Linear(3, 2), nn.Linear(5, 1)
opt_actor = torch.optim.Adam(actor.parameters(), 0.01)
opt_critic = torch.optim.Adam(critic.parameters(), 0.01)
for _ in range(4):
    x = torch.randn(8, 3)
    opt_critic.zero_grad(set_to_none={to_none})
    critic(torch.cat([x, actor(x).detach()], 1)).square().mean().backward()
    {clip}
    opt_critic.step()
    opt_actor.zero_grad()
    (-critic(torch.cat([x, actor(x)], 1)).mean()).backward()
    opt_actor.step()
    {extra}
"""
CLIP = "nn.utils.clip_grad_norm_(critic.parameters(), 0.1)"


def run_script(**parts):
    with clarke.audit() as watch:
        exec(compile(SCRIPT.format(**parts), "script.py", "exec"), {})  # noqa: S102 - as clarke run
    return watch


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("clip", ["", CLIP])
def test_what_an_actor_leaves_in_its_critic_is_cleared(to_none, clip):
    watch = run_script(to_none=to_none, clip=clip, extra="")
    assert watch.summary().correct is True
    assert watch.summary().joint == {}
    assert {s.joint for s in watch.steps} == {Verdict.SMOOTH}


@pytest.mark.parametrize("clip", ["", CLIP])
def test_what_an_optimizer_takes_of_it_is_not(clip):
    watch = run_script(to_none=True, clip=clip, extra="opt_critic.step()")
    assert {s.joint for s in watch.steps[1::2]} == {Verdict.UNDECIDED}
    assert {s.joint for s in watch.steps[::2]} == {Verdict.SMOOTH}
    assert watch.summary().correct is None
    assert watch.summary().joint == {Verdict.UNDECIDED: 4}


def test_an_update_by_hand_takes_it_too():
    w, v = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with clarke.audit() as watch:
        for _ in range(3):
            (w * v).sum().backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
            w.grad = None
    # v changes never, so what it holds is a sum of gradients of different functions.
    assert watch.summary().correct is None
    v.grad = None
    with clarke.audit() as watch:
        for _ in range(3):
            (w * v).sum().backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
                v -= 0.1 * v.grad
            w.grad = v.grad = None
    assert watch.summary().correct is True


def test_what_is_left_at_the_end_may_be_read_by_others():
    w = nn.Parameter(torch.ones(2))
    with clarke.audit() as watch:
        w.square().sum().backward()
        w.grad.mul_(0.5)
        w.square().sum().backward()
    assert watch.steps[1].joint is Verdict.UNDECIDED
    assert "did not see being computed" in watch.steps[1].joint_reason


def test_an_undecided_sum_is_told_everywhere_alike(tmp_path):
    w = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([w], 0.1)
    watch = clarke.audit()
    writer = record(watch, tmp_path / "run", {})
    with watch:
        w.grad = torch.ones(2)
        w.square().sum().backward()
        optimizer.step()
    writer.finish(watch.summary().to_dict())
    run = read_run(tmp_path / "run")
    assert run.steps[0].joint is Verdict.UNDECIDED
    assert run.steps[0].joint_reason == watch.steps[0].joint_reason
    assert run.sums() == {Verdict.UNDECIDED: 1}
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["correct"] is None


@pytest.mark.parametrize(("used", "status"), [("opt_critic.step()", 2), ("", 0)])
def test_strict_counts_a_used_sum(tmp_path, monkeypatch, used, status):
    from typer.testing import CliRunner

    from clarke.cli import make_app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    (tmp_path / "s.py").write_text(SCRIPT.format(to_none=True, clip="", extra=used))
    done = CliRunner().invoke(make_app("run"), ["run", "--strict", "--out", "r", "s.py"])
    assert done.exit_code == status, done.output


SHARED = {
    "a sum": lambda p: (p + 1).sum(),
    "a view": lambda p: p.view(2, 2).t() - 3,
    "cut and joined": lambda p: torch.cat([p[:2], p[1:].flip(0)]).mean(0, keepdim=True),
}


@pytest.mark.parametrize("part", SHARED.values(), ids=SHARED)
def test_a_shared_part_that_saves_nothing_is_differentiated_twice(part):
    p = nn.Parameter(torch.arange(4.0))
    with clarke.audit() as watch:
        for _ in range(2):
            shared = part(p)
            shared.square().sum().backward()
            shared.pow(3).sum().backward()
            p.grad = None
    assert [s.verdict for s in watch.steps] == [Verdict.SMOOTH] * 4


def test_a_shared_part_at_a_kink_is_judged_each_time():
    p = nn.Parameter(torch.zeros(2))
    with clarke.audit(lambda report: None) as watch:
        shared = p + 0.0
        shared.relu().sum().backward()
        p.grad = None
        (shared.relu() - (-shared).relu()).sum().backward()
    assert [s.verdict for s in watch.steps] == [Verdict.BOULIGAND, Verdict.NOT_CLARKE]


def test_what_saves_values_stays_the_programs_own_error():
    p = nn.Parameter(torch.ones(2))
    with clarke.audit():
        shared = p * p
        shared.sum().backward()
        with pytest.raises(RuntimeError, match="second time"):
            shared.sum().backward()
