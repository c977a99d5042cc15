"""Files made by hand whose claims are false: no checker accepts what it can tell is not so."""

import os
import time

import pytest
import torch
from typer.testing import CliRunner

import clarke
from clarke.cli import make_app
from clarke.cli.apart import apart
from clarke.errors import OutOfTimeError
from reference.proofs import (
    CANNOT_TELL,
    CHECKED,
    REJECTED,
    forged,
    independent,
    opened,
    own,
    recorded,
)
from reference.zoo import leaf, lemma2

PROGRAM = ("slot.", "memory.", "op.", "touched", "code", "constants", "point")


def claiming(path, verdict, gradient, direction, *, witnessed=None):
    """The same file with a claim about a gradient: one witness, or a direction that separates."""
    content, tensors = opened(path)
    kept = {k: v for k, v in tensors.items() if k.startswith(PROGRAM)}
    direction = torch.tensor(direction, dtype=torch.float64)
    kept["gradient.0"] = torch.tensor(gradient, dtype=torch.float64)
    content["verdict"] = verdict
    if verdict == "NOT_CLARKE":
        content["claim"] = {"kind": "separation", "part": []}
        kept["direction"] = direction
    else:
        content["claim"] = {"kind": "witnesses", "weights": [1.0], "finest": 1e-6}
        kept["witness.0.direction.0"] = direction
        kept["witness.0.gradient.0"] = torch.tensor(witnessed or gradient, dtype=torch.float64)
        kept["witness.0.selection"] = torch.zeros((0, 2), dtype=torch.int64)
    return forged(path.with_suffix(".claim"), content, kept)


def refused(path):
    """Neither checker accepts it."""
    return CHECKED not in (own(path)[0], independent(path)[0])


def test_a_kink_beside_the_point_is_not_touched(tmp_path):
    """Roundings of an input that is exact have put nothing onto a kink 1e-7 away."""
    here = recorded(tmp_path / "a", lambda x: torch.relu(x).sum(), leaf(1e-7))
    content, tensors = opened(recorded(tmp_path / "b", lambda x: torch.relu(x).sum(), leaf(0.0)))
    moved = {k: v for k, v in opened(here)[1].items() if k.startswith(("slot.", "point"))}
    path = forged(tmp_path / "c", content, {**tensors, **moved})
    claim = claiming(path, "BOULIGAND", [0.0], [-1.0])
    assert independent(claim)[0] == REJECTED
    assert refused(claim)


def test_roundings_that_put_a_value_onto_a_kink_are_granted(tmp_path):
    x = leaf(0.1, 0.2)
    report = clarke.check(lambda x: torch.relu(x[0] + x[1] - (0.1 + 0.2)), (x,))
    path = report.save(tmp_path / "a")
    assert (own(path)[0], independent(path)[0]) == (CHECKED, CHECKED)
    exact = clarke.check(lambda x: torch.relu(x.sum() * 3.0 - 0.3 * 3.0), (leaf(0.3),))
    path = exact.save(tmp_path / "b")
    assert own(path)[0] == CHECKED
    assert independent(path)[0] != REJECTED


@pytest.mark.parametrize("gradient", [0.0, 0.5, 2.0, -1.0])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_coarse_roundings_do_not_excuse_any_gradient(tmp_path, gradient, kind):
    path = recorded(tmp_path / "a", lemma2, leaf(0.0, dtype=kind))
    assert refused(claiming(path, "BOULIGAND", [gradient], [1.0], witnessed=[1.0]))
    assert independent(claiming(path, "BOULIGAND", [1.0], [1.0]))[0] == CHECKED


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_wrong_gradients_of_coarse_types_are_refuted_by_both(tmp_path, kind):
    path = clarke.check(lemma2, (leaf(0.0, dtype=kind),)).save(tmp_path / "a")
    assert (own(path)[0], independent(path)) == (CHECKED, (CHECKED, "NOT_CLARKE"))


