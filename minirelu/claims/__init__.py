"""Claims put to runs: what settings do to the use of layers, and the claims of the paper."""
