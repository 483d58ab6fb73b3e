"""From a source to its cache: every image and its nuclei are decoded once."""

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

from nucleus_course._util.cores import usable_cores
from nucleus_course._util.progress import track
from nucleus_course._util.text import pluralize
from nucleus_course.data import cache
from nucleus_course.data.bbbc038 import open_source, source_name
from nucleus_course.data.decode import decode_entry
from nucleus_course.data.lint import NOTED, Issue
from nucleus_course.data.splits import protocol_ids

SAMPLE = "sample"
NOT_KEPT = "{}: decoded again next time: {} may be readable then without a change of the file"


def open_store(
    source, cache_dir, progress, workers, allow_empty=False, annotations="auto", reading=None
):
    """(store, path) of a data set; arguments as :func:`~nucleus_course.data.dataset.load_dataset`."""
    reading = {name: value for name, value in (reading or {}).items() if value is not None}
    path = (
        Path(str(files("nucleus_course.data") / "sample.zip"))
        if str(source) == SAMPLE
        else Path(source)
    )
    files_of = open_source(path, annotations)
    try:
        state = files_of.fingerprint + (" allow_empty" if allow_empty else "")
        chosen = files_of.annotations or str(annotations) != "auto"
        state += f" {path.name} {annotations}" if chosen else ""
        state += f" {sorted(reading.items())}" if reading else ""
        target = cache.cache_path(files_of.path, state, cache_dir)
        store = cache.open_cache(target)
        if store is None:
            name = SAMPLE if str(source) == SAMPLE else source_name(files_of.path)
            index, blobs, passing = _decode_all(
                files_of, name, progress, workers, allow_empty, reading
            )
            if not passing:
                store = cache.write_cache(target, index, blobs)
            else:
                store = cache.MemoryStore(index, blobs)
                if progress:
                    print(NOT_KEPT.format(path, passing), file=sys.stderr)
    finally:
        files_of.close()
    return store, path


def _decode_all(files_of, name, progress, workers, allow_empty, reading):
    """Decode every image of a source: returns the cache's index, its PNGs, and a file whose failure may be gone
    without a change of it, or ""."""
    entries = [entry for entry in files_of.entries.values() if entry.image]
    labelled = (any(e.masks for e in entries) or files_of.annotations) and not allow_empty

    def work(entry):
        decoded = decode_entry(entry, files_of.read, labelled, reading)
        if not decoded.usable:
            return decoded, None
        shape, count = decoded.labels.shape, int(decoded.labels.max(initial=0))
        kept = {"image": decoded.image, "labels": decoded.labels, "raw": decoded.raw}
        pngs = {kind: cache.encode(array) for kind, array in kept.items() if array is not None}
        decoded.image = decoded.labels = decoded.raw = None
        return decoded, (pngs, shape, count)

    issues, images, blobs = list(files_of.issues), {}, {}
    passing = getattr(files_of, "passing", "")
    for image_id in sorted(
        {entry.image_id for entry in entries}
        - set(protocol_ids([entry.image_id for entry in entries]))
    ):
        message = (
            "not among the protocol's 664: in no named split, but a list or split file can name it"
        )
        issues.append(Issue(image_id, image_id, "withdrawn", message, NOTED))
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        results = pool.map(work, entries)
        results = track(results, f"decoding {name}", len(entries), progress and len(entries) > 1)
        for number, (decoded, stored) in enumerate(results):
            issues.extend(decoded.issues)
            passing = passing or decoded.passing
            if stored is None:
                continue
            pngs, shape, count = stored
            blobs |= {f"{number}.{kind}.png": png for kind, png in pngs.items()}
            images[decoded.image_id] = {
                "number": number,
                "type": decoded.type,
                "size": list(shape),
                "count": count,
                "raw": "raw" in pngs,
            }
    if not allow_empty:
        issues += _empty([entry for entry in entries if entry.image_id in images])
    index = {
        "format": cache.FORMAT,
        "name": name,
        "source": str(files_of.path),
        "synthetic": files_of.synthetic,
        "hint": files_of.hint,
        "annotations": files_of.annotations,
        "all_ids": [entry.image_id for entry in entries],
        "images": images,
        "issues": [vars(issue) for issue in issues],
    }
    return index, blobs, passing


def _empty(entries):
    """An issue, in a list, if annotation files list images without a shape."""
    entries = [entry for entry in entries if entry.annotation and entry.annotation.empty]
    if not entries:
        return []
    names = [entry.image for entry in entries]
    files = sorted({entry.annotation.file for entry in entries})
    few = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    taken = "an image without nuclei" if len(names) == 1 else "images without nuclei"
    file = files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    text = f"{pluralize(len(names), 'image')} without annotation: taken as {taken} ({few}); remove from the file what was not annotated"
    return [Issue("", file, "no nuclei", text, NOTED)]
