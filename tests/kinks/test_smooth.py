"""The table of `clarke.kinks.smooth` against the installed torch: names, and slopes by numbers.

The probe compares autograd's gradient at special inputs (zeros, ones, ties) with gradients nearby
and with difference quotients. It catches kinks, steps, infinite slopes, second derivatives that
jump, and derivative formulas that are not the derivative.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from clarke.kinks import smooth
from clarke.kinks.smooth import CONDITIONAL, OpClass, bind, classify, why_not
from clarke.kinks.smooth.model import aten, named

SETS: Mapping[OpClass, frozenset[str]] = {
    OpClass.ANALYTIC: smooth.ANALYTIC,
    OpClass.STRUCTURAL: smooth.STRUCTURAL,
    OpClass.CONSTANT: smooth.CONSTANT,
    OpClass.RANDOM: smooth.RANDOM,
    OpClass.SINGULAR: frozenset(smooth.SINGULAR),
    OpClass.DISCRETE: smooth.DISCRETE,
}
LISTED = frozenset().union(*SETS.values())
MENTIONED = LISTED | CONDITIONAL.keys() | smooth.LEFT_OUT.keys()
VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


def words(text: str) -> list[str]:
    return text.split()


KINKS = words("""
    relu relu_ leaky_relu leaky_relu_ _prelu_kernel rrelu_with_noise rrelu_with_noise_ elu elu_ celu
    celu_ hardtanh hardtanh_ hardsigmoid hardsigmoid_ hardswish hardswish_ hardshrink softshrink
    threshold threshold_ abs abs_ clamp clamp_ clamp_min clamp_max maximum minimum fmax fmin amax
    amin aminmax max min median nanmedian mode kthvalue sort topk cummax cummin max_pool1d
    max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d
    fractional_max_pool2d fractional_max_pool3d smooth_l1_loss huber_loss multi_margin_loss
    multilabel_margin_loss_forward grid_sampler_2d grid_sampler_3d renorm segment_reduce
    threshold_backward hardtanh_backward leaky_relu_backward elu_backward _foreach_abs
    _foreach_clamp_min _foreach_clamp_max _foreach_maximum _foreach_minimum _foreach_max
""")

Call = Callable[..., object]
Shape = tuple[int, ...]


def full(name: str) -> str:
    return name if name.startswith("aten::") else f"aten::{name}"


def overload(name: str) -> torch._ops.OpOverload:
    operator, _, kind = full(name).removeprefix("aten::").partition(".")
    found: torch._ops.OpOverload = getattr(getattr(torch.ops.aten, operator), kind)
    return found


def exists(name: str) -> bool:
    """Whether the dispatcher has it (TorchScript has more)."""
    try:
        return torch._C._dispatch_has_kernel(full(name).removesuffix(".default"))
    except RuntimeError:
        return False


def installed(names: Sequence[str] | frozenset[str]) -> list[str]:
    return [n for n in sorted(full(n) for n in names) if exists(n)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Thousands of tiny operations: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Arrivals(TorchDispatchMode):
    """The overloads that reach a dispatch mode."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(f"{func._schema.name}.{func._schema.overload_name or 'default'}")
        return func(*args, **(kwargs or {}))


# --- the names ------------------------------------------------------------------------------------


def test_sets_do_not_meet():
    for (a, left), (b, right) in itertools.combinations(SETS.items(), 2):
        assert not left & right, (a, b)
    assert not LISTED & smooth.LEFT_OUT.keys()
    assert not CONDITIONAL.keys() & smooth.LEFT_OUT.keys()


def test_subsets():
    assert smooth.POLES.keys() <= smooth.ANALYTIC
    assert smooth.DROPOUT <= smooth.RANDOM
    assert smooth.SAWTOOTH <= smooth.DISCRETE
    assert smooth.OTHER_VERSIONS <= MENTIONED


def test_every_name_resolves():
    unknown = [n for n in sorted(MENTIONED - smooth.OTHER_VERSIONS) if not exists(n)]
    assert not unknown, f"torch {torch.__version__} has none of these: {unknown}"


def test_names_are_the_dispatchers():
    for name in installed(MENTIONED):
        schema = overload(name)._schema
        assert f"{schema.name}.{schema.overload_name or 'default'}" == name


def test_kinks_are_in_no_set():
    listed = {n.removeprefix("aten::").partition(".")[0] for n in LISTED | CONDITIONAL.keys()}
    assert not listed & set(KINKS)


@pytest.mark.skipif(VERSION < (2, 13), reason="operations became whole one by one")
def test_listed_operations_do_not_decompose():
    composite = [
        n
        for n in installed(LISTED | CONDITIONAL.keys())
        if torch._C._dispatch_has_kernel_for_dispatch_key(
            n.removesuffix(".default"), "CompositeImplicitAutograd"
        )
    ]
    assert set(composite) <= OTHER_DEVICES


def test_results_are_not_outs():
    for name in installed(MENTIONED):
        assert not any(a.is_out for a in overload(name)._schema.arguments), name


def twin(name: str) -> str:
    """The in-place form of a name, or the plain form of an in-place one."""
    operator, _, kind = name.partition(".")
    return f"{operator.removesuffix('_')}{'' if operator.endswith('_') else '_'}.{kind}"


# The in-place form raises, is not there, or is another function under the same overload's name.
UNLIKE_IN_PLACE = words("""
    acosh asinh atanh _foreach_zero _index_put_impl as_strided conj_physical copy pow squeeze t
    transpose unsqueeze
""")


def test_in_place_forms_are_of_the_same_class():
    for name in installed(LISTED | CONDITIONAL.keys()):
        other = twin(name)
        operator = name.removeprefix("aten::").partition(".")[0].removesuffix("_")
        if exists(other) and operator not in UNLIKE_IN_PLACE:
            assert classify(other) is classify(name), (name, other)
            assert (other in CONDITIONAL) == (name in CONDITIONAL), (name, other)


def test_list_forms_are_of_the_same_class():
    for name in installed(LISTED):
        operator = name.removeprefix("aten::").partition(".")[0]
        if operator.startswith("_foreach_") and operator != "_foreach_norm":
            plain = operator.removeprefix("_foreach_")
            same = {classify(f"aten::{plain}.{k}") for k in ("default", "Tensor", "Tensor_Scalar")}
            assert classify(name) in same | {classify(f"aten::{plain}.Scalar")}, name


def test_classify():
    for kind, names in SETS.items():
        for name in names:
            assert classify(name) is kind
    assert classify("aten::relu.default") is None
    assert classify("mylib::add.Tensor") is None
    assert "log_softmax" in (why_not("aten::_ctc_loss.default") or "")
    assert why_not("aten::add.Tensor") is None


def test_a_name_is_not_listed_twice():
    with pytest.raises(ValueError, match="twice"):
        aten("add.Tensor", "add.Tensor")
    with pytest.raises(ValueError, match="twice"):
        named({"add.Tensor": "x", "sub.Tensor add.Tensor": "y"})


def test_branch_cuts():
    z = torch.ones(2, dtype=torch.complex128)
    for name in ("asinh.default", "log.default", "pow.Tensor_Scalar", "_foreach_log1p.default"):
        assert classify(full(name), {"self": [z] if "foreach" in name else z}) is None
    assert classify("aten::asinh.default", {"self": z.real}) is OpClass.ANALYTIC
    assert classify("aten::exp.default", {"self": z}) is OpClass.ANALYTIC


def test_sparse_tensors_are_unknown():
    sparse = torch.eye(2).to_sparse()
    assert classify("aten::mm.default", {"self": sparse, "mat2": sparse}) is None


# --- the probe ------------------------------------------------------------------------------------


def floats(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, (list, tuple)):
        for v in value:
            yield from floats(v)
    elif isinstance(value, torch.Tensor) and value.is_complex():
        yield torch.view_as_real(value.resolve_conj())
    elif isinstance(value, torch.Tensor) and value.is_floating_point():
        yield value


def scalar(result: object) -> torch.Tensor:
    """A fixed generic linear function of all differentiable results."""
    terms = [torch.zeros((), dtype=torch.float64)]
    for i, part in enumerate(t for t in floats(result) if t.requires_grad):
        generator = torch.Generator().manual_seed(i)
        weight = torch.randn(part.shape, generator=generator, dtype=torch.float64) + 2
        terms.append((part * weight).sum())
    return sum(terms[1:], terms[0])


Point = list[torch.Tensor]


def slope(run: Call, point: Point) -> tuple[float, torch.Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in point]
    y = scalar(run(*[x.clone() for x in leaves]))
    if not y.requires_grad:
        return float(y), torch.zeros(sum(x.numel() for x in point), dtype=torch.float64)
    found = torch.autograd.grad(y, leaves, allow_unused=True)
    parts = [
        torch.zeros_like(x) if g is None else g.to_dense()
        for g, x in zip(found, leaves, strict=True)
    ]
    return float(y.detach()), torch.cat([g.reshape(-1).double() for g in parts])


def moved(point: Point, step: float, direction: Point) -> Point:
    return [x + step * d for x, d in zip(point, direction, strict=True)]


def complaint(run: Call, point: Point, *, single: bool = False) -> str | None:
    """What is wrong with autograd's gradient at a point, if anything is.

    `single` is for operations that exist in float32 only.
    """
    y, g = slope(run, point)
    if not (torch.isfinite(g).all() and math.isfinite(y)):
        return "not finite"
    near, wide, far = (1e-3, 1e-2, 1e-2) if single else (1e-7, 1e-6, 1e-5)
    loose = 3e-2 if single else 1e-4
    generator = torch.Generator().manual_seed(7)
    for _ in range(1 if g.numel() == 1 else 2):
        direction = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in point]
        after, before = (slope(run, moved(point, s * near, direction)) for s in (1, -1))
        if not (torch.isfinite(after[1]).all() and torch.isfinite(before[1]).all()):
            return "not finite nearby"
        scale = 1 + float(g.abs().max()) if g.numel() else 1.0
        jump = max(float((side[1] - g).abs().max()) for side in (after, before)) if g.numel() else 0
        if jump > loose * scale:
            return f"the gradient jumps by {jump}"
        after, before = (slope(run, moved(point, s * far, direction)) for s in (1, -1))
        quotient = (after[0] - before[0]) / (2 * far)
        predicted = float(g @ torch.cat([d.reshape(-1).double() for d in direction]))
        if not abs(quotient - predicted) <= loose * (scale + abs(y) + abs(predicted)):
            return f"autograd says {predicted}, the difference quotient {quotient}"
        after, before = (slope(run, moved(point, s * wide, direction)) for s in (1, -1))
        bend = float((after[1] + before[1] - 2 * g).abs().max()) / wide if g.numel() else 0.0
        if not single and bend > 0.1 * scale:
            return f"the second derivative jumps by {bend}"
    return None


