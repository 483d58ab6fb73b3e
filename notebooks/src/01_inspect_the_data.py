# %% [markdown]
# # 1. Inspect the data
#
# *What is in the images, how hard are they, and could the network express a perfect answer at all?* Many surprises of
# the later notebooks are visible here, before anything is trained.
#
# **What you will do**
# - look at images and masks of all five types, in figures and in an interactive browser;
# - measure nuclei: how many, how large, how crowded;
# - break a small data set on purpose and see what the reader does about it;
# - watch augmentation at work;
# - ask whether a 28 x 28 mask grid, the anchors and a cap on detections can express what is there.
#
# **What you will learn**
# - why it matters that one data set holds five types of image;
# - which errors annotations contain, and which of them can be repaired;
# - how to find the limits of a representation before training.
#
# **What you need:** 45 minutes, 1 GB of memory, any processor. About one minute of it is computing. You should
# have done [notebook 0](00_start_here.ipynb).
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
# On disk BBBC038 has one folder for each image, with one black-and-white PNG for each *nucleus*. The reader merges
# these into one *label image*: 0 is background, 1 to n are nuclei. *Expect* an RGB image of 8-bit numbers, labels
# of the same height and width, and one box for each nucleus.

# %%
record = course.pick_crowded(dataset)
print(
    f"image   {record.image.shape} {record.image.dtype}, values {record.image.min()} to {record.image.max()}"
)
print(f"labels  {record.labels.shape} {record.labels.dtype}, values 0 to {record.labels.max()}")
print(f"boxes   {record.boxes.shape} {record.boxes.dtype}, the first is {record.boxes[0].tolist()}")
print(f"type    {record.type}")

# %% [markdown]
# ## Five types in one data set (the paper's Figure 2)
#
# The images come from many laboratories, microscopes, tissues and stains. Caicedo et al. (2019) sort them into five
# types; `image_type` tells them apart by a simple rule on colour, brightness and size.
#
# *Expect* one column for each type: the image above, its merged masks below. Dim images are brightened for display only.

# %%
course.show(figures.draw_samples(course.pick_each_type(dataset)))

# %% [markdown]
# **What was seen.** Fluorescent nuclei are bright on dark, stained nuclei are dark on bright, so no single
# threshold works for both. Nuclei differ in size between types, and in every type some touch.
#
# **Exercise 1.1: predict, run, explain.** How are the images divided among the types? Is the most common type twice as common as the
# rarest, ten times, or a hundred times?

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
# **What was seen.** The types are not equally common, and the shares of *images* and of *nuclei* differ:
# an image of one type holds several times as many nuclei as one of another. (The synthetic sample is more balanced than
# BBBC038, where small fluorescent images are the majority.)
#
# **Explain.** A metric can average over images, or pool all nuclei. Which types dominate in each case? And what will a network
# see too little of if it is trained on randomly drawn images?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** BBBC038 has 410 images of the small fluorescent type and 16 of grey tissue, 26 times as many. In an average over
# images the most common *type* decides; if nuclei are pooled, the most *crowded images* decide. The network
# sees too little of the rare types, the tissues, which are also the hardest. That is why reports give
# results by type, and why `compact` draws rare types more often in training.

# %% only="solution" tags=["nbval-check-output"]
density = {kind: nuclei_of[kind] / images_of[kind] for kind in images_of}
course.claim(
    "the most common type has more than three times the images of the rarest",
    max(images_of.values()) > 3 * min(images_of.values()),
)
course.claim(
    "an image of the most crowded type holds more than twice the nuclei of the least crowded",
    max(density.values()) > 2 * min(density.values()),
)
course.claim(
    "small fluorescent images are the most common",
    images_of.most_common(1)[0][0] == "small fluorescent",
)

# %% [markdown]
# ### Browse
#
# First the browser's default view as a figure, then the browser itself. *Expect* an image with an outline around each nucleus.
# You can choose the type, the image, and what is drawn. Tab reaches every control, the arrow keys change it.

