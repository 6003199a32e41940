"""The report of a run: figures and facts on one self-contained page."""
