//! Slice kernels: the form in which every elementwise op reaches the executors, compiled once for each instruction set.
//!
//! An op is a struct with one scalar `eval`, and `unary`, `binary` and `ternary` make its table of kernels for each type
//! of element. `by_isa!` makes such a table from any other generic body. A body computes a block in registers before it
//! stores, so an output may be an input's own memory without a slow path, and a spread scalar is read like a slice. Every
//! element goes through the same operations wherever it lies, so no result depends on length or position.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// One operand of a slice kernel: contiguous elements, or one scalar for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub ptr: *const u8,
    pub scalar: bool,
}

/// Computes out[i] for i < n. `out` may equal an input pointer exactly (in place), never overlap partly.
/// Pointers are aligned to their elements.
pub type SliceKernel = unsafe fn(n: usize, out: *mut u8, args: &[Arg]);

/// The kernel of one op for one dtype, by instruction set: index with `isa() as usize`.
pub type Kernels = [SliceKernel; 3];

/// A scalar function of one element. `FMA` says whether `Float::fma` may fuse.
pub trait UnaryFn<T, U> {
    /// Whether the body vectorises; false for those that call out, which then compute no element twice.
    const VECTOR: bool = true;
    fn eval<const FMA: bool>(x: T) -> U;

    /// `eval` without branches or calls, for the numbers that `is_common`. Kernels call `eval` for the others alone.
    #[inline(always)]
    fn common<const FMA: bool>(x: T) -> U {
        Self::eval::<FMA>(x)
    }
    #[inline(always)]
    fn is_common(_: T) -> bool {
        true
    }
}

/// A scalar function of two elements of one type.
pub trait BinaryFn<T, U> {
    const VECTOR: bool = true;
    fn eval<const FMA: bool>(x: T, y: T) -> U;

    /// As for one element.
    #[inline(always)]
    fn common<const FMA: bool>(x: T, y: T) -> U {
        Self::eval::<FMA>(x, y)
    }
    #[inline(always)]
    fn is_common(_: T, _: T) -> bool {
        true
    }
}

/// A scalar function of three elements, the first of a type of its own: a condition, or T again.
pub trait TernaryFn<C, T, U> {
    const VECTOR: bool = true;
    fn eval<const FMA: bool>(c: C, x: T, y: T) -> U;

    /// As for one element.
    #[inline(always)]
    fn common<const FMA: bool>(c: C, x: T, y: T) -> U {
        Self::eval::<FMA>(c, x, y)
    }
    #[inline(always)]
    fn is_common(_: C, _: T, _: T) -> bool {
        true
    }
}

/// Elements computed between two stores, in long, middle and short slices.
const LONG: usize = 64;
const MIDDLE: usize = 16;
const SHORT: usize = 4;

