# %% [markdown]
# # 4. Evaluate
#
# *What do AP, IoU and the others measure, and how sure are we?* The paper prints two numbers and does not say how they were computed. Here you compute such numbers by
# hand, check that the library agrees, and see how far apart reasonable definitions are.
#
# **What you will do**
# - work out IoU, matching and average precision by hand, on small cases;
# - evaluate the course's network with every metric, with intervals;
# - set the paper's Table 1 beside our numbers, definition by definition;
# - move the thresholds and see how precision changes with recall;
# - score a ten-line baseline with the same metrics.
#
# **What you will learn**
# - which metric punishes what: missed nuclei, false detections, inexact outlines;
# - why a score threshold must be chosen on one set of images and reported on another;
# - how large a difference must be before it means anything.
#
# **What you need:** 75 minutes, 1.5 GB of memory, any processor. About a minute of it is computing. The network itself is not loaded: its predictions come with
# the course. With other weights or images they are computed first, in a second process, which takes a few minutes; the result is kept. You should have done
# [notebook 0](00_start_here.ipynb); notebook 2 helps with NMS.
#
# Previous: [3. Train in stages](03_train_in_stages.ipynb). Next: [5. Error analysis](05_error_analysis.ipynb).
# [Solutions](solutions/04_evaluate.ipynb) · [Glossary](../docs/glossary.md)

# %%
import numpy as np

import nucleus_course as nc
from nucleus_course import course, figures
from nucleus_course.course import exercises

data = course.find_data()
dataset = nc.load_dataset(data.source, data.evaluation_split, progress=False)
weights = course.find_weights()
predictions = course.predictions_for(weights, dataset)
print(f"{predictions.detections} detections of any score in {len(dataset)} images")

# %% [markdown]
# ## Overlap: intersection over union
#
# Nearly every metric begins with the IoU of two masks: the shared pixels divided by the pixels of either. It is 1 for equal masks, and it falls quickly.
#
# **Exercise 4.1: predict, run, explain.** A nucleus is a disc 20 pixels across. A detection has exactly the right shape, but is shifted to the right. By how many pixels until
# the IoU falls below 0.5, the usual limit of a "match": 2, 6, or 10? And for a nucleus 10 pixels across?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
course.show(figures.draw_shifted_discs(20, (0, 1, 2, 4, 7)))

# %% tags=["nbval-check-output"]
for diameter in (10, 20, 40, 80):
    truth = figures.disc_mask(diameter, margin=60)
    ious = [
        (truth & moved).sum() / (truth | moved).sum()
        for moved in (figures.disc_mask(diameter, s, margin=60) for s in range(60))
    ]
    print(
        f"{diameter:>3} pixels across: moved by 1 pixel IoU {ious[1]:.2f}, below 0.5 from {next(i for i, v in enumerate(ious) if v < 0.5)} pixels on"
    )

# %% [markdown]
# **What was seen.** The limit is reached at about three tenths of the diameter. A shift of one pixel takes about a fifth of the IoU from a nucleus of 10 pixels, and a few hundredths from one of 80 pixels. For small nuclei an IoU of 0.9
# demands an outline that is exact to less than a pixel, on which two annotators would hardly agree.
#
# **Explain.** COCO's AP averages over the limits 0.50, 0.55, ... 0.95. Which nuclei decide the upper half of that range?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** From 6 pixels on for 20, from 3 on for 10. Above 0.75 a nucleus of 10 pixels needs an outline that is exact to a fraction of a pixel, so mostly large nuclei match there. The upper half measures
# the outlines of large nuclei (and the habits of annotators), the lower half mostly detection.


# %% only="solution" tags=["nbval-check-output"]
def iou_after(diameter, shift):
    still, moved = (
        figures.disc_mask(diameter, margin=60),
        figures.disc_mask(diameter, shift, margin=60),
    )
    return (still & moved).sum() / (still | moved).sum()


