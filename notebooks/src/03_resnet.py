# %% [markdown]
# # 3 ResNet
#
# More layers should make a network better. Until 2015, they often made it worse. In this lesson you see why that is
# strange and how He, Zhang, Ren and Sun solved the problem, and you build their network from one simple idea.
#
# **After this lesson you can**
#
# - explain what a residual unit is, and write its two-layer and three-layer blocks;
# - make a network deeper without changing what it computes, and explain what this proves;
# - build ResNet-18 piece by piece, and predict the shape of the feature maps after each piece;
# - compare plain and residual networks of several depths, and explain what such a comparison shows and what it does
#   not show.
#
# **Time:** 120 minutes. **Prerequisites:** lesson 2. A GPU speeds up only the training sections.

# %% [markdown]
# ## The tools of this lesson

# %%
import copy
import math

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson import reference
from cnnlesson.anatomy import layer_table
from cnnlesson.checks import resnet as check
from cnnlesson.data import Batches, split, take
from cnnlesson.experiments.depth import PUBLISHED_TEST_ERROR
from cnnlesson.models import (
    BasicBlock,
    Bottleneck,
    cifar_resnet,
    insert_identity_blocks,
    resnet18,
    resnet34,
    resnet50,
)
from cnnlesson.models.resnet import PlainBlock, ZeroPadding, projection
from cnnlesson.models.resnet import make_stage as package_make_stage
from cnnlesson.notebook import TINY, load_images, say_device
from cnnlesson.plots import (
    depth_curves_text,
    plot_architecture,
    plot_depth,
    plot_depth_curves,
    plot_gradient_norms,
    plot_images,
    plot_residual_sizes,
    show,
)
from cnnlesson.signals import gradient_norms, residual_sizes
from cnnlesson.training import evaluate, train
from cnnlesson.widgets import explore_depth, live_board

device = say_device()

# %% [markdown]
# Choose the images. `shapes` is a synthetic data set that is generated in about a second. `eurosat` (satellite
# images, 94 MB) and `tiny-imagenet` (248 MB) consist of photographs, which are downloaded the first time.

# %%
DATA = "shapes"  # @param ["shapes", "eurosat", "tiny-imagenet"]

images = load_images(DATA)
show(plot_images(images.train[torch.linspace(0, len(images.train) - 1, 6).long()]))
images.train

# %% [markdown]
# ## Deep Residual Network
#
# He, Zhang, Ren and Sun: *Deep residual learning for image recognition*, 2015.
#
# - Residual unit: each layer adds something (i.e. a *residual*) to the previous value, rather than producing an
#   entirely new value.
# - Note: the network for F can have multiple layers, be convolutional, etc.
#
# ```
#  x ──┬──────────────────┐
#      │                  ▼
#      └──► F ──► F(x) ──(+)──► F(x) + x
# ```
#
# The path that bypasses F is called the **shortcut**.
#
# **Predict, then run:** all weights of F are 0. What is the output of a plain layer F, and of a residual unit? And of
# thirty of them in a row?

# %%
nothing = nn.Linear(4, 4)
nn.init.zeros_(nothing.weight)
nn.init.zeros_(nothing.bias)

x = torch.tensor([3.0, -1.0, 0.5, 2.0], requires_grad=True)
plain, residual = x, x
for _ in range(30):
    plain = nothing(plain)
    residual = nothing(residual) + residual
for name, output in (("plain", plain), ("residual", residual)):
    (gradient,) = torch.autograd.grad(output.sum(), x)
    print(f"{name}: output {output.tolist()}, gradient at x {gradient.tolist()}")

# %% [markdown]
# A plain layer has to learn even the identity. A residual unit whose weights are 0 already computes it, so it only has
# to learn the difference. The gradient flows back through the same shortcut: the derivative of F(x) + x is F'(x) + 1,
# and the 1 is there no matter what F does.
#
# ### Exercise: ResidualUnit
#
# **Difficulty:** easy · **Time:** 5 minutes
#
# Write the unit in the figure: a module that holds a transform F and returns F(x) + x. It must not modify x.
#
# <details><summary>Hint 1</summary>If you assign a module to an attribute, as in `self.transform = ...`, PyTorch
# registers its parameters too.</details>
# <details><summary>Hint 2</summary>`a += b` modifies the tensor a in place, and all other code that uses the tensor
# sees the change.</details>

