import io
import os
import subprocess
import sys
import zipfile

import pytest
import torch
import torchvision
from PIL import Image
from small_files import TRAIN_IMAGES, VAL_IMAGES, tiny_files, write_zip

from cnnlesson.data import tiny_imagenet


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def test_images_and_labels_match_torchvisions_image_folder(root, make_archive, tmp_path):
    archive = make_archive()
    data = tiny_imagenet(root, archive=archive)
    with zipfile.ZipFile(archive) as unpacked:
        unpacked.extractall(tmp_path / "unpacked")
    folder = torchvision.datasets.ImageFolder(tmp_path / "unpacked/tiny-imagenet-3/train")
    assert len(folder) == len(data.train) == 3 * TRAIN_IMAGES
    for number, (image, label) in enumerate(folder):
        assert torch.equal(data.train.images[number], torchvision.transforms.functional.pil_to_tensor(image))
        assert data.train.labels[number] == label


def test_the_labelled_official_validation_split_is_the_test_set(root, make_archive):
    data = tiny_imagenet(root, archive=make_archive())
    assert data.train.classes == data.test.classes == ("goldfish", "toad", "lifeboat")  # n01, n02, n03
    assert data.test.labels.tolist() == [2, 0, 1] * VAL_IMAGES  # val_annotations.txt lists n03, n01, n02, n03, ...
    assert data.test.images.shape == (3 * VAL_IMAGES, 3, 64, 64)


def test_a_folder_is_read_like_an_archive(root, make_archive, tmp_path):
    archive = make_archive()
    with zipfile.ZipFile(archive) as unpacked:
        unpacked.extractall(tmp_path / "unpacked")
    from_zip = tiny_imagenet(root, archive=archive)
    from_folder = tiny_imagenet(root / "other", archive=tmp_path / "unpacked/tiny-imagenet-3")
    assert torch.equal(from_zip.train.images, from_folder.train.images)
    assert torch.equal(from_zip.test.labels, from_folder.test.labels)


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_an_archive_or_folder_under_root_is_found(root, form):
    root.mkdir()
    write_zip(root / "tiny-imagenet-200.zip", tiny_files(), top="tiny-imagenet-200/")
    if form == "folder":
        with zipfile.ZipFile(root / "tiny-imagenet-200.zip") as unpacked:
            unpacked.extractall(root)
        (root / "tiny-imagenet-200.zip").unlink()
    assert len(tiny_imagenet(root).train) == 3 * TRAIN_IMAGES


def test_the_second_call_reads_only_the_cache(root, make_archive):
    archive = make_archive()
    first = tiny_imagenet(root, archive=archive)
    status = archive.stat()
    archive.write_bytes(b"\0" * status.st_size)  # unreadable, but of the same size and age
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = tiny_imagenet(root, archive=archive)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)


def test_the_cache_is_enough_without_the_archive(root):
    root.mkdir()
    archive = write_zip(root / "tiny-imagenet-200.zip", tiny_files(), top="tiny-imagenet-200/")
    tiny_imagenet(root)
    archive.unlink()
    assert len(tiny_imagenet(root).train) == 3 * TRAIN_IMAGES


def test_a_cache_survives_a_move_and_the_loss_of_its_archive(root, make_archive, tmp_path):
    archive = make_archive()
    tiny_imagenet(root, archive=archive)
    archive.unlink()
    root.rename(tmp_path / "moved")
    assert len(tiny_imagenet(tmp_path / "moved", archive=archive).train) == 3 * TRAIN_IMAGES


def test_another_archive_with_the_same_name_is_read_again(root, make_archive):
    tiny_imagenet(root, archive=make_archive())
    changed = make_archive({"words.txt": b"n01\tshark\nn02\tcrow\nn03\tferry\n"})
    assert tiny_imagenet(root, archive=changed).train.classes == ("shark", "crow", "ferry")


def test_changing_the_images_does_not_change_the_cache(root, make_archive):
    archive = make_archive()
    before = tiny_imagenet(root, archive=archive)
    kept = before.train.images.clone()
    before.train.images.zero_()
    assert torch.equal(tiny_imagenet(root, archive=archive).train.images, kept)


def other_file(content: bytes) -> bytes:
    file = io.BytesIO()
    torch.save({"weights": torch.ones(3)}, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"x" * len(content), other_file]
)
def test_a_damaged_cache_is_written_again(root, make_archive, capsys, damage):
    archive = make_archive()
    kept = tiny_imagenet(root, archive=archive).train.images.clone()
    cache = root / "tiny-imagenet-3.pt"
    cache.write_bytes(damage(cache.read_bytes()))
    assert torch.equal(tiny_imagenet(root, archive=archive).train.images, kept)
    assert "is damaged and will be written again" in capsys.readouterr().out


