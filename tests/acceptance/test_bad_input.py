"""Wrong flags, names, modules and servers: one line that says so, and the right exit status."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from pysplash.embedded import EmbeddedServer
from pysplash.errors import EXIT_CONNECTION, EXIT_IMPORT, EXIT_OK, EXIT_USAGE
from tests.acceptance import jobs
from tests.acceptance.command import READY, Command, Start
from tests.generation import since_3
from tests.waiting import wait_until

#: seconds in which a command that cannot work says so, on a machine that runs other tests too
BOUND = 20.0
LONG = "q" * 10_000


def complaint(command: Command, status: int) -> str:
    """Return the one line the command has said, once it has ended with *status*."""
    assert command.wait(BOUND) == status, command.err
    assert command.out == ""
    (line,) = command.err.splitlines()
    return checked(command, line)


def last_words(command: Command, status: int) -> str:
    """Return the last line of a command that had to start a pool to find out."""
    assert command.wait(BOUND) == status, command.err
    (line,) = [line for line in command.err.splitlines() if line.startswith("pysplash: ")]
    assert line == command.err.splitlines()[-1]
    return checked(command, line)


def checked(command: Command, line: str) -> str:
    """Return *line* if it is one for a person to read and nothing is left of the command."""
    assert line.startswith("pysplash: ")
    assert len(line) < 500
    assert "Traceback" not in command.err
    assert command.processes() == []
    return line


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min-procs", "5", "--max-procs", "2"], "min_procs is 5 but max_procs is 2"),
        (["--min-procs", "-1"], "min_procs is -1"),
        (["--max-procs", "0"], "max_procs is 0"),
        (["--max-procs", "1000000000"], "max_procs is 1000000000"),
        (["--max-procs", "many"], "'many'"),
        (["--max-procs", "1.5"], "'1.5'"),
        (["--max-procs", ""], "''"),
        (["-n", "0"], "is 0"),
        (["-n", "-3"], "is -3"),
        (["-n", "2", "--min-procs", "1"], "-n is 2 and --min-procs is 1"),
        (["-n", "2", "--max-procs", "4"], "-n is 2 and --max-procs is 4"),
        (["--max-per-scale", "0"], "max_per_scale is 0"),
        (["--scale-frequency", "0"], "scale_frequency is 0"),
        (["--scale-frequency", "nan"], "scale_frequency is nan"),
        (["--quiet-period", "-1"], "quiet_period_seconds is -1"),
        (["--terminate-seconds", "-0.1"], "terminate_seconds is -0.1"),
        (["--terminate-seconds", "inf"], "terminate_seconds is inf"),
        (["--zombie-timeout", "0"], "zombie_timeout is 0"),
        (["--zombie-timeout", "nan"], "zombie_timeout is nan"),
        (["--idle-seconds", "nan"], "idle_seconds is nan"),
        (["--max-cpu", "0"], "max_cpu is 0"),
        (["--max-cpu", "101"], "max_cpu is 101"),
        (["--max-cpu", "nan"], "max_cpu is nan"),
        (["--max-mem", "-5"], "max_mem is -5"),
        (["--max-mem", "lots"], "'lots'"),
        (["--mem-budget", "lots"], "mem_budget is 'lots'"),
        (["--mem-budget", "0"], "mem_budget is '0'"),
        (["--max-job-memory", "1XB"], "max_job_memory is '1XB'"),
        (["--max-jobs", "0"], "max_jobs is 0"),
        (["--max-age", "nan"], "max_age is nan"),
        (["--max-age-delta", "-1"], "max_age_delta is -1"),
        (["--worker-ttl", "0"], "worker_ttl is 0"),
        (["--results-ttl", "soon"], "'soon'"),
        (["--maintenance-interval", "0"], "maintenance_interval is 0"),
        (["--on-crash", "explode"], "'explode'"),
        (["-ds", "alphabetical"], "'alphabetical'"),
        (["-l", "LOUD"], "'LOUD'"),
        (["-v", "-q"], "-v and -q"),
        (["--frobnicate"], "--frobnicate"),
        (["--max-prcs", "4"], "--max-prcs"),
        (["--max-procs"], "--max-procs"),
        (["--preload", "not a module"], "'not a module'"),
        (["--pid", "/nonexistent/folder/pid"], "'/nonexistent/folder/pid'"),
        (["--embedded", "-u", "redis://localhost"], "--embedded"),
        ([""], "''"),
        (["   "], "' ' is empty"),
        (["default", "high", "default"], "'default' is named twice"),
        (["a\nb"], r"'a\nb'"),
        (["a\x1b[2Jb"], r"'a\x1b[2Jb'"),
        ([LONG], "qqqqqqqq"),
        (["-u", "nonsense"], "'nonsense'"),
        (["-u", "redis://localhost:99999999"], "'redis://localhost:99999999'"),
        (["-u", "redis://h:port"], "'redis://h:port'"),
        (["-u", "redis://localhost/first"], "'redis://localhost/first'"),
        (["-u", "http://localhost"], "'http://localhost'"),
    ],
)
def test_wrong_value(splash: Start, arguments: list[str], said: str) -> None:
    """A wrong flag or queue name: status 2 and one line that names the flag and shows the value."""
    command = splash("start", *arguments)
    assert said in complaint(command, EXIT_USAGE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "-n", "21"], "--number is 21"),
        (["demo", "-n", "-1"], "--number is -1"),
        (["demo", "-n", "eight"], "'eight'"),
        (["demo", "--max-cpu", "nan"], "max_cpu is nan"),
        (["demo", "--max-procs", "0"], "max_procs is 0"),
        (["demo", "more"], "more"),
    ],
)
def test_wrong_value_of_the_demo(splash: Start, arguments: list[str], said: str) -> None:
    """The demo too: status 2 and one line, and its server is gone."""
    command = splash(*arguments)
    assert said in complaint(command, EXIT_USAGE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-w", "nowhere.Worker"], "worker class 'nowhere.Worker'"),
        (["-w", "rq.worker.Wrker"], "worker class 'rq.worker.Wrker'"),
        (["-w", "os.path"], "worker class 'os.path'"),
        (["-w", "rq.job.Job"], "worker class 'rq.job.Job'"),
        (["-w", ""], "worker class ''"),
        (["-j", "nowhere.Job"], "job class 'nowhere.Job'"),
        (["--queue-class", "rq.queue.Q"], "queue class 'rq.queue.Q'"),
        (["--connection-class", "redis.Rodis"], "connection class 'redis.Rodis'"),
        (["-S", "nowhere.Serializer"], "serializer 'nowhere.Serializer'"),
        (["--exception-handler", "nowhere.handle"], "exception handler 'nowhere.handle'"),
        (["-c", "no_such_settings"], "config module 'no_such_settings'"),
        (["-c", "raises"], "config module 'raises'"),
        (["-c", "no python"], "config module 'no python'"),
        (["-w", "raises.Worker"], "worker class 'raises.Worker'"),
    ],
)
def test_what_cannot_be_imported(
    splash: Start, tmp_path: Path, arguments: list[str], said: str
) -> None:
    """A class or module that is not there, or raises: status 4, one line, before any process."""
    (tmp_path / "raises.py").write_text("raise LookupError('not\\ntoday')\n")
    command = splash("start", *arguments)
    assert said in complaint(command, EXIT_IMPORT)


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("no_such_module", None, "No module named 'no_such_module'"),
        ("raises", "raise LookupError('not today')", "LookupError: not today"),
        ("exits", "raise SystemExit(0)", "SystemExit"),
        ("malformed", "def f(:", "SyntaxError"),
    ],
)
def test_preload_that_cannot_be_imported(
    pool: Start, tmp_path: Path, module: str, code: str | None, said: str
) -> None:
    """A module that cannot be preloaded: status 4, one last line that names it and says why."""
    if code is not None:
        (tmp_path / f"{module}.py").write_text(code + "\n")
    line = last_words(pool("--preload", module), EXIT_IMPORT)
    assert f"{module!r} cannot be preloaded" in line
    assert said in line


def test_record_that_cannot_be_written(splash: Start, url: str, tmp_path: Path) -> None:
    """A record in a folder that does not exist, or that is one: status 2 and one line."""
    for path in ("/nonexistent/run.jsonl", str(tmp_path)):
        command = splash("-u", url, "--record", path)
        assert repr(path) in complaint(command, EXIT_USAGE)


@since_3
@pytest.mark.parametrize("words", [("start",), ("call", "add", "5")])
def test_keys_of_the_users_own(splash: Start, url: str, words: tuple[str, ...]) -> None:
    """RQ 3 can have other keys than its own, which nothing here would find: status 2, one line."""
    command = splash(*words, "-u", url, RQ_KEY_PREFIX="mine")
    assert "RQ_KEY_PREFIX is 'mine'" in complaint(command, EXIT_USAGE)


# --- servers that are not there, or not for us ---


def test_no_server_at_the_default_address(splash: Start, closed_port: int) -> None:
    """Without a URL and a server: status 1 and one line that says where and how to get one."""
    line = complaint(splash("start", REDIS_PORT=str(closed_port)), EXIT_CONNECTION)
    assert f"localhost:{closed_port}" in line
    assert "--embedded" in line
    assert "-u" in line


@pytest.mark.parametrize("command", ["start", "demo"])
def test_server_that_refuses(splash: Start, closed_port: int, command: str) -> None:
    """A closed port: status 1 and one line with the address."""
    line = complaint(splash(command, "-u", f"redis://127.0.0.1:{closed_port}/3"), EXIT_CONNECTION)
    assert f"127.0.0.1:{closed_port}/3" in line


def test_socket_that_does_not_exist(splash: Start, tmp_path: Path) -> None:
    """A Unix socket that is not there: status 1 and one line with its path."""
    path = tmp_path / "no.sock"
    assert str(path) in complaint(splash("-u", f"unix://{path}"), EXIT_CONNECTION)


def test_host_that_does_not_exist(splash: Start) -> None:
    """A host name that nobody has: status 1 and one line with it."""
    line = complaint(splash("-u", "redis://no-such-host.invalid"), EXIT_CONNECTION)
    assert "no-such-host.invalid" in line


@pytest.fixture
def secret(server: EmbeddedServer) -> Iterator[str]:
    """The password that the test's own server demands."""
    password = f"S3CRET-{secrets.token_hex(4)}"
    with Redis.from_url(server.url) as redis:
        redis.config_set("requirepass", password)
    yield password
    with Redis.from_url(server.url, password=password) as redis:
        redis.config_set("requirepass", "")


