"""Measure what the standard library's fork server does where a pool of workers needs one.

``python benchmarks/std_forkserver.py`` prints each fact as a line, for
``multiprocessing.get_context("forkserver")`` and beside it for ``pysplash.forkserver``. Every
fact is measured in a parent process of its own, which may be killed for it. Needs Linux and
``pysplash[embedded]``; takes about a minute.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.forkserver
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
from redis import Redis
from rq.utils import now

from pysplash import EmbeddedServer, Pool
from pysplash.config import WorkerSettings
from pysplash.supervisor.forkserver.boot import build_worker, connect
from pysplash.supervisor.forkserver.client import (
    Exited,
    ForkServerPlan,
    PreloadFailed,
    Processes,
    Ready,
    ServerDied,
    Spawned,
)
from pysplash.worker.scoreboard import Scoreboard

HERE = Path(__file__).parent.resolve()
QUEUE = "default"
#: seconds anything here may take before the experiment gives up
PATIENCE = 30.0
#: seconds after which it is asked who is still there
GRACE = 5.0
CROWD, KILLS, RUNS = 32, 20, 5
#: modules that cannot be preloaded: absent, and broken in two ways
ABSENT = "no_such_module"
BROKEN = {"lacks_something": "import no_such_module\n", "raises": "raise RuntimeError('no')\n"}
PRELOAD = ("pysplash.supervisor.forkserver.boot", "std_forkserver")


# --- in the parent process under test ----------------------------------------------------------


def say(**facts: Any) -> None:
    """Tell the experiment something."""
    print(json.dumps(facts), flush=True)


def standard(*preload: str) -> ForkServerContext:
    """Return the standard library's context with *preload*."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, *preload])
    return context


def standard_server() -> int:
    """Return the process id of the standard library's fork server."""
    return int(vars(multiprocessing.forkserver._forkserver)["_forkserver_pid"])


def sleepers(context: ForkServerContext, number: int) -> list[ForkServerProcess]:
    """Start processes that do nothing."""
    processes = [context.Process(target=time.sleep, args=(600,)) for _ in range(number)]
    for process in processes:
        process.start()
    return processes


def ours(url: str, *preload: str) -> Processes:
    """Return PySplash's processes, their fork server asked for."""
    board = Scoreboard(2 * CROWD)
    processes = Processes(
        ForkServerPlan(
            settings_for(url), board.fd, board.notices.fileno(), board.slots, preload, 2.0
        )
    )
    processes.renew()
    return processes


def settings_for(url: str) -> WorkerSettings:
    """Return the settings of an ordinary worker."""
    return Pool([QUEUE], url=url).settings


def hear(processes: Processes, kind: Any) -> Any:
    """Wait for an event of *kind*."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        wait(processes.filenos(), 1.0)
        for event in processes.events():
            if isinstance(event, kind):
                return event
    raise TimeoutError(f"no {kind} in {PATIENCE:g} s")


def work(settings: WorkerSettings, name: str) -> None:
    """Be the worker PySplash's fork server makes, without its scoreboard."""
    worker = build_worker(settings, name, connect(settings))
    worker.last_cleaned_at = now()  # type: ignore[assignment]
    worker.work(logging_level="WARNING")


def family_standard(_url: str) -> None:
    """Have three children, and wait for the end."""
    children = sleepers(standard(), 3)
    say(server=standard_server(), children=[child.pid for child in children])
    time.sleep(PATIENCE)


def family_ours(url: str) -> None:
    """Have three workers, and wait for the end."""
    processes = ours(url)
    server = hear(processes, Ready).pid
    for number in range(3):
        processes.spawn(f"w{number}", number)
    say(server=server, children=[hear(processes, Spawned).pid for _ in range(3)])
    time.sleep(PATIENCE)


def bad_preload_standard(_url: str, module: str) -> None:
    """Preload a module that cannot be."""
    try:
        process = sleepers(standard(module), 1)[0]
        time.sleep(1.0)
        say(error=None, alive=process.is_alive())
        process.kill()
    except Exception as error:
        say(error=repr(error), alive=False)


