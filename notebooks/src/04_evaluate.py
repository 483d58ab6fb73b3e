# %% [markdown]
# # 4. Evaluate
#
# *What do AP, IoU and the others measure, and how sure are we?* The paper prints two numbers and does not say how either was computed. Here you compute such numbers by
# hand, find the library's equal to yours, and see how far apart fair definitions can lie.
#
# **What you will do**
# - work out IoU, matching and average precision by hand, on cases small enough to check;
# - evaluate the course's network with every metric, with intervals;
# - set the paper's Table 1 beside our numbers, definition by definition;
# - move the thresholds and watch precision trade against recall;
# - score a ten-line baseline with the same ruler.
#
# **What you will learn**
# - which metric punishes what: missed nuclei, false alarms, loose outlines;
# - why a score threshold must be chosen on one set of images and reported on another;
# - how large a difference must be before it means anything.
#
# **What you need:** 75 minutes, 2 GB of memory, any processor; about two minutes of it are computing. With the real images the first run also
# detects the nuclei of 67 images, a minute or a few more (`compact` looks at each image four ways round, see [notebook 2](02_inside_mask_rcnn.ipynb)); the result is kept, for
# notebook 5 too.
#
# Previous: [3. Train in stages](03_train_in_stages.ipynb). Next: [5. Error analysis](05_error_analysis.ipynb).
# [Solutions](solutions/04_evaluate.ipynb) · [Glossary](../docs/glossary.md)

# %%
import numpy as np

from nucleus_course import course, figures
from nucleus_course.course import exercises

course.quiet_backend()
import nucleus_course as nc

data = course.find_data()
dataset = nc.load_dataset(data.source, data.evaluation_split, progress=False)
model = course.find_model()
predictions = course.predictions_for(model, dataset)
print(f"{predictions.detections} detections of any score in {len(dataset)} images")

# %% [markdown]
# ## Overlap: intersection over union
#
# Nearly every metric begins with the IoU of two masks: shared pixels over pixels of either. It is 1 for equal masks and falls quickly.
#
# **Exercise 4.1: predict, run, explain.** A nucleus is a disc 20 pixels across. A detection has exactly the right shape, but is moved to the right. By how many pixels until
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
# **What was seen.** The limit is reached at about three tenths of the diameter. One pixel costs a nucleus of 10 pixels a fifth of its IoU, and one of 80 pixels three hundredths: an IoU of 0.9
# asks of small nuclei an exactness below one pixel, on which two annotators would hardly agree.
#
# **Explain.** COCO's AP averages over the limits 0.50, 0.55, ... 0.95. Which nuclei decide the upper half of that range?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** From 6 pixels on for 20, from 3 on for 10. Above 0.75 a nucleus of 10 pixels needs an outline exact to a fraction of a pixel, so mostly the large ones match there: the upper half measures
# outlines of large nuclei (and the annotators' habits), the lower half mostly detection.

# %% [markdown]
# **Exercise 4.2: implement it.** Write `mask_iou(a, b)`. *Expected output:* `mask_iou: PASSED - all 4 cases agree.`


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
# Mask R-CNN's masks may overlap; a label image holds one number a pixel. Somebody must decide. The rule here: *the higher score keeps the pixel*. (The other way
# round, a doubtful detection would eat into a sure one, and COCO's AP would not show it: it looks at whole masks, before they share out the pixels.)
#
# **Exercise 4.3: implement it.** Write `label_image(masks, scores)`. *Expected output:* `label_image: PASSED - all 4 cases agree.`
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
# Given all IoUs of an image, two ways of pairing are in use. COCO's goes through detections by falling score, and each takes the best nucleus still free. The *assignment* takes the pairs of
# the largest total IoU, whatever the scores. (Where masks do not overlap each other and the limit is above one half, there is no choice, and both agree.)
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
# **What was seen.** COCO gives nucleus 0 to the best-scored detection and leaves the second, which overlaps it more, without a partner. The assignment gives nucleus 0 to the second
# and nucleus 1 to the first, and pairs the third although it overlaps by 0.4 only.
#
# **Exercise 4.4: implement it.** Write `match(iou, threshold)`, COCO's matching. *Expected output:* `match: PASSED - all 7 cases agree.`


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
# Sort all detections by score and go down the list. After each one: *precision*, the share of detections so far that are right, and *recall*, the share of nuclei found so far. AP is the mean
# precision over recalls 0, 0.01, ... 1, each time with the best precision at that recall *or beyond*.
#
# **Exercise 4.5: implement it.** Write `average_precision(hits, nuclei)`: `hits` says for each detection, best score first, whether it is right; `nuclei` is how many there
# are. *Expected output:* `average_precision: PASSED - all 7 cases agree.`


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
# Now by hand on a whole image, and against the library, whose tests hold it to pycocotools. *Expect* the same number to the last digit.

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
print(f"by hand {100 * interpolated.mean():.6f}, pycocotools {library.metrics['coco_ap50']:.6f}")

