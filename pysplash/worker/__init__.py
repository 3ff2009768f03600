"""The worker: one round trip a job, jobs inside jobs, brief jobs prefetched."""

from .worker import Worker

__all__ = ["Worker"]
