"""Images with their labels, held as one tensor each."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N labelled images of one size.

    Attributes:
        images: uint8 (N, 3, H, W), red, green and blue from 0 to 255.
        labels: int64 (N,), each an index into `classes`.
        classes: a readable name for each class.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4 or self.images.shape[1] != 3:
            raise ValueError(
                f"images must be uint8 of shape (N, 3, H, W), got {self.images.dtype} of {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must be int64 of shape ({len(self.images)},), one for each image, "
                f"got {self.labels.dtype} of {tuple(self.labels.shape)}"
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(
                f"labels must be from 0 to {len(self.classes) - 1}, one for each of the {len(self.classes)} classes, "
                f"got {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: torch.Tensor) -> "ImageSet":
        """A new set with copies of the images at `indices`, an integer or boolean tensor."""
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def __repr__(self) -> str:
        height, width = self.images.shape[2:]
        return f"ImageSet({len(self):,} images of {height}×{width}, {len(self.classes)} classes)"

    def fingerprint(self) -> str:
        """A digest of all labels and of up to 500 evenly spaced images, to detect that a set has changed."""
        every = max(1, -(-len(self) // 500))
        digest = hashlib.sha256(self.labels.cpu().numpy().tobytes())
        digest.update(self.images[::every].cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def to(self, device: torch.device | str) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes)


class TrainTest(NamedTuple):
    """A data set with its official split: `train` to learn from, `test` for the final evaluation."""

    train: ImageSet
    test: ImageSet
