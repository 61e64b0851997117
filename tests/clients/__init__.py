"""Third-party clients, each in a temporary environment, against this server: `python -m tests.clients`."""
