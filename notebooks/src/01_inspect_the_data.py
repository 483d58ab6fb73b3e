# %% [markdown]
# # 1. Inspect the data
#
# *What is in the images, how hard is it, and could the network express a perfect answer at all?* Most surprises of
# the later notebooks are already visible here, before anything is trained.
#
# **What you will do**
# - look at images and masks of all five types, alone and in an interactive browser;
# - measure nuclei: how many, how large, how crowded;
# - break a small data set on purpose and see what the reader does about it;
# - watch augmentation at work;
# - ask whether a 28 x 28 mask grid, the anchors and a cap of 100 detections can express what is there.
#
# **What you will learn**
# - why it matters that one data set holds five kinds of image;
# - which errors annotations contain, and what repairing them costs;
# - how to find a representation's limit before training anything.
#
# **What you need:** 45 minutes, 2 GB of memory, any processor; about one minute of it is computing.
#
# Previous: [0. Start here](00_start_here.ipynb). Next: [2. Inside Mask R-CNN](02_inside_mask_rcnn.ipynb).
# [Solutions](solutions/01_inspect_the_data.ipynb) · [Glossary](../docs/glossary.md)

# %%
import numpy as np

import nucleus_course as nc
from nucleus_course import course, figures
from nucleus_course.course import exercises

data = course.find_data()
dataset = nc.load_dataset(data.source, "all", progress=False)
dataset

# %% [markdown]
# ## One image is two arrays
#
# On disk BBBC038 keeps one folder an image, with one black-and-white PNG *for each nucleus*. The reader merges
# those into one *label image*: 0 is background, 1 to n are nuclei. *Expect* an RGB image of 8-bit numbers, labels
# of the same height and width, and one box a nucleus.

# %%
record = course.pick_crowded(dataset)
print(
    f"image   {record.image.shape} {record.image.dtype}, values {record.image.min()} to {record.image.max()}"
)
print(f"labels  {record.labels.shape} {record.labels.dtype}, values 0 to {record.labels.max()}")
print(f"boxes   {record.boxes.shape} {record.boxes.dtype}, the first is {record.boxes[0].tolist()}")
print(f"type    {record.type}")

# %% [markdown]
# ## Five looks in one data set (the paper's Figure 2)
#
# The images come from many laboratories, microscopes, tissues and stains. Caicedo et al. (2019) sort them into five
# types; `image_type` tells them apart by a simple rule on colour, brightness and size.
#
# *Expect* one column a type: the image above, its merged masks below. Dim images are stretched for your eyes; the
# network gets its own normalisation.

# %%
course.show(figures.draw_samples(course.pick_each_type(dataset)))

# %% [markdown]
# **What was seen.** Fluorescent nuclei are bright on dark, stained ones dark on bright, so no single
# threshold works for both. Nuclei differ in size between types, and within a type some touch.
#
# **Exercise 1.1: predict, run, explain.** How are the types shared out? Is the commonest type twice as common as the
# rarest, or ten times, or a hundred times?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from collections import Counter

images_of = Counter(dataset.types.values())
nuclei_of = Counter()
for image_id, kind in dataset.types.items():
    nuclei_of[kind] += dataset.counts[image_id]
print(f"{'type':<24}{'images':>8}{'nuclei':>8}")
for kind, number in images_of.most_common():
    print(f"{kind:<24}{number:>8}{nuclei_of[kind]:>8}")

# %% [markdown]
# **What was seen.** The types are not equally common, and the shares of *images* and of *nuclei* are not the same:
# an image of one type holds many more nuclei than one of another. (The synthetic sample is far more balanced than BBBC038,
# where small fluorescent images are the great majority.)
#
# **Explain.** A metric can average over images or pool all nuclei. Which types dominate which? And what will a network
# trained on randomly drawn images see too little of?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** In BBBC038 the small fluorescent type has some 400 of the 664 images and grey tissue fewer than 20: more than twenty
# times as many. Averaging over images lets the commonest *type* decide; pooling nuclei lets the most *crowded images* decide. A network
# sees too little of the rare types, the stained tissues, which are also the hardest to segment. That is why reports give
# results per type, and why `compact` draws rare types more often in training.

# %% [markdown]
# ### Browse
#
# First the browser's default view as a plain picture, then the browser itself. *Expect* an image with an orange outline around each nucleus.
# Controls: type, image, what to show. Every control can be reached with the Tab key and moved with the arrow keys.

# %%
from nucleus_course.course.explorers import ImageBrowser

browser = ImageBrowser(dataset)
course.show(browser.draw())