def test_a_full_disk_leaves_no_partial_cache_and_is_no_reason_to_stop(root, make_archive):
    """In a process that may write only 100 kB per file, as if the disk were full."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    archive = make_archive()
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
from cnnlesson.data import tiny_imagenet
print(len(tiny_imagenet({str(root)!r}, archive={str(archive)!r}).train))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    warning, num_images = run.stdout.splitlines()
    assert "tiny-imagenet-3.pt could not be written" in warning and "free some space" in warning
    assert int(num_images) == 3 * TRAIN_IMAGES
    assert list(root.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert len(tiny_imagenet(root, archive=archive).train) == 3 * TRAIN_IMAGES


def truncated(files: dict[str, bytes]) -> bytes:
    return files["train/n01/images/n01_5.JPEG"][:300]


def wrong_size(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val/val_annotations.txt": None}, r"tiny-imagenet-3.zip has no val/val_annotations.txt"),
        ({"wnids.txt": None}, r"has no wnids.txt"),
        ({"train/n01/images/n01_5.JPEG": b""}, r"n01_5.JPEG cannot be decoded as an image: the file is empty"),
        ({"val/images/val_3.JPEG": None}, r"has no val/images/val_3.JPEG"),
        ({"train/n01/images/n01_5.JPEG": b"no image"}, r"train/n01/images/n01_5.JPEG cannot be decoded"),
        ({"train/n01/images/n01_5.JPEG": truncated}, r"train/n01/images/n01_5.JPEG cannot be decoded"),
        (
            {"train/n01/images/n01_5.JPEG": wrong_size},
            r"size of the first, 64×64 pixels, but train/n01/images/n01_5.JPEG has 32×32",
        ),
        ({"wnids.txt": b"n01\nn02\nn03\nn09\n"}, r"class n09 \(n09\) has no images in train/"),
        ({"wnids.txt": b"n01\nn02\n"}, r"n03_0.JPEG is of class n03, which wnids.txt does not list"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn01\n"}, r"class n02 \(toad\) has no images in val/"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn77\n"}, r"val/images/val_0.JPEG is of class n77, which wnids.txt"),
        (
            {"val/val_annotations.txt": b"no table\n"},
            r"val/val_annotations.txt: line 1 must have columns .*, got 'no table'",
        ),
        ({"../../evil.txt": b""}, r"which leads out of the archive: do not use it"),
    ],
)
def test_an_invalid_archive_is_an_error_in_one_line(root, make_archive, changes, message):
    changes = {name: new(tiny_files()) if callable(new) else new for name, new in changes.items()}
    with pytest.raises(ValueError, match=message) as caught:
        tiny_imagenet(root, archive=make_archive(changes))
    assert "\n" not in str(caught.value)
    assert not root.exists() or list(root.iterdir()) == []


def test_a_path_that_leads_out_of_the_archive_is_an_error(root, tmp_path):
    archive = write_zip(tmp_path / "evil.zip", {**tiny_files(), "../../../evil.txt": b"evil"}, top="")
    with pytest.raises(ValueError, match=r"a file named '../../../evil.txt', which leads out"):
        tiny_imagenet(root, archive=archive)


def test_a_truncated_archive_is_an_error(root, make_archive):
    archive = make_archive()
    archive.write_bytes(archive.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="is not a complete zip archive: delete it and download it again"):
        tiny_imagenet(root, archive=archive)


def test_wrong_bytes_in_an_archive_are_an_error(root, make_archive):
    archive = make_archive()
    content = archive.read_bytes()
    photo = tiny_files()["train/n01/images/n01_5.JPEG"]
    start = content.index(photo) + len(photo) // 2
    archive.write_bytes(content[:start] + b"XXXX" + content[start + 4 :])
    with pytest.raises(ValueError, match=r"train/n01/images/n01_5\.JPEG is damaged"):
        tiny_imagenet(root, archive=archive)


def test_a_file_that_is_not_an_archive_is_an_error(root, tmp_path):
    (tmp_path / "page.zip").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"page.zip \(22 bytes\) is not a complete zip archive"):
        tiny_imagenet(root, archive=tmp_path / "page.zip")


def test_a_path_that_does_not_exist_is_an_error(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing.zip does not exist"):
        tiny_imagenet(root, archive=tmp_path / "missing.zip")
