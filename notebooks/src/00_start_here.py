# %% [markdown]
# # 0. Start here
#
# *How many nuclei are in this image, and which pixels belong to which?* A biologist answers by
# looking. In this course you build, train, evaluate and question a network that answers too: Mask R-CNN,
# adapted to cell nuclei by [Johnson (2018)](https://arxiv.org/abs/1805.00500).
#
# **What you will do**
# - check that this machine has what the course needs;
# - see the task in one figure, and a trained network's answer in another;
# - read the paper in one page;
# - solve a first exercise, to learn how the exercises work.
#
# **What you will learn**
# - what *instance* segmentation adds to foreground segmentation;
# - what exactly a bounding box is;
# - which notebook answers which question.
#
# **What you need:** 20 minutes, 2 GB of memory, any processor. About one minute of it is computing.
# You should know Python with NumPy arrays, and what training a network means. No biology is needed.
#
# Previous: none. Next: [1. Inspect the data](01_inspect_the_data.ipynb). Technical words are explained in
# the [glossary](../docs/glossary.md). All answers are in the
# [solution](solutions/00_start_here.ipynb) of this notebook.
#
# Each open notebook holds up to 1.5 GB of memory, and closing its tab does not free it. Before you open the
# next one, choose *Kernel, Shut Down Kernel*. (The square in the toolbar only interrupts a running cell.)

# %% [markdown]
# ## Check the set-up
#
# The next cell runs `nucleus-course doctor`, which looks at processors, memory, packages, the Keras backend,
# data and weights. *Expect* a list. A line that needs your attention says what to do.

# %% tags=["nbval-ignore-output"]
from nucleus_course import course

course.check_setup()
# %% [markdown]
# Each notebook uses the real images if it finds them:
# [BBBC038](https://bbbc.broadinstitute.org/BBBC038), from the 2018 Data Science Bowl. The corrected training set has
# 664 microscopy images in which experts outlined every nucleus (Caicedo et al. 2019). Otherwise it uses a small
# *synthetic* sample: images drawn by a program, of the same five types. The text is true for both; the numbers differ.

# %% tags=["nbval-ignore-output"]
import nucleus_course as nc

data = course.find_data()
dataset = nc.load_dataset(data.source, data.evaluation_split, progress=False)
print(f"{len(dataset)} images that the course's network was not trained on.")

# %% [markdown]
# ## The task in one figure
#
# **Exercise 0.1: predict, run, explain.** The next figure shows an image, its *foreground* (pixels that
# belong to any nucleus) and its *instances* (each nucleus by itself). Someone wants to count nuclei by
# counting the connected pieces of the foreground. Will the count be too high, too low, or right? By
# how much in a crowded image: 1%, 10%, or more?

# %% [markdown] only="exercise"
# *Your prediction (double-click to write):*

# %% tags=["nbval-ignore-output"]
from nucleus_course.figures import draw_task

record = course.pick_crowded(dataset)
course.show(draw_task(record))

# %% [markdown]
# **What was seen.** The foreground has fewer connected pieces than there are nuclei: where two nuclei
# touch, their pixels form one piece. In this image the count is more than 10% too low.
#
# **Explain.** A network labels every pixel "nucleus" or "background" with 100% accuracy, and the
# count is still wrong. What is missing from its output? Why can better training not supply it?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** Too low. The foreground says *whether* a pixel is nucleus, not *which* nucleus: two touching
# nuclei and one nucleus with two lobes have the same foreground. Identity is not part of the output, so training cannot
# put it there. Either the output must change (a border class, or distances, as U-Nets for nuclei have), or
# objects must be found first and segmented one by one, as Mask R-CNN does.

# %% only="solution" tags=["nbval-check-output"]
from skimage.measure import label

pieces = label(record.labels > 0, connectivity=1).max()
course.claim("the foreground has fewer connected pieces than nuclei", pieces < record.count)
course.claim("the count of pieces is more than 10% too low", pieces < 0.9 * record.count)