# %% [markdown]
# **What was seen.** One image with the outlines of its nuclei, and in the caption its type, size, count and median area.

# %% tags=["explorer"]
browser.widget()

# %% [markdown]
# ## How many, how large, how crowded?
#
# *Expect* wide ranges: counts and sizes need logarithmic axes. To stay quick, sizes come from at most 120 images, spread
# evenly over the types.

# %%
chosen = [
    i for kind in images_of for i in [i for i in dataset.ids if dataset.types[i] == kind][:24]
]
records = {image_id: dataset[image_id] for image_id in chosen}
counts, areas = {}, {}
for image_id, kind in dataset.types.items():
    counts.setdefault(kind, []).append(dataset.counts[image_id])
for one in records.values():
    areas.setdefault(one.type, []).extend(one.areas.tolist())
course.show(figures.draw_sizes(counts, areas))

# %% [markdown]
# **What was seen.** The number of nuclei in an image spans more than a factor of ten, and so do the areas of nuclei, from the smallest to the largest. A
# detector for this data needs several scales, which is what the feature pyramid of [notebook 2](02_inside_mask_rcnn.ipynb) is for.
#
# **Exercise 1.2: implement it.** How crowded is it? Two nuclei *touch* if a pixel of one and a pixel of the other share an
# edge. Write `touching_pairs(labels)`, the set of pairs `(i, j)` with `i < j` of nuclei that touch.
# *Expected output:* `touching_pairs: PASSED - all 5 cases agree.`
#
# <details><summary>Hint</summary> Compare <code>labels[:, 1:]</code> with <code>labels[:, :-1]</code>, and
# <code>labels[1:]</code> with <code>labels[:-1]</code>: where they differ and neither is 0, two nuclei meet.</details>


# %%
def touching_pairs(labels):
    """Pairs (i, j), i < j, of nuclei in a label image (H, W) that share a pixel edge, as a set of tuples."""
    ### BEGIN SOLUTION
    pairs = set()
    for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        meet = (a != b) & (a > 0) & (b > 0)
        for i, j in zip(a[meet].tolist(), b[meet].tolist()):
            pairs.add((min(i, j), max(i, j)))
    return pairs
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_touching_pairs(touching_pairs)

# %% [markdown]
# The library's version of the same idea counts, for each type, the share of nuclei that touch another one, and the share
# that the image's edge cuts. *Expect* both to differ between types.

# %%
from nucleus_course.course.numbers import crowding

shares = {kind: crowding([one for one in records.values() if one.type == kind]) for kind in areas}
course.show(figures.draw_crowding(shares))

# %% [markdown]
# **What was seen.** In every type between a fifth and a half of the nuclei touch another one. The edge cuts
# a few in a hundred in one type and several times as many in another. Touching nuclei are what instance segmentation is for; cut ones show the network
# only a part of their shape. Both return in [notebook 5](05_error_analysis.ipynb) as causes of error.

# %% [markdown]
# ## What the masks get wrong
#
# Masks drawn by people contain mistakes, and a reader that assumes otherwise trains on them. `lint_dataset` checks every
# file; the data set carries the report.

# %%
print(dataset.lint.summary())
for issue in dataset.lint.issues[:6]:
    print("-", issue.image_id[:8], issue.kind, "-", issue.message, f"({issue.action})")

# %% [markdown]
# A report may be long or empty, depending on the data. So that you see the rules at work in any case, the next cell writes a data set
# with two images and four mistakes. **Exercise 1.3: predict, run, explain.** For each mistake decide first: can the reader
# repair it safely, or must it refuse the image?
#
# In the image `first`: two masks overlap; a mask is entirely black; one nucleus is stored twice. In the image `second`: a mask has
# another size than its image.

# %% [markdown] only="exercise"
# *Your prediction:*

# %% tags=["nbval-check-output"]
from skimage.io import imsave


def disc(row, column, radius, size=64):
    """A black-and-white mask with one disc, uint8 (size, size)."""
    rows, columns = np.mgrid[:size, :size]
    return np.where((rows - row) ** 2 + (columns - column) ** 2 < radius**2, 255, 0).astype(
        np.uint8
    )


masks = {
    "first": {
        "a": disc(20, 20, 9),
        "b": disc(20, 35, 9),
        "black": disc(0, 0, 0),
        "c": disc(48, 20, 7),
        "c-again": disc(48, 20, 7),
    },
    "second": {"a": disc(20, 20, 9), "small": disc(10, 10, 4, size=32)},
}
broken = course.work_folder("broken", fresh=True)
for image_id, of_image in masks.items():
    for folder in ("images", "masks"):
        (broken / image_id / folder).mkdir(parents=True)
    image = 40 + np.maximum.reduce([mask for mask in of_image.values() if len(mask) == 64]) // 2
    imsave(broken / image_id / "images" / f"{image_id}.png", image, check_contrast=False)
    for name, mask in of_image.items():
        imsave(broken / image_id / "masks" / f"{name}.png", mask, check_contrast=False)