# %% tags=["exercise"]
class ResidualUnit(nn.Module):
    """transform(x) + x, for any module `transform` that preserves the shape of x."""

    def __init__(self, transform):
        super().__init__()
        ### BEGIN SOLUTION
        self.transform = transform
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return self.transform(x) + x
        ### END SOLUTION

# %%
check.ResidualUnit(ResidualUnit)

# %% [markdown]
# ## What depth does
#
# - Deep Residual Networks (ResNets) consist of many layers of residual units.
# - For vision tasks, the F functions are usually 2- or 3-layer conv nets.
# - Performance on CIFAR-10, a small object recognition dataset: the slide's figure.
#
# The figure below shows the same experiment, measured with this package: plain and residual networks of several depths,
# all trained in the same way. The two kinds of network differ only in the shortcut. `cifar_resnet(depth, num_classes,
# residual=False)` leaves it out, and has exactly the same number of weights.
#
# **Predict, then run:** a deeper network has more weights. Which of the plain networks will have the lowest error on
# the *training* images? And which of the residual ones?

# %%
measured = reference.load("cifar10_depth")
show(plot_depth_curves(measured.table))

# %%
print(f"{measured.made['data']}; {measured.made['epochs']} epochs, peak learning rate {measured.made['lr']:g}")
print(depth_curves_text(measured.table))

# %% [markdown]
# These are the CIFAR-10 images, stored as JPEG files of quality 75. The compression loses some detail, so the results
# are close to those on the original, lossless CIFAR-10 but not equal to them. The paper also trains for much longer.
#
# Start with the dashed lines in the left panel, and answer two questions:
#
# - Is the deeper plain network worse than the shallower one? By how much at the end, and by how much before that?
# - A network that overfits has a **low** training error and a high test error. Is that what you see here?
#
# Then look at the right panel: what effect does the same depth have there?

# %%
show(plot_depth(measured.table, PUBLISHED_TEST_ERROR))

# %% [markdown]
# The slide says: *for a regular convnet, performance declines with depth, but for a ResNet, it keeps improving*. The
# next cell tests this claim on the measured networks. One run of each network is not proof: with another seed, the
# errors would be somewhat different.

# %%
last = measured.table[measured.table["epoch"] == measured.table["epoch"].max()]
for is_residual, some in last.groupby("residual"):
    for column in ("train_error", "test_error"):
        errors = some.groupby("depth")[column].mean()
        change = errors.iloc[-1] - errors.iloc[0]
        print(
            f"{'residual' if is_residual else 'plain':8}  {column}: "
            f"{errors.iloc[0]:.1%} with {errors.index[0]} layers, {errors.iloc[-1]:.1%} with {errors.index[-1]}: "
            f"deeper is {'worse' if change > 0 else 'better'}"
        )

# %% [markdown]
# ## Easier and Faster Optimization
#
# - Hypothesis: the problem is an *optimization* problem, deeper models are harder to optimize.
# - The deeper model should be able to perform at least as well as the shallower model.
# - A solution by construction is copying the learned layers from the shallower model and setting additional layers to
#   identity mapping.
#
# So a good deep network exists, and you can construct it. If training does not find it, the optimizer is to blame and
# not the network. To try this, start with a short training of a plain network with 8 layers:

# %%
NUM_IMAGES = 200 if TINY else 2000 if device.type == "cpu" else 20_000
EPOCHS = 1 if TINY else 4
num_classes = len(images.train.classes)

train_set, val_set = split(take(images.train, NUM_IMAGES, seed=0), (0.8, 0.2), seed=0)
train_batches = Batches(train_set, batch_size=32, image_size=32, augment=True, seed=0)
val_batches = Batches(val_set, batch_size=min(100, len(val_set)), image_size=32)

torch.manual_seed(0)
shallow = cifar_resnet(8, num_classes, residual=False).to(device)
optimizer = torch.optim.SGD(shallow.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
for epoch in train(shallow, train_batches, val_batches, optimizer, epochs=EPOCHS):
    print(f"epoch {epoch.number}: loss {epoch.train_loss:.3f}, validation accuracy {epoch.val_accuracy:.1%}")

# %% [markdown]
# `insert_identity_blocks` makes it deeper: it copies the network and appends two blocks to each of its three stages.
# Each filter of a new convolution has a single 1 in its middle, and copies one channel. Each new batch norm undoes its
# own normalisation: its bias is the signal's mean at this point, and its weight is the standard deviation.
#
# **Predict, then run:** how much will the logits of the 20-layer network differ from those of the 8-layer network?

# %%
shallow = shallow.cpu().eval()
some_images = torch.cat([batch for batch, _ in Batches(take(train_set, 600, seed=0), 100, 32, seed=1, device="cpu")])
own_images, other_images = some_images[:100], some_images[100:]
deeper = insert_identity_blocks(shallow, blocks_per_stage=2, images=own_images)


def num_layers(network):
    return sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in network.modules())


