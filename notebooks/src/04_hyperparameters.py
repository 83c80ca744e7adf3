# %% [markdown]
# # 4 The hyperparameter exercise
#
# A network learns its weights from the images. You decide everything else before the training: the number of layers,
# the number of epochs, the learning rate. In this lesson you write the training loop, run it at every point of a grid,
# and choose based on what you measured rather than on what you hoped for.
#
# **After this lesson you can**
#
# - write a training loop and an evaluation, and explain what each line does;
# - search for good hyperparameters with a fair comparison, and stop and resume the search without losing results;
# - explain what learning rate, batch size and weight decay did, choose a point by its validation accuracy, and report a
#   test accuracy that means something.
#
# **Time:** 120 minutes, of which about 20 are computing time. **Prerequisites:** lessons 1 to 3. With a GPU you can use
# more images.

# %% [markdown]
# ## The tools of this lesson

# %%
import textwrap
import time
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
import torch.nn.functional as F

from cnnlesson import reference, report
from cnnlesson.checks import hyperparameters as check
from cnnlesson.data import Batches, split, take
from cnnlesson.experiments.trial import run as package_run
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.noise import differences, standard_error, verdict
from cnnlesson.notebook import TINY, load_images, say_device
from cnnlesson.plots import plot_grid, plot_images, plot_trials, plot_weight_decay, show
from cnnlesson.reference import circumstances, images_digest
from cnnlesson.results import last_epochs
from cnnlesson.search import GridSearch
from cnnlesson.training import Epoch, evaluate, train, train_one_epoch
from cnnlesson.widgets import explore_results, live_board

device = say_device()

# %% [markdown]
# Choose the images and how many to use; 0 means the number that suits this device. `shapes` is a synthetic data set
# that is generated in about a second. `eurosat` (satellite images, 94 MB) and `tiny-imagenet` (248 MB) consist of
# photographs, which are downloaded the first time. TinyImageNet has 200 classes and needs a GPU: the few images that a
# CPU can train on are too few per class.
#
# The results are small files in `FOLDER`. Colab deletes its disk when the runtime ends, so mount your Drive there
# (`from google.colab import drive; drive.mount("/content/drive")`) and set a folder on it, such as
# `/content/drive/MyDrive/lesson4`. `CHECKPOINTS` is for the state of unfinished trials and of the best one.
# These files are large (460 MB for AlexNet) and rewritten after each epoch: leave them on the runtime's own disk.

# %%
DATA = "shapes"  # @param ["shapes", "eurosat", "tiny-imagenet"]
NUM_IMAGES = 0  # @param {type:"integer"}
EPOCHS = 0  # @param {type:"integer"}
FOLDER = "results/lesson4"  # @param {type:"string"}
CHECKPOINTS = "results/lesson4"  # @param {type:"string"}

NUM_IMAGES = NUM_IMAGES or (1_000 if device.type == "cpu" else 20_000)
EPOCHS = EPOCHS or 5
SEED = 0
if TINY:
    NUM_IMAGES, EPOCHS = 60, 1
    temporary = TemporaryDirectory()  # deleted when the notebook is closed
    FOLDER = CHECKPOINTS = temporary.name

LEARNING_RATES = [0.1, 0.001] if TINY else [0.1, 0.001, 0.0001]
BATCH_SIZES = [16] if TINY else [16, 32, 64]
WEIGHT_DECAY = 0.0005  # in the grid
DECAYS = [0.0, 0.0005] if TINY else [0.0, 0.0005, 0.05]  # at the grid's best point

images = load_images(DATA)
num_classes = len(images.train.classes)
show(plot_images(images.train[torch.linspace(0, len(images.train) - 1, 12).long()]))
images.train

# %% [markdown]
# ## How to find good hyperparameters?
#
# This is the list on the slide, and where each item appears in this lesson:
#
# | Hyperparameter | Here | The trade-off |
# | --- | --- | --- |
# | network architecture (num layers, hidden layer, activation) | `build_model` | what it can learn, against time |
# | number of iterations (epochs) | `EPOCHS` | a better fit, against time and eventually overfitting |
# | learning rate(s) | `SGD(lr=...)` | fast progress, against steps that overshoot |
# | regularization: weight decay | `SGD(weight_decay=...)` | the fit to training images, against new images |
# | dropout, augmentation | `AlexNet(dropout=...)`, `Batches(augment=True)` | the same, and both need more steps |
# | batch size | `Batches(batch_size=...)` | smooth gradients and a busy GPU, against fewer steps per epoch |
#
# Momentum, the initial weights and the image size are hyperparameters too; here they stay fixed. Augmentation is off,
# so that you see the effect of weight decay by itself.
#
# A grid tries all combinations, and combinations multiply.
#
# **Predict, then run:** how many networks would you have to train for three values of each of the six rows above?

