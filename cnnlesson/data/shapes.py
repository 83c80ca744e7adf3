"""Ten classes of figures and textures, generated: a data set that needs no download."""

import math
from collections.abc import Callable

import torch

from cnnlesson.data.image_set import ImageSet, TrainTest

SIZE = 64  # height and width in pixels, as in TinyImageNet
NUM_TRAIN = 5_000
NUM_TEST = 1_000
CLUTTER = 3  # small bars drawn over each image


def shapes(seed: int, easy: bool = False) -> TrainTest:
    """5,000 training and 1,000 test images of 64×64 pixels in ten balanced classes.

    The same seed returns the same images. Position, size, rotation, colours and lighting are random, and small bars
    clutter each image. So a single pixel reveals little about the class: a linear classifier on pixels does poorly,
    while a convolutional network learns the classes within minutes on a CPU.

    Args:
        seed: of everything that is random.
        easy: draw the figures upright and near the centre, on dark grounds and without clutter. A few hundred images
            are enough to learn these, so a whole grid of trainings takes minutes on a CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    chunks = [_draw_chunk(500, generator, easy) for _ in range((NUM_TRAIN + NUM_TEST) // 500)]
    images = torch.cat(chunks)  # (6000, 3, 64, 64)
    labels = torch.arange(len(images)) % len(FIGURES)
    classes = tuple(FIGURES)
    return TrainTest(
        train=ImageSet(images[:NUM_TRAIN], labels[:NUM_TRAIN], classes),
        test=ImageSet(images[NUM_TRAIN:], labels[NUM_TRAIN:], classes),
    )


def _triangle(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    sides = [u * math.cos(angle) + v * math.sin(angle) for angle in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
    return torch.stack(sides).amax(dim=0) - 0.55


def _star(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    fifth = 2 * math.pi / 5
    from_tip = ((torch.atan2(v, u) + fifth / 2) % fifth - fifth / 2).abs()
    return torch.hypot(u, v) - (1.1 - 0.7 * from_tip / (fifth / 2))


def _bar(u: torch.Tensor, v: torch.Tensor, thickness: float) -> torch.Tensor:
    return torch.maximum(u.abs() - 1, v.abs() - thickness)


def _in_disc(u: torch.Tensor, v: torch.Tensor, texture: torch.Tensor) -> torch.Tensor:
    """The part of a disc in which `texture`, a wave with about 2.2 periods per unit, is positive."""
    return torch.maximum(torch.hypot(u, v) - 1, -texture / 14)


# Each figure is a function of the position (u, v) in a frame in which it extends from about -1 to 1. It returns roughly
# the distance to the figure's edge: negative inside, positive outside.
FIGURES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "circle": lambda u, v: torch.hypot(u, v) - 0.9,
    "square": lambda u, v: torch.maximum(u.abs(), v.abs()) - 0.8,
    "triangle": _triangle,
    "star": _star,
    "cross": lambda u, v: torch.minimum(_bar(v, u, 0.3), _bar(u, v, 0.3)),
    "ring": lambda u, v: (torch.hypot(u, v) - 0.75).abs() - 0.2,
    "stripes": lambda u, v: _in_disc(u, v, torch.sin(14 * u)),
    "checks": lambda u, v: _in_disc(u, v, torch.sin(10 * u) * torch.sin(10 * v)),
    "dots": lambda u, v: _in_disc(u, v, torch.sin(14 * u) * torch.sin(14 * v) - 0.4),
    "ripples": lambda u, v: _in_disc(u, v, torch.sin(14 * torch.hypot(u, v))),
}


def _draw_chunk(num_images: int, generator: torch.Generator, easy: bool) -> torch.Tensor:
    """Image i shows figure i modulo 10: uint8 (num_images, 3, 64, 64)."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(num_images, *shape, generator=generator)

    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")  # (64, 64) each, in pixels from the centre

    def in_frame(radius: torch.Tensor, reach: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Each pixel's position in the frame of a rotated figure of `radius` pixels, up to `reach` off the centre."""
        angle = uniform(-0.2, 0.2, 1, 1) if easy else uniform(0, 2 * math.pi, 1, 1)
        right, down = x - uniform(-reach, reach, 1, 1), y - uniform(-reach, reach, 1, 1)  # (N, 64, 64)
        u = (right * angle.cos() + down * angle.sin()) / radius
        v = (down * angle.cos() - right * angle.sin()) / radius
        return u, v

    def paint(images: torch.Tensor, edge: torch.Tensor, radius: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        cover = (0.5 - edge * radius).clamp(0, 1)[:, None]  # (N, 1, 64, 64), with an edge one pixel wide
        return images + cover * (colour - images)

    background = uniform(0, 0.45 if easy else 1, 3, 1, 1)
    slope_u, _ = in_frame(radius=torch.tensor(SIZE / 2), reach=0)
    images = background + 0.15 * slope_u[:, None]  # lit from one side: (N, 3, 64, 64)

    radius = uniform(16, 26, 1, 1)
    u, v = in_frame(radius, reach=3 if easy else 8)
    edge = torch.empty(num_images, SIZE, SIZE)
    for label, figure in enumerate(FIGURES.values()):
        mine = slice(label, None, len(FIGURES))
        edge[mine] = figure(u[mine], v[mine])
    # Each channel is at least half the range away from the background's, so that the figure is visible.
    colour = (background + uniform(0.5, 0.8, 3, 1, 1) * torch.where(background < 0.5, 1, -1)).clamp(0, 1)
    images = paint(images, edge, radius, colour)

    for _ in range(0 if easy else CLUTTER):
        length = uniform(4, 10, 1, 1)
        u, v = in_frame(length, reach=SIZE / 2)
        images = paint(images, _bar(u, v, 0.2), length, uniform(0, 1, 3, 1, 1))

    images = images + 0.03 * torch.randn(images.shape, generator=generator)
    return (255 * images.clamp(0, 1)).to(torch.uint8)
