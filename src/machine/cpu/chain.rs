//! Chain kernels: several elementwise ops in one pass, with any number of operands and results. The scalar functions are
//! those of the single ops, so a chain rounds like its parts; what it saves is stores, loads and calls between them.

use super::dispatch::{Arg, by_isa};

/// Computes outs[k][i] for i < n. An output may equal an operand exactly (in place), never overlap one partly, and no
/// two outputs overlap.
pub type ChainKernel = unsafe fn(n: usize, outs: &[*mut u8], args: &[Arg]);

/// The kernel of one chain for one dtype, by instruction set: index with `isa() as usize`.
pub type ChainKernels = [ChainKernel; 3];

/// The most operands or results of a chain.
pub const MOST_ARGS: usize = 16;

/// Elements computed between two rounds of stores, in long, middle and short slices. Fewer than for single ops: all
/// values of a chain are in registers at once. A short chain takes as many: the compiler unrolls a block of 32 of it
/// before it looks for vectors, and then finds none.
const LONG: usize = 32;
const LONG_OF_SHORT_CHAIN: usize = 64;
const SHORT_CHAIN: usize = 3;
const MIDDLE: usize = 16;
const SHORT: usize = 4;

/// The body of a chain kernel, as `ops` writes it by macro.
pub trait Chain<T> {
    const STEPS: usize;
    type Operands;
    /// All results of `W` elements.
    type Block<const W: usize>;

    /// # Safety
    /// One argument for each operand, of its type.
    unsafe fn operands(args: &[Arg]) -> Self::Operands;

    /// # Safety
    /// Elements `at..at + W` lie in the slices.
    unsafe fn block<const FMA: bool, const W: usize>(operands: &Self::Operands, at: usize) -> Self::Block<W>;

    /// # Safety
    /// There is one output for each result, with room for elements `at..at + W`.
    unsafe fn store<const W: usize>(block: Self::Block<W>, outs: &[*mut u8], at: usize);
}

/// The kernels of a chain.
pub const fn chain<C: Chain<T>, T>() -> ChainKernels {
    by_isa!(run<C: Chain<T>, T>(n: usize, outs: &[*mut u8], args: &[Arg]))
}

#[inline(always)]
unsafe fn run<C: Chain<T>, T, const FMA: bool>(n: usize, outs: &[*mut u8], args: &[Arg]) {
    // SAFETY: the caller's contract.
    unsafe {
        if C::STEPS <= SHORT_CHAIN {
            blocks::<C, T, FMA, LONG_OF_SHORT_CHAIN>(n, outs, args);
        } else {
            blocks::<C, T, FMA, LONG>(n, outs, args);
        }
    }
}

#[inline(always)]
unsafe fn blocks<C: Chain<T>, T, const FMA: bool, const LONG: usize>(n: usize, outs: &[*mut u8], args: &[Arg]) {
    // SAFETY: the caller's contract. A block is computed from what was read before any of it is stored; the end is
    // computed first and stored last, for it may overlap the block before it.
    unsafe {
        let operands = C::operands(args);
        let mut at = 0;
        if n >= MIDDLE {
            let end = C::block::<FMA, MIDDLE>(&operands, n - MIDDLE);
            while n - at >= LONG {
                C::store(C::block::<FMA, LONG>(&operands, at), outs, at);
                at += LONG;
            }
            while n - at > MIDDLE {
                C::store(C::block::<FMA, MIDDLE>(&operands, at), outs, at);
                at += MIDDLE;
            }
            C::store(end, outs, n - MIDDLE);
        } else if n >= SHORT {
            let end = C::block::<FMA, SHORT>(&operands, n - SHORT);
            while n - at > SHORT {
                C::store(C::block::<FMA, SHORT>(&operands, at), outs, at);
                at += SHORT;
            }
            C::store(end, outs, n - SHORT);
        } else {
            while at < n {
                C::store(C::block::<FMA, 1>(&operands, at), outs, at);
                at += 1;
            }
        }
    }
}