# %%
print("three rows with three values each:", len(list(product(range(3), repeat=3))), "networks")
print("six rows with three values each:", len(list(product(range(3), repeat=6))), "networks")

# %% [markdown]
# So the grid of this exercise varies only two of them: the learning rate (0.1, 0.001, 0.0001) and the batch size (16,
# 32, 64). You then try weight decays only at the best point. This is cheaper, but it can miss a point that is good only
# in combination.

# %% [markdown]
# ## Split your data
#
# This is the first advice on the slide. There are three parts, with three uses:
#
# - **training**: the network learns its weights from it;
# - **validation**: you use it to choose the hyperparameters;
# - **test**: you never use it for a choice. You evaluate on it once, at the end.

# %%
train_set, val_set = split(take(images.train, NUM_IMAGES, seed=SEED), (0.8, 0.2), seed=SEED)
for name, part in (("training", train_set), ("validation", val_set), ("test", images.test)):
    print(f"{name:10}  {part}")
print(f"chance level: {1 / num_classes:.1%}; one more validation image: {1 / len(val_set):.2%}")

# %% [markdown]
# The last number is the smallest difference in accuracy that you can measure. A difference of a few images means
# nothing.

# %% [markdown]
# ## The training loop
#
# One pass over the training images is an *epoch*; an update with one batch is a *step*. A step has five parts: compute
# the logits, compute the loss, clear the old gradients, go backward, update the weights.
#
# **Predict, then run:** this cell calls backward twice and clears nothing in between. What is the second number?

# %%
weight = torch.tensor(2.0, requires_grad=True)
for _ in range(2):
    loss = weight**2  # its gradient is 2 · weight = 4
    loss.backward()
    print(weight.grad)

# %% [markdown]
# Gradients add up until you clear them.
#
# A network also has two modes. In `model.train()`, dropout zeroes some values, and batch norm uses the mean and
# variance of the batch. In `model.eval()`, dropout is off, and batch norm uses its running mean and variance.
#
# ### Exercise: student_train_one_epoch
#
# **Difficulty:** medium · **Time:** 15 minutes
#
# Train the network with one step per batch. Return the mean loss over all **images**. Images and labels are already on
# the network's device. The last batch may be smaller than the others.
#
# <details><summary>Hint 1</summary>`F.cross_entropy(logits, labels)` is the mean over one batch. It takes logits, the
# output of the network.</details>
# <details><summary>Hint 2</summary>For the mean over images you need two sums: the losses of all images, and the number
# of images. How do you get the sum of the losses of one batch from their mean?</details>
# <details><summary>Hint 3</summary>`loss.item()` is a plain number. If you add up tensors instead, each of them keeps
# the graph for its backward pass in memory.</details>

# %% tags=["exercise"]
def student_train_one_epoch(model, batches, optimizer):
    """Train `model` with one step for each (images, labels) in `batches`. Return the mean loss over images, a float."""
    ### BEGIN SOLUTION
    model.train()
    total_loss, num_images = 0.0, 0
    for images, labels in batches:
        logits = model(images)  # (N, num_classes)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(labels)
        num_images += len(labels)
    return total_loss / num_images
    ### END SOLUTION

# %%
training_verdict = check.student_train_one_epoch(student_train_one_epoch)

# %% [markdown]
# ## The evaluation
#
# An evaluation must not change the network, and must run it as it will be used: without dropout, and with the running
# statistics of batch norm. It needs no gradients.
#
# **Predict, then run:** the answers are right for all 90 images of the first batch, and wrong for all 10 images of the
# last one. What is the accuracy?

# %%
batches_right, batches_size = [90, 0], [90, 10]
print("mean of the batches:", (90 / 90 + 0 / 10) / 2)
print("share of the images:", sum(batches_right) / sum(batches_size))

# %% [markdown]
# ### Exercise: student_evaluate
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Return two floats over all images: the mean loss, and the accuracy as a share between 0 and 1.
#
# <details><summary>Hint 1</summary>`with torch.no_grad():` around the loop switches gradients off.</details>
# <details><summary>Hint 2</summary>`logits.argmax(dim=1)` is the class with the largest logit of each image. Compare
# it with the labels and count.</details>

# %% tags=["exercise"]
def student_evaluate(model, batches):
    """Return (mean loss, accuracy) of `model` over all images of `batches`, two floats."""
    ### BEGIN SOLUTION
    model.eval()
    total_loss, num_right, num_images = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in batches:
            logits = model(images)  # (N, num_classes)
            total_loss += F.cross_entropy(logits, labels).item() * len(labels)
            num_right += (logits.argmax(dim=1) == labels).sum().item()
            num_images += len(labels)
    return total_loss / num_images, num_right / num_images
    ### END SOLUTION

# %%
evaluation_verdict = check.student_evaluate(student_evaluate)

