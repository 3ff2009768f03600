"""What is set up outside of jobs is there where jobs run, as it is under RQ's own commands."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT, CompletedProcess, run

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from tests.acceptance.command import QUICK, ROOT, Start
from tests.waiting import wait_until

DICT_CONFIG = """
DICT_CONFIG = {
    "version": 1,
    "formatters": {"f": {"format": "FMT %(name)s %(message)s"}},
    "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
    "root": {"level": "INFO", "handlers": ["h"]},
    "loggers": {"rq.worker": {"level": "INFO"}},
}
"""
SHOP = """
import logging
def pack(): logging.getLogger("shop.orders").info("order packed")
"""
#: writes a line for each process that runs its exit function
TOOL = """
import atexit, os
def leave():
    with open({marks!r}, "a") as file: file.write(f"{{os.getpid()}}\\n")
atexit.register(leave)
def job(): return os.getpid()
"""
#: a module's exit function hangs, or a thread does
HANGS = """
import atexit, threading, time
atexit.register(time.sleep, 60)
def job(): return 1
"""
THREAD = """
import threading, time
def job(): threading.Thread(target=time.sleep, args=(60,), name="uploader").start()
"""
#: ways in which a worker leaves, each with the worker gone within seconds
WAYS = {
    "burst": ("-b",),
    "jobs": ("--max-jobs", "1", "-n", "1"),
    "age": ("--max-age", "2", "-n", "1"),
    "term": (),
    "idle": ("--idle-seconds", "0.5", *QUICK),
}


def write(folder: Path, **modules: str) -> None:
    """Put modules into *folder*."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


def launch(folder: Path, *words: str) -> CompletedProcess[bytes]:
    """Run a program of *folder*, with this checkout's code, to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return run(
        command, cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT, check=False, timeout=60
    )


def finished(job: Job, bound: float = 20.0) -> object:
    """Return what *job* returned, once it has."""
    wait_until(lambda: job.get_status() in ("finished", "failed"), bound, f"the end of {job.id}")
    assert job.get_status() == "finished", job.exc_info
    return job.return_value()


# --- config modules ---


@pytest.mark.parametrize("worker", ["pysplash.Worker", "rq.Worker"])
def test_a_config_module_acts_where_jobs_run(
    pool: Start, queue: Queue, tmp_path: Path, worker: str
) -> None:
    """What it changes, the environment included, is there before modules are preloaded."""
    write(
        tmp_path,
        state="ready = False\ndef look():\n    import os\n    return ready, os.environ['SET_BY']",
        settings="import os, state\nstate.ready = True\nos.environ['SET_BY'] = 'settings'",
        early="import state\nassert state.ready",
    )
    job = queue.enqueue("state.look")
    status = pool("-b", "-w", worker, "-c", "settings", "--preload", "early").wait(40)
    assert (status, finished(job)) == (0, (True, "settings"))


def test_dict_config_writes_each_line_once(pool: Start, queue: Queue, tmp_path: Path) -> None:
    """A job's own line, the workers' and the pool's come in the configured format, once."""
    write(tmp_path, shop=SHOP, settings=DICT_CONFIG)
    job = queue.enqueue("shop.pack")
    command = pool("-n", "1", "-c", "settings", "--preload", "shop", "--max-jobs", "1")
    finished(job)
    command.says("worker .* leaves: 1 jobs are done")
    command.signal(signal.SIGTERM)
    assert command.wait(30) == 0
    lines = (command.err + command.out).splitlines()
    assert [line for line in lines if "order packed" in line] == ["FMT shop.orders order packed"]
    assert sum("warm stop" in line for line in lines) == 1
    assert [line for line in lines if "orker" in line and not line.startswith("FMT ")] == []
    assert any(line.startswith("FMT rq.worker Worker ") for line in lines)


def test_dict_config_has_the_last_word_about_levels(
    pool: Start, queue: Queue, tmp_path: Path
) -> None:
    """Levels it sets hold, unless a level is asked for."""
    quiet = DICT_CONFIG + 'DICT_CONFIG["loggers"]["pysplash"] = {"level": "WARNING"}\n'
    write(tmp_path, settings=quiet)
    silent = pool("-b", "-c", "settings")
    assert (silent.wait(40), "pysplash" in silent.err) == (0, False)
    asked = pool("-b", "-c", "settings", "-l", "INFO")
    assert asked.wait(40) == 0
    assert "FMT pysplash.pool pool " in asked.err


