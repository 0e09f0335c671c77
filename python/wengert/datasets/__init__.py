"""Small real data sets that come with the package. Each function's docstring and NOTICE name the source and licence."""

from wengert.datasets.digits import Digits, load_digits

__all__ = ["Digits", "load_digits"]
