//! Lowers a row group to a row program: cuts its space into rows and tiles, classifies every operand by how it varies
//! over them, and gives each intermediate value a register in scratch.

use super::Scene;
use super::chains::{Chain, OPS_A_PASS, Operand};
use super::fuse::{Class, LONGEST_ROW, Rows};
use super::kernels;
use super::memory::Home;
use super::plan::{Place, Reg, RowProgram, Step, Sum, adds_rows, base};
use super::tasks::{Origin, Task, TaskKind};
use super::window::{Dims, Window, split};
use crate::error::{Error, Result};
use crate::machine::cpu::isa::isa;
use crate::machine::cpu::par::Work;
use crate::machine::cpu::reduce::{BLOCK, CHUNK_ROWS, ReduceKernels, TEAM};
use smallvec::{SmallVec, smallvec};

/// What the live operands of a tile may fill: a first-level cache.
const TILE_BYTES: usize = 32 << 10;
const SHORTEST_TILE: usize = 512;
const LONGEST_TILE: usize = 2048;
/// The longest tile that holds a whole chunk of rows to be added up.
const LONGEST_CHUNK: usize = 4096;
/// A row program has at most this many registers; the interpreter keeps them on its stack.
pub const MOST_REGS: usize = 1024;

pub fn lower(scene: &Scene, group: u32, rows: &Rows) -> Result<RowProgram> {
    let len = row_length(scene, group, rows);
    let cut = Cut::choose(scene, rows, len);
    let mut builder = Builder::new(scene, group, rows, cut);
    let (mut position, mut chains) = (0, rows.chains.iter().peekable());
    while position < rows.tasks.len() {
        if let Some(chain) = chains.next_if(|chain| chain.tasks.start == position) {
            builder.chain(chain)?;
            position = chain.tasks.end;
        } else {
            builder.task(position, rows.tasks[position])?;
            position += 1;
        }
    }
    builder.steps.extend(std::mem::take(&mut builder.epilogue));
    builder.finish()
}

/// How a space is cut: rows of `len`, tiles of `tile_rows` whole rows or of `piece` elements of one.
#[derive(Clone, Copy)]
struct Cut {
    rows: usize,
    len: usize,
    tile_rows: usize,
    piece: usize,
}

impl Cut {
    fn choose(scene: &Scene, rows: &Rows, len: usize) -> Cut {
        // Places in memory of which a tile touches as much as it holds; two more stand for the registers.
        let mut places: SmallVec<[Home; 16]> = SmallVec::new();
        let (mut whole_rows, mut blocks) = (false, false);
        for &task in &rows.tasks {
            let task = &scene.program.tasks[task as usize];
            for value in task.inputs.iter().map(|window| window.value).chain([task.output]) {
                let home = scene.homes[value as usize];
                let is_tile = scene.program.values[value as usize].size == rows.size;
                if is_tile && home != Home::Register && !places.contains(&home) {
                    places.push(home);
                }
            }
            if let TaskKind::RowReduce { len, .. } = task.kind {
                (whole_rows, blocks) = (len <= LONGEST_ROW, len > LONGEST_ROW);
            }
        }
        let block = (TILE_BYTES / (4 * (places.len() + 2))).clamp(SHORTEST_TILE, LONGEST_TILE) / 64 * 64;
        let count = rows.size / len;
        if blocks {
            // Rows this long have no column in the group: each tile is one block of the lane tree.
            Cut { rows: count, len, tile_rows: 1, piece: BLOCK }
        } else if rows.segment.is_some() && len * CHUNK_ROWS <= LONGEST_CHUNK {
            // A tile of a whole chunk is added up by one call.
            Cut { rows: count, len, tile_rows: CHUNK_ROWS.min(count), piece: len }
        } else if whole_rows || len <= block {
            let fitting = (block / len).clamp(1, count);
            let teams = if fitting > TEAM { fitting / TEAM * TEAM } else { fitting };
            Cut { rows: count, len, tile_rows: teams, piece: len }
        } else {
            Cut { rows: count, len, tile_rows: 1, piece: block }
        }
    }
}

