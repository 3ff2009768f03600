"""Capacity: cores and memory this process may use, after CPU affinity and cgroup limits.

psutil and the standard library report the host. In a container the truth is in the cgroup files,
and the limit that counts may stand on any ancestor, so each question walks all the way up. Limits
are read anew each time, for they may be changed while we run; only the place of the groups is
looked up once. Whatever cannot be read is done without: in the end the host's figures remain.

Memory of a group counts as used unless the kernel gives it back on demand::

    used = usage - (active_file + inactive_file - dirty - writeback) - slab_reclaimable / 2

The kernel reckons MemAvailable of /proc/meminfo likewise: the file pages on its lists, and at least
half of the reclaimable slab (Documentation/filesystems/proc.rst). By its documentation of
``memory.stat`` (admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/memory.rst), pages of shmem and
tmpfs are on the lists of anonymous memory and locked ones on the unevictable list, so both count as
used. Dirty pages, and those being written back, must be written first, so they count, too. Version
1 does not tell how much of the slab is reclaimable: there all of it counts.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import psutil

from pysplash.log import logger

from .footprint import UNREADABLE

PROC_CGROUP = Path("/proc/self/cgroup")
PROC_PRESSURE = Path("/proc/pressure/memory")
CGROUP_ROOT = Path("/sys/fs/cgroup")

_log = logger("capacity")


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes in use, and the bytes there are to use."""

    used: int
    total: int

    @property
    def percent(self) -> float:
        """Per cent in use; a limit of nothing is full."""
        return 100.0 * self.used / self.total if self.total > 0 else 100.0

    @property
    def headroom(self) -> int:
        """Bytes left; negative when over."""
        return self.total - self.used


class CpuTimes(Protocol):
    """Seconds one CPU spent in each way since boot, as psutil gives them."""

    @property
    def idle(self) -> float:
        """Seconds spent on nothing."""

    def __iter__(self) -> Iterator[float]:
        """Yield the seconds of every way, `idle` included."""


#: tells the CPUs a process may run on, where the system can tell
_AFFINITY: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)


def allowed_cpus(
    affinity: Callable[[int], set[int]] | None = _AFFINITY,
) -> Collection[int]:
    """Numbers of the CPUs this process may run on; all of them where it cannot be asked."""
    if affinity is not None:
        with contextlib.suppress(OSError):
            return affinity(0)
    return range(os.cpu_count() or 1)


def host_cpu_times(
    read: Callable[..., Sequence[CpuTimes]] = psutil.cpu_times,
) -> Sequence[CpuTimes]:
    """Times of each CPU of the host, in the order of their numbers; none where they are hidden."""
    try:
        return read(percpu=True)
    except (IndexError, TypeError, *UNREADABLE):
        return ()


