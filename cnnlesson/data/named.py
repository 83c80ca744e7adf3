"""Images by the name that a form field or a command line gives."""

import os
from pathlib import Path

from cnnlesson.data.files import Files
from cnnlesson.data.folder import image_folder
from cnnlesson.data.image_set import TrainTest
from cnnlesson.data.shapes import shapes
from cnnlesson.data.tiny_imagenet import tiny_imagenet


def named_images(name: str, root: str | os.PathLike, seed: int) -> TrainTest:
    """The images called `name`: "shapes", drawn on the spot with `seed`; "tiny-imagenet", found under `root` or
    downloaded to there; or the path of a zip or folder with TinyImageNet's layout, or train/<class>/, test/<class>/.

    Raises:
        FileNotFoundError, ConnectionError, OSError, ValueError: as `tiny_imagenet` and `image_folder` do.
    """
    if name == "shapes":
        return shapes(seed)
    if name == "tiny-imagenet":
        return tiny_imagenet(root)
    with Files(Path(name)) as files:
        is_tiny_imagenet = {"wnids.txt", "words.txt", "val/val_annotations.txt"} & set(files.names)
    return tiny_imagenet(root, archive=name) if is_tiny_imagenet else image_folder(name)
