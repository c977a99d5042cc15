"""A point is made simpler along its kinks, and NaN from one place is judged once."""

import torch

import clarke
from clarke import Verdict
from clarke.hunt.shrink import shrunk
from clarke.hunt.solve import followed
from clarke.hunt.subject import Subject
from reference.leaves import leaf


def tensors(*values):
    return tuple(torch.tensor(v, dtype=torch.float64) for v in values)


def tversky(x, t):
    """The kinks lie where a sigmoid meets the target: no shift and no factor keeps them."""
    p = torch.sigmoid(x)
    return torch.relu(p - t).sum() - 0.5 * torch.relu(t - p).sum()


def test_other_entries_move_so_that_the_kinks_stay_touched():
    x = torch.tensor([-0.37, 0.8], dtype=torch.float64)
    subject = Subject(tversky, (leaf(0.1, 0.2), torch.zeros(2, dtype=torch.float64)), None)
    point = (x, torch.sigmoid(x))
    found = followed(subject, point, (0, 0), 0.0)
    assert found is not None
    assert found[0].tolist() == [0.0, 0.8]
    assert found[1].tolist() == [0.5, float(torch.sigmoid(x)[1])]


def test_off_all_kinks_there_is_nothing_to_follow():
    subject = Subject(tversky, (leaf(0.1), torch.zeros(1, dtype=torch.float64)), None)
    assert followed(subject, tensors([0.3], [0.2]), (0, 0), 0.0) is None


def test_shrinking_follows_curved_kinks_to_round_numbers():
    x = torch.tensor([-0.37], dtype=torch.float64)
    subject = Subject(tversky, (leaf(0.1), torch.zeros(1, dtype=torch.float64)), None)

    def holds(point):
        return bool((torch.sigmoid(point[0]) == point[1]).all())

    def follow(point, entry, new):
        return followed(subject, point, entry, new)

    found = shrunk((x, torch.sigmoid(x)), holds, follow)
    assert [v.tolist() for v in found] == [[0.0], [0.5]]


def test_a_look_names_what_made_nan():
    def function(a, b):
        return ((a - b) ** 2).sum().sqrt() + torch.relu(a).sum()

    subject = Subject(function, (leaf(1.0, 2.0), torch.zeros(2, dtype=torch.float64)), None)
    (place,) = subject.look(tensors([0.0, 1.0], [0.0, 1.0])).broken
    assert place.operation == "sqrt"
    assert not subject.look(tensors([0.0, 1.0], [0.0, 2.0])).broken


def test_nan_of_one_place_is_judged_a_few_times_only(monkeypatch):
    judged = []
    judge = Subject.judge

    def counted(self, point, seconds):
        report = judge(self, point, seconds)
        judged.append(report.verdict)
        return report

    monkeypatch.setattr(Subject, "judge", counted)

    def distance(a, b):
        return ((a - b) ** 2).sum().sqrt() + (a.abs() + torch.relu(b)).sum()

    found = clarke.hunt(distance, (leaf(1.0, 2.0), leaf(0.5, -1.0)), seconds=None)
    assert [f.report.verdict for f in found.finds] == [Verdict.NONFINITE]
    # Once to find it, and while it is made simpler; not at every other pair of equal points.
    assert judged.count(Verdict.NONFINITE) <= 4
