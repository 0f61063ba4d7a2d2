//! Element types of ONNX tensors: the 28 numbers of `TensorProto.DataType`.

use qcc_ir::DType;

/// An element type whose values have a fixed number of bits, so every type but `STRING`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElemType {
    number: i32,
    name: &'static str,
    bits: u32,
    dtype: Option<DType>,
}

/// Number, ONNX name, bits, and the format of qcc that stores the same codes.
#[rustfmt::skip]
const TABLE: [(i32, &str, u32, Option<DType>); 27] = [
    (1,  "FLOAT",          32,  Some(DType::F32)),
    (2,  "UINT8",          8,   Some(DType::U8)),
    (3,  "INT8",           8,   Some(DType::I8)),
    (4,  "UINT16",         16,  Some(DType::U16)),
    (5,  "INT16",          16,  Some(DType::I16)),
    (6,  "INT32",          32,  Some(DType::I32)),
    (7,  "INT64",          64,  Some(DType::I64)),
    (9,  "BOOL",           8,   Some(DType::Bool)),
    (10, "FLOAT16",        16,  Some(DType::F16)),
    (11, "DOUBLE",         64,  Some(DType::F64)),
    (12, "UINT32",         32,  Some(DType::U32)),
    (13, "UINT64",         64,  Some(DType::U64)),
    (14, "COMPLEX64",      64,  None),
    (15, "COMPLEX128",     128, None),
    (16, "BFLOAT16",       16,  Some(DType::BF16)),
    (17, "FLOAT8E4M3FN",   8,   Some(DType::E4M3)),
    (18, "FLOAT8E4M3FNUZ", 8,   None),
    (19, "FLOAT8E5M2",     8,   Some(DType::E5M2)),
    (20, "FLOAT8E5M2FNUZ", 8,   None),
    (21, "UINT4",          4,   Some(DType::U4)),
    (22, "INT4",           4,   Some(DType::I4)),
    (23, "FLOAT4E2M1",     4,   None),
    (24, "FLOAT8E8M0",     8,   None),
    (25, "UINT2",          2,   None),
    (26, "INT2",           2,   None),
    (27, "FLOAT6E2M3",     6,   None),
    (28, "FLOAT6E3M2",     6,   None),
];

/// `TensorProto.STRING`, which has no fixed size.
pub(super) const STRING: i32 = 8;

impl ElemType {
    /// The type with this number in `TensorProto.DataType`; `None` for 0, strings and unknown
    /// numbers.
    pub fn from_number(number: i32) -> Option<ElemType> {
        let &(number, name, bits, dtype) = TABLE.iter().find(|row| row.0 == number)?;
        Some(ElemType {
            number,
            name,
            bits,
            dtype,
        })
    }

    /// The number in `TensorProto.DataType`.
    pub fn number(self) -> i32 {
        self.number
    }

    /// The name in `TensorProto.DataType`, such as `FLOAT8E4M3FN`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The format of qcc that stores the same codes, if there is one.
    pub fn dtype(self) -> Option<DType> {
        self.dtype
    }

    /// Bytes of `elems` packed elements: `ceil(elems * bits / 8)`; `None` on overflow.
    pub fn byte_len(self, elems: u64) -> Option<u64> {
        Some(elems.checked_mul(u64::from(self.bits))?.div_ceil(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_agree_with_the_formats_of_qcc() {
        for (number, name, bits, dtype) in TABLE {
            let elem = ElemType::from_number(number).expect("in the table");
            assert_eq!(elem.name(), name);
            if let Some(dtype) = dtype {
                assert_eq!(dtype.bits(), bits, "{name}");
                assert_eq!(dtype.byte_len(7), elem.byte_len(7), "{name}");
            }
        }
        assert!(ElemType::from_number(STRING).is_none());
        assert!(ElemType::from_number(29).is_none());
    }

    #[test]
    fn packed_sizes_round_up() {
        let bytes = |n, elems| ElemType::from_number(n).and_then(|t| t.byte_len(elems));
        assert_eq!(bytes(22, 5), Some(3));
        assert_eq!(bytes(25, 5), Some(2));
        assert_eq!(bytes(27, 5), Some(4));
        assert_eq!(bytes(1, u64::MAX), None);
    }
}
