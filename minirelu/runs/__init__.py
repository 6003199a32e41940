"""The run folder: making one, reading it, its checkpoints, and writing files safely."""
