//! Causal attention by its kernel, and by two products and a softmax: value, and value with gradient.

use wengert::dtype::DType;
use wengert::error::Result;
use wengert::nn::{self, Attention};
use wengert::ops::arithmetic::{ADD, MULTIPLY};
use wengert::tensor::{self, BackwardOptions, Tensor};

use crate::measure::{Bench, Work, floats, value};

pub fn run(bench: &mut Bench) -> Result<()> {
    for (heads, length, width) in [(48, 64, 32), (8, 1024, 64)] {
        let shape = [heads, length, width];
        let operands = [floats(&shape)?, floats(&shape)?, floats(&shape)?];
        operands.iter().try_for_each(|operand| operand.set_requires_grad(true))?;
        let cotangent = floats(&shape)?;
        let mask = hidden(length)?;
        let by_kernel = || by_kernel(&operands);
        let by_parts = || by_parts(&operands, &mask, width);
        // Half of the scores are seen; each takes part in two products, and in five more in the gradient.
        let products = heads * length * length / 2 * width;
        for (name, attend) in [("kernel", &by_kernel as &dyn Fn() -> Result<Tensor>), ("parts", &by_parts)] {
            let entry = |what: &str| format!("attention {what} {heads} x {length} x {width}, {name}");
            bench.entries(&entry("value"), Work::MulAdds(2 * products, DType::F32), value(attend))?;
            bench.entries(&entry("gradient"), Work::MulAdds(7 * products, DType::F32), || {
                let inputs: Vec<&Tensor> = operands.iter().collect();
                let options = BackwardOptions::default();
                let made = tensor::autograd_grad(&[&attend()?], &inputs, Some(&[&cotangent]), options, false)?;
                tensor::evaluate(&made.iter().flatten().collect::<Vec<_>>())
            })?;
        }
    }
    Ok(())
}

fn by_kernel([query, key, value]: &[Tensor; 3]) -> Result<Tensor> {
    let settings = Attention { mask: None, dropout: 0.0, causal: true, scale: None, grouped: false };
    nn::attention(query, key, value, &settings)
}

fn by_parts([query, key, value]: &[Tensor; 3], mask: &Tensor, width: usize) -> Result<Tensor> {
    let scores = tensor::matmul(query, &tensor::permute(key, &[0, 2, 1])?)?;
    let scaled = tensor::binary(&MULTIPLY, (&scores).into(), (1.0 / (width as f64).sqrt()).into())?;
    let masked = tensor::binary(&ADD, (&scaled).into(), mask.into())?;
    tensor::matmul(&tensor::softmax(&masked, -1)?, value)
}

/// 0 where a query sees a key, else -inf.
fn hidden(length: usize) -> Result<Tensor> {
    let element = |i: usize| if i % length > i / length { f32::NEG_INFINITY } else { 0.0 };
    let bytes: Vec<u8> = (0..length * length).flat_map(|i| element(i).to_ne_bytes()).collect();
    Tensor::from_bytes(&bytes, wengert::graph::TensorType::new(DType::F32, [length, length]))
}
