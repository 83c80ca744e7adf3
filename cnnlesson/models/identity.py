"""The solution by construction: a deeper plain network that does just what a shallower one does."""

import copy

import torch
from torch import nn

from cnnlesson.models.resnet import CifarResNet, PlainBlock


@torch.no_grad()
def insert_identity_blocks(model: CifarResNet, blocks_per_stage: int, images: torch.Tensor) -> CifarResNet:
    """A copy of a plain network, 6 × `blocks_per_stage` layers deeper, whose new blocks pass on what they receive.

    The copy shows that a deeper plain network can do as well as the shallower one (He et al., section 1): if training
    from scratch ends worse, the optimizer is to blame and not the network. It can go on training.

    Each new convolution copies its channels (a 1 in the middle of one 3×3 filter for each), and each new batch norm
    undoes its own normalisation: its weight and bias are the deviation and mean of what comes in. ReLU changes
    nothing, since what comes out of a block is never negative. In evaluation the outputs are therefore equal, but for
    rounding. In training, batch norm divides by the deviation of the batch at hand: with `images` the outputs are
    equal too, with another batch a new block comes as near to the identity as the two batches' statistics are.

    Args:
        model: from `cifar_resnet(..., residual=False)`; it is left as it is.
        blocks_per_stage: how many blocks each of the three stages gets at its end.
        images: a batch (N, 3, H, W) of training images on the model's device, a few hundred, from which means and
            deviations are taken.
    """
    if not isinstance(model, CifarResNet) or not isinstance(model.layer1[0], PlainBlock):
        raise ValueError(
            "insert_identity_blocks takes a plain network: cifar_resnet(depth, num_classes, residual=False)"
        )
    outputs = []
    probe = copy.deepcopy(model).train()  # a copy, because it moves batch norm's running statistics
    for stage in (probe.layer1, probe.layer2, probe.layer3):
        stage.register_forward_hook(lambda stage, inputs, x: outputs.append(x))
    probe(images)

    deeper = copy.deepcopy(model)
    for stage, x in zip((deeper.layer1, deeper.layer2, deeper.layer3), outputs, strict=True):
        for _ in range(blocks_per_stage):
            stage.append(identity_block(x).train(model.training))
    return deeper


def identity_block(x: torch.Tensor) -> PlainBlock:
    """A block of two 3×3 convolutions that gives back feature maps like `x` (N, C, H, W), which are not negative."""
    channels = x.shape[1]
    block = PlainBlock(channels, channels, stride=1).to(x.device)
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)  # (C,) each
    for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        nn.init.dirac_(convolution.weight)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
    return block
