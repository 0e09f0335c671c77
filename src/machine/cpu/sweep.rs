//! How the windows of a convolution or a pooling move along one spatial axis.

/// Window p covers the positions p·stride + k·dilation - low, for its taps k; positions outside the axis are padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sweep {
    pub taps: usize,
    pub stride: usize,
    pub dilation: usize,
    pub low: usize,
}

impl Sweep {
    /// Of an axis that is not there.
    pub const NONE: Sweep = Sweep { taps: 1, stride: 1, dilation: 1, low: 0 };

    /// Steps from the first tap of a window to the last.
    #[inline(always)]
    pub fn reach(&self) -> usize {
        self.taps.saturating_sub(1) * self.dilation
    }

    /// The position of a tap of a window, if it is inside an axis of this extent.
    #[inline(always)]
    pub fn position(&self, window: usize, tap: usize, extent: usize) -> Option<usize> {
        (window * self.stride + tap * self.dilation).checked_sub(self.low).filter(|&at| at < extent)
    }
}

/// Values for up to three spatial axes as for three, the outermost absent: a row is a plane of height 1.
pub fn three<T: Copy>(axes: &[T], absent: T) -> [T; 3] {
    let mut all = [absent; 3];
    all[3 - axes.len()..].copy_from_slice(axes);
    all
}
