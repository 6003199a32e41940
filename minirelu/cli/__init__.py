"""The commands: thin, they parse, call and print. Heavy imports stay inside the functions."""
