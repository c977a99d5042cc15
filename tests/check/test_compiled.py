"""Programs under torch.compile: their own gradient, against the function that was compiled."""

import itertools
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.autograd.gradcheck import GradcheckError
from torch.utils.checkpoint import checkpoint

import clarke
from clarke import CaptureError, Settings, Verdict
from clarke.decide import Confirm
from clarke.testing import gradcheck
from reference.backends import with_slope_one

BACKENDS = ("eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow))


pytestmark = pytest.mark.usefixtures("nothing_compiled")


def wrong(x):
    return (torch.relu(x) - torch.relu(-x)).sum()


def zeros(n=3, dtype=torch.float32):
    return torch.zeros(n, dtype=dtype, requires_grad=True)


def note(report):
    [found] = [n for n in report.notes if "torch.compile" in n]
    return found


@pytest.mark.parametrize("first", [True, False], ids=["compiled", "not yet compiled"])
@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_gradient_and_nothing_compiled_again(backend, fullgraph, first):
    program = torch.compile(wrong, backend=backend, fullgraph=fullgraph)
    x = zeros()
    if first:
        program(x).backward()
        x.grad = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = clarke.check(program, (x,))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()
    assert report.gradient[0].tolist() == [0, 0, 0]
    assert "differ" not in note(report)
    program(x)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["recompiles"]
    assert torch._dynamo.eval_frame._stance.stance == "default"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 1)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


def module(net):
    compiled = torch.compile(net, backend="aot_eager")
    return lambda x: compiled(x).square().mean()


def in_place(net):
    net.compile(backend="aot_eager", fullgraph=True)
    return lambda x: net(x).square().mean()


def loss(net):
    function = torch.compile(lambda y: y.square().mean(), backend="aot_eager")
    return lambda x: function(net(x))


def region(net):
    net.first = torch.compile(net.first, backend="aot_eager")
    return lambda x: net(x).square().mean()


def dynamic(net):
    return torch.compile(lambda x: net(x).square().mean(), backend="aot_eager", dynamic=True)


def broken(net):
    def program(x):
        y = net(x)
        torch._dynamo.graph_break()
        return y.square().mean()

    return torch.compile(program, backend="aot_eager")


def checkpointed(net):
    def program(x):
        return checkpoint(net, x, use_reentrant=False).square().mean()

    return torch.compile(program, backend="aot_eager", fullgraph=True)


def compiled_inside(net):
    return lambda x: torch.compile(net, backend="aot_eager")(x).square().mean()


PROGRAMS = (module, in_place, loss, region, dynamic, broken, checkpointed, compiled_inside)


@pytest.mark.parametrize("make", PROGRAMS)
def test_modules_judged_as_uncompiled_and_left_as_they_were(make):
    reports, states = [], []
    for compiles in (False, True):
        torch.manual_seed(0)
        net, x = Net(), torch.randn(6, 4)
        with torch.no_grad():
            net.norm.weight[0] = 0  # a kink for every example; its bias is 0
        program = make(net) if compiles else lambda x, net=net: net(x).square().mean()
        before = {n: t.clone() for n, t in net.state_dict().items()}
        drawn = torch.get_rng_state()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            reports.append(clarke.check(program, (x,)))
        assert not [w for w in told if "hook" in str(w.message) or "clarke" in w.filename]
        assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
        assert torch.equal(torch.get_rng_state(), drawn)
        assert all(p.grad is None for p in net.parameters())
        if compiles:
            made = counters["stats"]["unique_graphs"]
            program(x)
            assert counters["stats"]["unique_graphs"] == made
            assert not counters["recompiles"]
        states.append([(k.operation, k.touched, k.relevant) for k in reports[-1].kinks])
    plain, compiled = reports
    assert compiled.verdict is plain.verdict
    assert plain.verdict in {Verdict.BOULIGAND, Verdict.CLARKE}
    assert states[0] == states[1]
    for a, b in zip(plain.gradient, compiled.gradient, strict=True):
        torch.testing.assert_close(a, b)


def replacing(old, new):
    """A backend that computes another operation; what autograd makes of it is compiled."""

    def backend(graph, _inputs):
        for node in graph.graph.nodes:
            if node.target is old:
                node.target = new
        graph.recompile()
        return graph.forward

    return backend


def test_another_slope_at_a_kink_beyond_rounding():
    """relu as maximum(x, 0), whose slope at 0 is 1/2: right, where eager is wrong."""
    backend = replacing(torch.relu, lambda x: torch.maximum(x, torch.zeros_like(x)))
    report = clarke.check(torch.compile(wrong, backend=backend), (zeros(),))
    assert report.verdict in {Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE}
    assert report.gradient[0].tolist() == [1, 1, 1]
    assert "differ by up to 1 in variable 0 at [0]: 1 compiled, 0 as written" in note(report)


