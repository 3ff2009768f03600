"""The fork server: the process that forks, throttles and reaps the workers."""
