# %% [markdown]
# # 4 The hyper-parameter exercise
#
# A network learns its weights from the images. Everything else you decide before: how many layers, how many epochs,
# which learning rate. In this lesson you write the loop that trains, let it run at every point of a grid, and choose
# by what you measured, not by what you hoped for.
#
# **Afterwards you can**
#
# - write a training loop and an evaluation, and say which line does what;
# - search for good hyper-parameters with a fair comparison, and stop and resume the search without losing results;
# - say what learning rate, batch size and weight decay did, choose on validation, and report a test accuracy that
#   means something.
#
# **Time:** 120 minutes, of which the computer works about 20 by itself. **You need:** lessons 1 to 3. A GPU lets you
# use more images.

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
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.notebook import TINY, load_images, say_device
from cnnlesson.plots import plot_grid, plot_images, plot_trials, plot_weight_decay, show
from cnnlesson.reference import circumstances, images_digest
from cnnlesson.results import last_epochs
from cnnlesson.search import GridSearch
from cnnlesson.training import Epoch, evaluate, train, train_one_epoch
from cnnlesson.widgets import explore_results, live_board

device = say_device()

# %% [markdown]
# Choose the images, and how much of them. 0 means: as much as suits this device. `shapes` are drawn on the spot;
# `tiny-imagenet` are the photographs of <http://cs231n.stanford.edu/tiny-imagenet-200.zip>, 248 MB to download the
# first time. They have 200 classes, and want a GPU: the few images that a processor can train on are too few for
# each class.
#
# Results are kept in `FOLDER`; they are small. In Colab the disk is gone when the runtime is: there, mount your Drive
# (`from google.colab import drive; drive.mount("/content/drive")`), and name a folder in it, such as
# `/content/drive/MyDrive/lesson4`. `CHECKPOINTS` is for the trainings that are under way. These files are large,
# AlexNet's has 460 MB, and are written anew after each epoch: leave them on the runtime's own disk.

# %%
DATA = "shapes"  # @param ["shapes", "tiny-imagenet"]
NUM_IMAGES = 0  # @param {type:"integer"}
EPOCHS = 0  # @param {type:"integer"}
FOLDER = "results/lesson4"  # @param {type:"string"}
CHECKPOINTS = "results/lesson4"  # @param {type:"string"}

NUM_IMAGES = NUM_IMAGES or (60 if TINY else 1_000 if device.type == "cpu" else 20_000)
EPOCHS = EPOCHS or (1 if TINY else 5)
SEED = 0
if TINY:
    temporary = TemporaryDirectory()  # it is gone when the notebook is closed
    FOLDER = CHECKPOINTS = temporary.name

LEARNING_RATES = [0.1, 0.001] if TINY else [0.1, 0.001, 0.0001]
BATCH_SIZES = [16] if TINY else [16, 32, 64]
WEIGHT_DECAY = 0.0005  # in the grid
DECAYS = [0, 0.0005] if TINY else [0, 0.0005, 0.05]  # at the grid's best point

images = load_images(DATA)
num_classes = len(images.train.classes)
show(plot_images(images.train[torch.linspace(0, len(images.train) - 1, 12).long()]))
images.train

# %% [markdown]
# ## How to find good hyper-parameters?
#
# This is the deck's list, and where each of them stands in this lesson:
#
# | Hyper-parameter | Here | What it trades |
# | --- | --- | --- |
# | network architecture (num layers, hidden layer, activation) | `build_model` | what can be learned, for time |
# | number of iterations (epochs) | `EPOCHS` | a better fit, for time, and in the end for overfitting |
# | learning rate(s) | `SGD(lr=...)` | fast steps, for steps that overshoot |
# | regularization: weight decay | `SGD(weight_decay=...)` | the fit to the training images, for the fit to others |
# | dropout, augmentation | `AlexNet(dropout=...)`, `Batches(augment=True)` | the same, and both need more steps |
# | batch size | `Batches(batch_size=...)` | steady gradients and a busy GPU, for fewer steps an epoch |
#
# Momentum, the first weights and the image size belong to the list too; here they stay fixed. So does augmentation,
# which is off: then what weight decay does can be seen by itself.
#
# A grid tries all combinations, and combinations multiply.
#
# **Predict, then run:** how many networks would you have to train for three values of each of the six rows above?

