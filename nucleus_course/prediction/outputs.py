"""What is written besides labels and tables: other programs' formats, units, further properties."""

from __future__ import annotations

from typing import Any


class Outputs:
    """The three options, checked before anything is detected.

    Raises:
        UserError: an unknown format or property, a missing package, or an invalid pixel size.
    """

    def __init__(self, export: str, pixel_size: float | None, properties: str) -> None:
        from nucleus_course.prediction.exports import parse_formats
        from nucleus_course.prediction.measurements import check_pixel_size, check_properties

        self.formats = parse_formats(export) if export else ()
        self.pixel_size = check_pixel_size(pixel_size)
        self.properties = check_properties(p.strip() for p in properties.split(",") if p.strip())

    def settings(self) -> dict[str, Any]:
        """What must be equal for results to share a folder."""
        asked = {"export": self.formats, "properties": self.properties}
        return {name: list(v) or None for name, v in asked.items()} | {
            "pixel_size": self.pixel_size
        }

    def measure(
        self,
        labels: Any,
        pixels: Any,
        scores: Any,
        quality: Any = None,
        novelty: float | None = None,
    ) -> dict[str, list]:
        """The table of measurements of one image; ``pixels`` as ``read_picture`` gives them."""
        from nucleus_course.prediction.measurements import measurement_table

        size = self._size(pixels)
        others = pixels.others() if pixels.others else ()
        return measurement_table(
            labels, pixels.values, scores, size, self.properties, others, quality, novelty
        )

    def write(
        self, folder: Any, stem: str, labels: Any, pixels: Any, scores: Any, table: dict
    ) -> None:
        """Write one image's nuclei in the formats."""
        from nucleus_course.prediction.exports import write_exports

        size = self._size(pixels)
        write_exports(folder, stem, labels, scores, self.formats, size, pixels.values, table)

    def write_slide(self, folder: Any, stem: str, nuclei: Any, plane: Any, table: dict) -> None:
        """As :meth:`write` for a slide's :class:`~nucleus_course.prediction.slide_nuclei.Nuclei`, piece by piece."""
        from nucleus_course.prediction.export_images import Pieces
        from nucleus_course.prediction.exports import Export, write_pieces

        ids, scores = nuclei.labels[nuclei.kept], nuclei.scores[nuclei.kept].astype("float64")
        data = Export(stem, nuclei, ids, scores, self._size(plane), Pieces(plane), table)
        write_pieces(folder, data, self.formats)

    def _size(self, pixels: Any) -> float | None:
        return self.pixel_size if self.pixel_size is not None else pixels.pixel_size or None
