# %% [markdown]
# # 1 Splitting data
#
# A network can be right for two reasons: it has understood something, or it has seen the answer. This lesson is about
# telling the two apart. Every number in the lessons after this one depends on it.
#
# **Afterwards you can**
#
# - say what training, validation and test images are each for, and what goes wrong without them;
# - split images at random, by class, and into k folds, so that anyone can repeat it;
# - find out whether something has leaked from one part into another.
#
# **Time:** 90 minutes. **You need:** Python and tensors of PyTorch. A GPU is not needed.

# %% [markdown]
# ## The tools of this lesson

# %%
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from sklearn.model_selection import KFold
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.io import write_png

from cnnlesson.checks import data_splitting as check
from cnnlesson.data import Batches, ImageSet, find_leaks, k_folds, split, take
from cnnlesson.notebook import TINY, load_images, say_device
from cnnlesson.plots import plot_class_balance, plot_folds, plot_images, plot_leaks, show
from cnnlesson.widgets import explore_splits

device = say_device()

# %% [markdown]
# Choose the images. `shapes` are drawn on the spot in a second; `tiny-imagenet` are photographs, 248 MB to download
# the first time.

# %%
DATA = "shapes"  # @param ["shapes", "tiny-imagenet"]

images = load_images(DATA)
show(plot_images(images.train[torch.linspace(0, len(images.train) - 1, 12).long()]))
images

# %% [markdown]
# The makers of a data set divide it too. TinyImageNet comes in three parts: 100,000 training images, 10,000
# validation images, and 10,000 test images *without labels*, since they were for a competition. Without labels no
# accuracy can be computed. So here the labelled validation part of TinyImageNet serves as the test set,
# `images.test`, and a validation part of our own is cut from the training images.

# %% [markdown]
# ## How to find good hyperparameters?
#
# - Split your data!
#
# That is the whole slide. To see why, take a method that learns everything by heart: it stores all training images,
# and gives a new image the label of the stored one that looks most like it. It is called *nearest neighbour*.

# %%
def nearest_neighbour_accuracy(train_set, other_set):
    """The share of the images in `other_set` that have the label of the nearest image in `train_set`."""
    stored = train_set.images.flatten(1).float()  # (N, 3 * H * W)
    correct = 0
    for some, labels in zip(other_set.images.split(100), other_set.labels.split(100), strict=True):
        nearest = torch.cdist(some.flatten(1).float(), stored).argmin(dim=1)  # (100,)
        correct += (train_set.labels[nearest] == labels).sum().item()
    return correct / len(other_set)

# %% [markdown]
# **Predict, then run:** how often is it right about the images it has stored? And about others?

# %%
known = take(images.train, 100 if TINY else 1000, seed=0)
unknown = take(images.test, 100 if TINY else 500, seed=0)
print(f"images it has stored:    {nearest_neighbour_accuracy(known, known):.0%}")
print(f"images it has not seen:  {nearest_neighbour_accuracy(known, unknown):.0%}")
print(f"guessing:                {1 / len(known.classes):.1%}")

# %% [markdown]
# The first number is that of a perfect method, and it says nothing. Only images that had no part in the learning
# tell what has been learned. Those must be put aside *before* anything is learned from the rest.
#
# Put aside at random: files often come sorted by class, as TinyImageNet's do, and the last tenth of such a list would
# have classes that the rest has never seen.
#
# ### Exercise: split_indices
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# Divide the numbers 0, 1, ..., `num_images` - 1 at random into one part for each fraction. Every number is in just
# one part, the same seed gives the same parts, and another seed gives others. The notebook's own random numbers must
# not change: whoever calls your function does not expect it to set a seed for the rest of the day.
#
# <details><summary>Hint 1</summary>Put all numbers in a random order first. Then cutting is enough.</details>
# <details><summary>Hint 2</summary>`torch.randperm` takes a `generator`; `torch.Generator().manual_seed(seed)` makes
# one that belongs to you alone.</details>
# <details><summary>Hint 3</summary>Rounding can lose an image: which part could take whatever is left?</details>

# %% tags=["exercise"]
def split_indices(num_images, fractions, seed):
    """A list of index tensors, one for each of `fractions`, which add up to 1."""
    ### BEGIN SOLUTION
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    sizes = [round(fraction * num_images) for fraction in fractions[:-1]]
    return order.split([*sizes, num_images - sum(sizes)])
    ### END SOLUTION

