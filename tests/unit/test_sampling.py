"""Sampling: counters become rates over known intervals, and slow measurements keep a budget."""

from __future__ import annotations

import os
from collections import Counter
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from pysplash.host.sampling import MIN_INTERVAL, Sampler

MB = 1 << 20


class Memory(NamedTuple):
    used: int
    total: int


class Machine:
    """Two cores whose counter a test advances by hand."""

    capacity = 2.0
    busy = 1000.0
    reads = 0

    def cores(self) -> float:
        return self.capacity

    def busy_seconds(self) -> float:
        self.reads += 1
        return self.busy

    stalled: float | None = 5.0
    swapped = (0.0, 0.0)

    def memory(self) -> Memory:
        return Memory(6000 * MB, 8000 * MB)

    def stalled_seconds(self) -> float | None:
        return self.stalled

    def swaps(self) -> tuple[float, float]:
        return self.swapped


class CpuTimes(NamedTuple):
    user: float = 0.0
    system: float = 0.0
    children_user: float = 0.0
    children_system: float = 0.0


class Process:
    """One process: its counters, its size, and what reading them costs and raises."""

    def __init__(self, world: World, pid: int) -> None:
        self.world, self.pid = world, pid

    def cpu_times(self) -> CpuTimes:
        self.world.check(self.pid)
        return self.world.times.get(self.pid, CpuTimes())

    def memory_info(self) -> SimpleNamespace:
        self.world.check(self.pid)
        return SimpleNamespace(rss=self.world.resident.get(self.pid, 50 * MB))

    def memory_full_info(self) -> SimpleNamespace:
        self.world.now += self.world.pss_cost
        self.world.measured[self.pid] += 1
        self.world.check(self.pid)
        if self.pid in self.world.private:
            raise psutil.AccessDenied(self.pid)
        size = self.world.sizes.get(self.pid, 10 * MB)
        return SimpleNamespace(**{self.world.kind: size})


class World:
    """A clock, a machine and its processes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.machine = Machine()
        self.times: dict[int, CpuTimes] = {}
        self.sizes: dict[int, int] = {}
        self.resident: dict[int, int] = {}
        self.gone: set[int] = set()
        self.private: set[int] = set()
        self.opened: Counter[int] = Counter()
        self.measured: Counter[int] = Counter()
        self.pss_cost = 0.0
        self.kind = "pss"

    def sampler(self) -> Sampler:
        return Sampler(self.machine, processes=self.open, pss_budget=0.010, clock=lambda: self.now)

    def open(self, pid: int) -> Process:
        self.check(pid)
        self.opened[pid] += 1
        return Process(self, pid)

    def check(self, pid: int) -> None:
        if pid in self.gone:
            raise psutil.NoSuchProcess(pid)


@pytest.fixture
def world() -> World:
    """Return a world in which nothing has happened yet."""
    return World()


def test_cpu_is_the_advance_of_the_counter(world: World) -> None:
    """CPU is what was used since the last sample, in per cent of what could have been."""
    sampler = world.sampler()
    world.machine.busy += 1.0
    sample = sampler.sample(101.0, (), ())
    assert (sample.at, sample.interval, sample.capacity, sample.cpu) == (101.0, 1.0, 2.0, 50.0)
    world.machine.busy += 0.4
    assert sampler.sample(103.0, (), ()).cpu == pytest.approx(10.0)


def test_quick_samples_are_one(world: World) -> None:
    """Two samples in quick succession are the same one, and read no counter."""
    sampler = world.sampler()
    world.machine.busy += 1.0
    first = sampler.sample(101.0, (), ())
    world.machine.busy += 50.0
    reads = world.machine.reads
    assert sampler.sample(101.0 + MIN_INTERVAL / 2, [1], [1]) is first
    assert world.machine.reads == reads


def test_quick_samples_lose_no_time(world: World) -> None:
    """What is used between two quick samples is counted in the next real one."""
    sampler = world.sampler()
    sampler.sample(101.0, (), ())
    for tick in range(1, 10):
        world.machine.busy += 0.1
        sampler.sample(101.0 + tick * 0.02, (), ())
    world.machine.busy += 0.1
    assert sampler.sample(102.0, (), ()).cpu == pytest.approx(50.0)


def test_first_sample_needs_an_interval(world: World) -> None:
    """Right after the start nothing is known of the CPU, but memory is."""
    sampler = world.sampler()
    world.machine.busy += 50.0
    sample = sampler.sample(100.0 + MIN_INTERVAL / 2, (), ())
    assert (sample.cpu, sample.interval, sample.pool_cores, sample.pool_mem) == (0.0, 0.0, 0.0, 0)
    assert (sample.mem, sample.mem_used, sample.mem_total) == (75.0, 6000 * MB, 8000 * MB)


@pytest.mark.parametrize(("used", "cpu"), [(99.0, 100.0), (-5.0, 0.0)])
def test_cpu_stays_between_none_and_all(world: World, used: float, cpu: float) -> None:
    """A counter that jumps or falls back makes no CPU beyond 0 to 100 per cent."""
    sampler = world.sampler()
    world.machine.busy += used
    assert sampler.sample(101.0, (), ()).cpu == cpu


def test_changed_capacity_is_another_counter(world: World) -> None:
    """When quota or affinity change, the old and the new counter are not compared."""
    sampler = world.sampler()
    world.machine.busy += 1.0
    assert sampler.sample(101.0, (), ()).cpu == 50.0
    world.machine.capacity, world.machine.busy = 1.0, 3.0
    sample = sampler.sample(102.0, (), ())
    assert (sample.capacity, sample.cpu) == (1.0, 50.0)
    world.machine.busy += 0.25
    assert sampler.sample(103.0, (), ()).cpu == 25.0


def test_external_load_is_not_the_pools(world: World) -> None:
    """Of what the machine did, the pool's part is what its busy workers and their children did."""
    sampler = world.sampler()
    sampler.sample(101.0, [1, 2], [1, 2, 3])
    world.times = {
        1: CpuTimes(user=0.1, system=0.1, children_user=0.2, children_system=0.1),
        2: CpuTimes(user=0.25),
        3: CpuTimes(user=0.5),
    }
    world.machine.busy += 1.5
    sample = sampler.sample(102.0, [1, 2], [1, 2, 3])
    assert (sample.cpu, round(sample.pool_cores, 9)) == (75.0, 0.75)
    assert sampler.cores(1) == pytest.approx(0.5)
    assert sampler.cores(2) == pytest.approx(0.25)
    assert sampler.cores(3) is None


