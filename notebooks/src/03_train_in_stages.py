# %% [markdown]
# # 3. Train in stages
#
# *What moves when, how fast, and how do I do it on a GPU?* The paper trains a large network in three stages over 100 epochs. Here you run its first and its last stage
# on the small network `compact`, for about a minute, interrupt them, resume, and then load weights from a long run. The code is the same;
# network, images and epochs are smaller or fewer.
#
# **What you will do**
# - draw the schedules of the paper and of `compact`, and count what moves in each stage;
# - implement gradient clipping and a warm-up schedule;
# - train for real, with live curves, stop in the middle and resume;
# - compare a minute of training with a long run;
# - fine-tune the shipped weights on one image, until the curves of seen and unseen images part;
# - read the commands that repeat the paper on a GPU.
#
# **What you will learn**
# - why heads come first *when the backbone is pretrained*, and why not otherwise;
# - what learning rate, clipping, weight decay and frozen BatchNorm each protect against;
# - what a run folder must hold so that an interruption costs nothing.
#
# **What you need:** 75 minutes, 2 GB of memory, any processor. About three minutes of it are computing. You should know what a loss
# and a gradient are. Only the commands of the last section need a GPU, and you can also just read them.
#
# Previous: [2. Inside Mask R-CNN](02_inside_mask_rcnn.ipynb). Next: [4. Evaluate](04_evaluate.ipynb).
# [Solutions](solutions/03_train_in_stages.ipynb) · [Glossary](../docs/glossary.md)

# %%
import dataclasses

import numpy as np

from nucleus_course import course, figures
from nucleus_course.course import exercises

course.quiet_backend()
import nucleus_course as nc
from nucleus_course.figures import draw_detections
from nucleus_course.training import count_trainable, set_trainable

data = course.find_data()
dataset = nc.load_dataset(data.source, "train", progress=False)
print(f"{len(dataset)} training images")

# %% [markdown]
# ## The schedule
#
# A preset holds its stages as data. *Expect* three stages for the paper, at 0.001, 0.001 and 0.0001. The figure shows them
# beside `compact`'s schedule, one smooth rise and fall.

# %% tags=["nbval-check-output"]
paper = nc.get_preset("paper-resnet50")
for stage in paper.training.stages:
    print(
        f"{stage.name:<16} layers {stage.layers:<6} epochs {stage.epochs:>3}  rate {stage.rate:g}"
    )
print(
    f"{paper.training.optimizer}, momentum {paper.training.momentum}, batch {paper.training.batch_size}, "
    f"weight decay {paper.training.weight_decay:g}, global norm clipped to {paper.training.global_clipnorm:g}"
)

# %%
schedules = {name: nc.get_preset(name).training.stages for name in ("paper-resnet50", "compact")}
course.show(figures.draw_schedules(schedules))

# %% [markdown]
# **What was seen.** The paper keeps a constant rate and divides it by ten for the last stage. (It gives 100 epochs and three stages, but not how the epochs are divided: 20, 40 and 40 are this project's choice.) `compact` warms up and then follows half a
# cosine. It starts from random weights, where the first gradients are large and unreliable. The low rate at the end of both lets the weights settle. *Weight decay*, in the printed line,
# pulls every weight a little towards zero at each step, which guards against learning single images by heart.
#
# ## What moves
#
# The paper starts from weights learned on COCO's photographs. The backbone, the pyramid and most layers of the heads arrive trained; only the three layers that give classes, boxes and masks
# *for each class* are new and random, because nuclei are not among COCO's classes. (From ImageNet weights the pyramid, the RPN and the heads would be random too.) If everything moved at once, the large gradients of the random layers would
# damage the trained ones. So the heads come first, then the deep stages of the backbone, then everything, slowly.
#
# **Exercise 3.1: predict, run, explain.** Which share of the weights of the ResNet-50 model moves in the first stage ("heads"): a tenth, half, or nine
# tenths? And in the second?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
import keras

table = {}
for name in ("paper-resnet50", "compact"):
    with keras.StatelessScope(initialize_variables=False):  # only to be counted: no values
        network = nc.MaskRCNN.from_preset(name).network
    table[name] = {}
    for layers in ("heads", "4+", "all"):
        set_trainable(network, layers)
        table[name][layers] = count_trainable(network)
    parts = {layer.name: layer.count_params() for layer in network.layers}
    print(f"{name}: " + ", ".join(f"{part} {n / 1e6:.1f}" for part, n in parts.items()), "million")
    if name == "paper-resnet50":
        backbone = parts["backbone"]
course.show(figures.draw_moving(table))