# %%
check.split_indices(split_indices)

# %% [markdown]
# ## Three parts
#
# Two parts are not enough. Settings such as the learning rate are chosen by looking at images that were not trained
# on, and choosing is a kind of learning too. So there are three:
#
# | part | what it is for | how often it is looked at |
# | --- | --- | --- |
# | training | the weights | in each step |
# | validation | the hyper-parameters: which of many trained networks to take | after each training |
# | test | what the chosen network is worth | once, at the end |
#
# Here are 200 "settings" that are all equally useless: each gives every image a class at random. They are
# compared on 100 validation images, and the best is taken.
#
# **Predict, then run:** with ten classes, what will the best of them reach on validation? And on test?

# %%
NUM_CLASSES = 10
generator = torch.Generator().manual_seed(0)
val_labels = torch.randint(NUM_CLASSES, (100,), generator=generator)
test_labels = torch.randint(NUM_CLASSES, (10_000,), generator=generator)

val_guesses = torch.randint(NUM_CLASSES, (200, 100), generator=generator)  # a row a setting
test_guesses = torch.randint(NUM_CLASSES, (200, 10_000), generator=generator)
val_accuracy = (val_guesses == val_labels).float().mean(dim=1)  # (200,)
test_accuracy = (test_guesses == test_labels).float().mean(dim=1)
best = val_accuracy.argmax()
print(f"all 200, on validation:       {val_accuracy.mean():.1%} on average")
print(f"the best of 200, validation:  {val_accuracy[best]:.1%}")
print(f"the same one, on test:        {test_accuracy[best]:.1%}")

# %% [markdown]
# The best of many looks good on the images it was chosen by, even where there is nothing to choose. The test images
# had no part in the choice, so they alone tell the truth. If you now went back and took another setting because of
# its *test* accuracy, the test images would have become validation images.

# %% [markdown]
# ## A random split can go wrong
#
# Photographs of rare things are rare. Here is a set of 200 images, of which 8 are foxes:

