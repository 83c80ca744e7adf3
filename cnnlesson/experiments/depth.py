"""The effect of depth on plain and residual networks for 32×32 images, after section 4.2 of He et al. (2015)."""

import dataclasses
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from cnnlesson import plots, reference
from cnnlesson.data import Batches, ImageSet, TrainTest, cifar10, image_folder, take
from cnnlesson.experiments.trial import MOMENTUM
from cnnlesson.models import cifar_resnet, insert_identity_blocks
from cnnlesson.models.resnet import CifarResNet, cifar_blocks_per_stage
from cnnlesson.runtime.atomic import atomic_write, make_folder
from cnnlesson.runtime.device import find_device
from cnnlesson.runtime.display import count
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.signals import gradient_norms, residual_sizes
from cnnlesson.training import Epoch, evaluate, train

# Test error of residual networks on CIFAR-10, by depth, from Table 6 of the paper.
PUBLISHED_TEST_ERROR = {20: 0.0875, 32: 0.0751, 44: 0.0717, 56: 0.0697, 110: 0.0643}


@dataclasses.dataclass(frozen=True)
class Network:
    """One network of the experiment."""

    depth: int
    residual: bool
    seed: int  # of the initial weights, the order of the images and their augmentation

    @property
    def kind(self) -> str:
        return "residual" if self.residual else "plain"

    def new_model(self, num_classes: int) -> CifarResNet:
        """The network with its initial weights."""
        torch.manual_seed(self.seed)
        return cifar_resnet(self.depth, num_classes, self.residual)

    def __str__(self) -> str:
        return f"{self.kind}-{self.depth}-seed-{self.seed}"


def networks(depths: Sequence[int], seeds: Sequence[int]) -> list[Network]:
    """The plain and the residual network of each depth and seed, from the shallowest to the deepest.

    Raises:
        ValueError: a depth is not 6n + 2, or a depth or seed is listed twice.
    """
    for name, values in (("depth", depths), ("seed", seeds)):
        if repeated := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{name} {repeated[0]} is listed twice: list each {name} once")
    for depth in depths:
        cifar_blocks_per_stage(depth)  # raises here, before any network is trained
    return [Network(depth, residual, seed) for depth, seed, residual in product(sorted(depths), seeds, (False, True))]


def train_network(
    model: nn.Module, data: TrainTest, epochs: int, batch_size: int, lr: float, weight_decay: float, seed: int
) -> Iterator[tuple[Epoch, dict[str, float]]]:
    """Train a new model, and yield each `Epoch` with the `gradient_norms` before its first step.

    This is the paper's recipe with another learning rate schedule. Here the learning rate rises to `lr` and falls to 0
    in one cycle, which can be short. The paper trains for 32,000 steps at 0.1, then for 32,000 more at 0.01 and 0.001.
    Training images are flipped and shifted at random. There is no validation set, because nothing is selected by its
    error: the epoch's validation figures are those of the test images.

    Args:
        model: a network of the experiment, on the device to train on.
        data: images of 32×32 pixels, such as those of `cnnlesson.data.cifar10`.
        lr: the maximum.
        seed: of the order of the images and their augmentation.

    Raises:
        ValueError: the images have another size.
    """
    height, width = data.train.images.shape[2:]
    if (height, width) != (32, 32):
        raise ValueError(
            f"the depth experiment expects images of 32×32 pixels, such as CIFAR-10's, got {height}×{width}"
        )
    device = next(model.parameters()).device
    train_batches = Batches(data.train, batch_size, 32, seed=seed, augment=True, device=device)
    probe = next(iter(Batches(data.train, min(256, len(data.train)), 32, seed=seed, device=device)))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=epochs * len(train_batches), cycle_momentum=False
    )
    norms = gradient_norms(model, *probe)
    for epoch in train(model, train_batches, _in_order(data.test, device), optimizer, epochs, scheduler):
        yield epoch, norms
        norms = gradient_norms(model, *probe)


def _in_order(images: ImageSet, device: torch.device) -> Batches:
    """Batches to evaluate a network."""
    return Batches(images, min(500, len(images)), 32, device=device)


