//! The pack buffers: one for each thread, kept from call to call, so that a steady state allocates nothing.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::Element;

const ALIGN: usize = 64;

thread_local! {
    static KEPT: Cell<Option<Buffer>> = const { Cell::new(None) };
}

struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

impl Buffer {
    fn new(bytes: usize) -> Buffer {
        let Ok(layout) = Layout::from_size_align(bytes, ALIGN) else { panic!("gemm: a pack buffer of {bytes} bytes") };
        // SAFETY: the size is not 0.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        Buffer { start, layout }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by `alloc` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// Lends `f` room for `count` elements, at the start of a cache line and not initialised. With 0 the pointer is null.
pub fn with_scratch<T: Element, R>(count: usize, f: impl FnOnce(*mut T) -> R) -> R {
    if count == 0 {
        return f(ptr::null_mut());
    }
    let bytes = count * size_of::<T>();
    // Taken out for the time of the call: a nested call would get a buffer of its own.
    let buffer = KEPT.take().filter(|kept| kept.layout.size() >= bytes).unwrap_or_else(|| Buffer::new(bytes));
    let result = f(buffer.start.as_ptr().cast());
    KEPT.set(Some(buffer));
    result
}
