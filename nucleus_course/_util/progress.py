"""The progress bar: on standard error, with the time left; it disappears at the end."""


def progress(show=True, sizes=False, console=None):
    """A ``rich`` progress bar as a context manager; ``sizes`` counts bytes instead of items."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    count = (DownloadColumn(), TransferSpeedColumn()) if sizes else (MofNCompleteColumn(),)
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), *count, *times)
    console = console or Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not show)


def track(items, text, total=None, show=True):
    """Iterate over ``items`` with a progress bar; ``total`` if they have no length."""
    if not show:
        return items
    return _tracked(items, text, len(items) if total is None else total)


def _tracked(items, text, total):
    with progress() as bar:
        yield from bar.track(items, total=total, description=text)
