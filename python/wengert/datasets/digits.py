"""The UCI 8 x 8 digits: reading the bundled file and splitting it.

Only the standard library reads the file, and only when it is asked for.
"""

from __future__ import annotations

import os.path
from typing import NamedTuple

import wengert as wg

PIXELS = 64
LARGEST_PIXEL = 16
SPLIT_SEED = 1964


class Digits(NamedTuple):
    """The digits, split into samples to train on and samples to test on.

    Attributes:
        train_x: images, float32 of shape (N, 64), rows of an 8 x 8 image one after another, 0 to 1.
        train_y: labels, int64 of shape (N,), 0 to 9.
        test_x: images held out, float32 of shape (M, 64).
        test_y: labels held out, int64 of shape (M,).
    """

    train_x: wg.Tensor
    train_y: wg.Tensor
    test_x: wg.Tensor
    test_y: wg.Tensor


def load_digits(*, test_size: float = 0.2, device: wg.Device | str | None = None) -> Digits:
    """Load 1,797 images of handwritten digits, 8 x 8 pixels each, and hold some of them out.

    The samples are shuffled in one fixed order, so that a test size names the same split everywhere.

    Args:
        test_size: the part of the samples to hold out, between 0 and 1.
        device: where the tensors are put; the CPU by default.

    Returns:
        A named tuple `(train_x, train_y, test_x, test_y)` of tensors; see `Digits`.

    Raises:
        DeviceError: no such device.
        ValueError: `test_size` leaves no sample to train on or none to test on.

    Example:
        >>> from wengert.datasets import load_digits
        >>> train_x, train_y, test_x, test_y = load_digits()
        >>> train_x.shape, test_y.shape
        ((1438, 64), (359,))

    Source:
        Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits [Dataset]. UCI Machine Learning
        Repository. https://doi.org/10.24432/C50P49. Licensed under CC BY 4.0. The file `NOTICE` beside the data says
        what was changed.
    """
    pixels, labels = _read()
    order = _shuffled(len(labels))
    held_out = round(test_size * len(order)) if 0 < test_size < 1 else 0
    if not 0 < held_out < len(order):
        raise ValueError(
            f"load_digits: test_size {test_size} leaves no sample to train on or none to test on; "
            "it is the part to hold out, between 0 and 1"
        )
    train, test = order[held_out:], order[:held_out]
    return Digits(
        _images(pixels, train, device),
        _labels(labels, train, device),
        _images(pixels, test, device),
        _labels(labels, test, device),
    )


def _read() -> tuple[bytes, bytes]:
    """Read the pixels of all images, 64 bytes each, and their labels, one byte each."""
    import gzip

    with gzip.open(os.path.join(os.path.dirname(__file__), "digits.bin.gz")) as file:
        data = file.read()
    count = len(data) // (PIXELS + 1)
    return data[: count * PIXELS], data[count * PIXELS :]


def _shuffled(count: int) -> list[int]:
    """Return the numbers below `count` in a fixed order: Python keeps the stream of `random()`, not of `shuffle()`."""
    from random import Random

    stream = Random(SPLIT_SEED)
    rank = [stream.random() for _ in range(count)]
    return sorted(range(count), key=rank.__getitem__)


def _images(pixels: bytes, chosen: list[int], device: wg.Device | str | None) -> wg.Tensor:
    from array import array

    values = array("f")
    for i in chosen:
        values.extend(pixel / LARGEST_PIXEL for pixel in pixels[i * PIXELS : (i + 1) * PIXELS])
    return wg.tensor(memoryview(values).cast("B").cast("f", (len(chosen), PIXELS)), device=device)


def _labels(labels: bytes, chosen: list[int], device: wg.Device | str | None) -> wg.Tensor:
    from array import array

    return wg.tensor(array("q", (labels[i] for i in chosen)), device=device)
