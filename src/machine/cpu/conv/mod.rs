//! Convolutions in f32 and f64, all three derivatives of the trilinear form
//! T(x, w, g) = Σ x\[n, c, i\]·w\[o, c, k\]·g\[n, o, p\] with i = p·stride + k·dilation - low, as implicit matrix products:
//! columns are packed straight from the field, never more of them than the micro-kernel reads at once.
//!
//! `field` holds the padded operand, `columns` the derivatives in g and x, `weight` the one in w. Everything is cut by
//! shape alone, and block sums are added in order, so bits depend on neither threads nor memory.

mod columns;
mod field;
#[cfg(test)]
mod tests;
mod weight;

use super::gemm::Element;
use super::isa::Isa;
use super::par::Stopped;
use super::sweep::Sweep;

/// The argument of T in which the derivative is taken; the other two are the operands, in the order x, w, g.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Output,
    Input,
    Weight,
}

/// Extents: x is \[batch, groups·inputs, field\], w \[groups·outputs, inputs, taps\], g \[batch, groups·outputs, grid\].
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub batch: usize,
    pub groups: usize,
    /// Channels of one group.
    pub inputs: usize,
    pub outputs: usize,
    pub field: [usize; 3],
    pub grid: [usize; 3],
    pub sweeps: [Sweep; 3],
}

impl Shape {
    fn taps(&self) -> usize {
        self.sweeps.iter().map(|sweep| sweep.taps).product()
    }

    /// The steps of each tap along the three axes, in row-major order.
    fn tap(&self, tap: usize) -> [usize; 3] {
        let [_, rows, columns] = self.sweeps.map(|sweep| sweep.taps);
        [tap / columns / rows, tap / columns % rows, tap % columns]
    }

    /// Calls `f` with the indices in x, w and g of each term of T.
    pub fn terms(&self, mut f: impl FnMut([usize; 3])) {
        let index = |extents: [usize; 3], at: [usize; 3]| (at[0] * extents[1] + at[1]) * extents[2] + at[2];
        let (field, grid): (usize, usize) = (self.field.iter().product(), self.grid.iter().product());
        for image in 0..self.batch {
            for (group, o) in (0..self.groups).flat_map(|g| (0..self.outputs).map(move |o| (g, o))) {
                for p in 0..grid {
                    let [_, b, c] = self.grid;
                    let window = [p / c / b, p / c % b, p % c];
                    for (channel, tap) in (0..self.inputs).flat_map(|c| (0..self.taps()).map(move |t| (c, t))) {
                        let at = self.tap(tap);
                        let place = |axis: usize| self.sweeps[axis].position(window[axis], at[axis], self.field[axis]);
                        let (Some(i), Some(j), Some(k)) = (place(0), place(1), place(2)) else { continue };
                        let out = group * self.outputs + o;
                        f([
                            ((image * self.groups + group) * self.inputs + channel) * field
                                + index(self.field, [i, j, k]),
                            (out * self.inputs + channel) * self.taps() + tap,
                            (image * self.groups * self.outputs + out) * grid + p,
                        ]);
                    }
                }
            }
        }
    }

    /// Multiply-adds of any of the three derivatives.
    pub fn work(&self) -> usize {
        [self.groups, self.inputs, self.outputs, self.taps(), self.grid.iter().product()]
            .iter()
            .fold(self.batch, |work, &n| work.saturating_mul(n))
    }
}

/// A derivative made ready: its tables, and how it is cut.
pub struct Conv<T: 'static> {
    kind: Kind<T>,
}

enum Kind<T: 'static> {
    Columns(columns::Product<T>),
    Weight(weight::Product<T>),
}

impl<T: Element> Conv<T> {
    pub fn new(shape: &Shape, role: Role, isa: Isa) -> Conv<T> {
        let kind = match role {
            Role::Output => Kind::Columns(columns::Product::output(shape, isa)),
            Role::Input => Kind::Columns(columns::Product::input(shape, isa)),
            Role::Weight => Kind::Weight(weight::Product::new(shape, isa)),
        };
        Conv { kind }
    }

    /// Elements of working memory that a run needs.
    pub fn workspace(&self) -> usize {
        match &self.kind {
            Kind::Columns(product) => product.workspace(),
            Kind::Weight(product) => product.workspace(),
        }
    }

    /// Computes the derivative from the other two arguments, `a` before `b` in the order x, w, g.
    ///
    /// # Safety
    /// The CPU runs the instruction set that this was made for. Operands and result are contiguous and have the extents
    /// of the shape, `workspace` has room for as many elements as asked; the last two overlap nothing.
    pub unsafe fn run(&self, a: *const T, b: *const T, out: *mut T, workspace: *mut T) -> Result<(), Stopped> {
        // SAFETY: the caller's promise.
        unsafe {
            match &self.kind {
                Kind::Columns(product) if product.is_output() => product.run(a, b, out, workspace),
                Kind::Columns(product) => product.run(b, a, out, workspace),
                Kind::Weight(product) => product.run(a, b, out, workspace),
            }
        }
    }
}

/// A pointer that items of a parallel run share; each writes elements of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: what an item reads is not written meanwhile, and what it writes belongs to it alone.
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}
