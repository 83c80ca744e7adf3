"""Small image files, and a TinyImageNet with three classes."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

WORDNET_IDS = ("n03", "n01", "n02")  # unordered, as in the official wnids.txt
TRAIN_IMAGES = 12  # per class
VAL_IMAGES = 4  # per class


def jpeg(random: np.random.Generator, size: int = 64, mode: str = "RGB") -> bytes:
    """A JPEG of smooth random colours."""
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def tiny_files() -> dict[str, bytes]:
    """The files of a TinyImageNet with three classes, in the official layout; some images are grayscale."""
    random = np.random.default_rng(0)
    files = {
        "wnids.txt": "".join(f"{wordnet_id}\n" for wordnet_id in WORDNET_IDS).encode(),
        "words.txt": b"n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\ttoad\nn03\tlifeboat, rescue boat\n",
    }
    for wordnet_id in WORDNET_IDS:
        files[f"train/{wordnet_id}/{wordnet_id}_boxes.txt"] = b"boxes\n"
        for number in range(TRAIN_IMAGES):
            mode = "L" if number == 1 else "RGB"
            files[f"train/{wordnet_id}/images/{wordnet_id}_{number}.JPEG"] = jpeg(random, mode=mode)
    annotations = []
    for number in range(VAL_IMAGES * len(WORDNET_IDS)):
        name = f"val_{number}.JPEG"
        files[f"val/images/{name}"] = jpeg(random)
        annotations.append(f"{name}\t{WORDNET_IDS[number % len(WORDNET_IDS)]}\t0\t0\t63\t63\n")
    files["val/val_annotations.txt"] = "".join(annotations).encode()
    files["test/images/test_0.JPEG"] = jpeg(random)
    return files


def write_zip(path: Path, files: dict[str, bytes], top: str = "tiny-imagenet-3/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(top + name, content)
    return path
