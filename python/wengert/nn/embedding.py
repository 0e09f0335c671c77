"""Vectors for indices."""

from __future__ import annotations

from wengert._core import Device, DType, ShapeError, Tensor, UnsupportedError, embedding, ones, zeros
from wengert.nn import init
from wengert.nn.module import Layer
from wengert.nn.parameter import Parameter


class Embedding(Layer):
    """A table of vectors, read by index: output[…, :] = weight[input[…], :].

    Weight starts standard normal, its row padding_idx zero.

    Args:
        num_embeddings: the number of vectors.
        embedding_dim: the size of each.
        padding_idx: the row that gets no gradient; negative counts from the end.
        max_norm: not supported.
        norm_type: of max_norm.
        scale_grad_by_freq: not supported.
        sparse: has no effect: gradients are dense.
        device: of the weight.
        dtype: of the weight, float32 by default.

    Shape:
        input any shape of integers, output (*input.shape, embedding_dim), weight (num_embeddings, embedding_dim).

    Raises:
        IndexError: when called or evaluated, an index names no row.
        UnsupportedError: max_norm or scale_grad_by_freq is given.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Embedding(10, 3)(wg.tensor([[1, 2], [4, 9]])).shape
        (2, 2, 3)

    Source:
        Bengio, Ducharme, Vincent and Jauvin (2003), A Neural Probabilistic Language Model.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: Device | str | None = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        if max_norm is not None or scale_grad_by_freq:
            raise UnsupportedError(
                "Embedding: max_norm and scale_grad_by_freq are not supported; scale weight yourself"
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"Embedding: padding_idx {padding_idx} is none of the {num_embeddings} rows")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx + num_embeddings if padding_idx is not None and padding_idx < 0 else padding_idx
        self.weight = Parameter(zeros((num_embeddings, embedding_dim), dtype=dtype, device=device))
        self.reset_parameters()

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """Return a layer whose weight has these values (num_embeddings, embedding_dim); frozen: without gradient."""
        if embeddings.ndim != 2:
            raise ShapeError(f"Embedding: embeddings {embeddings.shape} must have two axes: (rows, width)")
        rows, width = embeddings.shape
        layer = cls(rows, width, padding_idx, dtype=embeddings.dtype, device=embeddings.device)
        layer.weight.copy_(embeddings)
        layer.weight.requires_grad_(not freeze)
        return layer

    def reset_parameters(self) -> None:
        """Draw weight anew; the row at padding_idx is zero."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            kept = ones((self.num_embeddings, 1), dtype=self.weight.dtype, device=self.weight.device)
            kept[self.padding_idx] = 0.0
            self.weight.copy_(self.weight.detach() * kept)

    def forward(self, input: Tensor) -> Tensor:
        """Read the rows that input names."""
        return embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Return the settings."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
