"""The page of thresholds, and the thresholds themselves."""

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
