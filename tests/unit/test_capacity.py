"""Capacity: what a process may use, read from made-up cgroup trees."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from pysplash.host.capacity import CpuTimes, Host, MemoryUse, busy_time

GB = 1 << 30
UNLIMITED = 9223372036854771712


class Times(NamedTuple):
    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    irq: float = 0.0
    softirq: float = 0.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0


class MacTimes(NamedTuple):
    user: float
    nice: float
    system: float
    idle: float


class Tree:
    """A fake machine: four CPUs, 16 GB half full, and the cgroup files it is given."""

    def __init__(self, tmp_path: Path, proc: str = "0::/\n", *, unified: bool = True) -> None:
        self.root = tmp_path / "cgroup"
        self.proc = tmp_path / "proc"
        self.cpus: Sequence[int] = range(4)
        self.times: Sequence[CpuTimes] = [Times(user=10.0)] * 4
        self.memory = MemoryUse(8 * GB, 16 * GB)
        self.proc.write_text(proc)
        if unified:
            self.write("cgroup.controllers", "cpu memory")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text + "\n")

    def machine(self) -> Host:
        return Host(
            proc_cgroup=self.proc,
            proc_pressure=self.root.parent / "pressure",
            cgroup_root=self.root,
            cpus=lambda: self.cpus,
            cpu_times=lambda: self.times,
            memory=lambda: self.memory,
        )


def test_without_cgroup_files_the_host_is_what_there_is(tmp_path: Path) -> None:
    """Where no cgroup file exists, capacity is the affinity and the host's memory."""
    tree = Tree(tmp_path, unified=False)
    tree.proc.unlink()
    machine = tree.machine()
    assert machine.cores() == 4.0
    assert machine.memory() == MemoryUse(8 * GB, 16 * GB)
    assert machine.busy_seconds() == 40.0


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("200000 100000", 2.0),
        ("150000 100000", 1.5),
        ("25000 50000", 0.5),
        ("800000 100000", 4.0),
        ("max 100000", 4.0),
        ("nonsense", 4.0),
        ("", 4.0),
        ("100000 0", 4.0),
    ],
)
def test_quota_below_affinity_binds(tmp_path: Path, cpu_max: str, cores: float) -> None:
    """A quota below the affinity is the capacity, fraction kept; any other changes nothing."""
    tree = Tree(tmp_path)
    tree.write("cpu.max", cpu_max)
    assert tree.machine().cores() == cores


def test_strictest_quota_of_all_ancestors_binds(tmp_path: Path) -> None:
    """The smallest quota counts, wherever above the process it stands, and so does its use."""
    tree = Tree(tmp_path, "0::/a/b/c\n")
    for group, quota, used in [("a", "max", 9), ("a/b", "150000", 5), ("a/b/c", "300000", 2)]:
        tree.write(f"{group}/cpu.max", f"{quota} 100000")
        tree.write(f"{group}/cpu.stat", f"usage_usec {used}000000\nuser_usec 1\nsystem_usec 1")
    machine = tree.machine()
    assert machine.cores() == 1.5
    assert machine.busy_seconds() == 5.0


def test_affinity_below_quota_binds(tmp_path: Path) -> None:
    """Where the affinity is stricter, the allowed CPUs are measured, and only those."""
    tree = Tree(tmp_path)
    tree.write("cpu.max", "300000 100000")
    tree.write("cpu.stat", "usage_usec 77000000")
    tree.cpus = [1, 3]
    tree.times = [Times(user=n) for n in (100.0, 1.0, 200.0, 2.0)]
    machine = tree.machine()
    assert machine.cores() == 2.0
    assert machine.busy_seconds() == 3.0


def test_quota_without_account_is_measured_on_the_host(tmp_path: Path) -> None:
    """A quota whose use cannot be read still limits; the host's counters stand in."""
    tree = Tree(tmp_path)
    tree.write("cpu.max", "100000 100000")
    machine = tree.machine()
    assert machine.cores() == 1.0
    assert machine.busy_seconds() == 40.0


