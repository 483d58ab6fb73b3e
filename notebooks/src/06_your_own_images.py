# %% [markdown]
# # 6. Your own images
#
# *How do I use it on my images, and when may I trust it?* From a folder of images to counts, a table of measurements and files that other programs open; then three checks that need no annotation; then training on
# annotations of your own.
#
# **What you will do**
# - detect nuclei in an image of a kind that the network was not trained on: an immunohistochemistry section that comes with scikit-image;
# - separate its stains, and see the same network give another answer;
# - measure nuclei in micrometres and export tables, label images and COCO JSON;
# - check scale, consistency and scores without any annotation;
# - turn corrected label images into a training set, and read the command that trains on it.
#
# **What you will learn**
# - which settings depend on your microscope;
# - what can be checked without truth, and what cannot;
# - how little annotation it takes to measure whether you may trust the result.
#
# **What you need:** 45 minutes, 2 GB of memory, any processor; about a minute of it is computing. No internet connection.
#
# Previous: [5. Error analysis](05_error_analysis.ipynb). Next: your own images.
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
# To try this on your own images, put them into a folder and, in the next cell, replace the lines from `folder =` to the second `imsave` by `import pathlib; folder = pathlib.Path("that folder")`; where later cells say `haematoxylin` or `section`, write the name of one of your files. Here the folder is made from `skimage.data.immunohistochemistry()`: a section of
# colon in which nuclei are stained blue (haematoxylin) and a protein of the cells' membranes brown (DAB), 512 x 512 pixels.
#
# The same section goes into the folder a second time, as something nearer to what the network knows: the haematoxylin alone. `rgb2hed` separates the
# stains (Ruifrok and Johnston 2001); nuclei are then bright on dark, as in fluorescence. It is saved as 16-bit grey TIFF, to show that the kind of file does not matter.

# %%
import skimage.data
from skimage.color import rgb2hed
from skimage.io import imsave

folder = course.work_folder("my-images", fresh=True)
section = skimage.data.immunohistochemistry()
stain = rgb2hed(section)[..., 0]
low, high = np.percentile(stain, (1, 99.5))
imsave(folder / "section.png", section, check_contrast=False)
imsave(
    folder / "haematoxylin.tif",
    (65535 * np.clip((stain - low) / (high - low), 0, 1)).astype(np.uint16),
    check_contrast=False,
)

images = {path.stem: nc.read_image(path) for path in sorted(folder.iterdir())}
for name, image in images.items():
    print(f"{name:<13} {image.shape}, {image.dtype}")

# %% [markdown]
# **Exercise 6.1: predict, run, explain.** The network was trained on five looks, stained tissue among them, but on no brown stain. In which of the two images will it find more of the blue nuclei? What will it do where
# brown membranes ring a pale cell?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
found = {name: model.predict(image) for name, image in images.items()}
labels = {name: detections.label_image() for name, detections in found.items()}
course.show(figures.draw_found({name: nc.to_rgb8(image) for name, image in images.items()}, labels))

# %% [markdown]
# **What was seen.** The same tissue, the same network, two different answers; the caption holds the counts, and both are far below the number of nuclei that you see. In the colour image nearly all of the blue ones are passed over. Look closely at the few
# outlines there: a pale cell in a brown ring has an outline, and an outline is what the network looks for, nucleus or not. The haematoxylin image has no brown in it.
#
# **Explain.** The network never failed loudly: every detection has a score, the outlines look deliberate, and what it passed over left no trace. What does that say about using it on a kind of image that it was not trained on?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** A network has no notion of "I do not know this kind of image". It answers with the shapes that it learned, and its scores are comparable only among images like its training data. So look first, bring the image nearer to what the network knows
# (stain separation, scale, contrast), and measure on a few annotated images. Which of the two answers is better is a question for the truth, not for the eye that made the preparation.

# %% [markdown]
# ## Measure
#
# From here on the notebook uses the haematoxylin image.
#
# Pixels are not a unit. Your microscope's calibration, micrometres per pixel, turns them into one; it is in the file's metadata or on the microscope, and no network can know it. (For this section it is not
# published; 0.5 is an assumption for the exercise.)
#
# **Exercise 6.2: implement it.** Write `measure(labels, micrometres_per_pixel)`: a row for each nucleus with its id, its area in square micrometres and its *equivalent diameter*, that of the disc of equal area.
# *Expected output:* `measure: PASSED - all 3 cases agree.`
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
# **Exercise 6.3: implement it.** Counts of different fields compare only per area. Write `density(count, height, width, micrometres_per_pixel)` in nuclei per square millimetre.
# *Expected output:* `density: PASSED - all 3 cases agree.`


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
# For real work `skimage.measure.regionprops_table` measures much more. *Expect* one row a nucleus, and then sizes that spread widely about their median.

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
# - one label image a picture (16-bit TIFF; Fiji, napari, CellProfiler and QuPath open it);
# - `predictions.json` in COCO's form, for `nucleus-course evaluate`: every detection with its mask and score, also those below the threshold, since AP asks for them.
#
# On the command line, `nucleus-course predict FOLDER --weights compact --out DIR` writes all three; its `measurements.csv` is in pixels, and `counts.csv` beside it has a row an image.

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

# %% [markdown]
# ## Before you trust it
#
# ### 1. Scale
#
# A network knows sizes. If your nuclei are three times as large, or a third as large, as those it was trained on, resize the images first. The next cell detects in the same part of the
# image at five scales.
#
# **Exercise 6.4: predict, run, explain.** Will the count be about the same at all five? If not, at which scale will it be largest?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from skimage.transform import resize

