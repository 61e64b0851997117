"""Generates many texts at the same time from loaded checkpoints."""
