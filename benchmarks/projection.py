"""A projection, not a measurement: a lower bound on the time that the exercise takes on a GPU.

    python benchmarks/projection.py

torch.utils.flop_counter counts the floating-point operations of a forward and a backward pass. Of the memory traffic,
only that of the weights is counted: they do not fit into a cache. SGD with momentum reads the weight, the gradient and
the momentum, and writes the weight and the momentum, all in float32: 20 bytes per weight. Mixed precision reads the
weight and writes a 16-bit copy (4 + 2), which the forward and the backward pass read (2 + 2). It also writes and reads
a 16-bit gradient and writes it in float32 (2 + 2 + 4): 18 bytes in all. A step takes at least as long as the slower of
arithmetic and traffic at the GPU's specified peak rates. Activations, kernel launches and data loading come on top, so
real training takes longer; how much longer has not been measured.
"""

import torch
import torch.nn.functional as F
from throughput import NETWORKS
from torch.utils.flop_counter import FlopCounterMode

GPU = "NVIDIA T4"
FLOPS = 65e12  # per second, float16 on tensor cores: NVIDIA T4 datasheet, 2019
BYTES = 320e9  # per second: 320+ in the same datasheet
BYTES_PER_WEIGHT = 20 + 18  # per step
IMAGES, EPOCHS = 90_000, 5  # TinyImageNet's training images without a tenth for validation
BATCH_SIZES, NUM_LEARNING_RATES, NUM_DECAYS = (16, 32, 64), 3, 2  # the decays are tried at one point only


def main() -> None:
    print(f"{GPU}: projected lower bound on the time; {IMAGES:,} images, {EPOCHS} epochs per trial")
    for network, (make_model, image_size) in NETWORKS.items():
        with torch.device("meta"):
            model, images, labels = make_model(), torch.empty(1, 3, image_size, image_size), torch.empty(1).long()
        model.eval()  # in training mode, batch norm rejects a batch of one image; the operations are the same
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(model(images), labels).backward()
        flop = counter.get_total_flops()
        weights = sum(parameter.numel() for parameter in model.parameters())
        print(f"{network}: {flop / 1e9:.2f} GFLOP per image, {weights / 1e6:.1f} million weights")
        trial_minutes = {}
        for batch_size in BATCH_SIZES:
            arithmetic, memory = batch_size * flop / FLOPS, BYTES_PER_WEIGHT * weights / BYTES
            steps = -(-IMAGES // batch_size) * EPOCHS
            trial_minutes[batch_size] = max(arithmetic, memory) * steps / 60
            print(
                f"  batch size {batch_size}: arithmetic {1e3 * arithmetic:.2f} ms, weights {1e3 * memory:.2f} ms "
                f"per step; a trial takes at least {trial_minutes[batch_size]:.1f} minutes"
            )
        minutes = NUM_LEARNING_RATES * sum(trial_minutes.values()) + NUM_DECAYS * min(trial_minutes.values())
        print(f"  the nine points and two decays: at least {minutes:.0f} minutes")


if __name__ == "__main__":
    main()