def test_another_unit_of_rounding_is_none_of_the_program(tmp_path):
    path = recorded(tmp_path / "a", lemma2, leaf(0.0))
    content, tensors = opened(path)
    content["instructions"]["unit"] = -8
    forged(path, content, tensors)
    assert own(claiming(path, "BOULIGAND", [1.0], [1.0]))[0] == REJECTED
    assert refused(claiming(path, "BOULIGAND", [0.0], [1.0], witnessed=[1.0]))


JUMPS = {
    "at the point": (lambda x: torch.where(x > 0, 1 + x, x).sum(), (0.0,), [1.0], [-1.0]),
    "beside it": (
        lambda x: torch.where(x[0] > 0, x[1], -x[1]),
        (0.0, 0.0),
        [0.0, 1.0],
        [1.0, 0.3],
    ),
    "on a line": (
        lambda x: torch.where(x[0] == 0, x[1], 0 * x[1]),
        (0.0, 0.0),
        [0.0, 0.0],
        [-1.0, 0.5],
    ),
    "where two lines meet": (
        lambda x: torch.where((x[0] == 0) & (x[1] == 0), x[2], 0 * x[2]),
        (0.0, 0.0, 0.0),
        [0.0, 0.0, 0.0],
        [-1.0, 0.5, 1.0],
    ),
    "in front of a kink": (
        lambda x: torch.where(x[0] > 0, torch.relu(x[1]), torch.relu(-x[1])),
        (0.0, 0.0),
        [0.0, 1.0],
        [1.0, 0.5],
    ),
}


@pytest.mark.parametrize("name", JUMPS)
def test_a_function_that_jumps_has_no_set(tmp_path, name):
    function, point, gradient, direction = JUMPS[name]
    path = recorded(tmp_path / "a", function, leaf(*point))
    assert refused(claiming(path, "BOULIGAND", gradient, direction))
    far = [g + 3.0 for g in gradient]
    assert independent(claiming(path, "NOT_CLARKE", far, [1.0] * len(far)))[0] != CHECKED


STEADY = {
    "relu by hand": (lambda x: torch.where(x > 0, x, 0 * x).sum(), (0.0, 1.0)),
    "threshold": (lambda x: nn_threshold(nn_threshold(x) * 2).sum(), (0.0, 0.0)),
    "abs by hand": (lambda x: ((x > 0) * x + torch.where(x > 0, 0 * x, -x)).sum(), (0.0,)),
    "behind a kink": (lambda x: torch.where(x > 0, torch.relu(x), 3 * x).sum(), (0.0, 0.0)),
    "curved": (lambda x: torch.where(x > 0, torch.exp(x) - 1, x * x).sum(), (0.0,)),
}


def nn_threshold(x):
    return torch.nn.functional.threshold(x, 0.0, 0.0)


@pytest.mark.parametrize("name", STEADY)
def test_a_function_that_does_not_jump_is_checked(tmp_path, name):
    function, point = STEADY[name]
    report = clarke.check(function, (leaf(*point),))
    assert report.certificate is not None
    path = report.save(tmp_path / "a")
    assert own(path)[0] == CHECKED
    assert independent(path)[0] == (CANNOT_TELL if name == "curved" else CHECKED)


@pytest.mark.parametrize("verdict", ["SMOOTH", "BOULIGAND", "CLARKE", "NOT_CLARKE", "NONFINITE"])
def test_an_answer_of_a_set_is_no_verdict_on_a_gradient(tmp_path, verdict):
    found = clarke.subdifferential(lambda x: x.abs().sum(), (leaf(0.0, 0.0),))
    for vector in ((0.0, 3.0), (0.5, 0.5)):
        answer = found.contains(torch.tensor(vector, dtype=torch.float64))
        content, tensors = opened(clarke.save_certificate(answer, tmp_path / "a"))
        path = forged(tmp_path / "b", {**content, "verdict": verdict}, tensors)
        assert own(path)[0] == REJECTED
        assert independent(path)[0] != CHECKED


def test_what_underflows_is_not_zero(tmp_path):
    path = recorded(tmp_path / "a", lambda x: (x.exp() * 1e300 * 1e300).sum(), leaf(-1000.0))
    assert refused(claiming(path, "SMOOTH", [0.0], [1.0]))