def test_server_that_demands_a_password(splash: Start, url: str, secret: str) -> None:
    """No password, or a wrong one: status 1, one line that says so and does not show it."""
    assert "password" in complaint(splash("-u", url), EXIT_CONNECTION)
    wrong = url.replace("unix://", "unix://:WRONG-WORD@")
    line = complaint(splash("-u", wrong), EXIT_CONNECTION)
    assert "password" in line
    assert "WRONG-WORD" not in line
    assert secret not in line


def test_right_password_is_used_and_never_shown(
    splash: Start, url: str, secret: str, marks: Path
) -> None:
    """With its password the pool works, and neither log nor any command line shows it."""
    with Redis.from_url(url, password=secret) as redis:
        job = Queue(connection=redis).enqueue(jobs.mark, str(marks))
        command = splash("-v", "-n", "1", RQ_REDIS_URL=url.replace("unix://", f"unix://:{secret}@"))
        wait_until(lambda: job.get_status() is JobStatus.FINISHED, READY, "the job's end")
        assert len(command.processes()) == 3
        for process in command.processes():
            assert secret not in " ".join(process.cmdline())
        assert command.end() == []
    assert secret not in command.err + command.out


@pytest.mark.parametrize(
    "url",
    [
        "redis://:S3CRET@localhost:99999999",
        "redis://user:S3CRET@localhost:port",
        "redis://:S3C/S3CRET@localhost:99999999",
        "redis://:S3CRET/x@localhost:99999999",
        "redis://:S3@S3CRET@localhost:99999999",
        "nonsense://:S3CRET@localhost",
        "redis://localhost:99999999/0?password=S3CRET",
        "Redis+Sentinel://:S3CRET@localhost",
        ":S3CRET@localhost",
    ],
)
def test_password_in_a_url_that_does_not_parse(splash: Start, url: str) -> None:
    """A URL that does not parse is shown without its password, whatever is wrong with it."""
    assert "S3CRET" not in complaint(splash("-u", url), EXIT_USAGE)


