"""Pictures, gradient checks and the report, made in helper processes."""
