//! Typed access to the attributes of a node.
//!
//! Every attribute that a node has must be asked for: one that nobody asked for changes the
//! meaning in a way that the importer does not know, and is refused.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use qcc_ir::diag::Result;

use super::error::{self, input, unsupported};
use super::proto::{AttributeProto, NodeProto, TensorProto};

/// `AttributeProto.AttributeType`.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const TENSOR: i32 = 4;
const FLOATS: i32 = 6;
const INTS: i32 = 7;

/// Attributes of the function call around a node, by name; empty in the main graph.
pub(super) type Bound<'a> = BTreeMap<&'a str, &'a AttributeProto>;

/// The attributes of one node.
pub(super) struct Attrs<'a> {
    given: BTreeMap<&'a str, &'a AttributeProto>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Attrs<'a> {
    /// The attributes of `node`, those that refer to the calling function's replaced.
    ///
    /// # Errors
    /// An attribute that is given twice.
    pub(super) fn new(node: &'a NodeProto, bound: &Bound<'a>) -> Result<Self> {
        let mut given = BTreeMap::new();
        for attribute in &node.attribute {
            let name = attribute.name.as_deref().unwrap_or_default();
            let value = match attribute.ref_attr_name.as_deref() {
                None | Some("") => Some(attribute),
                Some(reference) => bound.get(reference).copied(),
            };
            let Some(value) = value else { continue };
            if given.insert(name, value).is_some() {
                return Err(input(
                    error::ATTRIBUTE,
                    format!("attribute `{name}` is given twice"),
                ));
            }
        }
        Ok(Attrs {
            given,
            asked: RefCell::default(),
        })
    }

    fn get(&self, name: &'static str, kind: i32) -> Result<Option<&'a AttributeProto>> {
        self.asked.borrow_mut().insert(name);
        match self.given.get(name).copied() {
            Some(a) if a.r#type != Some(kind) => Err(input(
                error::ATTRIBUTE,
                format!(
                    "attribute `{name}` has type {}, not {kind}",
                    a.r#type.unwrap_or(0)
                ),
            )),
            other => Ok(other),
        }
    }

    /// An integer.
    pub(super) fn int(&self, name: &'static str) -> Result<Option<i64>> {
        Ok(self.get(name, INT)?.map(|a| a.i.unwrap_or(0)))
    }

    /// An integer with a default.
    pub(super) fn int_or(&self, name: &'static str, default: i64) -> Result<i64> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// An integer that means yes (not 0) or no.
    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.int(name)?.map_or(default, |i| i != 0))
    }

    /// A float.
    pub(super) fn float(&self, name: &'static str) -> Result<Option<f32>> {
        Ok(self.get(name, FLOAT)?.map(|a| a.f.unwrap_or(0.0)))
    }

    /// A float with a default.
    pub(super) fn float_or(&self, name: &'static str, default: f32) -> Result<f32> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    /// A list of floats.
    pub(super) fn floats(&self, name: &'static str) -> Result<Option<&'a [f32]>> {
        Ok(self.get(name, FLOATS)?.map(|a| a.floats.as_slice()))
    }

    /// A list of integers.
    pub(super) fn ints(&self, name: &'static str) -> Result<Option<&'a [i64]>> {
        Ok(self.get(name, INTS)?.map(|a| a.ints.as_slice()))
    }

    /// A string with a default.
    pub(super) fn text_or(&self, name: &'static str, default: &'a str) -> Result<&'a str> {
        let Some(a) = self.get(name, STRING)? else {
            return Ok(default);
        };
        std::str::from_utf8(a.s.as_deref().unwrap_or_default())
            .map_err(|_| input(error::ATTRIBUTE, format!("attribute `{name}` is not UTF-8")))
    }

    /// A tensor.
    pub(super) fn tensor(&self, name: &'static str) -> Result<Option<&'a TensorProto>> {
        Ok(self.get(name, TENSOR)?.and_then(|a| a.t.as_deref()))
    }

    /// Refuses a value other than the one that is supported.
    pub(super) fn only(&self, name: &'static str, value: i64) -> Result<()> {
        match self.int(name)? {
            Some(other) if other != value => Err(unsupported(
                error::ATTRIBUTE,
                format!("attribute `{name}` is {other}; only {value} is supported"),
            )),
            _ => Ok(()),
        }
    }

    /// Asks for attributes that do not change the result at inference time.
    pub(super) fn ignore(&self, names: &[&'static str]) {
        self.asked.borrow_mut().extend(names);
    }

    /// Refuses attributes that nobody asked for.
    pub(super) fn finish(&self) -> Result<()> {
        let asked = self.asked.borrow();
        match self.given.keys().find(|name| !asked.contains(*name)) {
            Some(name) => Err(unsupported(
                error::ATTRIBUTE,
                format!("attribute `{name}` is not supported"),
            )),
            None => Ok(()),
        }
    }

    /// The attributes as those of a function call.
    pub(super) fn bound(&self) -> Bound<'a> {
        self.given.clone()
    }
}
