"""The HTTP routes, one package per API."""
