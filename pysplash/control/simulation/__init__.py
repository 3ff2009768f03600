"""A simulated machine with jobs and workers, on which the policy runs an hour in a second."""
