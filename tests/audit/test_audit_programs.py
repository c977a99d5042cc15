"""Every kind of training program: each backward call is seen, judged, and judged right."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import clarke
from clarke import Verdict


def mlp(width=4, *, inplace=False):
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(inplace=inplace), nn.Linear(width, 1))


def zeroed(net):
    """At zero weights every ReLU sits at zero, and every one of them counts."""
    with torch.no_grad():
        for p in net[0].parameters():
            p.zero_()
    return net


def verdicts(watch):
    return [s.verdict for s in watch.steps]


def test_kinks_of_a_whole_layer():
    net = zeroed(mlp())
    with clarke.audit() as watch:
        net(torch.ones(5, 2)).sum().backward()
    (step,) = watch.steps
    assert step.verdict is Verdict.BOULIGAND
    assert step.theorem
    assert step.kinks[0].touched == 20
    assert step.kinks[0].relevant == 20
    assert step.location.file == __file__


@pytest.mark.parametrize(
    "call",
    [
        lambda loss, w: loss.backward(),
        lambda loss, w: loss.backward(torch.tensor(3.0)),
        lambda loss, w: loss.backward(inputs=[w]),
        lambda loss, w: loss.backward(retain_graph=True),
        lambda loss, w: loss.backward(create_graph=True),
        lambda loss, w: torch.autograd.backward(loss),
        lambda loss, w: torch.autograd.backward([loss], [torch.tensor(2.0)]),
        lambda loss, w: torch.autograd.grad(loss, w),  # noqa: PLW0108 - the lambda is the place
        lambda loss, w: torch.autograd.grad([loss], [w], [torch.tensor(2.0)]),
        lambda loss, w: torch.autograd.grad(loss, w, create_graph=True),
    ],
)
@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_every_way_to_call(call):
    w = torch.zeros(2, requires_grad=True)
    with clarke.audit(lambda report: None) as watch:
        call((torch.relu(w) - torch.relu(2 * w)).sum(), w)
        call((torch.relu(w) - torch.relu(-w)).sum(), w)
        call((w * 2 + 1).pow(2).sum(), w)
    assert verdicts(watch) == [Verdict.BOULIGAND, Verdict.NOT_CLARKE, Verdict.SMOOTH]
    assert all(s.location.function == "<lambda>" for s in watch.steps)


def test_functions_imported_by_name_are_seen():
    from torch.autograd import backward, grad

    w = torch.zeros(2, requires_grad=True)
    with clarke.audit() as watch:
        backward((w * 2).sum())
        grad((w * 2).sum(), w)
    assert verdicts(watch) == [Verdict.SMOOTH] * 2


def test_vector_roots_are_judged_as_their_weighted_sum():
    w = torch.zeros(2, requires_grad=True)
    with clarke.audit(lambda report: None) as watch:
        # weights 1 and 1 cancel the kinks, weights 1 and -1 add them up
        for sign in (1.0, -1.0):
            y = torch.stack([torch.relu(w[0]), -torch.relu(-w[0])])
            y.backward(torch.tensor([1.0, sign]))
        torch.autograd.backward([torch.relu(w[1]), -torch.relu(-w[1])])
    first, second, third = verdicts(watch)
    assert first is Verdict.NOT_CLARKE
    assert second.correct is True
    assert third is Verdict.NOT_CLARKE
    assert w.grad.tolist() == [0, 0]


def test_several_losses_from_one_forward_and_retain_graph_twice():
    net = zeroed(mlp())
    with clarke.audit() as watch:
        out = net(torch.ones(3, 2))
        out.sum().backward(retain_graph=True)
        out.pow(2).sum().backward(retain_graph=True)
        loss = out.mean()
        loss.backward(retain_graph=True)
        loss.backward()
    assert verdicts(watch) == [Verdict.BOULIGAND] * 4


def test_adversarial_training_with_detach():
    generator, critic = mlp(), nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1))
    steps = [torch.optim.SGD(m.parameters(), 0.1) for m in (generator, critic)]
    with clarke.audit() as watch:
        for _ in range(3):
            fake = generator(torch.randn(4, 2))
            loss = nn.functional.softplus(critic(fake.detach())).mean()
            loss = loss + nn.functional.softplus(-critic(torch.randn(4, 1))).mean()
            steps[1].zero_grad()
            loss.backward()
            steps[1].step()
            steps[0].zero_grad()
            nn.functional.softplus(-critic(fake)).mean().backward()
            steps[0].step()
    assert len(watch.steps) == 6
    assert all(s.correct for s in watch.steps), [s.reason for s in watch.steps]


def test_gradient_penalty_differentiates_twice():
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(3, 2, requires_grad=True)
    with clarke.audit() as watch:
        (g,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        (g.pow(2).sum() + net(x).sum()).backward()
    assert verdicts(watch)[0] is Verdict.SMOOTH
    assert watch.steps[1].verdict in (Verdict.SMOOTH, Verdict.UNDECIDED)


def test_frozen_parameters_are_constants():
    net = zeroed(mlp())
    net[0].weight.requires_grad_(False)
    with clarke.audit() as watch:
        net(torch.ones(2, 2)).sum().backward()
    assert watch.steps[0].verdict is Verdict.BOULIGAND
    assert net[0].weight.grad is None


def test_blocks_without_gradients_are_constants():
    net = mlp()
    with clarke.audit() as watch:
        with torch.no_grad():
            target = torch.relu(net(torch.ones(2, 2)))
        (net(torch.ones(2, 2)) - target).pow(2).sum().backward()
    assert watch.steps[0].correct


def test_autocast_in_bfloat16():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)
    )
    with clarke.audit() as watch:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(
                net(torch.randn(4, 1, 6, 6)), torch.tensor([0, 1, 1, 0])
            )
        loss.backward()
    (step,) = watch.steps
    assert step.correct is not False
    assert step.verdict in (Verdict.SMOOTH, Verdict.BOULIGAND), step.reason


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_segments(reentrant):
    net = zeroed(mlp())
    with clarke.audit() as watch:
        x = torch.ones(2, 2, requires_grad=True)
        checkpoint(net, x, use_reentrant=reentrant).sum().backward()
        (torch.ones((), requires_grad=True) * 2).backward()
    first, second = verdicts(watch)
    assert first is Verdict.BOULIGAND
    assert watch.steps[0].kinks[0].touched == 8
    assert second is Verdict.SMOOTH
    assert len(watch.steps) == 2  # what the checkpoint runs inside of backward is no step


@dataclass
class Output:
    loss: torch.Tensor
    parts: dict


def test_a_wrong_gradient_inside_a_reentrant_checkpoint_is_found():
    w = torch.zeros((), requires_grad=True)

    def segment(x):
        return torch.relu(x) - torch.relu(-x)

    with clarke.audit(lambda report: None) as watch:
        checkpoint(segment, w, use_reentrant=True).backward()
        checkpoint(lambda x: torch.relu(x.detach()) * x + x, w, use_reentrant=True).backward()
    assert verdicts(watch)[0] is Verdict.NOT_CLARKE
    assert verdicts(watch)[1].correct is not False


def test_dict_and_dataclass_outputs():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = zeroed(mlp())

        def forward(self, x):
            out = self.net(x)
            return Output(out.sum(), {"mean": out.mean()})

    model = Model()
    with clarke.audit() as watch:
        model(torch.ones(2, 2)).loss.backward()
        model(torch.ones(2, 2)).parts["mean"].backward()
    assert verdicts(watch) == [Verdict.BOULIGAND] * 2


def test_a_model_used_twice_and_shared_weights():
    net = nn.Linear(2, 2)
    with clarke.audit(lambda report: None) as watch:
        x = torch.ones(3, 2)
        net(torch.relu(net(x))).sum().backward()
        w = torch.zeros((), requires_grad=True)  # one weight, two uses that contradict
        (torch.relu(w) - torch.relu(-w)).backward()
    assert watch.steps[0].correct
    assert watch.steps[1].verdict is Verdict.NOT_CLARKE


def test_relu_in_place():
    net = zeroed(mlp(inplace=True))
    with clarke.audit() as watch:
        net(torch.ones(2, 2)).sum().backward()
    assert watch.steps[0].verdict is Verdict.BOULIGAND


def test_evaluation_in_between():
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    with clarke.audit() as watch:
        for _ in range(3):
            net(torch.randn(4, 2)).pow(2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.inference_mode():
                net(torch.randn(4, 2))
            with torch.no_grad():
                net(torch.randn(4, 2)).relu_()
    assert all(s.correct for s in watch.steps), [s.reason for s in watch.steps]


@pytest.mark.parametrize("workers", [0, 1])
def test_data_loader(workers):
    data = TensorDataset(torch.randn(8, 2), torch.randn(8, 1))
    net = mlp()
    with clarke.audit() as watch:
        for x, y in DataLoader(data, batch_size=4, shuffle=True, num_workers=workers):
            nn.functional.mse_loss(net(x), y).backward()
            net.zero_grad()
    assert len(watch.steps) == 2
    assert all(s.correct for s in watch.steps)


def test_reached_before_the_audit_began():
    w = torch.zeros((), requires_grad=True)
    loss = torch.relu(w) - torch.relu(-w)
    with clarke.audit() as watch:
        loss.backward()
    (step,) = watch.steps
    assert step.verdict is Verdict.UNDECIDED
    assert "inside" in step.reason


def test_gradient_of_an_intermediate_tensor_is_that_of_a_function_of_it():
    w = torch.ones((), requires_grad=True)
    with clarke.audit() as watch:
        h = w * 2
        (g,) = torch.autograd.grad(torch.relu(h), h)
        assert g == 1
    assert verdicts(watch) == [Verdict.SMOOTH]


def test_graph_in_two_halves():
    w = torch.ones((), requires_grad=True)
    with clarke.audit() as watch:
        h = w.exp()
        (g,) = torch.autograd.grad(h.exp(), h)
        h.backward(g)
    assert verdicts(watch) == [Verdict.SMOOTH, Verdict.SMOOTH]


def test_batched_gradients_are_left_open():
    w = torch.ones(2, requires_grad=True)
    with clarke.audit() as watch:
        torch.autograd.grad(w * 2, w, torch.eye(2), is_grads_batched=True)
    assert verdicts(watch) == [Verdict.UNDECIDED]
    assert "one by one" in watch.steps[0].reason


def test_a_custom_function_is_a_surrogate():
    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, g):
            return g

    w = torch.ones((), requires_grad=True)
    with clarke.audit() as watch:
        Straight.apply(w).backward()
    assert verdicts(watch) == [Verdict.SURROGATE]


def test_sparse_gradients():
    table = nn.Embedding(5, 2, sparse=True)
    with clarke.audit() as watch:
        table(torch.tensor([1, 1, 3])).pow(2).sum().backward()
    assert table.weight.grad.is_sparse
    assert watch.steps[0].correct is not False


def test_leaves_that_get_no_gradient_count_as_zero():
    w, unused = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    with clarke.audit() as watch:
        found = torch.autograd.grad(w * 2, [w, unused], allow_unused=True)
    assert found[1] is None
    assert verdicts(watch) == [Verdict.SMOOTH]


def test_wrt_restricts_what_is_judged():
    a, b = (torch.zeros((), requires_grad=True) for _ in range(2))
    with clarke.audit(wrt=[a]) as watch:
        (torch.relu(b) - torch.relu(-b) + a * 2).backward()
        (b * 2).backward()
    first, second = watch.steps
    assert first.verdict is Verdict.SMOOTH
    assert not second.looked
    assert second.verdict is None
    assert "wrt" in second.reason
    assert b.grad == 2


def test_check_inside_an_audit_is_no_step():
    w = torch.ones((), requires_grad=True)
    with clarke.audit() as watch:
        assert clarke.check(torch.relu, (w,)).correct
    assert watch.steps == ()


def test_another_thread_is_left_alone():
    import threading

    w = torch.ones((), requires_grad=True)
    with clarke.audit() as watch:
        thread = threading.Thread(target=(w * 2).backward)
        thread.start()
        thread.join()
    assert w.grad == 2
    assert watch.steps == ()
