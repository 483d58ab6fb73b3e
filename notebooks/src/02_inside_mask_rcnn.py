# %% [markdown]
# # 2. Inside Mask R-CNN
#
# *How does a picture become masks, step by step?* Mask R-CNN (He et al. 2017) is a chain of small, understandable steps. This notebook stops
# the chain after each one and looks at what is there. Nothing is simplified: `model.trace` keeps what the network computes on the way from one image to its
# masks.
#
# **What you will do**
# - draw the paper's Figure 1 from the live network, with the shapes of this run;
# - follow one image through trunk, pyramid, anchors, proposals, NMS, RoIAlign, heads and mask pasting;
# - write box coding, NMS, bilinear sampling, the level rule, mask pasting and a loss yourself;
# - compute the five losses on three boxes by hand.
#
# **What you will learn**
# - what each part is for, and what would break without it;
# - where coordinates change meaning, and how half a pixel gets lost;
# - why there are two rounds of non-maximum suppression.
#
# **What you need:** 90 minutes (half of it exercises), 2 GB of memory, any processor; about one minute of it is computing.
#
# Previous: [1. Inspect the data](01_inspect_the_data.ipynb). Next: [3. Train in stages](03_train_in_stages.ipynb).
# [Solutions](solutions/02_inside_mask_rcnn.ipynb) · [Glossary](../docs/glossary.md)

# %%
import numpy as np

from nucleus_course import course, figures
from nucleus_course.course import exercises

course.quiet_backend()
import nucleus_course as nc

data = course.find_data()
dataset = nc.load_dataset(data.source, data.evaluation_split, progress=False)
record = course.pick_crowded(dataset)
model = course.find_model()
config = model.config

# %% [markdown]
# ## The whole chain at once
#
# `model.trace(image)` detects nuclei and keeps the intermediates. *Expect* a list of names in the order of computation: the input, the trunk's stages C2 to C5,
# the pyramid P2 to P6, anchors, the region proposal network's output, proposals, pooled features, the heads' outputs, masks.
#
# Two things to know when you read it. `compact` runs its box head twice, the second time on the boxes that the first pass moved: `class_logits` and
# `box_deltas` are of the first pass, `class_scores` and `boxes` of the last. And the trace looks at the image one way round, while `model.predict` also looks
# at its mirror images where `model.thresholds.flips` says so (four views in all for `compact`) and averages what they say, so its detections differ a little
# from those here.

# %%
trace = model.trace(record.image)
trace

# %% [markdown]
# **Exercise 2.1: predict, run, explain.** Before the figure: the last line above says how many detections there are, and how many score high enough to count.
# From how many *anchors* did the network start: hundreds, thousands, tens of thousands? And how many *proposals* are in between? Guess before you look the numbers up in the list.

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
course.show(figures.draw_architecture(trace))

# %% [markdown]
# **What was seen.** The paper's Figure 1 with numbers: the image is halved again and again in the trunk (C2 to C5) while channels double; the
# pyramid brings all levels to the same number of channels; tens of thousands of anchors shrink to at most a thousand proposals and to a few hundred
# boxes at the most, each with a 28 x 28 mask.
#
# **Explain.** The mask head runs last, on the fewest boxes. What would it cost to run it on the proposals, and what is gained by waiting?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Its cost is proportional to the number of boxes: four convolutions at 14 x 14 and one at 28 x 28 each. On all proposals it would cost as many times
# more as there are proposals to a box left after NMS (divide the two numbers of the figure), mostly for duplicates that NMS removes anyway. Waiting also gives the mask head better boxes: it
# sees those that the box head has already moved.

# %% [markdown]
# ## Trunk and pyramid
#
# The trunk is a ResNet. Deep stages see context but have coarse cells; shallow ones are sharp but know little. The feature pyramid (Lin et al. 2017) adds
# them: it starts at the top, doubles the resolution, and adds the next finer stage, so that *every* level has both. A level has many channels
# a cell; the figure shows the mixture of channels in which its cells differ most (the first principal component). *Expect* nuclei to be visible in the fine levels, and
# only regions in the coarse ones.

