"""The canonical input: one picture whatever the depth, polarity and scale of the values; and the decisions behind it."""

import numpy as np
import pytest
from scipy import ndimage

from nucleus_course._util.errors import UserError
from nucleus_course.data.canonical import (
    HIGH_PERCENTILE,
    LOW_PERCENTILE,
    STAIN_WEIGHTS,
    canonical,
    canonical_piece,
)
from nucleus_course.data.preprocess import see
from nucleus_course.presets import get_preset

RED, GREEN, BLUE = 0, 1, 2


def field(size=160, count=25, radius=9, seed=0, background=0.1, noise=0.01):
    """Bright textured discs on a dark ground: float (size, size) in [0, 1], and where the discs are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    inside = np.zeros((size, size), bool)
    for y, x in rng.uniform(0, size, (count, 2)):
        inside |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    texture = ndimage.gaussian_filter(rng.standard_normal((size, size)), 1.5)
    bright = 0.6 + 0.4 * texture
    image = ndimage.gaussian_filter(
        np.where(inside, bright, background), 1.0
    ) + noise * rng.standard_normal((size, size))
    return np.clip(image, 0, 1), inside


def tissue(size=160, share=0.65, seed=1):
    """A field that nuclei fill: bright cells with dark seams between them, float (size, size)."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, size, (int(size * size / 450), 2))
    rows, columns = np.mgrid[:size, :size]
    distance = np.sort(
        np.hypot(rows[..., None] - seeds[:, 0], columns[..., None] - seeds[:, 1]), axis=2
    )[..., :2]
    inside = distance[..., 1] - distance[..., 0] > 3.0
    assert inside.mean() > share
    texture = ndimage.gaussian_filter(rng.standard_normal((size, size)), 1.0)
    return np.clip(ndimage.gaussian_filter(np.where(inside, 0.65 + 0.3 * texture, 0.3), 1.0), 0, 1)


