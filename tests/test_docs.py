"""Documentation that can be checked without reading it: links, code, and what the code prints."""

import ast
import contextlib
import io
import re
import shlex
import warnings
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clarke.cli import make_app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/*.md")])

# Commands that print the same on every machine; the others' pages show no output to compare.
REPEATABLE = frozenset({"examples"})
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The names that headings get when the page is shown: lower case, words joined by hyphens."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page):
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_parse(page):
    for language, code in FENCE.findall(page.read_text("utf-8")):
        if language in {"python", "py"}:
            ast.parse(code)


def printed(code: str, page: Path, names: dict[str, object]) -> str:
    """What a block of Python prints, as if it stood in a file called like the page."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, f"{page.stem}.py", "exec"), names)  # noqa: S102 - our own examples
    return output.getvalue()


def answered(command: str) -> str | None:
    """What a `clarke` command prints; None if it is not one that can be repeated."""
    words = shlex.split(command)
    if words[:1] != ["clarke"] or words[1] not in REPEATABLE:
        return None
    return CliRunner().invoke(make_app(words[1]), words[1:]).output


def blocks(page: Path) -> list[tuple[str, str, str | None]]:
    """(language, code, output that follows at once or None) of a page's blocks of code."""
    found = FENCE.findall(page.read_text("utf-8"))
    after = [*found[1:], ("", "")]
    return [
        (language, code, shown if kind == "text" else None)
        for (language, code), (kind, shown) in zip(found, after, strict=True)
        if language in {"python", "sh"}
    ]


def outputs(page: Path):
    """(shown, printed) for every block of output that can be repeated."""
    names: dict[str, object] = {"__name__": "__main__"}
    for language, code, shown in blocks(page):
        said = None
        if language == "python":
            said = printed(code, page, names)
        elif len(code.splitlines()) == 1:
            said = answered(code)
        if shown is not None and said is not None:
            yield shown, said


def same_text(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


WITH_CODE = [page for page in PAGES if "```python" in page.read_text("utf-8")]
WITH_CODE += [page for page in PAGES if page.parent.name == "commands" and page not in WITH_CODE]


# Their output shows clamp's slope at its bound, which torch 2.14 moved from 1 to 0.
SHOW_CLAMP = frozenset({ROOT / "README.md"})


def clamp_at_its_bound() -> float:
    x = torch.zeros(1, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.clamp(x, min=0).sum(), x)
    return float(slope)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_print_what_the_page_shows(page, tmp_path, monkeypatch):
    if page in SHOW_CLAMP and clamp_at_its_bound() != 1:
        pytest.skip("shows the slope 1 of clamp at its bound, and here it is another")
    monkeypatch.chdir(tmp_path)
    for shown, said in outputs(page):
        assert same_text(shown) == same_text(said)


def test_the_pages_show_output():
    """A page whose blocks are not recognised would be checked in vain."""
    counts = {
        str(page.relative_to(ROOT)): sum(shown is not None for _, _, shown in blocks(page))
        for page in WITH_CODE
    }
    assert counts["README.md"] >= 1
    assert counts["docs/check.md"] >= 4
    assert counts["docs/verdicts.md"] >= 5
    assert counts["docs/commands/examples.md"] >= 2
