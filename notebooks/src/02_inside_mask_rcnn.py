# %% [markdown]
# # 2. Inside Mask R-CNN
#
# *How does an image become masks, step by step?* Mask R-CNN (He et al. 2017) is a chain of small, understandable steps. This notebook stops
# after each step and looks at the result. Nothing is simplified: `model.trace` keeps what the network computes on the way from one image to its
# masks.
#
# **What you will do**
# - draw the paper's Figure 1 from the live network, with the shapes of this run;
# - follow one image through backbone, pyramid, anchors, proposals, NMS, RoIAlign, heads and mask pasting;
# - write a step of the pyramid, box coding, NMS, bilinear sampling, the level rule, mask pasting, anchor labels and a loss yourself;
# - see which anchors and boxes teach in one training step;
# - compute the losses of three boxes by hand.
#
# **What you will learn**
# - what each part is for, and what would break without it;
# - where coordinates change meaning, and how half a pixel gets lost;
# - why there are two rounds of non-maximum suppression.
#
# **What you need:** 110 minutes (half of it exercises), 2 GB of memory, any processor. About one minute of it is computing. You
# should know what a convolution does; the boxes of [notebook 0](00_start_here.ipynb) return here.
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
# `model.trace(image)` detects nuclei and keeps the intermediate results (`diameter="none"`: in the image at its own size, so that its boxes can be compared with the annotation's). *Expect* a list of names in the order of computation. First come the image, `canonical` (how `compact` saw it: in grey, nuclei bright; [notebook 7](07_does_it_hold_elsewhere.ipynb) tells why), the input, the backbone's stages C2 to C5, and the pyramid P2 to P6. Then come anchors, what the region proposal network says, and proposals. Last come pooled features, what the heads say, and masks.
#
# Two things to know. `compact` runs its box head twice, the second time on the boxes that the first pass moved: `class_logits` and
# `box_deltas` are from the first pass, `class_scores` and `boxes` from the last. And the trace looks at the image as it is, while `model.predict` also looks
# at mirror images of it if `model.thresholds.flips` is above 1, and averages. Its detections can then differ a little.

# %%
trace = model.trace(record.image, diameter="none")
trace

# %% [markdown]
# **Exercise 2.1: predict, run, explain.** The last line above says how many detections there are.
# From how many *anchors* did the network start: hundreds, thousands, or tens of thousands? And how many *proposals* are in between? Guess before you look
# the numbers up in the list.

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
course.show(figures.draw_architecture(trace))

# %% [markdown]
# **What was seen.** The paper's Figure 1 with numbers. In the backbone (C2 to C5) the resolution halves again and again while the number of channels grows. The
# pyramid has the same number of channels at every level. Tens of thousands of anchors become at most a thousand proposals, and these become a few hundred
# boxes at most, each with a 28 x 28 mask.
#
# **Explain.** The mask head runs last, on the fewest boxes. What would it cost to run it on all proposals, and what is gained by waiting?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Its cost is proportional to the number of boxes: each needs four convolutions at 14 x 14 and one at 28 x 28. On all proposals the cost would be
# larger by the number of proposals divided by the number of boxes left after NMS, and most of it would be spent on duplicates that NMS removes. Waiting also gives the mask
# head better boxes: those that the box head has already moved.

# %% only="solution" tags=["nbval-check-output"]
course.claim("tens of thousands of anchors", 10_000 < len(trace.anchors) < 100_000)
course.claim("at most a thousand proposals", len(trace.proposals) <= 1000)
course.claim(
    "fewer final boxes than proposals, and fewer proposals than anchors",
    len(trace.kept) < len(trace.proposals) < len(trace.anchors),
)

# %% [markdown]
# ## Backbone and pyramid
#
# The backbone is a ResNet. Its deep stages see much context but have coarse cells; its shallow stages are sharp but see little. The feature pyramid (Lin et al. 2017)
# combines them: it starts at the top, doubles the resolution, and adds the next finer stage, so that *every* level has both. Each cell has many channels;
# the figure shows the mixture of channels in which the cells of a level differ most (the first principal component). *Expect* nuclei to be visible in the fine levels,
# and only regions in the coarse ones.

# %%
course.show(figures.draw_pyramid(trace, config.strides))

