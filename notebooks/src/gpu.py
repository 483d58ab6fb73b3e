# %% [markdown]
# # Train on a free GPU
#
# *What does half an hour of a GPU add?* Notebook 3 trains for a minute on a processor. Here you train `compact` on the real images, on a GPU that costs nothing: Google Colab lends one for a few hours.
# The training ends by itself before a time that you choose, and leaves a model folder that you take home.
#
# **What you will do**
# - ask for a GPU, and see that it is used;
# - download the images, and train within a time limit;
# - compare your model with the one that comes with the course, on the same images;
# - save the model, and go on if the session was cut.
#
# **What you need:** 45 minutes, most of it waiting, and [notebook 3](../03_train_in_stages.ipynb). On Colab: *Runtime, Change runtime type, T4 GPU*, before you run anything. On another machine with an
# NVIDIA GPU the cells run as they are, in a Jupyter with the course installed.
#
# **To run a cell**, click it and press Shift+Enter. Run the cells in order, from the top. Lines that begin with `!` are commands, as in a terminal.

# %% [markdown]
# ## Is there a GPU?
#
# *Expect* a device whose name is not `cpu` under `backend`. If there is none, the training below takes many times as long: change the runtime first.

# %%
import os

os.environ["KERAS_BACKEND"] = "jax"  # the fast backend on a GPU
# !nucleus-course doctor

# %% [markdown]
# ## The images
#
# BBBC038, about 90 MB, from its official address. A download that broke off goes on where it stopped.

# %%
# !nucleus-course download --to data/bbbc038

# %% [markdown]
# ## Train, within a limit
#
# `--time-limit` is in minutes, for everything the command does. It first measures how fast this machine is, and fits the schedule to the time that is left. `--pack` then chooses the thresholds, measures
# the model on the validation split and writes what you take home.
#
# **Predict** before you run the cell: the course's own `compact` was trained for longer, but on two processor cores. Will 25 minutes of a GPU come near it?

# %%
MINUTES = 25
# !nucleus-course train --data data/bbbc038/stage1_train.zip --preset compact --backend jax --run runs/mine --time-limit {MINUTES} --pack packed

# %% [markdown]
# If the session was cut in the middle, run the cell again with `--resume` at its end: the training goes on after its last whole epoch. Colab forgets `runs` when it takes the machine back. To be safe from that, put
# `--run` in a folder of your Google Drive.
#
# ## Look at the curves
#
# *Expect* losses that fall quickly, then slowly: the rate becomes small at the end of the schedule, however short it is. The validation split was scored once, at the end, for within a limit every minute is
# for training; the number is in `packed/report.json`. `--validate-every 5` would add a curve of it.

# %%
from nucleus_course import course, figures

course.show(figures.draw_learning_curve("runs/mine"))

# %% [markdown]
# ## Compare, on the same images
#
# Both models look at the validation split. The last lines are the paired comparison: the difference and its 95% interval. If the interval contains 0, these images cannot tell the two apart.

# %%
# !nucleus-course evaluate --data data/bbbc038/stage1_train.zip --split validation --backend jax --weights packed --against compact --out report.json

# %% [markdown]
# **Explain.** 53 of the 67 validation images are neighbours of training images. What does that do to both numbers, and what does it do to the comparison? ([Notebook 7](../07_does_it_hold_elsewhere.ipynb).)
#
# *Your explanation:*
#
# ## Take it home
#
# `packed` is a model folder: `--weights packed` in every command, `NUCLEUS_COURSE_WEIGHTS=packed` for the notebooks.

# %%
import shutil

archive = shutil.make_archive("packed", "zip", "packed")
try:
    from google.colab import files
except ImportError:
    print("the model is in", os.path.basename(archive))
else:
    files.download(archive)

# %% [markdown]
# ## What next
#
# Change *one* thing, train again into another `--run`, and compare: `--seed 2` (how much is chance?), `--augment plain`, `--split source-1-train` with `evaluate --split source-1-validation` (does it hold elsewhere?), or
# `--preset paper-resnet50 --weights coco` (the paper's network, which needs many hours: use a time limit, and `--resume`). Write down before each run what you expect and how large a difference you would believe.
