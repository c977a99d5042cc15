"""Steps, reports, summary, schedule and subscribers; memory over a long run."""

import gc
import json
import weakref

import pytest
import torch
from torch import nn

import clarke
from clarke import Verdict


def zero():
    return torch.zeros((), requires_grad=True)


def tied_pool(x):
    """2 windows of 2 elements; every second call ties both windows with different patches."""
    return nn.functional.max_pool1d(x[None], 2).sum()


def test_steps_and_reports():
    w = zero()
    with clarke.audit(lambda report: None) as watch:
        (w * 2).backward()
        torch.relu(w).backward()
        (torch.relu(w) - torch.relu(-w)).backward()
        assert len(watch.steps) == 3  # readable inside
    assert [s.number for s in watch.steps] == [1, 2, 3]
    assert [s.correct for s in watch.steps] == [True, True, False]
    assert [r.verdict for r in watch.reports] == [s.verdict for s in watch.steps]
    for report in watch.reports[:2]:
        assert report.gradient == ()
        assert report.certificate is None
    proof = watch.reports[2]
    assert proof.gradient[0] == 0
    assert proof.element[0] == 1
    assert proof.certificate is not None
    for step in watch.steps:
        assert step.looked
        assert step.seconds > 0
        assert step.location.file == __file__
        assert json.loads(json.dumps(step.to_dict()))["number"] == step.number
    assert watch.steps[2].culprits


def test_only_the_first_proofs_are_kept():
    w = zero()
    with clarke.audit(lambda report: None, seconds=None) as watch:
        for _ in range(10):
            (torch.relu(w) - torch.relu(-w)).backward()
    kept = [r.certificate is not None for r in watch.reports]
    assert kept == [True] * 8 + [False] * 2


def test_statistics_by_place():
    weight = torch.ones(4, requires_grad=True)
    inputs = (
        [0.0, 1.0, 2.0, 3.0],  # no tie
        [1.0, 1.0, 2.0, 3.0],  # one tie, relevant: the two weights differ
        [1.0, 1.0, 2.0, 2.0],  # two of them
    )
    with clarke.audit() as watch:
        for row in inputs:
            tied_pool((weight * torch.tensor(row))[None]).backward()
            weight.grad = None
    (place,) = (p for p in watch.summary().places if "pool" in p.operation)
    assert place.steps == 3
    assert place.elements == 6
    assert place.touched == place.tied == 3
    assert place.relevant == 3
    assert place.steps_touched == place.steps_relevant == 2
    assert place.mean_touched == place.mean_relevant == 1.5
    assert place.touched_share == 0.5
    assert place.file == __file__


def test_elementwise_kinks_are_touched_but_not_tied():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
    with clarke.audit() as watch:
        net(torch.ones(4, 2)).sum().backward()
    (place,) = watch.summary().places
    assert (place.operation, place.module) == ("relu", "1")
    assert (place.elements, place.touched, place.tied, place.relevant) == (12, 12, 0, 12)


def test_summary_as_text_and_data():
    net = nn.Sequential()
    for i in range(3):
        name = "a_rather_long_name_for_a_block_of_layers_" * 2 + str(i)
        net.add_module(
            name, nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        )
    w = zero()
    with clarke.audit(lambda report: None) as watch:
        net(torch.ones(2, 1, 8, 8)).sum().backward()
        (torch.relu(w) - torch.relu(-w)).backward()
        torch.relu(w).backward()
    summary = watch.summary()
    text = str(summary)
    assert max(map(len, text.splitlines())) <= 80
    assert "3 backward calls, 3 judged" in text
    assert "1 NOT_CLARKE" in text
    assert "max_pool2d" in text
    data = json.loads(json.dumps(summary.to_dict()))
    assert data["correct"] is False
    assert data["verdicts"]["NOT_CLARKE"] == 1
    assert len(data["places"]) == 8
    assert summary.correct is False


def test_summary_of_nothing():
    with clarke.audit() as watch:
        pass
    assert watch.summary().correct is None
    assert "0 backward calls" in str(watch.summary())


def test_every_and_sample():
    w = zero()

    def numbers(**options):
        watch = clarke.audit(**options)
        with watch:
            for _ in range(20):
                w.grad = None
                (w * 2).backward()
                assert w.grad == 2
        assert [s.looked for s in watch.steps] == [s.verdict is not None for s in watch.steps]
        assert len(watch.reports) == watch.summary().judged
        return [s.number for s in watch.steps if s.looked]

    assert numbers(every=7) == [1, 8, 15]
    drawn = numbers(sample=0.4)
    assert 0 < len(drawn) < 20
    assert drawn == numbers(sample=0.4)  # from a private generator with a fixed seed


def test_steps_left_out_break_no_later_step():
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    with clarke.audit(every=3) as watch:
        for _ in range(7):
            net(torch.randn(3, 2)).sum().backward()
            net.zero_grad()
    assert [s.correct for s in watch.steps if s.looked] == [True] * 3
    assert all(s.joint is s.verdict for s in watch.steps)


def test_confirmation_on_request(monkeypatch):
    from clarke.audit import judge
    from clarke.decide import Confirm

    asked = []
    decide = judge.decide

    def spy(trace, registry, slots, gradient, settings, **rest):
        asked.append(settings.confirm)
        return decide(trace, registry, slots, gradient, settings, **rest)

    monkeypatch.setattr(judge, "decide", spy)
    w = zero()
    with clarke.audit(confirm_every=2) as watch:
        for _ in range(4):
            torch.relu(w).backward()
    with clarke.audit():
        torch.relu(w).backward()
    assert asked == [Confirm.ALWAYS, Confirm.NEVER] * 2 + [Confirm.NEVER]
    assert all(s.verdict is Verdict.BOULIGAND for s in watch.steps)


def test_subscribers_get_the_full_report():
    seen = []
    w = zero()
    with clarke.audit(every=2) as watch:
        watch.subscribe(lambda step, report: seen.append((step, report)))
        for _ in range(2):
            torch.relu(w).backward()
    assert [s.number for s, _ in seen] == [1, 2]
    assert seen[0][1].certificate.verify()
    assert seen[1][1] is None


def build(every):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(net, nn.Flatten(), nn.Linear(16, 2)), clarke.audit(every=every)


@pytest.mark.parametrize("every", [1, 4])
def test_memory_does_not_grow(every):
    net, watch = build(every)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    counts, alive = [], []

    def live():
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    with watch:
        for step in range(30):
            x = torch.randint(0, 3, (4, 1, 6, 6)).float()
            alive.append(weakref.ref(x))
            out = net(x)
            alive.append(weakref.ref(out))
            loss = nn.functional.cross_entropy(out, torch.zeros(4, dtype=torch.int64))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            del x, out, loss
            if step % 10 == 9:
                counts.append(live())
        recorder = watch._recorder
        held = len(recorder._slots)
    assert max(counts) <= counts[0] + 2, counts
    assert not any(ref() is not None for ref in alive)
    assert held < 100
    assert len(recorder._storages) < 4200


def test_nothing_of_the_user_is_held_after_the_block():
    net, watch = build(1)
    with watch:
        net(torch.randn(2, 1, 6, 6)).sum().backward()
    gone = [weakref.ref(p) for p in net.parameters()]
    del net
    gc.collect()
    assert not any(ref() is not None for ref in gone)
    assert watch.steps[0].correct
