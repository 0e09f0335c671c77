//! Memory of values, wherever it lies, and the ways between the devices. Knows no tensors.

use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::machine::cpu::buffer::Buffer;
use std::fmt;

/// A block of memory of one device. `Arc<Storage>` is what values hold.
pub enum Storage {
    Host(Buffer),
}

impl Storage {
    /// The memory, for code that runs where it is the host's alone.
    #[inline]
    pub fn host(&self) -> &Buffer {
        match self {
            Storage::Host(buffer) => buffer,
        }
    }

    pub fn device(&self) -> DeviceId {
        match self {
            Storage::Host(_) => DeviceId::Cpu,
        }
    }

    /// Equal exactly for the same memory, among blocks that exist.
    #[inline]
    pub fn id(&self) -> usize {
        match self {
            Storage::Host(buffer) => buffer.as_ptr() as usize,
        }
    }

    /// Elements of a device's block as the host has them.
    pub fn download(&self, dtype: DType, first: usize, count: usize) -> Result<Buffer> {
        let size = dtype.size();
        match self {
            Storage::Host(buffer) => {
                // SAFETY: the block is as long as it says.
                let whole = unsafe { std::slice::from_raw_parts(buffer.as_ptr(), buffer.len()) };
                Buffer::from_bytes(&whole[first * size..(first + count) * size])
            }
        }
    }

    /// Bytes of the block.
    #[inline]
    pub fn bytes(&self) -> usize {
        match self {
            Storage::Host(buffer) => buffer.len(),
        }
    }

    /// Whether the memory is ours to write once nobody else holds the block.
    #[inline]
    pub fn is_owned(&self) -> bool {
        match self {
            Storage::Host(buffer) => buffer.is_owned(),
        }
    }
}

impl From<Buffer> for Storage {
    fn from(buffer: Buffer) -> Storage {
        Storage::Host(buffer)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({} bytes on {})", self.bytes(), self.device())
    }
}

/// Memory of a device with these elements of the host.
pub fn upload(device: DeviceId, bytes: &[u8], _dtype: DType) -> Result<Storage> {
    open(device)?;
    Ok(Buffer::from_bytes(bytes)?.into())
}

/// Makes sure that a device can be used.
pub fn open(device: DeviceId) -> Result<()> {
    match device {
        DeviceId::Cpu => Ok(()),
        DeviceId::Gpu(_) => Err(Error::device(format!("{device}: this build has no part for GPUs; use \"cpu\""))),
    }
}
