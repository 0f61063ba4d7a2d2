//! Constant tensors: from any of the six ways in which ONNX stores them to packed bytes.
//!
//! The number of elements is the product of the dimensions, the number of bytes
//! `ceil(elements * bits / 8)`; both are computed with overflow checks and compared with what is
//! stored before anything is read or allocated. The result is little-endian and packed as in
//! `raw_data`: 4-bit elements low nibble first, 2-bit low bits first, 6-bit as a bit stream.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::graph::WeightBytes;

use super::dims::MAX_RANK;
use super::elem::{self, ElemType};
use super::error::{self, input, unsupported};
use super::external::{ExternalFiles, Range};
use super::map::{Mapped, Pages};
use super::proto::TensorProto;

/// A constant of the model.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    name: String,
    elem: ElemType,
    dims: Vec<u64>,
    data: Bytes,
    /// The file that the data lie in, if it is mapped.
    pages: Option<Pages>,
}

impl Tensor {
    /// The tensor's name; empty for most attribute values.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The element type.
    pub fn elem(&self) -> ElemType {
        self.elem
    }

    /// The dimensions, outermost first; none for a scalar.
    pub fn dims(&self) -> &[u64] {
        &self.dims
    }

    /// A FLOAT tensor without a name; `values` are as many as `dims` say.
    pub(super) fn floats(dims: &[u64], values: &[f32]) -> Result<Tensor> {
        Ok(Tensor {
            name: String::new(),
            elem: elem_type(1)?,
            dims: dims.to_vec(),
            data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            pages: None,
        })
    }

    /// The same tensor under another name.
    pub(super) fn renamed(mut self, name: &str) -> Tensor {
        self.name = name.to_string();
        self
    }

    /// The elements, row-major, little-endian and packed.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{:?}", self.name, self.elem.name(), self.dims)
    }
}

impl WeightBytes for Tensor {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.data))
    }

    fn release(&self) {
        if let Some(pages) = &self.pages {
            pages.release(&self.data);
        }
    }
}

/// What a tensor says about itself, checked against what it stores.
pub(super) struct Layout {
    elem: ElemType,
    dims: Vec<u64>,
    elems: u64,
    bytes: u64,
    external: Option<Range>,
}

/// Checks everything about a tensor but its values: type, dimensions, storage, external range.
///
/// # Errors
/// Q0106 to Q0113; see [`super::error`].
pub(super) fn check(tensor: &TensorProto, files: &ExternalFiles) -> Result<()> {
    let layout = layout(tensor)?;
    match &layout.external {
        Some(range) => files.bytes(range, layout.bytes).map(|_| ()),
        None => Ok(()),
    }
}

/// Reads a tensor; `raw_data` and external data are shared with the file, not copied.
///
/// # Errors
/// As [`check`], and Q0109 (checksum), Q0110 (a value that its type cannot hold).
pub(super) fn read(tensor: &TensorProto, files: &ExternalFiles) -> Result<Tensor> {
    let layout = layout(tensor)?;
    let Mapped { bytes: data, pages } = match (&layout.external, &tensor.raw_data) {
        (Some(range), _) => {
            files.verify(range)?;
            files.bytes(range, layout.bytes)?
        }
        (None, Some(raw)) => Mapped {
            bytes: raw.clone(),
            pages: files.model.clone(),
        },
        (None, None) => typed(tensor, &layout)?.into(),
    };
    if layout.elem.name() == "BOOL" && data.iter().any(|&byte| byte > 1) {
        return Err(input(
            error::TENSOR_DATA,
            "a BOOL tensor holds a byte that is neither 0 nor 1",
        ));
    }
    Ok(Tensor {
        name: tensor.name.clone().unwrap_or_default(),
        elem: layout.elem,
        dims: layout.dims,
        data,
        pages,
    })
}

