"""Norse networks built from graphs, trained and run."""
