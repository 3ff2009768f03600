"""Calls through the real command line: pools, callers in shells and programs, their troubles."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from pysplash import AsyncClient, CallError, Client, ExecutionError
from pysplash.cli.commands import main
from pysplash.errors import (
    EXIT_BOOT,
    EXIT_CONNECTION,
    EXIT_FAILED,
    EXIT_IMPORT,
    EXIT_NO_WORKER,
    EXIT_OK,
    EXIT_TIMEOUT,
    EXIT_USAGE,
)
from pysplash.supervisor.presence import ALIVE
from tests.acceptance.command import QUICK, READY, Start, tell
from tests.waiting import wait_until

#: seconds for one command that starts, talks to Redis and ends, on a busy machine
BOUND = 30.0
TASKS = ("--preload", "tests.acceptance.door_tasks", "-q", *QUICK)
#: how one answer is asked for in a shell: the words, the exit status, what is said where
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(splash: Start, url: str) -> Said:
    """Runs one command on the test's own server and returns its status, output and complaint."""

    def run(*words: str) -> tuple[int, str, str]:
        command = splash(*words, RQ_REDIS_URL=url)
        status = command.wait(BOUND)
        assert "Traceback (most recent" not in command.err or "--traceback" in words
        return status, command.out.strip(), command.err.strip()

    return run


@pytest.fixture
def ask(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs one command in this process; the same answers in a fraction of the time."""
    monkeypatch.setenv("RQ_REDIS_URL", url)

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        said = capsys.readouterr()
        return status, said.out.strip(), said.err.strip()

    return run


def await_alive(redis: Redis) -> None:
    """Return as soon as a pool says that it takes calls."""
    wait_until(
        lambda: [k for k in redis.keys("pysplash:pool:*") if redis.hget(k, "open") == b"1"],
        READY,
        "a living pool",
    )


def test_a_shell_calls_tasks(pool: Start, say: Said, ask: Said, redis: Redis) -> None:
    """What a shell can say and hear: answers, failures, limits, each with its exit status."""
    command = pool(*TASKS, "-n", "2", "default", "fast", "--param", "colour=blue=green")
    call = ("call", "--patience", "20")
    assert say(*call, "add", "5", "6") == (EXIT_OK, "11", "")
    assert ask(*call, "add", "ab", "cd") == (EXIT_OK, '"abcd"', "")
    assert ask(*call, "add", "-k", "b=[3]", "[1, 2]") == (EXIT_OK, "[1, 2, 3]", "")
    assert ask(*call, "add", "--", "-5", "-6.5") == (EXIT_OK, "-11.5", "")
    assert ask(*call, "door.later", "null") == (EXIT_OK, "null", "")
    assert ask(*call, "door.odd") == (EXIT_OK, "(1+2j)", "")
    assert ask(*call, "door.told") == (EXIT_OK, '{"colour": "blue=green"}', "")

    status, out, err = ask(*call, "add", "1", '"x"')
    assert (status, out) == (EXIT_FAILED, "")
    assert err == (
        "pysplash: task add failed: TypeError: unsupported operand type(s) for +: 'int' and 'str'"
    )
    assert "in add" in say(*call, "--traceback", "add", "1", '"x"')[2]
    status, out, err = ask(*call, "door.slow_limit")
    assert (status, out) == (EXIT_FAILED, "")
    assert "JobTimeoutException: Task exceeded maximum timeout value (1 seconds)" in err
    command.says(r"exceeded its 1 s at\n(.*\n)*.*in too_slow")
    status, _, err = say(*call, "--timeout", "0.3", "door.nap", "30")
    assert (status, err) == (
        EXIT_TIMEOUT,
        "pysplash: task door.nap did not answer within 0.3 s and was cancelled",
    )
    status, _, err = ask(*call, "os.system", "true")
    assert status == EXIT_USAGE
    assert "no pool knows a task 'os.system': there is add, door.hold" in err
    assert ask("call", "--timeout", "-1", "add", "1")[0] == EXIT_USAGE
    assert ask("call", "-k", "nonsense", "add")[0] == EXIT_USAGE


def test_commands_find_redis_by_a_module(url: str, splash: Start, tmp_path: Path) -> None:
    """As RQ's do: by -c or its variable, in the folder they are called in or another."""
    (tmp_path / "place.py").write_text(f"REDIS_URL = {url!r}\n")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "away.py").write_text(f"REDIS_URL = {url!r}\n")
    splash("-c", "place", *TASKS, "--name", "mine", "--record", "record.jsonl").await_idle(1)
    for words in (["-c", "place"], ["-c", "away", "-P", "far"]):
        called = splash("call", *words, "add", "5", "6")
        assert (called.wait(READY), called.out) == (EXIT_OK, "11\n")
    alive = splash("health", RQ_CONFIG="place")
    assert (alive.wait(READY), alive.out) == (EXIT_OK, "alive: mine; serving default\n")
    lost = splash("health", "-c", "nowhere")
    assert lost.wait(READY) == EXIT_IMPORT
    assert "config module 'nowhere' cannot be imported" in lost.err
    served = splash("serve", "-c", "place", "--http", "127.0.0.1:0")
    wait_until(lambda: "HTTP door at" in served.out, READY, "an open door")
    served.signal(signal.SIGTERM)
    assert served.wait(READY) == EXIT_OK