# %%
print("three rows with three values each:", len(list(product(range(3), repeat=3))), "networks")
print("six rows with three values each:", len(list(product(range(3), repeat=6))), "networks")

# %% [markdown]
# So the exercise of this lesson has a grid of two: learning rates 0.1, 0.001, 0.0001 and batch sizes 16, 32, 64.
# Weight decay is then tried at the best point alone. That is cheaper, and it can miss a point that is good only in
# combination.

# %% [markdown]
# ## Split your data
#
# The deck's first advice for the search. Three parts, three uses:
#
# - **training**: the weights are learned on it;
# - **validation**: the hyper-parameters are chosen on it;
# - **test**: nothing is chosen on it. You look at it once, at the end.

# %%
train_set, val_set = split(take(images.train, NUM_IMAGES, seed=SEED), (0.8, 0.2), seed=SEED)
for name, part in (("training", train_set), ("validation", val_set), ("test", images.test)):
    print(f"{name:10}  {part}")
print(f"guessing gives {1 / num_classes:.1%}; one validation image more is {1 / len(val_set):.2%}")

# %% [markdown]
# The last number is the smallest difference that you can see at all. A difference of a few images says nothing.

# %% [markdown]
# ## The training loop
#
# One pass over the training images is an *epoch*, one batch is a *step*. A step has five parts: forward, loss, clear
# the old gradients, backward, move the weights.
#
# **Predict, then run:** backward is called twice here, and nothing is cleared in between. What is the second number?

# %%
weight = torch.tensor(2.0, requires_grad=True)
for _ in range(2):
    loss = weight**2  # its gradient is 2 · weight = 4
    loss.backward()
    print(weight.grad)

# %% [markdown]
# Gradients add up until somebody clears them.
#
# A network also has two modes. In `model.train()` dropout zeroes numbers and batch norm uses the batch's own mean; in
# `model.eval()` dropout is off and batch norm uses the mean that it has kept.
#
# ### Exercise: student_train_one_epoch
#
# **Difficulty:** medium · **Time:** 15 minutes
#
# Train the network with one step for each batch. Return the mean loss over all **images**. The images and labels are
# on the network's device already, and the last batch may be smaller than the others.
#
# <details><summary>Hint 1</summary>`F.cross_entropy(logits, labels)` is the mean over one batch. It takes logits, as
# the network gives them.</details>
# <details><summary>Hint 2</summary>For the mean over images you need two sums: of the losses of all images, and of
# their number. What is the sum of the losses of one batch?</details>
# <details><summary>Hint 3</summary>A loss that you only want to print should be a plain number: `loss.item()`. A
# tensor would keep all that is needed to go backward.</details>

# %% tags=["exercise"]
def student_train_one_epoch(model, batches, optimizer):
    """Train `model` with a step for each (images, labels) of `batches`; the mean loss over images: a float."""
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
# Whoever judges the network must not change it, and must see it as it will be used: without dropout, with batch
# norm's kept statistics, and without gradients, which nobody needs here.
#
# **Predict, then run:** a batch of 90 images with 90 right answers, and a last one of 10 images with none. What is
# the accuracy?

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
# it with the labels, and count.</details>

# %% tags=["exercise"]
def student_evaluate(model, batches):
    """(mean loss, accuracy) of `model` over all images of `batches`: two floats."""
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
# Your loops at work, on a resnet18; where one is not right yet, the package's stands in. The network has never seen
# the validation images.

# %%
one_epoch = student_train_one_epoch if training_verdict.right else lambda *three: train_one_epoch(*three).loss
judge = student_evaluate if evaluation_verdict.right else lambda *two: evaluate(*two)[:2]

torch.manual_seed(SEED)
model = resnet18(num_classes, small_images=False).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=WEIGHT_DECAY)
train_batches = Batches(train_set, batch_size=16, image_size=64, seed=SEED)
val_batches = Batches(val_set, min(100, len(val_set)), image_size=64)

loss, accuracy = judge(model, val_batches)
print(f"before:   validation loss {loss:.3f}, accuracy {accuracy:.1%}")
for number in range(1, EPOCHS + 1):
    train_batches.set_epoch(number - 1)  # another order of the images in each epoch
    train_loss = one_epoch(model, train_batches, optimizer)
    loss, accuracy = judge(model, val_batches)
    print(f"epoch {number}:  training loss {train_loss:.3f}, validation loss {loss:.3f}, accuracy {accuracy:.1%}")

