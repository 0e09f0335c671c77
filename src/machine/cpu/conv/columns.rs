//! The derivatives in g and in x: C\[m, j\] = Σₖ A\[m, k\]·field\[offset(k) + place(j)\], with the weight as A, packed once a
//! run. The derivative in x is one such product for each residue of the stride that a tap meets, over those taps.
//! Few rows, as of a depthwise convolution, slide over the field and pack nothing.

use std::ops::Range;

use super::field::{self, Field};
use super::{Role, Shape, Shared};
use crate::machine::cpu::gemm::Element;
use crate::machine::cpu::gemm::block::{DEPTH_UNIT, TILE, even};
use crate::machine::cpu::gemm::kernel::{Fetch, Kernels, Rows, Tile};
use crate::machine::cpu::gemm::pack::{Columns, Lines, Panel, Piece};
use crate::machine::cpu::gemm::slide::{self, Slide};
use crate::machine::cpu::isa::Isa;
use crate::machine::cpu::par::{Stopped, Work, par};
use crate::machine::cpu::scratch::with_scratch;
use crate::machine::cpu::sweep::Sweep;

/// The most columns that a tile of any backend has.
const WIDEST: usize = 32;
/// Elements of a result that is computed at once by rows that slide: a part of a first-level cache.
const SLID: usize = 1024;
/// Columns of all groups in an item, where rows slide.
const ITEM: usize = 1024;

pub struct Product<T: 'static> {
    kernels: &'static Kernels<T>,
    role: Role,
    batch: usize,
    groups: usize,
    /// Groups of an item, whose channels the field has.
    together: usize,
    field: Field,
    /// Rows of C: channels of one group of the result.
    rows: usize,
    /// Channels of one group of the field, and extents of the operand behind it.
    channels: usize,
    source: usize,
    /// Steps in the weight from row to row and from channel to channel; elements of a group.
    row_step: usize,
    channel_step: usize,
    group_step: usize,
    /// Extents of the result.
    result: [usize; 3],
    phases: Vec<Phase>,
    /// Whether some elements of the result meet no tap: they are zero.
    has_gaps: bool,
    work: usize,
}

/// The columns that one set of taps makes.
struct Phase {
    /// Adjacent taps of the weight that take part: the first, and how many.
    runs: Vec<(usize, usize)>,
    /// For each step of K, channel by channel and tap by tap.
    offsets: Vec<isize>,
    columns: [Range<usize>; 3],
    /// The index in the result of column j is j·step + first.
    first: [isize; 3],
    step: [usize; 3],
    /// Where the packed weight starts.
    packed: usize,
}

impl<T: Element> Product<T> {
    pub fn output(shape: &Shape, isa: Isa) -> Product<T> {
        let taps = shape.taps();
        let together = together::<T>(shape.outputs, shape.inputs * taps, shape, shape.grid);
        let field = Field::new(
            (shape.batch, shape.inputs * together, shape.field),
            shape.grid,
            shape.sweeps.map(|sweep| sweep.stride),
            shape.sweeps.map(|sweep| sweep.reach()),
            shape.sweeps.map(|sweep| sweep.low),
        );
        let dilated = |tap: usize| {
            let tap = shape.tap(tap);
            [0, 1, 2].map(|axis| tap[axis] * shape.sweeps[axis].dilation)
        };
        let offsets = (0..shape.inputs * taps).map(|k| field.offset(k / taps, dilated(k % taps)) as isize).collect();
        let phase = Phase {
            runs: vec![(0, taps)],
            offsets,
            columns: shape.grid.map(|n| 0..n),
            first: [0; 3],
            step: [1; 3],
            packed: 0,
        };
        Product {
            kernels: T::kernels(isa),
            role: Role::Output,
            batch: shape.batch,
            groups: shape.groups,
            together,
            field,
            rows: shape.outputs,
            channels: shape.inputs,
            source: shape.field.iter().product(),
            row_step: shape.inputs * taps,
            channel_step: taps,
            group_step: shape.outputs * shape.inputs * taps,
            result: shape.grid,
            phases: vec![phase],
            has_gaps: false,
            work: shape.work(),
        }
    }

