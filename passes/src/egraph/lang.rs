//! The language of the e-graph: graph ops whose operands are e-classes.
//!
//! An op is interned: its kind with all attributes and its result types are one number, so that
//! e-nodes are small, ordered and hashed cheaply, and ordered by first use, which is the same in
//! every run. An op with one result *is* that value. An op with several is a *tuple*, a class of
//! its own, and its values are projections of it: they cost nothing, and the tuple is paid once
//! however many of its values are used.

use super::weights::Derived;
use egg::{Id, Language};
use qcc_ir::graph::{OpKind, TensorType};
use std::collections::HashMap;
use std::hash::Hash;

/// An e-node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Node {
    /// A value from outside the region, by its number.
    Leaf(u32),
    /// A constant made of constant leaves; a number of [`Tables::derived`].
    Derived(u32),
    /// An op, a number of [`Tables::ops`], on these operands.
    Op(u32, Box<[Id]>),
    /// One result of a tuple.
    Proj(u32, [Id; 1]),
}

impl Language for Node {
    type Discriminant = (u8, u32);

    fn discriminant(&self) -> Self::Discriminant {
        match self {
            Node::Leaf(k) => (0, *k),
            Node::Derived(k) => (1, *k),
            Node::Op(k, _) => (2, *k),
            Node::Proj(k, _) => (3, *k),
        }
    }

    fn matches(&self, other: &Self) -> bool {
        self.discriminant() == other.discriminant()
            && self.children().len() == other.children().len()
    }

    fn children(&self) -> &[Id] {
        match self {
            Node::Leaf(_) | Node::Derived(_) => &[],
            Node::Op(_, c) => c,
            Node::Proj(_, c) => c,
        }
    }

    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Node::Leaf(_) | Node::Derived(_) => &mut [],
            Node::Op(_, c) => c,
            Node::Proj(_, c) => c,
        }
    }
}

/// What an op computes and the types of what it gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OpData {
    pub(super) kind: OpKind,
    pub(super) results: Vec<TensorType>,
}

/// A constant that is made of others, and its type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DerivedData {
    pub(super) derived: Derived,
    pub(super) ty: TensorType,
}

/// Numbers for values that are large or not ordered, in the order of their first use.
#[derive(Clone, Debug)]
pub(super) struct Interner<T> {
    items: Vec<T>,
    index: HashMap<T, u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner {
            items: Vec::new(),
            index: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    /// The number of an item.
    pub(super) fn add(&mut self, item: T) -> u32 {
        if let Some(k) = self.index.get(&item) {
            return *k;
        }
        let k = self.items.len() as u32;
        self.items.push(item.clone());
        self.index.insert(item, k);
        k
    }

    /// The number of an item that was added before.
    pub(super) fn find(&self, item: &T) -> Option<u32> {
        self.index.get(item).copied()
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The item with a number that [`Interner::add`] gave.
    pub(super) fn get(&self, k: u32) -> &T {
        &self.items[k as usize]
    }
}
