"""How are amounts written? With the prefix of their size, and their noun."""


def with_prefix(value: float, unit: str) -> str:
    """Return a quantity with the prefix of its size.

    >>> with_prefix(1.66e-3, "J")
    '1.66 mJ'
    """
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def plural(n: int, what: str) -> str:
    """Return a count with its noun."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
