"""Recorders that write spikes and states to files."""