# %% [markdown]
# **What was seen.** In the fine levels single nuclei stand out; in the coarsest only regions do. From level to level the number of
# cells falls by a factor of four.
#
# ### One step of the pyramid, by hand
#
# The pyramid starts at the top: a 1 x 1 convolution brings C5 to the common number of channels. A 1 x 1 convolution is a matrix product in each cell. Then,
# level by level, the coarse map is doubled (each cell becomes 2 x 2 equal cells), and the next finer stage, after a 1 x 1 convolution of its own, is *added*. A 3 x 3 convolution
# smooths each level at the end. P6 is every other cell of P5, for the largest anchors.
#
# **Exercise 2.2: implement it.** Write `top_down(coarse, fine, weight, bias)`, one such step without the smoothing.
# *Expected output:* `top_down: PASSED`.
#
# <details><summary>Hint</summary> <code>coarse.repeat(2, axis=0).repeat(2, axis=1)</code> doubles a map; <code>fine @ weight + bias</code> is the
# convolution.</details>


# %%
def top_down(coarse, fine, weight, bias):
    """coarse (h, w, C), fine (2h, 2w, D), weight (D, C), bias (C,) -> the finer merged map (2h, 2w, C)."""
    ### BEGIN SOLUTION
    doubled = coarse.repeat(2, axis=0).repeat(2, axis=1)
    return doubled + (fine @ weight + bias)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_top_down(top_down)

# %% [markdown]
# The next cell goes down the whole pyramid in NumPy, with the weights of the network, and compares P2 with the trace. *Expect* a difference that is
# nothing but rounding.

# %%
layers = {layer.name: layer for layer in model.network.pyramid.layers}


def lateral(level):
    """The 1 x 1 convolution of stage ``level``, as a matrix product."""
    kernel, bias = layers[f"fpn_c{level}p{level}"].get_weights()
    return trace.stages[level - 2] @ kernel[0, 0] + bias


merged = lateral(5)
for level in (4, 3, 2):
    merged = merged.repeat(2, axis=0).repeat(2, axis=1) + lateral(level)
by_hand_p2 = np.asarray(layers["fpn_p2"](merged[None]))[0]
p2_difference = float(np.abs(by_hand_p2 - trace.pyramid[0]).max())
print(f"P2 {trace.pyramid[0].shape}, values up to {np.abs(trace.pyramid[0]).max():.2f}")
print(f"difference below 0.001: {p2_difference < 1e-3}")

# %% [markdown]
# **What was seen.** Eight small convolutions and three additions are the whole pyramid. Addition needs equal channels, and that is why every level has the same number
# of them; so one and the same head can read all levels.
#
# ## Anchors
#
# On every cell of every level sit anchors of one size (three shapes in the paper's presets, one in `compact`). Their number depends on the size of the image alone.
# The next cell computes it for a 256 x 256 image, without any network, for three presets.

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
# **What was seen.** All presets have the same cells on the same image: upsampling by two with a finest stride of four equals no upsampling with a
# stride of two. The paper's three shapes make three times as many anchors.
#
# The region proposal network (RPN; Ren et al. 2015) gives each anchor a score, "is there an object of about this
# size here?", and four numbers that move the anchor. *Expect* bright spots where there are nuclei, in the levels whose anchors fit their size.

# %%
course.show(figures.draw_anchors(trace, config))

# %% [markdown]
# **What was seen.** With trained weights, anchors on nuclei score higher than anchors on background, and the levels whose anchors fit the nuclei light up most.
# The levels share the sizes among them; a nucleus between two sizes lights up in both. (An untrained network gives no pattern.)
#
# ### Inside the RPN
#
# The RPN is three convolutions: one of 3 x 3 cells that both outputs share, and two of 1 x 1, for the scores and for the four numbers. It has one set of weights and reads all
# levels with it. So it never knows which level it looks at: "about this size" means the size of that level's anchors, in cells. The next cell does it by hand for the best anchor of P2 that is not at the rim:
# 3 x 3 cells in, two logits and four numbers out. *Expect* the numbers of the trace.

# %%
for layer in model.network.rpn.layers:
    if layer.count_params():
        print(
            f"{layer.name:<18}{'x'.join(map(str, layer.kernel.shape)):<14}{layer.count_params():>8} weights"
        )