def test_what_can_be_seen_from_outside(pool: Start, say: Said, ask: Said, redis: Redis) -> None:
    """tasks, status and health say what there is, in words and in JSON, and change nothing."""
    assert ask("tasks", "--json") == (EXIT_OK, "[]", "")
    assert ask("health")[0] == EXIT_NO_WORKER
    command = pool(*TASKS, "-n", "1", "--name", "mypool", "default")
    await_alive(redis)
    status, out, _ = ask("tasks", "--json")
    assert status == EXIT_OK
    found = {task["name"]: task for task in json.loads(out)}
    assert found["add"]["pools"] == ["mypool"]
    assert found["add"]["signature"] == "(a: Any, b: Any = 1) -> Any"
    assert found["add"]["help"] == "Return a sum."
    assert (found["door.told"]["queue"], found["door.told"]["timeout"]) == ("fast", 7)
    assert found["door.told"]["pools"] == []
    _, out, _ = say("tasks")
    assert "door.told" in out
    assert "nobody" in out

    assert ask("call", "door.told")[0] == EXIT_NO_WORKER
    assert ask("health") == (EXIT_OK, "alive: mypool; serving default", "")
    assert say("health", "default", "--pool", "mypool")[0] == EXIT_OK
    assert ask("health", "default", "fast")[0] == EXIT_NO_WORKER
    assert ask("health", "--pool", "other")[0] == EXIT_NO_WORKER
    keys = sorted(redis.keys())
    _, out, _ = ask("status", "--json")
    (seen,) = json.loads(out)
    assert (seen["name"], seen["queues"], seen["open"]) == ("mypool", ["default"], True)
    assert seen["pid"] == command.process.pid
    assert seen["state"]["target"] == 1
    _, out, _ = say("status")
    assert "mypool" in out
    assert sorted(redis.keys()) == keys
    command.signal(signal.SIGTERM)
    assert command.wait(BOUND) == EXIT_OK
    assert ask("health")[0] == EXIT_NO_WORKER
    assert say("purge") == (EXIT_OK, "nothing to purge", "")


def test_without_redis(splash: Start, ask: Said) -> None:
    """Each command says in one line that no Redis answers, and shows no password."""
    for words in (["tasks"], ["status"], ["health"], ["purge"], ["call", "add"]):
        status, out, err = ask(*words, "-u", "redis://user:S3CRET@127.0.0.1:1/0")
        assert (status, out) == (EXIT_CONNECTION, "")
        (line,) = err.splitlines()
        assert line.startswith("pysplash: no Redis answers at 127.0.0.1:1/0")
    command = splash("status", "-u", "redis://user:S3CRET@127.0.0.1:1/0")
    assert command.wait(BOUND) == EXIT_CONNECTION
    assert "S3CRET" not in command.err + command.out


