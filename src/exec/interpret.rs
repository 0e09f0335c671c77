//! The row interpreter: runs a row program tile by tile over slice kernels. A tile is a few whole rows or part of one;
//! its size changes speed only. Work is cut for threads at tiles, or at chunks where rows are added up.

use super::cpu::Run;
use super::reduce;
use crate::error::Result;
use crate::machine::cpu::chain::MOST_ARGS;
use crate::machine::cpu::dispatch::{Arg, by_isa};
use crate::machine::cpu::isa::isa;
use crate::machine::cpu::par;
use crate::machine::cpu::reduce::{BLOCK, CHUNK_ROWS};
use crate::planner::MOST_REGS;
use crate::planner::plan::{RowProgram, Step, adds_rows, base};
use crate::planner::window::Dims;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Parts for each thread, so that one that starts late takes fewer.
const PARTS: usize = 4;

/// Runs the whole program. `scratch` serves this thread.
///
/// # Safety
/// The addresses of `run` are those of the plan that `program` belongs to.
#[inline(always)]
pub unsafe fn rows(program: &RowProgram, run: &Run, scratch: *mut u8) -> Result<()> {
    let units = program.units;
    let width = if run.serial { 1 } else { par::width(program.work) };
    if width == 1 || units < 2 {
        // SAFETY: the caller's promise.
        unsafe { part(program, run, (0..units).map(|unit| area(program, unit)), scratch) };
    } else {
        let parts = units.min(width * PARTS);
        run.stopped(par::par(parts, program.work, &|i| {
            with_scratch(program.scratch, |scratch| {
                let mine = par::share(i, parts, units);
                // SAFETY: parts write separate rows and partials; each thread has scratch of its own.
                unsafe { part(program, run, mine.map(|unit| area(program, unit)), scratch) }
            });
        }))?;
    }
    for sum in program.sums.iter().filter(|sum| sum.parts > 1) {
        let (partials, out) = (run.resolve(&sum.partials), run.resolve(&sum.out));
        let bytes = sum.len * sum.bytes;
        for result in 0..sum.results {
            // SAFETY: every partial result is complete.
            unsafe {
                let from = partials.add(result * sum.parts * bytes);
                reduce::fold(sum.kernels, sum.parts, (sum.len, sum.bytes), from, out.add(result * bytes));
            }
        }
    }
    Ok(())
}

/// The rows and columns of a unit.
fn area(program: &RowProgram, unit: usize) -> Area {
    if program.units == 1 {
        return (0..program.rows, 0..program.len);
    }
    let pieces = program.len.div_ceil(program.piece);
    let (block, piece) = if pieces == 1 { (unit, 0) } else { (unit / pieces, unit % pieces) };
    let from = piece * program.piece;
    let columns = from..(from + program.piece).min(program.len);
    if !adds_rows(&program.sums) {
        let from = block * program.tile_rows;
        return (from..(from + program.tile_rows).min(program.rows), columns);
    }
    let chunks = program.segment.div_ceil(CHUNK_ROWS);
    let first = block / chunks * program.segment;
    let from = first + block % chunks * CHUNK_ROWS;
    (from..(from + CHUNK_ROWS).min(first + program.segment), columns)
}

/// The registers of one thread: where each starts, and where it lies for the current tile.
struct Registers {
    starts: [MaybeUninit<*mut u8>; MOST_REGS],
    args: [MaybeUninit<Arg>; MOST_REGS],
}

impl Registers {
    fn arg(&self, reg: u16) -> Arg {
        // SAFETY: `part` writes every register of the program before any step reads one.
        unsafe { self.args[reg as usize].assume_init() }
    }

    fn out(&self, reg: u16) -> *mut u8 {
        self.arg(reg).ptr.cast_mut()
    }
}

/// The part of a tile that all steps work on.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    rows: usize,
    column: usize,
    /// Elements of a row.
    width: usize,
}

/// Runs the program for some of `rows` rows of its operands, on this thread.
///
/// # Safety
/// As for `rows`; the program keeps rows of this number, and has no sums.
pub unsafe fn some_rows(program: &RowProgram, run: &Run, mine: Range<usize>, rows: usize) {
    let (rows, columns) = if program.rows == 1 {
        let each = program.len / rows;
        (0..1, mine.start * each..mine.end * each)
    } else {
        let each = program.rows / rows;
        (mine.start * each..mine.end * each, 0..program.len)
    };
    let end = columns.end;
    let pieces = columns.step_by(program.piece).map(|from| (rows.clone(), from..(from + program.piece).min(end)));
    // SAFETY: the caller's promise.
    with_scratch(program.scratch, |scratch| unsafe { part(program, run, pieces, scratch) });
}

