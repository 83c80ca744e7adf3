"""The training doctor: remarks, during a training, on what is wrong with it and what to try.

    with busy_share(device) as busy:
        for epoch in train(model, train_batches, val_batches, optimizer, epochs=5):
            history.append(epoch)
            print(*diagnose(history, num_classes=200, busy=busy()), sep="\\n")

The first epochs are weak evidence: a remark on them may disappear after the next one.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from cnnlesson.training import Epoch

# The loss at chance level is ln(classes). From this share of it on, a loss is hardly better, as before training.
AT_CHANCE = 0.97
# A network that was below this share and is back at chance level has lost what it had learned.
LEARNED_LOSS = 0.94
# An untrained network may have a loss up to here; too large steps lead higher.
UNTRAINED = 1.05
# A loss that is lower than ever before by this share of ln(classes) is falling.
FALLING = 0.005
# A loss that changes by less than this share of itself has not moved; rounding causes about a tenth of it.
UNMOVED = 1e-5
# Below the first, a rate is usually too small, above the second too large. 0.001 is large for Adam and small for SGD.
SMALL_LEARNING_RATE = 1e-4
LARGE_LEARNING_RATE = 0.003
# A loss this many times ln(classes) in two epochs, or EXPLODED times in one, is the result of too large steps.
FAR_ABOVE = 1.5
EXPLODED = 10
# A training accuracy this far from chance level to 1 shows learning that validation should show too.
LEARNED = 0.2
# Training accuracy this much above validation accuracy is a gap; every network that learns has a smaller one.
GAP = 0.2
# Epochs without a better validation accuracy or loss; a single one is often noise.
PATIENCE = 2
# A device that is busy for less than half of the time is more than twice as slow as it could be.
IDLE = 0.5


def diagnose(history: Sequence[Epoch], num_classes: int | None, busy: float | None = None) -> list[str]:
    """What is wrong with a training after the epochs of `history`: one remark per symptom.

    Args:
        history: all epochs so far.
        num_classes: the number of classes, which determines chance level; None skips what depends on it.
        busy: the share of the last epoch in which the device was busy, from 0 to 1, from `busy_share`.
    """
    found = []
    if history:
        found.append(_not_finite(history[-1]) or _learning_rate_of_zero(history))
        if num_classes is not None and not any(found):
            found.append(_at_or_above_chance(history, num_classes))
            found.append(_validation_at_chance(history, num_classes))
        if not any(found):
            found.append(_overfitting(history))
    if busy is not None and busy < IDLE:
        found.append(
            f"The device was busy with this training for only {busy:.0%} of the last epoch: it waits for images, its "
            "batches are too small, or other programs use it. Try larger batches and images in memory, and end other "
            "programs."
        )
    return [remark for remark in found if remark]


def _not_finite(last: Epoch) -> str | None:
    if math.isfinite(last.train_loss) and math.isfinite(last.val_loss):
        return None
    name = "validation" if math.isfinite(last.train_loss) else "training"
    return (
        f"The {name} loss is not finite in epoch {last.number}: training has diverged. "
        f"Try a learning rate ten times smaller, {last.learning_rate / 10:g}."
    )


def _learning_rate_of_zero(history: Sequence[Epoch]) -> str | None:
    """For two epochs, since a schedule may start its first one at 0."""
    if any(epoch.learning_rate for epoch in history[-2:]) or len(history) < 2:
        return None
    return "The learning rate is 0, so the network learns nothing. Set the optimizer's lr, or check the scheduler."


def _at_or_above_chance(history: Sequence[Epoch], num_classes: int) -> str | None:
    """The training loss rises far above ln(classes), or stays there."""
    last, chance, rate = history[-1], math.log(num_classes), history[-1].learning_rate
    too_large = f"the learning rate {rate:g} is too large. Try {rate / 10:g}"
    level = f"ln({num_classes}) = {chance:.3f}, the loss at chance level"
    if last.train_loss > EXPLODED * chance:
        return f"The training loss is {last.train_loss:.3g}, far above {level}: {too_large}."
    if len(history) < 2 or last.train_loss < AT_CHANCE * chance or _learned(last.val_accuracy, num_classes):
        return None
    best, worst = (of(history[:-1], key=lambda epoch: epoch.train_loss) for of in (min, max))
    if best.train_loss - last.train_loss > FALLING * chance:
        return None
    if last.train_loss > max(history[-2].train_loss, FAR_ABOVE * chance):
        losses = f"{history[-2].train_loss:.3f} to {last.train_loss:.3f}"
        return f"The training loss has risen from {losses}, far above {level}: {too_large}."
    much = "no" if last.train_loss >= chance else "hardly"
    stuck = f"The training loss is {last.train_loss:.3f}, {much} better than {level}"
    learned = best.train_loss < LEARNED_LOSS * chance
    if rate >= SMALL_LEARNING_RATE and (learned or worst.train_loss > FAR_ABOVE * chance):
        then = best if learned else worst
        return f"{stuck}, after {then.train_loss:.3f} in epoch {then.number}: {too_large}, with a new network."
    return stuck + _why_stuck(history[-3:], chance)


def _why_stuck(recent: Sequence[Epoch], chance: float) -> str:
    """The end of a sentence that starts "The training loss is 2.303, no better than chance", with the likely cause."""
    last, rate = recent[-1], recent[-1].learning_rate
    pairs = list(pairwise(recent))
    # Augmentation and dropout change the training loss of a network that does not move, batch norm the validation loss.
    unmoved = all(math.isclose(a.train_loss, b.train_loss, rel_tol=UNMOVED) for a, b in pairs) or all(
        math.isclose(a.val_loss, b.val_loss, rel_tol=UNMOVED) for a, b in pairs
    )
    if unmoved or rate < SMALL_LEARNING_RATE:
        return (
            f", and it hardly moves: most likely the learning rate {rate:g} is too small. Try {10 * rate:g} or more. "
            "Otherwise check that the optimizer has this model's parameters, and that no layer outputs only zeros."
        )
    falls = all(b.train_loss < a.train_loss and b.val_loss < a.val_loss for a, b in pairs)
    if falls and max(last.train_loss, last.val_loss) < UNTRAINED * chance:
        larger = f" Then try a larger learning rate, such as {3 * rate:g}." if rate < LARGE_LEARNING_RATE else ""
        return f", but it still falls slowly. Deep networks without batch norm may start so: wait a few epochs.{larger}"
    if rate >= LARGE_LEARNING_RATE:
        return (
            ": the network's answer is about the same for every image. A deep network without batch norm may start so. "
            f"If the next epochs are no better, the learning rate {rate:g} is most likely too large: try "
            f"{rate / 10:g}, with a new network. If that does not help either, add batch norm."
        )
    return (
        f". If the next epochs are no better, the learning rate {rate:g} is most likely too small for SGD (then try "
        f"{10 * rate:g}) or too large for Adam (then try {rate / 10:g}, with a new network)."
    )


def _validation_at_chance(history: Sequence[Epoch], num_classes: int) -> str | None:
    """For two epochs, and not while its loss falls: batch norm's running statistics lag behind in the first ones."""
    if len(history) < 2 or history[-2].val_loss - history[-1].val_loss > FALLING * math.log(num_classes):
        return None
    learns = all(_learned(epoch.train_accuracy, num_classes) for epoch in history[-2:])
    # By more than half of chance level, or by more than 5 points, which is much if there are few classes.
    above_chance = min(1.5 / num_classes, 1 / num_classes + 0.05)
    if not learns or any(epoch.val_accuracy > above_chance for epoch in history[-2:]):
        return None
    last = history[-1]
    return (
        f"Validation accuracy is {last.val_accuracy:.1%}, no better than chance ({1 / num_classes:.1%}), while "
        f"training accuracy is {last.train_accuracy:.1%}. Check whether the labels of one set are mixed up, whether "
        "both sets number their classes and are normalised in the same way, and, with batch norm, whether an epoch has "
        "too few steps (try smaller batches). The network may also have memorised very few images: use more."
    )


def _overfitting(history: Sequence[Epoch]) -> str | None:
    last, best = history[-1], max(history, key=lambda epoch: epoch.val_accuracy)  # the first one of a tie
    lowest = min(history, key=lambda epoch: epoch.val_loss)
    still_better = last.number - max(best.number, lowest.number) < PATIENCE
    if still_better or last.train_accuracy - last.val_accuracy < GAP:
        return None
    return (
        f"Training accuracy is {last.train_accuracy:.1%} and validation {last.val_accuracy:.1%}, no better than the "
        f"{best.val_accuracy:.1%} of epoch {best.number}: overfitting. Try augmentation, more weight decay, dropout "
        "or more images, or stop earlier."
    )


def _learned(accuracy: float, num_classes: int) -> bool:
    return accuracy > LEARNED + (1 - LEARNED) / num_classes
