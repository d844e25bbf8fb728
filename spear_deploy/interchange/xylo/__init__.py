"""Networks as integer arrays for SynSense Xylo: written, read back and run."""
