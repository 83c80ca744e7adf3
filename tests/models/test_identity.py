import copy

import pytest
import torch
from torch import nn

from cnnlesson.data import Batches, shapes, split
from cnnlesson.models import cifar_resnet, insert_identity_blocks, resnet18
from cnnlesson.training import evaluate, train


@pytest.fixture(scope="module")
def batches():
    train_set, _ = split(shapes(seed=0).train, (0.1, 0.9), seed=0)
    return Batches(train_set, batch_size=50, image_size=32, seed=0, device="cpu")


@pytest.fixture(scope="module")
def plain(batches):
    """A plain network of 8 layers, trained for three epochs."""
    torch.manual_seed(0)
    model = cifar_resnet(8, num_classes=10, residual=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    list(train(model, batches, batches, optimizer, epochs=3))
    return model


@pytest.fixture(scope="module")
def images(batches):
    return torch.cat([images for images, _ in batches])


def test_the_deeper_network_returns_the_same_outputs(plain, images):
    deeper = insert_identity_blocks(plain.eval(), blocks_per_stage=2, images=images[:300])
    layers = [layer for layer in deeper.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 8 + 6 * 2
    with torch.no_grad():
        torch.testing.assert_close(deeper(images), plain(images), rtol=1e-5, atol=1e-5)


def test_in_training_mode_it_is_equal_for_its_own_images_and_close_for_others(plain, images):
    deeper = insert_identity_blocks(plain, blocks_per_stage=2, images=images[:300])

    def distance(some_images: torch.Tensor) -> float:
        with torch.no_grad():
            shallow = copy.deepcopy(plain).train()(some_images)
            deep = copy.deepcopy(deeper).train()(some_images)
        return ((deep - shallow).norm() / shallow.norm()).item()

    assert distance(images[:300]) < 1e-3
    assert distance(images[:300]) < distance(images[300:]) < distance(images[300:320]) < 0.5


def test_it_can_be_trained_further(plain, batches, images):
    deeper = insert_identity_blocks(plain.eval(), blocks_per_stage=2, images=images)
    before = evaluate(deeper, batches)
    new_block = deeper.layer1[-1].conv1.weight.clone()
    optimizer = torch.optim.SGD(deeper.parameters(), lr=0.02, momentum=0.9)
    history = list(train(deeper, batches, batches, optimizer, epochs=3))
    assert history[-1].val_loss < before.loss
    assert not torch.equal(deeper.layer1[-1].conv1.weight, new_block)


def test_the_shallower_network_is_left_unchanged(plain, images):
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    plain.train()
    deeper = insert_identity_blocks(plain, blocks_per_stage=1, images=images)
    assert deeper.training and plain.training
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert len(plain.layer1) == 1


@pytest.mark.parametrize("make_model", [lambda: cifar_resnet(8, 10), lambda: resnet18(10)])
def test_a_network_that_is_not_plain_is_an_error(make_model, images):
    with pytest.raises(ValueError, match="takes a plain network: cifar_resnet"):
        insert_identity_blocks(make_model(), blocks_per_stage=1, images=images)