# %% [markdown]
# **What was seen.** "Heads" (pyramid, RPN and heads) is nearly half of the 44.7 million weights of the whole Mask R-CNN; its ResNet-50 backbone has 23.6 million. The first fully connected layer of the box head alone, 7 x 7 x 256 inputs to 1024 outputs, has
# 12.8 million. From stage 4 up, almost everything moves: the deep stages of a ResNet are its widest. Even "all" leaves a little frozen: the running means and variances of BatchNorm, which
# gradients do not change.
#
# **Explain.** The paper's presets also keep the statistics of BatchNorm as they came (`train_norm=False`), with six images in a batch. Why? And why can `compact` not do the
# same?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The loaded filters expect the statistics that they were trained with, from many thousands of photographs. Six crops, often from one or two experiments, would replace them by noisier and less typical ones.
# `compact` starts from random weights: there is nothing to keep, so BatchNorm must learn.

# %% only="solution" tags=["nbval-check-output"]
shares = {
    name: {layers: moving / of for layers, (moving, of) in rows.items()}
    for name, rows in table.items()
}
course.claim(
    "the first stage moves 40 to 50% of the ResNet-50 model",
    0.4 < shares["paper-resnet50"]["heads"] < 0.5,
)
course.claim("the second moves more than 95%", shares["paper-resnet50"]["4+"] > 0.95)
course.claim('"all" leaves less than 1% frozen', 0.99 < shares["paper-resnet50"]["all"] < 1)
course.claim(
    "the backbone has 23.6 of 44.7 million weights",
    (round(backbone / 1e6, 1), round(table["paper-resnet50"]["all"][1] / 1e6, 1)) == (23.6, 44.7),
)
course.claim(
    "the paper's last rate is a tenth of its first",
    np.isclose(paper.training.stages[-1].rate, paper.training.stages[0].rate / 10),
)

# %% [markdown]
# ## Clipping
#
# Sometimes a batch gives a gradient many times longer than usual: one wrong box with a high loss. One such step can undo what many steps have learned. *Clipping by
# the global norm* scales the whole gradient, all layers together, to a length of at most 5.
#
# **Exercise 3.2: implement it.** Write `clip_by_global_norm(gradients, limit)` for a list of arrays. *Expected output:*
# `clip_by_global_norm: PASSED`.
#
# <details><summary>Hint</summary> The common norm is the square root of the sum of all squares, over all arrays. A gradient of zeros
# has none to divide by.</details>


# %%
def clip_by_global_norm(gradients, limit):
    """The same list of arrays, all scaled by one factor so that their common norm is at most ``limit``."""
    ### BEGIN SOLUTION
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    factor = min(1.0, limit / norm) if norm > 0 else 1.0
    return [gradient * factor for gradient in gradients]
    ### END SOLUTION


# %%
exercises.check_clip_by_global_norm(clip_by_global_norm)

# %% [markdown]
# Keras has three kinds of clipping with similar names: `clipvalue`, `clipnorm` (each variable by itself) and `global_clipnorm` (all together; what the paper's code base
# called "clipnorm"). The next cell applies each to one long gradient and prints by which angle the *direction* of the step changes. *Expect* one zero.

# %% tags=["nbval-check-output"]
long = [np.array([30.0, 40.0]), np.array([0.3, 0.4, 1.2])]  # two layers, the first one in trouble
limit = 5.0
norm = np.sqrt(sum((g**2).sum() for g in long))
clipped = {
    "clipvalue": [np.clip(g, -limit, limit) for g in long],
    "clipnorm": [g * min(1, limit / np.linalg.norm(g)) for g in long],
    "global_clipnorm": [g * min(1, limit / norm) for g in long],
}
before = np.concatenate(long)
for name, gradients in clipped.items():
    after = np.concatenate(gradients)
    cosine = before @ after / (np.linalg.norm(before) * np.linalg.norm(after))
    print(
        f"{name:<16} length {np.linalg.norm(after):6.3f}, turned by {np.degrees(np.arccos(min(cosine, 1.0))):5.1f} degrees"
    )

# %% [markdown]
# **What was seen.** Only clipping by the global norm keeps the direction. The others turn the step towards the layers whose gradients were not too long.
#
# ## Warm-up and cosine
#
# **Exercise 3.3: implement it.** Write `warmup_cosine(step, total, warmup, peak)`: from 0 to `peak` in a straight line over `warmup` steps, then half a cosine down to 0 at
# `total`. *Expected output:* `warmup_cosine: PASSED`.
#
# <details><summary>Hint</summary> With p running from 0 at the end of the warm-up to 1 at the end, half a cosine is
# <code>0.5 * (1 + cos(pi p))</code>.</details>


