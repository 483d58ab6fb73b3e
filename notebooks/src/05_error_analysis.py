# %% [markdown]
# # 5. Error analysis
#
# *Where does it fail, what does that cost, and does an idea help?* A metric says how good; it does not say what to do next. This notebook sorts every error into a class, prices the classes, looks at the worst
# cases, and then does the thing that turns looking into knowing: it states a hypothesis, and tests it.
#
# **What you will do**
# - put every nucleus and every detection into exactly one class, and see that the books balance;
# - price each class in points of AP;
# - find out where errors gather: types, sizes, crowds, edges, low contrast;
# - browse the worst cases;
# - ask whether scores mean what they say;
# - test an idea of the paper's: do mirrored edges help the nuclei that the edge cuts?
#
# **What you will learn**
# - why counts of errors and costs of errors are different rankings;
# - how to fix a hypothesis, a number and a rule *before* looking;
# - what a paired bootstrap can and cannot tell.
#
# **What you need:** 60 minutes, 2 GB of memory, any processor; about two minutes of it are computing.
#
# Previous: [4. Evaluate](04_evaluate.ipynb). Next: [6. Your own images](06_your_own_images.ipynb).
# [Solutions](solutions/05_error_analysis.ipynb) · [Glossary](../docs/glossary.md)

# %%
import numpy as np

from nucleus_course import course, figures
from nucleus_course.course import exercises

course.quiet_backend()
import nucleus_course as nc
from nucleus_course.evaluation import analyse_errors
from nucleus_course.figures import short

data = course.find_data()
dataset = nc.load_dataset(data.source, data.evaluation_split, progress=False)
model = course.find_model()
predictions = course.predictions_for(model, dataset)
analysis = analyse_errors(dataset, predictions, progress=False)

# %% [markdown]
# ## Every error in one class
#
# At the operating point a detection *matches* a nucleus if their IoU is above 0.5. Everything else is an error, and has a reason. The classes follow Bolya et al. (2020), with three that matter for nuclei:
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
# "poor boundary" if it overlaps any by 0.1 or more; else "spurious". *Expected output:* `classify_detection: PASSED - all 7 cases agree.`


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
# **What was seen.** The caption holds the numbers. Many errors stand on both sides of the books: a nucleus with a poor boundary is a miss and a false alarm, though a person would call it one error. A merge loses several nuclei
# for one detection, a split makes several detections of one nucleus.
#
# Do the books balance? *Expect* two lines of `True`: matched and erroneous detections add up to all detections, and so for nuclei.

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
# Fix all errors of one class, compute AP again, and take the difference: that is the most one can gain by working on that class. The counts above are at the operating
# point; AP, and so these costs, look at detections of any score. *Expect* another ranking than by counts.

# %%
course.show(figures.draw_ap_costs(analysis))

# %% [markdown]
# **What was seen.** "Boundary of the matched" is no error at IoU 0.5, yet it costs `coco_ap` a great deal, because AP goes on asking up to 0.95. At AP50 it costs nothing by definition; there the other classes are all that is left.
# A class may cost next to nothing although its count is large: many nuclei that are missed at the operating point have a detection of a low score. And a cost may be negative: what is a duplicate at IoU 0.5
# can be the better outline, which alone matches at 0.75; taking it out loses that match.
#
# **Explain.** The costs of all classes do not add up to what is missing from 100. Why?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** AP is no sum over errors: it is a mean of precision over recall, and a precision has the earlier errors in it. Fixing false alarms helps more when many nuclei are found, and the other way round. And the last errors fixed gain
# more than the first ones, so parts taken one at a time add up to less (or more) than the whole.

# %% [markdown]
# ## Where errors gather
#
# The same classes, by the image's type and by properties of the nucleus. *Expect* small nuclei, crowded ones and those at the edge to be lost more often.

# %%
course.show(figures.draw_type_breakdown({"network": analysis.report}))

# %% [markdown]
# **What was seen.** The types differ by many points, and not in the same order for every metric: the caption gives three for each. Now by size and by distance to the edge: each bar is all nuclei of a group, stacked by what became of them.

# %%
course.show(figures.draw_size_breakdown(analysis, by="size"))

# %%
course.show(figures.draw_size_breakdown(analysis, by="edge"))

# %% [markdown]
# **What was seen.** The captions give the share found in each group: it depends on the size of the nucleus more than the overall number suggests, and they say whether nuclei at the edge are really lost more often than others here. A group with few nuclei
# has a wide uncertainty: read the number at a bar before its height.
#
# The other properties come as a table. **Exercise 5.3: predict, run, explain.** Which are lost more often, nuclei that touch another or nuclei that stand alone? Faint ones or bright ones? Twice as often, or ten times?

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
# **What was seen.** The share that was not found, for each distance to the nearest neighbour and each contrast with the background. The shares need not rise or fall
# steadily: of a row that breaks the order, ask how many nuclei it holds, and of which image types.
#
# **Explain.** Suppose that touching nuclei are not only lost more often but also smaller, and commoner in stained tissue. What comparison would tell crowding from size?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Compare crowded with lonely nuclei *of the same size and type*: cut the table by two properties at once, or match pairs. If the gap closes, size or type explained it. A breakdown by one property at a time shows where errors
# are, not why.

# %% [markdown]
# ## The worst cases
#
# Numbers point, pictures explain. The default view is one case of the largest class; then the browser: choose a class and step through it. Nuclei are ordered by area, detections by score, so the largest losses and the surest mistakes
# come first. *Expect* the case close up, and the disagreement in colour. Try: *is "spurious" always wrong? Look for nuclei that the annotator missed.*

# %%
from nucleus_course.course.explorers import ErrorBrowser

browser = ErrorBrowser(dataset, predictions, analysis)
course.show(browser.draw())

