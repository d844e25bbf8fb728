"""Norse models read, built, trained and run."""
