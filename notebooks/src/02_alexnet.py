# %% [markdown]
# # 2 AlexNet
#
# In 2012, one network changed computer vision: within two years, almost everyone in the field had switched methods. In
# this lesson you take that network apart, count what each layer costs, build it yourself, and train it.
#
# **After this lesson you can**
#
# - compute the output size of any convolution or pooling layer, and its cost in memory, parameters and compute;
# - tell which layers of AlexNet hold its parameters and which need the most compute, and find a mistake in a published
#   table;
# - write AlexNet in PyTorch, and use the first loss to check that its training starts correctly.
#
# **Time:** 90 minutes. **Prerequisites:** lesson 1, and what a convolution is. A GPU speeds up only the training at
# the end.

# %% [markdown]
# ## The tools of this lesson

# %%
import math

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.anatomy import layer_table
from cnnlesson.checks import alexnet as check
from cnnlesson.data import Batches, split, take
from cnnlesson.models import AlexNet, TwoTowerAlexNet
from cnnlesson.notebook import TINY, load_images, say_device
from cnnlesson.plots import (
    plot_architecture,
    plot_confusion,
    plot_feature_maps,
    plot_filters,
    plot_images,
    plot_layers,
    plot_most_wrong,
    show,
)
from cnnlesson.reference.audit import audit_caption
from cnnlesson.training import predict, train
from cnnlesson.widgets import explore_convolution, explore_layers, explore_network, live_board

device = say_device()
pd.options.display.max_colwidth = None  # do not truncate the arithmetic in tables

# %% [markdown]
# Choose the images. `shapes` is a synthetic data set that is generated in about a second. `eurosat` (satellite
# images, 94 MB) and `tiny-imagenet` (248 MB) consist of photographs, which are downloaded the first time.

# %%
DATA = "shapes"  # @param ["shapes", "eurosat", "tiny-imagenet"]

images = load_images(DATA)
show(plot_images(images.train[torch.linspace(0, len(images.train) - 1, 12).long()]))
images.train

# %% [markdown]
# ## The paper
#
# Krizhevsky, Sutskever and Hinton: *ImageNet classification with deep convolutional neural networks*, NIPS 2012.
#
# - 227×227 inputs
# - 5 convolutional layers
# - max pooling
# - 3 fully-connected layers
# - ReLU non-linearities
#
# The paper itself says 224×224. Keep that in mind: you will soon see why the slide says 227.
#
# A network is a chain of layers, so the first thing you need to know about a layer is the size of its output.

# %% [markdown]
# ## How large is the output of a convolution?
#
# A kernel slides over the image. `padding` adds that many pixels on **each** side, and `stride` is the distance between
# two neighbouring positions of the window. The window stops when it no longer fits inside the padded image. Pooling
# works the same way.
#
# **Predict, then run:** a row of 7 pixels, a kernel of 3, stride 2, no padding. How many positions does the window
# have?

# %%
row = torch.arange(7.0)
row.unfold(0, size=3, step=2)  # each row is one window

# %% [markdown]
# ### Exercise: conv_output_size
#
# **Difficulty:** easy · **Time:** 5 minutes
#
# Return the height (and width) of a convolution's output.
#
# <details><summary>Hint 1</summary>How wide is the image after it is padded on both sides?</details>
# <details><summary>Hint 2</summary>Put the window at the left edge. How many pixels remain to its right, and how many
# full steps fit into them?</details>
# <details><summary>Hint 3</summary>The window's starting position counts too.</details>

# %% tags=["exercise"]
def conv_output_size(size, kernel, stride, padding):
    """The number of positions of a window of `kernel` pixels along an image of `size` pixels, an int."""
    ### BEGIN SOLUTION
    return (size + 2 * padding - kernel) // stride + 1
    ### END SOLUTION

# %%
check.conv_output_size(conv_output_size)

# %% [markdown]
# Now back to the paper's 224 pixels. Its first layer has a kernel of 11 and a stride of 4. Without padding:

# %%
for size in (224, 227):
    print(size, "pixels:", (size - 11) / 4 + 1, "positions")

# %% [markdown]
# There cannot be 54.25 positions, but there can be 55. So the network that was trained must have used 227 pixels, or
# padding that the paper does not mention. The slide's network uses 227 pixels *and* a padding of 2, so its output
# has 56 pixels.

