"""HTTP itself: connections, keys, limits, error bodies, server-sent events."""
