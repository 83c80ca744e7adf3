# %% [markdown]
# # 3 ResNet
#
# More layers should make a better network. Until 2015 they often made a worse one. In this lesson you see why that is
# strange, what He, Zhang, Ren and Sun did about it, and you build their network out of one small idea.
#
# **Afterwards you can**
#
# - say what a residual unit is, and write its blocks of two and of three layers;
# - make a network deeper without changing what it computes, and say what this proves;
# - build ResNet-18 piece by piece, and know the shape of the maps after each piece;
# - compare plain and residual networks of several depths, and say what such a comparison shows and what it does not.
#
# **Time:** 120 minutes. **You need:** lesson 2. A GPU helps in the last two sections only.

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
# Choose the images. `shapes` are drawn on the spot in a second; `tiny-imagenet` are photographs, 248 MB to download
# the first time.

# %%
DATA = "shapes"  # @param ["shapes", "tiny-imagenet"]

images = load_images(DATA)
show(plot_images(images.train[torch.arange(6)]))
images.train

# %% [markdown]
# ## Deep Residual Network
#
# He, Zhang, Ren and Sun: *Deep residual learning for image recognition*, 2015.
#
# - Residual unit: each layer adds something (a *residual*) to the previous value, rather than producing an entirely
#   new value.
# - The network for F can have several layers, be convolutional, and so on.
#
# ```
#  x ──┬──────────────────┐
#      │                  ▼
#      └──► F ──► F(x) ──(+)──► F(x) + x
# ```
#
# The line that goes past F is called the **shortcut**.
#
# **Predict, then run:** all weights of F are 0. What does a plain layer F give, and what does a residual unit give?
# And thirty of them, one behind the other?

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
# A plain layer must learn even to pass on what it receives. A residual unit with weights of 0 does so already, and
# what is left to learn is the difference. The gradient takes the same way back: the derivative of F(x) + x is
# F'(x) + 1, and the 1 comes through whatever F does.
#
# ### Exercise: ResidualUnit
#
# **Difficulty:** easy · **Time:** 5 minutes
#
# Write the unit of the figure: a module that holds a transform F, and gives F(x) + x. It leaves x itself unchanged.
#
# <details><summary>Hint 1</summary>A module that is an attribute of a module, `self.transform = ...`, brings its
# parameters along.</details>
# <details><summary>Hint 2</summary>`a += b` changes the tensor a itself, and whoever else holds it sees
# that.</details>

# %% tags=["exercise"]
class ResidualUnit(nn.Module):
    """Adds to x what `transform`, any module that keeps the shape, makes of it."""

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
# The figure below is of the same kind, measured with this package. Plain and residual networks of several depths were
# trained, all in the same way. The only difference between the two kinds is the shortcut: `cifar_resnet(depth,
# num_classes, residual=False)` leaves it out, and has just as many weights.
#
# **Predict, then run:** a deeper network has more weights. Which one will have the lowest error on the *training*
# images among the plain networks? And among the residual ones?

# %%
measured = reference.load("cifar10_depth")
show(plot_depth_curves(measured.table))

# %%
print(f"{measured.made['data']}; {measured.made['epochs']} epochs, learning rate up to {measured.made['lr']:g}")
print(depth_curves_text(measured.table))

# %% [markdown]
# The images are CIFAR-10's, stored as JPEG of quality 75. That loses some detail, so the figures are near those on
# the original, lossless CIFAR-10, and not equal to them. The paper also trains for far longer.
#
# Look at the left panel first, and at the dashed lines in it. Two questions:
#
# - Is the deeper plain network behind the shallower one? By how much at the end, and by how much on the way?
# - A network that overfits has a **low** training error and a high test error. Is that what you see?
#
# Then the right panel: what does the same depth do there?

# %%
show(plot_depth(measured.table, PUBLISHED_TEST_ERROR))

# %% [markdown]
# The slide says: *for a regular convnet, performance declines with depth, but for a ResNet, it keeps improving*. The
# next cell says of the measured networks whether it holds for them. One run of each is not a proof: another seed
# would give somewhat other figures.