fn layout(tensor: &TensorProto) -> Result<Layout> {
    if tensor.segment.is_some() {
        return Err(unsupported(
            error::TENSOR_STORAGE,
            "the tensor is a segment of a larger one",
        )
        .hint("save the model with whole tensors"));
    }
    let elem = elem_type(tensor.data_type.unwrap_or(0))?;
    let (dims, elems) = dims(&tensor.dims)?;
    let bytes = elem
        .byte_len(elems)
        .ok_or_else(|| dims_overflow(&tensor.dims))?;
    let external = match tensor.data_location {
        Some(TensorProto::EXTERNAL) => Some(Range::parse(&tensor.external_data)?),
        None | Some(0) => None,
        Some(other) => {
            return Err(input(
                error::TENSOR_STORAGE,
                format!("data location {other} is not defined"),
            ));
        }
    };
    let layout = Layout {
        elem,
        dims,
        elems,
        bytes,
        external,
    };
    stored(tensor, &layout)?;
    Ok(layout)
}

/// The element type with a number, or why there is none.
pub(super) fn elem_type(number: i32) -> Result<ElemType> {
    match ElemType::from_number(number) {
        Some(elem) => Ok(elem),
        None if number == elem::STRING => Err(unsupported(
            error::TENSOR_STORAGE,
            "tensors of strings are not supported",
        )
        .hint("keep text processing outside of the model")),
        None => Err(input(
            error::ELEM_TYPE,
            format!("element type {number} is not defined; ONNX defines 1 to 28"),
        )),
    }
}

/// The dimensions and their product.
fn dims(dims: &[i64]) -> Result<(Vec<u64>, u64)> {
    if dims.len() > MAX_RANK {
        return Err(input(
            error::TENSOR_DIMS,
            format!(
                "the tensor has {} dimensions; {MAX_RANK} are supported",
                dims.len()
            ),
        ));
    }
    let mut out = Vec::with_capacity(dims.len());
    for &dim in dims {
        out.push(u64::try_from(dim).map_err(|_| {
            input(
                error::TENSOR_DIMS,
                format!("the dimensions {dims:?} have a negative number"),
            )
        })?);
    }
    // A zero makes the product zero, but the others must be sane all the same.
    let nonzero = out
        .iter()
        .filter(|&&d| d != 0)
        .try_fold(1u64, |product, &d| product.checked_mul(d))
        .filter(|&product| i64::try_from(product).is_ok())
        .ok_or_else(|| dims_overflow(dims))?;
    let elems = if out.contains(&0) { 0 } else { nonzero };
    Ok((out, elems))
}

fn dims_overflow(dims: &[i64]) -> Diagnostic {
    input(
        error::TENSOR_DIMS,
        format!("the dimensions {dims:?} have a product beyond 2^63"),
    )
}

/// Exactly one field holds the data, it is the right one, and it has the right length.
fn stored(tensor: &TensorProto, layout: &Layout) -> Result<()> {
    let elem = layout.elem;
    let typed_fields = [
        ("float_data", tensor.float_data.len()),
        ("int32_data", tensor.int32_data.len()),
        ("int64_data", tensor.int64_data.len()),
        ("double_data", tensor.double_data.len()),
        ("uint64_data", tensor.uint64_data.len()),
        ("string_data", tensor.string_data.len()),
    ];
    let (field, wanted) = typed_field(elem, layout.elems);
    let bulk = if layout.external.is_some() {
        Some("external data")
    } else if tensor.raw_data.is_some() {
        Some("raw_data")
    } else {
        None
    };
    for (name, len) in typed_fields {
        if len != 0 && bulk.is_some() {
            return Err(input(
                error::TENSOR_DATA,
                format!("both {name} and {} are set", bulk.unwrap_or_default()),
            ));
        }
        if len != 0 && name != field {
            return Err(input(
                error::TENSOR_DATA,
                format!("{} data belong in {field}, but {name} is set", elem.name()),
            ));
        }
        if bulk.is_none() && name == field && len as u64 != wanted {
            return Err(input(
                error::TENSOR_DATA,
                format!(
                    "the dimensions {:?} of {} need {wanted} entries in {field}, there are {len}",
                    layout.dims,
                    elem.name()
                ),
            ));
        }
    }
    match &tensor.raw_data {
        Some(_) if layout.external.is_some() => Err(input(
            error::TENSOR_DATA,
            "both raw_data and external data are set",
        )),
        Some(raw) if raw.len() as u64 != layout.bytes => Err(input(
            error::TENSOR_DATA,
            format!(
                "the dimensions {:?} of {} need {} bytes, raw_data has {}",
                layout.dims,
                elem.name(),
                layout.bytes,
                raw.len()
            ),
        )),
        _ => Ok(()),
    }
}