def test_password_in_the_environment(splash: Start, closed_port: int) -> None:
    """REDIS_PASSWORD of a server that is not there is not shown."""
    command = splash("start", REDIS_PORT=str(closed_port), REDIS_PASSWORD="S3CRET")
    assert "S3CRET" not in complaint(command, EXIT_CONNECTION)
    command = splash("start", REDIS_PORT="none", REDIS_PASSWORD="S3CRET")
    assert "S3CRET" not in complaint(command, EXIT_USAGE)


# --- who may speak: flag, environment, config module, default ---


def test_precedence(splash: Start, tmp_path: Path) -> None:
    """A flag beats the environment, that the config module, that the default."""
    (tmp_path / "few.py").write_text("MAX_PROCS = 9\n")
    few = ("--min-procs", "500")

    def most(*arguments: str, **environment: str) -> str:
        return complaint(splash("start", *few, *arguments, **environment), EXIT_USAGE)

    assert "max_procs is 128" in most()
    assert "max_procs is 9" in most("-c", "few")
    assert "max_procs is 9" in most(RQ_CONFIG="few")
    assert "max_procs is 7" in most("-c", "few", PYSPLASH_MAX_PROCS="7")
    assert "max_procs is 11" in most("-c", "few", "--max-procs", "11", PYSPLASH_MAX_PROCS="7")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PYSPLASH_MAX_PROCS", "many", "'many'"),
        ("PYSPLASH_MAX_CPU", "nan", "max_cpu is nan"),
        ("PYSPLASH_SCALE_FREQUENCY", "0", "scale_frequency is 0"),
        ("PYSPLASH_ON_CRASH", "explode", "'explode'"),
        ("PYSPLASH_MEM_BUDGET", "lots", "'lots'"),
        ("PYSPLASH_BURST", "perhaps", "'perhaps'"),
        ("RQ_REDIS_URL", "nonsense", "'nonsense'"),
        ("REDIS_URL", "nonsense", "REDIS_URL"),
        ("REDIS_PORT", "first", "'first'"),
    ],
)
def test_wrong_value_in_the_environment(splash: Start, name: str, value: str, said: str) -> None:
    """A wrong variable is answered as a wrong flag is."""
    assert said in complaint(splash("start", **{name: value}), EXIT_USAGE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("MAX_PROCS = 'many'", "many"),
        ("MAX_CPU = float('nan')", "max_cpu is nan"),
        ("ON_CRASH = 'explode'", "'explode'"),
        ("QUEUES = ['a', 'a']", "'a' is named twice"),
        ("QUEUES = [1]", "1"),
        ("QUEUES = 7", "7"),
        ("REDIS_URL = 'nonsense'", "REDIS_URL"),
        ("BURST = 'perhaps'", "perhaps"),
        ("PRELOAD = 5", "--preload"),
    ],
)
def test_wrong_value_in_the_config_module(
    splash: Start, tmp_path: Path, line: str, said: str
) -> None:
    """A wrong setting in a config module is answered as a wrong flag is."""
    (tmp_path / "wrong.py").write_text(line + "\n")
    assert said in complaint(splash("start", "-c", "wrong"), EXIT_USAGE)


