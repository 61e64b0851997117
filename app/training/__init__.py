"""The worker's side: one run to its end, resumable to the bit."""