# %% [markdown]
# ## What the package's loop adds
#
# `cnnlesson.training.train_one_epoch` is your loop, with two additions for speed:
#
# - **mixed precision:** the forward pass computes in the 16-bit type that the device is fastest in, where it has one;
# - **sums stay on the device:** `loss.item()` waits until the GPU has finished the step, and meanwhile no new work
#   reaches it. The package adds up on the device, and asks once an epoch.
#
# **Predict, then run:** how much faster is it here? Think of what `say_device()` said about the type.

# %%
for name, loop in (("the plain loop", one_epoch), ("the package's loop", train_one_epoch)):
    loop(model, [next(iter(train_batches))], optimizer)  # the first step of a kind takes longer
    start = time.perf_counter()
    loop(model, train_batches, optimizer)
    print(f"{name}: {len(train_set) / (time.perf_counter() - start):,.0f} images a second")

# %% [markdown]
# `train` puts both loops together: it is a generator that yields one `Epoch` after each pass, with all its figures,
# and stops where the loss is not a finite number any more: the training has *diverged*. Whoever uses it decides what
# to do with each epoch. These are the figures:

# %%
list(Epoch.__dataclass_fields__)

# %% [markdown]
# ## One trial
#
# A *trial* is one training at one point of the grid. A comparison is fair when trials differ in nothing but the
# point. So each trial
#
# - starts from a **new** network, and every one from the **same** first weights: `torch.manual_seed(SEED)` right
#   before `build_model()`;
# - learns from `train_set`, in batches of `batch_size` images of `IMAGE_SIZE` pixels, shuffled with `seed=SEED`,
#   without augmentation;
# - is judged on `val_set`, in batches of `min(100, len(val_set))` images of `IMAGE_SIZE` pixels;
# - uses SGD with momentum 0.9, and the learning rate and weight decay of its point;
# - runs for `EPOCHS` epochs;
# - keeps its state in the file `checkpoint` after each epoch, and goes on from there if the file exists already.
#
# `train` does the last two: `train(..., checkpoint=checkpoint)` writes all that a training needs to go on, which is the
# weights, the momentum of the optimizer, the random numbers, and how often the images were shuffled. A trial that is
# stopped loses one epoch at most, as long as the file is still there.
#
# Here is `build_model`. On a processor AlexNet goes without dropout: with it, the loss rests at its first value for
# longer, and with so few images most cells of the grid would show nothing but guessing.

# %%
DROPOUT = 0 if device.type == "cpu" else 0.5
IMAGE_SIZES = {"AlexNet": 227, "resnet18": 64}

network = "AlexNet"
IMAGE_SIZE = IMAGE_SIZES[network]


def build_model():
    """A new network of the kind that `network` names, on the device; its weights are drawn at random."""
    if network == "AlexNet":
        return AlexNet(num_classes, DROPOUT).to(device)
    return resnet18(num_classes, small_images=device.type == "cuda").to(device)


print(f"{sum(parameter.numel() for parameter in build_model().parameters()):,} parameters to learn from "
      f"{len(train_set):,} images")

# %% [markdown]
# ### Exercise: run
#
# **Difficulty:** hard · **Time:** 20 minutes
#
# Write the trial of the list above. `run` may use the names of this notebook: `train_set`, `val_set`, `build_model`,
# `IMAGE_SIZE`, `EPOCHS`, `SEED`, and all that was imported. It is a generator: it yields each `Epoch` as soon as it
# ends. `checkpoint` is the path of a file, a different one for each trial, which `train` writes and reads. The check
# tries `run` with small stand-ins for those six names, stops a trial and starts it again, and then puts yours back.
#
# <details><summary>Hint 1</summary>`train(model, train_batches, val_batches, optimizer, epochs=..., checkpoint=...)`
# gives the epochs one by one.</details>
# <details><summary>Hint 2</summary>`for epoch in ...: yield epoch` hands them on. `return` would hand on nothing until
# all is over.</details>
# <details><summary>Hint 3</summary>The optimizer must hold the weights of the new network, so it is made after
# it.</details>