type Area = (Range<usize>, Range<usize>);

/// Runs areas: rows, and at most a piece of their columns.
unsafe fn part(program: &RowProgram, run: &Run, areas: impl Iterator<Item = Area>, scratch: *mut u8) {
    let mut registers = Registers {
        starts: [const { MaybeUninit::uninit() }; MOST_REGS],
        args: [const { MaybeUninit::uninit() }; MOST_REGS],
    };
    for (at, reg) in program.regs.iter().enumerate() {
        let start = match reg.place.base {
            // SAFETY: the offset lies in the program's scratch.
            base::SCRATCH => unsafe { scratch.offset(reg.place.offset) },
            _ => run.resolve(&reg.place),
        };
        registers.starts[at].write(start);
        registers.args[at].write(Arg { ptr: start, scalar: reg.scalar });
    }
    if !program.prologue.is_empty() {
        let tile = Tile { row: 0, rows: program.tile_rows, column: 0, width: program.len };
        // SAFETY: the prologue repeats rows that start at column 0 into scratch.
        program.prologue.iter().for_each(|step| unsafe { execute(program, run, step, &registers, tile) });
    }
    for (rows, columns) in areas {
        let mut row = rows.start;
        while row < rows.end {
            let count = program.tile_rows.min(rows.end - row);
            let tile = Tile { row, rows: count, column: columns.start, width: columns.len() };
            if row != 0 || columns.start != 0 {
                for (at, reg) in program.regs.iter().enumerate() {
                    if reg.row_step != 0 || reg.col_step != 0 {
                        let skip = row as isize * reg.row_step + columns.start as isize * reg.col_step;
                        // SAFETY: the registers were written above; rows and columns lie in the program's space.
                        let ptr = unsafe { registers.starts[at].assume_init().offset(skip) };
                        registers.args[at].write(Arg { ptr, scalar: reg.scalar });
                    }
                }
            }
            // SAFETY: the registers hold this tile's addresses.
            program.steps.iter().for_each(|step| unsafe { execute(program, run, step, &registers, tile) });
            row += count;
        }
    }
}

#[inline(always)]
unsafe fn execute(program: &RowProgram, run: &Run, step: &Step, registers: &Registers, tile: Tile) {
    let elements = tile.rows * tile.width;
    // SAFETY: the planner gave each register room for a tile, and kernels get what their contracts ask.
    unsafe {
        match step {
            Step::Map { kernel, out, args, column } => {
                let n = if *column { tile.rows } else { elements };
                let out = registers.out(*out);
                match args.as_slice() {
                    [a] => kernel(n, out, &[registers.arg(*a)]),
                    [a, b] => kernel(n, out, &[registers.arg(*a), registers.arg(*b)]),
                    [a, b, c] => kernel(n, out, &[registers.arg(*a), registers.arg(*b), registers.arg(*c)]),
                    _ => debug_assert!(false, "a map of {} operands", args.len()),
                }
            }
            Step::Chain { kernel, outs, args } => {
                let mut pointers = [std::ptr::null_mut(); MOST_ARGS];
                let mut operands = [Arg { ptr: std::ptr::null(), scalar: false }; MOST_ARGS];
                pointers.iter_mut().zip(outs).for_each(|(pointer, &out)| *pointer = registers.out(out));
                operands.iter_mut().zip(args).for_each(|(operand, &arg)| *operand = registers.arg(arg));
                kernel(tile.rows, tile.width, &pointers[..outs.len()], &operands[..args.len()]);
            }
            Step::Reduce { kernel, from, out } => {
                kernel(tile.rows, tile.width, registers.arg(*from).ptr, registers.out(*out));
            }
            Step::Load { from, out, dims, bytes, column } => {
                let (first, n) =
                    if *column { (tile.row, tile.rows) } else { (tile.row * program.len + tile.column, elements) };
                let (from, out) = (registers.arg(*from).ptr, registers.out(*out));
                match bytes {
                    1 => load::<u8>(dims, from, out, first, n),
                    4 => load::<u32>(dims, from, out, first, n),
                    _ => load::<u64>(dims, from, out, first, n),
                }
            }
            Step::Spread { from, out, bytes } => {
                let (from, out) = (registers.arg(*from).ptr, registers.out(*out));
                let kernels = match bytes {
                    1 => &SPREADS[0],
                    4 => &SPREADS[1],
                    _ => &SPREADS[2],
                };
                kernels[isa() as usize](from, out, tile.rows, tile.width);
            }
            Step::Repeat { from, out, bytes } => {
                let (from, out) = (registers.arg(*from).ptr, registers.out(*out));
                let row = tile.width * *bytes as usize;
                (0..tile.rows).for_each(|i| out.add(i * row).copy_from_nonoverlapping(from, row));
            }
            Step::Sum { sum } => {
                let sum = &program.sums[*sum as usize];
                let (segment, within) = (tile.row / program.segment, tile.row % program.segment);
                let place = ((segment * sum.parts + within / CHUNK_ROWS) * program.len + tile.column) * sum.bytes;
                let partial = run.resolve(&sum.partials).add(place);
                let from = registers.arg(sum.from).ptr;
                let first = within % CHUNK_ROWS == 0;
                sum.kernels.chunk[isa() as usize](first, tile.rows, tile.width, from, tile.width as isize, partial);
            }
            Step::Block { sum } => {
                let sum = &program.sums[*sum as usize];
                let at = tile.row * sum.parts + tile.column / BLOCK;
                let partial = run.resolve(&sum.partials).add(at * sum.bytes);
                sum.kernels.rows[isa() as usize](1, tile.width, registers.arg(sum.from).ptr, partial);
            }
        }
    }
}

