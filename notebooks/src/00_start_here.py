# %% [markdown]
# # 0. Start here
#
# *How many nuclei are in this picture, and which pixels belong to which?* A biologist answers by
# looking. This course builds, trains, measures and questions a network that answers too: Mask R-CNN,
# adapted to cell nuclei by [Johnson (2018)](https://arxiv.org/abs/1805.00500).
#
# **What you will do**
# - check that this machine has what the course needs;
# - see the task in one picture, and a trained network's answer in another;
# - read the paper in one page;
# - solve a first exercise, to learn how the exercises work.
#
# **What you will learn**
# - what *instance* segmentation asks for that finding foreground does not;
# - what a bounding box is here, to the half pixel;
# - which notebook answers which question.
#
# **What you need:** 20 minutes, 2 GB of memory, any processor; about one minute of it is computing.
#
# Previous: none. Next: [1. Inspect the data](01_inspect_the_data.ipynb). Words you do not know are in
# the [glossary](../docs/glossary.md); this notebook with every answer filled in is in
# [solutions](solutions/00_start_here.ipynb).

# %% [markdown]
# ## Check the set-up
#
# The next cell asks `nucleus-course doctor` what it finds: processors, memory, packages, the Keras
# backend, data, weights. *Expect* a list in which every line says `ok` or `note`; a line that says
# `mend` comes with the command that mends it.

# %% tags=["nbval-ignore-output"]
from nucleus_course import course

course.check_setup()
# %% [markdown]
# Every notebook now decides which images to use. The real ones are
# [BBBC038](https://bbbc.broadinstitute.org/BBBC038), from the 2018 Data Science Bowl: the corrected training set has
# 664 microscopy images in which experts outlined every nucleus (Caicedo et al. 2019). Where they are not on this
# machine, a small *synthetic* sample stands in, drawn by a program in the same five looks. The text of the
# course holds for both; the numbers differ.

# %% tags=["nbval-ignore-output"]
import nucleus_course as nc

data = course.find_data()
dataset = nc.load_dataset(data.source, data.evaluation_split, progress=False)
print(f"{len(dataset)} images that the course's network was not trained on.")

# %% [markdown]
# ## The task in one picture
#
# **Exercise 0.1: predict, run, explain.** The next figure shows an image, its *foreground* (pixels that
# belong to any nucleus) and its *instances* (each nucleus by itself). Someone proposes to count nuclei by
# counting the connected pieces of the foreground. Will that give too many, too few, or the right number? By
# how much in a crowded image: 1%, 10%, a third?

# %% [markdown] only="exercise"
# *Your prediction (double-click to write):*

# %% tags=["nbval-ignore-output"]
from nucleus_course.figures import draw_task

record = course.pick_crowded(dataset)
course.show(draw_task(record))

# %% [markdown]
# **What was seen.** The foreground has fewer connected pieces than there are nuclei: wherever two nuclei
# touch, their pixels form one piece. The picture's caption says how many were lost in this image.
#
# **Explain.** A network that labels every pixel "nucleus" or "background" with 100% accuracy still
# miscounts. What is missing from its answer, and why can no better training of that network supply it?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Too few, by the number in the caption. The foreground says *whether* a pixel is nucleus, never *which* nucleus: two touching
# nuclei and one bilobed nucleus have the same foreground. Identity is not in the output, so no training can
# put it there. Either the output must change (a border class, distances, as in the U-Net family), or objects
# must be found first and cut out one by one, which is what Mask R-CNN does.

# %% [markdown]
# ## The network's answer
#
# Mask R-CNN proposes boxes, decides which of them hold a nucleus, and draws a mask in each. The
# course ships weights of a small one (`compact`, about 4 million parameters) that was trained on BBBC038's
# training images and needs no GPU.
#
# **Exercise 0.2: predict, run, explain.** Before you run the cell: will the network report more nuclei than the annotation,
# fewer, or exactly as many? And where in the image above will its mistakes be?

# %% [markdown] only="exercise"
# *Your prediction:*

# %% tags=["nbval-ignore-output"]
from nucleus_course.figures import draw_detections

model = course.find_model()
detections = model.predict(record.image)
course.show(draw_detections(record, detections.label_image()))

# %% [markdown]
# **What was seen.** The detections are separate objects, also where nuclei touch: each has its own box, score
# and mask, so counting them is counting. The caption compares the two numbers. Equal counts would not prove the
# outlines right, and different ones do not say which nuclei are wrong; [notebook 4](04_evaluate.ipynb)
# makes both precise.
#
# **Explain.** Find one mistake. Did the network miss a nucleus, invent one, or cut two that touch in the wrong place? Is the
# annotation certainly right there?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** It depends on the image and the weights; the usual places are nuclei that touch, that are dim, or that the
# edge cuts. A miss and an invention in one image cancel in the count, so the count alone hides both. And the annotation is
# a person's drawing: in dim or crowded places two people would not draw the same.

