"""What every notebook of the lesson starts with, the device in words and the images; and places in its output."""

import os

import torch

from cnnlesson.data import TrainTest, named_images, shapes, take
from cnnlesson.runtime.device import threads, training_dtype
from cnnlesson.runtime.memory import reuse_freed_memory

# CNNLESSON_TINY=1 makes all lessons use few small images and few steps: for tests, not for learning.
TINY = os.environ.get("CNNLESSON_TINY") == "1"


def say_device() -> torch.device:
    """Print in words whether a GPU is on, and what to do where none is; return the device that will be used."""
    if torch.cuda.is_available():
        device = torch.device("cuda")
        words = f"A GPU is on: {torch.cuda.get_device_name()}."
    else:
        reuse_freed_memory()
        device = torch.device("cpu")
        words = (
            f"No GPU is on. Everything here works on this processor ({threads()}), but "
            "slowly, so the lesson uses fewer images.\n"
            "In Colab choose Runtime, Change runtime type, T4 GPU, and run again."
        )
    print(f"{words} Networks compute in {str(training_dtype(device)).removeprefix('torch.')}.")
    return device


def load_images(name: str, root: str | os.PathLike = "data") -> TrainTest:
    """The images that a lesson's form field names.

    Args:
        name: as `cnnlesson.data.named_images` takes it. The environment variable CNNLESSON_DATA takes its place
            where it is set, and CNNLESSON_TINY=1 takes a few shapes.
        root: folder for downloads and decoded images.
    """
    if TINY:
        data = shapes(seed=0)
        return TrainTest(take(data.train, 200, seed=0), take(data.test, 100, seed=0))
    return named_images(os.environ.get("CNNLESSON_DATA", name), root, seed=0)
