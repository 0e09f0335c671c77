//! What devices there are, and the order they are numbered in.

use std::env;
use std::fmt;
use wgpu::{Adapter, Backend, Backends, DeviceType, DownlevelFlags, Instance, InstanceDescriptor, InstanceFlags};

/// A number of the list or part of a name: that device goes first.
const PREFERRED: &str = "WENGERT_GPU";

/// What sort of device it is, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Discrete,
    Integrated,
    Virtual,
    Other,
    Cpu,
}

/// A device that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    pub name: String,
    /// "vulkan", "metal" or "dx12".
    pub backend: String,
    pub kind: Kind,
    pub driver: String,
}

pub(super) struct Found {
    pub adapter: Adapter,
    pub info: AdapterInfo,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Discrete => "discrete",
            Kind::Integrated => "integrated",
            Kind::Virtual => "virtual",
            Kind::Other => "other",
            Kind::Cpu => "cpu",
        })
    }
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.backend, self.kind)
    }
}

impl AdapterInfo {
    fn of(adapter: &Adapter) -> AdapterInfo {
        let info = adapter.get_info();
        let kind = match info.device_type {
            DeviceType::DiscreteGpu => Kind::Discrete,
            DeviceType::IntegratedGpu => Kind::Integrated,
            DeviceType::VirtualGpu => Kind::Virtual,
            DeviceType::Cpu => Kind::Cpu,
            DeviceType::Other => Kind::Other,
        };
        let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
        AdapterInfo { name: info.name, backend: info.backend.to_string(), kind, driver }
    }
}

pub(super) fn instance() -> Instance {
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    // Validation layers are for those who ask for them by wgpu's own variables.
    descriptor.flags = InstanceFlags::empty();
    Instance::new(descriptor.with_env())
}

/// All devices that can compute, in their order.
pub(super) fn list(instance: &Instance) -> Vec<Found> {
    let mut found: Vec<Found> = pollster::block_on(instance.enumerate_adapters(Backends::all()))
        .into_iter()
        .filter(|adapter| adapter.get_downlevel_capabilities().flags.contains(DownlevelFlags::COMPUTE_SHADERS))
        .map(|adapter| Found { info: AdapterInfo::of(&adapter), adapter })
        .collect();
    // Stable: devices of one kind keep the system's order.
    found.sort_by_key(|found| (found.info.kind, found.adapter.get_info().backend == Backend::Dx12));
    if let Ok(wanted) = env::var(PREFERRED) {
        let infos: Vec<&AdapterInfo> = found.iter().map(|found| &found.info).collect();
        if let Some(first) = preferred(&infos, &wanted) {
            found[..=first].rotate_right(1);
        }
    }
    found
}

/// The device that WENGERT_GPU asks for.
fn preferred(found: &[&AdapterInfo], wanted: &str) -> Option<usize> {
    let wanted = wanted.trim().to_lowercase();
    match wanted.parse::<usize>() {
        Ok(number) => (number < found.len()).then_some(number),
        Err(_) if wanted.is_empty() => None,
        Err(_) => found.iter().position(|info| info.to_string().to_lowercase().contains(&wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_part_of_a_name_is_preferred() {
        let info = |name: &str, kind| AdapterInfo {
            name: name.to_owned(),
            backend: "vulkan".to_owned(),
            kind,
            driver: String::new(),
        };
        let (fast, slow) = (info("Fast 5000", Kind::Discrete), info("llvmpipe (LLVM 15)", Kind::Cpu));
        let found = [&fast, &slow];
        for (wanted, expected) in
            [("1", Some(1)), ("LLVM", Some(1)), ("fast", Some(0)), ("2", None), ("x", None), ("", None)]
        {
            assert_eq!(preferred(&found, wanted), expected, "{wanted}");
        }
        assert_eq!(preferred(&found, "cpu"), Some(1));
        assert_eq!(slow.to_string(), "llvmpipe (LLVM 15) (vulkan, cpu)");
    }
}
