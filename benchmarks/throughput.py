"""Images per second of a whole training epoch: this package, the alternatives, and the ceiling of the machine.

    make bench ARCHIVE=data/tiny-imagenet-200.zip

Every way trains the same networks on the same images using SGD with momentum, and is timed from the end of the first
epoch to the end of the second. Each way runs in a separate process. They take turns, in reverse order in every second
round. `ceiling` repeats this package's training step on one batch that is already on the device, in the same process as
`cnnlesson`. The functions below describe the others.
"""

import argparse
import contextlib
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson import training
from cnnlesson.data import Batches, ImageSet, tiny_imagenet
from cnnlesson.data.batches import CHANNEL_MEAN, CHANNEL_STD
from cnnlesson.data.files import Files
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.plots.figures import blank, label_ends, save_figure
from cnnlesson.reference import circumstances
from cnnlesson.runtime import device as runtime_device
from cnnlesson.runtime.device import describe, find_device
from cnnlesson.runtime.memory import reuse_freed_memory

NETWORKS = {"alexnet": (lambda: AlexNet(200, dropout=0.5), 227), "resnet18": (lambda: resnet18(200), 64)}
BATCH_SIZES = (16, 32, 64, 256)
WORKERS = 2  # per DataLoader
SGD = {"lr": 0.001, "momentum": 0.9, "weight_decay": 5e-4}
# Per epoch, but at least four batches: enough for a few seconds.
IMAGES = {"cpu": {"alexnet": 384, "resnet18": 2048}, "cuda": {"alexnet": 16_384, "resnet18": 32_768}}
GROUPS = {  # ways that share a process
    "cnnlesson": ["cnnlesson", "ceiling"],
    "plain": ["plain"],
    "torchvision": ["torchvision"],
    "fastai": ["fastai"],
    "lightning": ["lightning"],
}


@dataclass(frozen=True)
class Job:
    """A network, and the images to train it on."""

    network: str
    batch_size: int
    archive: str
    cache: str  # folder with the decoded images
    files: str  # folder with the same images as files, one folder per class
    indices: list[int]  # of the images in the training set
    torchvision: str | None  # a checkout of torchvision's repository

    @property
    def device(self) -> torch.device:
        return find_device(None)

    @property
    def image_size(self) -> int:
        return NETWORKS[self.network][1]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return NETWORKS[self.network][0]().to(self.device)


def now(device: torch.device) -> float:
    """The time after the device has finished all pending operations."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# The ways. Each trains for two epochs, and returns the time at the end of each.


def cnnlesson(job: Job) -> list[float]:
    """This package, as the lessons use it."""
    model, batches, optimizer = _prepared(job)
    return _train_over(model, batches, optimizer)


def ceiling(job: Job) -> list[float]:
    """The same steps on one batch that is already on the device."""
    model, batches, optimizer = _prepared(job)
    return _train_over(model, [next(iter(batches))] * len(batches), optimizer)


def _prepared(job: Job) -> tuple[nn.Module, Batches, torch.optim.Optimizer]:
    train_set = tiny_imagenet(job.cache, job.archive).train[torch.tensor(job.indices)]
    return prepare(job.network, train_set, job.batch_size, fused=True)


def prepare(network: str, train_set: ImageSet, batch_size: int, **options) -> tuple:
    """A new network, its batches and its optimizer, with `options` on top of `SGD`: arguments of `train_one_epoch`."""
    make_model, image_size = NETWORKS[network]
    torch.manual_seed(0)
    batches = Batches(train_set, batch_size, image_size, seed=0, augment=True)
    model = make_model().to(batches.device, memory_format=torch.channels_last)
    return model, batches, torch.optim.SGD(model.parameters(), **SGD | options)


def _train_over(model: nn.Module, batches: Iterable, optimizer: torch.optim.Optimizer) -> list[float]:
    ends = []
    for _ in range(2):
        training.train_one_epoch(model, batches, optimizer)  # returns after the device has finished
        ends.append(time.perf_counter())
    return ends


def plain(job: Job) -> list[float]:
    """As in tutorials: ImageFolder, a DataLoader with workers, float32, `loss.item()` in every step."""
    model, loader = job.model(), _data_loader(job)
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    ends = []
    for _ in range(2):
        model.train()
        running_loss = 0.0
        for images, labels in loader:
            images, labels = images.to(job.device), labels.to(job.device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        ends.append(now(job.device))
    return ends


def _data_loader(job: Job, transform: Callable | None = None, **options) -> torch.utils.data.DataLoader:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    usual = [
        transforms.Resize((job.image_size, job.image_size)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD),
    ]
    images = ImageFolder(job.files, transform or transforms.Compose(usual))
    pin = job.device.type == "cuda"
    return torch.utils.data.DataLoader(
        images, job.batch_size, shuffle=True, num_workers=WORKERS, pin_memory=pin, **options
    )


def torchvision(job: Job) -> list[float]:
    """torchvision's references/classification: its transforms and training epoch, channels-last, with AMP on a GPU."""
    sys.path.insert(0, f"{job.torchvision}/references/classification")
    import presets
    import train as reference

    model = job.model().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    loader = _data_loader(job, presets.ClassificationPresetTrain(crop_size=job.image_size))
    amp = job.device.type == "cuda"
    scaler = torch.amp.GradScaler("cuda") if amp else None
    args = SimpleNamespace(print_freq=10**9, clip_grad_norm=None, amp=amp, channels_last=True)
    ends = []
    for epoch in range(2):
        reference.train_one_epoch(
            model, nn.CrossEntropyLoss(), optimizer, loader, job.device, epoch, args, scaler=scaler
        )
        ends.append(now(job.device))
    return ends


