//! Windows: how a task sees a value. A window is a value's index, an offset (partly known only when the plan runs) and
//! a stride for each axis. Layout ops compose windows and move nothing; a reshape that strides cannot express is
//! refused here and becomes a copy in `resolve`. Owns stride arithmetic; knows no memory and no kernel.

use crate::shape::{Shape, Strides};
use smallvec::SmallVec;

/// Extents with their strides, outermost first, without axes of one element, merged where one step serves both.
pub type Dims = SmallVec<[(usize, isize); 4]>;

#[derive(Debug, PartialEq)]
pub struct Window {
    pub value: u32,
    /// Elements from the value's first one.
    pub offset: isize,
    /// Further elements known at run time: a number's cell, and the elements that each of its steps skips.
    pub starts: SmallVec<[(u32, isize); 1]>,
    pub shape: Shape,
    pub strides: Strides,
    /// A value that must be there before this is looked at, though nobody reads it here.
    pub after: Option<u32>,
}

impl Clone for Window {
    // The derived one copies element by element.
    fn clone(&self) -> Window {
        Window {
            value: self.value,
            offset: self.offset,
            starts: SmallVec::from_slice(&self.starts),
            shape: self.shape.clone(),
            strides: SmallVec::from_slice(&self.strides),
            after: self.after,
        }
    }
}

impl Window {
    /// The whole value, in the row-major order in which tasks write.
    pub fn whole(value: u32, shape: &Shape) -> Window {
        Window {
            value,
            offset: 0,
            starts: SmallVec::new(),
            shape: shape.clone(),
            strides: shape.strides(),
            after: None,
        }
    }

    /// One element seen at every index.
    pub fn spread(value: u32, shape: &Shape) -> Window {
        let strides = SmallVec::from_elem(0, shape.rank());
        Window { value, offset: 0, starts: SmallVec::new(), shape: shape.clone(), strides, after: None }
    }

    /// Whether the other window shows the same elements of the same value in the same order.
    pub fn sees_as(&self, other: &Window) -> bool {
        (self.value, self.offset, &self.starts) == (other.value, other.offset, &other.starts)
            && self.dims() == other.dims()
    }

    pub fn size(&self) -> usize {
        self.shape.size()
    }

    /// Whether this is the whole of a value of `size` elements in row-major order, whatever the shape.
    pub fn is_whole(&self, size: usize) -> bool {
        self.offset == 0 && self.starts.is_empty() && self.size() == size && self.is_flat()
    }

    /// Whether the elements lie one after another.
    pub fn is_flat(&self) -> bool {
        crate::machine::cpu::view::is_contiguous(&self.shape, &self.strides)
    }

    /// Whether every index names the same element.
    pub fn is_scalar(&self) -> bool {
        self.shape.iter().zip(&self.strides).all(|(&dim, &stride)| dim <= 1 || stride == 0)
    }

    pub fn broadcast(&self, shape: &Shape) -> Window {
        let added = shape.rank() - self.shape.rank();
        let stride = |axis: usize| match axis.checked_sub(added) {
            Some(old) if self.shape[old] == shape[axis] => self.strides[old],
            _ => 0,
        };
        Window { strides: (0..shape.rank()).map(stride).collect(), shape: shape.clone(), ..self.clone() }
    }

    pub fn permute(&self, perm: &[u8]) -> Window {
        Window {
            shape: perm.iter().map(|&axis| self.shape[axis as usize]).collect(),
            strides: perm.iter().map(|&axis| self.strides[axis as usize]).collect(),
            ..self.clone()
        }
    }

    /// None: no strides say this, the elements must be copied first.
    pub fn reshape(&self, shape: &Shape) -> Option<Window> {
        if self.shape.contains(&0) {
            return Some(Window { shape: shape.clone(), strides: shape.strides(), ..self.clone() });
        }
        let mut dims = self.dims();
        let mut strides: Strides = SmallVec::from_elem(0, shape.rank());
        for axis in (0..shape.rank()).rev().filter(|&axis| shape[axis] != 1) {
            let (extent, stride) = dims.pop()?;
            if extent % shape[axis] != 0 {
                return None;
            }
            strides[axis] = stride;
            let rest = extent / shape[axis];
            if rest > 1 {
                dims.push((rest, stride * shape[axis] as isize));
            }
        }
        Some(Window { shape: shape.clone(), strides, ..self.clone() })
    }

    /// The axes that matter, merged: what the index arithmetic of kernels walks.
    pub fn dims(&self) -> Dims {
        let mut dims = Dims::new();
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).filter(|(extent, _)| **extent != 1) {
            match dims.last_mut() {
                Some(last) if last.1 == stride * extent as isize => *last = (last.0 * extent, stride),
                _ => dims.push((extent, stride)),
            }
        }
        dims
    }
}

/// Cuts merged dims into those that walk the rows and those that walk along a row of `len` elements.
pub fn split(dims: &Dims, len: usize) -> Option<(Dims, Dims)> {
    let (mut outer, mut inner, mut room) = (dims.clone(), Dims::new(), len);
    while room > 1 {
        let (extent, stride) = outer.pop()?;
        if extent <= room {
            if room % extent != 0 {
                return None;
            }
            inner.insert(0, (extent, stride));
            room /= extent;
        } else {
            if extent % room != 0 {
                return None;
            }
            inner.insert(0, (room, stride));
            outer.push((extent / room, stride * room as isize));
            room = 1;
        }
    }
    Some((outer, inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(shape: &[usize], strides: &[isize]) -> Window {
        let shape = Shape::new(shape);
        Window { strides: Strides::from_slice(strides), ..Window::whole(0, &shape) }
    }

    #[test]
    fn reshapes_that_strides_express() {
        let turned = window(&[4, 6], &[1, 4]);
        assert_eq!(turned.reshape(&Shape::from([2, 2, 6])).map(|w| w.strides.to_vec()), Some(vec![2, 1, 4]));
        assert_eq!(turned.reshape(&Shape::from([24])), None);
        let whole = window(&[4, 6], &[6, 1]);
        assert_eq!(whole.reshape(&Shape::from([3, 1, 8])).map(|w| w.strides.to_vec()), Some(vec![8, 0, 1]));
        let repeated = window(&[4, 6], &[0, 0]);
        assert_eq!(repeated.reshape(&Shape::from([24])).map(|w| w.strides.to_vec()), Some(vec![0]));
        assert_eq!(window(&[1], &[7]).reshape(&Shape::scalar()).map(|w| w.size()), Some(1));
    }

    #[test]
    fn dims_merge_and_split_at_rows() {
        assert_eq!(window(&[2, 3, 4], &[12, 4, 1]).dims().as_slice(), &[(24, 1)]);
        let column = window(&[5, 3, 4], &[1, 0, 0]).dims();
        let (outer, inner) = split(&column, 12).unwrap();
        assert_eq!((outer.as_slice(), inner.as_slice()), (&[(5, 1)][..], &[(12, 0)][..]));
        let (outer, inner) = split(&window(&[24], &[2]).dims(), 6).unwrap();
        assert_eq!((outer.as_slice(), inner.as_slice()), (&[(4, 12)][..], &[(6, 2)][..]));
        assert!(split(&window(&[4, 6], &[1, 4]).dims(), 8).is_none());
    }
}
