//! Random numbers: an element is a function of the seed, the stream and its own index, so results depend on neither
//! threads nor plans. Each random op takes seed and stream as inputs and, below a batch, the placeholders of the
//! examples it must differ for; those come last.

use super::arithmetic::REMAINDER;
use super::build::*;
use super::compare::GREATER_EQUAL;
use super::statistics::float_only;
use super::wgsl::wgsl;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::def::FillFn;
use crate::graph::{CompositeDef, Graph, Op, RandomDef, Reads, TensorType, Val};
use crate::machine::cpu::isa::isa;
use crate::machine::cpu::philox;
use crate::shape::Shape;
use smallvec::smallvec;

pub static UNIFORM: RandomDef = RandomDef {
    name: "uniform",
    doc: "Uniform numbers in [0, 1).",
    fill: philox::uniform,
    wgsl: wgsl!(F32 => "uniform_f32(seed, stream, i)"),
};

pub static NORMAL: RandomDef = RandomDef {
    name: "normal",
    doc: "Normal numbers of mean 0 and variance 1.",
    fill: philox::normal,
    wgsl: wgsl!(F32 => "normal_f32(seed, stream, i)"),
};

pub static RANDOM_BITS: RandomDef = RandomDef {
    name: "random_bits",
    doc: "Uniform int64 numbers of at least 0: 63 random bits.",
    fill: |dtype| if dtype == DType::I64 { Some(fill_bits as FillFn) } else { None },
    wgsl: wgsl!(I64 => "random_i64(seed, stream, i)"),
};

pub static BERNOULLI: CompositeDef = CompositeDef {
    name: "bernoulli",
    doc: "1 with probability p, else 0, in the shape and dtype of p. Inputs: p, seed, stream, examples.",
    attrs: &[],
    infer: |_, inputs| {
        float_only("bernoulli", inputs[0])?;
        Ok(smallvec![inputs[0].clone()])
    },
    expand: |g, _, inputs| {
        let ty = g.ty(inputs[0]).clone();
        let draw = g.add_typed(Op::Random(&UNIFORM), &inputs[1..], ty.clone());
        let hit = less(g, draw, inputs[0])?;
        Ok(smallvec![cast(g, hit, ty.dtype)?])
    },
    derivative: Some(|_, _, _| Ok(smallvec![None])),
    transpose: None,
    reads: Reads::NONE,
    kernel: None,
};

pub static DROPOUT: CompositeDef = CompositeDef {
    name: "dropout",
    doc: "x / (1 - p) with probability 1 - p, else 0; p carries no gradient (Srivastava et al. 2014). \
          Inputs: x, p (a number), seed, stream, examples.",
    attrs: &[],
    infer: |_, inputs| {
        float_only("dropout", inputs[0])?;
        Ok(smallvec![inputs[0].clone()])
    },
    expand: |g, _, inputs| Ok(smallvec![dropout(g, inputs)?]),
    derivative: None,
    // The mask is drawn again from seed and stream; x is not needed.
    transpose: None,
    reads: Reads { inputs: !1, outputs: 0 },
    kernel: None,
};

pub static RANDINT: CompositeDef = CompositeDef {
    name: "randint",
    doc: "Uniform int64 numbers of at least low and less than high. Inputs: low and high (int64 numbers), seed, \
          stream, examples.",
    attrs: &["the dimensions of the shape, one by one"],
    infer: |attrs, _| {
        let shape: Shape = attrs.iter().map(|&dim| dim as usize).collect();
        Ok(smallvec![TensorType { dtype: DType::I64, shape: shape.checked("randint")? }])
    },
    expand: |g, attrs, inputs| {
        let ty = TensorType { dtype: DType::I64, shape: attrs.iter().map(|&dim| dim as usize).collect() };
        let bits = g.add_typed(Op::Random(&RANDOM_BITS), &inputs[2..], ty);
        let (low, high) = (number(g, inputs[0], bits)?, number(g, inputs[1], bits)?);
        let width = subtract(g, high, low)?;
        // The lowest of 2^63 words are favoured by less than width / 2^63.
        let offset = binary(g, &REMAINDER, bits, width)?;
        Ok(smallvec![add(g, low, offset)?])
    },
    derivative: Some(|_, _, _| Ok(smallvec![None])),
    transpose: None,
    reads: Reads::NONE,
    kernel: None,
};

/// A factor of 0 or 1 / (1 - p) for each element. `zmul`: a dropped infinity is 0, and p = 1 drops everything.
fn dropout(g: &mut Graph, inputs: &[Val]) -> Result<Val> {
    let ty = g.ty(inputs[0]).clone();
    let p = g.add(Op::Detach, &inputs[1..2])?;
    let p = cast(g, p, ty.dtype)?;
    let one = full_like(g, 1.0, p);
    let kept = subtract(g, one, p)?;
    let scale = divide(g, one, kept)?;
    let draw = g.add_typed(Op::Random(&UNIFORM), &inputs[2..], ty);
    let (p, scale, zero) = (number(g, p, draw)?, number(g, scale, draw)?, zeros_like(g, draw));
    let keep = binary(g, &GREATER_EQUAL, draw, p)?;
    let factor = select(g, keep, scale, zero)?;
    zmul(g, inputs[0], factor)
}

/// Two words for each element, without the sign.
///
/// # Safety
/// `out` has room for `n` int64 elements.
unsafe fn fill_bits(seed: u64, stream: u64, first: u64, n: usize, out: *mut u8) {
    // SAFETY: 2n words of four bytes are n elements of eight.
    unsafe {
        philox::BITS[isa() as usize](seed, stream, first.wrapping_mul(2), 2 * n, out);
        let out = out.cast::<i64>();
        (0..n).for_each(|i| *out.add(i) &= i64::MAX);
    }
}

/// Checks the probability of a dropout or of a constant Bernoulli draw.
pub fn check_probability(op: &str, p: f64) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::value(format!("{op}: p is {p}, it must be a probability between 0 and 1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_do_not_depend_on_where_a_fill_starts() {
        let fill = (RANDOM_BITS.fill)(DType::I64).unwrap();
        let (mut whole, mut part) = ([0i64; 50], [0i64; 20]);
        // SAFETY: the arrays have room.
        unsafe {
            fill(7, 3, 0, 50, whole.as_mut_ptr().cast());
            fill(7, 3, 13, 20, part.as_mut_ptr().cast());
        }
        assert_eq!(whole[13..33], part);
        assert!(whole.iter().all(|&x| x >= 0) && whole[0] != whole[1]);
        assert!((RANDOM_BITS.fill)(DType::I32).is_none());
    }

    #[test]
    fn probabilities_are_checked() {
        assert!(check_probability("dropout", 1.0).is_ok());
        assert_eq!(
            check_probability("dropout", 1.5).err().map(|e| e.message().to_owned()),
            Some("dropout: p is 1.5, it must be a probability between 0 and 1".into())
        );
        assert!(check_probability("dropout", f64::NAN).is_err());
    }
}
