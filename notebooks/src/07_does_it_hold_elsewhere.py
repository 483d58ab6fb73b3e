# %% [markdown]
# # 7. Does it hold elsewhere?
#
# *The score on `validation` is good. Will it be as good on your images?* This project learned that lesson the hard way. Its model improved on `validation` from round to round, and not at all on images of other laboratories.
#
# **What you will do**
# - count how many validation images have a neighbour in the training set;
# - hold out whole sources (experiments, laboratories) instead of images, and average so that each source counts once;
# - turn one image into four that other laboratories might have sent, and bring them back to one look;
# - compare two models on sources that neither has met, by a rule that was fixed first;
# - ask the model whether it knows an image at all.
#
# **What you will learn**
# - what leakage is, and how to find it before it misleads you;
# - what domain shift is, and which part of it can be computed away;
# - what to do with ten annotated images of your own.
#
# **What you need:** 45 minutes, 2 GB of memory, any processor. About a minute of it is computing. No internet connection. You should have done
# [notebook 4](04_evaluate.ipynb).
#
# Previous: [6. Your own images](06_your_own_images.ipynb). Next: [a project of your own](../docs/capstone.md).
# [Solutions](solutions/07_does_it_hold_elsewhere.ipynb) · [Glossary](../docs/glossary.md) · [Sources and splits](../docs/strangers.md)

# %%
import numpy as np

from nucleus_course import course, figures
from nucleus_course.course import exercises

course.quiet_backend()
import nucleus_course as nc

data = course.find_data()
dataset = nc.load_dataset(data.source, data.evaluation_split, progress=False)
model = course.find_model()

# %% [markdown]
# ## Leakage
#
# BBBC038 has 664 training images, but not 664 experiments. A camera takes many fields of one slide, and a large picture is cut into tiles. If one tile is in
# `train` and the next in `validation`, then the score on `validation` measures memory as well as skill. This is *leakage*.
#
# The library holds a table of [15 sources](../docs/strangers.md): which images come from one experiment. It was made by a rule on pixels and
# looked at by eye. *Expect* few sources with many images, and many sources with few.

# %%
from collections import Counter

from nucleus_course.data.sources import read_sources
from nucleus_course.data.splits import split_ids

source_of = read_sources()
train, validation = (split_ids(list(source_of), split) for split in ("train", "validation"))
images = {
    name: Counter(source_of[i] for i in ids)
    for name, ids in (("train", train), ("validation", validation))
}
print(f"{'source':<20}{'train':>8}{'validation':>12}")
for source, number in images["train"].most_common():
    print(f"{source:<20}{number:>8}{images['validation'][source]:>12}")

# %% [markdown]
# **Exercise 7.1: implement it.** Write `leaked(train, validation, group_of)`: the set of the validation ids whose group has at least one image in `train`.
# A group may be a source, a patient, a plate or a set of near-duplicates; `group_of[image_id]` gives it.
# *Expected output:* `leaked: PASSED`.
#
# <details><summary>Hint</summary> Collect the groups of the training images in a set first. Then one comprehension over the validation ids is enough.</details>


# %%
def leaked(train, validation, group_of):
    """The validation ids (a set) whose group has an image in train."""
    ### BEGIN SOLUTION
    known = {group_of[image_id] for image_id in train}
    return {image_id for image_id in validation if group_of[image_id] in known}
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_leaked(leaked)

# %% [markdown]
# **Exercise 7.2: predict, run, explain.** How many of the 67 validation images come from a source that is in `train` too?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
learned = {source_of[image_id] for image_id in train}
strangers = [image_id for image_id in validation if source_of[image_id] not in learned]
print(
    f"{len(validation) - len(strangers)} of {len(validation)} validation images come from a source that is in train"
)

# %% [markdown]
# **What was seen.** Not one image of `validation` is a stranger. A random split never makes one: each source of more than a few images ends up on both sides.
#
# **Explain.** Is a score on such a split wrong?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** It is right for the question that it answers: *how good is the model on further images of these experiments?* It says little about the question that
# most people ask: *how good is it on mine?* And there is worse: a choice made on it (one more round of training, one more threshold) is a choice for these experiments. Hold out what will be new in practice: whole sources.

