"""Pictures, gradient checks and the report, produced in helper processes."""
