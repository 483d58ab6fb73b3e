"""From a stored image to the network's input."""

import numpy as np
import pytest

from nucleus_course.data.canonical import count_percentiles
from nucleus_course.data.preprocess import resize, stretch, to_network
from nucleus_course.presets import get_preset

PAPER, COMPACT = get_preset("paper-resnet50").model, get_preset("compact+colour").model


def noise(height=20, width=30, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (height, width, 3)).astype("uint8")


def test_the_papers_input_is_doubled_and_less_the_mean_pixel():
    image = noise()
    network = to_network(stretch(image, PAPER), PAPER)
    assert network.shape == (40, 60, 3) and network.dtype == np.float32
    even = to_network(np.full((4, 4, 3), (43, 39, 48), "uint8"), PAPER)
    np.testing.assert_allclose(
        even, np.broadcast_to([43 - 43.53, 39 - 39.56, 48 - 48.22], (8, 8, 3)), atol=1e-4
    )


def test_upsampling_has_half_pixel_centres():
    """Output pixel i looks at (i + 0.5) / 2 - 0.5: a quarter before or after the input's pixel."""
    image = noise(9, 7)[..., :1].astype("float32")[..., 0]
    found = resize(image, 2.0)
    y, x = (np.clip((np.arange(2 * n) + 0.5) / 2 - 0.5, 0, n - 1) for n in image.shape)
    y0, x0 = (np.minimum(v.astype(int), n - 2) for v, n in zip((y, x), image.shape))
    b, a = (y - y0)[:, None], (x - x0)[None]
    expected = (image[y0][:, x0] * (1 - a) + image[y0][:, x0 + 1] * a) * (1 - b)
    expected += (image[y0 + 1][:, x0] * (1 - a) + image[y0 + 1][:, x0 + 1] * a) * b
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_labels_are_doubled_by_repeating_pixels():
    labels = np.random.default_rng(0).integers(-1, 300, (5, 8)).astype("int32")
    doubled = resize(labels, 2.0)
    assert doubled.dtype == np.int32
    np.testing.assert_array_equal(doubled, labels.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(resize(labels, 1.0), labels)


def test_the_papers_images_are_not_stretched():
    image = noise()
    assert stretch(image, PAPER) is image


def test_exposure_does_not_matter_to_compact():
    """The same scene at a quarter of the brightness, and with an offset, gives the same input but for rounding."""
    rng = np.random.default_rng(0)
    scene = np.clip(rng.normal(30, 10, (64, 64)), 0, 255)
    scene[20:40, 20:40] = 220
    scene = np.repeat(scene[..., None], 3, axis=2)
    bright, dim, lifted = (
        stretch(np.rint(s).astype("uint8"), COMPACT) for s in (scene, scene / 4, scene / 4 + 60)
    )
    for other in (dim, lifted):
        # Grey levels four apart in the one are one apart in the other; dark ones are spread by the exponent.
        assert np.abs(bright.astype(int) - other).mean() < 6
        assert np.abs(bright[25:35, 25:35].astype(int) - other[25:35, 25:35]).max() <= 2
    network = to_network(bright, COMPACT)
    assert network.shape == bright.shape and network.dtype == np.float32
    assert network.min() >= -1 and network.max() <= 1


def test_stretch_keeps_hue_and_order():
    image = noise(40, 40, 50, 150)
    found = stretch(image, COMPACT)
    assert found.dtype == np.uint8 and found.shape == image.shape
    before, after = image.reshape(-1), found.reshape(-1).astype(int)
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all(), "one rising map for every channel"
    assert after.min() == 0 and after.max() == 255


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 4001])
def test_percentiles_are_numpys(size):
    values = (np.random.default_rng(size).gamma(2.0, 40.0, size)).astype(int)
    wanted = (0.0, 0.5, 37.3, 50.0, 99.95, 100.0)
    np.testing.assert_allclose(
        count_percentiles(np.bincount(values), wanted), np.percentile(values, wanted), atol=1e-9
    )


@pytest.mark.parametrize("channel", [0, 2])
def test_a_stain_in_one_channel_is_grey(channel):
    """DAPI saved as blue on black, with some noise in the empty channels, gives the same input as in grey."""
    grey = noise(40, 40, 0, 60)[..., 0]
    stained = noise(40, 40, 0, 4)
    stained[..., channel] = grey
    np.testing.assert_array_equal(
        stretch(stained, COMPACT), stretch(np.repeat(grey[..., None], 3, axis=2), COMPACT)
    )


def test_an_empty_images_noise_is_not_blown_up():
    image = noise(64, 64, 10, 12)
    assert stretch(image, COMPACT).std() < 60
    assert np.unique(stretch(np.full((8, 8, 3), 77, "uint8"), COMPACT)).size == 1


def test_dark_ground_lifts_dim_nuclei_and_bright_ground_does_not():
    ramp = np.tile(np.linspace(0, 255, 256).round().astype("uint8"), (64, 1))
    dark, bright = np.repeat(ramp[..., None], 3, axis=2), np.repeat(ramp[..., None], 3, axis=2)
    dark[:, :160], bright[:, 96:] = 0, 255
    at = {
        name: stretch(image, COMPACT)[0, x, 0]
        for name, image, x in (("dark", dark, 180), ("bright", bright, 60))
    }
    assert at["dark"] == pytest.approx(255 * (180 / 255) ** 0.6, abs=3)
    assert at["bright"] == pytest.approx(60, abs=3)
