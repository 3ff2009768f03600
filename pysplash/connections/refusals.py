"""Refusals: what is missing at a server that cannot be used, in words."""

from __future__ import annotations

from redis.exceptions import AskError, ClusterError, RedisError, ResponseError


def refusal(error: RedisError) -> str:
    """Return the end of a sentence that begins with the server, for its reply *error*."""
    text = str(error).partition(", with args")[0]
    lower = text.lower()
    if isinstance(error, ClusterError | AskError) or "same slot" in lower or "cluster" in lower:
        return f"is a cluster ({text}): RQ and PySplash need a single server, or one with Sentinel"
    if "key" in lower and "permission" in lower:
        return f"refuses keys that PySplash uses ({text}): allow the user rq:* and pysplash:*"
    if "hello" in lower or "subcommand" in lower or "syntax" in lower or "arguments" in lower:
        return f"is too old ({text}): PySplash needs Redis 6.2 or newer, or Valkey"
    if "eval" in lower or "script" in lower:
        return f"does not run scripts ({text}): PySplash needs EVAL, EVALSHA and SCRIPT LOAD"
    if not isinstance(error, ResponseError):
        return f"refuses: {text}"
    return f"lacks what PySplash needs ({text}): Redis 6.2 or newer, or Valkey"
