//! Chain kernels: several elementwise ops in one pass, with any number of operands and results. The scalar functions are
//! those of the single ops, so a chain rounds like its parts; what it saves is stores, loads and calls between them.

use super::dispatch::{Arg, Operand, by_isa};
use std::marker::PhantomData;
use std::ops::Range;

/// Computes outs[k] for `rows` rows of `width` elements, one after another. An output may equal an operand exactly (in
/// place), never overlap one partly, and no two outputs overlap.
pub type ChainKernel = unsafe fn(rows: usize, width: usize, outs: &[*mut u8], args: &[Arg]);

/// The kernel of one chain for one dtype, by instruction set: index with `isa() as usize`.
pub type ChainKernels = [ChainKernel; 3];

/// The most operands or results of a chain.
pub const MOST_ARGS: usize = 16;

/// Elements computed between two rounds of stores, in long, middle and short slices. Fewer than for single ops: all
/// values of a chain are in registers at once. A short chain takes as many: the compiler unrolls a block of 32 of it
/// before it looks for vectors, and then finds none.
const LONG: usize = 32;
pub const LONG_OF_SHORT_CHAIN: usize = 64;
const SHORT_CHAIN: usize = 3;
const MIDDLE: usize = 16;
const SHORT: usize = 4;

/// The elements of a block. Hidden from the compiler where it would unroll them like that.
#[inline(always)]
pub fn elements<const W: usize>() -> usize {
    if W == MIDDLE { std::hint::black_box(W).min(W) } else { W }
}

/// How a chain reads an operand: a type of element stands for one element each, or one for all; `Column` of it for one
/// for each row.
pub trait Input {
    type Element: Copy;
    type Reader;
    const IS_COLUMN: bool;

    /// # Safety
    /// The argument points to elements of this type.
    unsafe fn reader(arg: Arg) -> Self::Reader;

    /// What `read` needs for elements from `at` on, which lie in this row.
    ///
    /// # Safety
    /// The row and the element are there.
    unsafe fn at(reader: &Self::Reader, row: usize, at: usize) -> *const Self::Element;

    /// Element j from there on.
    ///
    /// # Safety
    /// It is in the row, and among the block that a chain computes at once.
    unsafe fn read(from: *const Self::Element, j: usize) -> Self::Element;
}

pub struct Column<T>(PhantomData<T>);

macro_rules! input {
    ($($T:ident)*) => {$(
        impl Input for $T {
            type Element = $T;
            type Reader = Operand<$T>;
            const IS_COLUMN: bool = false;

            #[inline(always)]
            unsafe fn reader(arg: Arg) -> Operand<$T> {
                // SAFETY: the caller's contract, here and below.
                unsafe { Operand::new(arg) }
            }
            #[inline(always)]
            unsafe fn at(reader: &Operand<$T>, _: usize, at: usize) -> *const $T {
                // SAFETY: as above.
                unsafe { reader.at(at) }
            }
            #[inline(always)]
            unsafe fn read(from: *const $T, j: usize) -> $T {
                // SAFETY: as above.
                unsafe { *from.add(j) }
            }
        }
    )*};
}
input!(f32 f64 u8);

impl<T: Copy> Input for Column<T> {
    type Element = T;
    type Reader = Arg;
    const IS_COLUMN: bool = true;

    #[inline(always)]
    unsafe fn reader(arg: Arg) -> Arg {
        arg
    }
    #[inline(always)]
    unsafe fn at(arg: &Arg, row: usize, _: usize) -> *const T {
        // SAFETY: the column has an element for each row, unless it is a scalar.
        unsafe { arg.ptr.cast::<T>().add(if arg.scalar { 0 } else { row }) }
    }
    #[inline(always)]
    unsafe fn read(from: *const T, _: usize) -> T {
        // SAFETY: it points to the element of the row.
        unsafe { *from }
    }
}

