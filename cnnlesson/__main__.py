"""The lesson from a shell: python -m cnnlesson exercise --help"""

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
    """Run one command and return its exit code.

    0: done; 1: every trial, or a check of selftest, failed; 2: input that cannot be used; 130: stopped by Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal's code page may lack a character such as ×
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    options.typed = shlex.join(["python", "-m", "cnnlesson", *arguments])
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\nstopped; what is finished is kept, and the same command continues after it", file=sys.stderr)
        return 130
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error).__name__ != "OutOfMemoryError":  # torch's
            raise  # a mistake in the package: show where
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    # Imported here, so that --help and a mistyped option do not wait for torch.
    if options.command == "exercise":
        from cnnlesson.experiments.exercise import run_exercise

        return run_exercise(options)
    if options.command == "status":
        from cnnlesson.search import status

        print(status(options.storage))
        while options.every is not None:
            time.sleep(options.every)
            print(f"\n{status(options.storage)}")
    elif options.command == "selftest":
        from cnnlesson.experiments.selftest import run_selftest

        return run_selftest(options)
    elif options.command == "depth":
        from cnnlesson.experiments.depth import run_depth

        run_depth(options)
    elif options.command == "atlas":
        from cnnlesson.experiments.atlas import run_atlas

        run_atlas(options)
    else:
        from cnnlesson.experiments.depth import run_deepen

        run_deepen(options)
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cnnlesson", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    layout = argparse.RawDescriptionHelpFormatter  # keeps the lines of an example

    about = "train networks over learning rates, batch sizes and weight decays, and write the report"
    exercise = commands.add_parser("exercise", help=about, formatter_class=layout, epilog=EXAMPLE)
    add_exercise_options(exercise.add_argument)

    status = commands.add_parser("status", help="how far a search is that runs elsewhere")
    status.add_argument("--storage", required=True, help="its journal, such as results/alexnet.journal")
    status.add_argument("--every", metavar="SECONDS", type=POSITIVE, help="print it again and again")

    about = "train plain and residual networks of several depths on CIFAR-10"
    depth = commands.add_parser("depth", help=about, formatter_class=layout, epilog=DEPTH_EXAMPLE)
    add_depth_options(depth.add_argument)

    about = "make a plain network that 'depth' trained deeper, with identity blocks, and train it on"
    add_deepen_options(commands.add_parser("deepen", help=about).add_argument)

    about = "train the atlas, about 900 small networks: four hours on one CPU core"
    add_atlas_options(commands.add_parser("atlas", help=about).add_argument)

    selftest = commands.add_parser("selftest", help="check this machine in about two minutes, and print one page")
    add_device(selftest.add_argument)
    return parser.parse_args(arguments)


def number(kind: type, condition: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """A type for argparse: a finite number that meets a condition."""

    def convert(text: str) -> float:
        value = kind(text)
        if not (math.isfinite(value) and holds(value)):
            raise argparse.ArgumentTypeError(f"must be a finite number {condition}, got {text}")
        return value

    convert.__name__ = f"{kind.__name__} {condition}"  # what argparse calls it if the text is not a number
    return convert


COUNT = number(int, "above 0", lambda value: value > 0)
POSITIVE = number(float, "above 0", lambda value: value > 0)
NOT_NEGATIVE = number(float, "that is not below 0", lambda value: value >= 0)
PROBABILITY = number(float, "from 0 to 1", lambda value: 0 <= value <= 1)
PIXELS = number(int, "from 1 to 1024", lambda value: 1 <= value <= 1024)


def part(text: str) -> tuple[int, int]:
    index, slash, num_parts = text.partition("/")
    if not (slash and index.isdecimal() and num_parts.isdecimal() and 1 <= int(index) <= int(num_parts)):
        raise argparse.ArgumentTypeError(f"must be such as 3/8, the third of eight parts, got {text}")
    return int(index), int(num_parts)


MANY = {"required": True, "nargs": "+"}


def add_exercise_options(add: Callable) -> None:
    add("--model", **MANY, choices=("alexnet", "resnet18"), help="the networks, one after the other")
    data = (
        "'shapes' and 'easy-shapes' (generated), 'tiny-imagenet', 'eurosat', 'cifar10' (downloaded to --root), or a "
        "zip or folder with TinyImageNet's layout, or with train/<class>/ and test/<class>/"
    )
    add_common_options(add, data, "results")
    add("--lr", **MANY, metavar="RATE", type=POSITIVE, help="learning rates")
    add("--batch-size", **MANY, metavar="N", type=COUNT, help="images per batch")
    add("--weight-decay", **MANY, metavar="DECAY", type=NOT_NEGATIVE, help="weight decays; each makes a whole grid")
    decays = "more weight decays, tried only at the best point of the grid"
    add("--decay-at-best", nargs="*", default=[], metavar="DECAY", type=NOT_NEGATIVE, help=decays)
    seeds = (
        "of the initial weights and the order of the images; several train each point several times, and the first "
        "one splits the images (0)"
    )
    add("--seed", type=int, nargs="+", default=[0], help=seeds)
    add("--val-fraction", type=float, default=0.1, metavar="SHARE", help="of the images, to validate on (0.1)")
    add("--image-size", metavar="N", type=PIXELS, help="pixels (alexnet: 227, resnet18: the images' own)")
    add("--augment", action="store_true", help="flip and shift the training images at random")
    add("--dropout", type=PROBABILITY, default=0.5, metavar="P", help="alexnet's, 0 to 1 (0.5)")
    add("--small-images", action="store_true", help="resnet18's first convolution is 3×3, with no pool after it")
    add_part(add)
    add("--ray", metavar="ADDRESS", help="of a Ray cluster that runs the trials, or 'auto' (needs cnnlesson[ray])")
    add("--gpus-per-trial", metavar="N", type=POSITIVE, default=1.0, help="with --ray; 0.5: two per GPU (1)")
    add("--retry-failed", action="store_true", help="run the failed trials once more")
    add("--fit", metavar="MINUTES", type=POSITIVE, help="only print how many epochs or images fit into a time")
    add("--conclusions", metavar="FILE", type=Path, help="your own conclusions for the report, a text in Markdown")


CIFAR = "'cifar10' (found under --root or downloaded), or a zip or folder with train/<class>/ and test/<class>/"


def add_depth_options(add: Callable) -> None:
    add("--depths", **MANY, metavar="N", type=COUNT, help="6n + 2, such as 20 32 44 56 110")
    add("--batch-size", required=True, metavar="N", type=COUNT, help="images per batch (the paper: 128)")
    add("--lr", required=True, metavar="RATE", type=POSITIVE, help="the highest learning rate (the paper: 0.1)")
    add("--weight-decay", required=True, metavar="DECAY", type=NOT_NEGATIVE, help="(the paper: 0.0001)")
    seeds = "of the initial weights; with two, each network is trained twice"
    add("--seeds", **MANY, metavar="N", type=int, help=seeds)
    kinds = ("plain", "residual")
    add("--kinds", nargs="+", choices=kinds, default=kinds, help="(both); one process per kind can share --out")
    add("--name", help="what record and figures call the images (what --data names)")
    add_common_options(add, CIFAR, "results/depth")


def add_atlas_options(add: Callable) -> None:
    add("--data", default="cifar10", help=f"{CIFAR} (cifar10)")
    add_folders(add, "results/atlas")
    add_part(add)


def add_deepen_options(add: Callable) -> None:
    add("--depth", required=True, metavar="N", type=COUNT, help="of the trained network")
    add("--to", required=True, metavar="N", type=COUNT, help="the number of layers it should have")
    add("--seed", required=True, metavar="N", type=int, help="the seed it was trained with")
    add("--lr", required=True, metavar="RATE", type=POSITIVE, help="the learning rate, a low one")
    add_common_options(add, CIFAR, "results/depth")


def add_common_options(add: Callable, data: str, out: str) -> None:
    add("--data", required=True, help=data)
    add("--epochs", required=True, metavar="N", type=COUNT, help="passes over the training images")
    add("--images", metavar="N", type=COUNT, help="use only N of the training images, the same share of each class")
    add_folders(add, out)


def add_folders(add: Callable, out: str) -> None:
    add("--out", type=Path, default=Path(out), help=f"folder for everything that is written ({out})")
    add("--root", type=Path, default=Path("data"), help="folder for downloads and decoded images (data)")
    add_device(add)


def add_part(add: Callable) -> None:
    parts = "3/8 trains every eighth point: start one process per part"
    add("--part", metavar="K/N", type=part, default=(1, 1), help=parts)
    add("--forecast", action="store_true", help="only print how long it will take, and how much memory")


def add_device(add: Callable) -> None:
    add("--device", help="cpu, cuda, cuda:1 or mps (the GPU if there is one)")


if __name__ == "__main__":
    sys.exit(main())
