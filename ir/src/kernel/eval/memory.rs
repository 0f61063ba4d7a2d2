//! Memory of the evaluator: buffers behind the arguments, shared memory of the block.
//!
//! A global address is the buffer's number in its upper bits and a byte offset below; a shared
//! address is a byte offset. Every access is checked for bounds and, in a grid kernel, alignment.

use super::super::{Kernel, Kind, Space, Ty};
use super::{Arg, EvalError, Evaluated, check_arg};

const OFFSET_BITS: u32 = 44;

enum Buffer<'a> {
    Read(&'a [u8]),
    Write(&'a mut [u8]),
}

/// What a kernel can reach.
pub(super) struct Memory<'a> {
    buffers: Vec<Buffer<'a>>,
    pub(super) shared: Vec<u8>,
    /// Whether an address must be a multiple of the access; CPUs do not ask for it.
    aligned: bool,
}

impl<'a> Memory<'a> {
    /// Memory behind the arguments, and each parameter's bits.
    pub(super) fn new(
        kernel: &Kernel,
        args: &'a mut [Arg<'_>],
    ) -> Evaluated<(Memory<'a>, Vec<u64>)> {
        let (mut buffers, mut scalars) = (Vec::new(), Vec::new());
        for (param, arg) in kernel.params().iter().zip(args) {
            check_arg(param.ty, arg).map_err(|e| EvalError {
                at: Some(format!("parameter {}", param.name)),
                ..e
            })?;
            let next = (buffers.len() as u64 + 1) << OFFSET_BITS;
            match arg {
                Arg::Scalar(bits) => scalars.push(*bits & mask(param.ty.bits())),
                Arg::Read(bytes) => {
                    buffers.push(Buffer::Read(bytes));
                    scalars.push(next);
                }
                Arg::Write(bytes) => {
                    buffers.push(Buffer::Write(bytes));
                    scalars.push(next);
                }
            }
        }
        Ok((
            Memory {
                buffers,
                shared: Vec::new(),
                aligned: matches!(kernel.kind(), Kind::Spmd(_)),
            },
            scalars,
        ))
    }

    fn place(space: Space, address: u64) -> (usize, usize) {
        match space {
            Space::Shared | Space::Cluster => (0, address as u32 as usize),
            _ => (
                (address >> OFFSET_BITS) as usize,
                (address & mask(OFFSET_BITS)) as usize,
            ),
        }
    }

    /// The bytes at an address.
    pub(super) fn read(&self, space: Space, address: u64, len: usize) -> Evaluated<&[u8]> {
        let (buffer, at) = Self::place(space, address);
        let bytes: &[u8] = match (
            space,
            buffer.checked_sub(1).and_then(|i| self.buffers.get(i)),
        ) {
            (Space::Shared, _) => &self.shared,
            (_, Some(Buffer::Read(bytes))) => bytes,
            (_, Some(Buffer::Write(bytes))) => bytes,
            (_, None) => &[],
        };
        let end = at.checked_add(len);
        match end.and_then(|end| bytes.get(at..end)) {
            Some(found) if !self.aligned || at.is_multiple_of(len.max(1)) => Ok(found),
            Some(_) => Err(misaligned(at, len)),
            None => Err(outside("load", at, len, bytes.len())),
        }
    }

    /// Writes bytes at an address.
    pub(super) fn write(&mut self, space: Space, address: u64, data: &[u8]) -> Evaluated {
        let (buffer, at) = Self::place(space, address);
        let bytes: &mut [u8] = match (
            space,
            buffer.checked_sub(1).and_then(|i| self.buffers.get_mut(i)),
        ) {
            (Space::Shared, _) => &mut self.shared,
            (_, Some(Buffer::Write(bytes))) => bytes,
            (_, Some(Buffer::Read(_))) => return Err(EvalError::new("store to read-only memory")),
            (_, None) => &mut [],
        };
        let (len, size) = (data.len(), bytes.len());
        let end = at.checked_add(len);
        match end.and_then(|end| bytes.get_mut(at..end)) {
            Some(place) if !self.aligned || at.is_multiple_of(len.max(1)) => {
                place.copy_from_slice(data);
                Ok(())
            }
            Some(_) => Err(misaligned(at, len)),
            None => Err(outside("store", at, len, size)),
        }
    }
}

fn mask(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

fn misaligned(at: usize, len: usize) -> EvalError {
    EvalError::new(format!("address {at} is no multiple of {len}"))
}

fn outside(what: &str, at: usize, len: usize, size: usize) -> EvalError {
    EvalError::new(format!("{what} of {len} bytes at {at} of {size}"))
}

/// Little-endian bytes of a value's lanes.
pub(super) fn to_bytes(ty: Ty, lanes: &[u64]) -> Vec<u8> {
    let bits = ty.dtype().map_or(ty.bits(), |d| d.bits());
    if bits == 4 {
        return lanes
            .chunks(2)
            .map(|p| (p[0] | p.get(1).unwrap_or(&0) << 4) as u8)
            .collect();
    }
    lanes
        .iter()
        .flat_map(|v| v.to_le_bytes().into_iter().take(bits as usize / 8))
        .collect()
}

/// The lanes that little-endian bytes hold.
pub(super) fn from_bytes(ty: Ty, bytes: &[u8]) -> Vec<u64> {
    let bits = ty.dtype().map_or(ty.bits(), |d| d.bits());
    if bits == 4 {
        return bytes
            .iter()
            .flat_map(|b| [u64::from(b & 15), u64::from(b >> 4)])
            .collect();
    }
    let lane = |c: &[u8]| c.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
    bytes.chunks(bits as usize / 8).map(lane).collect()
}
