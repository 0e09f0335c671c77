//! The field that columns are read from: an operand with its padding, so that reading never asks where the edge is.
//! Where the operand serves as it is, it is read in place; else a band of it is copied, and the last axis may be split
//! by residue, so that what a stride skips lies elsewhere and what it meets lies together.

use std::ops::Range;

use crate::machine::cpu::gemm::Element;
use crate::machine::cpu::gemm::kernel::Kernels;
use crate::machine::cpu::gemm::pack::Lines;

/// Elements that the copy of a band may take: a part of a second-level cache.
const ROOM: usize = 128 << 10;
/// Columns that an item should have at least and at most, where the shape allows.
const FEWEST: usize = 256;
const MOST: usize = 2048;

pub struct Field {
    channels: usize,
    /// Extents of the operand.
    source: [usize; 3],
    /// Field index 0 is this far before the operand's.
    low: [usize; 3],
    /// Extents of what a band reads.
    extents: [usize; 3],
    split: usize,
    /// Elements from channel to channel, plane to plane and row to row.
    strides: [usize; 3],
    pub is_copied: bool,
    /// Steps of the field from column to column along each axis, and the axis along which bands are cut.
    steps: [usize; 3],
    cut: usize,
    /// Columns of a band along that axis, and of all.
    band: usize,
    length: usize,
    /// Images whose columns are worked on together; one if there is more than one band.
    pub images: usize,
}

impl Field {
    /// `columns` windows along each axis, `steps` apart, each reaching `reach` further, from `low` before the operand.
    pub fn new(
        (batch, channels, source): (usize, usize, [usize; 3]),
        columns: [usize; 3],
        steps: [usize; 3],
        reach: [usize; 3],
        low: [usize; 3],
    ) -> Field {
        let extent = |axis: usize, n: usize| (n.max(1) - 1) * steps[axis] + reach[axis] + 1;
        // One column needs no neighbours.
        let split = if columns[2] > 1 { steps[2] } else { 1 };
        let fits = (0..3).all(|axis| low[axis] == 0 && extent(axis, columns[axis]) <= source[axis]);
        let is_copied = !fits || split != 1;
        let cut = (0..2).find(|&axis| columns[axis] > 1).unwrap_or(2);
        let inner: usize = columns[cut + 1..].iter().product();
        let length = columns[cut];
        let mut most = if inner * length <= MOST { length } else { (FEWEST * 4 / inner.max(1)).max(1) };
        if is_copied {
            let slice: usize = (cut + 1..3).map(|axis| extent(axis, columns[axis])).product();
            let slices = ROOM / (channels * slice).max(1);
            most = most.min(slices.saturating_sub(reach[cut] + 1) / steps[cut] + 1);
        }
        let band = length.div_ceil(length.div_ceil(most.max(1)).max(1));
        let mut extents = [0, 1, 2].map(|axis| extent(axis, columns[axis]));
        extents[cut] = extent(cut, band);
        let all = inner * length * columns[..cut].iter().product::<usize>();
        let images = if band < length { 1 } else { images(all, batch) };
        let strides = if is_copied {
            let row = extents[2].div_ceil(split) * split;
            [extents[0] * extents[1] * row, extents[1] * row, row]
        } else {
            [source[0] * source[1] * source[2], source[1] * source[2], source[2]]
        };
        Field { channels, source, low, extents, split, strides, is_copied, steps, cut, band, length, images }
    }

    pub fn bands(&self) -> usize {
        self.length.div_ceil(self.band.max(1))
    }

    /// The columns of a band along each axis, of all that there are along the others.
    pub fn columns(&self, band: usize, all: [Range<usize>; 3]) -> [Range<usize>; 3] {
        let first = band * self.band;
        let mut columns = all;
        let range = &mut columns[self.cut];
        *range = range.start.max(first)..range.end.min(first + self.band).max(range.start.max(first));
        columns
    }

