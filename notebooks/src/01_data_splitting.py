# %% [markdown]
# # 1 Splitting data
#
# A network can be right for two reasons: it has learned something, or it has already seen the answer. In this lesson
# you learn to tell the two apart. Every number in the later lessons depends on it.
#
# **After this lesson you can**
#
# - explain what training, validation and test images are for, and what goes wrong without them;
# - split images at random, by class, and into k folds, so that anyone can reproduce the split;
# - find out whether anything has leaked from one part into another.
#
# **Time:** 90 minutes. **Prerequisites:** Python and PyTorch tensors. You do not need a GPU.

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
# Choose the images. `shapes` is a synthetic data set that is generated in about a second. `eurosat` (satellite
# images, 94 MB) and `tiny-imagenet` (248 MB) consist of photographs, which are downloaded the first time.

# %%
DATA = "shapes"  # @param ["shapes", "eurosat", "tiny-imagenet"]

images = load_images(DATA)
show(plot_images(images.train[torch.linspace(0, len(images.train) - 1, 12).long()]))
images

# %% [markdown]
# Most data sets are already split when you download them. TinyImageNet comes in three parts: 100,000 training images,
# 10,000 validation images, and 10,000 test images *without labels*, because they were used in a competition. Without
# labels you cannot compute an accuracy. We therefore use TinyImageNet's labelled validation images as the test set,
# `images.test`, and cut our own validation set out of the training images.

# %% [markdown]
# ## How to find good hyperparameters?
#
# - Split your data!
#
# That is the whole slide. To see why, consider a method that memorises everything: it stores all training images, and
# for each new image it predicts the label of the stored image that looks most like it. This method is called the
# *nearest neighbour* classifier.

# %%
def nearest_neighbour_accuracy(train_set, other_set):
    """The share of images in `other_set` whose label matches that of the nearest image in `train_set`."""
    stored = train_set.images.flatten(1).float()  # (N, 3 * H * W)
    correct = 0
    for some, labels in zip(other_set.images.split(100), other_set.labels.split(100), strict=True):
        nearest = torch.cdist(some.flatten(1).float(), stored).argmin(dim=1)  # (100,)
        correct += (train_set.labels[nearest] == labels).sum().item()
    return correct / len(other_set)

# %% [markdown]
# **Predict, then run:** how often is it right on the images it has stored? And on images it has never seen?

# %%
known = take(images.train, 100 if TINY else 1000, seed=0)
unknown = take(images.test, 100 if TINY else 500, seed=0)
print(f"stored images:  {nearest_neighbour_accuracy(known, known):.0%}")
print(f"unseen images:  {nearest_neighbour_accuracy(known, unknown):.0%}")
print(f"chance level:   {1 / len(known.classes):.1%}")

# %% [markdown]
# The first accuracy is perfect, and it tells you nothing. To measure what a model has learned, you need images that
# played no part in the learning. Set them aside *before* you learn anything from the rest.
#
# Choose them at random. Files are often sorted by class, as in TinyImageNet, so the last tenth of the list would
# consist of classes that never occur in the rest.
#
# ### Exercise: split_indices
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# Split the indices 0, 1, ..., `num_images` - 1 at random into one part per fraction. Each index belongs to exactly one
# part. The same seed always returns the same parts; a different seed returns different ones. Your function must not
# change PyTorch's global random state: nobody who calls it expects their own random numbers to change.
#
# <details><summary>Hint 1</summary>Shuffle all indices first. Then you only need to cut.</details>
# <details><summary>Hint 2</summary>`torch.randperm` takes a `generator`, and `torch.Generator().manual_seed(seed)`
# creates one that is independent of the global random state.</details>
# <details><summary>Hint 3</summary>Rounding can lose an image. Which part could take all that is left?</details>

# %% tags=["exercise"]
def split_indices(num_images, fractions, seed):
    """A list of index tensors, one for each of `fractions`, which sum to 1."""
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
# Two parts are not enough. You choose settings such as the learning rate by their accuracy on images that were not
# used for training, and choosing is a form of learning too. So you need three parts:
#
# | part | what it determines | how often you use it |
# | --- | --- | --- |
# | training | the weights | in every step |
# | validation | the hyperparameters: which of many trained networks to keep | after every training run |
# | test | how good the chosen network is | once, at the end |
#
# Here are 200 "settings", all equally useless: each assigns classes at random. We compare them on 100 validation
# images and keep the best.
#
# **Predict, then run:** there are ten classes. What validation accuracy will the best setting reach? And what test
# accuracy?