rpn = {layer.name: layer.get_weights() for layer in model.network.rpn.layers}
shapes = len(config.anchor_ratios)
inner = np.zeros((*trace.pyramid[0].shape[:2], shapes), bool)
inner[1:-1, 1:-1] = True
of_p2 = np.where(inner.ravel(), trace.rpn_scores[: inner.size], -1)
row, column, shape = np.unravel_index(of_p2.argmax(), inner.shape)
kernel, bias = rpn["rpn_conv_shared"]
cells = trace.pyramid[0][row - 1 : row + 2, column - 1 : column + 2]  # (3, 3, C)
hidden = np.maximum(np.tensordot(cells, kernel, axes=3) + bias, 0)  # (rpn_channels,)
logits, deltas = (
    (hidden @ rpn[name][0][0, 0] + rpn[name][1]).reshape(shapes, -1)[shape]
    for name in ("rpn_class_raw", "rpn_bbox_pred")
)
objectness = 1 / (1 + np.exp(logits[0] - logits[1]))
print(f"by hand:   score {objectness:.3f}, moves {deltas.round(2)}")
best_of_p2 = of_p2.argmax()
print(
    f"the trace: score {trace.rpn_scores[best_of_p2]:.3f}, moves {trace.rpn_deltas[best_of_p2].round(2)}"
)

# %% [markdown]
# **What was seen.** The same numbers. The softmax of two logits is the sigmoid of their difference. Nearly all weights of the RPN are in its 3 x 3 convolution.
#
# ### Box coding
#
# The four numbers do not say where the box is. They say how it differs from its anchor: the shift of the centre in units of the anchor's
# height and width, and the logarithm of the change in size (Girshick et al. 2014). So one small convolution can serve small and large objects alike.
#
# **Exercise 2.3: implement it.** Write `encode_box(anchor, box)`. *Expected output:* `encode_box: PASSED`.
#
# <details><summary>Hint</summary> Centre and size of each box first; then <code>(centre - anchor_centre) / anchor_size</code>, and
# <code>np.log(size / anchor_size)</code>.</details>


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
# The library divides the four numbers by (0.1, 0.1, 0.2, 0.2), so that typical values are near one and the loss weighs them alike.
#
# ### Explore
#
# First the default view of the explorer as a figure, then the explorer. Choose raw anchors, anchors moved by the RPN, or proposals; a level; and how many
# of the best to draw. *Expect* many boxes that nearly coincide. Try: *which level do the best boxes of large nuclei come from?*

# %%
from nucleus_course.course.explorers import AnchorExplorer

explorer = AnchorExplorer(trace, config, record.boxes)
course.show(explorer.draw())

# %% [markdown]
# **What was seen.** There are more boxes than nuclei that they cover, and many are nearly equal: neighbouring cells see the same object.
# The caption says how many nuclei the drawn boxes cover.

# %% tags=["explorer"]
explorer.widget()

# %% [markdown]
# ## Non-maximum suppression
#
# A nucleus gets a dozen boxes or more. Greedy NMS keeps the box with the best score, drops all that overlap it by more than a threshold, and repeats with the
# best of the rest. Overlap is measured by *intersection over union* (IoU): the shared area divided by the area of either.
#
# **Exercise 2.4: implement it.** Write `box_iou(a, b)`. *Expected output:* `box_iou: PASSED`.
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
# Here is NMS at the most crowded spot of this image, one kept box in each panel. *Expect* each kept box to remove copies of itself.

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
# **What was seen.** Each step keeps one box and drops those that overlap it by more than the threshold. Boxes that overlap less survive, whether they
# belong to a neighbouring nucleus or to the same one. The caption has the numbers: the best box need not have the most copies.
#
# **Exercise 2.5: implement it.** Write `nms(boxes, scores, iou_threshold)`: the indices of the kept boxes, best first. The matrix
# `iou[i, j]` of all overlaps is given. A dropped box drops nobody: that is the step that people forget.
# *Expected output:* `nms: PASSED`.
#
# <details><summary>Hint</summary> Keep a list of the indices that are left, sorted by score. Take the first, then keep in the list only those that
# overlap it by the threshold or less.</details>


