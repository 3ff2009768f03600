"""What a kernel, a container or a sandbox may hide of /proc and /sys costs a figure, no pool."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest

from pysplash.host.capacity import (
    Host,
    MemoryUse,
    allowed_cpus,
    host_cpu_times,
    host_memory,
    host_swaps,
)
from pysplash.host.footprint import footprint, own_footprint
from pysplash.host.processes import thread_count
from pysplash.host.sampling import Sampler
from pysplash.worker.scoreboard import _anonymous_file

MB = 1 << 20
HIDDEN = [FileNotFoundError(2, "hidden"), PermissionError(13, "hidden"), psutil.AccessDenied(1)]


class Basic(NamedTuple):
    """What psutil returns for both where there is no smaps."""

    rss: int = 50 * MB


class Process:
    """A process of which *full* is told, and no CPU time if it is *mute*."""

    def __init__(self, full: Any, seconds: Any = 0.0) -> None:
        self.full = full
        self.seconds = seconds

    def cpu_times(self) -> SimpleNamespace:
        if isinstance(self.seconds, Exception):
            raise self.seconds
        zeros = dict.fromkeys(("system", "children_user", "children_system"), 0.0)
        return SimpleNamespace(user=self.seconds, **zeros)

    def memory_info(self) -> Basic:
        return Basic()

    def memory_full_info(self) -> Any:
        if isinstance(self.full, Exception):
            raise self.full
        return self.full


class Machine:
    """Two cores of which nothing is counted."""

    def cores(self) -> float:
        return 2.0

    def busy_seconds(self) -> float:
        return 0.0

    def memory(self) -> MemoryUse:
        return MemoryUse(6000 * MB, 8000 * MB)

    def stalled_seconds(self) -> None:
        return None

    def swaps(self) -> tuple[float, float]:
        return 0.0, 0.0


def raising(error: Exception) -> Any:
    """Return a function that raises *error*."""

    def read(*_: Any, **__: Any) -> Any:
        raise error

    return read


@pytest.mark.parametrize(
    ("full", "found"),
    [
        (Basic(), (50 * MB, "rss")),
        (SimpleNamespace(uss=7 * MB), (7 * MB, "uss")),
        (SimpleNamespace(uss=7 * MB, pss=9 * MB), (9 * MB, "pss")),
        (SimpleNamespace(uss=7 * MB, pss=0), (7 * MB, "uss")),
        (SimpleNamespace(uss=0, pss=0), (50 * MB, "rss")),
        *((error, (50 * MB, "rss")) for error in HIDDEN),
        (ValueError("half a line"), (50 * MB, "rss")),
    ],
    ids=["no smaps", "no pss", "all", "uss only", "zeros", "no file", "forbidden", "denied", "odd"],
)
def test_the_best_figure_there_is_will_do(full: Any, found: tuple[int, str]) -> None:
    """A process's memory is the first of PSS, USS and RSS that the kernel tells."""
    assert footprint(Process(full)) == found


def test_a_process_that_is_gone_has_no_footprint() -> None:
    """That a process is gone is no missing figure."""
    with pytest.raises(psutil.NoSuchProcess):
        footprint(Process(psutil.NoSuchProcess(1)))


def test_this_process_has_a_footprint() -> None:
    """The real psutil gives this very process a size."""
    assert own_footprint() > MB


