//! Errors of the functions, over samples of all floats: each function against a reference that is exact enough.

use super::super::dispatch::{Arg, BinaryFn, Kernels, UnaryFn, binary, unary};
use super::super::float::{Bits, Float};
use super::super::isa::Isa;
use super::*;

macro_rules! functions {
    ($($Name:ident $kernels:ident $name:ident $(($common:ident if $is_common:ident))?)*) => {$(
        struct $Name;
        impl<T: Float> UnaryFn<T, T> for $Name {
            #[inline(always)]
            fn eval<const FMA: bool>(x: T) -> T {
                $name::<T, FMA>(x)
            }
            $(
                #[inline(always)]
                fn common<const FMA: bool>(x: T) -> T {
                    $common::<T, FMA>(x)
                }
                #[inline(always)]
                fn is_common(x: T) -> bool {
                    $is_common(x)
                }
            )?
        }
        static $kernels: [Kernels; 2] = [unary::<$Name, f32, f32>(), unary::<$Name, f64, f64>()];
    )*};
}
functions! {
    Exp EXP exp
    Expm1 EXPM1 expm1
    Log LOG log
    Log1p LOG1P log1p
    Exp2 EXP2 exp2
    Log2 LOG2 log2
    Log10 LOG10 log10
    Sinh SINH sinh
    Cosh COSH cosh
    Tanh TANH tanh
    Sigmoid SIGMOID sigmoid
    Erf ERF erf
    Sin SIN sin(small_sin if is_small_angle)
    Cos COS cos(small_cos if is_small_angle)
    Asin ASIN asin
    Acos ACOS acos
    Atan ATAN atan
    Asinh ASINH asinh
    Acosh ACOSH acosh
    Atanh ATANH atanh
    Erfc ERFC erfc
    Tan TAN tan(small_tan if is_small_angle)
}

macro_rules! functions_of_two {
    ($($Name:ident $kernels:ident $name:ident $(($common:ident if $is_common:ident))?)*) => {$(
        struct $Name;
        impl<T: Float> BinaryFn<T, T> for $Name {
            #[inline(always)]
            fn eval<const FMA: bool>(x: T, y: T) -> T {
                $name::<T, FMA>(x, y)
            }
            $(
                #[inline(always)]
                fn common<const FMA: bool>(x: T, y: T) -> T {
                    $common::<T, FMA>(x, y)
                }
                #[inline(always)]
                fn is_common(x: T, y: T) -> bool {
                    $is_common(x, y)
                }
            )?
        }
        static $kernels: [Kernels; 2] = [binary::<$Name, f32, f32>(), binary::<$Name, f64, f64>()];
    )*};
}
functions_of_two! {
    Pow POW pow
    Hypot HYPOT hypot
    Atan2 ATAN2 atan2
    FloorDivide FLOOR_DIVIDE floor_divide(small_floor_divide if is_small_quotient)
    Remainder REMAINDER remainder(small_remainder if is_small_quotient)
}

/// All special values, then floats of every exponent and sign, then numbers of everyday size.
fn samples<T: Float>() -> Vec<T> {
    let mut x = Vec::new();
    let one_unit = T::Bits::from_u64(1);
    for value in [T::ZERO, T::MIN_POSITIVE, T::ONE, T::TWO, T::HALF, T::MAX, T::EXP_MAX, -T::EXP_MIN, T::TANH_ONE] {
        for bits in [value.to_bits(), value.to_bits().plus(one_unit), value.to_bits().minus(one_unit)] {
            x.extend([T::from_bits(bits), -T::from_bits(bits)]);
        }
    }
    x.extend([T::NAN, T::INFINITY, T::NEG_INFINITY]);
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ state >> 29).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    for _ in 0..400_000 {
        x.push(T::from_bits(T::Bits::from_u64(if T::DOUBLE { next() } else { next() >> 32 })));
        let unit = T::from_f64((next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5);
        x.extend([unit * T::from_f64(2.5), unit * T::from_f64(2.0 * 90.0), unit * T::from_f64(1500.0)]);
    }
    x
}

