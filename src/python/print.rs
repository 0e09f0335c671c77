//! Tensors as text: `tensor([1., 2.])`, summarised when large, with what is not the default said at the end.

use super::errors::read;
use super::export;
use crate::dtype::DType;
use crate::error::{ErrorKind, Result};
use crate::graph::TensorType;
use crate::scalar::Scalar;
use crate::tensor::{self, SliceArg, Tensor};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// More elements than this are summarised.
const MAX_ELEMENTS: usize = 1000;
/// Elements shown at each end of a summarised axis.
const EDGE: usize = 3;
const WIDTH: usize = 88;

/// What `repr` and `print` show. Evaluates. Of a tensor on a device that is gone only the form can be told.
pub fn tensor(tensor: &Tensor) -> Result<String> {
    crate::tensor::trace::refuse_read("print")?;
    let ty = tensor.ty();
    let (mut text, is_empty) = match elements(tensor, &ty) {
        Ok(text) => (text, ty.shape.size() == 0),
        Err(error) if error.kind() == ErrorKind::DeviceLost => (format!("tensor(lost, shape={}", ty.shape), false),
        Err(error) => return Err(error),
    };
    let default = match ty.dtype {
        DType::F32 | DType::I64 | DType::Bool => !is_empty || ty.dtype == DType::F32,
        _ => false,
    };
    if !default {
        text.push_str(&format!(", dtype={}", ty.dtype));
    }
    let device = tensor.device();
    if !device.is_cpu() {
        text.push_str(&format!(", device='{device}'"));
    }
    if tensor.requires_grad() {
        text.push_str(", requires_grad=True");
    }
    text.push(')');
    Ok(text)
}

/// The beginning of the text, with the elements.
fn elements(tensor: &Tensor, ty: &TensorType) -> Result<String> {
    let large = ty.shape.size() > MAX_ELEMENTS;
    let shown = if large { corners(tensor)? } else { tensor.clone() };
    let bytes = tensor::to_bytes(&shown)?;
    let numbers: Vec<Scalar> =
        bytes.chunks_exact(ty.dtype.size()).map(|element| Scalar::from_bytes(ty.dtype, element)).collect();
    let words = words(&numbers, ty.dtype);
    let width = words.iter().map(String::len).max().unwrap_or(0);
    let gaps: Vec<bool> = ty.shape.iter().map(|&dim| large && dim > 2 * EDGE).collect();
    let mut text = String::from("tensor(");
    let mut rest = words.iter().map(String::as_str);
    nest(&mut text, &shown.shape(), &gaps, width, &mut rest, "tensor(".len());
    if ty.shape.size() == 0 && ty.shape.rank() > 1 {
        text.push_str(&format!(", shape={}", ty.shape));
    }
    Ok(text)
}

/// The ends of every long axis, joined.
fn corners(tensor: &Tensor) -> Result<Tensor> {
    let _mode = tensor::GradGuard::new(false);
    let (value, ty) = tensor.value()?;
    let mut shown = Tensor::from_value(value, ty);
    for axis in 0..shown.shape().rank() {
        let dim = shown.shape()[axis];
        if dim > 2 * EDGE {
            let part = |start: usize| [SliceArg { axis, start: start as i64, length: EDGE, step: 1 }];
            let (head, tail) = (tensor::slice(&shown, &part(0))?, tensor::slice(&shown, &part(dim - EDGE))?);
            shown = tensor::concat(&[&head, &tail], axis as i64)?;
        }
    }
    Ok(shown)
}

/// Each number as text, all in one style.
fn words(numbers: &[Scalar], dtype: DType) -> Vec<String> {
    if !dtype.is_float() {
        return numbers
            .iter()
            .map(|number| match number {
                Scalar::Bool(true) => "True".to_owned(),
                Scalar::Bool(false) => "False".to_owned(),
                number => number.as_i64().to_string(),
            })
            .collect();
    }
    let finite: Vec<f64> = numbers.iter().map(|number| number.as_f64()).filter(|x| x.is_finite()).collect();
    let largest = finite.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let smallest = finite.iter().filter(|x| **x != 0.0).fold(f64::INFINITY, |smallest, x| smallest.min(x.abs()));
    let exponent = largest >= 1e8 || (smallest.is_finite() && (smallest < 1e-4 || largest / smallest >= 1e5));
    let digits = if exponent { 4 } else { decimals(&finite, dtype) };
    numbers.iter().map(|number| word(number.as_f64(), exponent, digits)).collect()
}

/// The fewest decimals, at most four, that show every number exactly enough.
fn decimals(finite: &[f64], dtype: DType) -> usize {
    let tolerance = if dtype == DType::F32 { 1e-6 } else { 1e-12 };
    let exact = |digits: usize| {
        let scale = 10f64.powi(digits as i32);
        finite.iter().all(|x| ((x * scale).round() - x * scale).abs() <= tolerance * scale.max(x.abs()))
    };
    (0..4).find(|&digits| exact(digits)).unwrap_or(4)
}

fn word(x: f64, exponent: bool, digits: usize) -> String {
    match x {
        x if x.is_nan() => "nan".to_owned(),
        x if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.to_owned(),
        x if exponent => {
            let text = format!("{x:.digits$e}");
            let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
            let power: i32 = power.parse().unwrap_or(0);
            format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
        }
        x if digits == 0 => format!("{x:.0}."),
        x => format!("{x:.digits$}"),
    }
}

/// Writes nested brackets, `indent` columns in.
fn nest<'a>(
    text: &mut String,
    shape: &[usize],
    gaps: &[bool],
    width: usize,
    words: &mut impl Iterator<Item = &'a str>,
    indent: usize,
) {
    let Some((&length, inner)) = shape.split_first() else {
        text.push_str(words.next().unwrap_or(""));
        return;
    };
    text.push('[');
    let mut column = indent + 1;
    for position in 0..length {
        let gap = gaps[0] && position == EDGE;
        if inner.is_empty() {
            if position > 0 {
                text.push_str(", ");
                column += 2;
            }
            let need = width + if gap { 5 } else { 0 };
            if column + need > WIDTH && column > indent + 1 {
                text.truncate(text.trim_end_matches(' ').len());
                text.push_str(&format!("\n{}", " ".repeat(indent + 1)));
                column = indent + 1;
            }
            if gap {
                text.push_str("..., ");
            }
            text.push_str(&format!("{:>width$}", words.next().unwrap_or("")));
            column += need;
            continue;
        }
        let newline = format!(",{}{}", "\n".repeat(inner.len()), " ".repeat(indent + 1));
        if position > 0 {
            text.push_str(&newline);
        }
        if gap {
            text.push_str("...");
            text.push_str(&newline);
        }
        nest(text, inner, &gaps[1..], width, words, indent + 1);
    }
    text.push(']');
}

/// `format(x, spec)`: of one element as a number, else only without a spec.
pub fn format<'py>(py: Python<'py>, tensor: &Tensor, spec: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if spec.len()? == 0 {
        return Ok(read(|| self::tensor(tensor))?.into_pyobject(py)?.into_any());
    }
    if tensor.shape().size() != 1 {
        let refused = export::not_one("format", tensor).message().to_owned();
        return Err(PyTypeError::new_err(refused));
    }
    let number = export::number(py, read(|| tensor::item(tensor))?)?;
    py.import("builtins")?.call_method1("format", (number, spec))
}
