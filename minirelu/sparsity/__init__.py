"""Which hidden units fire: streaming counts, and measures as pure functions of them."""