def test_a_busy_process_is_measured_from_its_first_reading(world: World) -> None:
    """What a process used before it was first seen busy is not charged to the interval."""
    sampler = world.sampler()
    world.times[1] = CpuTimes(user=500.0)
    assert sampler.sample(101.0, [1], [1]).pool_cores == 0.0
    assert sampler.cores(1) is None
    world.times[1] = CpuTimes(user=501.0)
    assert sampler.sample(103.0, [1], [1]).pool_cores == 0.5
    sampler.sample(104.0, [], [1])
    assert sampler.cores(1) is None


def test_a_reaped_child_uses_no_more_than_there_is(world: World) -> None:
    """A child's whole life, charged to its parent when reaped, is cut to the capacity."""
    sampler = world.sampler()
    sampler.sample(101.0, [1, 2], [1, 2])
    world.times = {1: CpuTimes(children_user=60.0), 2: CpuTimes(user=1.0)}
    assert sampler.sample(102.0, [1, 2], [1, 2]).pool_cores == 2.0
    assert sampler.cores(1) == 2.0


def test_pss_keeps_its_budget(world: World) -> None:
    """One sample measures what fits the budget, and the next goes on where it stopped."""
    world.pss_cost = 0.003
    sampler = world.sampler()
    pids = range(1, 9)
    for turn, measured in [(1, 3), (2, 6), (3, 8), (4, 8)]:
        start = world.now
        sampler.sample(100.0 + turn * 0.5, (), pids)
        assert world.now - start <= 0.010
        assert len(world.measured) == sum(world.measured.values()) == measured


def test_pss_makes_progress_beyond_its_budget(world: World) -> None:
    """Processes too large to measure within the budget are measured one at a time, in turn."""
    world.pss_cost = 0.5
    sampler = world.sampler()
    for turn in range(1, 7):
        sampler.sample(100.0 + turn * 6.0, (), [1, 2, 3])
        assert sum(world.measured.values()) == turn
    assert set(world.measured.values()) == {2}


def test_pss_is_renewed_oldest_first(world: World) -> None:
    """Figures are renewed once they are old, newcomers first, then by age."""
    world.pss_cost = 0.006
    sampler = world.sampler()
    history = []
    for now, alive in [(1, 2), (2, 2), (5.9, 2), (8, 3), (9, 3), (10, 3), (10.5, 3)]:
        sampler.sample(100.0 + now, (), range(1, alive + 1))
        history.append([world.measured[pid] for pid in (1, 2, 3)])
    assert history[:3] == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert history[3:] == [[1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 1]]


def test_unmeasured_processes_count_as_the_mean(world: World) -> None:
    """The pool's memory is what is known, and the mean of it for each process not yet known."""
    world.pss_cost = 0.004
    world.sizes = {1: 20 * MB, 2: 40 * MB}
    sampler = world.sampler()
    assert sampler.sample(101.0, (), [1, 2, 3, 4]).pool_mem == (20 + 40 + 30 + 30) * MB
    assert (sampler.pss(1), sampler.pss(3)) == (20 * MB, None)