def fastai(job: Job) -> list[float]:
    """fastai's DataBlock and Learner. On a GPU, the batch transforms run there and training uses float16."""
    from fastai.vision import all as fast

    ends = []

    class Clock(fast.Callback):
        def after_epoch(self):
            ends.append(now(job.device))

    images = fast.DataBlock(
        blocks=(fast.ImageBlock, fast.CategoryBlock),
        get_items=fast.get_image_files,
        get_y=fast.parent_label,
        splitter=lambda paths: (range(len(paths)), []),  # all for training
        item_tfms=fast.Resize(job.image_size, method=fast.ResizeMethod.Squish),
        batch_tfms=[fast.Flip(), fast.Normalize.from_stats(CHANNEL_MEAN, CHANNEL_STD)],
    )
    data = images.dataloaders(job.files, bs=job.batch_size, num_workers=WORKERS, device=job.device)
    optimizer = fast.partial(fast.SGD, mom=SGD["momentum"])
    learner = fast.Learner(
        data, job.model(), fast.CrossEntropyLossFlat(), optimizer, SGD["lr"], wd=SGD["weight_decay"], cbs=Clock()
    )
    if job.device.type == "cuda":
        learner.to_fp16()
    with learner.no_bar(), learner.no_logging():
        learner.fit(2)
    return ends


def lightning(job: Job) -> list[float]:
    """Lightning's Trainer with mixed precision, and a DataLoader with persistent workers, as its docs recommend."""
    import lightning as pl

    ends = []

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = job.model()

        def training_step(self, batch, batch_idx):
            images, labels = batch
            loss = F.cross_entropy(self.model(images), labels)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.model.parameters(), **SGD)

        def on_train_epoch_end(self):
            ends.append(now(job.device))

    precision = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="gpu" if job.device.type == "cuda" else "cpu",
        devices=1,
        precision=precision[runtime_device.training_dtype(job.device)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), _data_loader(job, persistent_workers=True))
    return ends


# The measurement.


def main() -> None:
    if len(sys.argv) == 2 and sys.argv[1] == "--measure":
        measure(**json.load(sys.stdin))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", required=True, help="a zip file with TinyImageNet's layout")
    parser.add_argument("--out", required=True, type=Path, help="folder for throughput.json, .md and .png")
    parser.add_argument("--ways", nargs="+", default=list(GROUPS), choices=GROUPS)
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batch-size", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--images", type=int, help="per epoch (enough for a few seconds)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--torchvision", help="a checkout of github.com/pytorch/vision; without it, that way is skipped"
    )
    parser.add_argument("--float32", action="store_true", help="as on a CPU without bfloat16")
    options = parser.parse_args()
    device = find_device(None)
    names = [name for name in options.ways if is_here(name, options.torchvision)]
    for name in options.ways:
        if name not in names:
            print(f"{name} is not installed: skipped")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            tiny_imagenet(f"{folder}/cache", options.archive)
        except (OSError, ValueError) as error:
            sys.exit(str(error))
        for network in options.network:
            jobs = [plan(network, batch_size, folder, options) for batch_size in options.batch_size]
            for repeat in range(options.repeats):
                for name in names if repeat % 2 == 0 else reversed(names):
                    for found in run_group(name, jobs, options.float32):
                        rows.append({"network": network, "repeat": repeat, **found})
                        print("{network} {way} {batch_size}: {rate:.1f} images/s".format(**rows[-1]), flush=True)
    write(pd.DataFrame(rows), options.out, device, " ".join(["python", *sys.argv]))


def plan(network: str, batch_size: int, folder: str, options: argparse.Namespace) -> dict:
    """The fields of a `Job`; its images are unpacked under `folder`."""
    num_images = options.images or max(IMAGES[find_device(None).type][network], 4 * batch_size)
    files = f"{folder}/{num_images}"
    return {
        "network": network,
        "batch_size": batch_size,
        "archive": options.archive,
        "cache": f"{folder}/cache",
        "files": files,
        "indices": unpack(Path(options.archive), Path(files), num_images),
        "torchvision": options.torchvision,
    }


def is_here(way: str, checkout: str | None) -> bool:
    if way == "torchvision":
        return checkout is not None and Path(checkout, "references/classification/train.py").exists()
    return way not in ("fastai", "lightning") or is_installed(way)


