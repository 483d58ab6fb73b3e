# %% [markdown]
# # 6. Your own images
#
# *How do I use it on my images, and when may I trust it?* You go from a folder of images to counts, a table of measurements, and files that other programs open. Then come checks that need no annotation, and training on annotations of your own.
#
# **What you will do**
# - detect nuclei in a kind of image that the network was not trained on: an immunohistochemistry section that comes with scikit-image;
# - separate its stains, and see the same network give another answer;
# - bring the nuclei to a size that the network knows;
# - measure nuclei in micrometres and export tables, label images and COCO JSON;
# - check consistency and scores without any annotation;
# - turn corrected label images into a training set, and read the command that trains on it.
#
# **What you will learn**
# - which settings depend on your microscope;
# - what can be checked without annotations, and what cannot;
# - how little annotation it takes to measure whether you may trust the result.
#
# **What you need:** 45 minutes, 2 GB of memory, any processor. About a minute of it is computing. No internet connection. You should have done
# [notebook 0](00_start_here.ipynb).
#
# Previous: [5. Error analysis](05_error_analysis.ipynb). Next: [7. Does it hold elsewhere?](07_does_it_hold_elsewhere.ipynb).
# [Solutions](solutions/06_your_own_images.ipynb) · [Glossary](../docs/glossary.md)

# %%
import numpy as np

from nucleus_course import course, figures
from nucleus_course.course import exercises

course.quiet_backend()
import nucleus_course as nc

model = course.find_model()

# %% [markdown]
# ## A folder of images
#
# To try this on your own images, put them into a folder. In the next cell, replace the lines from `folder =` to the second `imsave` by `import pathlib; folder = pathlib.Path("that folder")`; where later cells say `haematoxylin` or `section`, write the name of one of your files. Here the folder is made from `skimage.data.immunohistochemistry()`: a section of
# colon in which nuclei are stained blue (haematoxylin) and a protein of the cell membranes brown (DAB). To save time the notebook uses 256 x 256 pixels of it.
#
# The same section goes into the folder a second time, in a form nearer to what the network knows: the haematoxylin alone. `rgb2hed` separates the
# stains (Ruifrok and Johnston 2001), and nuclei are then bright on dark, as in fluorescence. It is saved as 16-bit grey TIFF, to show that the kind of file does not matter.
#
# A microscope's file may hold several channels, planes, times or pictures. Say which one, with the same words in Python and on the command line: `nc.read_image(path, channel="DAPI", plane="max")`, or
# `nucleus-course predict … --channel DAPI --plane max`; so do `nc.load_dataset` and `train`. Without a choice a channel that is named after a nuclear stain is read, and a line says so; else a line lists what there is
# ([which files are read](../docs/formats.md)).

# %%
import skimage.data
from skimage.color import rgb2hed
from skimage.io import imsave

folder = course.work_folder("my-images", fresh=True)
section = skimage.data.immunohistochemistry()[230:486, 130:386]
stain = rgb2hed(section)[..., 0]
low, high = np.percentile(stain, (1, 99.5))
imsave(folder / "section.png", section, check_contrast=False)
imsave(
    folder / "haematoxylin.tif",
    (65535 * np.clip((stain - low) / (high - low), 0, 1)).astype(np.uint16),
    check_contrast=False,
)

images = {path.stem: nc.read_image(path) for path in nc.list_images(folder)}
for name, image in images.items():
    print(f"{name:<13} {image.shape}, {image.dtype}")

# %% [markdown]
# **Exercise 6.1: predict, run, explain.** The network was trained on five types of image, stained tissue among them, but on no brown stain. In which of the two images will it find more of the blue nuclei? Will the two answers agree?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
found = {name: model.predict(image) for name, image in images.items()}
labels = {name: detections.label_image() for name, detections in found.items()}
course.show(figures.draw_found({name: nc.to_rgb8(image) for name, image in images.items()}, labels))

