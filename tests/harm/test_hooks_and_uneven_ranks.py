"""DDP with hooks that round or change what is sent, uneven batches, ranks that go their own way.

Both processes of one pair run all programs, in step; none may wait for clarke.
"""

import math
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

import clarke
from clarke.audit.letters import planned

from .test_joint_verdicts import (
    Function,
    audited,
    by_name,
    down,
    names_of,
    pytestmark,  # noqa: F401 - where there is no gloo, none of these runs
    serve,
    smooth,
    told,
    told_and_raised,
    told_by_both,
    up,
)


def sent_by(hook, functions, at=0.0, state=None, audit=None):
    """What is said of one step whose gradients a hook sends, with the notes."""
    module = Function(functions, at=at)
    replica = DistributedDataParallel(module)
    replica.register_comm_hook(state, hook)
    audit = audit or audited()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            replica().backward()
    return *told(audit, module), [n for r in audit.reports for n in r.notes]


FP16 = default_hooks.fp16_compress_hook  # that in bfloat16 asks for NCCL


def third(m):
    return 0.1 * m.w


def rounded_smoothly():
    return sent_by(FP16, [lambda m: 0.3 * m.w, third], at=1.0)


def rounded_signs_differ():
    return sent_by(FP16, [lambda m: up(m) + third(m), lambda m: down(m) + third(m)])


def rounded_signs_differ_repaired():
    return sent_by(FP16, [up, down], audit=audited("repair"))


def rounded_signs_equal():
    return sent_by(FP16, [lambda m: down(m) + third(m), down])


def rounded_to_infinity():
    return sent_by(FP16, [lambda m: 1e6 * m.w, smooth], at=1.0)


def of_low_rank():
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2)
    state.start_powerSGD_iter = 0
    torch.manual_seed(0)
    net = nn.Linear(8, 8, bias=False)
    replica = DistributedDataParallel(net)
    replica.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    with audited() as audit:
        replica(torch.randn(3, 8) + dist.get_rank()).square().sum().backward()
    return told(audit)


def doubled(_state, bucket):
    """A user's own: the sum in place of the mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda f: f.value()[0])


def summed_by_ones_own():
    return sent_by(doubled, [up, smooth])


def averaged_by_ones_own():
    def mean(_state, bucket):
        work = dist.all_reduce(bucket.buffer() / 2, async_op=True)
        return work.get_future().then(lambda f: f.value()[0])

    return sent_by(mean, [up, down])


# ---------------------------------------------------------------- ranks that go their own way


def steps_of(replica, count, audit, call=lambda replica, _: replica()):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            for number in range(count):
                replica.zero_grad()
                call(replica, number).backward()
    return told(audit)


def uneven_under_join():
    """Rank 0 has three batches, rank 1 one."""
    module = Function([up, down])
    replica = DistributedDataParallel(module)
    with audited() as audit, replica.join():
        for _ in range(3 - 2 * dist.get_rank()):
            replica().backward()
    return told(audit)


def uneven_last_batch():
    module = nn.Linear(3, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    sizes = [4, 4, 1 + dist.get_rank()]
    replica = DistributedDataParallel(module)
    return steps_of(
        replica, 3, audited(), lambda r, n: torch.relu(r(torch.ones(sizes[n], 3))).mean()
    )


def one_never_uses_a_parameter():
    def both(m):
        return torch.relu(m.w).sum() + torch.relu(m.other).sum()

    def first(m):
        return -torch.relu(-m.w)

    module = Function([both, first], unused=True)
    return steps_of(DistributedDataParallel(module, find_unused_parameters=True), 2, audited())


def judged_by_turns():
    """Rank 0 judges calls 1, 4, 7, rank 1 calls 1, 3, 5, 7."""
    replica = DistributedDataParallel(Function([up, down]))
    return steps_of(replica, 7, audited(every=3 - dist.get_rank()))


def one_ends_its_audit_early():
    replica = DistributedDataParallel(Function([up, down]))
    found = steps_of(replica, 1 + dist.get_rank(), audited())
    if not dist.get_rank():
        replica.zero_grad()
        replica().backward()
    return found


def one_fails_in_forward():
    """Rank 1's program raises before it takes part; rank 0 gets gloo's error, in gloo's time."""

    def fails(_):
        raise ValueError("as programs do")

    module = Function([up, fails])
    group = dist.new_group(timeout=timedelta(seconds=2))
    replica = DistributedDataParallel(module, process_group=group)
    return told_and_raised(replica, ValueError)


def one_fails_in_a_hook():
    """Rank 1 is ended by a hook of its own before it sends anything; rank 0 as above."""

    def raises(_):
        raise KeyError("as hooks do")

    module = Function([up, down])
    group = dist.new_group(timeout=timedelta(seconds=2))
    replica = DistributedDataParallel(module, process_group=group)
    if dist.get_rank():
        module.w.register_post_accumulate_grad_hook(raises)
    return told_and_raised(replica, KeyError)


