//! Memory of values, wherever it lies, and the ways between the devices. Knows no tensors.
//!
//! A GPU's smallest type has four bytes, so bool and uint8 elements take as many there; all others are as on the host.

use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::machine::cpu::buffer::Buffer;
#[cfg(feature = "gpu")]
use crate::machine::gpu;
#[cfg(feature = "gpu")]
pub use crate::machine::gpu::Ticket;
use std::fmt;

/// What became of a run of a device: what it was to write over old values is there, or an index was out of range and the
/// old values are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Unknown,
    Done,
    Void,
}

/// A run of a device, to be asked later what became of it. Here there is none.
#[cfg(not(feature = "gpu"))]
#[derive(Clone, Debug)]
pub enum Ticket {}

#[cfg(not(feature = "gpu"))]
impl Ticket {
    pub fn fate(&self) -> Fate {
        match *self {}
    }

    pub fn is_beside(&self, _: &Ticket) -> bool {
        match *self {}
    }

    pub fn judge(&self) -> Result<()> {
        match *self {}
    }
}

/// A block of memory of one device. `Arc<Storage>` is what values hold.
pub enum Storage {
    Host(Buffer),
    /// Apart, so that a block of the host is no larger than without it.
    #[cfg(feature = "gpu")]
    Device(Box<gpu::Buffer>),
}

#[cold]
#[cfg(feature = "gpu")]
fn not_on_host() -> ! {
    unreachable!("code of the host was given memory of a device")
}

impl Storage {
    /// The memory, for code that runs where it is the host's alone.
    #[inline]
    pub fn host(&self) -> &Buffer {
        match self {
            Storage::Host(buffer) => buffer,
            #[cfg(feature = "gpu")]
            Storage::Device(_) => not_on_host(),
        }
    }

    /// Where the memory of the host starts; null for a device's.
    #[inline]
    pub fn address(&self) -> *mut u8 {
        match self {
            Storage::Host(buffer) => buffer.as_mut_ptr(),
            #[cfg(feature = "gpu")]
            Storage::Device(_) => std::ptr::null_mut(),
        }
    }

    /// The memory, for code that runs on its device.
    #[cfg(feature = "gpu")]
    pub fn gpu(&self) -> Result<&gpu::Buffer> {
        match self {
            Storage::Device(buffer) => Ok(buffer),
            Storage::Host(_) => Err(Error::internal("code of a device was given memory of the host")),
        }
    }

    pub fn device(&self) -> DeviceId {
        match self {
            Storage::Host(_) => DeviceId::Cpu,
            #[cfg(feature = "gpu")]
            Storage::Device(buffer) => DeviceId::Gpu(buffer.context().index()),
        }
    }

    /// Equal exactly for the same memory, among blocks that exist.
    #[inline]
    pub fn id(&self) -> usize {
        match self {
            Storage::Host(buffer) => buffer.as_ptr() as usize,
            #[cfg(feature = "gpu")]
            Storage::Device(_) => std::ptr::from_ref(self) as usize,
        }
    }

    /// Bytes of the block.
    #[inline]
    pub fn bytes(&self) -> usize {
        match self {
            Storage::Host(buffer) => buffer.len(),
            #[cfg(feature = "gpu")]
            Storage::Device(buffer) => buffer.len(),
        }
    }

    /// Whether the memory is ours to write once nobody else holds the block.
    #[inline]
    pub fn is_owned(&self) -> bool {
        match self {
            Storage::Host(buffer) => buffer.is_owned(),
            #[cfg(feature = "gpu")]
            Storage::Device(_) => true,
        }
    }

    /// The error, if the content is known to depend on an index out of range.
    #[inline]
    pub fn error(&self) -> Option<Error> {
        match self {
            Storage::Host(_) => None,
            #[cfg(feature = "gpu")]
            Storage::Device(buffer) => buffer.error(),
        }
    }

    /// The run of a device that wrote the content.
    pub fn written(&self) -> Option<Ticket> {
        match self {
            Storage::Host(_) => None,
            #[cfg(feature = "gpu")]
            Storage::Device(buffer) => Some(buffer.written()),
        }
    }

    /// A new block of a device for this many bytes.
    pub fn new(device: DeviceId, bytes: usize) -> Result<Storage> {
        match device {
            DeviceId::Cpu => Buffer::new(bytes).map(Storage::Host),
            #[cfg(feature = "gpu")]
            DeviceId::Gpu(index) => gpu::context(index)?.alloc(bytes).map(Storage::from),
            #[cfg(not(feature = "gpu"))]
            DeviceId::Gpu(_) => Err(no_gpu(device)),
        }
    }

