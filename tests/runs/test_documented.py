"""The commands and options that the pages and `--help` show exist, at every width, and print it."""

import linecache
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clarke.cli import SUBCOMMANDS, main, make_app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMES = [c.name for c in SUBCOMMANDS]


def options(name):
    """The options of a subcommand."""
    said = CliRunner().invoke(make_app(name), [name, "--help"])
    assert said.exit_code == 0
    return set(re.findall(r"^  (--?[a-z][a-z-]*)", said.output, re.MULTILINE))


def commands():
    """Every `clarke` command in a block of shell code."""
    for page in PAGES:
        for language, code in FENCE.findall(page.read_text("utf-8")):
            for line in code.splitlines() if language == "sh" else ():
                words = line.split("#")[0].split()
                if words[:1] == ["clarke"]:
                    yield page.name, words[1:]


def test_there_are_commands_to_check():
    assert len(list(commands())) >= 20


@pytest.mark.parametrize(
    "page_words", list(commands()), ids=lambda p: f"{p[0]} {' '.join(p[1])}"[:60]
)
def test_commands_on_the_pages_have_these_options(page_words):
    _, words = page_words
    assert words[0] in NAMES
    own = words[1:]
    if words[0] == "run":  # what follows the script is the script's
        at = next((i for i, w in enumerate(own) if w.endswith(".py")), len(own))
        own = own[:at]
    known = options(words[0])
    used = {w.partition("=")[0] for w in own if w.startswith("-")}
    assert used <= known


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_documented(name):
    known = options(name)
    page = (ROOT / "docs" / "commands" / f"{name}.md").read_text("utf-8")
    own = {o for o in known if o.startswith("--")} - {"--help"}
    missing = {o for o in own if o not in page and f"--no-{o[2:]}" not in page}
    assert missing == set()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits_the_terminal(name, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as end:
        main([name, "--help"] if name else ["--help"])
    assert not end.value.code
    said = capsys.readouterr().out
    assert "Usage: clarke" in said
    assert [line for line in said.splitlines() if len(line) > width and " " in line.strip()] == []


@pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")
def test_the_example_of_run_prints_what_its_page_shows(clarke_command, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "commands" / "run.md").read_text("utf-8")
    blocks = FENCE.findall(page)
    script = next(code for language, code in blocks if language == "py")
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "80")
    linecache.clearcache()
    done = clarke_command("run", "--out", "runs/bce", "--seconds", "20", "train.py")
    assert done.status == 1
    told = done.err[done.err.index("5 backward") : done.err.index("\njudging took")]
    zero = torch.zeros(1, requires_grad=True)
    torch.clamp(zero, min=0).sum().backward()
    if float(zero.grad) == 1:  # from torch 2.14 on clamp takes the other side
        shown = next(code for language, code in blocks if language == "text")
        assert [x.rstrip() for x in shown.split("\n")] == [x.rstrip() for x in told.split("\n")]
    for width in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        said = clarke_command("report", "runs/bce", "--text").out
        assert "torch.nn.functional.softplus(x)" in said
        assert max(map(len, said.splitlines())) <= width
