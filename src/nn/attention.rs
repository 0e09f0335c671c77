//! Attention as users call it: shapes are checked and broadcast here, and one node is recorded.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::attention::{ATTENTION, ATTENTION_WEIGHTS};
use crate::ops::random::check_probability;
use crate::shape::{Shape, broadcast};
use crate::tensor::{self, Arg, Tensor};
use smallvec::{SmallVec, smallvec};

const NAME: &str = "scaled_dot_product_attention";

/// The settings of an attention.
pub struct Attention<'a> {
    pub mask: Option<&'a Tensor>,
    pub dropout: f64,
    pub causal: bool,
    /// None: 1 / √(width of a query).
    pub scale: Option<f64>,
    /// Whether several heads of queries share one of keys.
    pub grouped: bool,
}

/// softmax(scale·query·keyᵀ + mask)·value.
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, settings: &Attention) -> Result<Tensor> {
    check_probability(NAME, settings.dropout)?;
    let (q, k, v) = (query.shape(), key.shape(), value.shape());
    if [&q, &k, &v].iter().any(|shape| shape.rank() < 2) {
        return Err(Error::shape(format!("{NAME}: query {q}, key {k} and value {v} need two axes at least")));
    }
    if settings.causal && settings.mask.is_some() {
        return Err(Error::value(format!("{NAME}: give a mask or is_causal, not both")));
    }
    if settings.grouped {
        return grouped(query, key, value, settings);
    }
    let lead = |shape: &Shape| Shape::new(&shape[..shape.rank() - 2]);
    let batch = broadcast(&lead(&q), &lead(&k)).and_then(|batch| broadcast(&batch, &lead(&v))).ok_or_else(|| {
        Error::shape(format!("{NAME}: leading axes of query {q}, key {k} and value {v} do not broadcast"))
    })?;
    let (queries, keys) = (q[q.rank() - 2], k[k.rank() - 2]);
    let with = |x: &Tensor, last: &[usize]| tensor::broadcast_to(x, batch.iter().chain(last).copied().collect());
    let (query, key) = (with(query, &q[q.rank() - 2..])?, with(key, &k[k.rank() - 2..])?);
    let value = with(value, &v[v.rank() - 2..])?;
    let mask = match settings.mask {
        Some(mask) => Some(with_scores(mask, &batch.iter().copied().chain([queries, keys]).collect())?),
        None => None,
    };
    record(&query, &key, &value, mask.as_ref(), settings)
}

/// A mask repeated to the shape of the scores.
fn with_scores(mask: &Tensor, scores: &Shape) -> Result<Tensor> {
    let ty = mask.ty();
    if ty.dtype != DType::Bool && !ty.dtype.is_float() {
        return Err(Error::dtype(format!("{NAME}: attn_mask is {}, it must be bool or float", ty.dtype)));
    }
    tensor::broadcast_to(mask, scores.clone())
        .map_err(|_| Error::shape(format!("{NAME}: attn_mask {} does not broadcast to scores {scores}", ty.shape)))
}

/// Heads of queries in groups, one for each head of keys.
fn grouped(query: &Tensor, key: &Tensor, value: &Tensor, settings: &Attention) -> Result<Tensor> {
    let (q, k, v) = (query.shape(), key.shape(), value.shape());
    let heads = |shape: &Shape| shape.rank().checked_sub(3).map(|axis| shape[axis]);
    let (Some(all), Some(few), Some(values)) = (heads(&q), heads(&k), heads(&v)) else {
        return Err(Error::shape(format!(
            "{NAME}: enable_gqa: query {q}, key {k} and value {v} need an axis of heads"
        )));
    };
    if few == 0 || values != few || !all.is_multiple_of(few) {
        return Err(Error::shape(format!(
            "{NAME}: enable_gqa: the heads of query {q} must be a multiple of those of key {k} and value {v}"
        )));
    }
    // Axis -3 of n heads becomes (n / each, each).
    let cut = |x: &Tensor, each: usize| {
        let mut shape = x.shape();
        let axis = shape.rank() - 3;
        shape.dims_mut()[axis] /= each;
        shape.insert(axis + 1, each);
        tensor::reshape_to(x, shape)
    };
    let mask = match settings.mask {
        Some(mask) => {
            let scores: Shape = q[..q.rank() - 1].iter().copied().chain([k[k.rank() - 2]]).collect();
            Some(cut(&with_scores(mask, &scores)?, all / few)?)
        }
        None => None,
    };
    let settings = Attention { mask: mask.as_ref(), grouped: false, ..*settings };
    let made = attention(&cut(query, all / few)?, &cut(key, 1)?, &cut(value, 1)?, &settings)?;
    let mut shape = made.shape();
    let axis = shape.rank() - 4;
    shape.remove(axis);
    shape.dims_mut()[axis] = all;
    tensor::reshape_to(&made, shape)
}

/// Records the node, from operands with equal leading axes.
fn record(query: &Tensor, key: &Tensor, value: &Tensor, mask: Option<&Tensor>, settings: &Attention) -> Result<Tensor> {
    let width = query.shape().last().copied().unwrap_or(1);
    let scale = settings.scale.unwrap_or(1.0 / (width as f64).sqrt());
    let attrs = smallvec![i64::from(settings.causal), i64::from(mask.is_some())];
    let args: SmallVec<[Arg; 5]> =
        [query.into(), key.into(), value.into(), scale.into()].into_iter().chain(mask.map(Arg::Tensor)).collect();
    if settings.dropout > 0.0 {
        let weights = tensor::composite(&ATTENTION_WEIGHTS, attrs, &args)?;
        return tensor::matmul(&tensor::dropout(&weights, settings.dropout)?, value);
    }
    tensor::composite_all(&ATTENTION, attrs, &args)?
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal("attention without a result"))
}
