"""Proofs as files: written, read back, verified by two programs, and refused when changed."""

import ast
import os
import subprocess
import sys
from collections import Counter
from random import Random

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import clarke
from clarke.cli import make_app
from clarke.errors import ModifiedSinceError, ProofError
from clarke.proof import judge_stored, load
from clarke.proof.cells import Word
from clarke.verdict import Verdict
from reference.mutations import (
    byte_changes,
    changes,
    tensor_changes,
    tricks_with,
    true_as_it_stands,
)
from reference.proofs import (
    CANNOT_TELL,
    CHECKED,
    CHECKER,
    REJECTED,
    alone,
    forged,
    independent,
    opened,
    own,
)
from reference.zoo import ZOO, leaf, lemma2

ZOO = {
    **ZOO,
    "wrong norms": (
        lambda x: 3 * torch.relu(x[0]) - 3 * torch.relu(-x[0]) + x.norm(),
        leaf(0.0, 0.0),
        Verdict.NOT_CLARKE,
    ),
}

# What the checker without clarke has no argument for; it says so, and never that they are wrong.
BEYOND = {
    "rays": "a norm of zero",
    "eigenvalues": "the operator aten::_linalg_eigh.default",
    "wrong norms": "a norm of zero",
    "norms": "a norm of zero",
    "regular": "pieces that bend one way, of which this checker knows nothing",
    "guard": "the operator aten::sin.default",
    "wrong guard": "limits, of which this checker knows nothing",
}


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """A file for each kind of proof."""
    folder = tmp_path_factory.mktemp("zoo")
    files = {}
    for name, (function, x, verdict) in ZOO.items():
        report = clarke.check(function, (x,))
        assert report.verdict is verdict
        files[name] = report.save(folder / f"{name.replace(' ', '-')}.clarke")
    return files


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_proof_is_saved_and_checked_by_both(zoo, name):
    stored = load(zoo[name])
    assert stored.verdict is ZOO[name][2]
    assert own(zoo[name]) == (CHECKED, "")
    status, why = independent(zoo[name])
    if name in BEYOND:
        assert (status, why.split("\n")[0]) == (CANNOT_TELL, BEYOND[name])
    else:
        assert status == CHECKED, why


@pytest.mark.parametrize(
    "name", ["nested", "mixture", "regular", "wrong guard", "outside", "wrong"]
)
def test_a_loaded_certificate_is_one(zoo, name):
    proof = clarke.load_certificate(zoo[name], seconds=60)
    assert proof.verify(seconds=60)
    again = clarke.save_certificate(
        proof,
        zoo[name].with_suffix(".again"),
        verdict=ZOO[name][2],
        theorem=load(zoo[name]).theorem,
    )
    assert again.read_bytes() == zoo[name].read_bytes()


def test_members_of_a_set_are_saved_too(tmp_path):
    found = clarke.subdifferential(lambda x: x.abs().sum() - 2 * x[0].abs(), (leaf(0.0, 0.0),))
    for vector, inside in (((0.5, 0.5), True), ((0.0, 3.0), False)):
        answer = found.contains(torch.tensor(vector, dtype=torch.float64))
        assert answer.inside is inside
        path = clarke.save_certificate(answer, tmp_path / "member.clarke")
        assert own(path) == (CHECKED, "")
        assert independent(path)[0] == CHECKED
        content, tensors = opened(path)
        content["claim"]["inside"] = not inside
        changed = forged(tmp_path / "changed.clarke", content, tensors)
        assert own(changed)[0] == REJECTED
        assert independent(changed)[0] != CHECKED


def test_members_of_a_set_without_a_list_are_saved_too(tmp_path):
    rows = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = clarke.subdifferential(lambda x: (rows @ x).abs().sum(), (leaf(0.0, 0.0, 0.0),))
    for vector, inside in (((0.5, 0.5, 0.0), True), ((0.0, 300.0, 0.0), False)):
        answer = found.contains(torch.tensor(vector, dtype=torch.float64))
        assert answer.inside is inside
        assert answer.found.regular
        path = clarke.save_certificate(answer, tmp_path / "member.clarke")
        assert own(path) == (CHECKED, "")
        assert independent(path)[0] != REJECTED
        content, tensors = opened(path)
        content["claim"]["inside"] = not inside
        assert own(forged(tmp_path / "changed.clarke", content, tensors))[0] == REJECTED


