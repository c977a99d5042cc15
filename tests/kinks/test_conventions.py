"""Rules against the operations, at every sample: pieces, AD's weights, one-sided slopes."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from clarke.capture import OpRecord, Recorder, collect_trace, overload_of
from clarke.kinks import Call, Hazard, OpKind, Registry, Touch, default_registry
from clarke.kinks.samples import Sample, samples


@dataclass(frozen=True)
class Convention:
    """What a rule says at a sample: derivatives of the pieces, AD's answer, and its weights."""

    operation: str
    call: str
    kink: str
    slopes: tuple[tuple[float, ...], ...]
    gradient: tuple[float, ...]
    weights: tuple[float, ...]
    hazard: Hazard | None


def measure(sample: Sample, registry: Registry) -> Convention:
    """Run a sample under the recorder and read its convention off the rule and autograd."""
    inputs = sample.tensors()
    recorder = Recorder(registry.keeps)
    with torch.enable_grad(), recorder:
        result = torch.as_tensor(sample.function(*inputs)).sum()
        trace = registry.lowered(collect_trace(recorder, result))
        recorder.paused = True
        gradient = _flat(result, list(inputs))
    found = [
        (op, known.rule.find(op))
        for op in trace.ops
        for known in (registry.known(op.func),)
        if known.kind is OpKind.RULED and known.rule is not None
    ]
    touched = [(op, touch) for op, touch in found if touch.count]
    assert [t.count for _, t in touched] == [1], sample.call
    op, touch = touched[0]
    with torch.enable_grad():
        slopes = _slopes(registry, op, touch)
    return Convention(
        operation=overload_of(op.func),
        call=sample.call,
        kink=sample.kink,
        slopes=slopes,
        gradient=gradient,
        weights=tuple(touch.weights.tolist()) if slopes else (),
        hazard=next(iter(touch.hazards), None),
    )


def _slopes(registry: Registry, op: OpRecord, touch: Touch) -> tuple[tuple[float, ...], ...]:
    """The derivatives of the pieces with respect to the operation's own inputs."""
    rule = registry.known(op.func).rule
    args: list[Any] = [op.kept.get(i, a) for i, a in enumerate(op.args)]
    leaves = []
    for i, value in enumerate(args):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            args[i] = value.detach().clone().requires_grad_()
            leaves.append(args[i])
    call = Call(op.func, tuple(args), op.kwargs)
    values = rule.candidates(call, touch)
    return tuple(_flat(v, leaves) for v in values) if values.requires_grad else ()


def _flat(value: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[float, ...]:
    if not value.requires_grad:
        return tuple(0.0 for leaf in leaves for _ in range(leaf.numel()))
    grads = torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
    return tuple(x for g in grads for x in g.reshape(-1).tolist())


@pytest.fixture(scope="module")
def rows():
    return [measure(sample, default_registry()) for sample in samples()]


def test_one_row_for_each_sample(rows):
    assert len(rows) == len(samples())
    assert len({(r.call, r.kink) for r in rows}) == len(rows)
    assert {r.operation for r in rows} <= set(default_registry().names())


def test_weights_are_convex_and_explain_the_gradient(rows):
    for row in rows:
        if row.hazard is not None:
            continue
        assert sum(row.weights) == pytest.approx(1)
        assert min(row.weights) >= 0
        mixed = [
            sum(w * s for w, s in zip(row.weights, column, strict=True))
            for column in zip(*row.slopes, strict=True)
        ]
        assert row.gradient == pytest.approx(mixed, abs=1e-6), row.call


def test_slopes_are_those_on_either_side(rows):
    """For kinks in one variable: difference quotients of the operation itself."""
    for sample, row in zip(samples(), rows, strict=True):
        if row.hazard is not None or len(row.gradient) != 1:
            continue
        (point,) = sample.inputs[0]
        step = 1e-6
        left, here, right = (
            sample.function(torch.tensor([point + s], dtype=torch.float64)).item()
            for s in (-step, 0.0, step)
        )
        assert row.slopes[0][0] == pytest.approx((here - left) / step, abs=1e-4), row.call
        assert row.slopes[-1][0] == pytest.approx((right - here) / step, abs=1e-4), row.call


def test_known_conventions(rows):
    found = {(r.call, r.kink): r for r in rows}
    assert found["relu(x)", "x = 0"].gradient == (0.0,)
    assert found["abs(x)", "x = 0"].weights == (0.5, 0.5)
    assert found["sqrt(x)", "x = 0"].hazard is Hazard.INFINITE_SLOPE
    assert found["max(x)", "x[0] = x[2] = x[3]"].weights == pytest.approx((1 / 3,) * 3)
    assert found["max(x, 0)", "x[0] = x[2] = x[3]"].weights == (1.0, 0.0, 0.0)