# Values at which something may happen, for functions of one number.
VALUES = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 0.25, 2.0, -2.0, 3.0, -3.0, 1.5, 6.0, -6.0, 0.7, -0.3)
LARGE = (20.0, -20.0, 40.0, -40.0)


def patterns(shapes: Sequence[Shape]) -> Iterator[Point]:
    """Generic values; zeros; ones; a mixture with ties; generic with one zero operand."""
    generator = torch.Generator().manual_seed(3)
    generic = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    mixed = torch.tensor([0.0, 1.0, 1.0, -1.0, 0.0, 2.0, 0.5, -1.0], dtype=torch.float64)
    yield generic
    yield [torch.zeros_like(x) for x in generic]
    yield [torch.ones_like(x) for x in generic]
    yield [
        mixed[torch.arange(x.numel()).add(3 * i) % mixed.numel()].reshape(x.shape)
        for i, x in enumerate(generic)
    ]
    if len(generic) > 1:
        for i in range(len(generic)):
            yield [torch.zeros_like(x) if i == j else x for j, x in enumerate(generic)]


def finite(run: Call, point: Point) -> bool:
    """Whether the results are finite there; integers are not asked."""
    try:
        result = run(*[x.clone() for x in point])
    except RuntimeError:
        return False
    return all(bool(torch.isfinite(t).all()) for t in floats(result))


def arrives(name: str, run: Call, point: Point) -> None:
    with Arrivals() as mode:
        run(*[x.clone().requires_grad_().clone() for x in point])
    assert name in mode.names, f"{name} did not run, but {sorted(mode.names)}"


SEEN_BY_THE_PROBE: Mapping[str, tuple[Call, Point]] = {
    "kink": (torch.relu, [torch.zeros(1, dtype=torch.float64)]),
    "kink with a mean slope": (torch.abs, [torch.zeros(1, dtype=torch.float64)]),
    "tie": (lambda x: x.amax(), [torch.ones(3, dtype=torch.float64)]),
    "step": (lambda x: torch.floor(x) + x, [torch.ones(1, dtype=torch.float64)]),
    "infinite slope": (torch.sqrt, [torch.zeros(1, dtype=torch.float64)]),
    "end of the domain": (lambda x: x**1.5, [torch.zeros(1, dtype=torch.float64)]),
    "second derivative": (
        lambda x: functional.smooth_l1_loss(x, x * 0),
        [torch.ones(1, dtype=torch.float64)],
    ),
    "tiny step": (
        lambda x: functional.softplus(x, threshold=9.0),
        [torch.full((1,), 9.0, dtype=torch.float64)],
    ),
    "lost dependence": (lambda x: x.detach() * x, [torch.ones(1, dtype=torch.float64)]),
}


@pytest.mark.parametrize("what", SEEN_BY_THE_PROBE)
def test_the_probe_sees(what):
    run, point = SEEN_BY_THE_PROBE[what]
    assert complaint(run, point) is not None


# --- analytic operations --------------------------------------------------------------------------

I = torch.tensor  # index tensors, many of them


def plain(op: Call, *xs: torch.Tensor) -> object:
    return op(*xs)


def c64(*xs: torch.Tensor) -> list[torch.Tensor]:
    """Complex numbers from pairs in the last dimension."""
    return [torch.view_as_complex(x.contiguous()) for x in xs]


def regular(x: torch.Tensor) -> torch.Tensor:
    """A regular matrix that depends on x in every entry."""
    return x + 4 * torch.eye(x.shape[-1], dtype=x.dtype)


# How to call an overload (the in-place form is called likewise), and the shapes of its variables.
# Overloads that take only tensors, elementwise, need no entry.
ANALYTIC_CALLS: Mapping[str, tuple[Call, tuple[Shape, ...]]] = {
    "_adaptive_avg_pool2d.default": (lambda op, x: op(x, [2, 2]), ((1, 2, 3, 4),)),
    "_adaptive_avg_pool3d.default": (lambda op, x: op(x, [2, 2, 2]), ((1, 1, 3, 4, 2),)),
    "_batch_norm_no_update.default": (
        lambda op, x, w, b: op(x, w, b, I([0.1, 0.2]).double(), I([1.0, 2.0]).double(), 0.1, 0.1),
        ((3, 2), (2,), (2,)),
    ),
    "_batch_norm_with_update.default": (
        lambda op, x, w, b: op(x, w, b, torch.zeros(2).double(), torch.ones(2).double(), 0.1, 0.3),
        ((3, 2), (2,), (2,)),
    ),
    "_conj.default": (lambda op, x: op(*c64(x)), ((3, 2),)),
    "_conj_physical.default": (lambda op, x: op(*c64(x)), ((3, 2),)),
    "conj_physical.default": (lambda op, x: op(c64(x)[0].clone()), ((3, 2),)),
    "_convolution.default": (
        lambda op, x, w, b: op(
            x, w, b, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, False, False, True, True
        ),
        ((1, 2, 3, 3), (2, 2, 2, 2), (2,)),
    ),
    "_fft_c2c.default": (lambda op, x: op(*c64(x), [0], 0, True), ((4, 2),)),
    "_fft_c2r.default": (lambda op, x: op(*c64(x), [0], 2, 4), ((3, 2),)),
    "_fft_r2c.default": (lambda op, x: op(x, [0], 0, True), ((5,),)),
    "_linalg_slogdet.default": (lambda op, x: op(x), ((3, 3),)),
    "_linalg_solve_ex.default": (lambda op, a, b: op(regular(a), b), ((3, 3), (3, 2))),
    "_log_softmax.default": (lambda op, x: op(x, -1, False), ((2, 3),)),
    "_masked_softmax.default": (
        lambda op, x: op(x, I([[True, False, False]] * 2), 1),
        ((2, 3),),
    ),
    "_native_batch_norm_legit.default": (
        lambda op, x, w, b: op(
            x, w, b, torch.zeros(2).double(), torch.ones(2).double(), True, 0.1, 0.3
        ),
        ((3, 2), (2,), (2,)),
    ),
    "_native_batch_norm_legit.no_stats": (
        lambda op, x, w, b: op(x, w, b, True, 0.1, 0.3),
        ((3, 2), (2,), (2,)),
    ),
    "_native_batch_norm_legit_no_training.default": (
        lambda op, x, w, b: op(x, w, b, I([0.1, 0.2]).double(), I([1.0, 2.0]).double(), 0.1, 0.1),
        ((3, 2), (2,), (2,)),
    ),
    "_safe_softmax.default": (lambda op, x: op(x, -1), ((2, 3),)),
    "_scaled_dot_product_flash_attention_for_cpu.default": (
        lambda op, q, k, v: op(q, k, v),
        ((1, 1, 3, 2), (1, 1, 3, 2), (1, 1, 3, 2)),
    ),
    "_slow_conv2d_forward.default": (
        lambda op, x, w, b: op(x, w, [2, 2], b, [1, 1], [0, 0]),
        ((1, 1, 3, 3), (1, 1, 2, 2), (1,)),
    ),
    "_softmax.default": (lambda op, x: op(x, -1, False), ((2, 3),)),
    "_trilinear.default": (
        lambda op, x, w, y: op(x, w, y, [1, 3], [0], [1, 2], [2, 3]),
        ((2, 3), (2, 3, 2), (2, 2)),
    ),
    "_unsafe_masked_index_put_accumulate.default": (
        lambda op, x, v: op(x, I([True, True, False]), [I([0, 0, 1])], v),
        ((3,), (3,)),
    ),
    "_upsample_bicubic2d_aa.default": (lambda op, x: op(x, [2, 3], False), ((1, 1, 4, 4),)),
    "_upsample_bilinear2d_aa.default": (lambda op, x: op(x, [2, 3], False), ((1, 1, 4, 4),)),
    "_upsample_nearest_exact1d.default": (lambda op, x: op(x, [5]), ((1, 1, 3),)),
    "_upsample_nearest_exact2d.default": (lambda op, x: op(x, [5, 2]), ((1, 1, 3, 3),)),
    "_upsample_nearest_exact3d.default": (lambda op, x: op(x, [3, 2, 3]), ((1, 1, 2, 2, 2),)),
    "_weight_norm_interface.default": (lambda op, v, g: op(v, g, 0), ((2, 3), (2, 1))),
    "add.Scalar": (lambda op, x: op(x, 1.5), ((3,),)),
    "addbmm.default": (plain, ((2, 2), (2, 2, 3), (2, 3, 2))),
    "addcdiv.default": (lambda op, x, y, z: op(x, y, z, value=0.7), ((3,), (3,), (3,))),
    "addcmul.default": (lambda op, x, y, z: op(x, y, z, value=0.7), ((3,), (3,), (3,))),
    "_sparse_addmm.default": (
        lambda op, x, y: op(x, I([[1, 0, 2], [0, 3, 0]]).double().to_sparse(), y, beta=0.5),
        ((2, 2), (3, 2)),
    ),
    "addmm.default": (lambda op, x, y, z: op(x, y, z, beta=0.5), ((2, 2), (2, 3), (3, 2))),
    "addmv.default": (plain, ((2,), (2, 3), (3,))),
    "addr.default": (plain, ((2, 3), (2,), (3,))),
    "affine_grid_generator.default": (lambda op, x: op(x, [1, 1, 2, 3], False), ((1, 2, 3),)),
    "avg_pool2d.default": (lambda op, x: op(x, [2, 2], [1, 1], [1, 1]), ((1, 1, 3, 3),)),
    "avg_pool3d.default": (lambda op, x: op(x, [2, 2, 2]), ((1, 1, 2, 4, 2),)),
    "baddbmm.default": (plain, ((2, 2, 2), (2, 2, 3), (2, 3, 2))),
    "binary_cross_entropy_with_logits.default": (
        lambda op, x, t: op(x, t, None, I([2.0, 0.5, 1.0]).double(), 1),
        ((2, 3), (2, 3)),
    ),
    "bmm.default": (plain, ((2, 2, 3), (2, 3, 2))),
    "col2im.default": (
        lambda op, x: op(x, [3, 3], [2, 2], [1, 1], [0, 0], [1, 1]),
        ((1, 4, 4),),
    ),
    "conv_tbc.default": (lambda op, x, w, b: op(x, w, b, 1), ((3, 1, 2), (2, 2, 2), (2,))),
    "convolution.default": (
        lambda op, x, w, b: op(x, w, b, [2, 2], [1, 1], [1, 1], False, [0, 0], 1),
        ((1, 2, 3, 3), (2, 2, 2, 2), (2,)),
    ),
    "cumprod.default": (lambda op, x: op(x, 0), ((4,),)),
    "cumsum.default": (lambda op, x: op(x, 0), ((4,),)),
    "div.Scalar": (lambda op, x: op(x, 1.5), ((3,),)),
    "dot.default": (plain, ((3,), (3,))),
    "glu.default": (lambda op, x: op(x, -1), ((2, 4),)),
    "index_add.default": (lambda op, x, y: op(x, 0, I([0, 0]), y, alpha=2), ((3,), (2,))),
    "lerp.Scalar": (lambda op, x, y: op(x, y, 0.7), ((3,), (3,))),
    "linalg_cross.default": (plain, ((2, 3), (2, 3))),
    "linalg_inv_ex.default": (lambda op, x: op(x), ((3, 3),)),
    "linalg_matrix_exp.default": (plain, ((3, 3),)),
    "logcumsumexp.default": (lambda op, x: op(x, 0), ((4,),)),
    "logsumexp.default": (lambda op, x: op(x, [-1]), ((2, 3),)),
    "max_pool2d_with_indices_backward.default": (
        lambda op, g, x: op(g, x, [2, 2], [1, 1], [0, 0], [1, 1], False, I([[[0, 1], [4, 4]]])),
        ((1, 2, 2), (1, 3, 3)),
    ),
    "max_pool3d_with_indices_backward.default": (
        lambda op, g, x: op(g, x, [1, 2, 2], [1, 1, 1], [0] * 3, [1] * 3, False, I([[[[0, 4]]]])),
        ((1, 1, 1, 2), (1, 1, 2, 3)),
    ),
    "adaptive_max_pool2d_backward.default": (
        lambda op, g, x: op(g, x, I([[[0, 4]]])),
        ((1, 1, 2), (1, 2, 3)),
    ),
    "adaptive_max_pool3d_backward.default": (
        lambda op, g, x: op(g, x, I([[[[0, 4]]]])),
        ((1, 1, 1, 2), (1, 1, 2, 3)),
    ),
    "mean.default": (plain, ((3,),)),
    "mean.dim": (lambda op, x: op(x, [0]), ((3, 2),)),
    "mm.default": (plain, ((2, 3), (3, 2))),
    "mse_loss.default": (plain, ((3,), (3,))),
    "mul.Scalar": (lambda op, x: op(x, 1.5), ((3,),)),
    "mv.default": (plain, ((2, 3), (3,))),
    "mvlgamma.default": (lambda op, x: op(x.tanh() * 0.4 + 1.5, 2), ((4,),)),
    "native_batch_norm.default": (
        lambda op, x, w, b: op(x, w, b, None, None, True, 0.1, 0.3),
        ((3, 2), (2,), (2,)),
    ),
    "native_dropout_backward.default": (
        lambda op, x: op(x, I([True, False, True]), 2.0),
        ((3,),),
    ),
    "native_group_norm.default": (
        lambda op, x, w, b: op(x, w, b, 1, 4, 2, 2, 0.3),
        ((1, 4, 2), (4,), (4,)),
    ),
    "native_layer_norm.default": (
        lambda op, x, w, b: op(x, [3], w, b, 0.3),
        ((2, 3), (3,), (3,)),
    ),
    "nll_loss_forward.default": (
        lambda op, x: op(x, I([0, 2]), I([1.0, 2.0, 0.5]).double(), 1, -100),
        ((2, 3),),
    ),
    "nll_loss2d_forward.default": (
        lambda op, x: op(x, I([[[0, 1]]]), None, 1, -100),
        ((1, 2, 1, 2),),
    ),
    "prod.default": (plain, ((4,),)),
    "prod.dim_int": (lambda op, x: op(x, 0), ((3, 2),)),
    "rsub.Scalar": (lambda op, x: op(x, 1.5), ((3,),)),
    "scatter_add.default": (lambda op, x, y: op(x, 0, I([0, 0]), y), ((3,), (2,))),
    "slow_conv3d_forward.default": (
        lambda op, x, w, b: op(x, w, [2, 2, 2], b, [1, 1, 1], [0, 0, 0]),
        ((1, 1, 2, 3, 2), (1, 1, 2, 2, 2), (1,)),
    ),
    "slow_conv_dilated2d.default": (
        lambda op, x, w, b: op(x, w, [2, 2], b),
        ((1, 1, 3, 3), (1, 1, 2, 2), (1,)),
    ),
    "slow_conv_dilated3d.default": (
        lambda op, x, w, b: op(x, w, [2, 2, 2], b),
        ((1, 1, 2, 3, 2), (1, 1, 2, 2, 2), (1,)),
    ),
    "slow_conv_transpose2d.default": (
        lambda op, x, w, b: op(x, w, [2, 2], b),
        ((1, 1, 2, 2), (1, 1, 2, 2), (1,)),
    ),
    "slow_conv_transpose3d.default": (
        lambda op, x, w, b: op(x, w, [2, 2, 2], b),
        ((1, 1, 2, 1, 2), (1, 1, 2, 2, 2), (1,)),
    ),
    "soft_margin_loss.default": (lambda op, x: op(x, I([1.0, -1.0, 1.0]).double()), ((3,),)),
    "sub.Scalar": (lambda op, x: op(x, 1.5), ((3,),)),
    "sum.default": (plain, ((3,),)),
    "sum.dim_IntList": (lambda op, x: op(x, [0]), ((3, 2),)),
    "trace.default": (plain, ((3, 3),)),
    "upsample_bicubic2d.default": (lambda op, x: op(x, [5, 4], True), ((1, 1, 3, 3),)),
    "upsample_bilinear2d.default": (lambda op, x: op(x, [5, 4], False), ((1, 1, 3, 3),)),
    "upsample_linear1d.default": (lambda op, x: op(x, [5], False), ((1, 1, 3),)),
    "upsample_nearest1d.default": (lambda op, x: op(x, [5]), ((1, 1, 3),)),
    "upsample_nearest2d.default": (lambda op, x: op(x, [5, 2]), ((1, 1, 3, 3),)),
    "upsample_nearest3d.default": (lambda op, x: op(x, [3, 2, 3]), ((1, 1, 2, 2, 2),)),
    "upsample_trilinear3d.default": (lambda op, x: op(x, [3, 2, 3], False), ((1, 1, 2, 2, 2),)),
    "var.correction": (lambda op, x: op(x, [0], correction=1), ((3, 2),)),
    "var_mean.correction": (lambda op, x: op(x, [0], correction=0), ((3, 2),)),
    "vdot.default": (plain, ((3,), (3,))),
}


