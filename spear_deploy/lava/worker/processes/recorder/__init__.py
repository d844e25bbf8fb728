"""Recorders: spikes and states leave Lava as files."""
