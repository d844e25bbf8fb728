"""Files, digests, number formats, progress: what every room uses."""