def squared(function: Call) -> Call:
    """The gradient of the sum of squares of a function, differentiable once more."""

    def run(*xs: torch.Tensor) -> object:
        y = sum((t**2).sum() for t in floats(function(*xs)))
        return torch.autograd.grad(y, xs, create_graph=True)

    return run


TWICE: Mapping[str, tuple[Call, tuple[Shape, ...]]] = {
    "_adaptive_avg_pool2d_backward.default": (
        lambda x: functional.adaptive_avg_pool2d(x, 2),
        ((1, 1, 3, 4),),
    ),
    "_adaptive_avg_pool3d_backward.default": (
        lambda x: functional.adaptive_avg_pool3d(x, 2),
        ((1, 1, 3, 4, 2),),
    ),
    "_log_softmax_backward_data.default": (lambda x: x.log_softmax(-1), ((2, 3),)),
    "_softmax_backward_data.default": (lambda x: x.softmax(-1), ((2, 3),)),
    "avg_pool2d_backward.default": (lambda x: functional.avg_pool2d(x, 2), ((1, 1, 2, 4),)),
    "avg_pool3d_backward.default": (lambda x: functional.avg_pool3d(x, 2), ((1, 1, 2, 4, 2),)),
    "batch_norm_backward.default": (
        lambda x, w: torch.ops.aten._batch_norm_with_update(
            x, w, None, torch.zeros(2).double(), torch.ones(2).double(), 0.1, 0.5
        )[0],
        ((3, 2), (2,)),
    ),
    "convolution_backward.default": (
        functional.conv2d,
        ((1, 2, 3, 3), (2, 2, 2, 2), (2,)),
    ),
    "gelu_backward.default": (functional.gelu, ((4,),)),
    "glu_backward.default": (functional.glu, ((4,),)),
    "log_sigmoid_backward.default": (functional.logsigmoid, ((4,),)),
    "mse_loss_backward.default": (functional.mse_loss, ((3,), (3,))),
    "native_batch_norm_backward.default": (
        lambda x, w: functional.batch_norm(x, None, None, w, training=True, eps=0.5),
        ((3, 2), (2,)),
    ),
    "native_layer_norm_backward.default": (
        lambda x, w: functional.layer_norm(x, (3,), w, eps=0.5),
        ((2, 3), (3,)),
    ),
    "nll_loss2d_backward.default": (
        lambda x: functional.nll_loss(x, I([[[0, 1]]])),
        ((1, 2, 1, 2),),
    ),
    "nll_loss_backward.default": (lambda x: functional.nll_loss(x, I([0, 2])), ((2, 3),)),
    "reflection_pad1d_backward.default": (
        lambda x: functional.pad(x, (1, 1), "reflect"),
        ((1, 1, 3),),
    ),
    "reflection_pad2d_backward.default": (
        lambda x: functional.pad(x, (1, 1, 1, 1), "reflect"),
        ((1, 1, 3, 2),),
    ),
    "reflection_pad3d_backward.default": (
        lambda x: functional.pad(x, (1, 1, 1, 1, 1, 1), "reflect"),
        ((1, 1, 2, 2, 2),),
    ),
    "replication_pad1d_backward.default": (
        lambda x: functional.pad(x, (1, 1), "replicate"),
        ((1, 1, 3),),
    ),
    "replication_pad2d_backward.default": (
        lambda x: functional.pad(x, (1, 1, 1, 1), "replicate"),
        ((1, 1, 3, 2),),
    ),
    "replication_pad3d_backward.default": (
        lambda x: functional.pad(x, (1, 1, 1, 1, 1, 1), "replicate"),
        ((1, 1, 2, 2, 2),),
    ),
    "sigmoid_backward.default": (torch.sigmoid, ((4,),)),
    "soft_margin_loss_backward.default": (
        lambda x: functional.soft_margin_loss(x, I([1.0, -1.0, 1.0]).double()),
        ((3,),),
    ),
    "tanh_backward.default": (torch.tanh, ((4,),)),
    "unfold_backward.default": (lambda x: x.unfold(0, 2, 1), ((4,),)),
    "upsample_bicubic2d_backward.default": (
        lambda x: functional.interpolate(x, size=(4, 3), mode="bicubic"),
        ((1, 1, 3, 2),),
    ),
    "upsample_bilinear2d_backward.default": (
        lambda x: functional.interpolate(x, size=(4, 3), mode="bilinear"),
        ((1, 1, 3, 2),),
    ),
    "upsample_linear1d_backward.default": (
        lambda x: functional.interpolate(x, size=4, mode="linear"),
        ((1, 1, 3),),
    ),
    "upsample_nearest1d_backward.default": (
        lambda x: functional.interpolate(x, size=4),
        ((1, 1, 3),),
    ),
    "upsample_nearest2d_backward.default": (
        lambda x: functional.interpolate(x, size=(4, 3)),
        ((1, 1, 3, 2),),
    ),
    "upsample_nearest3d_backward.default": (
        lambda x: functional.interpolate(x, size=(4, 3, 2)),
        ((1, 1, 3, 2, 1),),
    ),
    "_upsample_bicubic2d_aa_backward.default": (
        lambda x: functional.interpolate(x, size=(2, 2), mode="bicubic", antialias=True),
        ((1, 1, 3, 3),),
    ),
    "_upsample_bilinear2d_aa_backward.default": (
        lambda x: functional.interpolate(x, size=(2, 2), mode="bilinear", antialias=True),
        ((1, 1, 3, 3),),
    ),
    "_upsample_nearest_exact1d_backward.default": (
        lambda x: functional.interpolate(x, size=(4,), mode="nearest-exact"),
        ((1, 1, 3),),
    ),
    "_upsample_nearest_exact2d_backward.default": (
        lambda x: functional.interpolate(x, size=(4, 3), mode="nearest-exact"),
        ((1, 1, 3, 2),),
    ),
    "_upsample_nearest_exact3d_backward.default": (
        lambda x: functional.interpolate(x, size=(4, 3, 2), mode="nearest-exact"),
        ((1, 1, 3, 2, 1),),
    ),
    "upsample_trilinear3d_backward.default": (
        lambda x: functional.interpolate(x, size=(4, 3, 2), mode="trilinear"),
        ((1, 1, 3, 2, 1),),
    ),
}