/// Compiles `body::<Types…, FMA>(args…)` for each instruction set: a table of function pointers, indexed by `Isa`.
/// The body is `#[inline(always)]`, unsafe, generic over the types given and last over `const FMA: bool`.
macro_rules! by_isa {
    ($body:ident<$($T:ident $(: $Bound:path)?),*>($($arg:ident: $Arg:ty),*)) => {{
        unsafe fn portable<$($T $(: $Bound)?),*>($($arg: $Arg),*) {
            // SAFETY: the caller keeps the contract of the body.
            unsafe { $body::<$($T,)* false>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi2")]
        unsafe fn avx2<$($T $(: $Bound)?),*>($($arg: $Arg),*) {
            // SAFETY: as above.
            unsafe { $body::<$($T,)* true>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512cd,avx2,fma,bmi2")]
        unsafe fn avx512<$($T $(: $Bound)?),*>($($arg: $Arg),*) {
            // SAFETY: as above.
            unsafe { $body::<$($T,)* true>($($arg),*) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        use portable as avx2;
        #[cfg(not(target_arch = "x86_64"))]
        use portable as avx512;
        [portable::<$($T),*> as unsafe fn($($Arg),*), avx2::<$($T),*>, avx512::<$($T),*>]
    }};
}
pub(crate) use by_isa;

/// One operand inside a kernel: where the next block is read.
pub struct Operand<T> {
    ptr: *const T,
    scalar: bool,
    spread: [MaybeUninit<T>; LONG],
}

impl<T: Copy> Operand<T> {
    /// A scalar is read here, once: the output may overwrite it.
    ///
    /// # Safety
    /// The argument points to elements of this type, for this and the function below.
    #[inline(always)]
    pub unsafe fn new(arg: Arg) -> Operand<T> {
        let ptr = arg.ptr.cast::<T>();
        let mut spread = [MaybeUninit::uninit(); LONG];
        if arg.scalar {
            // SAFETY: a scalar operand points to one element.
            spread = [MaybeUninit::new(unsafe { *ptr }); LONG];
        }
        Operand { ptr, scalar: arg.scalar, spread }
    }

    /// The elements from `i` on: up to the end of the slice, or `LONG` times the scalar.
    ///
    /// # Safety
    /// Element i lies in the slice.
    #[inline(always)]
    pub unsafe fn at(&self, i: usize) -> *const T {
        // SAFETY: the caller asks for elements inside the slice.
        if self.scalar { self.spread.as_ptr().cast() } else { unsafe { self.ptr.add(i) } }
    }
}

/// The body of a slice kernel.
trait Slice {
    /// # Safety
    /// The contract of `SliceKernel`.
    unsafe fn run<const FMA: bool>(n: usize, out: *mut u8, args: &[Arg]);
}

#[inline(always)]
unsafe fn run<S: Slice, const FMA: bool>(n: usize, out: *mut u8, args: &[Arg]) {
    // SAFETY: the caller keeps the contract.
    unsafe { S::run::<FMA>(n, out, args) }
}

const fn compile<S: Slice>() -> Kernels {
    by_isa!(run<S: Slice>(n: usize, out: *mut u8, args: &[Arg]))
}

#[inline(always)]
unsafe fn store<U, const N: usize>(block: [MaybeUninit<U>; N], out: *mut U) {
    // SAFETY: the caller computed all elements of the block and has room for them.
    unsafe { out.copy_from_nonoverlapping(block.as_ptr().cast(), N) }
}

macro_rules! slice_kernel {
    ($(#[$doc:meta])* $name:ident, $Body:ident, $Fn:ident<$($P:ident),+>, $($a:ident: $A:ident = $index:literal),+) => {
        $(#[$doc])*
        pub const fn $name<F: $Fn<$($P),+>, $($P: Copy),+>() -> Kernels {
            compile::<$Body<F, $($P),+>>()
        }

        struct $Body<F, $($P),+>(PhantomData<(F, $($P),+)>);

        impl<F: $Fn<$($P),+>, $($P: Copy),+> $Body<F, $($P),+> {
            /// Computes the elements of a block that are not common.
            ///
            /// # Safety
            /// Each operand points to as many elements as the block has.
            #[cold]
            unsafe fn mend<const FMA: bool>(block: &mut [MaybeUninit<U>], $($a: *const $A),+) {
                for (j, out) in block.iter_mut().enumerate() {
                    // SAFETY: by the contract.
                    $(let $a = unsafe { *$a.add(j) };)+
                    if !F::is_common($($a),+) {
                        out.write(F::eval::<FMA>($($a),+));
                    }
                }
            }
        }

        impl<F: $Fn<$($P),+>, $($P: Copy),+> Slice for $Body<F, $($P),+> {
            #[inline(always)]
            unsafe fn run<const FMA: bool>(n: usize, out: *mut u8, args: &[Arg]) {
                let out = out.cast::<U>();
                // SAFETY: each operand holds n elements or is one scalar, and `out` has room for n. A block is computed
                // from what was read before any of it is stored, so `out` may be one of the inputs.
                unsafe {
                    $(let $a = Operand::<$A>::new(args[$index]);)+
                    macro_rules! block {
                        ($width:expr, $at:expr) => {{
                            $(let $a = $a.at($at);)+
                            let mut block = [MaybeUninit::<U>::uninit(); $width];
                            let mut are_common = true;
                            for (j, out) in block.iter_mut().enumerate() {
                                out.write(F::common::<FMA>($(*$a.add(j)),+));
                                are_common &= F::is_common($(*$a.add(j)),+);
                            }
                            if !are_common {
                                Self::mend::<FMA>(&mut block, $($a),+);
                            }
                            block
                        }};
                    }
                    if !F::VECTOR {
                        for i in 0..n {
                            store(block!(1, i), out.add(i));
                        }
                        return;
                    }
                    // The end is computed first and stored last: it may overlap the block before it.
                    let mut i = 0;
                    if n >= MIDDLE {
                        let end = block!(MIDDLE, n - MIDDLE);
                        while n - i >= LONG {
                            store(block!(LONG, i), out.add(i));
                            i += LONG;
                        }
                        while n - i > MIDDLE {
                            store(block!(MIDDLE, i), out.add(i));
                            i += MIDDLE;
                        }
                        store(end, out.add(n - MIDDLE));
                    } else if n >= SHORT {
                        let end = block!(SHORT, n - SHORT);
                        while n - i > SHORT {
                            store(block!(SHORT, i), out.add(i));
                            i += SHORT;
                        }
                        store(end, out.add(n - SHORT));
                    } else {
                        for i in 0..n {
                            store(block!(1, i), out.add(i));
                        }
                    }
                }
            }
        }
    };
}

slice_kernel!(
    /// The kernels of a function of one operand.
    unary, Map1, UnaryFn<T, U>, x: T = 0
);
slice_kernel!(
    /// The kernels of a function of two operands.
    binary, Map2, BinaryFn<T, U>, x: T = 0, y: T = 1
);
slice_kernel!(
    /// The kernels of a function of three operands.
    ternary, Map3, TernaryFn<C, T, U>, c: C = 0, x: T = 1, y: T = 2
);

/// The table of a `UnaryFn`: `unary_kernels!(Exp, f32 => f32)`.
#[macro_export]
macro_rules! unary_kernels {
    ($f:ty, $t:ty => $u:ty) => {
        $crate::machine::cpu::dispatch::unary::<$f, $t, $u>()
    };
}

/// The table of a `BinaryFn`: `binary_kernels!(Less, f32 => u8)`.
#[macro_export]
macro_rules! binary_kernels {
    ($f:ty, $t:ty => $u:ty) => {
        $crate::machine::cpu::dispatch::binary::<$f, $t, $u>()
    };
}

/// The table of a `TernaryFn`: `ternary_kernels!(Where, u8, f32 => f32)`.
#[macro_export]
macro_rules! ternary_kernels {
    ($f:ty, $c:ty, $t:ty => $u:ty) => {
        $crate::machine::cpu::dispatch::ternary::<$f, $c, $t, $u>()
    };
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::*;

    struct Half;
    impl UnaryFn<f32, f32> for Half {
        #[inline(always)]
        fn eval<const FMA: bool>(a: f32) -> f32 {
            a * 0.5
        }
    }

    struct Sub;
    impl BinaryFn<f32, f32> for Sub {
        #[inline(always)]
        fn eval<const FMA: bool>(a: f32, b: f32) -> f32 {
            a - b
        }
    }

    struct Less;
    impl BinaryFn<f64, u8> for Less {
        #[inline(always)]
        fn eval<const FMA: bool>(a: f64, b: f64) -> u8 {
            u8::from(a < b)
        }
    }

    struct Where;
    impl TernaryFn<u8, i64, i64> for Where {
        const VECTOR: bool = false;
        #[inline(always)]
        fn eval<const FMA: bool>(c: u8, a: i64, b: i64) -> i64 {
            if c != 0 { a } else { b }
        }
    }

    /// The square root, and minus that of -x below 0.
    struct SignedRoot;
    impl UnaryFn<f64, f64> for SignedRoot {
        #[inline(always)]
        fn eval<const FMA: bool>(a: f64) -> f64 {
            if a < 0.0 { -(-a).sqrt() } else { a.sqrt() }
        }
        #[inline(always)]
        fn common<const FMA: bool>(a: f64) -> f64 {
            a.sqrt()
        }
        #[inline(always)]
        fn is_common(a: f64) -> bool {
            a >= 0.0
        }
    }

    static SIGNED_ROOT: Kernels = unary_kernels!(SignedRoot, f64 => f64);
    static HALF: Kernels = unary_kernels!(Half, f32 => f32);
    static SUB: Kernels = binary_kernels!(Sub, f32 => f32);
    static LESS: Kernels = binary_kernels!(Less, f64 => u8);
    static WHERE: Kernels = ternary_kernels!(Where, u8, i64 => i64);

    fn arg<T>(from: &[T], scalar: bool) -> Arg {
        Arg { ptr: from.as_ptr().cast(), scalar }
    }

    fn each(kernels: &Kernels) -> impl Iterator<Item = SliceKernel> {
        Isa::ALL.into_iter().filter(|isa| isa.is_supported()).map(|isa| kernels[isa as usize])
    }

    const LENGTHS: [usize; 16] = [0, 1, 3, 4, 5, 8, 15, 16, 17, 31, 63, 64, 65, 80, 127, 1000];

    #[test]
    fn slices_and_scalars_mix_and_nothing_past_the_end_is_written() {
        let a: Vec<f32> = (0..1001).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..1001).map(|i| (i * i) as f32).collect();
        for kernel in each(&SUB) {
            for n in LENGTHS {
                for (sa, sb) in [(false, false), (false, true), (true, false), (true, true)] {
                    let mut out = vec![7f32; n + 1];
                    // SAFETY: the operands and the output are long enough.
                    unsafe { kernel(n, out.as_mut_ptr().cast(), &[arg(&a[1..], sa), arg(&b[1..], sb)]) };
                    for i in 0..n {
                        let at = |from: &[f32], scalar: bool| if scalar { from[1] } else { from[1 + i] };
                        assert_eq!(out[i], at(&a, sa) - at(&b, sb));
                    }
                    assert_eq!(out[n], 7.0);
                }
            }
        }
    }

    #[test]
    fn the_output_may_be_an_input() {
        for n in LENGTHS {
            let start: Vec<f32> = (0..n.max(1)).map(|i| i as f32).collect();
            let other: Vec<f32> = (0..n.max(1)).map(|i| 3.0 * i as f32).collect();
            for kernel in each(&HALF) {
                let mut x = start.clone();
                let p: *mut u8 = x.as_mut_ptr().cast();
                // SAFETY: in place, n elements.
                unsafe { kernel(n, p, &[Arg { ptr: p, scalar: false }]) };
                assert!((0..n).all(|i| x[i] == 0.5 * i as f32));
            }
            for kernel in each(&SUB) {
                for (first, second) in [(true, false), (false, true), (true, true)] {
                    let mut x = start.clone();
                    let p: *mut u8 = x.as_mut_ptr().cast();
                    let own = Arg { ptr: p, scalar: false };
                    let given = arg(&other, false);
                    // SAFETY: in place, n elements.
                    unsafe { kernel(n, p, &[if first { own } else { given }, if second { own } else { given }]) };
                    for (i, &x) in x.iter().enumerate().take(n) {
                        let at = |is_own: bool| if is_own { i as f32 } else { 3.0 * i as f32 };
                        assert_eq!(x, at(first) - at(second));
                    }
                }
                // A scalar operand that the output overwrites.
                let mut x = vec![5f32; n.max(1)];
                let p: *mut u8 = x.as_mut_ptr().cast();
                // SAFETY: as above.
                unsafe { kernel(n, p, &[arg(&other, false), Arg { ptr: p, scalar: true }]) };
                assert!((0..n).all(|i| x[i] == 3.0 * i as f32 - 5.0));
            }
        }
    }

    #[test]
    fn elements_that_are_not_common_are_computed_by_themselves() {
        for n in LENGTHS {
            for period in [1, 2, 7, 1000] {
                let sign = |i: usize| if i.is_multiple_of(period) { -1.0 } else { 1.0 };
                let start: Vec<f64> = (0..n).map(|i| sign(i) * i as f64).collect();
                for kernel in each(&SIGNED_ROOT) {
                    let mut x = start.clone();
                    let p: *mut u8 = x.as_mut_ptr().cast();
                    // SAFETY: in place, n elements.
                    unsafe { kernel(n, p, &[Arg { ptr: p, scalar: false }]) };
                    assert!((0..n).all(|i| x[i] == sign(i) * (i as f64).sqrt()));
                }
            }
        }
    }

    #[test]
    fn element_types_mix() {
        for n in LENGTHS {
            let a: Vec<f64> = (0..n).map(|i| (i % 7) as f64).collect();
            let b = vec![3f64; n.max(1)];
            let mut mask = vec![9u8; n];
            for kernel in each(&LESS) {
                // SAFETY: n elements each.
                unsafe { kernel(n, mask.as_mut_ptr(), &[arg(&a, false), arg(&b, false)]) };
                assert!((0..n).all(|i| mask[i] == u8::from(i % 7 < 3)));
            }
            let x: Vec<i64> = (0..n as i64).collect();
            for kernel in each(&WHERE) {
                let mut out = vec![0i64; n];
                // SAFETY: n elements each; the last operand is a scalar.
                unsafe {
                    kernel(n, out.as_mut_ptr().cast(), &[arg(&mask, false), arg(&x, false), arg(&[-1i64], true)])
                };
                assert!((0..n).all(|i| out[i] == if i % 7 < 3 { i as i64 } else { -1 }));
            }
        }
    }
}
