"""``novacron demo``: a guest that works moves to another cluster and back, and is found whole."""
