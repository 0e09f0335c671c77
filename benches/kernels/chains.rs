//! Chain kernels beside the kernels of their steps, one pass each, on slices that stay in the first-level cache. A chain
//! that is not faster is not worth its place: the compiler has found no vectors in it, most likely.

use wengert::dtype::DType;
use wengert::error::Result;
use wengert::machine::cpu::dispatch::Arg;
use wengert::machine::cpu::isa::isa;
use wengert::ops::pattern::PATTERNS;

use crate::measure::{Bench, Work};

const N: usize = 1024;

pub fn run(bench: &mut Bench) -> Result<()> {
    // Ones suit every step; a mask reads the first bytes of them.
    let ones = vec![1f32; N];
    let mut results = vec![[0f32; N]; 3];
    let outs: Vec<*mut u8> = results.iter_mut().map(|out| out.as_mut_ptr().cast()).collect();
    let args = vec![Arg { ptr: ones.as_ptr().cast(), scalar: false }; 16];
    for pattern in PATTERNS {
        let Some(kernels) = (pattern.kernels)(DType::F32) else { continue };
        let steps: Vec<_> = pattern.steps.iter().filter_map(|step| (step.kernels)(DType::F32)).collect();
        let chain = bench.entry(&format!("chain {}", pattern.name), 1, Work::Items(N, "element"), || {
            // SAFETY: every operand and result holds N elements of four bytes.
            unsafe { kernels[isa() as usize](1, N, &outs[..pattern.outputs.len()], &args[..pattern.inputs]) };
            Ok(())
        })?;
        let name = format!("chain {}, each step a pass", pattern.name);
        let passes = bench.entry(&name, 1, Work::Items(N, "element"), || {
            for kernels in &steps {
                // SAFETY: as above; no step takes more operands.
                unsafe { kernels[isa() as usize](N, outs[0], &args) };
            }
            Ok(())
        })?;
        if let (Some(chain), Some(passes)) = (chain, passes) {
            println!("{:55}passes / chain: {:.2}, at least 1 wanted", "", passes / chain);
        }
    }
    Ok(())
}
