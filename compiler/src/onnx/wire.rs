//! The scan in front of the decoder: is it safe to decode these bytes?
//!
//! A protobuf message is a sequence of fields, each a varint key `number << 3 | wire type` and
//! a value. The scan walks every field that [`super::proto`] decodes, once, without allocating,
//! and adds up what decoding would cost. It refuses malformed keys, varints and lengths,
//! groups, wire types that the schema does not have, nesting deeper than [`Limits::depth`], and
//! files whose decoded form would exceed the limits: a two-byte empty node costs the decoder
//! some hundred bytes, so a small file can otherwise fill the memory.

use std::fmt;
use std::mem::size_of;

use super::proto;

/// What decoding one file may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Nesting of messages; the model itself is level 1.
    pub(super) depth: u32,
    /// Messages in all.
    pub(super) messages: u64,
    /// Fields in all, elements of packed fields not counted.
    pub(super) fields: u64,
    /// Estimated heap bytes of the decoded messages.
    pub(super) heap: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            depth: 32,
            messages: 4_000_000,
            fields: 64_000_000,
            heap: 384 << 20,
        }
    }
}

/// What a scanned file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) depth: u32,
    pub(super) messages: u64,
    pub(super) fields: u64,
    pub(super) heap: u64,
}

/// Why the bytes may not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A varint that does not end, or is longer than 64 bits.
    Varint,
    /// Field number 0 or above 2^29 - 1.
    FieldNumber,
    /// A wire type that protobuf does not have, or a group.
    WireType(u8),
    /// A known field with the wire type of another kind of value.
    Mismatch { field: u32, wire: u8 },
    /// A length or fixed-size value that ends beyond its message.
    Overrun { wanted: u64, left: u64 },
    /// A packed field whose length is no multiple of the element size.
    Packed { field: u32 },
    /// Messages nested deeper than the limit.
    Depth(u32),
    /// More messages than the limit.
    Messages(u64),
    /// More fields than the limit.
    Fields(u64),
    /// A decoded form larger than the limit.
    Heap(u64),
}

impl Fault {
    /// Whether a limit was exceeded, as opposed to bytes that are no protobuf.
    pub(super) fn is_limit(self) -> bool {
        matches!(
            self,
            Fault::Depth(_) | Fault::Messages(_) | Fault::Fields(_) | Fault::Heap(_)
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Varint => write!(f, "a variable-length integer does not end"),
            Fault::FieldNumber => write!(f, "a field number is out of range"),
            Fault::WireType(w) => write!(f, "wire type {w} does not occur in ONNX"),
            Fault::Mismatch { field, wire } => {
                write!(f, "field {field} cannot have wire type {wire}")
            }
            Fault::Overrun { wanted, left } => {
                write!(
                    f,
                    "a value of {wanted} bytes begins where only {left} are left"
                )
            }
            Fault::Packed { field } => write!(f, "packed field {field} ends within an element"),
            Fault::Depth(max) => write!(f, "messages are nested deeper than {max}"),
            Fault::Messages(max) => write!(f, "there are more than {max} messages"),
            Fault::Fields(max) => write!(f, "there are more than {max} fields"),
            Fault::Heap(max) => write!(f, "decoding would take more than {max} bytes of memory"),
        }
    }
}

/// The byte offset of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WireError {
    pub(super) offset: usize,
    pub(super) fault: Fault,
}

/// The messages of [`super::proto`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Msg {
    Model,
    Opset,
    Function,
    Graph,
    Node,
    Attribute,
    Tensor,
    Segment,
    Entry,
    Sparse,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
}

impl Msg {
    /// Size of the decoded struct itself.
    const fn size(self) -> u64 {
        (match self {
            Msg::Model => size_of::<proto::ModelProto>(),
            Msg::Opset => size_of::<proto::OperatorSetIdProto>(),
            Msg::Function => size_of::<proto::FunctionProto>(),
            Msg::Graph => size_of::<proto::GraphProto>(),
            Msg::Node => size_of::<proto::NodeProto>(),
            Msg::Attribute => size_of::<proto::AttributeProto>(),
            Msg::Tensor => size_of::<proto::TensorProto>(),
            Msg::Segment => size_of::<proto::SegmentProto>(),
            Msg::Entry => size_of::<proto::StringStringEntryProto>(),
            Msg::Sparse => size_of::<proto::SparseTensorProto>(),
            Msg::ValueInfo => size_of::<proto::ValueInfoProto>(),
            Msg::Type => size_of::<proto::TypeProto>(),
            Msg::TensorType => size_of::<proto::TensorTypeProto>(),
            Msg::Shape => size_of::<proto::TensorShapeProto>(),
            Msg::Dimension => size_of::<proto::DimensionProto>(),
        }) as u64
    }
}