# %% [markdown]
# **What was seen.** One case close up: the image, the annotation's outline, the detection's outline, and where the two differ.

# %% tags=["explorer"]
browser.widget()

# %%
for row in analysis.worst_images(5):
    print(
        f"image {short(row['image']):<32} {row['type']:<22} dsb_score {row['value']:5.1f}: {row['tp']} matched, {row['fp']} false, {row['fn']} lost"
    )

# %% [markdown]
# **What was seen.** The five images with the lowest `dsb_score`: whether they are of one type, and whether they lose nuclei or invent them, tells where to look next.
#
# ## Do scores mean what they say?
#
# Of all detections scored about 0.8, eight in ten should be right, if a score is a probability. `compact`'s is not quite: after the training small networks were fitted to its detections on the *training* images, to tell
# the IoU that each will turn out to have with a nucleus, 0 where it has none (`nucleus-course rescore`; the idea is that of Mask Scoring R-CNN). That ranks tight outlines first, which AP rewards. And since a perfect outline is rare,
# *expect* bars near the diagonal at low scores, where the question is whether there is a nucleus, and above it at high ones.

# %%
course.show(figures.draw_reliability(analysis))

# %% [markdown]
# **What was seen.** The distance between bars and diagonal is the calibration error; where scores are expected IoUs, part of it is meant: on real images a detection of 0.8 is nearly always a nucleus, outlined with an IoU of about 0.8. Order matters to AP, not calibration: squaring all scores changes no AP, and every bar of this figure. It matters to you when you read a score as a
# probability, or move a threshold to another kind of image.
#
# ## A hypothesis, and its test
#
# The image's edge cuts some of the nuclei, and the network sees only what is left of them. The paper tried to mirror the images' edges and reports that it did not help. Here is a version that can be tested in a minute, at prediction only (the paper did it in
# training):
#
# > **Hypothesis.** If the image is padded with 32 mirrored pixels on each side before detection, and the result cropped back, nuclei at the edge are outlined better.
# >
# > **Number.** Mean over edge nuclei of the IoU with the detection of largest overlap, an image at a time.
# >
# > **Rule, fixed now.** If the 95% interval of the mean paired difference is above 0, it helps; if below, it harms; if it holds 0, these images cannot tell.
#
# **Exercise 5.4: predict, run, explain.** What do you expect, and why?

# %% [markdown] only="exercise"
# *Your prediction:*

# %% [markdown]
# **Exercise 5.5: implement it.** First: which nuclei touch the border? Write `edge_ids(labels)`. *Expected output:* `edge_ids: PASSED - all 3 cases agree.`


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
# **Exercise 5.6: implement it.** And the interval. `draws` holds one bootstrap sample of image indices a row. Draw the *differences*, so that what makes an image hard for both cancels. Write `paired_interval(a, b, draws)`: the 2.5th and 97.5th
# percentile of the mean of b - a. *Expected output:* `paired_interval: PASSED - all 3 cases agree.`


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
# Now the experiment, on images of at most 400 pixels with at least three edge nuclei, at most 24 of them, so that it takes a minute or so: each is detected twice, and `predict` may look at each several ways round. The library's functions do what you wrote.

# %%
from nucleus_course.course.numbers import (
    edge_overlap,
    edge_touching_ids,
    predict_with_mirrored_edges,
)

small = [i for i in dataset.ids if max(dataset.sizes[i]) <= 400]
chosen = [i for i in small if len(edge_touching_ids(dataset[i].labels)) >= 3][:24]
plain, mirrored = [], []
for image_id in chosen:
    one = dataset[image_id]
    plain.append(edge_overlap(one.labels, model.predict(one.image).label_image()))
    mirrored.append(
        edge_overlap(one.labels, predict_with_mirrored_edges(model, one.image, margin=32))
    )
plain, mirrored = np.array(plain), np.array(mirrored)
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
# **What was seen.** The printed verdict, by the rule fixed beforehand, whichever way it went. If the interval holds zero, "no effect" has *not* been shown: it says that these images would not reveal one of less than about the interval's width.
#
# **Explain.** A mirrored nucleus at the edge becomes one symmetric nucleus across it. What could that do to its mask, its box and its score? And why might the paper's finding (in training) differ from this one (at prediction)?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The network sees a whole, plausible nucleus, and the part inside the image is cut from a better mask: good. But two halves joined at the edge can look like a waist, or like two touching nuclei, and nuclei that only touch the edge merge with their mirror image:
# bad. The box grows to twice the size, and may go to another level. A network *trained* on mirrored edges has learned these shapes (`compact` has: its augmentation fills what a crop or a turn leaves empty with mirrored pixels); one trained on black edges
# has never seen them. A test in one setting does not decide the other.

# %% [markdown]
# ## What you have done
#
# - sorted all errors, and balanced the books;
# - priced each class, and seen where errors gather;
# - browsed the worst cases and checked the scores' meaning;
# - fixed a hypothesis, a number and a rule, and applied them.
#
# **Three take-aways**
# 1. Count errors to see how often, price them to see what is worth fixing; the rankings differ.
# 2. A breakdown by one property shows where, not why; look at pictures, then compare like with like.
# 3. Write down hypothesis, number and rule before you run: afterwards every result looks expected.
#
# Previous: [4. Evaluate](04_evaluate.ipynb). Next: [6. Your own images](06_your_own_images.ipynb)
#
# *References.* Bolya et al., *TIDE: a general toolbox for identifying object detection errors*, [arXiv:2008.08115](https://arxiv.org/abs/2008.08115), 2020. Guo et al., *On calibration of modern neural networks*,
# [arXiv:1706.04599](https://arxiv.org/abs/1706.04599), 2017.