def test_a_root_handler_writes_each_line_once(pool: Start, queue: Queue, tmp_path: Path) -> None:
    """Also where a preloaded module, or the config module, has called logging.basicConfig."""
    basic = "import logging\nlogging.basicConfig(level='INFO', format='ROOT %(message)s')\n"
    write(tmp_path, shop=basic + SHOP, settings=basic)
    for given in (("--preload", "shop"), ("-c", "settings")):
        job = queue.enqueue("shop.pack")
        command = pool("-b", "-n", "1", *given)
        assert command.wait(40) == 0
        finished(job)
        lines = (command.err + command.out).splitlines()
        stripped = [line.removeprefix("ROOT ")[-60:] for line in lines]
        assert sum("order packed" in line for line in lines) == 1
        assert len(stripped) == len(set(stripped)), stripped


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"version": 2}, "Unsupported version"),
        ({"version": 1, "root": {"handlers": ["absent"]}}, "absent"),
        ({"version": 1, "handlers": {"h": {"class": "no.such.Handler"}}}, "no"),
    ],
)
def test_a_wrong_dict_config_is_one_line(
    pool: Start, tmp_path: Path, config: object, why: str
) -> None:
    """It says what is wrong, and the exit status is RQ's."""
    write(tmp_path, settings=f"DICT_CONFIG = {config!r}")
    command = pool("-b", "-c", "settings")
    assert command.wait(30) == 1
    (line,) = command.err.splitlines()
    assert line.startswith("pysplash: DICT_CONFIG of the config module is wrong (")
    assert why in line


def test_secrets_stay_out_of_other_handlers(tmp_path: Path) -> None:
    """A password in a line of ours is replaced, whoever's handler writes it."""
    code = (
        "import logging; logging.basicConfig(format='%(message)s');"
        "from pysplash.log import logger; log = logger('pool');"
        "log.warning('at %s', 'redis://me:hunter' + '2@host'); log.warning('%d', '')"
    )
    done = run([sys.executable, "-c", code], cwd=ROOT, stdout=PIPE, stderr=STDOUT, check=True)
    assert b"at redis://me:***@host" in done.stdout
    assert b"hunter2" not in done.stdout


# --- what is set up in other ways ---


def test_warnings_filters_reach_workers(redis: Redis, url: str, tmp_path: Path) -> None:
    """Those of the interpreter's flags and those a program sets, by text."""
    write(
        tmp_path,
        words=(
            "import warnings\n"
            "def warn(text, kind=UserWarning):\n"
            "    with warnings.catch_warnings(record=True) as caught:\n"
            "        warnings.warn(text, kind, stacklevel=1)\n"
            "    return len(caught)\n"
        ),
        launch=(
            "import sys, warnings, pysplash\n"
            "if __name__ == '__main__':\n"
            "    warnings.filterwarnings('ignore', 'old')\n"
            "    pysplash.Pool(['default'], url=sys.argv[1], burst=True).start()\n"
        ),
    )
    queue = Queue(connection=redis)
    jobs = [queue.enqueue("words.warn", text) for text in ("new", "old words")]
    launch(tmp_path, "-W", "error::UserWarning", "launch.py", url)
    assert [job.get_status(refresh=True) for job in jobs] == ["failed", "finished"]
    assert jobs[1].return_value() == 0


LAUNCHER = """
import logging, sys, pysplash
logging.basicConfig(level="INFO", format="OWN %(message)s")
{guard}pysplash.Pool(["default"], url=sys.argv[1], burst=True, preload=["__main__"]).start()
"""


def test_a_program_sets_its_workers_up(redis: Redis, url: str, tmp_path: Path) -> None:
    """A program that preloads itself has its set-up in its workers, down to the logging."""
    write(tmp_path, launcher=LAUNCHER.format(guard="if __name__ == '__main__': "), shop=SHOP)
    Queue(connection=redis).enqueue("shop.pack")
    done = launch(tmp_path, "launcher.py", url)
    assert done.returncode == 0
    assert done.stdout.count(b"OWN order packed\n") == 1


