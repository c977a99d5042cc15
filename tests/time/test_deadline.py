"""`Deadline`: what it grants, what it says, and that it ends with its call."""

import math

import pytest

from clarke.deadline import UNLIMITED, Deadline, rung
from clarke.errors import BudgetError, InputError, OutOfTimeError


class Clock:
    """A clock that only its owner moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_it_passes_when_its_time_is_over_and_not_before(clock):
    deadline = Deadline.after(2, clock)
    clock.now += 1.5
    assert not deadline.passed
    assert deadline.left == 0.5
    deadline.ask("adding")
    clock.now += 0.5
    assert deadline.passed
    with pytest.raises(
        OutOfTimeError, match=r"Time ran out \(2 s\) while adding\. Grant more with"
    ):
        deadline.ask("adding")


def test_running_out_of_time_is_running_out_of_a_budget(clock):
    deadline = Deadline.after(1, clock)
    clock.now += 2
    with pytest.raises(BudgetError):
        deadline.ask("adding")


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_a_limit_is_a_positive_number(wrong):
    with pytest.raises(InputError, match=r"positive number of seconds, not .*None stands for no"):
        Deadline.after(wrong)


def test_without_a_limit_it_never_passes(clock):
    deadline = Deadline.after(None, clock)
    clock.now += 1e9
    deadline.ask("adding")
    deadline.afford(1e9, "adding")
    assert deadline.left == UNLIMITED.left == math.inf
    assert deadline.part(0.5).left == math.inf


def test_it_names_what_is_under_way_and_what_was_done_before(clock):
    deadline = Deadline.after(3, clock)
    with deadline.during("looking"):
        clock.now += 1
    with deadline.during("thinking"):  # too short to be told
        pass
    with deadline.during("counting"), deadline.during("sorting"):
        clock.now += 5
        with pytest.raises(OutOfTimeError) as error:
            deadline.ask("{} of {} numbers", 3, 7)
    assert str(error.value) == (
        "Time ran out (3 s) while counting: sorting: 3 of 7 numbers. Before that: looking (1 s). "
        "Grant more with seconds=, or judge a smaller part of the program."
    )


def test_text_with_braces_is_taken_as_it_is(clock):
    deadline = Deadline.after(1, clock)
    clock.now += 1
    with pytest.raises(OutOfTimeError, match=r"while reading \{x\}"):
        deadline.ask("reading {x}")


def test_what_cannot_be_afforded_is_not_begun(clock):
    deadline = Deadline.after(2, clock)
    deadline.afford(1.9, "multiplying")
    with pytest.raises(OutOfTimeError, match=r"while multiplying \(about 4 s more, 2 s left\)"):
        deadline.afford(4, "multiplying")


def test_a_part_ends_first_and_speaks_of_the_whole(clock):
    deadline = Deadline.after(8, clock)
    clock.now += 4
    part = deadline.part(0.25)
    clock.now += 1
    assert part.passed
    assert not deadline.passed
    with deadline.during("searching"), pytest.raises(OutOfTimeError, match=r"\(8 s\) while search"):
        part.ask()


def test_behind_the_call_there_is_no_limit(clock):
    with Deadline.after(2, clock) as deadline:
        part = deadline.part(0.5)
        clock.now += 3
        assert part.passed
        assert deadline.passed
    assert not deadline.passed
    assert not part.passed
    part.ask("verifying")


def test_what_happens_once_in_a_process_does_not_count(clock):
    deadline = Deadline.after(2, clock)
    part = deadline.part(0.5)
    with part.paused():
        clock.now += 10
    assert part.left == pytest.approx(1)
    assert deadline.left == pytest.approx(2)


def test_a_rung_asks_and_gives_its_name(clock):
    class Carrier:
        deadline = Deadline.after(1, clock)

    @rung("climbing")
    def climb(carrier, height):
        carrier.deadline.ask("step {}", height)
        return height

    assert climb(Carrier, 3) == 3
    clock.now += 2
    with pytest.raises(OutOfTimeError, match="while climbing"):
        climb(Carrier, 3)
