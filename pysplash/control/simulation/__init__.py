"""A machine, its jobs and its workers in arithmetic: the policy runs an hour in a second."""