# Run in float32 only, below.
SINGLE = {"aten::mkldnn_convolution.default", "aten::mkldnn_rnn_layer.default"}

# No kernel for the CPU: listed because they are the same functions as those tested.
OTHER_DEVICES = {
    full(name)
    for name in words("""
    _conv_depthwise2d.default _fused_rms_norm.default _thnn_fused_gru_cell.default
    _thnn_fused_lstm_cell.default
    conv_depthwise3d.default cudnn_affine_grid_generator.default cudnn_batch_norm.default
    cudnn_convolution.default cudnn_convolution_transpose.default miopen_batch_norm.default
    miopen_convolution.default miopen_convolution_transpose.default
    miopen_depthwise_convolution.default
    """)
}


def plain_form(name: str) -> str:
    """The key under which the in-place form of an operation is called."""
    operator, _, kind = name.removeprefix("aten::").partition(".")
    return f"{operator.removesuffix('_')}.{kind}"


def tensor_arguments(name: str) -> int | None:
    """How many tensors an overload takes; None if it needs anything else."""
    count = 0
    for argument in overload(name)._schema.arguments:
        if str(argument.type) == "Tensor":
            count += 1
        elif not argument.has_default_value():
            return None
    return count


def is_list_form(name: str) -> bool:
    return name.startswith("aten::_foreach_")


ELEMENTWISE = [
    n
    for n in installed(smooth.ANALYTIC)
    if not is_list_form(n)
    and plain_form(n) not in ANALYTIC_CALLS
    and tensor_arguments(n) is not None
    and n.removeprefix("aten::") not in TWICE
    and n not in OTHER_DEVICES | SINGLE
]
BY_CALL = [n for n in installed(smooth.ANALYTIC) if plain_form(n) in ANALYTIC_CALLS]
LISTS = [n for n in installed(smooth.ANALYTIC) if is_list_form(n)]


def test_every_analytic_operation_is_probed():
    probed = {*ELEMENTWISE, *BY_CALL, *LISTS, *(full(n) for n in TWICE)}
    assert set(installed(smooth.ANALYTIC)) - probed == OTHER_DEVICES | SINGLE


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    op = overload(name)
    count = tensor_arguments(name)
    assert count is not None

    def run(*xs: torch.Tensor) -> object:
        return op(*xs)

    values = {1: VALUES + LARGE, 2: VALUES[:7]}.get(count, VALUES[:5])
    points = [
        [torch.tensor([v], dtype=torch.float64) for v in point]
        for point in itertools.product(values, repeat=count)
    ]
    points = [p for p in points if finite(run, p)]
    assert len(points) >= 3
    arrives(name, run, points[0])
    found = {str([float(x) for x in p]): complaint(run, p) for p in points}
    assert not {k: v for k, v in found.items() if v}


@pytest.mark.parametrize("name", BY_CALL)
def test_by_call(name):
    op = overload(name)
    call, shapes = ANALYTIC_CALLS[plain_form(name)]

    def run(*xs: torch.Tensor) -> object:
        return call(op, *xs)

    points = [p for p in patterns(shapes) if finite(run, p)]
    assert points
    arrives(name, run, points[0])
    found = [complaint(run, p) for p in points]
    assert not any(found), found


def list_call(name: str) -> tuple[Call, tuple[Shape, ...]]:
    """Calls a list operation with one list for each list argument; all tensors are variables."""
    arguments = [a for a in overload(name)._schema.arguments if not a.has_default_value()]
    kinds = [str(a.type) for a in arguments]
    lists = kinds.count("List[Tensor]")

    def run(*xs: torch.Tensor) -> object:
        rest = list(xs)
        values: list[object] = []
        for kind, argument in zip(kinds, arguments, strict=True):
            if kind == "List[Tensor]":
                values.append([rest.pop(0), rest.pop(0)])
            elif argument.name == "scalars" and kind == "Tensor":
                values.append(torch.tensor([0.7, -1.5], dtype=torch.float64))
            elif kind == "Tensor":
                values.append(torch.tensor(1.5, dtype=torch.float64))
            else:
                values.append([0.7, -1.5] if kind.startswith("List") else 0.7)
        result = overload(name)(*values)
        return values[0] if result is None else result

    return run, ((2,), (3,)) * lists


@pytest.mark.parametrize("name", LISTS)
def test_lists(name):
    run, shapes = list_call(name)
    points = [p for p in patterns(shapes) if finite(run, p)]
    assert points
    arrives(name, run, points[0])
    found = [complaint(run, p) for p in points]
    assert not any(found), found


@pytest.mark.parametrize("name", [n for n in TWICE if exists(n)])
def test_second_derivatives(name):
    function, shapes = TWICE[name]
    run = squared(function)
    points = list(patterns(shapes))
    arrives(full(name), run, points[0])
    found = [complaint(run, p) for p in points]
    assert not any(found), found


def test_fused_lstm():
    lstm = torch.nn.LSTM(2, 3)
    wide = torch.nn.LSTM(2, 3).double()
    wide.load_state_dict(lstm.state_dict())
    for value in (0.0, 0.3):
        x = torch.full((2, 1, 2), value, requires_grad=True)
        with Arrivals() as mode:
            out = lstm(x)[0]
        if "aten::mkldnn_rnn_layer.default" not in mode.names:
            pytest.skip("this torch has no oneDNN")
        z = x.detach().double().requires_grad_()
        ours = torch.autograd.grad(out.square().sum(), [x, *lstm.parameters()])
        theirs = torch.autograd.grad(wide(z)[0].square().sum(), [z, *wide.parameters()])
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a.double(), b, atol=1e-5)


def test_fused_lstm_has_no_other_mode():
    w = [torch.randn(s) for s in ((12, 2), (12, 3), (12,), (12,))]
    state = torch.zeros(1, 3)
    for mode in (0, 1, 3):
        with pytest.raises(RuntimeError):
            torch.ops.aten.mkldnn_rnn_layer(
                torch.randn(2, 1, 2), *w, state, state, False, [], mode, 3, 1, True, False, False,
                False,
            )  # fmt: skip


def test_fused_convolution():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")

    def run(x, w, b):
        return torch.ops.aten.mkldnn_convolution(x, w, b, [1, 1], [1, 1], [1, 1], 1)

    point = [torch.randn(1, 2, 3, 3), torch.randn(2, 2, 2, 2), torch.randn(2)]
    assert complaint(run, point, single=True) is None
    assert complaint(run, [torch.zeros_like(x) for x in point], single=True) is None


def test_attention_on_the_cpu_refuses_dropout():
    q = torch.randn(1, 1, 2, 4)
    with pytest.raises(RuntimeError, match="dropout"):
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, q, q, 0.5)


def test_poles_are_visible():
    for name, value in (("log1p", -1.0), ("erfinv", 1.0), ("lgamma", -1.0), ("digamma", 0.0)):
        assert not torch.isfinite(getattr(torch, name)(torch.tensor(value)))
    assert not torch.isfinite(torch.linalg.inv_ex(torch.ones(2, 2)).inverse).any()
    zero = torch.zeros(2, 1)
    assert not torch.isfinite(torch.linalg.solve_ex(torch.ones(2, 2), zero).result).any()
    assert not torch.isfinite(
        torch.native_layer_norm(torch.ones(1, 3), (3,), None, None, 0.0)[0]
    ).any()
    assert not torch.isfinite(torch._weight_norm_interface(torch.zeros(1, 3), zero[:1])[0]).any()


# --- structural operations ------------------------------------------------------------------------

