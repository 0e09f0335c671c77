//! One row for each elementwise op: the macros that turn a scalar function into kernel tables and a definition.

/// The kernel tables of a function on floats, for f32 and f64: a `fn(DType) -> Option<&'static Kernels>`.
macro_rules! float_unary {
    ($f:ty) => {
        |dtype| {
    static SINGLE: Kernels = unary_kernels!($f, f32 => f32);
    static DOUBLE: Kernels = unary_kernels!($f, f64 => f64);
            match dtype {
                DType::F32 => Some(&SINGLE),
                DType::F64 => Some(&DOUBLE),
                _ => None,
            }
        }
    };
}

macro_rules! float_binary {
    ($f:ty) => {
        |dtype| {
    static SINGLE: Kernels = binary_kernels!($f, f32 => f32);
    static DOUBLE: Kernels = binary_kernels!($f, f64 => f64);
            match dtype {
                DType::F32 => Some(&SINGLE),
                DType::F64 => Some(&DOUBLE),
                _ => None,
            }
        }
    };
}

/// The kernel tables of a function on every number type.
macro_rules! number_unary {
    ($f:ty) => {
        |dtype| {
    static BYTE: Kernels = unary_kernels!($f, u8 => u8);
    static INT: Kernels = unary_kernels!($f, i32 => i32);
    static LONG: Kernels = unary_kernels!($f, i64 => i64);
    static SINGLE: Kernels = unary_kernels!($f, f32 => f32);
    static DOUBLE: Kernels = unary_kernels!($f, f64 => f64);
            match dtype {
                DType::U8 => Some(&BYTE),
                DType::I32 => Some(&INT),
                DType::I64 => Some(&LONG),
                DType::F32 => Some(&SINGLE),
                DType::F64 => Some(&DOUBLE),
                DType::Bool => None,
            }
        }
    };
}

macro_rules! number_binary {
    ($f:ty) => {
        |dtype| {
    static BYTE: Kernels = binary_kernels!($f, u8 => u8);
    static INT: Kernels = binary_kernels!($f, i32 => i32);
    static LONG: Kernels = binary_kernels!($f, i64 => i64);
    static SINGLE: Kernels = binary_kernels!($f, f32 => f32);
    static DOUBLE: Kernels = binary_kernels!($f, f64 => f64);
            match dtype {
                DType::U8 => Some(&BYTE),
                DType::I32 => Some(&INT),
                DType::I64 => Some(&LONG),
                DType::F32 => Some(&SINGLE),
                DType::F64 => Some(&DOUBLE),
                DType::Bool => None,
            }
        }
    };
}

/// The kernel tables of a property: any dtype in, bool (one byte, 0 or 1) out.
macro_rules! compare_unary {
    ($f:ty) => {
        |dtype| {
    static BYTE: Kernels = unary_kernels!($f, u8 => u8);
    static INT: Kernels = unary_kernels!($f, i32 => u8);
    static LONG: Kernels = unary_kernels!($f, i64 => u8);
    static SINGLE: Kernels = unary_kernels!($f, f32 => u8);
    static DOUBLE: Kernels = unary_kernels!($f, f64 => u8);
            Some(match dtype {
                DType::Bool | DType::U8 => &BYTE,
                DType::I32 => &INT,
                DType::I64 => &LONG,
                DType::F32 => &SINGLE,
                DType::F64 => &DOUBLE,
            })
        }
    };
}

/// The kernel tables of a comparison: any dtype in, bool (one byte, 0 or 1) out.
macro_rules! compare_binary {
    ($f:ty) => {
        |dtype| {
    static BYTE: Kernels = binary_kernels!($f, u8 => u8);
    static INT: Kernels = binary_kernels!($f, i32 => u8);
    static LONG: Kernels = binary_kernels!($f, i64 => u8);
    static SINGLE: Kernels = binary_kernels!($f, f32 => u8);
    static DOUBLE: Kernels = binary_kernels!($f, f64 => u8);
            Some(match dtype {
                DType::Bool | DType::U8 => &BYTE,
                DType::I32 => &INT,
                DType::I64 => &LONG,
                DType::F32 => &SINGLE,
                DType::F64 => &DOUBLE,
            })
        }
    };
}

/// The kernel tables of a logical or bitwise function: bool and the integers.
macro_rules! bits_binary {
    ($f:ty) => {
        |dtype| {
    static BYTE: Kernels = binary_kernels!($f, u8 => u8);
    static INT: Kernels = binary_kernels!($f, i32 => i32);
    static LONG: Kernels = binary_kernels!($f, i64 => i64);
            match dtype {
                DType::Bool | DType::U8 => Some(&BYTE),
                DType::I32 => Some(&INT),
                DType::I64 => Some(&LONG),
                DType::F32 | DType::F64 => None,
            }
        }
    };
}

/// A function of one number, with forms for floats, signed integers and bytes.
macro_rules! signed_fn {
    ($name:ident, |$x:ident| $float:expr, $int:expr, $byte:expr) => {
        pub struct $name;
        signed_fn!(@ $name, $x, $float, f32, f64);
        signed_fn!(@ $name, $x, $int, i32, i64);
        signed_fn!(@ $name, $x, $byte, u8);
    };
    (@ $name:ident, $x:ident, $body:expr, $($t:ty),*) => {$(
        impl UnaryFn<$t, $t> for $name {
            #[inline(always)]
            fn eval<const FMA: bool>($x: $t) -> $t {
                $body
            }
        }
    )*};
}

/// A scalar function of one float argument: `struct Name` with `eval`.
///
/// `call` marks those that call libm for each element and cannot be vectorised, `single` those that do so in f64. A
/// second body after `if` is what is vectorised, and right where its condition holds.
macro_rules! float_fn {
    ($name:ident, |$x:ident| $body:expr $(, if $is_common:expr => $common:expr)?) => {
        float_fn!(@ $name, true, $x, $body $(, $is_common, $common)?);
    };
    ($name:ident, single |$x:ident| $body:expr) => {
        float_fn!(@ $name, !T::DOUBLE, $x, $body);
    };
    ($name:ident, call |$x:ident| $body:expr) => {
        float_fn!(@ $name, false, $x, $body);
    };
    (@ $name:ident, $vector:expr, $x:ident, $body:expr $(, $is_common:expr, $common:expr)?) => {
        pub struct $name;
        impl<T: Float> UnaryFn<T, T> for $name {
            const VECTOR: bool = $vector;
            #[inline(always)]
            fn eval<const FMA: bool>($x: T) -> T {
                $body
            }
            $(
                #[inline(always)]
                fn common<const FMA: bool>($x: T) -> T {
                    $common
                }
                #[inline(always)]
                fn is_common($x: T) -> bool {
                    $is_common
                }
            )?
        }
    };
}

pub(crate) use {
    bits_binary, compare_binary, compare_unary, float_binary, float_fn, float_unary, number_binary, number_unary,
    signed_fn,
};
