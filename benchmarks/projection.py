"""A projection, not a measurement: the least time that the exercise can take on a GPU, from its counted work.

    python benchmarks/projection.py

Arithmetic is counted by torch.utils.flop_counter in a forward and backward pass. Of the memory traffic only that of
the weights is counted, which fit into no cache. SGD with momentum reads weight, gradient and momentum and writes two
of them in float32: 20 bytes a weight. Mixed precision reads the weight for a 16-bit copy (4 + 2), which the forward and
the backward pass read (2 + 2), and writes and reads a 16-bit gradient for one in float32 (2 + 2 + 4): 18 bytes. A step
takes at least the longer of arithmetic and traffic, at the pace that the maker of the GPU states. Activations, launches
and the loader come on top, so that real trainings take longer; by how much has not been measured.
"""

import torch
import torch.nn.functional as F
from throughput import NETWORKS
from torch.utils.flop_counter import FlopCounterMode

GPU = "NVIDIA T4"
FLOPS = 65e12  # a second, float16 on tensor cores: NVIDIA T4 datasheet, 2019
BYTES = 320e9  # a second: the same datasheet says 320+
BYTES_A_WEIGHT = 20 + 18  # a step
IMAGES, EPOCHS = 90_000, 5  # TinyImageNet's training images without a tenth for validation
BATCH_SIZES, NUM_LEARNING_RATES, NUM_DECAYS = (16, 32, 64), 3, 2  # the decays are tried at one of the points


def main() -> None:
    print(f"{GPU}: a projection of the least time, from counted work; {IMAGES:,} images, {EPOCHS} epochs a trial")
    for network, (make_model, image_size) in NETWORKS.items():
        with torch.device("meta"):
            model, images, labels = make_model(), torch.empty(1, 3, image_size, image_size), torch.empty(1).long()
        model.eval()  # batch norm takes no batch of one image in training; the arithmetic is the same
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(model(images), labels).backward()
        flop = counter.get_total_flops()
        weights = sum(parameter.numel() for parameter in model.parameters())
        print(f"{network}: {flop / 1e9:.2f} GFLOP an image, {weights / 1e6:.1f} million weights")
        trial_minutes = {}
        for batch_size in BATCH_SIZES:
            arithmetic, memory = batch_size * flop / FLOPS, BYTES_A_WEIGHT * weights / BYTES
            steps = -(-IMAGES // batch_size) * EPOCHS
            trial_minutes[batch_size] = max(arithmetic, memory) * steps / 60
            print(
                f"  batch size {batch_size}: arithmetic {1e3 * arithmetic:.2f} ms, weights {1e3 * memory:.2f} ms "
                f"a step; a trial at least {trial_minutes[batch_size]:.1f} minutes"
            )
        minutes = NUM_LEARNING_RATES * sum(trial_minutes.values()) + NUM_DECAYS * min(trial_minutes.values())
        print(f"  the nine points and two decays: at least {minutes:.0f} minutes")


if __name__ == "__main__":
    main()