# %%
last = measured.table[measured.table["epoch"] == measured.table["epoch"].max()]
for is_residual, some in last.groupby("residual"):
    for column in ("train_error", "test_error"):
        errors = some.groupby("depth")[column].mean()
        change = errors.iloc[-1] - errors.iloc[0]
        print(
            f"{'residual' if is_residual else 'plain':8}  {column}: "
            f"{errors.iloc[0]:.1%} with {errors.index[0]} layers, {errors.iloc[-1]:.1%} with {errors.index[-1]}: "
            f"depth makes it {'worse' if change > 0 else 'better'}"
        )

# %% [markdown]
# ## Easier and Faster Optimization
#
# - Hypothesis: the problem is an *optimization* problem, deeper models are harder to optimize.
# - The deeper model should be able to perform at least as well as the shallower model.
# - A solution by construction is copying the learned layers from the shallower model and setting additional layers to
#   identity mapping.
#
# So a good deep network exists, and one can write it down. If training does not find it, the search is to blame and
# not the network. Here is a plain network of 8 layers, trained for a moment.

# %%
NUM_IMAGES = 200 if TINY else 2000 if device.type == "cpu" else 20_000
EPOCHS = 1 if TINY else 4
num_classes = len(images.train.classes)

train_set, val_set = split(take(images.train, NUM_IMAGES, seed=0), (0.8, 0.2), seed=0)
train_batches = Batches(train_set, batch_size=32, image_size=32, augment=True, seed=0)
val_batches = Batches(val_set, batch_size=min(100, len(val_set)), image_size=32)

torch.manual_seed(0)
shallow = cifar_resnet(8, num_classes, residual=False).to(device)
optimizer = torch.optim.SGD(shallow.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
for epoch in train(shallow, train_batches, val_batches, optimizer, epochs=EPOCHS):
    print(f"epoch {epoch.number}: loss {epoch.train_loss:.3f}, validation accuracy {epoch.val_accuracy:.1%}")

# %% [markdown]
# `insert_identity_blocks` makes it deeper: it copies the network, and sets two more blocks behind each of its three
# stages. A new convolution has filters with a single 1 in the middle, each for a channel of its own. A new batch norm
# undoes its own normalisation: it is given the mean and deviation that the signal has at this place.
#
# **Predict, then run:** how far will the logits of the 8 layers and of the 20 layers be apart?

# %%
shallow = shallow.cpu().eval()
some_images = torch.cat([batch for batch, _ in Batches(take(train_set, 600, seed=0), 100, 32, seed=1, device="cpu")])
own_images, other_images = some_images[:100], some_images[100:]
deeper = insert_identity_blocks(shallow, blocks_per_stage=2, images=own_images)


def num_layers(network):
    return sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in network.modules())


with torch.no_grad():
    difference = (deeper(other_images) - shallow(other_images)).abs().max()
print(f"{num_layers(shallow)} layers and {num_layers(deeper)} layers: logits at most {difference:.1e} apart")

# %% [markdown]
# That is rounding. In evaluation mode the two networks are one function, although one has more than twice the layers.
#
# ### Exercise: insert_identity
#
# **Difficulty:** hard · **Time:** 25 minutes
#
# Do it yourself, without any images. `plain_model` is a `cifar_resnet(depth, num_classes, residual=False)` in
# evaluation mode. Return a network of which this is true:
#
# - each of the stages `layer1`, `layer2` and `layer3` has one more block at its end, so it is 6 layers deeper;
# - it is in evaluation mode, and gives the logits of `plain_model` for all images;
# - `plain_model` is as it was, and shares no layer with it;
# - the new layers can be trained, and it has no shortcuts.
#
# `PlainBlock(channels, channels, stride=1)` makes a block: `conv1`, `bn1`, ReLU, `conv2`, `bn2`, ReLU. In evaluation
# mode a batch norm gives (x − running_mean) / √(running_var + eps) · weight + bias.
#
# <details><summary>Hint 1</summary>A stage is an `nn.Sequential`: `stage.append(block)`. And a block that was made a
# moment ago is in training mode.</details>
# <details><summary>Hint 2</summary>Which nine numbers must a 3×3 filter have to give back the pixel that it stands
# on? And its filters for all the other channels?</details>
# <details><summary>Hint 3</summary>A new batch norm has running_mean 0, running_var 1, weight 1 and bias 0. That is
# not yet the identity: what is eps?</details>

