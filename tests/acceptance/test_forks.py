"""What workers get by being forked: nothing shared unseen, nothing written twice, fresh numbers."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, run

import pytest
from rq import Queue
from rq.job import Job

from tests.acceptance.command import ROOT, Start
from tests.waiting import wait_until


def write(folder: Path, **modules: str) -> None:
    """Put modules into *folder*."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


def finished(job: Job) -> object:
    """Return what *job* returned, once it has."""
    wait_until(lambda: job.get_status() in ("finished", "failed"), 30.0, f"the end of {job.id}")
    assert job.get_status() == "finished", job.exc_info
    return job.return_value()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that takes connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_connections_of_preloaded_modules_are_named(
    pool: Start, url: str, tmp_path: Path, listener: socket.socket
) -> None:
    """Peer, descriptor and module, once; not those of redis-py, pairs, datagrams or closed ones."""
    port = listener.getsockname()[1]
    write(
        tmp_path,
        innocent=(
            "import socket\nfrom redis import Redis\n"
            f"redis = Redis.from_url({url!r}); redis.ping()\n"
            "pair = socket.socketpair()\n"
            "udp = socket.socket(type=socket.SOCK_DGRAM); udp.connect(('127.0.0.1', 9))\n"
            f"socket.create_connection(('127.0.0.1', {port})).close()\n"
        ),
        held=f"import socket\nline = socket.create_connection(('127.0.0.1', {port}))\n",
    )
    command = pool("-b", "-n", "2", "--preload", "innocent", "--preload", "held")
    assert command.wait(40) == 0
    (line,) = [line for line in command.err.splitlines() if "workers share" in line]
    assert f"a connection to 127.0.0.1:{port} (descriptor " in line
    assert "opened while held was imported" in line


def test_threads_of_preloaded_modules_are_named(pool: Start, tmp_path: Path) -> None:
    """Workers have no thread of the fork server; the pool says which ones that are."""
    write(
        tmp_path,
        busy=(
            "import threading\n"
            "threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n"
        ),
    )
    command = pool("-b", "--preload", "busy")
    assert command.wait(40) == 0
    assert command.err.count("1 threads run after --preload (poller): ") == 1