# %%
course.show(figures.draw_pyramid(trace, config.strides))

# %% [markdown]
# **What was seen.** In the fine levels the nuclei stand out one by one; in the coarsest only regions with many or few of them do. From level to level the number of
# cells falls by four: at P2 a nucleus covers many cells, at P6 most nuclei are smaller than one.
#
# ## Anchors
#
# On every cell of every level sit anchors of one size (three shapes in the paper's presets, one in `compact`). Their number follows from the
# image's size alone. The next cell computes it for a 256 x 256 image in closed form, without any network, for all three presets.

# %% tags=["nbval-check-output"]
from nucleus_course.models.mask_rcnn.anchors import anchor_count, level_shapes

for name in ("compact", "paper-resnet50", "paper-resnet101"):
    preset = nc.get_preset(name).model
    side = int(256 * preset.upsample)
    cells = [rows * columns for rows, columns in level_shapes(side, side, preset.strides)]
    total = anchor_count(side, side, preset.strides, preset.anchor_ratios)
    print(
        f"{name:<16} input {side} x {side}, cells {cells}, ratios {len(preset.anchor_ratios)}: {total} anchors"
    )

# %% [markdown]
# **What was seen.** The presets put the same cells on the same image, since upsampling by two with a finest stride of four equals no upsampling with a
# stride of two. The paper's three shapes triple the anchors.
#
# The region proposal network (RPN; Ren et al. 2015) looks at each cell and gives each anchor a score, "is there an object here, of about this
# size?", and four numbers that move it. *Expect* bright spots on nuclei, on small anchors for small nuclei and on larger ones for large nuclei.

# %%
course.show(figures.draw_anchors(trace, config))

# %% [markdown]
# **What was seen.** With trained weights each level lights up where nuclei of its own size are, and stays dark elsewhere: the levels share out the
# sizes among them, and a nucleus between two sizes lights up both. (An untrained network gives no pattern.)
#
# ### Box coding
#
# The four numbers do not say where the box is, but how it differs from its anchor: the centre's shift in units of the anchor's
# height and width, and the logarithm of the change in size (Girshick et al. 2014). So one small convolution serves small and large objects alike.
#
# **Exercise 2.2: implement it.** Write `encode_box(anchor, box)`. *Expected output:* `encode_box: PASSED - all 5 cases agree.`


# %%
def encode_box(anchor, box):
    """(dy, dx, log dh, log dw) that take ``anchor`` to ``box``, both (y1, x1, y2, x2)."""
    ### BEGIN SOLUTION
    anchor, box = np.asarray(anchor, float), np.asarray(box, float)
    anchor_size, box_size = anchor[2:] - anchor[:2], box[2:] - box[:2]
    anchor_centre, box_centre = anchor[:2] + anchor_size / 2, box[:2] + box_size / 2
    return np.concatenate(
        [(box_centre - anchor_centre) / anchor_size, np.log(box_size / anchor_size)]
    )
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_encode_box(encode_box)

# %% [markdown]
# The library divides the four further by (0.1, 0.1, 0.2, 0.2), so that typical values are near one and the loss weighs them alike.
#
# ### Explore
#
# First the explorer's default view as a plain picture, then the explorer: choose raw anchors, anchors moved by the RPN, or proposals; a level; and how many
# of the best to draw. *Expect* boxes that nearly coincide. Try: *on which level do the best boxes of large nuclei lie?*

# %%
from nucleus_course.course.explorers import AnchorExplorer

explorer = AnchorExplorer(trace, config, record.boxes)
course.show(explorer.draw())

# %% [markdown]
# **What was seen.** More boxes than the nuclei that they cover, many so alike that they look like one line: neighbouring cells see the same object.
# The caption says how many nuclei the drawn boxes already cover.

# %% tags=["explorer"]
explorer.widget()

# %% [markdown]
# ## Non-maximum suppression
#
# A nucleus attracts a dozen boxes and more. Greedy NMS keeps the best-scored one, drops all that overlap it by more than a threshold, and repeats with the
# best of the rest. Overlap is *intersection over union* (IoU): shared area over the area of either.
#
# **Exercise 2.3: implement it.** Write `box_iou(a, b)`. *Expected output:* `box_iou: PASSED - all 5 cases agree.`
#
# <details><summary>Hint</summary> The shared height is <code>min(y2) - max(y1)</code>, or 0 if that is negative.</details>


