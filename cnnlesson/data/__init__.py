"""Images for training: data sets, splits, a search for leaks, and batches."""

from cnnlesson.data.batches import Batches
from cnnlesson.data.image_set import ImageSet, TrainTest
from cnnlesson.data.leaks import find_leaks
from cnnlesson.data.sets import cifar10, eurosat, image_folder, named_images
from cnnlesson.data.shapes import shapes
from cnnlesson.data.splits import k_folds, split, take
from cnnlesson.data.tiny_imagenet import tiny_imagenet

__all__ = [
    "Batches",
    "ImageSet",
    "TrainTest",
    "cifar10",
    "eurosat",
    "find_leaks",
    "image_folder",
    "k_folds",
    "named_images",
    "shapes",
    "split",
    "take",
    "tiny_imagenet",
]
