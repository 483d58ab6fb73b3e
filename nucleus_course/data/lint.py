"""The problems of a data set: issues, what was done about them, and the report."""

from collections import Counter
from dataclasses import dataclass, field

REPAIRED, REFUSED, NOTED = "repaired", "refused", "noted"


@dataclass(frozen=True)
class Issue:
    """One problem. ``file`` is the path inside the source; ``kind`` a short fixed name such as
    "overlap"; ``action`` is "repaired" (the image is used), "refused" (the image, or a file without
    an image, is left out) or "noted" (nothing had to be done). ``image_id`` is "" if it is about the whole source."""

    image_id: str
    file: str
    kind: str
    message: str
    action: str

    def __str__(self):
        return f"{self.file or self.image_id}: {self.message} ({self.action})"


@dataclass
class LintReport:
    """All issues of one source; false if there are none."""

    source: str = ""
    images: int = 0
    issues: list = field(default_factory=list)
    annotations: str = ""  # their format, if it is not BBBC038's

    def __len__(self):
        return len(self.issues)

    def __iter__(self):
        return iter(self.issues)

    @property
    def repaired(self):
        return [issue for issue in self.issues if issue.action == REPAIRED]

    @property
    def refused(self):
        return [issue for issue in self.issues if issue.action == REFUSED]

    @property
    def kinds(self):
        """How many issues there are of each kind."""
        return dict(sorted(Counter(issue.kind for issue in self.issues).items()))

    def summary(self):
        """One line for a terminal."""
        form = f"; annotations: {self.annotations}" if self.annotations else ""
        if not self.issues:
            return f"{self.images} images, nothing to report{form}"
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        return f"{self.images} images usable; {len(self.repaired)} repairs, {len(self.refused)} refusals: {kinds}{form}"

    def table(self):
        """A rich table with one row for each issue."""
        from rich.table import Table

        table = Table(title=f"Lint of {self.source}: {self.summary()}")
        for name in ("action", "kind", "file", "finding"):
            table.add_column(name, overflow="fold")
        for issue in self.issues:
            table.add_row(issue.action, issue.kind, issue.file or issue.image_id, issue.message)
        return table

    def for_ids(self, ids):
        """The report for some images; it keeps issues that belong to no usable image, or to the whole source."""
        return LintReport(
            self.source,
            len(ids),
            [i for i in self.issues if i.image_id in ids or i.action == REFUSED or not i.image_id],
            self.annotations,
        )
