"""Adam, the schedule, the run folder with its checkpoints, and the loop that joins them."""