# %%
animals = ("cat", "dog", "fox")
animal_labels = torch.arange(3).repeat_interleave(torch.tensor([120, 72, 8]))  # (200,)
animal_labels = animal_labels[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
pd.Series(animal_labels.numpy()).map(dict(enumerate(animals))).value_counts()

# %% [markdown]
# **Predict, then run:** one image in ten goes into the validation part, at random. In how many of 1000 such splits is
# there no fox in it?

# %%
orders = torch.rand(1000, 200, generator=torch.Generator().manual_seed(0)).argsort(dim=1)  # a random order a row
foxes = (animal_labels[orders[:, :20]] == 2).sum(dim=1)  # (1000,)
print(f"{(foxes == 0).sum()} of 1000 validation parts have no fox, and {(foxes >= 3).sum()} have three or more")

# %% [markdown]
# Where a validation part has no fox, a network that never says "fox" loses nothing. With a *stratified* split this
# cannot happen: each class is divided on its own, in the same fractions.
#
# ### Exercise: stratified_split
#
# **Difficulty:** medium · **Time:** 15 minutes
#
# As `split_indices`, but each part has the classes in the proportions of the whole set, up to rounding.
#
# <details><summary>Hint 1</summary>`(labels == label).nonzero()[:, 0]` gives the places of one class in
# `labels`.</details>
# <details><summary>Hint 2</summary>Splitting n things is solved already: `split_indices` gives positions in the
# list of places.</details>
# <details><summary>Hint 3</summary>Collect the pieces of each part in a list of its own, and join them at the end
# with `torch.cat`.</details>

# %% tags=["exercise"]
def stratified_split(labels, fractions, seed):
    """A list of tensors of indices into `labels` (N,), one for each of `fractions`, which add up to 1."""
    ### BEGIN SOLUTION
    parts = [[] for _ in fractions]
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        for part, chosen in zip(parts, split_indices(len(places), fractions, seed), strict=True):
            part.append(places[chosen])
    return [torch.cat(part) for part in parts]
    ### END SOLUTION

# %%
verdict = check.stratified_split(stratified_split)

# %% [markdown]
# First a plain random split, one of those without a fox in the validation part. Then a stratified one: yours if it
# passed its check, otherwise that of the package's `split`. Compare the foxes.

# %%
some_images = torch.zeros(200, 3, 1, 1, dtype=torch.uint8)
animal_set = ImageSet(some_images, animal_labels, animals)
FRACTIONS = (0.75, 0.125, 0.125)
NAMES = ("training", "validation", "test")

random_parts = torch.randperm(200, generator=torch.Generator().manual_seed(3)).split([150, 25, 25])
random_labels = [animal_labels[part] for part in random_parts]
if verdict.right:
    stratified_labels = [animal_labels[part] for part in stratified_split(animal_labels, FRACTIONS, seed=0)]
else:
    stratified_labels = [part.labels for part in split(animal_set, FRACTIONS, seed=0)]

for title, parts in (("random", random_labels), ("stratified", stratified_labels)):
    balance = dict(zip(NAMES, parts, strict=True))
    ax = plot_class_balance(balance, animals)
    ax.set_title(title)
    show(ax)

# %% [markdown]
# The package's `split` is stratified. All later lessons use it, such as here on the images that you chose:

# %%
train_set, val_set = split(images.train, (0.8, 0.2), seed=0)
show(plot_class_balance({"training": train_set.labels, "validation": val_set.labels}, images.train.classes))

# %% [markdown]
# ## k-fold cross-validation
#
# With few images a validation part is small, and its accuracy depends on which images happen to be in it. One way out
# is to take turns: cut the images into k pieces, and train k times, each time with another piece left out for
# validation. Each image is validated once, and there are k accuracies, so their spread can be seen.
#
# ### Exercise: k_fold_indices
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Return a list of k pairs (training indices, validation indices). Draw the pieces at random, and make them as equal
# as they can be: their sizes differ by one at most.
#
# <details><summary>Hint 1</summary>Make one random order of all images, and cut it into k pieces once, before the
# loop.</details>
# <details><summary>Hint 2</summary>A tensor's method `tensor_split(k)` cuts it into k pieces that are as equal as
# they can be.</details>
# <details><summary>Hint 3</summary>The training part of a fold is all pieces but one, joined.</details>

# %% tags=["exercise"]
def k_fold_indices(num_images, k, seed):
    """A list of k pairs (training indices, validation indices), each a tensor."""
    ### BEGIN SOLUTION
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    pieces = order.tensor_split(k)
    return [(torch.cat(pieces[:fold] + pieces[fold + 1 :]), pieces[fold]) for fold in range(k)]
    ### END SOLUTION

# %%
verdict = check.k_fold_indices(k_fold_indices)

# %% [markdown]
# Forty images in five folds: a row is one training, and a field one image. Look down a column. How often is an image
# blue?

# %%
if verdict.right:
    folds = k_fold_indices(40, 5, seed=0)
else:
    folds = list(KFold(5, shuffle=True, random_state=0).split(range(40)))  # scikit-learn's
show(plot_folds(folds))

# %% [markdown]
# Now the nearest neighbour again, with the package's `k_folds`, which are stratified too.
#
# **Predict, then run:** five validation parts of the same images. How far apart will the accuracies be?

# %%
accuracies = torch.tensor([nearest_neighbour_accuracy(train, val) for train, val in k_folds(known, 5, seed=0)])
print("by fold:", ", ".join(f"{accuracy:.1%}" for accuracy in accuracies))
print(f"mean {accuracies.mean():.1%}, standard deviation {accuracies.std():.1%}, over 5 folds")

# %% [markdown]
# Two settings whose accuracies differ by less than this spread cannot be told apart by one validation part of this
# size. The price of knowing the spread is k trainings in place of one. For large networks a single, large validation
# part is the usual choice, and it is the one of the lessons after this.

# %% [markdown]
# ## What the network gets
#
# Networks learn best from numbers around 0 with a spread of about 1. So the mean of each colour channel is
# subtracted, and the result divided by the channel's standard deviation. Both are measured once, over all pixels of
# all *training* images, with values from 0 to 1.
#
# ### Exercise: channel_statistics
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# <details><summary>Hint 1</summary>The images are uint8, whole numbers from 0 to 255, and cannot hold anything
# else: convert them to float before any arithmetic.</details>
# <details><summary>Hint 2</summary>`mean` and `std` take `dim`, a tuple of the dimensions to be summed over. Which
# one of (N, 3, H, W) must stay?</details>

# %% tags=["exercise"]
def channel_statistics(images):
    """(mean, std), each a tensor (3,), of uint8 images (N, 3, H, W) scaled to 0..1."""
    ### BEGIN SOLUTION
    scaled = images.float() / 255
    return scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3))
    ### END SOLUTION