def test_queues_in_the_config_module_as_one_name(splash: Start, tmp_path: Path, url: str) -> None:
    """QUEUES = "default" means the queue default, or is refused; never seven queues of a letter."""
    (tmp_path / "one.py").write_text(f"QUEUES = 'default'\nREDIS_URL = {url!r}\nBURST = True\n")
    command = splash("start", "-v", "-c", "one")
    assert command.wait(BOUND) in (EXIT_OK, EXIT_USAGE)
    assert "d, e, f" not in command.err


def test_environment_and_config_module_run_a_pool(
    splash: Start, tmp_path: Path, url: str, redis: Redis, marks: Path
) -> None:
    """A pool told everything by a config module and the environment does its work."""
    (tmp_path / "settings.py").write_text(
        f"REDIS_URL = {url!r}\nQUEUES = ['first', 'second']\nMAX_PROCS = 1\nMIN_PROCS = 1\n"
    )
    for name in ("second", "first"):
        Queue(name, connection=redis).enqueue(jobs.mark, str(marks), name)
    command = splash("start", "-c", "settings", PYSPLASH_BURST="1", PYSPLASH_RECORD="record.jsonl")
    assert command.wait(READY + BOUND) == EXIT_OK
    assert marks.read_text().split() == ["first", "second"]
    assert max(tick["target"] for tick in command.record()) == 1


def test_embedded_server_of_the_command(splash: Start, marks: Path) -> None:
    """--embedded brings a server, says where, and takes it away again."""
    command = splash("start", "--embedded", "-n", "1")
    with Redis.from_url(command.embedded_url()) as redis:
        job = Queue(connection=redis).enqueue(jobs.mark, str(marks))
        wait_until(lambda: job.get_status() is JobStatus.FINISHED, READY, "the job's end")
    assert command.end() == []
    assert command.process.returncode == EXIT_OK
    assert not Path(command.embedded_url().removeprefix("unix://")).parent.exists()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["start", "--help"], ["--version"], []])
def test_help(splash: Start, arguments: list[str]) -> None:
    """Help and version: status 0, on standard output, nothing on standard error."""
    command = splash(*arguments)
    assert command.wait(BOUND) == EXIT_OK
    assert "pysplash" in command.out
    assert command.err == ""
