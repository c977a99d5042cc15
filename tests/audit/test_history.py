"""What an audit remembers: exact counts of all steps, bounded memory for the steps themselves."""

import random
import tracemalloc
from collections import Counter

import torch

from clarke import Verdict, audit
from clarke.audit.groups import Group
from clarke.audit.history import History
from clarke.audit.step import Step
from clarke.capture import Location


def a_step(number, verdict, group, *, repaired=False, looked=True, joint=None):
    return Step(
        number=number,
        verdict=verdict,
        reason="",
        theorem="",
        kinks=(),
        culprits=(),
        seconds=0.25,
        location=Location("", "train.py", 3, ""),
        looked=looked,
        group=group,
        joint=joint,
        repaired=repaired,
    )


def naive_summary(steps):
    """From all the steps: the last of every group with several parts tells the joint verdict."""
    ends = {}
    for s in steps:
        ends[s.group] = (ends.get(s.group, (0, s))[0] + 1, s)
    return (
        len(steps),
        sum(s.looked for s in steps),
        Counter(s.verdict for s in steps if s.verdict is not None),
        Counter(
            s.joint
            for parts, s in ends.values()
            if (parts > 1 or s.joint is not s.verdict) and s.joint is not None
        ),
        sum(s.seconds for s in steps),
        sum(s.repaired for s in steps),
    )


def test_the_summary_counts_all_steps_whatever_the_order_of_groups():
    draw = random.Random(0)  # noqa: S311 - no secret
    verdicts = [*Verdict]
    for _ in range(200):
        found, steps, open_groups = History(kept=3), [], []
        for number in range(1, draw.randint(2, 60)):
            if draw.random() < 0.2:
                step, group = a_step(number, None, number, looked=False), None
            else:
                if not open_groups or draw.random() < 0.4:
                    open_groups.append(Group(number))
                group = draw.choice(open_groups)
                step = a_step(
                    number,
                    draw.choice(verdicts),
                    group.number,
                    repaired=draw.random() < 0.1,
                    joint=draw.choice([*verdicts, None]),
                )
            steps.append(step)
            found.add(step, group)
            # The sum of a group that is still alive turns out not to be judged.
            if group is not None and group in open_groups and draw.random() < 0.1:
                steps[-1] = found.amend(number, "taken")
                assert steps[-1].joint is Verdict.UNDECIDED
            if open_groups and draw.random() < 0.2:
                open_groups.pop(draw.randrange(len(open_groups)))
        summary = found.summary(())
        counted = (summary.calls, summary.judged, summary.verdicts, summary.joint)
        assert (*counted, summary.seconds, summary.repaired) == naive_summary(steps)
        assert found.steps == tuple(steps[-3:])


def test_memory_stops_growing_and_the_numbers_go_on():
    watch = audit()
    watch._history = History(kept=5)
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    with watch:
        for _ in range(12):
            w.grad = None
            torch.relu(w).sum().backward()
    assert [s.number for s in watch.steps] == [8, 9, 10, 11, 12]
    assert len(watch.reports) == 5
    assert watch.summary().calls == watch.summary().judged == 12
    assert watch.summary().verdicts == {Verdict.SMOOTH: 12}


def test_a_million_steps_stay_within_100_megabytes():
    found = History()
    tracemalloc.start()
    try:
        for number in range(30_000):  # from 10 000 on nothing is added
            found.add(a_step(number, Verdict.SMOOTH, number), Group(number))
            if number == 15_000:
                before = tracemalloc.get_traced_memory()[0]
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000
    assert after < 50_000_000


def test_the_first_wrong_gradients_keep_their_proofs_behind_the_window():
    watch = audit(lambda _: None)
    watch._history = History(kept=2)
    x = torch.zeros((), requires_grad=True)
    with watch:
        for _ in range(4):
            x.grad = None
            (torch.relu(x) - torch.relu(-x) - x + 3 * x.abs() * 0).backward()
        y = torch.ones((), requires_grad=True)
        for _ in range(5):
            y.grad = None
            torch.relu(y).backward()
    wrong = [r for r in watch.reports if r.verdict is Verdict.NOT_CLARKE]
    assert len(wrong) == watch.summary().verdicts[Verdict.NOT_CLARKE] == 4
    assert all(r.gradient and r.certificate.verify() for r in wrong)
    assert len(watch.reports) == 6