def bad_preload_ours(url: str, module: str) -> None:
    """Preload a module that cannot be."""
    event = hear(ours(url, module), (Ready, PreloadFailed))
    refused = isinstance(event, PreloadFailed)
    say(error=f"{event.module}: {event.text}" if refused else None, alive=not refused)


def crowd_standard(url: str) -> None:
    """Start many workers, once the server is warm."""
    context, settings = standard(), settings_for(url)
    sleepers(context, 1)[0].kill()
    input()
    asked = time.monotonic()
    for number in range(CROWD):
        context.Process(target=work, args=(settings, f"w{number}")).start()
    say(asked=asked, busy=time.monotonic() - asked)
    time.sleep(PATIENCE)


def crowd_ours(url: str) -> None:
    """Start many workers, once the server is warm."""
    processes = ours(url)
    hear(processes, Ready)
    input()
    asked = time.monotonic()
    for number in range(CROWD):
        processes.spawn(f"w{number}", number)
    say(asked=asked, busy=time.monotonic() - asked)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:  # the server must not find its pipe full
        wait(processes.filenos(), 1.0)
        list(processes.events())


def deaths_standard(_url: str) -> None:
    """Kill children; tell how long each took to be noticed, and what was said of it."""
    context, delays, statuses = standard(), [], set()
    for _ in range(KILLS):
        child = sleepers(context, 1)[0]
        time.sleep(0.05)
        assert child.pid is not None
        killed = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        wait([child.sentinel], PATIENCE)
        delays.append(time.monotonic() - killed)
        statuses.add(child.exitcode)
    say(delays=delays, statuses=list(statuses))


def deaths_ours(url: str) -> None:
    """Kill workers; tell how long each took to be noticed, and what was said of it."""
    processes, delays, statuses = ours(url), [], set()
    hear(processes, Ready)
    for number in range(KILLS):
        processes.spawn(f"w{number}", 0)
        pid = hear(processes, Spawned).pid
        time.sleep(0.05)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        statuses.add(-os.WTERMSIG(hear(processes, Exited).status))
        delays.append(time.monotonic() - killed)
    say(delays=delays, statuses=list(statuses))


def server_killed_standard(_url: str) -> None:
    """Lose the fork server; tell what the parent then believes of a child."""
    child = sleepers(standard(), 1)[0]
    os.kill(standard_server(), signal.SIGKILL)
    wait([child.sentinel], 2.0)
    say(children=[child.pid], believed_alive=child.is_alive(), exitcode=child.exitcode)
    time.sleep(PATIENCE)


def server_killed_ours(url: str) -> None:
    """Lose the fork server; tell what the parent then believes of a worker."""
    processes = ours(url)
    server = hear(processes, Ready).pid
    processes.spawn("w0", 0)
    pid = hear(processes, Spawned).pid
    os.kill(server, signal.SIGKILL)
    event: ServerDied = hear(processes, ServerDied)
    say(children=[pid], believed_alive="w0" not in event.names, exitcode=event.status)
    time.sleep(PATIENCE)


def habits_standard(_url: str) -> None:
    """Tell what else a pool would have to live with."""
    context = standard()
    child, victim = sleepers(context, 2)
    assert child.pid is not None
    assert victim.pid is not None
    server = standard_server()
    context.set_forkserver_preload(["this"])
    another = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(600,))
    another.start()
    assert another.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    time.sleep(0.2)  # the parent has not looked at it, yet its pid may be anyone's
    say(
        own_session=os.getsid(child.pid) != os.getsid(0),
        same_server=server == standard_server() == psutil.Process(another.pid).ppid(),
        threads=psutil.Process(server).num_threads(),
        reaped_unseen=not psutil.pid_exists(victim.pid),
    )
    time.sleep(PATIENCE)


