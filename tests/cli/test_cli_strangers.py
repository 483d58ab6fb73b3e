"""The command line on images from elsewhere: --polarity, --input, --flips, novelty, evaluate --sources."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from terminal import one_line_error, plain, run, table
from test_cli_model import data, discs, here, model, one_model_for_all  # noqa: F401 (fixtures)
from tiny import write_annotated

from nucleus_course import MaskRCNN
from nucleus_course.data.novelty import Novelty, describe
from nucleus_course.data.sources import read_sources

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def colour_model(tmp_path_factory):
    """A model folder of the first edition, whose input is colour."""
    return MaskRCNN.from_preset("compact+colour").save(
        tmp_path_factory.mktemp("colour") / "weights"
    )


def test_an_inverted_file_gives_the_same_nuclei_and_the_table_says_so(here, model):  # noqa: F811
    image = discs(3)[0]
    folder = here / "in"
    folder.mkdir()
    Image.fromarray(image).save(folder / "plain.png")
    Image.fromarray(255 - image).save(folder / "inverted.png")
    tifffile.imwrite(folder / "deep.tif", image.astype(np.uint16) * 257)
    result = run(f"predict {folder} --weights {model} --out {here / 'out'} --score-threshold 0.3")
    assert result.exit_code == 0, result.stderr
    rows = {row["image"]: row for row in table(here / "out" / "counts.csv")}
    seen = {name: row["polarity"] for name, row in rows.items()}
    assert seen == {"plain.png": "bright", "inverted.png": "dark", "deep.tif": "bright"}
    assert {(row["stain"], row["novelty"]) for row in rows.values()} == {("no", "")}
    high = {name: float(row["high"]) for name, row in rows.items()}
    assert high["deep.tif"] == pytest.approx(257 * high["plain.png"], rel=1e-5)
    assert high["inverted.png"] == pytest.approx(255 - high["plain.png"], abs=1e-3)
    names = ("plain", "inverted", "deep")
    labels = [tifffile.imread(here / "out" / "labels" / f"{name}.tif") for name in names]
    assert labels[0].any()
    for other in labels[1:]:
        assert ((labels[0] > 0) != (other > 0)).mean() < 0.01


def test_polarity_told_wins_and_needs_a_canonical_input(here, model, colour_model):  # noqa: F811
    Image.fromarray(discs(3)[0]).save(here / "a.png")
    words = f"predict a.png --weights {model} --out dark --polarity dark --flips 2"
    assert run(words).exit_code == 0
    assert table(here / "dark" / "counts.csv")[0]["polarity"] == "dark"
    assert run(f"predict a.png --weights {model} --out colour --input colour").exit_code == 0
    assert table(here / "colour" / "counts.csv")[0]["polarity"] == ""
    assert run("predict", "a.png", "--weights", colour_model, "--out", "old").exit_code == 0
    assert table(here / "old" / "counts.csv")[0]["polarity"] == ""
    told = run(
        f"predict a.png --weights {colour_model} --out new --input canonical --polarity bright"
    )
    assert told.exit_code == 0 and table(here / "new" / "counts.csv")[0]["polarity"] == "bright"
    one_line_error(
        run(f"predict a.png --weights {colour_model} --polarity dark"),
        "--polarity dark",
        "--input canonical",
    )
    one_line_error(
        run(f"predict a.png --weights {model} --polarity light"),
        "--polarity 'light'",
        "auto, bright, dark",
    )
    one_line_error(
        run(f"predict a.png --weights {model} --input sepia"), "--input 'sepia'", "canonical"
    )


def test_what_python_sees(model):  # noqa: F811
    loaded = MaskRCNN.load(model)
    image = discs(3)[0]
    found = loaded.predict(255 - image)
    assert found.canonical.polarity == "dark" and found.novelty is None
    assert found.confident().canonical is found.canonical
    trace = loaded.trace(255 - image)
    assert trace.canonical.polarity == "dark" and "nuclei dark" in repr(trace)
    np.testing.assert_allclose(
        trace.input[:64, :64, 0], trace.canonical.image / 127.5 - 1.0, atol=1e-6
    )
    assert loaded.trace(image, polarity="dark").canonical.polarity == "dark"
    assert loaded.predict(image, input="colour").canonical is None


def test_predict_names_what_is_unlike_the_training_images(here, model):  # noqa: F811
    loaded = MaskRCNN.load(model)
    known = np.stack(
        [describe(loaded.predict(discs(seed)[0]).canonical.image) for seed in range(8)]
    )
    loaded.novelty = Novelty(known, 3.0)
    folder = loaded.save(here / "weights")
    (here / "in").mkdir()
    Image.fromarray(discs(20)[0]).save(here / "in" / "alike.png")
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    Image.fromarray(ramp).save(here / "in" / "ramp.png")
    result = run("predict", here / "in", "--weights", folder, "--out", here / "out")
    novelty = {row["image"]: float(row["novelty"]) for row in table(here / "out" / "counts.csv")}
    assert novelty["alike.png"] < 1 <= novelty["ramp.png"]
    assert "1 image of 2 (ramp.png)" in plain(result.stderr).replace("\n", " ")


def test_novelty_is_for_models_that_see_grey_and_sources_that_are_known(
    here, data, model, colour_model
):  # noqa: F811
    one_line_error(run("novelty", "--data", data, "--weights", colour_model), "sees colour")
    one_line_error(run(f"novelty --data {data} --weights {model} --split all"), "stage1_train")
    one_line_error(run("novelty", "--data", data, "--weights", model / "weights.h5"), "is a file")


def test_evaluate_by_source(here):
    """Twelve images under real ids, three of each of four sources; label images that are perfect except for one source."""
    sources, chosen = read_sources(), {}
    for name in ("lilac-256x320", "large-360", "clumps-256", "mixed-256"):
        chosen |= dict.fromkeys([i for i, s in sources.items() if s == name][:3], name)
    labels = here / "labels"
    labels.mkdir()
    for number, (image_id, name) in enumerate(chosen.items()):
        image, masks = discs(number)
        write_annotated(here / "set", image_id, image, masks)
        shown = masks[:2] if name == "large-360" else masks
        painted = sum((k + 1) * m.astype("uint16") for k, m in enumerate(shown))
        tifffile.imwrite(labels / f"{image_id}.tif", painted)
    words = f"evaluate --data {here / 'set'} --split all --predictions {labels} --bootstrap 20"
    result = run(words, f"--out {here / 'r.json'} --sources --learned source-1-train")
    assert result.exit_code == 0, result.stderr
    found = json.loads((here / "r.sources.json").read_text())
    assert {n: row["met"] for n, row in found["sources"].items()} == {
        "lilac-256x320": False, "large-360": False, "clumps-256": True, "mixed-256": True,
    }  # fmt: skip
    assert found["sources"]["large-360"]["first"]["dsb_score"] == pytest.approx(50)
    assert found["means"]["unseen"]["dsb_score"]["first"] == pytest.approx(75)
    assert found["means"]["seen"]["dsb_score"]["first"] == pytest.approx(100)
    assert "mean, unseen" in plain(result.stdout)
    one_line_error(run(words, "--sources --learned everything"), "unknown split 'everything'")
