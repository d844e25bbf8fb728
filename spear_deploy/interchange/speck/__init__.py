"""Networks as integers for SynSense Speck: written, read back and run."""
