# %% [markdown]
# # 5. Error analysis
#
# *Where does it fail, what does that cost, and does an idea help?* A metric says how good a result is; it does not say what to do next. In this notebook you sort every error into a class, measure what each class costs, look at the worst
# cases, and then state a hypothesis and test it.
#
# **What you will do**
# - put every nucleus and every detection into exactly one class;
# - measure the cost of each class in points of AP;
# - find out where errors gather: types, sizes, crowds, edges, low contrast;
# - browse the worst cases;
# - ask whether scores mean what they say;
# - test an idea of the paper's: do mirrored edges help the nuclei that the edge cuts?
#
# **What you will learn**
# - why the number of errors and the cost of errors give different rankings;
# - how to fix a hypothesis, a number and a rule *before* looking;
# - what a paired bootstrap can and cannot tell.
#
# **What you need:** 60 minutes, 1.5 GB of memory, any processor. About a minute of it is computing. As in notebook 4, the predictions come with the course, or are computed
# once in a second process. You should have done [notebook 4](04_evaluate.ipynb).
#
# Previous: [4. Evaluate](04_evaluate.ipynb). Next: [6. Your own images](06_your_own_images.ipynb).
# [Solutions](solutions/05_error_analysis.ipynb) · [Glossary](../docs/glossary.md)

# %%
import numpy as np

import nucleus_course as nc
from nucleus_course import course, figures
from nucleus_course.course import exercises
from nucleus_course.evaluation import analyse_errors
from nucleus_course.figures import short

data = course.find_data()
dataset = nc.load_dataset(data.source, data.evaluation_split, progress=False)
weights = course.find_weights()
predictions = course.predictions_for(weights, dataset)
analysis = analyse_errors(dataset, predictions, progress=False)

# %% [markdown]
# ## Every error in one class
#
# At the operating point a detection *matches* a nucleus if their IoU is above 0.5. Everything else is an error. The classes follow Bolya et al. (2020), with three that matter for nuclei:
#
# | class | a detection that ... | a nucleus that ... |
# | --- | --- | --- |
# | duplicate | lies on a nucleus that another one has | |
# | merged | covers most of two or more nuclei | is covered together with another |
# | split | is one of several pieces of a nucleus | lies under several pieces |
# | cut by the edge | touches the image's border | touches the image's border |
# | poor boundary | overlaps a nucleus by 0.1 or more | overlaps a detection by 0.1 or more |
# | spurious / missed | none of these: nothing is there | none of these: nothing was found |
#
# The first that applies counts, so every object is in one class.
#
# **Exercise 5.1: implement it.** A smaller version with four classes. Write `classify_detection(ious, taken)`: "matched" if it overlaps a *free* nucleus by 0.5 or more; else "duplicate" if it overlaps a taken one by 0.5 or more; else
# "poor boundary" if it overlaps any by 0.1 or more; else "spurious". *Expected output:* `classify_detection: PASSED`.
#
# <details><summary>Hint</summary> <code>ious[~taken]</code> are the overlaps with free nuclei, <code>ious[taken]</code> those with taken ones;
# <code>.any()</code> of an empty array is False.</details>


# %%
def classify_detection(ious, taken):
    """One detection's class from its IoUs with all nuclei (T,) and which of them are taken already (T,) bool."""
    ### BEGIN SOLUTION
    ious, taken = np.asarray(ious, float), np.asarray(taken, bool)
    if (ious[~taken] >= 0.5).any():
        return "matched"
    if (ious[taken] >= 0.5).any():
        return "duplicate"
    return "poor boundary" if (ious >= 0.1).any() else "spurious"
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_classify_detection(classify_detection)

# %% [markdown]
# **Exercise 5.2: predict, run, explain.** Which class will hold the most nuclei, and which the most detections? Is the class with most errors also the one that costs most AP?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
course.show(figures.draw_error_counts(analysis))

# %% [markdown]
# **What was seen.** The caption has the numbers. Many errors count twice: a nucleus with a poor boundary is a missed nucleus and a false detection, though a person would call it one error. A merge loses several nuclei
# for one detection; a split makes several detections of one nucleus.
#
# Do the numbers add up? *Expect* two lines of `True`: matches and errors add up to all detections, and to all nuclei.

# %% tags=["nbval-check-output"]
totals, counts = analysis.totals, analysis.counts
print(
    "detections:",
    totals["tp"] + totals["fp"]
    == sum(both["detections"] for both in counts.values())
    == analysis.report.counts["detections"],
)
print(
    "nuclei:    ",
    totals["tp"] + totals["fn"]
    == sum(both["nuclei"] for both in counts.values())
    == analysis.report.counts["nuclei"],
)

