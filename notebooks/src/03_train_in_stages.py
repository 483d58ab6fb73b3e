# %% [markdown]
# # 3. Train in stages
#
# *What moves when, how fast, and how do I do it on a GPU?* The paper trains a large network in three stages over 100 epochs. Here you run the same three stages
# on the small network `compact` for a minute on whatever this machine has, interrupt them, go on, and then load weights from a long run. The code is the same;
# network, images and epochs are fewer or smaller.
#
# **What you will do**
# - draw the paper's schedule and `compact`'s, and count what moves in each stage;
# - implement gradient clipping and a warm-up schedule;
# - train for real, with live curves, stop in the middle and resume;
# - compare a minute of training with a long run;
# - read the commands that repeat the paper on a GPU.
#
# **What you will learn**
# - why heads come first *when the trunk is pretrained*, and why not otherwise;
# - what learning rate, clipping, weight decay and frozen BatchNorm each protect against;
# - what a run folder must hold so that an interruption costs nothing.
#
# **What you need:** 60 minutes, 2 GB of memory, any processor; about two minutes of it are computing. A GPU only to run the commands of the last section,
# which you can also just read.
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
# The presets carry their stages as data. *Expect* the paper's to be three steps at 0.001, 0.001 and 0.0001, listed here and drawn
# below beside `compact`'s, one smooth rise and fall.

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
# **What was seen.** The paper keeps a constant rate and divides it by ten for the last stage. (It gives 100 epochs and three stages, not how the epochs are divided: 20, 40 and 40 are this project's reading.) `compact` warms up over a few epochs and then follows half a
# cosine: it starts from random weights, where the first gradients are large and point anywhere. The lower rate at the end of both lets the weights settle instead of
# jumping about a good place. *Weight decay*, in the printed line, pulls every weight a little towards zero in each step, so that only those that the data keeps asking for grow
# large; it guards against learning single images by heart.
#
# ## What moves
#
# The paper's trunk arrives with weights learned on COCO's photographs; pyramid, RPN and heads fit another task. If all moved at once, the random heads' large gradients would
# damage the good trunk before the heads had learned anything. So: heads first, then the trunk's deep stages, then everything, slowly.
#
# **Exercise 3.1: predict, run, explain.** Of the weights of the ResNet-50 model, which share moves in the first stage ("heads"): a tenth, half, nine
# tenths? And in the second?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
table = {}
for name in ("paper-resnet50", "compact"):
    network = nc.MaskRCNN.from_preset(name).network
    table[name] = {}
    for layers in ("heads", "4+", "all"):
        set_trainable(network, layers)
        table[name][layers] = count_trainable(network)
    del network
course.show(figures.draw_moving(table))

# %% [markdown]
# **What was seen.** "Heads" is nearly half of ResNet-50's 44.7 million weights, since the first fully connected layer of the box head alone, 7 x 7 x 256 inputs to 1024 outputs, has
# 12.8 million. From stage 4 up it is almost everything: a ResNet's deep stages are its widest. Even "all" leaves a little frozen: BatchNorm's running means and variances, which are
# not learned by gradient.
#
# **Explain.** The paper's presets also keep BatchNorm's statistics as they came (`train_norm=False`), with six images in a batch. Why? And why can `compact` not do the
# same?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** A mean over six images is noisy, and at test time the running average of such noisy means differs from what training saw; the statistics of a million photographs are a better, stable estimate.
# `compact` starts from random weights: there are no statistics to keep, so BatchNorm must learn them, which works because each of its crops contributes thousands of
# positions to every mean.