/// The body of a chain kernel, as `ops` writes it by macro.
pub trait Chain<T> {
    const STEPS: usize;
    /// Whether an operand is a column.
    const BY_ROW: bool;
    type Operands;
    /// All results of `W` elements.
    type Block<const W: usize>;

    /// # Safety
    /// One argument for each operand, of its type.
    unsafe fn operands(args: &[Arg]) -> Self::Operands;

    /// # Safety
    /// Elements `at..at + W` lie in the slices, and in this row if the chain goes by row.
    unsafe fn block<const FMA: bool, const W: usize>(
        operands: &Self::Operands,
        row: usize,
        at: usize,
    ) -> Self::Block<W>;

    /// # Safety
    /// There is one output for each result, with room for elements `at..at + W`.
    unsafe fn store<const W: usize>(block: Self::Block<W>, outs: &[*mut u8], at: usize);
}

/// The kernels of a chain.
pub const fn chain<C: Chain<T>, T>() -> ChainKernels {
    by_isa!(run<C: Chain<T>, T>(rows: usize, width: usize, outs: &[*mut u8], args: &[Arg]))
}

#[inline(always)]
unsafe fn run<C: Chain<T>, T, const FMA: bool>(rows: usize, width: usize, outs: &[*mut u8], args: &[Arg]) {
    // SAFETY: the caller's contract.
    unsafe {
        if C::STEPS <= SHORT_CHAIN {
            all::<C, T, FMA, LONG_OF_SHORT_CHAIN>(rows, width, outs, args);
        } else {
            all::<C, T, FMA, LONG>(rows, width, outs, args);
        }
    }
}

#[inline(always)]
unsafe fn all<C: Chain<T>, T, const FMA: bool, const LONG: usize>(
    rows: usize,
    width: usize,
    outs: &[*mut u8],
    args: &[Arg],
) {
    // SAFETY: the caller's contract.
    unsafe {
        let operands = C::operands(args);
        if C::BY_ROW {
            for row in 0..rows {
                blocks::<C, T, FMA, LONG>(&operands, row, row * width..(row + 1) * width, outs);
            }
        } else {
            blocks::<C, T, FMA, LONG>(&operands, 0, 0..rows * width, outs);
        }
    }
}

/// Elements of one row, or all.
#[inline(always)]
unsafe fn blocks<C: Chain<T>, T, const FMA: bool, const LONG: usize>(
    operands: &C::Operands,
    row: usize,
    elements: Range<usize>,
    outs: &[*mut u8],
) {
    let (mut at, n, to) = (elements.start, elements.len(), elements.end);
    // SAFETY: the caller's contract. A block is computed from what was read before any of it is stored; the end is
    // computed first and stored last, for it may overlap the block before it.
    unsafe {
        if n >= LONG {
            let end = (n % LONG != 0).then(|| C::block::<FMA, LONG>(operands, row, to - LONG));
            while to - at >= LONG {
                C::store(C::block::<FMA, LONG>(operands, row, at), outs, at);
                at += LONG;
            }
            if let Some(end) = end {
                C::store(end, outs, to - LONG);
            }
        } else if n >= MIDDLE {
            let end = C::block::<FMA, MIDDLE>(operands, row, to - MIDDLE);
            while to - at > MIDDLE {
                C::store(C::block::<FMA, MIDDLE>(operands, row, at), outs, at);
                at += MIDDLE;
            }
            C::store(end, outs, to - MIDDLE);
        } else if n >= SHORT {
            let end = C::block::<FMA, SHORT>(operands, row, to - SHORT);
            while to - at > SHORT {
                C::store(C::block::<FMA, SHORT>(operands, row, at), outs, at);
                at += SHORT;
            }
            C::store(end, outs, to - SHORT);
        } else {
            while at < to {
                C::store(C::block::<FMA, 1>(operands, row, at), outs, at);
                at += 1;
            }
        }
    }
}
