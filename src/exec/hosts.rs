//! Kernels outside the row interpreter: products, convolutions, pools, gathers, scatters, embeds, joins, random fills
//! and hand kernels.

use super::cpu::Run;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::machine::cpu::gemm::{Element, Mat, MatMut, gemm};
use crate::machine::cpu::isa::isa;
use crate::machine::cpu::par::{self, Work};
use crate::machine::cpu::view::{self, View};
use crate::ops;
use crate::planner::plan::{Instr, Kernel, Operand, Product};
use smallvec::SmallVec;
use std::ops::Range;

/// The operands of a hand kernel.
type Views = SmallVec<[View; 12]>;

/// Elements of a random fill that one thread takes at a time.
const FILL: usize = 16 << 10;

/// Runs the kernel; gives the error of an index out of range.
pub fn run(instr: &Instr, run: &Run) -> Result<Option<Error>> {
    match &instr.kernel {
        Kernel::Rows(_) => Err(Error::internal("a row program outside the interpreter")),
        Kernel::Contract(product) => contract(product, run, 0..product.shape.0).map(|()| None),
        Kernel::Conv { conv, inputs, out, workspace } => {
            let inputs = [run.resolve(&inputs[0]), run.resolve(&inputs[1])];
            // SAFETY: the operands are those of the plan, which gave them the room that was asked.
            let result = unsafe { conv.run(inputs, run.resolve(out), run.resolve(workspace)) };
            run.stopped(result).map(|()| None)
        }
        Kernel::Pool { pool, role, dtypes, inputs, out } => {
            let inputs = [run.resolve(&inputs[0]), run.resolve(&inputs[1])];
            // SAFETY: as above.
            run.stopped(unsafe { ops::pool::run(pool, *role, *dtypes, inputs, run.resolve(out)) }).map(|()| None)
        }
        Kernel::Gather { mode, axis, from, indices, out } => {
            // SAFETY: the operands are those of the plan; inference checked their shapes.
            let bad =
                unsafe { ops::gather_elements(*mode, *axis, &run.view(from), &run.view(indices), &run.view(out)) };
            Ok(bad.map(|index| out_of_range(instr, index, from, *axis)))
        }
        Kernel::Scatter { mode, axis, updates, indices, out } => {
            let field = run.view(out);
            // SAFETY: as above; the result is contiguous, and zero bytes are zeros.
            let bad = unsafe {
                field.ptr.write_bytes(0, field.shape.size() * field.dtype.size());
                ops::scatter_elements(*mode, *axis, &run.view(updates), &run.view(indices), &field)
            };
            Ok(bad.map(|index| out_of_range(instr, index, out, *axis)))
        }
        Kernel::Embed { from, window, out } => {
            // SAFETY: as above; starts have been checked.
            unsafe { ops::embed_elements(&run.view(from), &run.view(window), &run.view(out)) };
            Ok(None)
        }
        Kernel::Concat { parts } => {
            for (from, to) in parts {
                // SAFETY: each part has its own place in the result.
                run.stopped(unsafe { view::copy_shared(&run.view(from), &run.view(to)) })?;
            }
            Ok(None)
        }
        Kernel::Hand { run: kernel, attrs, inputs, outputs } => {
            let views = |operands: &[Operand]| operands.iter().map(|operand| run.view(operand)).collect::<Views>();
            // SAFETY: the operands are those of the plan, which gives each output memory of its own.
            let result = unsafe { kernel(attrs, &views(inputs), &views(outputs)) };
            run.stopped(result).map(|()| None)
        }
        Kernel::Random { fill, seed, stream, out, size, dtype } => {
            // SAFETY: seed and stream are int64 elements.
            let (seed, stream) = unsafe { (*run.resolve(seed).cast::<u64>(), *run.resolve(stream).cast::<u64>()) };
            let out = run.resolve(out) as usize;
            let work = if run.serial { Work::Plain(0) } else { Work::Transcendental(*size) };
            let result = par::par(size.div_ceil(FILL), work, &|part| {
                let first = part * FILL;
                let n = FILL.min(size - first);
                // SAFETY: parts fill separate elements of the result.
                unsafe { fill(seed, stream, first as u64, n, (out + first * dtype.size()) as *mut u8) }
            });
            run.stopped(result).map(|()| None)
        }
    }
}

