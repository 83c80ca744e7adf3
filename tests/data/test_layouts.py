"""Data sets in the layouts that people have on their disks."""

import io
import os
import shutil
import struct
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from small_files import jpeg, tiny_files, write_zip

from cnnlesson.data import TrainTest, image_folder, named_images, tiny_imagenet
from cnnlesson.data.files import Files

STRAY = b"\0\5\x16\7 not an image"


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def pairs(data: TrainTest) -> list[list[tuple[str, bytes]]]:
    """(class, pixels) of all images of each part, in an order that does not depend on their names."""
    return [
        sorted(
            (part.classes[label], image.numpy().tobytes())
            for image, label in zip(part.images, part.labels, strict=True)
        )
        for part in data
    ]


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("official")
    return pairs(tiny_imagenet(folder, archive=write_folder(folder / "tiny", tiny_files())))


def renamed(ending: str) -> dict[str, bytes]:
    files = {name.replace(".JPEG", ending): content for name, content in tiny_files().items()}
    notes = "val/val_annotations.txt"
    return {**files, notes: files[notes].replace(b".JPEG", ending.encode())}


def sorted_val(below: str, annotated: bool) -> dict[str, bytes]:
    """Validation images in class folders."""
    files = tiny_files()
    for line in files["val/val_annotations.txt"].decode().splitlines():
        name, wordnet_id = line.split("\t")[:2]
        files[f"val/{wordnet_id}/{below}{name}"] = files.pop(f"val/images/{name}")
    if not annotated:
        del files["val/val_annotations.txt"]
    return files


def edited(edit) -> dict[str, bytes]:
    return {name: edit(text) if name.endswith(".txt") else text for name, text in tiny_files().items()}