# %%
def box_iou(a, b):
    """Intersection over union of two boxes (y1, x1, y2, x2)."""
    ### BEGIN SOLUTION
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    shared = height * width
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
    ### END SOLUTION


# %%
exercises.check_box_iou(box_iou)

# %% [markdown]
# Here is NMS at work on the most crowded spot of this image, one kept box a panel, on the boxes as the box head left them. *Expect* each kept box to clear away
# copies of itself.

# %%
confident = np.flatnonzero(trace.class_scores >= min(0.3, np.sort(trace.class_scores)[-20]))
spot = confident[figures.crowded_group(trace.boxes[confident], trace.class_scores[confident])]
course.show(
    figures.draw_nms_steps(
        record.image,
        trace.boxes[spot] / config.upsample,
        trace.class_scores[spot],
        model.thresholds.nms_iou,
    )
)

# %% [markdown]
# **What was seen.** Each step keeps one box and drops what overlaps it by more than the threshold; boxes that overlap less survive to the next step, whether they
# belong to a neighbouring nucleus or only frame the same one differently. The caption counts: the best-scored box need not have the most copies.
#
# **Exercise 2.4: implement it.** Write `nms(boxes, scores, iou_threshold)`: the indices of the kept boxes, best first. The matrix
# `iou[i, j]` of all overlaps is given. A dropped box drops nobody: that is the step people forget.
# *Expected output:* `nms: PASSED - all 5 cases agree.`


# %%
def nms(boxes, scores, iou_threshold):
    """Indices of the boxes (N, 4) that greedy NMS keeps, by falling score (N,)."""
    from nucleus_course.course.numbers import box_iou_matrix

    iou = box_iou_matrix(boxes, boxes)
    ### BEGIN SOLUTION
    left = list(np.argsort(-scores, kind="stable"))
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if iou[best, i] <= iou_threshold]
    return np.array(kept, int)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_nms(nms)

# %% [markdown]
# **Exercise 2.5: explain.** There are two rounds: the RPN's, at an IoU of 0.7, and the final one, at a lower IoU. Why is the first more permissive?
# And what happens to two nuclei that really overlap by more than the final threshold?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The RPN's scores are rough, so the best box of a nucleus may not be its best-scored one; a permissive threshold leaves several candidates a nucleus for
# the box head to judge and move. After that, every nucleus should have one box, so copies must go. Of two nuclei whose *boxes* overlap more than the threshold the
# lower-scored one is lost, however well it was seen: NMS is where Mask R-CNN loses crowded, diagonal or nested objects.

# %% [markdown]
# ## RoIAlign on a 5 x 5 grid, by hand
#
# The heads need features of a fixed size from boxes of any size. RoIAlign cuts the box into bins and reads the feature map at points inside each bin, between
# cells, by bilinear interpolation. Nothing is rounded: rounding to whole cells (RoIPool) misplaces the box by up to half a cell and each bin again, which is a
# good part of a nucleus that covers a few cells. A cell is a unit square, so cell (r, c) has its value at its centre, (r + 0.5, c + 0.5).
#
# **Exercise 2.6: implement it.** Write `bilinear(grid, y, x)`: the value at a point between cell centres; outside the outermost centres the border's value is
# repeated. *Expected output:* `bilinear: PASSED - all 6 cases agree.`


# %%
def bilinear(grid, y, x):
    """Interpolated value of ``grid`` (H, W) at the point (y, x), in cells, cell centres at half-integers."""
    ### BEGIN SOLUTION
    height, width = grid.shape
    y, x = np.clip(y - 0.5, 0, height - 1), np.clip(x - 0.5, 0, width - 1)
    r, c = int(np.floor(y)), int(np.floor(x))
    r2, c2 = min(r + 1, height - 1), min(c + 1, width - 1)
    v, u = y - r, x - c
    top = (1 - u) * grid[r, c] + u * grid[r, c2]
    bottom = (1 - u) * grid[r2, c] + u * grid[r2, c2]
    return (1 - v) * top + v * bottom
    ### END SOLUTION


