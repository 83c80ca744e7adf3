"""The lesson from a shell: python -m cnnlesson exercise --help"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

EXAMPLE = """\
example:
  python -m cnnlesson exercise --model resnet18 --data shapes --images 1000 --epochs 3 \\
      --lr 0.1 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 --decay-at-best 0 0.05
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 for input that cannot be used, 130 stopped by Ctrl-C."""
    options = parse(arguments)
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
        print("\nstopped; finished trials are kept, and the same command goes on after them", file=sys.stderr)
        return 130
    return 0


def fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cnnlesson", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    exercise = commands.add_parser(
        "exercise",
        help="train a network over learning rates, batch sizes and weight decays",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLE,
    )
    exercise.set_defaults(command=run_exercise)
    add = exercise.add_argument
    add("--model", required=True, choices=("alexnet", "resnet18"), help="the network")
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
        help="more weight decays, for the best point of the grid alone",
    )
    add("--out", type=Path, default=Path("results"), help="folder for results.csv and the figures (results)")
    add("--images", metavar="N", type=positive(int), help="use only so many images, the same share of each class")
    add("--val-fraction", type=float, default=0.1, metavar="SHARE", help="of the images, to validate on (0.1)")
    add("--image-size", metavar="N", type=positive(int), help="pixels (alexnet: 227, resnet18: the images' own)")
    add("--augment", action="store_true", help="flip and shift the training images at random")
    add("--dropout", type=float, default=0.5, metavar="P", help="alexnet's, 0 to 1 (0.5)")
    add("--small-images", action="store_true", help="resnet18's first convolution is 3×3, with no pool after it")
    add("--seed", type=int, default=0, help="of the split, the first weights and the order of the images (0)")
    add("--root", type=Path, default=Path("data"), help="folder for downloads and decoded images (data)")
    add("--device", help="cpu, cuda or cuda:1 (the GPU where there is one)")
    return parser.parse_args(arguments)


def positive(kind: type):
    def convert(text: str):
        number = kind(text)
        if not number > 0:
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return number

    convert.__name__ = f"{kind.__name__} above 0"  # what argparse calls it where the text is no number
    return convert


def not_negative(text: str) -> float:
    number = float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"must not be below 0, got {text}")
    return number


def run_exercise(options: argparse.Namespace) -> None:
    # Imported here, so that --help and a mistyped option answer at once.
    from cnnlesson.data import split
    from cnnlesson.exercise import Point, Setting
    from cnnlesson.exercise import run_exercise as run
    from cnnlesson.memory import reuse_freed_memory

    images = load_images(options.data, options.root, options.seed)
    if options.images is not None and options.images < len(images):
        kept = options.images / len(images)
        images, _ = split(images, (kept, 1 - kept), seed=options.seed)
    train_set, val_set = split(images, (1 - options.val_fraction, options.val_fraction), seed=options.seed)
    for batch_size in options.batch_size:
        if batch_size > len(train_set):
            raise ValueError(f"--batch-size {batch_size} is larger than the {len(train_set)} training images")

    own_size = 227 if options.model == "alexnet" else images.images.shape[-1]
    setting = Setting(
        model=options.model,
        data=f"{Path(options.data).stem} ({len(train_set)} + {len(val_set)} images)",
        image_size=options.image_size or own_size,
        small_images=options.small_images,
        dropout=options.dropout,
        augment=options.augment,
        epochs=options.epochs,
        seed=options.seed,
    )
    grid = [Point(*point) for point in product(options.lr, options.batch_size, options.weight_decay)]
    reuse_freed_memory()
    run(setting, train_set, val_set, grid, options.decay_at_best, options.out, options.device)


def load_images(name: str, root: Path, seed: int):
    """The training images that --data names: an ImageSet."""
    from cnnlesson.data import image_folder, shapes, tiny_imagenet
    from cnnlesson.data.files import Files

    if name == "shapes":
        return shapes(seed).train
    if name == "tiny-imagenet":
        return tiny_imagenet(root).train
    with Files(Path(name)) as files:
        is_tiny_imagenet = {"wnids.txt", "words.txt", "val/val_annotations.txt"} & set(files.names)
    return tiny_imagenet(root, archive=name).train if is_tiny_imagenet else image_folder(name).train


if __name__ == "__main__":
    sys.exit(main())
