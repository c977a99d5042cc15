"""Gradients of JAX, judged by torch's program for the same function; skipped without JAX."""

import re
from pathlib import Path

import pytest
import torch

import clarke
from clarke import Verdict

jax = pytest.importorskip("jax", reason="JAX is not installed: `make jax` runs this")
jnp = pytest.importorskip("jax.numpy")
jax.config.update("jax_enable_x64", True)

DOCS = Path(__file__).parents[2] / "docs" / "hunt.md"


def judged(in_jax, in_torch, values):
    at = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    g = torch.tensor(jax.grad(in_jax)(jnp.array(values)).tolist(), dtype=torch.float64)
    return clarke.check(in_torch, at, gradient=g)


def test_the_example_of_the_documentation(capsys):
    blocks = re.findall(r"```(?:py|text)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    place = next(i for i, b in enumerate(blocks) if b.startswith("import jax\n"))
    exec(compile(blocks[place], "hunt.md", "exec"), {})  # noqa: S102 - ours
    assert capsys.readouterr().out == blocks[place + 1]


@pytest.mark.parametrize(
    ("in_jax", "in_torch", "values", "right"),
    [
        (lambda s: jnp.maximum(1 - s, 0).mean(), lambda s: torch.relu(1 - s).mean(), [0, 1], True),
        (lambda x: jnp.abs(x).sum(), lambda x: x.abs().sum(), [0.0, -1.0], True),
        (
            lambda x: (jax.nn.relu(x) + jnp.minimum(x, 0)).sum(),
            lambda x: (torch.relu(x) + x.clamp(max=0)).sum(),
            [0.0, 2.0],
            False,  # a half
        ),
        (
            lambda x: (jnp.clip(x, -1, 1) + jax.nn.relu(x - 1)).sum(),
            lambda x: (x.clamp(-1, 1) + torch.relu(x - 1)).sum(),
            [1.0],
            False,  # a half; one is right
        ),
        (jnp.max, torch.max, [2.0, 2.0, 1.0], True),
    ],
    ids=["hinge", "abs", "split", "clip", "max"],
)
def test_gradients_of_jax(in_jax, in_torch, values, right):
    report = judged(in_jax, in_torch, [float(v) for v in values])
    assert report.correct is right, str(report)
    if not right:
        assert report.verdict is Verdict.NOT_CLARKE
        assert report.element is not None
