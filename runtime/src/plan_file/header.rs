//! The safetensors header: entries, alignment, and its JSON.
//!
//! Layout rules of safetensors that a reader checks: entries lie one after another from offset 0
//! without holes or overlap up to the end of the file, and an entry's length is its shape times
//! its element size. The source is the format description in the safetensors README.

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use qcc_ir::DType;
use qcc_ir::diag::Result;

use super::error::{malformed, misfit};
use super::{MAX_HEADER, PAD, bytes};

/// Multiple at which the data begins and large entries are placed.
const PAGE: u64 = 4096;
/// Entries of at least this length are placed at multiples of [`PAGE`].
const LARGE: u64 = 64 << 10;
/// Length of the length that stands before the header.
pub(super) const PREFIX: u64 = 8;

/// One tensor of the file. Offsets count from the start of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) info: EntryJson,
}

/// An entry as the header spells it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryJson {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) data_offsets: (u64, u64),
}

impl Entry {
    pub(super) fn begin(&self) -> u64 {
        self.info.data_offsets.0
    }

    pub(super) fn end(&self) -> u64 {
        self.info.data_offsets.1
    }

    pub(super) fn len(&self) -> u64 {
        self.end() - self.begin()
    }
}

/// The whole header; entries in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) entries: Vec<Entry>,
}

impl Header {
    /// End of the data, counted from its start.
    pub(super) fn data_len(&self) -> u64 {
        self.entries.last().map_or(0, Entry::end)
    }

    /// Appends an entry, after a filler that aligns it.
    pub(super) fn push(
        &mut self,
        name: &str,
        dtype: &str,
        shape: Vec<u64>,
        len: u64,
    ) -> Result<()> {
        let align = if len >= LARGE {
            PAGE
        } else {
            bytes::ALIGN as u64
        };
        let at = self.data_len();
        // The data itself begins at a multiple of PAGE.
        let aligned = at.checked_next_multiple_of(align);
        let end = aligned.and_then(|begin| begin.checked_add(len));
        let (Some(begin), Some(end)) = (aligned, end) else {
            return Err(misfit(format!("`{name}` ends beyond 2^64 bytes")));
        };
        if begin > at {
            let filler = format!("{PAD}{}", self.entries.len());
            self.put(filler, "U8", vec![begin - at], at, begin);
        }
        self.put(name.to_string(), dtype, shape, begin, end);
        Ok(())
    }

    fn put(&mut self, name: String, dtype: &str, shape: Vec<u64>, begin: u64, end: u64) {
        self.entries.push(Entry {
            name,
            info: EntryJson {
                dtype: dtype.to_string(),
                shape,
                data_offsets: (begin, end),
            },
        });
    }

    /// The first bytes of the file: length, JSON, spaces up to a multiple of [`PAGE`].
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut text = vec![0u8; PREFIX as usize];
        serde_json::to_writer(&mut text, self).map_err(misfit)?;
        text.resize(text.len().next_multiple_of(PAGE as usize), b' ');
        let len = text.len() as u64 - PREFIX;
        if len > MAX_HEADER {
            return Err(misfit(format!(
                "the header needs {len} bytes, the limit is {MAX_HEADER}"
            )));
        }
        text[..PREFIX as usize].copy_from_slice(&len.to_le_bytes());
        Ok(text)
    }

    /// Parses the JSON of a header and puts the entries into file order.
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let mut header: Header =
            serde_json::from_slice(json).map_err(|e| malformed(format!("header: {e}")))?;
        header.entries.sort_by_key(|e| e.info.data_offsets);
        Ok(header)
    }

    /// Checks the layout rules; lengths against shapes, no holes, no overlap, no double name.
    pub(super) fn check_layout(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut at = 0;
        for e in &self.entries {
            if !names.insert(&e.name) {
                return Err(malformed(format!("entry `{}` appears twice", e.name)));
            }
            if e.begin() != at || e.end() < at {
                return Err(malformed(format!(
                    "entry `{}` lies at {}..{}, expected at {at}",
                    e.name,
                    e.begin(),
                    e.end()
                )));
            }
            let needed = byte_len(&e.info.dtype, &e.info.shape);
            if needed != Some(e.len()) {
                return Err(malformed(format!(
                    "entry `{}` has {} bytes, which is not the size of {}{:?}",
                    e.name,
                    e.len(),
                    e.info.dtype,
                    e.info.shape
                )));
            }
            at = e.end();
        }
        Ok(())
    }
}

