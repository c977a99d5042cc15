"""Operations whose own derivative formula is not always true, and factorisations: verdicts."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.capture import Recorder, collect_trace, overload_of
from clarke.kinks import Call, Hazard, default_registry
from clarke.kinks.formulas import FormulaRule
from clarke.kinks.table import rule_table
from clarke.steering import analyse
from clarke.verdict import Verdict

LINALG = torch.linalg
EYE = torch.eye(3, dtype=torch.float64)

CHUNKED = "torch.nn.modules.linear_cross_entropy"
if importlib.util.find_spec(CHUNKED) is not None:
    importlib.import_module(CHUNKED)  # registers its operations

FORMULAS = {name: rule for name, rule in rule_table() if isinstance(rule, FormulaRule)}


def drawn(*shapes: Sequence[int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*s, dtype=torch.float64, generator=generator) for s in shapes]


def nearly_symmetric() -> list[torch.Tensor]:
    """A positive definite matrix, not quite symmetric: it matters which triangle is read."""
    (x,) = drawn((3, 3))
    return [x @ x.T + EYE + 0.01 * drawn((3, 3), seed=1)[0]]


def factor() -> torch.Tensor:
    return drawn((3, 3))[0] + 3 * EYE


def numbers(result: object) -> torch.Tensor:
    """All real results, laid out flat."""
    parts = result if isinstance(result, (tuple, list)) else (result,)
    real = [torch.view_as_real(p) if p.is_complex() else p for p in parts]
    return torch.cat([p.reshape(-1) for p in real if p.is_floating_point()])


CTC = (torch.tensor([[1, 2], [3, 3], [2, 0]]), [5, 5, 4], [2, 2, 1], 0, False)
LONG = (torch.tensor([1, 2, 3, 3, 2]), torch.tensor([5, 5, 4]), torch.tensor([2, 2, 1]), 0, False)
PLACES = torch.tensor([[[0, 0], [1, 3]], [[5, 5], [5, 1]]])

# The differentiated arguments, and those that follow them.
Entry = tuple[Callable[[], list[torch.Tensor]], tuple[object, ...]]
CALLS: dict[str, list[Entry]] = {
    "linalg_cholesky_ex.default": [(nearly_symmetric, ())],
    "cholesky.default": [(nearly_symmetric, (False,)), (nearly_symmetric, (True,))],
    "cholesky_solve.default": [
        (lambda: [drawn((3, 2))[0], factor()], (upper,)) for upper in (False, True)
    ],
    "cholesky_inverse.default": [(lambda: [factor()], (upper,)) for upper in (False, True)],
    "_linalg_eigh.default": [(nearly_symmetric, ("L",)), (nearly_symmetric, ("U",))],
    "linalg_lstsq.default": [
        (lambda: drawn((4, 3), (4, 2)), ()),
        (lambda: drawn((3, 4), (3, 2)), ()),
        (lambda: drawn((2, 4, 3), (2, 4)), ()),
    ],
    "linalg_householder_product.default": [
        (lambda: drawn((4, 3), (3,)), ()),
        (lambda: drawn((2, 4, 3), (2, 2)), ()),
    ],
    "ormqr.default": [
        (lambda left=left: drawn((4, 3), (3,), (4, 2) if left else (2, 4)), (left, transpose))
        for left in (True, False)
        for transpose in (True, False)
    ],
    "_linalg_det.default": [
        (lambda: drawn((3, 3)), ()),
        (lambda: drawn((2, 4, 4)), ()),
        (lambda: [drawn((3, 1))[0] * drawn((1, 3))[0] + EYE.triu(2)], ()),
    ],
    "polar.default": [(lambda: drawn((3,), (3,)), ())],
    "_cdist_forward.default": [(lambda: drawn((3, 2), (4, 2)), (0.0, None))],
    "_pdist_forward.default": [(lambda: drawn((3, 2)), (0.0,))],
    "max_unpool2d.default": [(lambda: drawn((2, 2, 2)), (PLACES, (2, 3)))],
    "max_unpool3d.default": [
        (lambda: drawn((2, 1, 2, 2)), (PLACES[:, None], (1, 2, 3), (1, 1, 1), (0, 0, 0)))
    ],
    "as_strided_scatter.default": [
        (lambda: drawn((4, 4), (2, 2)), ((2, 2), (1, 2), 3)),
        (lambda: [drawn((4, 4))[0].t(), drawn((2, 2))[0]], ((2, 2), (1, 2), 3)),
    ],
    "_ctc_loss.default": [(lambda: drawn((5, 3, 4)), CTC)],
    "_ctc_loss.Tensor": [(lambda: drawn((5, 3, 4)), LONG)],
    "torch_nn::_linear_cross_entropy_batch_chunked.default": [
        (
            lambda: drawn((5, 3), (4, 3)),
            (
                torch.tensor([0, 1, 2, 3, 1]),
                drawn((4,))[0],
                drawn((4,))[0].abs(),
                reduction,
                2,
                0.0,
                2,
                "compact",
                torch.float64,
                True,
                True,
                True,
                False,
            ),
        )
        for reduction in ("mean", "sum")
    ],
    "torch_nn::_linear_cross_entropy_batch_chunked_no_reduction.default": [
        (
            lambda: drawn((5, 3), (4, 3)),
            (torch.tensor([0, 1, 2, 3, 1]), None, None, 1, 2, "compact", torch.float64),
        )
    ],
}
# Further results that serve the operation's own backward pass, or are constants to autograd.
ONLY_FIRST = ("_ctc_loss", "_linalg_det", "_linear_cross_entropy_batch_chunked", "linalg_lstsq")


def full(name: str) -> str:
    return name if "::" in name else f"aten::{name}"


def overload(name: str) -> Callable[..., object] | None:
    space, _, rest = full(name).partition("::")
    operator, _, kind = rest.partition(".")
    packet = getattr(getattr(torch.ops, space), operator, None)
    return None if packet is None else getattr(packet, kind)


def test_every_formula_is_tried():
    # Some operators exist in some versions of torch only.
    assert {full(n) for n in CALLS if overload(n) is not None} == set(FORMULAS)


ENTRIES = [
    pytest.param(name, entry, id=f"{name}-{number}")
    for name, calls in CALLS.items()
    for number, entry in enumerate(calls)
]


@pytest.mark.filterwarnings("ignore:torch.cholesky is deprecated")
@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_values_and_derivatives(name, entry):
    """The formula has the operation's values, and difference quotients of them for derivatives."""
    variables, rest = entry
    func = overload(name)
    if func is None:
        pytest.skip("not in this torch")
    first = any(n in name for n in ONLY_FIRST)

    def cut(result: object) -> torch.Tensor:
        return numbers(result[0] if first else result)  # type: ignore[index]

    def native(*xs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return cut(func(*xs, *rest))

    def formula(*xs: torch.Tensor) -> torch.Tensor:
        return cut(FORMULAS[full(name)].exact(Call(func, (*xs, *rest), {})))

    point = variables()
    torch.testing.assert_close(formula(*point), native(*point))
    leaves = [x.clone().requires_grad_() for x in point]
    value = formula(*leaves)
    weights = drawn(tuple(value.shape), seed=5)[0]
    found = (
        torch.autograd.grad(value @ weights, leaves, materialize_grads=True)
        if value.requires_grad
        else [torch.zeros_like(x) for x in point]
    )
    for seed in range(3):
        direction = drawn(*(tuple(x.shape) for x in point), seed=10 + seed)
        after, before = (
            native(*(x + s * 1e-6 * d for x, d in zip(point, direction, strict=True))) @ weights
            for s in (1, -1)
        )
        slope = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True))
        assert slope == pytest.approx(float(after - before) / 2e-6, rel=1e-6, abs=1e-6)
        with fwd.dual_level():
            duals = [fwd.make_dual(x, d) for x, d in zip(point, direction, strict=True)]
            tangent = fwd.unpack_dual(formula(*duals)).tangent
        forward = 0.0 if tangent is None else float(tangent @ weights)
        assert forward == pytest.approx(slope, rel=1e-8, abs=1e-8)