def test_a_quick_verdict_of_an_audit_is_saved(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x = torch.zeros(2, 4, dtype=torch.float64)
    with torch.no_grad():
        net[0].bias[:3] = 0
    saved = []

    def save(_step, report):
        saved.append(report.save(tmp_path / f"{len(saved)}.clarke"))

    with clarke.audit() as watch:
        watch.subscribe(save)
        nn.functional.cross_entropy(net(x), torch.tensor([0, 1])).backward()
    (path,) = saved
    assert own(path) == (CHECKED, "")
    assert independent(path) == (CHECKED, "BOULIGAND")


def test_running_statistics_that_are_put_back_change_no_proof(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1)).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    report = clarke.check(lambda: net(x).sum(), ())
    assert report.certificate.verify()
    path = report.save(tmp_path / "norm.clarke")
    assert own(path) == (CHECKED, "")
    assert independent(path) == (CHECKED, "SMOOTH")


def test_a_fresh_process_verifies_by_both(zoo):
    paths = [str(zoo["nested"]), str(zoo["wrong"])]
    done = subprocess.run(
        [sys.executable, "-m", "clarke", "verify", "--strict", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("clarke: checked") == 2
    assert done.stdout.count("clarke_verify.py: checked") == 2


def test_variables_that_fall_apart_are_refuted_by_one_of_them(tmp_path):
    x = torch.zeros(30, dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: (2 * torch.relu(x) - x.abs()).sum(), (x,))
    path = report.save(tmp_path / "apart.clarke")
    assert own(path) == (CHECKED, "")
    assert independent(path) == (CHECKED, "NOT_CLARKE")
    content, tensors = opened(path)
    assert content["instructions"]["entry"] is not None
    for entry, mine in ((None, CHECKED), (29, CHECKED), (99, CHECKED), (1.5, REJECTED)):
        content["instructions"]["entry"] = entry
        file = forged(tmp_path / "other.clarke", content, tensors)
        assert own(file)[0] == mine
        assert (independent(file)[0] == CHECKED) is (entry == 29)


def test_the_checker_runs_alone(zoo):
    done = alone(zoo["nested"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "checked" in done.stdout
    assert "assumed" in done.stdout
    assert alone(zoo["rays"]).returncode == CANNOT_TELL
    assert alone(zoo["rays"], zoo["nested"]).returncode == CANNOT_TELL
    assert alone(zoo["nested"].with_name("missing")).returncode == CANNOT_TELL
    assert alone().returncode == CANNOT_TELL


def test_the_checker_imports_the_standard_library_alone_and_is_short():
    tree = ast.parse(CHECKER.read_text(encoding="utf-8"))
    names = {
        (a.name if isinstance(node, ast.Import) else node.module).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for a in node.names
    }
    assert names <= set(sys.stdlib_module_names)
    assert not any("clarke" in name for name in names)


# --- what cannot be saved, or verified later ------------------------------------------------------


def test_what_has_no_proof_says_so():
    report = clarke.check(lambda x: x.sqrt().sum(), (leaf(0.0),))
    with pytest.raises(clarke.InputError, match="comes without a proof that could be saved"):
        report.save("nowhere.clarke")
    with pytest.raises(clarke.InputError, match="A int is no proof of a verdict on a program"):
        clarke.save_certificate(3, "nowhere.clarke")


def test_a_proof_whose_program_has_changed_is_not_saved(tmp_path):
    x = leaf(0.0)
    weight = torch.ones(1, dtype=torch.float64)
    report = clarke.check(lambda x: (torch.relu(x) * weight).sum(), (x,))
    weight += 1
    with pytest.raises(ModifiedSinceError, match="Save it before anything writes"):
        report.save(tmp_path / "late.clarke")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(clarke.InputError, match=r"Cannot read .*: No such file"):
        clarke.load_certificate(tmp_path / "missing.clarke")
    report = clarke.check(lemma2, (leaf(0.0),))
    with pytest.raises(clarke.InputError, match=r"Cannot write .*: No such file"):
        report.save(tmp_path / "missing" / "one.clarke")


# --- changed files --------------------------------------------------------------------------------

# Shown, and used by nobody.
SHOWN = ("written_by", "theorem", "place", "name")
# Left to clarke's own check by the one that knows no torch.
LEFT_TO_CLARKE = ("assumed", "finest", "replayed", "claim", "part")
THOROUGH = "CLARKE_FUZZ" in os.environ
CHANGED = ("nested", "mixture", "masks", "wrong", *(("neighbours", "outside") if THOROUGH else ()))


def sample(every, count):
    """Some of the changes, the same in every run."""
    return Random(0).sample(every, min(count, len(every)))  # noqa: S311 - no secret


@pytest.mark.parametrize("name", CHANGED)
def test_every_field_that_is_changed_is_rejected(zoo, tmp_path, name):
    """With a right digest: the changed file is refused, or what it says is still proved."""
    content, tensors = opened(zoo[name])
    every = [(path, c) for path, c in changes(content) if path[:2] != ("program", "places")]
    chosen = every if THOROUGH else sample(every, 30)
    seen = Counter()
    for path, changed in chosen:
        file = forged(tmp_path / "changed.clarke", changed, tensors)
        mine, why = own(file)
        other, words = independent(file)
        seen["clarke", mine] += 1
        seen["clarke_verify", other] += 1
        assert "\n" not in why + words
        if mine == CHECKED and not set(path) & set(SHOWN):
            assert true_as_it_stands(file), path
        if other == CHECKED and mine == REJECTED:
            # It knows instructions, and not the recorded operations that they are made of; which
            # entry is enough to separate it is told, and looks for itself.
            known = path[:1] == ("program",) or path[:2] == ("instructions", "entry")
            assert known or set(path) & {*SHOWN, *LEFT_TO_CLARKE}, (path, why)
    assert seen["clarke", REJECTED] > 0.7 * len(chosen), seen


@pytest.mark.parametrize("name", CHANGED)
def test_every_tensor_that_is_changed_is_rejected(zoo, tmp_path, name):
    content, tensors = opened(zoo[name])
    every = list(tensor_changes(tensors))
    chosen = every if THOROUGH else sample(every, 20)
    for which, what, changed in chosen:
        file = forged(tmp_path / "changed.clarke", content, changed)
        mine, why = own(file)
        other, _ = independent(file)
        assert "\n" not in why
        if which.startswith(("gradient", "touched", "witness.0.gradient")) and what != "one ulp":
            assert mine == REJECTED, (which, what)
            # A vector beside a wrong gradient is wrong too, if not what autograd returned.
            handed = forged(tmp_path / "handed.clarke", {**content, "replayed": False}, changed)
            wrong = other == CHECKED and which != "touched"
            assert not wrong or own(handed)[0] == CHECKED, (which, what)
        elif mine == CHECKED:  # another direction, or a rounding
            assert true_as_it_stands(file), (which, what)
        if other == CHECKED and mine == REJECTED:
            # A direction in the cell, if not by as much as clarke asks; vectors that are wrong as
            # well; what belongs to the recorded operations; numbers that no piece has.
            known = ("gradient", "direction", "selection", "slot", "memory", "touched")
            known += ("constants", "point")
            assert what == "one ulp" or any(k in which for k in known), (which, what)


def test_changed_bytes_and_cut_files_are_refused_in_one_sentence(zoo, tmp_path):
    raw = zoo["masks"].read_bytes()
    path = tmp_path / "changed.clarke"
    for content in byte_changes(raw, Random(0), flips=300, cuts=60):  # noqa: S311 - no secret
        path.write_bytes(content)
        with pytest.raises(ProofError, match=r"^Not a proof of clarke: [^\n]*$"):
            load(path)
        status, why = independent(path)
        assert status == REJECTED
        assert "\n" not in why


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_tricks_with_zips_and_headers_are_refused(zoo, tmp_path):
    path = tmp_path / "trick.clarke"
    for name, raw in tricks_with(zoo["nested"]).items():
        path.write_bytes(raw)
        with pytest.raises(ProofError, match=r"^Not a proof of clarke: [^\n]*$"):
            load(path)
        status, why = independent(path)
        assert (status, "\n" in why) == (REJECTED, False), name


LARGE = (
    ("aten::expand.default", [{"slot": 1}, [10**6, 10**6]]),
    ("aten::zeros.default", [[10**6, 10**6]]),
    ("aten::repeat.default", [{"slot": 1}, [10**7, 10**7]]),
    ("aten::constant_pad_nd.default", [{"slot": 1}, [0, 10**12], 0]),
)


@pytest.mark.parametrize(("name", "args"), LARGE)
def test_programs_that_ask_for_much_memory_are_refused(zoo, tmp_path, name, args):
    content, tensors = opened(zoo["one witness"])
    op = {**content["program"]["ops"][0], "op": name, "args": args, "results": [99]}
    content["program"]["ops"].insert(0, {**op, "flags": []})
    content["program"]["ops"].insert(1, {**op, "op": "aten::clone.default", "args": [{"slot": 99}]})
    file = forged(tmp_path / "large.clarke", content, tensors)
    status, why = own(file)
    assert status == REJECTED
    assert "too many" in why or "cannot run" in why


@pytest.mark.parametrize(
    "name",
    [
        "aten::from_file.default",
        "aten::_local_scalar_dense.default",
        "prims::add.default",
        "aten::__class__.x",
        "os::system.default",
        "aten::set_.source_Storage",
        "aten::save.default",
    ],
)
def test_no_operator_is_run_that_clarke_does_not_know(zoo, tmp_path, name):
    content, tensors = opened(zoo["one witness"])
    content["program"]["ops"][0]["op"] = name
    status, why = own(forged(tmp_path / "odd.clarke", content, tensors))
    assert status == REJECTED
    assert "an operator that clarke does not know" in why


def squares(tensors, count):
    """Instructions that square a number again and again, and then are those of the file."""
    first = len(tensors["point"]) + len(tensors["constants"])
    flat = []
    for i in range(count):
        cell = first + i - 1 if i else 0
        flat += [Word.SUM, -1, 2, cell, cell]
    return {**tensors, "code": torch.tensor(flat, dtype=torch.int32)}


def test_numbers_that_grow_without_end_are_given_up(zoo, tmp_path):
    content, tensors = opened(zoo["one witness"])
    tensors["point"] += 1.25
    file = forged(tmp_path / "grows.clarke", content, squares(tensors, 60))
    status, why = independent(file)
    assert status == CANNOT_TELL
    assert "too large" in why


@pytest.mark.parametrize(
    "code",
    [
        [0, -1, 2, -1, 0],  # a cell of a negative number
        [0, -1, 2, 10**9, 0],  # one that is not made yet
        [0, -1, 3, 0, 0, 0],  # an odd number of factors
        [99, -1, 1, 0],  # no word
        [-1, -1, 1, 0],
        [5, -1, -3, 0],  # going back for ever
        [5, -1, 0],
        [5, -1, 7, 0],  # no end
        [1, 10**6, 2, 0, 1],  # a kink that is not listed
        [3, -1, 2, 0, 0],  # too few arguments
        [4, -1, 1, "zero"],  # one over zero
    ],
)
def test_instructions_that_are_none_are_refused(zoo, tmp_path, code):
    content, tensors = opened(zoo["one witness"])
    zero = len(tensors["point"]) + tensors["constants"].tolist().index(0)
    code = [zero if n == "zero" else n for n in code]
    tensors["code"] = torch.cat([torch.tensor(code, dtype=torch.int32), tensors["code"]])
    status, why = independent(forged(tmp_path / "odd.clarke", content, tensors))
    assert status != CHECKED
    assert "\n" not in why
    assert own(tmp_path / "odd.clarke") == (
        REJECTED,
        "the instructions are not those of the recorded operations",
    )


# --- the commands, and steps that are kept --------------------------------------------------------


def command(name, *arguments):
    return CliRunner().invoke(make_app(name), [name, *map(str, arguments)])


def test_verify_tells_by_its_status(zoo, tmp_path):
    assert command("verify", zoo["nested"], zoo["wrong"]).exit_code == 0
    assert command("verify", zoo["rays"]).exit_code == 0
    assert command("verify", "--strict", zoo["rays"]).exit_code == 2
    content, tensors = opened(zoo["nested"])
    tensors["gradient.0"] += 1
    wrong = forged(tmp_path / "wrong.clarke", content, tensors)
    done = command("verify", zoo["nested"], wrong)
    assert done.exit_code == 1
    assert "rejected" in done.output
    assert "Traceback" not in done.output
    done = alone(wrong)
    assert (done.returncode, done.stderr) == (1, "")
    assert (
        done.stdout.endswith("rejected: the gradient of witness 0 is another one\n") or done.stdout
    )


def test_steps_out_of_time_are_kept_and_judged_as_check_does(tmp_path):
    def flat(x):
        return x.view(2, 4).amax(1).max() - x.abs().sum()

    x = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    with clarke.audit("warn", keep=tmp_path / "kept", seconds=0.1) as watch:
        flat(x).backward()
    with clarke.audit(lambda _: None, keep=tmp_path / "more") as more:
        lemma2(w).backward()
        w.grad = None
        (2 * torch.relu(w)).sum().backward()
    assert [r.verdict for r in watch.reports] == [Verdict.UNDECIDED]
    assert [r.verdict for r in more.reports] == [Verdict.NOT_CLARKE, Verdict.BOULIGAND]
    (late,) = (tmp_path / "kept").iterdir()
    (wrong,) = (tmp_path / "more").iterdir()
    assert judge_stored(load(late), 60).verdict is clarke.check(flat, (x,), seconds=60).verdict
    done = command("judge", "--save", wrong)
    assert done.exit_code == 1
    assert "NOT_CLARKE" in done.output
    proof = wrong.with_name(f"{wrong.name}.proof.clarke")
    assert own(proof) == (CHECKED, "")
    assert independent(proof) == (CHECKED, "NOT_CLARKE")
    status, why = own(wrong)
    assert status == REJECTED
    assert "a step that is still to be judged" in why


@pytest.mark.parametrize("name", ZOO)
def test_a_file_is_judged_as_check_judged(zoo, name):
    """A proof's file holds all that a judge needs: the same verdict comes out."""
    stored = load(zoo[name])
    if name == "regular":  # check has seen the same
        assert judge_stored(stored, 60).theorem == stored.theorem
    assert judge_stored(stored, 60).verdict is stored.verdict
