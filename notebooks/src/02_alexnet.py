# %% [markdown]
# # 2 AlexNet
#
# In 2012 one network made almost everyone in computer vision change their methods within two years. In this lesson
# you take it apart, count what each layer costs, build it yourself, and train it.
#
# **Afterwards you can**
#
# - work out the size of what any convolution or pooling gives, and what it costs in memory, parameters and work;
# - say which layers of AlexNet hold its parameters and which do its work, and find a mistake in a published table;
# - write AlexNet in PyTorch, and know from the first loss whether it starts as it should.
#
# **Time:** 90 minutes. **You need:** lesson 1; what a convolution is. A GPU helps in the last section only.

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
pd.options.display.max_colwidth = None  # show arithmetic in full

# %% [markdown]
# Choose the images. `shapes` are drawn on the spot in a second; `tiny-imagenet` are photographs, 248 MB to download
# the first time.

# %%
DATA = "shapes"  # @param ["shapes", "tiny-imagenet"]

images = load_images(DATA)
show(plot_images(images.train[torch.arange(12)]))
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
# The paper itself says 224×224. Hold on to that: in a moment you will see why the slide says 227.
#
# A network is a chain of layers, so the first thing to know about a layer is the size of what it passes on.

# %% [markdown]
# ## How large is what a convolution gives?
#
# A kernel slides over the image. `padding` adds that many pixels on **each** side; `stride` is the length of a step.
# Where the window does not fit whole any more, it stops. Pooling moves in the same way.
#
# **Predict, then run:** a 7-pixel row, a kernel of 3, stride 2, no padding. How many places are there for the window?

# %%
row = torch.arange(7.0)
row.unfold(0, size=3, step=2)  # each line is one window

# %% [markdown]
# ### Exercise: conv_output_size
#
# **Difficulty:** easy · **Time:** 5 minutes
#
# Return the height (and width) of what a convolution gives.
#
# <details><summary>Hint 1</summary>How wide is the image once the padding is there on both sides?</details>
# <details><summary>Hint 2</summary>Put the window at the left edge. How many pixels are left on its right, and how
# many whole steps fit in there?</details>
# <details><summary>Hint 3</summary>The window stands somewhere before it has moved at all: that place counts
# too.</details>

# %% tags=["exercise"]
def conv_output_size(size, kernel, stride, padding):
    """The number of places for a window of `kernel` pixels along an image of `size` pixels: an int."""
    ### BEGIN SOLUTION
    return (size + 2 * padding - kernel) // stride + 1
    ### END SOLUTION

# %%
check.conv_output_size(conv_output_size)

# %% [markdown]
# Now the 224 of the paper. Its first layer has a kernel of 11 and stride 4. Without padding:

# %%
for size in (224, 227):
    print(size, "pixels:", (size - 11) / 4 + 1, "places")

# %% [markdown]
# 54.25 places make no sense, 55 do. So the network that was trained must have had 227 pixels, or some padding that
# the paper does not mention. The slide's network has 227 pixels *and* a padding of 2, which gives 56.

# %% [markdown]
# ## What does a layer cost?
#
# The slide's table has three columns of cost. Its rules:
#
# - **memory (KB):** all numbers that come **out** of the layer, as float32 (4 bytes each); a KB is 1024 bytes;
# - **params:** weights and biases;
# - **flop:** a multiplication with its addition counts as **one**; biases are left out.
#
# A filter of a convolution covers *all* input channels. So it has `in_channels × kernel × kernel` weights, and one
# bias.
#
# **Predict, then run:** which of the three does a larger image change, and which does it leave alone?

# %%
for size in (227, 454):
    convolution = nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2)
    output = convolution(torch.zeros(1, 3, size, size))
    parameters = sum(parameter.numel() for parameter in convolution.parameters())
    print(f"{size} pixels: output {tuple(output.shape)}, {output.numel():,} numbers, {parameters:,} parameters")

# %% [markdown]
# ### Exercise: conv_cost
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Return memory in KB, the number of parameters, and the number of multiply-adds, by the slide's rules.
#
# <details><summary>Hint 1</summary>`conv_output_size` tells how many pixels each of the output's maps has.</details>
# <details><summary>Hint 2</summary>How many multiplications make one number of the output? It is the number of
# weights of one filter.</details>

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
# All of this in a picture that you can move. Every field also obeys the arrow keys (the space bar opens
# a list), and the text below says the same.
#
# **Predict, then move:**
#
# - Let the window go through all places. Which pixels does it see twice?
# - Find a padding that keeps the size with a kernel of 3 and stride 1. And with a kernel of 5? Of 4?
# - Set the paper's first layer: 224 pixels, kernel 11, stride 4, no padding. Where are the pixels that are never looked
#   at? What do 227 pixels change?
# - Double the number of filters, then the input channels, then the stride. Which of the costs follow each?

# %%
explore_convolution(size=7, kernel=3, stride=2, padding=0)