# --- where factorisations are not smooth ----------------------------------------------------------


def touched(function, *inputs):
    """(operator, hazard) of everything that is touched."""
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    registry = default_registry()
    with Recorder(registry.keeps) as recorder:
        out = numbers(function(*leaves)).sum()
        recorder.paused = True
    sites = analyse(collect_trace(recorder, out), registry).sites.values()
    return {
        (overload_of(s.touch.op.func).split(".")[0][6:], h) for s in sites for h in s.touch.hazards
    }


STEP, STEEP, SEVERAL = Hazard.STEP, Hazard.INFINITE_SLOPE, Hazard.SEVERAL
REGULAR = [[2.0, 1.0, 0.5], [0.3, 3.0, 0.2], [0.1, 0.7, 4.0]]


@pytest.mark.parametrize(
    ("function", "matrix", "expected"),
    [
        (LINALG.cholesky, REGULAR, None),
        (lambda x: LINALG.cholesky_ex(x).L, [[1.0, 1.0], [1.0, 1.0]], STEEP),
        (LINALG.eigvalsh, REGULAR, None),
        (LINALG.eigvalsh, [[1.0, 0.0], [0.0, 1.0]], SEVERAL),
        (LINALG.eigvalsh, [[1.0, 1.0], [1.0, 1.0]], None),
        (LINALG.eigvals, REGULAR, None),
        (LINALG.eigvals, [[1.0, 1.0], [0.0, 1.0]], STEEP),
        (LINALG.eigvals, [[1.0, 0.0], [0.0, 1.0]], STEEP),
        (LINALG.eigvals, [[0.0, -1.0], [1.0, 0.0]], None),
        (LINALG.qr, REGULAR, None),
        (LINALG.qr, [[0.0, 1.0], [1.0, 2.0]], STEP),
        (LINALG.qr, [[1.0, 2.0], [0.0, 3.0]], STEP),
        (LINALG.qr, [[1.0, 2.0], [1.0, 2.0]], STEEP),
        (LINALG.qr, [[1.0, 2.0, 3.0], [1.0, 3.0, 4.0]], None),
        (LINALG.lu_factor, REGULAR, None),
        (LINALG.lu_factor, [[1.0, 2.0], [1.0, 3.0]], STEP),
        (LINALG.lu_factor, [[1.0, 2.0], [-1.0, 3.0]], STEP),
        (lambda x: LINALG.lu_factor_ex(x).LU, [[2.0, 2.0], [1.0, 1.0]], STEEP),
        (LINALG.lu, [[1.0, 2.0], [1.0, 3.0]], STEP),
        (lambda x: LINALG.lstsq(x, torch.ones_like(x)).solution, REGULAR, None),
        (lambda x: LINALG.lstsq(x, torch.ones_like(x)).solution, [[1.0, 1.0], [1.0, 1.0]], STEP),
        (torch.cholesky_inverse, REGULAR, None),
        (lambda x: torch.cholesky_solve(torch.ones_like(x), x), [[0.0, 0.0], [1.0, 1.0]], STEEP),
        (lambda x: torch.cholesky_solve(torch.ones_like(x), x), REGULAR, None),
    ],
)
def test_hazards_of_factorisations(function, matrix, expected):
    found = touched(function, matrix)
    kinds = {h for _, h in found} - {Hazard.BEYOND}
    assert kinds == (set() if expected is None else {expected})