/// The element type by which safetensors calls a format; none for formats it does not know.
pub(super) fn safetensors_name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::E4M3 => "F8_E4M3",
        DType::E5M2 => "F8_E5M2",
        DType::E8M0 => "F8_E8M0",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I16 => "I16",
        DType::I8 => "I8",
        DType::U64 => "U64",
        DType::U32 => "U32",
        DType::U16 => "U16",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
        _ => return None,
    })
}

/// Bits of one element of a safetensors type.
fn element_bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" => 8,
        "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

fn byte_len(dtype: &str, shape: &[u64]) -> Option<u64> {
    let elems = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
    let bits = elems.checked_mul(element_bits(dtype)?)?;
    (bits % 8 == 0).then_some(bits / 8)
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.entries.len() + 1))?;
        map.serialize_entry("__metadata__", &self.metadata)?;
        for e in &self.entries {
            map.serialize_entry(&e.name, &e.info)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a safetensors header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        let info = map.next_value()?;
                        header.entries.push(Entry { name, info });
                    } else if metadata.replace(map.next_value()?).is_some() {
                        return Err(de::Error::duplicate_field("__metadata__"));
                    }
                }
                header.metadata = metadata.unwrap_or_default();
                Ok(header)
            }
        }

        d.deserialize_map(HeaderVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        let mut h = Header::default();
        h.metadata.insert("k".into(), "v \" ü".into());
        h.push("a", "U8", vec![3], 3).unwrap();
        h.push("b", "F32", vec![2, 5], 40).unwrap();
        h.push("big", "F16", vec![32, 1024], 65536).unwrap();
        h.push("empty", "F32", vec![0], 0).unwrap();
        h
    }

    #[test]
    fn entries_are_aligned_without_holes() {
        let h = sample();
        h.check_layout().unwrap();
        let places: Vec<_> = h.entries.iter().map(|e| (&*e.name, e.begin())).collect();
        assert_eq!(
            places,
            [
                ("a", 0),
                ("qcc.pad.1", 3),
                ("b", 64),
                ("qcc.pad.3", 104),
                ("big", 4096),
                ("empty", 4096 + 65536)
            ]
        );
    }

    #[test]
    fn text_round_trip() {
        let h = sample();
        let bytes = h.to_bytes().unwrap();
        assert_eq!(bytes.len() % 4096, 0);
        assert_eq!(Header::parse(&bytes[8..]).unwrap(), h);
    }

    fn refused(json: &str) -> String {
        let h = Header::parse(json.as_bytes()).and_then(|h| h.check_layout());
        h.unwrap_err().message().to_string()
    }

    #[test]
    fn bad_layouts_are_refused() {
        let one = |s: &str| format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{s}}}}}"#);
        assert!(refused(&one("[1,5]")).contains("expected at 0"));
        assert!(refused(&one("[0,5]")).contains("not the size"));
        assert!(refused(&one("[0,18446744073709551615]")).contains("not the size"));
        let two = |s: &str, t: &str| {
            let e = r#""dtype":"U8","shape":[4],"data_offsets""#;
            format!(r#"{{"a":{{{e}:{s}}},"b":{{{e}:{t}}}}}"#)
        };
        assert!(refused(&two("[0,4]", "[2,6]")).contains("expected at 4"));
        assert!(refused(&two("[0,4]", "[8,12]")).contains("expected at 4"));
        assert!(refused(&two("[0,4]", "[4,8]").replace("\"b\"", "\"a\"")).contains("twice"));
        let huge = r#"{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
        assert!(refused(huge).contains("not the size"));
        let unknown = r#"{"a":{"dtype":"Q9","shape":[0],"data_offsets":[0,0]}}"#;
        assert!(refused(unknown).contains("not the size"));
        assert!(refused(r#"{"__metadata__":{},"__metadata__":{}}"#).contains("duplicate"));
    }

    #[test]
    fn every_byte_format_agrees_with_its_element_size() {
        for d in DType::ALL {
            if let Some(name) = safetensors_name(d) {
                assert_eq!(element_bits(name), Some(u64::from(d.bits())), "{d}");
            }
        }
    }
}
