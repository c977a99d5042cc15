"""What somebody sees who hunts for the first time: no noise, and names that are short."""

from __future__ import annotations

import torch

import clarke

F64 = torch.float64


def test_the_largest_numbers_leave_no_doubt_about_a_sound_loss():
    def expectile(x, t):
        d = x - t
        return (0.9 * torch.relu(d) ** 2 + 0.1 * torch.relu(-d) ** 2).sum()

    x = torch.linspace(-1.3, 1.7, 3, dtype=F64, requires_grad=True)
    found = clarke.hunt(expectile, (x, torch.linspace(0, 2, 3, dtype=F64, requires_grad=True)))
    assert not found
    assert (found.undecided, found.doubt) == (0, "")


def test_a_report_names_files_without_their_folders():
    x = torch.zeros(2, dtype=F64, requires_grad=True)
    report = clarke.check(lambda x: torch.sqrt((x * x).sum()), x)
    assert __file__ in report.reason  # as data the whole path
    text = str(report)
    assert text.startswith("NONFINITE: sqrt at test_newcomers.py:")
    assert __file__ not in text