# %% [markdown]
# ## The layer table, row by row
#
# `layer_table` runs an image through any network and notes what each layer does. This is the slide's table, computed:

# %%
table = layer_table(AlexNet(num_classes=1000, dropout=0.5), (3, 227, 227))
table.loc["conv1":"flatten"].style.format(precision=0, na_rep="", thousands=",")

# %% [markdown]
# The same as a picture: the height of a box stands for the size of the maps, its width for their number.

# %%
show(plot_architecture(AlexNet(num_classes=1000, dropout=0.5), (3, 227, 227)))

# %% [markdown]
# The slide stops at `flatten`: 256 maps of 6×6 become one row of 9216 numbers. Three fully-connected layers follow,
# with 4096, 4096 and 1000 outputs. In a fully-connected layer every output is connected with every input, and has
# one bias.
#
# **Predict:** which of the three costs will now grow most, compared with everything above?
#
# ### Exercise: missing_rows
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# Fill in the three rows that the slide lacks: memory in KB, parameters in thousands, flop in millions. Round as the
# slide does, or do not round.
#
# <details><summary>Hint 1</summary>fc6 takes 9216 numbers and gives 4096. How many weights connect them?</details>
# <details><summary>Hint 2</summary>Each weight is used once for an image.</details>

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
# ## Where the memory, the parameters and the work sit

# %%
show(plot_layers(table))

# %% [markdown]
# Three pictures of one network, and they do not look alike:
#
# - most **memory** is in the early convolutions, where the maps are large;
# - nearly all **parameters** are in the fully-connected layers, 37.8 of 61.1 million in fc6 alone;
# - most **work** is in the convolutions, since each weight there is used at every pixel.
#
# So what would you change to make AlexNet fit into less memory? And to make it faster? The answers are different
# layers.

# %%
costs = table.drop(index="total")[["memory_kb", "params_k", "flop_m"]]
convolutions = costs[costs.index.str.startswith("conv")].sum()
pd.DataFrame(
    {"convolutions": convolutions / costs.sum(), "fc6 to fc8": costs.loc["fc6":"fc8"].sum() / costs.sum()}
).map("{:.0%}".format)

# %% [markdown]
# ## The audit
#
# Published figures are typed by people. One cell of the slide's table does not follow from the table's own rule:
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
# Name the cell as `(layer, column)`, with the column `"size"`, `"memory"`, `"params"` or `"flop"`.
#
# <details><summary>Hint 1</summary>Your `conv_cost` can work out every row. Which column disagrees?</details>

# %% tags=["exercise"]
erratum = None  # such as ("conv1", "memory")
### BEGIN SOLUTION
erratum = ("conv4", "flop")
### END SOLUTION

# %%
check.erratum(erratum)

# %% [markdown] tags=["solution"]
# All other 90 figures of the slide follow. `audit_slide()` shows each with its arithmetic:

# %% tags=["solution"]
from cnnlesson.reference.audit import audit_slide

audit = audit_slide()
audit[~audit["agrees"]]

# %% [markdown]
# The paper's own numbers do not all follow either. The caption of its Figure 2 reads:
#
# > An illustration of the architecture of our CNN, explicitly showing the delineation of responsibilities between
# > the two GPUs. One GPU runs the layer-parts at the top of the figure while the other runs the layer-parts at the
# > bottom. The GPUs communicate only at certain layers. The network's input is 150,528-dimensional, and the number
# > of neurons in the network's remaining layers is given by 253,440–186,624–64,896–64,896–43,264–4096–4096–1000.
#
# Each number should be channels × height × width of a layer. Seven of nine are:

# %%
audit_caption()

# %% [markdown]
# ## Two towers
#
# A GPU of 2012 had 3 GB of memory, too little for this network. So the authors cut it in two: each GPU has half of
# the filters of each layer, and half of the maps. Look at the number of channels that the filters of each layer see:

# %%
two_towers = TwoTowerAlexNet(num_classes=1000)
for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
    layer = getattr(two_towers, name)
    print(f"{name}: {layer.out_channels} filters, each sees {layer.weight.shape[1]} of {layer.in_channels} channels")

# %% [markdown]
# In conv2, conv4 and conv5 a filter sees the maps of its own GPU alone. Only in conv3, and in the fully-connected
# layers, do the towers exchange what they have found: there the lines of Figure 2 cross. Today this is called a
# *grouped* convolution.
#
# ### Exercise: grouped_parameters
#
# **Difficulty:** medium · **Time:** 5 minutes
#
# How many parameters, with biases, has a convolution whose channels and filters are divided into `groups`?
#
# <details><summary>Hint 1</summary>How many channels does one filter see?</details>
# <details><summary>Hint 2</summary>The number of filters stays the same, and each has one bias.</details>