def test_setup_runs_once_per_worker(pool: Start, url: str, tmp_path: Path) -> None:
    """Each worker is set up once before its first job, and torn down once when it leaves."""
    marks = tmp_path / "marks"
    command = pool(*TASKS, "-n", "2", "--max-jobs", "3", "--param", f"marks={marks}", "default")
    with Client(url, patience=READY, timeout=BOUND) as client:
        assert client.map("add", range(20)) == list(range(1, 21))
    command.await_idle(2)
    command.signal(signal.SIGTERM)
    assert command.wait(BOUND) == EXIT_OK
    lines = [tuple(line.split()) for line in marks.read_text().splitlines()]
    up = [pid for what, pid in lines if what == "up"]
    down = [pid for what, pid in lines if what == "down"]
    assert len(up) == len(set(up)) >= 7
    assert sorted(down) == sorted(up)


def test_a_setup_that_fails(pool: Start) -> None:
    """A worker that cannot be set up cannot start, and the pool says why."""
    command = pool(*TASKS, "-n", "1", "--param", "fail=no such model", "default")
    assert command.wait(60) == EXIT_BOOT
    assert "RuntimeError: no such model" in command.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("@pysplash.task\ndef f(): ...\n@pysplash.task(name='f')\ndef g(): ...\n", "taken twice"),
        ("@pysplash.task(name='os system')\ndef f(): ...\n", "'os system' is not usable"),
        ("pysplash.task(lambda: 1)\n", "'<lambda>' is not usable"),
    ],
)
def test_names_that_are_refused_at_import(
    pool: Start, tmp_path: Path, code: str, said: str
) -> None:
    """A pool whose module names tasks badly does not start, and says which."""
    (tmp_path / "badly_named.py").write_text("import pysplash\n" + code)
    command = pool("--preload", "badly_named", "-q", "default")
    assert command.wait(BOUND) == EXIT_IMPORT
    (line,) = [line for line in command.err.splitlines() if line.startswith("pysplash: ")]
    assert "ConfigError: task name" in line
    assert said in line


def test_a_rolling_restart_publishes_what_is_new(pool: Start, url: str, tmp_path: Path) -> None:
    """HUP loads the module anew: tasks that are new can be called, the old ones all along."""
    module = tmp_path / "growing.py"
    text = "import pysplash\n@pysplash.task\ndef one(): return 1\n"
    module.write_text(text)
    command = pool("--preload", "growing", "-q", *QUICK, "-n", "2", "default")
    with Client(url, patience=READY, timeout=BOUND) as client:
        assert client.one() == 1
        module.write_text(text + "@pysplash.task\ndef two(): return 2\n")
        command.signal(signal.SIGHUP)
        known = wait_until(
            lambda: [pool for pool in client.pools() if pool.task("two")], READY, "the new task"
        )
        assert len(known) == 1
        # until the last old worker has gone, a call may meet one that knows no such task
        wait_until(lambda: answers(client, "two") == 2, READY, "an answer of the new task")
        assert client.one() == 1


def answers(client: Client, name: str) -> object:
    """Return the answer of a task, or its error."""
    try:
        return client.execute(name)
    except CallError as error:
        return error


def test_a_task_may_call_a_task(pool: Start, url: str) -> None:
    """Tasks that wait for tasks all end, with one worker too: it runs what it waits for."""
    pool(*TASKS, "-n", "1", "default")
    with Client(url, patience=READY, timeout=BOUND) as client:
        calls = [client.submit("door.nested", url, seconds) for seconds in (0.1, 0.2, 0.3)]
        assert [call.result(BOUND) for call in calls] == [0.1, 0.2, 0.3]