# %% [markdown]
# The next cell trains resnet18 with your two loops. If one of them is not right yet, the package's loop replaces it.
#
# A hand-written loop over epochs must also ask for a new order of the images: `Batches` shuffles by its seed and the
# index of the epoch, so that you can repeat or resume any epoch. `set_epoch` sets the index, as in PyTorch's
# `DistributedSampler`.

# %%
one_epoch = student_train_one_epoch if training_verdict.right else lambda *three: train_one_epoch(*three).loss
scores = student_evaluate if evaluation_verdict.right else lambda *two: evaluate(*two)[:2]

torch.manual_seed(SEED)
model = resnet18(num_classes, small_images=False).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=WEIGHT_DECAY, fused=True)
train_batches = Batches(train_set, batch_size=16, image_size=64, seed=SEED)
val_batches = Batches(val_set, min(256, len(val_set)), image_size=64)

loss, accuracy = scores(model, val_batches)
print(f"before:   validation loss {loss:.3f}, accuracy {accuracy:.1%}")
for number in range(1, EPOCHS + 1):
    train_batches.set_epoch(number - 1)  # another order of the images in each epoch
    train_loss = one_epoch(model, train_batches, optimizer)
    loss, accuracy = scores(model, val_batches)
    print(f"epoch {number}:  training loss {train_loss:.3f}, validation loss {loss:.3f}, accuracy {accuracy:.1%}")

# %% [markdown]
# ## What the package's loop adds
#
# `cnnlesson.training.train_one_epoch` is your loop with two changes that can make it faster:
#
# - **mixed precision:** the forward pass computes in the 16-bit type that the device is fastest in, if it has one;
# - **losses stay on the device:** `loss.item()` waits until the GPU has finished the step, and during that time the GPU
#   gets nothing new to do. The package reads the losses at the end of the epoch, and one every 100 steps, to notice
#   early that training has diverged.
#
# **Predict, then run:** is it faster here, and how much? The output of `say_device()` shows the type. On a fast GPU
# with small images, most of the time may go into starting the kernels of each layer; then neither change helps much.

# %%
for name, loop in (("the plain loop", one_epoch), ("the package's loop", train_one_epoch)):
    loop(model, [next(iter(train_batches))], optimizer)  # the first step takes longer
    start = time.perf_counter()
    loop(model, train_batches, optimizer)
    print(f"{name}: {len(train_set) / (time.perf_counter() - start):,.0f} images per second")

# %% [markdown]
# `train` combines training and evaluation, and calls `set_epoch` for you. It is a generator: it yields an `Epoch` with
# all metrics after each pass, and you decide what to do with it. It stops if the loss is no longer a finite number: the
# training has *diverged*. `val_right` holds a bit for each validation image: was it classified correctly? You need it
# to tell a real difference from noise. These are the fields of an `Epoch`:

# %%
list(Epoch.__dataclass_fields__)

# %% [markdown]
# ## One trial
#
# A *trial* is one training at one point of the grid. For a fair comparison, trials differ only in their point. So each
# trial
#
# - starts from a **new** network, always with the **same** initial weights: call `torch.manual_seed(seed)` right before
#   `build_model()`;
# - trains on `train_set`, in batches of `batch_size` images of `image_size` pixels, shuffled with `seed=seed`, without
#   augmentation;
# - is evaluated on `val_set`, with images of the same size; any batch size is fine, such as `min(256, len(val_set))`;
# - uses SGD with momentum 0.9, and the learning rate and weight decay of its point;
# - runs for `epochs` epochs;
# - saves its state to the file `checkpoint` after each epoch, and resumes from that file if it exists.
#
# `train` does the last two: `train(..., epochs, checkpoint=checkpoint)` saves the weights, the momentum of the
# optimizer and everything else that it needs to continue. A trial that you stop loses at most one epoch.
#
# These functions build the two networks. On a CPU, AlexNet has no dropout: with it, the loss stays at its initial value
# for longer, and with so few images most trials would not leave chance level.

# %%
DROPOUT = 0 if device.type == "cpu" else 0.5


def build_alexnet():
    """A new AlexNet with random weights, on the device."""
    return AlexNet(num_classes, DROPOUT).to(device)


def build_resnet18():
    """A new resnet18 with random weights, on the device."""
    return resnet18(num_classes, small_images=device.type != "cpu").to(device)


BUILD = {"AlexNet": build_alexnet, "resnet18": build_resnet18}
IMAGE_SIZES = {"AlexNet": 227, "resnet18": 64}

print(f"AlexNet has {sum(parameter.numel() for parameter in build_alexnet().parameters()):,} parameters to learn from "
      f"{len(train_set):,} images")

