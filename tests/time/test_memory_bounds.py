"""What is too large to be listed is not listed; where memory ends, no call dies."""

import pytest
import torch
from torch.nn import functional

import clarke
from clarke.deadline import within_memory
from clarke.errors import OutOfMemoryError, UnsupportedError
from clarke.kinks import windows
from clarke.verdict import Verdict

D = torch.float64
EQUAL = {
    "cummax": lambda x: x.cummax(0).values.sum(),
    "cummin": lambda x: x.cummin(0).values.sum(),
    "cummax by rows": lambda x: x.reshape(2, -1).cummax(1).values.sum(),
    "sort": lambda x: (x.sort().values * torch.arange(x.numel())).sum(),
    "topk": lambda x: x.topk(x.numel() // 2).values.sum(),
    "max": lambda x: x.max(),
    "wide windows": lambda x: functional.max_pool1d(x[None, None], x.numel() // 2).sum(),
    "running windows": lambda x: functional.max_pool1d(x[None, None, :20_000], 4001, 1).sum(),
}


def zeros(n):
    return torch.zeros(n, dtype=D, requires_grad=True)


@pytest.mark.parametrize("name", EQUAL)
def test_many_equal_entries(name):
    f = EQUAL[name]
    report = clarke.check(f, (zeros(100_000),), seconds=2)
    assert report.verdict in (Verdict.UNDECIDED, Verdict.BOULIGAND, Verdict.CLARKE)
    if report.verdict is Verdict.UNDECIDED:
        assert report.out_of_time or "no complete list of pieces" in report.reason


def test_a_list_that_is_left_out_vouches_for_nothing():
    with pytest.raises(UnsupportedError, match="no complete list of pieces"):
        clarke.grad(EQUAL["cummax"], (zeros(100_000),))


@pytest.mark.parametrize("width", [2, 127, 128, 255, 256, 257, 513])
def test_all_ties_of_a_wide_window_are_counted(width):
    report = clarke.check(
        lambda x: functional.max_pool1d(x[None, None], width).sum(), (zeros(600),)
    )
    assert report.verdict is Verdict.BOULIGAND
    assert sum(k.touched for k in report.kinks) == 600 // width
    with clarke.audit(lambda _: None) as watch:
        functional.max_pool1d(zeros(600)[None, None], width).sum().backward()
    assert watch.steps[0].verdict is not Verdict.SMOOTH


@pytest.mark.parametrize("name", ["cummax", "running windows"])
def test_windows_are_opened_in_parts(name, monkeypatch):
    """Where fewer are listed at once, the same ties are found."""
    f = {
        "cummax": lambda x: (x.cummax(0).values * torch.arange(30)).sum(),
        "running windows": lambda x: functional.max_pool1d(x[None, None], 4, 1, 2).sum(),
    }[name]
    whole = clarke.check(f, (zeros(30),))
    monkeypatch.setattr(windows, "MANY_MEMBERS", 200)
    parts = clarke.check(f, (zeros(30),))
    assert parts.verdict is whole.verdict
    assert [k.touched for k in parts.kinks] == [k.touched for k in whole.kinks]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 37.25 GiB."),
    ],
)
def test_an_allocation_that_fails_ends_undecided(monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr("clarke.decide.ladder.find_relevant", failing)
    report = clarke.check(lambda x: x.relu().sum(), (zeros(3),))
    assert report.verdict is Verdict.UNDECIDED
    assert "not enough memory to analyse this program" in report.reason
    with clarke.audit(lambda _: None, settings=clarke.Settings(quick=False)) as watch:
        zeros(3).abs().sum().backward()
    assert watch.steps[0].verdict is Verdict.UNDECIDED
    assert "not enough memory" in watch.steps[0].reason


def test_other_failures_are_no_lack_of_memory():
    @within_memory
    def failing(error):
        raise error

    with pytest.raises(RuntimeError, match="shape"):
        failing(RuntimeError("shape mismatch"))
    with pytest.raises(OutOfMemoryError) as caught:
        failing(MemoryError())
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
