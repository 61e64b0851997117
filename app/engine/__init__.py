"""Many texts at once from loaded checkpoints."""
