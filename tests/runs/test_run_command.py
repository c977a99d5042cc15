"""`clarke run` on unmodified scripts: verdicts, statuses, tracebacks, what a killed run leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from clarke.report.runs import read_run
from clarke.verdict import Verdict


def heed_interrupts():
    """Shells start what runs in their background with interrupts ignored, and children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*words, cwd, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "clarke", "run", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
        preexec_fn=heed_interrupts if os.name == "posix" else None,  # noqa: PLW1509 - no threads
        **options,
    )


# --- real scripts, in this process ----------------------------------------------------------------


def outcome(clarke_command, tmp_path, *words):
    done = clarke_command("run", "--out", tmp_path / "run", *words)
    return done, read_run(tmp_path / "run")


def test_an_image_classifier(clarke_command, tmp_path, script):
    pytest.importorskip("sklearn")
    words = ("--steps", "5", "--every", "9", "--workers", "2")
    done, run = outcome(clarke_command, tmp_path, script("digits"), *words)
    assert done.status == 0
    assert done.out.startswith("loss ")
    assert len(run.steps) == run.looked == 5  # --every after the script is the script's
    assert all(s.outcome.correct for s in run.steps)
    assert any(k.operation.startswith("max_pool2d") for s in run.steps for k in s.kinks)
    assert run.settings["arguments"] == list(words)
    assert run.damaged == 0  # the workers are forked and wrote nothing
    assert max(map(len, done.err.splitlines())) <= 80 or "/" in done.err
    assert "5 backward calls, 5 looked at" in done.err


def test_a_gan_with_hinge_loss(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, script("gan"))
    assert done.status == 0
    assert len(run.steps) == 12
    assert all(s.outcome.correct for s in run.steps)
    first = run.steps[0]
    assert first.outcome is Verdict.BOULIGAND  # 16 real samples on the hinge
    assert first.relevant == 16


def test_the_clipped_objective_of_ppo(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, script("ppo"))
    assert done.status == 0
    # In the first epoch the old probabilities come from the same parameters, held constant.
    first, *others = (s.outcome for s in run.steps)
    assert first is Verdict.SURROGATE
    assert [verdict.correct for verdict in others] == [True] * 3
    tie = [k for k in run.steps[0].kinks if k.operation == "minimum"]
    assert tie[0].touched == 32  # every ratio is 1


def test_accumulation_autocast_and_grad(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, script("mixed"))
    assert done.status == 0
    assert done.out.splitlines()[0] == "(5, 4)"
    assert len(run.steps) == 8
    assert all(s.outcome.correct for s in run.steps)
    assert [s.group for s in run.steps[:6]] == [1, 1, 1, 4, 4, 4]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_trainer_of_transformers(clarke_command, tmp_path, script):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    done, run = outcome(clarke_command, tmp_path, script("t5"), "3")
    assert done.status == 0
    assert len(run.steps) == 3
    assert all(s.outcome.correct for s in run.steps)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module(clarke_command, tmp_path, script):
    pytest.importorskip("lightning")
    done, run = outcome(clarke_command, tmp_path, script("lightning_module"))
    assert done.status == 0
    assert "steps 4" in done.out
    assert len(run.steps) == 4
    assert all(s.outcome.correct for s in run.steps)


@pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")
def test_a_wrong_gradient_gives_status_1_and_names_the_line(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, script("wrong"))
    assert done.status == 1
    assert done.out == "after the loop\n"
    assert [s.outcome for s in run.steps] == [Verdict.NOT_CLARKE] * 3
    assert "wrong.py:9" in done.err
    assert "both relus" in done.err
    picture = run.steps[0].picture
    assert picture.gradient == (0.0, 0.0)
    assert picture.vertices == ((1.0, 1.0),)
    assert picture.element == (1.0, 1.0)


@pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")
def test_the_status_of_the_script_comes_first(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, script("wrong"), "7")
    assert done.status == 7
    assert run.summary["status"] == 7


def test_repair_goes_on_with_a_correct_gradient(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, "--on-wrong", "repair", script("wrong"))
    assert done.status == 1
    assert all(s.repaired for s in run.steps)


def test_raise_stops_the_script_at_its_own_line(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, "--on-wrong", "raise", script("wrong"))
    assert done.status == 1
    assert len(run.steps) == 1
    assert 'wrong.py", line 10' in done.err
    assert "WrongGradientError" in done.err
    assert "clarke/audit" not in done.err


def test_every_looks_at_some_only(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, "--every", "4", script("gan"))
    assert done.status == 0
    assert [s.number for s in run.steps if s.outcome is not None] == [1, 5, 9]
    assert len(run.steps) == 12


def test_json_ends_the_output(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, "--json", script("ppo"))
    found = json.loads(done.out.splitlines()[-1])
    assert found["calls"] == found["judged"] == 4
    assert found["verdicts"] == {v.name: n for v, n in run.counts().items()}
    assert found["folder"] == str(tmp_path / "run")


def test_strict_counts_what_is_undecided(clarke_command, tmp_path):
    (tmp_path / "own.py").write_text(
        textwrap.dedent("""
        import torch

        class Own(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.round()

            @staticmethod
            def backward(ctx, grad):
                return grad

        Own.apply(torch.ones(2, requires_grad=True)).sum().backward()
        """)
    )
    done, run = outcome(clarke_command, tmp_path, "own.py")
    assert (done.status, run.steps[0].outcome) == (0, Verdict.SURROGATE)
    done = clarke_command("run", "--strict", "--out", tmp_path / "again", "own.py")
    assert done.status == 2


