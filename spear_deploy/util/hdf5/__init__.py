"""HDF5 trees, read in a process of their own with limits."""
