"""Steps at which the recorded values alone do not tell what gradient the user gets.

Each was judged SMOOTH or BOULIGAND once, where the whole ladder says otherwise.
"""

import gc

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

import clarke
from clarke import Settings, Verdict
from clarke.capture.live import Node, Storage


def audited(function, leaves, *, quick=True):
    """The last step of an audit of one backward call."""
    for leaf in leaves:
        leaf.grad = None
    settings = Settings(quick=quick)
    with clarke.audit(lambda _report: None, settings=settings, seconds=None) as watching:
        function().backward()
    return watching.steps[-1]


def tensor(values, shape=(), *, dtype=torch.float32, leaf=False):
    found = torch.tensor(values, dtype=dtype)
    return (found.reshape(shape) if shape else found).requires_grad_(leaf)


def flipped_signs(dtype):
    """Two places whose channels differ in all signs: the sum of codes used to lose them."""
    x = tensor([1, -1, -1, 1, 1, -1, -1, 1], (1, 2, 1, 4), dtype=dtype)
    w = tensor([1, -1], (1, 2, 1, 1), dtype=dtype, leaf=True)
    b = tensor([1], dtype=dtype, leaf=True)

    def f():
        p = F.max_pool2d(F.relu(F.conv2d(x, w, b)), (1, 2))
        return p[0, 0, 0, 0] - p[0, 0, 0, 1]

    return f, (w, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_that_differ_in_signs(dtype):
    f, leaves = flipped_signs(dtype)
    assert audited(f, leaves).verdict is Verdict.NOT_CLARKE


@pytest.mark.slow
@pytest.mark.parametrize("normalised", [False, True])
def test_a_bias_on_black_pixels_is_not_padding(normalised):
    """The border of a convolution reads biases inside of the image, and zeros outside."""
    torch.manual_seed(1)
    x = torch.zeros(2, 1, 12, 12)
    x[:, :, 4:8, 4:8] = torch.rand(2, 1, 4, 4)
    first = torch.nn.Conv2d(1, 8, 1, bias=not normalised)
    norm = torch.nn.BatchNorm2d(8).eval() if normalised else torch.nn.Identity()
    second = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
    last = torch.nn.Linear(288, 3)
    if not normalised:
        torch.nn.init.zeros_(first.bias)
    torch.nn.init.constant_(second.bias, 0.1)
    leaves = [p for m in (first, norm, second, last) for p in m.parameters()]

    def f():
        hidden = F.max_pool2d(F.relu(second(norm(first(x)))), 2)
        return F.cross_entropy(last(hidden.flatten(1)), torch.tensor([0, 1]))

    assert audited(f, leaves).verdict is audited(f, leaves, quick=False).verdict
    assert audited(f, leaves).verdict is not Verdict.SMOOTH


@pytest.mark.parametrize(("sign", "verdict"), [(-1, Verdict.NOT_CLARKE), (1, Verdict.CLARKE)])
def test_two_maxpools_on_one_convolution(sign, verdict):
    """Each has a direction of the weights; what counts is one for both."""
    x = tensor([1, -1, 1, -1], (1, 1, 1, 4))
    w = tensor([0], (1, 1, 1, 1), leaf=True)
    b = tensor([1], leaf=True)

    def f():
        c = F.relu(F.conv2d(x, w, b))
        p, q = F.max_pool2d(c, (1, 2)), F.max_pool2d(c, (1, 2), (1, 2), (0, 1))
        return p[0, 0, 0, 0] + sign * q[0, 0, 0, 1]

    assert audited(f, (w, b)).verdict is verdict


def test_a_bias_along_another_dimension_than_the_channels():
    x = tensor([-5, 1, 5, -1], (1, 2, 2))
    b = tensor([0, 0], leaf=True)

    def f():
        return F.hardtanh(x + torch.addmm(b, torch.zeros(2, 3), torch.zeros(3, 2))).sum()

    assert audited(f, (b,)).verdict is Verdict.NOT_CLARKE


def test_a_map_that_is_added_to_every_channel():
    x, z = torch.ones(1, 1, 1, 4), tensor([1, -1, -1, 1], (1, 1, 1, 4))
    first = tensor([1, 2, 1, 1], (4, 1, 1, 1), leaf=True)
    grouped = tensor([-1, -1, 1, -1], (2, 2, 1, 1), leaf=True)
    b = tensor([-9, 1], leaf=True)

    def f():
        c = F.conv2d(F.conv2d(x, first) + z, grouped, b, groups=2)
        p = F.max_pool2d(F.relu(c), (1, 2))
        return p[0, 1, 0, 0] - p[0, 1, 0, 1]

    assert audited(f, (first, grouped, b)).verdict is Verdict.NOT_CLARKE


def test_an_image_that_is_added_to_every_one():
    torch.manual_seed(0)
    added, x = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 4, 4).round()
    w = torch.randn(3, 2, 1, 1, requires_grad=True)
    step = audited(lambda: F.max_pool2d(F.relu(F.conv2d(x + added, w)), 2).sum(), (w,))
    assert step.verdict is Verdict.SMOOTH


