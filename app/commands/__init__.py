"""The commands of the command line: serve, train, runs, generate, report, doctor and others."""