# %% [markdown]
# **What was seen.** The curve starts high, because the best-scored detections are mostly right, and falls as less certain ones come; where it ends, the rest of the nuclei were found at no score. Both
# numbers agree.
#
# AP uses every detection, down to the least certain, and no threshold. All other metrics need one *operating point*.
#
# ## Every metric at once
#
# **Exercise 4.6: predict, run, explain.** Three metrics below are "an IoU": `mean_mask_iou` (over all nuclei, 0 for a missed one), `matched_mask_iou` (over matched pairs only), `foreground_iou` (all nuclei
# of an image as one mask). Order them before you look.

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
report = nc.evaluate(dataset, predictions, bootstrap=300, progress=False)
report.table()

# %% [markdown]
# **What was seen.** One set of predictions, thirteen fair numbers, tens of points apart. `matched_mask_iou` is above `mean_mask_iou`, necessarily: it leaves out the nuclei that were missed or found badly.
# Where `foreground_iou` stands depends on the images: it weighs pixels, not nuclei, and does not notice when two nuclei are merged.
#
# **Explain.** A method reports "mean IoU 85" and nothing else. Name two things it could be bad at.

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** If it is the IoU of matched pairs, it may miss half of the nuclei. If it is the foreground's IoU, it may merge every touching pair. If it is a mean over images, it may fail on the few crowded ones that hold
# most nuclei. The name alone does not tell.

# %% [markdown]
# ### The paper's Table 1, beside ours
#
# The paper gives AP 56.06 and "mask average IoU" 66.98 for ResNet-50, 59.40 and 70.54 for ResNet-101. It does not say which images were its validation data, whose AP it is, or how the IoU was
# averaged. So we can set beside it only *all* candidates, each with its definition.

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
    ("coco_ap_maxdets100", "the same, at most 100 detections an image"),
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
# **What was seen.** How far the same predictions stand from the paper's numbers changes from row to row, for AP by tens of points. Whoever picks the row after seeing the numbers has learned nothing. This project's first row is
# `coco_ap`, fixed beforehand, on a published split. And no row says which network is better: the paper's images are not known, so they are not these.
#
# ### Precision, recall and the IoU asked for
#
# *Expect* curves that sink as the IoU rises, and an F1 that sinks slowly at first and then steeply.

# %%
course.show(figures.draw_pr_curves(report, thresholds=(0.5, 0.65, 0.75, 0.85, 0.95)))

# %%
course.show(figures.draw_f1_curve(report))

# %% [markdown]
# **What was seen.** At an IoU of 0.5 most nuclei are found; at 0.95 far fewer: an outline one pixel off fails there for all but the largest nuclei, and two people who annotate may well differ by as much. `coco_ap` is the mean over the whole range, so
# a detector that finds every nucleus and draws ordinary outlines stays below 100.
#
# ## How sure are we?
#
# A few dozen images are a sample. The *bootstrap* draws as many images from them again and again, with replacement, and evaluates each draw; the middle 95% of the results are the interval.
#
# **Exercise 4.7: predict, run, explain.** How wide is the 95% interval of `coco_ap` from this many images: less than a point, a few points, or more than ten?

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
# **What was seen.** Two models whose intervals are this wide can differ by a point or two for no reason but the images. Yet intervals of two models may overlap although one is better on nearly every image:
# for a comparison take the *paired* bootstrap, as the baseline below and [notebook 5](05_error_analysis.ipynb) do.
#
# **Explain.** How many images would it take to halve the width? BBBC038's images repeat sources: many come from the same slide. What does that do to the interval?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Four times as many: the width falls with the square root of the number. Images of one slide resemble each other, so they carry less information than as many independent ones; a bootstrap that draws images one by one gives an
# interval that is too narrow. Drawing whole groups of near-duplicates (`groups=dataset.groups`) is more honest.

