"""JSON-RPC in Python, with nothing of PySplash.

python call.py http://127.0.0.1:8080/rpc
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any


def call(url: str, method: str, *parameters: Any) -> Any:
    """Return the result of a call, or the error's code and message."""
    body = {"jsonrpc": "2.0", "method": method, "params": parameters, "id": 1}
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    if "error" in answer:
        return f"{answer['error']['code']} {answer['error']['message']}"
    return json.dumps(answer["result"], separators=(",", ":"))


for method, *parameters in (
    ("add", 5, 6),
    ("text.count", "To be or not to be"),
    ("divide", 1, 0),
    ("os.system", "true"),
):
    print(call(sys.argv[1], method, *parameters))