def pipes(pid: int) -> set[str]:
    """Return the pipes a process holds an end of, standard streams apart."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if int(fd.name) > 2 and (target := os.readlink(fd)).startswith("pipe:"):
                found.add(target)
    return found


# --- the experiment ----------------------------------------------------------------------------


class Parent:
    """A parent process under test, and all that comes from it."""

    def __init__(self, scene: Callable[..., None], url: str, *arguments: str) -> None:
        code = f"import sys, std_forkserver; std_forkserver.{scene.__name__}(*sys.argv[1:])"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by end()
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, url, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
        )
        self._family: list[psutil.Process] = [psutil.Process(self.process.pid)]

    def word(self) -> dict[str, Any]:
        """Return what it says next; note its descendants at that moment."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise TimeoutError("the parent under test says nothing")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the parent under test has ended: {self.said_as_error()}")
        word: dict[str, Any] = json.loads(line)
        with suppress(psutil.NoSuchProcess):
            self._family += self._family[0].children(recursive=True)
        return word

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    def kill(self) -> None:
        """Kill it, and nothing else."""
        self.process.kill()
        self.process.wait()

    def said_as_error(self) -> str:
        """Return the last line on standard error of it and its children."""
        self._errors.seek(0)
        lines = self._errors.read().decode().strip().splitlines()
        return lines[-1] if lines else "nothing"

    def end(self) -> None:
        """Kill whatever is left: its own, and whoever is in the session it began."""
        session = self.process.pid
        for pid in psutil.pids():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(pid) == session:
                    self._family.append(psutil.Process(pid))
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                stream.close()


@contextmanager
def parent(scene: Callable[..., None], url: str, *arguments: str) -> Iterator[Parent]:
    """Run *scene* in a parent process for the length of a block, on a server that holds nothing."""
    with Redis.from_url(url) as client:
        client.flushall()
    found = Parent(scene, url, *arguments)
    try:
        yield found
    finally:
        found.end()


def alive(pids: list[int]) -> int:
    """Count the processes that are there and no zombies."""
    count = 0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            count += psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return count


def gone_after(pids: list[int], limit: float) -> str:
    """Say how long it took until all *pids* were gone, at most *limit* seconds."""
    begin = time.monotonic()
    while alive(pids) and time.monotonic() - begin < limit:
        time.sleep(0.01)
    left = alive(pids)
    return f"{left} of {len(pids)} alive after {time.monotonic() - begin:.1f} s"


def show(name: str, fact: str) -> None:
    """Print one line."""
    print(f"  {name:10} {fact}", flush=True)


def parent_killed(url: str) -> None:
    """(i) Kill the parent; see who stays."""
    print(f"(i) the parent gets SIGKILL; who is left, after {GRACE:g} s or as soon as nobody is:")
    for name, scene in (("standard", family_standard), ("ours", family_ours)):
        with parent(scene, url) as subject:
            facts = subject.word()
            time.sleep(0.5)  # workers boot
            subject.kill()
            children = gone_after(facts["children"], GRACE)
            server = gone_after([facts["server"]], GRACE)
            show(name, f"children: {children}; then fork server: {server}")
            if alive(facts["children"]):
                for pid in facts["children"]:
                    os.kill(pid, signal.SIGKILL)
                ends = gone_after([facts["server"]], GRACE)
                show("", f"once the children are killed by hand, fork server: {ends}")


def preload_refused(url: str) -> None:
    """(ii) Preload what cannot be imported; see what the parent hears."""
    print("(ii) a module that cannot be preloaded; what the parent hears:")
    cases = (ABSENT, *BROKEN)
    for name, scene in (("standard", bad_preload_standard), ("ours", bad_preload_ours)):
        for module in cases:
            with parent(scene, url, module) as subject:
                facts = subject.word()
                heard = facts["error"] or "no error, and the child runs"
                show(name, f"{module}: {heard}; on stderr: {subject.said_as_error()}")


def crowd_started(url: str) -> None:
    """(iii) Start many workers; see how long it takes and what they weigh."""
    print(f"(iii) {CROWD} workers, everything preloaded, {RUNS} runs in turn, median (spread):")
    scenes = {"standard": crowd_standard, "ours": crowd_ours}
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in scenes}
    for _ in range(RUNS):
        for name, scene in scenes.items():
            figures[name].append(one_crowd(scene, url))
    for name, values in figures.items():
        ready, busy, memory = zip(*values, strict=True)
        show(
            name,
            f"ready after {spread(ready, 1e3)} ms; the parent is held for "
            f"{spread(busy, 1e3)} ms of it; PSS per worker {spread(memory, 2**-20)} MiB",
        )


