"""Other people's clients, each in a throwaway environment, against this server: `python -m tests.clients`."""