# %% only="solution" tags=["nbval-check-output"]
course.claim("no validation image comes from a source that train lacks", not strangers)
course.claim(
    "the three largest sources hold more than half of the training images",
    sum(n for _, n in images["train"].most_common(3)) > len(train) / 2,
)
course.claim(
    "the largest source is more than fifty times as large as the smallest in train",
    max(images["train"].values()) > 50 * min(images["train"].values()),
)

# %% [markdown]
# ## Each source counts once
#
# Splits `source-1` to `source-4` hold out whole sources, so that each source is a stranger once. One more decision is needed: the mean over *images* is
# the mean of the largest experiment. On strangers we ask about the next laboratory, so each *source* counts once.
#
# **Exercise 7.3: implement it.** Write `mean_over_sources(scores, source_of)`: first the mean within each source, then the mean of those.
# `scores` maps an image id to its score; `source_of` may know more images than were scored.
# *Expected output:* `mean_over_sources: PASSED`.
#
# <details><summary>Hint</summary> Keep a sum and a count for each source in a dictionary; the source is the key.</details>


# %%
def mean_over_sources(scores, source_of):
    """The mean of the sources' mean scores, over the sources that have a scored image."""
    ### BEGIN SOLUTION
    sums = {}
    for image_id, score in scores.items():
        total, number = sums.get(source_of[image_id], (0, 0))
        sums[source_of[image_id]] = (total + score, number + 1)
    return sum(total / number for total, number in sums.values()) / len(sums)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_mean_over_sources(mean_over_sources)

# %% [markdown]
# ## Four laboratories
#
# The next cell makes four images out of one, as four laboratories might have sent it. That images from elsewhere look different is called *domain shift*. The first is the image as it is. The second is inverted, as some cameras and programs store it. The third is *stained*: nuclei are violet on a light ground (dye absorbs light as Beer and Lambert's law says). The fourth has 16 bits, is dim, and has twenty hot pixels. Nothing about the nuclei has changed: the annotation is the same for all four.

# %%
chosen = [
    i
    for i in dataset.ids
    if dataset.types[i].endswith("fluorescent")
    and 8 <= dataset.counts[i] <= 80
    and max(dataset.sizes[i]) <= 400
]
record = dataset[chosen[0]]
grey = record.image.mean(axis=2)
light = grey / max(1.0, np.percentile(grey, 99.8))

random = np.random.default_rng(7)
dim = (300 + 4 * grey).astype(np.uint16)
dim[random.integers(0, dim.shape[0], 20), random.integers(0, dim.shape[1], 20)] = 65535
sent = {
    "as stored": record.image,
    "inverted": 255 - record.image,
    "stained": np.rint(
        [240, 235, 245] * np.exp(-light.clip(0, 1)[..., None] * [1.2, 1.5, 0.7])
    ).astype(np.uint8),
    "16 bits, hot pixels": dim,
}

# %% [markdown]
# A network that learned from bright nuclei on black cannot know that the second and the third image show the same thing. It can be trained on all of them, or the difference can be
# taken away before the network sees it. `compact` does the second: `canonical(image)` decides the polarity and the stain, weighs the colours,
# and stretches the values by percentiles after a small median filter ([how, and how often it is wrong](../docs/strangers.md#a-canonical-input)). *Expect* four images in the upper row that look different, and four
# in the lower row that look alike.

# %%
from nucleus_course.data.canonical import canonical

seen = {name: canonical(image) for name, image in sent.items()}
course.show(figures.draw_canonical(sent, seen))
for name, one in seen.items():
    print(f"{name:<20} {one}")

# %% [markdown]
# **Exercise 7.4: predict, run, explain.** The model detects nuclei in all four, and then once more in the inverted image with the wrong polarity forced upon it
# (`polarity="bright"`). Write down five numbers: how many nuclei will it find in each?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
found = {name: model.predict(image) for name, image in sent.items()}
found["wrong polarity"] = model.predict(sent["inverted"], polarity="bright")
counts = {name: int(detections.label_image().max()) for name, detections in found.items()}
print(f"annotated: {record.count}")
for name, count in counts.items():
    print(f"{name:<20} {count:>4} found")

