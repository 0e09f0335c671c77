//! Chains of elementwise ops that are worth a kernel of their own. `pattern!` writes a chain once, in terms of the
//! scalar functions of its ops, and makes both of it: what the planner looks for, and the kernel. Families keep their
//! chains beside their ops; `PATTERNS` lists them.

use super::{activation, arithmetic, compare, exponential, normalization, select, softmax, update};
use crate::dtype::DType;
use crate::graph::{Op, Pattern};
use crate::machine::cpu::dispatch::Kernels;

/// Longer chains stand before those that they contain.
pub static PATTERNS: &[&Pattern] = &[
    &activation::GELU_TANH_SLOPE,
    &activation::GELU_ERF_SLOPE,
    &activation::GELU_TANH,
    &activation::GELU_ERF,
    &activation::BIAS_TANH,
    &activation::BIAS_RELU_MASK,
    &activation::RELU_MASK,
    &activation::BIAS_RELU,
    &update::ADAM,
    &update::ADAM_DESCENT,
    &update::RMSPROP,
    &update::RMSPROP_DESCENT,
    &update::MOMENTUM,
    &update::AVERAGE,
    &update::TOWARDS,
    &update::DESCENT,
    &normalization::ROW_GRADIENT,
    &normalization::NORM_GRADIENT,
    &normalization::SCALED_AFFINE,
    &normalization::RMS_GRADIENT,
    &normalization::RMS_ROW_GRADIENT,
    &normalization::SCALED_WEIGHTED,
    &normalization::WEIGHT_GRADIENT,
    &normalization::CENTRED_SQUARES,
    &softmax::SHIFTED_EXP,
    &softmax::SHIFTED_AND_EXP,
    &softmax::SOFTMAX_GRADIENT,
    &softmax::LOG_SOFTMAX_GRADIENT,
    &arithmetic::BIAS_RESIDUAL,
    &arithmetic::LESS_COLUMN,
    &arithmetic::TIMES_COLUMN,
    &arithmetic::OVER_COLUMN,
];

/// The op of a scalar function, and the kernels by which the planner knows it.
pub trait Link {
    fn op() -> Op;
    fn kernels(dtype: DType) -> Option<&'static Kernels>;
}

macro_rules! links {
    ($($kind:ident: $($f:path = $def:path),*;)*) => {$($(
        impl Link for $f {
            fn op() -> Op {
                Op::$kind(&$def)
            }
            fn kernels(dtype: DType) -> Option<&'static Kernels> {
                ($def.kernels)(dtype)
            }
        }
    )*)*};
}
links!(
    Unary:
        arithmetic::Square = arithmetic::SQUARE,
        arithmetic::Negative = arithmetic::NEGATIVE,
        exponential::Sqrt = exponential::SQRT,
        exponential::Exp = exponential::EXP,
        exponential::Erf = exponential::ERF,
        activation::Tanh = activation::TANH,
        activation::Relu = activation::RELU;
    Binary:
        arithmetic::Add = arithmetic::ADD,
        arithmetic::Subtract = arithmetic::SUBTRACT,
        arithmetic::Multiply = arithmetic::MULTIPLY,
        arithmetic::ZeroProduct = arithmetic::ZMUL,
        arithmetic::Divide = arithmetic::DIVIDE,
        compare::Greater = compare::GREATER;
);

impl Link for select::Where {
    fn op() -> Op {
        Op::Select
    }
    fn kernels(dtype: DType) -> Option<&'static Kernels> {
        Some(select::kernels(dtype))
    }
}