/// How the decoder treats a field.
#[derive(Clone, Copy)]
enum Field {
    /// Not decoded.
    Skip,
    /// One varint.
    Int,
    /// One 32-bit float.
    Float,
    /// A copied string.
    Text,
    /// Bytes shared with the file.
    Bytes,
    /// Repeated varints, packed or not, each decoded into this many bytes.
    Ints(u64),
    /// Repeated fixed-size values of this many bytes, packed or not.
    Fixed(u64),
    /// A message.
    Message(Msg),
}

/// The schema: what field `number` of `msg` is.
fn field(msg: Msg, number: u32) -> Field {
    use Field::*;
    match (msg, number) {
        (Msg::Model, 1) => Int,
        (Msg::Model, 2 | 3) => Text,
        (Msg::Model, 7) => Message(Msg::Graph),
        (Msg::Model, 8) | (Msg::Function, 9) => Message(Msg::Opset),
        (Msg::Model, 25) => Message(Msg::Function),
        (Msg::Opset, 1) => Text,
        (Msg::Opset, 2) => Int,
        (Msg::Function, 1 | 4 | 5 | 6 | 10 | 13) => Text,
        (Msg::Function, 7) | (Msg::Graph, 1) => Message(Msg::Node),
        (Msg::Function, 11) | (Msg::Node, 5) => Message(Msg::Attribute),
        (Msg::Graph, 2) => Text,
        (Msg::Graph, 5) => Message(Msg::Tensor),
        (Msg::Graph, 11..=13) => Message(Msg::ValueInfo),
        (Msg::Graph, 15) => Message(Msg::Sparse),
        (Msg::Node, 1 | 2 | 3 | 4 | 7 | 8) => Text,
        (Msg::Attribute, 1 | 21) => Text,
        (Msg::Attribute, 2) => Float,
        (Msg::Attribute, 3 | 20) => Int,
        (Msg::Attribute, 4 | 9) => Bytes,
        (Msg::Attribute, 5 | 10) => Message(Msg::Tensor),
        (Msg::Attribute, 6 | 11) => Message(Msg::Graph),
        (Msg::Attribute, 7) => Fixed(4),
        (Msg::Attribute, 8) => Ints(8),
        (Msg::Attribute, 22 | 23) => Message(Msg::Sparse),
        (Msg::Tensor, 1 | 7 | 11) => Ints(8),
        (Msg::Tensor, 2 | 14) => Int,
        (Msg::Tensor, 3) => Message(Msg::Segment),
        (Msg::Tensor, 4) => Fixed(4),
        (Msg::Tensor, 5) => Ints(4),
        (Msg::Tensor, 6 | 9) => Bytes,
        (Msg::Tensor, 8) => Text,
        (Msg::Tensor, 10) => Fixed(8),
        (Msg::Tensor, 13) => Message(Msg::Entry),
        (Msg::Segment, 1 | 2) => Int,
        (Msg::Entry, 1 | 2) => Text,
        (Msg::Sparse, 1 | 2) => Message(Msg::Tensor),
        (Msg::Sparse, 3) => Ints(8),
        (Msg::ValueInfo, 1) => Text,
        (Msg::ValueInfo, 2) => Message(Msg::Type),
        (Msg::Type, 1) => Message(Msg::TensorType),
        (Msg::TensorType, 1) => Int,
        (Msg::TensorType, 2) => Message(Msg::Shape),
        (Msg::Shape, 1) => Message(Msg::Dimension),
        (Msg::Dimension, 1) => Int,
        (Msg::Dimension, 2) => Text,
        _ => Skip,
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LEN: u8 = 2;
const FIXED32: u8 = 5;

/// A growing vector holds twice its elements and, while it moves, the old half as well.
const GROWTH: u64 = 3;
/// What the allocator adds to a small block.
const BLOCK: u64 = 32;

/// Checks that `bytes` can be decoded as a `ModelProto` within `limits`.
///
/// Time O(`bytes`), no allocation; recursion is bounded by `limits.depth`.
pub(super) fn scan(bytes: &[u8], limits: &Limits) -> Result<Census, WireError> {
    let mut scan = Scan {
        bytes,
        pos: 0,
        limits,
        census: Census::default(),
    };
    scan.message(Msg::Model, bytes.len(), 1)?;
    Ok(scan.census)
}

struct Scan<'a> {
    bytes: &'a [u8],
    pos: usize,
    limits: &'a Limits,
    census: Census,
}

impl Scan<'_> {
    fn fault<T>(&self, fault: Fault) -> Result<T, WireError> {
        Err(WireError {
            offset: self.pos,
            fault,
        })
    }

    fn message(&mut self, msg: Msg, end: usize, depth: u32) -> Result<(), WireError> {
        if depth > self.limits.depth {
            return self.fault(Fault::Depth(self.limits.depth));
        }
        self.census.depth = self.census.depth.max(depth);
        self.census.messages += 1;
        if self.census.messages > self.limits.messages {
            return self.fault(Fault::Messages(self.limits.messages));
        }
        self.charge(msg.size().saturating_mul(GROWTH) + BLOCK)?;
        while self.pos < end {
            self.field(msg, end, depth)?;
        }
        Ok(())
    }

    fn field(&mut self, msg: Msg, end: usize, depth: u32) -> Result<(), WireError> {
        self.census.fields += 1;
        if self.census.fields > self.limits.fields {
            return self.fault(Fault::Fields(self.limits.fields));
        }
        let key = self.varint(end)?;
        let wire = (key & 7) as u8;
        let number = match u32::try_from(key >> 3) {
            Ok(n) if (1..1 << 29).contains(&n) => n,
            _ => return self.fault(Fault::FieldNumber),
        };
        match (field(msg, number), wire) {
            (Field::Int, VARINT) => self.varint(end).map(|_| ()),
            (Field::Float, FIXED32) => self.advance(4, end),
            (Field::Text, LEN) => {
                let len = self.length(end)?;
                self.charge(len as u64 + BLOCK + GROWTH * size_of::<String>() as u64)?;
                self.advance(len as u64, end)
            }
            (Field::Bytes, LEN) => {
                let len = self.length(end)?;
                self.charge(GROWTH * size_of::<bytes::Bytes>() as u64)?;
                self.advance(len as u64, end)
            }
            (Field::Ints(size), VARINT) => {
                self.charge(GROWTH * size)?;
                self.varint(end).map(|_| ())
            }
            (Field::Ints(size), LEN) => self.packed_ints(size, end),
            (Field::Fixed(size), FIXED32 | FIXED64) if (wire == FIXED32) == (size == 4) => {
                self.charge(GROWTH * size)?;
                self.advance(size, end)
            }
            (Field::Fixed(size), LEN) => {
                let len = self.length(end)? as u64;
                if !len.is_multiple_of(size) {
                    return self.fault(Fault::Packed { field: number });
                }
                self.charge(GROWTH.saturating_mul(len))?;
                self.advance(len, end)
            }
            (Field::Message(inner), LEN) => {
                let len = self.length(end)?;
                self.message(inner, self.pos + len, depth + 1)
            }
            (Field::Skip, _) => self.skip(wire, end),
            _ => self.fault(Fault::Mismatch {
                field: number,
                wire,
            }),
        }
    }

    /// Elements of a packed varint field: each ends with a byte below 0x80.
    fn packed_ints(&mut self, size: u64, end: usize) -> Result<(), WireError> {
        let len = self.length(end)?;
        let stop = self.pos + len;
        while self.pos < stop {
            self.charge(GROWTH * size)?;
            self.varint(stop)?;
        }
        Ok(())
    }

    fn skip(&mut self, wire: u8, end: usize) -> Result<(), WireError> {
        match wire {
            VARINT => self.varint(end).map(|_| ()),
            FIXED64 => self.advance(8, end),
            LEN => {
                let len = self.length(end)?;
                self.advance(len as u64, end)
            }
            FIXED32 => self.advance(4, end),
            other => self.fault(Fault::WireType(other)),
        }
    }

    fn charge(&mut self, bytes: u64) -> Result<(), WireError> {
        self.census.heap = self.census.heap.saturating_add(bytes);
        if self.census.heap > self.limits.heap {
            return self.fault(Fault::Heap(self.limits.heap));
        }
        Ok(())
    }

    fn varint(&mut self, end: usize) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes[self.pos..end].iter().take(10).enumerate() {
            // The tenth byte holds bit 63 alone.
            if i == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.pos += i + 1;
                return Ok(value);
            }
        }
        self.fault(Fault::Varint)
    }

    /// A length that fits in what is left of the message.
    fn length(&mut self, end: usize) -> Result<usize, WireError> {
        let wanted = self.varint(end)?;
        let left = end - self.pos;
        match usize::try_from(wanted) {
            Ok(len) if len <= left => Ok(len),
            _ => self.fault(Fault::Overrun {
                wanted,
                left: left as u64,
            }),
        }
    }

    fn advance(&mut self, len: u64, end: usize) -> Result<(), WireError> {
        let left = (end - self.pos) as u64;
        if len > left {
            return self.fault(Fault::Overrun { wanted: len, left });
        }
        // `len` is at most the length of a slice, so it fits in usize.
        self.pos += len as usize;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(bytes: &[u8]) -> Fault {
        scan(bytes, &Limits::default()).expect_err("refused").fault
    }

    fn nested(levels: usize) -> Vec<u8> {
        // graph { node { attribute { g { ... } } } }: fields 7, then 1, 5, 6 over and over.
        let mut bytes = Vec::new();
        for level in (0..levels).rev() {
            let number: u64 = if level == 0 { 7 } else { [6, 1, 5][level % 3] };
            let mut outer = vec![(number << 3 | 2) as u8];
            let mut len = bytes.len();
            while len >= 0x80 {
                outer.push(len as u8 | 0x80);
                len >>= 7;
            }
            outer.push(len as u8);
            outer.extend_from_slice(&bytes);
            bytes = outer;
        }
        bytes
    }

    #[test]
    fn counts_what_is_there() {
        // ir_version 8; graph { node {} node { op_type: "Add" } }
        let bytes = [
            0x08, 8, 0x3a, 9, 0x0a, 0, 0x0a, 5, 0x22, 3, b'A', b'd', b'd',
        ];
        let census = scan(&bytes, &Limits::default()).expect("well-formed");
        assert_eq!((census.depth, census.messages, census.fields), (3, 4, 5));
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(
            scan(&nested(31), &Limits::default()).map(|c| c.depth),
            Ok(32)
        );
        assert_eq!(fault(&nested(32)), Fault::Depth(32));
        assert_eq!(fault(&nested(10_000)), Fault::Depth(32));
    }

    #[test]
    fn many_small_messages_are_refused_by_their_memory() {
        let nodes: Vec<u8> = [0x0a, 0].repeat(2_000_000);
        let mut bytes = vec![0x3a];
        let mut len = nodes.len();
        while len >= 0x80 {
            bytes.push(len as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        bytes.extend_from_slice(&nodes);
        assert!(matches!(fault(&bytes), Fault::Heap(_)));
    }

    #[test]
    fn malformed_bytes_are_refused() {
        assert_eq!(fault(&[0x80; 11]), Fault::Varint);
        assert_eq!(fault(&[0x08]), Fault::Varint);
        assert_eq!(fault(&[0x00, 0]), Fault::FieldNumber);
        assert_eq!(fault(&[0x3b]), Fault::Mismatch { field: 7, wire: 3 });
        assert_eq!(fault(&[0x33]), Fault::WireType(3));
        assert_eq!(
            fault(&[0x38, 0]),
            Fault::Mismatch { field: 7, wire: 0 },
            "a graph is no varint"
        );
        assert_eq!(fault(&[0x3a, 5]), Fault::Overrun { wanted: 5, left: 0 });
        let huge = [
            0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ];
        assert_eq!(
            fault(&huge),
            Fault::Overrun {
                wanted: u64::MAX,
                left: 0
            }
        );
        // graph { initializer { float_data: 3 bytes } }
        assert_eq!(
            fault(&[0x3a, 7, 0x2a, 5, 0x22, 3, 0, 0, 0]),
            Fault::Packed { field: 4 }
        );
    }

    #[test]
    fn an_inner_length_may_not_leave_its_message() {
        // graph of 3 bytes whose node claims 4.
        let bytes = [0x3a, 3, 0x0a, 4, 0, 0, 0, 0];
        assert_eq!(fault(&bytes), Fault::Overrun { wanted: 4, left: 1 });
    }
}
