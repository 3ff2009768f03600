"""What a pool says: accounting, record, picture, log. The words are the same everywhere."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from pysplash import errors
from pysplash.control.model import Decision, Drain, Kill, Limits, Reason, Spawn, Stop
from pysplash.log import RedactingFormatter, logger, redact
from pysplash.recording.screen import MEANING, History, bar, explain, screen, tick_line
from pysplash.recording.writer import Recorder, entry
from pysplash.supervisor.accounting import Accounting

from .views import MIB, NOW, busy, samples, view, waiting, worker

FIELDS = {
    "t", "cpu", "mem", "mem_bytes", "queued", "starting", "idle", "busy", "waiting", "stopping",
    "target", "reason", "actions",
}  # fmt: skip


def test_a_record_line_has_every_field() -> None:
    """Plot, replay and users rely on the fields; stopping workers are counted as such only."""
    facts = view(busy("a"), waiting("b"), worker("c", stop_at=NOW), queued=3)
    decision = Decision(
        3, Reason.BACKLOG, (Spawn(1, Reason.BACKLOG), Stop("a", Reason.CPU), Kill("c", Reason.COLD))
    )

    line = entry(1.5, facts, decision)

    assert set(line) >= FIELDS
    assert (line["busy"], line["waiting"], line["idle"], line["stopping"]) == (1, 1, 0, 1)
    assert (line["t"], line["cpu"], line["mem_bytes"]) == (1.5, 20.0, 100 * MIB)
    assert [action["kind"] for action in line["actions"]] == ["spawn", "stop", "kill"]
    assert json.loads(json.dumps(line)) == line


def test_a_record_is_appended_line_by_line(tmp_path: Path) -> None:
    """Two ticks are two lines, also after a restart."""
    path = tmp_path / "run.jsonl"
    for _ in range(2):
        recorder = Recorder(path, wall_clock=lambda: 7.0)
        recorder.write(view(), Decision(0, Reason.STEADY), Limits())
        recorder.close()

    assert [json.loads(line)["t"] for line in path.read_text().splitlines()] == [7.0, 7.0]


def test_a_record_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    """The path and the system's reason are named."""
    with pytest.raises(errors.ConfigError, match=r"absent.*No such file"):
        Recorder(tmp_path / "absent" / "run.jsonl")


def test_a_full_disk_costs_the_record_not_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    """Writing fails in one line of the log, once."""
    recorder = Recorder("/dev/full")
    for _ in range(3):
        recorder.write(view(), Decision(0, Reason.STEADY), Limits())
    recorder.close()

    assert sum("cannot be written" in message for message in caplog.messages) == 1


def test_accounting() -> None:
    """Counts, the average over time, the most, and rates a minute."""
    accounting = Accounting(started=NOW - 60)
    accounting.observe(view(worker("a", jobs=3, failed=1)))
    later = view(worker("a", jobs=5, failed=1), busy("b", jobs=1), worker("c", stop_at=NOW))
    accounting.observe(later)
    for _ in range(3):
        accounting.note_spawn()
    line = accounting.line(NOW)

    assert accounting.most == 3
    assert accounting.stopping == 1
    assert "up 60 s" in line
    assert "workers 3" in line
    assert "most 3" in line
    assert "waiting for termination 1" in line
    assert "spawned 3 (3.0/min)" in line
    assert "jobs 6 (6.0/min)" in line
    assert "jobs failed 1 (1.0/min)" in line


def test_accounting_speaks_only_when_something_changed() -> None:
    """An idle pool is quiet."""
    accounting = Accounting(started=NOW)
    assert accounting.changed()
    assert not accounting.changed()
    accounting.note_stop(Reason.ZOMBIE)
    assert accounting.changed()


def test_every_reason_has_a_meaning_or_concerns_one_worker() -> None:
    """Whoever reads a reason on screen is told what it means."""
    about_one = {Reason.ZOMBIE, Reason.OVERDUE, Reason.TERMINATE, Reason.STOPPED}

    assert set(MEANING) | about_one == set(Reason)


def test_the_screen_keeps_its_height() -> None:
    """A live picture does not jump: as many lines at the first tick as at the hundredth."""
    history = History()
    heights = set()
    for size in range(12):
        facts = view(*(busy(f"w{i}") for i in range(size)), queued=5)
        decision = Decision(size + 1, Reason.BACKLOG)
        history.add(facts, decision)
        heights.add(len(screen(facts, decision, history, 80, 80)))

    assert len(heights) == 1
    assert history.most == 11


def test_the_picture_says_what_is() -> None:
    """States, numbers, target and reason stand in both the screen and the plain line."""
    facts = view(busy("a"), waiting("b"), queued=7, samples=samples(cpu=64), drain=Drain.WARM)
    decision = Decision(2, Reason.MAX)
    history = History()
    history.add(facts, decision)
    for text in (
        "\n".join(screen(facts, decision, history, 80, 80)),
        tick_line(facts, decision, history),
    ):
        assert "busy 1" in text
        assert "waiting 1" in text
        assert "64 %" in text
        assert "max" in text
        assert "7" in text


def test_the_explanation_names_each_change_and_each_hold() -> None:
    """At the end a person reads how often the target changed for which reason."""
    history = History()
    for second, (target, reason) in enumerate(
        [
            (1, Reason.MIN),
            (2, Reason.BACKLOG),
            (4, Reason.BACKLOG),
            (4, Reason.CPU),
            (4, Reason.CPU),
        ]
    ):
        facts = view(busy("a"), queued=5)
        history.add(
            type(facts)(now=NOW + second, workers=facts.workers, samples=facts.samples, queued=5),
            Decision(target, reason),
        )
    text = "\n".join(explain(history))

    assert "00:01-00:02  backlog: 1 -> 4 in 2 steps: jobs waited and there was room" in text
    assert "for   2.0 s  cpu: the CPU limit allowed no more" in text


@pytest.mark.parametrize(("per_cent", "full"), [(0, 0), (50, 12), (100, 24), (250, 24), (-3, 0)])
def test_bars(per_cent: float, full: int) -> None:
    """A bar is as full as its per cent, within its bounds."""
    assert bar(per_cent, 80).count("█") == full


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("redis://user:hunter2@host:6379/0", "hunter2"),
        ("cannot connect to redis://:p%40ss@host", "p%40ss"),
        ("password=hunter2", "hunter2"),
        ("token: 'abc def'", "abc def"),
        ("{'password': 'hunter2'}", "hunter2"),
    ],
)
def test_secrets_are_redacted(text: str, hidden: str) -> None:
    """Neither a URL's password nor a named secret reaches a log or a message."""
    assert hidden not in redact(text)
    assert "***" in redact(text)


def test_control_characters_do_not_reach_the_terminal() -> None:
    """A job's text cannot clear the screen or forge a line's colour."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "job %s", ("\x1b[2J\r",), None)

    assert RedactingFormatter("%(message)s").format(record) == "job ?[2J?"


def test_nothing_is_configured_at_import() -> None:
    """The library leaves logging to its users."""
    assert logger().handlers == []
    assert logger("pool").name == "pysplash.pool"
    assert logger("pysplash.pool") is logger("pool")


def test_every_error_is_in_the_tree_and_says_something() -> None:
    """One base, a docstring each, which is the message where none is given."""
    tree = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    for error in tree:
        assert issubclass(error, errors.SplashError)
        assert error.__doc__
        assert error.__name__ in (errors.__doc__ or "") or error is errors.SplashError
    assert str(errors.WouldDeadlock()) == "A job waits for itself, or for a job that waits for it."
