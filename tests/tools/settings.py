"""Settings of a pool that sends to Sentry; what is sent goes to the file SENT_TO."""

from __future__ import annotations

import json
import os
from typing import Any

import sentry_sdk
from sentry_sdk.transport import Transport


class ToFile(Transport):
    """Writes a line for each item that would be sent, once it is told to flush."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.kept: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep what would be sent: as Sentry's own, which sends it from a thread."""
        for item in envelope.items:
            event = item.payload.json or {}
            error = ((event.get("exception") or {}).get("values") or [{}])[-1].get("value")
            job = (event.get("extra") or {}).get("rq-job") or {}
            line = {
                "type": item.type,
                "transaction": event.get("transaction"),
                "error": error,
                "job": job.get("job_id"),
            }
            self.kept.append(json.dumps(line))

    def flush(self, timeout: float, callback: Any = None) -> None:
        """Write what was kept."""
        with open(os.environ["SENT_TO"], "a") as file:
            file.writelines(f"{line}\n" for line in self.kept)
        self.kept.clear()


sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1",
    transport=ToFile,
    traces_sample_rate=1.0,
    auto_session_tracking=False,
)