HOOKS = (
    rounded_smoothly, rounded_signs_differ, rounded_signs_differ_repaired, rounded_signs_equal,
    rounded_to_infinity, of_low_rank, summed_by_ones_own, averaged_by_ones_own,
)  # fmt: skip
APART = (
    uneven_under_join, uneven_last_batch, one_never_uses_a_parameter, judged_by_turns,
    one_ends_its_audit_early, one_fails_in_a_hook, one_fails_in_forward,
)  # fmt: skip


def work(names, rank, port, queue):
    serve(by_name((*HOOKS, *APART), names), rank, port, queue)


@pytest.fixture(scope="module")
def found():
    return told_by_both(work, names_of((*HOOKS, *APART)))


EXPECTED = {
    rounded_smoothly: ("SMOOTH", "", "fp16_compress_hook sends gradients in torch.float16"),
    rounded_signs_differ: ("NOT_CLARKE", "", "fp16_compress_hook"),
    rounded_signs_equal: ("BOULIGAND", "", "fp16_compress_hook"),
    rounded_to_infinity: ("NONFINITE", "", ""),
    summed_by_ones_own: ("UNDECIDED", "doubled, which may round or change it", ""),
    averaged_by_ones_own: ("NOT_CLARKE", "", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("program", EXPECTED, ids=lambda p: p.__name__)
def test_gradients_that_hooks_send(found, program):
    verdict, reason, note = EXPECTED[program]
    first, second = found[program.__name__]
    assert first == second
    ((own, joint, why),) = first[0]
    assert own == joint == verdict
    assert reason in why
    assert any(note in n for n in first[2]) if note else not first[2]


@pytest.mark.slow
def test_a_rounded_mean_is_repaired(found):
    for steps, grads, _ in found["rounded_signs_differ_repaired"]:
        assert [(v, j) for v, j, _ in steps] == [("NOT_CLARKE", "CLARKE")]
        assert grads == [[0.5, 0.5, 0.5]]


@pytest.mark.slow
def test_gradients_of_low_rank_are_no_mean(found):
    for steps, _ in found["of_low_rank"]:
        assert [v for v, _, _ in steps] == ["UNDECIDED"]
        assert "powerSGD_hook" in steps[0][2]


WRONG, LEFT, OPEN = "NOT_CLARKE", "", "UNDECIDED"
OWN_WAYS = {
    uneven_under_join: ([OPEN] * 3, [OPEN]),
    uneven_last_batch: (["BOULIGAND"] * 3, ["BOULIGAND"] * 3),
    one_never_uses_a_parameter: ([WRONG] * 2, [WRONG] * 2),
    judged_by_turns: (
        [WRONG, LEFT, LEFT, OPEN, LEFT, LEFT, OPEN],
        [WRONG, LEFT, OPEN, LEFT, OPEN, LEFT, OPEN],
    ),
    one_ends_its_audit_early: ([WRONG], [WRONG, OPEN]),
}


@pytest.mark.slow
@pytest.mark.parametrize("program", OWN_WAYS, ids=lambda p: p.__name__)
def test_nobody_waits_for_a_rank_that_goes_its_own_way(found, program):
    both = found[program.__name__]
    assert tuple([v for v, _, _ in steps] for steps, _ in both) == OWN_WAYS[program]


@pytest.mark.slow
@pytest.mark.parametrize("program", [one_fails_in_a_hook, one_fails_in_forward])
def test_the_others_get_gloos_own_error(found, program):
    (steps, own), (none, others) = found[program.__name__]
    assert steps == none == []
    assert (own, others) == (
        "RuntimeError",
        "KeyError" if "hook" in program.__name__ else "ValueError",
    )


def test_rounding_by_a_hook_is_told_from_other_changes():
    """What rank 0 plans, from flags as two processes send them."""

    def flags(mine, mean, hooks=()):
        return {
            "smooth": True, "fresh": True, "why": "", "apart": "", "eps": 2.0**-23,
            "leaves": "", "mine": [mine, abs(mine)], "mean": [mean, abs(mean)],
            "hooks": list(hooks),
        }  # fmt: skip

    rounded = planned([flags(0.3, 0.2 * (1 + 2.0**-11), ["fp16_compress_hook"])] * 2)
    assert "not the mean" in rounded["why"]  # 0.3 is none of 0.2
    rounded = planned([flags(0.2, 0.2 * (1 + 2.0**-11), ["fp16_compress_hook"])] * 2)
    assert (rounded["why"], rounded["smooth"], rounded["fresh"]) == ("", True, False)
    assert "torch.float16" in rounded["note"]
    own = planned([flags(0.2, 0.2 * (1 + 2.0**-11), ["powerSGD_hook"])] * 2)
    assert "powerSGD_hook" in own["why"]
    assert not own["note"]
    infinite = planned([flags(1e6, math.inf, ["fp16_compress_hook"])] * 2)
    assert (infinite["why"], infinite["smooth"], infinite["fresh"]) == ("", False, True)
