//! Integers that must lie in a range: indices of a gather, classes of a loss. What is known when it is recorded is
//! checked at once, so that the error stands on the user's line; a replayed step makes the same checks again.

use super::engine::Value;
use super::functions::{binary, cast, composite, gather, iota, reshape_to, select};
use super::handle::Tensor;
use super::trace;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::GatherMode;
use crate::machine::cpu::view::{View, for_each_row};
use crate::ops::one_hot::CLASS_INDEX;
use crate::ops::{arithmetic, compare};
use crate::shape::Shape;
use smallvec::smallvec;

/// Which integers an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// From -size to size - 1, along this axis.
    Indices { size: usize, axis: usize },
    /// From 0 to classes - 1; one more is let through.
    Classes { classes: usize, ignored: Option<i64> },
}

/// A check that an operation makes of one of its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexCheck {
    pub op: &'static str,
    pub allowed: Allowed,
}

impl IndexCheck {
    #[inline(always)]
    fn admits(&self, index: i64) -> bool {
        match self.allowed {
            Allowed::Indices { size, .. } => (-(size as i64)..size as i64).contains(&index),
            Allowed::Classes { classes, ignored } => (0..classes as i64).contains(&index) || Some(index) == ignored,
        }
    }

    fn refusal(&self, index: i64) -> Error {
        let op = self.op;
        match self.allowed {
            Allowed::Indices { size, axis } => {
                Error::index(format!("{op}: index {index} is out of range for axis {axis} of size {size}"))
            }
            Allowed::Classes { classes, .. } => {
                Error::index(format!("{op}: {index} is no class; the classes are 0 to {}", classes as i64 - 1))
            }
        }
    }

    /// Checks the elements of a view.
    ///
    /// # Safety
    /// The view lies in valid memory.
    pub unsafe fn check(&self, view: &View) -> Result<()> {
        // SAFETY: the caller's promise.
        let refused = unsafe {
            match view.dtype {
                DType::Bool | DType::U8 => self.first_refused(view, |x: u8| x.into()),
                DType::I32 => self.first_refused(view, |x: i32| x.into()),
                DType::I64 => self.first_refused(view, |x: i64| x),
                DType::F32 => self.first_refused(view, |x: f32| x as i64),
                DType::F64 => self.first_refused(view, |x: f64| x as i64),
            }
        };
        match refused {
            Some(index) => Err(self.refusal(index)),
            None => Ok(()),
        }
    }
}

impl IndexCheck {
    unsafe fn first_refused<T: Copy>(&self, view: &View, as_index: impl Fn(T) -> i64) -> Option<i64> {
        let from = view.ptr.cast::<T>().cast_const();
        let mut refused = None;
        for_each_row(&view.shape, [&view.strides], |[at], n, [step]| {
            // SAFETY: offsets come from the shape and strides of a valid view.
            let mut row = (0..n as isize).map(|k| as_index(unsafe { *from.offset(at + k * step) }));
            refused = refused.or_else(|| row.find(|&index| !self.admits(index)));
        });
        refused
    }
}

/// Refuses integers that are known already and out of range; others are checked when they are used. Whether they are
/// known.
fn check(target: &Tensor, check: IndexCheck) -> Result<bool> {
    let Ok(Some((value, ty))) = target.known_value() else { return Ok(false) };
    if !value.buffer.device().is_cpu() {
        // Looking would wait for the device, whose kernels check them anyway.
        return Ok(false);
    }
    // SAFETY: a value's shape and strides stay in its buffer, which is held here.
    unsafe { check.check(&value.view(&ty))? };
    trace::note_check(target, check);
    Ok(true)
}

/// Refuses indices that are known already and out of range.
pub fn check_indices(op: &'static str, indices: &Tensor, size: usize, axis: usize) -> Result<()> {
    check(indices, IndexCheck { op, allowed: Allowed::Indices { size, axis } }).map(drop)
}

/// Indices along an axis, counted from its start. Out of range is an error: now if they are known, else of a kernel.
pub fn counted_indices(op: &'static str, indices: &Tensor, size: usize, axis: usize) -> Result<Tensor> {
    if !check(indices, IndexCheck { op, allowed: Allowed::Indices { size, axis } })? {
        // A gather checks what it is given, and names the axis.
        let mut shape: Shape = std::iter::repeat_n(1, axis).collect();
        shape.push(size);
        let counting = reshape_to(&iota(size, indices.device())?, shape)?;
        return reshape_to(&gather(GatherMode::Take, &counting, indices, axis as i64)?, indices.shape());
    }
    let indices = cast(indices, DType::I64)?;
    let is_negative = binary(&compare::LESS, (&indices).into(), 0i64.into())?;
    let wrapped = binary(&arithmetic::ADD, (&indices).into(), (size as i64).into())?;
    select(&is_negative, (&wrapped).into(), (&indices).into())
}

/// Class indices as a loss may use them: themselves if `check_classes` can look at them, else ones that a kernel checks.
pub fn checked_classes(target: &Tensor, classes: usize, ignored: Option<i64>) -> Result<Tensor> {
    let on_host = |value: &Value| value.buffer.device().is_cpu();
    let is_seen = matches!(target.known_value(), Ok(Some((value, _))) if on_host(&value));
    if is_seen || classes == 0 || !target.dtype().is_integer() {
        return Ok(target.clone());
    }
    let attrs = smallvec![classes as i64, i64::from(ignored.is_some()), ignored.unwrap_or_default()];
    composite(&CLASS_INDEX, attrs, &[target.into()])
}

/// Refuses class indices that are known already and are no class; `ignored` is let through.
pub fn check_classes(op: &'static str, target: &Tensor, classes: usize, ignored: Option<i64>) -> Result<()> {
    if !target.dtype().is_integer() {
        return Ok(());
    }
    check(target, IndexCheck { op, allowed: Allowed::Classes { classes, ignored } }).map(drop)
}