def test_changed_quota_is_seen(tmp_path: Path) -> None:
    """A quota changed while we run counts at once."""
    tree = Tree(tmp_path)
    tree.write("cpu.max", "max 100000")
    machine = tree.machine()
    assert machine.cores() == 4.0
    tree.write("cpu.max", "250000 100000")
    assert machine.cores() == 2.5


def test_waiting_is_idle_and_guests_count_once() -> None:
    """Waiting for a disk is idle time, and a guest's time is already in user and nice time."""
    times = Times(10, 20, 4, idle=1000, iowait=500, irq=8, softirq=16, steal=32)
    assert busy_time(times) == 10 + 20 + 4 + 8 + 16 + 32
    assert busy_time(times._replace(iowait=900.0)) == busy_time(times)
    assert busy_time(times._replace(guest=9.0, guest_nice=19.0)) == busy_time(times)
    assert busy_time(MacTimes(1.0, 2.0, 4.0, 1000.0)) == 7.0


def test_hidden_cpus_are_measured_in_proportion(tmp_path: Path) -> None:
    """Where the list of CPUs is shorter than the numbers allowed, all CPUs stand for ours."""
    tree = Tree(tmp_path)
    tree.cpus = [6, 7]
    assert tree.machine().busy_seconds() == 20.0


MB = 1 << 20
#: 384 MB in use, of which 330 are files that were read twice
STATS = [
    ({"active_file": 330}, 54),
    ({"inactive_file": 300, "active_file": 30}, 54),
    ({"active_file": 330, "dirty": 10, "writeback": 20}, 84),
    ({"shmem": 200, "active_anon": 200}, 384),
    ({"file": 330, "unevictable": 330}, 384),
    ({"inactive_file": 5, "dirty": 9}, 384),
    ({"active_file": 900}, 0),
]
STAT_IDS = ["read twice", "read once", "unwritten", "tmpfs", "locked", "all unwritten", "garbage"]


@pytest.mark.parametrize(("stat", "used"), STATS, ids=STAT_IDS)
def test_files_that_can_be_dropped_are_no_use(
    tmp_path: Path, stat: dict[str, int], used: int
) -> None:
    """Clean file pages do not count, active or not, but tmpfs, locked and unwritten pages do."""
    tree = Tree(tmp_path)
    named = {"dirty": "file_dirty", "writeback": "file_writeback"}
    lines = [f"{named.get(name, name)} {size * MB}" for name, size in stat.items()]
    tree.write("memory.stat", "\n".join(lines))
    tree.write("memory.current", str(384 * MB))
    tree.memory = MemoryUse(0, 16 * GB)
    for name in ("memory.max", "memory.high"):
        tree.write("memory.max", "max")
        tree.write(name, str(400 * MB))
        assert tree.machine().memory() == (MemoryUse(used * MB, 400 * MB) if used else tree.memory)


@pytest.mark.parametrize(("stat", "used"), STATS, ids=STAT_IDS)
def test_they_are_none_in_version_one(tmp_path: Path, stat: dict[str, int], used: int) -> None:
    """So it is by version 1, from the figures that include the groups below."""
    tree = Tree(tmp_path, "4:memory:/\n", unified=False)
    lines = [f"{name} {999 * MB}\ntotal_{name} {size * MB}" for name, size in stat.items()]
    tree.write("memory/memory.stat", "\n".join(lines))
    tree.write("memory/memory.usage_in_bytes", str(384 * MB))
    tree.write("memory/memory.limit_in_bytes", str(400 * MB))
    tree.memory = MemoryUse(0, 16 * GB)
    assert tree.machine().memory() == (MemoryUse(used * MB, 400 * MB) if used else tree.memory)


def test_half_of_the_slab_that_may_be_reclaimed_is_no_use(tmp_path: Path) -> None:
    """Dentries and inodes go at need, but for those that are in use."""
    tree = Tree(tmp_path)
    tree.write("memory.max", str(400 * MB))
    tree.write("memory.current", str(384 * MB))
    tree.write("memory.stat", f"slab_reclaimable {60 * MB}\nslab_unreclaimable {70 * MB}")
    assert tree.machine().memory() == MemoryUse(354 * MB, 400 * MB)


