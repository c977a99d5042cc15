"""Answers of sets as certificates and files: smallest element, vertices, slopes, rank."""

from dataclasses import replace

import pytest
import torch

import clarke
from clarke.decide.answers import Independent, Slope, Smallest, Vertices
from reference.forgery import altered, forgeries
from reference.leaves import leaf
from reference.proofs import CANNOT_TELL, CHECKED, REJECTED, forged, independent, opened, own

HALF = torch.tensor([0.5, -0.25], dtype=torch.float64)


def bent(x):
    return x.abs().sum() - 2 * x[0].abs() + 3 * x.sum()


def curved(x):
    return torch.stack([x[0], 2 * x[1], x[0] + x[1]]).amax(0) - x[0].abs() * torch.exp(x[1])


def compared(x):
    return torch.where(x[0] > 0, x[0], -x[0]) + torch.relu(x[1] - x[0])


PROGRAMS = {"bent": bent, "curved": curved, "compared": compared}
ANSWERS = {"min_norm": Smallest, "vertices": Vertices, "directional": Slope, "rank": Independent}


def answered(function, answer, seed=0):
    found = clarke.subdifferential(function, (leaf(0.0, 0.0),), seed=seed)
    return found.certificate(answer, HALF if answer == "directional" else None)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_are_saved_and_checked_by_both(name, answer, tmp_path):
    if answer == "rank" and name != "bent":
        with pytest.raises(clarke.UnsupportedError, match="no proof of 'rank'"):
            answered(PROGRAMS[name], "rank")
        return
    proof = answered(PROGRAMS[name], answer)
    assert type(proof.argument) is ANSWERS[answer]
    assert proof.defects() == ()
    path = clarke.save_certificate(proof, tmp_path / "answer.clarke")
    assert own(path) == (CHECKED, "")
    assert independent(path)[0] == (CANNOT_TELL if answer == "rank" else CHECKED)
    again = clarke.save_certificate(clarke.load_certificate(path), tmp_path / "again.clarke")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_forged_answer_verifies(answer):
    proof = answered(bent, answer)
    other = answered(lambda x: 2 * bent(x) + x[1].abs() + x.sum(), answer)
    wrong, count = [], 0
    for forgery in forgeries(proof, other):
        count += 1
        if forgery.proof.verify():
            wrong.append(f"{forgery.path}: {forgery.what} (as it is)")
        # Less is claimed, or the same along another direction, or of the same rows.
        true = (
            "short",
            "directions",
            "member.directions",
            "member.allowed",
            "exact",
            "member.exact",
            "member.regular",
        )
        if forgery.path in ("seal", *true) or forgery.slight:
            continue
        if forgery.path in ("gradient", "program") and answer in ("vertices", "rank"):
            continue  # these are about no vector, and the ranks are equal
        if forgery.resealed().verify():
            wrong.append(f"{forgery.path}: {forgery.what} (with a new seal)")
    assert wrong == []
    assert count > 5


def changed_claim(path, target, **values):
    content, tensors = opened(path)
    content["claim"].update(values)
    return forged(target, content, tensors)


def test_another_member_is_not_the_smallest(tmp_path):
    found = clarke.subdifferential(bent, (leaf(0.0, 0.0),))
    member = found.contains(torch.tensor([2.5, 2.5], dtype=torch.float64))
    assert member.inside
    false = altered(found.certificate("min_norm"), gradient=member.certificate.gradient)
    false = altered(false, member=member.found).sealed()
    assert "nearer to zero" in false.defects()[0]
    path = clarke.save_certificate(false, tmp_path / "false.clarke")
    assert own(path)[0] == REJECTED
    assert independent(path) == (REJECTED, "a selection is beyond the direction")


def test_a_slope_that_is_off_is_rejected(tmp_path):
    path = clarke.save_certificate(answered(bent, "directional"), tmp_path / "slope.clarke")
    slope = opened(path)[0]["claim"]["slope"]
    for value in (slope + 1e-9, -slope, 0.0, 1e308):
        false = changed_claim(path, tmp_path / "false.clarke", slope=value)
        assert own(false)[0] == REJECTED
        assert independent(false)[0] == REJECTED


