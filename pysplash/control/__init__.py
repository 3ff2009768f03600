"""The policy: how many workers, which, and why. Pure functions: no clock, no I/O, no state."""