# %% [markdown]
# ## The network's answer
#
# Mask R-CNN proposes boxes, decides which of them hold a nucleus, and draws a mask in each. A *score* from 0 to 1 says how confident it is. The
# course comes with the weights of a small one, `compact`. It has about 4 million parameters, was trained on BBBC038's
# training images, and needs no GPU.
#
# **Exercise 0.2: predict, run, explain.** Will the network report more nuclei than the annotation,
# fewer, or exactly as many? Where in the image above will its mistakes be?

# %% [markdown] only="exercise"
# *Your prediction:*

# %% tags=["nbval-ignore-output"]
from nucleus_course.figures import draw_detections

model = course.find_model()
detections = model.predict(record.image)
found = detections.label_image()
course.show(draw_detections(record, found))

# %% [markdown]
# **What was seen.** The detections are separate objects, even where nuclei touch. Each has its own box, score
# and mask, so they can be counted, and their number is nearer to the annotation than the number of pieces was. Equal counts
# would not prove that the outlines are right; [notebook 4](04_evaluate.ipynb) measures that.
#
# **Explain.** Find one mistake. Did the network miss a nucleus, invent one, or divide two touching nuclei in the wrong
# place? Is the annotation certainly right there?

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** It depends on the image and the weights. The usual places are nuclei that touch, that are dim, or that the
# edge of the image cuts. A missed nucleus and an invented one cancel in the count, so the count hides both. And the
# annotation is a person's drawing: in dim or crowded places two people would not draw the same outlines.

# %% only="solution" tags=["nbval-check-output"]
from nucleus_course.course.numbers import f1_of_two

number = len(set(found[found > 0].tolist()))
course.claim(
    "the number of detections is nearer to the annotation than the number of pieces",
    abs(number - record.count) < abs(pieces - record.count),
)
course.claim(
    "most detections overlap a nucleus with an IoU above 0.5", f1_of_two(record.labels, found) > 0.5
)

# %% [markdown]
# ## The paper in one page
#
# J. W. Johnson, *Adapting Mask-RCNN for Automatic Nucleus Segmentation*, 2018.
#
# | question | the paper's answer |
# | --- | --- |
# | Data | BBBC038v1 stage 1: 664 images for training and validation; 65 held out |
# | Network | Mask R-CNN (He et al. 2017) with a ResNet-50 or ResNet-101 backbone and a feature pyramid (Lin et al. 2017), starting from weights trained on COCO's everyday objects |
# | Input | images upsampled by two, channel means subtracted |
# | Augmentation | random crops, rotations, Gaussian blur, horizontal and vertical flips |
# | Training | three stages: heads; ResNet stage 4 and up; everything at a tenth of the rate. 100 epochs in all |
# | Optimiser | SGD with momentum 0.9, rate 0.001 then 0.0001, batches of 6, gradients clipped to 5.0, weight decay 0.0001 |
# | Tried, no help | mirroring the images' edges ([notebook 5](05_error_analysis.ipynb) tests it again) |
# | Result, ResNet-50 | AP 56.06, mask average IoU 66.98 |
# | Result, ResNet-101 | AP 59.40, mask average IoU 70.54 |
#
# The paper does not say which images were its validation data, which program computed AP, or how the
# "mask average IoU" was averaged. [Notebook 4](04_evaluate.ipynb) shows that reasonable definitions of one name can
# differ by many points. So this course states its split, prints every definition, and claims no record.
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
# | [7. Does it hold elsewhere?](07_does_it_hold_elsewhere.ipynb) | Is a good score here worth anything on images from elsewhere? |
#
# Then: [a training on a GPU](gpu/train_on_a_gpu.ipynb), and [a project of your own](../docs/capstone.md).

# %% [markdown]
# ## How the exercises work
#
# There are three kinds: *predict, run, explain*, as above; *explain*, a question to think or talk about; and
# *implement it*, a function for you to write, followed by a cell that checks it. The check says
# `PASSED`, `NOT ATTEMPTED`, or `NOT YET` with the first case that fails: the input, what was expected, and what
# your function returned. An endless loop is stopped after a few seconds. No later cell depends on your answers, so you
# can skip any exercise.
#
# Here is the check of a wrong answer, so that you recognise it. The function returns the box of the whole image.