report = nc.lint_dataset(broken)
print(f"usable images: {report.images} of {len(masks)}")
for issue in report.issues:
    print(f"- {issue.image_id}: {issue.kind}: {issue.message} ({issue.action})")

# %% [markdown]
# **What was seen.** Each mistake is named, with what was done about it. The first image is repaired and stays usable. The second is
# refused: where a mask of another size belongs is a guess, and a nucleus left out would teach the network that it is background. One
# bad image never costs the others.
#
# **Explain.** When two masks overlap, some nucleus must give up the pixels. Whichever gives them up, its truth is now slightly wrong. Why is
# that acceptable here, and when would it not be?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** A label image holds one id a pixel, and so does the tissue as seen in these images: annotators rarely meant the overlap, it is a pixel or
# two of sloppy border. The report says how many pixels moved, so that a large number can be looked at. It would not be acceptable where
# objects do overlap in projection (thick samples, chromosomes): there the representation itself, one label a pixel, is wrong.

# %% [markdown]
# ## Augmentation, seen
#
# The paper varies its training images by random crops, rotations, Gaussian blur and flips. Image and labels must move together, and the result
# must depend only on (seed, epoch, index), so that a run can be repeated. *Expect* the outlines to stay on their nuclei.

# %%
augmenter = nc.Augmenter(nc.get_preset("paper-resnet50").augment, size=192)
views = [augmenter(record.image, record.labels, (2018, epoch, 0)) for epoch in range(7)]
course.show(figures.draw_augmentations(record, views))

# %% [markdown]
# **What was seen.** Every view is turned, mirrored, blurred or cut differently, and the outlines follow. Nuclei outside a
# crop leave the truth as well: a view's count is at most the original's, apart from nuclei that a crop cuts in two.
#
# **Exercise 1.4: implement it.** When an image is mirrored left to right, so are its boxes. Write `flip_boxes(boxes, width)`. Mind
# the convention: a pixel is a unit square, so the first pixel's box (0, 0, 1, 1) becomes (0, width-1, 1, width).
# *Expected output:* `flip_boxes: PASSED - all 3 cases agree.`