# %% [markdown]
# ### Exercise: run
#
# **Difficulty:** hard · **Time:** 20 minutes
#
# Write the trial described above. `run` uses only its arguments and what you imported, no other variable of this
# notebook: then it can train any network on any images. It is a generator that yields each `Epoch` as soon as it ends.
# `build_model` is a function without arguments, such as `build_alexnet`. `checkpoint` is the path of a file, a
# different one for each trial.
#
# The check calls `run` with a small network and small images, and also stops a trial and starts it again.
#
# <details><summary>Hint 1</summary>`train(model, train_batches, val_batches, optimizer, epochs, checkpoint=checkpoint)`
# yields the epochs one by one.</details>
# <details><summary>Hint 2</summary>`for epoch in ...: yield epoch` passes them on. With `return`, you would get nothing
# until all of them are over.</details>
# <details><summary>Hint 3</summary>The optimizer needs the weights of the new network, so create it after the
# network.</details>

# %% tags=["exercise"]
def run(lr, batch_size, weight_decay, train_set, val_set, build_model, image_size, epochs, seed, checkpoint):
    """Train a new network at one point, and yield an `Epoch` after each pass over the training images."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    model = build_model()
    train_batches = Batches(train_set, batch_size, image_size, seed=seed)
    val_batches = Batches(val_set, min(256, len(val_set)), image_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)
    yield from train(model, train_batches, val_batches, optimizer, epochs, checkpoint=checkpoint)
    ### END SOLUTION

# %%
run_verdict = check.run(run)

# %% [markdown]
# All trials of a network share most arguments. `functools.partial` sets them once; the point and the checkpoint remain:

# %%
trial = run if run_verdict.right else package_run


def trial_of(name):
    """The trial of the network `name`, a function of lr, batch_size, weight_decay and checkpoint."""
    return partial(
        trial,
        train_set=train_set,
        val_set=val_set,
        build_model=BUILD[name],
        image_size=IMAGE_SIZES[name],
        epochs=EPOCHS,
        seed=SEED,
    )

# %% [markdown]
# Run one trial of AlexNet before you start many: it shows you early if a trial does not learn or takes too long. This
# cell stops the trial after its first epoch, then starts it again with the same checkpoint.
#
# **Predict, then run:** there are `EPOCHS` epochs with the number of steps that the cell prints. Is that enough to
# leave chance level? After the second start, how long do you wait for the first epoch, and how long for the second?

# %%
which_images = images_digest(train_set, val_set)[:8]
settings = f"{len(train_set)}-images-{which_images}-{EPOCHS}-epochs"  # a folder for each, so that results do not mix
RESULTS, CHECKPOINT_FOLDER = Path(FOLDER) / settings, Path(CHECKPOINTS) / settings
print(f"{-(-len(train_set) // 16)} steps per epoch; results in {RESULTS}")

checkpoint = CHECKPOINT_FOLDER / "one-trial.pt"
checkpoint.unlink(missing_ok=True)  # left if you stopped this cell before
point = {"lr": 0.001, "batch_size": 16, "weight_decay": WEIGHT_DECAY}

start = time.perf_counter()
epoch = next(trial_of("AlexNet")(**point, checkpoint=checkpoint))
print(f"{time.perf_counter() - start:5.1f} s  epoch {epoch.number}; stopped")

start, seconds = time.perf_counter(), []
for _ in live_board(trial_of("AlexNet")(**point, checkpoint=checkpoint), num_classes):
    seconds.append(time.perf_counter() - start)
print("started again:", ", ".join(f"{s:.1f} s epoch {number}" for number, s in enumerate(seconds, start=1)))
checkpoint.unlink()

# %% [markdown]
# ## The grid for AlexNet
#
# `GridSearch` runs your trial at every point of a grid and writes each epoch to a file, the journal. You can stop it at
# any time: run the notebook again, and it continues where it stopped. A trial that has ended does not run again; one
# that fails (out of memory, for example) is recorded with its reason, and the others continue. To start from scratch,
# delete `FOLDER`.
#
# `settings` describes what all trials have in common. The search refuses to mix trials with different settings, since
# you could not compare them.

# %%
def search_for(name, grid):
    """The search for the network `name`; all its grids share one journal."""
    return GridSearch(
        trial_of(name),
        grid,
        storage=RESULTS / f"{name}.journal",
        settings={
            "network": name,
            "image size": IMAGE_SIZES[name],
            "images": which_images,
            "epochs": EPOCHS,
            "seed": SEED,
            "device": device.type,  # the networks depend on it
        },
        num_classes=num_classes,
        checkpoints=CHECKPOINT_FOLDER / name,
    )


GRID = {"lr": LEARNING_RATES, "batch_size": BATCH_SIZES, "weight_decay": [WEIGHT_DECAY]}
alexnet_search = search_for("AlexNet", GRID)

# %% [markdown]
# Before you spend hours of computing time, ask how long the grid will take. `forecast` runs a few steps with each batch
# size and extrapolates.
#
# **Predict, then run:** you know how long one trial took. How long will the grid take? Which batch size is the fastest?
# If there is a GPU, which one needs the most memory?

# %%
alexnet_search.forecast();

# %% [markdown]
# Is that too long? Ask what fits, and change `EPOCHS` or `NUM_IMAGES` above:

# %%
alexnet_search.fit_into(minutes=10);

# %% [markdown]
# **Predict, then run:** which learning rate will be the best? Will one of them diverge? And at a fixed number of
# epochs, which batch size has the advantage?
#
# While the grid runs, a table shows the results so far. If something is wrong with a trial, such as a loss that does
# not change, the search tells you what it found and what to try. Stop the cell in the middle of a trial and run it
# again, to see that nothing is lost.

# %%
alexnet_grid = alexnet_search.run()

# %% [markdown]
# The result is a table with a row per trial and epoch. The heat map shows the last epoch of each trial:

# %%
alexnet_heat_map = plot_grid(last_epochs(alexnet_grid))
alexnet_heat_map.set_title(f"AlexNet, epochs: {EPOCHS}; chance level: {1 / num_classes:.1%}")
show(alexnet_heat_map)

# %% [markdown]
# Hatched cells have no final accuracy: the trial diverged (its loss became infinite or not a number, and it ended
# there), failed, or has not ended yet. A cell at chance level has not learned, for one of two reasons. Either the steps
# are too long, and have moved the weights to a region without gradients; or they are too short, and the trial needs
# more of them. The curves tell the two apart: the first kind is flat, the second still rises.

# %%
show(plot_trials(alexnet_grid))

# %% [markdown]
# ## Is it better, or only luckier?
#
# A network that is right with probability $p$ on an image from the same source is right on a share of $n$ images that
# varies by chance. The standard deviation of this share is the **standard error** $\sqrt{p (1 - p) / n}$. The heat map
# shows it after ±, and the curves as a band.
#
# **Predict, then run:** how large is the standard error of an accuracy of 50 % with your number of validation images?
# How many images do you need to halve it?

# %%
for number in (len(val_set), 2 * len(val_set), 4 * len(val_set)):
    print(f"{number:,} validation images: 50% ± {standard_error(0.5, number):.1%}")

# %% [markdown]
# Two networks that saw the same images can be compared more sharply than by these two numbers. On most images both are
# right or both are wrong, which says nothing. Only the images on which exactly one is right tell them apart. If the two
# are equally good, each of these is a coin toss: that is **McNemar's test**. Its p-value is the probability of a result
# at least as uneven if the two are equally good.
#
# You also *chose* the best of several points, and the best of many equally good ones is the luckiest. So the p-values
# below are multiplied by the number of pairs of points. Cells marked "≈ best" have p ≥ 0.05. The bar beside the colour
# scale shows about the smallest difference from the best that counts.
#
# **Predict, then run:** which of your points cannot be told apart from the best one?

# %%
print(verdict(alexnet_grid))
differences(alexnet_grid).round({"difference": 3, "p": 4})

# %% [markdown]
# This compares the trained networks, not the points. Another seed leads to other initial weights, another order of the
# images, and another accuracy, often by more than the standard error. So with one seed you can say "this network is
# better", but "this learning rate is better" takes several seeds.

# %% [markdown]
# ## Choosing
#
# Fix the rule before you see the results: choose the point whose trial **ends** with the highest **validation**
# accuracy, among the trials that completed. You cannot bend such a rule towards the result that you would like.
#
# This table looks like the result of a search, with one more column to tempt you. `diverged` marks the epoch whose loss
# was not a finite number; `state` tells in each row how the trial ended. A trial that failed, for example because the
# GPU ran out of memory, may have a few epochs:

# %%
accuracies = ["train_accuracy", "val_accuracy", "test_accuracy"]
pd.DataFrame(
    [
        (0.1, 16, 0.0005, 1, 0.31, 0.70, 0.30, False, "diverged"),
        (0.1, 16, 0.0005, 2, 0.10, float("nan"), float("nan"), True, "diverged"),
        (0.1, 64, 0.0005, 1, 0.35, 0.62, 0.31, False, "failed"),
        (0.001, 16, 0.0005, 1, 0.40, 0.41, 0.40, False, "completed"),
        (0.001, 16, 0.0005, 2, 0.60, 0.55, 0.54, False, "completed"),
        (0.001, 64, 0.0005, 1, 0.42, 0.60, 0.43, False, "completed"),
        (0.001, 64, 0.0005, 2, 0.90, 0.45, 0.58, False, "completed"),
    ],
    columns=["lr", "batch_size", "weight_decay", "epoch", *accuracies, "diverged", "state"],
)

# %% [markdown]
# ### Exercise: pick_best
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# `results` is a table like the one above: a row per trial and epoch, with the epochs of a trial in order. Return the
# point to choose as a tuple `(lr, batch_size, weight_decay)`.
#
# <details><summary>Hint 1</summary>`results.groupby(["lr", "batch_size", "weight_decay"]).tail(1)` keeps the last row
# of each trial. Which of these rows do you have to drop?</details>
# <details><summary>Hint 2</summary>`table["column"].idxmax()` is the label of the row with the largest value, and
# `table.loc[label]` is that row.</details>

# %% tags=["exercise"]
def pick_best(results):
    """The (lr, batch_size, weight_decay) of the trial with the highest validation accuracy in its last epoch."""
    ### BEGIN SOLUTION
    last = results.groupby(["lr", "batch_size", "weight_decay"]).tail(1)
    completed = last[last["state"] == "completed"]
    best = completed.loc[completed["val_accuracy"].idxmax()]
    return best["lr"], best["batch_size"], best["weight_decay"]
    ### END SOLUTION

# %%
pick_verdict = check.pick_best(pick_best)

# %%
def choose(results):
    """The best point, by your `pick_best` if it is right, else by the package's."""
    lr, batch_size, weight_decay = (pick_best if pick_verdict.right else check.package_pick_best)(results)
    return {"lr": float(lr), "batch_size": int(batch_size), "weight_decay": float(weight_decay)}