def test_more_layers_than_python_calls_functions():
    layers = [torch.eye(2)[:, :, None, None].clone().requires_grad_() for _ in range(151)]

    def f():
        h = torch.ones(1, 2, 4, 4)
        for w in layers:
            h = F.relu(F.conv2d(h, w))
        return F.max_pool2d(h, 2).sum()

    assert audited(f, layers).verdict is Verdict.SMOOTH


def test_sums_of_a_value_with_itself():
    b = torch.zeros(2, requires_grad=True)

    def f():
        h = F.linear(torch.ones(1, 2), torch.zeros(2, 2), b)
        for _ in range(40):  # 2 to the 40 paths
            h = h + h
        return F.relu(h).sum()

    assert audited(f, (b,)).verdict is Verdict.BOULIGAND


# ---------------------------------------------------------------- saved and computed again


def network():
    torch.manual_seed(0)
    return torch.randn(3, 3, requires_grad=True), torch.randn(1, 3, requires_grad=True)


def halved(t):
    return t.detach() * 0.5


def same(t):
    return t


@pytest.mark.parametrize("nested", [False, True])
def test_tensors_that_are_saved_in_another_form(nested):
    w1, w2 = network()
    x = torch.randn(2, 3)

    def f():
        with torch.autograd.graph.saved_tensors_hooks(halved, same):
            if nested:
                with torch.autograd.graph.saved_tensors_hooks(same, same):
                    pass
            return F.linear(F.relu(F.linear(x, w1)), w2).sum()

    assert audited(f, (w1, w2)).verdict is Verdict.UNDECIDED


def test_other_graphs_are_trusted_still():
    w1, w2 = network()
    x = torch.randn(2, 3)
    with clarke.audit(lambda _report: None) as watching:
        with torch.autograd.graph.saved_tensors_hooks(halved, same):
            F.linear(x, w1).sin().sum().backward()
        F.linear(x, w2).sin().sum().backward()
    assert [s.verdict for s in watching.steps] == [Verdict.UNDECIDED, Verdict.SMOOTH]
    assert watching.steps[1].theorem == "no relevant kink"


def segment(x, w):
    return F.dropout(F.relu(F.linear(x, w)), 0.5)


@pytest.mark.parametrize(
    ("preserves", "verdict"), [(True, Verdict.SMOOTH), (False, Verdict.UNDECIDED)]
)
def test_checkpoints_that_draw_other_numbers_again(preserves, verdict):
    torch.manual_seed(0)
    w1, w2 = torch.randn(50, 50, requires_grad=True), torch.randn(1, 50, requires_grad=True)
    x = torch.randn(2, 50)

    def f():
        h = checkpoint(segment, x, w1, use_reentrant=False, preserve_rng_state=preserves)
        return (F.linear(h, w2) ** 2).sum()

    assert audited(f, (w1, w2)).verdict is verdict


@pytest.mark.filterwarnings("ignore:clarke failed")
def test_tensors_on_the_processor_may_be_overwritten():
    """`save_on_cpu` keeps no copy of what is there already, and hides it from the version check."""
    w = tensor([0.5], leaf=True)

    def f():
        with torch.autograd.graph.save_on_cpu():
            y = (w * 1).sigmoid()
            return y.mul_(3.0).sum()

    assert audited(f, (w,)).verdict is Verdict.UNDECIDED


def test_hooks_from_before_the_audit():
    w1, w2 = network()
    x = torch.randn(2, 3)
    with torch.autograd.graph.saved_tensors_hooks(halved, same):
        step = audited(lambda: F.linear(F.relu(F.linear(x, w1)), w2).sum(), (w1, w2))
    assert step.verdict is Verdict.UNDECIDED