view = nc.to_rgb8(images["haematoxylin"])
corner = view[230:486, 130:386]
scales = (0.5, 1.0, 1.5, 2.0, 3.0)
by_scale = []
for scale in scales:
    side = int(round(len(corner) * scale))
    scaled = (255 * resize(corner, (side, side), anti_aliasing=True)).astype(np.uint8)
    by_scale.append((scaled, model.predict(scaled).label_image()))
course.show(figures.draw_scales(scales, by_scale))

# %% [markdown]
# **What was seen.** The same tissue gives another count at each scale: scale is a setting, like exposure. The caption also says how large the detections are at each. The middle 90% of the nuclei in BBBC038 are 6 to 43 pixels
# across ([notebook 1](01_inspect_the_data.ipynb)). Measure a few of your nuclei by hand and choose the scale that brings them well inside that range; use it for all images of that magnification, and write it down.
#
# **Explain.** Why not simply take the scale with the largest count?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** More detections are not more nuclei. In an image enlarged far enough, grains inside a nucleus and specks of background reach the size that the network knows for nuclei, and are counted; in one reduced
# too far, neighbours run together and are lost. The size of your nuclei says which scale is right, the count does not.

# %% [markdown]
# ### 2. Consistency
#
# An image turned by 90 degrees holds the same nuclei. Detect in both, turn back, and compare: agreement does not prove that the result is right, but disagreement proves that one of the two is wrong. (Mirroring would be too easy: `predict` looks at
# the flips of the image itself, and averages, where the stored thresholds say so.) **Exercise 6.5: predict, run, explain.** How large will the F1 between the two be?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from nucleus_course.course.numbers import f1_of_two

turned = np.rot90(model.predict(np.rot90(view).copy()).label_image(), -1)
print(
    f"turned: F1 between the two results at IoU 0.5 is {f1_of_two(labels['haematoxylin'], turned):.2f}"
)
dimmed = (view * 0.5).astype(np.uint8)
print(
    f"dimmed to half: F1 is {f1_of_two(labels['haematoxylin'], model.predict(dimmed).label_image()):.2f}"
)

# %% [markdown]
# **What was seen.** What the network is sure of comes back, what it guesses at does not; the further below 1, the more guesses. Half the brightness changes little or nothing, because `compact` stretches its input to a fixed range
# first (the paper's presets subtract a fixed mean instead).
#
# **Explain.** Why is such a check no substitute for annotation? Give an error that it can never find.

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** It measures whether the network agrees with itself. A systematic error is consistent: if it takes every brown ring for a nucleus, or misses every pale one, it does so in the turned image too, and the F1 stays high.

# %% [markdown]
# ### 3. Scores
#
# `compact`'s score is the IoU that it expects of an outline. *Expect*, on images that the network knows, many scores of 0.8 to 0.95, many near 0 (boxes that came to nothing), and few in the middle. A hump in the middle says that the
# network has not seen this kind of thing often.

# %%
course.show(figures.draw_scores(found["haematoxylin"].scores, model.thresholds.score))

# %% [markdown]
# **What was seen.** Few scores, if any, come near 0.9 here, and those above the threshold are spread out and not piled up at the top: the network is seldom sure of this tissue. The caption says which share of the detections above the threshold is clearly above it
# (of these, masks that are too small are not outlined in the first figure). If many are near it, a small change of the threshold changes the count: report the count for two thresholds.
#
# ### 4. And then: annotate a little
#
# Nothing replaces truth. Annotate *three to five whole images*, chosen at random and not because they look good; correct the network's own label images to save time (in napari or Fiji); evaluate with one command:
#
# ```
# nucleus-course evaluate --data FOLDER --split all --weights compact
# ```
#
# ## Train on your annotations
#
# `train` and `evaluate` read BBBC038's layout: a folder an image, with `images/` and one mask PNG a nucleus in `masks/`. The next cell writes that layout from label images, and the reader checks it. (The "annotation" here is the network's
# own result, to show the files; training on it would teach nothing new.)

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
# Then, in a terminal, starting from the shipped weights (`FOLDER` is a folder in that layout, `IMAGES` one of plain image files). Keep a few annotated images out of the folder, and evaluate on them before and after: only that says whether the training helped, and whether ten minutes were enough.
#
# ```
# nucleus-course train --data FOLDER --split all --preset compact+further --weights compact --minutes 10 --run runs/mine
# nucleus-course predict IMAGES --weights runs/mine --out results
# ```
#
# **Exercise 6.6: explain.** You annotated ten images of one slide, trained on eight and evaluated on two: `coco_ap` 80. A colleague's slide from another laboratory gives 40. What went wrong in the evaluation, and how should the split
# have been made?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The two evaluation images share slide, stain, day and microscope with the eight: the split measured memory of that slide, not what happens on the next one. Split by the unit you want to generalise to: whole slides, patients or laboratories in or out.
# (With one slide only, say so: the number holds for that slide.)

# %% [markdown]
# ## What you have done
#
# - detected nuclei in an image of a kind that the network was not trained on, before and after separating its stains;
# - measured and exported them;
# - checked scale, consistency and scores without truth;
# - written a training set from label images and read the command that learns from it.
#
# **Three take-aways**
# 1. Calibration (micrometres per pixel) and scale are yours to supply; write both down with the results.
# 2. Self-consistency finds guesses, never systematic errors; a few randomly chosen annotated images find both.
# 3. Split by slide, patient or laboratory, whichever you mean to generalise to.
#
# Previous: [5. Error analysis](05_error_analysis.ipynb). Next: your own images. For teaching with this course see the
# [instructor's guide](../docs/instructor.md).
#
# *References.* Ruifrok and Johnston, *Quantification of histochemical staining by color deconvolution*, Analytical and Quantitative Cytology and Histology 23, 2001.
