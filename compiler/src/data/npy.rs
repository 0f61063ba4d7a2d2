//! NumPy files as tensors.
//!
//! Only plain little-endian C-order arrays of numbers are read; lengths are checked against the
//! file before anything is allocated.

use super::data_error;
use npyz::{NpyHeader, Order};
use qcc_ir::diag::Result;
use qcc_ir::{DType, Tensor};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

/// NumPy's spelling of the formats that it has.
const DESCRIPTIONS: [(&str, DType); 12] = [
    ("'<f8'", DType::F64),
    ("'<f4'", DType::F32),
    ("'<f2'", DType::F16),
    ("'<i8'", DType::I64),
    ("'<i4'", DType::I32),
    ("'<i2'", DType::I16),
    ("'|i1'", DType::I8),
    ("'<u8'", DType::U64),
    ("'<u4'", DType::U32),
    ("'<u2'", DType::U16),
    ("'|u1'", DType::U8),
    ("'|b1'", DType::Bool),
];

/// Largest array that is read from an archive, whose members may expand without bound.
const MAX_MEMBER: u64 = 8 << 30;

/// Reads an `.npy` file.
///
/// # Errors
/// `Q0520` when the file is missing, cut, in Fortran order or not an array of numbers.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let file = File::open(path).map_err(|e| data_error(path, e))?;
    let len = file.metadata().map_err(|e| data_error(path, e))?.len();
    read_array(path, BufReader::new(file), len)
}

/// Reads every array of an `.npz` archive, by name in the order of the archive's names.
///
/// # Errors
/// `Q0520` as [`read_npy`].
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let mut zip = npyz::npz::NpzArchive::open(path).map_err(|e| data_error(path, e))?;
    let mut names: Vec<String> = zip.array_names().map(str::to_string).collect();
    names.sort();
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        let array = zip.by_name(&name).map_err(|e| data_error(path, e))?;
        let Some(array) = array else { continue };
        let header = array.header().clone();
        let tensor = read_body(path, &header, array.into_inner(), MAX_MEMBER)?;
        out.push((name, tensor));
    }
    Ok(out)
}

fn read_array(path: &Path, mut r: impl Read, len: u64) -> Result<Tensor> {
    let header = NpyHeader::from_reader(&mut r).map_err(|e| data_error(path, e))?;
    read_body(path, &header, r, len)
}

fn read_body(path: &Path, header: &NpyHeader, mut r: impl Read, limit: u64) -> Result<Tensor> {
    let descr = header.dtype().descr();
    let known = DESCRIPTIONS.iter().find(|(d, _)| *d == descr);
    let Some((_, dtype)) = known else {
        return Err(data_error(
            path,
            format!("arrays of {descr} are not read; convert to a little-endian number type"),
        ));
    };
    if header.order() == Order::Fortran && header.shape().len() > 1 {
        return Err(data_error(path, "the array is in Fortran order")
            .hint("save numpy.ascontiguousarray(x)"));
    }
    let n = header
        .shape()
        .iter()
        .try_fold(1u64, |p, d| p.checked_mul(*d));
    let bytes = n.and_then(|n| dtype.byte_len(n)).filter(|b| *b <= limit);
    if bytes.is_none() {
        return Err(data_error(
            path,
            format!("{dtype}{:?} is larger than the file", header.shape()),
        ));
    }
    let mut t = Tensor::zeros(*dtype, header.shape())?;
    r.read_exact(t.bytes_mut()).map_err(|_| {
        data_error(
            path,
            format!(
                "the file ends before the {dtype}{:?} that its header promises",
                header.shape()
            ),
        )
    })?;
    Ok(t)
}

/// Writes an `.npy` file. Formats that NumPy lacks are widened: small floats to f32, 4-bit
/// integers to 8 bits.
///
/// # Errors
/// `Q0520` when the file cannot be written.
pub fn write_npy(path: &Path, t: &Tensor) -> Result<()> {
    let wide = widen(t)?;
    let known = DESCRIPTIONS.iter().find(|(_, d)| *d == wide.dtype());
    // INVARIANT: `widen` gives one of the formats in the table.
    let descr = known.map_or("'<f4'", |(d, _)| d).trim_matches('\'');
    let io = |e: std::io::Error| data_error(path, e);
    let file = File::create(path).map_err(io)?;
    let mut out = BufWriter::new(file);
    write_header(&mut out, descr, wide.dims()).map_err(io)?;
    out.write_all(wide.bytes()).map_err(io)?;
    out.flush().map_err(io)
}

/// NPY format 1.0: magic, version, header length, header padded to 64 bytes.
fn write_header(out: &mut impl Write, descr: &str, dims: &[u64]) -> std::io::Result<()> {
    let shape: String = dims.iter().map(|d| format!("{d},")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(text.len() as u16).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

fn widen(t: &Tensor) -> Result<Tensor> {
    let to = match t.dtype() {
        DType::BF16 | DType::E4M3 | DType::E5M2 => DType::F32,
        DType::E2M1 | DType::E8M0 | DType::NF4 => DType::F32,
        DType::I4 | DType::I2 => DType::I8,
        DType::U4 | DType::U2 => DType::U8,
        _ => return Ok(t.clone()),
    };
    let mut v = vec![0f32; t.numel()];
    let misfit = |e: qcc_ir::format::FormatError| data_error(Path::new(""), e);
    qcc_ir::format::decode_slice(t.dtype(), t.bytes(), &mut v).map_err(misfit)?;
    let mut out = Tensor::zeros(to, t.dims())?;
    qcc_ir::format::encode_slice(to, &v, out.bytes_mut()).map_err(misfit)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        for t in [
            Tensor::f32(&[2, 3], &[1.0, -2.5, 3.0, f32::MAX, 0.0, -0.0]).unwrap(),
            Tensor::i64(&[], &[7]).unwrap(),
            Tensor::zeros(DType::Bool, &[5]).unwrap(),
            Tensor::zeros(DType::F16, &[0, 4]).unwrap(),
        ] {
            write_npy(&path, &t).unwrap();
            assert_eq!(read_npy(&path).unwrap(), t);
            // The data begins on a multiple of 64 bytes, as the format asks.
            assert_eq!(
                (std::fs::metadata(&path).unwrap().len() - t.bytes().len() as u64) % 64,
                0
            );
        }
    }

    #[test]
    fn small_floats_widen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let t = Tensor::from_bytes(DType::E4M3, &[2], &[0x38, 0xb8]).unwrap();
        write_npy(&path, &t).unwrap();
        assert_eq!(
            read_npy(&path).unwrap(),
            Tensor::f32(&[2], &[1.0, -1.0]).unwrap()
        );
    }

    #[test]
    fn cut_files_and_foreign_types_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        write_npy(&path, &Tensor::i64(&[4], &[1, 2, 3, 4]).unwrap()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 5, 20, 64, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(read_npy(&path).unwrap_err().code(), "Q0520");
        }
        let complex = String::from_utf8_lossy(&bytes).into_owned();
        assert!(complex.contains("<i8"));
        let at = bytes.windows(3).position(|w| w == b"<i8").unwrap();
        let mut big = bytes.clone();
        big[at] = b'>';
        std::fs::write(&path, &big).unwrap();
        assert!(read_npy(&path).unwrap_err().message().contains("not read"));
        assert_eq!(
            read_npy(&dir.path().join("none.npy")).unwrap_err().code(),
            "Q0520"
        );
    }
}
