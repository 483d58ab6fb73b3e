"""Hostile inputs: whatever the bytes, a reader gives a result or one line of a UserError.

``NUCLEUS_COURSE_FUZZ=20000`` makes it a long run (examples for each reader).
"""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucleus_course._util.errors import UserError
from nucleus_course._util.tables import read_table, read_text
from nucleus_course.data import load_dataset, split_ids
from nucleus_course.data.masks import Unclear, nuclei_in
from nucleus_course.data.read import read_pixels, to_rgb8
from nucleus_course.data.solution import decode_runs, read_solution
from nucleus_course.geometry.rle import runs_from_rles
from nucleus_course.prediction.document import from_document
from nucleus_course.prediction.interchange import Predictions, PredictionsError

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
EXAMPLES = int(os.environ.get("NUCLEUS_COURSE_FUZZ", "80"))
fuzzed = hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES < 1000,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip


def _seeds():
    """Valid files of each kind, to be damaged."""
    rng = np.random.default_rng(0)
    grey, colour = (
        rng.integers(0, 256, (9, 12)).astype("u1"),
        rng.integers(0, 256, (9, 12, 3)).astype("u1"),
    )
    for image, kind in (
        (grey, "PNG"),
        (colour, "PNG"),
        (colour, "JPEG"),
        (grey, "BMP"),
        (grey > 99, "TIFF"),
    ):
        out = io.BytesIO()
        Image.fromarray(image).save(out, kind)
        yield out.getvalue()
    for image, options in (
        (grey, {}),
        (grey.astype("f4"), {"compression": "lzw"}),
        (np.stack([grey, grey]), {"imagej": True, "metadata": {"axes": "CYX"}}),
        (np.stack([grey] * 6).reshape(2, 3, 9, 12), {"ome": True, "metadata": {"axes": "CZYX"}}),
        (colour, {"photometric": "rgb", "compression": "zstd"}),
        (grey.astype("u2"), {"tile": (16, 16), "bigtiff": True}),
    ):  # fmt: skip
        out = io.BytesIO()
        tifffile.imwrite(out, image, **options)
        yield out.getvalue()
    for image in (grey, colour.astype(">f8")):
        out = io.BytesIO()
        np.save(out, image)
        yield out.getvalue()


SEEDS = list(_seeds())


@st.composite
def damaged(draw, seeds=SEEDS):
    """A valid file with some bytes changed, removed or inserted; or random bytes after a signature."""
    data = bytearray(draw(st.sampled_from(seeds)))
    if draw(st.integers(0, 9)) == 0:
        return bytes(data[:8]) + draw(st.binary(max_size=300))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, min(len(data) - 1, draw(st.sampled_from([40, 400, 10**6])))))
        what = draw(st.integers(0, 3))
        if what == 0:
            data[place] = draw(st.integers(0, 255))
        elif what == 1:
            data[place : place + 4] = draw(
                st.sampled_from([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff" * 4])
            )
        elif what == 2:
            del data[place : place + draw(st.integers(1, 60))]
        else:
            data[place:place] = draw(st.binary(max_size=20))
        if not data:
            return b""
    return bytes(data)


def refused(call, *args, kinds=(UserError,), **options):
    """The result, or None where a UserError of one line came instead."""
    try:
        return call(*args, **options)
    except kinds as error:
        assert str(error) and "\n" not in str(error)


@fuzzed
@hypothesis.given(damaged(), st.booleans())
def test_images_and_masks(data, mask):
    pixels = refused(read_pixels, data, "a.tif", mask=mask)
    if pixels is not None:
        assert pixels.values.ndim in (2, 3) and pixels.values.size
        refused(to_rgb8, pixels.values)
        refused(nuclei_in, pixels, lambda *line: None, kinds=(UserError, Unclear))


choices = st.one_of(
    st.none(), st.integers(-3, 9), st.text(max_size=5), st.sampled_from(["max", "focus"])
)


@fuzzed
@hypothesis.given(st.sampled_from(SEEDS), choices, choices, choices, choices, choices)
def test_choices(data, channel, plane, time, series, level):
    wanted = dict(channel=channel, plane=plane, time=time, series=series, level=level)
    pixels = refused(read_pixels, data, "a.tif", **wanted)
    assert pixels is None or pixels.values.shape[:2] == (9, 12)


numbers = st.one_of(st.floats(allow_nan=True), st.integers(-(2**40), 2**40))


@fuzzed
@hypothesis.given(
    st.lists(numbers, min_size=12, max_size=12),
    st.sampled_from(["f8", "f4", "f2", "i8", "i2", "u4"]),
)
def test_values(values, dtype):
    with np.errstate(all="ignore"):
        image = np.array(values, "f8").astype(dtype).reshape(3, 4)
    pixels = refused(to_rgb8, image)
    assert pixels is None or (pixels.shape == (3, 4, 3) and pixels.dtype == np.uint8)


tree = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8), st.just(10**400)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@fuzzed
@hypothesis.given(st.data())
def test_predictions(data):
    """A valid document with any values in any of its fields, as text and as an object."""
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [4, 5], "counts": "0d0"}, "bbox": [0, 0, 5, 4], "score": 0.5, "area": 20}],
        "categories": [{"id": 1, "name": "nucleus"}], "info": {"score_threshold": 0.5},
    }  # fmt: skip
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.integers(0, 3)):
            place = place[key]
        else:
            place[key] = data.draw(tree)
            break
    refused(from_document, document, kinds=(PredictionsError,))


