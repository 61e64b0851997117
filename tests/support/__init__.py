"""What several tests use: small runs and networks, servers, browsers."""