# %%
def warmup_cosine(step, total, warmup, peak):
    """Learning rate at a step: a straight line up to ``peak``, then half a cosine down to 0."""
    ### BEGIN SOLUTION
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / (total - warmup)
    return peak * 0.5 * (1 + np.cos(np.pi * progress))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
exercises.check_warmup_cosine(warmup_cosine)

# %% [markdown]
# ## Train, for real
#
# Twelve training images and two of the stages, of two short epochs each, from random weights: a rehearsal with all the parts of a real training. The curves are drawn again after each
# epoch. The training is *stopped after the second epoch*, where the next stage would begin, as if the laptop had been closed. (`ema=0.0` turns off an average of the weights over many steps that `compact`'s
# own schedule uses. There are too few steps for it here.)
#
# **Exercise 3.4: predict, run, explain.** From random weights, how will the total loss change in four short epochs: hardly, by a factor of two, or more?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
STEPS, CROP, BATCH = 6, 96, 2
recipe = nc.get_preset("compact")
recipe = dataclasses.replace(
    recipe,
    training=dataclasses.replace(
        recipe.training,
        batch_size=BATCH,
        crop=CROP,
        steps_per_epoch=STEPS,
        dtype="float32",
        ema=0.0,
        stages=(
            nc.StageConfig("heads", layers="heads", epochs=2, rate=1e-3),
            nc.StageConfig("all", layers="all", epochs=2, rate=1e-3),
        ),
    ),
)
few = dataset.subset(list(dataset.ids[:12]))
run = course.work_folder("rehearsal", fresh=True)

keras.utils.set_random_seed(7)
apprentice = nc.MaskRCNN.from_preset("compact")
live = figures.LiveCurves(stop_after=2)
history = nc.train(apprentice, few, preset=recipe, run=run, on_epoch=live, progress=False)
print(f"{len(history.rows)} epochs done, then: {history.stopped}")
interrupted = list(history.rows)

# %% [markdown]
# **What was seen.** The total loss falls from a high value: a random network gives bad boxes with high scores, and the first thing that it learns is that most boxes are background.
#
# ### What the run folder holds
#
# *Expect* the configuration, a log as text, and a checkpoint with weights, the state of the optimiser, the random state and the number of the epoch. Without any one of them a resumed run would differ.
# The checkpoint is larger than the weights alone, because the optimiser (AdamW) keeps two running means for each weight *that moves*: here only the heads move. Once everything moves, it is three times as large.

# %%
for path in sorted(p for p in run.rglob("*") if p.is_file()):
    print(f"{path.relative_to(run).as_posix():<28}{path.stat().st_size / 1e6:8.2f} MB")

# %% [markdown]
# ### Go on
#
# A new model object, with random weights again, stands for the next day. `resume=True` restores everything. *Expect* the curves to continue where they stopped.

# %%
del apprentice
course.free_memory()  # two networks with their optimisers need not fit into memory

apprentice = nc.MaskRCNN.from_preset("compact")
live = figures.LiveCurves(rows=history.rows, interrupted_after=2)
history = nc.train(
    apprentice, few, preset=recipe, run=run, resume=True, on_epoch=live, progress=False
)
print(
    f"{len(history.rows)} epochs in the log; the last one took the rate {history.rows[-1]['rate']:g}"
)

# %% [markdown]
# **What was seen.** The log continues after the interruption, and the first two epochs in it are the same as before. At a dashed line a stage lets more weights move and the optimiser starts again;
# a loss can rise there for an epoch.
#
# **Explain.** The first of these stages left a *random* backbone frozen. Why can the losses fall at all in that stage? And why does `compact`'s own schedule
# have one stage only, in which everything moves?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Random filters still respond to edges and brightness, and pyramid and heads learn to read them. Much of the first fall only means that most anchors are background. But
# a frozen random backbone limits what can be learned: freezing protects good weights, and random ones need no protection. Exact positions need features that only a trained backbone has.

# %% only="solution" tags=["nbval-check-output"]
sizes = {path.name: path.stat().st_size for path in run.rglob("*") if path.is_file()}
course.claim(
    "the total loss falls in four short epochs", history.rows[-1]["loss"] < history.rows[0]["loss"]
)
course.claim(
    "the resumed log begins with the two epochs from before",
    [r["loss"] for r in history.rows[:2]] == [r["loss"] for r in interrupted],
)
course.claim(
    "the log has four epochs",
    [r["epoch"] for r in history.rows]
    == [r["epoch"] for r in interrupted] + [interrupted[-1]["epoch"] + i for i in (1, 2)],
)