@fuzzed
@hypothesis.given(
    st.lists(
        st.fixed_dictionaries(
            {
                "size": st.just([4, 5]),
                "counts": st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPo", max_size=9),
            }
        ),
        max_size=3,
    )
)
def test_run_lengths(rles):
    try:
        runs = runs_from_rles(rles, 4, 5)
    except ValueError as error:
        assert "mask" in str(error)
    else:
        assert (runs.areas <= 20).all() and (runs.start + runs.length <= 20).all()


@fuzzed
@hypothesis.given(st.lists(st.integers(-9, 40), max_size=8))
def test_solution_runs(runs):
    try:
        mask = decode_runs(runs, 4, 5)
    except ValueError:
        return
    assert mask.shape == (4, 5) and mask.sum() <= sum(runs[1::2])


tables = st.lists(
    st.sampled_from(
        [
            "ImageId",
            "EncodedPixels",
            "Height",
            "Width",
            ",",
            ";",
            "\t",
            "\n",
            "\r\n",
            '"',
            "1 3",
            "4",
            "1.0",
            "1e400",
            "-1",
            "a",
            "é",
            "\0",
        ]
    ),
    max_size=30,
)


@fuzzed
@hypothesis.given(tables, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
def test_tables_and_split_files(parts, encoding):
    path = Path(FOLDER) / "table.csv"
    path.write_bytes("".join(parts).encode(encoding))
    refused(read_text, path)
    refused(read_table, path, ("ImageId", "Height"))
    refused(read_solution, path)
    refused(split_ids, ["a", "b"], path)


def _archive():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/images/a.png", SEEDS[0])
        archive.writestr("a/masks/1.png", SEEDS[0])
        archive.writestr("../a/masks/2.png", SEEDS[0])
    return out.getvalue()


@hypothesis.settings(fuzzed, max_examples=EXAMPLES // 2)
@hypothesis.given(damaged([_archive()]))
def test_archives(data):
    path = Path(FOLDER) / "in" / "data.zip"
    path.write_bytes(data)
    refused(load_dataset, path, progress=False, cache_dir=Path(FOLDER) / "cache")
    assert {p.name for p in Path(FOLDER).iterdir()} <= {"in", "cache", "table.csv"}, (
        "no path leaves"
    )


@pytest.fixture(autouse=True)
def folder(tmp_path):
    global FOLDER
    FOLDER = tmp_path
    (tmp_path / "in").mkdir()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 100_000,
        '{"images": [], "annotations": ' + "9" * 5000 + "}",
        "\ufeff{}",
        "",
    ],
)
def test_deep_and_odd_json(text, tmp_path):
    (tmp_path / "predictions.json").write_text(text, encoding="utf-8")
    refused(Predictions.load, tmp_path / "predictions.json", kinds=(PredictionsError,))


def test_a_zip_bomb_is_refused_by_its_header(tmp_path):
    out = io.BytesIO(_archive())
    data = bytearray(out.getvalue())
    start = data.index(b"PK\1\2")
    data[start + 24 : start + 28] = (2**32 - 2).to_bytes(4, "little")  # the unpacked size
    (tmp_path / "bomb.zip").write_bytes(data)
    with pytest.raises(UserError):
        load_dataset(tmp_path / "bomb.zip", progress=False)


def test_predictions_are_json_for_the_oracle():
    """The document that the fuzzing starts from is valid."""
    text = json.dumps(
        {"images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}], "annotations": []}
    )
    assert from_document(json.loads(text)).images["a"].height == 4
