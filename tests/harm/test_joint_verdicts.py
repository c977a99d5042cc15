"""DDP: one verdict of all processes on the gradient that they average, and no hang whatever comes.

All programs run in one pair of processes, one after the other, and tell what came of them.
"""

import importlib
import os
import socket
import sys
import warnings
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from queue import Empty

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import clarke
from clarke.numerics import POST_SECONDS

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()),
    reason="torch was built without gloo, by which the two processes would speak",
)


def audited(*args, **options):
    return clarke.audit(*args, seconds=30, **options)  # machines are busy


class Function(nn.Module):
    """A function of three numbers, another one on each process."""

    def __init__(self, functions, at=0.0, unused=False):
        super().__init__()
        self.w = nn.Parameter(torch.full((3,), at))
        if unused:
            self.other = nn.Parameter(torch.zeros(2))
        self.function = functions[dist.get_rank()]

    def forward(self):
        return self.function(self).sum()


def up(m):
    return torch.relu(m.w)


def down(m):
    return -torch.relu(-m.w)


def smooth(m):
    return 2 * m.w


def told(audit, module=None):
    steps = [
        (s.verdict.name if s.verdict else "", s.joint.name if s.joint else "", s.reason)
        for s in audit.steps
    ]
    return steps, None if module is None else [p.grad for p in module.parameters()]


def once(module, audit=None, **options):
    replica = DistributedDataParallel(module, **options)
    audit = audit or audited()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            replica().backward()
    return told(audit, module)


# ---------------------------------------------------------------- the programs, on each process


def signs_differ():
    return once(Function([up, down]))


def signs_differ_repaired():
    audit = audited("repair")
    found = once(Function([up, down]), audit)
    proof = audit.reports[-1].certificate
    places = [(p.operation, p.module) for p in audit.summary().places]
    return *found, None if proof is None else proof.verify(), places


def signs_equal():
    return once(Function([down, down]))


def one_without_kinks():
    return once(Function([smooth, down]))


def nothing_touched():
    return once(Function([up, down], at=1.0))


def one_at_a_kink_that_cancels_alone():
    """Rank 0 is wrong alone, the mean as well."""
    return once(Function([lambda m: torch.relu(m.w) - torch.relu(-m.w), smooth]))


def wrong_parts_with_a_right_mean():
    """Each rank alone returns what is no gradient of its part; the kinks of both cancel."""

    def wrong(m):
        return torch.relu(m.w) - torch.relu(-m.w)

    return once(Function([wrong, lambda m: -wrong(m)]))


def each_uses_another_parameter():
    functions = [lambda m: torch.relu(m.w), lambda m: -torch.relu(-m.other)]
    return once(Function(functions, unused=True), find_unused_parameters=True)


def rounded_by_a_hook():
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

    module = Function([lambda m: 0.3 * m.w, lambda m: 0.1 * m.w], at=1.0)
    replica = DistributedDataParallel(module)
    replica.register_comm_hook(None, fp16_compress_hook)
    with audited() as audit:
        replica().backward()
    return told(audit)


def several_dtypes_and_buckets():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(3))
            self.b = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self):
            return (torch.relu(self.a).sum().double() + self.b.abs().sum()) / 2

    return once(Mixed(), bucket_cap_mb=1e-6, gradient_as_bucket_view=True)


def static_graph():
    module = Function([up, down])
    replica = DistributedDataParallel(module, static_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audited() as audit:
            for _ in range(2):
                replica.zero_grad()
                replica().backward()
    return told(audit, module)


def unused_by_all():
    return once(Function([up, down], unused=True), find_unused_parameters=True)


def other_leaves_are_judged():
    """Each process names another parameter; of none are all parts known."""
    functions = [lambda m: torch.relu(m.w), lambda m: -torch.relu(-m.other)]
    module = Function(functions, unused=True)
    module.other = nn.Parameter(torch.zeros(3))
    own = [module.w] if dist.get_rank() == 0 else [module.other]
    return once(module, audited(wrt=own), find_unused_parameters=True)


def batches_of_different_sizes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))
    with torch.no_grad():
        net[1].weight[0] = 0  # and its bias is 0: a kink for each example
    replica = DistributedDataParallel(net, find_unused_parameters=True)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    torch.manual_seed(dist.get_rank())
    with audited() as audit:
        for _ in range(2):
            optimizer.zero_grad()
            replica(torch.randn(4 + dist.get_rank(), 4)).square().mean().backward()
            optimizer.step()
    return told(audit)