# %%
NUM_CLASSES = 10
generator = torch.Generator().manual_seed(0)
val_labels = torch.randint(NUM_CLASSES, (100,), generator=generator)
test_labels = torch.randint(NUM_CLASSES, (10_000,), generator=generator)

val_guesses = torch.randint(NUM_CLASSES, (200, 100), generator=generator)  # one row per setting
test_guesses = torch.randint(NUM_CLASSES, (200, 10_000), generator=generator)
val_accuracy = (val_guesses == val_labels).float().mean(dim=1)  # (200,)
test_accuracy = (test_guesses == test_labels).float().mean(dim=1)
best = val_accuracy.argmax()
print(f"mean of all 200, validation:  {val_accuracy.mean():.1%}")
print(f"best of 200, validation:      {val_accuracy[best]:.1%}")
print(f"the same setting, test:       {test_accuracy[best]:.1%}")

# %% [markdown]
# The best of many candidates looks good on the images that it was chosen on, even when all candidates are equally bad.
# Only the test images are unbiased, because they played no part in the choice. If you now switched to another setting
# because its *test* accuracy is higher, your test images would turn into validation images.

# %% [markdown]
# ## A random split can go wrong
#
# Some classes are rare. This set has 200 images, and only 8 of them show a fox:

# %%
animals = ("cat", "dog", "fox")
animal_labels = torch.arange(3).repeat_interleave(torch.tensor([120, 72, 8]))  # (200,)
animal_labels = animal_labels[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
pd.Series(animal_labels.numpy()).map(dict(enumerate(animals))).value_counts()

# %% [markdown]
# **Predict, then run:** we move a random tenth of the images into the validation part, 1000 times over. How many of
# the 1000 validation parts contain no fox?

# %%
orders = torch.rand(1000, 200, generator=torch.Generator().manual_seed(0)).argsort(dim=1)  # one random order per row
foxes = (animal_labels[orders[:, :20]] == 2).sum(dim=1)  # (1000,)
print(f"{(foxes == 0).sum()} of 1000 validation parts have no fox, and {(foxes >= 3).sum()} have three or more")

# %% [markdown]
# If the validation part has no fox, a network that never predicts "fox" loses nothing. A *stratified* split prevents
# this: it splits each class separately, in the same proportions.
#
# ### Exercise: stratified_split
#
# **Difficulty:** medium · **Time:** 15 minutes
#
# Do what `split_indices` does, but keep the class proportions of the whole set in each part, up to rounding.
#
# <details><summary>Hint 1</summary>`(labels == label).nonzero()[:, 0]` returns the indices of one class in
# `labels`.</details>
# <details><summary>Hint 2</summary>You have already solved splitting n things: `split_indices` returns positions within
# the list of a class's indices.</details>
# <details><summary>Hint 3</summary>Collect the pieces of each part in a separate list, and join them at the end with
# `torch.cat`.</details>

# %% tags=["exercise"]
def stratified_split(labels, fractions, seed):
    """A list of tensors of indices into `labels` (N,), one for each of `fractions`, which sum to 1."""
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
# The next cell plots two splits: a plain random one that has no fox in the validation part, and a stratified one. The
# stratified split uses your function if it passed its check, and the package's `split` otherwise. Compare the foxes.

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
# The package's `split` is stratified, and all later lessons use it. Here it splits the images you chose:

# %%
train_set, val_set = split(images.train, (0.8, 0.2), seed=0)
show(plot_class_balance({"training": train_set.labels, "validation": val_set.labels}, images.train.classes))

# %% [markdown]
# ## k-fold cross-validation
#
# With a small data set, the validation part is small too, and its accuracy depends on which images it happens to
# contain. One solution is to take turns. Cut the images into k pieces and train k times, each time holding out a
# different piece for validation. Every image is validated exactly once, and you get k accuracies, so you can see how
# much they vary.
#
# ### Exercise: k_fold_indices
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Return a list of k pairs (training indices, validation indices). Choose the pieces at random and make them as equal
# as possible: their sizes differ by at most one.
#
# <details><summary>Hint 1</summary>Shuffle all indices once, and cut them into k pieces once, before the
# loop.</details>
# <details><summary>Hint 2</summary>The tensor method `tensor_split(k)` returns k pieces whose sizes are as equal as
# possible.</details>
# <details><summary>Hint 3</summary>To get a fold's training indices, concatenate all pieces except one.</details>

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
# The figure shows forty images in five folds. Each row is one training run, and each cell is one image. Look down a
# column: how often is an image blue?

# %%
if verdict.right:
    folds = k_fold_indices(40, 5, seed=0)
else:
    folds = list(KFold(5, shuffle=True, random_state=0).split(range(40)))  # scikit-learn's
show(plot_folds(folds))

# %% [markdown]
# Now evaluate the nearest neighbour classifier with the package's `k_folds`, which are also stratified.
#
# **Predict, then run:** five validation parts, all from the same set of images. How much will the accuracies differ?

# %%
accuracies = torch.tensor([nearest_neighbour_accuracy(train, val) for train, val in k_folds(known, 5, seed=0)])
print("accuracy per fold:", ", ".join(f"{accuracy:.1%}" for accuracy in accuracies))
print(f"mean {accuracies.mean():.1%}, standard deviation {accuracies.std():.1%}, over 5 folds")

# %% [markdown]
# If two settings differ by less than this spread, one validation part of this size cannot tell which is better. But
# measuring the spread costs k training runs instead of one. For large networks, a single large validation set is the
# usual choice, and the next lessons use one.

# %% [markdown]
# ## Normalise the images
#
# Networks train best on inputs with a mean near 0 and a standard deviation near 1. So you subtract the mean of each
# colour channel and divide by the channel's standard deviation. Compute both once, over all pixels of all *training*
# images, after scaling the pixel values to the range from 0 to 1.
#
# ### Exercise: channel_statistics
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# Return the mean and the standard deviation of each colour channel, over all pixels of all images, scaled to 0..1.
#
# <details><summary>Hint 1</summary>The images are uint8: integers from 0 to 255, and nothing else fits. Convert them
# to float before you do any arithmetic.</details>
# <details><summary>Hint 2</summary>`mean` and `std` take `dim`, a tuple of the dimensions to reduce. Which of
# (N, 3, H, W) must remain?</details>

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
# Why only the training images? The mean is learned from data, just like a weight. If you include validation images,
# the training receives information about them. When the parts have similar images, the statistics hardly differ:

# %%
if verdict.right:
    for name, part in (("training", train_set), ("validation", val_set)):
        mean, std = channel_statistics(part.images[:2000])
        print(f"{name:10s}  mean {mean.numpy().round(3)}, std {std.numpy().round(3)}")
else:
    print("This cell needs a correct channel_statistics. Solve the exercise above, then run it again.")

# %% [markdown]
# The rule protects you when the parts are not alike. Here the validation images are darker, as if they had been taken
# in another season. Statistics over both parts tell the training what kind of images to expect:

# %%
darker = (val_set.images[:2000] * 0.4).to(torch.uint8)
training = train_set.images[:2000]
for name, part in (("training images only", training), ("all images", torch.cat([training, darker]))):
    print(f"{name:20s}  mean brightness {part.float().mean() / 255:.3f}")

# %% [markdown]
# The package's `Batches` avoids the problem: it normalises with the published statistics of ImageNet's training images,
# which do not depend on our images at all.

# %% [markdown]
# ## Leakage
#
# *Leakage* means that information about the validation or test images reaches the training, by whatever route. The
# most common form is also the simplest: the same picture is in two parts. `find_leaks` compares all images of two sets.
# It reports pairs that are identical, and pairs that show the same picture but differ in brightness, compression,
# mirroring or a small shift.
#
# Now plant some leaks: copy six test images into the training images, with half of the copies mirrored and darkened.

# %%
copies = unknown.images[:6].clone()
copies[::2] = (copies[::2].flip(3) * 0.8).to(torch.uint8)
planted = ImageSet(torch.cat([known.images, copies]), torch.cat([known.labels, unknown.labels[:6]]), known.classes)

leaks = find_leaks(planted, unknown)
leaks

# %%
show(plot_leaks(planted, unknown, leaks))

# %% [markdown]
# `kind` tells identical pictures from modified ones. `distance` measures how different the two pictures are; 0 means
# the same. The planted copies are the last six training images. The list can also contain pairs that you
# did not plant: "near" is only a suspicion, so look at the pictures.
#
# **Predict, then run:** this time the training set contains a copy of every test image. What happens to the test
# accuracy?

# %%
everything = ImageSet(
    torch.cat([known.images, unknown.images]), torch.cat([known.labels, unknown.labels]), known.classes
)
print(f"without copies: {nearest_neighbour_accuracy(known, unknown):.0%}")
print(f"with copies:    {nearest_neighbour_accuracy(everything, unknown):.0%}")

# %% [markdown]
# A method that memorises now looks perfect. So does a large network that has memorised its training images, and nothing
# in its training warns you.
#
# Now check the images you chose, as their authors split them.
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
# If there are pairs, look at them: is it one picture, or are they two that look alike? Simple drawings can look alike
# by chance. Photographs of the same scene rarely do: in CIFAR-10, a data set that thousands of papers report on, 3.3 %
# of the test images have a duplicate among the training images (Barz and Denzler, *Do we train on test data?*, Journal
# of Imaging 6, 2020). An empty list does not prove that nothing has leaked: `find_leaks` does not detect pictures that
# were cropped or rotated.
#
# ### Exercise: leaky
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Pictures are not the only thing that can leak. In which of these four experiments does information about the
# validation or test images reach the training?
#
# - **A.** All images are normalised with the mean and standard deviation of the whole set. They are then split into
#   training, validation and test images. The network is trained, and tested once.
# - **B.** Five-fold cross-validation. For each fold, the mean and standard deviation are computed again from that
#   fold's training images, and both parts of the fold are normalised with them.
# - **C.** Twenty animal films are cut into frames, 25 per second of film. All frames are shuffled and split at random
#   into training and test images, stratified by animal.
# - **D.** The images are split. Then a mirrored copy of each training image is added to the training part. Ten
#   settings are compared on the validation part, and the best one is tested once.
#
# <details><summary>Hint 1</summary>Ask of each step: which images does it use, and does its result affect the
# training?</details>
# <details><summary>Hint 2</summary>Two images do not have to be identical for one to reveal the other. Remember what
# `find_leaks` calls "near".</details>

# %% tags=["exercise"]
leaky = {"A": None, "B": None, "C": None, "D": None}  # True if something leaks, otherwise False
### BEGIN SOLUTION
leaky = {"A": True, "B": False, "C": True, "D": False}
### END SOLUTION

# %%
check.leaky(leaky)

# %% [markdown] tags=["solution"]
# A leaks: the statistics were computed with the test images. C leaks: neighbouring frames are nearly identical, and
# the split puts some of them in training and others in test. Keep each film in one part. B and D do not leak: they
# split first, and compute their statistics or mirrored copies from training images only.

# %% [markdown]
# ## Explore splits, folds and leaks
#
# This explorer shows the splits, folds and leaks of 600 of your images. You can operate every control with the arrow
# keys; the space bar switches a check box.
#
# **Predict, then move:**
#
# - Clear the check box `stratified`. How much do the class proportions of the parts now differ with 10 % for
#   validation? With 50 %?
# - Set `folds` to 5. How many images of each class does each validation part have, with the box checked and without?
# - Go back to one split and plant 20 copies before it. How many of the 20 end up in validation while their original is
#   in training? Does stratifying keep copy and original together?

# %%
explore_splits(images.train)

# %% [markdown]
# ## From files to batches
#
# Images are usually stored as files, with one folder per class. The standard PyTorch pipeline has three pieces:
# `ImageFolder` finds the files, numbers the classes and decodes an image when it is needed; a transform modifies the
# image; `DataLoader` shuffles the images and collects them into batches. The next cell writes some images to files and
# builds the whole pipeline:

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
print(f"{len(dataset)} files in {len(dataset.classes)} folders; a batch has shape {tuple(batch_images.shape)}")

# %% [markdown]
# This pipeline decodes every file again in every epoch, and transforms one image at a time. With `num_workers`, several
# processes share the load. The package's `Batches` decodes the files once, keeps the uint8 images in memory, and
# shifts, mirrors and normalises a whole batch in one operation each, on the GPU if there is one.
#
# **Predict, then run:** how many times longer does one epoch take with the standard pipeline?

# %%
def seconds_per_epoch(batches):
    """The time of the second pass; the first one also sets everything up."""
    for _ in range(2):
        start = time.perf_counter()
        for batch_images, _ in batches:
            batch_images.to(device).sum().item()  # waits until the batch is ready
        seconds = time.perf_counter() - start
    return seconds


standard = seconds_per_epoch(loader)
ours = seconds_per_epoch(Batches(few, batch_size=50, image_size=few.images.shape[2], seed=0, augment=True))
print(f"ImageFolder and DataLoader: {standard:.2f} s. Batches: {ours:.3f} s. Ratio: {standard / ours:.0f}")
print(f"{len(few)} images of {few.images.shape[2]} pixels, batches on {device}, one process")
folder.cleanup()

# %% [markdown]
# The ratio holds for this machine and this one run. It matters if the network is so fast that it has to wait for
# images, as on a GPU with images this small. If your images do not fit into memory, use the standard pipeline.

# %% [markdown]
# ## In short
#
# - Split first. Compute statistics only afterwards, and only from the training part.
# - Use the training set for the weights, the validation set for your choices, and the test set once, at the end.
# - Stratify the split, set a seed, and look for pictures that are in two parts.

# %%
check.progress()