# %% tags=["exercise"]
def grouped_parameters(in_channels, filters, kernel, groups):
    """The number of weights and biases of a grouped convolution: an int."""
    ### BEGIN SOLUTION
    return filters * (in_channels // groups) * kernel**2 + filters
    ### END SOLUTION

# %%
check.grouped_parameters(grouped_parameters)

# %%
print(f"{sum(parameter.numel() for parameter in two_towers.parameters()):,} parameters; the paper says 60 million")

# %% [markdown]
# ## Any network, any layer
#
# The table, the bars and the arithmetic of any layer, for the networks of this lesson and of the next. Larger networks
# have a bar a block.
#
# **Predict, then move:**
#
# - What do two towers save in conv2, and what in conv3?
# - AlexNet wants 227 pixels. What happens at 64? Why can ResNet-18 take both?
# - Which layer of ResNet-50 has most parameters? And how many of AlexNet's fc6 would that be?

# %%
explore_layers()

# %% [markdown]
# ## Build it
#
# The slide's table is a building plan. In PyTorch a network is a class: `__init__` makes the layers, `forward` says
# in which order an image goes through them. ReLU stands behind every convolution and behind fc6 and fc7, and the
# last layer gives *logits*: one number a class, of any sign. Softmax is not part of the network, because
# `F.cross_entropy` contains it.
#
# The paper's dropout sits before fc6 and before fc7: in training each input is zeroed with probability 0.5.
#
# ### Exercise: StudentAlexNet
#
# **Difficulty:** medium · **Time:** 20 minutes
#
# <details><summary>Hint 1</summary>`nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2)` is the table's first row;
# `nn.MaxPool2d(kernel_size=3, stride=2)` the second.</details>
# <details><summary>Hint 2</summary>`x.flatten(1)` makes (N, 256, 6, 6) into (N, 9216).</details>
# <details><summary>Hint 3</summary>`nn.Dropout(0.5)` knows by itself whether the network is in training; one can be
# used in two places.</details>

# %% tags=["exercise"]
class StudentAlexNet(nn.Module):
    """The network of the slide's table: images (N, 3, 227, 227) to logits (N, num_classes)."""

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
# A network that has learned nothing yet cannot tell the classes apart. Then the loss before the first step is known
# in advance, and a different one is the first sign of a mistake.
#
# ### Exercise: initial_loss
#
# **Difficulty:** easy · **Time:** 5 minutes
#
# <details><summary>Hint 1</summary>Which probability does such a network give to the right class?</details>
# <details><summary>Hint 2</summary>Cross-entropy is minus the natural logarithm of that probability.</details>

# %% tags=["exercise"]
def initial_loss(num_classes):
    """The cross-entropy of equal probabilities for all classes, in nats."""
    ### BEGIN SOLUTION
    return math.log(num_classes)
    ### END SOLUTION

# %%
check.initial_loss(initial_loss)

# %% [markdown]
# ## Train it
#
# If your network passed its check, it is yours that is trained now; otherwise the package's. The package's starts
# from other weights than PyTorch's default, under which the signal dies out over eight layers: `help(AlexNet)` tells
# why. So the starting weights are the package's in both cases.
#
# **Predict, then run:** what will the first line say about the loss?

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
# AlexNet has 61 million parameters, and it learns slowly at first: for a while the loss rests near its first value,
# and then it starts to fall. With more images and epochs it goes on; lesson 4 is about finding the learning rate,
# the batch size and the weight decay that suit it.

# %% [markdown]
# ## What it gets wrong
#
# An accuracy is one number. Which classes does the network take for which others? Rows are what an image is, columns
# what the network says.
#
# **Predict, then run:** which two classes of your images will be confused most?

# %%
val_labels, probabilities = predict(model, val_batches)
show(plot_confusion(val_labels, probabilities.argmax(dim=1), images.train.classes))

# %% [markdown]
# And these are the images about which it was most sure, and wrong. Would you have known?

# %%
show(plot_most_wrong(val_set, val_labels, probabilities))

# %% [markdown]
# ## What it sees
#
# The filters of conv1 are 11×11 pixels with three colours, so they can be looked at. After a short training they
# still look like the noise they started from; after the 90 epochs of the paper they are edges, gratings and blobs of
# colour.

# %%
show(plot_filters(next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d)).weight))

# %% [markdown]
# Even filters of noise answer to edges. Here is one image, and what the first convolution makes of it: bright where
# a filter answers, dark where it does not.

# %%
show(plot_images(val_set[torch.arange(1)]))
first_convolution = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
with torch.no_grad():
    maps = F.relu(first_convolution(some_images[:1]))[0]  # (64, 56, 56)
show(plot_feature_maps(maps))

# %% [markdown]
# Any layer, any channel, any image. The frame is the *receptive field* of the strongest place of the map: the pixels
# that it can see at all.
#
# **Predict, then move:** how large is the receptive field of a place of conv1? How does it grow from layer to layer,
# and what does a pool add? Behind the last pool, is there a place that sees the whole image?

# %%
explore_network(model, val_set, image_size=227)

# %% [markdown]
# ## Where you are

# %%
check.progress()