STRUCTURAL_CALLS: Mapping[str, tuple[Call, tuple[Shape, ...]]] = {
    "_lazy_clone.default": (plain, ((3,),)),
    "_foreach_clone.default": (lambda op, x, y: op([x, y]), ((3,), (2,))),
    "_foreach_zero.default": (lambda op, x: op([x]) or x, ((3,),)),
    "_pack_padded_sequence.default": (lambda op, x: op(x, I([2, 1]), True), ((2, 2, 2),)),
    "_reshape_alias.default": (lambda op, x: op(x, [3, 2], [2, 1]), ((2, 3),)),
    "_reshape_copy.default": (lambda op, x: op(x, [6]), ((2, 3),)),
    "_to_copy.default": (lambda op, x: op(x, dtype=torch.float64), ((3,),)),
    "_unsafe_index.Tensor": (lambda op, x: op(x, [I([0, 0, 1])]), ((2, 2),)),
    "_unsafe_masked_index.default": (
        lambda op, x: op(x, I([True, False, True]), [I([0, 1, 0])], 0.5),
        ((3,),),
    ),
    "_unsafe_view.default": (lambda op, x: op(x, [6]), ((2, 3),)),
    "block_diag.default": (lambda op, x, y: op([x, y]), ((2, 2), (1, 2))),
    "cat.default": (lambda op, x, y: op([x, y], 0), ((2, 2), (1, 2))),
    "channel_shuffle.default": (lambda op, x: op(x, 2), ((1, 4, 1, 2),)),
    "constant_pad_nd.default": (lambda op, x: op(x, [1, -1], 0.5), ((3,),)),
    "diag_embed.default": (plain, ((3,),)),
    "diagonal.default": (plain, ((2, 3),)),
    "diagonal_backward.default": (lambda op, x: op(x, [2, 3], 0, 0, 1), ((2,),)),
    "diagonal_copy.default": (plain, ((2, 3),)),
    "diagonal_scatter.default": (plain, ((2, 3), (2,))),
    "expand.default": (lambda op, x: op(x, [2, 3]), ((3,),)),
    "expand_copy.default": (lambda op, x: op(x, [2, 3]), ((3,),)),
    "fill.Scalar": (lambda op, x: op(x, 0.5), ((3,),)),
    "fill.Tensor": (plain, ((3,), ())),
    "flip.default": (lambda op, x: op(x, [0]), ((3,),)),
    "gather.default": (lambda op, x: op(x, 0, I([0, 0])), ((3,),)),
    "im2col.default": (lambda op, x: op(x, [2, 2], [1, 1], [1, 1], [1, 1]), ((1, 1, 2, 2),)),
    "index.Tensor": (lambda op, x: op(x, [None, I([0, 0])]), ((2, 2),)),
    "index_fill.int_Scalar": (lambda op, x: op(x, 0, I([0, 0]), 0.5), ((3,),)),
    "index_fill.int_Tensor": (lambda op, x, v: op(x, 0, I([0, 0]), v), ((3,), ())),
    "index_select.default": (lambda op, x: op(x, 0, I([0, 0])), ((3, 2),)),
    "lu_unpack.default": (
        lambda op, x: op(x, I([2, 2], dtype=torch.int32), True, False)[1:],
        ((2, 2),),
    ),
    "masked_fill.Scalar": (lambda op, x: op(x, I([True, False, True]), 0.5), ((3,),)),
    "masked_fill.Tensor": (lambda op, x, v: op(x, I([True, False, True]), v), ((3,), ())),
    "masked_scatter.default": (
        lambda op, x, s: op(x, I([True, False, True]), s),
        ((3,), (3,)),
    ),
    "masked_select.default": (lambda op, x: op(x, I([True, False, True])), ((3,),)),
    "narrow_copy.default": (lambda op, x: op(x, 0, 1, 2), ((3,),)),
    "permute.default": (lambda op, x: op(x, [1, 0]), ((2, 3),)),
    "permute_copy.default": (lambda op, x: op(x, [1, 0]), ((2, 3),)),
    "pixel_shuffle.default": (lambda op, x: op(x, 2), ((1, 4, 1, 2),)),
    "pixel_unshuffle.default": (lambda op, x: op(x, 2), ((1, 1, 2, 2),)),
    "reflection_pad1d.default": (lambda op, x: op(x, [1, 1]), ((1, 3),)),
    "reflection_pad2d.default": (lambda op, x: op(x, [1, 1, 0, 1]), ((1, 3, 2),)),
    "reflection_pad3d.default": (lambda op, x: op(x, [1, 0, 0, 1, 1, 1]), ((1, 2, 2, 2),)),
    "repeat.default": (lambda op, x: op(x, [2, 2]), ((2,),)),
    "replication_pad1d.default": (lambda op, x: op(x, [1, 2]), ((1, 3),)),
    "replication_pad2d.default": (lambda op, x: op(x, [1, 1, 0, 1]), ((1, 3, 2),)),
    "replication_pad3d.default": (lambda op, x: op(x, [1, 0, 0, 1, 1, 1]), ((1, 2, 2, 2),)),
    "roll.default": (lambda op, x: op(x, [1], [0]), ((3,),)),
    "rot90.default": (plain, ((2, 3),)),
    "scatter.value": (lambda op, x: op(x, 0, I([0, 0]), 0.5), ((3,),)),
    "select.int": (lambda op, x: op(x, 0, 1), ((3, 2),)),
    "select_backward.default": (lambda op, x: op(x, [3, 2], 0, 1), ((2,),)),
    "select_copy.int": (lambda op, x: op(x, 0, 1), ((3, 2),)),
    "select_scatter.default": (lambda op, x, s: op(x, s, 0, 1), ((3, 2), (2,))),
    "slice.Tensor": (lambda op, x: op(x, 0, 0, 3, 2), ((3,),)),
    "slice_backward.default": (lambda op, x: op(x, [3], 0, 0, 3, 2), ((2,),)),
    "slice_copy.Tensor": (lambda op, x: op(x, 0, 0, 3, 2), ((3,),)),
    "slice_scatter.default": (lambda op, x, s: op(x, s, 0, 0, 3, 2), ((3,), (2,))),
    "split.Tensor": (lambda op, x: op(x, 2), ((3,),)),
    "split_copy.Tensor": (lambda op, x: op(x, 2), ((3,),)),
    "split_with_sizes.default": (lambda op, x: op(x, [2, 1]), ((3,),)),
    "split_with_sizes_copy.default": (lambda op, x: op(x, [2, 1]), ((3,),)),
    "squeeze.default": (plain, ((1, 3),)),
    "squeeze.dim": (lambda op, x: op(x, 0), ((1, 3),)),
    "squeeze.dims": (lambda op, x: op(x, [0]), ((1, 3),)),
    "squeeze_copy.default": (plain, ((1, 3),)),
    "squeeze_copy.dim": (lambda op, x: op(x, 0), ((1, 3),)),
    "squeeze_copy.dims": (lambda op, x: op(x, [0]), ((1, 3),)),
    "stack.default": (lambda op, x, y: op([x, y]), ((3,), (3,))),
    "t.default": (plain, ((2, 3),)),
    "t_copy.default": (plain, ((2, 3),)),
    "take.default": (lambda op, x: op(x, I([0, 0, 3])), ((2, 2),)),
    "transpose.int": (lambda op, x: op(x, 0, 1), ((2, 3),)),
    "transpose.default": (lambda op, x: op(x, 0, 1), ((2, 3),)),
    "transpose_copy.int": (lambda op, x: op(x, 0, 1), ((2, 3),)),
    "tril.default": (plain, ((2, 3),)),
    "triu.default": (plain, ((2, 3),)),
    "unbind.int": (plain, ((2, 3),)),
    "unbind_copy.int": (plain, ((2, 3),)),
    "unfold.default": (lambda op, x: op(x, 0, 2, 1), ((3,),)),
    "unfold_copy.default": (lambda op, x: op(x, 0, 2, 1), ((3,),)),
    "unsafe_split.Tensor": (lambda op, x: op(x, 2), ((3,),)),
    "unsafe_split_with_sizes.default": (lambda op, x: op(x, [2, 1]), ((3,),)),
    "unsqueeze.default": (lambda op, x: op(x, 0), ((3,),)),
    "unsqueeze_copy.default": (lambda op, x: op(x, 0), ((3,),)),
    "view.default": (lambda op, x: op(x, [6]), ((2, 3),)),
    "view_as_complex.default": (plain, ((3, 2),)),
    "view_as_real.default": (lambda op, x: op(*c64(x)), ((3, 2),)),
    "view_as_real_copy.default": (lambda op, x: op(*c64(x)), ((3, 2),)),
    "view_copy.default": (lambda op, x: op(x, [6]), ((2, 3),)),
    "where.self": (lambda op, x, y: op(I([True, False, True]), x, y), ((3,), (3,))),
}
# Stops gradients on purpose; or needs an accelerator.
NOT_LINEAR_TO_AUTOGRAD = {
    full(n) for n in ("detach.default", "detach_.default", "detach_copy.default")
}
NEEDS_ACCELERATOR = {"aten::_pin_memory.default"}


@pytest.mark.parametrize(
    "name", sorted(set(installed(smooth.STRUCTURAL)) - NOT_LINEAR_TO_AUTOGRAD - NEEDS_ACCELERATOR)
)
def test_structural(name):
    op = overload(name)
    key = plain_form(name)
    call, shapes = STRUCTURAL_CALLS.get(key, (plain, ((2, 3),) * (tensor_arguments(name) or 0)))

    def run(*xs: torch.Tensor) -> object:
        return call(op, *xs)

    points = [p for p in patterns(shapes) if finite(run, p)]
    arrives(name, run, points[0])
    found = [complaint(run, p) for p in points]
    assert not any(found), found

    def flat(*xs: torch.Tensor) -> torch.Tensor:
        parts = [t.reshape(-1) for t in floats(run(*[x.clone() for x in xs]))]
        return torch.cat(parts)

    matrix = torch.cat(
        [
            j.reshape(j.shape[0], -1)
            for j in torch.autograd.functional.jacobian(flat, tuple(points[0]))
        ],
        dim=1,
    )
    assert bool(((matrix == 0) | (matrix == 1)).all())
    assert bool((matrix.sum(1) <= 1).all())


# --- constant and random operations ---------------------------------------------------------------


def test_constants_take_no_values():
    shaped = {"_like", "new_"}
    for name in installed(smooth.CONSTANT):
        operator = name.removeprefix("aten::")
        if any(part in operator for part in shaped):
            continue
        tensors = [a.name for a in overload(name)._schema.arguments if "Tensor" in str(a.type)]
        expected = {
            "aten::_linalg_check_errors.default": ["info"],
            "aten::is_same_size.default": ["self", "other"],
            "aten::repeat_interleave.Tensor": ["repeats"],
        }
        assert tensors == expected.get(name, []), name


def test_shaped_constants_have_no_gradient():
    x = torch.randn(2, 3, requires_grad=True)
    calls = {
        "empty_like.default": (x,),
        "full_like.default": (x, 2.0),
        "new_empty.default": (x, [2]),
        "new_empty_strided.default": (x, [2], [1]),
        "new_full.default": (x, [2], 2.0),
        "new_ones.default": (x, [2]),
        "new_zeros.default": (x, [2]),
        "ones_like.default": (x,),
        "zeros_like.default": (x,),
    }
    assert {full(n) for n in calls} == {n for n in smooth.CONSTANT if "_like" in n or "::new_" in n}
    for name, args in calls.items():
        assert not overload(name)(*args).requires_grad


