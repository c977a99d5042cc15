"""clarke.hunt finds bad points without being told, makes them simple, and accuses nobody else."""

import contextlib
import io

import pytest
import torch

import clarke
from clarke import Verdict
from clarke.hunt.model import in_words
from reference.faults import CASES, giou

F64 = torch.float64
QUICK = ("softplus", "leaky", "norm")
SIMPLE = (0, 0.1, 0.5, 1, 2, 3, 4, 5, 6, 10, 100, 1000)


def run(script):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(script, "find.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - ours
    return output.getvalue()


def assert_shows(find):
    """The find holds, and its script shows with torch alone what the report says."""
    assert find.report.verdict in (Verdict.NOT_CLARKE, Verdict.NONFINITE)
    assert find.report.element is not None
    assert "clarke" not in find.script
    assert 5 <= len(find.script.splitlines()) <= 15
    first, *beside = run(find.script).splitlines()
    own = first.removeprefix("autograd:").strip()
    assert len(beside) == 4
    # NaN may fill a region (an overflow, or a clamp in front of a root): then it is beside, too.
    if find.report.verdict is Verdict.NONFINITE:
        assert "nan" in own or "inf" in own
    else:
        assert own not in [b.removeprefix("beside:").strip() for b in beside]


def case(name):
    return next(c for c in CASES if c.name == name)


@pytest.mark.parametrize("name", QUICK)
def test_finds_a_fault_and_makes_it_simple(name):
    found = clarke.hunt(case(name).wrong, case(name).example(), seconds=None)
    assert found
    for find in found.finds:
        assert_shows(find)
        assert all(abs(v) in SIMPLE for x in find.inputs for v in x.reshape(-1).tolist())
    smallest = found.finds[0]
    assert smallest.inputs[0].numel() <= 3  # one row of the batch is enough
    assert not any(x.any() for x in smallest.inputs)  # these are all wrong at zero


@pytest.mark.parametrize("name", QUICK)
def test_finds_nothing_where_all_is_right(name):
    found = clarke.hunt(case(name).right, case(name).example(), seconds=None)
    assert not found, str(found)
    assert str(found).startswith("Found no wrong gradient at ")
    assert "no proof" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_finds_every_known_fault(one):
    found = clarke.hunt(one.wrong, one.example(), seconds=None)
    assert found, str(found)
    for find in found.finds:
        assert_shows(find)


@pytest.mark.slow
@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_accuses_no_right_twin(one):
    found = clarke.hunt(one.right, one.example(), seconds=None)
    assert not found, str(found)


@pytest.mark.slow
def test_accuses_no_generalized_iou():
    """At equal and degenerate boxes, too, the gradient by hand is right."""
    boxes = [torch.randn(1, 4, dtype=F64, requires_grad=True) for _ in range(2)]
    found = clarke.hunt(giou, boxes, seconds=None)
    assert not found, str(found)


def test_what_was_visited_and_what_was_not_is_said():
    def function(x):
        return torch.relu(x).sum() + torch.relu(x * x + 1).sum()

    found = clarke.hunt(function, torch.randn(2, dtype=F64, requires_grad=True), seconds=None)
    assert not found
    assert [p.operation for p in found.visited] == ["relu"]
    assert found.points > 10
    assert found.undecided == 0
    assert found.seconds > 0

    def never(x):
        return torch.relu(x * x + 1).sum()

    found = clarke.hunt(never, torch.randn(2, dtype=F64, requires_grad=True), seconds=None)
    assert [p.operation for p in found.unreached] == ["relu"]
    assert found.unreached[0].line == never.__code__.co_firstlineno + 1
    assert "kinks unreached: relu at test_hunt.py" in str(found)


def test_a_threshold_inside_of_an_affine_map_is_solved_for():
    """No special value hits it: 3x + 2y = 7 with two thresholds that meet at one point."""

    def function(x, y):
        a, b = 3 * x + 2 * y - 7, x - 4 * y + 0.25
        return (torch.relu(a) - torch.relu(-a) + torch.relu(a) * torch.relu(b)).sum()

    start = (torch.ones(1, dtype=F64, requires_grad=True), torch.ones(1, dtype=F64))
    found = clarke.hunt(function, start, seconds=None)
    assert found
    x, y = (v.item() for v in found.finds[0].inputs)
    assert 3 * x + 2 * y - 7 == 0


def test_two_kinks_at_once():
    """The median of (x, y, 0) by a sum: right at ties of two, wrong where all three meet."""

    def function(x, y):
        t = torch.cat([x, y, torch.zeros(1, dtype=F64)])
        return t.sum() - t.max(0).values - t.min(0).values

    start = [torch.ones(1, dtype=F64, requires_grad=True) for _ in range(2)]
    found = clarke.hunt(function, start, seconds=None)
    assert [f.report.verdict for f in found.finds] == [Verdict.NOT_CLARKE]
    assert not any(v.any() for v in found.finds[0].inputs)


def test_targets_move_and_other_arguments_stay():
    def function(x, t, names, scale=None):
        assert names == "abc"
        d = x - t
        return scale * (torch.relu(d) - torch.relu(-d)).sum()

    example = (
        torch.randn(3, dtype=F64, requires_grad=True),
        torch.randn(3, dtype=F64),
        "abc",
        2,
    )
    before = [x.clone() for x in example[:2]]
    found = clarke.hunt(function, example, seconds=None)
    assert found
    assert found.finds[0].inputs[2:] == ("abc", 2)
    assert torch.equal(found.finds[0].inputs[0], found.finds[0].inputs[1])
    assert all(torch.equal(a, b) for a, b in zip(before, example, strict=False))


def test_inputs_require_gradients_where_nothing_else_does():
    found = clarke.hunt(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), torch.randn(2))
    assert found
    assert found.finds[0].inputs[0].requires_grad
    assert found.finds[0].inputs[0].dtype is torch.float32


