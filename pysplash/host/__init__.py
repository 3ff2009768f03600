"""The machine: cores, memory, cgroups, what processes used, and the signals they get."""
