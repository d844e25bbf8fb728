"""Files, digests, number formats, tables, memory and progress for all rooms."""
