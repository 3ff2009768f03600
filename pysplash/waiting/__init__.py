"""Waiting for jobs: wait_jobs, map_jobs, the waits-for graph, and help from the worker."""