# %% [markdown]
# **What was seen.** The same tissue and the same network, but two different answers; the caption has the counts. Compare the outlines with the blue nuclei that you see: some are missed in one image and found in the other.
#
# **Explain.** Nothing in the output says that anything is wrong: every detection has a score, the outlines look reasonable, and a missed nucleus leaves no trace. What does that say about using a network on a kind of image that it was not trained on?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The network cannot say "I do not know this kind of image" (a separate check, novelty, comes in [notebook 7](07_does_it_hold_elsewhere.ipynb); it notices only what looks very different). It answers with the shapes that it learned, and its scores are comparable only among images like its training data. So look first, bring the image nearer to what the network knows
# (stain separation, scale, contrast), and measure on a few annotated images. Only annotations can decide which of the two answers is better.

# %% only="solution" tags=["nbval-check-output"]
from nucleus_course.course.numbers import f1_of_two

number = {name: len(np.unique(of_image)) - 1 for name, of_image in labels.items()}
course.claim("the network finds something in the haematoxylin image", number["haematoxylin"] > 0)
course.claim("the counts of the two images differ", number["haematoxylin"] != number["section"])
course.claim(
    "their outlines agree for fewer than nine nuclei in ten (F1 at IoU 0.5)",
    f1_of_two(labels["haematoxylin"], labels["section"]) < 0.9,
)

# %% [markdown]
# ## Bring the nuclei to a size that the network knows
#
# Before anything is measured: a network knows sizes. So `predict` takes a first look at the image as it is. Where the median diameter of what it finds is smaller or larger than the network knows
# (`model.thresholds.diameters`), it resizes the image and looks again; `detections.scale` says by how much, and all results are in pixels of your image. But the first look can only measure what it finds.
# The next cell turns it off (`diameter="none"`) and detects in the haematoxylin image at three scales. (`rescale` keeps the shape of the image, whatever it is.)
#
# **Exercise 6.2: predict, run, explain.** Will the count be about the same at all three? If not, at which scale will it be largest?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from skimage.transform import rescale

view = nc.to_rgb8(images["haematoxylin"])
scales = (0.5, 1.0, 3.36)
by_scale = []
for scale in scales:
    scaled = (255 * rescale(view, scale, anti_aliasing=True, channel_axis=2)).astype(np.uint8)
    by_scale.append((scaled, model.predict(scaled, diameter="none").label_image()))
course.show(figures.draw_scales(scales, by_scale))

# %% [markdown]
# **What was seen.** The same tissue gives another count at each scale: scale is a setting, like exposure. The caption also gives the size of the detections. The middle 90% of the nuclei in BBBC038 are 6 to 43 pixels
# across ([notebook 1](01_inspect_the_data.ipynb)). Measure a few of your nuclei by hand: it is the only check of the first look that needs no network. Use one scale for all images of a magnification (`--diameter PX`), and write it down.
#
# **Explain.** Why not simply take the scale with the largest count?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** More detections are not more nuclei. If an image is enlarged too far, grains inside a nucleus reach the size that the network knows for nuclei, and are counted. If it is reduced
# too far, neighbours run together and are lost. The size of your nuclei says which scale is right; the count does not.

# %% [markdown]
# Here the first look decides. If you know how many pixels across your nuclei are, write it into the next cell: one look is then enough, and cannot be wrong about the size.
# `nucleus-course predict IMAGES --diameter 40` does the same for whole folders.

# %%
DIAMETER = "auto"  # or the median diameter of your nuclei, pixels
if DIAMETER != "auto":
    found = {name: model.predict(image, diameter=DIAMETER) for name, image in images.items()}
    labels = {name: detections.label_image() for name, detections in found.items()}
number = {name: len(np.unique(of_image)) - 1 for name, of_image in labels.items()}
print(", ".join(f"{name}: {count} nuclei" for name, count in number.items()))
print(
    ", ".join(
        f"{name}: looked at {of_one.scale:.2f} times as large" for name, of_one in found.items()
    )
)