def is_installed(package: str) -> bool:
    try:
        version(package)
    except ModuleNotFoundError:
        return False
    return True


@functools.cache  # several networks and batch sizes train on the same images
def unpack(archive: Path, folder: Path, num_images: int) -> list[int]:
    """Write randomly chosen training images to one folder per class; return their indices in the training set."""
    with Files(archive) as files:
        names = [name for name in files.names if name.startswith("train/") and name.endswith(".JPEG")]
        if num_images > len(names):
            sys.exit(f"{archive} has {len(names)} training images, fewer than the {num_images} of --images: lower it")
        indices = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))[:num_images].tolist()
        for index in indices:
            path = folder / names[index].split("/")[1] / Path(names[index]).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files.read(names[index]))
    return indices


def run_group(name: str, jobs: list[dict], float32: bool) -> list[dict]:
    """The results of the ways that share a process."""
    order = json.dumps({"ways": GROUPS[name], "jobs": jobs, "float32": float32})
    command = [sys.executable, "-W", "ignore", __file__, "--measure"]
    result = subprocess.run(command, input=order, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{name} failed: see above")
    return json.loads(result.stdout.splitlines()[-1])


def measure(ways: list[str], jobs: list[dict], float32: bool) -> None:
    """Print one line of JSON with the results of each way at each batch size; runs in a fresh process."""
    if "cnnlesson" in ways:
        reuse_freed_memory()  # as in the lessons; the alternatives do not have it
    if float32:
        runtime_device.training_dtype = lambda device: torch.float32
    found = []
    # Keep what the libraries print out of the JSON.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        for job in jobs:
            one = Job(**job)
            for way in ways:
                first, second = globals()[way](one)
                rate = len(one.indices) / (second - first)
                found.append({"way": way, "batch_size": one.batch_size, "images": len(one.indices), "rate": rate})
    print(json.dumps(found))


def write(table: pd.DataFrame, out: Path, device: torch.device, command: str) -> None:
    """Write the medians and ranges as a table, the figure, and all measurements with their circumstances as JSON."""
    out.mkdir(parents=True, exist_ok=True)
    packages = [name for name in ("numpy", "pillow", "fastai", "lightning") if is_installed(name)]
    about = {
        "command": command,
        "device": describe(device),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        **circumstances(device),
        **{name: version(name) for name in packages},
    }
    rows = table.to_dict("records")
    (out / "throughput.json").write_text(json.dumps({"about": about, "measurements": rows}, indent=1) + "\n")
    (out / "throughput.md").write_text(as_markdown(table))
    save_figure(draw(table), out / "throughput.png")
    print(as_markdown(table))
    print("\n".join(f"{name}: {value}" for name, value in about.items()))


def as_markdown(table: pd.DataFrame) -> str:
    """One row per network and batch size: the median and range of each way, and two ratios."""
    ways = list(dict.fromkeys(table["way"]))
    lines = [
        f"| network, batch size | {' | '.join(ways)} | cnnlesson / ceiling | cnnlesson / plain |",
        "| --- " * (len(ways) + 3) + "|",
    ]
    for (network, batch_size), some in table.groupby(["network", "batch_size"], sort=False):
        rates = {way: list(of_way["rate"]) for way, of_way in some.groupby("way")}
        cells = [f"{median(rates[way]):,.0f} ({min(rates[way]):,.0f} to {max(rates[way]):,.0f})" for way in ways]
        share = times = ""
        if "cnnlesson" in rates:
            # Measured right after each other in each round, so whatever slows down a round affects both.
            share = f"{median(a / b for a, b in zip(rates['cnnlesson'], rates['ceiling'], strict=True)):.2f}"
        if "cnnlesson" in rates and "plain" in rates:
            times = f"{median(rates['cnnlesson']) / median(rates['plain']):.1f}"
        lines.append(f"| {network}, {batch_size} | {' | '.join(cells)} | {share} | {times} |")
    return "\n".join(lines) + "\n"


def draw(table: pd.DataFrame):
    """Images per second by batch size: one panel per network, one line per way."""
    networks = list(dict.fromkeys(table["network"]))
    axes = blank(1, len(networks), (5.2 * len(networks), 4.2), squeeze=False)[0]
    for ax, network in zip(axes, networks, strict=True):
        some = table[table["network"] == network]
        medians = some.pivot_table("rate", "batch_size", "way", aggfunc="median", sort=False)
        for way in medians.columns:
            style = {"marker": "o"}
            if way == "ceiling":
                style = {"color": "black", "linestyle": ":"}
            elif way == "cnnlesson":
                style = {"marker": "o", "linewidth": 3}
            ax.plot(range(len(medians)), medians[way], label=way, **style)
        ax.set_xticks(range(len(medians)), medians.index)
        ax.set_ylim(bottom=0)
        ax.set_title(f"{network}, {NETWORKS[network][1]} pixels")
        ax.set_xlabel("batch size")
    axes[0].set_ylabel("images per second")
    for ax in axes:
        label_ends(ax)
    return axes[0].figure


if __name__ == "__main__":
    main()