alexnet_best = choose(alexnet_grid)
print("the best point of AlexNet's grid: learning rate {lr:g}, batch size {batch_size}".format(**alexnet_best))

# %% [markdown]
# ## What is the effect of changing the decay to the optimizer?
#
# SGD with weight decay adds `weight_decay × weight` to each gradient. So each step also shrinks each weight a little,
# by the factor `1 − lr × weight_decay`. With momentum 0.9, a gradient acts in later steps too, in total ten times as
# much: the factor becomes `1 − 10 × lr × weight_decay`.
#
# **Predict, then run:** how much of a weight is left after a whole trial, if only the decay acts on it?

# %%
steps = EPOCHS * -(-len(train_set) // alexnet_best["batch_size"])
for decay in DECAYS:
    left = (1 - 10 * alexnet_best["lr"] * decay) ** steps
    print(f"weight decay {decay:g}: after {steps} steps {left:.2%} of a weight is left")

# %% [markdown]
# A decay that leaves nearly all of a weight can hardly change what the network learns. 0.0005 is the value of the
# AlexNet paper, which trained for about 90 passes over 1.2 million images.
#
# The decays at the best point form a grid of their own, in the same journal. The search reports that the grid has
# changed, and uses the trials that it already has.
#
# **Predict, then run:** how many trials are left to train? And how will a larger decay change the training accuracy,
# the validation accuracy, and the gap between them?

# %%
def decays_at(best):
    """The grid of all weight decays at one learning rate and batch size."""
    return {"lr": [best["lr"]], "batch_size": [best["batch_size"]], "weight_decay": DECAYS}


alexnet_decays = search_for("AlexNet", decays_at(alexnet_best)).run()
alexnet_bars = plot_weight_decay(last_epochs(alexnet_decays))
alexnet_bars.set_title("AlexNet, learning rate {lr:g}, batch size {batch_size}".format(**alexnet_best))
show(alexnet_bars)

# %% [markdown]
# The training accuracy is measured while the weights still change, the validation accuracy after the epoch. So in the
# first epochs the validation accuracy can be the higher one. A gap appears when the network begins to memorise its
# training images.

# %%
table = last_epochs(alexnet_decays).set_index("weight_decay")[["train_accuracy", "val_accuracy"]]
table = table.assign(gap=table["train_accuracy"] - table["val_accuracy"])
print(verdict(alexnet_decays))
table.round({"train_accuracy": 3, "val_accuracy": 3, "gap": 3})

# %% [markdown]
# ## Do the same analysis for the ResNet architecture
#
# `run` takes its network from `build_model`, so you do not have to change it. resnet18 takes images of 64 pixels. It
# has batch norm after every convolution, and a shortcut past every two.
#
# **Predict, then run:** will its grid take longer than AlexNet's? AlexNet had trouble with one of the learning rates.
# Will resnet18 have the same trouble?

# %%
resnet_search = search_for("resnet18", GRID)
resnet_search.forecast()
resnet_grid = resnet_search.run()

# %%
resnet_heat_map = plot_grid(last_epochs(resnet_grid))
resnet_heat_map.set_title(f"resnet18, epochs: {EPOCHS}; chance level: {1 / num_classes:.1%}")
show(resnet_heat_map)

# %%
show(plot_trials(resnet_grid))

# %% [markdown]
# Batch norm rescales the output of each layer in every step, whatever the scale of its weights. So even if a long step
# makes the weights very large, the loss does not become infinite.
#
# Now the decay, at resnet18's own best point:

# %%
resnet_best = choose(resnet_grid)
resnet_decays = search_for("resnet18", decays_at(resnet_best)).run()
resnet_bars = plot_weight_decay(last_epochs(resnet_decays))
resnet_bars.set_title("resnet18, learning rate {lr:g}, batch size {batch_size}".format(**resnet_best))
show(resnet_bars)

# %% [markdown]
# ## The single evaluation on the test images
#
# The rule chooses among all trials of each network, then between the two networks: both times by validation accuracy.

# %%
ALL_RESULTS = {  # the grid's best point is in both searches of a network, but counts once
    "AlexNet": pd.concat([alexnet_decays, alexnet_grid], ignore_index=True).drop_duplicates(),
    "resnet18": pd.concat([resnet_decays, resnet_grid], ignore_index=True).drop_duplicates(),
}

choices = []
for name, results in ALL_RESULTS.items():
    best = choose(results)
    last = last_epochs(results).set_index(list(best)).loc[tuple(best.values())]
    print(f"{name}: learning rate {best['lr']:g}, batch size {best['batch_size']}, "
          f"weight decay {best['weight_decay']:g}: validation accuracy {last['val_accuracy']:.1%}")
    choices.append((last["val_accuracy"], name, best))
val_accuracy, chosen, point = max(choices, key=lambda choice: choice[0])
print(f"chosen: {chosen}")

# %% [markdown]
# The search has kept the checkpoint of the best trial. The next cell loads its weights into a new network and evaluates
# it on the test images. If the file is missing, such as on a new Colab runtime, `trial_of` first trains the network
# again; otherwise it only reads the epochs in the file.
#
# **Predict, then run:** the chosen validation accuracy is the highest of many, so it is partly luck. Will the test
# accuracy be higher or lower?

# %%
checkpoint = search_for(chosen, decays_at(point)).checkpoint(point)
for _ in trial_of(chosen)(**point, checkpoint=checkpoint):
    pass

model = BUILD[chosen]()
model.load_state_dict(torch.load(checkpoint, map_location=device, weights_only=True)["model"])
test_batches = Batches(images.test, min(256, len(images.test)), IMAGE_SIZES[chosen])
test_accuracy = evaluate(model, test_batches).accuracy
print(f"{chosen}: validation {val_accuracy:.1%}, test {test_accuracy:.1%} of {len(images.test):,} images")

# %% [markdown]
# Report this number. If you do not like it, do not change the grid and run the cell again: then you would have chosen
# by the test images, and you would have no unseen images left.

# %% [markdown]
# ## What the results mean
#
# Your own numbers depend on your settings, so the questions are about a fixed table: resnet18 on `shapes`, 4,500
# training and 500 validation images, ten classes, 3 epochs. Validation accuracy in percent, with weight decay 0.0005:
#
# | learning rate | batch size 16 | batch size 32 | batch size 64 |
# | --- | --- | --- | --- |
# | 0.1 | 48.4 | 26.6 | 21.6 |
# | 0.001 | 78.2 | 74.2 | 56.0 |
# | 0.0001 | 36.8 | 29.6 | 26.4 |
#
# The best point with other weight decays:
#
# | weight decay | training | validation |
# | --- | --- | --- |
# | 0 | 79.8 | 77.8 |
# | 0.0005 | 79.9 | 78.2 |
# | 0.05 | 82.5 | 84.6 |
#
# (Measured on two CPU cores with `python -m cnnlesson exercise --model resnet18 --data shapes --epochs 3 --lr 0.1
# 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 --decay-at-best 0 0.05`.)
#
# ### Exercise: conclusions
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# - **a** What did the largest learning rate do? `"diverged"`, `"stayed at chance"`, `"learned worse"` (than 0.001) or
#   `"learned best"`
# - **b** At a fixed number of epochs, which batch size takes the most steps? A number.
# - **c** How many steps does that trial take in total? A number.
# - **d** What would you try next? `"learning rate 0.01"`, `"batch size 8"`, `"batch size 128"`, `"learning rate 1"` or
#   `"nothing"`. Two of these are good answers.
# - **e** From no decay to a decay of 0.05, what happens to the gap, training minus validation accuracy? It `"grows"`,
#   `"stays"` or `"shrinks"`
# - **f** How many validation images make the difference between the decays 0 and 0.0005? A number.
# - **g** On which part do you base your choice? `"training"`, `"validation"` or `"test"`
# - **h** How many trials do you evaluate on the test images? A number.
#
# <details><summary>Hint 1</summary>For b and c: an epoch has one step per batch, and the last batch may be
# smaller.</details>
# <details><summary>Hint 2</summary>For d: where in the table is the best cell, and what lies next to it: beyond the
# edge, and between the rows?</details>
# <details><summary>Hint 3</summary>For f: the difference is 0.4 percentage points of the validation images.</details>

# %% tags=["exercise"]
conclusions = {"a": None, "b": None, "c": None, "d": None, "e": None, "f": None, "g": None, "h": None}
### BEGIN SOLUTION
conclusions["a"] = "learned worse"  # with ten classes, chance level is 10 %
conclusions["b"] = 16
conclusions["c"] = -(-4500 // 16) * 3
conclusions["d"] = "learning rate 0.01"  # or "batch size 8": the best cell is beside a gap, and on an edge
conclusions["e"] = "shrinks"  # from 2.0 to -2.1
conclusions["f"] = 2  # too few to tell 0 and 0.0005 apart
conclusions["g"] = "validation"
conclusions["h"] = 1
### END SOLUTION

# %%
check.conclusions(conclusions)

# %% [markdown]
# ## Your results and a reference run
#
# One search shows what happened once, on one set of images. The package contains the results of another one: the same
# two grids on photographs, 20 classes of TinyImageNet with 2,000 training and 500 validation images, for 5 epochs.
# `compare_text` prints them next to yours, point by point.
#
# **Predict, then run:** if your images were `shapes`, all numbers differ, since the task does. But which conclusions
# will be the same: which learning rate is best, what 0.1 does to AlexNet, how batch size 64 compares?

# %%
photographs = reference.load("tiny_imagenet_grid")
for name, results in ALL_RESULTS.items():
    print(f"\n{name}")
    print(report.compare_text(results, photographs.table[photographs.table["model"] == name.lower()]))

# %% [markdown]
# Explore all four: your two searches, and the two on photographs.
#
# **Predict, then move:** is the point with the highest training accuracy also the best one on validation? If a loss is
# infinite in one table, what is the accuracy of the same trial?

# %%
explore_results(ALL_RESULTS | {f"{name} on photographs": table for name, table in photographs.table.groupby("model")})

# %% [markdown]
# This is how the reference run was made, if you want to repeat it:

# %%
for what in ("command", "data", "seeds", "cpu", "torch", "date"):
    print(textwrap.fill(f"{what}: {photographs.made[what]}", 100, subsequent_indent="    ", break_on_hyphens=False))

# %% [markdown]
# ## Your report
#
# Answer in your own words, about **your** numbers: what was the effect of the learning rate, of the batch size, and of
# the weight decay? How do AlexNet and resnet18 differ? Which of these differences are larger than a few images?

# %%
my_conclusions = """
Not written yet.
"""

# %% [markdown] tags=["solution"]
# A report can start from sentences that follow from the tables:

# %% tags=["solution"]
sentences = []
for name, grid in (("AlexNet", alexnet_grid), ("resnet18", resnet_grid)):
    grid = last_epochs(grid)
    grid = grid.assign(val_accuracy=grid["val_accuracy"].where(~grid["diverged"]))
    for column, noun in (("lr", "learning rate"), ("batch_size", "batch size")):
        best = grid.groupby(column)["val_accuracy"].max()
        values = ", ".join(f"{value:g}: " + ("diverged" if a != a else f"{a:.1%}") for value, a in best.items())
        sentences.append(f"- {name}, best validation accuracy by {noun}: {values}.")
for name, decays in (("AlexNet", alexnet_decays), ("resnet18", resnet_decays)):
    gaps = ", ".join(
        f"{row.weight_decay:g}: {100 * (row.train_accuracy - row.val_accuracy):+.1f}"
        for row in last_epochs(decays).itertuples()
    )
    sentences.append(f"- {name}, training minus validation accuracy by weight decay, in points: {gaps}.")
my_conclusions = "\n".join(sentences)

# %% [markdown]
# This cell writes the report to a folder: the tables, heat maps and curves of both networks, the effect of the decay,
# the choice, your conclusions, and the settings and versions behind the numbers. Open `report.html` in a browser, read
# it once as your teacher will, then hand in the folder.

# %%
about = {
    "images (digest)": which_images,
    "training images": len(train_set),
    "validation images": len(val_set),
    "classes": f"{num_classes}: {', '.join(images.train.classes[:3])}, ...",
    "epochs": EPOCHS,
    "optimizer": "SGD with momentum 0.9",
    "augmentation": "none",
    "dropout of AlexNet": DROPOUT,
    "pixels": ", ".join(f"{size} × {size} for {name}" for name, size in IMAGE_SIZES.items()),
    "seed": SEED,
} | circumstances(device)

page = report.write(
    ALL_RESULTS,
    RESULTS / "report",
    num_classes=num_classes,
    conclusions=my_conclusions,
    about=about,
    chosen=report.Chosen(chosen, point, val_accuracy, test_accuracy, len(images.test)),
)
print(f"hand in the folder {page.parent}; open {page.name} in a browser")

# %% [markdown]
# ## Where you are

# %%
check.progress()
