"""Evaluate the arithmetic that the package prints."""

import re


def value_of(formula: str) -> float:
    """The value of a formula such as (227 + 2·2 - 11) / 4 + 1."""
    assert re.fullmatch(r"[\d·+\-/(). ]+", formula)
    return eval(formula.replace("·", "*"))