def run_depth(options: Namespace) -> None:
    """Train the networks that are not in the folder --out yet, and write the results to it.

    The results are one file per network (NETWORK.pt with its weights, its curves, and how it was trained), the tables
    depth.csv, gradients.csv and residual_sizes.csv, each with a record as described in `cnnlesson.reference`, and
    figures of them. Several processes can share the folder.

    Args:
        options: those of `python -m cnnlesson depth`, and `typed`, the command line.
    """
    chosen = [network for network in networks(options.depths, options.seeds) if network.kind in options.kinds]
    recipe = {name: getattr(options, name) for name in ("epochs", "batch_size", "lr", "weight_decay")}
    data, out, device = _load_images(options), make_folder(options.out), find_device(options.device)
    settings = recipe | {"images_sha256": reference.images_digest(*data)}
    saved = {network: load_network(out, network) for network in chosen if network_path(out, network).exists()}
    for network, file in saved.items():
        path = network_path(out, network)
        if different := [name for name in settings if file["settings"].get(name) != settings[name]]:
            raise ValueError(
                f"{path} was trained with other settings ({', '.join(different)}): choose another folder with --out, "
                "or delete the file"
            )
        print(f"{path} exists: {network} is not trained again")
    made = {"settings": settings, "circumstances": reference.circumstances(device)}
    for network in chosen:
        if network not in saved:
            saved[network] = made | _train_network(data, network, recipe, device)
            with atomic_write(network_path(out, network)) as unfinished:
                torch.save(saved[network], unfinished)
    name = options.name or Path(options.data).name
    record = {
        "command": options.typed,
        "data": f"{name}: {len(data.train):,} training and {len(data.test):,} test images",
        "seeds": sorted({network.seed for network in chosen}),
        **settings,
        "networks": {str(network): saved[network]["circumstances"] for network in chosen},
    }
    tables = {}
    for table in ("depth", "gradients"):
        rows = [dataclasses.asdict(network) | row for network in chosen for row in saved[network][table]]
        tables[table] = pd.DataFrame(rows)
    deepest = max(chosen, key=lambda network: (network.residual, network.depth))
    if deepest.residual:
        model = _load_model(out, deepest, len(data.train.classes), device)
        images, _ = next(iter(_in_order(data.test, device)))
        tables["residual_sizes"] = residual_sizes(model, images)
    _report(tables, name, deepest, record, out)


def _load_images(options: Namespace) -> TrainTest:
    """The images that --data and --images name."""
    data = cifar10(options.root) if options.data == "cifar10" else image_folder(options.data)
    if options.images is not None:
        data = TrainTest(take(data.train, options.images, seed=0), data.test)
    reuse_freed_memory()
    return data


def _train_network(data: TrainTest, network: Network, recipe: dict, device: torch.device) -> dict:
    """Train one network, print one line per epoch, and return the rows of the tables and the weights."""
    depth, gradients = [], []
    model = network.new_model(len(data.train.classes)).to(device)
    for epoch, norms in train_network(model, data, **recipe, seed=network.seed):
        errors = {"train_error": 1 - epoch.train_accuracy, "test_error": 1 - epoch.val_accuracy}
        losses = {"train_loss": epoch.train_loss, "test_loss": epoch.val_loss}
        depth.append({"epoch": epoch.number, **errors, **losses, "learning_rate": epoch.learning_rate})
        gradients += [{"epochs_done": epoch.number - 1, "layer": layer, "norm": norm} for layer, norm in norms.items()]
        print(
            f"{network}, epoch {epoch.number} of {epoch.epochs}: "
            f"training error {errors['train_error']:.2%}, test error {errors['test_error']:.2%}",
            flush=True,
        )
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    return {"depth": depth, "gradients": gradients, "weights": weights}


def load_network(out: Path, network: Network) -> dict:
    """What `run_depth` saved: a network's settings, circumstances, depth, gradients (rows of the tables) and weights.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: `run_depth` did not write the file, or it is damaged.
    """
    path = network_path(out, network)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: train that network first with python -m cnnlesson depth")
    try:
        file = torch.load(path, weights_only=True)
        return {part: file[part] for part in ("settings", "circumstances", "depth", "gradients", "weights")}
    except Exception as error:  # a damaged file raises errors of many types, and so does something that is no dict
        raise ValueError(
            f"{path} is damaged or no network of this experiment ({type(error).__name__}): delete it and train that "
            "network again, or choose another folder with --out"
        ) from error


def network_path(out: Path, network: Network) -> Path:
    return out / f"{network}.pt"