/// The row length that a reduction fixed, or the one at which most operands become simple.
fn row_length(scene: &Scene, group: u32, rows: &Rows) -> usize {
    if let Some(row) = rows.row {
        return row;
    }
    for &task in &rows.tasks {
        for window in &scene.program.tasks[task as usize].inputs {
            if scene.maker(window).is_some_and(|(maker, _)| maker == group) || window.is_flat() {
                continue;
            }
            let dims = window.dims();
            if let (2.., Some(&(extent, 0 | 1))) = (dims.len(), dims.last()) {
                return extent;
            }
        }
    }
    rows.size
}

/// A place in scratch that a value holds for a while.
#[derive(Clone, Copy)]
struct Slot {
    bytes: usize,
    /// Holds from before the first tile to the end.
    lasting: bool,
}

/// A register before scratch is laid out.
enum Draft {
    Memory(Reg),
    /// In slot `.0`; the flag says scalar.
    Slot(usize, bool),
}

struct Builder<'a> {
    scene: &'a Scene<'a>,
    group: u32,
    group_rows: &'a Rows,
    cut: Cut,
    drafts: Vec<Draft>,
    slots: Vec<Slot>,
    prologue: Vec<Step>,
    steps: Vec<Step>,
    epilogue: Vec<Step>,
    sums: Vec<Sum>,
    /// Registers of values made here, by task output.
    made: hashbrown::HashMap<u32, u16>,
    /// Operands seen so far, by value.
    seen: hashbrown::HashMap<u32, SmallVec<[Seen<'a>; 1]>>,
    heavy: bool,
    /// Passes of a load, an operation and a store that chains take as long as.
    passes: usize,
    names: Vec<&'static str>,
}

/// An operand, the form in which it was asked for, and its register.
type Seen<'a> = (&'a Window, Want, u16);

/// The form in which an instruction needs an operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Contiguous over the tile, or a scalar.
    Tile,
    /// Contiguous over the tile.
    Filled,
    /// Contiguous over the rows of the tile, or a scalar.
    Column,
    /// That of what is the same all along each row.
    Down,
}