# %% [markdown]
# ## What does a layer cost?
#
# The slide's table has three cost columns. They count:
#
# - **memory (KB):** the values in the layer's **output**, stored as float32 (4 bytes each); 1 KB is 1024 bytes;
# - **params:** weights and biases;
# - **flop:** multiply-adds, where a multiplication and its addition count as **one**; biases are not counted.
#
# Each filter of a convolution covers *all* input channels. So it has `in_channels × kernel × kernel` weights and one
# bias.
#
# **Predict, then run:** which of the three costs depend on the image size, and which do not?

# %%
for size in (227, 454):
    convolution = nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2)
    output = convolution(torch.zeros(1, 3, size, size))
    parameters = sum(parameter.numel() for parameter in convolution.parameters())
    print(f"{size} pixels: output {tuple(output.shape)}, {output.numel():,} values, {parameters:,} parameters")

# %% [markdown]
# ### Exercise: conv_cost
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Return the memory in KB, the number of parameters, and the number of multiply-adds, by the slide's rules.
#
# <details><summary>Hint 1</summary>`conv_output_size` returns the height and width of each output map.</details>
# <details><summary>Hint 2</summary>How many multiplications does one output value need? As many as one filter has
# weights.</details>

# %% tags=["exercise"]
def conv_cost(in_channels, in_size, filters, kernel, stride, padding):
    """(memory in KB, parameters, multiply-adds) of a convolution for one image."""
    ### BEGIN SOLUTION
    out_size = conv_output_size(in_size, kernel, stride, padding)
    outputs = filters * out_size**2
    weights = filters * in_channels * kernel**2
    return outputs * 4 / 1024, weights + filters, outputs * in_channels * kernel**2
    ### END SOLUTION

# %%
check.conv_cost(conv_cost)

# %% [markdown]
# ## Move the window
#
# Now explore all of this in an interactive figure. You can operate every control with the keyboard: the arrow keys
# change a value, and the space bar opens a list. The text below the figure describes what it shows.
#
# **Predict, then move:**
#
# - Move the window through all positions. Which pixels does it cover twice?
# - Find a padding that preserves the image size with a kernel of 3 and stride 1. And with a kernel of 5? Of 4?
# - Set the paper's first layer: 224 pixels, kernel 11, stride 4, no padding. Which pixels does the window never reach?
#   What changes with 227 pixels?
# - Double the number of filters, then the input channels, then the stride. How does each cost change?

# %%
explore_convolution(size=7, kernel=3, stride=2, padding=0)

# %% [markdown]
# ## The layer table, row by row
#
# `layer_table` runs an image through any network and records the size and cost of each layer. Here it computes the
# slide's table:

# %%
table = layer_table(AlexNet(num_classes=1000, dropout=0.5), (3, 227, 227))
table.loc["conv1":"flatten"].style.format(precision=0, na_rep="", thousands=",")

# %% [markdown]
# The next figure shows the same network. The height of a box represents the size of the feature maps, and its width
# their number.

# %%
show(plot_architecture(AlexNet(num_classes=1000, dropout=0.5), (3, 227, 227)))

# %% [markdown]
# The slide stops at `flatten`: 256 maps of 6×6 become a vector of 9216 values. Three fully-connected layers follow,
# with 4096, 4096 and 1000 outputs. In a fully-connected layer, every output is connected to every input and has one
# bias.
#
# **Predict:** which of the three costs grows the most, compared with the total of all layers so far?
#
# ### Exercise: missing_rows
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# Fill in the three rows missing from the slide: memory in KB, parameters in thousands, flop in millions. You can round
# as the slide does, or not at all.
#
# <details><summary>Hint 1</summary>fc6 has 9216 inputs and 4096 outputs. How many weights connect them?</details>
# <details><summary>Hint 2</summary>Each weight is used once per image.</details>

# %% tags=["exercise"]
missing_rows = {  # layer: (memory in KB, parameters in thousands, multiply-adds in millions)
    "fc6": (None, None, None),
    "fc7": (None, None, None),
    "fc8": (None, None, None),
}
### BEGIN SOLUTION
for layer, (inputs, outputs) in {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}.items():
    missing_rows[layer] = (outputs * 4 / 1024, (inputs + 1) * outputs / 1e3, inputs * outputs / 1e6)