# %% [markdown]
# **What was seen.** The line says how much larger the network looked at each image. Look at the picture with the scale next to it: are the detections that came with this scale nuclei?
#
# ## Measure
#
# From here on the notebook uses the haematoxylin image.
#
# A pixel is not a unit of length. The calibration of your microscope, in micrometres per pixel, turns pixels into one. It is in the metadata of the file or on the microscope, and no network can know it. (For this section it is not
# published; 0.5 is an assumption for the exercise.)
#
# **Exercise 6.3: implement it.** Write `measure(labels, micrometres_per_pixel)`: a row for each nucleus with its id, its area in square micrometres and its *equivalent diameter*, that of the disc of equal area.
# *Expected output:* `measure: PASSED`.
#
# <details><summary>Hint</summary> The area of a disc is pi d squared over 4. <code>np.unique(labels, return_counts=True)</code> counts pixels.</details>


# %%
def measure(labels, micrometres_per_pixel):
    """(N, 3): id, area in um2, equivalent diameter in um of each nucleus in a label image, ids rising."""
    ### BEGIN SOLUTION
    ids, pixels = np.unique(labels[labels > 0], return_counts=True)
    areas = pixels * micrometres_per_pixel**2
    return np.stack([ids, areas, np.sqrt(4 * areas / np.pi)], axis=1).reshape(-1, 3)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_measure(measure)

# %% [markdown]
# **Exercise 6.4: implement it.** Counts of different fields can be compared only per area. Write `density(count, height, width, micrometres_per_pixel)` in nuclei per square millimetre.
# *Expected output:* `density: PASSED`.
#
# <details><summary>Hint</summary> A millimetre is 1000 micrometres, so a square millimetre is a million square micrometres.</details>


# %%
def density(count, height, width, micrometres_per_pixel):
    """Nuclei per square millimetre in an image of height x width pixels."""
    ### BEGIN SOLUTION
    area = height * width * (micrometres_per_pixel / 1000) ** 2  # square millimetres
    return count / area
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_density(density)

# %% [markdown]
# For real work, `skimage.measure.regionprops_table` measures much more. *Expect* one row for each nucleus, and then sizes that spread widely about their median.

# %%
from skimage.measure import regionprops_table

MICROMETRES_PER_PIXEL = 0.5
rows = []
for name, image in images.items():
    grey = nc.to_rgb8(image).mean(axis=2)
    table = regionprops_table(
        labels[name],
        intensity_image=grey,
        properties=(
            "label",
            "centroid",
            "area",
            "equivalent_diameter_area",
            "eccentricity",
            "solidity",
            "mean_intensity",
        ),
    )
    for row in zip(*table.values()):
        rows.append([name, *row])
header = [
    "image",
    "nucleus",
    "row",
    "column",
    "area_um2",
    "diameter_um",
    "eccentricity",
    "solidity",
    "mean_intensity",
]
for row in rows:
    row[4] *= MICROMETRES_PER_PIXEL**2
    row[5] *= MICROMETRES_PER_PIXEL
print(f"{len(rows)} nuclei; the first three:")
for row in [header, *rows[:3]]:
    print(
        "  ".join(
            f"{value:>13.2f}" if isinstance(value, float) else f"{value!s:>13}" for value in row
        )
    )

# %%
chosen = [row for row in rows if row[0] == "haematoxylin"]
course.show(
    figures.draw_measurements(
        np.array([row[5] for row in chosen]), np.array([row[6] for row in chosen])
    )
)

# %% [markdown]
# **What was seen.** A distribution of sizes and shapes. Look at both ends before you use it: the smallest "nuclei" are often debris, and the largest are often two in one.
#
# ## Export
#
# - `measurements.csv` for a spreadsheet, R or pandas;
# - one label image for each image (16-bit TIFF; Fiji, napari, CellProfiler and QuPath open it);
# - `predictions.json` in COCO's format, for `nucleus-course evaluate`: every detection with its mask and score, also those below the threshold, because AP needs them.
#
# On the command line, `nucleus-course predict FOLDER --weights compact --out DIR` writes all three. Its `measurements.csv` is in pixels (and in micrometres, if the file holds the size of a pixel or you give `--pixel-size 0.5`), and `counts.csv` has one row for each image.