/// Pairs of specials with each other, then numbers of every exponent with such that their powers are ordinary.
fn pairs<T: Float>() -> [Vec<T>; 2] {
    let special =
        [0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 1e-30, 1e10, 1e30, 1e-320, 4503599627370497.0, f64::INFINITY, f64::NAN];
    let special: Vec<f64> = special.iter().flat_map(|&x| [x, -x]).collect();
    let mut pairs: Vec<(T, T)> =
        special.iter().flat_map(|&x| special.iter().map(move |&y| (T::from_f64(x), T::from_f64(y)))).collect();
    let x: Vec<T> = samples().into_iter().skip(7).step_by(5).collect();
    // The everyday numbers as exponents of each other, and of numbers near 1.
    pairs.extend(x.windows(2).map(|pair| (pair[0], pair[1])));
    pairs.extend(x.windows(2).map(|pair| (pair[0].abs(), T::from_f64(pair[1].to_f64().sin() * 9.0))));
    pairs.extend(x.windows(2).map(|pair| (T::from_f64(1.0 + 0.01 * pair[0].to_f64().sin()), pair[1])));
    pairs.into_iter().unzip::<T, T, Vec<T>, Vec<T>>().into()
}

/// Runs the kernel of one instruction set.
fn run<T: Float>(kernels: &[Kernels; 2], isa: Isa, inputs: &[Vec<T>]) -> Vec<T> {
    let mut y = vec![T::ZERO; inputs[0].len()];
    let kernel = kernels[usize::from(T::DOUBLE)][isa as usize];
    let args: Vec<Arg> = inputs.iter().map(|x| Arg { ptr: x.as_ptr().cast(), scalar: false }).collect();
    // SAFETY: all slices hold `y.len()` elements, and only supported instruction sets are asked for.
    unsafe { kernel(y.len(), y.as_mut_ptr().cast(), &args) };
    y
}

/// The distance of y from the exact value, in units in the last place of T around it.
fn ulp<T: Float>(y: T, exact: f64) -> f64 {
    let rounded = T::from_f64(exact);
    if y.is_nan() || exact.is_nan() {
        return if y.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if y == rounded {
        let is_zero = y == T::ZERO;
        return if is_zero && y.is_sign_negative() != rounded.is_sign_negative() { f64::INFINITY } else { 0.0 };
    }
    if !y.is_finite() || !rounded.is_finite() {
        // One of them overflowed: near only if the other is the largest number.
        return if y.abs() == T::MAX || rounded.abs() == T::MAX { 1.0 } else { f64::INFINITY };
    }
    let a = if rounded.abs() < T::MIN_POSITIVE { T::MIN_POSITIVE } else { rounded.abs() };
    let unit = T::from_bits(a.to_bits() & T::INFINITY.to_bits()) * T::EPSILON;
    (y.to_f64() - exact).abs() / unit.to_f64()
}

/// Checks a function of one number.
fn check<T: Float>(name: &str, kernels: &[Kernels; 2], reference: fn(f64) -> f64, bound: f64) {
    check_each(name, kernels, &[samples::<T>()], |x| reference(x[0].to_f64()), bound);
}

/// Checks a function of two numbers.
fn check_pairs<T: Float>(name: &str, kernels: &[Kernels; 2], reference: fn(f64, f64) -> f64, bound: f64) {
    check_each(name, kernels, &pairs::<T>(), |x| reference(x[0].to_f64(), x[1].to_f64()), bound);
}

/// Checks every instruction set: the bound, and that all with FMA give the same bits.
fn check_each<T: Float>(
    name: &str,
    kernels: &[Kernels; 2],
    inputs: &[Vec<T>],
    reference: impl Fn(&[T]) -> f64,
    bound: f64,
) {
    let at = |i: usize| inputs.iter().map(|x| x[i]).collect::<Vec<T>>();
    let exact: Vec<f64> = (0..inputs[0].len()).map(|i| reference(&at(i))).collect();
    let mut fused: Option<Vec<T>> = None;
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let y = run(kernels, isa, inputs);
        let (mut worst, mut place) = (0.0, 0);
        for (i, (&y, &exact)) in y.iter().zip(&exact).enumerate() {
            let error = ulp(y, exact);
            if error > worst {
                (worst, place) = (error, i);
            }
        }
        let (at, element) = (at(place), std::any::type_name::<T>());
        println!("{name} {element} {}: {worst:.2} ULP at {at:?}", isa.name());
        assert!(worst <= bound, "{name} on {}: {worst} ULP at {at:?}: {:?}", isa.name(), y[place]);
        if isa > Isa::Portable {
            if let Some(other) = &fused {
                let same = |(a, b): (&T, &T)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                assert!(y.iter().zip(other).all(same), "{name}: bits differ between instruction sets");
            }
            fused = Some(y);
        }
    }
}

