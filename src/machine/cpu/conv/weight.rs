//! The derivative in w: a sum over images and windows. Rows of a tile are channels of the field at one tap (or, where
//! channels are few, taps along the last axis), read in place; columns are channels of g, packed once for all taps.
//!
//! Of groups with few channels, a tile would be mostly padding: there a lane is a group (`across`), and field and g are
//! transposed. A sum has the same order either way.
//!
//! The sum is cut into chunks by shape alone. A chunk leaves a partial result \[tap, channel of x, channel of g\]; partial
//! results are added pairwise at the end.

use std::ops::Range;

use super::field::Field;
use super::{Shape, Shared};
use crate::machine::cpu::gemm::Element;
use crate::machine::cpu::gemm::across::{self, Across};
use crate::machine::cpu::gemm::block::{DEPTH_UNIT, even};
use crate::machine::cpu::gemm::kernel::{Fetch, Kernels, Rows, Tile};
use crate::machine::cpu::gemm::pack::Panel;
use crate::machine::cpu::isa::Isa;
use crate::machine::cpu::par::{Stopped, Work, par, share};
use crate::machine::cpu::scratch::with_scratch;

/// Windows that a chunk should have at least, and chunks that there are at most.
const SHORTEST: usize = 1024;
const MOST_CHUNKS: usize = 16;
/// Elements of all partial results, at most, where there is a choice.
const PARTIALS: usize = 4 << 20;

pub struct Product<T: 'static> {
    kernels: &'static Kernels<T>,
    batch: usize,
    groups: usize,
    inputs: usize,
    outputs: usize,
    taps: usize,
    field: Field,
    source: usize,
    grid: [usize; 3],
    panels: Vec<RowPanel>,
    across: Option<Places>,
    /// Steps of the field and of the partial result from row to row of a panel.
    row_step: usize,
    partial_step: usize,
    /// Bands of images in a chunk, and of all.
    chunk: usize,
    units: usize,
    work: usize,
}

/// Rows of a tile: the first one's place in the field and row in the partial result.
struct RowPanel {
    offset: usize,
    row: usize,
    height: usize,
}

/// How a lane is a group.
struct Places {
    /// For each tap and channel, in this order, the steps from a window to what it meets; those from channel to channel
    /// are of the longest block.
    offsets: Vec<usize>,
    /// The last tap's steps, and elements of the field that a block meets in a channel, at most.
    reach: usize,
    room: usize,
}

/// Elements of a channel that a block of windows may meet at most, for each window, where a lane is a group.
const SPREAD: usize = 8;

impl Places {
    /// If it pays.
    fn new<T: Element>(shape: &Shape, field: &Field, lanes: usize) -> Option<Places> {
        let (vectors, padded) = (shape.groups.div_ceil(lanes), shape.outputs.div_ceil(lanes));
        if 2 * vectors * shape.outputs > shape.groups * padded {
            return None;
        }
        let taps = shape.taps();
        let tap = |tap: usize| {
            let steps = shape.tap(tap);
            field.offset(0, [0, 1, 2].map(|axis| steps[axis] * shape.sweeps[axis].dilation))
        };
        let reach = (0..taps).map(tap).max()?;
        let bands = (0..field.bands()).map(|band| field.columns(band, shape.grid.map(|n| 0..n)));
        let blocks = bands.flat_map(|columns| blocks::<T>(&columns).collect::<Vec<_>>());
        let room = blocks.map(|block| block.spread(field) + reach).max()?;
        let offsets = (0..taps).flat_map(|t| (0..shape.inputs).map(move |channel| channel * room + tap(t)));
        (room <= SPREAD * T::MAX_DEPTH / 2).then(|| Places { offsets: offsets.collect(), reach, room })
    }
}

