"""The first judgement of a process: nothing of torch's compiler is loaded for it."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

import clarke
from clarke.tangents import forward_mode
from clarke.torch_private import is_made_of_zeros, make_dual, unpack_dual
from clarke.verdict import Verdict

D = torch.float64


def in_a_new_process(program, **environment):
    code = textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_two_steps_without_a_compiler():
    told = in_a_new_process(
        """
        import sys, time
        import torch, clarke
        from clarke.deadline import Deadline
        Deadline.after.__func__.__defaults__ = (time.process_time,)
        x = torch.zeros(5, requires_grad=True)
        before = len(sys.modules)
        with clarke.audit(lambda _: None) as watch:
            for _ in range(2):
                (torch.relu(x) - torch.relu(-x) + x.abs()).sum().backward()
        print(*(s.verdict.name for s in watch.steps))
        print("torch._dynamo" in sys.modules, "sympy" in sys.modules)
        print(len(sys.modules) - before < 20)
        """
    )
    assert told == ["BOULIGAND", "BOULIGAND", "False", "False", "True"]


def test_convolutions_with_nothing_compiled_yet(tmp_path):
    told = in_a_new_process(
        """
        import sys, time
        import torch, clarke
        from torch import nn
        from clarke.deadline import Deadline
        Deadline.after.__func__.__defaults__ = (time.process_time,)
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(8 * 64, 10),
        )
        x = torch.randn(8, 3, 16, 16)
        x[:, :, :6] = 0
        with clarke.audit(lambda _: None) as watch:
            for _ in range(2):
                nn.functional.cross_entropy(net(x), torch.arange(8)).backward()
        print(*(s.verdict.correct for s in watch.steps))
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert told == ["True", "True"]


X = torch.tensor([1.5, -2.0, 0.0, 3.0], dtype=D)
T = torch.tensor([0.5, 1.0, -1.0, 2.0], dtype=D)
C = torch.tensor([[2.0], [-0.25]], dtype=D)
CASES = {
    "add": lambda d: torch.add(d, C, alpha=3),
    "add, constant first": lambda d: torch.add(C, d, alpha=3),
    "sub": lambda d: d - C,
    "sub, constant first": lambda d: torch.sub(C, d, alpha=2),
    "rsub": lambda d: torch.rsub(d, C, alpha=2),
    "numbers": lambda d: 2 - (3 * d + 1) / 4,
    "number over": lambda d: 2 / (d + 5),
    "mul": lambda d: C * d,
    "div": lambda d: d / C,
    "constant over": lambda d: C / (d + 5),
    "aten": lambda d: torch.ops.aten.sub.Tensor(C, torch.ops.aten.mul.Tensor(d, C), alpha=2),
    "aten, numbers": lambda d: torch.ops.aten.rsub.Scalar(d, 2.0, 3),
    "in place": lambda d: (d * 1).mul_(2).add_(X, alpha=2).sub_(1).div_(4),
    "into a constant": lambda d: X.clone().add_(d).mul_(d),
    "single precision": lambda d: d.to(torch.float32) * torch.ones(4),
    "floor division": lambda d: torch.div(d, 2.0, rounding_mode="floor"),
    "maximum": lambda d: torch.maximum(d, torch.zeros(4, dtype=D)),
    "maximum, tied": lambda d: torch.minimum(X, d),
    "linear with bias": lambda d: torch.addmm(X, d[:, None] * X, torch.eye(4, dtype=D)),
    "layer norm": lambda d: torch.nn.functional.layer_norm(d, (4,), X, X),
    "batch norm": lambda d: torch.nn.functional.batch_norm(
        torch.stack([d, d * d]), None, None, X, X, training=True
    ),
    "l1": lambda d: torch.nn.functional.l1_loss(d, X + 1),
    "lerp": lambda d: torch.lerp(d, X, 0.25),
    "infinite": lambda d: torch.full((4,), float("inf"), dtype=D) * d.clamp(min=1),
}


@pytest.mark.parametrize("case", CASES)
def test_constants_have_no_tangent_of_zeros(case):
    """The tangents are those of torch's own forward mode."""
    f = CASES[case]
    with torch.autograd.forward_ad.dual_level():
        wanted = torch.autograd.forward_ad.unpack_dual(
            f(torch.autograd.forward_ad.make_dual(X.clone(), T))
        )
        value, tangent = wanted.primal.clone(), wanted.tangent.clone()
    with forward_mode():
        own = unpack_dual(f(make_dual(X.clone(), T)))
        assert not is_made_of_zeros(own[1])
        assert torch.equal(own[0], value)
        torch.testing.assert_close(own[1], tangent, rtol=1e-15, atol=0, equal_nan=True)


def test_the_users_modes_see_nothing_of_it():
    class Watching(torch.overrides.TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Watching.seen += 1
            return func(*args, **(kwargs or {}))

    with Watching(), torch._C.DisableTorchFunction():
        with forward_mode():
            d = make_dual(X.clone(), T)
            product = unpack_dual(d * 2)[1]
        assert not torch._C._is_torch_function_enabled()
        before = Watching.seen
        torch.relu(X)
    assert torch.equal(product, T * 2)
    assert Watching.seen == before == 0
    assert torch._C._is_torch_function_enabled()
    assert torch._C._len_torch_function_stack() == 0


def test_gradients_of_what_runs_forward():
    """Reverse mode through values and tangents, as for rows of tangents."""
    x = X.clone().requires_grad_()
    with forward_mode():
        value, tangent = unpack_dual((make_dual(x, T) * 2 - 1) / C)
        (one,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
    assert torch.allclose(one, (2 / C).sum().expand(4))
    assert torch.allclose(tangent, 2 * T / C)


def test_the_second_judgement_is_as_the_first():
    x = torch.zeros(3, dtype=D, requires_grad=True)
    verdicts = {
        clarke.check(lambda v: (2 * v.relu() - 1 + v.abs() / 3).sum(), (x,)).verdict
        for _ in range(2)
    }
    assert len(verdicts) == 1
    assert verdicts <= {Verdict.CLARKE, Verdict.BOULIGAND}
