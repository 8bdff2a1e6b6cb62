"""Checks of what a user typed: each names the field, its value, the rule and a way out."""

import math
from typing import Any


def check_positive(field: str, value: float, example: Any) -> None:
    """value > 0 and finite."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{field}={value} must be a finite number above 0; try {example}.")


def check_range(field: str, value: float, low: float, high: float, example: Any) -> None:
    """low <= value <= high (so not NaN)."""
    if not low <= value <= high:
        raise ValueError(f"{field}={value} must lie in [{low}, {high}]; try {example}.")


def check_divides(field: str, value: int, whole_name: str, whole: int) -> None:
    """value >= 1 and value divides whole."""
    if value < 1 or whole % value:
        raise ValueError(
            f"{field}={value} does not divide {whole_name}={whole}; "
            f"try {_near_divisors(value, whole)}."
        )


def _near_divisors(value: int, whole: int) -> str:
    divisors = [d for d in range(1, min(whole, 4096) + 1) if whole % d == 0]
    below = [d for d in divisors if d < value][-1:]
    above = [d for d in divisors if d > value][:1]
    return " or ".join(str(d) for d in below + above)