# %%
exercises.check_bilinear(bilinear)

# %% [markdown]
# Now a whole box. The grid holds the numbers 0 to 24, the box is (0.5, 1, 3.5, 4) in cells, and 3 x 3 bins with one sample each read it. Do one bin by hand first:
# the first bin's centre is (1.0, 1.5), half way between the centres of the cells 1 and 6. *Expect* 3.5 for the first bin, and the library to
# agree with the hand computation.

# %%
from nucleus_course.course.numbers import sample_bilinear

grid = np.arange(25, dtype="float32").reshape(5, 5)
box, bins = (0.5, 1.0, 3.5, 4.0), 3
steps = (np.arange(bins) + 0.5) / bins
ys, xs = box[0] + (box[2] - box[0]) * steps, box[1] + (box[3] - box[1]) * steps
by_hand = sample_bilinear(grid, ys, xs)
points = np.array([(y, x) for y in ys for x in xs])
course.show(figures.draw_roi_align(grid, box, bins, points, by_hand.ravel()))

# %% tags=["nbval-check-output"]
from keras import ops

from nucleus_course.models.mask_rcnn.roi_align import roi_align

pooled = ops.convert_to_numpy(
    roi_align(
        [ops.convert_to_tensor(grid[None, :, :, None])],
        ops.convert_to_tensor(np.array([box], "float32")),
        ops.zeros(1, "int32"),
        bins,
        strides=(1,),
    )
)[0, :, :, 0]
print(pooled)
print("largest difference from the hand computation:", float(np.abs(pooled - by_hand).max()))

# %% [markdown]
# **What was seen.** The first bin holds 3.5, values grow by 1 to the right and by 5 downwards, as the grid does, and the library's RoIAlign gives the same numbers.
#
# ### Which level?
#
# A box is pooled from the level that suits its size: level 4 for 224 pixels, the size of ImageNet's pictures, one level less for each halving
# (Lin et al. 2017, equation 1).
#
# **Exercise 2.7: implement it.** Write `pyramid_level(height, width)`. *Expected output:* `pyramid_level: PASSED - all 6 cases agree.`


# %%
def pyramid_level(height, width):
    """The level 2..5 for a box of that size in network pixels: floor(4 + log2(sqrt(h w) / 224)), clipped."""
    ### BEGIN SOLUTION
    level = np.floor(4 + np.log2(np.sqrt(height * width) / 224))
    return int(np.clip(level, 2, 5))
    ### END SOLUTION


# %%
exercises.check_pyramid_level(pyramid_level)

# %% [markdown]
# `compact` works on native pixels with strides half as large, so its rule has 112 in place of 224.
#
# **Exercise 2.8: predict, run, explain.** On which level will most of the proposals be pooled? (Take the size of a nucleus in this image from the figures above, and put
# it into the rule.) Will any be pooled from P5?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
sides = np.sqrt((trace.proposals[:, 2:] - trace.proposals[:, :2]).prod(axis=1))
course.show(figures.draw_levels(trace.proposal_levels, sides, config.canonical_size))

# %% [markdown]
# **What was seen.** Nuclei are small for a rule made for everyday photographs: most are pooled from P2, where a nucleus covers the most cells. That is
# what upsampling by two (or halving the strides) is for.
#
# **Explain.** Why not pool *every* box from P2, the sharpest level?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** A large box covers very many cells of P2, and a 7 x 7 crop then reads only some of them, each with a small view of the image. On a coarser level the same box covers about as many cells
# as a small one does on P2, and each cell has seen more of the surroundings. So the heads meet objects at about the same size, in cells.

# %% [markdown]
# ## The heads
#
# The **box head** flattens a 7 x 7 crop, runs two fully connected layers, and says two things: nucleus or background, and how to move the box once
# more. `compact` runs the same head a second time on the boxes that it has just moved; the paper's presets run it once. The figure compares the proposals with the
# boxes after the last pass. *Expect* boxes that fit more tightly than the proposals they came from.

