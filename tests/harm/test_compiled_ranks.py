"""Compiled programs in several processes: one verdict under DDP, one sentence under FSDP2.

All programs run in one pair of processes, one after the other, and tell what came of them.
"""

import warnings
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import clarke
from reference.backends import with_slope_one

from .test_joint_verdicts import Function as Several
from .test_joint_verdicts import (
    audited,
    by_name,
    down,
    names_of,
    plain,
    pytestmark,  # noqa: F401 - as there
    serve,
    told,
    told_by_both,
    up,
)
from .test_sharded_verdicts import sharded


def backward_of(model, audit=None):
    audit = audit or audited()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with audit:
            model().backward()
    others = [w for w in seen if not issubclass(w.category, clarke.WrongGradientWarning)]
    ours = [str(w.message) for w in others if "clarke" in str(w.message) + w.filename]
    steps, gradients = told(audit, model)
    return steps, gradients, ours


def inside(functions, backend="aot_eager", audit=None, at=0.0):
    """DDP around what is compiled."""
    model = Several(functions, at)
    model.compile(backend=backend)
    return backward_of(DistributedDataParallel(model), audit)


def around(functions, backend="aot_eager", audit=None, at=0.0):
    """What is compiled around DDP."""
    model = torch.compile(DistributedDataParallel(Several(functions, at)), backend=backend)
    return backward_of(model, audit)


def signs_differ():
    return inside([up, down])


def signs_differ_repaired():
    audit = audited("repair")
    steps, gradients, ours = inside([up, down], audit=audit)
    proof = audit.reports[-1].certificate
    return steps, gradients, ours, None if proof is None else proof.verify()


def signs_differ_around():
    return around([up, down])


def signs_differ_by_eager():
    return inside([up, down], backend="eager")


def signs_differ_around_by_eager():
    return around([up, down], backend="eager")


def signs_differ_by_inductor():
    return inside([up, down], backend="inductor")


def signs_differ_around_by_inductor():
    return around([up, down], backend="inductor")


def signs_equal():
    return inside([down, down])


def nothing_touched():
    return around([up, down], at=1.0)


def one_kernel_of_its_own():
    """Rank 1's compiled program takes 1 for relu's slope at 0."""
    backend = with_slope_one() if dist.get_rank() else "aot_eager"
    return inside([up, up], backend=backend)


def random_numbers():
    def dropped(m):
        return nn.functional.dropout(torch.relu(m.w), training=True)

    torch.manual_seed(0)
    return inside([dropped, dropped])


def compiled_before():
    model = Several([up, down])
    model.compile(backend="aot_eager")
    replica = DistributedDataParallel(model)
    replica().backward()
    model.w.grad = None
    return backward_of(replica)


def accumulated():
    model = Several([up, down])
    model.compile(backend="aot_eager")
    replica = DistributedDataParallel(model)
    audit = audited()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            with replica.no_sync():
                replica().backward()
            replica().backward()
    return *told(audit, model), []


def in_parts():
    model = sharded(Several([up, down]))
    model.compile(backend="aot_eager")
    audit = audited()
    with audit:
        model().backward()
    return told(audit)[0], [model.w.grad.to_local()], []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.norm(torch.relu(self.first(x)))).square().mean()


def trained(wrap, audit):
    """Three steps with a unit at its kink; losses and weights."""
    torch._dynamo.reset()
    torch.manual_seed(dist.get_rank())
    model = Net()
    with torch.no_grad():
        model.first.weight[0], model.first.bias[0] = 0, 0
    step = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    with audit:
        for _ in range(3):
            loss = step(torch.randn(4, 6))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return [losses, *[p.detach().clone() for p in model.parameters()]]


def as_without(wrap):
    audit = audited()
    one, other = trained(wrap, audit), trained(wrap, clarke.audit(every=1000))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    same = plain(one) == plain(other)
    return told(audit)[0], [same, graphs], []


def unchanged():
    return as_without(lambda m: torch.compile(DistributedDataParallel(m), backend="aot_eager"))


def unchanged_inside():
    return as_without(lambda m: DistributedDataParallel(torch.compile(m, backend="aot_eager")))


PROGRAMS = (
    signs_differ, signs_differ_repaired, signs_differ_around, signs_differ_by_eager,
    signs_differ_around_by_eager, signs_differ_by_inductor, signs_differ_around_by_inductor,
    signs_equal, nothing_touched, one_kernel_of_its_own, random_numbers, compiled_before,
    accumulated, in_parts, unchanged, unchanged_inside,
)  # fmt: skip


def afresh(program):
    """Run a program with nothing compiled yet."""
    torch._dynamo.reset()
    return program()


def work(names, rank, port, queue):
    programs = {n: partial(afresh, p) for n, p in by_name(PROGRAMS, names).items()}
    serve(programs, rank, port, queue, post=30, wait=60)


SOME = signs_differ_repaired, signs_differ_around_by_eager, in_parts


@pytest.fixture(scope="module")
def some():
    return told_by_both(work, names_of(SOME))


@pytest.fixture(scope="module")
def found():
    return told_by_both(work, names_of(PROGRAMS))


WRONG = (["NOT_CLARKE"], "0.866 away")
EXPECTED = {
    **dict.fromkeys(PROGRAMS[:7], WRONG),
    signs_equal: (["BOULIGAND"], ""),
    nothing_touched: (["SMOOTH"], ""),
    one_kernel_of_its_own: (["UNDECIDED"], "is not the gradient of the function as it was written"),
    random_numbers: (["UNDECIDED"], "draws random numbers"),
    compiled_before: WRONG,
    accumulated: (["UNDECIDED", "NOT_CLARKE"], "Under no_sync"),
    in_parts: (["UNDECIDED"], "every process holds a part (FSDP2)"),
    unchanged: (["BOULIGAND"] * 3, ""),
    unchanged_inside: (["BOULIGAND"] * 3, ""),
}


def one_verdict(program, both):
    verdicts, reason = EXPECTED[program]
    for steps, _, ours, *_ in both:
        assert [v for v, _, _ in steps] == verdicts, steps
        assert reason in steps[0][2]
        assert ours == []
    if program is not in_parts:  # where each has its own
        assert both[0][1] == both[1][1]


@pytest.mark.parametrize("program", SOME, ids=lambda p: p.__name__)
def test_some_on_two_ranks(some, program):
    one_verdict(program, some[program.__name__])


def test_one_proof_and_one_repair(some):
    for _, gradients, _, verified in some["signs_differ_repaired"]:
        assert gradients == [[0.5, 0.5, 0.5]]
        assert verified is not False
    assert [f[3] for f in some["signs_differ_repaired"]] == [True, None]


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_one_verdict_on_both(found, program):
    one_verdict(program, found[program.__name__])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unchanged", "unchanged_inside"])
def test_no_bit_and_no_graph_changes(found, name):
    for _, (same, _), _ in found[name]:
        assert same