# %% tags=["exercise"]
def insert_identity(plain_model):
    """A copy of a plain network with one block more in each stage, and the same outputs in evaluation mode."""
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
# ReLU could have spoiled it: it cuts off what is negative. But what comes out of a block has been through a ReLU
# already, so there is nothing negative left to cut.
#
# In **training** mode a batch norm takes the mean and the deviation of the batch at hand, not the running ones.
#
# **Predict, then run:** which of these will then still be equal to the shallow network? The package's blocks know
# mean and deviation of one batch of images; yours know none.

# %%
def distance_in_training_mode(deep, some_images):
    """How far the logits are from those of the shallow network, relative to their size."""
    with torch.no_grad():
        deep_logits = copy.deepcopy(deep).train()(some_images)
        shallow_logits = copy.deepcopy(shallow).train()(some_images)
    return ((deep_logits - shallow_logits).norm() / shallow_logits.norm()).item()


print(f"the package's, on the batch that it knows: {distance_in_training_mode(deeper, own_images):.1%}")
print(f"the package's, on other images:            {distance_in_training_mode(deeper, other_images):.1%}")
if verdict.right:
    distance = distance_in_training_mode(insert_identity(shallow), other_images)
    print(f"yours, on other images:                    {distance:.1%}")

# %% [markdown]
# On the batch that it knows, the package's batch norm puts back just what the normalisation takes off. On other
# images it comes near. A block that passes everything on in evaluation mode only makes each channel's mean 0 in
# training mode, and then ReLU has something negative to cut off.
#
# The construction is not a dead end either: the deeper network goes on learning. The learning rate is small, since it
# starts from a trained network.