def test_hooks_that_are_entered_twice_and_refused_ones():
    w1, _ = network()
    x = torch.randn(2, 3)
    hooks = torch.autograd.graph.saved_tensors_hooks(halved, same)
    with clarke.audit(lambda _report: None) as watching:
        with hooks:
            y = F.linear(x, w1).sin()
            with hooks:
                pass
            y = y.sin().sum()
        y.backward()
        refused = torch.autograd.graph.disable_saved_tensors_hooks("not here")
        with refused, pytest.raises(RuntimeError, match="not here"), hooks:
            pass
        F.linear(x, w1).sin().sum().backward()
    assert [s.verdict for s in watching.steps] == [Verdict.UNDECIDED, Verdict.SMOOTH]


def test_hooks_of_the_user_see_nothing_of_clarkes():
    x = torch.randn(2, requires_grad=True)

    def packed(audit):
        seen = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, same)
        with hooks:
            y = x.sin() * x
            if audit:
                with clarke.audit(lambda _report: None):
                    y.backward(torch.ones(2))
            else:
                y.backward(torch.ones(2))
        return len(seen)

    assert packed(audit=True) == packed(audit=False)


# ---------------------------------------------------------------- changed behind autograd's back


def doubled(w):
    w.data.mul_(2)


def replaced(w):
    w.data = w.data * 2


@pytest.mark.parametrize("change", [doubled, replaced])
@pytest.mark.parametrize("which", ["leaf", "constant"])
def test_values_that_change_between_forward_and_backward(change, which):
    w, v = tensor([1.0], leaf=True), tensor([2.0], leaf=True)
    x = tensor([3.0])
    changed = {"leaf": w, "constant": x}[which]

    def f():
        loss = (torch.sin(w) * v * x).sum()
        change(changed)
        return loss

    assert audited(f, (w, v)).verdict is Verdict.UNDECIDED


def test_changes_between_the_steps_are_none_of_that():
    w = tensor([1.0, 2.0], leaf=True)
    with clarke.audit(lambda _report: None) as watching:
        for _ in range(3):
            w.grad = None
            (w**2).sum().backward()
            w.data.sub_(0.1 * w.grad)
    assert {s.theorem for s in watching.steps} == {"no relevant kink"}
    assert {s.joint for s in watching.steps} == {Verdict.SMOOTH}


def test_a_gradient_that_is_cleared_through_data():
    w = tensor([0.0, 1.0], leaf=True)
    with clarke.audit(lambda _report: None) as watching:
        (F.relu(w) - F.relu(-w)).sum().backward()
        w.grad.data.zero_()
        w.data.add_(1.0)
        (w**2).sum().backward()
    assert watching.steps[0].verdict is Verdict.NOT_CLARKE
    assert watching.steps[1].joint is Verdict.SMOOTH


PARTS = {
    "a gradient": (lambda w: w.grad.data.mul_(7.0), "values that clarke did not see"),
    "a parameter": (lambda w: w.data.add_(1.0), "changed between the parts"),
}


@pytest.mark.parametrize(("change", "why"), PARTS.values(), ids=PARTS)
def test_changes_through_data_between_two_parts(change, why):
    w = tensor([1.0, 1.0], leaf=True)
    with clarke.audit(lambda _report: None) as watching:
        (w**2).sum().backward()
        change(w)
        (w**2).sum().backward()
    assert watching.steps[1].verdict is Verdict.SMOOTH
    assert watching.steps[1].joint is Verdict.UNDECIDED
    assert why in watching.steps[1].joint_reason


def test_sparse_gradients_that_are_scaled_between_two_parts():
    table = torch.nn.Embedding(5, 3, sparse=True)
    with clarke.audit(lambda _report: None) as watching:
        for _ in range(2):
            table(torch.tensor([1, 2, 1])).sum().backward()
            table.weight.grad = table.weight.grad.mul(2)
    assert [s.verdict for s in watching.steps] == [Verdict.SMOOTH] * 2
    assert watching.steps[1].joint is Verdict.UNDECIDED


def test_a_constant_that_is_given_other_memory():
    w, c = tensor([0.0], leaf=True), tensor([1.0])
    with clarke.audit(lambda _report: None) as watching:
        for value in (1.0, 1000.0):
            c.data = torch.tensor([value])
            w.grad = None
            (F.leaky_relu(w) * c).sum().backward()
    assert [s.verdict for s in watching.steps] == [Verdict.BOULIGAND] * 2


def test_a_constant_that_decides_is_read_anew():
    w, c = tensor([0.0], leaf=True), tensor([0.0])
    with clarke.audit(lambda _report: None) as watching:
        for value in (0.0, 1.0):
            c.data = torch.tensor([value])
            w.grad = None
            (F.relu(w) - F.relu(-w * c)).sum().backward()
    assert [s.verdict for s in watching.steps] == [Verdict.BOULIGAND, Verdict.NOT_CLARKE]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("kind", ["leaf", "constant"])
