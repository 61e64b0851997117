"""The store: a directory of runs; the name, format and atomic replacement of every file in it."""