def test_a_program_is_told_what_its_workers_lack(url: str, tmp_path: Path) -> None:
    """Logging set up in the program alone is pointed out, in the program's own log."""
    text = LAUNCHER.format(guard="if __name__ == '__main__': ")
    write(tmp_path, launcher=text.replace(', preload=["__main__"]', ""))
    done = launch(tmp_path, "launcher.py", url)
    assert done.returncode == 0
    assert b"OWN logging is set up in this program, not in its workers: " in done.stdout


def test_a_program_that_starts_a_pool_on_import_is_told(url: str, tmp_path: Path) -> None:
    """Without a guard it would start pools in pools; the error says what to write."""
    write(tmp_path, launcher=LAUNCHER.format(guard=""))
    done = launch(tmp_path, "launcher.py", url)
    assert b"ImportFailed" in done.stdout
    assert b"start it below if __name__ == '__main__'" in done.stdout


# --- exit functions ---


@pytest.mark.parametrize("way", sorted(WAYS))
def test_exit_functions_run_in_every_worker_that_leaves(
    pool: Start, queue: Queue, tmp_path: Path, marks: Path, way: str
) -> None:
    """Each worker that leaves in order runs them once, however it came to leave."""
    write(tmp_path, tool=TOOL.format(marks=str(marks)))
    job = queue.enqueue("tool.job")
    command = pool(*WAYS[way], "--preload", "tool")
    pid = str(finished(job))
    if way == "idle":
        command.signal(signal.SIGTTOU)  # one worker fewer than one
    if way not in ("burst", "term"):
        wait_until(lambda: pid in marks.read_text().split(), 20, "the exit function")
    if way != "burst":
        command.signal(signal.SIGTERM)
    assert command.wait(40) == 0
    command.await_gone(10)
    lines = marks.read_text().split()
    assert pid in lines
    assert len(lines) == len(set(lines))


def test_exit_functions_of_the_config_module_run_not_in_the_fork_server(
    pool: Start, queue: Queue, tmp_path: Path, marks: Path
) -> None:
    """They run in each worker and in the pool's own process: nothing is said once more."""
    write(tmp_path, tool=TOOL.format(marks=str(marks)))
    job = queue.enqueue("tool.job")
    command = pool("-n", "1", "-c", "tool")
    pid = finished(job)
    servers = command.fork_servers()
    command.signal(signal.SIGTERM)
    assert command.wait(40) == 0
    command.await_gone(10)
    pids = sorted([str(pid), str(command.process.pid)])
    assert sorted(marks.read_text().split()) == pids
    assert servers


@pytest.mark.parametrize("module", [HANGS, THREAD])
def test_exit_functions_that_hang_are_left(
    pool: Start, queue: Queue, tmp_path: Path, module: str
) -> None:
    """A worker has half of the time between stop and kill for them, and says what was cut off."""
    write(tmp_path, tool=module)
    job = queue.enqueue("tool.job")
    command = pool("-n", "1", "--preload", "tool", "--terminate-seconds", "4")
    finished(job)
    command.signal(signal.SIGTERM)
    assert command.wait(15) == 0
    line = command.says("ends before its exit functions are done: .*")[0]
    assert ("thread uploader" in line) is (module is THREAD)
    assert "SIGKILL" not in command.err


def test_a_folder_of_the_fork_server_outlives_its_workers(
    pool: Start, queue: Queue, tmp_path: Path
) -> None:
    """A temporary folder made by a preloaded module is there until the pool ends, then gone."""
    write(
        tmp_path,
        tool=(
            "import os, tempfile\n"
            "folder = tempfile.TemporaryDirectory(dir='.')\n"
            "def job(): return os.path.isdir(folder.name)\n"
        ),
    )
    command = pool("-n", "1", "--preload", "tool", "--max-jobs", "1")
    assert [finished(queue.enqueue("tool.job")) for _ in range(3)] == [True] * 3
    command.signal(signal.SIGTERM)
    assert command.wait(40) == 0
    command.await_gone(10)
    assert [path for path in tmp_path.iterdir() if path.is_dir() and "__" not in path.name] == []
