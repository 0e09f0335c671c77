//! Reads and writes safetensors files: eight bytes with the length of the header, the header (JSON), then the bytes of
//! the tensors, little-endian. A file is read whole or not at all, and written whole or not at all.
//!
//! Format: <https://github.com/huggingface/safetensors>.

use super::header::{Header, Info, METADATA, format_error, quoted};
use super::replace::replace;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::shape::Shape;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

/// The most that a header may take; the reference reader has the same limit.
const MAX_HEADER: u64 = 100_000_000;

/// One tensor of a file: its elements in row-major order, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<B> {
    pub name: String,
    pub dtype: DType,
    pub shape: Shape,
    pub bytes: B,
}

/// What a file holds, in the order in which it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    pub tensors: Vec<Entry<Vec<u8>>>,
    pub metadata: Vec<(String, String)>,
}

/// Writes `tensors` and `metadata` to `path`, in place of what is there. Equal contents give equal files.
///
/// Until the new file is complete and on the disk the old one stays, and on a failure no trace of the new one does.
///
/// # Errors
/// `Value` for names that come twice or are reserved, `Io` for what the system refuses.
pub fn write<B: AsRef<[u8]>>(path: &Path, tensors: &[Entry<B>], metadata: &[(String, String)]) -> Result<()> {
    let attempt = || {
        let (header, order) = lay_out(tensors, metadata)?;
        let header = header.encode();
        if header.len() as u64 > MAX_HEADER {
            return Err(Error::value(format!(
                "names and metadata take {} bytes, at most {MAX_HEADER} fit",
                header.len()
            )));
        }
        replace(path, |file| {
            let mut file = BufWriter::with_capacity(1 << 20, file);
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            for &index in &order {
                file.write_all(tensors[index].bytes.as_ref())?;
            }
            file.flush()
        })
        .map_err(io_error)
    };
    attempt().map_err(|error| error.within(&format!("save {path:?}")))
}

/// Reads the file at `path` after checking all of it: no tensor of a damaged file is returned.
///
/// # Errors
/// `Format` for a file that is not whole or not what it says, `Unsupported` for dtypes that are not held, `Memory`
/// where the tensors do not fit, `Io` for what the system refuses.
pub fn read(path: &Path) -> Result<Contents> {
    let attempt = || {
        // Asked before opening: opening a pipe would wait for a writer.
        if !fs::metadata(path).map_err(io_error)?.is_file() {
            return Err(Error::new(ErrorKind::Io, "it is not a regular file"));
        }
        let file = File::open(path).map_err(io_error)?;
        let len = file.metadata().map_err(io_error)?.len();
        parse(BufReader::with_capacity(1 << 16, file), len)
    };
    attempt().map_err(|error| error.within(&format!("load {path:?}")))
}

fn io_error(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, error.to_string())
}

/// Gives each tensor its place and returns the order of the bytes: wide elements first, so that all are aligned.
fn lay_out<B: AsRef<[u8]>>(tensors: &[Entry<B>], metadata: &[(String, String)]) -> Result<(Header, Vec<usize>)> {
    let mut names = HashSet::<&str>::new();
    for tensor in tensors {
        if tensor.name == METADATA {
            return Err(Error::value(format!("a tensor cannot have the name {METADATA}: the format reserves it")));
        }
        if !names.insert(&tensor.name) {
            return Err(Error::value(format!("the tensor name {} comes twice", quoted(&tensor.name))));
        }
        let (found, needed) = (tensor.bytes.as_ref().len(), tensor.shape.size() * tensor.dtype.size());
        if found != needed {
            return Err(Error::internal(format!("tensor {:?} has {found} bytes and needs {needed}", tensor.name)));
        }
    }
    let mut keys = HashSet::<&str>::new();
    if let Some((key, _)) = metadata.iter().find(|(key, _)| !keys.insert(key)) {
        return Err(Error::value(format!("the metadata key {key:?} comes twice")));
    }

    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(tensors[index].dtype.size()));
    let mut infos: Vec<Info> = tensors
        .iter()
        .map(|t| Info { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone(), range: 0..0 })
        .collect();
    let mut filled = 0;
    for &index in &order {
        let end = filled + tensors[index].bytes.as_ref().len();
        infos[index].range = filled..end;
        filled = end;
    }
    Ok((Header { tensors: infos, metadata: metadata.to_vec() }, order))
}

/// Reads a file of `len` bytes. Nothing is reserved before its size is known to fit into the file.
fn parse(mut reader: impl Read, len: u64) -> Result<Contents> {
    let Some(rest) = len.checked_sub(8) else {
        return Err(format_error(format!("{len} bytes are too few for a safetensors file")));
    };
    let mut header_len = [0; 8];
    reader.read_exact(&mut header_len).map_err(io_error)?;
    let header_len = u64::from_le_bytes(header_len);
    if header_len > rest {
        return Err(format_error(format!(
            "the file says that its header takes {header_len} bytes, but {rest} follow: \
             it is truncated or not a safetensors file"
        )));
    }
    if header_len > MAX_HEADER {
        return Err(format_error(format!("the header takes {header_len} bytes, at most {MAX_HEADER} are read")));
    }
    let fits = |n: u64| usize::try_from(n).map_err(|_| Error::new(ErrorKind::Memory, format!("{n} bytes do not fit")));
    let header = read_bytes(&mut reader, fits(header_len)?)?;
    let header = Header::decode(&header, fits(rest - header_len)?)?;

    let mut tensors: Vec<_> = header
        .tensors
        .iter()
        .map(|info| Entry { name: info.name.clone(), dtype: info.dtype, shape: info.shape.clone(), bytes: Vec::new() })
        .collect();
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| (header.tensors[index].range.start, header.tensors[index].range.end));
    for index in order {
        let tensor = &mut tensors[index];
        // The header leaves no hole, so the tensors follow one another.
        tensor.bytes = read_bytes(&mut reader, header.tensors[index].range.len())?;
        if tensor.dtype == DType::Bool && tensor.bytes.iter().any(|&byte| byte > 1) {
            return Err(format_error(format!(
                "tensor {} is of dtype BOOL and holds bytes above 1",
                quoted(&tensor.name)
            )));
        }
    }
    Ok(Contents { tensors, metadata: header.metadata })
}

fn read_bytes(reader: &mut impl Read, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| Error::new(ErrorKind::Memory, format!("out of memory reading {len} bytes")))?;
    let found = reader.take(len as u64).read_to_end(&mut bytes).map_err(io_error)?;
    if found != len {
        return Err(format_error("the file became shorter while it was read"));
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