def stray_everywhere() -> dict[str, bytes]:
    files = tiny_files()
    folders = {name.rpartition("/")[0] for name in files}
    names = (".DS_Store", "._n01_0.JPEG", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/n01_0-checkpoint.JPEG")
    return files | {f"{folder}/{name}".removeprefix("/"): STRAY for folder in folders for name in names}


def below(top: str, **beside: bytes) -> dict[str, bytes]:
    return {f"{top}/{name}": content for name, content in tiny_files().items()} | beside


LAYOUTS = {
    "no top folder": tiny_files(),
    "nested twice": below("tiny-imagenet-200/tiny-imagenet-200"),
    "in a folder called train": below("train/tiny-imagenet-200"),
    "a file beside the top": below("tiny-imagenet-200", **{"README.txt": b"hello", ".DS_Store": STRAY}),
    "the archive of a Mac": below("tiny", **{f"__MACOSX/tiny/._{name}": STRAY for name in tiny_files()}),
    "stray files": stray_everywhere(),
    ".jpg": renamed(".jpg"),
    ".jpeg": renamed(".jpeg"),
    ".PNG": renamed(".PNG"),
    "no images folder": {name.replace("images/n", "n"): content for name, content in tiny_files().items()},
    "val in class folders": sorted_val("", annotated=True),
    "val in class folders with images": sorted_val("images/", annotated=True),
    "val in class folders without annotations": sorted_val("", annotated=False),
    "identifiers that are words": {
        name.replace("n0", "cat"): text.replace(b"n0", b"cat") if name.endswith(".txt") else text
        for name, text in sorted_val("", annotated=False).items()
    },
    "Windows lines": edited(lambda text: text.replace(b"\n", b"\r\n")),
    "blank last lines": edited(lambda text: text + b"\n  \n"),
    "byte order mark": edited(lambda text: b"\xef\xbb\xbf" + text),
}


@pytest.mark.parametrize("write", [partial(write_zip, top=""), write_folder], ids=["zip", "folder"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiny_imagenet_is_found_by_what_it_holds(layout, write, official, tmp_path):
    path = write(tmp_path / "x.zip", LAYOUTS[layout])
    assert pairs(named_images(path, tmp_path / "root", seed=0)) == official


def test_names_with_backslashes_are_read(official, tmp_path):
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for name, content in tiny_files().items():
            info = zipfile.ZipInfo()
            info.filename = "tiny-imagenet-200\\" + name.replace("/", "\\")
            archive.writestr(info, content)
    assert pairs(tiny_imagenet(tmp_path, archive=tmp_path / "windows.zip")) == official


@pytest.mark.parametrize("name", ["..\\evil.txt", "\\evil.txt", "C:\\evil.txt"])
def test_backslashes_lead_nowhere_else(name, tmp_path):
    info = zipfile.ZipInfo()
    info.filename = name
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(info, b"")
    with pytest.raises(ValueError, match="leads out of the archive: do not use it"):
        Files(tmp_path / "evil.zip")


def test_without_words_the_classes_are_the_identifiers(make_archive, tmp_path):
    data = tiny_imagenet(tmp_path, archive=make_archive({"words.txt": None}))
    assert data.train.classes == ("n01", "n02", "n03")


def test_words_in_latin_1_are_read(make_archive, tmp_path):
    words = "n01\tpoissón rouge\nn02\ttoad\nn03\tlifeboat\n".encode("latin-1")
    data = tiny_imagenet(tmp_path, archive=make_archive({"words.txt": words}))
    assert data.train.classes == ("poissón rouge", "toad", "lifeboat")


@pytest.mark.parametrize(
    "place", ["", "tiny-imagenet-200", "tiny-imagenet-200/tiny-imagenet-200", "tiny-imagenet-200 (1)", "a zip"]
)
def test_under_root_it_is_found_wherever_it_was_saved_or_unpacked(place, official, tmp_path):
    if place == "a zip":
        write_zip(tmp_path / "tiny-imagenet-200 (1).zip", tiny_files())
    else:
        write_folder(tmp_path / place, tiny_files())
    assert pairs(tiny_imagenet(tmp_path)) == pairs(tiny_imagenet(tmp_path)) == official


def test_an_empty_folder_does_not_hide_the_archive(official, tmp_path):
    (tmp_path / "tiny-imagenet-200").mkdir()
    write_zip(tmp_path / "tiny-imagenet-200.zip", tiny_files())
    assert pairs(tiny_imagenet(tmp_path)) == official


def relabel(folder):
    path = folder / "val/val_annotations.txt"
    path.write_text(path.read_text().replace("n01", "n0X").replace("n02", "n01").replace("n0X", "n02"))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "train/n01/images/n01_99.JPEG").write_bytes(jpeg(np.random.default_rng(9))),
        lambda folder: (folder / "train/n01/images/n01_0.JPEG").write_bytes(jpeg(np.random.default_rng(9))),
        lambda folder: (folder / "train/n02/images/n02_0.JPEG").unlink(),
        relabel,
    ],
    ids=["added", "overwritten", "deleted", "relabelled"],
)
def test_the_cache_notices_a_change_in_an_unpacked_folder(change, tmp_path):
    folder = write_folder(tmp_path / "tiny", tiny_files())
    before = pairs(tiny_imagenet(tmp_path, archive=folder))
    change(folder)
    after = pairs(tiny_imagenet(tmp_path, archive=folder))
    assert after != before
    assert after == pairs(tiny_imagenet(tmp_path / "other", archive=folder))


def test_an_unpacked_folder_is_decoded_once(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "tiny", tiny_files())
    before = pairs(tiny_imagenet(tmp_path, archive=folder))
    monkeypatch.setattr(Files, "read", None)
    assert pairs(tiny_imagenet(tmp_path, archive=folder)) == before


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(official, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    archive = write_zip(tmp_path / "x.zip", tiny_files())
    assert pairs(tiny_imagenet(tmp_path / "file" / "root", archive=archive)) == official
    said = capsys.readouterr().out
    assert "x.pt could not be written (" in said
    assert "so the next run decodes the images again: check that its folder still exists, or use another folder" in said


def test_a_mistyped_path_does_not_get_the_cache_of_another_archive(make_archive, tmp_path):
    tiny_imagenet(tmp_path / "root", archive=make_archive())
    with pytest.raises(FileNotFoundError, match=r"typo/tiny-imagenet-3\.zip does not exist"):
        tiny_imagenet(tmp_path / "root", archive=tmp_path / "typo/tiny-imagenet-3.zip")


def test_a_tilde_is_the_home_folder(official, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "data").mkdir()
    write_zip(tmp_path / "data/tiny-imagenet-200.zip", tiny_files())
    assert pairs(tiny_imagenet("~/data")) == official
    assert pairs(tiny_imagenet("~/other", archive="~/data/tiny-imagenet-200.zip")) == official
    assert pairs(named_images("~/data/tiny-imagenet-200.zip", "~/third", seed=0)) == official
    write_folder(tmp_path / "pets", pets())
    assert len(image_folder("~/pets").train) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "other", "pets", "third"]