# %% tags=["exercise"]
def run(lr, batch_size, weight_decay, checkpoint):
    """Train a new network at one point, and yield an `Epoch` after each pass over the training images."""
    ### BEGIN SOLUTION
    torch.manual_seed(SEED)
    model = build_model()
    train_batches = Batches(train_set, batch_size, image_size=IMAGE_SIZE, seed=SEED)
    val_batches = Batches(val_set, min(100, len(val_set)), image_size=IMAGE_SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)
    yield from train(model, train_batches, val_batches, optimizer, EPOCHS, checkpoint=checkpoint)
    ### END SOLUTION

# %%
run_verdict = check.run(run)

# %% [markdown]
# Files go into a folder that is named after the images and the number of epochs, so that the results of other settings
# stay apart:

# %%
which_images = images_digest(train_set, val_set)[:8]
settings = f"{len(train_set)}-images-{which_images}-{EPOCHS}-epochs"
RESULTS, UNDER_WAY = Path(FOLDER) / settings, Path(CHECKPOINTS) / settings
print(RESULTS)

# %% [markdown]
# One trial of AlexNet, before you start many. A trial that does not learn, or takes too long, is cheaper to find here
# than in the middle of the night. It is stopped after its first epoch, and then started again with the same file.
#
# **Predict, then run:** there are `EPOCHS` epochs with this many steps each. Is that enough to leave the loss of
# guessing? And how soon after the second start is the first epoch there, how soon the second?

# %%
trial = run if run_verdict.right else partial(check.package_run, globals())
print(f"{-(-len(train_set) // 16)} steps an epoch")

checkpoint = UNDER_WAY / "one-trial.pt"
checkpoint.unlink(missing_ok=True)  # of an earlier visit to this cell
point = {"lr": 0.001, "batch_size": 16, "weight_decay": WEIGHT_DECAY}

start = time.perf_counter()
epoch = next(trial(**point, checkpoint=checkpoint))
print(f"{time.perf_counter() - start:5.1f} s  epoch {epoch.number}; stopped")

start, seconds = time.perf_counter(), []
for _ in live_board(trial(**point, checkpoint=checkpoint), num_classes):
    seconds.append(time.perf_counter() - start)
print("started again:", ", ".join(f"{s:.1f} s epoch {number}" for number, s in enumerate(seconds, start=1)))
checkpoint.unlink()

# %% [markdown]
# ## The grid for AlexNet
#
# `GridSearch` calls `run` at every point of a grid, and survives whatever stops it:
#
# - each epoch goes into a *journal*, a file to which a line is added and none is ever changed;
# - a trial that was stopped goes on from its checkpoint, after its last whole epoch;
# - a trial that has ended is not run again; one that diverged has ended too;
# - a trial that fails, as it runs out of memory for example, is noted with its reason, and the others go on.
#
# So when the runtime is lost, run the notebook again: trials that have ended are in the journal in `FOLDER`. To start
# afresh, delete that folder.
#
# What all trials have in common stands in the journal too, and a search with other settings is refused: trials that
# differ in more than their point cannot be compared.

# %%
def trial_of(name):
    """`run` for the network `name`, whichever network another cell has worked with before."""
    def run_it(lr, batch_size, weight_decay, checkpoint):
        global network, IMAGE_SIZE
        network, IMAGE_SIZE = name, IMAGE_SIZES[name]
        yield from trial(lr, batch_size, weight_decay, checkpoint)

    return run_it


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
            "device": device.type,  # build_model depends on it
        },
        num_classes=num_classes,
        checkpoints=UNDER_WAY / name,
    )


GRID = {"lr": LEARNING_RATES, "batch_size": BATCH_SIZES, "weight_decay": [WEIGHT_DECAY]}
alexnet_search = search_for("AlexNet", GRID)

# %% [markdown]
# Before hours of a computer's time are spent, ask how many it will be. `forecast` makes a few steps with each batch
# size and multiplies.
#
# **Predict, then run:** you know how long one trial took. How long will the grid take? Which batch size is the
# fastest? And which needs the most memory, if there is a GPU?

# %%
alexnet_search.forecast();

# %% [markdown]
# Too long? Then ask what would fit, and set `EPOCHS` or `NUM_IMAGES` above:

# %%
alexnet_search.fit_into(minutes=10);