RANDOM_CALLS: Mapping[str, Call] = {
    "bernoulli.Tensor": lambda op, x: op(x, x.sigmoid()),
    "bernoulli.default": lambda op, x: op(x.sigmoid()),
    "bernoulli.p": lambda op, x: op(x, 0.5),
    "bernoulli_.Tensor": lambda op, x: op(x, x.detach().sigmoid()),
    "bernoulli_.float": lambda op, x: op(x, 0.5),
    "binomial.default": lambda op, x: op(torch.full_like(x, 9.0).detach(), x.detach().sigmoid()),
    "geometric.default": lambda op, x: op(x, 0.5),
    "geometric_.default": lambda op, x: op(x, 0.5),
    "multinomial.default": lambda op, x: op(x.sigmoid(), 3),
    "normal.Tensor_Tensor": lambda op, x: op(x, x.exp()),
    "normal.float_Tensor": lambda op, x: op(0.0, x.exp()),
    "normal.float_float": lambda op, _: op(0.0, 1.0, [9]),
    "poisson.default": lambda op, x: op(x.exp() + 3),
    "randint.default": lambda op, _: op(99, [9]),
    "randint.generator": lambda op, _: op(99, [9], generator=None),
    "randint.low": lambda op, _: op(1, 99, [9]),
    "randint.low_generator": lambda op, _: op(1, 99, [9], generator=None),
    "randint_like.Tensor": lambda op, x: op(x, I(99)),
    "randint_like.Tensor_generator": lambda op, x: op(x, I(99), generator=None),
    "randint_like.default": lambda op, x: op(x, 99),
    "randint_like.generator": lambda op, x: op(x, 99, generator=None),
    "randint_like.low_dtype": lambda op, x: op(x, 1, 99),
    "randint_like.low_generator_dtype": lambda op, x: op(x, 1, 99, generator=None),
    "rand.default": lambda op, _: op([9]),
    "rand.generator": lambda op, _: op([9], generator=None),
    "rand_like.generator": lambda op, x: op(x, generator=None),
    "randn.default": lambda op, _: op([9]),
    "randn.generator": lambda op, _: op([9], generator=None),
    "randn_like.generator": lambda op, x: op(x, generator=None),
    "random.from": lambda op, x: op(x, 0, 99),
    "random.to": lambda op, x: op(x, 99),
    "random_.from": lambda op, x: op(x, 0, 99),
    "random_.to": lambda op, x: op(x, 99),
    "randperm.default": lambda op, _: op(9),
    "randperm.generator": lambda op, _: op(9, generator=None),
}


@pytest.mark.parametrize("name", sorted(set(installed(smooth.RANDOM)) - smooth.DROPOUT))
def test_random(name):
    op = overload(name)
    call = RANDOM_CALLS.get(name.removeprefix("aten::"), plain)
    leaf = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        result = call(op, leaf.clone())
        assert isinstance(result, torch.Tensor)
        drawn.append(result)
        if result.requires_grad:
            try:
                (g,) = torch.autograd.grad(result.sum(), leaf, allow_unused=True)
            except RuntimeError as error:
                assert "not implemented" in str(error)  # noqa: PT017 - both outcomes are right
            else:
                assert g is None or not g.any()
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_dropout_is_linear_for_a_drawn_mask():
    x = torch.ones(64, dtype=torch.float64, requires_grad=True)
    y, mask = torch.native_dropout(x, 0.5, train=True)
    (g,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(g, 2.0 * mask)
    assert torch.equal(y, x * g)


# --- discrete operations --------------------------------------------------------------------------

DISCRETE_CALLS: Mapping[str, Call] = {
    "bucketize.Scalar": lambda op, x: op(0.2, x.sort().values),
    "bucketize.Tensor": lambda op, x: op(x, x.detach().sort().values + 0.01),
    "count_nonzero.dim_IntList": lambda op, x: op(x, [0]),
    "isin.Scalar_Tensor": lambda op, x: op(0.2, x),
    "nonzero_static.default": lambda op, x: op(x, size=2),
    "remainder.Scalar_Tensor": lambda op, x: op(2.5, x),
    "round.decimals": lambda op, x: op(x, decimals=1),
    "searchsorted.Scalar": lambda op, x: op(x.sort().values, 0.2),
    "searchsorted.Tensor": lambda op, x: op(x.detach().sort().values + 0.01, x),
}
INTEGERS_ONLY = ("aten::bitwise_", "aten::gcd", "aten::lcm")
TRUTH_ONLY = {"aten::_is_all_true.default", "aten::_is_any_true.default"}


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in installed(smooth.DISCRETE)
        if not n.startswith(INTEGERS_ONLY) and n not in TRUTH_ONLY
    ],
)
def test_discrete(name):
    op = overload(name)
    key = plain_form(name)
    names = [str(a.type) for a in op._schema.arguments if not a.has_default_value()]
    x = torch.tensor([0.3, -0.7, 1.6, 2.2], dtype=torch.float64)

    def result(t: torch.Tensor) -> list[torch.Tensor]:
        if key in DISCRETE_CALLS:
            out = DISCRETE_CALLS[key](op, t)
        elif is_list_form(name):
            values = [t]
            out = op(values) or values
        else:
            fill: Mapping[str, object] = {"Tensor": t * 0 + 1.1, "number": 1.1, "int": 0}
            rest = [fill.get(n, [0]) for n in names[1:]]
            out = op(t, *rest)
        outs = out if isinstance(out, (list, tuple)) else [out]
        return [torch.as_tensor(o) for o in outs]

    step = 1e-6
    for here, there in zip(result(x.clone()), result(x + step), strict=True):
        if name in smooth.SAWTOOTH:
            continue
        assert torch.equal(here, there)
    if name in smooth.SAWTOOTH and key != "remainder.Scalar_Tensor":
        here, there = result(x.clone())[0], result(x + step)[0]
        assert torch.allclose((there - here) / step, torch.ones_like(here), atol=1e-6)


# --- singular operations --------------------------------------------------------------------------

SINGULAR_CALLS: Mapping[str, tuple[Call, Sequence[object], Sequence[object]]] = {
    # call, special values, regular values
    "_cdist_forward.default": (
        lambda op, x, y: op(x, y, 2.0, None),
        ([[1.0, 2.0]], [[1.0, 2.0]]),
        ([[1.0, 2.0]], [[0.0, 0.0]]),
    ),
    "_euclidean_dist.default": (
        plain,
        ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [0.0, 0.0]]),
        ([[1.0, 2.0]], [[0.0, 0.0]]),
    ),
    "_linalg_det.default": (plain, ([[1.0, 0.0], [0.0, 0.0]],), ([[1.0, 2.0], [0.0, 3.0]],)),
    "_linalg_svd.default": (
        lambda op, x: op(x)[1],
        ([[1.0, 0.0], [0.0, 1.0]],),
        ([[1.0, 0.0], [0.0, 2.0]],),
    ),
    "_pdist_forward.default": (
        plain,
        ([[1.0, 2.0], [1.0, 2.0]],),
        ([[1.0, 2.0], [0.0, 0.0]],),
    ),
    "acos.default": (plain, ([1.0],), ([0.0],)),
    "acosh.default": (plain, ([1.0],), ([2.0],)),
    "asin.default": (plain, ([-1.0],), ([0.0],)),
    "atan2.default": (plain, ([0.0], [0.0]), ([0.0], [1.0])),
    "atanh.default": (plain, ([1.0],), ([0.0],)),
    "dist.default": (plain, ([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 2.0])),
    "hypot.default": (plain, ([0.0], [0.0]), ([0.0], [1.0])),
    "igamma.default": (
        lambda op, x: op(torch.full_like(x, 0.5).detach(), x),
        ([0.0],),
        ([1.0],),
    ),
    "igammac.default": (
        lambda op, x: op(torch.full_like(x, 0.5).detach(), x),
        ([0.0],),
        ([1.0],),
    ),
    "linalg_pinv.atol_rtol_tensor": (
        plain,
        ([[0.0], [0.0]],),
        ([[1.0], [2.0]],),
    ),
    "linalg_vector_norm.default": (plain, ([0.0, 0.0],), ([0.0, 1.0],)),
    "log.default": (plain, ([0.0],), ([1.0],)),
    "log10.default": (plain, ([0.0],), ([1.0],)),
    "log2.default": (plain, ([0.0],), ([1.0],)),
    "nan_to_num.default": (plain, ([float("inf")],), ([0.0],)),
    "nansum.default": (plain, ([float("inf"), 1.0],), ([0.0, 1.0],)),
    "norm.Scalar": (plain, ([0.0, 0.0],), ([0.0, 1.0],)),
    "norm.ScalarOpt_dim": (lambda op, x: op(x, 2, [0]), ([0.0, 0.0],), ([0.0, 1.0],)),
    "norm.ScalarOpt_dim_dtype": (
        lambda op, x: op(x, 2, [0], False, dtype=torch.float64),
        ([0.0, 0.0],),
        ([0.0, 1.0],),
    ),
    "norm.ScalarOpt_dtype": (
        lambda op, x: op(x, 2, dtype=torch.float64),
        ([0.0, 0.0],),
        ([0.0, 1.0],),
    ),
    "polygamma.default": (lambda op, x: op(1, x), ([-1.0],), ([1.0],)),
    "polygamma_.default": (lambda op, x: op(x, 1), ([-1.0],), ([1.0],)),
    "pow.Scalar": (lambda op, x: op(0.0, x) + x * 0, ([0.0],), ([1.0],)),
    "pow.Tensor": (plain, ([0.0], [0.5]), ([2.0], [0.5])),
    "pow.Tensor_Scalar": (lambda op, x: op(x, 0.5), ([0.0],), ([1.0],)),
    "pow.Tensor_Tensor": (plain, ([0.0], [0.5]), ([2.0], [0.5])),
    "reciprocal.default": (plain, ([0.0],), ([1.0],)),
    "rsqrt.default": (plain, ([0.0],), ([1.0],)),
    "special_entr.default": (plain, ([0.0],), ([1.0],)),
    "special_xlog1py.default": (plain, ([0.0], [-1.0]), ([0.0], [0.0])),
    "special_xlog1py.other_scalar": (lambda op, x: op(x, -1.0), ([0.0],), ([])),
    "special_xlog1py.self_scalar": (lambda op, x: op(2.0, x), ([-1.0],), ([0.0],)),
    "sqrt.default": (plain, ([0.0],), ([1.0],)),
    "std.correction": (lambda op, x: op(x, [0]), ([1.0, 1.0],), ([1.0, 2.0],)),
    "std_mean.correction": (lambda op, x: op(x, [0]), ([1.0, 1.0],), ([1.0, 2.0],)),
    "xlogy.Scalar_Other": (lambda op, x: op(x, 0.0), ([0.0],), ([])),
    "xlogy.Scalar_Self": (lambda op, x: op(2.0, x), ([0.0],), ([1.0],)),
    "xlogy.Tensor": (plain, ([0.0], [0.0]), ([0.0], [1.0])),
}