# %%
from nucleus_course.course.explorers import ImageBrowser

browser = ImageBrowser(dataset)
course.show(browser.draw())

# %% [markdown]
# **What was seen.** One image with the outlines of its nuclei. The caption gives its type, size, count and median area.

# %% tags=["explorer"]
browser.widget()

# %% [markdown]
# ## How many, how large, how crowded?
#
# *Expect* wide ranges: counts and sizes need logarithmic axes. To save time, sizes come from at most 24 images of each type.

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
# **What was seen.** The number of nuclei in an image spans more than a factor of ten, and their areas span more than a factor
# of a hundred. A detector for this data needs several scales: that is the purpose of the feature pyramid of
# [notebook 2](02_inside_mask_rcnn.ipynb).
#
# **Exercise 1.2: implement it.** How crowded are the images? Two nuclei *touch* if a pixel of one and a pixel of the other share an
# edge. Write `touching_pairs(labels)`, the set of pairs `(i, j)` with `i < j` of nuclei that touch.
# *Expected output:* `touching_pairs: PASSED`.
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
# The library's version counts, for each type, the share of nuclei that touch another one, and the share
# that the edge of the image cuts. *Expect* both to differ between types.

# %%
from nucleus_course.course.numbers import crowding

shares = {kind: crowding([one for one in records.values() if one.type == kind]) for kind in areas}
course.show(figures.draw_crowding(shares))

# %% [markdown]
# **What was seen.** In every type between a fifth and a half of the nuclei touch another one. The share at the edge differs
# more: in one type it is about twice as large as in another, or more. Instance segmentation is for touching nuclei; cut nuclei show
# the network only a part of their shape. Both return in [notebook 5](05_error_analysis.ipynb) as causes of error.

# %% only="solution" tags=["nbval-check-output"]
all_areas = np.concatenate(list(areas.values()))
all_counts = np.array(list(dataset.counts.values()))
touching, at_edge = np.array(list(shares.values())).T
course.claim(
    "counts span more than a factor of ten", all_counts.max() > 10 * max(all_counts.min(), 1)
)
course.claim("areas span more than a factor of a hundred", all_areas.max() > 100 * all_areas.min())
course.claim(
    "in every type between a fifth and a half of the nuclei touch another",
    20 < touching.min() and touching.max() < 50,
)
course.claim(
    "the edge cuts at least 1.9 times as large a share in one type as in another",
    at_edge.max() > 1.9 * at_edge.min(),
)

# %% [markdown]
# ## What the masks get wrong
#
# Masks drawn by people contain mistakes. `lint_dataset` checks every file, and the data set carries its report.

# %%
print(dataset.lint.summary())
for issue in dataset.lint.issues[:6]:
    print("-", issue.image_id[:8], issue.kind, "-", issue.message, f"({issue.action})")

# %% [markdown]
# The report may be long or empty. So that you see the rules at work in any case, the next cell writes a data set
# with two images and four mistakes. **Exercise 1.3: predict, run, explain.** For each mistake, decide first: can the reader
# repair it safely, or must it refuse the image?
#
# In the image `first`, two masks overlap, one mask is entirely black, and one nucleus is stored twice. In the image `second`, one mask
# has another size than the image.

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
# **What was seen.** Each mistake is named, with what was done about it. The first image is repaired. The second is
# refused: the place of a mask of another size is a guess, and leaving the nucleus out would teach the network that it is background.
# The refused image does not stop the reader.
#
# **Explain.** When two masks overlap, one nucleus must give up the shared pixels, and its annotation is then slightly wrong. Why is
# that acceptable here? When would it not be?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** A label image holds one id for each pixel, and in these images a pixel shows one nucleus: annotators rarely meant the
# overlap, which is a border one or two pixels wide. The report says how many pixels changed, so that a large number can be
# checked. It would not be acceptable where objects do overlap in projection (thick samples, chromosomes): there the label image
# itself is the wrong representation.