# %%
verdict = check.channel_statistics(channel_statistics)

# %% [markdown]
# Why from the training images only? The mean is learned from data, as a weight is. If validation images are in it,
# something of them is in training. Where images differ little between the parts, the numbers hardly change:

# %%
if verdict.right:
    for name, part in (("training", train_set), ("validation", val_set)):
        mean, std = channel_statistics(part.images[:2000])
        print(f"{name:10s}  mean {mean.numpy().round(3)}, std {std.numpy().round(3)}")
else:
    print("This cell waits for your channel_statistics.")

# %% [markdown]
# But the rule is not for such cases. Here the images of the second part are darker, as if taken in another season.
# The numbers of both parts together tell the training what kind of image is coming:

# %%
darker = (val_set.images[:2000] * 0.4).to(torch.uint8)
training = train_set.images[:2000]
for name, part in (("training images only", training), ("all images", torch.cat([training, darker]))):
    print(f"{name:20s}  mean brightness {part.float().mean() / 255:.3f}")

# %% [markdown]
# The package's `Batches` avoid the question: they normalise with the published statistics of ImageNet's training
# images, which none of our images can change.

# %% [markdown]
# ## Leakage
#
# *Leakage* is every way in which something of the validation or test images reaches training. The commonest is the
# plainest: the same picture is in two parts. `find_leaks` compares all images of two sets, and reports pairs that are
# equal, or that are the same picture but for brightness, compression, mirroring or a small shift.
#
# Plant some: put copies of six test images, half of them mirrored and made darker, among the training images.

# %%
copies = unknown.images[:6].clone()
copies[::2] = (copies[::2].flip(3) * 0.8).to(torch.uint8)
planted = ImageSet(torch.cat([known.images, copies]), torch.cat([known.labels, unknown.labels[:6]]), known.classes)

leaks = find_leaks(planted, unknown)
leaks

# %%
show(plot_leaks(planted, unknown, leaks))

# %% [markdown]
# `kind` tells equal pictures from changed ones, and `distance` how far they are apart, 0 for the same. The planted
# copies are the last six of the training images. A pair that was not planted can be in the list too: "near" is a
# suspicion, and you have to look.
#
# **Predict, then run:** every test image has now a copy in training. What becomes of the accuracy on test?

# %%
everything = ImageSet(
    torch.cat([known.images, unknown.images]), torch.cat([known.labels, unknown.labels]), known.classes
)
print(f"without copies: {nearest_neighbour_accuracy(known, unknown):.0%}")
print(f"with copies:    {nearest_neighbour_accuracy(everything, unknown):.0%}")

# %% [markdown]
# A method that learns by heart looks perfect. So does a large network, and nothing in its training tells you.
#
# Now the images that you chose, as their makers divided them.
#
# **Predict, then run:** are there test images among the training images?

# %%
leaks = find_leaks(images.train, images.test)
num_leaked = leaks["other_index"].nunique()
print(
    f"{len(leaks)} pairs, {(leaks['kind'] == 'exact').sum()} of them exact; "
    f"{num_leaked} of {len(images.test):,} test images ({num_leaked / len(images.test):.2%})"
)
if len(leaks):
    show(plot_leaks(images.train, images.test, leaks))

# %% [markdown]
# Look at the pairs, if there are any: are they one picture, or two that look alike? Simple drawings can be alike by
# chance. Photographs of the same scene seldom are: in CIFAR-10, a data set that thousands of papers report on,
# 3.3 % of the test images have a duplicate among the training images (Barz and Denzler, *Do we train on test data?*,
# Journal of Imaging 6, 2020). And where nothing is found, there may still be something: a picture that was cropped or
# turned is not found here.
#
# ### Exercise: leaky
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Pictures are not the only thing that leaks. In which of these four does something of the validation or test images
# reach the training?
#
# - **A.** All images are normalised with the mean and standard deviation of the whole set. Then they are split into
#   training, validation and test. The network is trained, and tested once.
# - **B.** Five-fold cross-validation. In each fold the mean and standard deviation are computed anew, from the fold's
#   training images, and both parts of the fold are normalised with them.
# - **C.** Twenty films of animals are cut into single frames, 25 a second. All frames are shuffled and split into
#   training and test at random, stratified by animal.
# - **D.** The images are split. Then each training image gets a mirrored copy, which joins the training part. Ten
#   settings are compared on the validation part, and the best is tested once.
#
# <details><summary>Hint 1</summary>For each step ask: which images did it look at, and is its result used in
# training?</details>
# <details><summary>Hint 2</summary>Two images need not be equal to give each other away. Remember what `find_leaks`
# calls "near".</details>

