"""``novacron bench chaos``: a guest moves between two sites, while their processes and their link are struck."""
