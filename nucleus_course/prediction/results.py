"""A folder of results that many processes may fill at once, image by image.

    labels/<stem>.tif      a label image
    overlays/<stem>.png    the image with outlines, if wanted
    rows/<stem>.json       the image's rows of the tables; written last, so an image with this file is done
    rows/settings.json     the settings behind the results
    parts/<stem>-…/        bands of a slide, until it is done
    predictions.json, counts.csv, measurements.csv    the tables, combined from rows/

Each file is written atomically, so that a killed process leaves only complete images.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import atomic_write, read_json, remove_stale, write_file, write_json
from nucleus_course.data.listing import written_name
from nucleus_course.prediction.document import to_document
from nucleus_course.prediction.exports import FORMATS, copy_exports, remove_exports
from nucleus_course.prediction.image_files import ImageFile, fingerprint
from nucleus_course.prediction.interchange import ImagePredictions, Predictions
from nucleus_course.prediction.label_images import write_labels, write_overlay
from nucleus_course.prediction.measurements import PROPERTIES, columns_of, count_image, to_csv

FORMAT = 1
TABLES = ("predictions.json", "counts.csv", "measurements.csv")
LONGEST = 200  # bytes of a stem in the name of its row file


@dataclass
class Summary:
    """A folder's totals: ``images`` and ``nuclei``, and the rows of counts.csv."""

    images: int
    nuclei: int
    counts: list[dict[str, Any]]