# %% only="solution" tags=["nbval-check-output"]
course.claim("the first image is repaired, the second refused", report.images == 1)
course.claim("all four mistakes are reported", len(report.issues) == 4)

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
# **What was seen.** Each view is rotated, mirrored, blurred or cropped differently, and the outlines follow. Nuclei outside a
# crop leave the annotation as well.
#
# **Exercise 1.4: implement it.** When an image is mirrored left to right, so are its boxes. Write `flip_boxes(boxes, width)`.
# A pixel is a unit square, so the box of the first pixel, (0, 0, 1, 1), becomes (0, width-1, 1, width).
# *Expected output:* `flip_boxes: PASSED`.
#
# <details><summary>Hint</summary> The new left edge is the old right edge, measured from the other side: <code>width - x2</code>.</details>


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
# The figure shows a mask, the same mask on the grid, the grid pasted back into the image, and the IoU
# (shared pixels divided by the pixels of either) of many such round trips. An IoU of 1 means no loss.
#
# **Exercise 1.5: predict, run, explain.** Which nuclei lose more in the round trip, small ones or large ones? How much on average:
# nothing, about 0.01, or about 0.1?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from nucleus_course.course.numbers import best_anchor_iou
from nucleus_course.geometry.masks import round_trip

sizes, ious = [], []
for one in records.values():
    for number, box in list(enumerate(one.boxes, start=1))[:12]:
        result = round_trip(one.labels == number, box)
        sizes.append(max(box[2] - box[0], box[3] - box[1]))
        ious.append(result.iou)
big = max(records.values(), key=lambda one: one.areas.max())
largest = int(big.areas.argmax())
mask, box = big.labels == 1 + largest, big.boxes[largest]
example = round_trip(mask, box)
y1, x1, y2, x2 = box.astype(int)
course.show(
    figures.draw_round_trip(
        mask[y1:y2, x1:x2], example.grid, example.pasted[y1:y2, x1:x2], sizes, ious
    )
)

# %% [markdown]
# **What was seen.** On average the round trip costs about 0.01 or less. Nuclei of up to 14 pixels come back almost whole, because the grid is finer
# than their pixels. Large ones lose a little along the border. So the grid is not what limits a network here. (This needs
# coordinates that are exact to the half pixel.)
#
# **Explain.** Would a 14 x 14 grid be enough for the small nuclei? What would a box that is a few pixels too small do to the mask?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** For nuclei of up to 14 pixels a 14 x 14 grid still has a cell for each pixel. Larger ones would lose more along the border, because the
# cells are twice as wide. A box that is too small cuts the mask, whatever the grid, because nothing can be drawn outside the box. That loss is not
# in this figure, which uses the true boxes.

# %% only="solution" tags=["nbval-check-output"]
sizes, ious = np.array(sizes), np.array(ious)
course.claim("the round trip costs less than 0.02 on average", ious.mean() > 0.98)
course.claim("nuclei of up to 14 pixels keep more than 0.99", ious[sizes <= 14].mean() > 0.99)
course.claim(
    "nuclei of more than 28 pixels lose more than those of up to 14",
    ious[sizes > 28].mean() < ious[sizes <= 14].mean(),
)
coarse = [
    round_trip(
        one.labels == 1 + int(one.areas.argmax()), one.boxes[int(one.areas.argmax())], 14
    ).iou
    for one in records.values()
]
fine = [
    round_trip(one.labels == 1 + int(one.areas.argmax()), one.boxes[int(one.areas.argmax())]).iou
    for one in records.values()
]
course.claim("a 14 x 14 grid costs the largest nuclei more", np.mean(coarse) < np.mean(fine))

