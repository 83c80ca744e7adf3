"""The training doctor: says in words, while a training goes on, what is wrong with it and what to try.

    with busy_share(device) as busy:
        for epoch in train(model, train_batches, val_batches, optimizer, epochs=5):
            history.append(epoch)
            print(*diagnose(history, num_classes=200, busy=busy()), sep="\\n")

The first epochs say little, and a sentence of them may be gone after the next one.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from cnnlesson.training import Epoch

# A loss from here on, as a share of ln(classes), is hardly better than guessing: an untrained network may have it.
GUESSING = 0.97
# A network that was below this share and is back at guessing has lost what it had learned.
FORGOTTEN = 0.94
# A loss up to here may be that of a network before training; too large steps bring it higher.
UNTRAINED = 1.05
# A loss that is lower than ever by this share of ln(classes) is falling.
FALLING = 0.005
# A loss that changes by less than this share of itself has not moved: rounding alone makes about a tenth of it.
UNMOVED = 1e-5
# Learning rates below the first are more often too small, from the second on too large; between them it depends on
# the optimizer: 0.001 is much for Adam and little for SGD.
SMALL_LEARNING_RATE = 1e-4
LARGE_LEARNING_RATE = 0.003
# A loss this many times ln(classes) comes from large wrong answers, which a network gives after too large steps. One
# epoch may begin so and recover, so it counts in the second, or at once where it is EXPLODED times as large.
FAR_ABOVE = 1.5
EXPLODED = 10
# Training accuracy this far on the way from chance to 1 has learned something that validation should show.
LEARNED = 0.2
# Training accuracy that is this much above validation is a gap; every network that learns has a smaller one.
GAP = 0.2
# Epochs without a better validation accuracy or loss; a single one is often noise.
PATIENCE = 2
# A device that works less than half of the time is more than twice as slow as it could be.
IDLE = 0.5


def diagnose(history: Sequence[Epoch], num_classes: int | None, busy: float | None = None) -> list[str]:
    """What is wrong with a training after the epochs of `history`: a sentence or two for each symptom, or none.

    Args:
        history: all epochs so far.
        num_classes: how many classes the network tells apart; None leaves out what needs chance as a measure.
        busy: the share of the last epoch in which the device worked, from 0 to 1, such as `busy_share` measures.
    """
    found = []
    if history:
        found.append(_not_finite(history[-1]) or _learning_rate_of_zero(history))
        if num_classes is not None and not any(found):
            found.append(_at_or_above_guessing(history, num_classes))
            found.append(_validation_at_chance(history, num_classes))
        if not any(found):
            found.append(_overfitting(history))
    if busy is not None and busy < IDLE:
        found.append(
            f"The device worked on this training for only {busy:.0%} of the last epoch: it waits for images, its "
            "batches are too small, or other programs use it. Try larger batches and images that lie in memory "
            "(Batches keeps them there where they fit), and end other programs."
        )
    return [sentence for sentence in found if sentence]


def _not_finite(last: Epoch) -> str | None:
    if math.isfinite(last.train_loss) and math.isfinite(last.val_loss):
        return None
    name = "validation" if math.isfinite(last.train_loss) else "training"
    return (
        f"The {name} loss is not finite in epoch {last.number}: training has diverged. "
        f"Try a learning rate ten times smaller, {last.learning_rate / 10:g}."
    )


def _learning_rate_of_zero(history: Sequence[Epoch]) -> str | None:
    """For two epochs, as a schedule may begin its first at 0."""
    if any(epoch.learning_rate for epoch in history[-2:]) or len(history) < 2:
        return None
    return "The learning rate is 0, so nothing is learned. Set the optimizer's lr, or see what the scheduler does."


def _at_or_above_guessing(history: Sequence[Epoch], num_classes: int) -> str | None:
    """The training loss rises far above ln(classes), or stays there."""
    last, guessing = history[-1], math.log(num_classes)
    measure = f"ln({num_classes}) = {guessing:.3f}, the loss of guessing"
    if last.train_loss > EXPLODED * guessing:
        return (
            f"The training loss is {last.train_loss:.3g}, far above {measure}: the learning rate "
            f"{last.learning_rate:g} is too large. Try {last.learning_rate / 10:g}."
        )
    if len(history) < 2 or last.train_loss < GUESSING * guessing or _learned(last.val_accuracy, num_classes):
        return None
    before = history[-2]
    best = min(history[:-1], key=lambda epoch: epoch.train_loss)
    if best.train_loss - last.train_loss > FALLING * guessing:
        return None
    if last.train_loss > max(before.train_loss, FAR_ABOVE * guessing):
        return (
            f"The training loss has risen from {before.train_loss:.3f} to {last.train_loss:.3f}, far above {measure}: "
            f"the learning rate {last.learning_rate:g} is too large. Try {last.learning_rate / 10:g}."
        )
    much = "no" if last.train_loss >= guessing else "hardly"
    stuck = f"The training loss is {last.train_loss:.3f}, {much} better than {measure}"
    if best.train_loss < FORGOTTEN * guessing and last.learning_rate >= SMALL_LEARNING_RATE:
        return (
            f"{stuck}, though it was {best.train_loss:.3f} in epoch {best.number}: the learning rate "
            f"{last.learning_rate:g} is too large. Try {last.learning_rate / 10:g}, with a new network."
        )
    return f"{stuck}{_why_stuck(history[-3:], guessing)}"


def _why_stuck(recent: Sequence[Epoch], guessing: float) -> str:
    """Goes on after "The training loss is 2.303, no better than guessing", with what is most likely."""
    last = recent[-1]
    rate = last.learning_rate
    pairs = list(pairwise(recent))
    # Augmentation and dropout move the training loss of a network that stays as it is, batch norm the validation loss.
    unmoved = all(math.isclose(a.train_loss, b.train_loss, rel_tol=UNMOVED) for a, b in pairs) or all(
        math.isclose(a.val_loss, b.val_loss, rel_tol=UNMOVED) for a, b in pairs
    )
    if unmoved or rate < SMALL_LEARNING_RATE:
        return (
            f", and it hardly moves: most likely the learning rate {rate:g} is too small. Try {10 * rate:g} or more. "
            "If nothing moves then, see that the optimizer has this model's parameters, and that no layer gives 0 for "
            "every image."
        )
    falls = all(b.train_loss < a.train_loss and b.val_loss < a.val_loss for a, b in pairs)
    if falls and max(last.train_loss, last.val_loss) < UNTRAINED * guessing:
        patience = ", but it still falls slowly. Deep networks without batch norm often begin so: give it some epochs."
        if rate >= LARGE_LEARNING_RATE:
            return patience
        return f"{patience} If it goes on, try a larger learning rate, such as {3 * rate:g}."
    if rate >= LARGE_LEARNING_RATE:
        return (
            ": it gives every image about the same answer. A deep network without batch norm may begin so. If the next "
            f"epochs are no better, the learning rate {rate:g} is most likely too large: try {rate / 10:g}, with a new "
            "network. If that does not help either, add batch norm."
        )
    return (
        f". If the next epochs are no better, the learning rate {rate:g} is most likely too small for SGD (then try "
        f"{10 * rate:g}) or too large for Adam (then try {rate / 10:g}, with a new network)."
    )


def _validation_at_chance(history: Sequence[Epoch], num_classes: int) -> str | None:
    """For two epochs, and not while its loss falls: batch norm's running statistics lag behind in the first ones."""
    if len(history) < 2 or history[-2].val_loss - history[-1].val_loss > FALLING * math.log(num_classes):
        return None
    if any(
        _above_chance(epoch.val_accuracy, num_classes) or not _learned(epoch.train_accuracy, num_classes)
        for epoch in history[-2:]
    ):
        return None
    last = history[-1]
    return (
        f"Validation accuracy is {last.val_accuracy:.1%}, no better than chance ({1 / num_classes:.1%}), while "
        f"training accuracy is {last.train_accuracy:.1%}. Look whether the labels of one set are mixed up, whether "
        "both sets are normalised alike and number their classes alike, and, with batch norm, whether an epoch has too "
        "few steps for its running statistics (try smaller batches). Very few images may also be learned by heart: "
        "take more."
    )


def _overfitting(history: Sequence[Epoch]) -> str | None:
    last = history[-1]
    best = max(history, key=lambda epoch: epoch.val_accuracy)  # the first of equals
    lowest = min(history, key=lambda epoch: epoch.val_loss)
    still_better = last.number - max(best.number, lowest.number) < PATIENCE
    if still_better or last.train_accuracy - last.val_accuracy < GAP:
        return None
    return (
        f"Training accuracy is {last.train_accuracy:.1%} and validation {last.val_accuracy:.1%}, no better than the "
        f"{best.val_accuracy:.1%} of epoch {best.number}: overfitting. Try augmentation, more weight decay, dropout "
        "or more images, or stop earlier."
    )


def _above_chance(accuracy: float, num_classes: int) -> bool:
    """More than half again of chance, but at most 5 points above, which is much where there are few classes."""
    chance = 1 / num_classes
    return accuracy > chance + min(chance / 2, 0.05)


def _learned(accuracy: float, num_classes: int) -> bool:
    chance = 1 / num_classes
    return accuracy > chance + LEARNED * (1 - chance)
