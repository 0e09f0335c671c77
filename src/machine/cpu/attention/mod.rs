//! Attention on the CPU: softmax(scale·q·kᵀ + mask)·v and its gradient, tile by tile. No more than a tile of scores
//! exists at a time, for each thread, however long the sequences are; tiles that a causal mask empties are skipped.
//!
//! Tiles are cut by fixed sizes, and each result adds its tiles up in order, so bits depend on the types alone: not on
//! strides, and not on how the tiles are dealt out to threads. Knows no op.

mod backward;
mod forward;
mod product;
#[cfg(test)]
mod tests;
mod tile;

pub use backward::{Cotangents, backward};
pub use forward::forward;

use super::float::Float;
use super::gemm::{Element, Mat, MatMut};
use super::view::View;
use crate::dtype::DType;
use crate::shape::{Shape, Strides};

/// Queries and keys of a tile of scores: whole vectors, and together small enough for the L2 cache.
pub const QUERIES: usize = 64;
pub const KEYS: usize = 128;

/// What takes part, beside the operands.
#[derive(Clone, Copy)]
pub struct Masks<'a> {
    /// Query i sees the keys up to i.
    pub causal: bool,
    /// Over queries and keys: true where a key takes part, or a float that is added to the scores.
    pub mask: Option<&'a View>,
}

/// f32 and f64.
pub trait Number: Element + Float {}
impl Number for f32 {}
impl Number for f64 {}

/// A stack of matrices: one for each index of the leading axes.
struct Stack<T> {
    ptr: *const T,
    shape: Shape,
    steps: Strides,
    rs: isize,
    cs: isize,
}

// SAFETY: threads read through it, or write rows of their own.
unsafe impl<T: Sync> Sync for Stack<T> {}

impl<T> Stack<T> {
    /// # Safety
    /// The view has two axes at least, and elements of type T.
    unsafe fn new(view: &View) -> Stack<T> {
        let lead = view.shape.rank() - 2;
        Stack {
            ptr: view.ptr.cast::<T>().cast_const(),
            shape: Shape::new(&view.shape[..lead]),
            steps: Strides::from_slice(&view.strides[..lead]),
            rs: view.strides[lead],
            cs: view.strides[lead + 1],
        }
    }

    /// The matrix of this index, from a row on.
    ///
    /// # Safety
    /// There is such a matrix and row.
    unsafe fn rows(&self, item: usize, row: usize) -> Mat<T> {
        let (mut rest, mut offset) = (item, row as isize * self.rs);
        for (&dim, &step) in self.shape.iter().zip(&self.steps).rev() {
            offset += (rest % dim) as isize * step;
            rest /= dim;
        }
        // SAFETY: the caller's promise.
        Mat { ptr: unsafe { self.ptr.offset(offset) }, rs: self.rs, cs: self.cs }
    }

    /// The same to be written: for results, whose rows are contiguous.
    ///
    /// # Safety
    /// As above.
    unsafe fn target(&self, item: usize, row: usize) -> MatMut<T> {
        // SAFETY: the caller's promise.
        let Mat { ptr, rs, cs } = unsafe { self.rows(item, row) };
        MatMut { ptr: ptr.cast_mut(), rs, cs }
    }
}

/// One number a row as a stack of matrices of one column.
fn column(view: &View) -> View {
    let mut column = view.clone();
    column.shape.push(1);
    column.strides.push(1);
    column
}

fn turned<T>(from: Mat<T>) -> Mat<T> {
    Mat { rs: from.cs, cs: from.rs, ..from }
}

/// The operands that both directions read.
struct Problem<T> {
    query: Stack<T>,
    key: Stack<T>,
    value: Stack<T>,
    scale: T,
    causal: bool,
    mask: Option<(Stack<u8>, bool)>,
    /// Matrices, queries, keys, and the widths of a key and of a value.
    items: usize,
    queries: usize,
    keys: usize,
    width: usize,
    out_width: usize,
}

impl<T: Number> Problem<T> {
    /// # Safety
    /// Query (…, L, E), key (…, S, E), value (…, S, Ev) and scale () of type T, and the mask (…, L, S), lie in valid
    /// memory. Nothing is empty.
    unsafe fn new([query, key, value, scale]: [&View; 4], masks: Masks) -> Problem<T> {
        let lead = query.shape.rank() - 2;
        // SAFETY: the caller's promise.
        unsafe {
            Problem {
                query: Stack::new(query),
                key: Stack::new(key),
                value: Stack::new(value),
                scale: *scale.ptr.cast::<T>(),
                causal: masks.causal,
                mask: masks.mask.map(|mask| (Stack::new(mask), mask.dtype == DType::Bool)),
                items: query.shape[..lead].iter().product(),
                queries: query.shape[lead],
                keys: key.shape[lead],
                width: query.shape[lead + 1],
                out_width: value.shape[lead + 1],
            }
        }
    }

    /// The keys that queries up to this one see.
    fn seen(&self, queries: usize) -> usize {
        if self.causal { self.keys.min(queries) } else { self.keys }
    }

    /// The tile of some queries by some keys, with its scores at `scores`.
    ///
    /// # Safety
    /// There are such queries and keys.
    unsafe fn tile(
        &self,
        item: usize,
        (query, rows): (usize, usize),
        (key, cols): (usize, usize),
        scores: *mut T,
    ) -> tile::Tile<T> {
        tile::Tile {
            scores,
            rows,
            cols,
            stride: cols.next_multiple_of(tile::LANES),
            scale: self.scale,
            // SAFETY: the caller's promise.
            mask: unsafe { self.mask_at(item, query, key) },
            diagonal: self.causal.then(|| query as isize - key as isize + 1),
        }
    }

    /// Multiply-adds of one product of scores.
    fn products(&self) -> usize {
        let pairs = self.items.saturating_mul(self.queries).saturating_mul(self.keys);
        if self.causal { pairs / 2 } else { pairs }
    }

    /// The mask over a tile.
    ///
    /// # Safety
    /// The tile lies inside the scores.
    unsafe fn mask_at(&self, item: usize, query: usize, key: usize) -> tile::Mask<T> {
        let Some((stack, is_bool)) = &self.mask else { return tile::Mask::None };
        // SAFETY: the caller's promise; a float mask has elements of type T, and its stack counts them.
        unsafe {
            let size = if *is_bool { 1 } else { size_of::<T>() as isize };
            let at = stack.rows(item, query);
            let steps = at.ptr.offset_from(stack.ptr) + key as isize * at.cs;
            let ptr = stack.ptr.byte_offset(steps * size);
            match is_bool {
                true => tile::Mask::Keep { ptr, rs: at.rs, cs: at.cs },
                false => tile::Mask::Add { ptr: ptr.cast(), rs: at.rs, cs: at.cs },
            }
        }
    }
}
