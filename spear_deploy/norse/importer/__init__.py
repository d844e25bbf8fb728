"""Norse models traced into an SNNGraph."""
