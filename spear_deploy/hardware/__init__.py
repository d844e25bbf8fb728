"""Hardware profiles: facts of chips with unit, source and evidence."""
