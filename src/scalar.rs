//! One number, exact as it came: the operands that Python writes in an expression, and constants inside rules.

use crate::dtype::DType;
use std::hash::{Hash, Hasher};

#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    Bool(bool),
    I64(i64),
    F64(f64),
}

impl Scalar {
    /// The default dtype of a tensor made from this number alone.
    pub fn dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::I64(_) => DType::I64,
            Scalar::F64(_) => DType::F32,
        }
    }

    /// The dtype of this number beside a tensor of `other`: Python numbers are weak and take the tensor's.
    pub fn weak_dtype(self, other: DType) -> DType {
        match self {
            Scalar::Bool(_) => other,
            Scalar::I64(_) if other == DType::Bool => DType::I64,
            Scalar::I64(_) => other,
            Scalar::F64(_) if other.is_float() => other,
            Scalar::F64(_) => DType::F32,
        }
    }

    pub fn as_f64(self) -> f64 {
        match self {
            Scalar::Bool(x) => f64::from(u8::from(x)),
            Scalar::I64(x) => x as f64,
            Scalar::F64(x) => x,
        }
    }

    /// Truncates floats toward zero, as a cast does.
    pub fn as_i64(self) -> i64 {
        match self {
            Scalar::Bool(x) => i64::from(x),
            Scalar::I64(x) => x,
            Scalar::F64(x) => x as i64,
        }
    }

    pub fn as_bool(self) -> bool {
        match self {
            Scalar::Bool(x) => x,
            Scalar::I64(x) => x != 0,
            Scalar::F64(x) => x != 0.0,
        }
    }

    /// The bytes of this number as one element of `dtype`, in the first `dtype.size()` places.
    pub fn to_bytes(self, dtype: DType) -> [u8; 8] {
        let mut out = [0; 8];
        match dtype {
            DType::Bool => out[0] = u8::from(self.as_bool()),
            DType::U8 => out[0] = self.as_i64() as u8,
            DType::I32 => out[..4].copy_from_slice(&(self.as_i64() as i32).to_ne_bytes()),
            DType::I64 => out.copy_from_slice(&self.as_i64().to_ne_bytes()),
            DType::F32 => out[..4].copy_from_slice(&self.to_f32().to_ne_bytes()),
            DType::F64 => out.copy_from_slice(&self.as_f64().to_ne_bytes()),
        }
        out
    }

    /// Reads one element of `dtype` from the front of `bytes`.
    pub fn from_bytes(dtype: DType, bytes: &[u8]) -> Scalar {
        let mut word = [0u8; 8];
        word[..dtype.size()].copy_from_slice(&bytes[..dtype.size()]);
        let four = [word[0], word[1], word[2], word[3]];
        match dtype {
            DType::Bool => Scalar::Bool(word[0] != 0),
            DType::U8 => Scalar::I64(i64::from(word[0])),
            DType::I32 => Scalar::I64(i64::from(i32::from_ne_bytes(four))),
            DType::I64 => Scalar::I64(i64::from_ne_bytes(word)),
            DType::F32 => Scalar::F64(f64::from(f32::from_ne_bytes(four))),
            DType::F64 => Scalar::F64(f64::from_ne_bytes(word)),
        }
    }

    /// One word that differs for different numbers: for keys.
    pub fn to_word(self) -> u64 {
        match self {
            Scalar::Bool(x) => u64::from(x),
            Scalar::I64(x) => x as u64,
            Scalar::F64(x) => x.to_bits(),
        }
    }

    fn to_f32(self) -> f32 {
        match self {
            // An i64 goes to f32 in one rounding, not through f64.
            Scalar::I64(x) => x as f32,
            other => other.as_f64() as f32,
        }
    }
}

/// By kind and bits, so that 0.0 and -0.0 differ and NaN equals itself: what a plan key needs.
impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.to_word() == other.to_word()
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        self.to_word().hash(state);
    }
}

impl From<f64> for Scalar {
    fn from(x: f64) -> Scalar {
        Scalar::F64(x)
    }
}

impl From<i64> for Scalar {
    fn from(x: i64) -> Scalar {
        Scalar::I64(x)
    }
}

impl From<bool> for Scalar {
    fn from(x: bool) -> Scalar {
        Scalar::Bool(x)
    }
}
