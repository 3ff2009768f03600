"""Redis: addresses, clients, the two connections of our own, and what counts as an outage."""
