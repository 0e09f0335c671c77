//! The slice kernel that copies elements: no op, but a step of plans.

use crate::dtype::DType;
use crate::machine::cpu::dispatch::{Arg, Kernels};

static BYTES: Kernels = [copy_elements::<u8>; 3];
static WORDS: Kernels = [copy_elements::<u32>; 3];
static LONGS: Kernels = [copy_elements::<u64>; 3];

pub fn copy(dtype: DType) -> &'static Kernels {
    match dtype.size() {
        1 => &BYTES,
        4 => &WORDS,
        _ => &LONGS,
    }
}

unsafe fn copy_elements<T: Copy>(n: usize, out: *mut u8, args: &[Arg]) {
    let (out, from) = (out.cast::<T>(), args[0].ptr.cast::<T>());
    // SAFETY: the contract of slice kernels: n elements each, or one scalar; `out` may be `from` itself.
    unsafe {
        if args[0].scalar {
            let x = *from;
            (0..n).for_each(|i| *out.add(i) = x);
        } else {
            out.copy_from(from, n);
        }
    }
}