# %% [markdown]
# **What was seen.** Four laboratories, almost one count; and one wrong decision about the polarity that spoils the outlines, even where the count looks plausible.
#
# **Explain.** Is taking a difference away always better than training on it?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** What is taken away need not be learned: a small network has all its weights left for shapes, and a stain that no training image has costs nothing. But it is a decision, and a wrong decision is worse than none: the network then
# sees a world of holes. Therefore the decision is visible (`found.canonical`, columns in `counts.csv`) and can be overruled (`--polarity bright`). What colour alone could tell, such as a pink cell from a violet nucleus, is mostly lost.

# %% only="solution" tags=["nbval-check-output"]
from nucleus_course.course.numbers import f1_of_two

truth = record.labels
f1 = {name: f1_of_two(truth, detections.label_image()) for name, detections in found.items()}
four = [f1[name] for name in sent]
course.claim(
    "the polarity is right for all four",
    [one.polarity for one in seen.values()] == ["bright", "dark", "dark", "bright"],
)
course.claim(
    "only the third is taken for stained tissue",
    [one.stain for one in seen.values()] == [False, False, True, False],
)
course.claim(
    "the four images' F1 against the annotation lie within a tenth of each other",
    max(four) - min(four) < 0.1,
)
course.claim(
    "with the wrong polarity F1 is lower by more than a quarter",
    f1["wrong polarity"] < 0.75 * min(four),
)

# %% [markdown]
# ## Two models, judged on strangers
#
# Does the canonical input help on *real* strangers? Fix the rule before you look:
#
# > Two networks, the same architecture, seed, images and number of steps. One sees colour, the other the canonical grey. Each is trained twice, with `source-1` and then with `source-2` held out. The canonical input is kept if the mean AP over the held-out sources, each counted once, is higher and the paired
# > 95% interval of the difference does not contain zero.
#
# Training takes more than an hour on two cores, so the results ship with the course. They are real, and [brief](../docs/strangers.md#canonical-against-colour): 1,000 steps from random weights, far from what the shipped model got.
#
# **Exercise 7.5: predict, run, explain.** Of the six held-out sources four are fluorescence (one of them dim nuclei in noise) and two are stained tissue. Which of them will gain from the canonical input, and which will lose?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from nucleus_course.course.numbers import pooled_difference, source_folds

folds = source_folds()
course.show(figures.draw_folds(folds))
print("canonical minus colour, mean over the six held-out sources (95% interval):")
for key, name in (("coco_ap", "AP"), ("mean_mask_iou", "mask IoU"), ("dsb_score", "DSB score")):
    print(f"{name:<10} {{:+.1f}} ({{:+.1f}} to {{:+.1f}})".format(*pooled_difference(folds, key)))

# %% [markdown]
# **What was seen.** By the rule, the canonical input stays. The gain is small, and it is not the same everywhere: most on stained tissue, of which training had little; one source of fluorescence, where colour never mattered, even loses.
# For the score that depends on one fixed threshold, these images cannot tell the two apart.
#
# **Explain.** One of the two splits alone would not have passed the rule. Is it fair to take both together?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Yes, because the rule said so before anyone looked: the mean over the held-out sources of both. It would not be fair to try one split, see an interval that contains zero, and go on with others until one passes. Also note what the interval covers: other images
# of *these six* sources. With six sources nobody knows how a seventh will do; that interval would be wider.

# %% only="solution" tags=["nbval-check-output"]
change = {
    n: r["first"]["coco_ap"] - r["second"]["coco_ap"]
    for t in folds.values()
    for n, r in t["sources"].items()
}
each = [table["means"]["unseen"]["coco_ap"] for table in folds.values()]
course.claim(
    "the pooled interval of AP lies above zero: the canonical input stays",
    pooled_difference(folds)[1] > 0,
)
course.claim(
    "the source that gains most is stained tissue", max(change, key=change.get) == "lilac-256x320"
)
course.claim(
    "a source of fluorescence loses",
    min(change.values()) < 0 and min(change, key=change.get) == "large-360",
)
course.claim(
    "one split alone would not have passed, the other would",
    sum(mean["low"] > 0 for mean in each) == 1,
)
course.claim(
    "the interval of the DSB score at a fixed threshold contains 0",
    pooled_difference(folds, "dsb_score")[1] < 0 < pooled_difference(folds, "dsb_score")[2],
)