class ResultsFolder:
    """The results of one model with one operating point.

    Args:
        path: the folder; created if it does not exist.
        settings: ``{"info": …, "options": …}`` of JSON types: what predictions.json records about the
            model, and every option that changes a result. None takes those stored in the folder.
        overwrite: remove earlier results first.

    Raises:
        UserError: the folder holds results of other settings, or none although ``settings`` is None.
    """

    def __init__(
        self, path: str | Path, settings: dict[str, Any] | None, overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        self.rows = self.path / "rows"
        stored = self.rows / "settings.json"
        if settings is None and not stored.is_file():
            raise UserError(
                f"{path} holds no results of `nucleus-course predict`: rows/ is missing"
            )
        self.rows.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if overwrite:
                self._clear()
            for name in (".", "rows", "labels", "overlays", *FORMATS):
                remove_stale(self.path / name)
            earlier = _read(stored) if stored.is_file() else None
            if settings is not None:
                settings = json.loads(json.dumps({"format": FORMAT, **settings}))  # JSON types
                if earlier is not None:
                    self.check_same(earlier, settings)
                write_json(stored, settings)
        self.settings: dict[str, Any] = settings or earlier or {}

    def __len__(self) -> int:
        return sum(1 for _ in self._row_files())

    def done(self, file: ImageFile) -> dict[str, Any] | None:
        """The row of an image if its results are here and the file has not changed since; else None."""
        here = fingerprint(file.path)
        stem = self.named(file, here).stem
        row = self._row(stem)
        if row is None or not self.labels(stem).is_file():
            return None
        return row if row["fingerprint"] == here else None

    def named(
        self, file: ImageFile, known: str, strangers: Container[str] = (), moved: bool = True
    ) -> ImageFile:
        """The file under the name that its results have here, or get: another stem if another image has its own.

        An image is known if its results come from the same path, or from a file with the same content
        that is gone now: it was moved.

        Args:
            known: its :func:`fingerprint`.
            strangers: stems that belong to other images in any case.
            moved: whether to recognise moved images.
        """
        place, free = os.path.realpath(file.path), ""
        for stem in dict.fromkeys((file.stem, file.path.stem, *file.other_stems())):
            row = None if stem in strangers else self._row(stem)
            if row is None:
                own = stem == file.stem or stem != file.path.stem
                free = free or (stem if own and stem not in strangers else "")
            elif row["source"] == place:
                return file.called(stem)
            elif moved and row["fingerprint"] == known and not os.path.exists(row["source"]):
                return file.called(stem)
        return file.called(free or f"{file.stem}-{known[:8]}")

    def add(
        self,
        file: ImageFile,
        found: ImagePredictions,
        labels: Any,
        nuclei: list,
        picture: Any = None,
        seen: dict | None = None,
        export: Callable[[str], None] | None = None,
    ) -> ImageFile:
        """Write the results of an image; returns the file under its name here (:meth:`named`).

        Args:
            found: every detection.
            labels: (H, W) int, the label image at the operating point; or the path of one in this folder,
                which is moved into place.
            nuclei: a dict of measurements for each label.
            picture: (H, W, 3) uint8 to draw the outlines on, or None.
            seen: how the image was normalised, for counts.csv.
            export: a function of the stem that writes the image's files in other formats.
        """
        row = {
            "source": os.path.realpath(file.path), "fingerprint": fingerprint(file.path), "height": found.height, "width": found.width,
            "rles": [rle["counts"] for rle in found.rles], "scores": found.scores.tolist(),
            "boxes": found.boxes.tolist(), "nuclei": nuclei, "seen": seen,
        }  # fmt: skip
        with self._locked():
            file = self.named(file, row["fingerprint"])
            if isinstance(labels, Path):
                self.labels(file.stem).parent.mkdir(exist_ok=True)
                os.replace(labels, self.labels(file.stem))
            else:
                write_labels(self.labels(file.stem), labels)
            if picture is not None:
                write_overlay(self._overlay(file.stem), picture, labels)
            if export is not None:
                export(file.stem)
            self._write_row(file.stem, row | {"file_name": file.file_name})
        return file

    def take_from(self, other: ResultsFolder, taken: dict[str, str]) -> list[str]:
        """Copy another folder's results into this one.

        Args:
            taken: {stem: fingerprint} of what earlier folders gave, to tell apart images of the same name
                and other content; extended here.

        Returns:
            the new stems of images that were renamed, because another image has theirs.
        """
        renamed = []
        for row in other._read_rows():
            stem = row["stem"]
            file = ImageFile(Path(row["source"]), row["file_name"], stem)
            known = row["fingerprint"]
            with self._locked():
                strangers = [s for s in taken if taken[s] != known]
                file = self.named(file, known, strangers, moved=False)
                for name in ("labels", "_overlay"):
                    source, target = getattr(other, name)(stem), getattr(self, name)(file.stem)
                    if source.is_file():
                        with atomic_write(target) as place:
                            shutil.copyfile(source, place)
                copy_exports(other.path, self.path, stem, file.stem)
                self._write_row(file.stem, row | {"file_name": file.file_name})
            taken[file.stem] = known
            renamed += [file.stem] if file.stem != stem else []
        return renamed

    def write_tables(self) -> Summary:
        """Write predictions.json, counts.csv and measurements.csv from rows/, ordered by file name.

        Rows are read one at a time to save memory.
        """
        with filelock.FileLock(self.rows / ".tables.lock"):
            heads = sorted((row["file_name"], row["path"]) for row in self._read_rows())
            paths = [path for _, path in heads]
            counts = [_count(row) for row in map(_read, paths)]
            columns = list(count_image("", (0, 0), []))
            write_file(self.path / "counts.csv", to_csv(counts, columns))
            with atomic_write(self.path / "measurements.csv") as place:
                self._write_measurements(place, paths)
            with atomic_write(self.path / "predictions.json") as place:
                self._write_predictions(place, paths)
        return Summary(len(counts), sum(row["nuclei"] for row in counts), counts)

    def _write_measurements(self, place: Path, paths: list[Path]) -> None:
        columns = ["image", *PROPERTIES]
        for row in map(_read, paths):
            columns = columns_of(row["nuclei"][:1], columns)
        with open(place, "w", encoding="utf-8", newline="") as file:
            file.write(to_csv([], columns))
            for row in map(_read, paths):
                rows = [{"image": row["file_name"], **nucleus} for nucleus in row["nuclei"]]
                file.write(to_csv(rows, columns).partition("\n")[2])

    def _write_predictions(self, place: Path, paths: list[Path]) -> None:
        """predictions.json as :func:`~nucleus_course.prediction.document.to_document` gives it, row by row."""
        info = self.settings["info"]
        head = to_document(Predictions({}, info.get("score_threshold"), info))
        with open(place, "w", encoding="utf-8") as file:
            file.write(f'{{"info": {json.dumps(head["info"])}, "images": [')
            for number, row in enumerate(map(_read, paths), start=1):
                image = {"id": number, "file_name": row["file_name"]}
                image |= {"height": row["height"], "width": row["width"]}
                file.write(("" if number == 1 else ", ") + json.dumps(image))
            file.write(f'], "categories": {json.dumps(head["categories"])}, "annotations": [')
            total = 0
            for number, row in enumerate(map(_read, paths), start=1):
                for item in to_document(Predictions({"": _detections(row)}))["annotations"]:
                    total += 1
                    text = json.dumps(item | {"id": total, "image_id": number}, allow_nan=False)
                    file.write(("" if total == 1 else ", ") + text)
            file.write("]}")

    def parts(self, file: ImageFile) -> Path:
        """The folder for the bands of a slide until it is done."""
        place = os.fsencode(os.path.realpath(file.path))
        return (
            self.path / "parts" / f"{file.stem[-LONGEST:]}-{hashlib.sha256(place).hexdigest()[:8]}"
        )

    def labels(self, stem: str) -> Path:
        return self.path / "labels" / f"{stem}.tif"

    def _overlay(self, stem: str) -> Path:
        return self.path / "overlays" / f"{stem}.png"

    def _row_file(self, stem: str) -> Path:
        data = os.fsencode(stem)
        if len(data) > LONGEST or stem == "settings":
            stem = f"{hashlib.sha256(data).hexdigest()[:32]}"
        return self.rows / f"{stem}.json"

    def _row_files(self) -> Iterator[Path]:
        for path in self.rows.glob("*.json"):
            if path.name != "settings.json" and not path.name.startswith("."):
                yield path

    def _read_rows(self) -> Iterator[dict[str, Any]]:
        for path in self._row_files():
            yield {**_read(path), "path": path}

    def _row(self, stem: str) -> dict[str, Any] | None:
        path = self._row_file(stem)
        return _read(path) if path.is_file() else None

    def _write_row(self, stem: str, row: dict[str, Any]) -> None:
        row = {key: value for key, value in row.items() if key != "path"}
        write_file(self._row_file(stem), json.dumps({**row, "stem": stem}))

    def check_same(self, earlier: dict[str, Any], settings: dict[str, Any]) -> None:
        """Raise a UserError if the folder's results were made with other settings."""
        for part in ("format", "info", "options"):
            old, new = earlier.get(part, {}), settings.get(part, {})
            if part == "format":
                old, new = {part: old}, {part: new}
            for key in dict.fromkeys([*old, *new]):
                if key != "software" and old.get(key) != new.get(key):
                    raise UserError(
                        f"{self.path} holds results made with {key} {old.get(key)}, not {new.get(key)}: "
                        "choose another --out, or add --overwrite to start it anew"
                    )

    def _clear(self) -> None:
        """Remove the results listed in rows/, and the tables."""
        for row in list(self._read_rows()):
            for path in (row["path"], self.labels(row["stem"]), self._overlay(row["stem"])):
                path.unlink(missing_ok=True)
            remove_exports(self.path, row["stem"])
        shutil.rmtree(self.path / "parts", ignore_errors=True)
        for path in (self.rows / "settings.json", *(self.path / name for name in TABLES)):
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from writing here."""
        with filelock.FileLock(self.rows / ".lock"):
            yield


def weights_digest(model: Any) -> str:
    """A hash of a model's weights, independent of the file they came from."""
    digest = hashlib.sha256()
    for variable in model.network.weights:
        digest.update(np.ascontiguousarray(np.asarray(variable, "float32")).tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    row = read_json(path, "delete it and repeat with --resume")
    if "file_name" in row:  # earlier versions stored names that no table can hold
        row["file_name"] = written_name(row["file_name"])
    return row


def _count(row: dict[str, Any]) -> dict[str, Any]:
    shape = row["height"], row["width"]
    return count_image(row["file_name"], shape, row["nuclei"], row.get("seen"))


def _detections(row: dict[str, Any]) -> ImagePredictions:
    size = [row["height"], row["width"]]
    rles = [{"size": size, "counts": counts} for counts in row["rles"]]
    boxes = np.asarray(row["boxes"], "float32").reshape(-1, 4)
    return ImagePredictions(*size, rles, row["scores"], boxes, row["file_name"])
