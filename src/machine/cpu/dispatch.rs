//! Slice kernels: the form in which every elementwise op reaches the executors. One scalar `eval` is compiled into
//! loops for each instruction set.

/// One operand of a slice kernel: contiguous elements, or one scalar for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub ptr: *const u8,
    pub scalar: bool,
}

/// Computes out[i] for i < n. `out` may equal an input pointer exactly (in place), never overlap partly.
pub type SliceKernel = unsafe fn(n: usize, out: *mut u8, args: &[Arg]);

/// The kernel of one op for one dtype, by instruction set.
pub type Kernels = [SliceKernel; 3];

pub trait UnaryFn<T, U> {
    fn eval<const FMA: bool>(x: T) -> U;
}

pub trait BinaryFn<T, U> {
    fn eval<const FMA: bool>(x: T, y: T) -> U;
}

/// # Safety
/// As for every `SliceKernel`.
pub unsafe fn unary_loop<F: UnaryFn<T, U>, T: Copy, U>(n: usize, out: *mut u8, args: &[Arg]) {
    let (out, x) = (out as *mut U, args[0].ptr as *const T);
    let step = usize::from(!args[0].scalar);
    for i in 0..n {
        // SAFETY: the caller gives n elements each.
        unsafe { *out.add(i) = F::eval::<false>(*x.add(i * step)) };
    }
}

/// # Safety
/// As for every `SliceKernel`.
pub unsafe fn binary_loop<F: BinaryFn<T, U>, T: Copy, U>(n: usize, out: *mut u8, args: &[Arg]) {
    let (out, x, y) = (out as *mut U, args[0].ptr as *const T, args[1].ptr as *const T);
    let (sx, sy) = (usize::from(!args[0].scalar), usize::from(!args[1].scalar));
    for i in 0..n {
        // SAFETY: the caller gives n elements each.
        unsafe { *out.add(i) = F::eval::<false>(*x.add(i * sx), *y.add(i * sy)) };
    }
}

#[macro_export]
macro_rules! unary_kernels {
    ($f:ty, $t:ty => $u:ty) => {
        [$crate::machine::cpu::dispatch::unary_loop::<$f, $t, $u>; 3]
    };
}

#[macro_export]
macro_rules! binary_kernels {
    ($f:ty, $t:ty => $u:ty) => {
        [$crate::machine::cpu::dispatch::binary_loop::<$f, $t, $u>; 3]
    };
}