    /// A block of a device with these elements of the host.
    pub fn upload(device: DeviceId, bytes: &[u8], dtype: DType) -> Result<Storage> {
        match device {
            DeviceId::Cpu => Buffer::from_bytes(bytes).map(Storage::Host),
            #[cfg(feature = "gpu")]
            DeviceId::Gpu(index) => {
                let context = gpu::context(index)?;
                let made = match dtype.size() {
                    1 => context.upload(&widened(bytes)),
                    _ => context.upload(bytes),
                };
                made.map(Storage::from)
            }
            #[cfg(not(feature = "gpu"))]
            DeviceId::Gpu(_) => {
                let _ = dtype;
                Err(no_gpu(device))
            }
        }
    }

    /// Elements that lie one after another, as the host has them. Waits for the device.
    pub fn download(&self, dtype: DType, first: usize, count: usize) -> Result<Buffer> {
        let size = dtype.size();
        match self {
            Storage::Host(buffer) => {
                // SAFETY: the block is as long as it says.
                let whole = unsafe { std::slice::from_raw_parts(buffer.as_ptr(), buffer.len()) };
                Buffer::from_bytes(&whole[first * size..(first + count) * size])
            }
            #[cfg(feature = "gpu")]
            Storage::Device(buffer) => {
                let memory = Buffer::new(count * size)?;
                // SAFETY: the new block is this long, and nobody else has it yet.
                let out = unsafe {
                    memory.as_mut_ptr().write_bytes(0, count * size);
                    std::slice::from_raw_parts_mut(memory.as_mut_ptr(), count * size)
                };
                match size {
                    1 => read_narrowed(buffer, first, out)?,
                    _ => buffer.context().read(buffer, first * size, out)?,
                }
                Ok(memory)
            }
        }
    }
}

impl Storage {
    /// Copies elements of a GPU's block to another one, in the order of its work.
    pub fn copy_from(&self, from: &Storage, dtype: DType, first: usize, to: usize, count: usize) -> Result<()> {
        match (self, from) {
            #[cfg(feature = "gpu")]
            (Storage::Device(target), Storage::Device(from)) => {
                let size = dtype.device_size();
                target.context().copy(from, first * size, target, to * size, count * size)
            }
            _ => Err(Error::internal(format!("{count} of {dtype} at {first} of {from:?} to {to} of {self:?}"))),
        }
    }
}

/// One word for each byte.
#[cfg(feature = "gpu")]
fn widened(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|&byte| [byte, 0, 0, 0]).collect()
}

/// Reads words and keeps the low byte of each.
#[cfg(feature = "gpu")]
fn read_narrowed(buffer: &gpu::Buffer, first: usize, out: &mut [u8]) -> Result<()> {
    let mut words = vec![0; out.len() * 4];
    buffer.context().read(buffer, first * 4, &mut words)?;
    out.iter_mut().zip(words.chunks_exact(4)).for_each(|(byte, word)| *byte = word[0]);
    Ok(())
}

impl From<Buffer> for Storage {
    fn from(buffer: Buffer) -> Storage {
        Storage::Host(buffer)
    }
}

#[cfg(feature = "gpu")]
impl From<gpu::Buffer> for Storage {
    fn from(buffer: gpu::Buffer) -> Storage {
        Storage::Device(Box::new(buffer))
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({} bytes on {})", self.bytes(), self.device())
    }
}

/// Makes sure that a device can be used, and opens it.
pub fn open(device: DeviceId) -> Result<()> {
    match device {
        DeviceId::Cpu => Ok(()),
        #[cfg(feature = "gpu")]
        DeviceId::Gpu(index) => gpu::context(index).map(drop),
        #[cfg(not(feature = "gpu"))]
        DeviceId::Gpu(_) => Err(no_gpu(device)),
    }
}

/// Waits until it is known of all runs of a device whether they met an index out of range, and raises a new one.
pub fn judge(device: DeviceId) -> Result<()> {
    match device {
        DeviceId::Cpu => Ok(()),
        #[cfg(feature = "gpu")]
        DeviceId::Gpu(index) => gpu::context(index)?.judge(),
        #[cfg(not(feature = "gpu"))]
        DeviceId::Gpu(_) => Err(no_gpu(device)),
    }
}

#[cfg(not(feature = "gpu"))]
fn no_gpu(device: DeviceId) -> Error {
    Error::device(format!("{device}: this build has no part for GPUs; use \"cpu\""))
}