# %% [markdown]
# ## A minute against a long run
#
# The same image, seen by the network that you trained and by the shipped weights.
#
# **Exercise 3.5: predict, run, explain.** How many nuclei will your network find after a minute: none, a few, or hundreds, most of them wrong?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
from nucleus_course.course.numbers import f1_of_two

judge = nc.load_dataset(data.source, data.evaluation_split, progress=False)
record = course.pick_crowded(judge)
early = apprentice.predict(record.image, diameter="none").label_image()
course.show(draw_detections(record, early, what="detections after a minute"))

# %%
del apprentice
course.free_memory()

trained = course.find_model()
late = trained.predict(record.image, diameter="none").label_image()
course.show(draw_detections(record, late))

# %% [markdown]
# **What was seen.** A few dozen steps are only a beginning. After thousands of steps (the shipped weights) the outlines are near the annotation. From here on the course uses the shipped weights.
# [How `compact` was made](../docs/compact-recipe.md) says how they were trained, and what was tried without success.
#
# **Explain.** The losses fell a long way. Why is so little of it visible in the detections?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Most anchors and proposals are background, so the quickest way to a low class loss is to call everything background; and a detection is drawn only if it reaches the preset's score threshold. What separates nuclei from
# background, and where exactly the outlines are, is in the last part of the losses, which takes thousands of steps. A falling loss says that something is learned, not what.

# %% only="solution" tags=["nbval-check-output"]
course.claim(
    "the shipped weights find the nuclei better than a minute of training",
    f1_of_two(record.labels, late) > f1_of_two(record.labels, early),
)
course.claim(
    "most of their detections overlap a nucleus with an IoU above 0.5",
    f1_of_two(record.labels, late) > 0.5,
)

# %% [markdown]
# ## Overfit one image
#
# Before a long training comes a short test that costs seconds: can the network learn *one* image by heart? If not, something is broken (the loss, the targets, the data, the rate), and a long training would only
# hide it. Here the shipped weights learn one image that they did not see in training, in random crops and without any other augmentation. After each epoch, F1 (2 TP / (2 TP + FP + FN): 1 if every nucleus is found and nothing else; [notebook 4](04_evaluate.ipynb)) is measured at an IoU of 0.75 on this image and on others of the same size.
#
# It is also *fine-tuning* in its most extreme form: the shipped weights go on learning, from far too few images.
#
# **Exercise 3.6: predict, run, explain.** Draw two curves before you run the cell: F1 on the image that is learned, and F1 on images that are not. Where do they part?

# %% [markdown] only="exercise"
# *Your prediction:*


# %%
def mean_f1(model, records):
    """F1 at an IoU of 0.75, mean over records."""
    found = [model.predict(one.image, diameter="none").label_image() for one in records]
    return np.mean([f1_of_two(one.labels, of_one, 0.75) for one, of_one in zip(records, found)])


trained.thresholds = dataclasses.replace(trained.thresholds, flips=1)  # one view saves time


def fine_tune(model, images, unseen, rate, augment, epochs=4):
    """Train a model further on a few images; (epochs + 1, 3): F1 there, F1 on unseen images, loss."""
    stages = (nc.StageConfig("all", layers="all", epochs=epochs, rate=rate),)
    training = dataclasses.replace(recipe.training, stages=stages)
    plan = dataclasses.replace(recipe, training=training, augment=augment)
    curve = [(mean_f1(model, images), mean_f1(model, unseen), np.nan)]
    nc.train(
        model,
        images,
        preset=plan,
        progress=False,
        on_epoch=lambda row: curve.append(
            (mean_f1(model, images), mean_f1(model, unseen), row["loss"])
        ),
    )
    return np.array(curve)


same_size = [i for i in judge.ids if judge.sizes[i] == judge.sizes[record.id] and i != record.id]
same_size.sort(key=lambda i: judge.types[i] != record.type)  # of its own type first
unseen = judge.subset(same_size[:2])
still = nc.AugmentConfig(rotation=0, flip_horizontal=0, flip_vertical=0, blur_probability=0)
curves = {
    "one image": fine_tune(trained, judge.subset([record.id]), unseen, 1e-3, still),
}
course.show(figures.draw_fine_tuning(curves))

# %% [markdown]
# **What was seen.** On the one image F1 rises and the loss falls: the machinery works. On images that were not learned from, F1 does not rise with it. The curves part within seconds. From then on the network *overfits*: it
# learns *this image*, not nuclei. With ten images, augmented, and at a smaller rate the curves stay together longer ([fine-tuning](../docs/fine-tune.md)).
#
# **Explain.** Which curve tells you when to stop? May you choose the epoch by the curve on the unseen images and then report its value at that epoch?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** The curve on images that were not learned from: stop where it no longer rises (*early stopping*). But the epoch was then chosen *because* it looked best on these images, so its value there is flattering. Report on a third set that had no
# say in any choice.