def test_the_script_sees_what_python_would_give_it(clarke_command, tmp_path):
    code = """
    import json, sys, pickle
    import beside
    class Here: pass
    assert pickle.loads(pickle.dumps(Here())).__class__ is Here
    print(json.dumps([__name__, __file__, sys.argv, sys.path[0], beside.X]))
    """
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "beside.py").write_text("X = 5\n")
    (folder / "see.py").write_text(textwrap.dedent(code))
    done, run = outcome(clarke_command, tmp_path, "project/see.py", "-m", "--out", "x")
    seen = json.loads(done.out)
    assert seen == [
        "__main__",
        "project/see.py",
        ["project/see.py", "-m", "--out", "x"],
        str(folder),
        5,
    ]
    assert run.steps == ()
    assert "No backward call" in done.err


def test_a_message_given_to_exit_is_shown(clarke_command, tmp_path):
    (tmp_path / "stops.py").write_text("import sys\nsys.exit('not today')\n")
    done, run = outcome(clarke_command, tmp_path, "stops.py")
    assert done.status == 1
    assert done.err.startswith("not today\n")
    assert run.summary["ended"] == "exited with status 1"


def test_modules_and_folders(clarke_command, tmp_path):
    package = tmp_path / "made_up_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text("import sys\nprint(__name__, __package__, sys.argv[1:])\n")
    done = clarke_command("run", "-m", "made_up_package.train", "--lr", "3")
    assert done.out == "__main__ made_up_package ['--lr', '3']\n"
    assert done.status == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1
    (package / "__main__.py").write_text("print('folder', __name__)\n")
    assert clarke_command("run", "made_up_package").out == "folder __main__\n"


def test_what_is_not_there_is_bad_usage(clarke_command, tmp_path, script):
    assert clarke_command("run", "missing.py").status == 2
    done = clarke_command("run", "-m", "no_such_module_anywhere")
    assert done.status == 2
    assert "no_such_module_anywhere" in done.err
    assert not (tmp_path / "runs").exists()
    assert clarke_command("run", "--every", "0", script("ppo")).status == 2
    outcome(clarke_command, tmp_path, script("ppo"))
    again = clarke_command("run", "--out", tmp_path / "run", script("ppo"))
    assert again.status == 2
    assert "holds a run already" in again.err


def test_a_folder_that_cannot_be_made_is_bad_usage(clarke_command, tmp_path, script):
    (tmp_path / "taken").write_text("")
    done = clarke_command("run", "--out", tmp_path / "taken", script("ppo"))
    assert done.status == 2
    assert "cannot be made the folder of a run" in done.err


def test_a_folder_without_a_program_is_bad_usage(clarke_command, tmp_path):
    (tmp_path / "empty").mkdir()
    done = clarke_command("run", "empty")
    assert done.status == 2
    assert "no __main__.py" in done.err


def test_a_syntax_error_shows_the_line_and_no_frames(clarke_command, tmp_path):
    (tmp_path / "broken.py").write_text("x = 1\ny = (\n")
    done = clarke_command("run", "broken.py")
    assert done.status == 1
    assert "SyntaxError" in done.err
    assert re.findall(r'File "([^"]*)"', done.err) == ["broken.py"]


def test_import_errors_inside_a_module_are_its_own(clarke_command, tmp_path):
    (tmp_path / "imports_badly.py").write_text("import no_such_module_anywhere\n")
    done = clarke_command("run", "-m", "imports_badly")
    assert done.status == 1
    assert 'imports_badly.py", line 1' in done.err
    assert "ModuleNotFoundError" in done.err


def test_exceptions_keep_their_own_traceback(clarke_command, tmp_path, script):
    done, run = outcome(clarke_command, tmp_path, script("fails"))
    assert done.status == 1
    assert len(run.steps) == 3
    assert run.summary["ended"].startswith("KeyError")
    assert "ValueError: a cause" in done.err
    files = re.findall(r'File "([^"]*)"', done.err)
    assert files == [script("fails")] * 2


def test_frames_of_clarke_are_left_out_of_errors_in_backward(clarke_command, tmp_path):
    (tmp_path / "twice.py").write_text(
        "import torch\nx = torch.ones(2, requires_grad=True)\ny = (x * x).sum()\n"
        "y.backward()\ny.backward()\n"
    )
    done, _ = outcome(clarke_command, tmp_path, "twice.py")
    assert done.status == 1
    assert 'twice.py", line 5' in done.err
    assert "second time" in done.err
    assert f"clarke{os.sep}audit" not in done.err


def test_the_training_is_the_same_bit_for_bit(clarke_command, tmp_path, script):
    plain = subprocess.run(
        [sys.executable, script("gan")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    done, _ = outcome(clarke_command, tmp_path, script("gan"))
    assert done.out == plain.stdout


# --- runs that are stopped ------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_every_finished_step(tmp_path, script, stop):
    run = start("--out", "run", script("endless"), cwd=tmp_path)
    said = 0
    for _ in run.stdout:
        said += 1
        if said == 7:
            break
    run.send_signal(stop)
    rest, errors = run.communicate(timeout=60)
    said += rest.count("step")
    found = read_run(tmp_path / "run")
    assert len(found.steps) >= said >= 7
    assert [s.number for s in found.steps] == list(range(1, len(found.steps) + 1))
    assert found.damaged <= 1
    if stop is signal.SIGINT:
        assert run.returncode == 130
        assert found.summary["ended"].startswith("KeyboardInterrupt")
        assert 'endless.py", line' in errors
        assert "backward calls" in errors
    else:
        assert run.returncode == -stop
        assert not found.finished
