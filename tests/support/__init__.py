"""Helpers shared by the tests: small runs and networks, servers, browsers."""