course.claim(
    "20 pixels across: below 0.5 from a shift of 6 on", iou_after(20, 5) >= 0.5 > iou_after(20, 6)
)
course.claim(
    "10 pixels across: below 0.5 from a shift of 3 on", iou_after(10, 2) >= 0.5 > iou_after(10, 3)
)
course.claim("a shift of one pixel takes 0.15 to 0.25 at 10 pixels", 0.75 < iou_after(10, 1) < 0.85)
course.claim("and less than 0.05 at 80 pixels", iou_after(80, 1) > 0.95)

# %% [markdown]
# **Exercise 4.2: implement it.** Write `mask_iou(a, b)`. *Expected output:* `mask_iou: PASSED`.
#
# <details><summary>Hint</summary> For bool arrays <code>a &amp; b</code> is the intersection and <code>a | b</code> the union.</details>


# %%
def mask_iou(a, b):
    """Intersection over union of two bool masks (H, W); 0 where both are empty."""
    ### BEGIN SOLUTION
    union = (a | b).sum()
    return (a & b).sum() / union if union else 0.0
    ### END SOLUTION


# %%
exercises.check_mask_iou(mask_iou)

# %% [markdown]
# ## One pixel, one nucleus
#
# Mask R-CNN's masks may overlap; a label image holds one number for each pixel. The rule here: *the higher score keeps the pixel*. (Otherwise an unsure
# detection would take pixels from a sure one. COCO's AP would not notice: it looks at whole masks, before the pixels are shared out.)
#
# **Exercise 4.3: implement it.** Write `label_image(masks, scores)`. *Expected output:* `label_image: PASSED`.
#
# <details><summary>Hint</summary> Paint the masks in order of rising score; what is painted last stays.</details>


# %%
def label_image(masks, scores):
    """masks (N, H, W) bool, scores (N,) -> (H, W) ints: 0 background, i + 1 where detection i keeps the pixel."""
    ### BEGIN SOLUTION
    labels = np.zeros(masks.shape[1:], int)
    for index in np.argsort(scores, kind="stable"):
        labels[masks[index]] = index + 1
    return labels
    ### END SOLUTION


# %%
exercises.check_label_image(label_image)

# %% [markdown]
# ## Who is matched with whom?
#
# Given all IoUs of an image, there are two common ways to form pairs. COCO's goes through the detections by falling score, and each takes the best nucleus that is still free. The *assignment* takes the pairs with
# the largest total IoU, whatever the scores. (If masks do not overlap each other and the limit is above one half, there is no choice, and both agree.)
#
# *Expect* the two to disagree on a small made-up case with three detections (rows, best score first) and three nuclei (columns).

# %% tags=["nbval-check-output"]
from nucleus_course.evaluation import matching

iou = np.array([[0.60, 0.55, 0.00], [0.80, 0.00, 0.00], [0.00, 0.00, 0.40]])
print(
    "COCO, at 0.5:        ",
    matching.score_order_match(iou, [0.5])[0],
    " (the nucleus of each detection, -1: none)",
)
print("largest total IoU:   ", [(int(d), int(n)) for d, n in zip(*matching.best_assignment(iou))])

# %% [markdown]
# **What was seen.** COCO gives nucleus 0 to the detection with the best score. The second detection overlaps it more, and gets nothing. The assignment gives nucleus 0 to the second
# and nucleus 1 to the first, and it pairs the third although it overlaps by 0.4 only.
#
# **Exercise 4.4: implement it.** Write `match(iou, threshold)`, COCO's matching. *Expected output:* `match: PASSED`.
#
# <details><summary>Hint</summary> Keep the set of nuclei that are still free. For each row, look only at the free ones whose IoU reaches the threshold.</details>


# %%
def match(iou, threshold):
    """iou (D, T), rows by falling score -> (D,) ints: the nucleus each detection takes, or -1."""
    ### BEGIN SOLUTION
    free = set(range(iou.shape[1]))
    partners = []
    for row in iou:
        good = [nucleus for nucleus in free if row[nucleus] >= threshold]
        best = max(good, key=lambda nucleus: row[nucleus]) if good else -1
        free.discard(best)
        partners.append(best)
    return np.array(partners, int)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_match(match)