# %% tags=["exercise"]
leaky = {"A": None, "B": None, "C": None, "D": None}  # True where something leaks, else False
### BEGIN SOLUTION
leaky = {"A": True, "B": False, "C": True, "D": False}
### END SOLUTION

# %%
check.leaky(leaky)

# %% [markdown] tags=["solution"]
# A: the statistics have seen the test images. C: neighbouring frames are nearly equal, and the split tears them
# apart; whole films must go into one part. B and D do every step after the split, with training images alone.

# %% [markdown]
# ## All of it at once
#
# Splits, folds and leaks of your images (600 of them), to move and watch. Every field also obeys the arrow
# keys, and the space bar sets a tick.
#
# **Predict, then move:**
#
# - Take off the tick at `stratified`. How far apart are the parts now, with 10 % for validation? With 50 %?
# - Set `folds` to 5. How many images of a class has each validation part, with and without the tick?
# - Go back to one split and plant 20 copies before it. How many of the 20 end in validation while their original is in
#   training? Does stratifying keep them together?

# %%
explore_splits(images.train)

# %% [markdown]
# ## From files to batches
#
# Images usually come as files, in a folder for each class. The standard way in PyTorch has four pieces: `ImageFolder`
# finds the files and numbers the classes; a transform decodes and changes one image; `DataLoader` collects images
# into batches and shuffles them. Here are some images as files, and that way written out in full:

# %%
folder = tempfile.TemporaryDirectory()
few = take(images.train, 200 if TINY else 1000, seed=0)
for number, (image, label) in enumerate(zip(few.images, few.labels, strict=True)):
    class_folder = Path(folder.name) / "train" / f"{label:03d}"
    class_folder.mkdir(parents=True, exist_ok=True)
    write_png(image, str(class_folder / f"{number:05d}.png"))

transform = transforms.Compose(
    [
        transforms.RandomCrop(few.images.shape[2:], padding=8, padding_mode="reflect"),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),  # from 0..255 to 0..1
        transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ]
)
dataset = datasets.ImageFolder(Path(folder.name) / "train", transform=transform)
loader = DataLoader(dataset, batch_size=50, shuffle=True)

batch_images, batch_labels = next(iter(loader))
print(f"{len(dataset)} files in {len(dataset.classes)} folders; a batch is {tuple(batch_images.shape)}")

# %% [markdown]
# It decodes each file again in every epoch, and changes one image at a time. `num_workers` lets several processes
# share that work. The package's `Batches` decode once, keep the uint8 images in memory, and shift, mirror and
# normalise a whole batch at once, on the GPU where there is one.
#
# **Predict, then run:** how many times as long does the standard way take for one epoch?

# %%
def seconds_an_epoch(batches):
    """The time of one pass, the second: in the first everything is set up."""
    for _ in range(2):
        start = time.perf_counter()
        for batch_images, _ in batches:
            batch_images.to(device).sum().item()  # waits until the batch is there
        seconds = time.perf_counter() - start
    return seconds


standard = seconds_an_epoch(loader)
ours = seconds_an_epoch(Batches(few, batch_size=50, image_size=few.images.shape[2], seed=0, augment=True))
print(f"ImageFolder and DataLoader: {standard:.2f} s. Batches: {ours:.3f} s. Ratio: {standard / ours:.0f}")
print(f"{len(few)} images of {few.images.shape[2]} pixels, batches on {device}, one process")
folder.cleanup()

# %% [markdown]
# The ratio is that of this machine and of one run. It matters where the network is so fast that it waits for images,
# as on a GPU with images as small as these. Where the images do not fit into memory, the standard way is the one to
# take.

# %% [markdown]
# ## In short
#
# - Split first. Everything that is measured, chosen or learned comes after, from the training part.
# - Training for the weights, validation for the choices, test for one look at the end.
# - Stratify, give a seed, and look for pictures that are in two parts.

# %%
check.progress()
