"""The routes, one folder a dialect."""