### END SOLUTION

# %%
check.missing_rows(missing_rows)

# %% [markdown]
# ## Where the memory, the parameters and the compute go

# %%
show(plot_layers(table))

# %% [markdown]
# The three costs are distributed very differently over the same network:
#
# - the early convolutions use most of the **memory**, because their maps are large;
# - the fully-connected layers hold nearly all **parameters**: fc6 by itself has 37.8 of 61.1 million;
# - the convolutions need most of the **compute**, because each of their weights is used at every pixel.
#
# What would you change to make AlexNet fit into less memory? And to make it faster? The answers are different layers.

# %%
costs = table.drop(index="total")[["memory_kb", "params_k", "flop_m"]]
convolutions = costs[costs.index.str.startswith("conv")].sum()
pd.DataFrame(
    {"convolutions": convolutions / costs.sum(), "fc6 to fc8": costs.loc["fc6":"fc8"].sum() / costs.sum()}
).map("{:.0%}".format)

# %% [markdown]
# ## The audit
#
# People make mistakes when they type tables. One cell of the slide's table contradicts the table's own rules:
#
# | Layer | C | H / W | filters | kernel | stride | pad | C | H / W | memory (KB) | params (k) | flop (M) |
# | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
# | conv1 | 3 | 227 | 64 | 11 | 4 | 2 | 64 | 56 | 784 | 23 | 73 |
# | pool1 | 64 | 56 | | 3 | 2 | 0 | 64 | 27 | 182 | 0 | 0 |
# | conv2 | 64 | 27 | 192 | 5 | 1 | 2 | 192 | 27 | 547 | 307 | 224 |
# | pool2 | 192 | 27 | | 3 | 2 | 0 | 192 | 13 | 127 | 0 | 0 |
# | conv3 | 192 | 13 | 384 | 3 | 1 | 1 | 384 | 13 | 254 | 664 | 112 |
# | conv4 | 384 | 13 | 256 | 3 | 1 | 1 | 256 | 13 | 169 | 885 | 145 |
# | conv5 | 256 | 13 | 256 | 3 | 1 | 1 | 256 | 13 | 169 | 590 | 100 |
# | pool5 | 256 | 13 | | 3 | 2 | 0 | 256 | 6 | 36 | 0 | 0 |
# | flatten | 256 | 6 | | | | | 9216 | | 36 | 0 | 0 |
#
# ### Exercise: erratum
#
# **Difficulty:** easy · **Time:** 5 minutes
#
# Find that cell. Answer with `(layer, column)`, where the column is `"size"`, `"memory"`, `"params"` or `"flop"`.
#
# <details><summary>Hint 1</summary>Compute the rows with your `conv_cost`. Which column disagrees?</details>

# %% tags=["exercise"]
erratum = None  # such as ("conv1", "memory")
### BEGIN SOLUTION
erratum = ("conv4", "flop")
### END SOLUTION

# %%
check.erratum(erratum)

# %% [markdown] tags=["solution"]
# The other 90 numbers on the slide are correct. `audit_slide()` shows the arithmetic behind each of them:

# %% tags=["solution"]
from cnnlesson.reference.audit import audit_slide

audit = audit_slide()
audit[~audit["agrees"]]

# %% [markdown]
# The paper's own numbers are not all consistent either. The caption of its Figure 2 reads:
#
# > An illustration of the architecture of our CNN, explicitly showing the delineation of responsibilities between
# > the two GPUs. One GPU runs the layer-parts at the top of the figure while the other runs the layer-parts at the
# > bottom. The GPUs communicate only at certain layers. The network's input is 150,528-dimensional, and the number
# > of neurons in the network's remaining layers is given by 253,440–186,624–64,896–64,896–43,264–4096–4096–1000.
#
# Each number should equal channels × height × width of one layer. Seven of the nine do:

# %%
audit_caption()

# %% [markdown]
# ## Two towers
#
# A GPU of 2012 had 3 GB of memory, which was too little for this network. So the authors split it in two: each GPU
# holds half of the filters and half of the feature maps of each layer. How many channels do the filters of each layer
# see?

# %%
two_towers = TwoTowerAlexNet(num_classes=1000)
for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
    layer = getattr(two_towers, name)
    print(f"{name}: {layer.out_channels} filters, each sees {layer.weight.shape[1]} of {layer.in_channels} channels")

