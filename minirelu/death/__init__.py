"""Who falls silent, when, whether they come back, and why."""
