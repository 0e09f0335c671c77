//! Working memory of kernels: buffers of each thread, kept from call to call, so that a steady state allocates nothing.
//! A kernel that calls another one, as attention calls the matrix product, holds its own meanwhile.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::{self, NonNull};

const ALIGN: usize = 64;

/// Calls inside each other whose buffers are kept.
const DEPTH: usize = 2;

thread_local! {
    static KEPT: [Cell<Option<Buffer>>; DEPTH] = const { [Cell::new(None), Cell::new(None)] };
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

impl Buffer {
    fn new(bytes: usize) -> Buffer {
        let Ok(layout) = Layout::from_size_align(bytes, ALIGN) else { panic!("a working buffer of {bytes} bytes") };
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
pub fn with_scratch<T: Copy, R>(count: usize, f: impl FnOnce(*mut T) -> R) -> R {
    if count == 0 {
        return f(ptr::null_mut());
    }
    let bytes = count * size_of::<T>();
    let lent = Lent::take(bytes);
    f(lent.start().cast())
}

/// A buffer in use; kept again when it is dropped, after a panic too.
struct Lent {
    buffer: Option<Buffer>,
    depth: usize,
}

impl Lent {
    fn take(bytes: usize) -> Lent {
        let depth = INSIDE.replace(INSIDE.get() + 1);
        let kept = KEPT.with(|kept| kept.get(depth).and_then(Cell::take));
        let buffer = kept.filter(|kept| kept.layout.size() >= bytes).unwrap_or_else(|| Buffer::new(bytes));
        Lent { buffer: Some(buffer), depth }
    }

    fn start(&self) -> *mut u8 {
        self.buffer.as_ref().map_or(ptr::null_mut(), |buffer| buffer.start.as_ptr())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        INSIDE.set(self.depth);
        KEPT.with(|kept| kept.get(self.depth).map(|kept| kept.set(self.buffer.take())));
    }
}