def host_memory(read: Callable[[], Any] = psutil.virtual_memory) -> MemoryUse:
    """Memory of the host, what the kernel could free at once counted as free.

    Where /proc/meminfo is hidden, cache counts as used: sysconf(3) tells no more.
    """
    try:
        memory = read()
    except (KeyError, *UNREADABLE):
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (os.sysconf(name) * page for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        return MemoryUse(total - free, total)
    return MemoryUse(memory.total - memory.available, memory.total)


def host_swaps(read: Callable[[], Any] = psutil.swap_memory) -> tuple[float, float]:
    """Bytes ever swapped in and out; 0 where they are not counted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no /proc/vmstat
            swap = read()
    except (RuntimeError, *UNREADABLE):
        return 0.0, 0.0
    return float(swap.sin), float(swap.sout)


def busy_time(times: CpuTimes) -> float:
    """Seconds *times* spent working; waiting for a disk counts as idle, guests as user time."""
    apart = ("iowait", "guest", "guest_nice")
    return sum(times) - times.idle - sum(getattr(times, name, 0.0) for name in apart)


class _Files:
    """Reads the kernel's small files; what cannot be read is None, and logged once."""

    def __init__(self) -> None:
        self._absent: set[Path] = set()
        self._reported: set[Path] = set()

    def text(self, path: Path) -> str | None:
        """Whole text of *path*; an absent file is not looked for again."""
        if path in self._absent:
            return None
        try:
            return path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                self._absent.add(path)
            self._report(path, error)
            return None

    def numbers(self, path: Path) -> list[int] | None:
        """Return the integers in *path*, or None where it holds anything else, such as ``max``."""
        text = self.text(path)
        try:
            return None if text is None else [int(word) for word in text.split()]
        except ValueError:
            return None

    def number(self, path: Path) -> int | None:
        """Return the one integer *path* begins with."""
        numbers = self.numbers(path)
        return numbers[0] if numbers else None

    def entries(self, path: Path) -> dict[str, int]:
        """Return the values in the lines ``key value`` of *path*."""
        pairs = (line.split() for line in (self.text(path) or "").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

    def stall(self, path: Path) -> float | None:
        """Return the seconds in which some process stalled, from a file of pressure."""
        for line in (self.text(path) or "").splitlines():
            kind, _, rest = line.partition(" ")
            total = rest.rpartition("total=")[2].strip()
            if kind == "some" and total.isdecimal():
                return int(total) / 1e6
        return None

    def _report(self, path: Path, error: OSError) -> None:
        if path not in self._reported:
            self._reported.add(path)
            _log.debug("cannot read %s: %s", path, error.strerror, extra={"action": "capacity"})


def _clean_pages(stat: dict[str, int], listed: str, unwritten: str) -> int:
    """Return the bytes of file pages that the kernel can drop without writing anything.

    *stat* is a ``memory.stat``; its names of lists begin with *listed*, those of pages not yet
    written with *unwritten*.
    """
    pages = sum(stat.get(f"{listed}{name}", 0) for name in ("active_file", "inactive_file"))
    return max(0, pages - sum(stat.get(f"{unwritten}{name}", 0) for name in ("dirty", "writeback")))


class _Group(Protocol):
    """One control group: the process's own, or one above it."""

    def quota(self) -> float | None:
        """Cores it may use; None: no quota."""

    def cpu_seconds(self) -> float | None:
        """CPU seconds used in it and below so far."""

    def memory(self, ceiling: int) -> MemoryUse | None:
        """Working set and limit; None: no limit below *ceiling* bytes."""

    def stalled(self) -> float | None:
        """Seconds so far in which some process of it waited for memory."""


@dataclass(frozen=True, slots=True)
class _Unified:
    """A group of cgroup version 2."""

    files: _Files
    directory: Path

    def quota(self) -> float | None:
        match self.files.numbers(self.directory / "cpu.max"):
            case [quota, period] if quota > 0 and period > 0:
                return quota / period
        return None

    def cpu_seconds(self) -> float | None:
        used = self.files.entries(self.directory / "cpu.stat").get("usage_usec")
        return None if used is None else used / 1e6

    def memory(self, ceiling: int) -> MemoryUse | None:
        # Above memory.high a group is not killed but slowed down until nothing moves.
        files = ("memory.max", "memory.high")
        limits = [self.files.number(self.directory / name) for name in files]
        limit = min((bytes_ for bytes_ in limits if bytes_ is not None), default=ceiling)
        if limit >= ceiling:
            return None
        used = self.files.number(self.directory / "memory.current")
        if used is None:
            return None
        stat = self.files.entries(self.directory / "memory.stat")
        given_back = _clean_pages(stat, "", "file_") + stat.get("slab_reclaimable", 0) // 2
        return MemoryUse(max(0, used - given_back), limit)

    def stalled(self) -> float | None:
        return self.files.stall(self.directory / "memory.pressure")


@dataclass(frozen=True, slots=True)
class _Legacy:
    """A group of one hierarchy of cgroup version 1; *accounts* is where its CPU use is kept."""

    files: _Files
    directory: Path
    accounts: Path

    def quota(self) -> float | None:
        quota = self.files.number(self.directory / "cpu.cfs_quota_us")
        period = self.files.number(self.directory / "cpu.cfs_period_us")
        return quota / period if quota and period and quota > 0 and period > 0 else None

    def cpu_seconds(self) -> float | None:
        used = self.files.number(self.directory / "cpuacct.usage")
        if used is None:
            used = self.files.number(self.accounts / "cpuacct.usage")
        return None if used is None else used / 1e9

    def memory(self, ceiling: int) -> MemoryUse | None:
        limit = self.files.number(self.directory / "memory.limit_in_bytes")
        if limit is None or limit >= ceiling:
            return None
        used = self.files.number(self.directory / "memory.usage_in_bytes")
        if used is None:
            return None
        stat = self.files.entries(self.directory / "memory.stat")
        return MemoryUse(max(0, used - _clean_pages(stat, "total_", "total_")), limit)

    def stalled(self) -> float | None:
        return None


def _upwards(path: str) -> list[PurePosixPath]:
    """Return *path* and all above it, relative to the root of its hierarchy."""
    own = PurePosixPath(path.lstrip("/"))
    # A group outside our cgroup namespace is shown as /../x: of it, only the root can be seen.
    return [PurePosixPath()] if ".." in own.parts else [own, *own.parents]


def _groups(files: _Files, proc_cgroup: Path, root: Path) -> Iterator[_Group]:
    """Yield every group the process is in that may limit its CPU or memory."""
    for line in (files.text(proc_cgroup) or "").splitlines():
        names, _, path = line.partition(":")[2].partition(":")
        if not names:
            pure = os.path.exists(root / "cgroup.controllers")
            for below in _upwards(path):
                yield _Unified(files, (root if pure else root / "unified") / below)
        for name in sorted({"cpu", "memory"} & set(names.split(","))):
            base = root / name if os.path.isdir(root / name) else root / names
            for below in _upwards(path):
                yield _Legacy(files, base / below, root / "cpuacct" / below)


class Host:
    """The cores and the memory this process may use, and how much of them is in use by anyone."""

    def __init__(
        self,
        *,
        proc_cgroup: Path = PROC_CGROUP,
        proc_pressure: Path = PROC_PRESSURE,
        cgroup_root: Path = CGROUP_ROOT,
        cpus: Callable[[], Collection[int]] = allowed_cpus,
        cpu_times: Callable[[], Sequence[CpuTimes]] = host_cpu_times,
        memory: Callable[[], MemoryUse] = host_memory,
        swaps: Callable[[], tuple[float, float]] = host_swaps,
    ) -> None:
        self._cpus = cpus
        self._cpu_times = cpu_times
        self._host_memory = memory
        self._swaps = swaps
        self._files = _Files()
        self._pressure = proc_pressure
        self._groups = tuple(_groups(self._files, proc_cgroup, cgroup_root))

    def cores(self) -> float:
        """Cores this process may use: the affinity, or the strictest quota if that is less."""
        return self._binding()[0]

    def busy_seconds(self) -> float:
        """CPU seconds used so far, by anyone, of what :meth:`cores` measures.

        Where a quota binds, this is what its group used; else what the allowed CPUs did.
        """
        group = self._binding()[1]
        used = group.cpu_seconds() if group else None
        return self._host_busy() if used is None else used

    def memory(self) -> MemoryUse:
        """Memory of the host or of the group with the least headroom, whichever is fuller."""
        host = self._host_memory()
        # Version 1 writes "no limit" as a huge number; a limit above the host's is none either.
        limited = [use for group in self._groups if (use := group.memory(host.total))]
        tightest = min(limited, key=lambda use: use.headroom, default=host)
        return max(host, tightest, key=lambda use: use.percent)

    def stalled_seconds(self) -> float | None:
        """Seconds so far in which some process waited for memory: of the own group, or anyone's.

        None where the kernel does not count them.
        """
        own = (group.stalled() for group in self._groups)
        found = next((seconds for seconds in own if seconds is not None), None)
        return self._files.stall(self._pressure) if found is None else found

    def swaps(self) -> tuple[float, float]:
        """Bytes that ever came back from swap, and went out to it."""
        return self._swaps()

    def _binding(self) -> tuple[float, _Group | None]:
        """Cores, and the group whose quota sets them; None: the affinity does."""
        cores: float = len(self._cpus()) or 1
        binding: _Group | None = None
        for group in self._groups:
            quota = group.quota()
            if quota is not None and quota < cores:
                cores, binding = quota, group
        return float(cores), binding

    def _host_busy(self) -> float:
        """Seconds the allowed CPUs have worked since boot."""
        busy = [busy_time(times) for times in self._cpu_times()]
        cpus = self._cpus()
        if max(cpus, default=0) < len(busy):
            return sum(busy[cpu] for cpu in cpus)
        # CPUs taken offline, or hidden by the container, make the list shorter than the numbers.
        return sum(busy) * len(cpus) / max(len(busy), 1)


#: the name by which programs outside know it
Machine = Host