# %% [markdown]
# ## Average precision, by hand
#
# Sort all detections by score and go down the list. After each one, *precision* is the share of the detections so far that are right, and *recall* is the share of nuclei found so far. AP is the mean
# precision over the recalls 0, 0.01, ... 1, each time with the best precision at that recall *or a higher one*.
#
# **Exercise 4.5: implement it.** Write `average_precision(hits, nuclei)`: `hits` says for each detection, best score first, whether it is right; `nuclei` is how many there
# are. *Expected output:* `average_precision: PASSED`.
#
# <details><summary>Hint</summary> <code>np.cumsum(hits)</code> counts the right ones so far. For each recall take the largest precision among the
# points whose recall is at least that, or 0 if there are none.</details>


# %%
def average_precision(hits, nuclei):
    """COCO's AP from hits (D,) bool by falling score and the number of nuclei: the mean over 101 recalls."""
    ### BEGIN SOLUTION
    right = np.cumsum(hits)
    recall = right / nuclei
    precision = right / np.arange(1, len(hits) + 1)
    best = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(best))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_average_precision(average_precision)

# %% [markdown]
# Now by hand on a whole image, and with the library, whose tests compare it with pycocotools. *Expect* the same number.

# %%
record = course.pick_crowded(dataset)
found = predictions.images[record.id]
order = np.argsort(-found.scores, kind="stable")
overlaps = matching.mask_iou(found.runs(), record.labels)[order]
hits = matching.score_order_match(overlaps, [0.5])[0] >= 0
right = np.cumsum(hits)
recall, precision = right / record.count, right / np.arange(1, len(hits) + 1)
grid = np.linspace(0, 1, 101)
interpolated = np.array([precision[recall >= r].max(initial=0.0) for r in grid])
course.show(
    figures.draw_precision_recall(precision, recall, grid, interpolated, interpolated.mean())
)

# %%
library = nc.evaluate(
    dataset.subset([record.id]),
    nc.Predictions(images={record.id: found}, score_threshold=predictions.score_threshold),
    progress=False,
)
print(f"by hand {100 * interpolated.mean():.6f}, the library {library.metrics['coco_ap50']:.6f}")

# %% [markdown]
# **What was seen.** Both numbers agree. Where the curve ends, the remaining nuclei were not found at any score.
#
# AP uses every detection, down to the lowest score, and needs no threshold. All other metrics need one *operating point*.
#
# ## Every metric at once
#
# **Exercise 4.6: predict, run, explain.** Three metrics below are "an IoU": `mean_mask_iou` (over all nuclei, 0 for a missed one), `matched_mask_iou` (over matched pairs only), and `foreground_iou` (all nuclei
# of an image as one mask). Which of the first two is larger, and why? Where will the third be?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
report = nc.evaluate(dataset, predictions, bootstrap=300, progress=False)
report.table()

# %% [markdown]
# **What was seen.** One set of predictions, thirteen reasonable numbers, and many points between them. `matched_mask_iou` is above `mean_mask_iou`, because it leaves out the nuclei that were missed or found badly.
# The place of `foreground_iou` depends on the images: it counts pixels, not nuclei, and does not notice when two nuclei are merged.
#
# **Explain.** A method reports "mean IoU 85" and nothing else. Name two things that it could be bad at.

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** If it is the IoU of matched pairs, it may miss half of the nuclei. If it is the IoU of the foreground, it may merge every touching pair. If it is a mean over images, it may fail on the few crowded images that hold
# most nuclei. The name alone does not tell.

# %% only="solution" tags=["nbval-check-output"]
m = report.metrics
values = [value for value in m.values() if value is not None]
course.claim(
    "the AP computed by hand equals the library's",
    abs(100 * interpolated.mean() - library.metrics["coco_ap50"]) < 1e-6,
)
course.claim("matched_mask_iou is above mean_mask_iou", m["matched_mask_iou"] > m["mean_mask_iou"])
course.claim(
    "more than 15 points lie between the lowest and the highest of the metrics",
    max(values) - min(values) > 15,
)
course.claim("AP at IoU 0.5 is above AP over the whole range", m["coco_ap50"] > m["coco_ap"])
course.claim(
    "a cap of 100 detections never raises AP", m["coco_ap_maxdets100"] <= m["coco_ap"] + 1e-9
)

