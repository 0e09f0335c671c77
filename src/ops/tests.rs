//! The kernels of every elementwise definition against its `reference`: within its own error bound, on every
//! instruction set that this CPU has, on ordinary numbers, special ones, and integers.

use super::table::{Definition, TABLE};
use crate::dtype::DType;
use crate::graph::{BinaryDef, Promote, UnaryDef};
use crate::machine::cpu::dispatch::{Arg, Kernels};
use crate::machine::cpu::isa::Isa;
use crate::scalar::Scalar;

fn bytes(data: &[f64], dtype: DType) -> Vec<u8> {
    data.iter()
        .flat_map(|&x| {
            let x = if dtype.is_float() { Scalar::F64(x) } else { Scalar::I64(x as i64) };
            x.to_bytes(dtype)[..dtype.size()].to_vec()
        })
        .collect()
}

fn numbers(bytes: &[u8], dtype: DType) -> Vec<f64> {
    bytes.chunks_exact(dtype.size()).map(|element| Scalar::from_bytes(dtype, element).as_f64()).collect()
}

/// Elements as the dtype holds them, so that kernel and reference see the same.
fn held(data: &[f64], dtype: DType) -> Vec<f64> {
    numbers(&bytes(data, dtype), dtype)
}

/// Runs the kernel of each instruction set.
fn run(kernels: &Kernels, operands: &[&[f64]], from: DType, to: DType, check: impl Fn(Isa, &[f64])) {
    let n = operands[0].len();
    // Vectors of words, so that elements are aligned.
    let inputs: Vec<Vec<u64>> = operands
        .iter()
        .map(|data| {
            let bytes = bytes(data, from);
            let mut words = vec![0u64; bytes.len().div_ceil(8)];
            // SAFETY: the words have room for the bytes.
            unsafe { words.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            words
        })
        .collect();
    let args: Vec<Arg> = inputs.iter().map(|words| Arg { ptr: words.as_ptr().cast(), scalar: false }).collect();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let mut out = vec![0u64; n];
        // SAFETY: operands hold n elements and the output has room for n.
        unsafe { kernels[isa as usize](n, out.as_mut_ptr().cast(), &args) };
        // SAFETY: at most eight bytes an element.
        let made = unsafe { std::slice::from_raw_parts(out.as_ptr().cast::<u8>(), n * to.size()) };
        check(isa, &numbers(made, to));
    }
}

/// The distance of neighbours near x in the dtype.
pub(crate) fn unit(x: f64, dtype: DType) -> f64 {
    let (digits, smallest) = if dtype == DType::F32 { (23, -149) } else { (52, -1074) };
    let exponent = if x == 0.0 || !x.is_finite() { smallest } else { libm::ilogb(x) - digits };
    libm::ldexp(1.0, exponent.max(smallest))
}

fn assert_near(name: &str, isa: Isa, dtype: DType, ulp: f64, inputs: &[f64], got: f64, exact: f64) {
    let limit = if dtype == DType::F32 { f64::from(f32::MAX) } else { f64::MAX };
    let same = got == exact || (got.is_nan() && exact.is_nan()) || (exact.abs() > limit && got.is_infinite());
    // The reference in float64 has an error of its own.
    let slack = if dtype == DType::F64 { 1.0 } else { 0.01 };
    let error = (got - exact).abs() / unit(exact, dtype);
    assert!(
        same || error <= ulp + slack,
        "{name} of {inputs:?} in {dtype} on {}: {got:e} instead of {exact:e}, {error} units",
        isa.name()
    );
}

