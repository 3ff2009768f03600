"""Doors for programs that do not speak RQ: TCP frames, HTTP and ZeroMQ; and the daemon."""