# %% [markdown]
# ## The paper in one page
#
# J. W. Johnson, *Adapting Mask-RCNN for Automatic Nucleus Segmentation*, 2018.
#
# | question | the paper's answer |
# | --- | --- |
# | Data | BBBC038v1 stage 1: 664 images for training and validation; 65 held out |
# | Network | Mask R-CNN (He et al. 2017) with a ResNet-50 or ResNet-101 trunk and a feature pyramid (Lin et al. 2017), starting from weights trained on COCO's everyday objects |
# | Input | images upsampled by two, channel means subtracted |
# | Augmentation | random crops, rotations, Gaussian blur, horizontal and vertical flips |
# | Training | three stages: heads; ResNet stage 4 and up; everything at a tenth of the rate. 100 epochs in all |
# | Optimiser | SGD with momentum 0.9, rate 0.001 then 0.0001, batches of 6, gradients clipped to 5.0, weight decay 0.0001 |
# | Tried, no help | mirroring the images' edges ([notebook 5](05_error_analysis.ipynb) tests it again) |
# | Result, ResNet-50 | AP 56.06, mask average IoU 66.98 |
# | Result, ResNet-101 | AP 59.40, mask average IoU 70.54 |
#
# What the paper does not say: which images were its validation data, which program computed AP, and how the
# "mask average IoU" was averaged. Fair readings of the same name can lie many points apart, as
# [notebook 4](04_evaluate.ipynb) shows. So this course states its split, prints every definition, and calls
# nothing a record.
#
# ## The map of the course
#
# | notebook | question |
# | --- | --- |
# | **0. Start here** | What is the task? |
# | [1. Inspect the data](01_inspect_the_data.ipynb) | What is in the images, and can the network's representation express it? |
# | [2. Inside Mask R-CNN](02_inside_mask_rcnn.ipynb) | How does a picture become masks, step by step? |
# | [3. Train in stages](03_train_in_stages.ipynb) | What moves when, how fast, and how do I do it on a GPU? |
# | [4. Evaluate](04_evaluate.ipynb) | What do AP, IoU and the others measure, and how sure are we? |
# | [5. Error analysis](05_error_analysis.ipynb) | Where does it fail, what does that cost, does an idea help? |
# | [6. Your own images](06_your_own_images.ipynb) | How do I use it on my images, and when may I trust it? |

# %% [markdown]
# ## How the exercises work
#
# There are three kinds: *predict, run, explain* as above; *explain*, a question to think or talk about; and
# *implement it*: a function with a stub for you to fill, followed by a cell that checks it. The check says
# `PASSED`, `NOT ATTEMPTED`, or `NOT YET` with the first case that fails: its input, what was expected, what
# your function gave. Nothing later depends on your answers, so you can skip any exercise and go on.
#
# Here is a check of a wrong answer, so that you know the look of it. The function returns the whole image's box.

# %% tags=["nbval-check-output"]
from nucleus_course.course.exercises import check_box_of


def box_of_everything(mask):
    return 0, 0, mask.shape[0], mask.shape[1]


check_box_of(box_of_everything)

# %% [markdown]
# The failing case shows a mask with a single `#`, the box that was expected, `(1, 3, 2, 4)`, and the box that
# came back.
#
# **Exercise 0.3: implement it.** A *box* in this course is `(y1, x1, y2, x2)` in pixels. Pixel (r, c) covers
# the square from (r, c) to (r+1, c+1), so the box of a single pixel at row 1, column 3 is (1, 3, 2, 4), with an
# area of 1. Write `box_of(mask)`, the smallest box around the True pixels of a mask. *Expected output:*
# `box_of: PASSED - all 3 cases agree.`
#
# <details><summary>Hint</summary> <code>np.nonzero(mask)</code> gives the rows and the columns of the True pixels.
# </details>

# %%
import numpy as np


def box_of(mask):
    """The box (y1, x1, y2, x2) of a mask, bool (H, W) with at least one True pixel."""
    ### BEGIN SOLUTION
    rows, columns = np.nonzero(mask)
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    ### END SOLUTION


# %% tags=["nbval-check-output"]
check_box_of(box_of)

# %% [markdown]
# The library has the same function for a whole label image (0 is background, 1 to n are nuclei).
#
# **Exercise 0.4: predict, run, explain.** Which two boxes will the next cell print for the label image in it, and how large are
# they? Which of the two boxes holds pixels that are not of its nucleus?

# %% [markdown] only="exercise"
# *Your prediction:*

# %% tags=["nbval-check-output"]
labels = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 2]])
ids, boxes = nc.boxes_from_labels(labels)
for i, box in zip(ids, boxes):
    print(
        f"nucleus {i}: box {box.tolist()}, area of the box {(box[2] - box[0]) * (box[3] - box[1]):.0f} px"
    )

# %% [markdown]
# **What was seen.** Nucleus 1 has five pixels and a box of six; the box of nucleus 2 is its one pixel.
#
# **Explain.** Why is a box alone not an answer to the
# task? Name one measurement that a box gives and one that only a mask gives.

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** A box holds background too, and the boxes of neighbouring nuclei overlap even where the nuclei do not.
# A box gives a count and a rough position and size; area, shape, outline and the mean intensity of a stain need
# the mask.

# %% [markdown]
# ## What you have done
#
# - checked the set-up and chosen the data;
# - seen the task, and one answer to it;
# - read the paper in one page;
# - solved a first exercise.
#
# **Three take-aways**
# 1. Instance segmentation asks *which* nucleus each pixel belongs to; foreground alone cannot say.
# 2. A box is half-open, `(y1, x1, y2, x2)`, and a pixel is a unit square: no "+1" and "-1" anywhere else.
# 3. A number without its split and its definition says little, the paper's included.
#
# Previous: none. Next: [1. Inspect the data](01_inspect_the_data.ipynb)
#
# *References.* Johnson, [arXiv:1805.00500](https://arxiv.org/abs/1805.00500), 2018. He et al., *Mask R-CNN*,
# [arXiv:1703.06870](https://arxiv.org/abs/1703.06870), 2017. Lin et al., *Feature Pyramid Networks*,
# [arXiv:1612.03144](https://arxiv.org/abs/1612.03144), 2017. Ren et al., *Faster R-CNN*,
# [arXiv:1506.01497](https://arxiv.org/abs/1506.01497), 2015. Caicedo et al., *Nucleus segmentation across imaging
# experiments: the 2018 Data Science Bowl*, [Nature Methods 16](https://doi.org/10.1038/s41592-019-0612-7), 2019.