# %% [markdown]
# ### The paper's Table 1, beside ours
#
# The paper gives AP 56.06 and "mask average IoU" 66.98 for ResNet-50, 59.40 and 70.54 for ResNet-101. It does not say which images were its validation data, which AP it is, or how the IoU was
# averaged. So *all* candidates stand beside it here, each with its definition.

# %%
paper = {"ResNet-50": (56.06, 66.98), "ResNet-101": (59.40, 70.54)}
m = {
    key: np.nan if value is None else value for key, value in report.metrics.items()
}  # None: undefined
print(
    f"ours: {report.dataset}, split {data.evaluation_split}, {len(dataset)} images; the paper: validation images not published\n"
)
print(f"{'AP, by definition':<46}{'ours':>7}{'paper R50':>11}{'paper R101':>12}")
for key, text in (
    ("coco_ap", "COCO, IoU 0.50:0.05:0.95"),
    ("coco_ap_maxdets100", "the same, at most 100 detections per image"),
    ("coco_ap50", "COCO at IoU 0.50"),
    ("matterport_ap", "IoU 0.50, mean over images (Matterport)"),
):
    print(
        f"  {text:<44}{m[key]:>7.1f}{paper['ResNet-50'][0]:>11.2f}{paper['ResNet-101'][0]:>12.2f}"
    )
print("mask IoU, by definition")
for key, text in (
    ("mean_mask_iou", "over nuclei, 0 for missed ones"),
    ("matched_mask_iou", "over matched pairs"),
    ("foreground_iou", "of the whole foreground"),
):
    print(
        f"  {text:<44}{m[key]:>7.1f}{paper['ResNet-50'][1]:>11.2f}{paper['ResNet-101'][1]:>12.2f}"
    )

# %% [markdown]
# **What was seen.** The distance between our predictions and the paper's numbers changes from row to row by many points. Whoever picks the row after seeing the numbers has learned nothing. This project's main metric is
# `coco_ap`, chosen beforehand, on a published split. And no row says which network is better: the paper's images are not known.
#
# ### Precision, recall and the IoU limit
#
# *Expect* curves that fall as the IoU limit rises, and an F1 that falls slowly at first and then steeply.

# %%
course.show(figures.draw_pr_curves(report, thresholds=(0.5, 0.65, 0.75, 0.85, 0.95)))

# %%
course.show(figures.draw_f1_curve(report))

# %% [markdown]
# **What was seen.** At an IoU of 0.5 most nuclei are found; at 0.95 far fewer, because there an outline one pixel off fails for all but the largest nuclei. Two annotators may differ by as much. `coco_ap` is the mean over the whole range, so
# a detector that finds every nucleus and draws ordinary outlines stays below 100.
#
# ## How sure are we?
#
# A few dozen images are a sample. The *bootstrap* draws as many images from them again and again, with replacement, and evaluates each draw; the middle 95% of the results are the interval.
#
# **Exercise 4.7: predict, run, explain.** How wide is the 95% interval of `coco_ap` with this many images: less than a point, a few points, or more than ten?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
course.show(
    figures.draw_intervals(
        report,
        (
            "coco_ap",
            "coco_ap50",
            "coco_ap75",
            "dsb_score",
            "mean_mask_iou",
            "f1_50",
            "f1_70",
            "pq",
            "aji",
        ),
    )
)

# %% [markdown]
# **What was seen.** The interval of `coco_ap` is wide: the printed table has yours, and on the validation split of BBBC038 it is more than ten points. Two models can differ by a point or two for no reason but the images. Yet two intervals can overlap although one model is better on nearly every image:
# to compare models, take the *paired* bootstrap, as with the baseline below and in [notebook 5](05_error_analysis.ipynb).
#
# **Explain.** How many images would it take to halve the width? Many of BBBC038's images come from the same slide. What does that do to the interval?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Four times as many: the width falls with the square root of the number. Images of one slide resemble each other and carry less information than as many independent ones, so a bootstrap that draws single images gives an
# interval that is too narrow. It is more honest to draw whole groups of near-duplicates (`groups=dataset.groups`).