# %% [markdown]
# ### Anchors
#
# The region proposal network starts from anchors: boxes of fixed sizes and shapes on a regular grid. A nucleus whose best
# anchor has a low IoU gets little training signal. *Expect* two presets, each with the best IoU of every nucleus with any anchor.

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
# **What was seen.** Most nuclei, not all, have an anchor with an IoU of 0.5; far fewer have one with 0.7, which (unlike `compact`) Faster
# R-CNN asks of a positive anchor. Still no nucleus is *without* a training signal, because the best anchor of each counts as positive in any
# case. The presets differ. `compact` places its anchors more densely for their size (a stride of a quarter of the side, the paper's a half) and
# covers round nuclei better. It has one square shape at each position, so it covers long nuclei worse than the paper's three shapes do. The network
# must correct the rest by moving and stretching the anchors.
#
# ### A cap of 100 detections
#
# COCO's evaluation looks at the 100 best detections of an image; photographs rarely hold more objects. **Exercise 1.6: implement it.** A
# perfect detector may keep only `cap` detections in each image. Which share of all nuclei can it find at most? Write
# `recall_under_cap(counts, cap)` from the number of nuclei in each image. *Expected output:* `recall_under_cap: PASSED`.
#
# <details><summary>Hint</summary> An image with n nuclei contributes at most <code>min(n, cap)</code> of them.</details>


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
# **What was seen.** A cap below the count of the fullest image makes a perfect score impossible for any network. So this project computes AP with at
# most 1000 detections in an image (`coco_ap`), and beside it the number with COCO's 100 (`coco_ap_maxdets100`) for comparison. On BBBC038 the cap of
# 100 loses 13% of all nuclei, in 65 of the 664 images.

# %% only="solution" tags=["nbval-check-output"]
round_ones, long_ones = elongation < 1.3, elongation >= 2
share = {name: (best >= 0.5) for name, best in coverage.items()}
course.claim("most nuclei have an anchor at IoU 0.5", min(v.mean() for v in share.values()) > 0.5)
course.claim(
    "fewer than half have one at IoU 0.7", max((v >= 0.7).mean() for v in coverage.values()) < 0.5
)
course.claim(
    "compact covers round nuclei better, long ones worse",
    share["compact"][round_ones].mean() > share["paper-resnet50"][round_ones].mean()
    and share["compact"][long_ones].mean() < share["paper-resnet50"][long_ones].mean(),
)
course.claim(
    "a cap of 50 loses nuclei, a cap of 1000 none",
    np.minimum(all_counts, 50).sum() < all_counts.sum() == np.minimum(all_counts, 1000).sum(),
)
if not data.synthetic:
    lost = 1 - np.minimum(all_counts, 100).sum() / all_counts.sum()
    assert (all_counts > 100).sum() == 65 and 0.125 < lost < 0.135
    assert (images_of["small fluorescent"], images_of["grey tissue"]) == (410, 16)

# %% [markdown]
# ## Quiz
#
# 1. *A mask is 256 x 250 pixels, its image 256 x 256. Should the reader stretch it?*
#    <details><summary>Answer</summary> No. Where it belongs is a guess; the image is refused by name.</details>
#
# 2. *Your data set has 400 images of one type and 16 of another. Name one number that hides how you do on the 16.*
#    <details><summary>Answer</summary> Any mean over images: the 16 weigh 4%. Report by type.</details>
#
# 3. *An image holds 300 nuclei, and your network returns at most 100 detections. What is the largest recall that it can have there?*
#    <details><summary>Answer</summary> A third, however good it is.</details>
#
# ## What you have done
#
# - looked at images and masks of all types, and browsed them;
# - measured counts, sizes and crowding;
# - broken a data set and read what the reader did about it;
# - seen augmentation move image and labels together;
# - found out what the grid, the anchors and a cap can cost.
#
# **Three take-aways**
# 1. The types differ more from each other than images within a type. Report by type.
# 2. Annotations contain errors. Repair what is safe, refuse the rest, and report both.
# 3. Ask what a perfect model could score under your representation *before* you train. Here the mask grid costs little, anchors of one shape cover long nuclei badly, and a cap of 100 detections hurts wherever an image holds more nuclei.
#
# Previous: [0. Start here](00_start_here.ipynb). Next: [2. Inside Mask R-CNN](02_inside_mask_rcnn.ipynb)
