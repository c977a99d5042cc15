"""FSDP2: one verdict of all processes on parameters that lie in parts, whole only while in use.

All programs run in one pair of processes, one after the other, and tell what came of them.
"""

import warnings
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn

import clarke

from .test_joint_verdicts import (
    PIECES,
    answer,
    audited,
    by_name,
    dies,
    down,
    names_of,
    pair_of,
    pytestmark,  # noqa: F401 - as there
    serve,
    smooth,
    told,
    told_by_both,
    up,
)
from .test_joint_verdicts import Function as Several


def sharded(module, parts=(), **options):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for part in (*parts, module):
        fully_shard(part, mesh=mesh, **options)
    return module


def parts_of(module):
    return [None if p.grad is None else p.grad.to_local() for p in module.parameters()]


def once(module, audit=None, parts=(), **options):
    module = sharded(module, parts, **options)
    audit = audit or audited()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            module().backward()
    return told(audit)[0], parts_of(module)


def signs_differ():
    return once(Several([up, down]))


def stepped_in_hooks(functions, policy="warn"):
    """Each parameter moves as soon as its gradient is put together, which is then let go."""

    def step(p):
        p.sub_(p.grad - 1, alpha=0.5)
        p.grad = None

    found = []
    for audit in (nullcontext(), audited(policy)):
        module = sharded(Several(functions))
        for p in module.parameters():
            p.register_post_accumulate_grad_hook(torch.no_grad()(step))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", clarke.WrongGradientWarning)
            with audit:
                module().backward()
        found.append([p.detach().to_local().clone() for p in module.parameters()])
        left = [len(p._post_accumulate_grad_hooks) for p in module.parameters()]
    return told(audit)[0], [all(map(torch.equal, *found)), left, parts_of(module)]


def stepped_where_signs_differ():
    return stepped_in_hooks([up, down], "repair")


def stepped_where_signs_are_equal():
    return stepped_in_hooks([down, down])


def signs_differ_repaired():
    audit = audited("repair")
    found = once(Several([up, down]), audit)
    proof = audit.reports[-1].certificate
    places = [(p.operation, p.module) for p in audit.summary().places]
    return *found, None if proof is None else proof.verify(), places


def signs_equal():
    return once(Several([down, down]))


def one_without_kinks():
    return once(Several([smooth, down]))


def nothing_touched():
    return once(Several([up, down], at=1.0))