# %% only="solution" tags=["nbval-check-output"]
gain = {name: curve[-1] - curve[0] for name, curve in curves.items()}
one_image = curves["one image"]
course.claim("on the one image F1 rises", gain["one image"][0] > 0)
course.claim(
    "it rises more there than on unseen images", gain["one image"][0] > gain["one image"][1]
)
course.claim("the loss on the one image falls", one_image[-1, 2] < one_image[1, 2])

# %% [markdown]
# ## The paper's runs, on a GPU
#
# On a free GPU of Google Colab, [this notebook](gpu/train_on_a_gpu.ipynb) trains on the real images within a time limit, step by step.
#
# The commands below are for a terminal on a machine with a GPU (install with `pip install ".[gpu]"` there). Nothing in the course needs them. A training can be interrupted at any moment and
# continues with `--resume`, as in the third line.
#
# ```
# nucleus-course download --to data/bbbc038
# nucleus-course train --data data/bbbc038 --preset paper-resnet50 --weights coco --backend jax --run runs/resnet50
# nucleus-course train --data data/bbbc038 --preset paper-resnet50 --backend jax --run runs/resnet50 --resume
# nucleus-course evaluate --data data/bbbc038 --split validation --weights runs/resnet50 --out runs/resnet50/report.json
# ```
#
# The same works with `paper-resnet101`. `--weights coco` fetches the weights that the paper started from. Without them, take the presets `paper-resnet50-scratch` and `paper-resnet101-scratch`, in which everything moves from the first step, for the reason that you
# just saw. `--minutes` trains for a fixed time. [The paper at full scale](../docs/paper-scale.md) has the paper's other experiments and its whole table as one command. The paper's 100 epochs of 597 images are about
# 60,000 crops of 512 x 512. So hours = 60,000 / (3,600 x images per second), and the log gives images per second from the first epoch on:
#
# | speed in the log | 100 epochs |
# | --- | --- |
# | 1 image/s | 17 hours |
# | 10 images/s | 1 hour 40 minutes |
# | 50 images/s | 20 minutes |
#
# A few processor cores reach the first row at best. For a GPU, the first epochs tell.
#
# Look at the log's `waiting` column too: the share of the time in which the GPU waited for input. If it is above a few percent, more `--workers` help more than a better GPU.
#
# **Exercise 3.7: explain.** Someone doubles the batch from 6 to 12 to use a larger GPU, and keeps everything else. Name two things of the schedule that change their meaning.

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** An epoch now has half as many steps, so 100 epochs make half as many updates, and a warm-up counted in steps lasts twice as many epochs. The gradient is averaged over twice as many images, so it is less noisy, and the same learning rate is
# more cautious than before (a common rule raises it in proportion to the batch). Clipping also acts less often, since averages have smaller extremes.

# %% [markdown]
# ## Quiz
#
# 1. *You load weights, but the last layers do not fit and stay random. You train everything at the full rate. What may happen in the first hundred steps?*
#    <details><summary>Answer</summary> The random layers send large gradients into trained ones and damage them. Hence heads first, or a warm-up.</details>
#
# 2. *The training loss still falls, F1 on unseen images has stood still for ten epochs. Go on?*
#    <details><summary>Answer</summary> No: what is learned now belongs to the training images. Stop, or change the data.</details>
#
# 3. *A run was interrupted. You have the weights, but not the optimiser. What differs if you go on?*
#    <details><summary>Answer</summary> The running means of the gradients begin at zero, the schedule and the random numbers at the start: another run, often with a bump in the loss.</details>
#
# ## What you have done
#
# - drawn two schedules and counted what moves in each stage;
# - implemented clipping and a warm-up with a cosine;
# - trained, stopped, looked into the run folder, and resumed;
# - compared a minute of training with a long run;
# - learned one image by heart, and seen the curves part;
# - read the commands for a GPU.
#
# **Three take-aways**
# 1. Freezing protects weights that are worth protecting. From scratch, let everything move.
# 2. Clip the global norm: it shortens a bad step without turning it.
# 3. A checkpoint is weights *and* optimiser *and* random state *and* position. Anything less is a different run.
#
# Previous: [2. Inside Mask R-CNN](02_inside_mask_rcnn.ipynb). Next: [4. Evaluate](04_evaluate.ipynb)
