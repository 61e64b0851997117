"""Trains the runs of a store, resumable to the bit."""
