"""The atlas: about 900 small trainings on photographs, over learning rate, batch size, weight decay, and more.

Each slab of the atlas is a grid of its own, with a journal of its own, for each of two networks: a small AlexNet
without batch norm, and ResNet-8 with it. `run_atlas` trains what has not ended yet, so it can be stopped at any time.
"""

import functools
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.data import Batches, ImageSet, named_images, split, take
from cnnlesson.experiments import trial
from cnnlesson.models import SmallAlexNet, cifar_resnet
from cnnlesson.points import combinations, key_of
from cnnlesson.reference import circumstances, images_digest, save
from cnnlesson.results import trials_of
from cnnlesson.runtime.atomic import make_folder
from cnnlesson.runtime.device import find_device
from cnnlesson.runtime.display import count
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.search import GridSearch
from cnnlesson.search.journal import journals_of
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
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "gelu": F.gelu}


def run_atlas(options: Namespace) -> None:
    """Train the atlas, or one part of it, into journals in the folder --out.

    Args:
        options: those of `python -m cnnlesson atlas`.
    """
    images = load_images(options.data, options.root)
    if not options.forecast:
        make_folder(options.out)
    for name, slab in SLABS.items():
        for network in slab.networks:
            search = slab_search(name, network, images, options)
            print(f"{network}, {name}: {len(search.own_points)} of {len(search.points)} trials are of this part")
            if options.forecast:
                search.forecast()
            else:
                search.run()
    if options.forecast:
        return
    table, test = collect(options.out)
    num_missing = sum(len(slab.networks) * len(combinations(slab.grid)) for slab in SLABS.values()) - len(test)
    if num_missing:
        print(f"{count(num_missing, 'trial')} missing: run the other parts, then this command again")
        return
    made = {
        "command": options.typed,
        "data": f"{Path(options.data).stem}: {', '.join(CLASSES)}; {NUM_TRAIN:,} training, {NUM_VAL:,} validation and "
        f"{NUM_TEST:,} test images",
        "images_sha256": images_digest(*images),
        "hours": round(table["seconds"].sum() / 3600, 1),
        **circumstances(find_device(options.device)),
    }
    save("atlas", table, made, options.out)
    save("atlas_test", test, made, options.out)
    print(f"the atlas is {options.out / 'atlas.csv'}; the test results are in atlas_test.csv, for the very end")


def collect(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the journals in a folder know of the trials that completed or diverged.

    Returns:
        A row per trial and epoch, with the columns slab, network, schedule, activation, lr, batch_size, weight_decay,
        seed, state, epoch, epochs, steps, seconds, the losses and accuracies, and val_right for the last epoch only.
        And a row per trial with the columns of a point and test_right, which is empty for trials that diverged.
    """
    epochs, ends = [], []
    for name, slab in SLABS.items():
        for network in slab.networks:
            points = combinations(slab.grid)
            trials = trials_of(points, journals_of(folder / f"{network}-{name}.journal"))
            for point in points:
                trial = trials[key_of(point)]
                if trial.state not in ("completed", "diverged"):
                    continue
                how = {"schedule": slab.schedule, "activation": slab.activation if network == "alexnet" else "relu"}
                key = {"slab": name, "network": network} | how | point
                for epoch in trial.epochs:
                    figures = {"epochs": epoch["epochs"], "steps": epoch["steps"]}
                    figures |= {"seconds": round(epoch["seconds"], 2)}
                    figures |= {metric: round(epoch[metric], 4) for metric in METRICS}
                    figures |= {"val_right": epoch["val_right"] if epoch is trial.epochs[-1] else ""}
                    epochs.append(key | {"state": trial.state, "epoch": epoch["number"]} | figures)
                ends.append(key | {"test_right": trial.epochs[-1].get("test_right", "") if trial.epochs else ""})
    return pd.DataFrame(epochs), pd.DataFrame(ends)


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
        score = evaluate(model, Batches(test_set, min(500, len(test_set)), 32, device=device))
        yield TestedEpoch(**asdict(epoch), test_right=score.right)
