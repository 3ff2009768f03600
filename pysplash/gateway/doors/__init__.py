"""The doors themselves: one module a protocol, and the connections of those that are streams."""