def regular_integers(generator: torch.Generator, size: int) -> torch.Tensor:
    while True:
        matrix = torch.randint(-size, size + 1, (3, 3), generator=generator).to(torch.float64)
        if abs(float(LINALG.det(matrix))) > 0.5:
            return matrix


@pytest.mark.parametrize("seed", range(20))
def test_signs_of_columns_flip_only_where_they_are_said_to(seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = regular_integers(generator, 1)
    said = touched(LINALG.qr, matrix.tolist())
    flips = False
    here = LINALG.qr(matrix).R.diagonal().sign()
    for _ in range(20):
        moved = matrix + 1e-7 * torch.randn(3, 3, dtype=torch.float64, generator=generator)
        flips |= bool((LINALG.qr(moved).R.diagonal().sign() != here).any())
    assert flips == (("linalg_qr", STEP) in said)


@pytest.mark.parametrize("seed", range(20))
def test_pivots_change_only_where_they_are_said_to(seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = regular_integers(generator, 2)
    said = touched(LINALG.lu_factor, matrix.tolist())
    here = LINALG.lu_factor(matrix).pivots
    changes = False
    for _ in range(20):
        moved = matrix + 1e-7 * torch.randn(3, 3, dtype=torch.float64, generator=generator)
        changes |= not torch.equal(LINALG.lu_factor(moved).pivots, here)
    assert changes == (("linalg_lu_factor_ex", STEP) in said)


# --- verdicts -------------------------------------------------------------------------------------

W = drawn((3, 3), seed=3)[0]
GENERIC = drawn((3, 3))[0].tolist()
IDENTITY = EYE.tolist()
DIAGONAL = torch.diag(torch.tensor([1.0, 2.0, 3.0])).tolist()
TIED = [[1.0, 2.0], [1.0, 3.0]]
BLOCKS = [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.5]]
SMOOTH, BOULIGAND, CLARKE = Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE
UNDECIDED, NOT_LIPSCHITZ = Verdict.UNDECIDED, Verdict.NOT_LIPSCHITZ
NOT_CLARKE = Verdict.NOT_CLARKE


def gram(x):
    return x @ x.T + EYE.to(x)


def vectors(x):
    return LINALG.eigh(x + x.T).eigenvectors


def unpooled(x, stride):
    image = x[None]
    values, places = F.max_pool2d(image, 2, stride, return_indices=True)
    out = F.max_unpool2d(values, places, 2, stride)
    return (out * torch.arange(out.numel(), dtype=x.dtype).reshape(out.shape)).sum()


PEAK = [[0.0, 1.0, 2.0, 0.0], [0.0, 9.0, 5.0, 0.0], [1.0, 4.0, 3.0, 1.0], [0.0, 0.0, 1.0, 0.0]]


def ctc(log_probs):
    log_probs = log_probs.reshape(6, 2, -1)
    targets = torch.tensor([[1, 2], [2, 2]])
    return F.ctc_loss(log_probs, targets, torch.tensor([6, 5]), torch.tensor([2, 2]))


LOGITS = drawn((12, 4))[0].tolist()

VERDICTS = {
    "cholesky of a Gram matrix": (lambda x: (LINALG.cholesky(gram(x)) * W).sum(), GENERIC, SMOOTH),
    "cholesky of free entries": (
        lambda x: (LINALG.cholesky(x + 3 * EYE) * W).sum(),
        IDENTITY,
        NOT_CLARKE,
    ),
    "log determinant": (
        lambda x: LINALG.cholesky(gram(x)).diagonal().log().sum(),
        GENERIC,
        SMOOTH,
    ),
    "cholesky_solve": (
        lambda x: torch.cholesky_solve(W, LINALG.cholesky(gram(x))).sum(),
        GENERIC,
        SMOOTH,
    ),
    "cholesky_solve with a full factor": (
        lambda x: torch.cholesky_solve(W, x + 5 * EYE).sum(),
        GENERIC,
        NOT_CLARKE,
    ),
    "eigenvalues": (lambda x: (LINALG.eigvalsh(x + x.T) * W[0]).sum(), GENERIC, SMOOTH),
    "eigenvalues of free entries": (
        lambda x: (LINALG.eigvalsh(x) * W[0]).sum(),
        GENERIC,
        NOT_CLARKE,
    ),
    "repeated eigenvalues": (
        lambda x: (LINALG.eigvalsh(x + x.T) * W[0]).sum(),
        IDENTITY,
        BOULIGAND,
    ),
    "largest repeated eigenvalue": (lambda x: LINALG.eigvalsh(x + x.T)[-1], IDENTITY, BOULIGAND),
    # The formula is wrong beside the point as well: a limit of autograd's gradients proves nothing.
    "repeated eigenvalues of free entries": (
        lambda x: (LINALG.eigvalsh(x) ** 2).sum(),
        BLOCKS,
        UNDECIDED,
    ),
    "distinct eigenvalues of a diagonal matrix": (
        lambda x: (LINALG.eigvalsh(x + x.T) * W[0]).sum(),
        DIAGONAL,
        SMOOTH,
    ),
    "squares of eigenvectors": (lambda x: (vectors(x) * W).pow(2).sum(), GENERIC, SMOOTH),
    "squares of eigenvectors of a diagonal matrix": (
        lambda x: (vectors(x) * W).pow(2).sum(),
        DIAGONAL,
        SMOOTH,
    ),
    "signs of eigenvectors": (lambda x: (vectors(x) * W).sum(), DIAGONAL, NOT_LIPSCHITZ),
    "eigenvectors where eigenvalues meet": (
        lambda x: (vectors(x) * W).pow(2).sum(),
        IDENTITY,
        NOT_LIPSCHITZ,
    ),
    "general eigenvalues": (lambda x: (LINALG.eigvals(x) * W[0]).real.sum(), GENERIC, SMOOTH),
    "general eigenvalues where they meet": (
        lambda x: (LINALG.eigvals(x) * W[0, :2]).real.sum(),
        [[1.0, 1.0], [0.0, 1.0]],
        NOT_LIPSCHITZ,
    ),
    "spectral radius of a rotation": (
        lambda x: LINALG.eigvals(x).abs().max(),
        [[0.0, -1.0], [1.0, 0.0]],
        SMOOTH,
    ),
    "qr": (lambda x: (LINALG.qr(x).R * W).sum(), GENERIC, SMOOTH),
    "qr of a triangle": (
        lambda x: (LINALG.qr(x).R * W[:2, :2]).sum(),
        [[1.0, 2.0], [0.0, 3.0]],
        NOT_LIPSCHITZ,
    ),
    "lu": (lambda x: (LINALG.lu(x)[2] * W).sum(), GENERIC, SMOOTH),
    "lu with tied pivots": (
        lambda x: (LINALG.lu_factor(x)[0] * W[:2, :2]).sum(),
        TIED,
        NOT_LIPSCHITZ,
    ),
    "a solution by lu": (
        lambda x: LINALG.lu_solve(*LINALG.lu_factor(x), W).sum(),
        GENERIC,
        SMOOTH,
    ),
    "a solution by lu with tied pivots": (
        lambda x: LINALG.lu_solve(*LINALG.lu_factor(x), W[:2, :2]).sum(),
        TIED,
        UNDECIDED,
    ),
    "least squares": (lambda x: (LINALG.lstsq(x, W).solution * W).sum(), GENERIC, SMOOTH),
    "householder_product": (
        lambda x: (LINALG.householder_product(x, x[0]) * W).sum(),
        GENERIC,
        SMOOTH,
    ),
    "polar": (lambda x: torch.polar(x.exp(), x).real.sum(), GENERIC, SMOOTH),
    "polar with negative sizes": (lambda x: torch.polar(x, x).real.sum(), [-1.0], NOT_CLARKE),
    "ctc": (lambda x: ctc(x.log_softmax(-1)), LOGITS, SMOOTH),
    "ctc after relu": (lambda x: ctc((0 * x).relu().log_softmax(-1)), LOGITS, SMOOTH),
    "ctc of free entries": (ctc, LOGITS, NOT_CLARKE),
    "unpooling": (lambda x: unpooled(x, 2), PEAK, SMOOTH),
    "unpooling with overlaps": (lambda x: unpooled(x, 1), PEAK, NOT_CLARKE),
    "counting distance": (
        lambda x: torch.cdist(x, 2 * x + 1, p=0.0).sum() + x.sum(),
        GENERIC,
        SMOOTH,
    ),
    "counting distance of equal entries": (
        lambda x: torch.cdist(x, torch.ones_like(x), p=0.0).sum() + x.sum(),
        [[1.0, 2.0]],
        NOT_LIPSCHITZ,
    ),
    "copysign of a varied sign": (lambda x: torch.copysign(x + 1, x).sum(), [1.0, -3.0], SMOOTH),
    "copysign at sign 0": (lambda x: torch.copysign(x + 1, x).sum(), [0.0, -3.0], NOT_LIPSCHITZ),
    "copysign at 0": (lambda x: torch.copysign(x - 1, x).sum(), [1.0, -3.0], CLARKE),
    "frexp": (lambda x: torch.frexp(x).mantissa.sum(), [0.3, -3.0], SMOOTH),
    "frexp at a power of 2": (
        lambda x: torch.frexp(x).mantissa.sum(),
        [0.3, -2.0],
        NOT_LIPSCHITZ,
    ),
    "polygamma": (lambda x: torch.polygamma(2, x).sum(), [0.5, -0.5], SMOOTH),
    "as_strided_copy": (lambda x: torch.as_strided_copy(x, (2, 2), (1, 2)).sum(), GENERIC, SMOOTH),
    "as_strided_scatter": (
        lambda x: (torch.as_strided_scatter(x, x[0, :2], (2,), (1,), 0) * W).sum(),
        GENERIC,
        NOT_CLARKE,
    ),
    "size of complex numbers": (lambda x: torch.complex(x, x * x).abs().sum(), [0.0, 1.0], CLARKE),
    "root of complex numbers": (lambda x: torch.complex(x, x).sqrt().real.sum(), [1.0], SMOOTH),
    "eigenvalues of a Hermitian matrix": (
        lambda x: (LINALG.eigvalsh(torch.complex(x + x.T, x - x.T)) * W[0]).sum(),
        GENERIC,
        SMOOTH,
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(name):
    function, point, expected = VERDICTS[name]
    x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    report = clarke.check(function, (x,))
    assert report.verdict is expected, report.reason


@pytest.mark.parametrize("name", [n for n, v in VERDICTS.items() if v[2] is SMOOTH])
def test_smooth_ones_agree_with_difference_quotients(name):
    function, point, _ = VERDICTS[name]
    x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(function(x), [x])
    for seed in range(2):
        (d,) = drawn(tuple(x.shape), seed=20 + seed)
        with torch.no_grad():
            after, before = (float(function(x + s * 1e-6 * d)) for s in (1, -1))
        assert float((g * d).sum()) == pytest.approx((after - before) / 2e-6, rel=1e-5, abs=1e-5)


def test_the_reason_names_the_operation():
    x = torch.tensor(GENERIC, dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: LINALG.eigvalsh(x).pow(3).sum(), (x,))
    assert "linalg_eigh" in report.reason
    assert "triangle" in report.reason


def test_grad_is_true_where_autograd_is_not():
    x = torch.tensor(GENERIC, dtype=torch.float64, requires_grad=True)
    y = x + 5 * EYE
    (g,) = clarke.grad(lambda x: (LINALG.eigvalsh(x) * W[0]).sum(), (y.detach().requires_grad_(),))
    assert float(g.triu(1).abs().max()) == 0


def test_a_limit_beside_wrong_formulas_is_no_proof():
    """At BLOCKS autograd's gradients tend to its own, although all of them are wrong."""
    x = torch.tensor(BLOCKS, dtype=torch.float64, requires_grad=True)
    function = VERDICTS["repeated eigenvalues of free entries"][0]
    (here,) = torch.autograd.grad(function(x), [x])
    near = (x.detach() + 1e-8 * drawn((3, 3))[0]).requires_grad_()
    (there,) = torch.autograd.grad(function(near), [near])
    torch.testing.assert_close(here, there, atol=1e-6, rtol=0)
    assert clarke.check(function, (x,)).correct is None


def test_audit_declines_the_quick_way():
    """Recorded values alone cannot tell whether a matrix stays symmetric."""
    x = torch.tensor(GENERIC, dtype=torch.float64, requires_grad=True)
    with clarke.audit(on_wrong="repair") as audit:
        (LINALG.eigvalsh(x) * W[0]).sum().backward()
    assert audit.reports[0].verdict is NOT_CLARKE