class Net(nn.Module):
    """Three blocks; with zeros in the first, every unit of which stands at a kink."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 6, dtype=dtype)
        self.norm = nn.LayerNorm(6, dtype=dtype)
        self.last = nn.Linear(6, 3, dtype=dtype)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return torch.relu(self.last(self.norm(x)))


def batch(kinked):
    torch.manual_seed(1 + dist.get_rank())
    x = torch.randn(5, 4)
    return x * 0 if kinked else x


def trained(model, audit, kinked=(True, False), call=None, momentum=0.5):
    """Some steps under an audit, and the parts of the parameters afterwards."""
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            for zeros in kinked:
                opt.zero_grad()
                (call or model)(batch(zeros)).float().square().mean().backward()
                opt.step()
    return [p.to_local().detach().clone() for p in model.parameters()]


def as_without(make, **options):
    """What the audit says of a training, and whether it changed a bit of it."""
    audit = audited()
    seen = trained(make(), audit, **options)
    bare = trained(make(), nullcontext(), **options)
    return told(audit)[0], all(torch.equal(a, b) for a, b in zip(seen, bare, strict=True))


def zeroed(net):
    with torch.no_grad():
        net.first.bias.zero_()
    return net


def network(**options):
    def make():
        net = zeroed(Net())
        return sharded(net, (net.first, net.norm, net.last), **options)

    return as_without(make)


def network_kept_whole():
    return network(reshard_after_forward=False)


def network_in_one_group():
    return as_without(lambda: sharded(zeroed(Net())))


def network_cut_across():
    from torch.distributed.tensor import Shard

    def make():
        net = zeroed(Net())
        across = {id(net.first.weight): Shard(1)}
        return sharded(net, (net.first,), shard_placement_fn=lambda p: across.get(id(p)))

    return as_without(make)


def narrow(reduced=None):
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=reduced)

    def make():
        net = zeroed(Net())
        return sharded(net, (net.first, net.norm, net.last), mp_policy=policy)

    return as_without(make)


def narrow_reduced_in_full():
    return narrow(torch.float32)


def narrow_signs_differ():
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return once(Several([up, down]), audited("repair"), mp_policy=policy)


def checkpointed(reentrant):
    from torch.utils.checkpoint import checkpoint

    class Checked(Net):
        def forward(self, x):
            if reentrant:
                x = x.requires_grad_()
            x = checkpoint(self.first, x, use_reentrant=reentrant).relu()
            return checkpoint(
                lambda y: torch.relu(self.last(self.norm(y))), x, use_reentrant=reentrant
            )

    def make():
        net = zeroed(Checked())
        return sharded(net, (net.first, net.norm, net.last))

    return as_without(make)


def checkpoints():
    return checkpointed(reentrant=False)


def reentrant_checkpoints():
    return checkpointed(reentrant=True)


def accumulated(kinds, audit=None, sync=False, **options):
    """Several calls, the gradients of which are put together by the last."""
    module = Several([kinds[0], kinds[0]], at=options.pop("at", 0.0))
    module = sharded(module, **options)
    audit = audit or audited()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            for i, kind in enumerate(kinds):
                module.set_requires_gradient_sync(sync or i == len(kinds) - 1)
                module.function = kind if callable(kind) else kind[dist.get_rank()]
                module().backward()
    return told(audit)[0], parts_of(module)


def accumulated_kinks_that_cancel():
    return accumulated([up, down])


def accumulated_kinks_that_cancel_repaired():
    return accumulated([up, down], audited("repair"))


def accumulated_over_ranks():
    return accumulated([(up, smooth), (smooth, down)])


def accumulated_smoothly():
    return accumulated([up, down], at=1.0)


def accumulated_smooth_then_kinks():
    return accumulated([smooth, (up, down)])


def accumulated_in_full():
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return accumulated([up, down], mp_policy=policy)


def added_step_by_step():
    return accumulated([up, (up, down)], sync=True)


def summed():
    """Divided by one: the sum of all, not the mean."""
    module = sharded(Several([up, down]))
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)
    audit = audited("repair")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            module().backward()
    return told(audit)[0], parts_of(module)


def changed_by_a_hook():
    module = sharded(Several([smooth, smooth]))

    def halved(gradient):
        gradient.mul_(0.5)

    module.set_all_reduce_hook(halved)
    with audited() as audit:
        module().backward()
    return told(audit)[0], None


def frozen():
    def make():
        net = zeroed(Net())
        for p in net.last.parameters():
            p.requires_grad_(False)
        return sharded(net, (net.first, net.last))

    return as_without(make)


def named():
    """The parameters that the optimizer has are those that `wrt` names."""
    module = sharded(Several([up, down], unused=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audited(wrt=[module.w]) as audit:
            module().backward()
    names = audit.reports[-1].names
    return told(audit)[0], names


def raised():
    module = sharded(Several([up, down]))
    with audited("raise") as audit:
        try:
            module().backward()
            error = ""
        except clarke.WrongGradientError as found:
            error = type(found).__name__
    return told(audit)[0], parts_of(module), error


def detached():
    return once(Several([lambda m: torch.relu(m.w) * m.w.detach(), down]))


def read_as_it_is():
    """Kinks of a parameter itself: its values are gone when the step is judged."""

    def largest(m):
        return torch.stack([m.w, m.w.abs(), m.w * 0]).amax(0) + m.w.max()

    return once(Several([largest, smooth]))


def used_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Several([up, down])

        def forward(self):
            return self.inner() + self.inner()

    module = Twice()
    return once(module, parts=(module.inner,))


def random_sums():
    """Random sums of kinks of random ranks and calls, against the mean written as one function."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for trial in range(8):
        picks = torch.randint(len(PIECES), (2, 2, 2), generator=generator).tolist()
        at = torch.randint(-1, 2, (3,), generator=generator).float() * (trial % 3 > 0)
        calls = range(1 - trial % 2, 2)

        def part(w, pick):
            a, b = (PIECES[i] for i in pick)
            return (a(w) + b(w) * torch.tensor([1.0, 2.0, 1.0])).sum()

        module = Several([lambda m: part(m.w, m.now)] * 2)
        with torch.no_grad():
            module.w.copy_(at)
        module = sharded(module, reshard_after_forward=bool(trial % 4 // 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", clarke.WrongGradientWarning)
            with audited() as audit:
                for call in calls:
                    module.set_requires_gradient_sync(call == calls[-1])
                    module.now = picks[dist.get_rank()][call]
                    module().backward()

        def mean(w, picks=picks, calls=calls):
            return sum(part(w, picks[r][c]) for r in range(2) for c in calls) / 2

        gradient = [torch.zeros(2), torch.zeros(2)]
        gradient[dist.get_rank()][: 2 - dist.get_rank()] = parts_of(module)[0]
        for rank, own in enumerate(gradient):
            dist.broadcast(own, rank)
        whole = torch.cat([gradient[0], gradient[1][:1]])
        expected = clarke.check(mean, at.clone().requires_grad_(), gradient=whole)
        found.append((audit.steps[-1].joint.name, expected.verdict.name))
    return found


def only_one_audits():
    module = sharded(Several([up, down]))
    if dist.get_rank() == 1:
        module().backward()
        module().backward()
        return []
    with audited() as audit:
        module().backward()
        module().backward()
    return told(audit)[0]


def two_models():
    """As a GAN has: each with gradients of its own."""
    first, second = sharded(Several([up, down])), sharded(Several([up, up]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audited() as audit:
            first().backward()
            second().backward()
    return told(audit)[0], parts_of(first) + parts_of(second)


PROGRAMS = (
    stepped_where_signs_differ, stepped_where_signs_are_equal,
    signs_differ, signs_differ_repaired, signs_equal, one_without_kinks, nothing_touched,
    network, network_kept_whole, network_in_one_group, network_cut_across,
    narrow, narrow_reduced_in_full, narrow_signs_differ, checkpoints, reentrant_checkpoints,
    accumulated_kinks_that_cancel, accumulated_kinks_that_cancel_repaired, accumulated_over_ranks,
    accumulated_smoothly, accumulated_smooth_then_kinks, accumulated_in_full, added_step_by_step,
    summed, changed_by_a_hook, frozen, named, raised, detached, read_as_it_is, used_twice,
    random_sums, two_models, only_one_audits,
)  # fmt: skip


def work(names, rank, port, queue):
    serve(by_name(PROGRAMS, names), rank, port, queue)


SOME = (
    signs_differ_repaired, narrow_signs_differ, accumulated_kinks_that_cancel, network,
    stepped_where_signs_differ,
)  # fmt: skip


@pytest.fixture(scope="module")
def some():
    return told_by_both(work, names_of(SOME))


@pytest.fixture(scope="module")
def found():
    return told_by_both(work, names_of(PROGRAMS))


WRONG, RIGHT, SMOOTH = ["NOT_CLARKE"], ["BOULIGAND"], ["SMOOTH"]
LATER = ["UNDECIDED"]
EXPECTED = {
    stepped_where_signs_differ: (["NOT_CLARKE"], ""),
    stepped_where_signs_are_equal: (["BOULIGAND"], ""),
    signs_differ: (WRONG, "0.866 away"),
    signs_differ_repaired: (WRONG, "0.866 away"),
    signs_equal: (RIGHT, ""),
    one_without_kinks: (RIGHT, ""),
    nothing_touched: (SMOOTH, ""),
    network: (RIGHT + SMOOTH, ""),
    network_kept_whole: (RIGHT + SMOOTH, ""),
    network_in_one_group: (RIGHT + SMOOTH, ""),
    network_cut_across: (RIGHT + SMOOTH, ""),
    narrow: (RIGHT + SMOOTH, ""),
    narrow_reduced_in_full: (RIGHT + SMOOTH, ""),
    narrow_signs_differ: (WRONG, "0.866 away"),
    checkpoints: (RIGHT + SMOOTH, ""),
    reentrant_checkpoints: (["UNDECIDED"] * 2, "Name the former in `wrt`"),
    accumulated_kinks_that_cancel: (LATER + WRONG, "together over all processes later"),
    accumulated_kinks_that_cancel_repaired: (LATER + WRONG, "later"),
    accumulated_smoothly: (SMOOTH + SMOOTH, ""),
    accumulated_smooth_then_kinks: (SMOOTH + WRONG, ""),
    accumulated_in_full: (LATER + WRONG, "later"),
    added_step_by_step: (RIGHT + WRONG, ""),
    summed: (WRONG, "1.73 away"),
    changed_by_a_hook: (["UNDECIDED"], "halved"),
    frozen: (RIGHT + SMOOTH, ""),
    named: (WRONG, ""),
    raised: (WRONG, ""),
    detached: (["UNDECIDED"], "it detaches values"),
    read_as_it_is: (["CLARKE"], ""),
    used_twice: (WRONG, ""),
    two_models: (WRONG + RIGHT, ""),
}


def verdicts_of(steps):
    return [v for v, _, _ in steps]


def one_verdict(program, both):
    verdicts, reason = EXPECTED[program]
    for steps, *_ in both:
        assert verdicts_of(steps) == verdicts
        assert reason in steps[0][2]
    assert both[0][0] == both[1][0]


def right_everywhere(both, value):
    """Each process holds its part of a gradient that is the same everywhere."""
    assert [list(own) for _, own, *_ in both] == [[[value] * 2], [[value]]]


@pytest.mark.parametrize("program", SOME, ids=lambda p: p.__name__)
def test_some_on_two_ranks(some, program):
    """The first of what `make test-slow` tries of all."""
    both = some[program.__name__]
    one_verdict(program, both)
    if program is signs_differ_repaired:
        right_everywhere(both, 0.5)
        assert both[0][2]  # rank 0's proof is verified
        assert both[0][3] == [("relu", "rank 0: FSDPFunction"), ("relu", "rank 1: FSDPFunction")]
    if program is network:
        assert both[0][1]
        assert both[1][1]
    if program is stepped_where_signs_differ:  # the same steps, hooks, and nothing repaired
        assert [own for _, own in both] == [[True, [1], [None]]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("program", EXPECTED, ids=lambda p: p.__name__)
def test_one_verdict_on_both(found, program):
    one_verdict(program, found[program.__name__])


TRAININGS = (
    network, network_kept_whole, network_in_one_group, network_cut_across, narrow,
    narrow_reduced_in_full, checkpoints, reentrant_checkpoints, frozen,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("program", TRAININGS, ids=lambda p: p.__name__)
def test_an_audit_changes_no_bit_of_a_training(found, program):
    assert [same for _, same in found[program.__name__]] == [True, True]


REPAIRED = {
    signs_differ_repaired: 0.5,
    narrow_signs_differ: 0.5,
    accumulated_kinks_that_cancel_repaired: 1.0,
    summed: 1.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("program", REPAIRED, ids=lambda p: p.__name__)
def test_a_repair_leaves_the_parts_of_one_gradient(found, program):
    both = found[program.__name__]
    right_everywhere(both, REPAIRED[program])
    assert [steps[-1][1] for steps, *_ in both] == ["CLARKE", "CLARKE"]


@pytest.mark.slow
def test_an_error_leaves_gradients_as_they_were(found):
    for _, gradients, error in found["raised"]:
        assert gradients == [None]
        assert error == "WrongGradientError"


@pytest.mark.slow
def test_names_are_those_of_the_optimizer_s_parameters(found):
    assert [list(names) for _, names in found["named"]] == [["w"], ["w"]]


@pytest.mark.slow
def test_parts_of_a_sum_that_stand_at_kinks_on_one_process_alone(found):
    (first, _), (second, _) = found["accumulated_over_ranks"]
    assert verdicts_of(first) == ["UNDECIDED", "NOT_CLARKE"]
    assert verdicts_of(second) == ["SMOOTH", "NOT_CLARKE"]


@pytest.mark.slow
def test_as_the_mean_written_as_one_function(found):
    both = found["random_sums"]
    assert both[0] == both[1]
    for joint, expected in both[0]:
        assert joint == expected or {joint, expected} <= {"BOULIGAND", "CLARKE"}


@pytest.mark.slow
def test_whoever_judges_alone_waits_once_and_not_for_long(found):
    steps, _ = found["only_one_audits"]
    assert verdicts_of(steps) == ["UNDECIDED", "UNDECIDED"]
    assert "did not answer within 1.5 seconds" in steps[0][2]
    assert "asks them no more" in steps[1][2]


@pytest.mark.slow
def test_the_others_get_their_ordinary_error_when_one_dies():
    with pair_of(partial(dies, wrap=sharded)) as (ranks, queue):
        error, steps = answer(ranks, queue)
    assert "clarke" not in error
    assert steps == 0