def test_a_kernel_that_is_wrong_where_all_is_smooth():
    backend = replacing(torch.relu, lambda x: 3 * torch.relu(x))
    x = torch.tensor([-1.0, 2.0, 1.0], requires_grad=True)
    program = torch.compile(lambda x: torch.relu(x).sum(), backend=backend)
    report = clarke.check(program, (x,))
    assert report.verdict is Verdict.NOT_CLARKE
    assert "differ by up to 2 in variable 0 at [1]: 3 compiled, 1 as written" in note(report)
    assert "It computes 9, and the function as written 3." in note(report)


def skewed(by):
    """exp, with a derivative that is a little too large."""

    class Skewed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x.exp())
            return x.exp()

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0] * (1 + by)

    return replacing(torch.exp, lambda x: Skewed.apply(x))  # noqa: PLW0108 - a graph calls no method


@pytest.mark.parametrize(
    ("dtype", "by", "verdict", "told"),
    [
        (torch.float32, 5e-7, Verdict.SMOOTH, "differ by rounding"),
        (torch.float32, 1e-4, Verdict.UNDECIDED, "differ by up to 0.0002"),
        (torch.float32, 1e-2, Verdict.NOT_CLARKE, "differ by up to 0.02"),
        (torch.float64, 1e-15, Verdict.SMOOTH, "differ by rounding"),
        (torch.float64, 1e-4, Verdict.NOT_CLARKE, "differ by up to 0.0002"),
    ],
)
def test_roundings_are_no_errors(dtype, by, verdict, told):
    x = torch.tensor([0.3, 1.0], dtype=dtype, requires_grad=True)
    program = torch.compile(lambda x: torch.exp(x).sum(), backend=skewed(by))
    report = clarke.check(program, (x,))
    assert report.verdict is verdict
    assert told in note(report)
    if verdict is Verdict.UNDECIDED:
        assert "rounding may have made the difference" in report.reason
        assert report.certificate is None


@pytest.mark.parametrize("at", [1.0, 0.0])
def test_nan_of_the_compiled_program_alone(at):
    backend = replacing(torch.relu, lambda x: torch.relu(x) * torch.sqrt(x - x) / torch.sqrt(x - x))
    x = torch.full((2,), at, requires_grad=True)
    program = torch.compile(lambda x: torch.relu(x).sum(), backend=backend)
    report = clarke.check(program, (x,))
    assert report.verdict is Verdict.NONFINITE
    assert report.element[0].tolist() == [at, at]


def test_nan_of_the_compiled_program_where_the_function_is_wrong():
    backend = replacing(torch.relu, lambda x: torch.relu(x) * torch.sqrt(x - x) / torch.sqrt(x - x))
    report = clarke.check(torch.compile(wrong, backend=backend), (zeros(),))
    assert report.verdict is Verdict.UNDECIDED
    assert "returned NaN or infinity" in report.reason


def noisy(x):
    return nn.functional.dropout(torch.relu(x), 0.5).square().sum()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_same_random_numbers(backend):
    x = torch.linspace(-1, 2, 6).requires_grad_()
    report = clarke.check(torch.compile(noisy, backend=backend), (x,))
    assert report.verdict is Verdict.SMOOTH


def test_other_random_numbers():
    backend = replacing(torch.relu, lambda x: torch.relu(x) + 0 * torch.rand(7).sum())
    x = torch.linspace(1, 2, 6).requires_grad_()
    report = clarke.check(torch.compile(noisy, backend=backend), (x,))
    assert report.verdict is Verdict.UNDECIDED
    assert "may draw others" in report.reason
    assert "fallback_random" in report.reason


@pytest.mark.parametrize("period", [2, 3, 100])
def test_a_function_that_its_own_runs_change(period):
    runs = []

    def program(x):
        runs.append(None)
        return inner(x, torch.tensor(float(len(runs) % period)))

    inner = torch.compile(lambda x, k: (torch.relu(x) * (2 + k)).sum(), backend="eager")
    report = clarke.check(program, (torch.ones(2, requires_grad=True),))
    assert report.verdict is Verdict.UNDECIDED
    assert "Run again uncompiled" in report.reason


def test_gradcheck_judges_the_compiled_gradient():
    x = torch.tensor([-1.0, 2.0], dtype=torch.float64, requires_grad=True)

    def program(x):
        return (torch.relu(x) + torch.exp(x)).sum()

    assert gradcheck(torch.compile(program, backend="aot_eager"), (x,))
    torch._dynamo.reset()
    with pytest.raises(GradcheckError):
        gradcheck(torch.compile(program, backend=skewed(1e-2)), (x,))


def test_the_users_own_stance_stays():
    program = torch.compile(wrong, backend="aot_eager")
    with torch.compiler.set_stance("force_eager"):
        report = clarke.check(program, (zeros(),))
        assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.notes == ()
    assert counters["stats"]["unique_graphs"] == 0