# %%
course.show(figures.draw_refinement(trace, record.boxes, config.upsample))

# %% [markdown]
# **What was seen.** In a trained network most points lie above the diagonal: the box head brought the box closer to its nucleus, and the mean IoU in the caption rises.
#
# The **mask head** is convolutional: a 14 x 14 crop becomes 28 x 28 probabilities. `compact` predicts them in a box that is grown by a fifth, so that
# a box slightly too small does not cut the mask. The grid is stretched over that box, interpolated as in RoIAlign, and cut at the mask threshold. *Expect* smooth outlines although the grid is coarse.

# %%
course.show(figures.draw_masks(trace, config.upsample))

# %% [markdown]
# **What was seen.** The grids show a plateau near 1 with a soft rim; the outline runs where the interpolated probability crosses the threshold, between
# grid cells. That is the whole chain for one view. With four views `model.predict` takes the image and its three flips through the chain up to the box head and
# runs one NMS over all their boxes; it averages the boxes that agree on a nucleus, and their scores, and then the masks that the four views draw in the averaged box.
# Last comes something that the paper does not have: a class probability says that there is a nucleus, not how well it is outlined, so `compact` puts the IoU that is to be expected in its place, told from
# probability, mask, size and neighbours by a few small networks (`model.rescorer`; [notebook 5](05_error_analysis.ipynb) looks at whether such scores can be believed).
#
# **Exercise 2.9: implement it.** Write `paste_mask(probs, box, height, width)`: for each pixel whose centre is inside the box, read the grid at the corresponding
# point (bilinearly) and compare with 0.5. `sample_bilinear(probs, ys, xs)` reads a grid at rows `ys` and columns `xs`, in cells.
# *Expected output:* `paste_mask: PASSED - all 5 cases agree.`
#
# <details><summary>Hint</summary> Pixel row r has its centre at r + 0.5. In cells of the grid that is
# <code>(r + 0.5 - y1) / (y2 - y1) * probs.shape[0]</code>.</details>


# %%
def paste_mask(probs, box, height, width):
    """A mask grid (S, T) of probabilities over a box (y1, x1, y2, x2) -> bool (height, width)."""
    from nucleus_course.course.numbers import sample_bilinear

    ### BEGIN SOLUTION
    y1, x1, y2, x2 = box
    rows = np.arange(height) + 0.5
    columns = np.arange(width) + 0.5
    values = sample_bilinear(
        probs, (rows - y1) / (y2 - y1) * probs.shape[0], (columns - x1) / (x2 - x1) * probs.shape[1]
    )
    inside = ((rows >= y1) & (rows < y2))[:, None] & ((columns >= x1) & (columns < x2))[None, :]
    return inside & (values >= 0.5)
    ### END SOLUTION


# %%
exercises.check_paste_mask(paste_mask)

# %% [markdown]
# ## Five losses, by hand, on three boxes
#
# Training adds five numbers: class and box loss of the RPN, class and box loss of the box head, and the mask loss. Classes use cross-entropy, masks binary cross-entropy,
# and boxes smooth L1, a parabola for small and a straight line for large differences, so that one wild box does not rule the gradient. (The line begins at a
# difference of 1 here and in the paper's presets, at 0.1 in `compact`.) The RPN's two are computed on anchors as the box head's two are on proposals, so three
# computations cover all five.
#
# **Exercise 2.10: implement it.** Write `smooth_l1(difference)`. *Expected output:* `smooth_l1: PASSED - all 3 cases agree.`


# %%
def smooth_l1(difference):
    """Elementwise 0.5 d^2 where |d| < 1, |d| - 0.5 elsewhere."""
    ### BEGIN SOLUTION
    distance = np.abs(difference)
    return np.where(distance < 1, 0.5 * distance**2, distance - 0.5)
    ### END SOLUTION


# %%
exercises.check_smooth_l1(smooth_l1)

# %% [markdown]
# Three boxes: a nucleus scored with confidence, a nucleus scored with doubt, and background that the network takes for a nucleus. Only the two nuclei
# have box and mask losses. **Exercise 2.11: predict, run, explain.** Which of the three adds most to the class loss?