# %% [markdown]
# ## What each class costs
#
# Correct all errors of one class, compute AP again, and take the difference: that is the most one can gain by working on that class. (It can be a little below 0: at a strict IoU limit a duplicate may have the better outline.) The counts above are at the operating
# point; AP, and so these costs, use detections of any score. *Expect* another ranking than by counts.

# %%
course.show(figures.draw_ap_costs(analysis))

# %% [markdown]
# **What was seen.** "Boundary of the matched" is no error at an IoU of 0.5, yet it costs `coco_ap` more than any other class, because AP asks for IoUs of up to 0.95. At AP50 it costs nothing by definition.
# A class may cost little although its count is large: many nuclei that are missed at the operating point have a detection with a low score.
#
# **Explain.** The costs of all classes do not add up to what is missing from 100. Why?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** AP is not a sum over errors: it is a mean of precision over recall, and each precision depends on all errors with higher scores. Correcting false detections helps more when many nuclei are found, and the other way round.
# The last errors corrected gain more than the first, so parts measured one at a time do not add up to the whole.

# %% only="solution" tags=["nbval-check-output"]
costs = analysis.costs["classes"]
course.claim(
    "the boundary of the matched costs coco_ap more than any other class",
    max(costs, key=lambda name: costs[name]["cost_ap"]) == "boundary of the matched",
)
course.claim("and costs AP50 nothing", abs(costs["boundary of the matched"]["cost_ap50"]) < 1e-6)
course.claim(
    "matches and errors add up",
    totals["tp"] + totals["fp"] == analysis.report.counts["detections"]
    and totals["tp"] + totals["fn"] == analysis.report.counts["nuclei"],
)

# %% [markdown]
# ## Where errors gather
#
# The same classes, by the type of the image and by properties of the nucleus.

# %%
course.show(figures.draw_type_breakdown({"network": analysis.report}))

# %% [markdown]
# **What was seen.** The types differ by many points. Now by size and by distance to the edge: each bar holds all nuclei of a group, divided by what became of them.

# %%
course.show(figures.draw_size_breakdown(analysis, by="size"))

# %%
course.show(figures.draw_size_breakdown(analysis, by="edge"))

# %% [markdown]
# **What was seen.** The captions give the share that was found in each group. It depends on size. Whether nuclei at the edge are lost more often differs between data sets: compare the shares before you believe it. A group with few nuclei
# has a wide uncertainty, so read the number at a bar before its height.
#
# The other properties come as a table. **Exercise 5.3: predict, run, explain.** Which are lost more often, nuclei that touch another or nuclei that stand alone? Faint ones or bright ones? Twice as often, five times, or ten times?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
for by in ("crowding", "contrast"):
    for name, row in analysis.breakdown(by)["nuclei"].items():
        total = sum(row.values())
        print(
            f"{by:<9} {name:<14} {total:>6} nuclei, {100 * (1 - row['matched'] / max(total, 1)):5.1f}% not found"
        )

# %% [markdown]
# **What was seen.** The share that was not found, by distance to the nearest neighbour and by contrast with the background. It need not rise or fall
# steadily: where a row breaks the order, ask how many nuclei it holds, and of which image types.
#
# **Explain.** Suppose that touching nuclei are not only lost more often, but are also smaller, and more common in stained tissue. What comparison would separate crowding from size?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Compare crowded and isolated nuclei *of the same size and type*: divide the table by two properties at once, or match pairs. If the gap closes, size or type explained it. A breakdown by one property at a time shows where errors
# are, not why.

# %% only="solution" tags=["nbval-check-output"]
by_type = [
    row["dsb_score"] for row in analysis.report.types.values() if row["dsb_score"] is not None
]
course.claim(
    "the dsb_score of the types differs by more than ten points", max(by_type) - min(by_type) > 10
)
found = [
    row["matched"] / max(sum(row.values()), 1)
    for row in analysis.breakdown("size")["nuclei"].values()
    if sum(row.values()) >= 20
]
course.claim(
    "the share found differs by more than five points between sizes", max(found) - min(found) > 0.05
)

# %% [markdown]
# ## The worst cases
#
# Look at cases, not only at numbers. The default view is the first case of a class; then the browser: choose a class and step through it. Nuclei are ordered by area, detections by score, so the largest losses and the surest mistakes
# come first. *Expect* the case close up, its neighbours in grey, and the difference in colour. Try: *find a detection without a nucleus. Is it wrong, or did the annotator miss a nucleus?*

# %%
from nucleus_course.course.explorers import ErrorBrowser

browser = ErrorBrowser(dataset, predictions, analysis)
course.show(browser.draw())

# %% [markdown]
# **What was seen.** One case close up: the image, the annotation, the detection (if there is one), and where the two differ.

