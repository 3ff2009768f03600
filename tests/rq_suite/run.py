"""Runs RQ's own tests with PySplash's worker, and with RQ's SimpleWorker as the peer.

RQ's source is unpacked below ``.venvs/``. Prints each test that fails with our worker alone and is
not listed in ``exceptions.txt``, and each listed one that passes; the status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import rq.version

from benchmarks.servers import on_port

HERE = Path(__file__).parent
#: what is known to differ, and why: lines of a test's id, a space, and the reason
EXCEPTIONS = HERE / "exceptions.txt"
#: times pytest is started again after a test that ended its process
RESTARTS = 40


def unpacked(version: str, folder: Path) -> Path:
    """Return where RQ's source is, fetched by its name and version if it is not there yet."""
    source = folder / f"rq-{version}"
    if not source.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        which = ["--no-deps", "--no-binary", ":all:", f"rq=={version}"]
        subprocess.run([*pip, *which, "--dest", folder], check=True)
        with tarfile.open(folder / f"rq-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return source


def outcomes(log: Path) -> dict[str, str]:
    """Return how each test has ended, as far as the *log* says."""
    if not log.exists():
        return {}
    return dict(json.loads(line) for line in log.read_text().splitlines())


def run(side: str, source: Path, log: Path, tests: list[str]) -> dict[str, str]:
    """Run RQ's tests for one *side*; return how each ended: passed, skipped, failed or died."""
    log.unlink(missing_ok=True)
    with on_port(None) as port:
        settings = {"RQ_SUITE_SIDE": side, "RQ_SUITE_LOG": str(log), "RQ_SUITE_PORT": str(port)}
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | settings | {"PYTHONPATH": path}
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "rq_suite_plugin", "--tb=short"]
        with log.with_suffix(".txt").open("w") as output:
            for _ in range(RESTARTS):
                done = [f"--deselect={test}" for test in outcomes(log)]
                command = [*pytest, "-p", "no:cacheprovider", *done, *tests]
                process = subprocess.Popen(
                    command,
                    cwd=source,
                    env=environment,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                code = process.wait()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what tests have left running
                if code in (0, 1, 5):
                    break
    return outcomes(log)


def listed() -> dict[str, str]:
    """Return the tests that are known to differ, with the reasons."""
    lines = [line.strip() for line in EXCEPTIONS.read_text().splitlines()]
    entries = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return {test: reason.strip() for test, _, reason in entries}


def main() -> int:
    """Run both sides and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".venvs/rq-source"))
    parser.add_argument("tests", nargs="*", default=["tests"], help="which of RQ's tests")
    given = parser.parse_args()
    folder = given.folder.resolve()
    source = unpacked(rq.version.VERSION, folder)
    with ThreadPoolExecutor() as pool:
        sides = ("peer", "ours")
        ended = pool.map(lambda side: run(side, source, folder / f"{side}.log", given.tests), sides)
    peer, ours = ended
    print(f"RQ {rq.version.VERSION}, SimpleWorker: {dict(Counter(peer.values()))}")
    print(f"RQ {rq.version.VERSION}, PySplash:     {dict(Counter(ours.values()))}")
    known = listed()
    worse = {test for test, how in peer.items() if how == "passed" and ours.get(test) != how}
    for test in sorted(worse - set(known)):
        print(f"only ours fails: {test} ({ours.get(test, 'not run')})")
    needless = sorted(test for test in known if ours.get(test) == "passed")
    for test in needless:
        print(f"listed, but passes: {test}")
    better = sum(how == "passed" and peer.get(test) != how for test, how in ours.items())
    print(f"{len(worse & set(known))} known to differ, {better} pass with ours alone")
    return 1 if worse - set(known) or needless else 0


if __name__ == "__main__":
    sys.exit(main())
