"""Run folders made by hand, and a command line that runs in this process."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def handmade():
    """tests/runs/handmade.py."""
    spec = importlib.util.spec_from_file_location("handmade", HERE / "handmade.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script():
    """The path of a script in tests/runs/scripts."""
    return lambda name: str(HERE / "scripts" / f"{name}.py")


@pytest.fixture
def clarke_command(monkeypatch, capsys, tmp_path):
    """Run the `clarke` command here, below tmp_path; gives status, output and error output."""
    from clarke.cli import main

    def run(*words, cwd=None):
        monkeypatch.chdir(cwd or tmp_path)
        monkeypatch.setattr(sys, "argv", ["clarke"])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
        status = 0
        try:
            main([str(w) for w in words])
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run
