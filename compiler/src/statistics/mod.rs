//! Statistics of one model, as they are kept between runs and programs.
//!
//! They belong to the model whose hash they carry: under another, value names would mean
//! something else. Two sets of the same model merge. The [`file`] says how they are stored.

mod file;
mod read;
#[cfg(test)]
mod tests;

use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_passes::Statistics;
use std::path::Path;

/// The format's version: files of another one are refused.
const VERSION: u64 = 1;
/// Longest file that is read.
const MAX_FILE: u64 = 16 << 30;

/// What calibration saw of a model's values.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelStatistics {
    /// Hash of the model's bytes, as in [`crate::Prepared`].
    pub model_hash: String,
    /// The statistics by value name.
    pub statistics: Statistics,
}

impl ModelStatistics {
    /// Reads a file.
    ///
    /// # Errors
    /// `Q0012` when it cannot be read; as [`ModelStatistics::from_bytes`].
    pub fn open(path: &Path) -> Result<Self> {
        let at = path.display().to_string();
        let unreadable = |e: String| Diagnostic::error(12, Class::Input, e).at(at.clone());
        let found = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?;
        if !found.is_file() {
            return Err(unreadable("it is no regular file".into()));
        }
        if found.len() > MAX_FILE {
            let message = format!("{} bytes, the limit is {MAX_FILE}", found.len());
            return Err(unreadable(message));
        }
        let bytes = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
        Self::from_bytes(&bytes).map_err(|d| d.or_at(at))
    }

    /// Writes a file; gives its length in bytes.
    ///
    /// # Errors
    /// `Q0012` when the file system refuses; as [`ModelStatistics::to_bytes`].
    pub fn write(&self, path: &Path) -> Result<u64> {
        let bytes = self.to_bytes()?;
        std::fs::write(path, &bytes).map_err(|e| {
            Diagnostic::error(12, Class::Input, e.to_string()).at(path.display().to_string())
        })?;
        Ok(bytes.len() as u64)
    }

    /// The contents of a file. The same statistics give the same bytes.
    ///
    /// # Errors
    /// `Q0528` when the statistics are none of a run: see [`ModelStatistics::from_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        file::to_bytes(self)
    }

    /// The statistics in the contents of a file.
    ///
    /// # Errors
    /// `Q0529` for bytes that are no such file or one of another version; `Q0528` for a value
    /// whose statistics contradict themselves or hold numbers that are not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        read::from_bytes(bytes)
    }

    /// Takes over what other statistics of the same model saw.
    ///
    /// # Errors
    /// `Q0530` for those of another model; `Q0522` when a value has another shape there.
    pub fn merge(&mut self, other: &ModelStatistics) -> Result<()> {
        other.check_model(&self.model_hash)?;
        self.statistics.merge(&other.statistics)
    }

    /// Whether they are of the model with this hash.
    ///
    /// # Errors
    /// `Q0530` with both hashes if not.
    pub fn check_model(&self, hash: &str) -> Result<()> {
        if self.model_hash == hash {
            return Ok(());
        }
        let message = format!(
            "the statistics are of the model {}, not of {hash}",
            self.model_hash
        );
        Err(Diagnostic::error(530, Class::Input, message)
            .hint("calibrate this model: `qcc calibrate`"))
    }
}