def png(size=(8, 8), mode="RGB", colour: object = (200, 100, 50), **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG", **options)
    return file.getvalue()


def pets(train="train", test="test", image=png) -> dict[str, bytes]:
    return {
        f"{part}/{name}/{number}.png": image()
        for part in (train, test)
        for name in ("cat", "dog")
        for number in range(2)
    }


PETS = {
    "train and test": pets(),
    "train and val": pets(test="val"),
    "test without labels": pets(test="val") | {"test/images/1.png": png(), "test/2.png": png()},
    "images folder": {name.replace("/0", "/images/0"): content for name, content in pets().items()},
    "nested": {f"a/b/{name}": content for name, content in pets().items()},
    "capitals": pets("Train", "Test"),
    "stray files": pets() | {"train/.ipynb_checkpoints/1.png": STRAY, "test/dog/._1.png": STRAY, ".git/x/1.png": STRAY},
    "a class called train": {name.replace("dog", "train"): content for name, content in pets().items()},
}


@pytest.mark.parametrize("write", [partial(write_zip, top=""), write_folder], ids=["zip", "folder"])
@pytest.mark.parametrize("layout", PETS)
def test_an_image_folder_is_found_by_what_it_holds(layout, write, tmp_path):
    data = image_folder(write(tmp_path / "pets.zip", PETS[layout]))
    assert data.train.classes == ("cat", "train" if layout == "a class called train" else "dog")
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 0, 1, 1]


def test_if_there_are_three_parts_the_unused_one_is_named(tmp_path, capsys):
    data = image_folder(write_folder(tmp_path, pets() | pets(test="val", image=lambda: png(colour=(0, 0, 0)))))
    assert len(data.test) == 4 and data.test.images.max() == 200
    assert "test/ is the test set; val/ is not used" in capsys.readouterr().out


def test_two_data_sets_in_one_folder_are_not_mixed_up(tmp_path):
    write_folder(tmp_path / "a", pets())
    write_folder(tmp_path / "b", pets(test="val"))
    with pytest.raises(ValueError, match="holds several data sets, in a/ and b/: name one of them"):
        image_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="this system has no symbolic links")
def test_symbolic_links_are_followed_but_not_in_circles(tmp_path):
    write_folder(tmp_path / "disk", pets())
    root = tmp_path / "root"
    (root / "train").mkdir(parents=True)
    (root / "train/cat").symlink_to(tmp_path / "disk/train/cat")
    (root / "train/dog").symlink_to(tmp_path / "disk/train/dog")
    (root / "test").symlink_to(tmp_path / "disk/test")
    (root / "train/cat/up").symlink_to(root)  # written to the disk's folder
    (root / "broken").symlink_to(tmp_path / "nowhere")
    data = image_folder(root)
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 0, 1, 1]


def test_images_of_several_sizes_are_resized_and_cropped(tmp_path, capsys):
    """White images with a black right half become white and black halves, whatever their shape was."""
    files = pets()
    sizes = [(64, 64), (128, 64), (64, 96), (20, 10), (30, 30), (9, 30), (4, 4), (50, 40)]
    for name, (width, height) in zip(sorted(files), sizes, strict=True):
        image = Image.new("RGB", (width, height), (255, 255, 255))
        image.paste((0, 0, 0), (width // 2, 0, width, height))
        file = io.BytesIO()
        image.save(file, "PNG")
        files[name] = file.getvalue()
    path = write_folder(tmp_path / "sizes", files)
    data = image_folder(path, size=16)
    assert data.train.images.shape == data.test.images.shape == (4, 3, 16, 16)
    for part in data:
        assert (part.images[..., :6] > 240).all() and (part.images[..., 10:] < 15).all()
    assert "have several sizes: each is resized and cropped to 16×16" in capsys.readouterr().out
    assert named_images(path, tmp_path, seed=0).train.images.shape == (4, 3, 64, 64)
    with pytest.raises(ValueError, match=r"first, 30×30 pixels, but train/cat/1.png has 30×9: resize it, or give"):
        image_folder(path)


@pytest.mark.parametrize("size", [(9, 7), (8, 9), (6, 6), (7, 5), (9, 6)])
def test_the_first_image_of_another_size_is_named_with_both_sizes(size, tmp_path):
    """Sizes are height × width, in the message and here."""
    files = pets(image=lambda: png((6, 8))) | {"train/dog/1.png": png(size[::-1])}
    with pytest.raises(ValueError) as refused:
        image_folder(write_folder(tmp_path, files))
    assert f"the first, 8×6 pixels, but train/dog/1.png has {size[0]}×{size[1]}: resize it" in str(refused.value)


def test_images_of_one_size_keep_it(tmp_path):
    assert image_folder(write_folder(tmp_path, pets()), size=64).train.images.shape == (4, 3, 8, 8)


def test_images_of_16_bits_are_scaled(tmp_path):
    deep = Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))
    file = io.BytesIO()
    deep.save(file, "PNG")
    data = image_folder(write_folder(tmp_path, pets(image=file.getvalue)))
    assert (data.train.images == round(40_000 / 65_535 * 255)).all()


