//! PTX versions and architectures, and the lowest ones that a kernel needs.

use std::fmt;
use std::str::FromStr;

/// A version of the PTX ISA, times ten: 70 is 7.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PtxVersion(pub u32);

impl PtxVersion {
    /// The highest that emitted text may carry: what CUDA 13.0 drivers load.
    pub const MAX: PtxVersion = PtxVersion(90);
}

impl fmt::Display for PtxVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// A GPU architecture as PTX names it: `sm_80`, `sm_90a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    /// Compute capability times ten.
    pub sm: u32,
    /// The architecture-specific variant (`a`), which runs on this generation only.
    pub specific: bool,
}

impl Arch {
    /// A portable architecture.
    pub const fn sm(sm: u32) -> Arch {
        Arch {
            sm,
            specific: false,
        }
    }

    /// An architecture with its specific instructions.
    pub const fn specific(sm: u32) -> Arch {
        Arch { sm, specific: true }
    }

    /// Lowest PTX version that names it; `None` for one that this emitter does not know.
    pub const fn version(self) -> Option<PtxVersion> {
        let v = match (self.sm, self.specific) {
            (75, false) => 63,
            (80, false) => 70,
            (86, false) => 71,
            (87, false) => 74,
            (89 | 90, false) => 78,
            (90, true) => 80,
            (100, _) => 86,
            (120, _) => 87,
            _ => return None,
        };
        Some(PtxVersion(v))
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.sm, if self.specific { "a" } else { "" })
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(s: &str) -> Result<Arch, String> {
        let unknown = || format!("unknown architecture `{s}`");
        let name = s.strip_prefix("sm_").ok_or_else(unknown)?;
        let digits = name.strip_suffix('a').unwrap_or(name);
        let sm = digits.parse().map_err(|_| unknown())?;
        let arch = Arch {
            sm,
            specific: name.len() != digits.len(),
        };
        arch.version().map(|_| arch).ok_or_else(unknown)
    }
}

/// The lowest version and architecture that the instructions so far need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    pub(super) version: PtxVersion,
    pub(super) sm: u32,
    /// Set when an architecture-specific instruction is used: only this generation runs it.
    pub(super) specific: Option<u32>,
}

impl Needs {
    pub(super) const fn base() -> Needs {
        Needs {
            version: PtxVersion(63),
            sm: 75,
            specific: None,
        }
    }

    pub(super) fn need(&mut self, version: u32, sm: u32) {
        self.version = self.version.max(PtxVersion(version));
        self.sm = self.sm.max(sm);
    }

    pub(super) fn need_specific(&mut self, version: u32, sm: u32) {
        self.need(version, sm);
        self.specific = Some(sm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["sm_75", "sm_80", "sm_90", "sm_90a", "sm_120a"] {
            assert_eq!(
                name.parse::<Arch>().map(|a| a.to_string()),
                Ok(name.to_string())
            );
        }
        for name in ["sm_81", "90", "sm_90b", "sm_80a", ""] {
            assert!(name.parse::<Arch>().is_err(), "{name}");
        }
    }
}