/// Where a sum would lose the smallest results, e^x alone is exact.
fn sigmoid_f64(x: f64) -> f64 {
    if x < -40.0 { libm::exp(x) } else { 1.0 / (1.0 + libm::exp(-x)) }
}

#[test]
fn f32_functions_hold_three_ulp() {
    check::<f32>("exp", &EXP, libm::exp, 1.1);
    check::<f32>("expm1", &EXPM1, libm::expm1, 3.0);
    check::<f32>("log", &LOG, libm::log, 1.0);
    check::<f32>("log1p", &LOG1P, libm::log1p, 2.0);
    check::<f32>("tanh", &TANH, libm::tanh, 3.0);
    check::<f32>("sigmoid", &SIGMOID, sigmoid_f64, 3.0);
    check::<f32>("erf", &ERF, libm::erf, 2.0);
    check::<f32>("exp2", &EXP2, libm::exp2, 1.0);
    check::<f32>("log2", &LOG2, libm::log2, 1.0);
    check::<f32>("log10", &LOG10, libm::log10, 1.0);
    check::<f32>("sinh", &SINH, libm::sinh, 1.0);
    check::<f32>("cosh", &COSH, libm::cosh, 1.0);
    check::<f32>("sin", &SIN, libm::sin, 1.0);
    check::<f32>("cos", &COS, libm::cos, 1.0);
    check::<f32>("tan", &TAN, libm::tan, 1.0);
}

#[test]
fn f32_functions_in_f64_hold_one_ulp() {
    check::<f32>("asin", &ASIN, libm::asin, 1.0);
    check::<f32>("acos", &ACOS, libm::acos, 1.0);
    check::<f32>("atan", &ATAN, libm::atan, 1.0);
    check::<f32>("asinh", &ASINH, libm::asinh, 1.0);
    check::<f32>("acosh", &ACOSH, |x| if x < 1.0 { f64::NAN } else { libm::acosh(x) }, 1.0);
    check::<f32>("atanh", &ATANH, libm::atanh, 1.0);
    check::<f32>("erfc", &ERFC, libm::erfc, 1.0);
    check_pairs::<f32>("atan2", &ATAN2, libm::atan2, 1.0);
}

#[test]
fn f64_functions_hold_four_ulp() {
    check::<f64>("exp", &EXP, libm::exp, 2.0);
    check::<f64>("expm1", &EXPM1, libm::expm1, 4.0);
    check::<f64>("log", &LOG, libm::log, 2.0);
    check::<f64>("log1p", &LOG1P, libm::log1p, 3.0);
    check::<f64>("tanh", &TANH, libm::tanh, 4.0);
    check::<f64>("sigmoid", &SIGMOID, sigmoid_f64, 4.0);
    check::<f64>("erf", &ERF, libm::erf, 0.0);
    check::<f64>("sin", &SIN, libm::sin, 1.0);
    check::<f64>("cos", &COS, libm::cos, 1.0);
    check::<f64>("tan", &TAN, libm::tan, 1.0);
    check::<f64>("exp2", &EXP2, libm::exp2, 1.0);
    check::<f64>("log2", &LOG2, libm::log2, 1.0);
    check::<f64>("log10", &LOG10, libm::log10, 1.0);
    // The reference has an error of 1.3 ULP, the function one of 0.8.
    check::<f64>("sinh", &SINH, libm::sinh, 2.0);
    check::<f64>("cosh", &COSH, libm::cosh, 1.0);
}