/// The typed field that holds a type, and how many entries `elems` elements take in it.
///
/// `elems` was checked against the byte length, so doubling it does not overflow.
fn typed_field(elem: ElemType, elems: u64) -> (&'static str, u64) {
    match elem.name() {
        "FLOAT" => ("float_data", elems),
        "COMPLEX64" => ("float_data", elems.saturating_mul(2)),
        "DOUBLE" => ("double_data", elems),
        "COMPLEX128" => ("double_data", elems.saturating_mul(2)),
        "INT64" => ("int64_data", elems),
        "UINT32" | "UINT64" => ("uint64_data", elems),
        "UINT4" | "INT4" | "FLOAT4E2M1" => ("int32_data", elems.div_ceil(2)),
        "UINT2" | "INT2" => ("int32_data", elems.div_ceil(4)),
        _ => ("int32_data", elems),
    }
}

/// Packs the typed field; [`stored`] has checked its length.
fn typed(tensor: &TensorProto, layout: &Layout) -> Result<Bytes> {
    fn pack<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Bytes {
        values.iter().flat_map(|&v| bytes(v)).collect()
    }
    Ok(match layout.elem.name() {
        "FLOAT" | "COMPLEX64" => pack(&tensor.float_data, f32::to_le_bytes),
        "DOUBLE" | "COMPLEX128" => pack(&tensor.double_data, f64::to_le_bytes),
        "INT64" => pack(&tensor.int64_data, i64::to_le_bytes),
        "UINT64" => pack(&tensor.uint64_data, u64::to_le_bytes),
        "UINT32" => {
            let narrow: Option<Vec<u32>> = tensor
                .uint64_data
                .iter()
                .map(|&v| u32::try_from(v).ok())
                .collect();
            let narrow = narrow.ok_or_else(|| too_large("uint64_data", layout.elem))?;
            pack(&narrow, u32::to_le_bytes)
        }
        "INT32" => pack(&tensor.int32_data, i32::to_le_bytes),
        "INT16" | "UINT16" | "FLOAT16" | "BFLOAT16" => {
            pack(&codes(tensor, layout.elem, 16)?, u16::to_le_bytes)
        }
        "FLOAT6E2M3" | "FLOAT6E3M2" => pack_six(&codes(tensor, layout.elem, 6)?),
        _ => pack(&codes(tensor, layout.elem, 8)?, |code| [code as u8]),
    })
}

/// The entries of `int32_data` as codes of `bits` bits, sign-extended or not.
fn codes(tensor: &TensorProto, elem: ElemType, bits: u32) -> Result<Vec<u16>> {
    let range = -(1 << (bits - 1))..1 << bits;
    let codes = tensor.int32_data.iter().map(|&value| {
        let code = (value & ((1 << bits) - 1)) as u16;
        range.contains(&value).then_some(code)
    });
    codes
        .collect::<Option<Vec<u16>>>()
        .ok_or_else(|| too_large("int32_data", elem))
}

fn too_large(field: &str, elem: ElemType) -> Diagnostic {
    input(
        error::TENSOR_DATA,
        format!("{field} holds a value that {} cannot hold", elem.name()),
    )
}