impl<T: Element> Product<T> {
    pub fn new(shape: &Shape, isa: Isa) -> Product<T> {
        let kernels = T::kernels(isa);
        let sweeps = shape.sweeps;
        let field = Field::new(
            (shape.batch, shape.inputs, shape.field),
            shape.grid,
            sweeps.map(|sweep| sweep.stride),
            sweeps.map(|sweep| sweep.reach()),
            sweeps.map(|sweep| sweep.low),
        );
        let taps = shape.taps();
        let dilated = |tap: usize| {
            let tap = shape.tap(tap);
            [0, 1, 2].map(|axis| tap[axis] * sweeps[axis].dilation)
        };
        let mut panels = Vec::new();
        let by_tap = shape.inputs < sweeps[2].taps && sweeps[2].stride == 1;
        if by_tap {
            for (channel, line) in (0..shape.inputs).flat_map(|c| (0..taps / sweeps[2].taps).map(move |l| (c, l))) {
                for range in even_parts(sweeps[2].taps, kernels.rows()) {
                    let tap = line * sweeps[2].taps + range.start;
                    let (offset, row) = (field.offset(channel, dilated(tap)), tap * shape.inputs + channel);
                    panels.push(RowPanel { offset, row, height: range.len() });
                }
            }
        } else {
            for range in even_parts(shape.inputs, kernels.rows()) {
                for tap in 0..taps {
                    let offset = field.offset(range.start, dilated(tap));
                    panels.push(RowPanel { offset, row: tap * shape.inputs + range.start, height: range.len() });
                }
            }
        }
        let units = shape.batch * field.bands();
        let elements = (shape.groups * shape.inputs * shape.outputs * taps).max(1);
        let windows = shape.batch * shape.grid.iter().product::<usize>();
        let chunks = units.min(windows / SHORTEST).min(MOST_CHUNKS).min(PARTIALS / elements).max(1);
        Product {
            kernels,
            batch: shape.batch,
            groups: shape.groups,
            inputs: shape.inputs,
            outputs: shape.outputs,
            taps,
            row_step: if by_tap { sweeps[2].dilation } else { field.channel_step() },
            partial_step: if by_tap { shape.inputs * shape.outputs } else { shape.outputs },
            across: Places::new::<T>(shape, &field, kernels.lanes),
            field,
            source: shape.field.iter().product(),
            grid: shape.grid,
            panels,
            chunk: units.div_ceil(chunks).max(1),
            units,
            work: shape.work(),
        }
    }

    fn chunks(&self) -> usize {
        self.units.div_ceil(self.chunk)
    }

    /// Elements of a partial result of one group.
    fn partial(&self) -> usize {
        self.taps * self.inputs * self.outputs
    }

    pub fn workspace(&self) -> usize {
        self.chunks() * self.groups * self.partial()
    }

    /// # Safety
    /// As for [`super::Conv::run`].
    pub unsafe fn run(&self, field: *const T, g: *const T, out: *mut T, partials: *mut T) -> Result<(), Stopped> {
        let (field, g) = (Shared(field.cast_mut()), Shared(g.cast_mut()));
        let (out, partials) = (Shared(out), Shared(partials));
        if let Some(places) = &self.across {
            let lanes = self.kernels.lanes;
            let vectors = self.groups.div_ceil(lanes);
            par(self.chunks() * vectors, Work::MulAdds(self.work), &|item| {
                let (vector, chunk) = (item % vectors, item / vectors);
                let groups = vector * lanes..self.groups.min((vector + 1) * lanes);
                // SAFETY: items write partial results of separate groups or chunks.
                unsafe { self.part_across(places, chunk, groups, field.at(0), g.at(0), partials.at(0)) }
            })?;
            return self.finish_all(partials, out);
        }
        let wide = self.outputs.div_ceil(self.kernels.cols());
        par(self.chunks() * self.groups * wide, Work::MulAdds(self.work), &|item| {
            let (column, group, chunk) = (item % wide, item / wide % self.groups, item / wide / self.groups);
            let first = column * self.kernels.cols();
            let columns = first..self.outputs.min(first + self.kernels.cols());
            let to = partials.at((chunk * self.groups + group) * self.partial() + first);
            // SAFETY: items write separate columns of the partial results.
            unsafe { self.part(chunk, group, columns, field.at(0), g.at(0), to) }
        })?;
        self.finish_all(partials, out)
    }

    fn finish_all(&self, partials: Shared<T>, out: Shared<T>) -> Result<(), Stopped> {
        let rows = self.taps * self.inputs;
        par(self.groups * rows, Work::Plain(self.workspace()), &|row| {
            // SAFETY: each row is read and written by one item.
            unsafe { self.finish(row / rows, row % rows, partials.at(0), out.at(0)) }
        })
    }