def test_lists_of_vertices_are_whole_and_of_nothing_else(tmp_path):
    proof = answered(bent, "vertices")
    points, directions = proof.argument.elements, proof.argument.directions
    assert len(points) == 4
    twice = altered(proof, elements=points[[0, 0, 1, 2, 3]], directions=directions[[0, 0, 1, 2, 3]])
    less = altered(proof, elements=points[1:], directions=directions[1:])
    for false in (twice, less):
        assert not false.sealed().verify()
        path = clarke.save_certificate(false.sealed(), tmp_path / "false.clarke")
        assert own(path)[0] == REJECTED
        assert independent(path)[0] != CHECKED
    path = clarke.save_certificate(proof, tmp_path / "all.clarke")
    for count in (3, 0, 5, True, -1, 1 << 62):
        false = changed_claim(path, tmp_path / "false.clarke", count=count)
        assert own(false)[0] == REJECTED
        assert independent(false)[0] != CHECKED


def test_a_point_between_vertices_is_none(tmp_path):
    """Three gradients in a row, all of them limits."""
    found = clarke.subdifferential(
        lambda x: torch.stack([x[0], 3 * x[0]]).amax(0) + torch.stack([x[0], 3 * x[0]]).amin(0)
        + x[0].abs() - 0 * x[1], (leaf(0.0, 0.0),)
    )  # fmt: skip
    proof = found.certificate("vertices")
    assert proof.argument.elements[:, 0].tolist() in ([3.0, 5.0], [5.0, 3.0])
    listed = clarke.subdifferential(
        lambda x: torch.stack([x[0] + x[1], x[0] - x[1], x[0] + 0 * x[1]]).amax(0) + 2 * x.sum()
        - x[1].abs(), (leaf(0.0, 0.0),)
    )  # fmt: skip
    path = clarke.save_certificate(listed.certificate("vertices"), tmp_path / "one.clarke")
    assert own(path)[0] == CHECKED
    assert independent(path)[0] == CHECKED


def test_stationarity_comes_with_its_proof(tmp_path):
    for function, stationary in ((lambda x: x.abs().sum() - 2 * x[0].abs(), True), (bent, False)):
        answer = clarke.subdifferential(function, (leaf(0.0, 0.0),)).is_stationary()
        assert answer.stationary is stationary
        assert answer.certificate.verify()
        path = clarke.save_certificate(answer, tmp_path / "zero.clarke")
        assert own(path)[0] == CHECKED
        assert independent(path)[0] == CHECKED


def test_a_set_without_a_list_has_a_smallest_element_within_what_its_file_says(tmp_path):
    rows = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = clarke.subdifferential(lambda x: (rows @ x).abs().sum() + 20 * x[0], (leaf(0, 0, 0.0),))
    proof = found.certificate("min_norm")
    assert proof.argument.member.regular
    assert proof.argument.short < 1e-9
    assert proof.verify()
    path = clarke.save_certificate(proof, tmp_path / "regular.clarke")
    assert own(path)[0] == CHECKED
    assert independent(path)[0] != REJECTED


def test_what_is_no_answer_is_refused():
    found = clarke.subdifferential(bent, (leaf(0.0, 0.0),))
    for answer, direction in (("directional", None), ("vertices", HALF)):
        with pytest.raises(clarke.InputError, match="A direction belongs"):
            found.certificate(answer, direction)
    with pytest.raises(clarke.UnsupportedError, match="no proof of 'smallest'"):
        found.certificate("smallest")


def test_an_open_answer_has_no_file(tmp_path):
    found = clarke.subdifferential(lambda x: x.abs().sum(), (leaf(0.0, 0.0),))
    answer = found.contains(HALF)
    proof = answer.certificate
    proof = replace(proof, argument=replace(proof.argument, inside=None)).sealed()
    with pytest.raises(clarke.InputError, match=r"is open \(inside is None\).*no proof to save"):
        clarke.save_certificate(proof, tmp_path / "a")
