"""The HTTP layer: connections, keys, limits, error bodies, server-sent events."""