# %%
deeper = deeper.to(device)
optimizer = torch.optim.SGD(deeper.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
print(f"by construction: validation loss {evaluate(deeper, val_batches).loss:.3f}")
for epoch in train(deeper, train_batches, val_batches, optimizer, epochs=EPOCHS):
    print(f"epoch {epoch.number}: loss {epoch.train_loss:.3f}, validation loss {epoch.val_loss:.3f}")

# %% [markdown]
# Back to the networks measured on CIFAR-10. A plain network as deep as the deepest, with the training error of the
# shallowest, exists: it is the shallowest with identity blocks. This is what training from scratch found instead:

# %%
plain_errors = last[~last["residual"]].groupby("depth")["train_error"].mean()
print(
    f"{plain_errors.index[-1]} layers, by construction from {plain_errors.index[0]}: {plain_errors.iloc[0]:.1%} "
    f"training error; trained from scratch: {plain_errors.iloc[-1]:.1%}"
)

# %% [markdown]
# The better weights are there, and in these steps this optimizer does not find them. That is the hypothesis of the
# slide.
#
# In a **residual** network the same construction is a single line. The weight of the last batch norm is set to 0, so
# F(x) = 0, and the block gives x. The paper's argument for the shortcut is just that: if the identity is best, it is
# easier to push F towards 0 than to fit the identity with two layers and a ReLU between them.

# %%
block = BasicBlock(16, 16, stride=1).eval()
nn.init.zeros_(block.bn2.weight)
maps = F.relu(torch.randn(1, 16, 8, 8))  # as they come out of a block
with torch.no_grad():
    print("the block gives back what it receives:", torch.equal(block(maps), maps))

# %% [markdown]
# ### Do the gradients vanish?
#
# A first suspicion is that in a deep plain network no gradient arrives at the first layers. The paper doubts it:
# with batch norm the signals keep their size. So the gradients were measured as well, in the same networks as above.
#
# **Predict, then run:** where in the plain network will the gradient be smallest: near the images or near the logits?

# %%
gradients = reference.load("cifar10_gradients")
show(plot_gradient_norms(gradients.table))
print(gradients.made["data"])

# %% [markdown]
# Three things to look at. Does the plain network's curve fall towards the images, as vanishing gradients would? How
# different are two neighbouring layers within one curve? And what has one epoch changed?
#
# The scale is logarithmic: each of its steps is ten times the gradient. These images are JPEG again, with the same
# remark as above. Now the same before the first step on your images, for networks of several depths:

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
# Read the last column downwards. Above 1 the gradient **grows** on its way back to the images, so it does not vanish.
# How does it change with depth in plain networks, and how in residual ones? One learning rate has to suit all layers,
# and that is hard where their gradients differ a lot.
#
# The same for any depth, layer by layer, with the size of the activations beside it.
#
# **Predict, then move:** compare plain and residual at 8 layers, then at 56. In which of the two do the activations
# grow from block to block, and why? (56 layers take some seconds on a processor.)

# %%
explore_depth(*(part[:16] for part in labelled), num_classes)

# %% [markdown]
# ## Full ResNet architecture
#
# This is where the slides end, ResNet-18 for 224 pixels, drawn from the model itself. The height of a box stands for
# the size of the maps, its width for their number; the arcs are the shortcuts.

# %%
show(plot_architecture(resnet18(1000), (3, 224, 224)))

# %% [markdown]
# The slides build the network in five pictures. You build it in the same order, and look at the shapes after each
# piece. `pieces` shows a network as lesson 2's table did; the rows of batch norm are left out, and counted in the
# total.

# %%
def pieces(network, input_shape):
    """The layer table without the layers that keep size and channels, batch norm above all."""
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
# F ends with a batch norm. Then x is added, and then comes a second ReLU. The convolutions have no bias, since the
# batch norm behind them takes off the mean and has a bias of its own.
#
# **Predict, then run:** two blocks with 64 filters on maps of 56×56. What is the size behind them?

# %%
pieces(nn.Sequential(BasicBlock(64, 64, stride=1), BasicBlock(64, 64, stride=1)), (64, 56, 56))

# %% [markdown]
# Padding 1 keeps the size, so x and F(x) have one shape and can be added. One could stack such blocks for ever, and
# the maps would stay as large and as few as they are.

# %% [markdown]
# ### Periodically double the filters and halve the size
#
# - Periodically, double # of filters and downsample spatially using stride 2 (/2 in each dimension)
#
# Half the height, half the width, twice the filters.
#
# **Predict, then run:** what happens now at the addition?

# %%
maps = torch.randn(1, 64, 56, 56)
residual = BasicBlock(64, 128, stride=2).residual(maps)
print(f"x {tuple(maps.shape)}, F(x) {tuple(residual.shape)}")
try:
    residual + maps
except RuntimeError as error:
    print(f"RuntimeError: {error}")

# %% [markdown]
# x has the wrong shape, so the shortcut must bring it to that of F(x). The paper has two ways:
#
# - **option A:** every second pixel, and zeros for the channels that are missing. `cifar_resnet` does this, and so a
#   residual network has just the weights of the plain one;
# - **option B:** a *projection*, a 1×1 convolution with the same stride, and a batch norm behind it. ResNet-18 does
#   this. A 1×1 convolution mixes the channels of each pixel, and looks at no neighbours.
#
# Where F keeps the shape, the shortcut is x itself in both.

# %%
for name, shortcut in (("A, zeros", ZeroPadding(64, 128, stride=2)), ("B, projection", projection(64, 128, stride=2))):
    parameters = sum(parameter.numel() for parameter in shortcut.parameters())
    print(f"option {name}: {tuple(shortcut(maps).shape)}, {parameters:,} parameters")

# %% [markdown]
# ### Exercise: StudentBasicBlock
#
# **Difficulty:** medium · **Time:** 15 minutes
#
# Write the two-layer block with option B: relu(F(x) + shortcut(x)). The first convolution has the stride and changes
# the channels.
#
# <details><summary>Hint 1</summary>`nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1,
# bias=False)`, and `nn.BatchNorm2d(out_channels)` behind it.</details>
# <details><summary>Hint 2</summary>The shape changes in two cases: another number of channels, or a stride. Only then
# is there a projection; else `nn.Identity()` is a shortcut.</details>
# <details><summary>Hint 3</summary>There are two ReLUs in a block. Where does the figure have the second one: before
# the plus, or behind it?</details>

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
# *The F functions are usually 2- or 3-layer conv nets.* In the three-layer block a 1×1 convolution makes the channels
# few, a 3×3 convolution works on those few, and a 1×1 convolution makes them many again. It is called a
# *bottleneck*. The 3×3 convolution has the stride, as in torchvision; in the paper the first 1×1 had it, and so
# three pixels of four were never looked at.
#
# ```
#  x ──┬──────────────────────────────────────────────┐
#      │                                              ▼
#      └──► conv 1×1 ──► conv 3×3 ──► conv 1×1 ──────(+)──► ReLU
# ```
#
# **Predict, then run:** a two-layer block works on 64 channels, a three-layer block on 256 channels and inside on 64.
# Which costs more?

# %%
costs = {
    "two layers, 64 channels": layer_table(BasicBlock(64, 64, stride=1), (64, 56, 56)),
    "three layers, 256 channels": layer_table(Bottleneck(256, 256, stride=1), (256, 56, 56)),
    "two layers, 256 channels": layer_table(BasicBlock(256, 256, stride=1), (256, 56, 56)),
}
totals = {name: table.loc["total", ["params_k", "flop_m"]] for name, table in costs.items()}
pd.DataFrame(totals).T.astype(float).round(1)

# %% [markdown]
# Four times the channels at about the same price. So the deeper networks of the paper have three-layer blocks, from
# 50 layers on.
#
# ### Exercise: StudentBottleneck
#
# **Difficulty:** medium · **Time:** 10 minutes
#
# Write the three-layer block: 1×1 to `width` channels, 3×3 with the stride, 1×1 to `out_channels`. Every
# convolution has its batch norm, the first two have a ReLU as well, and the shortcut is as before.
#
# <details><summary>Hint 1</summary>Your two-layer block, with one layer more. Which padding keeps the size under a
# 1×1 convolution?</details>
# <details><summary>Hint 2</summary>The shortcut runs from `in_channels` to `out_channels`: `width` is F's own
# affair.</details>

# %% tags=["exercise"]
class StudentBottleneck(nn.Module):
    """Three layers: x (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride), inside with `width` channels."""

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
# A *stage* is a row of blocks with the same number of filters and the same size. Only its first block can differ: it
# receives the maps of the stage before.
#
# ### Exercise: make_stage
#
# **Difficulty:** easy · **Time:** 10 minutes
#
# Return `num_blocks` blocks as an `nn.Sequential`. The first goes from `in_channels` to `out_channels` with `stride`;
# all others keep channels and size. `block` is called as `block(in_channels, out_channels, stride)`.
#
# <details><summary>Hint 1</summary>What does the second block receive: the maps that the stage received, or those
# that the first block gave?</details>
# <details><summary>Hint 2</summary>`nn.Sequential(*blocks)` takes a list apart.</details>

# %% tags=["exercise"]
def make_stage(block, in_channels, out_channels, num_blocks, stride):
    """`num_blocks` blocks in a row as an nn.Sequential; the first changes channels and size."""
    ### BEGIN SOLUTION
    blocks = [block(in_channels, out_channels, stride)]
    for _ in range(num_blocks - 1):
        blocks.append(block(out_channels, out_channels, 1))
    return nn.Sequential(*blocks)
    ### END SOLUTION

# %%
stage_verdict = check.make_stage(make_stage)

# %% [markdown]
# ResNet-18 has four stages of two blocks, with 64, 128, 256 and 512 filters. Here they are, from your blocks and your
# stages where they are right.
#
# **Predict, then run:** maps of 56×56 come in. How large are they behind the last stage?

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
# Look at the column `flop_m`. Half the height, half the width, twice the channels in and twice out: a 3×3 convolution
# costs the same work in every stage. Only the first of a stage costs half, since it sees the channels of the stage
# before. Then look at `params_k`: from stage to stage it grows by four.

# %% [markdown]
# ### Additional conv layer at the beginning
#
# - Additional conv layer at the beginning
#
# It is a 7×7 convolution with 64 filters, stride 2 and padding 3, with batch norm and ReLU. Behind it the paper has a
# max pool of 3×3 with stride 2 and padding 1, so the first stage works on a quarter of the image's height and width.

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
# AlexNet flattened 256 maps of 6×6 and put three fully-connected layers behind them. A ResNet takes the average of
# each of its 512 maps, and one fully-connected layer makes the logits.
#
# **Predict, then run:** how many parameters has the last layer, and how many had AlexNet's fc6?

# %%
end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
pieces(end, (512, 7, 7))

# %% [markdown]
# The average has a second merit: it takes maps of any size, and so the network takes images of any size.
#
# ### Exercise: StudentResNet18
#
# **Difficulty:** medium · **Time:** 15 minutes
#
# Put the pieces together: beginning, four stages, end. Use your `StudentBasicBlock` and `make_stage`, or the
# package's `BasicBlock` and `package_make_stage`.
#
# <details><summary>Hint 1</summary>Copy the three cells above, and think about what each number was: one of them is
# not 1000 any more.</details>
# <details><summary>Hint 2</summary>The first stage comes right behind the max pool: which stride?</details>
# <details><summary>Hint 3</summary>Where does the network end: with logits, or with probabilities?</details>

# %% tags=["exercise"]
class StudentResNet18(nn.Module):
    """The slides' network with 18 layers: images (N, 3, H, W), 64×64 or larger, to logits (N, num_classes)."""

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
# Why 18? Only layers with weights on the way through F count: the first convolution, 4 stages × 2 blocks × 2
# convolutions, and the fully-connected layer. The paper's table 1 gives 1.8, 3.6 and 3.8 billion multiply-adds for
# 18, 34 and 50 layers. Its 50-layer network has the stride in the first 1×1 convolution, where it saves a little.

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
# All three have fewer parameters than AlexNet's 61 million, and do more work: no large fully-connected layers, and
# many convolutions. ResNet-50 as a picture, of blocks of three layers:

# %%
show(plot_architecture(resnet50(1000), (3, 224, 224)))

# %% [markdown]
# ## Plain against residual
#
# Now train them yourself, on your images at 32×32 pixels: two depths, with and without shortcuts, and all else alike.
# Errors are those on the test images. Nothing is chosen by them, so looking at them spoils nothing.
#
# This is a short training on few images. It shows how such a comparison is made, and how the networks start. It does
# not show what happens at the end of a long training: for that look at the measured curves above.
#
# **Predict, then run:** after so few steps, in which order will the four networks be?

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
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
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
# Do not be surprised if the plain networks do well here. 8 and 20 layers can be trained without shortcuts too; what
# the slide says is about depth, and a few steps are not enough to see the end of a curve.
#
# Change the seeds, `torch.manual_seed(0)` and `seed=0` of the training batches, and run it once more: which of the
# differences stay, and which were chance?

# %%
one_image = 1 / len(test_set)
accuracy = 1 - results["test_error"].min()
spread = math.sqrt(accuracy * (1 - accuracy) / len(test_set))
print(f"one test image is {one_image:.2%}; by the choice of test images alone an error varies by about ±{spread:.1%}")

# %% [markdown]
# The gradients of the deeper pair, before the first step and after one epoch:

# %%
show(plot_gradient_norms(pd.DataFrame(norms)))

# %% [markdown]
# ## How much does a block add?
#
# If each block only adds to what it receives, one can ask how much. The figure has the size of x, which the shortcut
# carries, and of F(x), block by block through a residual network. Vertical lines stand where the channels double.
#
# **Predict, then run:** is F(x) larger or smaller than x? And in a deeper network, will each block add more or less?

# %%
sizes = reference.load("cifar10_residual_sizes")
show(plot_residual_sizes(sizes.table))
print(sizes.made["data"])

# %% [markdown]
# That was the deepest residual network that was trained on CIFAR-10 (as JPEG). Figure 7 of the paper says that the
# deeper a network is, the less each of its blocks changes. Compare with your own, shallower network:

# %%
some_images, _ = next(iter(test_batches))
show(plot_residual_sizes(residual_sizes(networks[DEPTHS[-1], True], some_images)))

# %% [markdown]
# ## Train ResNet-18
#
# If your network passed its check, it is yours that is trained now; otherwise the package's. Batch norm makes the
# start easy: any of the usual first weights will do, and the learning rate is far above AlexNet's.

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
# The first loss of a network without an idea is ln(number of classes), as lesson 2 has it. Is the first epoch's mean
# loss below it? Lesson 4 asks which learning rate, batch size and weight decay suit this network.

# %% [markdown]
# ## Where you are

# %%
check.progress()
