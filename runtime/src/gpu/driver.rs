//! What the executor needs of a device: memory, kernels, and streams of commands.
//!
//! Addresses are plain numbers. The executor frees what it allocated, and keeps the memory that
//! a recording mentions where it is for as long as the recording lives, so a device may turn the
//! commands of a recording into something that is replayed (a CUDA graph).

use qcc_ir::diag::Result;
use qcc_ir::plan::VENDOR;

pub(crate) use super::command::{
    Address, ArgBytes, Command, GemmNumbers, LaunchNumbers, TensorMapNumbers, Work,
};

/// What a chip can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability {
    /// Compute capability: 90 for sm_90.
    pub(crate) sm: u32,
    /// Whether instructions of exactly this architecture (`sm_90a`) run.
    pub(crate) specific: bool,
    /// Whether the vendor's library of matrix products is there.
    pub(crate) vendor: bool,
}

impl Capability {
    /// Whether a way to run a step that requires this may be taken: code for an architecture such as
    /// `sm_80` or `sm_90a`, or the vendor's library.
    pub(crate) fn runs(&self, arch: &str) -> bool {
        if arch == VENDOR {
            return self.vendor;
        }
        let Some(name) = arch.strip_prefix("sm_") else {
            return false;
        };
        let number = name.trim_end_matches('a');
        match (number.parse::<u32>(), name.len() - number.len()) {
            (Ok(sm), 0) => sm <= self.sm,
            (Ok(sm), 1) => sm == self.sm && self.specific,
            _ => false,
        }
    }
}

/// A device. Its methods may be called from several threads at once.
pub(crate) trait Driver: Send + Sync {
    /// The chip; the vendor's library is looked for only if it is of interest.
    fn capability(&self, vendor: bool) -> Capability;

    /// Allocates memory that starts at a multiple of 256; `bytes` is never 0.
    ///
    /// # Errors
    /// `Q0733` if there is not enough.
    fn alloc(&self, bytes: u64) -> Result<Address>;

    /// Frees an allocation, after all work that was given to streams is done.
    fn free(&self, at: Address);

    /// Copies bytes to the device and returns when they are there: weights, at the beginning.
    ///
    /// # Errors
    /// Those of the device.
    fn upload(&self, at: Address, bytes: &[u8]) -> Result<()>;

    /// Loads a PTX text; gives the number of the module.
    ///
    /// # Errors
    /// `Q0734` if the device refuses the text.
    fn load(&self, text: &str) -> Result<usize>;

    /// The function `symbol` of a module; gives the number by which launches name it.
    ///
    /// # Errors
    /// `Q0734` if the module has no such function.
    fn kernel(&self, module: usize, symbol: &str) -> Result<usize>;

    /// The bytes of a tensor map, as a kernel parameter.
    ///
    /// # Errors
    /// `Q0730` if the device does not accept it.
    fn tensor_map(&self, map: &TensorMapNumbers<Address>) -> Result<[u8; 128]>;

    /// A stream of its own for a session.
    ///
    /// # Errors
    /// Those of the device.
    fn stream(&self) -> Result<Box<dyn Stream>>;
}

/// Work in order, for one session.
pub(crate) trait Stream: Send {
    /// Copies bytes to the device; the caller may change them when it returns.
    ///
    /// # Errors
    /// Those of the device.
    fn upload(&mut self, at: Address, bytes: &[u8]) -> Result<()>;

    /// Waits for everything before, then copies bytes from the device.
    ///
    /// # Errors
    /// Those of the device, and of the work before.
    fn download(&mut self, at: Address, bytes: &mut [u8]) -> Result<()>;

    /// Declares that the contents of an allocation are of no more use. A simulator then finds
    /// reads of them; a GPU does nothing.
    ///
    /// # Errors
    /// Those of the device.
    fn discard(&mut self, _at: Address) -> Result<()> {
        Ok(())
    }

    /// Prepares commands that will be played any number of times, in order, each after the end of
    /// the one before.
    ///
    /// # Errors
    /// Those of the device.
    fn record(&mut self, commands: Vec<Command>) -> Result<Box<dyn Recording>>;
}

/// Commands that are ready, on the stream that recorded them.
pub(crate) trait Recording: Send {
    /// Starts the commands, after all work that the stream was given before.
    ///
    /// # Errors
    /// `Q0732` if a kernel fails; a device may also report it at the next download.
    fn play(&mut self) -> Result<()>;

    /// Microseconds that the device needs for playing once: the mean of some repetitions, one
    /// straight after the other. None where time has no meaning.
    ///
    /// # Errors
    /// As [`Recording::play`].
    fn micros(&mut self, _repetitions: u32) -> Result<Option<f64>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::Capability;

    #[test]
    fn architectures_run_on_newer_chips_and_specific_ones_on_their_own() {
        let chip = |sm, specific| Capability {
            sm,
            specific,
            vendor: sm == 90,
        };
        assert!(chip(90, false).runs("cublaslt") && !chip(80, true).runs("cublaslt"));
        assert!(chip(90, true).runs("sm_80") && chip(90, false).runs("sm_90"));
        assert!(chip(90, true).runs("sm_90a") && !chip(90, false).runs("sm_90a"));
        assert!(!chip(80, true).runs("sm_90") && !chip(100, true).runs("sm_90a"));
        assert!(!chip(90, true).runs("x86-64-v3") && !chip(90, true).runs("sm_aa"));
    }
}