    pub fn input(shape: &Shape, isa: Isa) -> Product<T> {
        let taps = shape.taps();
        // Position i is met by window p and tap k if i + low = p·stride + k·dilation. With i + low = q·stride + residue
        // and k·dilation = t·stride + residue, p = q - t. Columns count q from the first.
        let sweeps = shape.sweeps;
        let low = sweeps.map(|sweep| sweep.low / sweep.stride);
        let latest = sweeps.map(|sweep| sweep.reach() / sweep.stride);
        let count = [0, 1, 2].map(|axis| {
            let last = sweeps[axis].low + shape.field[axis].max(1) - 1;
            last / sweeps[axis].stride + 1 - low[axis]
        });
        // Windows before `low` are in the field as padding only if it reaches back beyond them.
        let before = [0, 1, 2].map(|axis| latest[axis] as isize - low[axis] as isize);
        let padding = before.map(|n| n.max(0) as usize);
        let skipped = before.map(|n| (-n).max(0) as usize);
        let reach = [0, 1, 2].map(|axis| latest[axis] + skipped[axis]);
        let together = together::<T>(shape.inputs, shape.outputs * taps, shape, count);
        let field = Field::new((shape.batch, shape.outputs * together, shape.grid), count, [1; 3], reach, padding);
        let kernels = T::kernels(isa);
        let mut product = Product {
            kernels,
            role: Role::Input,
            batch: shape.batch,
            groups: shape.groups,
            together,
            field,
            rows: shape.inputs,
            channels: shape.outputs,
            source: shape.grid.iter().product(),
            row_step: taps,
            channel_step: shape.inputs * taps,
            group_step: shape.outputs * shape.inputs * taps,
            result: shape.field,
            phases: Vec::new(),
            has_gaps: false,
            work: shape.work(),
        };
        let residue = |tap: usize| {
            let tap = shape.tap(tap);
            [0, 1, 2].map(|axis| tap[axis] * sweeps[axis].dilation % sweeps[axis].stride)
        };
        let mut residues: Vec<[usize; 3]> = (0..taps).map(residue).collect();
        residues.sort_unstable();
        residues.dedup();
        let all = sweeps.iter().map(|sweep| sweep.stride).fold(1, usize::saturating_mul);
        product.has_gaps = all > residues.len();
        let mut packed = 0;
        for at in residues {
            let meets = |tap: usize| residue(tap) == at;
            let met: Vec<usize> = (0..taps).filter(|&tap| meets(tap)).collect();
            let back = |tap: usize| {
                let tap = shape.tap(tap);
                [0, 1, 2].map(|axis| {
                    let windows = tap[axis] * sweeps[axis].dilation / sweeps[axis].stride;
                    latest[axis] - windows + skipped[axis]
                })
            };
            let offsets: Vec<isize> = (0..shape.outputs)
                .flat_map(|channel| met.iter().map(move |&tap| (channel, tap)))
                .map(|(channel, tap)| product.field.offset(channel, back(tap)) as isize)
                .collect();
            let first = [0, 1, 2].map(|axis| {
                let Sweep { stride, low: pad, .. } = sweeps[axis];
                (low[axis] * stride + at[axis]) as isize - pad as isize
            });
            let columns = [0, 1, 2].map(|axis| {
                let stride = sweeps[axis].stride;
                let start = usize::from(first[axis] < 0);
                let stop = (shape.field[axis] as isize - first[axis]).max(0) as usize;
                start..stop.div_ceil(stride).max(start)
            });
            let length = offsets.len();
            let step = sweeps.map(|sweep| sweep.stride);
            product.phases.push(Phase { runs: runs(&met), offsets, columns, first, step, packed });
            packed += shape.groups * product.panels() * product.padded() * length;
        }
        product
    }

    /// Elements of the longest row of columns in the field.
    fn longest_line(&self) -> usize {
        let widths = self.phases.iter().map(|phase| phase.columns[2].len());
        self.field.row_step().max(widths.max().unwrap_or(0))
    }

    pub fn is_output(&self) -> bool {
        self.role == Role::Output
    }

    /// Row panels, as even as possible.
    fn panels(&self) -> usize {
        self.rows.div_ceil(self.kernels.rows())
    }

