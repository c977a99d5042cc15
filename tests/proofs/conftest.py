"""Of tests of files: nothing that prints is a terminal."""

import pytest


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    """Lines are whole, as other programs read them: pytest's own workers say that there is room."""
    monkeypatch.delenv("COLUMNS", raising=False)