with torch.no_grad():
    difference = (deeper(other_images) - shallow(other_images)).abs().max()
print(f"{num_layers(shallow)} layers and {num_layers(deeper)} layers: the logits differ by at most {difference:.1e}")

# %% [markdown]
# That is rounding error. In evaluation mode, the two networks compute the same function, although one has more than
# twice as many layers.
#
# ### Exercise: insert_identity
#
# **Difficulty:** hard · **Time:** 25 minutes
#
# Now do it yourself, without any images. `plain_model` is a `cifar_resnet(depth, num_classes, residual=False)` in
# evaluation mode. Return a new network such that
#
# - each of the stages `layer1`, `layer2` and `layer3` has one more block at its end, so the network is 6 layers deeper;
# - it is in evaluation mode, and returns the same logits as `plain_model` for all images;
# - `plain_model` is unchanged and shares no layers with the new network;
# - the new layers can be trained, and there are no shortcuts.
#
# `PlainBlock(channels, channels, stride=1)` creates a block: `conv1`, `bn1`, ReLU, `conv2`, `bn2`, ReLU. In evaluation
# mode, a batch norm returns (x − running_mean) / √(running_var + eps) · weight + bias.
#
# <details><summary>Hint 1</summary>A stage is an `nn.Sequential`, so you can call `stage.append(block)`. Note that a
# new block is in training mode.</details>
# <details><summary>Hint 2</summary>Which nine weights make a 3×3 filter return the pixel at its centre? And which
# weights must it have for all other input channels?</details>
# <details><summary>Hint 3</summary>A new batch norm has running_mean 0, running_var 1, weight 1 and bias 0. That is
# almost the identity. What does eps change?</details>

# %% tags=["exercise"]
def insert_identity(plain_model):
    """A copy of a plain network with one more block in each stage, and the same outputs in evaluation mode."""
    ### BEGIN SOLUTION
    deeper = copy.deepcopy(plain_model)
    for stage in (deeper.layer1, deeper.layer2, deeper.layer3):
        channels = stage[-1].conv2.out_channels
        block = PlainBlock(channels, channels, stride=1)
        for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            nn.init.dirac_(convolution.weight)
            nn.init.constant_(norm.weight, math.sqrt(1 + norm.eps))
        stage.append(block.eval())
    return deeper
    ### END SOLUTION

# %%
verdict = check.insert_identity(insert_identity)

# %% [markdown]
# ReLU could have broken the identity, because it sets negative values to 0. But the output of a block has already
# passed through a ReLU, so it contains no negative values.
#
# In **training** mode, a batch norm uses the mean and standard deviation of the current batch, not the running ones.
#
# **Predict, then run:** which of these networks still match the shallow network then? The package's blocks were built
# from the statistics of one batch of images, and yours from none.

# %%
def distance_in_training_mode(deep, some_images):
    """The relative difference between the logits and those of the shallow network."""
    with torch.no_grad():
        deep_logits = copy.deepcopy(deep).train()(some_images)
        shallow_logits = copy.deepcopy(shallow).train()(some_images)
    return ((deep_logits - shallow_logits).norm() / shallow_logits.norm()).item()


print(f"package, on the batch it was built from: {distance_in_training_mode(deeper, own_images):.1%}")
print(f"package, on other images:                {distance_in_training_mode(deeper, other_images):.1%}")
if verdict.right:
    distance = distance_in_training_mode(insert_identity(shallow), other_images)
    print(f"yours, on other images:                  {distance:.1%}")

# %% [markdown]
# On the batch it was built from, the package's batch norm restores exactly what its normalisation removes. On other
# images it comes close. A block that is the identity only in evaluation mode, such as yours, shifts each channel's mean
# to 0 in training mode, and then ReLU has negative values to cut off.
#
# The construction is not a dead end either: the deeper network can be trained further. The learning rate is small,
# because the network starts from trained weights.