# %% [markdown]
# ## Does the model know this image?
#
# A network gives an answer for every image, even for one that it was never made for. `found.novelty` is the distance of an image from the training images, in 27 statistics of its canonical form; at 1 or more `predict` prints a line.
# The limit was set on strangers: each source against all others, 99 of 100 images below it.
#
# **Exercise 7.6: predict, run, explain.** Which of these will be flagged: a page of text, coins, a brick wall, the surface of the moon, noise, and the first image of your data?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
import skimage.data
from scipy.ndimage import gaussian_filter

noise = gaussian_filter(random.normal(size=(256, 256)), 4)
noise = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
pictures = {
    "page": skimage.data.page(),
    "coins": skimage.data.coins(),
    "brick": skimage.data.brick()[:256, :256],
    "moon": skimage.data.moon()[:256, :256],
    "smooth noise": noise,
    "your data": record.image,
}
novelty = {name: model.novelty(canonical(image).image) for name, image in pictures.items()}
for name, value in sorted(novelty.items(), key=lambda pair: pair[1]):
    print(f"{name:<14} {value:5.2f} {'unlike the training images' if value >= 1 else ''}")

# %% [markdown]
# **What was seen.** Noise and textures are flagged; coins are not. Bright round blobs on a dark ground are what the model learned, whatever they are.
#
# **Explain.** Does a small novelty mean that the outlines are right?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** No. It says that the image *looks* like the training images in coarse statistics. Whether its nuclei are outlined well can only be measured on annotations. A large novelty is a reason to stop; a small one is no reason to trust.

# %% only="solution" tags=["nbval-check-output"]
course.claim("smooth noise is flagged", novelty["smooth noise"] >= 1)
course.claim("the brick wall is flagged", novelty["brick"] >= 1)
course.claim("coins are not flagged, although they are no nuclei", novelty["coins"] < 1)
course.claim("the image of the data at hand is not flagged", novelty["your data"] < 1)

# %% [markdown]
# ## Ten images of your own
#
# What to do when your images come from a laboratory that no one has met:
#
# 1. **Look** at the network's view of a few images: `canonical(image).image`, or the columns `polarity` and `stain` in `counts.csv`. Wrong? `--polarity`, `--channel`.
# 2. **Measure the size** of ten nuclei. Far from what the network knows ([notebook 6](06_your_own_images.ipynb))? `--diameter`.
# 3. **Read the novelty.** At 1 or more, expect little.
# 4. **Annotate ten images**, not one image ten times: ten slides, days or plates. Correct the network's label images instead of starting from nothing.
# 5. **Split them by source.** Five decide, five judge. A slide lies on one side only (`leaked` must be empty).
# 6. **Choose the thresholds** on the five that decide, for a copy of the model folder: `cp -r data/weights/compact mine`, then `nucleus-course thresholds --data FOLDER --split FILE --weights mine`. Often that is all it takes.
# 7. **Only then train** on them, and compare on the five that judge, by a rule that you wrote down first, with a paired interval (`evaluate --against compact --bootstrap 1000`).
# 8. **Write down** what was held out. A number without its split is worth nothing.
#
# ## Three questions
#
# Answer each in a sentence before you unfold it.
#
# <details><summary>1. You have 200 images of four patients. How many folds of a cross-validation do you need to know how good the model is on the next patient?</summary>
# Four: each patient is left out once. Two hundred images are four independent observations of what you ask about, so the interval will be wide.</details>
#
# <details><summary>2. A change raises AP on <code>validation</code> by 1.5 points and lowers it by 0.5 on held-out sources, with an interval from -1.5 to +0.6. Do you keep it?</summary>
# Not for users from elsewhere: there is no sign that it helps them. For further images of the same experiments it may be worth keeping. Say which of the two you ship for.</details>
#
# <details><summary>3. The held-out images helped to choose between five recipes. Are they still held out?</summary>
# Less so with each choice: the best of five is partly luck on these images. Keep a last set that chooses nothing, and look at it once.</details>
#
# **Three take-aways**
#
# 1. Ask which data are new *in practice*, and hold out exactly that.
# 2. Count each source once. The largest experiment should not decide for the others.
# 3. Fix the rule before you look, and report what lost.
