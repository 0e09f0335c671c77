//! Shapes and strides: broadcasting, axes, element counts. Size arithmetic is checked here and nowhere else.

use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::fmt;
use std::ops::Deref;

/// Axes are kept in 32-bit masks.
pub const MAX_RANK: usize = 32;

/// The extent of each axis, outermost first.
#[derive(Default, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[usize; 4]>);

impl Clone for Shape {
    // The derived one copies element by element, and shapes are copied for each record.
    fn clone(&self) -> Shape {
        Shape(SmallVec::from_slice(&self.0))
    }
}

/// Steps in elements from one index of an axis to the next; 0 repeats, negative walks backward.
pub type Strides = SmallVec<[isize; 4]>;

impl Shape {
    pub fn scalar() -> Shape {
        Shape::default()
    }

    pub fn new(dims: &[usize]) -> Shape {
        Shape(SmallVec::from_slice(dims))
    }

    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements. Shapes are checked on entry (`checked`), so this cannot overflow.
    pub fn size(&self) -> usize {
        self.0.iter().product()
    }

    /// Refuses shapes whose element count times eight bytes does not fit an address.
    pub fn checked(self, op: &str) -> Result<Shape> {
        if self.rank() > MAX_RANK {
            return Err(Error::shape(format!(
                "{op}: shape {self} has {} axes, at most {MAX_RANK} are held",
                self.rank()
            )));
        }
        let mut elements = 1usize;
        for &dim in self.0.iter().filter(|&&dim| dim != 0) {
            elements = elements
                .checked_mul(dim)
                .filter(|&n| n <= isize::MAX as usize / 8)
                .ok_or_else(|| Error::shape(format!("{op}: shape {self} has too many elements")))?;
        }
        Ok(self)
    }

    /// Strides of the row-major layout.
    pub fn strides(&self) -> Strides {
        let mut strides: Strides = SmallVec::from_elem(0, self.rank());
        let mut step = 1isize;
        for (stride, &dim) in strides.iter_mut().zip(self.0.iter()).rev() {
            *stride = step;
            step *= dim.max(1) as isize;
        }
        strides
    }

    pub fn push(&mut self, dim: usize) {
        self.0.push(dim);
    }

    pub fn insert(&mut self, axis: usize, dim: usize) {
        self.0.insert(axis, dim);
    }

    pub fn remove(&mut self, axis: usize) -> usize {
        self.0.remove(axis)
    }

    pub fn dims_mut(&mut self) -> &mut [usize] {
        &mut self.0
    }

    /// This shape without the axes of `mask`.
    pub fn without(&self, mask: u32) -> Shape {
        self.0.iter().enumerate().filter(|(axis, _)| mask >> axis & 1 == 0).map(|(_, &dim)| dim).collect()
    }

    /// This shape with the axes of `mask` set to 1.
    pub fn keeping(&self, mask: u32) -> Shape {
        self.0.iter().enumerate().map(|(axis, &dim)| if mask >> axis & 1 == 1 { 1 } else { dim }).collect()
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(dims: I) -> Shape {
        Shape(dims.into_iter().collect())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Shape {
        Shape::new(dims)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape::new(&dims)
    }
}

/// As Python writes a tuple: `()`, `(3,)`, `(2, 3)`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "({one},)"),
            dims => {
                f.write_str("(")?;
                for (i, dim) in dims.iter().enumerate() {
                    write!(f, "{}{dim}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The shape that both broadcast to (NumPy's rule), or None.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Shape> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], axis: usize| if axis + s.len() < rank { 1 } else { s[axis + s.len() - rank] };
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Whether `from` broadcasts to exactly `to`.
pub fn broadcasts_to(from: &[usize], to: &[usize]) -> bool {
    from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(|(&f, &t)| f == t || f == 1)
}

/// Turns an axis counted from either end into one counted from the front.
pub fn normalize_axis(op: &str, axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    if (0..rank as i64).contains(&from_front) {
        return Ok(from_front as usize);
    }
    Err(Error::axis(format!("{op}: axis {axis} is out of range for {rank} axes")))
}

/// Turns a list of axes into a mask; a repeated axis is an error.
pub fn axes_mask(op: &str, axes: &[i64], rank: usize) -> Result<u32> {
    let mut mask = 0u32;
    for &axis in axes {
        let bit = 1 << normalize_axis(op, axis, rank)?;
        if mask & bit != 0 {
            return Err(Error::axis(format!("{op}: axis {axis} is given twice")));
        }
        mask |= bit;
    }
    Ok(mask)
}

/// The mask of all axes of a shape of this rank.
pub fn all_axes(rank: usize) -> u32 {
    if rank == MAX_RANK { u32::MAX } else { (1 << rank) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast(&[3, 1], &[4]), Some(Shape::from([3, 4])));
        assert_eq!(broadcast(&[], &[2]), Some(Shape::from([2])));
        assert_eq!(broadcast(&[0], &[1]), Some(Shape::from([0])));
        assert_eq!(broadcast(&[2], &[3]), None);
        assert!(broadcasts_to(&[1, 3], &[5, 3]) && !broadcasts_to(&[5, 3], &[3]));
    }

    #[test]
    fn shapes_print_as_tuples() {
        assert_eq!(Shape::from([3]).to_string(), "(3,)");
        assert_eq!(Shape::from([2, 3]).to_string(), "(2, 3)");
        assert_eq!(Shape::scalar().to_string(), "()");
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Shape::from([usize::MAX, 2]).checked("zeros").is_err());
        assert!(Shape::from([0, usize::MAX]).checked("zeros").is_err());
        assert!(Shape::from([3, 0]).checked("zeros").is_ok());
        assert_eq!(Shape::from([2, 3, 4]).strides().as_slice(), &[12, 4, 1]);
    }

    #[test]
    fn axes_count_from_both_ends() {
        assert_eq!(axes_mask("sum", &[-1, 0], 3).unwrap(), 0b101);
        assert!(axes_mask("sum", &[0, -3], 3).is_err());
        assert!(normalize_axis("sum", 3, 3).is_err());
    }
}
