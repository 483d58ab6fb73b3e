"""Numbers with nouns, for captions and messages."""


def pluralize(number, noun: str, plural: str = "") -> str:
    """``1 pixel``, ``2 pixels``, ``0.5 pixels``; ``plural`` if it is not the noun with an s.

    >>> pluralize(1, "nucleus", "nuclei"), pluralize(400, "nucleus", "nuclei")
    ('1 nucleus', '400 nuclei')
    """
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"
