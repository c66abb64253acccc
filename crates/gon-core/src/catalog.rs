//! Instance types: what a name promises.
//!
//! `g1` is ours, sized for small machines; `t3` has the sizes of AWS's family of that name, so that what was written
//! for it fits.

/// A size of instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceType {
    /// Its name (`g1.micro`).
    pub name: &'static str,
    /// Virtual processors.
    pub vcpus: u16,
    /// Memory in MiB.
    pub memory_mib: u32,
}

const fn size(name: &'static str, vcpus: u16, memory_mib: u32) -> InstanceType {
    InstanceType { name, vcpus, memory_mib }
}

/// Every type, smallest first within its family.
pub const INSTANCE_TYPES: &[InstanceType] = &[
    size("g1.pico", 1, 256),
    size("g1.nano", 1, 512),
    size("g1.micro", 1, 1024),
    size("g1.small", 1, 2048),
    size("g1.medium", 2, 4096),
    size("g1.large", 2, 8192),
    size("t3.nano", 2, 512),
    size("t3.micro", 2, 1024),
    size("t3.small", 2, 2048),
    size("t3.medium", 2, 4096),
    size("t3.large", 2, 8192),
];

/// The type of that name.
#[must_use]
pub fn instance_type(name: &str) -> Option<InstanceType> {
    INSTANCE_TYPES.iter().copied().find(|t| t.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for t in INSTANCE_TYPES {
            assert_eq!(instance_type(t.name), Some(*t));
        }
        assert_eq!(instance_type("m5.24xlarge"), None);
    }
}
