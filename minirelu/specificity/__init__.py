"""What units respond to and what they write: tokens, n-grams, positions, layer by layer."""
