"""torch.func, batched and functional gradients, edges of the graph: judged or refused."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import autograd
from torch.func import (
    functional_call,
    functionalize,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)

import clarke

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = "computed by torch.func or with is_grads_batched=True"
GONE = "GradientEdge whose tensor is gone"
BEHIND = "is one that another input was computed from"
JUMPS = "a step: the operation's value jumps here"
COMPILED = "what was compiled uses torch.func"


def at(value: float = 0.0) -> torch.Tensor:
    return torch.full((3,), value, dtype=torch.float64, requires_grad=True)


def plain(value: float = 0.0) -> torch.Tensor:
    return torch.full((3,), value, dtype=torch.float64)


def both(x: torch.Tensor) -> torch.Tensor:
    """The identity, whose gradient at 0 comes out as 0."""
    return torch.relu(x) - torch.relu(-x)


def wrong(x: torch.Tensor) -> torch.Tensor:
    return both(x).sum()


class Square(autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return 2 * g * ctx.saved_tensors[0]


class Tripled(Square):
    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return 3 * g * ctx.saved_tensors[0]


def backward_of(loss: Callable[[torch.Tensor], torch.Tensor], value: float = 0.0) -> list[Any]:
    w = at(value)
    loss(w).backward()
    return [w.grad]


def samples() -> torch.Tensor:
    return torch.ones(4, 3, dtype=torch.float64)


def layer() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = torch.nn.Linear(3, 2).double()
    return model, {n: torch.zeros_like(p) for n, p in model.named_parameters()}


def per_sample() -> list[Any]:
    model, parameters = layer()

    def loss(p: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(functional_call(model, p, (x,))).sum()

    return list(vmap(grad(loss), (None, 0))(parameters, samples()).values())


def called() -> list[Any]:
    model, parameters = layer()
    leaves = {n: p.requires_grad_() for n, p in parameters.items()}
    wrong(functional_call(model, leaves, (samples(),))).backward()
    return [p.grad for p in leaves.values()]


def ensemble() -> list[Any]:
    models = [torch.nn.Linear(3, 2).double() for _ in range(2)]
    parameters, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")

    def model(p: Any, b: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(functional_call(base, (p, b), (x,)))

    vmap(model, (0, 0, None))(parameters, buffers, samples()).sum().backward()
    return [p.grad for p in parameters.values()]


def learned() -> list[Any]:
    """A step of MAML: through a gradient of torch.func, which autograd follows."""
    w = at()
    inner = w - 0.1 * grad(lambda v: torch.relu(v).pow(2).sum())(w)
    wrong(inner).backward()
    return [w.grad]


def pulled_back() -> list[Any]:
    value, back = vjp(both, plain())
    return [value, *back(plain(1))]


def pushed_forward() -> list[Any]:
    w = at()
    value, slope = jvp(lambda x: (x**3).sum(), (w,), (plain(1),))
    (value + slope + wrong(w)).backward()
    return [value, slope, w.grad]


def batched() -> list[Any]:
    w = at()
    rows = torch.eye(3, dtype=torch.float64)
    return list(autograd.grad(both(w), w, rows, is_grads_batched=True))


def batched_by_hand() -> list[Any]:
    w = at()
    y = both(w)
    rows = torch.eye(3, dtype=torch.float64)
    return [vmap(lambda v: autograd.grad(y, w, v, retain_graph=True)[0])(rows)]


def inside_a_transform() -> list[Any]:
    def loss(x: torch.Tensor) -> torch.Tensor:
        w = at()
        return (autograd.grad(wrong(w), w)[0] * x).sum()

    return [grad(loss)(plain())]


def vectors() -> list[Any]:
    w = at()
    ones = plain(1)
    one = autograd.grad(both(w), w, ones)
    return [*one, *autograd.grad([torch.relu(w), -torch.relu(-w)], w, [ones, ones])]


def from_edge() -> list[Any]:
    w = at()
    y = wrong(w)
    autograd.backward([autograd.graph.get_gradient_edge(y)])
    return [w.grad]


def from_lost_edge() -> list[Any]:
    w = at()
    autograd.backward([autograd.graph.get_gradient_edge(wrong(w))])
    return [w.grad]


def to_edges() -> list[Any]:
    w = at()
    h = w * 2
    edge = autograd.graph.get_gradient_edge
    return [*autograd.grad(wrong(w), [edge(w)]), *autograd.grad(wrong(h), [edge(h)])]


def to_lost_edge() -> list[Any]:
    w = at()
    h = w * 2
    edge = autograd.graph.get_gradient_edge(h)
    y = wrong(h)
    del h
    return list(autograd.grad(y, [edge]))


def inner(loss: Callable[[torch.Tensor], torch.Tensor], value: float = 0.0) -> list[Any]:
    h = at(value) * 1
    return list(autograd.grad(loss(h), [h]))


def inner_and_leaf() -> list[Any]:
    w = at()
    h = w * 2
    return list(autograd.grad(wrong(h), [h, w]))


def inner_added() -> list[Any]:
    h = at() * 2
    h.retain_grad()
    wrong(h).backward(inputs=[h])
    return [h.grad]


def in_numbers(found: Any) -> list[Any]:
    return [x for e in found for x in in_numbers(e)] if isinstance(found, tuple) else [found]


def functional(name: str, *more: torch.Tensor, **options: Any) -> list[Any]:
    run = getattr(autograd.functional, name)
    scalar = name in ("hessian", "vhp", "hvp")
    loss = (lambda x: torch.relu(x).pow(2).sum()) if scalar else both
    return in_numbers(run(loss, plain(), *more, **options))


def dual() -> list[Any]:
    w = at()
    with autograd.forward_ad.dual_level():
        x = autograd.forward_ad.make_dual(w, plain(1))
        slope = autograd.forward_ad.unpack_dual(x**3).tangent
        (slope.sum() + wrong(w)).backward()
    return [slope, w.grad]


def compiled(loss: Callable[[torch.Tensor], torch.Tensor], backend: str) -> list[Any]:
    torch._dynamo.reset()
    return backward_of(torch.compile(loss, backend=backend))


def mapped(x: torch.Tensor) -> torch.Tensor:
    return vmap(lambda s: wrong(x * s))(samples()).sum()


def stepped(x: torch.Tensor) -> torch.Tensor:
    return wrong(x - 0.1 * grad(lambda v: torch.relu(v).pow(2).sum())(x))


# What runs, and the verdicts of its calls; of an UNDECIDED one a part of its reason.
ROWS: dict[str, tuple[Callable[[], list[Any]], tuple[str, ...]]] = {
    "grad": (lambda: [grad(wrong)(plain())], (REFUSED,)),
    "vjp": (pulled_back, (REFUSED,)),
    "jacrev": (lambda: [jacrev(both)(plain())], (REFUSED,)),
    "hessian": (lambda: [hessian(lambda x: (x**3).sum())(plain(1))], (REFUSED,)),
    "grads of samples": (per_sample, (REFUSED,)),
    "is_grads_batched": (batched, (REFUSED,)),
    "vmap around autograd.grad": (batched_by_hand, (REFUSED,)),
    "autograd.grad inside of grad": (inside_a_transform, (REFUSED, REFUSED)),
    "jacfwd": (lambda: [jacfwd(both)(plain())], ()),
    "linearize": (lambda: [linearize(torch.sin, plain())[1](plain(1))], ()),
    "backward through vmap": (lambda: backward_of(mapped), ("NOT_CLARKE",)),
    "backward through smooth vmap": (
        lambda: backward_of(lambda w: vmap(lambda s: (w * s).pow(2).sum())(samples()).sum()),
        ("SMOOTH",),
    ),
    "backward through vmap in chunks": (
        lambda: backward_of(lambda w: vmap(lambda s: w @ s, chunk_size=2)(samples()).sum()),
        ("SMOOTH",),
    ),
    "backward through grad": (learned, (REFUSED, "NOT_CLARKE")),
    "backward through a step of grad": (
        lambda: backward_of(lambda w: grad(lambda x: torch.relu(x).sum())(w).sum()),
        (REFUSED, JUMPS),
    ),
    "backward through jvp": (pushed_forward, ("NOT_CLARKE",)),
    "backward through forward_ad": (dual, ("NOT_CLARKE",)),
    "backward through functionalize": (
        lambda: backward_of(functionalize(lambda x: torch.relu_(x.clone()).sum())),
        ("BOULIGAND",),
    ),
    "functional_call": (called, ("NOT_CLARKE",)),
    "stack_module_state": (ensemble, ("SMOOTH",)),
    "vmap of a Function": (
        lambda: backward_of(lambda w: vmap(Square.apply)(w).sum(), 1),
        ("SMOOTH",),
    ),
    "vmap of vmap of a wrong Function": (
        lambda: backward_of(lambda w: vmap(vmap(Tripled.apply))(w.expand(2, 3)).sum(), 1),
        ("NOT_CLARKE",),
    ),
    "vectors": (vectors, ("NOT_CLARKE", "NOT_CLARKE")),
    "from a GradientEdge": (from_edge, ("NOT_CLARKE",)),
    "from a GradientEdge whose tensor is gone": (from_lost_edge, (GONE,)),
    "to GradientEdges": (to_edges, ("NOT_CLARKE", "NOT_CLARKE")),
    "to a GradientEdge whose tensor is gone": (to_lost_edge, (GONE,)),
    "to an inner tensor": (lambda: inner(wrong), ("NOT_CLARKE",)),
    "to a smooth inner tensor": (lambda: inner(lambda h: (h * h).sum(), 1), ("SMOOTH",)),
    "to an inner tensor and its leaf": (inner_and_leaf, (BEHIND,)),
    "to the .grad of an inner tensor": (inner_added, ("no optimizer takes its .grad",)),
    "functional.jacobian": (lambda: functional("jacobian"), ("NOT_CLARKE",) * 3),
    "functional.jacobian, vectorize": (
        lambda: functional("jacobian", vectorize=True),
        (REFUSED,),
    ),
    "functional.vjp": (lambda: functional("vjp", plain(1)), ("NOT_CLARKE",)),
    "functional.jvp": (lambda: functional("jvp", plain(1)), ("SMOOTH", "SMOOTH")),
    "functional.hvp": (lambda: functional("hvp", plain(1)), ("SMOOTH",) * 3),
    "functional.vhp": (lambda: functional("vhp", plain(1)), ("SMOOTH", "BOULIGAND")),
    "functional.hessian": (lambda: functional("hessian"), ("SMOOTH", *("BOULIGAND",) * 3)),
    "vmap, compiled by eager": (lambda: compiled(mapped, "eager"), ("NOT_CLARKE",)),
    "grad, compiled by eager": (lambda: compiled(stepped, "eager"), (REFUSED, "NOT_CLARKE")),
    "vmap, compiled": (lambda: compiled(mapped, "aot_eager"), (COMPILED,)),
    "grad, compiled": (lambda: compiled(stepped, "aot_eager"), (COMPILED,)),
}
SLOW = ("vmap, compiled by eager", "grad, compiled by eager", "vmap, compiled")


def run(row: Callable[[], list[Any]]) -> tuple[list[Any], list[str]]:
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = row()
    return found, sorted(str(w.message) for w in seen)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ROWS]
)
def test_row(name: str) -> None:
    row, expected = ROWS[name]
    own, said = run(row)
    with clarke.audit(on_wrong=lambda _: None, on_nonfinite=None, seconds=30) as audit:
        audited, told = run(row)
    assert len(own) == len(audited)
    for one, other in zip(own, audited, strict=True):
        assert torch.equal(one, other)
        assert (one.dtype, one.requires_grad) == (other.dtype, other.requires_grad)
    assert set(told) <= set(said)  # torch warns of some things once
    assert len(audit.steps) == len(expected)
    for step, wanted in zip(audit.steps, expected, strict=True):
        assert step.verdict is not None
        if step.verdict.name != wanted:
            assert step.verdict in (clarke.Verdict.UNDECIDED, clarke.Verdict.NOT_LIPSCHITZ)
            assert wanted in step.reason, step.reason


def test_nothing_stays_behind_a_refused_call() -> None:
    with clarke.audit(on_wrong=lambda _: None) as audit:
        grad(wrong)(plain())
        backward_of(wrong)
    assert [s.verdict for s in audit.steps] == [clarke.Verdict.UNDECIDED, clarke.Verdict.NOT_CLARKE]


def test_a_wrong_inner_gradient_is_repaired() -> None:
    with clarke.audit(on_wrong="repair"):
        found = inner(wrong)
    assert torch.equal(found[0], plain(1))


def test_an_inner_tensor_that_was_written_to_is_refused() -> None:
    with clarke.audit() as audit:
        h = (at(1) * 1).mul_(2)
        autograd.grad((h * h).sum(), [h])
    assert "itself computed from other tensors, in place, or before" in audit.steps[0].reason


def test_an_inner_tensor_from_before_the_audit_is_a_start_like_any_other() -> None:
    h = at() * 1
    with clarke.audit(on_wrong=lambda _: None) as audit:
        autograd.grad(wrong(h), [h])
    assert audit.steps[0].verdict is clarke.Verdict.NOT_CLARKE


def test_leaves_that_are_not_asked_for_are_constants() -> None:
    x, v = at(), at(1)
    with clarke.audit(on_wrong=lambda _: None) as audit:
        autograd.grad((torch.relu(x) * v).sum(), [v])
        autograd.grad(torch.ops.aten.threshold_backward(v, x, 0).sum(), [v])
        autograd.grad(torch.ops.aten.threshold_backward(v, x, 0).sum() + wrong(v - 1), [v])
    assert [s.verdict.name for s in audit.steps] == ["SMOOTH", "SMOOTH", "NOT_CLARKE"]