def _report(tables: dict[str, pd.DataFrame], name: str, deepest: Network, record: dict, out: Path) -> None:
    """Print the tables, and write them and their figures."""
    print(f"\n{record['data']}, {record['epochs']} epochs")
    figures = {
        "curves": plots.plot_depth_curves(tables["depth"], plots.blank(1, 2, plots.WIDE, sharey=True))[0],
        "depth": plots.plot_depth(tables["depth"], PUBLISHED_TEST_ERROR, plots.blank(size=plots.WIDE)),
        "gradients": plots.plot_gradient_norms(tables["gradients"], plots.blank(1, 2, plots.WIDE, sharey=True))[0],
    }
    print(plots.description(figures["depth"]).text)
    print(f"\ngradient norms\n{plots.description(figures['gradients']).text}")
    if "residual_sizes" in tables:
        ax = figures["residual_sizes"] = plots.plot_residual_sizes(tables["residual_sizes"], plots.blank())
        ax.set_title(f"{deepest.depth} layers")
        print(f"\nroot mean squares in the blocks of {deepest}\n{plots.description(ax).text}")
    for table_name, table in tables.items():
        reference.save(table_name, table, record, out)
    for figure_name, ax in figures.items():
        ax.figure.suptitle(f"{name}, {record['epochs']} epochs", fontsize=11)
        plots.save_figure(ax.figure, out / f"{figure_name}.png")
    print(f"\nnetworks, tables and figures are in {out}/")


def _load_model(out: Path, network: Network, num_classes: int, device: torch.device) -> CifarResNet:
    model = network.new_model(num_classes)
    try:
        model.load_state_dict(load_network(out, network)["weights"])
    except (RuntimeError, TypeError) as error:  # other layers or other shapes, or no tensors
        raise ValueError(
            f"the weights in {network_path(out, network)} do not fit {network} with {num_classes} classes: use the "
            "images that the network was trained on, or delete the file and train the network again"
        ) from error
    return model.to(device)


def run_deepen(options: Namespace) -> None:
    """Deepen a plain network that `run_depth` trained with identity blocks, and continue training.

    Print how much the logits of the two networks differ, then the errors of both and those after each further epoch.
    The batch size and the weight decay stay those of `run_depth`. The training error is measured without augmentation
    on at most 10,000 of the training images.

    Args:
        options: those of `python -m cnnlesson deepen`.
    """
    network = Network(options.depth, residual=False, seed=options.seed)
    data, out, device = _load_images(options), options.out, find_device(options.device)
    settings = load_network(out, network)["settings"]
    blocks_per_stage, rest = divmod(options.to - network.depth, 6)
    if rest or blocks_per_stage < 1:
        first = network.depth + 6
        raise ValueError(
            f"{network.depth} layers can be deepened to {first}, {first + 6}, {first + 12}, ... layers, "
            f"got {options.to}"
        )
    num_classes = len(data.train.classes)
    shallow = _load_model(out, network, num_classes, device).eval()
    seeded = {"seed": network.seed, "device": device}
    train_batches = Batches(data.train, settings["batch_size"], 32, augment=True, **seeded)
    seen_batches, test_batches = _in_order(take(data.train, 10_000, seed=0), device), _in_order(data.test, device)
    probe, _ = next(iter(Batches(data.train, min(500, len(data.train)), 32, **seeded)))
    deeper = insert_identity_blocks(shallow, blocks_per_stage, probe)
    with torch.no_grad():
        before, after = (torch.cat([model(images) for images, _ in test_batches]) for model in (shallow, deeper))
    difference, largest = (after - before).abs().max(), before.abs().max()
    added = count(blocks_per_stage, "identity block")
    print(f"{network} with {added} at the end of each stage has {options.to} layers")
    print(f"largest difference between their logits: {difference:.1e} (largest logit: {largest:.1f})")

    def print_errors(what: str, model: torch.nn.Module) -> None:
        seen, unseen = evaluate(model, seen_batches), evaluate(model, test_batches)
        print(f"{what}: training error {1 - seen.accuracy:.2%}, test error {1 - unseen.accuracy:.2%}", flush=True)

    print_errors(f"{network.depth} layers", shallow)
    print_errors(f"{options.to} layers, by construction", deeper)
    optimizer = torch.optim.SGD(
        deeper.parameters(), lr=options.lr, momentum=MOMENTUM, weight_decay=settings["weight_decay"], fused=True
    )
    for epoch in train(deeper, train_batches, test_batches, optimizer, options.epochs):
        print_errors(f"{options.to} layers, after epoch {epoch.number} at learning rate {options.lr:g}", deeper)
    from_scratch = dataclasses.replace(network, depth=options.to)
    if network_path(out, from_scratch).exists():
        print_errors(f"{options.to} layers, trained from scratch", _load_model(out, from_scratch, num_classes, device))
