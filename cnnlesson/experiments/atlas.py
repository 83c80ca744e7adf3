"""The atlas: about 900 small trainings on photographs, over learning rate, batch size, weight decay, and more.

Each slab of the atlas is a grid of its own, with a journal of its own, for each of two networks: a small AlexNet
without batch norm, and ResNet-8 with it. `run_atlas` trains what has not ended yet, so it can be stopped at any time.
"""

import functools
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.data import Batches, ImageSet, named_images, split, take
from cnnlesson.experiments import trial
from cnnlesson.models import SmallAlexNet, cifar_resnet
from cnnlesson.reference import images_digest
from cnnlesson.runtime.device import find_device
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.search import GridSearch
from cnnlesson.training import Epoch, evaluate

# Five of CIFAR-10's classes, so that the best networks of four epochs are right on about 70 %.
CLASSES = ("airplane", "automobile", "frog", "horse", "ship")
NUM_TRAIN, NUM_VAL, NUM_TEST = 4_000, 2_000, 2_000  # images
EPOCHS = 4
RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
BATCH_SIZES = [8, 16, 32, 64, 128, 256]
DECAY = 0.0005  # of the optimizer, unless a slab varies it

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": SmallAlexNet,
    "resnet": functools.partial(cifar_resnet, 8),
}


@dataclass(frozen=True)
class TestedEpoch(Epoch):
    """The last epoch of a trial."""

    __test__ = False  # pytest: this is no test

    test_right: str = ""  # which test images are classified correctly, as `Score.right`


@dataclass(frozen=True)
class Slab:
    """A grid of the atlas, and how its trials differ from those of the others."""

    grid: dict[str, list[float]]
    networks: tuple[str, ...] = tuple(NETWORKS)
    schedule: str = "constant"  # or warm-up and cosine
    activation: str = "relu"  # of the small AlexNet
    epochs: int = EPOCHS


def _grid(batch_sizes: list[int], decays: list[float], seeds: list[int]) -> dict[str, list[float]]:
    return {"lr": RATES, "batch_size": batch_sizes, "weight_decay": decays, "seed": seeds}


SLABS = {
    # Where the lesson looks: learning rate by batch size, with the spread of three seeds.
    "rates": Slab(_grid(BATCH_SIZES, [DECAY], [0, 1, 2])),
    # Ten seeds of one point of each network, with the three above: a good one, not the best.
    "seeds-alexnet": Slab({**_grid([32], [DECAY], list(range(3, 10))), "lr": [0.01]}, ("alexnet",)),
    "seeds-resnet": Slab({**_grid([32], [DECAY], list(range(3, 10))), "lr": [0.1]}, ("resnet",)),
    "decays": Slab(_grid(BATCH_SIZES, [0.0, 0.005, 0.05], [0])),
    "schedule": Slab(_grid(BATCH_SIZES, [DECAY], [0]), schedule="cosine"),
    # With twice and four times as many epochs, large batches take as many steps as batches of 64.
    "steps-128": Slab(_grid([128], [DECAY], [0]), epochs=2 * EPOCHS),
    "steps-256": Slab(_grid([256], [DECAY], [0]), epochs=4 * EPOCHS),
    "tanh": Slab(_grid([16, 64, 256], [DECAY], [0]), ("alexnet",), activation="tanh"),
    "gelu": Slab(_grid([16, 64, 256], [DECAY], [0]), ("alexnet",), activation="gelu"),
}
ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "gelu": F.gelu}


def run_atlas(options: Namespace) -> None:
    """Train the atlas, or one part of it, into journals in the folder --out.

    Args:
        options: those of `python -m cnnlesson atlas`.
    """
    images = load_images(options.data, options.root)
    for name, slab in SLABS.items():
        for network in slab.networks:
            search = slab_search(name, network, images, options)
            print(f"{network}, {name}: {len(search.own_points)} of {len(search.points)} trials are of this part")
            if options.forecast:
                search.forecast()
            else:
                search.run()


def load_images(data: str, root: str) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, validation and test images of five classes; always the same ones."""
    train, test = (only_classes(part, CLASSES) for part in named_images(data, root, seed=0, size=32))
    needed = NUM_TRAIN + NUM_VAL
    if len(train) < needed or len(test) < NUM_TEST:
        raise ValueError(f"the atlas needs {needed:,} training and {NUM_TEST:,} test images of {', '.join(CLASSES)}")
    share = NUM_TRAIN / needed
    train_set, val_set = split(take(train, needed, seed=0), (share, 1 - share), seed=0)
    reuse_freed_memory()
    return train_set, val_set, take(test, NUM_TEST, seed=0)


def only_classes(images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """The images of some classes, which are numbered in the order of `classes`."""
    if missing := sorted(set(classes) - set(images.classes)):
        raise ValueError(f"the images have no class {missing[0]}: use CIFAR-10")
    new_label = torch.full((len(images.classes),), -1)
    new_label[[images.classes.index(name) for name in classes]] = torch.arange(len(classes))
    labels = new_label[images.labels]
    kept = labels >= 0
    return ImageSet(images.images[kept], labels[kept], classes)


def slab_search(name: str, network: str, images: tuple[ImageSet, ...], options: Namespace) -> GridSearch:
    slab = SLABS[name]
    train_set, val_set, test_set = images
    settings = {
        "network": network,
        "schedule": slab.schedule,
        "activation": slab.activation if network == "alexnet" else "relu",
        "epochs": slab.epochs,
    }
    run_one = functools.partial(
        run, train_set=train_set, val_set=val_set, test_set=test_set, device=options.device, **settings
    )
    return GridSearch(
        run_one,
        slab.grid,
        options.out / f"{network}-{name}.journal",
        settings=settings | {"images": images_digest(*images)},
        num_classes=len(CLASSES),
        part=options.part,
    )


def run(
    lr: float,
    batch_size: int,
    weight_decay: float,
    seed: int,
    network: str,
    activation: str,
    schedule: str,
    epochs: int,
    train_set: ImageSet,
    val_set: ImageSet,
    test_set: ImageSet,
    device: str | None,
    checkpoint: str,
) -> Iterator[Epoch]:
    """One trial, as `cnnlesson.experiments.trial.run`; its last epoch is a `TestedEpoch`."""
    build_model = functools.partial(NETWORKS[network], len(CLASSES))
    if network == "alexnet":
        build_model = functools.partial(build_model, activation=ACTIVATIONS[activation])
    epochs_of_trial = trial.run(
        lr,
        batch_size,
        weight_decay,
        train_set,
        val_set,
        build_model,
        image_size=32,
        epochs=epochs,
        seed=seed,
        checkpoint=checkpoint,
        device=device,
        schedule=trial.cosine_with_warmup if schedule == "cosine" else None,
    )
    for epoch in epochs_of_trial:
        if epoch.number < epoch.epochs or epoch.diverged:
            yield epoch
            continue
        model = trial.trained_model(build_model, checkpoint).to(find_device(device))
        score = evaluate(model, Batches(test_set, 500, 32, device=device))
        yield TestedEpoch(**asdict(epoch), test_right=score.right)
