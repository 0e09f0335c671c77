"""Attention and embeddings: what the table of ops does not reach."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import references as ref
import wengert as wg
import wengert.nn.functional as F
from references import Array
from wengert import _core, nn


def arrays(*shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(7)
    return [rng.normal(size=shape) for shape in shapes]


def run(q: Array, k: Array, v: Array, dtype: wg.DType = wg.float32, **settings: object) -> tuple[Array, list[Array]]:
    """The result, and the gradients of its sum of squares."""
    tensors = [wg.tensor(x, dtype=dtype, requires_grad=True) for x in (q, k, v)]
    y = F.scaled_dot_product_attention(*tensors, **settings)  # type: ignore[arg-type]
    y.square().sum().backward()
    return y.detach().numpy(), [x.grad.numpy() for x in tensors if x.grad is not None]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(700, 700), (513, 90), (90, 513)])
def test_long_sequences_against_the_definition(queries: int, keys: int, causal: bool) -> None:
    q, k, v = arrays((2, queries, 24), (2, keys, 24), (2, keys, 17))
    y, gradients = run(q, k, v, is_causal=causal)
    np.testing.assert_allclose(y, ref.attention(q, k, v, causal=causal), atol=4e-6)
    exact, slopes = run(q, k, v, dtype=wg.float64, is_causal=causal)
    np.testing.assert_allclose(exact, ref.attention(q, k, v, causal=causal), atol=1e-14)
    for single, double in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(single, double, atol=2e-5)


def test_the_kernel_agrees_with_products_and_softmax_in_gradients_of_second_order() -> None:
    q, k, v = (wg.tensor(x) for x in arrays((2, 5, 3), (2, 6, 3), (2, 6, 4)))

    def plain(q: wg.Tensor, k: wg.Tensor, v: wg.Tensor) -> wg.Tensor:
        return wg.softmax(q @ k.mT / 3**0.5, axis=-1) @ v

    def penalty(attend: object) -> object:
        def inner(q: wg.Tensor, k: wg.Tensor, v: wg.Tensor) -> wg.Tensor:
            return wg.sin(attend(q, k, v)).sum()  # type: ignore[operator]

        def outer(q: wg.Tensor, k: wg.Tensor, v: wg.Tensor) -> wg.Tensor:
            gradients = wg.grad(inner, argnums=(0, 1, 2))(q, k, v)
            return sum(((g * g).sum() for g in gradients), wg.tensor(0.0, dtype=wg.float64))

        return wg.grad(outer, argnums=(0, 1, 2))(q, k, v)

    for ours, theirs in zip(penalty(F.scaled_dot_product_attention), penalty(plain), strict=True):  # type: ignore[call-overload]
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-10, atol=1e-12)


def test_bits_do_not_depend_on_threads_layout_or_eager() -> None:
    q, k, v = (x.astype(np.float32) for x in arrays((3, 200, 4, 32), (3, 200, 4, 32), (3, 200, 4, 32)))

    def attend() -> bytes:
        tensors = [wg.tensor(x, requires_grad=True) for x in (q, k, v)]
        y = F.scaled_dot_product_attention(*(x.permute_dims((0, 2, 1, 3)) for x in tensors), is_causal=True)
        y.square().sum().backward()
        return b"".join([y.numpy().tobytes(), *(x.grad.numpy().tobytes() for x in tensors if x.grad is not None)])

    before = _core.get_num_threads()
    try:
        found = set()
        for threads in range(1, 5):
            _core.set_num_threads(threads)
            found.add(attend())
        with wg.eager():
            found.add(attend())
    finally:
        _core.set_num_threads(before)
    assert len(found) == 1


def test_a_query_without_keys_gives_zeros_and_no_gradient() -> None:
    q, k, v = arrays((4, 3), (5, 3), (5, 2))
    keep = np.ones((4, 5), bool)
    keep[1] = False
    y, gradients = run(q, k, v, attn_mask=wg.tensor(keep))
    assert (y[1] == 0).all()
    assert np.isfinite(y).all()
    assert (gradients[0][1] == 0).all()
    assert all(np.isfinite(g).all() for g in gradients)
    added, _ = run(q, k, v, attn_mask=wg.tensor(np.where(keep, 0.0, -np.inf), dtype=wg.float32))
    np.testing.assert_array_equal(added, y)


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (5, 1), (2, 1, 5, 6), (3, 1, 1), ()])
def test_masks_broadcast(shape: tuple[int, ...]) -> None:
    q, k, v, mask = arrays((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 2), shape)
    y, _ = run(q, k, v, dtype=wg.float64, attn_mask=wg.tensor(mask))
    np.testing.assert_allclose(y, ref.attention(q, k, v, mask), atol=1e-14)


def test_the_gradient_of_a_mask() -> None:
    q, k, v, mask = (wg.tensor(x) for x in arrays((2, 5, 4), (2, 6, 4), (2, 6, 2), (5, 6)))

    def ours(mask: wg.Tensor) -> wg.Tensor:
        return wg.sin(F.scaled_dot_product_attention(q, k, v, mask)).sum()

    def plain(mask: wg.Tensor) -> wg.Tensor:
        return wg.sin(wg.softmax(q @ k.mT / 2 + mask, axis=-1) @ v).sum()

    np.testing.assert_allclose(wg.grad(ours)(mask).numpy(), wg.grad(plain)(mask).numpy(), atol=1e-13)


def test_groups_of_queries_share_keys() -> None:
    q, k, v = arrays((2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 3))
    mask = arrays((6, 5, 7))[0]
    y, gradients = run(q, k, v, dtype=wg.float64, attn_mask=wg.tensor(mask), enable_gqa=True)
    np.testing.assert_allclose(y, ref.attention(q, k.repeat(3, 1), v.repeat(3, 1), mask), atol=1e-14)
    assert [g.shape for g in gradients] == [q.shape, k.shape, v.shape]
    with pytest.raises(wg.ShapeError, match="multiple"):
        run(q[:, :5], k, v, enable_gqa=True)


def test_dropout_keeps_the_mean_and_has_a_gradient() -> None:
    wg.manual_seed(3)
    q, k, v = arrays((200, 4), (50, 4), (50, 3))
    y, gradients = run(q, k, np.ones_like(v), dropout_p=0.25)
    assert abs(y.mean() - 1) < 0.02
    assert y.std() > 0.02
    assert all(np.abs(g).max() > 0 for g in gradients)


def test_under_vmap_it_is_the_loop() -> None:
    q, k, v = (wg.tensor(x) for x in arrays((3, 2, 5, 4), (3, 2, 6, 4), (2, 6, 2)))
    together = wg.vmap(F.scaled_dot_product_attention, in_axes=(0, 0, None))(q, k, v)
    for i in range(3):
        one = F.scaled_dot_product_attention(q[i], k[i], v)
        np.testing.assert_allclose(together[i].numpy(), one.numpy(), atol=1e-14)


def test_errors_say_what_would_be_right() -> None:
    q, k, v = (wg.tensor(x) for x in arrays((2, 5, 4), (2, 6, 4), (2, 6, 2)))
    attend = F.scaled_dot_product_attention
    with pytest.raises(wg.ShapeError, match="two axes"):
        attend(q[0, 0], k, v)
    with pytest.raises(wg.ShapeError, match="same width"):
        attend(q[..., :3], k, v)
    with pytest.raises(wg.ShapeError, match="value for each key"):
        attend(q, k, v[:, :5])
    with pytest.raises(wg.ShapeError, match="broadcast"):
        attend(q, k[:1].broadcast_to((3, 6, 4)), v)
    with pytest.raises(wg.ShapeError, match="attn_mask"):
        attend(q, k, v, wg.ones((5, 5), dtype=wg.float64))
    with pytest.raises(wg.DTypeError, match="bool or float"):
        attend(q, k, v, wg.ones((5, 6), dtype=wg.int64))
    with pytest.raises(ValueError, match="not both"):
        attend(q, k, v, wg.ones((5, 6), dtype=wg.bool), is_causal=True)
    with pytest.raises(ValueError, match="probability"):
        attend(q, k, v, dropout_p=1.5)


def test_empty_operands() -> None:
    q, k, v = (wg.zeros((2, length, 3)).requires_grad_() for length in (4, 0, 0))
    y = F.scaled_dot_product_attention(q, k, v)
    assert y.shape == (2, 4, 3)
    assert not y.numpy().any()
    y.sum().backward()
    assert q.grad is not None
    assert not q.grad.numpy().any()


def test_embedding_adds_the_gradients_of_equal_indices_in_order() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 40)).astype(np.float32)
    indices = rng.integers(-50, 50, (30, 70))
    weight = wg.tensor(table, requires_grad=True)
    out = F.embedding(wg.tensor(indices), weight)
    np.testing.assert_array_equal(out.numpy(), table[indices])
    factors = rng.normal(size=(30, 70, 40)).astype(np.float32)
    (out * wg.tensor(factors)).sum().backward()
    expected = np.zeros_like(table)
    for i, j in itertools.product(range(30), range(70)):
        expected[indices[i, j]] += factors[i, j]
    assert weight.grad is not None
    np.testing.assert_array_equal(weight.grad.numpy(), expected)


def test_embedding_layer() -> None:
    layer = nn.Embedding(5, 3, padding_idx=-1)
    assert layer.padding_idx == 4
    assert not layer.weight.numpy()[4].any()
    assert layer.weight.numpy()[:4].all()
    layer(wg.tensor([[0, 4], [4, 1]])).sum().backward()
    assert layer.weight.grad is not None
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [1, 1, 0, 0, 0])
    assert repr(layer) == "Embedding(5, 3, padding_idx=4)"
    frozen = nn.Embedding.from_pretrained(wg.ones((2, 3)))
    assert not frozen.weight.requires_grad
    assert frozen(wg.tensor(1)).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(IndexError, match="out of range"):
        layer(wg.tensor([5]))
    with pytest.raises(wg.UnsupportedError, match="max_norm"):
        nn.Embedding(5, 3, max_norm=1.0)
    with pytest.raises(ValueError, match="padding_idx"):
        nn.Embedding(5, 3, padding_idx=5)


@pytest.mark.parametrize("padding", [1, -3])
@pytest.mark.parametrize("dtype", [wg.int64, wg.int32])
def test_the_padding_row_has_no_gradient_by_either_index(padding: int, dtype: wg.DType) -> None:
    layer = nn.Embedding(4, 2, padding_idx=padding)
    layer(wg.tensor([-3, 1, -1, 0, -4], dtype=dtype)).sum().backward()
    assert layer.weight.grad is not None
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [2, 0, 0, 1])


def test_a_padding_row_beyond_small_indices() -> None:
    weight = wg.tensor(np.ones((300, 1)), requires_grad=True)
    F.embedding(wg.tensor([44, 255], dtype=wg.uint8), weight, padding_idx=255).sum().backward()
    assert weight.grad is not None
    assert weight.grad.numpy().nonzero()[0].tolist() == [44]


def test_rms_norm_layer_is_its_function() -> None:
    layer = nn.RMSNorm(4, eps=1e-3)
    x = wg.randn((2, 4))
    np.testing.assert_array_equal(layer(x).numpy(), F.rms_norm(x, 4, layer.weight, 1e-3).numpy())
    assert repr(layer) == "RMSNorm((4,), eps=0.001, elementwise_affine=True)"


def test_split_and_unstack() -> None:
    x = np.arange(24.0).reshape(4, 6)
    for cuts in (2, 3, [1, 4], [0, 2, 2], [-1], []):
        parts = wg.split(wg.tensor(x), cuts, axis=1)
        theirs = np.split(x, cuts, axis=1)
        assert len(parts) == len(theirs)
        for ours, part in zip(parts, theirs, strict=True):
            np.testing.assert_array_equal(ours.numpy(), part)
    for axis in (0, 1, -1):
        for ours, part in zip(wg.unstack(wg.tensor(x), axis=axis), np.moveaxis(x, axis, 0), strict=True):
            np.testing.assert_array_equal(ours.numpy(), part)
    with pytest.raises(ValueError, match="equal parts"):
        wg.split(wg.tensor(x), 4, axis=1)
    with pytest.raises(ValueError, match="ascend"):
        wg.split(wg.tensor(x), [4, 2], axis=1)
    variable = wg.tensor(x, requires_grad=True)
    first, _ = wg.split(variable, 2)
    (first * first).sum().backward()
    assert variable.grad is not None
    np.testing.assert_array_equal(variable.grad.numpy(), np.concatenate([2 * x[:2], 0 * x[2:]]))
