"""What every notebook of the lesson starts with: a description of the device, and the images."""

import os

import torch

from cnnlesson.data import TrainTest, named_images, shapes, take
from cnnlesson.runtime.device import device_name, find_device, threads, training_dtype
from cnnlesson.runtime.memory import reuse_freed_memory

# With CNNLESSON_TINY=1, all lessons use a few small images and a few steps: for tests, not for learning.
TINY = os.environ.get("CNNLESSON_TINY") == "1"


def say_device() -> torch.device:
    """Print whether a GPU is available, and how to get one; return the device that will be used."""
    device = find_device(None)
    if device.type != "cpu":
        text = f"A GPU is available: {device_name(device)}."
    else:
        reuse_freed_memory()
        text = (
            f"No GPU is available. Everything here runs on the CPU ({threads()}), but slowly, so the lesson uses fewer "
            "images.\nIn Colab, choose Runtime, Change runtime type, T4 GPU, and run the notebook again."
        )
    print(f"{text} Networks compute in {str(training_dtype(device)).removeprefix('torch.')}.")
    return device


def load_images(name: str, root: str | os.PathLike = "data") -> TrainTest:
    """The images that the form field of a lesson names.

    Args:
        name: as in `cnnlesson.data.named_images`. The environment variable CNNLESSON_DATA overrides it, and
            CNNLESSON_TINY=1 loads a few shapes instead.
        root: folder for downloads and decoded images.
    """
    if TINY:
        data = shapes(seed=0)
        return TrainTest(take(data.train, 200, seed=0), take(data.test, 100, seed=0))
    return named_images(os.environ.get("CNNLESSON_DATA", name), root, seed=0)