    fn panel(&self, index: usize) -> Range<usize> {
        let panels = self.panels();
        index * self.rows / panels..(index + 1) * self.rows / panels
    }

    /// Elements of a packed panel for each step of K.
    fn padded(&self) -> usize {
        self.kernels.padded(self.rows.div_ceil(self.panels().max(1)))
    }

    /// Whether rows slide over the field: they are few, and one block of K holds all steps.
    fn slides(&self) -> bool {
        slides::<T>(self.rows, self.depth())
    }

    /// Steps of K of the longest phase.
    fn depth(&self) -> usize {
        self.phases.iter().map(|phase| phase.offsets.len()).max().unwrap_or(0)
    }

    pub fn workspace(&self) -> usize {
        if self.slides() {
            return 0;
        }
        let last = self.phases.last();
        last.map_or(0, |phase| phase.packed + self.groups * self.panels() * self.padded() * phase.offsets.len())
    }

    /// # Safety
    /// As for [`super::Conv::run`].
    pub unsafe fn run(&self, field: *const T, weight: *const T, out: *mut T, workspace: *mut T) -> Result<(), Stopped> {
        let (field, weight) = (Shared(field.cast_mut()), Shared(weight.cast_mut()));
        let (out, packed) = (Shared(out), Shared(if self.slides() { weight.0 } else { workspace }));
        if self.has_gaps {
            let size = self.rows * self.result.iter().product::<usize>();
            let images = self.batch * self.groups;
            par(images, Work::Plain(images * size), &|image| {
                // SAFETY: zero bytes are zeros, and each image has a place of its own.
                unsafe { out.at(image * size).write_bytes(0, size) }
            })?;
        }
        if !self.slides() {
            let panels = self.groups * self.panels();
            par(panels, Work::Plain(self.groups * self.group_step), &|panel| {
                // SAFETY: each panel has a place of its own.
                unsafe { self.pack(panel / self.panels(), panel % self.panels(), weight.at(0), packed.at(0)) }
            })?;
        }
        let (blocks, bands) = (self.batch.div_ceil(self.field.images), self.field.bands());
        let parts = self.groups.div_ceil(self.together);
        par(blocks * parts * bands, Work::MulAdds(self.work), &|item| {
            let (group, band) = (item / bands % parts * self.together, item % bands);
            let groups = group..self.groups.min(group + self.together);
            let first = item / bands / parts * self.field.images;
            let part = Part { images: first..self.batch.min(first + self.field.images), groups, band };
            // SAFETY: items are disjoint parts of the result.
            unsafe { self.part(&part, field.at(0), packed.at(0), out.at(0)) }
        })
    }

    /// Packs one row panel of the weight, for each phase.
    unsafe fn pack(&self, group: usize, panel: usize, weight: *const T, packed: *mut T) {
        let rows = self.panel(panel);
        let step = self.padded();
        for phase in &self.phases {
            let depth = phase.offsets.len();
            let to = packed.wrapping_add(phase.packed + (group * self.panels() + panel) * step * depth);
            let from = weight.wrapping_add(group * self.group_step + rows.start * self.row_step);
            let part = |from: *const T, depth: usize, to: *mut T| {
                let (lanes, lane_stride) = (rows.len(), self.row_step as isize);
                let panel = Panel { from, lanes, lane_stride, depth, depth_stride: 1, step };
                // SAFETY: the panel is inside the weight, its copy in the room for it.
                unsafe { (self.kernels.pack)(&panel, to) }
            };
            if phase.runs == [(0, self.channel_step)] {
                part(from, depth, to);
                continue;
            }
            let mut at = 0;
            for channel in 0..self.channels {
                for &(tap, taps) in &phase.runs {
                    part(from.wrapping_add(channel * self.channel_step + tap), taps, to.wrapping_add(at * step));
                    at += taps;
                }
            }
        }
    }

