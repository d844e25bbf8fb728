"""A whole network as one Lava process."""
