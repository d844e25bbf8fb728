"""Hardware profiles: the facts of a chip, each with unit, source and evidence."""
