//! Where the library lies that cargo built beside a test.

use std::path::PathBuf;

/// The shared library, in the folder of the running test or the one above it.
///
/// # Errors
/// Where it was looked for, if it is not there.
pub fn library() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|e| e.to_string())?;
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let file = format!("{prefix}fakecuda{suffix}");
    let mut folders = test.ancestors().skip(1).take(2).map(|f| f.join(&file));
    let found = folders.find(|p| p.is_file());
    found.ok_or_else(|| format!("{file} was not built beside {}", test.display()))
}
