//! The JSON header of a safetensors file: what each tensor is and where its bytes lie.
//! Decoding checks everything that can be checked without the bytes, so that the reader may trust the result.

use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::shape::{MAX_RANK, Shape};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

/// The key of the header that holds text instead of a tensor.
pub(super) const METADATA: &str = "__metadata__";

/// Names that the format knows and this crate does not hold.
const FOREIGN: [&str; 14] = [
    "F16", "BF16", "I8", "I16", "U16", "U32", "U64", "C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Shape,
    /// Where the bytes lie, counted from the end of the header.
    pub(super) range: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) tensors: Vec<Info>,
    pub(super) metadata: Vec<(String, String)>,
}

pub(super) fn format_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Format, message)
}

/// A name for a message: quoted, and cut where a hostile file made it long.
pub(super) fn quoted(name: &str) -> String {
    match name.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

fn code(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::U8 => "U8",
        DType::I32 => "I32",
        DType::I64 => "I64",
        DType::F32 => "F32",
        DType::F64 => "F64",
    }
}

fn dtype_of(tensor: &str, found: &str) -> Result<DType> {
    if let Some(dtype) = DType::ALL.into_iter().find(|&dtype| code(dtype) == found) {
        return Ok(dtype);
    }
    let held: Vec<_> = DType::ALL.into_iter().map(code).collect();
    let (tensor, held) = (quoted(tensor), held.join(", "));
    Err(if FOREIGN.contains(&found) {
        Error::unsupported(format!("tensor {tensor} is of dtype {found}, which is not supported; supported are {held}"))
    } else {
        format_error(format!("tensor {tensor} is of the unknown dtype {}; known are {held}", quoted(found)))
    })
}

impl Header {
    /// The header as JSON, padded with spaces to a multiple of 8 bytes so that the tensors start aligned.
    pub(super) fn encode(&self) -> Vec<u8> {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut entries = Vec::with_capacity(self.tensors.len() + 1);
        if !self.metadata.is_empty() {
            let pairs: Vec<_> = self.metadata.iter().map(|(k, v)| format!("{}:{}", text(k), text(v))).collect();
            entries.push(format!("{}:{{{}}}", text(METADATA), pairs.join(",")));
        }
        entries.extend(self.tensors.iter().map(|tensor| {
            let dims: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
            format!(
                "{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                text(&tensor.name),
                code(tensor.dtype),
                dims.join(","),
                tensor.range.start,
                tensor.range.end
            )
        }));
        let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        header
    }

    /// Reads a header that is followed by `data_len` bytes of tensors, which it must describe to the last byte.
    pub(super) fn decode(header: &[u8], data_len: usize) -> Result<Header> {
        if header.first() != Some(&b'{') {
            return Err(format_error("the header does not start with `{`: this is not a safetensors file"));
        }
        let json: Json =
            serde_json::from_slice(header).map_err(|error| format_error(format!("the header: {error}")))?;
        let Json::Object(entries) = json else {
            return Err(format_error("the header is not a JSON object"));
        };
        let mut decoded = Header::default();
        for (name, entry) in entries {
            if name == METADATA {
                decoded.metadata = metadata(entry)?;
            } else {
                decoded.tensors.push(info(name, entry)?);
            }
        }
        check_layout(&decoded.tensors, data_len)?;
        Ok(decoded)
    }
}

fn metadata(entry: Json) -> Result<Vec<(String, String)>> {
    let Json::Object(pairs) = entry else {
        return Err(format_error(format!("{METADATA} is not a JSON object")));
    };
    pairs
        .into_iter()
        .map(|(key, value)| match value {
            Json::Text(value) => Ok((key, value)),
            _ => Err(format_error(format!("{METADATA}: the value of {} is not text", quoted(&key)))),
        })
        .collect()
}

fn info(name: String, entry: Json) -> Result<Info> {
    let wrong = |what: &str| format_error(format!("tensor {}: {what}", quoted(&name)));
    let Json::Object(fields) = entry else {
        return Err(wrong("its entry is not a JSON object"));
    };
    let (mut dtype, mut shape, mut offsets) = (None, None, None);
    for (field, value) in fields {
        match (field.as_str(), value) {
            ("dtype", Json::Text(found)) => dtype = Some(dtype_of(&name, &found)?),
            ("shape", Json::List(dims)) => shape = Some(dims),
            ("data_offsets", Json::List(pair)) => offsets = Some(pair),
            ("dtype", _) => return Err(wrong("dtype is not text")),
            ("shape" | "data_offsets", _) => return Err(wrong(&format!("{field} is not a list"))),
            _ => return Err(wrong(&format!("unknown field {}", quoted(&field)))),
        }
    }
    let dtype = dtype.ok_or_else(|| wrong("dtype is missing"))?;
    let dims = numbers(shape.ok_or_else(|| wrong("shape is missing"))?)
        .ok_or_else(|| wrong("shape holds something that is not a size"))?;
    let shape = Shape::new(&dims).checked("shape").map_err(|error| wrong(error.message()))?;
    let offsets = numbers(offsets.ok_or_else(|| wrong("data_offsets is missing"))?);
    let Some(&[start, end]) = offsets.as_deref() else {
        return Err(wrong("data_offsets is not a pair of positions"));
    };
    if end.checked_sub(start) != Some(shape.size() * dtype.size()) {
        let needed = shape.size() * dtype.size();
        return Err(wrong(&format!(
            "shape {shape} of {dtype} takes {needed} bytes, data_offsets say {start} to {end}"
        )));
    }
    Ok(Info { name, dtype, shape, range: start..end })
}

fn numbers(list: Vec<Json>) -> Option<Vec<usize>> {
    list.into_iter().map(|item| if let Json::Number(n) = item { usize::try_from(n).ok() } else { None }).collect()
}

/// The tensors must fill the data without overlap or hole: what a hole holds is nobody's, and files with one are
/// refused by other readers too.
fn check_layout(tensors: &[Info], data_len: usize) -> Result<()> {
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    let mut filled = 0;
    for tensor in sorted {
        let (name, Range { start, end }) = (quoted(&tensor.name), tensor.range.clone());
        if end > data_len {
            return Err(format_error(format!(
                "the file is truncated or its header wrong: tensor {name} ends at byte {end} of {data_len}"
            )));
        }
        if start != filled {
            let fault = if start < filled { "overlaps the tensor before it" } else { "leaves a hole before it" };
            return Err(format_error(format!("tensor {name} starts at byte {start}, not {filled}: it {fault}")));
        }
        filled = end;
    }
    if filled != data_len {
        return Err(format_error(format!("the tensors take {filled} bytes, but {data_len} follow the header")));
    }
    Ok(())
}

/// As much JSON as a header may hold. Objects keep their order and refuse a key that comes twice.
enum Json {
    Number(u64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    /// Valid, and never right in a header: fractions, negative numbers, booleans, null.
    Other,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E>(self) -> std::result::Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            // Bounds the memory that a hostile header can ask for: a list is a shape or a pair of offsets.
            if list.len() == MAX_RANK {
                return Err(A::Error::custom(format!("a list has more than {MAX_RANK} entries")));
            }
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Json, A::Error> {
        let mut object: Vec<(String, Json)> = Vec::new();
        let mut seen = HashSet::<String>::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("the name {} comes twice", quoted(&key))));
            }
            object.push((key, entries.next_value()?));
        }
        Ok(Json::Object(object))
    }
}
