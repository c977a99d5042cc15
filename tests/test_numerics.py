"""The page of thresholds, and the thresholds themselves."""

import ast
from pathlib import Path

from clarke import numerics

PAGE = Path(__file__).parents[1] / "docs" / "numerics.md"


def thresholds():
    kinds = (numerics.Threshold, numerics.Steps)
    return {n: v for n, v in vars(numerics).items() if isinstance(v, kinds)}


def test_the_committed_page_is_that_of_the_module():
    assert PAGE.read_text(encoding="utf-8") == numerics.page(), (
        "Run: python -c 'from clarke import numerics; print(numerics.page(), end=str())' "
        "> docs/numerics.md"
    )


def test_every_threshold_is_on_the_page_with_its_reason():
    page = numerics.page()
    for name, value in thresholds().items():
        assert f"| `{name}` |" in page
        assert value.why in page


def test_every_threshold_says_where_it_comes_from():
    for name, value in thresholds().items():
        assert len(value.why) > 20, name
        assert all(v.name in numerics.page() for v in value.affects)


SOURCE = Path(numerics.__file__).parent
# These decide nothing: pictures, experiments, measurements, torch's defaults, points of a hunt.
FREE = {"numerics.py", "testing", "report", "experiments", "atlas", "cli", "hunt"}


def small_literals(path):
    """Lines with a number written as 1e-9 or 2.0**-53: a threshold that has no name."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            if "e" in (ast.get_source_segment(source, node) or "").lower():
                yield node.lineno
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            base, power = node.left, node.right
            numbered = isinstance(base, ast.Constant) and isinstance(power, ast.UnaryOp)
            if numbered and isinstance(power.operand, ast.Constant):
                yield node.lineno


def test_no_threshold_stands_anywhere_else():
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[0] not in FREE
        for line in small_literals(path)
    ]
    assert found == [], "Name them in clarke/numerics.py, each with its derivation."
