"""Ten scripts with one planted fault each, as people write them: what the first screen tells.

They are in planted/. What the screen says to write instead is written, and judged again.
"""

from pathlib import Path

import pytest

from clarke.report.runs import read_run
from clarke.report.runs.page import run_page

FOLDER = Path(__file__).parent / "planted"
SCREEN = 24

# Line and words of values and cure that are to be read; what the cure makes of the script.
SCRIPTS = {
    "wrong_bce": (
        ":20 ",
        "right -0.109636",
        "binary_cross_entropy_with_logits(x, t)",
        {
            "(positive - x * t + torch.log1p(torch.exp(-torch.abs(x)))).mean()": (
                "torch.nn.functional.binary_cross_entropy_with_logits(x, t)"
            )
        },
    ),
    "wrong_soft_threshold": (
        ":8 ",
        "returned 0, right 0.678903 for code[0]",
        "torch.maximum(x, torch.zeros_like(x)) in place of both relus",
        {
            "torch.relu(x) - torch.relu(-x)": (
                "torch.maximum(x, torch.zeros_like(x)) - torch.maximum(-x, torch.zeros_like(x))"
            )
        },
    ),
    "wrong_huber": (
        ":8 ",
        "returned 0.25, right 0.416667",
        "torch.where(a <= b, a, b) in place of minimum",
        {
            "torch.minimum(error**2, torch.full_like(error, delta**2))": (
                "torch.where(error**2 <= delta**2, error**2, delta**2)"
            )
        },
    ),
    "wrong_leaky_relu6": (
        ":14 ",
        "returned -0.125, right 0.075 for 0.weight[0, 0]",
        "torch.minimum(torch.maximum(x, low), high) in place of hardtanh",
        {"F.relu6(x)": "torch.minimum(torch.maximum(x, 0 * x), 0 * x + 6)"},
    ),
    "wrong_median": (
        ":13 ",
        "returned -0.625, right 0.375 for gains[2]",
        "torch.amax(x, dim) in place of max",
        {"max(-1).values": "amax(-1)", "min(-1).values": "amin(-1)"},
    ),
    "nan_norm": (
        ":9 ",
        "returned NaN, right -0.122557 for entry [2, 0]",
        "torch.linalg.vector_norm(x, dim=...)",
        {"torch.sqrt(squared)": "torch.linalg.vector_norm(difference, dim=1)"},
    ),
    "nan_entropy": (
        ":10 ",
        "returned NaN, right 0 for entry [0]",
        "torch.where(mask, log(torch.where(mask, x, 1)), other)",
        {"torch.log(p)": "torch.log(torch.where(p > 0, p, 1))"},
    ),
    "nan_sinc": (
        ":7 ",
        "returned NaN, right 0 for width[2]",
        "Give div a harmless argument",
        {"torch.sin(x) / x": "torch.sin(x) / torch.where(x == 0, 1, x)"},
    ),
    "nan_power": (
        ":12 ",
        "returned NaN, right 0 for entry [0, 0]",
        "Give pow a harmless argument",
        {"linear ** (1 / 2.4)": "torch.where(dark, 1, linear) ** (1 / 2.4)"},
    ),
    "nan_softmax": (
        ":14 ",
        "returned NaN, right ",
        "mask with torch.finfo(x.dtype).min instead of -inf",
        {'float("-inf")': "torch.finfo(torch.float32).min"},
    ),
}
QUICK = ("wrong_huber", "nan_sinc")
CASES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in sorted(SCRIPTS)
]

pytestmark = pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")


def first_screen(text):
    """What a terminal of 24 lines shows from the verdicts on, without spaces and breaks."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if "looked at" in line)
    return "".join("".join(lines[first : first + SCREEN]).split())


@pytest.mark.parametrize("name", CASES)
def test_the_first_screen_names_line_value_and_a_cure_that_is_right(
    name, clarke_command, tmp_path, monkeypatch
):
    line, values, cure, mended = SCRIPTS[name]
    text = (FOLDER / f"{name}.py").read_text()
    assert 18 <= len(text.splitlines()) <= 60
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("COLUMNS", "60")
    done = clarke_command("run", "--out", "a", "--seconds", "30", f"{name}.py")
    assert done.status == (3 if name.startswith("nan") else 1)
    seen = first_screen(done.err)
    for part in (f"{name}.py{line}", values, cure):
        assert part.replace(" ", "") in seen
    page = run_page(read_run(tmp_path / "a"))
    for part in (f"{name}.py{line.strip()}", values.removeprefix("returned").strip()):
        assert part in page
    for old, new in mended.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / f"{name}.py").write_text(text)
    done = clarke_command("run", "--strict", "--out", "b", "--seconds", "30", f"{name}.py")
    assert done.status == 0, done.err


def test_all_are_here():
    assert {p.stem for p in FOLDER.glob("*.py")} == set(SCRIPTS)