def test_cache_of_an_ancestor_is_no_use_either(tmp_path: Path) -> None:
    """The walk upwards takes off each group its own cache."""
    tree = Tree(tmp_path, "0::/a/b\n")
    for group, limit, used, cache in [("a", 8 * GB, 15 * GB // 2, 6 * GB), ("a/b", 2 * GB, GB, 0)]:
        tree.write(f"{group}/memory.max", str(limit))
        tree.write(f"{group}/memory.current", str(used))
        tree.write(f"{group}/memory.stat", f"active_file {cache}")
    tree.memory = MemoryUse(0, 16 * GB)
    assert tree.machine().memory() == MemoryUse(GB, 2 * GB)


def test_ancestor_with_least_headroom_binds(tmp_path: Path) -> None:
    """Of several limits, the one with the fewest bytes left counts, not the smallest."""
    tree = Tree(tmp_path, "0::/a/b\n")
    for group, limit, used in [("a", 6 * GB, 6 * GB - 100), ("a/b", 2 * GB, GB)]:
        tree.write(f"{group}/memory.max", str(limit))
        tree.write(f"{group}/memory.current", str(used))
    assert tree.machine().memory() == MemoryUse(6 * GB - 100, 6 * GB)


@pytest.mark.parametrize(
    ("limit", "used"),
    [("max", GB), (str(32 * GB), 31 * GB), (str(4 * GB), GB)],
    ids=["max", "more than the host has", "emptier than the host"],
)
def test_the_fuller_of_host_and_group_counts(tmp_path: Path, limit: str, used: int) -> None:
    """The host counts where no limit binds, and where it is fuller than the limit."""
    tree = Tree(tmp_path)
    tree.write("memory.max", limit)
    tree.write("memory.current", str(used))
    assert tree.machine().memory() == tree.memory


def test_a_limit_of_nothing_is_full() -> None:
    """A memory limit of zero is full rather than an error."""
    assert MemoryUse(0, 0).percent == 100.0


V1 = "9:name=systemd:/\n4:memory:/pod/x\n2:cpu,cpuacct:/pod/x\n1:cpuset:/\n0::/\n"


def test_version_one_is_read_too(tmp_path: Path) -> None:
    """Version 1 quotas, CPU accounts and memory limits mean what those of version 2 do."""
    tree = Tree(tmp_path, V1, unified=False)
    tree.write("cpu,cpuacct/pod/cpu.cfs_quota_us", "150000")
    tree.write("cpu,cpuacct/pod/cpu.cfs_period_us", "100000")
    tree.write("cpu,cpuacct/pod/cpuacct.usage", "12000000000")
    tree.write("cpu,cpuacct/pod/x/cpu.cfs_quota_us", "-1")
    tree.write("cpu,cpuacct/pod/x/cpu.cfs_period_us", "100000")
    tree.write("memory/pod/x/memory.limit_in_bytes", str(UNLIMITED))
    tree.write("memory/pod/x/memory.usage_in_bytes", str(GB))
    tree.write("memory/pod/memory.limit_in_bytes", str(2 * GB))
    tree.write("memory/pod/memory.usage_in_bytes", str(2 * GB))
    tree.write("memory/pod/memory.stat", f"inactive_file 0\ntotal_inactive_file {GB // 4}")
    machine = tree.machine()
    assert machine.cores() == 1.5
    assert machine.busy_seconds() == 12.0
    assert machine.memory() == MemoryUse(7 * GB // 4, 2 * GB)


def test_version_one_accounts_may_be_mounted_apart(tmp_path: Path) -> None:
    """Where cpu and cpuacct are two hierarchies, the same path in the other holds the use."""
    tree = Tree(tmp_path, "2:cpuacct:/x\n1:cpu:/x\n", unified=False)
    tree.write("cpu/x/cpu.cfs_quota_us", "50000")
    tree.write("cpu/x/cpu.cfs_period_us", "100000")
    tree.write("cpuacct/x/cpuacct.usage", "3000000000")
    machine = tree.machine()
    assert (machine.cores(), machine.busy_seconds()) == (0.5, 3.0)


def test_version_one_without_limit_leaves_the_host(tmp_path: Path) -> None:
    """Version 1's huge number for "no limit" is none."""
    tree = Tree(tmp_path, V1, unified=False)
    tree.write("memory/memory.limit_in_bytes", str(UNLIMITED))
    tree.write("memory/memory.usage_in_bytes", str(UNLIMITED - 1))
    assert tree.machine().memory() == tree.memory


def test_hybrid_tree_keeps_version_two_apart(tmp_path: Path) -> None:
    """Beside version 1 hierarchies, version 2 is mounted at ``unified``."""
    tree = Tree(tmp_path, V1, unified=False)
    tree.write("unified/cpu.max", "100000 100000")
    assert tree.machine().cores() == 1.0


def test_paths_of_the_host_lead_to_the_mounted_root(tmp_path: Path) -> None:
    """A container that sees the host's group names finds its limits at the root of its mount."""
    tree = Tree(tmp_path, "0::/docker/0123abcd\n")
    tree.write("cpu.max", "100000 100000")
    assert tree.machine().cores() == 1.0


def test_a_group_outside_the_namespace_is_not_searched(tmp_path: Path) -> None:
    """A path that leaves the cgroup namespace never leads out of the cgroup mount."""
    tree = Tree(tmp_path, "0::/../x\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "cpu.max").write_text("100000 100000\n")
    assert tree.machine().cores() == 4.0


def test_missing_files_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each missing or unreadable file is told once, at debug, however often it is wanted."""
    caplog.set_level(logging.DEBUG, logger="pysplash")
    tree = Tree(tmp_path)
    (tree.root / "cpu.max").mkdir()
    machine = tree.machine()
    for _ in range(3):
        machine.cores()
        machine.memory()
    assert [getattr(record, "action", None) for record in caplog.records] == ["capacity"] * 3
    told = sorted(record.getMessage() for record in caplog.records)
    assert ["cpu.max" in told[0], "memory.high" in told[1], "memory.max" in told[2]] == [True] * 3


def test_the_machine_under_test_makes_sense() -> None:
    """Here and now there is at least a part of a core, some memory, and some time was used."""
    machine = Host()
    assert machine.cores() > 0
    assert 0 < machine.memory().used <= machine.memory().total
    assert machine.busy_seconds() > 0


@pytest.mark.parametrize(
    ("most", "high", "limit"),
    [("max", "2", 2), ("3", "2", 2), ("2", "3", 2), ("2", "max", 2), ("junk", "2", 2)],
)
def test_memory_high_is_a_limit_too(tmp_path: Path, most: str, high: str, limit: int) -> None:
    """Above memory.high everything is slowed down, so the lower of the two counts."""
    tree = Tree(tmp_path)
    for name, size in (("max", most), ("high", high)):
        text = str(int(size) * GB) if size.isdecimal() else size
        tree.write(f"memory.{name}", text)
    tree.write("memory.current", str(GB + GB // 2))
    assert tree.machine().memory() == MemoryUse(GB + GB // 2, limit * GB)


PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 total=7"


def test_stalls_of_the_own_group_come_first(tmp_path: Path) -> None:
    """Where the group has a file of pressure it counts; else the whole machine's does."""
    tree = Tree(tmp_path, "0::/a\n")
    (tmp_path / "pressure").write_text(PRESSURE.format(9000000))
    assert tree.machine().stalled_seconds() == 9.0
    tree.write("a/memory.pressure", PRESSURE.format(2500000))
    assert tree.machine().stalled_seconds() == 2.5


@pytest.mark.parametrize("text", ["", "some", "some total=x", "full total=3", "\0\0"])
def test_garbage_for_pressure_is_done_without(tmp_path: Path, text: str) -> None:
    """A kernel without these counters, or with strange ones, has none."""
    tree = Tree(tmp_path)
    assert tree.machine().stalled_seconds() is None
    (tmp_path / "pressure").write_text(text)
    assert tree.machine().stalled_seconds() is None