def stained(grey, dye=(0.9, 1.4, 0.5), pink=(0.05, 0.5, 0.3), seed=3):
    """Absorbing dyes: density of nuclei from ``grey``, a counterstain everywhere; uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    counter = 0.5 + 0.2 * ndimage.gaussian_filter(rng.standard_normal(grey.shape), 8.0) * 8
    density = grey[..., None] * np.array(dye) + np.clip(counter, 0, 1)[..., None] * np.array(pink)
    return np.rint(245 * np.exp(-density)).astype("uint8")


def test_sixteen_bits_and_eight_give_one_picture():
    image = (field()[0] * 65535).astype("uint16")
    eight = np.rint(image / 257).astype("uint8")
    wide, narrow = canonical(image), canonical(eight)
    difference = np.abs(wide.image.astype(int) - narrow.image)
    # half a grey level beside black, where the power is steepest
    step = 255 * (0.5 / (narrow.high - narrow.low)) ** 0.6
    assert difference.max() <= step + 2 and difference.mean() < 1.5
    exact = canonical(eight.astype("uint16") * 257)
    assert np.abs(exact.image.astype(int) - narrow.image).max() <= 1
    assert exact.low == pytest.approx(257 * narrow.low, rel=1e-6) and exact.high == pytest.approx(
        257 * narrow.high, rel=1e-6
    )


@pytest.mark.parametrize("make", [lambda: field()[0], tissue], ids=["sparse", "dense"])
def test_an_inverted_image_gives_the_same_picture(make):
    image = np.rint(make() * 255).astype("uint8")
    bright, dark = canonical(image), canonical(255 - image)
    assert (bright.polarity, dark.polarity) == ("bright", "dark")
    assert dark.evidence == pytest.approx(-bright.evidence, abs=1e-5)
    assert (
        np.abs(bright.image.astype(int) - dark.image).max() <= 1
        and (bright.image == dark.image).mean() > 0.99
    )
    assert (255 - dark.low, 255 - dark.high) == pytest.approx((bright.low, bright.high), abs=1e-3)


def test_shifted_and_scaled_values_give_the_same_picture():
    image = field()[0]
    expected = canonical(image).image.astype(int)
    for changed in (
        1000 + 40 * image,
        -3 + 0.001 * image,
        (1e6 + 1e5 * image).astype("float32"),
        image.astype("float16"),
    ):
        assert np.abs(canonical(changed).image - expected).max() <= (
            12 if changed.dtype == np.float16 else 4
        )
    for turned in (np.rot90, np.flipud, np.transpose):
        assert (
            np.abs(canonical(np.ascontiguousarray(turned(image))).image - turned(expected)).max()
            <= 1
        )


def test_the_stretch_is_linear_between_the_percentiles_where_the_median_is_a_quarter_or_more():
    image = np.rint(tissue() * 255).astype("uint8")
    seen = canonical(image)
    smooth = ndimage.median_filter(image, 3, mode="nearest")
    assert (seen.low, seen.high) == pytest.approx(
        tuple(np.percentile(smooth, (LOW_PERCENTILE, HIGH_PERCENTILE))), abs=1e-3
    )
    expected = np.clip((image - seen.low) / (seen.high - seen.low), 0, 1)
    assert np.median(expected) >= 0.25
    np.testing.assert_array_equal(seen.image, np.rint(255 * expected))


def test_a_dark_background_is_lifted_to_a_quarter_at_most():
    image = field(count=6)[0]
    seen = canonical(image)
    linear = np.clip((image - seen.low) / (seen.high - seen.low), 0, 1)
    middle = np.median(linear)
    power = max(0.6, np.log(0.25) / np.log(middle))
    assert 0.6 <= power < 1
    assert np.abs(seen.image - 255 * linear**power).max() <= 0.51


def test_hot_pixels_vanish():
    image = (field(256)[0] * 3000).astype("uint16")
    hot = image.copy()
    rng = np.random.default_rng(5)
    rows, columns = (rng.permutation(64)[:36] * 4 + 1 for _ in range(2))
    hot[rows, columns] = 65535
    cold = np.ones(image.shape, bool)
    cold[rows, columns] = False
    a, b = canonical(image), canonical(hot)
    difference = np.abs(a.image.astype(int) - b.image)
    assert difference[cold].max() <= 3 and (b.low, b.high) == pytest.approx(
        (a.low, a.high), rel=0.01
    )
    # most lie on dark background and take the median of their surroundings
    assert np.median(difference[~cold]) < 20


def test_salt_all_over_the_field_leaves_the_nuclei():
    """Seven percent of the pixels wrapped around to the top of their type."""
    image = (field(256)[0] * 3000).astype("uint16")
    salt = image.copy()
    salt[np.random.default_rng(2).random(image.shape) < 0.07] = 65500
    a, b = canonical(image), canonical(salt)
    assert b.high == pytest.approx(a.high, rel=0.1) and b.polarity == "bright"
    assert np.abs(a.image.astype(int) - b.image).mean() < 8


def test_a_scale_bar_does_not_count():
    image = np.rint(field(256)[0] * 120).astype("uint8")
    barred = image.copy()
    barred[236:242, 150:240] = 255
    a, b = canonical(image), canonical(barred)
    assert b.high == pytest.approx(a.high, rel=0.03)
    assert np.abs(a.image[:230].astype(int) - b.image[:230]).max() <= 8
    shorter = image.copy()
    shorter[100:130, 100:130] = 255  # a bright square is no bar
    assert canonical(shorter).high == 255


def test_small_bright_nuclei_keep_their_shape():
    image = np.zeros((256, 256))
    rows, columns = np.mgrid[:256, :256]
    disc = (rows - 120) ** 2 + (columns - 80) ** 2 < 16  # 45 pixels of 65,536
    image[disc] = np.linspace(0.5, 1.0, disc.sum())
    pixels = canonical(100 + 1000 * ndimage.gaussian_filter(image, 0.7)).image
    assert (pixels >= 254).sum() < 40 and pixels[120, 80] > 200 and pixels[:100].max() == 0


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 50), "uint8"),
        np.full((9, 9), 7.5),
        np.full((64, 64, 3), 200, "uint16"),
        np.zeros((1, 1), bool),
    ],
)
def test_blank_images_are_black(image):
    seen = canonical(image)
    assert seen.image.shape == image.shape[:2] and not seen.image.any() and seen.evidence == 0


def test_noise_is_not_blown_up():
    noise = 500 + 20 * np.random.default_rng(0).standard_normal((200, 200))
    seen = canonical(noise, "bright")
    linear = (noise - seen.low) / (seen.high - seen.low)
    assert linear.std() <= 1 / 5.7  # six standard deviations, with tolerance


def test_colour_tells_a_stain_in_dense_tissue():
    image = stained(tissue())
    seen = canonical(image)
    assert seen.stain and seen.polarity == "dark" and seen.evidence < -0.3
    weighted = image @ np.array(STAIN_WEIGHTS)
    assert np.corrcoef(seen.image.ravel(), -weighted.ravel())[0, 1] > 0.995


def test_the_red_channel_sees_nuclei_through_a_counterstain():
    nuclei = tissue(seed=4)
    image = stained(nuclei)
    by_red = canonical(image, stain_weights=(1.0, 0.0, 0.0)).image
    by_green = canonical(image, stain_weights=(0.0, 1.0, 0.0)).image
    truth = nuclei.ravel()
    assert np.corrcoef(by_red.ravel(), truth)[0, 1] > np.corrcoef(by_green.ravel(), truth)[0, 1]


def test_fluorescence_in_a_colour_is_no_stain():
    grey = np.rint(field()[0] * 200).astype("uint8")
    blue = np.zeros((*grey.shape, 3), "uint8")
    blue[..., BLUE] = grey
    np.testing.assert_array_equal(canonical(blue).image, canonical(grey).image)
    magenta = np.stack([grey, grey // 8, grey], axis=2)
    seen = canonical(magenta)
    assert seen.polarity == "bright" and not seen.stain and seen.evidence > 0.5


def test_grey_in_three_channels_and_alpha_are_grey():
    grey = np.rint(field()[0] * 255).astype("uint8")
    expected = canonical(grey).image
    alpha = np.dstack(
        [grey, grey, grey, np.random.default_rng(0).integers(0, 255, grey.shape)]
    ).astype("uint8")
    for form in (grey[..., None], np.dstack([grey] * 3), alpha, np.stack([grey] * 3)):
        np.testing.assert_array_equal(canonical(form).image, expected)
    np.testing.assert_array_equal(canonical(grey).rgb, np.dstack([expected] * 3))


def test_polarity_can_be_told():
    image = np.rint(field()[0] * 255).astype("uint8")
    told = canonical(image, "dark")
    assert told.polarity == "dark" and told.low > told.high
    assert np.corrcoef(told.image.ravel(), image.ravel())[0, 1] < -0.9
    np.testing.assert_array_equal(canonical(image, "bright").image, canonical(image).image)


@pytest.mark.parametrize(
    "image, polarity, words",
    [
        (np.zeros((4, 4)), "light", "polarity 'light'.*auto, bright, dark"),
        (np.array([[0.0, np.nan]]), "auto", "NaN or infinite"),
        (np.zeros((5, 4, 7)), "auto", "1 to 4 channels"),
        (np.zeros((0, 4)), "auto", "without pixels"),
        (np.array([["a"]]), "auto", "must hold numbers"),
    ],
)
def test_what_is_no_image_or_no_polarity(image, polarity, words):
    with pytest.raises(UserError, match=words):
        canonical(image, polarity)


def test_a_models_config_chooses_the_view():
    image = (field()[0] * 40000).astype("uint16")
    grey, colour = get_preset("compact").model, get_preset("compact+colour").model
    seen = see(image, grey)
    np.testing.assert_array_equal(seen.pixels, canonical(image).rgb)
    assert see(seen, grey) is seen and see(image, colour).canonical is None
    np.testing.assert_array_equal(see(image, colour, input="canonical").pixels, seen.pixels)
    np.testing.assert_array_equal(see(image, grey, "dark").pixels, canonical(image, "dark").rgb)
    with pytest.raises(UserError, match="polarity 'dark' needs the canonical input"):
        see(image, colour, "dark")
    with pytest.raises(UserError, match="input 'sepia'"):
        see(image, grey, input="sepia")


@pytest.mark.slow
def test_polarity_of_the_real_images_in_colour_and_in_grey(stage1):
    """The expected polarity is whether annotated nuclei are brighter than the rest. No weight of a vote was fitted."""
    wrong = []
    for record in stage1:
        grey = record.image.mean(axis=2)
        inside = record.labels > 0
        expected = "bright" if grey[inside].mean() > grey[~inside].mean() else "dark"
        wrong += [record.id] * (canonical(record.image).polarity != expected)
        wrong += [record.id] * (canonical(grey).polarity != expected)
    assert len(set(wrong)) <= 1  # one field with a single nucleus a grey level above its noise


@pytest.mark.slow
def test_polarity_of_the_densest_parts_of_the_real_images(stage1):
    """The part of each stained, smeared or clumped image that nuclei fill most."""
    seen = wrong = 0
    for record in stage1:
        inside = record.labels > 0
        side = min(128, record.height)
        share = ndimage.uniform_filter(inside.astype("float32"), side)[
            side // 2 : -side // 2, side // 2 : -side // 2
        ]
        if share.size == 0 or share.max() < 0.5:
            continue
        top, left = np.unravel_index(share.argmax(), share.shape)
        part = np.s_[top : top + side, left : left + side]
        grey, inside = record.image[part].mean(axis=2), inside[part]
        if inside.all():
            continue
        seen += 1
        wrong += canonical(grey).polarity != (
            "bright" if grey[inside].mean() > grey[~inside].mean() else "dark"
        )
    assert seen > 30 and wrong == 0


def test_values_below_zero_that_became_the_largest():
    """A background subtracted from unsigned integers: negative values wrap around to the top."""
    rng = np.random.default_rng(0)
    counts = np.full((128, 128), 110.0)
    counts[30:60, 30:60], counts[80:100, 20:40] = 600, 400
    counts = counts + rng.normal(0, 8, counts.shape)
    usual = canonical((counts - 100).clip(0).astype(np.float32)).image
    wrapped = (np.rint(counts).astype(np.uint16) - np.uint16(100)).astype(np.float32)
    assert (wrapped > 60000).mean() > 0.05
    found = canonical(wrapped)
    assert found.high < 1000
    assert np.abs(found.image.astype(int) - usual)[35:55, 35:55].max() < 30
    assert np.median(found.image[:20]) < 40


@pytest.mark.parametrize("kind", ("uint8", "uint16", "int64", "float32", "stain", "one channel"))
@pytest.mark.parametrize("dark", (False, True))
def test_pieces_are_those_of_the_whole(kind, dark):
    """With hot pixels: by the decisions for the whole image, a piece has the same canonical form as in the whole."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:90, :110]
    image = (
        200.0 + 900 * (((y % 30 - 15) ** 2 + (x % 22 - 11) ** 2) < 60) + rng.normal(0, 9, y.shape)
    )
    image = 1300 - image if dark else image
    image[20, 30] = image[51, 77] = 60000
    if kind == "stain":
        image = (
            np.stack([image, 0.6 * image, 0.9 * image + 300], axis=2)
            .clip(0, 65535)
            .astype("uint16")
        )
    elif kind == "one channel":
        image = np.stack([image, 0 * image + 2, 0 * image + 3], axis=2).astype("uint16")
    elif kind == "uint8":
        image = (image / 8).clip(0, 255).astype("uint8")
    elif kind == "int64":
        image = image.astype("int64") + 2**40
    else:
        image = image.astype(kind)
    whole = canonical(image)
    piece = canonical_piece(image[10:80, 5:105], whole)
    np.testing.assert_array_equal(piece[1:-1, 1:-1], whole.image[11:79, 6:104])
