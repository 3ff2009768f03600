"""A task whose work is done by a program in C, or, where there is no compiler, in Python.

    python examples/shout.py

Each worker has one long-lived child of that program; it is started when it is first needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pysplash

HERE = Path(__file__).parent / "coprocess"
#: the program, as the workers find it
PROGRAM = "EXAMPLE_UPPER"

upper = pysplash.Coprocess(
    [os.environ[PROGRAM]] if PROGRAM in os.environ else [sys.executable, str(HERE / "upper.py")],
    name="upper",
)


@pysplash.task
def shout(text: str) -> str:
    """Return a text in capitals."""
    return upper(text.encode()).decode()


def build(folder: str) -> None:
    """Compile the program, if there is a compiler."""
    compiler = shutil.which("cc")
    if compiler is not None:
        program = str(Path(folder) / "upper")
        subprocess.run([compiler, "-o", program, str(HERE / "upper.c")], check=True)
        os.environ[PROGRAM] = program


def ask(url: str, pool: pysplash.Pool) -> None:
    """Call the task as any program would, then let the pool end."""
    try:
        with pysplash.Client(url, patience=30, timeout=30) as client:
            print(client.shout("hello from c"))
            print(len(set(client.map("shout", ["a" * 1000] * 100))), "answer to 100 calls")
    finally:
        pool.stop()


def main() -> None:
    """Build, serve and call."""
    with tempfile.TemporaryDirectory() as folder, pysplash.EmbeddedServer() as server:
        build(folder)
        pool = pysplash.Pool(["default"], url=server.url, preload=["shout"], max_procs=2)
        threading.Thread(target=ask, args=(server.url, pool)).start()
        pool.start()


if __name__ == "__main__":
    main()
