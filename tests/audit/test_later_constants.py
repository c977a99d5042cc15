"""What is made without gradients from more than differentiated values is a constant later on.

Rollouts, replay buffers, targets: values that differ from step to step make no other program of it.
What is made from differentiated values alone, and what writes to them, is followed as in the first
step.
"""

import pytest
import torch

import clarke
from clarke.verdict import Verdict


def relu_of_kink(w):
    return torch.relu(w) - torch.relu(-w)


def q_learning(steps, plant=None):
    """Deep Q-learning on a made-up world: what is learned from was picked by earlier weights."""
    torch.manual_seed(0)
    model, target = (
        torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        for _ in range(2)
    )
    extra = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    now, memory, losses = torch.rand(2, 3), [], []
    for step in range(steps):
        for _ in range(2):
            with torch.no_grad():
                best = model(now).argmax(1)
            action = torch.where(torch.rand(2) < 0.5, torch.randint(0, 2, (2,)), best)
            after = (now + torch.tensor([-0.1, 0.1])[action][:, None]).clamp(0, 1)
            done = (after > 0.95).any(1)
            memory.append((now, action, after.sum(1), after, done.float()))
            now = torch.where(done[:, None], torch.rand(2, 3), after)
        chosen = torch.randint(0, len(memory), (4,)).tolist()
        seen, action, reward, after, done = (
            torch.cat([memory[i][part] for i in chosen]) for part in range(5)
        )
        with torch.no_grad():
            wanted = reward + 0.9 * (1 - done) * target(after).max(1).values
        value = model(seen).gather(1, action[:, None]).squeeze(1)
        loss = torch.nn.functional.smooth_l1_loss(value, wanted)
        if step == plant:
            loss = loss + relu_of_kink(extra).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if step % 4 == 3:
            target.load_state_dict(model.state_dict())
    return losses


def test_other_values_from_a_replay_buffer_make_no_other_program():
    plain = q_learning(12)
    with clarke.audit() as watching:
        audited = q_learning(12)
    assert all(map(torch.equal, plain, audited))
    assert {s.verdict for s in watching.steps} == {Verdict.SMOOTH}
    # That of the first step, whose values may be followed further, and that of all others.
    assert watching._quick.repertoire._count <= 2


@pytest.mark.parametrize("plant", [0, 1, 7])
def test_a_wrong_gradient_beside_a_replay_buffer_is_found(plant):
    with pytest.warns(clarke.WrongGradientWarning), clarke.audit() as watching:
        q_learning(8, plant)
    found = [n for n, s in enumerate(watching.steps) if s.verdict is Verdict.NOT_CLARKE]
    assert found == [plant]


# ---------------------------------------------------------------- as in the first step


class Off(torch.autograd.Function):
    """A product whose backward is a quarter too large."""

    @staticmethod
    def forward(ctx, x, c):
        ctx.save_for_backward(c)
        return x * c

    @staticmethod
    def backward(ctx, g):
        return 1.25 * g * ctx.saved_tensors[0], None


def rounded(x):
    with torch.no_grad():
        q = torch.round(x + 0.3)
    return (x + (q - x.detach())).sum()


def scaled_by_a_view(x):
    with torch.no_grad():
        largest = x.t().abs().max()
    return (x / largest).square().sum()


def mask_of_a_view(x):
    with torch.no_grad():
        v = x.t()
    return (x * (v > 0)).sum()


def written_through_a_view(x):
    h = x * 2
    with torch.no_grad():
        h.view(4, 1).mul_(0)
    return torch.relu(h).sum()


def leaf_written_through_a_view(x):
    with torch.no_grad():
        x.view(4, 1).sub_(1)
    return torch.relu(x).sum()


def kink_beside_constants(x):
    with torch.no_grad():
        c = torch.sigmoid(x * torch.tensor([1.0, 2.0]))
    return (relu_of_kink(x - 1) * c).sum()


def with_a_function(x):
    return Off.apply(x, torch.tensor([1.0, 2.0])).sum()


def checkpointed(x):
    inner = torch.tensor([1.0, 2.0])
    return torch.utils.checkpoint.checkpoint(
        lambda y: relu_of_kink((y - 1) * inner).sum(), x, use_reentrant=True
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("earlier", [0, 2])
@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        (rounded, Verdict.SURROGATE),
        (scaled_by_a_view, Verdict.SURROGATE),
        (mask_of_a_view, Verdict.BOULIGAND),
        (written_through_a_view, Verdict.UNDECIDED),
        (leaf_written_through_a_view, Verdict.BOULIGAND),
        (kink_beside_constants, Verdict.NOT_CLARKE),
        (with_a_function, Verdict.NOT_CLARKE),
        (checkpointed, Verdict.NOT_CLARKE),
    ],
)
def test_a_later_step_is_judged_as_the_first(program, verdict, earlier):
    x = torch.tensor([[0.0, 2.0], [1.0, 4.0]])
    if program is not mask_of_a_view:
        x = x + 1 - (program is kink_beside_constants) * torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    x.requires_grad_()
    with clarke.audit(seconds=20) as watching:
        for _ in range(earlier):
            y = torch.tensor([1.0, 2.0], requires_grad=True)
            (y * y).sum().backward()
        program(x).backward()
    assert watching.steps[-1].verdict is verdict