def test_every_call_is_answered_though_workers_die(pool: Start, url: str) -> None:
    """Workers are killed under calls: each call ends all the same, with its value or an error."""
    command = pool(*TASKS, "-n", "3", "default")

    async def scene() -> list[object]:
        async with AsyncClient(url, patience=READY) as client:
            calls = await client.submit_many("add", range(600))
            naps = await client.submit_many("door.nap", [0.2] * 12)
            for _ in range(4):
                await naps[0].wait(0.15)
                tell(await asyncio.to_thread(command.workers), signal.SIGKILL)
            every = [call.result(60) for call in [*calls, *naps]]
            return list(await asyncio.gather(*every, return_exceptions=True))

    ended = asyncio.run(scene())
    assert len(ended) == 612
    for number, answer in enumerate(ended[:600]):
        assert answer == number + 1 or is_death(answer), answer
    assert all(answer == 0.2 or is_death(answer) for answer in ended[600:])
    assert any(map(is_death, ended)), "no call met its death: the test has shown nothing"


def is_death(answer: object) -> bool:
    """Return whether a call failed because its worker died."""
    return isinstance(answer, ExecutionError) and "The worker died" in answer.traceback


def test_ten_thousand_calls_in_flight(pool: Start, url: str, redis: Redis) -> None:
    """10,000 calls at once are answered rightly over one connection of the caller's."""
    pool(*TASKS, "-n", "2", "default")
    named = Redis.from_url(url, client_name="caller")

    async def scene() -> None:
        async with AsyncClient(connection=named, patience=READY, timeout=120) as client:
            assert await client.add(1) == 2
            asking = asyncio.create_task(client.map("add", range(10_000)))
            most = 0
            while not asking.done():
                await asyncio.wait([asking], timeout=0.1)
                listed = redis.client_list()
                most = max(most, sum(c["name"] == "caller" for c in listed))
            assert await asking == list(range(1, 10_001))
            assert most == 1

    asyncio.run(scene())


def test_the_ghost_of_a_killed_pool(pool: Start, say: Said, url: str, redis: Redis) -> None:
    """A pool killed with all its processes is known for dead, its job settled, its name struck."""
    command = pool(*TASKS, "-n", "1", "default")
    command.await_idle(1)
    marks, gate = command.folder / "marks", command.folder / "gate"
    with Client(url, patience=READY) as client:
        held = client.submit("door.hold", str(marks), str(gate))
        wait_until(marks.exists, READY, "the held task")
        tell([command.process.pid, *command.fork_servers()], signal.SIGKILL)
        wait_until(lambda: not command.processes(), BOUND, "the end of all processes")
        assert held.status() == "started"
        wait_until(lambda: not client.pools(), ALIVE + BOUND, "the pool's word to expire")
        assert say("health")[0] == EXIT_NO_WORKER
        status, out, err = say("purge")
        assert (status, err.count("\n")) == (EXIT_OK, 0)
        assert "purged, its job failed" in out
        with pytest.raises(ExecutionError, match="its pool died"):
            held.result(BOUND)
    assert say("purge") == (EXIT_OK, "nothing to purge", "")
    assert redis.smembers("rq:workers") == set()


def test_sample_tasks_to_play_with(splash: Start) -> None:
    """The demo's tasks can be called as it says, with nothing installed but the package."""
    demo = splash("demo", "--tasks", "--max-procs", "2")
    wait_until(lambda: demo.out.count("\n") == 4, READY, "what the demo says")
    shown = [line.split()[1:] for line in demo.out.splitlines()[1:]]
    assert [words[0] for words in shown] == ["tasks", "call", "call"]
    wanted = ["prime.factors", "11", "[71, 839, 1471, 6857]"]
    for words, expected in zip(shown, wanted, strict=True):
        patience = ["--patience", "20"] if words[0] == "call" else []
        asked = splash(words[0], *patience, *words[1:])
        assert asked.wait(BOUND) == EXIT_OK, asked.err
        assert expected in asked.out or words[0] == "tasks"
    demo.signal(signal.SIGINT)
    assert demo.wait(BOUND) == EXIT_OK
