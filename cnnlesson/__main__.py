"""The lesson from a shell: python -m cnnlesson exercise --help"""

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnlesson.data import TrainTest

EXAMPLE = """\
example:
  python -m cnnlesson exercise --model alexnet resnet18 --data shapes --images 1000 --epochs 3 \\
      --lr 0.1 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 --decay-at-best 0 0.05
"""

DEPTH_EXAMPLE = """\
example, with the paper's batch size and weight decay:
  python -m cnnlesson depth --data cifar10 --depths 20 56 --epochs 10 \\
      --batch-size 128 --lr 0.1 --weight-decay 0.0001 --seeds 0
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 for input that cannot be used, 130 stopped by Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    options.typed = shlex.join(["python", "-m", "cnnlesson", *arguments])
    try:
        options.command(options)
    except (OSError, ValueError, MemoryError) as error:
        return fail(error)
    except RuntimeError as error:
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise  # a mistake in the package: show where
        return fail(error)
    except KeyboardInterrupt:
        print("\nstopped; what is finished is kept, and the same command continues after it", file=sys.stderr)
        return 130
    return 0


def fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cnnlesson", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    exercise = commands.add_parser(
        "exercise",
        help="train networks over learning rates, batch sizes and weight decays, and write the report",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLE,
    )
    exercise.set_defaults(command=run_exercise)
    add_exercise_options(exercise.add_argument)
    status = commands.add_parser("status", help="how far a search is that runs elsewhere")
    status.set_defaults(command=show_status)
    status.add_argument("--storage", required=True, help="its journal, such as results/alexnet.journal")
    status.add_argument("--every", metavar="SECONDS", type=positive(float), help="print it again and again")
    depth = commands.add_parser(
        "depth",
        help="train plain and residual networks of several depths on CIFAR-10",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=DEPTH_EXAMPLE,
    )
    depth.set_defaults(command=run_depth)
    add_depth_options(depth.add_argument)
    deepen = commands.add_parser(
        "deepen", help="make a plain network that 'depth' trained deeper, with identity blocks, and train it on"
    )
    deepen.set_defaults(command=run_deepen)
    add_deepen_options(deepen.add_argument)
    return parser.parse_args(arguments)


def add_exercise_options(add: Callable) -> None:
    add("--model", required=True, nargs="+", choices=("alexnet", "resnet18"), help="the networks, one after the other")
    add(
        "--data",
        required=True,
        help="'shapes' (made on the spot), 'tiny-imagenet' (found under --root or downloaded), or a zip or folder "
        "with TinyImageNet's layout, or with train/<class>/ and test/<class>/",
    )
    add("--epochs", required=True, metavar="N", type=positive(int), help="passes over the training images")
    add("--lr", required=True, nargs="+", metavar="RATE", type=positive(float), help="learning rates")
    add("--batch-size", required=True, nargs="+", metavar="N", type=positive(int), help="images a batch")
    add(
        "--weight-decay",
        required=True,
        nargs="+",
        metavar="DECAY",
        type=not_negative,
        help="weight decays; each makes a whole grid",
    )
    add(
        "--decay-at-best",
        nargs="*",
        default=[],
        metavar="DECAY",
        type=not_negative,
        help="more weight decays, tried only at the best point of the grid",
    )
    add("--out", type=Path, default=Path("results"), help="folder for the trials and the report (results)")
    add(
        "--part",
        metavar="K/N",
        type=part,
        default=(1, 1),
        help="3/8 trains every eighth point: start one process per part",
    )
    add("--ray", metavar="ADDRESS", help="of a Ray cluster that runs the trials, or 'auto' (needs cnnlesson[ray])")
    add("--gpus-per-trial", metavar="N", type=positive(float), default=1.0, help="with --ray; 0.5: two per GPU (1)")
    add("--retry-failed", action="store_true", help="run the failed trials once more")
    add("--forecast", action="store_true", help="only print how long it will take, and how much memory")
    add("--fit", metavar="MINUTES", type=positive(float), help="only print how many epochs or images fit into a time")
    add("--conclusions", metavar="FILE", type=Path, help="your own words for the report, a text in Markdown")
    add("--images", metavar="N", type=positive(int), help="use only so many images, the same share of each class")
    add("--val-fraction", type=float, default=0.1, metavar="SHARE", help="of the images, to validate on (0.1)")
    add(
        "--image-size", metavar="N", type=between(1, 1024, int), help="pixels (alexnet: 227, resnet18: the images' own)"
    )
    add("--augment", action="store_true", help="flip and shift the training images at random")
    add("--dropout", type=between(0, 1, float), default=0.5, metavar="P", help="alexnet's, 0 to 1 (0.5)")
    add("--small-images", action="store_true", help="resnet18's first convolution is 3×3, with no pool after it")
    add(
        "--seed",
        type=int,
        nargs="+",
        default=[0],
        help="of the initial weights and the order of the images; several train each point several times, and the "
        "first one splits the images (0)",
    )
    add("--root", type=Path, default=Path("data"), help="folder for downloads and decoded images (data)")
    add("--device", help="cpu, cuda or cuda:1 (the GPU where there is one)")


def add_depth_options(add: Callable) -> None:
    add("--depths", required=True, nargs="+", metavar="N", type=positive(int), help="6n + 2, such as 20 32 44 56 110")
    add("--epochs", required=True, metavar="N", type=positive(int), help="passes over the training images")
    add("--batch-size", required=True, metavar="N", type=positive(int), help="images per batch (the paper: 128)")
    add("--lr", required=True, metavar="RATE", type=positive(float), help="the highest learning rate (the paper: 0.1)")
    add("--weight-decay", required=True, metavar="DECAY", type=not_negative, help="(the paper: 0.0001)")
    add(
        "--seeds",
        required=True,
        nargs="+",
        metavar="N",
        type=int,
        help="of the initial weights; with two, each network is trained twice",
    )
    add(
        "--kinds",
        nargs="+",
        choices=("plain", "residual"),
        default=("plain", "residual"),
        help="(both); two processes, one of each kind, can share --out",
    )
    add("--name", help="what record and figures call the images (what --data names)")
    add_cifar_options(add)


def add_deepen_options(add: Callable) -> None:
    add("--depth", required=True, metavar="N", type=positive(int), help="of the trained network")
    add("--to", required=True, metavar="N", type=positive(int), help="the number of layers it should have")
    add("--seed", required=True, metavar="N", type=int, help="the seed it was trained with")
    add("--epochs", required=True, metavar="N", type=positive(int), help="passes over the training images")
    add("--lr", required=True, metavar="RATE", type=positive(float), help="the learning rate, a low one")
    add_cifar_options(add)


def add_cifar_options(add: Callable) -> None:
    add(
        "--data",
        required=True,
        help="'cifar10' (found under --root or downloaded), or a zip or folder with train/<class>/ and test/<class>/",
    )
    add("--images", metavar="N", type=positive(int), help="train on only so many images, the same share of each class")
    add("--out", type=Path, default=Path("results/depth"), help="folder for networks, tables, figures (results/depth)")
    add("--root", type=Path, default=Path("data"), help="folder for downloads (data)")
    add("--device", help="cpu, cuda or cuda:1 (the GPU where there is one)")


def positive(kind: type) -> Callable[[str], float]:
    def convert(text: str):
        number = kind(text)
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"must be a finite number above 0, got {text}")
        return number

    convert.__name__ = f"{kind.__name__} above 0"  # what argparse calls it if the text is not a number
    return convert


def between(least: float, most: float, kind: type) -> Callable[[str], float]:
    def convert(text: str):
        number = kind(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}, got {text}")
        return number

    convert.__name__ = f"{kind.__name__} from {least} to {most}"
    return convert


def not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number that is not below 0, got {text}")
    return number


def part(text: str) -> tuple[int, int]:
    number, slash, num_parts = text.partition("/")
    if not (slash and number.isdecimal() and num_parts.isdecimal() and 1 <= int(number) <= int(num_parts)):
        raise argparse.ArgumentTypeError(f"must be such as 3/8, the third of eight parts, got {text}")
    return int(number), int(num_parts)


def run_exercise(options: argparse.Namespace) -> None:
    # Imported here, so that --help and a mistyped option do not wait for torch.
    from cnnlesson.data import named_images, split, take
    from cnnlesson.experiments.exercise import Images, Plan, Setting, forecast_exercise
    from cnnlesson.experiments.exercise import run_exercise as run
    from cnnlesson.runtime.memory import reuse_freed_memory

    conclusions = "Not written yet." if options.conclusions is None else options.conclusions.read_text(encoding="utf-8")
    data = named_images(options.data, options.root, options.seed[0])
    images = data.train if options.images is None else take(data.train, options.images, seed=options.seed[0])
    fractions = (1 - options.val_fraction, options.val_fraction)
    train_set, val_set = split(images, fractions, seed=options.seed[0])
    for batch_size in options.batch_size:
        if batch_size > len(train_set):
            raise ValueError(f"--batch-size {batch_size} is larger than the {len(train_set)} training images")

    own_sizes = {"alexnet": 227, "resnet18": images.images.shape[-1]}
    settings = [
        Setting(
            model=model,
            image_size=options.image_size or own_sizes[model],
            small_images=options.small_images,
            dropout=options.dropout,
            augment=options.augment,
            epochs=options.epochs,
        )
        for model in options.model
    ]
    plan = Plan(
        grid={
            "lr": options.lr,
            "batch_size": options.batch_size,
            "weight_decay": options.weight_decay,
        },
        seeds=options.seed,
        decays_at_best=options.decay_at_best,
        out=options.out,
        part=options.part,
        ray=options.ray,
        gpus_per_trial=options.gpus_per_trial,
        retry_failed=options.retry_failed,
        device=options.device,
    )
    images = Images(Path(options.data).stem, train_set, val_set, data.test)
    reuse_freed_memory()
    if options.forecast or options.fit is not None:
        forecast_exercise(settings, images, plan, options.fit)
    else:
        run(settings, images, plan, conclusions, options.typed)


def show_status(options: argparse.Namespace) -> None:
    from cnnlesson.search import status

    print(status(options.storage))
    while options.every is not None:
        time.sleep(options.every)
        print(f"\n{status(options.storage)}")


def run_depth(options: argparse.Namespace) -> None:
    from cnnlesson.experiments.depth import Recipe, networks
    from cnnlesson.experiments.depth_report import run_depth as run

    recipe = Recipe(options.epochs, options.batch_size, options.lr, options.weight_decay)
    chosen = [
        network
        for network in networks(options.depths, options.seeds)
        if ("residual" if network.residual else "plain") in options.kinds
    ]
    data = load_cifar(options)
    run(data, options.name or Path(options.data).name, chosen, recipe, options.out, options.typed, options.device)


def run_deepen(options: argparse.Namespace) -> None:
    from cnnlesson.experiments.depth import Network
    from cnnlesson.experiments.depth_report import run_deepen as run

    network = Network(options.depth, residual=False, seed=options.seed)
    run(load_cifar(options), network, options.to, options.epochs, options.lr, options.out, options.device)


def load_cifar(options: argparse.Namespace) -> "TrainTest":
    """The images that --data and --images name."""
    from cnnlesson.data import TrainTest, cifar10, image_folder, take
    from cnnlesson.runtime.memory import reuse_freed_memory

    data = cifar10(options.root) if options.data == "cifar10" else image_folder(options.data)
    if options.images is not None:
        data = TrainTest(take(data.train, options.images, seed=0), data.test)
    reuse_freed_memory()
    return data


if __name__ == "__main__":
    sys.exit(main())