# %% only="solution" tags=["nbval-check-output"]
low, high = report.intervals["coco_ap"]
f1 = {float(key): value for key, value in report.curves["f1"].items()}
course.claim("the interval of coco_ap is more than two points wide", high - low > 2)
course.claim("F1 at an IoU of 0.95 is less than half of F1 at 0.5", f1[0.95] < 0.5 * f1[0.5])
course.claim(
    "F1 falls less from 0.50 to 0.60 than from 0.80 to 0.90", f1[0.5] - f1[0.6] < f1[0.8] - f1[0.9]
)

# %% [markdown]
# ## Thresholds
#
# A higher score threshold removes false detections, and nuclei with them. The weights come with thresholds that were *chosen on the validation split* and are stored beside them (`weights.thresholds`). The next figure repeats the choice of the score threshold on these images, for the `dsb_score` alone.
# *Expect* a broad hill: near the top the exact value matters little.

# %%
from nucleus_course.evaluation import choose_thresholds

choice = choose_thresholds(dataset, predictions, metric="dsb_score", start=weights.thresholds)
course.show(figures.draw_threshold_curve(choice))
print(
    f"stored with the weights: {weights.thresholds.score:.2f}, dsb_score {report.metrics['dsb_score']:.1f}; "
    f"best on these images: {choice.thresholds.score:.2f}, dsb_score {choice.thresholds.value:.1f}"
)

# %% [markdown]
# **What was seen.** A hill with a flat top; the printed line says how much lies between the stored threshold and the best one. Another metric has its hill elsewhere (`mean_mask_iou` is hardly affected by false detections, so it prefers a lower threshold), so
# do not tune on a single metric. And a number is a little flattered if it is reported on the images on which the threshold was chosen. On the validation split of BBBC038 this holds for the numbers of this notebook; and
# 53 of the 67 images are neighbouring tiles of training images (see the [model card](../data/weights/compact/README.md)).
#
# ### Explore
#
# The network's 400 best boxes before the final NMS are kept with their masks, so nothing is computed again while you move the score threshold, the NMS IoU and the mask threshold. (The explorer looks at the image as it is, without mirror images.)
# First the default view, then the explorer. *Expect* a point on the curve, near its corner. Try: *lower the score threshold: what happens to precision and to recall? Raise the NMS IoU to 0.8: do copies appear, and what happens to precision?*
# (Is there a switch for the scores? Then set it to "class probabilities" first. A rescorer gives copies a low score, so they stay below the threshold.)

# %%
from nucleus_course.course.explorers import ThresholdExplorer

candidates = course.candidates_for(weights, dataset, record.id)
explorer = ThresholdExplorer(
    record, candidates, weights.thresholds, weights.rescorer, weights.config.upsample
)
course.show(explorer.draw())

# %% [markdown]
# **What was seen.** Detections and annotation at the stored thresholds, rounded to 0.05, and their point on this image's precision-recall curve.

# %% tags=["explorer"]
explorer.widget()


# %% only="solution" tags=["nbval-check-output"]
def counts(**values):
    """(detections, matched) at some setting of the explorer."""
    if "rescoring" in explorer.controls:
        values.setdefault("rescoring", "class probabilities")
    kept, hits = explorer._after(values["nms"], 0.5, values.get("rescoring", "rescored"))
    shown = kept.scores >= values["score"]
    return int(shown.sum()), int(hits[shown].sum())


few, many = counts(score=0.5, nms=0.3), counts(score=0.5, nms=0.8)
course.claim("an NMS IoU of 0.8 lets copies through: more detections", many[0] > few[0])
course.claim("and a lower precision", many[1] / many[0] < few[1] / few[0])
low_score, high_score = counts(score=0.1, nms=0.3), counts(score=0.9, nms=0.3)
course.claim("a low score threshold finds at least as many nuclei", low_score[1] >= high_score[1])
course.claim(
    "the best threshold is at least as good as the stored one",
    choice.thresholds.value >= report.metrics["dsb_score"] - 1e-6,
)