# %%
def nms(boxes, scores, iou_threshold):
    """Indices of the boxes (N, 4) that greedy NMS keeps, by falling score (N,)."""
    from nucleus_course.geometry.boxes import iou_matrix

    iou = iou_matrix(boxes, boxes)
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
# **Exercise 2.6: explain.** There are two rounds of NMS: the RPN's, at an IoU of 0.7, and the final one, at a lower IoU. Why is the first more permissive?
# What happens to two nuclei whose boxes really overlap by more than the final threshold?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The RPN's scores are rough, so the best box of a nucleus may not be the one with the best score. A permissive threshold leaves several candidates for
# the box head to judge and move. After that, every nucleus should have one box, so the copies must go. If the *boxes* of two nuclei overlap by more than the threshold, the one with
# the lower score is lost, however good it was. So NMS is where Mask R-CNN loses crowded, diagonal or nested objects.

# %% only="solution" tags=["nbval-check-output"]
from nucleus_course.geometry.boxes import greedy_nms

rows, columns = (
    np.clip(
        ((trace.anchors[:, i] + trace.anchors[:, i + 2]) / 2 / config.upsample).astype(int),
        0,
        side - 1,
    )
    for i, side in enumerate(record.labels.shape)
)
inside = (trace.anchors[:, :2] + trace.anchors[:, 2:] < 2 * np.asarray(trace.window)).all(axis=1)
on_nucleus = record.labels[rows, columns] > 0
course.claim(
    "anchors on nuclei score higher on average than anchors on background",
    trace.rpn_scores[inside & on_nucleus].mean() > trace.rpn_scores[inside & ~on_nucleus].mean(),
)
course.claim(
    "the RPN's NMS is more permissive than the final one",
    config.rpn_nms > model.thresholds.nms_iou,
)

# %% only="solution" tags=["nbval-check-output", "needs-answer"]
order = np.argsort(-trace.class_scores, kind="stable")
kept = nms(trace.boxes[order], trace.class_scores[order], 0.4)
course.claim(
    "your NMS keeps the boxes that the library's keeps",
    np.array_equal(kept, greedy_nms(trace.boxes[order], trace.class_scores[order], 0.4)),
)

# %% [markdown]
# ## RoIAlign on a 5 x 5 grid, by hand
#
# The heads need features of a fixed size from boxes of any size. RoIAlign divides the box into bins and reads the feature map at points inside each bin, between
# cells, by bilinear interpolation. Nothing is rounded. Rounding to whole cells (RoIPool) moves the box by up to half a cell, which is a
# large part of a nucleus that covers only a few cells. A cell is a unit square, so cell (r, c) has its value at its centre, (r + 0.5, c + 0.5).
#
# **Exercise 2.7: implement it.** Write `bilinear(grid, y, x)`: the value at a point between cell centres. Outside the outermost centres the value of the border is
# repeated. *Expected output:* `bilinear: PASSED`.
#
# <details><summary>Hint</summary> Subtract 0.5, so that cell (r, c) lies at (r, c), and clip to the grid. <code>int(y)</code> is the upper
# row, <code>y - int(y)</code> the weight of the lower one.</details>


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
# Now a whole box. The grid holds the numbers 0 to 24, the box is (0.5, 1, 3.5, 4) in cells, and it has 3 x 3 bins with one sample each. Do one bin by hand first:
# the centre of the first bin is (1.0, 1.5), half way between the centres of the cells 1 and 6. *Expect* 3.5 for the first bin, and the same numbers
# from the library.

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
# **What was seen.** The first bin holds 3.5. Values grow by 1 to the right and by 5 downwards, as in the grid, and the library's RoIAlign gives the same numbers.
#
# ### Which level?
#
# A box is pooled from the level that suits its size: level 4 for 224 pixels, the size of ImageNet's images, and one level less for each halving
# (Lin et al. 2017, equation 1).
#
# **Exercise 2.8: implement it.** Write `pyramid_level(height, width)`. *Expected output:* `pyramid_level: PASSED`.
#
# <details><summary>Hint</summary> <code>np.floor</code>, then <code>np.clip</code>, then <code>int</code>.</details>


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
# `compact` does not upsample and has strides half as large, so its rule has 112 in place of 224.
#
# **Exercise 2.9: predict, run, explain.** Which level will most proposals be pooled from? (Take the size of a nucleus from the figures above and put
# it into the rule.) Will any be pooled from P5?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
sides = np.sqrt((trace.proposals[:, 2:] - trace.proposals[:, :2]).prod(axis=1))
course.show(figures.draw_levels(trace.proposal_levels, sides, config.canonical_size))