# %% [markdown]
# **Predict, then run:** which learning rate will be best? Will one of them diverge? And at a fixed number of epochs,
# which batch size has the advantage?
#
# While it runs, a table fills itself. Where something looks wrong with a trial, such as a loss that does not move, the
# search says in words what it sees and what to try. To see that it survives, stop the cell in the middle of a trial,
# and run it again.

# %%
alexnet_grid = alexnet_search.run()

# %% [markdown]
# The result is a table with a row for each trial and epoch. The last epoch of each trial makes the heat map:

# %%
alexnet_heat_map = plot_grid(last_epochs(alexnet_grid))
alexnet_heat_map.set_title(f"AlexNet, epochs: {EPOCHS}; guessing gives {1 / num_classes:.1%}")
show(alexnet_heat_map)

# %% [markdown]
# Hatched cells have diverged: the loss became infinite or not a number, and the trial ended there. A cell at the level
# of guessing has not learned; that can be a step too long, which threw the weights where no gradient is left, or
# steps too short, which have not arrived yet. The curves tell the two apart: the one is flat, the other still rises.

# %%
show(plot_trials(alexnet_grid))

# %% [markdown]
# ## Choosing
#
# The choice is a rule that you fix before you look: the point whose trial **ends** with the highest **validation**
# accuracy, among those that completed. A rule of this kind cannot be bent towards the result that one likes.
#
# Here is a table as a search leaves it, but for a column that tempts. `diverged` marks the epoch whose loss was not a
# finite number, `state` says in each row how the trial ended:

