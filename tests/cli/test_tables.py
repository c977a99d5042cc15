"""Tables on terminals of any width: side by side where no word is cut, else row below row."""

import pytest

from clarke.cli.plain import say, show_table
from clarke.layout import Line, laid

TITLES = ("operation", "where", "what it does")
ROWS = [
    ("log_softmax", "losses.py:12", "shares the slope equally among all tied elements"),
    ("a_very_long_name_of_an_operation_that_nobody_abbreviates", "x.py:1", ""),
]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_word_is_cut(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    show_table(TITLES, ROWS)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width
    words = {w.rstrip(":") for w in said.split()}
    assert {w for row in ROWS for cell in row for w in cell.split()} <= words
    assert ("operation" in words) == (width > 80)


@pytest.mark.parametrize("width", [40, 60, 120])
def test_lines_hang_under_their_beginning(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    say(Line("one two three four five six seven eight nine ten eleven", "  label     ", " " * 12))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  label     one")
    assert all(x.startswith(" " * 12) for x in lines[1:])
    assert max(map(len, lines)) <= min(width, 80)


def test_what_fits_keeps_its_spaces():
    assert laid([Line("a    b", "- "), Line("")], 20) == "- a    b\n"
    assert laid([Line("a\nb")]) == "a b"