# %% [markdown]
# **What was seen.** Nuclei are small for a rule made for photographs: most proposals are pooled from P2, where a nucleus covers the most cells. That is the reason for
# upsampling by two (or for halving the strides).
#
# **Explain.** Why not pool *every* box from P2, the sharpest level?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** A large box covers many cells of P2. A 7 x 7 crop would read only some of them, and each has seen only a small part of the image. On a coarser level the box covers about as many cells
# as a small one does on P2, and each cell has seen more of the surroundings. So the heads see all objects at about the same size, in cells.

# %% [markdown]
# ## The heads
#
# The **box head** flattens a 7 x 7 crop, runs two fully connected layers, and gives two outputs: nucleus or background, and how to move the box once
# more. The figure compares the proposals with the boxes after the box head. *Expect* boxes that fit better than the proposals that they came from.

# %%
course.show(figures.draw_refinement(trace, record.boxes, config.upsample))

# %% [markdown]
# **What was seen.** With trained weights most points lie above the diagonal: the box head moved the box closer to its nucleus, and the mean IoU in the caption rises.
#
# The **mask head** is convolutional: a 14 x 14 crop becomes 28 x 28 probabilities. `compact` predicts them in a box that is grown by a fifth, so that
# a box slightly too small does not cut the mask. The grid is stretched over that box, interpolated as in RoIAlign, and cut at the mask threshold. *Expect* smooth outlines, although the
# grid is coarse.

# %%
course.show(figures.draw_masks(trace, config.upsample))

# %% [markdown]
# **What was seen.** The grids have a plateau near 1 with a soft rim. The outline runs where the interpolated probability crosses the threshold, between
# grid cells.
#
# That is the whole chain for one view of the image. If `model.thresholds.flips` is above 1, `model.predict` sends mirror images through the same chain and averages boxes,
# scores and masks that agree. If the weights come with a `model.rescorer`, small networks replace each class probability by the IoU to expect of the outline;
# [notebook 5](05_error_analysis.ipynb) asks whether scores can be believed.
#
# **Exercise 2.10: implement it.** Write `paste_mask(probs, box, height, width)`: for each pixel whose centre is inside the box, read the grid at the corresponding point (bilinearly). The pixel belongs to the mask if the value is 0.5 or more. Boxes are half-open: a centre on the upper or left edge is inside, one on the lower or right edge is not.
# `sample_bilinear(probs, ys, xs)` reads a grid at rows `ys` and columns `xs`, in cells.
# *Expected output:* `paste_mask: PASSED`.
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
# ## Targets: what the network should have said
#
# A loss compares what the network says with what it should say. The annotation has nuclei; the network has thousands of anchors and a thousand proposals. Somebody must decide which of them
# *should* have said "nucleus". That decision is as much a part of Mask R-CNN as its layers.
#
# **Anchors** (Ren et al. 2015). An anchor is *positive* if its IoU with some nucleus is at least 0.7 (in the paper's presets; 0.5 in `compact`, which is shown below), or if no other anchor overlaps some nucleus more, so that no nucleus is
# left without one. It is *negative* if its IoU with every nucleus is below 0.3. Between the two it is *neither* and teaches nothing: half a nucleus is a
# bad example of both.
#
# **Exercise 2.11: implement it.** Write `anchor_labels(iou, positive, negative)` from the IoU of each anchor (rows) with each nucleus (columns): 1, 0, or -1 for neither.
# If several anchors share the best IoU of a nucleus, all of them are positive. A nucleus that no anchor touches makes none positive. *Expected output:* `anchor_labels: PASSED`.
#
# <details><summary>Hint</summary> Start with -1 everywhere, then the negatives, and the positives last, so that the best anchor of a nucleus wins even if it overlaps it
# by little. <code>iou.max(axis=0)</code> is the best IoU of each nucleus.</details>


# %%
def anchor_labels(iou, positive, negative):
    """iou (A, G) with G > 0 -> (A,) ints: 1 positive, 0 negative, -1 neither."""
    ### BEGIN SOLUTION
    labels = np.full(len(iou), -1)
    labels[iou.max(axis=1) < negative] = 0
    best_of_nucleus = iou.max(axis=0)
    forced = ((iou == best_of_nucleus) & (iou > 0)).any(axis=1)
    labels[forced | (iou.max(axis=1) >= positive)] = 1
    return labels
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_anchor_labels(anchor_labels)

