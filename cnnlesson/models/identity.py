"""Identity by construction: a deeper plain network that computes the same function as a shallower one."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.models.resnet import CifarResNet, PlainBlock


@torch.no_grad()
def insert_identity_blocks(model: CifarResNet, blocks_per_stage: int, images: torch.Tensor) -> CifarResNet:
    """A copy of a plain network with identity blocks added, which make it 6 × `blocks_per_stage` layers deeper.

    The copy shows that a deeper plain network can do as well as the shallower one (He et al., section 1). If training
    from scratch ends with a higher error, the optimizer is to blame, not the network. The copy can be trained further.

    Each new convolution copies its channels (each filter has a single 1, at its centre), and each new batch norm undoes
    its own normalisation: its weight and bias are the standard deviation and mean of its input. ReLU changes nothing,
    since the output of a block is never negative. In evaluation mode the outputs are therefore equal up to rounding.
    In training mode, batch norm divides by the standard deviation of the current batch: for `images` the outputs are
    equal too; for another batch, they are as close as the statistics of the two batches.

    Args:
        model: from `cifar_resnet(..., residual=False)`; it is left unchanged.
        blocks_per_stage: the number of blocks to append to each of the three stages.
        images: a batch of training images (N, 3, H, W) on the model's device, from which means and standard
            deviations are computed; a few hundred are enough.
    """
    if not isinstance(model, CifarResNet) or not isinstance(model.layer1[0], PlainBlock):
        raise ValueError(
            "insert_identity_blocks takes a plain network: cifar_resnet(depth, num_classes, residual=False)"
        )
    shallow = copy.deepcopy(model).train()  # a copy, since training mode updates the running statistics
    deeper = copy.deepcopy(model)
    x = F.relu(shallow.bn1(shallow.conv1(images)))
    for name in ("layer1", "layer2", "layer3"):
        x = getattr(shallow, name)(x)
        for _ in range(blocks_per_stage):
            getattr(deeper, name).append(identity_block(x).train(model.training))
    return deeper


def identity_block(x: torch.Tensor) -> PlainBlock:
    """A block of two 3×3 convolutions that returns its input, for feature maps like `x` (N, C, H, W), x ≥ 0."""
    channels = x.shape[1]
    block = PlainBlock(channels, channels, stride=1).to(x.device)
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)  # (C,) each
    for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        # The convolution copies each channel.
        nn.init.dirac_(convolution.weight)
        # Batch norm subtracts the mean and divides by the standard deviation; weight and bias do the reverse.
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
    return block