# %% tags=["explorer"]
browser.widget()

# %%
for row in analysis.worst_images(5):
    print(
        f"image {short(row['image']):<32} {row['type']:<22} dsb_score {row['value']:5.1f}: {row['tp']} matched, {row['fp']} false, {row['fn']} lost"
    )

# %% [markdown]
# **What was seen.** The five images with the lowest `dsb_score`. Are they of one type? Do they lose nuclei or invent them? That tells where to look next.
#
# ## Do scores mean what they say?
#
# If a score is a probability, eight in ten detections with a score near 0.8 should be right. Networks are often too sure or not sure enough (Guo et al. 2017). And if the weights come with a rescorer
# (`weights.rescorer`), the score is not a probability but the IoU to expect of the outline, so at high scores more detections match than the score says.
# *Expect* bars that rise from left to right, above or below the diagonal.

# %%
course.show(figures.draw_reliability(analysis))

# %% [markdown]
# **What was seen.** Detections with high scores are right more often than those with low scores; the distance between bars and diagonal is the calibration error. AP depends on the order of the scores, not on calibration: squaring all scores changes no AP, but every bar of this figure. Calibration matters when you read a score as a
# probability, or move a threshold to another kind of image.

# %% only="solution" tags=["nbval-check-output"]
from nucleus_course.evaluation import CLASSES
from nucleus_course.prediction.interchange import ImagePredictions

scores, right = (
    analysis.detections["score"],
    analysis.detections["class"] == CLASSES.index("matched"),
)
middle = np.median(scores)
course.claim(
    "detections with high scores are right more often than those with low scores",
    right[scores > middle].mean() > right[scores <= middle].mean(),
)
squared = nc.Predictions(
    {
        image_id: ImagePredictions(one.height, one.width, one.rles, one.scores**2, one.boxes)
        for image_id, one in predictions.images.items()
    },
    score_threshold=predictions.score_threshold**2,
)
course.claim(
    "squaring all scores changes no AP",
    np.isclose(
        nc.evaluate(dataset, squared, progress=False).metrics["coco_ap"],
        analysis.report.metrics["coco_ap"],
    ),
)

# %% [markdown]
# ## A hypothesis, and its test
#
# The edge of the image cuts some of the nuclei, and the network sees only a part of them. The paper tried to mirror the edges and reports that it did not help. Here is a version that takes a minute to test, at prediction only (the paper did it in
# training):
#
# > **Hypothesis.** If the image is padded with 32 mirrored pixels on each side before detection, and the result is cropped back, nuclei at the edge are outlined better.
# >
# > **Number.** For each image, the mean over edge nuclei of the IoU with the detection that overlaps them most.
# >
# > **Rule, fixed now.** If the 95% interval of the mean paired difference is above 0, it helps; if below, it harms; if it contains 0, these images cannot tell.
#
# **Exercise 5.4: predict, run, explain.** What do you expect, and why?

# %% [markdown] only="exercise"
# *Your prediction:*

# %% [markdown]
# **Exercise 5.5: implement it.** First: which nuclei touch the border? Write `edge_ids(labels)`. *Expected output:* `edge_ids: PASSED`.
#
# <details><summary>Hint</summary> <code>labels[0]</code> is the first row, <code>labels[:, -1]</code> the last column; 0 is background.</details>


# %%
def edge_ids(labels):
    """The set of ids in a label image (H, W) with a pixel in the outermost rows or columns."""
    ### BEGIN SOLUTION
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return set(np.unique(border[border > 0]).tolist())
    ### END SOLUTION


# %%
exercises.check_edge_ids(edge_ids)

# %% [markdown]
# **Exercise 5.6: implement it.** Now the interval. Each row of `draws` is one bootstrap sample of image indices. Draw the *differences*, so that what makes an image hard for both cancels. Write `paired_interval(a, b, draws)`: the 2.5th and 97.5th
# percentile of the mean of b - a. *Expected output:* `paired_interval: PASSED`.
#
# <details><summary>Hint</summary> <code>(b - a)[draws]</code> is one row of differences for each draw; <code>np.percentile(values, [2.5, 97.5])</code>.</details>


# %%
def paired_interval(a, b, draws):
    """(low, high): 95% percentile interval of mean(b - a); a, b (N,), draws (R, N) image indices."""
    ### BEGIN SOLUTION
    means = (b - a)[draws].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return low, high
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_paired_interval(paired_interval)

# %% [markdown]
# Now the experiment, on at most 24 images of at most 400 pixels with at least three edge nuclei. Each is detected twice, as it is and with mirrored edges. The library's functions do what you wrote.

# %%
from nucleus_course.course.numbers import edge_overlap, edge_touching_ids

