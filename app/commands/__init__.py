"""What each command of the command line does: serve, train, runs, generate, report, doctor."""
