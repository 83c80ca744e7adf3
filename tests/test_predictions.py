import pytest
import torch
from torch import nn

from cnnlesson.data import Batches
from cnnlesson.training import evaluate, predict


def test_predictions_come_in_the_order_of_the_set_and_agree_with_evaluate(image_set):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(3 * 16 * 16, 3))
    batches = Batches(image_set, batch_size=8, image_size=16, device="cpu")
    labels, probabilities = predict(model.train(), batches)
    assert torch.equal(labels, image_set.labels)
    assert probabilities.shape == (30, 3) and probabilities.dtype == torch.float32
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1] * 30)
    accuracy = (probabilities.argmax(dim=1) == labels).float().mean()
    assert float(accuracy) == pytest.approx(evaluate(model, batches).accuracy)
    assert not probabilities.requires_grad
    assert torch.equal(predict(model, batches).probabilities, probabilities)  # dropout is off


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="no batch to go through"):
        predict(nn.Flatten(), [])