# %%
deeper = deeper.to(device)
optimizer = torch.optim.SGD(deeper.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)
print(f"by construction: validation loss {evaluate(deeper, val_batches).loss:.3f}")
for epoch in train(deeper, train_batches, val_batches, optimizer, epochs=EPOCHS):
    print(f"epoch {epoch.number}: loss {epoch.train_loss:.3f}, validation loss {epoch.val_loss:.3f}")

# %% [markdown]
# Now back to the networks measured on CIFAR-10. There is a plain network that is as deep as the deepest of them and has
# the training error of the shallowest: the shallowest network with identity blocks. This is what training from scratch
# found instead:

# %%
plain_errors = last[~last["residual"]].groupby("depth")["train_error"].mean()
print(
    f"{plain_errors.index[-1]} layers, by construction from {plain_errors.index[0]}: {plain_errors.iloc[0]:.1%} "
    f"training error; trained from scratch: {plain_errors.iloc[-1]:.1%}"
)

# %% [markdown]
# Better weights exist, but this optimizer does not find them in this number of steps. That is the slide's hypothesis.
#
# In a **residual** network, the same construction takes a single line: set the weight of the block's last batch norm to
# 0. Then F(x) = 0, and the block returns x. This is exactly the paper's argument for the shortcut: if the identity is
# optimal, it is easier to push F towards 0 than to fit the identity with two layers and a ReLU between them.

# %%
block = BasicBlock(16, 16, stride=1).eval()
nn.init.zeros_(block.bn2.weight)
maps = F.relu(torch.randn(1, 16, 8, 8))  # not negative, like the output of a block
with torch.no_grad():
    print("the block returns its input:", torch.equal(block(maps), maps))

# %% [markdown]
# ### Do the gradients vanish?
#
# An obvious suspicion is that the gradient vanishes before it reaches the first layers of a deep plain network. The
# paper doubts it, because batch norm keeps the signals at a constant scale. So we also measured the gradients of the
# networks above.
#
# **Predict, then run:** where is the gradient of the plain network smallest: near the images or near the logits?

# %%
gradients = reference.load("cifar10_gradients")
show(plot_gradient_norms(gradients.table))
print(gradients.made["data"])

# %% [markdown]
# Look at three things. Does the plain network's curve fall towards the images, as it would if gradients vanished? How
# much do neighbouring layers of one curve differ? And what has changed after one epoch?
#
# The scale is logarithmic: one step up means ten times the gradient. These are the JPEG images again, so the
# results may differ a little from those on the lossless CIFAR-10. The next cell computes the gradients before the first
# step on your images, for networks of several depths:

# %%
labelled = next(iter(Batches(train_set, batch_size=64, image_size=32, seed=0)))
rows = []
for is_residual in (False, True):
    for depth in (8, 20) if TINY else (8, 20, 56):
        torch.manual_seed(0)
        norms = list(gradient_norms(cifar_resnet(depth, num_classes, is_residual).to(device), *labelled).values())
        name = f"{'residual' if is_residual else 'plain'}, {depth} layers"
        rows.append((name, norms[0], norms[len(norms) // 2], norms[-2], norms[0] / norms[-2]))
columns = ["network", "first convolution", "middle", "last convolution", "first / last"]
pd.DataFrame(rows, columns=columns).set_index("network").round(2)

# %% [markdown]
# Read the last column from top to bottom. If the ratio is above 1, the gradient **grows** on its way back to the
# images, so it does not vanish. How does the ratio change with depth in plain networks, and how in residual ones? All
# layers share one learning rate, and it is hard to choose one if their gradients differ a lot.
#
# The explorer shows the gradient of every layer at any depth, and the size of the activations beside it.
#
# **Predict, then move:** compare plain and residual networks at 8 layers, then at 56. In which of the two do the
# activations grow from block to block, and why? (On a CPU, 56 layers take a few seconds.)

# %%
explore_depth(*(part[:16] for part in labelled), num_classes)

# %% [markdown]
# ## Full ResNet architecture
#
# This is the network that the slides lead up to: ResNet-18 for 224 pixels, drawn from the model itself. The height of a
# box represents the size of the feature maps, and its width their number. The arcs are the shortcuts.

# %%
show(plot_architecture(resnet18(1000), (3, 224, 224)))

# %% [markdown]
# The slides build the network in five steps. You will build it in the same order, and check the shapes after each
# piece. `pieces` shows the layer table from lesson 2. It hides the batch norm rows, but counts them in the total.

# %%
def pieces(network, input_shape):
    """The layer table without layers that preserve size and channels, such as batch norm."""
    table = layer_table(network.eval(), input_shape)
    is_shown = table["kernel"].notna() | (table["in_size"] != table["out_size"]).fillna(True)
    table = table.drop(columns=["pad", "memory_kb"])[is_shown].round(1).astype(object)
    return table.where(table.notna(), "")

# %% [markdown]
# ### Stack residual blocks, each of two 3×3 conv layers
#
# - Stack residual blocks
# - Every residual block has two 3x3 conv layers
#
# ```
#  x ──┬────────────────────────────────────────────────────────────────────┐
#      │                                                                    ▼
#      └──► conv 3×3 ──► batch norm ──► ReLU ──► conv 3×3 ──► batch norm ──(+)──► ReLU
# ```
#
# F ends with a batch norm. Then x is added, and a second ReLU follows. The convolutions have no bias, because the batch
# norm after each of them subtracts the mean and has its own bias.
#
# **Predict, then run:** two blocks with 64 filters on maps of 56×56. What is the size of their output?

# %%
pieces(nn.Sequential(BasicBlock(64, 64, stride=1), BasicBlock(64, 64, stride=1)), (64, 56, 56))

# %% [markdown]
# A padding of 1 preserves the size, so x and F(x) have the same shape and can be added. You could stack such blocks
# forever, and neither the size nor the number of the maps would change.

# %% [markdown]
# ### Periodically double the filters and halve the size
#
# - Periodically, double # of filters and downsample spatially using stride 2 (/2 in each dimension)
#
# The height and width are halved, and the number of filters doubles.
#
# **Predict, then run:** what happens to the addition now?

# %%
maps = torch.randn(1, 64, 56, 56)
residual = BasicBlock(64, 128, stride=2).residual(maps)
print(f"x {tuple(maps.shape)}, F(x) {tuple(residual.shape)}")
try:
    residual + maps
except RuntimeError as error:
    print(f"RuntimeError: {error}")

# %% [markdown]
# x has the wrong shape, so the shortcut must change it to the shape of F(x). The paper describes two options:
#
# - **option A:** take every second pixel, and fill the missing channels with zeros. `cifar_resnet` does this, so a
#   residual network has exactly the same weights as the plain one;
# - **option B:** a *projection*, which is a 1×1 convolution with the same stride, followed by a batch norm. ResNet-18
#   does this. A 1×1 convolution mixes the channels of each pixel and ignores its neighbours.
#
# If F preserves the shape, the shortcut is x itself in both options.

# %%
for name, shortcut in (("A, zeros", ZeroPadding(64, 128, stride=2)), ("B, projection", projection(64, 128, stride=2))):
    parameters = sum(parameter.numel() for parameter in shortcut.parameters())
    print(f"option {name}: {tuple(shortcut(maps).shape)}, {parameters:,} parameters")

# %% [markdown]
# ### Exercise: StudentBasicBlock
#
# **Difficulty:** medium · **Time:** 15 minutes
#
# Write the two-layer block with option B: relu(F(x) + shortcut(x)). The first convolution applies the stride and
# changes the number of channels.
#
# <details><summary>Hint 1</summary>Start with `nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride,
# padding=1, bias=False)` followed by `nn.BatchNorm2d(out_channels)`.</details>
# <details><summary>Hint 2</summary>The shape changes if the number of channels changes or the stride is not 1. You need
# a projection only in these cases; otherwise the shortcut is `nn.Identity()`.</details>
# <details><summary>Hint 3</summary>A block has two ReLUs. Where is the second one in the figure: before the addition or
# after it?</details>

# %% tags=["exercise"]
class StudentBasicBlock(nn.Module):
    """relu(F(x) + shortcut(x)): x (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        ### BEGIN SOLUTION
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.shortcut(x))
        ### END SOLUTION

# %%
block_verdict = check.StudentBasicBlock(StudentBasicBlock)

# %% [markdown]
# ### Blocks of three layers
#
# *The F functions are usually 2- or 3-layer conv nets.* In the three-layer block, a 1×1 convolution reduces the number
# of channels, a 3×3 convolution operates on the reduced channels, and another 1×1 convolution restores their number.
# This block is called a *bottleneck*. As in torchvision, the 3×3 convolution applies the stride. In the paper the
# first 1×1 convolution does, so it skips three of every four pixels.
#
# ```
#  x ──┬──────────────────────────────────────────────┐
#      │                                              ▼
#      └──► conv 1×1 ──► conv 3×3 ──► conv 1×1 ──────(+)──► ReLU
# ```
#
# **Predict, then run:** a two-layer block has 64 channels. A three-layer block has 256 channels, and 64 inside. Which
# one costs more?

# %%
costs = {
    "two layers, 64 channels": layer_table(BasicBlock(64, 64, stride=1), (64, 56, 56)),
    "three layers, 256 channels": layer_table(Bottleneck(256, 256, stride=1), (256, 56, 56)),
    "two layers, 256 channels": layer_table(BasicBlock(256, 256, stride=1), (256, 56, 56)),
}
totals = {name: table.loc["total", ["params_k", "flop_m"]] for name, table in costs.items()}
pd.DataFrame(totals).T.astype(float).round(1)

# %% [markdown]
# The bottleneck handles four times as many channels at about the same cost. That is why the paper uses three-layer
# blocks in its networks with 50 or more layers.
#
# ### Exercise: StudentBottleneck
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Write the three-layer block: a 1×1 convolution to `width` channels, a 3×3 convolution with the stride, and a 1×1
# convolution to `out_channels`. A batch norm follows every convolution, and a ReLU follows the first two batch norms.
# The shortcut is the same as before.
#
# <details><summary>Hint 1</summary>Start from your two-layer block and add one layer. Which padding preserves the size
# in a 1×1 convolution?</details>
# <details><summary>Hint 2</summary>The shortcut maps `in_channels` to `out_channels`: only F uses `width`.</details>

# %% tags=["exercise"]
class StudentBottleneck(nn.Module):
    """Three layers, with `width` channels inside: (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""

    def __init__(self, in_channels, width, out_channels, stride):
        super().__init__()
        ### BEGIN SOLUTION
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return F.relu(self.residual(x) + self.shortcut(x))
        ### END SOLUTION

# %%
check.StudentBottleneck(StudentBottleneck)

# %% [markdown]
# ### Stages
#
# A *stage* is a sequence of blocks with the same number of filters and the same map size. Only the first block can
# differ, because it receives the maps of the previous stage.
#
# ### Exercise: make_stage
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# Return `num_blocks` blocks as an `nn.Sequential`. The first block maps `in_channels` to `out_channels` with `stride`;
# all others preserve channels and size. Create each block with `block(in_channels, out_channels, stride)`.
#
# <details><summary>Hint 1</summary>What is the input of the second block: the input of the stage, or the output of the
# first block?</details>
# <details><summary>Hint 2</summary>`nn.Sequential(*blocks)` unpacks a list of blocks.</details>

# %% tags=["exercise"]
def make_stage(block, in_channels, out_channels, num_blocks, stride):
    """An nn.Sequential of `num_blocks` blocks; the first one changes channels and size."""
    ### BEGIN SOLUTION
    blocks = [block(in_channels, out_channels, stride)]
    for _ in range(num_blocks - 1):
        blocks.append(block(out_channels, out_channels, 1))
    return nn.Sequential(*blocks)
    ### END SOLUTION

# %%
stage_verdict = check.make_stage(make_stage)

# %% [markdown]
# ResNet-18 has four stages of two blocks each, with 64, 128, 256 and 512 filters. The next cell uses your block and
# your stage function if they passed their checks.
#
# **Predict, then run:** the input maps are 56×56. How large are the maps after the last stage?

# %%
Block = StudentBasicBlock if block_verdict.right else BasicBlock
stage = make_stage if stage_verdict.right else package_make_stage

four_stages = nn.Sequential(
    stage(Block, 64, 64, 2, 1),
    stage(Block, 64, 128, 2, 2),
    stage(Block, 128, 256, 2, 2),
    stage(Block, 256, 512, 2, 2),
)
pieces(four_stages, (64, 56, 56))

# %% [markdown]
# Look at the column `flop_m`. From one stage to the next, the height and width are halved, and the input and output
# channels double. So a 3×3 convolution needs the same number of multiply-adds in every stage. Only the first
# convolution of a later stage needs half as many, because it still receives the previous stage's channels. Then look
# at `params_k`: it quadruples from stage to stage.

# %% [markdown]
# ### Additional conv layer at the beginning
#
# - Additional conv layer at the beginning
#
# This layer is a 7×7 convolution with 64 filters, stride 2 and padding 3, followed by batch norm and ReLU. In the
# paper, a 3×3 max pooling layer with stride 2 and padding 1 follows, so the input of the first stage has a quarter of
# the image's height and width.

# %%
beginning = nn.Sequential(
    nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False),
    nn.BatchNorm2d(64),
    nn.ReLU(),
    nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
)
pieces(beginning, (3, 224, 224))

# %% [markdown]
# ### No FC layers at the end
#
# - No FC layers at the end (only FC 1000 to output classes)
#
# AlexNet flattens 256 maps of 6×6 and applies three fully-connected layers. A ResNet averages each of its 512 maps, and
# a single fully-connected layer computes the logits.
#
# **Predict, then run:** how many parameters does the last layer have, and how many did AlexNet's fc6 have?

# %%
end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
pieces(end, (512, 7, 7))

# %% [markdown]
# Averaging has a second advantage: it accepts maps of any size, so the network accepts images of any size.
#
# ### Exercise: StudentResNet18
#
# **Difficulty:** medium · **Time:** 15 minutes
#
# Put the pieces together: the beginning, four stages and the end. Use your `StudentBasicBlock` and `make_stage`, or the
# package's `BasicBlock` and `package_make_stage`.
#
# <details><summary>Hint 1</summary>Copy the three cells above, and check what each number stands for: one of them is no
# longer 1000.</details>
# <details><summary>Hint 2</summary>The first stage directly follows the max pooling layer. Which stride does it
# need?</details>
# <details><summary>Hint 3</summary>What does the network return: logits or probabilities?</details>

# %% tags=["exercise"]
class StudentResNet18(nn.Module):
    """The 18-layer network of the slides: images (N, 3, H, W), 64×64 or larger, to logits (N, num_classes)."""

    def __init__(self, num_classes):
        super().__init__()
        ### BEGIN SOLUTION
        self.beginning = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.stages = nn.Sequential(
            make_stage(StudentBasicBlock, 64, 64, 2, 1),
            make_stage(StudentBasicBlock, 64, 128, 2, 2),
            make_stage(StudentBasicBlock, 128, 256, 2, 2),
            make_stage(StudentBasicBlock, 256, 512, 2, 2),
        )
        self.fc = nn.Linear(512, num_classes)
        ### END SOLUTION

    def forward(self, images):
        ### BEGIN SOLUTION
        x = self.beginning(images)  # (N, 64, H/4, W/4)
        x = self.stages(x)  # (N, 512, H/32, W/32)
        x = x.mean(dim=(2, 3))  # (N, 512)
        return self.fc(x)  # (N, num_classes)
        ### END SOLUTION

# %%
network_verdict = check.StudentResNet18(StudentResNet18)

# %% [markdown]
# Why 18? Count the convolutions and the fully-connected layers, but not the shortcuts: 1 convolution at the beginning,
# 4 stages × 2 blocks × 2 convolutions, and 1 fully-connected layer at the end. The paper's table 1 lists 1.8, 3.6 and
# 3.8 billion multiply-adds for 18, 34 and 50 layers. Its 50-layer network applies the stride in the first 1×1
# convolution, which saves a little.

# %%
totals = {
    f"ResNet-{depth}": layer_table(make_network(1000), (3, 224, 224)).loc["total"]
    for depth, make_network in ((18, resnet18), (34, resnet34), (50, resnet50))
}
pd.DataFrame({
    "parameters (millions)": {name: total["params_k"] / 1e3 for name, total in totals.items()},
    "multiply-adds (billions)": {name: total["flop_m"] / 1e3 for name, total in totals.items()},
}).round(2)

# %% [markdown]
# All three have fewer parameters than AlexNet's 61 million, because they have no large fully-connected layers. They
# need more compute, because they have many convolutions. This is ResNet-50, built from three-layer blocks:

# %%
show(plot_architecture(resnet50(1000), (3, 224, 224)))

# %% [markdown]
# ## Plain against residual
#
# Now compare them yourself, on your images at 32×32 pixels: two depths, with and without shortcuts, with everything
# else equal. You can use the test error here, because no choice depends on it.
#
# This is a short training run on few images. It shows how to make such a comparison, and how the networks start to
# learn. It does not show where a long training ends: for that, see the measured curves above.
#
# **Predict, then run:** how will the four networks rank after so few steps?

# %%
DEPTHS = (8, 14) if TINY else (8, 20) if device.type == "cpu" else (20, 56)
EPOCHS = 1 if TINY else 3 if device.type == "cpu" else 6

train_set = take(images.train, NUM_IMAGES, seed=0)
test_set = take(images.test, NUM_IMAGES // 2, seed=0)
test_batches = Batches(test_set, batch_size=min(200, len(test_set)), image_size=32)

epochs, norms, networks = [], [], {}
for depth in DEPTHS:
    for is_residual in (False, True):
        train_batches = Batches(train_set, batch_size=32, image_size=32, augment=True, seed=0)
        torch.manual_seed(0)
        network = networks[depth, is_residual] = cifar_resnet(depth, num_classes, is_residual).to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
        name = {"depth": depth, "residual": is_residual, "seed": 0}
        for layer, norm in gradient_norms(network, *labelled).items():
            norms.append(name | {"epochs_done": 0, "layer": layer, "norm": norm})
        for epoch in train(network, train_batches, test_batches, optimizer, epochs=EPOCHS):
            errors = {"train_error": 1 - epoch.train_accuracy, "test_error": 1 - epoch.val_accuracy}
            epochs.append(name | {"epoch": epoch.number} | errors)
            if epoch.number == 1:
                for layer, norm in gradient_norms(network, *labelled).items():
                    norms.append(name | {"epochs_done": 1, "layer": layer, "norm": norm})

results = pd.DataFrame(epochs)
show(plot_depth_curves(results))
print(depth_curves_text(results))

# %% [markdown]
# Do not be surprised if the plain networks do well here. Networks with 8 or 20 layers can be trained without shortcuts.
# The slide's claim is about greater depth, and a few steps do not show where a curve ends.
#
# Change both seeds, in `torch.manual_seed(0)` and in the training batches' `seed=0`, and run the cell again. Which of
# the differences remain, and which were chance?

# %%
one_image = 1 / len(test_set)
accuracy = 1 - results["test_error"].min()
spread = math.sqrt(accuracy * (1 - accuracy) / len(test_set))
print(f"one test image is {one_image:.2%}; the choice of test images by itself changes an error by about ±{spread:.1%}")

# %% [markdown]
# The next figure shows the gradients of the deeper pair, before the first step and after one epoch:

# %%
show(plot_gradient_norms(pd.DataFrame(norms)))

# %% [markdown]
# ## How much does a block add?
#
# Each block adds something to its input, so how much does it add? The figure shows the size of x, which the shortcut
# carries, and the size of F(x), for each block of a residual network. Vertical lines mark where the number of channels
# doubles.
#
# **Predict, then run:** is F(x) larger or smaller than x? And does each block of a deeper network add more or less?

# %%
sizes = reference.load("cifar10_residual_sizes")
show(plot_residual_sizes(sizes.table))
print(sizes.made["data"])

# %% [markdown]
# This is the deepest of the residual networks trained on CIFAR-10 (as JPEG). According to Figure 7 of the paper, the
# deeper a network is, the less each of its blocks changes the signal. Compare it with your own, shallower network:

# %%
some_images, _ = next(iter(test_batches))
show(plot_residual_sizes(residual_sizes(networks[DEPTHS[-1], True], some_images)))

# %% [markdown]
# ## Train ResNet-18
#
# The next cell trains your network if it passed its check, and the package's otherwise. Batch norm makes the start
# easy: any of the usual weight initialisations works, and the learning rate is far higher than AlexNet's.

# %%
train_set, val_set = split(take(images.train, NUM_IMAGES, seed=0), (0.8, 0.2), seed=0)
train_batches = Batches(train_set, batch_size=32, image_size=64, augment=True, seed=0)
val_batches = Batches(val_set, batch_size=min(100, len(val_set)), image_size=64)

torch.manual_seed(0)
Network = StudentResNet18 if network_verdict.right else resnet18
model = Network(num_classes).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)

history = []
for epoch in live_board(train(model, train_batches, val_batches, optimizer, epochs=EPOCHS), num_classes):
    history.append(epoch)

# %% [markdown]
# As you saw in lesson 2, the loss at chance level is ln(number of classes). Is the mean loss of the first epoch below
# it? In lesson 4 you look for a learning rate, a batch size and a weight decay that suit this network.

# %% [markdown]
# ## Where you are

# %%
check.progress()