def singular_call(name: str) -> tuple[Call, Sequence[object], Sequence[object]]:
    op = overload(name)
    if not is_list_form(name):
        key = plain_form(name)
        call, special, regular_values = SINGULAR_CALLS[
            {"pow_.Scalar": "pow.Tensor_Scalar", "polygamma_.default": "polygamma_.default"}.get(
                name.removeprefix("aten::"), key
            )
        ]
        return (lambda *xs: call(op, *xs)), special, regular_values
    plain_name = plain_form(name).removeprefix("_foreach_")
    extra: Sequence[object] = {
        "pow.Scalar": (0.5,),
        "pow.ScalarList": ([0.5],),
        "pow.List": ([torch.tensor([0.5], dtype=torch.float64)],),
    }.get(plain_name, ())

    def run(x: torch.Tensor) -> object:
        values = [x]
        if plain_name == "pow.ScalarAndTensor":
            return [t + x * 0 for t in op(0.0, values)]
        return op(values, *extra) or values

    end = 1.0 if plain_name[:2] == "ac" or plain_name[:2] == "as" else 0.0
    return run, ([end],), ([0.5],)


@pytest.mark.parametrize("name", installed(frozenset(smooth.SINGULAR)))
def test_singular(name):
    run, special, regular_values = singular_call(name)
    point = [torch.tensor(v, dtype=torch.float64) for v in special]
    assert complaint(run, point) is not None, "nothing special there"
    if regular_values:
        point = [torch.tensor(v, dtype=torch.float64) for v in regular_values]
        assert complaint(run, point) is None


def test_norms_of_other_orders():
    x = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    for order in (1.0, 1.5, float("inf")):
        assert complaint(lambda x, p=order: torch.linalg.vector_norm(x, p), [x]) is not None


# --- operations that depend on their arguments ----------------------------------------------------

x3 = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
x22 = torch.tensor([[0.3, -0.7], [1.1, 0.4]], dtype=torch.float64)
positive = torch.tensor([0.3, 0.7], dtype=torch.float64)


def in_list(op: Call, x: torch.Tensor, exponent: object) -> object:
    values = [x]
    return op(values, exponent) or values


# name: call, variables, class; one entry where the condition holds, one where it does not.
Conditional = tuple[Call, Sequence[torch.Tensor], OpClass | None]
CONDITIONAL_CALLS: Sequence[tuple[str, Conditional]] = [
    ("embedding.default", (lambda op, w: op(w, I([0, 1, 1])), [x22], OpClass.ANALYTIC)),
    ("embedding.default", (lambda op, w: op(w, I([1, 1]), 0), [x22], OpClass.ANALYTIC)),
    ("embedding.default", (lambda op, w: op(w, I([0, 1]), 0), [x22], None)),
    ("embedding.default", (lambda op, w: op(w, I([1, 1]), -1, True), [x22], None)),
    (
        "_embedding_bag.default",
        (lambda op, w: op(w, I([0, 1, 1]), I([0, 2]), False, 1), [x22], OpClass.ANALYTIC),
    ),
    (
        "_embedding_bag.default",
        (lambda op, w: op(w, I([0, 1]), I([0]), False, 2), [x22 * 0], None),
    ),
    (
        "_embedding_bag.default",
        (lambda op, w: op(w, I([1, 1]), I([0]), True, 0), [x22], None),
    ),
    *(
        (name, entry)
        for name in ("index_put.default", "index_put_.default", "_unsafe_index_put.default")
        for entry in (
            (lambda op, x, v: op(x, [I([2, 0])], v), [x3, positive], OpClass.ANALYTIC),
            (lambda op, x, v: op(x, [I([0, 0])], v, True), [x3, positive], OpClass.ANALYTIC),
            (lambda op, x, v: op(x, [I([0, -3])], v), [x3, positive], None),
        )
    ),
    (
        "index_put.default",
        (lambda op, x, v: op(x, [None, I([1, 0])], v), [x22, x22], OpClass.ANALYTIC),
    ),
    (
        "index_put.default",
        (lambda op, x, v: op(x, [I([True, False, True])], v), [x3, positive], OpClass.ANALYTIC),
    ),
    (
        "_index_put_impl_.default",
        (lambda op, x, v: op(x, [I([2, 0])], v), [x3, positive], OpClass.ANALYTIC),
    ),
    ("_index_put_impl_.default", (lambda op, x, v: op(x, [I([0, 0])], v), [x3, positive], None)),
    *(
        (name, entry)
        for name in ("scatter.src", "scatter_.src", "index_copy.default", "index_copy_.default")
        for entry in (
            (lambda op, x, v: op(x, 0, I([2, 0]), v), [x3, positive], OpClass.STRUCTURAL),
            (lambda op, x, v: op(x, 0, I([0, 0]), v), [x3, positive], None),
        )
    ),
    (
        "scatter.src",
        (lambda op, x, v: op(x, 1, I([[0, 1], [0, 1]]), v), [x22, x22], OpClass.STRUCTURAL),
    ),
    ("scatter.src", (lambda op, x, v: op(x, 0, I([[0, 1], [0, 1]]), v), [x22, x22], None)),
    *(
        (name, entry)
        for name in ("put.default", "put_.default")
        for entry in (
            (lambda op, x, v: op(x, I([2, 0]), v), [x3, positive], OpClass.ANALYTIC),
            (lambda op, x, v: op(x, I([0, 0]), v, True), [x3, positive], OpClass.ANALYTIC),
            (lambda op, x, v: op(x, I([0, -3]), v), [x3, positive], None),
        )
    ),
    *(
        (name, entry)
        for name in ("scatter_reduce.two", "scatter_reduce_.two")
        for entry in (
            *(
                (
                    lambda op, x, v, r=reduce: op(x, 0, I([0, 0]), v, r),
                    [x3 * scale, positive * scale],
                    OpClass.ANALYTIC,
                )
                for reduce in ("sum", "mean")
                for scale in (0.0, 1.0)
            ),
            (lambda op, x, v: op(x, 0, I([0, 0]), v, "amax"), [x3 * 0, positive * 0], None),
        )
    ),
    *(
        (name, entry)
        for name in ("index_reduce.default", "index_reduce_.default")
        for entry in (
            *(
                (
                    lambda op, x, v, r=reduce: op(x, 0, I([0, 0]), v, r),
                    [x3 * scale, positive * scale],
                    OpClass.ANALYTIC,
                )
                for reduce in ("mean",)
                for scale in (0.0, 1.0)
            ),
            (lambda op, x, v: op(x, 0, I([0, 0]), v, "amin"), [x3 * 0, positive * 0], None),
        )
    ),
    *(
        (name, entry)
        for name in ("as_strided.default", "as_strided_copy.default")
        for entry in (
            (lambda op, x: op(x, [2, 2], [1, 1]), [x3], OpClass.STRUCTURAL),
            (lambda op, x: op(x[::2], [3], [1], 0), [x3], None),
            (lambda op, x: op(x[1:], [2], [1], 0), [x3], None),
        )
    ),
    *(
        (name, entry)
        for name in ("pow.Tensor_Scalar", "pow_.Scalar")
        for entry in (
            *(
                (lambda op, x, e=exponent: op(x, e), [x3 * 0], OpClass.ANALYTIC)
                for exponent in (0, 1, 2, 2.0, 3)
            ),
            (lambda op, x: op(x, -2), [x3], OpClass.ANALYTIC),
            (lambda op, x: op(x, 1.5), [x3 * 0], OpClass.SINGULAR),
        )
    ),
    *(
        (name, entry)
        for name in ("_foreach_pow.Scalar", "_foreach_pow_.Scalar")
        for entry in (
            (lambda op, x: in_list(op, x, 2), [x3 * 0], OpClass.ANALYTIC),
            (lambda op, x: in_list(op, x, 0.5), [x3 * 0], OpClass.SINGULAR),
        )
    ),
    *(
        (name, entry)
        for name in ("_foreach_pow.ScalarList", "_foreach_pow_.ScalarList")
        for entry in (
            (lambda op, x: in_list(op, x, [3.0]), [x3 * 0], OpClass.ANALYTIC),
            (lambda op, x: in_list(op, x, [0.5]), [x3 * 0], OpClass.SINGULAR),
        )
    ),
    *(
        (name, entry)
        for name in ("div.Tensor_mode", "div_.Tensor_mode")
        for entry in (
            (lambda op, x: op(x, x3 + 2, rounding_mode=None), [x3], OpClass.ANALYTIC),
            (lambda op, x: op(x, x3 + 2, rounding_mode="floor"), [x3 * 0], OpClass.DISCRETE),
        )
    ),
    *(
        (name, entry)
        for name in ("div.Scalar_mode", "div_.Scalar_mode")
        for entry in (
            (lambda op, x: op(x, 2.0, rounding_mode=None), [x3], OpClass.ANALYTIC),
            (lambda op, x: op(x, 2.0, rounding_mode="floor"), [x3 * 0], OpClass.DISCRETE),
        )
    ),
    *(
        (name, entry)
        for name in ("logit.default", "logit_.default")
        for entry in (
            (lambda op, x: op(x), [positive], OpClass.ANALYTIC),
            (lambda op, x: op(x, 0.3), [positive], None),
        )
    ),
    *(
        (name, (lambda op, x: op(x, x3 * 2), [x3], OpClass.ANALYTIC))
        for name in ("ldexp.Tensor", "ldexp_.default")
    ),
    ("softplus.default", (lambda op, x: op(x, 1, 9.0), [x3 * 0], OpClass.ANALYTIC)),
    ("softplus.default", (lambda op, x: op(x, 2, 9.0), [x3 + 20], OpClass.ANALYTIC)),
    ("softplus.default", (lambda op, x: op(x, 1, 9.0), [x3 * 0 + 9], None)),
    *(
        (name, entry)
        for name in ("native_batch_norm.default", "_native_batch_norm_legit.default")
        for entry in (
            (
                lambda op, x: op(
                    x, None, None, torch.zeros(2).double(), torch.ones(2).double(), True, 0.1, 0.5
                ),
                [x22 * 0],
                OpClass.ANALYTIC,
            ),
            (
                lambda op, x: op(
                    x, None, None, torch.zeros(2).double(), torch.ones(2).double(), True, 0.1, 0.0
                ),
                [x22 * 0],
                None,
            ),
        )
    ),
    (
        "_native_batch_norm_legit.no_stats",
        (lambda op, x: op(x, None, None, True, 0.1, 0.5), [x22 * 0], OpClass.ANALYTIC),
    ),
    (
        "_native_batch_norm_legit.no_stats",
        (lambda op, x: op(x, None, None, True, 0.1, 0.0), [x22 * 0], None),
    ),
    (
        "_batch_norm_with_update.default",
        (
            lambda op, x, w: op(
                x, w, None, torch.zeros(2).double(), torch.ones(2).double(), 0.1, 0.5
            ),
            [x22 * 0, positive],
            OpClass.ANALYTIC,
        ),
    ),
    (
        "linalg_solve_triangular.default",
        (lambda op, a, b: op(a, b, upper=True), [x22, x22], OpClass.ANALYTIC),
    ),
    (
        "linalg_solve_triangular.default",
        (lambda op, a, b: op(a, b, upper=True), [x22 * 0, x22 * 0], None),
    ),
    (
        "linalg_solve_triangular.default",
        (
            lambda op, a, b: op(a, b, upper=True, unitriangular=True),
            [x22 * 0, x22],
            OpClass.ANALYTIC,
        ),
    ),
    ("triangular_solve.default", (lambda op, b, a: op(b, a)[0], [x22, x22], OpClass.ANALYTIC)),
    ("triangular_solve.default", (lambda op, b, a: op(b, a)[0], [x22, x22 * 0], None)),
    (
        "linalg_lu_solve.default",
        (lambda op, a, b: op(a, I([2, 2], dtype=torch.int32), b), [x22, x22], OpClass.ANALYTIC),
    ),
    (
        "linalg_lu_solve.default",
        (lambda op, a, b: op(a, I([2, 2], dtype=torch.int32), b), [x22 * 0, x22], None),
    ),
    ("sgn.default", (lambda op, x: op(x) + 0 * x, [x3 * 0], OpClass.DISCRETE)),
    ("sgn_.default", (lambda op, x: op(x) + 0 * x3, [x3 * 0], OpClass.DISCRETE)),
]
# Judged from arguments alone, below.
WITHOUT_CALLS = {
    full(n)
    for n in words("""
    _cudnn_rnn.default _efficient_attention_forward.default _flash_attention_forward.default
    _scaled_dot_product_cudnn_attention.default _scaled_dot_product_efficient_attention.default
    _scaled_dot_product_flash_attention.default _to_copy.default copy_.default
    cudnn_batch_norm.default miopen_batch_norm.default batch_norm_backward.default
    native_batch_norm_backward.default embedding_dense_backward.default softplus_backward.default
    """)
}
SMOOTH = (OpClass.ANALYTIC, OpClass.STRUCTURAL)


