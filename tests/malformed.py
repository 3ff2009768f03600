"""Messages on a worker's channel that are no commands."""

from __future__ import annotations

MESSAGES = (
    b"",
    b"shutdown",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"5",
    b"NaN",
    b"{}",
    b'{"command": null}',
    b'{"command": ["shutdown"]}',
    b'{"command": {"shutdown": 1}}',
    b'{"command": "dance"}',
    b'{"command": "Shutdown"}',
    b'{"command": "stop-job"}',
    b'{"command": "stop-job", "job_id": null}',
    b'{"command": "stop-job", "job_id": ""}',
    b'{"command": "stop-job", "job_id": ["a"]}',
    b'{"command": "stop-execution", "job_id": "a"}',
    b'{"command": "stop-execution", "execution_id": "a"}',
    b'{"command": "stop-execution", "job_id": "a", "execution_id": 5}',
    b'{"command": "kill-horse", "job_id": 5}',
    b"[" * 100_000,
    b'{"command": "' + b"x" * 2**20 + b'"}',
    b'{"command": "two\nlines"}',
)
