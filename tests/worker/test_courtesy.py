"""The worker rests while predictions are in work, between two operations, and never for good."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from worker.courtesy import LOOK_SECONDS, Courtesy


@dataclass
class Street:
    """Traffic that ends after so many looks, the time that a rest takes, and what the worker did meanwhile."""

    looks: int = 0
    recent: bool = True
    now: float = 100.0
    worked: float = 0.0
    rests: list[float] = field(default_factory=list)
    each_look: float = 0.0  # seconds of the processor

    @property
    def in_work(self) -> int:
        self.looks -= 1
        return int(self.looks >= 0)

    def work(self, seconds: float) -> None:
        self.worked += seconds
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds
        self.work(self.each_look)

    def courtesy(self, most: float = 2.0) -> Courtesy:
        return Courtesy(self, most=most, worked=lambda: self.worked, clock=lambda: self.now, sleep=self.sleep)


def test_it_rests_until_the_predictions_are_answered() -> None:
    street = Street()
    with street.courtesy() as courtesy:
        street.work(1.0)
        street.looks = 5
        courtesy.rest()
        assert len(street.rests) == 4
        courtesy.rest()
        assert len(street.rests) == 4


def test_it_rests_at_most_so_many_times_as_long_as_it_worked() -> None:
    street = Street()
    with street.courtesy(most=3.0) as courtesy:
        for _ in range(10):
            street.work(10 * LOOK_SECONDS)
            street.looks = 1_000_000
            courtesy.rest()
        assert sum(street.rests) == pytest.approx(300 * LOOK_SECONDS, abs=2 * LOOK_SECONDS)


def test_what_the_scheduler_took_from_it_counts_as_rest() -> None:
    street = Street()
    with street.courtesy(most=2.0) as courtesy:
        street.work(1.0)
        street.now += 1.5  # others were on the processor
        street.looks = 1_000_000
        courtesy.rest()
        assert sum(street.rests) == pytest.approx(0.5, abs=2 * LOOK_SECONDS)


def test_to_look_is_no_work() -> None:
    street = Street(each_look=LOOK_SECONDS / 10)
    with street.courtesy(most=2.0) as courtesy:
        for _ in range(10):
            street.work(100 * LOOK_SECONDS)
            street.looks = 1_000_000
            courtesy.rest()
        assert sum(street.rests) == pytest.approx(2000 * LOOK_SECONDS / 1.1, rel=0.05)


def test_work_before_the_update_is_no_credit() -> None:
    street = Street(worked=1000.0, looks=1_000_000)
    with street.courtesy() as courtesy:
        courtesy.rest()
    assert street.rests == []


def test_it_stops_before_each_operation_of_a_step_backward_too() -> None:
    street = Street()
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    with street.courtesy():
        street.work(1.0)
        street.looks = 0
        loss = network(x).square().sum()
        forward = -street.looks
        loss.backward()
        assert forward >= 3
        assert -street.looks >= forward + 3
    before = street.looks
    network(x)
    assert street.looks == before, "after the block nobody looks"


def test_the_numbers_are_the_same_with_and_without() -> None:
    network, x = nn.Linear(4, 2), torch.randn(3, 4)
    network(x).square().sum().backward()
    assert network.weight.grad is not None
    plain = network.weight.grad.clone()
    network.zero_grad()
    with Street().courtesy():
        network(x).square().sum().backward()
    assert torch.equal(plain, network.weight.grad)


@pytest.mark.parametrize("why", ["no traffic", "a bound of zero"])
def test_operations_are_not_stopped_at_without_need(why: str) -> None:
    street = Street(recent=why != "no traffic")
    with street.courtesy(most=0.0 if why == "a bound of zero" else 2.0):
        before = street.looks
        torch.ones(2) + 1
        assert street.looks == before


def test_traffic_that_comes_later_is_noticed_between_two_steps() -> None:
    street = Street(recent=False)
    with street.courtesy() as courtesy:
        street.recent = True
        courtesy.look()
        before = street.looks
        torch.ones(2) + 1
        assert street.looks < before


def test_an_update_of_the_fast_lane_within_a_slow_one_leaves_its_rests_alone() -> None:
    street = Street()
    with street.courtesy() as courtesy:
        street.work(1.0)
        street.looks = 3
        courtesy.rest()
        rested = len(street.rests)
        with courtesy:
            torch.ones(2) + 1
        assert len(street.rests) == rested > 0
        before = street.looks
        torch.ones(2) + 1
        assert street.looks < before, "the slow one is still courteous"


@dataclass
class Crowd(Street):
    """So many predictions in work, until some time."""

    count: int = 2
    until: float = 0.0

    @property
    def in_work(self) -> int:
        return self.count if self.now < self.until else 1


@pytest.mark.parametrize(("count", "goes_on"), [(2, 103.2), (3, 103.4), (5, 103.8), (6, 104.0), (60, 104.0)])
def test_the_more_predictions_there_are_the_longer_it_waits_beyond_the_bound(count: int, goes_on: float) -> None:
    street = Crowd(count=count, until=1000.0)
    with street.courtesy(most=2.0) as courtesy:
        street.work(1.0)  # 101: by the bound it rests until 103
        courtesy.rest()
        assert street.now == pytest.approx(goes_on, abs=2 * LOOK_SECONDS)


def test_a_crowd_that_passed_beyond_the_bound_is_made_up_for() -> None:
    street = Crowd(count=6, until=104.5)
    with street.courtesy(most=2.0) as courtesy:
        street.work(1.0)
        courtesy.rest()  # until 104, a second beyond the bound
        street.work(0.5)  # 104.5: the crowd is gone, and by the bound there is no rest before 105
        courtesy.rest()
        assert street.now == pytest.approx(104.5, abs=2 * LOOK_SECONDS)


def test_outside_of_an_update_it_does_not_rest() -> None:
    street = Crowd(until=1000.0)
    courtesy = street.courtesy()
    courtesy.rest()
    with courtesy:
        pass
    before = street.now
    street.work(1.0)
    courtesy.rest()
    assert street.now == before + 1.0


def test_one_prediction_alone_does_not_hold_it_up_beyond_the_bound() -> None:
    street = Crowd(count=1, until=1000.0)
    with street.courtesy(most=2.0) as courtesy:
        street.work(1.0)
        courtesy.rest()
        assert street.now == pytest.approx(103.0, abs=2 * LOOK_SECONDS)