# %% [markdown]
# ## A baseline: is the network worth it?
#
# Any method that gives label images can be scored with the same metrics. Here is the classic: Otsu's threshold, then a watershed on the distance to the border. It does well where nuclei are bright, round and apart, and badly
# elsewhere. (`nucleus-course baseline otsu` is a more careful version.) *Expect* its distance from the network to differ from metric to metric.

# %%
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.segmentation import watershed


def classic(image):
    """Otsu's threshold and a distance-transform watershed: image (H, W, 3) -> labels (H, W)."""
    grey = gaussian(image.mean(axis=2), 1)
    if np.median(grey) > 100:  # bright background: nuclei are dark
        grey = grey.max() - grey
    foreground = ndimage.binary_fill_holes(grey > threshold_otsu(grey))
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(foreground), 1)
    seeds = np.zeros(foreground.shape, int)
    peaks = peak_local_max(distance, min_distance=5, labels=foreground.astype(int))
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, seeds, mask=foreground)
    return np.where(np.bincount(labels.ravel())[labels] < 20, 0, labels)


baseline = nc.Predictions.from_label_images({one.id: classic(one.image) for one in dataset})
baseline_report = nc.evaluate(dataset, baseline, progress=False)
course.show(figures.draw_comparison({"network": report, "Otsu and watershed": baseline_report}))

# %%
from nucleus_course.evaluation import compare

comparison = compare(
    dataset, baseline_report, report, replicates=300, names=("Otsu and watershed", "network")
)
difference = comparison.metrics["dsb_score"]
print(
    f"dsb_score, network minus baseline: {difference['difference']:+.1f} points, 95% interval {difference['low']:+.1f} to {difference['high']:+.1f}"
)

# %% [markdown]
# **What was seen.** The bars show the difference for seven metrics; the paired interval says whether it could be chance. (A baseline without scores has a low AP by construction: AP rewards a good *order*, and
# all its scores are equal. Compare it on the other metrics. Its AJI collapses: a piece that covers many nuclei counts its whole area against each of them.)

# %% only="solution" tags=["nbval-check-output"]
course.claim(
    "the network's dsb_score is above the baseline's, and the paired interval excludes 0",
    difference["low"] > 0,
)
gaps = [
    report.metrics[key] - baseline_report.metrics[key]
    for key in ("dsb_score", "f1_50", "foreground_iou")
]
course.claim(
    "the distance differs by more than five points from metric to metric", max(gaps) - min(gaps) > 5
)

# %% [markdown]
# ## Quiz
#
# 1. *You copy every detection once, with the same score. What happens to precision at IoU 0.5, and what to recall?*
#    <details><summary>Answer</summary> Precision halves, because a nucleus can be found once only. Recall stays.</details>
#
# 2. *Two papers report "AP 60". Name two things to ask before you compare them.*
#    <details><summary>Answer</summary> The IoU thresholds that were averaged, and the cap on detections in an image; then the data, the split, and pooled or by image.</details>
#
# 3. *Method B is better than A by half a point, and the paired 95% interval runs from -0.4 to 1.4. Your conclusion?*
#    <details><summary>Answer</summary> These images cannot tell. It is not "no difference".</details>
#
# ## What you have done
#
# - computed IoU, matching and AP by hand, and found the library's numbers equal;
# - evaluated with every metric, and set Table 1 beside ours;
# - put intervals on numbers, and compared in pairs;
# - moved the thresholds;
# - scored a baseline with the same metrics.
#
# **Three take-aways**
# 1. "AP" and "IoU" are families. A number needs its definition, its images and its threshold beside it.
# 2. Choose thresholds on validation images, store them with the weights, and report on others.
# 3. Compare models on the same images, in pairs, with an interval. A point or two is often nothing.
#
# Previous: [3. Train in stages](03_train_in_stages.ipynb). Next: [5. Error analysis](05_error_analysis.ipynb)
