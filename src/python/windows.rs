//! Convolutions and pools.

use super::errors::refuse;
use super::operand::Ints;
use super::tensor::{PyTensor, made};
use crate::error::Error;
use crate::nn::{self, Convolution, Divisor, Padding, Pooling};
use pyo3::prelude::*;
use pyo3::types::PyString;
use smallvec::{SmallVec, smallvec};

type Given<'py> = PyRef<'py, PyTensor>;
type Perhaps<'py> = Option<PyRef<'py, PyTensor>>;

/// Padding as users give it: a number, one for each axis, or a word.
pub struct Around {
    same: bool,
    both: Ints,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Around {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Around> {
        let zero = || Ints(smallvec![0]);
        match object.cast::<PyString>() {
            Ok(word) if word == "same" => Ok(Around { same: true, both: zero() }),
            Ok(word) if word == "valid" => Ok(Around { same: false, both: zero() }),
            Ok(word) => {
                Err(refuse(Error::value(format!("padding={:?}: use a number, \"same\" or \"valid\"", word.to_str()?))))
            }
            Err(_) => Ok(Around { same: false, both: object.extract()? }),
        }
    }
}

fn one() -> Ints {
    Ints(smallvec![1])
}

macro_rules! convolution {
    ($name:ident, $axes:literal, $doc:literal) => {
        #[doc = $doc]
        #[pyfunction]
        #[pyo3(
            signature = (input, weight, bias = None, stride = None, padding = None, dilation = None, groups = 1),
            text_signature = "(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1)"
        )]
        pub fn $name(
            input: Given<'_>,
            weight: Given<'_>,
            bias: Perhaps<'_>,
            stride: Option<Ints>,
            padding: Option<Around>,
            dilation: Option<Ints>,
            groups: i64,
        ) -> PyResult<PyTensor> {
            let (stride, dilation) = (stride.unwrap_or_else(one), dilation.unwrap_or_else(one));
            let padding = padding.unwrap_or(Around { same: false, both: Ints(smallvec![0]) });
            let settings = Convolution {
                axes: $axes,
                stride: &stride.0,
                padding: if padding.same { Padding::Same } else { Padding::Both(&padding.both.0) },
                dilation: &dilation.0,
                groups,
            };
            made(|| nn::convolve(&input.0, &weight.0, bias.as_ref().map(|bias| &bias.0), &settings))
        }
    };
}

convolution!(conv1d, 1, "Convolve over one axis: input (n, in, l), weight (out, in / groups, k).");
convolution!(conv2d, 2, "Convolve over two axes: input (n, in, h, w), weight (out, in / groups, kh, kw).");
convolution!(conv3d, 3, "Convolve over three axes: input (n, in, d, h, w), weight (out, in / groups, kd, kh, kw).");

/// Values alone, or with their positions.
#[derive(IntoPyObject)]
pub enum Pooled {
    Values(PyTensor),
    Positions(PyTensor, PyTensor),
}

macro_rules! max_pool {
    ($name:ident, $axes:literal, $doc:literal) => {
        #[doc = $doc]
        #[pyfunction]
        #[pyo3(
            signature = (
                input, kernel_size, stride = None, padding = None, dilation = None, ceil_mode = false,
                return_indices = false
            ),
            text_signature = "(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False)"
        )]
        pub fn $name(
            input: Given<'_>,
            kernel_size: Ints,
            stride: Option<Ints>,
            padding: Option<Ints>,
            dilation: Option<Ints>,
            ceil_mode: bool,
            return_indices: bool,
        ) -> PyResult<Pooled> {
            let dilation = dilation.unwrap_or_else(one);
            let settings = Pooling {
                axes: $axes,
                kernel: &kernel_size.0,
                stride: stride.as_ref().map_or(&[], |stride| &stride.0),
                padding: padding.as_ref().map_or(&[0], |padding| &padding.0),
                dilation: &dilation.0,
                ceil_mode,
            };
            if !return_indices {
                return Ok(Pooled::Values(made(|| nn::max_pool(&input.0, &settings))?));
            }
            let mut positions = None;
            let values = made(|| {
                let (values, at) = nn::max_pool_with_positions(&input.0, &settings)?;
                positions = Some(at);
                Ok(values)
            })?;
            match positions {
                Some(positions) => Ok(Pooled::Positions(values, made(|| Ok(positions))?)),
                None => Ok(Pooled::Values(values)),
            }
        }
    };
}

max_pool!(max_pool1d, 1, "The largest element of each window over the last axis.");
max_pool!(max_pool2d, 2, "The largest element of each window over the last two axes.");
max_pool!(max_pool3d, 3, "The largest element of each window over the last three axes.");

macro_rules! avg_pool {
    ($name:ident, $axes:literal, $doc:literal) => {
        #[doc = $doc]
        #[pyfunction]
        #[pyo3(
            signature = (
                input, kernel_size, stride = None, padding = None, ceil_mode = false, count_include_pad = true,
                divisor_override = None
            ),
            text_signature = "(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None)"
        )]
        pub fn $name(
            input: Given<'_>,
            kernel_size: Ints,
            stride: Option<Ints>,
            padding: Option<Ints>,
            ceil_mode: bool,
            count_include_pad: bool,
            divisor_override: Option<i64>,
        ) -> PyResult<PyTensor> {
            let settings = Pooling {
                axes: $axes,
                kernel: &kernel_size.0,
                stride: stride.as_ref().map_or(&[], |stride| &stride.0),
                padding: padding.as_ref().map_or(&[0], |padding| &padding.0),
                dilation: &[1],
                ceil_mode,
            };
            let divisor = match (divisor_override, count_include_pad) {
                (Some(n), _) => Divisor::Given(n),
                (None, true) => Divisor::Padded,
                (None, false) => Divisor::Inside,
            };
            made(|| nn::avg_pool(&input.0, &settings, divisor))
        }
    };
}

avg_pool!(avg_pool1d, 1, "The mean of each window over the last axis.");
avg_pool!(avg_pool2d, 2, "The mean of each window over the last two axes.");
avg_pool!(avg_pool3d, 3, "The mean of each window over the last three axes.");

/// Extents of a result, one or one for each axis; None keeps that of the input.
pub struct Sizes(SmallVec<[Option<i64>; 3]>);

impl<'a, 'py> FromPyObject<'a, 'py> for Sizes {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Sizes> {
        if let Ok(one) = object.extract::<Option<i64>>() {
            return Ok(Sizes(smallvec![one]));
        }
        let items = object.try_iter()?.map(|item| item?.extract::<Option<i64>>());
        items.collect::<PyResult<SmallVec<_>>>().map(Sizes)
    }
}

macro_rules! adaptive_avg_pool {
    ($name:ident, $axes:literal, $doc:literal) => {
        #[doc = $doc]
        #[pyfunction]
        #[pyo3(signature = (input, output_size))]
        pub fn $name(input: Given<'_>, output_size: Sizes) -> PyResult<PyTensor> {
            made(|| nn::adaptive_avg_pool(&input.0, $axes, &output_size.0))
        }
    };
}

adaptive_avg_pool!(adaptive_avg_pool1d, 1, "The means of output_size windows that cover the last axis.");
adaptive_avg_pool!(
    adaptive_avg_pool2d,
    2,
    "The means of windows that cover the last two axes, output_size along each."
);
adaptive_avg_pool!(
    adaptive_avg_pool3d,
    3,
    "The means of windows that cover the last three axes, output_size along each."
);