fn check_turns<T: Float>(bound: f64) {
    let step = if T::DOUBLE { 0.000_013_7 } else { 1.0 / f64::from(1 << 17) };
    for i in -200_000..=200_000 {
        let u = T::from_f64(f64::from(i) * step);
        let (angle, exact) = (u.to_f64() * std::f64::consts::TAU, u.to_f64().rem_euclid(1.0));
        for (sin, cos) in [sin_cos_turns::<T, true>(u), sin_cos_turns::<T, false>(u)] {
            let error = (sin.to_f64() - angle.sin()).abs().max((cos.to_f64() - angle.cos()).abs());
            // The reference itself turns by an angle that was rounded.
            assert!(error <= (bound + angle.abs()) * T::EPSILON.to_f64(), "{u:?}: {error}");
            if exact * 4.0 % 1.0 == 0.0 {
                assert!(sin.abs() == T::ZERO && cos.abs() == T::ONE || sin.abs() == T::ONE && cos.abs() == T::ZERO);
            }
        }
    }
}

#[test]
fn turns_are_exact_at_quarters() {
    check_turns::<f32>(1.0);
    check_turns::<f64>(1.0);
}

/// Python's remainder in exact arithmetic, rounded to T once.
fn exact_remainder(x: f64, y: f64) -> f64 {
    let rest = libm::fmod(x, y);
    if rest == 0.0 {
        0f64.copysign(y)
    } else if (rest < 0.0) != (y < 0.0) {
        rest + y
    } else {
        rest
    }
}

#[test]
fn hypot_holds_one_ulp() {
    check_pairs::<f32>("hypot", &HYPOT, libm::hypot, 0.5);
    check_pairs::<f64>("hypot", &HYPOT, libm::hypot, 1.0);
}

#[test]
fn remainders_and_their_quotients_are_exact() {
    check_pairs::<f32>("remainder", &REMAINDER, exact_remainder, 0.0);
    check_pairs::<f64>("remainder", &REMAINDER, exact_remainder, 0.0);
    fn floor_quotient<T: Float>(x: f64, y: f64) -> f64 {
        if y == 0.0 {
            return x / y;
        }
        if x.is_finite() && y.is_infinite() {
            return if x != 0.0 && (x < 0.0) != (y < 0.0) { -1.0 } else { x / y };
        }
        libm::rint((x - T::from_f64(exact_remainder(x, y)).to_f64()) / y)
    }
    check_pairs::<f32>("floor_divide", &FLOOR_DIVIDE, floor_quotient::<f32>, 0.0);
    check_pairs::<f64>("floor_divide", &FLOOR_DIVIDE, floor_quotient::<f64>, 0.0);
}

/// The multiples of π/2 nearest to numbers of T, where reduction loses the most, against libm.
#[test]
fn angles_near_quarters_keep_their_last_place() {
    fn check_near<T: Float>(bound: f64) {
        let x: Vec<T> = (-400_000..400_000).map(|n| T::from_f64(f64::from(n) * std::f64::consts::FRAC_PI_2)).collect();
        let x = std::slice::from_ref(&x);
        check_each("sin", &SIN, x, |x| libm::sin(x[0].to_f64()), bound);
        check_each("cos", &COS, x, |x| libm::cos(x[0].to_f64()), bound);
        check_each("tan", &TAN, x, |x| libm::tan(x[0].to_f64()), bound);
    }
    check_near::<f32>(1.0);
    check_near::<f64>(1.0);
}

#[test]
fn pow_holds_one_ulp() {
    check_pairs::<f32>("pow", &POW, libm::pow, 1.0);
    check_pairs::<f64>("pow", &POW, libm::pow, 1.0);
}

#[test]
fn pow_keeps_the_special_cases() {
    let pow = pow::<f32, false>;
    assert_eq!(pow(f32::NAN, 0.0), 1.0);
    assert_eq!(pow(1.0, f32::NAN), 1.0);
    assert_eq!(pow(-2.0, 3.0), -8.0);
    assert!(pow(-2.0, 0.5).is_nan());
    assert_eq!(pow(0.0, -1.0), f32::INFINITY);
    assert_eq!(pow(-0.0, -1.0), f32::NEG_INFINITY);
    assert_eq!(pow(-0.0, 3.0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(pow(f32::INFINITY, -2.0), 0.0);
    assert_eq!(pow(2.0, 0.5), std::f32::consts::SQRT_2);
}