def accumulated(module):
    replica = DistributedDataParallel(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audited() as audit:
            with replica.no_sync():
                replica().backward()
            replica().backward()
    return told(audit, module)


def accumulated_smoothly():
    return accumulated(Function([up, down], at=1.0))


def accumulated_at_kinks():
    return accumulated(Function([up, down]))


def accumulated_at_kinks_of_one():
    return accumulated(Function([up, smooth]))


def accumulated_in_a_network():
    """One direction proves the whole, whose variables have other numbers than those of a call."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.w = nn.Linear(2, 3), nn.Parameter(torch.zeros(3))

        def forward(self):
            return (self.layer(torch.ones(1, 2)) * (1 + torch.relu(self.w))).sum()

    torch.manual_seed(0)
    return accumulated(Scaled())


def accumulated_of_two_functions(first, second, audit=None):
    """Each process computes `first`, then `second`, and the gradients add up."""
    module = Function([lambda m: m.now(m)] * 2)
    replica = DistributedDataParallel(module)
    audit = audit or audited()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audit:
            module.now = first
            with replica.no_sync():
                replica().backward()
            module.now = second
            replica().backward()
    return told(audit, module)


def accumulated_kinks_that_cancel():
    return accumulated_of_two_functions(up, down)


def accumulated_kinks_that_cancel_repaired():
    return accumulated_of_two_functions(up, down, audited("repair"))


def accumulated_kink_then_smooth():
    return accumulated_of_two_functions(up, smooth)


def accumulated_smooth_then_wrong():
    return accumulated_of_two_functions(smooth, lambda m: torch.relu(m.w) - torch.relu(-m.w))


def forward_outside_of_no_sync():
    module = Function([up, smooth], at=1.0)
    replica = DistributedDataParallel(module)
    with audited() as audit:
        loss = replica()
        with replica.no_sync():
            loss.backward()
    return told(audit)


PIECES = (
    torch.relu,
    lambda w: -torch.relu(-w),
    torch.abs,
    lambda w: -w.abs(),
    lambda w: 3 * w,
    lambda w: w.clamp(-1, 0),
    lambda w: torch.maximum(w, 2 * w),
    lambda w: torch.minimum(w, w.flip(0)),
    lambda w: w.max() * torch.ones(3),
    lambda w: torch.nn.functional.leaky_relu(w.sum() - w, 0.5),
)


def random_sums():
    """The same verdict as `clarke.check` has on the mean, written as one function."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for trial in range(6):
        picks = torch.randint(len(PIECES), (2, 2, 2), generator=generator).tolist()
        at = torch.randint(-1, 2, (3,), generator=generator).float() * (trial % 3 > 0)

        def part(w, pick):
            a, b = (PIECES[i] for i in pick)
            return (a(w) + b(w) * torch.tensor([1.0, 2.0, 1.0])).sum()

        module = Function([lambda m: part(m.w, m.now)] * 2)
        with torch.no_grad():
            module.w.copy_(at)
        replica = DistributedDataParallel(module)
        own = picks[dist.get_rank()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", clarke.WrongGradientWarning)
            with audited() as audit:
                if trial % 2:
                    module.now = own[0]
                    with replica.no_sync():
                        replica().backward()
                module.now = own[1]
                replica().backward()

        def mean(w, trial=trial, picks=picks):
            return sum(part(w, p) for r in picks for p in r[1 - trial % 2 :]) / 2

        expected = clarke.check(mean, at.clone().requires_grad_(), gradient=module.w.grad)
        found.append((picks, at.tolist(), audit.steps[-1].joint.name, expected.verdict.name))
    return found


def added_step_by_step():
    """Without no_sync: the second mean is added to the first."""
    replica = DistributedDataParallel(Function([up, down]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audited() as audit:
            replica().backward()
            replica().backward()
    return told(audit)


def leaves_of_its_own():
    module = Function([up, down])
    own = torch.zeros(3, requires_grad=True)
    replica = DistributedDataParallel(module)
    with audited() as audit:
        (replica() + own.abs().sum()).backward()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audited(wrt=[module.w]) as named:
            module.w.grad = None
            (replica() + own.abs().sum()).backward()
    return told(audit)[0], told(named)[0]


def beside_the_shared_ones():
    """A gradient of this process alone, by torch.autograd.grad, and one of another module."""
    replica = DistributedDataParallel(Function([up, down], at=1.0))
    own = nn.Linear(2, 1)
    with audited() as audit:
        replica().backward()
        own(torch.ones(1, 2)).relu().sum().backward()
        x = torch.zeros(2, requires_grad=True)
        torch.autograd.grad(x.relu().sum(), x)
    return told(audit)[0], None


def averaged_by_hand_after_all():
    """DDP does not average under no_sync; the program does, when clarke has given its verdict."""
    module = Function([up, down])
    replica = DistributedDataParallel(module)
    with audited() as audit, replica.no_sync():
        replica().backward()
    dist.all_reduce(module.w.grad)
    return told(audit)


def parameters_drifted():
    module = Function([up, up])
    replica = DistributedDataParallel(module)
    with torch.no_grad():
        module.w[0] = -float(dist.get_rank())
    with audited() as audit:
        replica().backward()
    return told(audit)


def detached():
    return once(Function([lambda m: torch.relu(m.w) * m.w.detach(), down]))


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


def custom_function():
    return once(Function([lambda m: Custom.apply(m.w), down]))


def not_finite():
    return once(Function([lambda m: m.w.sqrt(), down]))


def one_fails_in_backward():
    """Rank 0's program raises, is caught, and rank 0 goes on; rank 1 hears nothing of it."""

    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            return x.clone()

        @staticmethod
        def backward(_ctx, g):
            raise ValueError("as programs do")

    module = Function([lambda m: Failing.apply(m.w), up])
    replica = DistributedDataParallel(
        module, process_group=dist.new_group(timeout=timedelta(seconds=2))
    )
    return told_and_raised(replica, ValueError)


def told_and_raised(replica, kind):
    """What is said of a step, and what it raised: an error of the program's own or gloo's."""
    with audited() as audit:
        try:
            replica().backward()
            error = ""
        except (kind, RuntimeError) as raised:
            error = type(raised).__name__
    return told(audit)[0], error


def only_one_audits():
    replica = DistributedDataParallel(Function([up, down]))
    if dist.get_rank() == 1:
        replica().backward()
        replica().backward()
        return []
    with audited() as audit:
        replica().backward()
        replica().backward()
    return told(audit)[0]


def one_leaves_out_a_step():
    replica = DistributedDataParallel(Function([up, down]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clarke.WrongGradientWarning)
        with audited(every=1 + dist.get_rank()) as audit:
            for _ in range(3):
                replica.zero_grad()
                replica().backward()
    return told(audit)


PROGRAMS = (
    signs_differ, signs_differ_repaired, signs_equal, one_without_kinks, nothing_touched,
    one_at_a_kink_that_cancels_alone, wrong_parts_with_a_right_mean, each_uses_another_parameter,
    rounded_by_a_hook, several_dtypes_and_buckets, static_graph, unused_by_all,
    other_leaves_are_judged, batches_of_different_sizes,
    accumulated_smoothly, accumulated_at_kinks, accumulated_at_kinks_of_one,
    accumulated_in_a_network,
    accumulated_kinks_that_cancel, accumulated_kinks_that_cancel_repaired,
    accumulated_kink_then_smooth, accumulated_smooth_then_wrong, forward_outside_of_no_sync,
    random_sums, added_step_by_step,
    leaves_of_its_own, beside_the_shared_ones, averaged_by_hand_after_all, parameters_drifted,
    detached, custom_function, not_finite, only_one_audits, one_leaves_out_a_step,
    one_fails_in_backward,
)  # fmt: skip


def plain(found):
    if isinstance(found, torch.Tensor):
        return found.tolist()
    return type(found)(map(plain, found)) if isinstance(found, (list, tuple)) else found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


POST = float(POST_SECONDS)  # as it is outside of tests


def serve(programs, rank, port, queue, *, post=1.5, wait=30):
    """In one process of a pair: what every program gives, in step with the other process.

    Programs are functions by name; `post` is how long clarke waits for an answer.
    """
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    importlib.import_module("clarke.audit.meeting").POST_SECONDS = post
    for name, program in programs.items():
        try:
            result = plain(program())
        except Exception as error:  # noqa: BLE001 - shown by the test
            result = repr(error)
        queue.put((rank, name, result))
        dist.monitored_barrier(timeout=timedelta(seconds=wait))
    dist.destroy_process_group()


def by_name(programs, names):
    """Those of some functions that have one of the names."""
    return {p.__name__: p for p in programs if p.__name__ in names}


def work(names, rank, port, queue):
    serve(by_name(PROGRAMS, names), rank, port, queue)


@contextmanager
def pair_of(target):
    """A pair of processes, and the queue in which they answer."""
    context = mp.get_context("spawn")
    queue, port = context.Queue(), free_port()
    ranks = [context.Process(target=target, args=(r, port, queue)) for r in range(2)]
    # This module's name begins at the root, wherever pytest was started.
    root = str(Path(__file__).resolve().parents[2])
    sys.path.append(root)
    try:
        for process in ranks:
            process.start()
        yield ranks, queue
    finally:
        sys.path.remove(root)
        for process in ranks:
            process.kill()


def answer(ranks, queue):
    """The next answer; fails at once if nobody is left to give one."""
    for _ in range(100):
        try:
            return queue.get(timeout=2)
        except Empty:
            assert any(p.is_alive() for p in ranks), [p.exitcode for p in ranks]
    pytest.fail("no answer in 200 s")


def told_by_both(work, names):
    """What the two processes of a pair tell of each of some names; `work` gets these first."""
    with pair_of(partial(work, names)) as (ranks, queue):
        found = {(r, n): f for r, n, f in (answer(ranks, queue) for _ in names for _ in ranks)}
        for process in ranks:
            process.join(60)
    assert [p.exitcode for p in ranks] == [0, 0]
    return {n: (found[0, n], found[1, n]) for n in names}


def names_of(programs):
    return [p.__name__ for p in programs]


@pytest.fixture(scope="module")
def found():
    return told_by_both(work, names_of(PROGRAMS))


WRONG, RIGHT = ["NOT_CLARKE"], ["BOULIGAND"]
ASIDE = ["UNDECIDED"]
EXPECTED = {
    signs_differ: (WRONG, "0.866 away"),
    signs_equal: (RIGHT, ""),
    one_without_kinks: (RIGHT, ""),
    nothing_touched: (["SMOOTH"], ""),
    one_at_a_kink_that_cancels_alone: (WRONG, ""),
    wrong_parts_with_a_right_mean: (RIGHT, ""),
    each_uses_another_parameter: (RIGHT, ""),
    rounded_by_a_hook: (["SMOOTH"], ""),
    several_dtypes_and_buckets: (["CLARKE"], ""),
    static_graph: (["NOT_CLARKE", "NOT_CLARKE"], ""),
    unused_by_all: (WRONG, ""),
    batches_of_different_sizes: (["BOULIGAND", "BOULIGAND"], ""),
    accumulated_smoothly: (["SMOOTH", "SMOOTH"], ""),
    accumulated_at_kinks: (["UNDECIDED", "NOT_CLARKE"], "Under no_sync"),
    accumulated_in_a_network: (["UNDECIDED", "BOULIGAND"], "Under no_sync"),
    accumulated_kinks_that_cancel: (["UNDECIDED", "NOT_CLARKE"], "Under no_sync"),
    accumulated_kink_then_smooth: (["UNDECIDED", "BOULIGAND"], "Under no_sync"),
    accumulated_smooth_then_wrong: (["SMOOTH", "NOT_CLARKE"], ""),
    added_step_by_step: (["NOT_CLARKE", "NOT_CLARKE"], ""),
    forward_outside_of_no_sync: (ASIDE, "no_sync has to hold the forward pass"),
    averaged_by_hand_after_all: (ASIDE, "Under no_sync"),
    parameters_drifted: (ASIDE, "parameters of rank 1 are not those"),
    other_leaves_are_judged: (ASIDE, "judge other parameters"),
    detached: (ASIDE, "it detaches values"),
    custom_function: (ASIDE, "its author's code"),
    not_finite: (["NOT_LIPSCHITZ"], "sqrt at rank 0"),
}


def one_verdict(program, both):
    """What both processes tell is the same, and what is expected."""
    verdicts, reason = EXPECTED[program]
    for steps, _ in both:
        assert [v for v, _, _ in steps] == [j for _, j, _ in steps] == verdicts
        assert reason in steps[0][2]
    first, second = both
    assert first == second


SOME = (
    signs_differ, signs_equal, nothing_touched, accumulated_at_kinks, accumulated_in_a_network,
    rounded_by_a_hook,
)  # fmt: skip


def test_some_on_two_ranks():
    """The first of what `make test-slow` tries of all."""
    found = told_by_both(work, names_of(SOME))
    for program in SOME:
        one_verdict(program, found[program.__name__])


@pytest.mark.slow
@pytest.mark.parametrize("program", EXPECTED, ids=lambda p: p.__name__)
def test_one_verdict_on_both(found, program):
    one_verdict(program, found[program.__name__])


@pytest.mark.slow
def test_one_proof_and_a_repair_that_leaves_all_equal(found):
    (steps, grads, proved, places), (others, same, *_) = found["signs_differ_repaired"]
    assert steps == others
    assert [(v, j) for v, j, _ in steps] == [("NOT_CLARKE", "CLARKE")]
    assert grads == same == [[0.5, 0.5, 0.5]]
    assert proved
    assert places == [("relu", "rank 0: module"), ("relu", "rank 1: module")]


@pytest.mark.slow
def test_a_sum_with_kinks_of_one_process_alone(found):
    (first, _), (second, _) = found["accumulated_at_kinks_of_one"]
    assert [v for v, _, _ in first] == ["UNDECIDED", "BOULIGAND"]
    assert [v for v, _, _ in second] == ["SMOOTH", "BOULIGAND"]


@pytest.mark.slow
def test_a_sum_over_calls_and_processes_is_repaired_alike(found):
    for steps, grads in found["accumulated_kinks_that_cancel_repaired"]:
        assert [v for v, _, _ in steps] == ["UNDECIDED", "NOT_CLARKE"]
        assert steps[-1][1] == "CLARKE"
        assert grads == [[1.0, 1.0, 1.0]]


@pytest.mark.slow
def test_as_the_mean_written_as_one_function(found):
    both = found["random_sums"]
    assert both[0] == both[1]
    for _, _, joint, expected in both[0]:
        assert joint == expected or {joint, expected} <= {"BOULIGAND", "CLARKE"}


@pytest.mark.slow
def test_leaves_beside_the_shared_ones(found):
    for unnamed, named in found["leaves_of_its_own"]:
        assert [v for v, _, _ in unnamed] == ["UNDECIDED"]
        assert "Name the former in `wrt`" in unnamed[0][2]
        assert [v for v, _, _ in named] == ["NOT_CLARKE"]
    for steps, _ in found["beside_the_shared_ones"]:
        assert [v for v, _, _ in steps] == ["SMOOTH", "UNDECIDED", "UNDECIDED"]


@pytest.mark.slow
def test_whoever_judges_alone_waits_once_and_not_for_long(found):
    steps, _ = found["only_one_audits"]
    assert [v for v, _, _ in steps] == ["UNDECIDED", "UNDECIDED"]
    assert "did not answer within 1.5 seconds" in steps[0][2]
    assert "asks them no more" in steps[1][2]


@pytest.mark.slow
def test_steps_that_one_leaves_out(found):
    (all_, _), (second, _) = found["one_leaves_out_a_step"]
    assert [v for v, _, _ in all_] == ["NOT_CLARKE", "UNDECIDED", "UNDECIDED"]
    assert [v for v, _, _ in second] == ["NOT_CLARKE", "", "UNDECIDED"]


@pytest.mark.slow
def test_errors_of_the_program_pass(found):
    (none, own), (nothing, others) = found["one_fails_in_backward"]
    assert none == nothing == []
    assert (own, others) == ("ValueError", "RuntimeError")  # gloo's own, after its own time limit


def dies(rank, port, queue, wrap=DistributedDataParallel):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=20))

    class Killing(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            return x.clone()

        @staticmethod
        def backward(_ctx, _g):
            os._exit(0)

    module = wrap(Function([up, lambda m: Killing.apply(m.w)]))
    with audited() as audit:
        try:
            module().backward()
        except RuntimeError as error:
            queue.put((str(error), len(audit.steps)))
    queue.close()
    queue.join_thread()
    os._exit(0)


def test_the_others_get_their_ordinary_error_when_one_dies():
    with pair_of(dies) as (ranks, queue):
        error, steps = answer(ranks, queue)
    assert "clarke" not in error
    assert steps == 0