# %%
accuracies = ["train_accuracy", "val_accuracy", "test_accuracy"]
pd.DataFrame(
    [
        (0.1, 16, 0.0005, 1, 0.31, 0.70, 0.30, False, "diverged"),
        (0.1, 16, 0.0005, 2, 0.10, float("nan"), float("nan"), True, "diverged"),
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
# `results` is a table like the one above, a row a trial and epoch, the epochs of a trial in order. Return the
# point to choose as a tuple `(lr, batch_size, weight_decay)`.
#
# <details><summary>Hint 1</summary>`results.groupby(["lr", "batch_size", "weight_decay"]).tail(1)` keeps the last row
# of each trial. Which rows must go then?</details>
# <details><summary>Hint 2</summary>`table["column"].idxmax()` is the label of the row with the largest value, and
# `table.loc[label]` that row.</details>

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
    ended = results[results["state"] != "failed"]  # a trial that failed has no result
    lr, batch_size, weight_decay = (pick_best if pick_verdict.right else check.package_pick_best)(ended)
    return {"lr": float(lr), "batch_size": int(batch_size), "weight_decay": float(weight_decay)}


alexnet_best = choose(alexnet_grid)
print("the best point of AlexNet's grid: learning rate {lr:g}, batch size {batch_size}".format(**alexnet_best))

# %% [markdown]
# ## What is the effect of changing the decay to the optimizer?
#
# SGD with weight decay adds `weight_decay × weight` to each gradient. So every step also shrinks each weight a
# little, by the factor `1 − lr × weight_decay`. With momentum 0.9 a gradient acts for ten steps in sum, which makes it
# `1 − 10 × lr × weight_decay`.
#
# **Predict, then run:** how much of a weight is left after a whole trial, if nothing but the decay acts on it?

# %%
steps = EPOCHS * -(-len(train_set) // alexnet_best["batch_size"])
for decay in DECAYS:
    left = (1 - 10 * alexnet_best["lr"] * decay) ** steps
    print(f"weight decay {decay:g}: after {steps} steps {left:.2%} of a weight is left")

# %% [markdown]
# A decay that leaves nearly all of a weight can hardly change what is learned. 0.0005 is the value of the AlexNet
# paper, whose training was about 90 passes over 1.2 million images.
#
# The decays at the best point are a grid of their own, in the same journal. The search says that the grid has changed,
# and keeps what it has.
#
# **Predict, then run:** how many trials are left to train? And what will a larger decay do to the training accuracy,
# to the validation accuracy, and to the gap between them?

# %%
def decays_at(best):
    """The grid of all weight decays at one learning rate and batch size."""
    return {"lr": [best["lr"]], "batch_size": [best["batch_size"]], "weight_decay": DECAYS}


alexnet_decays = search_for("AlexNet", decays_at(alexnet_best)).run()
alexnet_bars = plot_weight_decay(last_epochs(alexnet_decays))
alexnet_bars.set_title("AlexNet, learning rate {lr:g}, batch size {batch_size}".format(**alexnet_best))
show(alexnet_bars)

# %% [markdown]
# The training accuracy is counted while the weights still change, the validation accuracy afterwards. So in the first
# epochs validation can be the higher one; a real gap shows when the network begins to know its training images.

# %%
table = last_epochs(alexnet_decays).set_index("weight_decay")[["train_accuracy", "val_accuracy"]]
table = table.assign(gap=table["train_accuracy"] - table["val_accuracy"])
table.round({"train_accuracy": 3, "val_accuracy": 3, "gap": 3})

# %% [markdown]
# ## The same analysis for the ResNet architecture
#
# `run` asks `build_model` for its network, so it needs no change. resnet18 works on 64 pixels, has batch norm behind
# every convolution, and a shortcut past every two.
#
# **Predict, then run:** will its grid take longer than AlexNet's? AlexNet had trouble with one of the learning rates.
# Will resnet18 have the same trouble?

# %%
resnet_search = search_for("resnet18", GRID)
resnet_search.forecast()
resnet_grid = resnet_search.run()

# %%
resnet_heat_map = plot_grid(last_epochs(resnet_grid))
resnet_heat_map.set_title(f"resnet18, epochs: {EPOCHS}; guessing gives {1 / num_classes:.1%}")
show(resnet_heat_map)

# %%
show(plot_trials(resnet_grid))

# %% [markdown]
# Batch norm sets the scale of each layer's output anew in every step, whatever the scale of its weights. So weights
# that a long step has thrown far away do not carry the loss to infinity with them.
#
# Now the decay, at resnet18's own best point:

# %%
resnet_best = choose(resnet_grid)
resnet_decays = search_for("resnet18", decays_at(resnet_best)).run()
resnet_bars = plot_weight_decay(last_epochs(resnet_decays))
resnet_bars.set_title("resnet18, learning rate {lr:g}, batch size {batch_size}".format(**resnet_best))
show(resnet_bars)

# %% [markdown]
# ## One look at the test images
#
# The rule chooses among all trials of each network, and then between the two networks: again on validation.

# %%
ALL_RESULTS = {  # the best point is in both searches of a network, but counts once
    "AlexNet": pd.concat([alexnet_grid, alexnet_decays], ignore_index=True).drop_duplicates(),
    "resnet18": pd.concat([resnet_grid, resnet_decays], ignore_index=True).drop_duplicates(),
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
# The chosen network is trained once more, from the same seed, and this time `run` judges it on the test images.
#
# **Predict, then run:** the chosen validation accuracy is the highest of many, and some of that is luck. Will the test
# accuracy be higher or lower?

# %%
checkpoint = UNDER_WAY / "one-look.pt"
checkpoint.unlink(missing_ok=True)
validation_set = val_set
val_set = images.test  # for this one trial; afterwards it is the validation set again
try:
    *_, last_epoch = trial_of(chosen)(**point, checkpoint=checkpoint)
finally:
    val_set = validation_set
    checkpoint.unlink(missing_ok=True)
test_accuracy = last_epoch.val_accuracy
print(f"{chosen}: validation {val_accuracy:.1%}, test {test_accuracy:.1%} of {len(images.test):,} images")

# %% [markdown]
# This is the number for the report. If you do not like it, the grid is not to be changed and the cell run again: then
# the test images would have taken part in a choice, and nothing fresh would be left.

# %% [markdown]
# ## What the results say
#
# Your own numbers depend on your settings. So the questions are about a fixed table: resnet18 on `shapes`, 4,500
# training and 500 validation images, ten classes, 3 epochs. Validation accuracy, in percent, with weight decay 0.0005:
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
# (Measured on two processor cores with `python -m cnnlesson exercise --model resnet18 --data shapes --epochs 3 --lr 0.1
# 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 --decay-at-best 0 0.05`.)
#
# ### Exercise: conclusions
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# - **a** What did the largest learning rate do? `"diverged"`, `"guessed"`, `"learned worse"` (than 0.001) or
#   `"learned best"`
# - **b** At a fixed number of epochs, which batch size takes the most steps? A number.
# - **c** How many steps does that trial take in all? A number.
# - **d** Which point would you try next? `"batch size 8"`, `"batch size 128"`, `"learning rate 1"` or `"nothing"`
# - **e** From no decay to a decay of 0.05, what happens to the gap, training minus validation accuracy? It `"grows"`,
#   `"stays"` or `"shrinks"`
# - **f** How many validation images lie between the decays 0 and 0.0005? A number.
# - **g** On which part is the choice made? `"training"`, `"validation"` or `"test"`
# - **h** How many trials are measured on the test images? A number.
#
# <details><summary>Hint 1</summary>For b and c: an epoch has one step a batch, and the last batch may be
# smaller.</details>
# <details><summary>Hint 2</summary>For d: where in the table is the best cell, and what lies beyond?</details>
# <details><summary>Hint 3</summary>For f: the difference is 0.4 percentage points of the validation images.</details>

# %% tags=["exercise"]
conclusions = {"a": None, "b": None, "c": None, "d": None, "e": None, "f": None, "g": None, "h": None}
### BEGIN SOLUTION
conclusions["a"] = "learned worse"  # guessing gives 10 % of ten classes
conclusions["b"] = 16
conclusions["c"] = -(-4500 // 16) * 3
conclusions["d"] = "batch size 8"  # the best cell lies on the edge of the table
conclusions["e"] = "shrinks"  # from 2.0 to -2.1
conclusions["f"] = 2  # so 0 and 0.0005 cannot be told apart here
conclusions["g"] = "validation"
conclusions["h"] = 1
### END SOLUTION

# %%
check.conclusions(conclusions)

# %% [markdown]
# ## Your results beside others
#
# One search says what happened once, on one set of images. The package carries the results of another: the same two
# grids on photographs, 20 of TinyImageNet's classes with 2,000 training and 500 validation images, for 5 epochs.
# `compare_text` puts them beside yours, point by point.
#
# **Predict, then run:** if your images were `shapes`, all numbers differ, as the task does. But which statements will
# be the same: which learning rate is best, what 0.1 does to AlexNet, where batch size 64 stands?

# %%
photographs = reference.load("tiny_imagenet_grid")
for name, results in ALL_RESULTS.items():
    print(f"\n{name}")
    print(report.compare_text(results, photographs.table[photographs.table["model"] == name.lower()]))

# %% [markdown]
# All four to walk through: yours, and those on photographs.
#
# **Predict, then move:** is the point with the highest training accuracy also the best one on validation? Where a loss
# is infinite in one table, what does the accuracy beside it say?

# %%
explore_results(ALL_RESULTS | {f"{name} on photographs": table for name, table in photographs.table.groupby("model")})

# %% [markdown]
# How they were made, for whoever wants to repeat it:

# %%
for what in ("command", "data", "seeds", "processor", "torch", "date"):
    print(textwrap.fill(f"{what}: {photographs.made[what]}", 100, subsequent_indent="    ", break_on_hyphens=False))

# %% [markdown]
# ## Your report
#
# Answer in your own words, about **your** numbers: what did the learning rate do, what the batch size, what the weight
# decay, and where do AlexNet and resnet18 differ? Which of these differences are larger than a few images?

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
    for column, words in (("lr", "learning rate"), ("batch_size", "batch size")):
        best = grid.groupby(column)["val_accuracy"].max()
        values = ", ".join(f"{value:g}: " + ("diverged" if a != a else f"{a:.1%}") for value, a in best.items())
        sentences.append(f"- {name}, best validation accuracy by {words}: {values}.")
for name, decays in (("AlexNet", alexnet_decays), ("resnet18", resnet_decays)):
    gaps = ", ".join(
        f"{row.weight_decay:g}: {100 * (row.train_accuracy - row.val_accuracy):+.1f}"
        for row in last_epochs(decays).itertuples()
    )
    sentences.append(f"- {name}, training minus validation accuracy by weight decay, in points: {gaps}.")
my_conclusions = "\n".join(sentences)

# %% [markdown]
# This cell writes the report into a folder: the tables, heat maps and curves of both networks, the effect of the decay,
# the choice, your conclusions, and under which circumstances all this was measured. Open `report.html` in a browser and
# read it once as your teacher will. Then hand in the folder.

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
print(f"hand in the folder {page.parent}; the page to open is {page.name}")

# %% [markdown]
# ## Where you are

# %%
check.progress()