# %% [markdown]
# **Exercise 2.12: predict, run, explain.** Which share of the anchors of this image is positive: half, a tenth, or less than a fiftieth?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from nucleus_course.geometry.boxes import iou_matrix

truth = record.boxes * config.upsample
anchor_iou = iou_matrix(trace.anchors, truth)
above = anchor_iou.max(axis=1) >= config.rpn_positive_iou
forced = ((anchor_iou == anchor_iou.max(axis=0)) & (anchor_iou > 0)).any(axis=1)
below = (anchor_iou.max(axis=1) < config.rpn_negative_iou) & ~forced
print(
    f"{len(above)} anchors: {(above | forced).sum()} positive, of which {(forced & ~above).sum()} only as the best of a nucleus;"
)
print(f"{below.sum()} negative, {(~above & ~forced & ~below).sum()} neither")

# %% [markdown]
# If every anchor counted, "background everywhere" would be nearly right. So each step *draws* a few at random: at most `rpn_anchors_per_image`, of which at most half are positive. Of the
# proposals, `rois_per_image` *regions of interest* (RoIs) are drawn in the same way for the two heads, by an IoU of 0.5. The true boxes join the proposals, so that the heads see good boxes from the first step on. *Expect* a small
# sample: negatives anywhere in the image, positives around nuclei.

# %%
from nucleus_course.course.targets import step_targets

targets = step_targets(trace, record, config)
course.show(figures.draw_targets(record.image, record.boxes, targets, config.upsample))

# %% [markdown]
# **What was seen.** Of thousands of boxes about two hundred contribute to the loss in one step, and others in the next. The mask target of a positive RoI is the nucleus as *this box* sees it, so a box that sits badly still
# gets a right answer.
#
# **Explain.** Why are anchors between the two limits (here 0.3 and 0.5) left out, while RoIs have one threshold and no gap? And what would happen in an image without nuclei?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Less than a fiftieth is positive. An anchor is fixed: at an IoU of 0.4 it is neither a good example of a nucleus nor of background, and the RPN has thousands of clearer ones. The box head judges boxes that were moved already, and it must
# answer for each of them at prediction, even the uncertain ones; so it has to learn where the line is. In an image without nuclei all drawn anchors and RoIs are negative; the class losses teach, the box and mask losses are 0.

# %% only="solution" tags=["nbval-check-output"]
course.claim("the pyramid by hand gives the network's P2", p2_difference < 1e-3)
course.claim(
    "the RPN by hand gives the score of the trace",
    abs(objectness - trace.rpn_scores[best_of_p2]) < 1e-3,
)
course.claim("less than a fiftieth of the anchors is positive", (above | forced).mean() < 0.02)
course.claim(
    "at most half of the drawn anchors are positive, and no more than allowed are drawn",
    2 * targets.anchor_labels.sum() <= config.rpn_anchors_per_image
    and len(targets.anchors) <= config.rpn_anchors_per_image,
)
course.claim(
    "every positive RoI overlaps a nucleus by 0.5 or more, no negative one does",
    np.array_equal(
        iou_matrix(targets.rois, truth).max(axis=1) >= config.roi_positive_iou, targets.roi_labels
    ),
)

# %% only="solution" tags=["nbval-check-output", "needs-answer"]
course.claim(
    "your labels are these, too",
    np.array_equal(
        anchor_labels(anchor_iou, config.rpn_positive_iou, config.rpn_negative_iou),
        np.where(above | forced, 1, np.where(below, 0, -1)),
    ),
)