def test_members_are_proved_by_witnesses_to_both(tmp_path):
    """Elements of independent groups of kinks are found around one direction."""

    def function(x):
        return torch.relu(x[0] + x[1]) - torch.relu(x[0] - x[1]) + x[2].abs() - 2 * torch.relu(x[2])

    found = clarke.subdifferential(function, (leaf(0.0, 0.0, 0.0),))
    for vector in ((0.5, 0.5, 0.5), (0.0, 1.0, -1.0)):
        answer = found.contains(torch.tensor(vector, dtype=torch.float64))
        if not answer.inside:
            continue
        path = clarke.save_certificate(answer, tmp_path / "a")
        assert (own(path)[0], independent(path)[0]) == (CHECKED, CHECKED)
        assert clarke.load_certificate(path).verify()
        content, tensors = opened(path)
        name = "witness.0.direction.0"
        turned = forged(tmp_path / "b", content, {**tensors, name: -tensors[name]})
        assert refused(turned)
        for other in ("vector.0", "witness.0.gradient.0"):
            more = tensors[other] + torch.tensor([0.0, 0.0, 1e-9])
            assert refused(forged(tmp_path / "c", content, {**tensors, other: more}))
        break
    else:
        pytest.fail("no vector is inside")


@pytest.mark.parametrize(
    ("name", "count"), [("point", 1 << 21), ("constants", 1 << 21), ("code", 1 << 22)]
)
def test_large_files_are_not_worked_through(tmp_path, name, count):
    content, tensors = opened(clarke.check(lemma2, (leaf(0.0),)).save(tmp_path / "a"))
    tensors[name] = torch.zeros(count, dtype=tensors[name].dtype)
    path = forged(tmp_path / "b", content, tensors)
    assert independent(path) == (CANNOT_TELL, f"tensor {name} is too large")


def test_long_numbers_count_as_work(tmp_path):
    """Numbers that double in length with every product end in time."""
    content, tensors = opened(
        clarke.check(lambda x: (x * x).sum(), (leaf(0.1),)).save(tmp_path / "a")
    )
    code, last = [], 0
    for n in range(9):  # some 25 000 bits, and then many sums of it
        code += [0, -1, 2, last, last]
        last = n + 2
    code += [0, -1, 2, last, 1] * 100_000
    tensors["code"] = torch.tensor(code, dtype=torch.int32)
    tensors["constants"] = torch.ones(1, dtype=torch.float64)
    content["instructions"]["output"] = last
    status, why = independent(forged(tmp_path / "b", content, tensors))
    assert (status, why) == (CANNOT_TELL, "the program is too large for exact arithmetic")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev"])
def test_what_is_no_file_is_refused_at_once(path):
    with pytest.raises(clarke.ProofError, match="is no file"):
        clarke.load_certificate(path)


def with_operator(path, name, named):
    """The file of `x.clone().sum()` with another operator in the place of the first."""
    content, tensors = opened(clarke.check(lambda x: x.clone().sum(), (leaf(1.0),)).save(path))
    content["program"]["ops"][0] |= {"op": name, "named": named}
    return forged(path, content, tensors)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be copied")
def test_an_operator_that_ends_its_process_is_rejected(tmp_path):
    """torch takes any number for a memory format, and reads beyond a table."""
    path = with_operator(tmp_path / "a", "aten::clone.default", {"memory_format": -1})
    done = CliRunner().invoke(make_app(), ["verify", str(path)])
    assert done.exit_code == REJECTED
    assert "running its program ended the process (signal" in done.output


def test_what_runs_apart_answers_dies_and_hangs(capfd):
    assert apart(lambda: [1, "two"], 9) == [1, "two"]
    with pytest.raises(clarke.ProofError, match=r"ended the process \(an error\)"):
        apart(lambda: 1 / 0, 9)
    assert "ZeroDivisionError" in capfd.readouterr().err
    with pytest.raises(OutOfTimeError, match=r"took more than 0\.1 s"):
        apart(lambda: time.sleep(60), 0.1)
