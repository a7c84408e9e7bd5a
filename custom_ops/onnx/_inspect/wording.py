"""How counts, sizes and texts of a model are written for people."""

LONGEST = 100  # characters of a text


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Returns a number of bytes in the unit that suits it."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return f"{count} bytes"


def shortened(text: str, longest: int = LONGEST) -> str:
    """Returns a text on one line, without what a terminal would obey, and not too long."""
    text = "".join(c if c.isprintable() else " " for c in text[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