    /// The columns of some images, or of a band of one, for some groups. `weight` is packed, unless rows slide.
    unsafe fn part(&self, part: &Part, field: *const T, weight: *const T, out: *mut T) {
        let image = |image: usize| (image * self.groups + part.groups.start) * self.channels * self.source;
        let room = self.field.room();
        let panel = if self.slides() {
            self.rows * (self.depth() + self.longest_line().max(SLID))
        } else {
            (even(self.depth(), T::MAX_DEPTH, DEPTH_UNIT) + 1) * self.kernels.cols()
        };
        with_scratch(room * part.images.len() + panel, |scratch: *mut T| {
            let copy = scratch.wrapping_add(panel);
            let mut base = field.wrapping_add(image(part.images.start));
            let mut image_step = self.groups * self.channels * self.source;
            if self.field.is_copied {
                let channels = part.groups.len() * self.channels;
                for (index, at) in part.images.clone().enumerate() {
                    let (from, to) = (field.wrapping_add(image(at)), copy.wrapping_add(index * room));
                    // SAFETY: the scratch has room for a band of each image.
                    unsafe { self.field.copy(self.kernels, part.band, channels, from, to) };
                }
                (base, image_step) = (copy.cast_const(), room);
            }
            for phase in &self.phases {
                let columns = self.field.columns(part.band, phase.columns.clone());
                let area = Area { product: self, phase, part, columns, image_step };
                // SAFETY: the area is part of the item.
                unsafe {
                    if self.slides() {
                        for group in part.groups.clone() {
                            area.slide(group, base, weight, out, scratch);
                        }
                    } else {
                        area.run(base, weight, out, scratch);
                    }
                }
            }
        });
    }
}

/// What an item computes.
struct Part {
    images: Range<usize>,
    /// One, unless rows slide.
    groups: Range<usize>,
    band: usize,
}

/// The columns of one phase in an item.
struct Area<'a, T: 'static> {
    product: &'a Product<T>,
    phase: &'a Phase,
    part: &'a Part,
    columns: [Range<usize>; 3],
    image_step: usize,
}

/// Where a tile of C lies, line by line of columns: the first column of each, and its place.
struct Target {
    lines: [(usize, isize); WIDEST],
    count: usize,
    /// Steps from column to column of a line.
    step: usize,
    contiguous: bool,
}