fn out_of_range(instr: &Instr, index: i64, field: &Operand, axis: usize) -> Error {
    let extent = field.shape[axis];
    Error::index(format!("{}: index {index} is out of range for axis {axis} of size {extent}", instr.name))
}

/// Some rows of the products.
#[inline(always)]
pub fn contract(product: &Product, run: &Run, rows: Range<usize>) -> Result<()> {
    let first = rows.start as isize;
    let start = [first * product.a_steps.0, 0, first * product.shape.2 as isize];
    if product.outer.is_empty() {
        return products(product, run, start, rows.len());
    }
    let mut index: SmallVec<[usize; 4]> = SmallVec::from_elem(0, product.outer.len());
    loop {
        let mut offsets = start;
        for (at, axis) in product.outer.iter().enumerate() {
            (0..3).for_each(|i| offsets[i] += index[at] as isize * axis.steps[i]);
        }
        products(product, run, offsets, rows.len())?;
        let Some(axis) = (0..product.outer.len()).rev().find(|&axis| index[axis] + 1 < product.outer[axis].extent)
        else {
            return Ok(());
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// Some rows of the products of one batch axis: those whose operands start at these offsets.
#[inline(always)]
fn products(product: &Product, run: &Run, offsets: [isize; 3], rows: usize) -> Result<()> {
    let operands = [run.resolve(&product.a), run.resolve(&product.b), run.resolve(&product.out)];
    // SAFETY: the operands are those of the plan, and the offsets lie in their batch axes.
    unsafe {
        match product.dtype {
            DType::F32 => run.stopped(float::<f32>(product, operands, offsets, rows))?,
            DType::F64 => run.stopped(float::<f64>(product, operands, offsets, rows))?,
            DType::I64 => whole::<i64>(product, operands, offsets, rows, |s, x, y| s.wrapping_add(x.wrapping_mul(y))),
            DType::I32 => whole::<i32>(product, operands, offsets, rows, |s, x, y| s.wrapping_add(x.wrapping_mul(y))),
            DType::U8 => whole::<u8>(product, operands, offsets, rows, |s, x, y| s.wrapping_add(x.wrapping_mul(y))),
            DType::Bool => return Err(Error::internal("matmul: bool has no product")),
        }
    }
    Ok(())
}

unsafe fn float<T: Element>(
    product: &Product,
    [a, b, out]: [*mut u8; 3],
    offsets: [isize; 3],
    m: usize,
) -> Result<(), par::Stopped> {
    let (_, k, n) = product.shape;
    // SAFETY: the caller's promise.
    unsafe {
        let a =
            Mat { ptr: a.cast::<T>().cast_const().offset(offsets[0]), rs: product.a_steps.0, cs: product.a_steps.1 };
        let b =
            Mat { ptr: b.cast::<T>().cast_const().offset(offsets[1]), rs: product.b_steps.0, cs: product.b_steps.1 };
        let c = MatMut { ptr: out.cast::<T>().offset(offsets[2]), rs: n as isize, cs: 1 };
        let [a_step, b_step, c_step] = product.batch.steps;
        gemm(product.batch.extent, (m, k, n), (a, a_step), (b, b_step), (c, c_step), isa())
    }
}

/// The product of integers: plain loops, which wrap.
unsafe fn whole<T: Copy + Default>(
    product: &Product,
    [a, b, out]: [*mut u8; 3],
    offsets: [isize; 3],
    m: usize,
    add: impl Fn(T, T, T) -> T,
) {
    let (_, k, n) = product.shape;
    let [a_step, b_step, c_step] = product.batch.steps;
    for item in 0..product.batch.extent as isize {
        // SAFETY: the caller's promise.
        unsafe {
            let a = a.cast::<T>().offset(offsets[0] + item * a_step);
            let b = b.cast::<T>().offset(offsets[1] + item * b_step);
            let c = out.cast::<T>().offset(offsets[2] + item * c_step);
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let mut sum = T::default();
                for at in 0..k as isize {
                    let x = *a.offset(row as isize * product.a_steps.0 + at * product.a_steps.1);
                    let y = *b.offset(at * product.b_steps.0 + column as isize * product.b_steps.1);
                    sum = add(sum, x, y);
                }
                *c.add(row * n + column) = sum;
            }
        }
    }
}
