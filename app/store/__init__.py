"""The store: a folder of runs; the name, format and atomic write of every file in it."""
