"""Norse: networks read from Norse models, built as Norse models, and run by Norse."""
