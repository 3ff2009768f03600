"""Calling tasks by name, from any thread or event loop: discovery, requests, answers."""