def test_forks_beside_threads_are_warned_of_once(url: str, tmp_path: Path) -> None:
    """Python 3.12 and later warn at each fork; the log names the threads instead."""
    write(
        tmp_path,
        busy=(
            "import threading\n"
            "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        ),
        launch=(
            "import sys, pysplash\n"
            "pysplash.Pool(['default'], url=sys.argv[1], burst=True, preload=['busy']).start()\n"
        ),
    )
    done = run(
        [sys.executable, "-W", "always::DeprecationWarning", "launch.py", url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=PIPE,
        check=True,
        timeout=60,
    )
    assert b"multi-threaded" not in done.stderr


def test_what_a_preloaded_module_writes_is_written_once(
    pool: Start, queue: Queue, tmp_path: Path
) -> None:
    """Neither standard output nor a file's buffer is handed down to be written by each worker."""
    write(
        tmp_path,
        report=(
            "import io, os\n"
            "print('report loaded')\n"
            "file = open('report.txt', 'a'); file.write('begun\\n')\n"
            "raw = io.BufferedWriter(io.FileIO('raw.txt', 'a')); raw.write(b'begun\\n')\n"
            "def add(word):\n"
            "    print(word)\n"
            "    file.write(word + '\\n'); file.flush(); raw.write(b'x\\n'); raw.flush()\n"
            "    return os.getpid()\n"
        ),
    )
    command = pool("-n", "1", "--max-jobs", "1", "--preload", "report")
    words = ["one", "two", "three"]
    pids = {finished(queue.enqueue("report.add", word)) for word in words}
    command.signal(signal.SIGTERM)
    assert command.wait(40) == 0
    assert len(pids) == 3
    shown = [line for line in command.out.splitlines() if line in ("report loaded", *words)]
    assert shown == ["report loaded", *words]
    assert (tmp_path / "report.txt").read_text().split() == ["begun", *words]
    assert (tmp_path / "raw.txt").read_text().split() == ["begun", "x", "x", "x"]


def test_log_handlers_with_a_thread_or_a_connection_work_in_workers(
    pool: Start, queue: Queue, tmp_path: Path, listener: socket.socket
) -> None:
    """A queue's listener runs in each worker; a handler's socket is opened by each worker anew."""
    port = listener.getsockname()[1]
    write(
        tmp_path,
        shop=(
            "import logging, logging.handlers, queue\n"
            "line = queue.Queue()\n"
            "file = logging.FileHandler('shop.log')\n"
            "listener = logging.handlers.QueueListener(line, file)\n"
            "listener.start()\n"
            f"wire = logging.handlers.SocketHandler('127.0.0.1', {port})\n"
            "log = logging.getLogger('shop')\n"
            "log.setLevel('INFO')\n"
            "log.addHandler(logging.handlers.QueueHandler(line))\n"
            "log.addHandler(wire)\n"
            "log.info('loaded')\n"
            "def pack(what):\n"
            "    log.info('packed %s', what)\n"
            "    return wire.sock.getsockname()[1]\n"
        ),
    )
    command = pool("-n", "1", "--max-jobs", "1", "--preload", "shop")
    ports = {finished(queue.enqueue("shop.pack", number)) for number in range(3)}
    lines = ["loaded", "packed 0", "packed 1", "packed 2"]
    wait_until(lambda: (tmp_path / "shop.log").read_text().splitlines() == lines, 10, "the log")
    assert len(ports) == 3
    command.signal(signal.SIGTERM)
    assert command.wait(40) == 0
    assert "threads run" not in command.err


def test_shared_generators_of_random_numbers_begin_anew(
    pool: Start, queue: Queue, tmp_path: Path
) -> None:
    """Those of random and numpy, though a module used them; its own hook has the last word."""
    pytest.importorskip("numpy", reason="numpy is not installed")
    write(
        tmp_path,
        dice=(
            "import os, random, numpy as np\n"
            "random.seed(1); np.random.seed(1)\n"
            "own = random.Random(1)\n"
            "os.register_at_fork(after_in_child=lambda: own.seed(str(os.getppid())))\n"
            "def draw(): return random.random(), float(np.random.rand()), own.random()\n"
        ),
    )
    command = pool("-n", "1", "--max-jobs", "1", "--preload", "dice")
    drawn = [finished(queue.enqueue("dice.draw")) for _ in range(3)]
    command.signal(signal.SIGTERM)
    assert command.wait(40) == 0
    of_random, of_numpy, own = zip(*drawn, strict=True)
    assert [len(set(some)) for some in (of_random, of_numpy, own)] == [3, 3, 1]


# --- databases ---

CONF = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db", {more}}}}}
USE_TZ = True
"""
DJANGO_JOBS = """
import django
from django.db import connection
def count():
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    return id(connection.connection)
def lose():
    connection.ensure_connection()
    connection.connection.close()  # as a database that is restarted does
def wait_inside():
    import pysplash
    from rq import Queue, get_current_job
    with connection.cursor() as cursor:
        cursor.execute("create temporary table mine (number)")
    inner = Queue("default", connection=get_current_job().connection).enqueue("models.count")
    pysplash.wait_jobs([inner])
    with connection.cursor() as cursor:
        cursor.execute("select * from mine")
"""


@pytest.mark.parametrize("more", ["", "'CONN_MAX_AGE': None", "'CONN_MAX_AGE': 600"])
@pytest.mark.parametrize("worker", ["pysplash.Worker", "rq.SimpleWorker"])
def test_a_lost_database_connection_costs_one_job_at_most(
    pool: Start, queue: Queue, tmp_path: Path, worker: str, more: str
) -> None:
    """Django's rule for a web server's requests holds for jobs: what broke is connected anew."""
    pytest.importorskip("django", reason="django is not installed")
    write(
        tmp_path,
        conf=CONF.format(more=more),
        ready="import django\ndjango.setup()\n",
        models=DJANGO_JOBS,
    )
    names = ["count", "lose", "count", "count", "count"]
    jobs = [queue.enqueue(f"models.{name}") for name in names]
    command = pool(
        "-b", "-n", "1", "-w", worker, "--preload", "ready", DJANGO_SETTINGS_MODULE="conf"
    )
    assert command.wait(40) == 0
    states = [str(job.get_status()).rpartition(".")[2].lower() for job in jobs]
    lost = ["finished"] if not more else ["failed"]
    assert states == ["finished", "finished", *lost, "finished", "finished"]


def test_a_job_that_waits_keeps_its_database_connection(
    pool: Start, queue: Queue, tmp_path: Path
) -> None:
    """A job that runs inside a waiting one leaves the outer one's connection alone."""
    pytest.importorskip("django", reason="django is not installed")
    write(tmp_path, conf=CONF.format(more=""), models=DJANGO_JOBS)
    job = queue.enqueue("models.wait_inside")
    command = pool("-b", "-n", "1", DJANGO_SETTINGS_MODULE="conf")
    assert command.wait(40) == 0
    assert finished(job) is None


def test_a_database_connection_of_a_preload_is_closed_before_the_fork(
    pool: Start, queue: Queue, tmp_path: Path
) -> None:
    """A setting read from the database at import leaves no connection for workers to share."""
    pytest.importorskip("django", reason="django is not installed")
    write(
        tmp_path,
        conf=CONF.format(more=""),
        models=DJANGO_JOBS,
        ready=(
            "import django\ndjango.setup()\nimport models\nmodels.count()\n"
            "def look():\n    from django.db import connection\n    return connection.connection\n"
        ),
    )
    job = queue.enqueue("ready.look")
    command = pool("-b", "-n", "1", "--preload", "ready", DJANGO_SETTINGS_MODULE="conf")
    assert command.wait(40) == 0
    assert finished(job) is None


# --- fork servers that do not start ---

#: a pool whose fork server finds another rq than the pool's own process did
HIDING = """
import sys, pysplash
pool = pysplash.Pool(["default"], url=sys.argv[1])
sys.path.insert(0, "hiding")
try:
    pool.start()
except pysplash.SplashError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""


def test_a_fork_server_that_cannot_start_ends_the_pool(url: str, tmp_path: Path) -> None:
    """What it cannot import is named, after a few tries, and the exit status is that of imports."""
    write(tmp_path, launch=HIDING)
    (tmp_path / "hiding").mkdir()
    write(tmp_path / "hiding", rq="")
    done = run(
        [sys.executable, "launch.py", url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=PIPE,
        check=False,
        timeout=60,
    )
    assert done.returncode == 4, done.stderr
    assert b"the fork server cannot import PySplash's code (ModuleNotFoundError: " in done.stderr