def test_the_same_seed_finds_the_same():
    one, two = (
        clarke.hunt(case("leaky").wrong, case("leaky").example(), seed=3, seconds=None)
        for _ in range(2)
    )
    assert one.points == two.points
    assert [in_words(f.inputs[0]) for f in one.finds] == [in_words(f.inputs[0]) for f in two.finds]


def test_time_is_kept():
    found = clarke.hunt(case("iou").wrong, case("iou").example(), seconds=1)
    assert found.seconds < 10  # what has begun ends: on a busy machine late


def test_a_function_that_refuses_most_points_is_hunted_where_it_runs():
    def picky(x):
        if bool((x.detach() < 0).any()):
            raise ValueError("no negative numbers")
        return (x.clamp(min=0.5) + x.clamp(max=0.5)).sum()

    found = clarke.hunt(picky, torch.full((2,), 0.75, dtype=F64, requires_grad=True))
    assert found.finds[0].inputs[0].tolist() == [0.5]
    assert found.points > 10


def test_overflow_at_huge_entries_is_told_apart():
    """The square overflows, and is cut off: NaN, where zero is right."""
    found = clarke.hunt(
        lambda x: torch.relu(1 - torch.sqrt(x**2 + 1)).sum(),
        torch.full((1,), 0.75, dtype=F64, requires_grad=True),
        seconds=None,
    )
    assert not found, str(found)
    assert [f.report.verdict for f in found.extreme] == [Verdict.NONFINITE]
    assert "\noverflow: pow at test_hunt.py:192, with the inputs [" in str(found)


def test_calls_that_make_no_sense_are_refused():
    with pytest.raises(clarke.InputError, match="no floating point tensor among the example"):
        clarke.hunt(lambda n: n, (3,))
    with pytest.raises(clarke.InputError, match="Reduce it"):
        clarke.hunt(lambda x: x.abs(), torch.randn(3, requires_grad=True))
    with pytest.raises(clarke.InputError, match="time limit"):
        clarke.hunt(lambda x: x.abs().sum(), torch.randn(3, requires_grad=True), seconds=0)


def test_finds_as_plain_data():
    found = clarke.hunt(case("leaky").wrong, case("leaky").example())
    data = found.to_dict()
    assert data["finds"][0]["report"]["verdict"] == "NOT_CLARKE"
    assert data["finds"][0]["inputs"] == [[0.0]]
    assert data["finds"][0]["script"].startswith("import torch\n")


def test_a_step_is_told_apart_from_a_fault():
    def step(x):
        return torch.where(x > 0, 1 + x, x).sum()

    found = clarke.hunt(step, torch.randn(1, dtype=F64, requires_grad=True), seconds=None)
    assert not found
    assert [f.report.verdict for f in found.nowhere] == [Verdict.NOT_LIPSCHITZ]
    assert "nothing to return (a step or an infinite slope): gt at test_hunt.py:" in str(found)


def test_it_says_why_a_point_is_undecided():
    def either(x, y):
        return max(x, y) + min(x, y)  # of Python, which takes one side at a tie

    one = torch.ones((), dtype=F64, requires_grad=True)
    found = clarke.hunt(either, (one, one.detach().clone().requires_grad_()))
    assert not found
    assert found.undecided
    assert "Python branch" in found.doubt
    assert "at the first: " in str(found)
