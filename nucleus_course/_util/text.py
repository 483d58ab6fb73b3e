"""Numbers with their nouns, in captions and messages."""


def counted(number, noun: str, plural: str = "") -> str:
    """``1 pixel``, ``2 pixels``, ``0.5 pixels``; ``plural`` where it is not the noun with an s (``nuclei``)."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"