impl<'a> Builder<'a> {
    fn new(scene: &'a Scene<'a>, group: u32, group_rows: &'a Rows, cut: Cut) -> Builder<'a> {
        Builder {
            scene,
            group,
            group_rows,
            cut,
            drafts: Vec::with_capacity(2 * group_rows.tasks.len()),
            slots: Vec::new(),
            prologue: Vec::new(),
            steps: Vec::new(),
            epilogue: Vec::new(),
            sums: Vec::new(),
            made: hashbrown::HashMap::new(),
            seen: hashbrown::HashMap::new(),
            heavy: false,
            passes: 0,
            names: Vec::with_capacity(group_rows.tasks.len()),
        }
    }

    fn chain(&mut self, chain: &Chain) -> Result<()> {
        let program = self.scene.program;
        let operand = |&(task, input): &Operand| &program.tasks[task as usize].inputs[input as usize];
        let want = |at: usize| if chain.columns >> at & 1 == 1 { Want::Down } else { Want::Tile };
        let inputs = chain.inputs.iter().enumerate();
        let args = inputs.map(|(at, input)| self.operand(operand(input), want(at))).collect::<Result<_>>()?;
        let mut outs = SmallVec::new();
        for &task in &self.group_rows.tasks[chain.tasks.clone()] {
            let task = &program.tasks[task as usize];
            self.heavy |= matches!(task.kind, TaskKind::Map { function, .. } if function.is_heavy());
            if chain.outputs.contains(&task.output) {
                self.output(chain.tasks.end - 1, task, false)?;
            }
        }
        for output in &chain.outputs {
            outs.extend(self.made.get(output).copied());
        }
        self.passes += chain.tasks.len().div_ceil(OPS_A_PASS);
        self.names.push(chain.name);
        self.steps.push(Step::Chain { kernel: chain.kernels[isa() as usize], outs, args });
        Ok(())
    }

    fn task(&mut self, position: usize, index: u32) -> Result<()> {
        let task = &self.scene.program.tasks[index as usize];
        self.names.push(task.name);
        let isa = isa() as usize;
        match &task.kind {
            TaskKind::Map { kernels, function } => {
                let column = self.scene.groups.places[index as usize].1 == Class::Column;
                let want = if column { Want::Column } else { Want::Tile };
                let args = task.inputs.iter().map(|window| self.operand(window, want)).collect::<Result<_>>()?;
                let out = self.output(position, task, column)?;
                self.steps.push(Step::Map { kernel: kernels[isa], out, args, column });
                self.heavy |= function.is_heavy();
            }
            TaskKind::RowReduce { kernels, len, .. } if *len > LONGEST_ROW => {
                let sum = self.sum(index, task, kernels, len.div_ceil(BLOCK), 1)?;
                self.steps.push(Step::Block { sum });
            }
            TaskKind::RowReduce { kernels, .. } => {
                let from = self.operand(&task.inputs[0], Want::Filled)?;
                let out = self.output(position, task, true)?;
                self.steps.push(Step::Reduce { kernel: kernels.rows[isa], from, out });
            }
            TaskKind::OuterReduce { kernels, len, inner, .. } => {
                let sum = self.sum(index, task, kernels, len.div_ceil(CHUNK_ROWS), *inner)?;
                self.steps.push(Step::Sum { sum });
            }
            _ => return Err(Error::internal(format!("{} in a row group", task.name))),
        }
        Ok(())
    }

    /// A reduction of `parts` parts to results of `len` elements.
    fn sum(
        &mut self,
        index: u32,
        task: &'a Task,
        kernels: &'static ReduceKernels,
        parts: usize,
        len: usize,
    ) -> Result<u16> {
        let from = self.operand(&task.inputs[0], Want::Filled)?;
        let out = self.place(&self.scene.whole(task.output));
        let partials = match self.scene.partials.get(&index) {
            Some(&at) => Place { base: base::ARENA, offset: at as isize, starts: SmallVec::new() },
            None => out.clone(),
        };
        let value = &self.scene.program.values[task.output as usize];
        let (results, bytes) = (value.size / len, value.dtype.size());
        self.sums.push(Sum { kernels, from, partials, out, parts, len, results, bytes });
        Ok(self.sums.len() as u16 - 1)
    }

    fn place(&self, window: &Window) -> Place {
        self.scene.place(window)
    }

    fn reg(&mut self, draft: Draft) -> Result<u16> {
        if self.drafts.len() >= MOST_REGS {
            return Err(Error::internal("a row program has too many registers"));
        }
        self.drafts.push(draft);
        Ok(self.drafts.len() as u16 - 1)
    }

    fn slot(&mut self, elements: usize, bytes: usize, lasting: bool) -> Result<u16> {
        self.slots.push(Slot { bytes: elements * bytes, lasting });
        self.reg(Draft::Slot(self.slots.len() - 1, false))
    }

    fn tile_slot(&mut self, bytes: usize) -> Result<u16> {
        self.slot(self.cut.tile_rows * self.cut.piece, bytes, false)
    }

    fn memory(&mut self, window: &Window, row_step: usize, col_step: usize, scalar: bool) -> Result<u16> {
        let place = self.place(window);
        let bytes = self.bytes(window);
        let reg = Reg { place, row_step: (row_step * bytes) as isize, col_step: (col_step * bytes) as isize, scalar };
        self.reg(Draft::Memory(reg))
    }

    fn bytes(&self, window: &Window) -> usize {
        self.scene.program.values[window.value as usize].dtype.size()
    }

    /// The register that an instruction writes: the value's memory if it has one, else scratch.
    fn output(&mut self, position: usize, task: &Task, column: bool) -> Result<u16> {
        let value = &self.scene.program.values[task.output as usize];
        let bytes = value.dtype.size();
        let home = self.scene.homes[task.output as usize];
        let in_memory = home != Home::Register;
        let whole = self.scene.whole(task.output);
        let steps = if column { (1, 0) } else { (self.cut.len, 1) };
        let reg = if in_memory && !self.is_read_later(position, home) {
            self.memory(&whole, steps.0, steps.1, false)?
        } else if column {
            self.slot(self.cut.tile_rows, bytes, false)?
        } else {
            self.tile_slot(bytes)?
        };
        if in_memory && matches!(self.drafts[reg as usize], Draft::Slot(..)) {
            let out = self.memory(&whole, steps.0, steps.1, false)?;
            let kernel = kernels::copy(value.dtype)[0];
            self.epilogue.push(Step::Map { kernel, out, args: smallvec![reg], column });
        }
        self.made.insert(task.output, reg);
        Ok(reg)
    }

    /// Whether a later instruction reads the old value of the leaf that this result replaces.
    fn is_read_later(&self, position: usize, home: Home) -> bool {
        let Home::Leaf(slot) = home else { return false };
        self.group_rows.tasks[position + 1..].iter().any(|&task| {
            let inputs = &self.scene.program.tasks[task as usize].inputs;
            inputs.iter().any(|w| self.scene.program.values[w.value as usize].origin == Origin::Leaf(slot))
        })
    }

    fn operand(&mut self, window: &'a Window, want: Want) -> Result<u16> {
        let seen = self.seen.get(&window.value).map_or(&[][..], |seen| seen);
        if let Some((.., reg)) = seen.iter().find(|&&(w, as_what, _)| as_what == want && w == window) {
            return Ok(*reg);
        }
        let reg = match (self.made.get(&window.value).copied(), self.scene.maker(window)) {
            (Some(reg), Some((maker, class))) if maker == self.group => match (class, want) {
                (Class::Column, Want::Tile | Want::Filled) => self.spread(reg, window, want)?,
                _ => reg,
            },
            _ => self.load(window, want)?,
        };
        self.seen.entry(window.value).or_default().push((window, want, reg));
        Ok(reg)
    }

    /// A column along the rows: a scalar if the tile is part of one row, else copies of it.
    fn spread(&mut self, column: u16, window: &Window, want: Want) -> Result<u16> {
        let bytes = self.bytes(window);
        if self.cut.tile_rows == 1 && want == Want::Tile {
            let draft = match &self.drafts[column as usize] {
                Draft::Memory(reg) => Draft::Memory(Reg { scalar: true, ..reg.clone() }),
                Draft::Slot(slot, _) => Draft::Slot(*slot, true),
            };
            return self.reg(draft);
        }
        let out = self.tile_slot(bytes)?;
        self.steps.push(Step::Spread { from: column, out, bytes: bytes as u8 });
        Ok(out)
    }

    /// An operand from memory.
    fn load(&mut self, window: &Window, want: Want) -> Result<u16> {
        let bytes = self.bytes(window);
        if window.is_scalar() && want != Want::Filled {
            return self.memory(window, 0, 0, true);
        }
        let dims = window.dims();
        let flat = window.is_flat();
        if want == Want::Column {
            return if flat { self.memory(window, 1, 0, false) } else { self.strided(window, dims, true) };
        }
        if flat {
            return self.memory(window, self.cut.len, 1, false);
        }
        if let Some((outer, inner)) = split(&dims, self.cut.len) {
            let still = |dims: &Dims| dims.iter().all(|&(_, stride)| stride == 0);
            if still(&inner) {
                let column = match outer.as_slice() {
                    [(_, 1)] => self.memory(window, 1, 0, false)?,
                    [] => self.memory(window, 0, 0, false)?,
                    _ => self.strided(window, outer, true)?,
                };
                return if want == Want::Down { Ok(column) } else { self.spread(column, window, want) };
            }
            if still(&outer) && matches!(inner.as_slice(), [(_, 1)]) {
                let row = self.memory(window, 0, 1, false)?;
                if self.cut.tile_rows == 1 {
                    return Ok(row);
                }
                let out = self.slot(self.cut.tile_rows * self.cut.len, bytes, true)?;
                self.prologue.push(Step::Repeat { from: row, out, bytes: bytes as u8 });
                return Ok(out);
            }
        }
        self.strided(window, dims, false)
    }

    fn strided(&mut self, window: &Window, dims: Dims, column: bool) -> Result<u16> {
        let bytes = self.bytes(window);
        let from = self.memory(window, 0, 0, false)?;
        let out = if column { self.slot(self.cut.tile_rows, bytes, false)? } else { self.tile_slot(bytes)? };
        self.steps.push(Step::Load { from, out, dims, bytes: bytes as u8, column });
        Ok(out)
    }

    fn finish(self) -> Result<RowProgram> {
        let (offsets, scratch) = lay_out(&self.slots, &self.drafts, &self.steps, &self.sums);
        let regs = self
            .drafts
            .into_iter()
            .map(|draft| match draft {
                Draft::Memory(reg) => reg,
                Draft::Slot(slot, scalar) => Reg {
                    place: Place { base: base::SCRATCH, offset: offsets[slot] as isize, starts: SmallVec::new() },
                    row_step: 0,
                    col_step: 0,
                    scalar,
                },
            })
            .collect();
        let size = self.group_rows.size;
        let singles = self.steps.iter().filter(|step| !matches!(step, Step::Chain { .. })).count();
        // Two steps of a tile take about as long as one pass, an exponential three more.
        let passes = self.passes + singles.div_ceil(2) + if self.heavy { 3 } else { 0 };
        let Cut { rows, len, tile_rows, piece, .. } = self.cut;
        let segment = self.group_rows.segment.unwrap_or(rows);
        let blocks = match adds_rows(&self.sums) {
            true => rows / segment * segment.div_ceil(CHUNK_ROWS),
            false => rows.div_ceil(tile_rows),
        };
        Ok(RowProgram {
            rows,
            len,
            segment,
            tile_rows,
            piece,
            units: blocks * len.div_ceil(piece),
            regs,
            prologue: self.prologue,
            steps: self.steps,
            sums: self.sums,
            names: self.names,
            scratch,
            work: Work::Plain(size * passes),
        })
    }
}

/// The registers that a step reads and those that it writes.
fn touched(step: &Step, sums: &[Sum]) -> (SmallVec<[u16; 8]>, SmallVec<[u16; 3]>) {
    match step {
        Step::Map { out, args, .. } => (args.iter().copied().collect(), smallvec![*out]),
        Step::Chain { outs, args, .. } => (args.clone(), outs.clone()),
        Step::Reduce { from, out, .. }
        | Step::Load { from, out, .. }
        | Step::Spread { from, out, .. }
        | Step::Repeat { from, out, .. } => (smallvec![*from], smallvec![*out]),
        Step::Sum { sum } | Step::Block { sum } => (smallvec![sums[*sum as usize].from], SmallVec::new()),
    }
}

/// Offsets of slots in scratch, so that slots in use at one time do not overlap, and the bytes of all.
fn lay_out(slots: &[Slot], drafts: &[Draft], steps: &[Step], sums: &[Sum]) -> (Vec<usize>, usize) {
    let slot_of = |reg: u16| match drafts[reg as usize] {
        Draft::Slot(slot, _) => Some(slot),
        Draft::Memory(_) => None,
    };
    let mut last = vec![0usize; slots.len()];
    for (at, step) in steps.iter().enumerate() {
        let (reads, writes) = touched(step, sums);
        reads.iter().chain(&writes).filter_map(|&reg| slot_of(reg)).for_each(|slot| last[slot] = at);
    }
    let mut offsets = vec![usize::MAX; slots.len()];
    let mut end = 0;
    let mut free: SmallVec<[(usize, usize); 8]> = SmallVec::new();
    let rounded = |slot: usize| slots[slot].bytes.next_multiple_of(64);
    for slot in (0..slots.len()).filter(|&slot| slots[slot].lasting) {
        offsets[slot] = end;
        end += rounded(slot);
    }
    for (at, step) in steps.iter().enumerate() {
        let (reads, writes) = touched(step, sums);
        let mut dying: SmallVec<[usize; 4]> = SmallVec::new();
        for slot in reads.iter().filter_map(|&reg| slot_of(reg)) {
            if last[slot] == at && !slots[slot].lasting && !dying.contains(&slot) {
                dying.push(slot);
            }
        }
        for slot in writes.iter().filter_map(|&reg| slot_of(reg)) {
            if offsets[slot] != usize::MAX {
                continue;
            }
            // Kernels of maps work in place on an operand of the same element size that is not a scalar.
            let whole =
                |old: usize| reads.iter().all(|&reg| !matches!(drafts[reg as usize], Draft::Slot(s, true) if s == old));
            let in_place = matches!(step, Step::Map { .. } | Step::Chain { .. })
                .then(|| dying.iter().position(|&old| slots[old].bytes == slots[slot].bytes && whole(old)))
                .flatten();
            offsets[slot] = match (in_place, free.iter().position(|&(bytes, _)| bytes == rounded(slot))) {
                (Some(old), _) => offsets[dying.swap_remove(old)],
                (None, Some(found)) => free.swap_remove(found).1,
                (None, None) => {
                    end += rounded(slot);
                    end - rounded(slot)
                }
            };
        }
        free.extend(dying.into_iter().map(|slot| (rounded(slot), offsets[slot])));
    }
    (offsets, end)
}