def test_other_threads_run_compiled_meanwhile():
    ran = []

    def backend(graph, _inputs):
        def run(*args):
            ran.append(threading.get_ident())
            return graph.forward(*args)

        return run

    compiled = torch.compile(lambda x: torch.relu(x).sum(), backend=backend)
    compiled(zeros())
    ran.clear()

    def elsewhere():
        with torch.enable_grad():
            compiled(zeros())

    def program(x):
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
        return compiled(x)

    stance = torch._dynamo.eval_frame._stance
    report = clarke.check(program, (zeros(),), settings=Settings(confirm=Confirm.NEVER))
    assert report.verdict is Verdict.BOULIGAND
    own = threading.get_ident()
    assert sum(t == own for t in ran) == 1  # the judged gradient; the record ran uncompiled
    assert sum(t != own for t in ran) >= 2
    assert torch._dynamo.eval_frame._stance is stance


def test_many_threads():
    compiled = torch.compile(wrong, backend="eager")
    compiled(zeros())
    stance, filters, found = torch._dynamo.eval_frame._stance, list(warnings.filters), []
    own = torch.compile

    def work():
        for _ in range(3):
            try:
                found.append(clarke.check(compiled, (zeros(),)).verdict)
            except CaptureError as error:
                found.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 12
    assert found.count(Verdict.NOT_CLARKE) >= 10
    assert torch.compile is own
    assert torch._dynamo.eval_frame._stance is stance
    assert warnings.filters == filters


@pytest.mark.slow
def test_interrupts_leave_programs_compiled():
    """At every fourth line of the switch, which takes its time."""
    compiled = torch.compile(wrong, backend="eager")
    compiled(zeros())
    stance, filters, own = torch._dynamo.eval_frame._stance, list(warnings.filters), torch.compile
    names = {"_force", "stop", "__enter__", "__exit__"}
    files = {"torch_private.py", "refusing.py", "recorder.py", "places.py"}
    for at in itertools.count(0, 4):
        left = at

        def trace(frame, event, _arg):
            nonlocal left
            file = Path(frame.f_code.co_filename).name
            if frame.f_code.co_name not in names or file not in files:
                return None
            if event == "line":
                left -= 1
                if left == -1:
                    raise KeyboardInterrupt
            return trace

        try:
            sys.settrace(trace)
            clarke.check(compiled, (zeros(),), settings=Settings(confirm=Confirm.NEVER))
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert torch._dynamo.eval_frame._stance is stance
        assert warnings.filters == filters
        assert torch.compile is own
        if left >= 0:
            break
    assert at > 20


def test_errors_leave_torch_as_it_was():
    def program(x):
        if x.sum() >= 0:
            raise KeyError("the user's")
        return x.sum()

    compiled, filters = torch.compile(program, backend="eager"), list(warnings.filters)
    with pytest.raises(KeyError, match="the user's"):
        clarke.check(compiled, (zeros(),))
    assert torch._dynamo.eval_frame._stance.stance == "default"
    assert warnings.filters == filters


@pytest.mark.parametrize("fullgraph", [False, True])
def test_what_insists_on_being_compiled_is_refused(fullgraph):
    inner = torch.compile(lambda x: torch.relu(x).sum(), backend="aot_eager", fullgraph=fullgraph)

    def program(x):
        with torch.compiler.set_stance("default"):
            return inner(x)

    with pytest.raises(CaptureError, match=r"torch\.compile.*model\._orig_mod"):
        clarke.check(program, (zeros(),))
    inner(zeros())
    assert counters["stats"]["unique_graphs"] == 1


def test_a_gradient_from_elsewhere_needs_no_compiled_run():
    program = torch.compile(wrong, backend="aot_eager")
    report = clarke.check(program, (zeros(),), gradient=torch.ones(3))
    assert report.correct
    assert counters["stats"]["unique_graphs"] == 0


def test_other_calls_take_the_function_as_written():
    program = torch.compile(wrong, backend="aot_eager")
    [found] = clarke.grad(program, (zeros(),))
    assert found.tolist() == [1, 1, 1]
    assert clarke.subdifferential(program, (zeros(),)).contains([torch.ones(3)])


def test_explain():
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 4)
    plain = clarke.explain(net, x)
    compiled = clarke.explain(torch.compile(net, backend="aot_eager"), x)
    assert compiled.theorem == plain.theorem
    assert counters["stats"]["unique_graphs"] == 0
    assert [a for a in compiled.assumptions if a not in plain.assumptions] == [
        "torch.compile's program computes the function as it was written"
    ]
    assert str(compiled).replace("_orig_mod", "") == str(compiled)


def test_a_backend_with_a_backward_of_its_own():
    backend = with_slope_one()
    right = clarke.check(torch.compile(lambda x: torch.relu(x).sum(), backend=backend), (zeros(),))
    assert right.verdict is Verdict.BOULIGAND
    assert right.gradient[0].tolist() == [1, 1, 1]
    found = clarke.check(torch.compile(wrong, backend=backend), (zeros(),))
    assert found.verdict is Verdict.NOT_CLARKE
    assert found.gradient[0].tolist() == [2, 2, 2]
    assert "differ by up to 2 in variable 0 at [0]: 2 compiled, 0 as written" in note(found)
