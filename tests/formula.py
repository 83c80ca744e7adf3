"""Arithmetic that the package puts into words, worked out."""

import re


def value_of(formula: str) -> float:
    """What a formula like (227 + 2·2 - 11) / 4 + 1 comes to."""
    assert re.fullmatch(r"[\d·+\-/(). ]+", formula)
    return eval(formula.replace("·", "*"))