def test_the_lack_of_smaps_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many workers are measured how often, one line says that RSS stands in."""
    caplog.set_level(logging.INFO, logger="pysplash")
    now = [100.0]
    sampler = Sampler(Machine(), processes=lambda _: Process(Basic()), clock=lambda: now[0])
    for now[0] in (101.0, 110.0, 120.0):
        assert sampler.sample(now[0], (), [1, 2]).pool_mem == 100 * MB
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "resident set" in caplog.text


@pytest.mark.parametrize("error", HIDDEN, ids=["no file", "forbidden", "denied"])
def test_a_process_of_which_nothing_is_told_uses_nothing(error: Exception) -> None:
    """Neither CPU time nor memory that cannot be read ends the sampling."""
    now = [100.0]
    process = Process(error, error)
    process.memory_info = raising(error)  # type: ignore[method-assign]
    sampler = Sampler(Machine(), processes=lambda _: process, clock=lambda: now[0])
    for now[0] in (101.0, 102.0):
        sample = sampler.sample(now[0], [1], [1])
    assert (sample.pool_mem, sample.pool_cores, sampler.cores(1)) == (0, 0.0, None)


def test_where_the_machines_counters_are_hidden_the_pools_use_counts() -> None:
    """A sandbox that counts no CPU time of the machine does not make a busy pool look idle."""
    now, process = [100.0], Process(Basic())
    sampler = Sampler(Machine(), processes=lambda _: process, clock=lambda: now[0])
    for now[0], process.seconds in ((101.0, 0.0), (102.0, 1.5)):
        sample = sampler.sample(now[0], [1], [1])
    assert sample.cpu == pytest.approx(75.0)


@pytest.mark.parametrize("error", HIDDEN, ids=["no file", "forbidden", "denied"])
def test_figures_of_the_host_may_be_hidden(error: Exception) -> None:
    """Without /proc/meminfo, stat and vmstat, what the C library knows remains."""
    memory = host_memory(raising(error))
    assert 0 < memory.used <= memory.total
    assert host_cpu_times(raising(error)) == ()
    assert host_swaps(raising(error)) == (0.0, 0.0)
    machine = Host(cpus=lambda: [0, 1], cpu_times=lambda: host_cpu_times(raising(error)))
    assert machine.busy_seconds() >= 0.0


def test_a_missing_count_of_swaps_is_no_warning() -> None:
    """Psutil's warning that /proc/vmstat is missing neither prints nor raises."""

    def read() -> SimpleNamespace:
        warnings.warn("'sin' and 'sout' swap memory stats couldn't be determined", stacklevel=1)
        return SimpleNamespace(sin=0, sout=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert host_swaps(read) == (0.0, 0.0)


def test_the_affinity_may_be_refused() -> None:
    """A sandbox that does not tell the affinity leaves all CPUs."""
    assert list(allowed_cpus(raising(PermissionError(1, "seccomp")))) == list(
        range(os.cpu_count() or 1)
    )
    assert len(allowed_cpus(None)) == (os.cpu_count() or 1)


def test_threads_may_be_hidden() -> None:
    """Where /proc does not tell the threads, Python's own count stands in."""
    assert thread_count(raising(psutil.AccessDenied(1))) >= 1
    assert thread_count() >= 1


def test_the_scoreboard_needs_no_memfd() -> None:
    """Where memfd_create is refused, a file without a name does as well."""
    fd = _anonymous_file(4096, raising(OSError(38, "not implemented")))
    with contextlib.closing(os.fdopen(fd, "r+b")) as file:
        assert len(file.read()) == 4096


def test_names_of_groups_may_be_any_bytes(tmp_path: Path) -> None:
    """A control group whose name is not UTF-8 is found all the same."""
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    proc = tmp_path / "proc"
    proc.write_bytes(b"0::/caf\xe9\n")
    group = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    group.mkdir()
    (group / "cpu.max").write_text("100000 100000\n")
    assert Host(proc_cgroup=proc, cgroup_root=tmp_path, cpus=lambda: [0, 1]).cores() == 1.0


@pytest.mark.parametrize("path", ["0::/\n", "4:memory:/\n", "2:cpu,cpuacct:/x\n", "", "\0\n", "::"])
def test_a_tree_that_is_not_mounted_leaves_the_host(tmp_path: Path, path: str) -> None:
    """Where groups are named and /sys/fs/cgroup is hidden, the host's figures remain."""
    proc = tmp_path / "proc"
    proc.write_text(path)
    machine = Host(
        proc_cgroup=proc,
        proc_pressure=tmp_path / "none",
        cgroup_root=tmp_path / "absent",
        cpus=lambda: [0, 1],
        memory=lambda: MemoryUse(1, 2),
    )
    assert machine.cores() == 2.0
    assert machine.memory() == MemoryUse(1, 2)
    assert machine.stalled_seconds() is None