# %% [markdown]
# ## Clipping
#
# Now and then a batch gives a gradient many times longer than usual: one wrong box with a high loss. One such step can undo what many steps have learned. *Clipping by
# the global norm* scales the whole gradient, all layers together, to a length of at most 5.
#
# **Exercise 3.2: implement it.** Write `clip_by_global_norm(gradients, limit)` for a list of arrays. *Expected output:*
# `clip_by_global_norm: PASSED - all 4 cases agree.`


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
# Keras has three kinds of clipping, and their names are close: `clipvalue`, `clipnorm` (each variable by itself) and `global_clipnorm` (all together; what the paper's code base
# called "clipnorm"). The next cell applies each to one long gradient and prints the angle by which the *direction* of the step changes. *Expect* one zero.

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
# **What was seen.** Only the global norm keeps the direction; the others turn the step towards the layers that were not in trouble.
#
# ## Warm-up and cosine
#
# **Exercise 3.3: implement it.** Write `warmup_cosine(step, total, warmup, peak)`: from 0 to `peak` in a straight line over `warmup` steps, then half a cosine down to 0 at
# `total`. *Expected output:* `warmup_cosine: PASSED - all 6 cases agree.`
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
# Twelve training images, three stages of two short epochs each, from random weights: a rehearsal in which every part of the real thing takes part. The curves are drawn again after each
# epoch. The training is *stopped after the third epoch*, in the middle of a stage, as if the laptop had been closed. (`ema=0.0` turns off what `compact`'s own recipe has,
# an average of the weights over many steps: here there are too few of them.)
#
# **Exercise 3.4: predict, run, explain.** From random weights, which loss will fall fastest? Which will still be high after six epochs?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
import keras

STEPS, CROP, BATCH = 6, 128, 2
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
            nc.StageConfig("stage 4 and up", layers="4+", epochs=2, rate=1e-3),
            nc.StageConfig("all, at a tenth", layers="all", epochs=2, rate=1e-4),
        ),
    ),
)
few = dataset.subset(list(dataset.ids[:12]))
run = course.work_folder("rehearsal", fresh=True)

keras.utils.set_random_seed(7)
apprentice = nc.MaskRCNN.from_preset("compact")
live = figures.LiveCurves(stop_after=3)
history = nc.train(apprentice, few, preset=recipe, run=run, on_epoch=live, progress=False)
print(f"{len(history.rows)} epochs done, then: {history.stopped}")

# %% [markdown]
# **What was seen.** Three points that fall steeply from very high values: random heads give wild boxes and confident nonsense, and the first thing they learn is to be moderate.
#
# ### What the run folder holds
#
# *Expect* the configuration, a log as text, and a checkpoint with weights, optimiser state, random state and the epoch's number: without any one of them a resumed run would differ.
# The checkpoint is about three times as large as the weights alone, because the optimiser (AdamW) keeps two running means for each of them.

# %%
for path in sorted(p for p in run.rglob("*") if p.is_file()):
    print(f"{path.relative_to(run).as_posix():<28}{path.stat().st_size / 1e6:8.2f} MB")

# %% [markdown]
# ### Go on
#
# A new model object, with random weights again, stands for a new day. `resume=True` brings back everything. *Expect* the curves to go on as if nothing had happened.

# %%
apprentice = nc.MaskRCNN.from_preset("compact")
live = figures.LiveCurves(rows=history.rows, interrupted_after=3)
history = nc.train(
    apprentice, few, preset=recipe, run=run, resume=True, on_epoch=live, progress=False
)
print(
    f"{len(history.rows)} epochs in the log; the last one took the rate {history.rows[-1]['rate']:g}"
)

# %% [markdown]
# **What was seen.** No jump at the dotted line. At a dashed line a stage lets more weights move and the optimiser starts afresh: there one or the
# other of the five losses may change its pace, and a single one may even rise while the total falls.
#
# **Explain.** These stages started from a *random* trunk that stayed frozen in the first of them. Why can the losses fall at all while the trunk is frozen, and why does `compact`'s own recipe
# have one stage only, in which everything moves?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Random filters still pass on edges and brightness, and pyramid and heads learn to read them; much of the first fall is only the learning to be moderate, and that most anchors are background. But
# a frozen random trunk caps what can be learned, and its time is wasted: freezing protects good weights, and random ones need no protection. Box losses stay highest, that of the RPN above all: fine
# position needs features that only a trained trunk has.

# %% [markdown]
# ## A minute against a long run
#
# The same image, detected by the apprentice and by the shipped weights.
#
# **Exercise 3.5: predict, run, explain.** How many nuclei will the apprentice find after a minute: none, a few, or hundreds, most of them nonsense?

