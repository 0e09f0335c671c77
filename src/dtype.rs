//! Element types: names, sizes, and the promotion table of the Array API standard, extended by integer-with-float.

use crate::error::{Error, Result};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DType {
    Bool,
    U8,
    I32,
    I64,
    F32,
    F64,
}

impl DType {
    pub const ALL: [DType; 6] = [DType::Bool, DType::U8, DType::I32, DType::I64, DType::F32, DType::F64];

    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "uint8",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::F32 => "float32",
            DType::F64 => "float64",
        }
    }

    /// Finds a dtype by its Array API name; names of the standard that are not held here say so.
    pub fn from_name(name: &str) -> Result<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            let held: Vec<_> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
            Error::dtype(format!("dtype {name:?} is not supported; use one of {}", held.join(", ")))
        })
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 => 1,
            DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// Bytes of one element in the memory of a GPU, whose smallest type has four; float64 is not held there.
    pub fn device_size(self) -> usize {
        self.size().max(4)
    }

    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }

    pub fn is_integer(self) -> bool {
        matches!(self, DType::U8 | DType::I32 | DType::I64)
    }

    /// The dtype of an operation on both: the wider of one kind; integer with float gives the float.
    pub fn promote(self, other: DType) -> DType {
        use DType::*;
        match (self.min(other), self.max(other)) {
            (Bool, wider) => wider,
            (U8 | I32 | I64, float @ (F32 | F64)) => float,
            (_, wider) => wider,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_is_commutative_and_keeps_floats() {
        for a in DType::ALL {
            assert_eq!(a.promote(a), a);
            for b in DType::ALL {
                assert_eq!(a.promote(b), b.promote(a));
            }
        }
        assert_eq!(DType::I64.promote(DType::F32), DType::F32);
        assert_eq!(DType::U8.promote(DType::I32), DType::I32);
        assert_eq!(DType::Bool.promote(DType::U8), DType::U8);
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(DType::from_name("complex64").is_err());
        assert_eq!(DType::from_name("int32"), Ok(DType::I32));
    }
}