impl<T: Element> Area<'_, T> {
    /// # Safety
    /// The pointers are those of the item.
    unsafe fn run(&self, base: *const T, packed: *const T, out: *mut T, scratch: *mut T) {
        let Product { kernels, rows, .. } = *self.product;
        let width = self.columns[2].len();
        let count = self.part.images.len() * self.columns[0].len() * self.columns[1].len() * width;
        let depth = self.phase.offsets.len();
        let size: usize = self.product.result.iter().product();
        let out = out.wrapping_add(self.part.groups.start * rows * size);
        let step = self.product.padded();
        let panels = self.product.panels();
        let first_panel = self.phase.packed + self.part.groups.start * panels * step * depth;
        let depth_step = even(depth, T::MAX_DEPTH, DEPTH_UNIT);
        for p in (0..depth.max(1)).step_by(depth_step.max(1)) {
            let offsets = &self.phase.offsets[p..depth.min(p + depth_step)];
            for col in (0..count).step_by(kernels.cols()) {
                let cols = kernels.cols().min(count - col);
                let padded = kernels.padded(cols);
                let mut pieces = [Piece::default(); WIDEST];
                let (used, target) = self.pieces(col, cols, &mut pieces);
                let columns = Columns { from: base, offsets, pieces: &pieces[..used], step: padded };
                // SAFETY: the scratch has room for a panel and a vector, and each place is inside the field.
                unsafe { (kernels.gather)(&columns, scratch) };
                for panel in 0..panels {
                    let rows = self.product.panel(panel);
                    let kernel = kernels.tile(rows.len(), padded == kernels.cols(), true, Rows::Full);
                    let tile = Tile {
                        depth: offsets.len(),
                        runs: 1,
                        a_skip: 0,
                        a: packed.wrapping_add(first_panel + (panel * depth + p) * step),
                        a_rs: 1,
                        a_ks: step as isize,
                        b: scratch,
                        b_ks: padded as isize,
                        b_packed: std::ptr::null_mut(),
                        c: out.wrapping_add(rows.start * size).wrapping_offset(target.lines[0].1),
                        c_rs: size as isize,
                        cols,
                        add: p > 0,
                        fetch: Fetch::NOTHING,
                    };
                    // SAFETY: the tile is part of the item's result; its operands are packed.
                    unsafe {
                        if target.contiguous {
                            kernel(&tile);
                        } else {
                            scatter(kernel, tile, rows.len(), &target);
                        }
                    }
                }
            }
        }
    }

    /// As `run`, for one group by rows that slide over the field.
    ///
    /// # Safety
    /// As for `run`; the weight is as it is.
    unsafe fn slide(&self, group: usize, base: *const T, weight: *const T, out: *mut T, scratch: *mut T) {
        let Product { kernels, rows, ref field, result, groups, channels, .. } = *self.product;
        let [planes, lines, width] = [0, 1, 2].map(|axis| self.columns[axis].len());
        if planes * lines * width == 0 {
            return;
        }
        let (depth, size) = (self.phase.offsets.len(), result.iter().product::<usize>());
        let local = scratch.wrapping_add(rows * depth);
        // SAFETY: the scratch has room for the factors.
        unsafe { self.factors(group, weight, scratch) };
        let base = base.wrapping_add((group - self.part.groups.start) * channels * field.channel_step());
        let (field_step, result_step) = (field.row_step(), self.phase.step[1] * result[2]);
        let joined = self.is_joined(rows * depth, width);
        let in_place = !joined && self.phase.step[2] == 1;
        let local_step = if joined { field_step } else { width };
        let most = (SLID / local_step).clamp(1, lines);
        for image in 0..self.part.images.len() * planes {
            let (image, plane) = (image / planes, image % planes);
            for first in (0..lines).step_by(most) {
                let count = most.min(lines - first);
                let column = [self.columns[0].start + plane, self.columns[1].start + first, self.columns[2].start];
                let index = |axis: usize| (column[axis] * self.phase.step[axis]) as isize + self.phase.first[axis];
                let place = (index(0) * result[1] as isize + index(1)) * result[2] as isize + index(2);
                let channel = ((self.part.images.start + image) * groups + group) * rows;
                let to = out.wrapping_add(channel * size).wrapping_offset(place);
                let local_rows = (count - 1) * local_step + width;
                let slide = Slide {
                    factors: scratch,
                    offsets: &self.phase.offsets,
                    from: base.wrapping_add(image * self.image_step + field.place(self.part.band, column)),
                    from_step: field_step,
                    to: if in_place { to } else { local },
                    to_step: if in_place { result_step } else { local_step },
                    row_step: if in_place { size } else { local_rows },
                    width: if joined { local_rows } else { width },
                    lines: if joined { 1 } else { count },
                };
                // SAFETY: the columns are inside the field, `local` has room for them, and they are part of the item.
                unsafe {
                    (kernels.slides[rows - 1])(&slide);
                    if !in_place {
                        for row in 0..rows {
                            let from = local.add(row * local_rows);
                            let lines = Lines { from, from_step: local_step, to_step: result_step, width, count };
                            self.put(&lines, to.add(row * size));
                        }
                    }
                }
            }
        }
    }

    /// Whether lines of columns that are close in the field are computed as one, with what lies between them: vectors
    /// are full then, but the result is copied. `work` is the number of multiply-adds for a column.
    fn is_joined(&self, work: usize, width: usize) -> bool {
        self.product.field.row_step() * (work + 1) < self.product.kernels.padded(width) * work.saturating_sub(2)
    }

    /// Copies lines to their places in the result.
    unsafe fn put(&self, lines: &Lines<T>, to: *mut T) {
        let step = self.phase.step[2];
        // SAFETY: the caller's promise.
        unsafe {
            if step == 1 {
                return (self.product.kernels.copy_lines)(lines, to);
            }
            for line in 0..lines.count {
                let (from, to) = (lines.from.add(line * lines.from_step), to.add(line * lines.to_step));
                for j in 0..lines.width {
                    *to.add(j * step) = *from.add(j);
                }
            }
        }
    }

    /// Copies the weight's elements that the phase meets, row beside row for each step of K.
    unsafe fn factors(&self, group: usize, weight: *const T, mut to: *mut T) {
        let Product { rows, row_step, channels, channel_step, group_step, .. } = *self.product;
        let weight = weight.wrapping_add(group * group_step);
        for channel in 0..channels {
            for tap in self.phase.runs.iter().flat_map(|&(first, count)| first..first + count) {
                for row in 0..rows {
                    // SAFETY: an element of the weight, and room for a factor.
                    unsafe {
                        *to = *weight.add(row * row_step + channel * channel_step + tap);
                        to = to.add(1);
                    }
                }
            }
        }
    }

    /// The pieces of the field that columns `col..col + cols` are, and their places in the result.
    fn pieces(&self, col: usize, cols: usize, pieces: &mut [Piece; WIDEST]) -> (usize, Target) {
        let Product { kernels, ref field, result, groups, rows, .. } = *self.product;
        let (width, lines, planes) = (self.columns[2].len(), self.columns[1].len(), self.columns[0].len());
        let image_size = groups * rows * result.iter().product::<usize>();
        let step = self.phase.step;
        let mut target = Target { lines: [(0, 0); WIDEST], count: 0, step: step[2], contiguous: step[2] == 1 };
        let (line, mut within) = (col / width, col % width);
        let (mut image, mut plane, mut row) = (line / lines / planes, line / lines % planes, line % lines);
        let (mut at, mut used) = (0, 0);
        while at < cols {
            let len = (width - within).min(cols - at);
            let column = [self.columns[0].start + plane, self.columns[1].start + row, self.columns[2].start + within];
            let from = image * self.image_step + field.place(self.part.band, column);
            let index = |axis: usize| (column[axis] * step[axis]) as isize + self.phase.first[axis];
            let place = (index(0) * result[1] as isize + index(1)) * result[2] as isize + index(2);
            let place = ((self.part.images.start + image) * image_size) as isize + place;
            target.lines[target.count] = (at, place);
            target.count += 1;
            target.contiguous &= place == target.lines[0].1 + at as isize;
            for start in (0..len).step_by(kernels.lanes) {
                let len = kernels.lanes.min(len - start);
                pieces[used] = Piece { from: (from + start) as isize, at: at + start, len };
                used += 1;
            }
            (at, within, row) = (at + len, 0, row + 1);
            if row == lines {
                (row, plane) = (0, plane + 1);
            }
            if plane == planes {
                (plane, image) = (0, image + 1);
            }
        }
        (used, target)
    }
}