# %% [markdown]
# ## Thresholds
#
# A higher score threshold loses nuclei and false alarms. The weights come with thresholds that were *chosen on the validation split* and are stored beside them (`model.thresholds`). The next figure repeats the choice of the score threshold and of the smallest area on these images, for the `dsb_score` alone.
# *Expect* a broad hill: near the top the exact value matters little, at the ends it matters a great deal.

# %%
from nucleus_course.evaluation import choose_thresholds

choice = choose_thresholds(dataset, predictions, metric="dsb_score", start=model.thresholds)
course.show(figures.draw_threshold_curve(choice))
print(
    f"stored with the weights: {model.thresholds.score:.2f}, dsb_score {report.metrics['dsb_score']:.1f}; "
    f"best on these images: {choice.thresholds.score:.2f}, dsb_score {choice.thresholds.value:.1f}"
)

# %% [markdown]
# **What was seen.** A hill with a flat top; the printed line says how much lies between the stored threshold and the best one. Another metric has its hill elsewhere (`mean_mask_iou` counts missed nuclei and hardly minds false alarms, so it prefers lower thresholds), which is one reason for
# not taking the top of a single one. And a number reported on the images on which its threshold was picked is a little flattered: on the validation split of BBBC038 this holds for every number in this notebook but the APs, which use no
# score threshold, and a little for them too: the weights, the flips, NMS IoU and mask threshold were picked there as well. More than that, 53 of the 67 images are neighbouring tiles of training images (see the [model card](../data/weights/compact/README.md)).
#
# ### Explore
#
# The network's 400 best boxes before the final NMS are kept with their masks, so nothing is run again while you move the score threshold, the NMS IoU and the mask threshold. (The explorer looks at the image one way round; `predict` may average its flips, so scores differ a little.)
# The default view first, then the explorer. *Expect* a point on the curve, near its corner. Try: *raise the NMS IoU to 0.8:
# what happens to precision, and why? Lower the mask threshold: do nuclei merge?*

# %%
from nucleus_course.course.explorers import ThresholdExplorer, collect_candidates

candidates = collect_candidates(model, record.image)
explorer = ThresholdExplorer(
    record, candidates, model.thresholds, model.rescorer, model.config.upsample
)
course.show(explorer.draw())

# %% [markdown]
# **What was seen.** Detections over the annotation at the stored thresholds, to the nearest 0.05, and the point they occupy on this image's precision-recall curve.

# %% tags=["explorer"]
explorer.widget()

# %% [markdown]
# ## A baseline: is the network worth it?
#
# Any method that gives label images can be scored with the same ruler. Here is the classic: Otsu's threshold, then a watershed on the distance to the border. It does well where nuclei are bright, round and apart, and badly
# elsewhere. (`nucleus-course baseline otsu` is a more careful version, and the one in the README's table.) *Expect* its distance from the network to differ from metric to metric.

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
# **What was seen.** The bars give the size of the difference for every metric, the paired interval says whether it could be chance. (A baseline without scores has a poor AP by construction: AP rewards a good *order*, and
# all its scores are equal. Compare it on the other metrics. And watch AJI: it pools areas, so a single image in which background is taken for a nucleus can ruin it, while the others barely notice.)

# %% [markdown]
# ## What you have done
#
# - computed IoU, matching and AP by hand and found the library's equal;
# - evaluated with every metric, and set Table 1 beside ours;
# - put intervals on numbers and compared pairwise;
# - moved the thresholds;
# - scored a baseline with the same ruler.
#
# **Three take-aways**
# 1. "AP" and "IoU" are families. A number needs its definition, its images and its threshold beside it.
# 2. Choose thresholds on validation images, store them with the weights, and report on others.
# 3. Compare models on the same images, pair by pair, with an interval; a point or two is often nothing.
#
# Previous: [3. Train in stages](03_train_in_stages.ipynb). Next: [5. Error analysis](05_error_analysis.ipynb)