    /// Where a column of the band lies, without its channel and tap.
    pub fn place(&self, band: usize, column: [usize; 3]) -> usize {
        let mut column = column;
        if self.is_copied {
            column[self.cut] -= band * self.band;
        }
        // Along the last axis the split, if any, makes columns adjacent.
        column[0] * self.steps[0] * self.strides[1] + column[1] * self.row_step() + column[2]
    }

    /// Steps from row to row of columns.
    pub fn row_step(&self) -> usize {
        self.steps[1] * self.strides[2]
    }

    /// The steps from a column to what a tap of a channel reads.
    pub fn offset(&self, channel: usize, at: [usize; 3]) -> usize {
        let last = at[2] % self.split * (self.strides[2] / self.split) + at[2] / self.split;
        channel * self.strides[0] + at[0] * self.strides[1] + at[1] * self.strides[2] + last
    }

    pub fn channel_step(&self) -> usize {
        self.strides[0]
    }

    /// Elements of the copy of one image's band.
    pub fn room(&self) -> usize {
        if self.is_copied { self.channels * self.strides[0] } else { 0 }
    }

    /// Copies a band of the first channels of one image, with its padding.
    ///
    /// # Safety
    /// The CPU runs the kernels; `from` is the first channel of the image, `to` has room for the band.
    pub unsafe fn copy<T: Element>(
        &self,
        kernels: &Kernels<T>,
        band: usize,
        channels: usize,
        from: *const T,
        to: *mut T,
    ) {
        let mut first = [0; 3];
        first[self.cut] = band * self.band * self.steps[self.cut];
        // What of the band lies inside the operand, along each axis, and where it starts there.
        let inside = [0, 1, 2].map(|axis| {
            let start = self.low[axis].saturating_sub(first[axis]).min(self.extents[axis]);
            let stop = (self.source[axis] + self.low[axis]).saturating_sub(first[axis]);
            start..stop.clamp(start, self.extents[axis])
        });
        let source = [0, 1, 2].map(|axis| (first[axis] + inside[axis].start).saturating_sub(self.low[axis]));
        // SAFETY: zero bytes are zeros; the band and what is read of the operand are the caller's promise.
        unsafe {
            to.write_bytes(0, channels * self.strides[0]);
            for channel in 0..channels {
                for (at, plane) in inside[0].clone().enumerate() {
                    let row = (channel * self.source[0] + source[0] + at) * self.source[1] + source[1];
                    let from = from.add(row * self.source[2]);
                    let to = to.add(self.offset(channel, [plane, inside[1].start, 0]));
                    if self.split == 1 {
                        let (width, count) = (inside[2].len(), inside[1].len());
                        let (from_step, to_step) = (self.source[2], self.strides[2]);
                        let lines = Lines { from: from.add(source[2]), from_step, to_step, width, count };
                        (kernels.copy_lines)(&lines, to.add(inside[2].start));
                    } else {
                        for line in 0..inside[1].len() {
                            self.split_row(from.add(line * self.source[2]), first[2], to.add(line * self.strides[2]));
                        }
                    }
                }
            }
        }
    }

    /// Copies a row, split by residue; what is outside the operand stays as it is.
    unsafe fn split_row<T: Element>(&self, from: *const T, first: usize, to: *mut T) {
        let part = self.strides[2] / self.split;
        for residue in 0..self.split {
            // Element j is the operand's j·split + shift.
            let shift = (first + residue) as isize - self.low[2] as isize;
            let start = ((-shift).max(0) as usize).div_ceil(self.split).min(part);
            let stop = (self.source[2] as isize - shift).max(0) as usize;
            for j in start..stop.div_ceil(self.split).clamp(start, part) {
                // SAFETY: start and stop keep both indices inside their rows.
                unsafe { *to.add(residue * part + j) = *from.offset((j * self.split) as isize + shift) };
            }
        }
    }
}

/// Images whose columns, this many each, are worked on together.
pub fn images(columns: usize, batch: usize) -> usize {
    (FEWEST / columns.max(1)).clamp(1, batch.max(1))
}