/// Four 6-bit codes in three bytes, low bits first.
fn pack_six(codes: &[u16]) -> Bytes {
    codes
        .chunks(4)
        .flat_map(|four| {
            let word = four
                .iter()
                .enumerate()
                .fold(0u32, |word, (i, &code)| word | u32::from(code) << (6 * i));
            let used = (6 * four.len()).div_ceil(8);
            word.to_le_bytes().into_iter().take(used)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: i32, dims: &[i64]) -> TensorProto {
        TensorProto {
            data_type: Some(number),
            dims: dims.to_vec(),
            ..TensorProto::default()
        }
    }

    fn read_here(tensor: &TensorProto) -> Result<Tensor> {
        read(tensor, &ExternalFiles::none())
    }

    fn code(tensor: &TensorProto) -> u16 {
        read_here(tensor).expect_err("refused").number()
    }

    #[test]
    fn typed_fields_are_packed_like_raw_data() {
        let data = |tensor: TensorProto| read_here(&tensor).expect("read").data().to_vec();
        let int32 = |number, dims: &[i64], values: &[i32]| {
            data(TensorProto {
                int32_data: values.to_vec(),
                ..of(number, dims)
            })
        };
        assert_eq!(int32(3, &[2], &[-1, 127]), [0xff, 0x7f]);
        assert_eq!(int32(10, &[1], &[0x3c00]), [0x00, 0x3c]);
        assert_eq!(int32(22, &[3], &[0xf1, 0x02]), [0xf1, 0x02]);
        assert_eq!(int32(25, &[5], &[0xe4, 0x01]), [0xe4, 0x01]);
        assert_eq!(
            int32(27, &[5], &[0x3f, 0, 0x3f, 0, 0x21]),
            [0x3f, 0xf0, 0x03, 0x21]
        );
        let wide = TensorProto {
            uint64_data: vec![u64::from(u32::MAX)],
            ..of(12, &[1])
        };
        assert_eq!(data(wide), [0xff; 4]);
        let double = TensorProto {
            double_data: vec![1.0],
            ..of(11, &[])
        };
        assert_eq!(data(double), 1f64.to_le_bytes());
        let pair = TensorProto {
            float_data: vec![1.0, 2.0],
            ..of(14, &[1])
        };
        assert_eq!(data(pair).len(), 8);
    }

    #[test]
    fn raw_data_are_shared() {
        let raw = Bytes::from(vec![0u8; 8]);
        let tensor = TensorProto {
            raw_data: Some(raw.clone()),
            ..of(1, &[2])
        };
        let read = read_here(&tensor).expect("read");
        assert_eq!(read.data().as_ptr(), raw.as_ptr());
        assert_eq!(read.dims(), [2]);
    }

    #[test]
    fn wrong_tensors_are_refused() {
        let raw = |number, dims: &[i64], bytes: usize| TensorProto {
            raw_data: Some(Bytes::from(vec![2u8; bytes])),
            ..of(number, dims)
        };
        assert_eq!(code(&raw(1, &[3], 8)), error::TENSOR_DATA);
        assert_eq!(code(&raw(9, &[2], 2)), error::TENSOR_DATA, "bool of 2");
        assert_eq!(code(&raw(22, &[3], 3)), error::TENSOR_DATA);
        assert_eq!(code(&raw(1, &[-1], 4)), error::TENSOR_DIMS);
        assert_eq!(code(&raw(1, &[1 << 32, 1 << 32], 4)), error::TENSOR_DIMS);
        assert_eq!(code(&raw(1, &[0, i64::MAX, 2], 0)), error::TENSOR_DIMS);
        assert_eq!(code(&raw(15, &[1 << 60], 0)), error::TENSOR_DIMS);
        assert_eq!(code(&raw(0, &[1], 1)), error::ELEM_TYPE);
        assert_eq!(code(&raw(29, &[1], 1)), error::ELEM_TYPE);
        assert_eq!(code(&raw(8, &[1], 1)), error::TENSOR_STORAGE);
        assert_eq!(code(&of(1, &[2])), error::TENSOR_DATA, "no data at all");
        let mut both = raw(1, &[1], 4);
        both.float_data = vec![1.0];
        assert_eq!(code(&both), error::TENSOR_DATA);
        let mut wrong_field = of(1, &[1]);
        wrong_field.int32_data = vec![1];
        assert_eq!(code(&wrong_field), error::TENSOR_DATA);
        let mut large = of(2, &[1]);
        large.int32_data = vec![256];
        assert_eq!(code(&large), error::TENSOR_DATA);
        let mut location = raw(1, &[1], 4);
        location.data_location = Some(7);
        assert_eq!(code(&location), error::TENSOR_STORAGE);
        let mut segment = raw(1, &[1], 4);
        segment.segment = Some(Box::default());
        assert_eq!(code(&segment), error::TENSOR_STORAGE);
    }

    #[test]
    fn empty_tensors_are_fine() {
        let read = read_here(&of(1, &[0, 3])).expect("read");
        assert!(read.data().is_empty());
    }
}