    /// The sum over one chunk, for some channels of g.
    unsafe fn part(&self, chunk: usize, group: usize, columns: Range<usize>, field: *const T, g: *const T, to: *mut T) {
        let padded = self.kernels.padded(columns.len());
        let positions: usize = self.grid.iter().product();
        let bands = self.field.bands();
        with_scratch(self.field.room() + T::MAX_DEPTH * padded, |scratch: *mut T| {
            let copy = scratch.wrapping_add(T::MAX_DEPTH * padded);
            let mut add = false;
            for unit in chunk * self.chunk..self.units.min((chunk + 1) * self.chunk) {
                let (image, band) = (unit / bands, unit % bands);
                debug_assert!(image < self.batch);
                let mut base = field.wrapping_add((image * self.groups + group) * self.inputs * self.source);
                if self.field.is_copied {
                    // SAFETY: the scratch has room for a band.
                    unsafe { self.field.copy(self.kernels, band, self.inputs, base, copy) };
                    base = copy;
                }
                let channel = (image * self.groups + group) * self.outputs + columns.start;
                let g = g.wrapping_add(channel * positions);
                for block in blocks::<T>(&self.field.columns(band, self.grid.map(|n| 0..n))) {
                    let [plane, row, first] = block.start;
                    let depth = block.rows * block.width;
                    let from = g.wrapping_add((plane * self.grid[1] + row) * self.grid[2] + first);
                    let (lanes, lane_stride) = (columns.len(), positions as isize);
                    let panel = Panel { from, lanes, lane_stride, depth, depth_stride: 1, step: padded };
                    // SAFETY: the block is inside g, and the scratch has room for it.
                    unsafe { (self.kernels.pack)(&panel, scratch) };
                    let place = self.field.place(band, block.start);
                    for panel in &self.panels {
                        let a = base.wrapping_add(place + panel.offset);
                        let c = to.wrapping_add(panel.row * self.outputs);
                        // SAFETY: the rows are inside the field, the tile is part of the item's partial result.
                        unsafe { self.tile(panel, &block, a, scratch, padded, c, columns.len(), add) };
                    }
                    add = true;
                }
            }
        });
    }

    /// The sum over one chunk, for some groups, a lane each.
    unsafe fn part_across(
        &self,
        places: &Places,
        chunk: usize,
        groups: Range<usize>,
        field: *const T,
        g: *const T,
        partials: *mut T,
    ) {
        let lanes = self.kernels.lanes;
        let (rows, bands) = (places.offsets.len(), self.field.bands());
        let positions: usize = self.grid.iter().product();
        let sums = self.outputs * rows * lanes;
        let (field_room, g_room) = (self.inputs * places.room * lanes, self.outputs * T::MAX_DEPTH * lanes);
        with_scratch(sums + field_room + g_room + lanes * self.field.room(), |sum: *mut T| {
            let field_packed = sum.wrapping_add(sums);
            let g_packed = field_packed.wrapping_add(field_room);
            let copy = g_packed.wrapping_add(g_room);
            let mut add = false;
            for unit in chunk * self.chunk..self.units.min((chunk + 1) * self.chunk) {
                let (image, band) = (unit / bands, unit % bands);
                let first = image * self.groups + groups.start;
                let (mut base, mut step) =
                    (field.wrapping_add(first * self.inputs * self.source), self.inputs * self.source);
                if self.field.is_copied {
                    for (lane, _) in groups.clone().enumerate() {
                        let to = copy.wrapping_add(lane * self.field.room());
                        // SAFETY: the scratch has room for a band of each group.
                        unsafe { self.field.copy(self.kernels, band, self.inputs, base.add(lane * step), to) };
                    }
                    (base, step) = (copy, self.field.room());
                }
                for block in blocks::<T>(&self.field.columns(band, self.grid.map(|n| 0..n))) {
                    let [plane, row, at] = block.start;
                    let windows = (plane * self.grid[1] + row) * self.grid[2] + at;
                    // SAFETY: what the block meets is inside field and g, and the scratch has room for it.
                    unsafe {
                        for channel in 0..self.inputs {
                            let from =
                                base.add(channel * self.field.channel_step() + self.field.place(band, block.start));
                            let depth = block.spread(&self.field) + places.reach;
                            self.spread(
                                from,
                                groups.len(),
                                step,
                                depth,
                                field_packed.add(channel * places.room * lanes),
                            );
                        }
                        for channel in 0..self.outputs {
                            let from = g.add((first * self.outputs + channel) * positions + windows);
                            let to = g_packed.add(channel * T::MAX_DEPTH * lanes);
                            self.spread(from, groups.len(), self.outputs * positions, block.rows * block.width, to);
                        }
                        for channel in 0..self.outputs {
                            for range in even_parts(rows, across::MOST_PLACES) {
                                (self.kernels.crossings[range.len() - 1])(&Across {
                                    field: field_packed,
                                    g: g_packed.add(channel * T::MAX_DEPTH * lanes),
                                    width: block.width,
                                    runs: block.rows,
                                    skip: self.field.row_step() - block.width,
                                    to: sum.add((channel * rows + range.start) * lanes),
                                    offsets: &places.offsets[range],
                                    add,
                                });
                            }
                        }
                    }
                    add = true;
                }
            }
            for (lane, group) in groups.enumerate() {
                let to = partials.wrapping_add((chunk * self.groups + group) * self.partial());
                for (row, channel) in (0..rows).flat_map(|row| (0..self.outputs).map(move |o| (row, o))) {
                    // SAFETY: an element of a partial result of this item.
                    unsafe { *to.add(row * self.outputs + channel) = *sum.add((channel * rows + row) * lanes + lane) };
                }
            }
        });
    }