def test_a_target_that_follows_with_gradients_on(kind, quick):
    """Detached values written to what is no part of any graph: a constant with another value."""
    w, c, v = tensor([0.0], leaf=True), tensor([0.0], leaf=kind == "leaf"), tensor([0.0], leaf=True)
    settings = Settings(quick=quick)
    with clarke.audit(lambda _report: None, settings=settings) as watching:
        (F.relu(w) - F.relu(-w * c)).sum().backward()
        w.grad = c.grad = None
        c.data.add_(0 * v.data)
        c.data.fill_(1.0)
        (F.relu(w) - F.relu(-w * c)).sum().backward()
    assert watching.steps[1].verdict is not Verdict.BOULIGAND
    assert watching.steps[1].verdict in (Verdict.NOT_CLARKE, Verdict.UNDECIDED)


def test_targets_neither_slow_the_audit_nor_grow():
    net, target = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    x = torch.randn(3, 2)
    with clarke.audit(lambda _report: None) as watching:
        for _ in range(20):
            net.zero_grad()
            ((net(x) - target(x).detach()) ** 2).sum().backward()
            for p, q in zip(net.parameters(), target.parameters(), strict=True):
                p.data.sub_(0.01 * p.grad)
                q.data.mul_(0.9)
                q.data.add_(0.1 * p.data)
    assert {s.verdict for s in watching.steps} == {Verdict.SMOOTH}


@pytest.mark.parametrize("how", ["sam", "clamp", "twice", "decay"])
def test_parameters_that_are_written_twice_between_the_steps(how):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x = torch.randn(4, 2)
    with clarke.audit(lambda _report: None) as watching:
        for _ in range(4):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            with torch.no_grad():
                for p in net.parameters():
                    if how == "sam":
                        p.add_(0.01)
                        p.sub_(0.01)
                    elif how == "decay":
                        p.mul_(0.99)
            optimizer.step()
            if how == "twice":
                optimizer.step()
            elif how == "clamp":
                with torch.no_grad():
                    for p in net.parameters():
                        p.clamp_(-1, 1)
    assert {s.theorem for s in watching.steps} == {"no relevant kink"}


def test_a_step_that_is_not_finite_leaves_the_next_ones_quick():
    w = tensor([0.0, 1.0], leaf=True)
    with clarke.audit(lambda _report: None) as watching:
        for bad in (False, True, False):
            w.grad = None
            (w.sqrt() if bad else w.sin()).sum().backward()
    assert [s.theorem for s in watching.steps][::2] == ["no relevant kink"] * 2
    assert not watching.steps[1].verdict.correct


def test_a_bias_that_is_added_as_a_column():
    b = tensor([0.0, 0.0], leaf=True)
    w = tensor([[-1.0, 1.0], [-1.0, 1.0]])
    step = audited(lambda: F.hardtanh(torch.addmm(b.view(2, 1), torch.eye(2), w)).sum(), (b,))
    assert step.verdict is Verdict.NOT_CLARKE


@pytest.mark.slow
def test_nothing_is_held_from_step_to_step():
    """Gradients that are written to with gradients on leave no record."""
    w = torch.nn.Linear(2, 2)
    x = torch.randn(3, 2)

    def live():
        gc.collect()
        return sum(isinstance(o, (Node, Storage)) for o in gc.get_objects())

    counts = []
    with clarke.audit(lambda _report: None):
        for _ in range(12):
            w.zero_grad(set_to_none=False)
            w(x).square().sum().backward()
            for p in w.parameters():
                p.grad.data.add_(0.01 * p.data)
            counts.append(live())
    assert counts[-1] <= counts[3]


@pytest.mark.parametrize("late", [False, True])
def test_a_buffer_that_is_updated_after_it_was_read(late):
    """Autograd counts these writes, and would refuse if it needed the old values."""
    net, mean = torch.nn.Linear(2, 3), torch.zeros(3)
    x = torch.randn(4, 2)
    with clarke.audit(lambda _report: None) as watching:
        for _ in range(3):
            net.zero_grad()
            z = net(x) - (mean[None] if late else mean)
            with torch.no_grad():
                mean.mul_(0.9).add_(z.mean(0), alpha=0.1)
            z.sin().sum().backward()
    assert {s.theorem for s in watching.steps} == {"no relevant kink"}