# %%
def flip_boxes(boxes, width):
    """Boxes (N, 4) as (y1, x1, y2, x2) after their image of that width is mirrored left to right."""
    ### BEGIN SOLUTION
    y1, x1, y2, x2 = boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3]
    return np.stack([y1, width - x2, y2, width - x1], axis=1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_flip_boxes(flip_boxes)

# %% [markdown]
# ## Can the representation express the objects at all?
#
# Before training, ask what a *perfect* network could reach. Mask R-CNN draws every nucleus on a 28 x 28 grid inside its
# box, proposes boxes from a fixed set of *anchors*, and returns a limited number of detections. Each of the three can lose nuclei.
#
# ### The 28 x 28 grid
#
# The figure shows a mask, its version on the grid, the mask pasted back at full size with the differences coloured, and on the right the IoU
# (shared pixels over pixels of either) of many such round trips. 1 would be no loss.
#
# **Exercise 1.5: predict, run, explain.** Which nuclei lose more in the round trip, the small or the large ones? How much on average:
# nothing, a hundredth, a tenth?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from nucleus_course.course.numbers import best_anchor_iou, round_trip

sizes, ious = [], []
for one in records.values():
    for number, box in list(enumerate(one.boxes, start=1))[:12]:
        result = round_trip(one.labels == number, box)
        sizes.append(max(box[2] - box[0], box[3] - box[1]))
        ious.append(result.iou)
big = max((one for one in records.values()), key=lambda one: one.areas.max())
example = round_trip(
    big.labels == 1 + int(big.areas.argmax()), big.boxes[int(big.areas.argmax())], crop=True
)
course.show(figures.draw_round_trip(example.mask, example.grid, example.pasted, sizes, ious))

# %% [markdown]
# **What was seen.** On average the round trip costs a hundredth or two. Small nuclei come back whole, because the grid is finer than their
# pixels; large ones lose a little along the border, most where a shape has thin tips. The grid is not what limits a network here. (That depends
# on geometry handled to the half pixel: an error of half a cell costs several points.)
#
# **Explain.** Would a 14 x 14 grid be enough for the small nuclei? And what would a box that is a few pixels too small do to the mask?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** For nuclei of up to 14 pixels a 14 x 14 grid still has a cell for each pixel; larger ones would lose about twice as much along the border, because the
# cells are twice as wide. A box that is too small cuts the mask, whatever the grid: what lies outside the box cannot be drawn. That loss is not in this figure,
# which uses perfect boxes.

# %% [markdown]
# ### Anchors
#
# The region proposal network starts from anchors: square or oblong boxes of fixed sizes on a regular grid. A nucleus that overlaps no anchor
# by at least 0.3 to 0.5 gets little training signal. *Expect* two presets, each with the best overlap of every nucleus with any of its anchors.

# %%
coverage = {}
for name in ("paper-resnet50", "compact"):
    config = nc.get_preset(name).model
    coverage[name] = np.concatenate(
        [best_anchor_iou(one.boxes, one.height, one.width, config) for one in records.values()]
    )
nucleus_sizes = np.concatenate(
    [(one.boxes[:, 2:] - one.boxes[:, :2]).max(axis=1) for one in records.values()]
)
course.show(figures.draw_anchor_coverage(nucleus_sizes, coverage))

# %%
sides = np.concatenate([one.boxes[:, 2:] - one.boxes[:, :2] for one in records.values()])
elongation = sides.max(axis=1) / sides.min(axis=1)
for name, best in coverage.items():
    for text, group in (
        ("nearly as wide as long", elongation < 1.3),
        ("twice as long as wide or more", elongation >= 2),
    ):
        print(
            f"{name:<16}{text:<30}{100 * (best[group] >= 0.5).mean():4.0f}% of {group.sum()} nuclei have an anchor at IoU 0.5 or more"
        )

# %% [markdown]
# **What was seen.** Most nuclei, not all, have an anchor that overlaps them by half; far fewer have one that overlaps by 0.7, the IoU that Faster
# R-CNN asks of a positive anchor. No nucleus is *without* a training signal, because the best anchor of each counts as positive whatever its
# overlap. The presets differ: `compact` lays its anchors more densely for their size (a stride of a quarter of the side, the paper's a half) and serves round nuclei
# better; with one square shape a position it serves long ones worse than the paper's three shapes do. Moving and stretching the anchor has to do the rest.
#
# ### A cap of 100 detections
#
# COCO's evaluation looks at the 100 best detections of an image; everyday photographs rarely hold more objects. **Exercise 1.6: implement it.** A
# perfect detector that may keep only `cap` detections an image finds at most which share of all nuclei? Write
# `recall_under_cap(counts, cap)` from the number of nuclei in each image. *Expected output:* `recall_under_cap: PASSED - all 4 cases agree.`


# %%
def recall_under_cap(counts, cap):
    """The largest share of all nuclei that can be found if an image keeps at most ``cap``; counts (N,) ints."""
    ### BEGIN SOLUTION
    counts = np.asarray(counts)
    return np.minimum(counts, cap).sum() / counts.sum()
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_recall_under_cap(recall_under_cap)

# %% [markdown]
# The same numbers for this data set. *Expect* 100% at 1000.

# %%
all_counts = np.array(list(dataset.counts.values()))
for cap in (50, 100, 200, 400, 1000):
    print(
        f"cap {cap:>4}: at most {100 * np.minimum(all_counts, cap).sum() / all_counts.sum():5.1f}% of the nuclei, "
        f"{(all_counts > cap).sum()} images affected"
    )
print(f"the fullest image holds {all_counts.max()} nuclei")

# %% [markdown]
# **What was seen.** A cap below the fullest image's count makes a perfect score impossible, whatever the network. So this project computes AP with at
# most 1000 detections an image (`coco_ap`), and beside it the number with COCO's 100 (`coco_ap_maxdets100`) for comparison.

# %% [markdown]
# ## What you have done
#
# - looked at images and masks of all types, and browsed them;
# - measured counts, sizes and crowding;
# - broken a data set and read what the reader did about it;
# - seen augmentation move image and labels together;
# - found out what the grid, the anchors and a cap can cost.
#
# **Three take-aways**
# 1. The types differ more from each other than images within a type: report per type, and mind which ones an average hides.
# 2. Annotations contain errors; repair what is safe, refuse the rest, and name both.
# 3. Ask what a perfect model could score under your representation *before* you train: here the mask grid costs little, anchors of one shape miss long nuclei until the box head moves them, and a cap of 100 can cost much.
#
# Previous: [0. Start here](00_start_here.ipynb). Next: [2. Inside Mask R-CNN](02_inside_mask_rcnn.ipynb)
