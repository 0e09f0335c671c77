//! Names of devices. A device is named before anything of it exists.

use crate::error::{Error, Result};
use std::fmt;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceId {
    #[default]
    Cpu,
    /// By its number among the adapters that can be used.
    Gpu(u8),
}

impl DeviceId {
    /// Finds a device by what users call it: "cpu", "gpu" (the first one), "gpu:1".
    pub fn from_name(name: &str) -> Result<DeviceId> {
        let number = match name {
            "cpu" => return Ok(DeviceId::Cpu),
            "gpu" => Some(0),
            _ => name.strip_prefix("gpu:").and_then(|number| number.parse().ok()),
        };
        number.map(DeviceId::Gpu).ok_or_else(|| {
            let kind = name.split(':').next().unwrap_or(name);
            let hint = match kind {
                "cuda" | "mps" | "xpu" | "rocm" | "vulkan" | "metal" | "wgpu" => "use \"gpu\", whatever makes it",
                _ => "use \"cpu\", \"gpu\" or, for another GPU than the first, \"gpu:1\"",
            };
            Error::device(format!("device {name:?} does not exist here; {hint}"))
        })
    }

    /// A number of its own, for keys.
    pub fn number(self) -> u64 {
        match self {
            DeviceId::Cpu => 0,
            DeviceId::Gpu(number) => 1 + u64::from(number),
        }
    }

    #[inline]
    pub fn is_cpu(self) -> bool {
        matches!(self, DeviceId::Cpu)
    }

    /// What to write for it, at its shortest.
    pub fn short(self) -> String {
        match self {
            DeviceId::Gpu(0) => "gpu".to_owned(),
            device => device.to_string(),
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceId::Cpu => f.write_str("cpu"),
            DeviceId::Gpu(number) => write!(f, "gpu:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for device in [DeviceId::Cpu, DeviceId::Gpu(0), DeviceId::Gpu(7)] {
            assert_eq!(DeviceId::from_name(&device.to_string()), Ok(device));
            assert_eq!(DeviceId::from_name(&device.short()), Ok(device));
        }
        assert_eq!(DeviceId::from_name("gpu"), Ok(DeviceId::Gpu(0)));
    }

    #[test]
    fn other_names_are_refused_and_told_what_is_right() {
        for name in ["", "gpu:", "gpu:-1", "gpu:256", "cpu:0", "tpu", "cuda", "cuda:0", "mps"] {
            let error = DeviceId::from_name(name).unwrap_err();
            assert!(error.message().contains("\"gpu\""), "{name}: {error}");
        }
        assert!(DeviceId::from_name("cuda:1").unwrap_err().message().contains("use \"gpu\""));
    }
}