# %% [markdown] only="exercise"
# *Your prediction:*

# %% tags=["nbval-check-output"]
from nucleus_course.models.mask_rcnn import losses

logits = np.array([[-2.0, 2.0], [0.5, 0.0], [-1.5, 1.5]], "float32")  # (background, nucleus)
is_nucleus = np.array([1, 1, 0])
deltas = np.array([[0.2, -0.1, 0.0, 0.3], [2.0, 0.0, -1.5, 0.5], [9.0, 9.0, 9.0, 9.0]], "float32")
wanted = np.zeros((3, 4), "float32")
mask_logits = np.array(
    [[[4.0, 4.0], [-4.0, -4.0]], [[1.0, -1.0], [1.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]], "float32"
)
mask_truth = np.array([[[1, 1], [0, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 0]]], "float32")

probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
class_loss = -np.log(probability[np.arange(3), is_nucleus])
distance = np.abs(deltas - wanted)
box_loss = np.where(distance < 1, 0.5 * distance**2, distance - 0.5).mean(axis=1)
p = 1 / (1 + np.exp(-mask_logits))
mask_loss = -(mask_truth * np.log(p) + (1 - mask_truth) * np.log(1 - p)).mean(axis=(1, 2))

weights = is_nucleus.astype("float32")
print("class loss of each box", class_loss.round(3), " mean", class_loss.mean().round(4))
print(
    "box loss of each box  ", box_loss.round(3), " mean over nuclei", box_loss[:2].mean().round(4)
)
print(
    "mask loss of each box ", mask_loss.round(3), " mean over nuclei", mask_loss[:2].mean().round(4)
)
print(
    "the library's:        ",
    *(
        round(float(v), 4)
        for v in (
            losses.cross_entropy(logits, is_nucleus, np.ones(3, "float32")),
            losses.smooth_l1(deltas, wanted, weights),
            losses.mask_cross_entropy(mask_logits, mask_truth, weights),
        )
    ),
)

# %% [markdown]
# **What was seen.** The confident error on background costs far more than the doubtful nucleus, and the confident nucleus almost nothing. The background box's
# wild deltas (all 9) and its mask add nothing: nobody tells the network where a box should go that should not exist. The library's three numbers equal the means.
#
# **Explain.** Why is the mask loss taken over the nucleus class's own mask with a sigmoid for each cell, and not with a softmax over classes?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The third box: it is sure and wrong, and cross-entropy grows with the logit difference. Deciding *what* is the box head's task; the mask head only says *where* within the box.
# A sigmoid for each class keeps the two apart: masks of different classes do not compete for a cell (He et al. 2017 found this to matter by several points of AP).

# %% [markdown]
# ## What you have done
#
# - drawn Figure 1 from the live network;
# - followed one image from pixels to masks;
# - written box coding, IoU, NMS, bilinear sampling, the level rule, mask pasting and smooth L1;
# - computed losses by hand and found the library's numbers.
#
# **Three take-aways**
# 1. Mask R-CNN narrows down: tens of thousands of anchors, at most a thousand proposals, at most a few hundred boxes; the step that costs most a box comes last.
# 2. Everything is geometry on unit-square pixels; RoIAlign and pasting are the same bilinear reading, once in and once out.
# 3. NMS is a rule of thumb inside the network: it removes copies, and sometimes neighbours.
#
# Previous: [1. Inspect the data](01_inspect_the_data.ipynb). Next: [3. Train in stages](03_train_in_stages.ipynb)
#
# *References.* He et al., *Mask R-CNN*, [arXiv:1703.06870](https://arxiv.org/abs/1703.06870). Lin et al., *Feature Pyramid Networks*,
# [arXiv:1612.03144](https://arxiv.org/abs/1612.03144). Ren et al., *Faster R-CNN*, [arXiv:1506.01497](https://arxiv.org/abs/1506.01497). Girshick et al., *R-CNN*,
# [arXiv:1311.2524](https://arxiv.org/abs/1311.2524).
