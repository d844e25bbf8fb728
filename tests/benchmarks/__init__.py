"""Commands that make the figures of the documentation."""
