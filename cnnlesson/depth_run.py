"""The depth experiment from a shell: it trains what is missing, keeps every network, and writes tables and figures."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from cnnlesson import reference
from cnnlesson.data import TrainTest
from cnnlesson.data.batches import find_device
from cnnlesson.depth import Network, Recipe, depth_experiment


def run_depth(
    data: TrainTest,
    name: str,
    networks: Sequence[Network],
    recipe: Recipe,
    out: Path,
    command: str,
    device: str | None = None,
) -> None:
    """Train each of `networks`, and write what they did into the folder `out`.

    It gets a file a network (NETWORK.pt: its weights, its curves and how they were made), the tables depth.csv and
    gradients.csv, each with its record as `cnnlesson.reference` describes it, and the figures. A network whose
    file is there already is not trained again, so several processes can share the folder and the work.

    Args:
        data: images of 32×32 pixels; `name` says in the record which.
        command: what was typed, for the record.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.asdict(recipe) | {"images_sha256": reference.images_digest(*data)}
    circumstances = reference.circumstances(find_device(device))
    for network in networks:
        if load_network(out, network, settings) is None:
            train_network(data, network, recipe, out, {"settings": settings, "circumstances": circumstances}, device)
    files = {network: load_network(out, network, settings) for network in networks}
    made = {
        "command": command,
        "data": f"{name}: {data.train}, {data.test}",
        "seeds": sorted({network.seed for network in networks}),
        **settings,
        "networks": {str(network): file["circumstances"] for network, file in files.items()},
    }
    for table_name in ("depth", "gradients"):
        rows = [dataclasses.asdict(network) | row for network, file in files.items() for row in file[table_name]]
        reference.save(table_name, pd.DataFrame(rows), made, out)


def train_network(data: TrainTest, network: Network, recipe: Recipe, out: Path, made: dict, device: str | None) -> None:
    """Train one network, print a line an epoch, and save it when it is trained."""
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
    path = network_path(out, network)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    weights = {name: tensor.cpu() for name, tensor in epoch.model.state_dict().items()}
    torch.save(made | {"depth": depth, "gradients": gradients, "weights": weights}, unfinished)
    unfinished.replace(path)


def load_network(out: Path, network: Network, settings: dict) -> dict | None:
    """What `train_network` saved, or None where it has not.

    Raises:
        ValueError: the network was trained with other settings.
    """
    path = network_path(out, network)
    if not path.exists():
        return None
    file = torch.load(path, weights_only=True)
    if file["settings"] != settings:
        different = [name for name in settings if file["settings"][name] != settings[name]]
        raise ValueError(
            f"{path} was trained with another {', '.join(different)}: name another folder with --out, or delete it"
        )
    return file


def network_path(out: Path, network: Network) -> Path:
    return out / f"{network}.pt"