# %%
import csv

from tifffile import imwrite

from nucleus_course.prediction.datasets import image_predictions

out = course.work_folder("my-results", fresh=True)
with open(out / "measurements.csv", "w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([header, *rows])
for name in images:
    imwrite(out / f"{name}.tif", labels[name].astype(np.uint16), compression="zlib")
predictions = nc.Predictions(
    {name: image_predictions(detections) for name, detections in found.items()},
    score_threshold=model.thresholds.score,
)
predictions.save(out / "predictions.json")
for path in sorted(out.iterdir()):
    print(f"{path.name:<20}{path.stat().st_size / 1000:8.1f} kB")

# %% only="solution" tags=["nbval-check-output"]
from tifffile import imread

by_count = [len(np.unique(of_scale)) - 1 for _, of_scale in by_scale]
course.claim("the count is not the same at all scales", len(set(by_count)) > 1)
course.claim(
    "the exported label image is the one that was measured",
    np.array_equal(imread(out / "haematoxylin.tif"), labels["haematoxylin"]),
)
course.claim("the table has one row for each nucleus", len(rows) == sum(number.values()))
if chosen:
    areas = np.bincount(labels["haematoxylin"].ravel())[[row[1] for row in chosen]]
    course.claim(
        "an area in square micrometres is a quarter of the pixels",
        np.allclose([row[4] for row in chosen], areas / 4),
    )

# %% [markdown]
# ## Before you trust it
#
# ### 1. Consistency
#
# An image turned by 90 degrees holds the same nuclei. Detect in both, turn back, and compare. Agreement does not prove that the result is right, but disagreement proves that one of the two is wrong. (Mirror images would be too easy: `predict` averages
# over them if `model.thresholds.flips` is above 1.) **Exercise 6.5: predict, run, explain.** How large will the F1 between the two be?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from nucleus_course.course.numbers import f1_of_two

turned = np.rot90(model.predict(np.rot90(view).copy()).label_image(), -1)
agreement = f1_of_two(labels["haematoxylin"], turned)
print(f"turned: F1 between the two results at IoU 0.5 is {agreement:.2f}")
dimmed = model.predict((view * 0.5).astype(np.uint8)).label_image()
agreement_dimmed = f1_of_two(labels["haematoxylin"], dimmed)
print(f"dimmed to half: F1 is {agreement_dimmed:.2f}")

# %% [markdown]
# **What was seen.** Where the network is sure, it gives the same answer again; the F1 is below 1 by what it is not sure of. Half the brightness changes little, because `compact` stretches its input to a fixed range
# first (the paper's presets subtract a fixed mean instead).
#
# **Explain.** Why can such a check not replace annotation? Name an error that it can never find.

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** It measures whether the network agrees with itself. A systematic error is consistent: if the network takes every brown ring for a nucleus, or misses every pale one, it does so in the turned image too, and the F1 stays high.

# %% only="solution" tags=["nbval-check-output"]
course.claim("turned by 90 degrees the answer is not exactly the same", agreement < 1)
course.claim(
    "dimming to half changes it less than turning does, or hardly",
    agreement_dimmed > min(agreement, 0.9) - 1e-9,
)

# %% [markdown]
# ### 2. Scores
#
# On images of a kind that the network knows, most detections have either a high score or one near 0 (boxes that came to nothing), and few are in the middle. Look at the middle: many scores there mean that the
# network has rarely seen this kind of image.

# %%
course.show(figures.draw_scores(found["haematoxylin"].scores, model.thresholds.score))

# %% [markdown]
# **What was seen.** The caption says which share of the detections above the threshold is clearly above it. If many are near it, a small change of the threshold changes the count. Then report the count for two thresholds.
#
# ### 3. Annotate a little
#
# Nothing replaces annotations. Annotate *three to five whole images*, chosen at random and not because they look good. To save time, correct the network's own label images (in napari or Fiji). Then evaluate with one command:
#
# ```
# nucleus-course evaluate --data FOLDER --split all --weights compact
# ```
#
# ## Train on your annotations
#
# The simplest layout is the corrected label image beside its image: `NAME_masks.tif` beside `NAME.png`. `train` and `evaluate` read [other formats](../docs/formats.md) too. The next cell writes BBBC038's own from label images: one folder for each image, with `images/` and one mask PNG for each nucleus in `masks/`. The reader checks it. (The "annotation" here is the network's
# own result, to show the files. Training on it would teach nothing new.)

# %%
mine = course.work_folder("my-annotated", fresh=True)
for name, image in images.items():
    for part in ("images", "masks"):
        (mine / name / part).mkdir(parents=True)
    imsave(mine / name / "images" / f"{name}.png", nc.to_rgb8(image), check_contrast=False)
    for number in np.unique(labels[name])[1:]:
        imsave(
            mine / name / "masks" / f"{number:04d}.png",
            np.where(labels[name] == number, 255, 0).astype(np.uint8),
            check_contrast=False,
        )

annotated = nc.load_dataset(mine, "all", progress=False)
print(annotated.lint.summary())
print(
    "nuclei as written and as read back agree:",
    all(annotated[name].count == len(np.unique(labels[name])) - 1 for name in images),
)

# %% [markdown]
# Then, in a terminal, [fine-tune](../docs/fine-tune.md) the shipped weights (`FOLDER` is a folder in such a layout, `IMAGES` one with image files). The command leaves a few images out and scores them before and after: only that says whether the training helped. A network that you train has no known sizes
# and looks at images as they are. So bring all of them to one scale first, here as in prediction.
#
# ```
# nucleus-course train --data FOLDER --fine-tune --run runs/mine
# nucleus-course predict IMAGES --weights runs/mine --out results
# ```
#
# **Exercise 6.6: explain.** You annotated ten images of one slide, trained on eight and evaluated on two: `coco_ap` 80. A colleague's slide from another laboratory gives 40. What was wrong with the evaluation, and how should the split
# have been made?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The two evaluation images share slide, stain, day and microscope with the eight. So the split measured how well the network knows that slide, not how it will do on the next one. Split by the unit to which you want to generalise: whole slides, patients or laboratories in or out.
# (If there is only one slide, say so: the number holds for that slide.)

# %% [markdown]
# ## Quiz
#
# 1. *Your nuclei are 80 pixels across. What do you do first?*
#    <details><summary>Answer</summary> Tell the network: `--diameter 80`. It then sees each image reduced to about a third, and the results are in the pixels of your image.</details>
#
# 2. *The image was reduced by two before detection. The camera has 0.3 micrometres per pixel. Which value belongs to the reduced image?*
#    <details><summary>Answer</summary> 0.6: one of its pixels covers two of the camera's in each direction. Outlines that were brought back to the original are measured with 0.3.</details>
#
# 3. *Turned by 90 degrees, the result agrees with an F1 of 0.98. Is the network good on these images?*
#    <details><summary>Answer</summary> It is sure, not right: a systematic error is the same in both. Annotate a few images.</details>
#
# ## What you have done
#
# - detected nuclei in a kind of image that the network was not trained on, before and after separating its stains;
# - measured and exported them;
# - chosen a scale, and checked consistency and scores without annotations;
# - written a training set from label images, and read the command that trains on it.
#
# **Three take-aways**
# 1. Calibration (micrometres per pixel) and scale are yours to supply. Report both with the results.
# 2. Self-consistency finds unsure detections, never systematic errors. A few randomly chosen annotated images find both.
# 3. Split by slide, patient or laboratory, whichever you want to generalise to.
#
# Previous: [5. Error analysis](05_error_analysis.ipynb). Next: [7. Does it hold elsewhere?](07_does_it_hold_elsewhere.ipynb). For teaching with this course see the
# [instructor's guide](../docs/instructor.md).
#
# *References.* Ruifrok and Johnston, *Quantification of histochemical staining by color deconvolution*, Analytical and Quantitative Cytology and Histology 23, 2001.