def one_crowd(scene: Callable[..., None], url: str) -> tuple[float, float, float]:
    """Return seconds to ready, seconds the parent spent, and bytes a worker."""
    with Redis.from_url(url) as client, parent(scene, url) as subject:
        time.sleep(2.0)  # preloading
        subject.go()
        facts = subject.word()
        deadline = time.monotonic() + PATIENCE
        while not idle(client) and time.monotonic() < deadline:
            time.sleep(0.004)
        ready = time.monotonic() - facts["asked"]
        time.sleep(1.0)
        with client.pipeline() as pipeline:
            for key in client.smembers("rq:workers"):
                pipeline.hget(key, "pid")
            pids = [int(pid) for pid in pipeline.execute()]
        memory = [psutil.Process(pid).memory_full_info().pss for pid in pids]
        subject.kill()
        subject._family += [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        return ready, facts["busy"], sum(memory) / len(memory)


def idle(client: Redis) -> bool:
    """Whether all workers wait for a job."""
    if client.scard("rq:workers") != CROWD:
        return False
    with client.pipeline(transaction=False) as pipeline:
        for key in client.smembers("rq:workers"):
            pipeline.hget(key, "state")
        return all(state == b"idle" for state in pipeline.execute())


def spread(values: Any, scale: float) -> str:
    """Return the median, the least and the most."""
    low, middle, high = (scale * f(values) for f in (min, statistics.median, max))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def death_noticed(url: str) -> None:
    """(iv) Kill children; see how soon the parent knows."""
    print(f"(iv) a child gets SIGKILL; how soon the parent knows, {KILLS} times:")
    for name, scene in (("standard", deaths_standard), ("ours", deaths_ours)):
        with parent(scene, url) as subject:
            facts = subject.word()
            show(name, f"{spread(facts['delays'], 1e3)} ms, exit code {facts['statuses']}")


def server_killed(url: str) -> None:
    """(v) Kill the fork server; see what becomes of its children, and what the parent believes."""
    print("(v) the fork server gets SIGKILL:")
    scenes = (("standard", server_killed_standard), ("ours", server_killed_ours))
    for name, scene in scenes:
        with parent(scene, url) as subject:
            facts = subject.word()
            belief = "alive" if facts["believed_alive"] else "dead"
            show(
                name,
                f"the parent takes its child for {belief} (status {facts['exitcode']}); "
                f"in truth {gone_after(facts['children'], 2.0)}",
            )


def habits(url: str) -> None:
    """(vi) See the rest."""
    print("(vi) also, of the standard one:")
    with parent(habits_standard, url) as subject:
        facts = subject.word()
        show("", f"children hold the pipe that keeps it alive: {holds_alive_pipe(subject)}")
        show("", f"a second context has the first one's server: {facts['same_server']}")
        show("", f"children have a session of their own: {facts['own_session']}")
        show("", f"a dead child's pid is free before its parent looked: {facts['reaped_unseen']}")
        show("", f"threads in the server: {facts['threads']}")


def holds_alive_pipe(subject: Parent) -> bool:
    """Whether a child holds an end of a pipe between the parent and its fork server."""
    parent_pid = subject.process.pid
    server = next(p for p in subject._family if p.ppid() == parent_pid and p.children())
    between = pipes(parent_pid) & pipes(server.pid)
    return any(between & pipes(child.pid) for child in server.children())


def main() -> None:
    """Measure all of it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what runs is ended on the way out
    print(f"Python {sys.version.split()[0]}, {psutil.cpu_count()} CPUs")
    with EmbeddedServer() as server, tempfile.TemporaryDirectory() as folder:
        for name, text in BROKEN.items():
            Path(folder, f"{name}.py").write_text(text)
        os.environ["PYTHONPATH"] = f"{HERE}{os.pathsep}{folder}"
        parent_killed(server.url)
        preload_refused(server.url)
        crowd_started(server.url)
        death_noticed(server.url)
        server_killed(server.url)
        habits(server.url)


if __name__ == "__main__":
    main()