def test_the_nearest_thing_to_pss_will_do(world: World) -> None:
    """Where there is no PSS, the unique set size is taken, and where that is denied, the RSS."""
    world.kind = "uss"
    world.private = {2}
    world.sizes = {1: 7 * MB}
    sampler = world.sampler()
    assert sampler.sample(101.0, (), [1, 2]).pool_mem == 57 * MB


def test_vanished_processes_are_done_without(world: World) -> None:
    """A process that is gone uses nothing, and disturbs the measuring of no other."""
    sampler = world.sampler()
    sampler.sample(101.0, [1, 2], [1, 2, 3])
    world.times = {1: CpuTimes(user=1.0), 2: CpuTimes(user=1.0)}
    world.gone = {1, 3, 4}
    sample = sampler.sample(107.0, [1, 2, 4], [1, 2, 3, 4])
    assert sample.pool_cores == pytest.approx(1 / 6)
    assert (sampler.cores(1), sampler.cores(4), sampler.pss(3)) == (None, None, None)
    assert sample.pool_mem == 10 * MB


def test_a_pid_that_left_is_forgotten(world: World) -> None:
    """Nothing of a process outlives it: a pid used again is a new process."""
    sampler = world.sampler()
    for now in (101.0, 102.0):
        sampler.sample(now, [1], [1])
    assert world.opened[1] == 1
    sampler.sample(103.0, [], [])
    assert (sampler.cores(1), sampler.pss(1)) == (None, None)
    world.times[1] = CpuTimes(user=90.0)
    sampler.sample(104.0, [1], [1])
    assert world.opened[1] == 2
    assert sampler.cores(1) is None


def test_idle_processes_cost_nothing_between_their_turns(world: World) -> None:
    """Once measured, an idle process is neither opened nor read until its figure is old."""
    sampler = world.sampler()
    sampler.sample(101.0, (), range(128))
    sampler.sample(102.0, (), range(128))
    assert set(world.measured.values()) == set(world.opened.values()) == {1}


def test_a_process_that_stays_idle_is_measured_ever_less_often(world: World) -> None:
    """After 5, 10, 20, 40 and then every 60 s; each 5 s again from when it works."""
    sampler = world.sampler()
    measured, before = [], 0
    for second in range(1, 300):
        sampler.sample(100.0 + second, (1,) if second >= 200 else (), (1,))
        if world.measured[1] != before:
            before = world.measured[1]
            measured.append(second)
    idle = [second for second in measured if second < 200]
    assert idle == [1, 6, 16, 36, 76, 136, 196]
    assert [second for second in measured if second >= 200][:3] == [201, 206, 211]


def test_a_real_process_can_be_measured() -> None:
    """The real psutil gives this very process a size and some CPU time."""
    world = World()
    sampler = Sampler(world.machine, clock=lambda: world.now)
    me = os.getpid()
    sampler.sample(101.0, [me], [me])
    sample = sampler.sample(102.0, [me], [me])
    assert MB < sample.pool_mem == sampler.pss(me)
    assert sampler.cores(me) is not None


def test_growth_between_two_figures_is_read_off_the_resident_set(world: World) -> None:
    """A busy process that takes 300 MB is seen at once, before the slow figure is taken anew."""
    sampler = world.sampler()
    sampler.sample(101.0, [7], [7])
    world.resident[7] = 350 * MB
    sample = sampler.sample(102.0, [7], [7])

    assert world.measured[7] == 1
    assert sampler.pss(7) == 310 * MB
    assert sample.pool_mem == 310 * MB


def test_waiting_for_memory_is_a_part_of_the_interval(world: World) -> None:
    """Half a second of stalls in two seconds is 25 %; where nobody counts them, nothing is said."""
    sampler = world.sampler()
    world.machine.stalled = 5.5
    assert sampler.sample(102.0, (), ()).stalled == pytest.approx(25.0)
    world.machine.stalled = None
    assert sampler.sample(103.0, (), ()).stalled is None
    world.machine.stalled = 9.0
    assert sampler.sample(104.0, (), ()).stalled is None


@pytest.mark.parametrize(
    ("back", "out", "swapping"),
    [(0.0, 0.0, False), (0.0, 1.0, False), (1.0, 0.0, False), (1.0, 1.0, True)],
)
def test_swapping_is_both_ways(world: World, back: float, out: float, swapping: bool) -> None:
    """Pages that only leave were not needed; pages that leave and come back were."""
    sampler = world.sampler()
    world.machine.swapped = (back, out)

    assert sampler.sample(101.0, (), ()).swapping is swapping
    assert sampler.sample(102.0, (), ()).swapping is False