/// Numbers inside the interval, and ten times wider.
fn samples(domain: (f64, f64), specials: bool) -> Vec<f64> {
    let (low, high) = domain;
    let mut all: Vec<f64> = (0..200).map(|i| low + (high - low) * f64::from(i) / 199.0).collect();
    if specials {
        all.extend((0..200).map(|i| 10.0 * (low + (high - low) * f64::from(i) / 199.0)));
        all.extend([0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, -1e-30, 1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
    }
    all
}

fn result_dtype(promote: Promote, dtype: DType) -> DType {
    if promote == Promote::Compare { DType::Bool } else { dtype }
}

fn check_unary(def: &UnaryDef) {
    for dtype in [DType::F32, DType::F64] {
        let Some(kernels) = (def.kernels)(dtype) else { continue };
        let x = held(&samples(def.domain, true), dtype);
        run(kernels, &[&x], dtype, result_dtype(def.promote, dtype), |isa, made| {
            for (&x, &y) in x.iter().zip(made) {
                assert_near(def.name, isa, dtype, def.ulp, &[x], y, (def.reference)(x));
            }
        });
    }
    for dtype in [DType::U8, DType::I32, DType::I64] {
        let Some(kernels) = (def.kernels)(dtype) else { continue };
        let x = held(&[0.0, 1.0, 2.0, 3.0, 7.0, 11.0, -1.0, -2.0, -5.0], dtype);
        let to = result_dtype(def.promote, dtype);
        run(kernels, &[&x], dtype, to, |isa, made| {
            let expected = held(&x.iter().map(|&x| (def.reference)(x)).collect::<Vec<_>>(), to);
            assert_eq!(made, expected, "{} of {x:?} in {dtype} on {}", def.name, isa.name());
        });
    }
}

fn check_binary(def: &BinaryDef) {
    let pairs = |left: &[f64], right: &[f64]| -> (Vec<f64>, Vec<f64>) {
        left.iter().flat_map(|&x| right.iter().map(move |&y| (x, y))).unzip()
    };
    let few = |domain| samples(domain, false).into_iter().step_by(7).collect::<Vec<_>>();
    let special = [0.0, -0.0, 1.0, -2.0, 3.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    for dtype in [DType::F32, DType::F64] {
        let Some(kernels) = (def.kernels)(dtype) else { continue };
        for (left, right) in [(few(def.domain[0]), few(def.domain[1])), (special.to_vec(), special.to_vec())] {
            let (x, y) = pairs(&held(&left, dtype), &held(&right, dtype));
            run(kernels, &[&x, &y], dtype, result_dtype(def.promote, dtype), |isa, made| {
                for ((&x, &y), &z) in x.iter().zip(&y).zip(made) {
                    assert_near(def.name, isa, dtype, def.ulp, &[x, y], z, (def.reference)(x, y));
                }
            });
        }
    }
    for dtype in [DType::U8, DType::I32, DType::I64] {
        let Some(kernels) = (def.kernels)(dtype) else { continue };
        let small = held(&[1.0, 2.0, 3.0, 7.0, 11.0, -1.0, -2.0, -5.0], dtype);
        let (x, y) = pairs(&small, &small);
        let to = result_dtype(def.promote, dtype);
        run(kernels, &[&x, &y], dtype, to, |isa, made| {
            let exact: Vec<f64> = x.iter().zip(&y).map(|(&x, &y)| (def.reference)(x, y)).collect();
            assert_eq!(made, held(&exact, to), "{} in {dtype} on {}", def.name, isa.name());
        });
    }
}

/// Quotient and remainder of integers, rounded toward minus infinity; 0 for a division by 0.
fn floor_division(x: i64, y: i64) -> [f64; 2] {
    if y == 0 {
        return [0.0, 0.0];
    }
    let (quotient, rest) = (x / y, x % y);
    let is_above = rest != 0 && (rest < 0) != (y < 0);
    let (quotient, rest) = if is_above { (quotient - 1, rest + y) } else { (quotient, rest) };
    [quotient as f64, rest as f64]
}

#[test]
fn integer_quotients_are_exact_to_the_ends_of_the_type() {
    for dtype in [DType::U8, DType::I32] {
        let mut ends = vec![0.0, 1.0, 2.0, 3.0, 7.0, 127.0, 128.0, 254.0, 255.0];
        if dtype == DType::I32 {
            let (low, high) = (f64::from(i32::MIN), f64::from(i32::MAX));
            ends.extend([low, low + 1.0, low / 2.0, low / 3.0, high / 3.0, high / 2.0, high - 1.0, high]);
            ends.extend([-1.0, -2.0, -3.0, -46341.0, 46340.0, 65536.0, -65537.0, 715_827_883.0]);
        }
        let ends = held(&ends, dtype);
        let (x, y): (Vec<f64>, Vec<f64>) = ends.iter().flat_map(|&x| ends.iter().map(move |&y| (x, y))).unzip();
        for (def, of) in [(&super::arithmetic::FLOOR_DIVIDE, 0), (&super::arithmetic::REMAINDER, 1)] {
            let Some(kernels) = (def.kernels)(dtype) else { panic!("{} of {dtype}", def.name) };
            let expected: Vec<f64> = x.iter().zip(&y).map(|(&x, &y)| floor_division(x as i64, y as i64)[of]).collect();
            run(kernels, &[&x, &y], dtype, dtype, |isa, made| {
                assert_eq!(made, held(&expected, dtype), "{} in {dtype} on {}", def.name, isa.name());
            });
        }
    }
}

#[test]
fn kernels_stay_within_the_bound_of_their_definition() {
    let mut failed = Vec::new();
    for definition in TABLE {
        let (name, outcome) = match definition {
            Definition::Unary(def) => (def.name, std::panic::catch_unwind(|| check_unary(def))),
            Definition::Binary(def) => (def.name, std::panic::catch_unwind(|| check_binary(def))),
            _ => continue,
        };
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn integer_division_by_zero_gives_zero_and_never_traps() {
    use super::arithmetic::{FLOOR_DIVIDE, REMAINDER};
    for dtype in [DType::U8, DType::I32, DType::I64] {
        for def in [&FLOOR_DIVIDE, &REMAINDER] {
            let Some(kernels) = (def.kernels)(dtype) else { continue };
            run(kernels, &[&[7.0, 0.0], &[0.0, 0.0]], dtype, dtype, |_, made| assert_eq!(made, [0.0, 0.0]));
        }
    }
    // The quotient of the smallest number and -1 does not exist; it wraps.
    let kernels = (FLOOR_DIVIDE.kernels)(DType::I32);
    let smallest = f64::from(i32::MIN);
    if let Some(kernels) = kernels {
        run(kernels, &[&[smallest], &[-1.0]], DType::I32, DType::I32, |_, made| assert_eq!(made, [smallest]));
    }
}

#[test]
fn casts_follow_the_scalar_rule() {
    let data = [0.0, 1.0, -1.0, 2.7, -2.7, 200.0, 300.0, 3e9, -3e9, 1e30, f64::NAN, f64::INFINITY, 0.3];
    for from in DType::ALL {
        for to in DType::ALL {
            let x = held(&data, from);
            run(super::cast_kernels(from, to), &[&x], from, to, |_, made| {
                let scalar = |x: f64| if from.is_float() { Scalar::F64(x) } else { Scalar::I64(x as i64) };
                let expected: Vec<f64> =
                    x.iter().map(|&x| Scalar::from_bytes(to, &scalar(x).to_bytes(to)).as_f64()).collect();
                assert_eq!(format!("{made:?}"), format!("{expected:?}"), "{from} to {to}");
            });
        }
    }
}

/// The one result of a float kernel, on every instruction set.
fn assert_float(kernels: fn(DType) -> Option<&'static Kernels>, operands: &[f64], expected: f64) {
    for dtype in [DType::F32, DType::F64] {
        let operands: Vec<&[f64]> = operands.chunks(1).collect();
        run(kernels(dtype).expect("a float kernel"), &operands, dtype, dtype, |isa, made| {
            let same = made[0] == expected || (made[0].is_nan() && expected.is_nan());
            assert!(same, "{operands:?} in {dtype} on {}: {} instead of {expected}", isa.name(), made[0]);
        });
    }
}

#[test]
fn acosh_below_one_is_nan() {
    use super::trigonometric::ACOSH;
    for x in [0.5, 0.0, -1.0, -2.0, -16.0, -104_302.0, -1e9, f64::NEG_INFINITY] {
        assert_float(ACOSH.kernels, &[x], f64::NAN);
        assert!((ACOSH.reference)(x).is_nan(), "{x}");
    }
}

#[test]
fn a_quotient_by_infinity_is_rounded_down() {
    use super::arithmetic::FLOOR_DIVIDE;
    let infinity = f64::INFINITY;
    for (x, y, quotient) in [
        (1.0, infinity, 0.0),
        (-1.0, infinity, -1.0),
        (1.0, -infinity, -1.0),
        (-1.0, -infinity, 0.0),
        (-0.0, infinity, 0.0),
        (infinity, infinity, f64::NAN),
        (infinity, 2.0, f64::NAN),
    ] {
        assert_float(FLOOR_DIVIDE.kernels, &[x, y], quotient);
    }
}
