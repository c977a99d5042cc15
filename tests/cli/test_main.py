"""The command line as a whole: help, versions, unknown commands, exit statuses."""

import importlib.util
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from clarke.cli import SUBCOMMANDS, main, make_app
from clarke.cli.status import Exit, exit_status


def clarke_process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "clarke", *arguments], capture_output=True, text=True, check=False
    )


def test_help_names_every_command_that_exists():
    done = clarke_process("--help")
    assert done.returncode == 0
    for command in SUBCOMMANDS:
        exists = importlib.util.find_spec(command.module) is not None
        assert (command.summary.split()[0] in done.stdout) or not exists
        assert (f"  {command.name} " in done.stdout) == exists


def test_help_imports_no_subcommand():
    code = (
        "import sys\n"
        "from clarke.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "found = [m for m in sys.modules if m.startswith('clarke.cli.')]\n"
        "assert set(found) <= {'clarke.cli.status'}, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", SUBCOMMANDS, ids=lambda c: c.name)
def test_every_command_explains_itself(command):
    if importlib.util.find_spec(command.module) is None:
        assert CliRunner().invoke(make_app(command.name), [command.name]).exit_code == Exit.USAGE
        return
    result = CliRunner().invoke(make_app(command.name), [command.name, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_version():
    done = clarke_process("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("clarke ")
    assert "\ntorch 2." in done.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["examples", "--nonsense"]])
def test_bad_usage(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == Exit.USAGE


def test_errors_of_clarke_are_one_line(monkeypatch, capsys):
    import clarke.cli.examples

    def broken(example):
        raise clarke.InputError("Nothing to judge. Pass a tensor.")

    monkeypatch.setattr(clarke.cli.examples, "judge", broken)
    with pytest.raises(SystemExit) as stop:
        main(["examples"])
    assert stop.value.code == Exit.USAGE
    assert capsys.readouterr().err == "clarke: Nothing to judge. Pass a tensor.\n"


@pytest.mark.parametrize(
    ("verdicts", "strict", "status"),
    [
        ([], True, 0),
        ([True, True], True, 0),
        ([True, None], False, 0),
        ([True, None], True, 2),
        ([True, False], False, 1),
        ([None, False], True, 1),
    ],
)
def test_exit_status(verdicts, strict, status):
    assert exit_status(verdicts, strict=strict) == status
