"""The decision: how many workers, which, and why. Pure: no clock, no I/O, no memory of its own."""
