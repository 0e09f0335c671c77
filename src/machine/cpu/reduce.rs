//! The two reduction trees.

use super::dispatch::Kernels;

/// Reduces `rows` contiguous runs of `n` elements each by the lane tree.
pub type RowsKernel = unsafe fn(rows: usize, n: usize, from: *const u8, out: *mut u8);

/// The kernels of one reduction for one dtype.
pub struct ReduceKernels {
    pub rows: [RowsKernel; 3],
    /// out[i] = op(args[0][i], args[1][i]): accumulates rows, and folds partials.
    pub combine: Kernels,
}

use crate::dtype::DType;

pub fn sum(_: DType) -> Option<&'static ReduceKernels> {
    None
}
pub fn max(_: DType) -> Option<&'static ReduceKernels> {
    None
}
pub fn min(_: DType) -> Option<&'static ReduceKernels> {
    None
}
