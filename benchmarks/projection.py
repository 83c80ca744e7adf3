"""A projection, not a measurement: the least time that the exercise can take on a GPU, from its counted work.

    python benchmarks/projection.py

Arithmetic is counted by torch.utils.flop_counter in a forward and backward pass. Of the memory traffic only that of
the weights is counted: SGD with momentum reads weight, gradient and momentum and writes two of them, all float32 (20
bytes a weight), and mixed precision writes and reads 16-bit copies of weight and gradient (12 bytes). A step takes at
least the longer of the two, at the pace that the maker of the GPU states. Activations, launches and the loader come on
top, so that real trainings take longer; by how much has not been measured.
"""

import torch
import torch.nn.functional as F
from throughput import NETWORKS
from torch.utils.flop_counter import FlopCounterMode

GPU = "NVIDIA T4"
FLOPS = 65e12  # a second, float16 on tensor cores: NVIDIA T4 datasheet, 2019
BYTES = 320e9  # a second: the same datasheet says 320+
BYTES_A_WEIGHT = 20 + 12  # a step
IMAGES, EPOCHS = 90_000, 5  # TinyImageNet's training images without a tenth for validation
BATCH_SIZES = {16: 3, 32: 3, 64: 3}  # and how many trials of each; two more, for weight decay, at one of them


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
        grid = sum(count * trial_minutes[batch_size] for batch_size, count in BATCH_SIZES.items())
        print(f"  the nine points and two decays: at least {grid + 2 * max(trial_minutes.values()):.0f} minutes")


if __name__ == "__main__":
    main()