# %% [markdown]
# ## The losses of three boxes, by hand
#
# The training loss is the sum of five losses: class and box loss of the RPN, class and box loss of the box head, and the mask loss. Classes use cross-entropy and masks binary cross-entropy.
# Boxes use smooth L1, a parabola for small differences and a straight line for large ones, so that one bad box does not dominate the gradient. (The line begins at a
# difference of 1 here and in the paper's presets, at 0.1 in `compact`.) The RPN's losses have the same form as the box head's, so three computations cover all five.
#
# **Exercise 2.13: implement it.** Write `smooth_l1(difference)`. *Expected output:* `smooth_l1: PASSED`.
#
# <details><summary>Hint</summary> <code>np.where(condition, value_if_true, value_if_false)</code> works on whole arrays.</details>


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
# Three boxes: a nucleus with a confident score, a nucleus with an uncertain score, and background that is confidently called a nucleus. Only the two nuclei
# have box and mask losses. **Exercise 2.14: predict, run, explain.** Which of the three adds most to the class loss?

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
# **What was seen.** The sure error on background costs far more than the unsure nucleus, and the sure nucleus costs almost nothing. The deltas (all 9) and the mask of the
# background box add nothing: there is no right place for a box that should not exist. The library's three numbers equal the means.
#
# **Explain.** The mask loss uses a sigmoid for each cell of the nucleus class, not a softmax over classes. Why?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The third box: it is sure and wrong, and cross-entropy grows with the difference of the logits. Deciding *what* it is, is the task of the box head; the mask head only says *where* within the box.
# A sigmoid keeps the two apart: masks of different classes do not compete for a cell. He et al. (2017) found several points of AP in this.

# %% only="solution" tags=["nbval-check-output"]
from nucleus_course.geometry.boxes import iou_matrix

course.claim("most proposals are pooled from P2", (trace.proposal_levels == 2).mean() > 0.5)
sure = trace.class_scores >= 0.5
best = iou_matrix(trace.boxes[sure] / config.upsample, record.boxes).max(axis=1)
before = iou_matrix(trace.proposals / config.upsample, record.boxes)
course.claim(
    "boxes with a sure score fit nuclei better than the proposals do",
    best.mean() > before.max(axis=1).mean(),
)
grids = trace.detections.mask_probs[:20]
course.claim(
    "the grids have a plateau: their largest value is above 0.8",
    grids.max(axis=(1, 2)).mean() > 0.8,
)
course.claim("background with a sure score has the largest class loss", class_loss.argmax() == 2)
course.claim(
    "its loss is more than three times that of the unsure nucleus",
    class_loss[2] > 3 * class_loss[1],
)

# %% [markdown]
# ## Quiz
#
# 1. *The RPN has one set of weights for all levels. How can it tell small nuclei from large ones?*
#    <details><summary>Answer</summary> By the level on which they look the right size. On each level it asks the same question, "an object as large as my anchors?", in cells.</details>
#
# 2. *An anchor overlaps its nucleus by 0.45, and every other anchor overlaps that nucleus less. Is it positive, negative or neither?*
#    <details><summary>Answer</summary> Positive: it is the best that this nucleus has.</details>
#
# 3. *Two round nuclei touch. Their boxes overlap by 0.1. Does the final NMS endanger one of them?*
#    <details><summary>Answer</summary> No: it drops boxes that overlap by more than its threshold. Touching is not overlapping; diagonal and nested shapes are in danger.</details>
#
# ## What you have done
#
# - drawn Figure 1 from the live network;
# - followed one image from pixels to masks;
# - written a step of the pyramid, box coding, IoU, NMS, bilinear sampling, the level rule, mask pasting, anchor labels and smooth L1;
# - computed losses by hand and found the library's numbers.
#
# **Three take-aways**
# 1. Mask R-CNN narrows down: tens of thousands of anchors, at most a thousand proposals, a few hundred boxes. The step that costs most for each box comes last.
# 2. Everything is geometry on unit-square pixels. RoIAlign and pasting are the same bilinear reading, once in and once out.
# 3. NMS is a rule of thumb inside the network: it removes copies, and sometimes neighbours.
#
# Previous: [1. Inspect the data](01_inspect_the_data.ipynb). Next: [3. Train in stages](03_train_in_stages.ipynb)
#
# *References.* He et al., *Mask R-CNN*, [arXiv:1703.06870](https://arxiv.org/abs/1703.06870). Lin et al., *Feature Pyramid Networks*,
# [arXiv:1612.03144](https://arxiv.org/abs/1612.03144). Ren et al., *Faster R-CNN*, [arXiv:1506.01497](https://arxiv.org/abs/1506.01497). Girshick et al., *R-CNN*,
# [arXiv:1311.2524](https://arxiv.org/abs/1311.2524).