/// `pattern!(NAME, Body, "name", (inputs: Type, …) -> (outputs: Type, …) { value = kind::Op(values); … })`: `T` is the
/// float dtype of the chain, `Column<T>` one element for each row, `u8` a bool; the ops are the structs of the scalar
/// functions.
macro_rules! pattern {
    (
        $(#[$doc:meta])*
        $NAME:ident, $Body:ident, $name:literal,
        ($($input:ident: $In:ty),+) -> ($($output:ident: $Out:ty),+)
        { $($value:ident = $kind:ident::$Fn:ident($($arg:ident),+);)+ }
    ) => {
        $(#[$doc])*
        pub static $NAME: $crate::graph::Pattern = $crate::graph::Pattern {
            name: $name,
            inputs: [$($Body::$input as u8),+].len(),
            steps: &[$($crate::graph::PatternStep {
                op: <$Fn as $crate::ops::pattern::Link>::op,
                kernels: <$Fn as $crate::ops::pattern::Link>::kernels,
                args: &[$($Body::$arg as u8),+],
            }),+],
            outputs: &[$($Body::$output as u8),+],
            columns: {
                #[allow(dead_code, reason = "not every chain has an operand of the float dtype")]
                type T = f32;
                #[allow(unused_imports, reason = "few chains have a column")]
                use $crate::machine::cpu::chain::{Column, Input};
                0 $(| (<$In as Input>::IS_COLUMN as u32) << $Body::$input as u32)+
            },
            kernels: |dtype| {
                use $crate::machine::cpu::chain::{ChainKernels, chain};
                static SINGLE: ChainKernels = chain::<$Body, f32>();
                static DOUBLE: ChainKernels = chain::<$Body, f64>();
                match dtype {
                    $crate::dtype::DType::F32 => Some(&SINGLE),
                    $crate::dtype::DType::F64 => Some(&DOUBLE),
                    _ => None,
                }
            },
        };

        /// The values of the chain, numbered.
        #[allow(non_camel_case_types, reason = "they are the names of values")]
        enum $Body {
            $($input,)+
            $($value,)+
        }

        pattern!(@body f32, $Body, ($($input: $In),+) -> ($($output: $Out),+) { $($value = $kind::$Fn($($arg),+);)+ });
        pattern!(@body f64, $Body, ($($input: $In),+) -> ($($output: $Out),+) { $($value = $kind::$Fn($($arg),+);)+ });
    };
    (
        @body $float:ident, $Body:ident,
        ($($input:ident: $In:ty),+) -> ($($output:ident: $Out:ty),+)
        { $($value:ident = $kind:ident::$Fn:ident($($arg:ident),+);)+ }
    ) => {
        const _: () = {
            use std::mem::MaybeUninit;
            #[allow(unused_imports, reason = "few chains have a column")]
            use $crate::machine::cpu::chain::{Chain, Column, Input};
            use $crate::machine::cpu::dispatch::Arg;
            type T = $float;

            impl Chain<T> for $Body {
                const STEPS: usize = [$($Body::$value as u8),+].len();
                const BY_ROW: bool = false $(|| <$In as Input>::IS_COLUMN)+;
                type Operands = ($(<$In as Input>::Reader,)+);
                type Block<const W: usize> = ($([MaybeUninit<$Out>; W],)+);

                #[inline(always)]
                unsafe fn operands(args: &[Arg]) -> Self::Operands {
                    // SAFETY: the caller's contract: one argument for each input.
                    unsafe { ($(<$In as Input>::reader(args[$Body::$input as usize]),)+) }
                }

                #[inline(always)]
                unsafe fn block<const FMA: bool, const W: usize>(
                    operands: &Self::Operands,
                    row: usize,
                    at: usize,
                ) -> Self::Block<W> {
                    let ($($input,)+) = operands;
                    // SAFETY: the caller asks for elements inside the slices.
                    $(let $input = unsafe { <$In as Input>::at($input, row, at) };)+
                    let mut block: Self::Block<W> = ($([MaybeUninit::<$Out>::uninit(); W],)+);
                    for j in 0..$crate::machine::cpu::chain::elements::<W>() {
                        // SAFETY: as above.
                        $(let $input = unsafe { <$In as Input>::read($input, j) };)+
                        $(let $value = pattern!(@$kind $Fn, T, FMA, $($arg),+);)+
                        pattern!(@write block, j, $($output),+);
                    }
                    block
                }

                #[inline(always)]
                unsafe fn store<const W: usize>(block: Self::Block<W>, outs: &[*mut u8], at: usize) {
                    pattern!(@store block, outs, at, $($output: $Out),+);
                }
            }
        };
    };
    (@unary $Fn:ident, $T:ident, $FMA:ident, $x:ident) => {
        <$Fn as $crate::machine::cpu::dispatch::UnaryFn<$T, _>>::eval::<$FMA>($x)
    };
    (@binary $Fn:ident, $T:ident, $FMA:ident, $x:ident, $y:ident) => {
        <$Fn as $crate::machine::cpu::dispatch::BinaryFn<$T, _>>::eval::<$FMA>($x, $y)
    };
    (@select $Fn:ident, $T:ident, $FMA:ident, $c:ident, $x:ident, $y:ident) => {
        <$Fn as $crate::machine::cpu::dispatch::TernaryFn<u8, $T, $T>>::eval::<$FMA>($c, $x, $y)
    };
    (@write $block:ident, $j:ident, $a:ident $(, $b:ident $(, $c:ident)?)?) => {
        $block.0[$j].write($a);
        $(
            $block.1[$j].write($b);
            $($block.2[$j].write($c);)?
        )?
    };
    (@store $block:ident, $outs:ident, $at:ident, $a:ident: $A:ty $(, $b:ident: $B:ty $(, $c:ident: $C:ty)?)?) => {
        // SAFETY: the caller has room for the block in each output, and all of it was computed.
        unsafe {
            $outs[0].cast::<$A>().add($at).copy_from_nonoverlapping($block.0.as_ptr().cast(), W);
            $(
                $outs[1].cast::<$B>().add($at).copy_from_nonoverlapping($block.1.as_ptr().cast(), W);
                $($outs[2].cast::<$C>().add($at).copy_from_nonoverlapping($block.2.as_ptr().cast(), W);)?
            )?
        }
    };
}
pub(crate) use pattern;
