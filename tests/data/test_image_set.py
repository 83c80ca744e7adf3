import pytest
import torch

from cnnlesson.data import ImageSet


def test_indexing_by_a_tensor_returns_a_set(image_set):
    some = image_set[torch.tensor([29, 0])]
    assert torch.equal(some.images, image_set.images[[29, 0]])
    assert some.labels.tolist() == [2, 0]
    assert some.classes == image_set.classes
    assert len(image_set[image_set.labels == 1]) == 10


def test_it_moves_to_a_device_and_describes_itself(image_set):
    assert image_set.to("cpu").images.device.type == "cpu"
    assert repr(image_set) == "ImageSet(30 images of 16×16, 3 classes)"


def test_it_cannot_be_changed_by_accident(image_set):
    with pytest.raises(AttributeError):
        image_set.labels = torch.zeros(30, dtype=torch.int64)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), "images must be uint8"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"shape \(N, 3, H, W\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"shape \(2,\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2), "labels must be int64"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 2]), "labels must be from 0 to 1"),
    ],
)
def test_wrong_shapes_and_types_are_named(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels, ("a", "b"))
