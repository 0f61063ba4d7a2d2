//! Kernel arguments from files, and results back to files.

use std::fs;

use ptxsim::{Arg, DevPtr, Memory};

/// Largest buffer that the command takes: 16 GiB.
const MAX_BYTES: u64 = 1 << 34;

/// Device memory with the arguments of one launch.
pub(crate) struct Buffers {
    pub(crate) memory: Memory,
    values: Vec<Arg>,
    outputs: Vec<(DevPtr, u64, String)>,
}

impl Buffers {
    /// Allocates and fills what the words ask for.
    pub(crate) fn new(words: &[String]) -> Result<Self, String> {
        let mut b = Self {
            memory: Memory::new(),
            values: vec![],
            outputs: vec![],
        };
        for word in words {
            let value = b.value(word).map_err(|e| format!("--arg {word}: {e}"))?;
            b.values.push(value);
        }
        Ok(b)
    }

    pub(crate) fn values(&self) -> Vec<Arg> {
        self.values.clone()
    }

    fn value(&mut self, word: &str) -> Result<Arg, String> {
        let (kind, rest) = word.split_once(':').ok_or("a kind and `:` are wanted")?;
        let bad = || format!("`{rest}` is no {kind}");
        match kind {
            "u32" => rest.parse().map(Arg::U32).map_err(|_| bad()),
            "i32" => rest
                .parse::<i32>()
                .map(|v| Arg::U32(v as u32))
                .map_err(|_| bad()),
            "u64" => rest.parse().map(Arg::U64).map_err(|_| bad()),
            "f32" => rest.parse().map(Arg::f32).map_err(|_| bad()),
            "hex" => hex(rest).map(Arg::Bytes).ok_or_else(bad),
            "random" => self.filled(&random(rest)?, None),
            "in" => self.filled(&load(rest)?, None),
            "inout" => {
                let (from, to) = rest.split_once(':').ok_or("two files are wanted")?;
                self.filled(&load(from)?, Some(to))
            }
            "out" | "zeros" => {
                let (bytes, to) = rest
                    .split_once(':')
                    .map_or((rest, None), |(b, f)| (b, Some(f)));
                let bytes: u64 = bytes
                    .parse()
                    .map_err(|_| format!("`{bytes}` is no number of bytes"))?;
                if bytes > MAX_BYTES {
                    return Err(format!("{bytes} bytes are above the limit of {MAX_BYTES}"));
                }
                let p = self.memory.alloc(bytes).map_err(|e| e.to_string())?;
                if kind == "zeros" {
                    self.memory
                        .write(p, &vec![0; bytes as usize])
                        .map_err(|e| e.to_string())?;
                }
                self.outputs.extend(to.map(|f| (p, bytes, f.to_string())));
                Ok(Arg::Ptr(p))
            }
            other => Err(format!("unknown kind `{other}`")),
        }
    }

    fn filled(&mut self, data: &[u8], to: Option<&str>) -> Result<Arg, String> {
        let p = self
            .memory
            .alloc(data.len() as u64)
            .map_err(|e| e.to_string())?;
        self.memory.write(p, data).map_err(|e| e.to_string())?;
        self.outputs
            .extend(to.map(|f| (p, data.len() as u64, f.to_string())));
        Ok(Arg::Ptr(p))
    }

    /// Writes the result files.
    pub(crate) fn save(&self) -> Result<(), String> {
        for (p, bytes, file) in &self.outputs {
            let mut data = vec![0; *bytes as usize];
            self.memory.read(*p, &mut data).map_err(|e| e.to_string())?;
            fs::write(file, data).map_err(|e| format!("{file}: {e}"))?;
        }
        Ok(())
    }
}

/// Numbers of a generator with a fixed seed: the same on every machine.
fn random(text: &str) -> Result<Vec<u8>, String> {
    let words: Vec<&str> = text.split(':').collect();
    let number = |i: usize, other: u64| match words.get(i) {
        None => Ok(other),
        Some(w) => w.parse().map_err(|_| format!("`{w}` is no number")),
    };
    let (count, mut state) = (number(1, 0)?, number(2, 1)?);
    if words.len() < 2 || words.len() > 3 || count > MAX_BYTES / 4 {
        return Err("TYPE:COUNT[:SEED] is wanted, of at most 16 GiB".into());
    }
    let mut next = || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let mut out = Vec::new();
    for _ in 0..count {
        let bits = next();
        // Multiples of 1/1024 from -1 to 1 - 1/1024: exact in f32, and in f16 after rounding below.
        let fraction = (bits >> 53) as i32 - 1024;
        match words[0] {
            "f32" => out.extend((fraction as f32 / 1024.0).to_le_bytes()),
            "f16" => out.extend(half(fraction).to_le_bytes()),
            "u8" => out.push(bits as u8),
            other => return Err(format!("`{other}` is none of f32, f16, u8")),
        }
    }
    Ok(out)
}

/// `n/1024` for |n| ≤ 1024 as f16; such numbers have at most 11 significant bits, so they are exact.
fn half(n: i32) -> u16 {
    let sign = if n < 0 { 0x8000 } else { 0 };
    let size = n.unsigned_abs();
    if size == 0 {
        return sign;
    }
    // size = 1.m · 2^top, so the value is 1.m · 2^(top - 10).
    let top = 31 - size.leading_zeros();
    let mantissa = (size << (10 - top)) & 0x3ff;
    sign | ((top + 5) << 10 | mantissa) as u16
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}

/// The data of a file; of a `.npy` without its header, which must say C order.
fn load(file: &str) -> Result<Vec<u8>, String> {
    let size = fs::metadata(file)
        .map_err(|e| format!("{file}: {e}"))?
        .len();
    if size > MAX_BYTES {
        return Err(format!(
            "{file} has {size} bytes, above the limit of {MAX_BYTES}"
        ));
    }
    let data = fs::read(file).map_err(|e| format!("{file}: {e}"))?;
    if data.get(..6) != Some(b"\x93NUMPY") {
        return Ok(data);
    }
    let (start, len): (usize, usize) = match (data.get(6), data.get(8..12)) {
        (Some(1), Some(l)) => (10, usize::from(u16::from_le_bytes([l[0], l[1]]))),
        (Some(_), Some(l)) => (12, u32::from_le_bytes([l[0], l[1], l[2], l[3]]) as usize),
        _ => return Err(format!("{file}: the npy header is cut off")),
    };
    let header = start
        .checked_add(len)
        .and_then(|end| data.get(start..end))
        .ok_or_else(|| format!("{file}: the npy header is cut off"))?;
    if String::from_utf8_lossy(header).contains("'fortran_order': True") {
        return Err(format!("{file} is in Fortran order"));
    }
    Ok(data[start + len..].to_vec())
}
