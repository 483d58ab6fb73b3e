"""The object that detects: which kind is loaded, options out of range, warnings about its scores."""

import dataclasses
import warnings

import numpy as np
import pytest
from tiny import disc_dataset, lively_model, python, tiny_config

import nucleus_course as nc
from nucleus_course.config import Thresholds, UNetConfig
from nucleus_course.data import preprocess
from nucleus_course.prediction.datasets import predict_variants
from nucleus_course.prediction.rescorer import FEATURES, Rescorer
from nucleus_course.prediction.segmenter import build

UNET = UNetConfig(name="tiny-unet", widths=(4, 8))


@pytest.fixture(scope="module")
def image():
    return disc_dataset(1)[0].image


@pytest.fixture(scope="module")
def model():
    return lively_model()


# ------------------------------------------------------------------ kinds


def test_detections_load_no_backend():
    code = "import sys, nucleus_course as nc; nc.Detections, nc.Thresholds; print({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    done = python(code)
    assert done.stdout == "set()\n", done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model folder of each kind."""
    place = tmp_path_factory.mktemp("kinds")
    return {
        "mask_rcnn": build(tiny_config(), Thresholds(score=0.3)).save(place / "rcnn"),
        "unet": build(UNET, Thresholds(score=0.6)).save(place / "unet"),
    }


def test_load_gives_the_kind_that_the_folder_holds(folders):
    rcnn, unet = (nc.load(folders[kind]) for kind in ("mask_rcnn", "unet"))
    assert type(rcnn) is nc.MaskRCNN and type(unet) is nc.UNet
    assert rcnn.config == tiny_config() and unet.config == UNET
    assert (rcnn.thresholds.score, unet.thresholds.score) == (0.3, 0.6)
    assert len(rcnn.load_report.loaded) > 50 and rcnn.rescorer is None


@pytest.mark.parametrize(
    ("load", "kind", "message"),
    [(nc.MaskRCNN, "unet", "is a unet, not a mask_rcnn"), (nc.UNet, "mask_rcnn", "is a mask_rcnn, not a unet")],
    ids=["MaskRCNN", "UNet"],
)  # fmt: skip
def test_a_class_loads_its_own_kind_alone(folders, load, kind, message):
    with pytest.raises(nc.UserError, match=message) as error:
        load.load(folders[kind])
    assert "use nucleus_course.load" in str(error.value) and str(folders[kind]) in str(error.value)


def test_create_makes_each_kind():
    unet = nc.create("unet", seed=3)
    assert type(unet) is nc.UNet and unet.thresholds == nc.get_preset("unet").thresholds
    assert unet.load_report is None and unet.start is None
    assert type(nc.create("compact")) is nc.MaskRCNN
    with pytest.raises(nc.UserError, match="preset 'unet' is a unet, not a mask_rcnn"):
        nc.MaskRCNN.from_preset("unet")
    with pytest.raises(nc.UserError, match="unknown preset 'vnet'"):
        nc.create("vnet")


def test_create_with_weights(folders, monkeypatch):
    from nucleus_course.presets import PRESETS

    small = dataclasses.replace(nc.get_preset("unet"), model=UNET)
    monkeypatch.setitem(PRESETS, "tiny-unet", small)
    model = nc.create("tiny-unet", weights=folders["unet"])
    assert model.start == str(folders["unet"]) and len(model.load_report.loaded) > 10
    assert model.thresholds.score == 0.6, "the weights' operating point, not the preset's"
    with pytest.raises(nc.UserError, match="another architecture than tiny-unet"):
        nc.create("tiny-unet", weights=folders["mask_rcnn"])


def test_weights_that_are_not_there(folders):
    with pytest.raises(nc.UserError, match="no weights 'nothing'"):
        nc.load("nothing")
    with pytest.raises(nc.UserError, match="is a file: give its model folder"):
        nc.load(folders["unet"] / "weights.h5")


# ------------------------------------------------------------------ options


@pytest.mark.parametrize("kind", ["mask_rcnn", "unet"])
@pytest.mark.parametrize(
    "options",
    [{"max_detections": 0}, {"max_detections": -3}, {"flips": 0}, {"flips": 5}, {"flips": 8}],
    ids=str,
)
def test_options_out_of_range_are_one_line(model, image, kind, options):
    own = model if kind == "mask_rcnn" else build(UNET)
    ((name, value),) = options.items()
    with pytest.raises(nc.UserError, match=f"^{name}={value}: .*$"):
        own.predict(image, **options)


def test_an_unknown_engine_is_refused_and_the_old_one_stays(model, image):
    engine = model.engine
    with pytest.raises(nc.UserError, match="unknown runtime 'tensorrt'"):
        model.use_engine("tensorrt")
    assert model.engine is engine
    assert model.use_engine("keras") is model and model.engine is not engine


# ------------------------------------------------------------------ scores and flips


def rescorer(**info):
    count = len(FEATURES)
    arrays = np.zeros(count), np.ones(count), np.ones((1, count, 2)), np.ones((1, 2))
    return Rescorer(*arrays, np.ones((1, 2)), np.ones(1), info)


def test_scores_fitted_with_other_flips_are_said_to_be(model, image, monkeypatch):
    monkeypatch.setattr(model, "rescorer", rescorer(flips=2))
    with pytest.warns(UserWarning, match="fitted with flips=2 and are used with flips=1") as seen:
        model.predict(image)
    said = [str(w.message) for w in seen if w.category is UserWarning]
    assert len(said) == 1 and "\n" not in said[0] and "nucleus-course rescore" in said[0]
    with pytest.warns(UserWarning, match="fitted with flips=2 and are used with flips=1"):
        predict_variants(model, disc_dataset(1), (0.3,), (0.5,), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(image, flips=2)
        monkeypatch.setattr(model, "rescorer", rescorer(split="train"))  # from an older fit
        model.predict(image)


# ------------------------------------------------------------------ nothing twice


def test_an_image_is_brought_to_rgb_once(model, image, monkeypatch):
    calls, real = [], preprocess.to_rgb8

    def counted(array):
        calls.append(1)
        return real(array)

    monkeypatch.setattr(preprocess, "to_rgb8", counted)
    for own in (model, build(UNET)):
        calls.clear()
        own.predict(image, flips=2, input="colour")
        assert len(calls) == 1, own


# ------------------------------------------------------------------ what is looked at


def as_zarr(image):
    return pytest.importorskip("zarr").array(image)


def as_dask(image):
    return pytest.importorskip("dask.array").from_array(image, chunks=(32, 40, 3))


@pytest.mark.parametrize("kind", [as_zarr, as_dask], ids=["zarr", "dask"])
def test_zarr_and_dask_arrays_are_images(model, image, kind):
    wanted, found = model.predict(image), model.predict(kind(image))
    assert len(found) and np.array_equal(found.scores, wanted.scores)
    assert np.array_equal(found.image, image), "what a cell draws its outlines on"


def test_paths_lists_and_iterators(model, image, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, image)
    wanted = model.predict(image).scores
    first, second = model.predict([image, path])
    assert np.array_equal(first.scores, wanted) and np.array_equal(second.scores, wanted)
    several = model.predict(one for one in (str(path), image))
    assert np.array_equal(next(several).scores, wanted) and len(list(several)) == 1
    assert "outlined on the image" in first._repr_html_(), "with the input colour, too"