small = [i for i in dataset.ids if max(dataset.sizes[i]) <= 400]
chosen = dataset.subset([i for i in small if len(edge_touching_ids(dataset[i].labels)) >= 3][:24])
MARGIN = 32
with_mirrors = course.predictions_for(weights, chosen, mirrored=MARGIN)


def outlines(predicted, image_id, margin=0):
    """The label image of an image at the operating point, without the margin."""
    labels = predicted.images[image_id].label_image(
        predictions.score_threshold, weights.thresholds.min_area
    )
    return labels[margin : labels.shape[0] - margin, margin : labels.shape[1] - margin]


plain = np.array([edge_overlap(one.labels, outlines(predictions, one.id)) for one in chosen])
mirrored = np.array(
    [edge_overlap(one.labels, outlines(with_mirrors, one.id, MARGIN)) for one in chosen]
)
print(
    f"{len(chosen)} images; mean IoU of edge nuclei {plain.mean():.3f} as they are, {mirrored.mean():.3f} with mirrored edges"
)

# %%
draws = np.random.default_rng(2018).integers(0, len(plain), (2000, len(plain)))
low, high = np.percentile((mirrored - plain)[draws].mean(axis=1), [2.5, 97.5])
course.show(
    figures.draw_paired_test(
        100 * (mirrored - plain),
        (100 * low, 100 * high),
        "IoU of edge nuclei, points gained by mirroring",
    )
)
verdict = "it helps" if low > 0 else "it harms" if high < 0 else "these images cannot tell"
print(f"By the rule fixed beforehand: {verdict}.")

# %% [markdown]
# **What was seen.** The verdict, by the rule fixed beforehand. If the interval contains zero, "no effect" has *not* been shown: these images would not reveal an effect smaller than about the width of the interval.
#
# **Explain.** With mirrored pixels, a nucleus cut by the edge becomes a symmetric one across the edge. What could that do to its mask, its box and its score? Why might the paper's finding (in training) differ from this one (at prediction)?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The network sees a whole, plausible nucleus, and the part inside the image is cut from a better mask: good. But two halves joined at the edge can look like two touching nuclei, and nuclei that only touch the edge merge with their mirror image:
# bad. The box grows, and may move to another level. A network *trained* with mirrored edges knows these shapes (`compact` does: its augmentation fills empty corners with mirrored pixels); one trained with black edges
# does not. A test in one setting does not decide the other.

# %% only="solution" tags=["nbval-check-output"]
course.claim(
    "most of each edge nucleus is found either way: the mean IoU is above 0.5",
    min(plain.mean(), mirrored.mean()) > 0.5,
)
course.claim(
    "the effect of mirroring is smaller than 0.1 in IoU", abs((mirrored - plain).mean()) < 0.1
)
course.claim(
    "the verdict follows the rule",
    verdict == ("it helps" if low > 0 else "it harms" if high < 0 else "these images cannot tell"),
)

# %% [markdown]
# ## Quiz
#
# 1. *One class of errors is by far the most frequent. Must it cost the most AP?*
#    <details><summary>Answer</summary> No. Cost depends on the scores and on the IoU thresholds at which the errors count; imagine the class corrected and see what AP would be.</details>
#
# 2. *Detections with a score of 0.8 are right in 60% of all cases. What is that called, and can the ranking still be perfect?*
#    <details><summary>Answer</summary> The scores are overconfident, that is badly calibrated. The ranking, and so AP, may be perfect all the same.</details>
#
# 3. *You wrote the rule first, and the result falls between the two limits. What do you write?*
#    <details><summary>Answer</summary> That these images cannot tell, and what it would take: more images, another number, or another idea.</details>
#
# ## What you have done
#
# - sorted all errors, and checked that they add up;
# - measured what each class costs, and seen where errors gather;
# - browsed the worst cases, and checked what scores mean;
# - fixed a hypothesis, a number and a rule, and applied them.
#
# **Three take-aways**
# 1. Count errors to see how often they happen; measure their cost to see what is worth correcting. The rankings differ.
# 2. A breakdown by one property shows where, not why. Look at images, then compare like with like.
# 3. Write down hypothesis, number and rule before you run. Afterwards every result looks expected.
#
# Previous: [4. Evaluate](04_evaluate.ipynb). Next: [6. Your own images](06_your_own_images.ipynb)
#
# *References.* Bolya et al., *TIDE: a general toolbox for identifying object detection errors*, [arXiv:2008.08115](https://arxiv.org/abs/2008.08115), 2020. Guo et al., *On calibration of modern neural networks*,
# [arXiv:1706.04599](https://arxiv.org/abs/1706.04599), 2017.