/// Runs a kernel for a tile of C whose columns lie apart.
///
/// # Safety
/// As for the kernel.
unsafe fn scatter<T: Element>(kernel: unsafe fn(&Tile<T>), tile: Tile<T>, rows: usize, target: &Target) {
    let mut local = [T::default(); TILE];
    let stride = TILE / rows;
    let lines = &target.lines[..target.count];
    // SAFETY: `local` holds `rows` rows of at most `stride` columns; C is the caller's promise.
    unsafe {
        kernel(&Tile { c: local.as_mut_ptr(), c_rs: stride as isize, add: false, ..tile });
        for i in 0..rows {
            for (line, &(first, place)) in lines.iter().enumerate() {
                let end = lines.get(line + 1).map_or(tile.cols, |next| next.0);
                let to = tile.c.offset(i as isize * tile.c_rs + place - lines[0].1);
                for j in first..end {
                    let c = to.add((j - first) * target.step);
                    let sum = local[i * stride + j];
                    *c = if tile.add { *c + sum } else { sum };
                }
            }
        }
    }
}

/// Whether rows slide over the field: they are few, and one block of K holds all its steps.
fn slides<T: Element>(rows: usize, depth: usize) -> bool {
    rows <= slide::MOST_ROWS && depth <= T::MAX_DEPTH
}

/// Groups of an item, for a product of this many rows, steps of K at most, and columns along each axis.
fn together<T: Element>(rows: usize, depth: usize, shape: &Shape, columns: [usize; 3]) -> usize {
    if !slides::<T>(rows, depth) {
        return 1;
    }
    let columns = columns.iter().product::<usize>().max(1);
    (ITEM / (columns * field::images(columns, shape.batch))).clamp(1, shape.groups.max(1))
}

/// Sorted numbers as runs of adjacent ones: the first, and how many.
fn runs(sorted: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &n in sorted {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == n => *count += 1,
            _ => runs.push((n, 1)),
        }
    }
    runs
}
