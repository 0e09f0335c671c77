//! Convolutions without a plan around them, all three derivatives, and pools: on the two layers of the small network for
//! digits, and on layers of a residual network.

use wengert::dtype::DType;
use wengert::error::Result;
use wengert::machine::cpu::conv::{Conv, Role, Shape};
use wengert::machine::cpu::isa::isa;
use wengert::machine::cpu::pool::{self, Divisor, Pool};
use wengert::machine::cpu::sweep::Sweep;

use crate::measure::{Bench, Work};

/// Batch, groups, channels of x, channels of g, extent of a square x, taps, stride, padding.
const LAYERS: &[[usize; 8]] = &[
    [64, 1, 1, 32, 28, 3, 1, 0],
    [64, 1, 32, 64, 26, 3, 1, 0],
    [16, 1, 3, 64, 112, 7, 2, 3],
    [16, 1, 64, 64, 28, 3, 1, 1],
    [16, 1, 128, 256, 14, 3, 2, 1],
    [16, 1, 256, 256, 7, 3, 1, 1],
    [16, 1, 256, 64, 14, 1, 1, 0],
    [16, 96, 96, 96, 28, 3, 1, 1],
    [16, 512, 512, 512, 7, 3, 1, 1],
    [16, 64, 64, 64, 56, 3, 2, 1],
    [16, 32, 128, 128, 28, 3, 1, 1],
];

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7 % 17) as f32 * 0.1 - 0.8).collect()
}

pub fn run(bench: &mut Bench) -> Result<()> {
    for &[batch, groups, from, to, extent, taps, stride, low] in LAYERS {
        let sweep = Sweep { taps, stride, dilation: 1, low };
        let count = (extent + 2 * low - taps) / stride + 1;
        let shape = Shape {
            batch,
            groups,
            inputs: from / groups,
            outputs: to / groups,
            field: [1, extent, extent],
            grid: [1, count, count],
            sweeps: [Sweep::NONE, sweep, sweep],
        };
        let sizes = [batch * from * extent * extent, to * from / groups * taps * taps, batch * to * count * count];
        let values = sizes.map(numbers);
        for (role, a, b, out) in [(Role::Output, 0, 1, 2), (Role::Input, 1, 2, 0), (Role::Weight, 0, 2, 1)] {
            let conv = Conv::<f32>::new(&shape, role, isa());
            let (mut result, mut workspace) = (vec![0f32; sizes[out]], vec![0f32; conv.workspace()]);
            let of = format!("{batch} x {from}→{to} {extent}² taps {taps}² stride {stride} groups {groups}");
            bench.entries(&format!("conv {role:?} {of}"), Work::MulAdds(shape.work(), DType::F32), || {
                let (a, b) = (values[a].as_ptr(), values[b].as_ptr());
                // SAFETY: the vectors have the extents of the shape. Nothing asks for a stop here.
                let _ = unsafe { conv.run(a, b, result.as_mut_ptr(), workspace.as_mut_ptr()) };
                Ok(())
            })?;
        }
    }
    pools(bench)
}

fn pools(bench: &mut Bench) -> Result<()> {
    for (planes, extent, taps, stride, low) in [(64 * 64, 24, 2, 2, 0), (16 * 64, 56, 3, 2, 1)] {
        let sweep = Sweep { taps, stride, dilation: 1, low };
        let count = (extent + 2 * low - taps) / stride + 1;
        let pool =
            Pool { planes, field: [1, extent, extent], grid: [1, count, count], sweeps: [Sweep::NONE, sweep, sweep] };
        let (field, windows) = (planes * extent * extent, planes * count * count);
        let (x, g, mut index) = (numbers(field), numbers(windows), vec![0u8; windows]);
        let (mut values, mut back) = (vec![0f32; windows], vec![0f32; field]);
        let of = format!("{planes} planes {extent}² taps {taps}² stride {stride}");
        let work = |small: usize| Work::Bytes(field * 4 + windows * small);
        bench.entries(&format!("pool index {of}"), work(1), || {
            // SAFETY: the vectors have the extents of the pool.
            let _ = unsafe { pool::index(&pool, x.as_ptr(), index.as_mut_ptr(), isa()) };
            Ok(())
        })?;
        bench.entries(&format!("pool pick {of}"), work(5), || {
            // SAFETY: as above.
            let _ = unsafe { pool::pick(&pool, x.as_ptr(), index.as_ptr(), values.as_mut_ptr()) };
            Ok(())
        })?;
        bench.entries(&format!("pool place {of}"), work(5), || {
            // SAFETY: as above.
            let _ = unsafe { pool::place(&pool, g.as_ptr(), index.as_ptr(), back.as_mut_ptr()) };
            Ok(())
        })?;
        bench.entries(&format!("pool mean {of}"), work(4), || {
            // SAFETY: as above.
            let _ = unsafe { pool::mean(&pool, Divisor::Padded, x.as_ptr(), values.as_mut_ptr(), isa()) };
            Ok(())
        })?;
        bench.entries(&format!("pool spread {of}"), work(4), || {
            // SAFETY: as above.
            let _ = unsafe { pool::spread(&pool, Divisor::Padded, g.as_ptr(), back.as_mut_ptr()) };
            Ok(())
        })?;
    }
    Ok(())
}
