"""What a file says is shown as its word, and passes for none of the checkers' own."""

import pytest
import torch
from typer.testing import CliRunner

import clarke
from clarke.cli import make_app
from reference.proofs import CANNOT_TELL, CHECKED, REJECTED, alone, forged, independent, opened, own
from reference.zoo import leaf

FAKE = "it\n/x/other.clarke: checked\x1b[2K\r"


def with_theorem(content, _):
    content["theorem"] = f"witness)\n{FAKE}"


def with_missing(content, tensors):
    content["instructions"] = {"missing": FAKE}
    for name in ("code", "point", "constants"):
        tensors.pop(name, None)


def with_kind(content, _):
    content["claim"]["kind"] = FAKE


def with_verdict(content, _):
    content["verdict"] = FAKE


def with_version(content, _):
    content["version"] = FAKE


def with_place(content, _):
    content["program"]["places"][0][1] = FAKE


def with_name(content, _):
    content["program"]["read"][0]["name"] = FAKE


def with_writer(content, _):
    content["written_by"]["clarke"] = FAKE


def with_tensor(_, tensors):
    tensors[FAKE] = torch.zeros(1)


def with_unit(content, _):
    content["instructions"]["unit"] = FAKE


CHANGES = (
    with_theorem,
    with_missing,
    with_kind,
    with_verdict,
    with_version,
    with_place,
    with_name,
    with_writer,
    with_tensor,
    with_unit,
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    def f(x):
        return (torch.relu(x) - torch.relu(2 * x)).sum()

    return clarke.check(f, (leaf(0.0),)).save(tmp_path_factory.mktemp("words") / "honest.clarke")


@pytest.mark.parametrize("change", CHANGES)
def test_no_words_of_a_file_pass_for_an_answer(honest, tmp_path, change):
    content, tensors = opened(honest)
    change(content, tensors)
    path = forged(tmp_path / "changed.clarke", content, tensors)
    status, why = own(path)
    assert status == REJECTED
    assert (why + "x").isprintable()
    assert independent(path)[1].isprintable()
    shown = alone(path).stdout.splitlines()
    assert shown[0].startswith(str(path))
    assert all(line.startswith(("  checked ", "  assumed ")) for line in shown[1:])
    assert "\x1b" not in "".join(shown)


def test_the_command_shows_lines_of_its_own_only(honest, tmp_path):
    content, tensors = opened(honest)
    with_missing(content, tensors)
    path = forged(tmp_path / "changed.clarke", content, tensors)
    found = CliRunner().invoke(make_app(), ["verify", str(path)])
    assert found.exit_code == 1
    assert all(line.startswith(str(path)) for line in found.stdout.splitlines())


def test_names_that_cannot_be_shown_are_written_as_question_marks(tmp_path):
    net = torch.nn.Sequential()
    net.add_module("first\nlayer", torch.nn.Linear(1, 1).double())
    net.add_module("kink", torch.nn.ReLU())
    x = torch.ones(1, 1, dtype=torch.float64)
    path = clarke.check(lambda: net(x).sum()).save(tmp_path / "named.clarke")
    assert own(path)[0] == CHECKED
    assert "first?layer" in str(opened(path)[0]["program"]["places"])


def test_a_file_that_is_not_there_cannot_be_told(tmp_path):
    done = CliRunner().invoke(make_app("verify"), ["verify", str(tmp_path / "none")])
    assert done.exit_code == CANNOT_TELL
    told = " ".join(done.output.split())
    assert "clarke: cannot tell: Cannot read" in told
    assert "Traceback" not in told


def test_the_lone_checker_tells_how_it_is_called():
    done = alone()
    assert done.returncode == CANNOT_TELL
    assert "python clarke_verify.py FILE" in done.stdout


def test_what_is_no_file_of_a_proof_is_told_in_a_line(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("x = 1")
    assert independent(path) == (
        REJECTED,
        "it has another form (BadZipFile File is not a zip file)",
    )