# %% [markdown] only="exercise"
# *Your prediction:*

# %%
judge = nc.load_dataset(data.source, data.evaluation_split, progress=False)
record = course.pick_crowded(judge)
course.show(
    draw_detections(
        record, apprentice.predict(record.image).label_image(), what="detections after a minute"
    )
)

# %%
model = course.find_model()
course.show(draw_detections(record, model.predict(record.image).label_image()))

# %% [markdown]
# **What was seen.** A few dozen steps have barely begun; thousands (the shipped weights) give outlines near the annotation. From here on the course uses the shipped ones. How
# they were trained, and what was tried without success, is told in [how `compact` was made](../docs/compact-recipe.md).
#
# **Explain.** The losses had fallen a long way. Why is so little of it visible in the detections?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Most anchors and proposals are background, so the quickest way to a low class loss is to call everything background, and a detection must still reach the preset's score threshold to be drawn. What separates nuclei from
# background, and where exactly their outlines run, is in the last part of the losses, which takes thousands of steps. A falling loss says that something is learned, not what.

# %% [markdown]
# ## The paper's runs, on a GPU
#
# The commands below are for a terminal on a machine with a GPU (install with `pip install ".[gpu]"` there); nothing in the course needs them. A training can be interrupted at any moment and
# goes on with `--resume`, as in the third line.
#
# ```
# nucleus-course download --to data/bbbc038
# nucleus-course train --data data/bbbc038 --preset paper-resnet50 --weights coco --backend jax --run runs/resnet50
# nucleus-course train --data data/bbbc038 --preset paper-resnet50 --backend jax --run runs/resnet50 --resume
# nucleus-course evaluate --data data/bbbc038 --split validation --weights runs/resnet50 --out runs/resnet50/report.json
# ```
#
# and the same with `paper-resnet101`. `--weights coco` fetches the weights that the paper started from; without them, take the presets `paper-resnet50-scratch` and `paper-resnet101-scratch`, in which everything moves from the first step, for the reason that you
# just saw. `--minutes` trains for a fixed time, `--resume` goes on after any interruption, and [the paper at full scale](../docs/paper-scale.md) has the paper's side experiments and its whole table as one command. The paper's 100 epochs of 597 images are about
# 60,000 crops of 512 x 512. So hours = 60,000 / (3,600 x images per second), and the log prints images per second from the first epoch on:
#
# | speed in the log | 100 epochs |
# | --- | --- |
# | 1 image/s | 17 hours |
# | 10 images/s | 1 hour 40 minutes |
# | 50 images/s | 20 minutes |
#
# A few processor cores reach the first row at best. Which row a GPU belongs to, its first epochs tell.
#
# Look at the log's `waiting` column too: the share of the time in which the GPU waited for input. Above a few percent, more `--workers` help more than a better GPU.
#
# **Exercise 3.6: explain.** Someone doubles the batch from 6 to 12 to use a larger GPU, and keeps everything else. Name two things of the schedule that change their meaning.

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** An epoch now has half as many steps, so 100 epochs make half the updates, and any warm-up counted in steps lasts twice as many epochs. The gradient is averaged over twice as many images, so it is less noisy, and the same learning rate is
# more cautious than it was (a common rule raises it in proportion to the batch). Clipping also bites less often, since averages have smaller extremes.

# %% [markdown]
# ## What you have done
#
# - drawn two schedules and counted what moves in each stage;
# - implemented clipping and a warm-up with a cosine;
# - trained, stopped, looked into the run folder, and resumed;
# - compared a minute of training with a long run;
# - read the commands for a GPU.
#
# **Three take-aways**
# 1. Freezing protects weights that are worth protecting; from scratch, let everything move.
# 2. Clip the global norm: it shortens a bad step without turning it.
# 3. A checkpoint is weights *and* optimiser *and* random state *and* position; anything less is a different run.
#
# Previous: [2. Inside Mask R-CNN](02_inside_mask_rcnn.ipynb). Next: [4. Evaluate](04_evaluate.ipynb)