    /// Copies runs of `depth` elements, one for each lane and `step` apart, so that a vector has an element of each.
    unsafe fn spread(&self, from: *const T, lanes: usize, step: usize, depth: usize, to: *mut T) {
        let panel = Panel { from, lanes, lane_stride: step as isize, depth, depth_stride: 1, step: self.kernels.lanes };
        // SAFETY: the caller's promise.
        unsafe { (self.kernels.pack)(&panel, to) }
    }

    #[allow(clippy::too_many_arguments, reason = "what a tile is made of")]
    unsafe fn tile(
        &self,
        panel: &RowPanel,
        block: &Block,
        a: *const T,
        b: *const T,
        padded: usize,
        c: *mut T,
        cols: usize,
        add: bool,
    ) {
        let wide = padded == self.kernels.cols();
        let kernel = self.kernels.tile(panel.height, wide, self.row_step == 1, Rows::Full);
        let tile = Tile {
            depth: block.width,
            runs: block.rows,
            a_skip: self.field.row_step() as isize - block.width as isize,
            a,
            a_rs: self.row_step as isize,
            a_ks: 1,
            b,
            b_ks: padded as isize,
            b_packed: std::ptr::null_mut(),
            c,
            c_rs: self.partial_step as isize,
            cols,
            add,
            fetch: Fetch::NOTHING,
        };
        // SAFETY: the caller's promise.
        unsafe { kernel(&tile) }
    }

    /// Adds the partial results of a row and writes it to its place in the weight.
    unsafe fn finish(&self, group: usize, row: usize, partials: *mut T, out: *mut T) {
        let step = self.groups * self.partial();
        let first = partials.wrapping_add(group * self.partial() + row * self.outputs);
        let chunks = self.chunks();
        let mut gap = 1;
        while gap < chunks {
            for chunk in (0..chunks - gap).step_by(2 * gap) {
                let (sum, other) = (first.wrapping_add(chunk * step), first.wrapping_add((chunk + gap) * step));
                for i in 0..self.outputs {
                    // SAFETY: two rows of the partial results.
                    unsafe { *sum.add(i) = *sum.add(i) + *other.add(i) };
                }
            }
            gap *= 2;
        }
        let (tap, channel) = (row / self.inputs, row % self.inputs);
        for i in 0..self.outputs {
            let at = ((group * self.outputs + i) * self.inputs + channel) * self.taps + tap;
            // SAFETY: an element of the weight, and one of a partial result if there is any.
            unsafe { *out.add(at) = if chunks == 0 { T::default() } else { *first.add(i) } };
        }
    }
}

/// Rows of windows that are summed by one call of a kernel.
struct Block {
    start: [usize; 3],
    rows: usize,
    width: usize,
}

impl Block {
    /// Steps of the field over all windows.
    fn spread(&self, field: &Field) -> usize {
        (self.rows - 1) * field.row_step() + self.width
    }
}

/// Cuts columns into blocks of windows that make one block of the sum: whole rows, or parts of one.
fn blocks<T: Element>(columns: &[Range<usize>; 3]) -> impl Iterator<Item = Block> + use<T> {
    let most = T::MAX_DEPTH / 2;
    let [planes, rows, width] = columns.clone();
    let across = even(width.len(), most, DEPTH_UNIT).max(1);
    let down = if across < width.len() { 1 } else { even(rows.len(), (most / across).max(1), 1).max(1) };
    planes.flat_map(move |plane| {
        let width = width.clone();
        rows.clone().step_by(down).zip(std::iter::repeat(rows.end)).flat_map(move |(row, end)| {
            let stop = width.end;
            width.clone().step_by(across).map(move |first| Block {
                start: [plane, row, first],
                rows: down.min(end - row),
                width: across.min(stop - first),
            })
        })
    })
}

/// 0..n in as few parts of at most `most` as will do, evenly.
fn even_parts(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = n.div_ceil(most);
    (0..parts).map(move |i| share(i, parts, n))
}