/// Elements `first..first + n`, in row-major order of the dims, one after another.
unsafe fn load<T: Copy>(dims: &Dims, from: *const u8, out: *mut u8, first: usize, n: usize) {
    let (from, mut out) = (from.cast::<T>(), out.cast::<T>());
    let Some((&(extent, stride), outer)) = dims.split_last() else {
        // SAFETY: no axes: one element.
        return unsafe { *out = *from };
    };
    let mut index = [0usize; crate::shape::MAX_RANK];
    let (mut rest, mut inner) = (first / extent, first % extent);
    let mut offset = 0;
    for (axis, &(extent, stride)) in outer.iter().enumerate().rev() {
        index[axis] = rest % extent;
        rest /= extent;
        offset += index[axis] as isize * stride;
    }
    let mut left = n;
    while left > 0 {
        let run = left.min(extent - inner);
        // SAFETY: indices lie in the dims of a valid operand, and `out` has room for n elements.
        unsafe {
            let start = from.offset(offset + inner as isize * stride);
            match stride {
                1 => out.copy_from_nonoverlapping(start, run),
                0 => (0..run).for_each(|i| *out.add(i) = *start),
                _ => (0..run).for_each(|i| *out.add(i) = *start.offset(i as isize * stride)),
            }
            out = out.add(run);
        }
        left -= run;
        inner = 0;
        for (axis, &(extent, stride)) in outer.iter().enumerate().rev() {
            index[axis] += 1;
            offset += stride;
            if index[axis] < extent {
                break;
            }
            offset -= stride * extent as isize;
            index[axis] = 0;
        }
    }
}

type SpreadKernel = unsafe fn(from: *const u8, out: *mut u8, rows: usize, width: usize);

/// By the bytes of an element: 1, 4, 8.
static SPREADS: [[SpreadKernel; 3]; 3] = [spreads::<u8>(), spreads::<u32>(), spreads::<u64>()];

const fn spreads<T: Copy>() -> [SpreadKernel; 3] {
    by_isa!(spread<T: Copy>(from: *const u8, out: *mut u8, rows: usize, width: usize))
}

/// Element i of a column along row i.
#[inline(always)]
unsafe fn spread<T: Copy, const FMA: bool>(from: *const u8, out: *mut u8, rows: usize, width: usize) {
    let (from, out) = (from.cast::<T>(), out.cast::<T>());
    for row in 0..rows {
        // SAFETY: a column of `rows` elements, and room for as many rows.
        unsafe {
            let x = *from.add(row);
            let out = out.add(row * width);
            (0..width).for_each(|i| *out.add(i) = x);
        }
    }
}

thread_local! {
    static SCRATCH: UnsafeCell<Vec<Line>> = const { UnsafeCell::new(Vec::new()) };
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code, reason = "only its size and alignment matter")] [u8; 64]);

/// Scratch of this thread, for one part of a parallel kernel. Parts neither nest nor call back.
pub fn with_scratch<R>(bytes: usize, f: impl FnOnce(*mut u8) -> R) -> R {
    SCRATCH.with(|scratch| {
        // SAFETY: no reference lives past this block, and `f` cannot come back here.
        let ptr = unsafe {
            let lines = &mut *scratch.get();
            if lines.len() * 64 < bytes {
                lines.resize(bytes.div_ceil(64), Line([0; 64]));
            }
            lines.as_mut_ptr().cast()
        };
        f(ptr)
    })
}
