"""The depth experiment from a shell: train the missing networks, save them, and write tables and figures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from cnnlesson import plots, reference
from cnnlesson.data import Batches, TrainTest, take
from cnnlesson.experiments.depth import PUBLISHED_TEST_ERROR, Network, Recipe, depth_experiment
from cnnlesson.experiments.trial import MOMENTUM
from cnnlesson.models import cifar_resnet, insert_identity_blocks
from cnnlesson.models.resnet import CifarResNet
from cnnlesson.runtime.atomic import atomic_write, make_folder
from cnnlesson.runtime.device import find_device
from cnnlesson.runtime.display import count
from cnnlesson.signals import residual_sizes
from cnnlesson.training import evaluate, train


def run_depth(
    data: TrainTest,
    name: str,
    networks: Sequence[Network],
    recipe: Recipe,
    out: Path,
    command: str,
    device: str | None = None,
) -> None:
    """Train each of `networks`, and write the results to the folder `out`.

    The results are one file per network (NETWORK.pt with its weights, its curves, and how it was trained), the tables
    depth.csv, gradients.csv and residual_sizes.csv, each with a record as described in `cnnlesson.reference`, and
    figures of them. A network whose file exists is not trained again, so several processes can share the folder.

    Args:
        data: images of 32×32 pixels.
        name: of the images, for the record and the figures.
        command: the command line, for the record.
    """
    make_folder(out)
    settings = dataclasses.asdict(recipe) | {"images_sha256": reference.images_digest(*data)}
    saved = {network: load_network(out, network) for network in networks if network_path(out, network).exists()}
    for network, file in saved.items():
        path = network_path(out, network)
        different = [name for name in settings if file["settings"].get(name) != settings[name]]
        if different:
            raise ValueError(
                f"{path} was trained with other settings ({', '.join(different)}): choose another folder with --out, "
                "or delete the file"
            )
        print(f"{path} exists: {network} is not trained again")
    made = {"settings": settings, "circumstances": reference.circumstances(find_device(device))}
    for network in networks:
        if network not in saved:
            saved[network] = made | _train_network(data, network, recipe, device)
            with atomic_write(network_path(out, network)) as unfinished:
                torch.save(saved[network], unfinished)
    record = {
        "command": command,
        "data": f"{name}: {len(data.train):,} training and {len(data.test):,} test images",
        "seeds": sorted({network.seed for network in networks}),
        **settings,
        "networks": {str(network): saved[network]["circumstances"] for network in networks},
    }
    tables = {}
    for table in ("depth", "gradients"):
        rows = [dataclasses.asdict(network) | row for network in networks for row in saved[network][table]]
        tables[table] = pd.DataFrame(rows)
    deepest = max(networks, key=lambda network: (network.residual, network.depth))
    if deepest.residual:
        images, _ = next(iter(Batches(data.test, min(500, len(data.test)), 32, device=device)))
        model = _load_model(out, deepest, len(data.train.classes), images.device)
        tables["residual_sizes"] = residual_sizes(model, images)
    _report(tables, name, deepest, record, out)


def _train_network(data: TrainTest, network: Network, recipe: Recipe, device: str | None) -> dict:
    """Train one network, print one line per epoch, and return the rows of the tables and the weights."""
    depth, gradients = [], []
    for epoch in depth_experiment(data, [network], recipe, device):
        print(
            f"{network}, epoch {epoch.number} of {recipe.epochs}: "
            f"training error {epoch.train_error:.2%}, test error {epoch.test_error:.2%}",
            flush=True,
        )
        figures = ("train_error", "test_error", "train_loss", "test_loss", "learning_rate")
        depth.append({"epoch": epoch.number} | {figure: getattr(epoch, figure) for figure in figures})
        gradients += [
            {"epochs_done": epoch.number - 1, "layer": layer, "norm": norm}
            for layer, norm in epoch.gradient_norms.items()
        ]
    weights = {name: tensor.cpu() for name, tensor in epoch.model.state_dict().items()}
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
    model = cifar_resnet(network.depth, num_classes, network.residual)
    try:
        model.load_state_dict(load_network(out, network)["weights"])
    except (RuntimeError, TypeError) as error:  # other layers or other shapes, or no tensors
        raise ValueError(
            f"the weights in {network_path(out, network)} do not fit {network} with {num_classes} classes: use the "
            "images that the network was trained on, or delete the file and train the network again"
        ) from error
    return model.to(device)


def run_deepen(
    data: TrainTest, network: Network, depth: int, epochs: int, lr: float, out: Path, device: str | None = None
) -> None:
    """Deepen a plain network that `run_depth` trained to `depth` layers with identity blocks, and continue training.

    Print how much the logits of the two networks differ, then the errors of both and those after each further epoch.
    The batch size and the weight decay stay those of `run_depth`. The training error is measured without augmentation
    on at most 10,000 of the training images.
    """
    file = load_network(out, network)
    blocks_per_stage, rest = divmod(depth - network.depth, 6)
    if rest or blocks_per_stage < 1:
        first = network.depth + 6
        raise ValueError(
            f"{network.depth} layers can be deepened to {first}, {first + 6}, {first + 12}, ... layers, got {depth}"
        )
    shallow = _load_model(out, network, len(data.train.classes), find_device(device)).eval()
    batch_size, weight_decay = file["settings"]["batch_size"], file["settings"]["weight_decay"]
    train_batches = Batches(data.train, batch_size, 32, seed=network.seed, augment=True, device=device)
    seen_batches = Batches(take(data.train, 10_000, seed=0), min(500, len(data.train)), 32, device=device)
    test_batches = Batches(data.test, min(500, len(data.test)), 32, device=device)
    probe, _ = next(iter(Batches(data.train, min(500, len(data.train)), 32, seed=network.seed, device=device)))
    deeper = insert_identity_blocks(shallow, blocks_per_stage, probe)
    with torch.no_grad():
        before, after = (torch.cat([model(images) for images, _ in test_batches]) for model in (shallow, deeper))
    difference, largest = (after - before).abs().max(), before.abs().max()
    added = count(blocks_per_stage, "identity block")
    print(f"{network} with {added} at the end of each stage has {depth} layers")
    print(f"largest difference between their logits: {difference:.1e} (largest logit: {largest:.1f})")

    def print_errors(what: str, model: torch.nn.Module) -> None:
        seen, unseen = evaluate(model, seen_batches), evaluate(model, test_batches)
        print(f"{what}: training error {1 - seen.accuracy:.2%}, test error {1 - unseen.accuracy:.2%}", flush=True)

    print_errors(f"{network.depth} layers", shallow)
    print_errors(f"{depth} layers, by construction", deeper)
    optimizer = torch.optim.SGD(deeper.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=weight_decay, fused=True)
    for epoch in train(deeper, train_batches, test_batches, optimizer, epochs):
        print_errors(f"{depth} layers, after epoch {epoch.number} at learning rate {lr:g}", deeper)
    from_scratch = dataclasses.replace(network, depth=depth)
    if network_path(out, from_scratch).exists():
        model = _load_model(out, from_scratch, len(data.train.classes), probe.device)
        print_errors(f"{depth} layers, trained from scratch", model)