# %% tags=["nbval-check-output"]
from nucleus_course.course.exercises import check_box_of


def box_of_everything(mask):
    return 0, 0, mask.shape[0], mask.shape[1]


check_box_of(box_of_everything)

# %% [markdown]
# The failing case shows a mask with a single `#`, the expected box `(1, 3, 2, 4)`, and the box that the function
# returned.
#
# **Exercise 0.3: implement it.** A *box* in this course is `(y1, x1, y2, x2)` in pixels. Pixel (r, c) covers
# the square from (r, c) to (r+1, c+1). So the box of a single pixel at row 1, column 3 is (1, 3, 2, 4), with an
# area of 1. Write `box_of(mask)`, the smallest box around the True pixels of a mask. *Expected output:*
# `box_of: PASSED`.
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
# The library has such a function for a whole label image (0 is background, 1 to n are nuclei).
#
# **Exercise 0.4: predict, run, explain.** Which two boxes will the next cell print, and how large are
# they? Which of them holds pixels that do not belong to its nucleus?

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
# **What was seen.** Nucleus 1 has five pixels and a box of six pixels. Nucleus 2 is a single pixel, and so is its box.
#
# **Explain.** Why is a box alone not enough? Name one measurement that a box gives, and one that only a mask gives.

# %% [markdown] only="exercise"
# *Your explanation:*

# %% [markdown] only="solution"
# **Answer.** A box holds background too, and boxes of neighbouring nuclei can overlap although the nuclei do not.
# Boxes give a count, positions and rough sizes. Area, shape, outline and the mean intensity of a stain need the mask.

# %% only="solution" tags=["nbval-check-output"]
from nucleus_course.geometry.boxes import iou_matrix

overlaps = np.triu(iou_matrix(record.boxes, record.boxes), 1)
course.claim("in the image above, boxes of different nuclei overlap", (overlaps > 0).any())
course.claim(
    "nucleus 1 has five pixels in a box of six",
    ((labels == 1).sum(), np.prod(boxes[0][2:] - boxes[0][:2])) == (5, 6),
)

# %% [markdown]
# ## Quiz
#
# 1. *Two nuclei touch and are marked as one. Which is wrong: the foreground, the count, or both?*
#    <details><summary>Answer</summary> The count, and each outline. The foreground can be perfect.</details>
#
# 2. *A box is (10, 20, 14, 26). How many pixels has it, and is row 14 inside?*
#    <details><summary>Answer</summary> 4 x 6 = 24 pixels. Row 14 is not inside: boxes are half-open.</details>
#
# 3. *Why does a mask come with a score?*
#    <details><summary>Answer</summary> So that you can choose how sure a detection must be, and so that detections can be ranked.</details>
#
# ## What you have done
#
# - checked the set-up and chosen the data;
# - seen the task, and one answer to it;
# - read the paper in one page;
# - solved a first exercise.
#
# **Three take-aways**
# 1. Instance segmentation asks *which* nucleus each pixel belongs to; foreground alone cannot say.
# 2. A box is half-open, `(y1, x1, y2, x2)`, and a pixel is a unit square.
# 3. A number without its split and its definition says little.
#
# Previous: none. Next: [1. Inspect the data](01_inspect_the_data.ipynb)
#
# *References.* Johnson, [arXiv:1805.00500](https://arxiv.org/abs/1805.00500), 2018. He et al., *Mask R-CNN*,
# [arXiv:1703.06870](https://arxiv.org/abs/1703.06870), 2017. Lin et al., *Feature Pyramid Networks*,
# [arXiv:1612.03144](https://arxiv.org/abs/1612.03144), 2017. Ren et al., *Faster R-CNN*,
# [arXiv:1506.01497](https://arxiv.org/abs/1506.01497), 2015. Caicedo et al., *Nucleus segmentation across imaging
# experiments: the 2018 Data Science Bowl*, [Nature Methods 16](https://doi.org/10.1038/s41592-019-0612-7), 2019.
