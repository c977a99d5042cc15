"""The 200 lines of docs/naive.md: run, and held against clarke and the slow reference."""

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from clarke import Verdict

PAGE = Path(__file__).resolve().parents[1] / "docs" / "naive.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def naive():
    names = {"__name__": "naive"}
    for code in re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        exec(compile(code, "naive.md", "exec"), names)  # noqa: S102 - our own page
    return names


@st.composite
def drafts(draw):
    """A program of the page's five operations and a point of small integers."""
    n = draw(st.integers(1, 3))
    program = [("var", i) for i in range(n)]
    program += [("const", c) for c in draw(st.lists(st.sampled_from((-2, -1, 1, 2)), max_size=2))]
    for op in draw(
        st.lists(st.sampled_from(("add", "mul", "relu", "abs", "max")), min_size=1, max_size=8)
    ):
        arity = 1 if op in ("relu", "abs") else 2
        last = len(program) - 1
        recent = st.integers(max(0, last - 3), last)
        program.append((op, draw(recent), *(draw(st.integers(0, last)) for _ in range(arity - 1))))
    point = draw(st.lists(st.sampled_from((0, 0, 0, 1, -1)), min_size=n, max_size=n))
    return program, point


def in_torch(program, x):
    values = []
    for op, *given_ in program:
        if op == "var":
            values.append(x[given_[0]])
        elif op == "const":
            values.append(x.new_tensor(float(given_[0])))
        else:
            run = {
                "add": torch.add,
                "mul": torch.mul,
                "relu": torch.relu,
                "abs": torch.abs,
                "max": torch.maximum,
            }[op]
            values.append(run(*(values[i] for i in given_)))
    return values[-1] + 0 * x.sum()


@pytest.mark.parametrize(
    ("code", "point", "g", "answer"),
    [
        # max(u + b, b) - max(-u + b, b) at the origin: the set is {(1, 0)}.
        (
            "var 0,var 1,const -1,mul 0 2,add 0 1,max 4 1,add 3 1,max 6 1,mul 7 2,add 5 8",
            (0, 0),
            (1, 0),
            "right",
        ),
        (
            "var 0,var 1,const -1,mul 0 2,add 0 1,max 4 1,add 3 1,max 6 1,mul 7 2,add 5 8",
            (0, 0),
            (2, 0),
            "wrong",
        ),
        ("var 0,abs 0", (0,), (Fraction(1, 3),), "right"),
        ("var 0,abs 0", (0,), (Fraction(4, 3),), "wrong"),
        ("var 0,relu 0,mul 1 1", (0,), (0,), "right"),
    ],
)
def test_known_sets(naive, code, point, g, answer):
    program = [(op, *map(int, rest)) for op, *rest in (line.split() for line in code.split(","))]
    assert naive["check"](program, point, g) == answer


def test_autograd_is_torchs(naive):
    @settings(max_examples=60, deadline=None, database=None)
    @given(drafts())
    def run(draft):
        program, point = draft
        x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(in_torch(program, x), x)
        assert tuple(map(float, naive["autograd"](program, point))) == tuple(found.tolist())

    run()


def test_clarke_agrees(naive):
    """Neither is ever contradicted by the other; clarke decides nearly all."""
    seen = Counter()

    @settings(
        max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(drafts())
    def run(draft):
        program, point = draft
        x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
        report = clarke.check(lambda x: in_torch(program, x), (x,))
        answer = naive["check"](program, point)
        seen[answer, report.verdict] += 1
        if report.correct is not None and answer != "undecided":
            assert report.correct == (answer == "right"), (draft, report)
        if report.verdict is Verdict.NOT_CLARKE:
            right = [float(v) for v in report.element[0]]
            assert naive["check"](program, point, right) != "wrong"

    run()
    decided = sum(n for (_, verdict), n in seen.items() if verdict is not Verdict.UNDECIDED)
    assert decided >= 0.9 * sum(seen.values()), seen