# %% [markdown]
# In conv2, conv4 and conv5, a filter sees only the maps on its own GPU. The towers communicate only in conv3 and in the
# fully-connected layers, where the lines of Figure 2 cross. A convolution whose filters see only a group of the
# channels is now called a *grouped* convolution.
#
# ### Exercise: grouped_parameters
#
# **Difficulty:** medium · **Time:** 5 minutes
#
# How many parameters, including biases, does a convolution have if its channels and filters are divided into `groups`?
#
# <details><summary>Hint 1</summary>How many channels does one filter see?</details>
# <details><summary>Hint 2</summary>The number of filters does not change, and each filter has one bias.</details>

# %% tags=["exercise"]
def grouped_parameters(in_channels, filters, kernel, groups):
    """The number of weights and biases of a grouped convolution, an int."""
    ### BEGIN SOLUTION
    return filters * (in_channels // groups) * kernel**2 + filters
    ### END SOLUTION

# %%
check.grouped_parameters(grouped_parameters)

# %%
print(f"{sum(parameter.numel() for parameter in two_towers.parameters()):,} parameters; the paper reports 60 million")

# %% [markdown]
# ## Any network, any layer
#
# This explorer shows the table, the bars and the arithmetic of any layer, for the networks of this lesson and the next.
# Larger networks have one bar per block.
#
# **Predict, then move:**
#
# - What do the two towers save in conv2? And in conv3?
# - AlexNet expects 227 pixels. What happens with 64? Why does ResNet-18 accept both?
# - Which layer of ResNet-50 has the most parameters? How does it compare with AlexNet's fc6?

# %%
explore_layers()

# %% [markdown]
# ## Build it
#
# The slide's table is a building plan. In PyTorch, a network is a class: `__init__` creates the layers, and `forward`
# applies them to a batch of images. A ReLU follows every convolution, and also fc6 and fc7. The last layer returns
# *logits*: one number per class, positive or negative. Softmax is not part of the network, because `F.cross_entropy`
# applies it.
#
# As in the paper, apply dropout before fc6 and before fc7: during training, it zeroes each input with probability 0.5.
#
# ### Exercise: StudentAlexNet
#
# **Difficulty:** medium · **Time:** 20 minutes
#
# Write the network in the slide's table, followed by the three fully-connected layers.
#
# <details><summary>Hint 1</summary>The first row of the table is `nn.Conv2d(3, 64, kernel_size=11, stride=4,
# padding=2)`, and the second is `nn.MaxPool2d(kernel_size=3, stride=2)`.</details>
# <details><summary>Hint 2</summary>`x.flatten(1)` reshapes (N, 256, 6, 6) to (N, 9216).</details>
# <details><summary>Hint 3</summary>`nn.Dropout(0.5)` is active only in training mode, and you can apply the same module
# twice.</details>

# %% tags=["exercise"]
class StudentAlexNet(nn.Module):
    """The network in the slide's table: images (N, 3, 227, 227) to logits (N, num_classes)."""

    def __init__(self, num_classes):
        super().__init__()
        ### BEGIN SOLUTION
        self.conv1 = nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(64, 192, kernel_size=5, padding=2)
        self.conv3 = nn.Conv2d(192, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 256, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)
        self.dropout = nn.Dropout(0.5)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        ### END SOLUTION

    def forward(self, images):
        ### BEGIN SOLUTION
        x = self.pool(F.relu(self.conv1(images)))  # (N, 64, 27, 27)
        x = self.pool(F.relu(self.conv2(x)))  # (N, 192, 13, 13)
        x = F.relu(self.conv3(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv4(x))  # (N, 256, 13, 13)
        x = self.pool(F.relu(self.conv5(x)))  # (N, 256, 6, 6)
        x = x.flatten(1)  # (N, 9216)
        x = F.relu(self.fc6(self.dropout(x)))  # (N, 4096)
        x = F.relu(self.fc7(self.dropout(x)))
        return self.fc8(x)  # (N, num_classes)
        ### END SOLUTION

# %%
verdict = check.StudentAlexNet(StudentAlexNet)

# %% [markdown]
# ## The first loss
#
# A network that has learned nothing cannot tell the classes apart. So you know its loss before the first step, and any
# other value is an early sign of a bug.
#
# ### Exercise: initial_loss
#
# **Difficulty:** easy · **Time:** 5 minutes
#
# Return the cross-entropy loss of a network that assigns the same probability to each class.
#
# <details><summary>Hint 1</summary>What probability does such a network assign to the correct class?</details>
# <details><summary>Hint 2</summary>Cross-entropy is the negative natural logarithm of that probability.</details>

# %% tags=["exercise"]
def initial_loss(num_classes):
    """The cross-entropy when all classes have equal probability, in nats."""
    ### BEGIN SOLUTION
    return math.log(num_classes)
    ### END SOLUTION

# %%
check.initial_loss(initial_loss)

# %% [markdown]
# ## Train it
#
# The next cells train your network if it passed its check, and the package's otherwise. Both are initialised as the
# package does it, because with PyTorch's default weights the signal dies out over eight layers; `help(AlexNet)`
# explains why.
#
# **Predict, then run:** what loss will the first line report?

# %%
NUM_IMAGES = 200 if TINY else 2000 if device.type == "cpu" else len(images.train)
EPOCHS = 1 if TINY else 3
num_classes = len(images.train.classes)

train_set, val_set = split(take(images.train, NUM_IMAGES, seed=0), (0.8, 0.2), seed=0)
train_batches = Batches(train_set, batch_size=16, image_size=227, augment=True, seed=0)
val_batches = Batches(val_set, batch_size=min(100, len(val_set)), image_size=227)

torch.manual_seed(0)
Network = StudentAlexNet if verdict.right else lambda num_classes: AlexNet(num_classes, dropout=0.5)
model = Network(num_classes).to(device)
for layer in model.modules():
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # variance 1 / fan_in
        nn.init.zeros_(layer.bias)

some_images, some_labels = next(iter(val_batches))
with torch.no_grad():
    loss = F.cross_entropy(model.eval()(some_images), some_labels)
print(f"before the first step: loss {loss:.3f}; ln {num_classes} = {math.log(num_classes):.3f}")

# %%
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4, fused=True)

history = []
for epoch in live_board(train(model, train_batches, val_batches, optimizer, epochs=EPOCHS), num_classes):
    history.append(epoch)

# %% [markdown]
# AlexNet learns slowly at first: the loss stays near its initial value for a while before it starts to fall. With more
# images and epochs, it continues to fall. In lesson 4 you look for a learning rate, a batch size and a weight decay
# that suit this network.

# %% [markdown]
# ## What it gets wrong
#
# The accuracy is a single number. It does not tell you which classes the network confuses. In the confusion matrix
# below, rows are the true classes and columns are the predicted ones.
#
# **Predict, then run:** which two classes will be confused most often?

# %%
val_labels, probabilities = predict(model, val_batches)
show(plot_confusion(val_labels, probabilities.argmax(dim=1), images.train.classes))

# %% [markdown]
# These are the images on which the network was wrong and most confident. Would you have got them right?

# %%
show(plot_most_wrong(val_set, val_labels, probabilities))

# %% [markdown]
# ## What it sees
#
# The filters of conv1 have 11×11 pixels and three colour channels, so you can display them as images. After this short
# training they still look like the noise they started from. After the paper's 90 epochs, they show edges, gratings and
# blobs of colour.

# %%
show(plot_filters(next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d)).weight))

# %% [markdown]
# Even random filters respond to edges. Here is one image and its feature maps after the first convolution: a map is
# bright where its filter responds and dark where it does not.

# %%
show(plot_images(val_set[torch.arange(1)]))
first_convolution = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
with torch.no_grad():
    maps = F.relu(first_convolution(some_images[:1]))[0]  # (64, 56, 56)
show(plot_feature_maps(maps))

# %% [markdown]
# In this explorer you can choose any layer, any channel and any image. The frame marks the *receptive field* of the
# map's strongest activation: all pixels that can influence it.
#
# **Predict, then move:** how large is the receptive field of an activation in conv1? How does it grow from layer to
# layer, and how much does a pooling layer add? After the last pooling layer, does any activation see the whole image?

# %%
explore_network(model, val_set, image_size=227)

# %% [markdown]
# ## Where you are

# %%
check.progress()
