"""The bundled data: that it is the data it says, and that the split is fixed."""

import hashlib

import pytest

import wengert as wg
from wengert.datasets import digits, load_digits


def test_the_file_holds_the_uci_digits() -> None:
    pixels, labels = digits._read()
    assert (len(pixels), len(labels)) == (1797 * 64, 1797)
    assert max(pixels) == 16
    assert [labels.count(digit) for digit in range(10)] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_split_is_the_same_everywhere() -> None:
    order = digits._shuffled(1797)
    assert sorted(order) == list(range(1797))
    assert hashlib.sha256(repr(order).encode()).hexdigest()[:16] == "4fa85db8f1fde673"


def test_shapes_dtypes_and_range() -> None:
    split = load_digits()
    assert [t.shape for t in split] == [(1438, 64), (1438,), (359, 64), (359,)]
    assert [t.dtype for t in split] == [wg.float32, wg.int64, wg.float32, wg.int64]
    values = [value for row in split.train_x.tolist() for value in row]
    assert (min(values), max(values)) == (0.0, 1.0)


def test_images_and_labels_stay_together() -> None:
    pixels, labels = digits._read()
    pairs = {(pixels[i * 64 : i * 64 + 64], labels[i]) for i in range(len(labels))}
    split = load_digits(test_size=0.5)
    for image, label in zip(split.test_x.tolist(), split.test_y.tolist(), strict=True):
        assert (bytes(round(value * 16) for value in image), label) in pairs


@pytest.mark.parametrize("test_size", [0, 1, -0.5, 2, 0.0001, float("nan")])
def test_a_split_with_an_empty_part_is_refused(test_size: float) -> None:
    with pytest.raises(ValueError, match="test_size"):
        load_digits(test_size=test_size)