def test_photographs_are_turned_as_the_camera_noted(tmp_path):
    image = Image.new("RGB", (8, 8))
    image.putpixel((0, 0), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    data = image_folder(write_folder(tmp_path, pets(image=file.getvalue)))
    assert (data.train.images[0, 0] > 200).nonzero().tolist() == [[0, 7]]


def as_tar(path, files):
    write_folder(path.parent / "files", files)
    return path.__class__(shutil.make_archive(str(path), "gztar", path.parent / "files"))


def as_bytes(content: bytes):
    def write(path, files):
        path.write_bytes(content)
        return path

    return write


def with_header(value: int, local: int, central: int):
    """A zip archive with `value` in a field of each file's two headers, at these offsets."""

    def write(path, files):
        content = bytearray(write_zip(path, files).read_bytes())
        for signature, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
            at = content.find(signature)
            while at >= 0:
                content[at + offset : at + offset + 2] = struct.pack("<H", value)
                at = content.find(signature, at + 1)
        path.write_bytes(content)
        return path

    return write


def zip_of_zip(path, files):
    inner = write_zip(path.with_name("inner.zip"), files).read_bytes()
    return write_zip(path, {"tiny-imagenet-200.zip": inner}, top="")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (as_tar, r"is not a complete zip archive: it is a gzip archive \(tar.gz\), so unpack it"),
        (as_bytes(b"PAR1\0\0\0PAR1"), r"is not a complete zip archive: it is a Parquet table"),
        (as_bytes(b"\n<!DOCTYPE html>"), r"is not a complete zip archive: it is a web page \(HTML\), so delete it"),
        (as_bytes(b""), r"\(0 bytes\) is not a complete zip archive: delete it and download it again"),
        (with_header(9, 8, 10), r"is compressed with a method that Python cannot read \(Deflate64\): unpack it"),
        (with_header(1, 6, 8), r"is protected by a password: unpack it and use the folder"),
        (zip_of_zip, r"has no images in train/<class>/; it holds tiny-imagenet-200.zip"),
    ],
    ids=["tar.gz", "parquet", "html", "empty", "deflate64", "password", "zip of zip"],
)
def test_another_format_is_named_as_what_it_is(write, message, tmp_path):
    path = write(tmp_path / "x", tiny_files())
    with pytest.raises(ValueError, match=message) as caught:
        named_images(path, tmp_path / "root", seed=0)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_an_address_is_not_downloaded(tmp_path):
    with pytest.raises(ValueError, match="is an address: download the file, and name its path"):
        named_images("https://example.org/tiny.zip", tmp_path, seed=0)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("tiny_imagenet", "did you mean tiny-imagenet?"),
        ("Tiny-ImageNet", "did you mean tiny-imagenet?"),
        ("imagenet", "did you mean tiny-imagenet?"),
        ("EuroSat", "did you mean eurosat?"),
        ("cifar-10", "did you mean cifar10?"),
        ("shape", "did you mean shapes?"),
        ("nowhere.zip", "check the spelling, and the folder you are in"),
    ],
)
def test_for_a_misspelt_name_the_known_one_is_suggested(name, advice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        named_images(name, tmp_path, seed=0)
    assert str(caught.value) == f"{name} does not exist: {advice}"


@pytest.mark.parametrize("text", ["'{}'", '"{}"', " {} "])
def test_a_copied_path_may_have_quotes_or_spaces(text, tmp_path):
    path = write_folder(tmp_path / "pets", pets())
    assert torch.equal(named_images(text.format(path), tmp_path, seed=0).train.labels, image_folder(path).train.labels)