def test_every_condition_is_tried():
    assert set(CONDITIONAL) == {full(n) for n, _ in CONDITIONAL_CALLS} | WITHOUT_CALLS


@pytest.mark.parametrize(
    ("name", "entry"),
    CONDITIONAL_CALLS,
    ids=[f"{n}-{i}" for i, (n, _) in enumerate(CONDITIONAL_CALLS)],
)
def test_conditional(name, entry):
    call, point, expected = entry
    op = overload(name)
    seen: list[dict[str, object]] = []

    def spy(*args: object, **kwargs: object) -> object:
        seen.append(bind(op, args, kwargs))
        return op(*args, **kwargs)

    call(spy, *[x.clone() for x in point])
    arguments = seen[0]
    if name.endswith(("_.default", "_.src")):
        arguments["self"] = point[0]  # as it was before the operation wrote to it
    assert classify(full(name), arguments) is expected

    def run(*xs: torch.Tensor) -> object:
        return call(op, *xs)

    if expected in SMOOTH:
        assert complaint(run, list(point)) is None
    else:
        assert not finite(run, list(point)) or complaint(run, list(point)) is not None


def test_conditions_fail_closed():
    for name, condition in CONDITIONAL.items():
        assert not condition.holds({}), name
        assert classify(name, {}) is condition.otherwise
        assert why_not(name) == condition.because
        assert classify(name) not in SMOOTH or condition.op_class in SMOOTH


def test_casts_to_integers_are_steps():
    f, i = torch.ones(2), torch.ones(2, dtype=torch.int64)
    cast = "aten::_to_copy.default"
    op = torch.ops.aten._to_copy.default
    assert classify(cast) is OpClass.STRUCTURAL
    for x, dtype, expected in (
        (f, torch.int64, OpClass.DISCRETE),
        (f, torch.bool, OpClass.DISCRETE),
        (f, torch.float64, OpClass.STRUCTURAL),
        (f, None, OpClass.STRUCTURAL),
        (i, torch.int32, OpClass.STRUCTURAL),
        (i, torch.float32, OpClass.STRUCTURAL),
    ):
        assert classify(cast, bind(op, (x,), {"dtype": dtype})) is expected
    copy = "aten::copy_.default"
    assert classify(copy, {"self": i, "src": f}) is OpClass.DISCRETE
    assert classify(copy, {"self": f, "src": i}) is OpClass.STRUCTURAL
    assert classify(copy, {"self": f, "src": f}) is OpClass.STRUCTURAL


def test_conditions_of_other_devices():
    rnn = {"mode": 2, "dropout": 0.0, "train": True}
    assert classify("aten::_cudnn_rnn.default", rnn) is OpClass.ANALYTIC
    assert classify("aten::_cudnn_rnn.default", {**rnn, "mode": 0}) is None
    assert classify("aten::_cudnn_rnn.default", {**rnn, "dropout": 0.5}) is None
    flash = "aten::_scaled_dot_product_flash_attention.default"
    assert classify(flash, {"dropout_p": 0.0}) is OpClass.ANALYTIC
    assert classify(flash, {"dropout_p": 0.1}) is None
    assert classify("aten::cudnn_batch_norm.default", {"epsilon": 1e-5}) is OpClass.ANALYTIC
    backward = {"indices": I([1]), "padding_idx": 0, "scale_grad_by_freq": False}
    assert classify("aten::embedding_dense_backward.default", backward) is OpClass.ANALYTIC
    z = torch.ones(1, dtype=torch.complex64)
    assert classify("aten::sgn.default", {"self": z}) is None


@pytest.mark.parametrize("exponents", [(-1, -2, 1), (1, 2, 3), (-400, 0, 0), (40, 0, -40)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_integer_exponents_of_ldexp_are_known_where_the_installed_torch_derives_them(
    exponents, dtype
):
    other = torch.tensor(exponents, dtype=dtype)
    leaf = x3.clone().requires_grad_()
    (slope,) = torch.autograd.grad(torch.ldexp(leaf, other).sum(), leaf)
    right = slope.tolist() == [2.0**n for n in exponents]
    found = classify("aten::ldexp.Tensor", {"self": x3, "other": other})
    assert found is (OpClass.ANALYTIC if right else None)
    assert right or exponents != (1, 2, 3)


def test_exponents_of_ldexp_that_were_not_kept_are_not_taken_for_derived():
    nothing = torch.empty(0, dtype=torch.int64)
    assert classify("aten::ldexp.Tensor", {"self": x3, "other": nothing}) is None
    assert classify("aten::ldexp.Tensor", {"self": x3}) is None


# --- left out -------------------------------------------------------------------------------------

spd = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
lower = torch.tensor([[2.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
zero = torch.zeros(1, dtype=torch.float64)


def ctc(x: torch.Tensor) -> torch.Tensor:
    return functional.ctc_loss(x, I([[1, 2]]), I([4]), I([2]), reduction="sum")


LEFT_OUT_CALLS: Mapping[str, tuple[Call, Point]] = {
    "_ctc_loss.Tensor": (ctc, [torch.randn(4, 1, 3, dtype=torch.float64)]),
    "_linalg_eigh.default": (torch.linalg.eigvalsh, [spd]),
    "angle.default": (lambda x: torch.angle(x) + x, [zero]),
    "as_strided_scatter.default": (
        lambda x, s: x.as_strided_scatter(s, (2, 2), (2, 1)),
        [torch.ones(4, dtype=torch.float64), x22],
    ),
    "binary_cross_entropy.default": (
        lambda x: functional.binary_cross_entropy(x * 1e-13, torch.ones_like(x)),
        [zero + 1],
    ),
    "cholesky_inverse.default": (torch.cholesky_inverse, [lower]),
    "cholesky_solve.default": (torch.cholesky_solve, [x22, lower]),
    "copysign.Scalar": (lambda x: torch.copysign(x, 1.0), [zero]),
    "linalg_cholesky_ex.default": (lambda a: torch.linalg.cholesky_ex(a).L, [spd]),
    "linalg_householder_product.default": (
        torch.linalg.householder_product,
        [torch.ones(2, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)],
    ),
    "linalg_lu_factor_ex.default": (
        lambda a: torch.linalg.lu_factor_ex(a).LU,
        [torch.tensor([[1.0, 2.0], [1.0, 3.0]], dtype=torch.float64)],
    ),
    "linalg_qr.default": (
        lambda a: torch.linalg.qr(a).R,
        [torch.tensor([[0.0], [1.0]], dtype=torch.float64)],
    ),
    "linspace.Tensor_Scalar": (lambda x: torch.linspace(x.sum(), 1.0, 3) + x.sum(), [x3]),
    "max_unpool2d.default": (
        lambda x: functional.max_unpool2d(x, I([[[[0, 0]]]]), (1, 2)),
        [torch.ones(1, 1, 1, 2, dtype=torch.float64)],
    ),
    "polar.default": (torch.polar, [x3, x3]),
    "special_bessel_j0.default": (lambda x: torch.special.bessel_j0(x) + x, [x3]),
    "special_i0e.default": (torch.special.i0e, [zero]),
    "special_i1e.default": (torch.special.i1e, [zero]),
}


@pytest.mark.parametrize("name", LEFT_OUT_CALLS)
def test_left_out_for_a_reason(name):
    run, point = LEFT_OUT_CALLS[name]
    with Arrivals() as mode:
        run(*[x.clone().requires_grad_() for x in point])
    assert full(name) in mode.names
    assert complaint(run, point) is not None
    assert classify(full(name)) is None
