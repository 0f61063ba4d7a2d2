//! Buffer planning: one allocation, values at offsets, by liveness.
//!
//! A value lives from the op that defines it to the last op that reads it. Values whose lives do
//! not meet may share a slot. Sizes are symbolic, so the plan holds for every shape: a slot is
//! as large as the largest of its values (`max` of their sizes), and slots follow each other,
//!
//! ```text
//! offset(slot i) = Σ over j < i of ⌈size(slot j) / 256⌉ · 256
//! ```
//!
//! Values are placed in program order into the free slot whose size fits best: the same size
//! first, then one that is larger for certain, then one that is made larger.

use qcc_ir::DimExpr;
use qcc_ir::graph::Module;

/// Alignment of every value, in bytes: a cache line pair, and what bulk copies ask for.
pub const ALIGN: i64 = 256;

/// A value that needs memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name in the plan.
    pub name: String,
    /// Its size in bytes.
    pub bytes: DimExpr,
    /// Position of the step that writes it.
    pub born: usize,
    /// Position of the last step that reads it; at least `born`.
    pub dies: usize,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its name in the plan.
    pub name: String,
    /// Distance from the start of the arena in bytes.
    pub offset: DimExpr,
    /// Its size in bytes.
    pub bytes: DimExpr,
}

/// Where every value lives, and how much memory that takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The values, in the order of the requests.
    pub values: Vec<Placed>,
    /// Bytes of the arena.
    pub bytes: DimExpr,
}

struct Slot {
    bytes: DimExpr,
    free_from: usize,
}

/// How well a slot fits, best first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Same,
    Larger,
    Grown,
}

/// Places all requests; they must be sorted by `born`. `m` supplies the symbols' ranges.
pub fn plan(m: &Module, requests: &[Request]) -> Layout {
    let mut slots: Vec<Slot> = Vec::new();
    let mut of = Vec::with_capacity(requests.len());
    for r in requests {
        let free = slots
            .iter()
            .enumerate()
            .filter(|(_, s)| s.free_from <= r.born);
        let best = free.map(|(i, s)| (fit(m, &s.bytes, &r.bytes), i)).min();
        let at = match best {
            Some((_, i)) => i,
            None => {
                slots.push(Slot {
                    bytes: r.bytes.clone(),
                    free_from: 0,
                });
                slots.len() - 1
            }
        };
        slots[at].bytes = larger(m, &slots[at].bytes, &r.bytes);
        slots[at].free_from = r.dies + 1;
        of.push(at);
    }
    let mut offsets = Vec::with_capacity(slots.len());
    let mut end = DimExpr::from(0);
    for s in &slots {
        offsets.push(end.clone());
        end = end + round_up(&s.bytes);
    }
    let place = |(r, slot): (&Request, &usize)| Placed {
        name: r.name.clone(),
        offset: offsets[*slot].clone(),
        bytes: r.bytes.clone(),
    };
    Layout {
        values: requests.iter().zip(&of).map(place).collect(),
        bytes: end,
    }
}

fn fit(m: &Module, slot: &DimExpr, want: &DimExpr) -> Fit {
    let (lo, _) = (slot - want).bounds(&|s| m.symbol_range(s));
    match slot == want {
        true => Fit::Same,
        false if lo >= 0 => Fit::Larger,
        false => Fit::Grown,
    }
}

/// The larger of two sizes: one of them where the symbols' ranges decide, else `max`.
fn larger(m: &Module, a: &DimExpr, b: &DimExpr) -> DimExpr {
    let surely = |x: &DimExpr, y: &DimExpr| (x - y).bounds(&|s| m.symbol_range(s)).0 >= 0;
    match (surely(a, b), surely(b, a)) {
        (true, _) => a.clone(),
        (_, true) => b.clone(),
        _ => a.max_with(b),
    }
}

fn round_up(bytes: &DimExpr) -> DimExpr {
    let a = DimExpr::from(ALIGN);
    (bytes + &DimExpr::from(ALIGN - 1)).floor_div(&a) * a
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_ir::graph::Symbol;

    fn request(name: &str, bytes: DimExpr, born: usize, dies: usize) -> Request {
        Request {
            name: name.into(),
            bytes,
            born,
            dies,
        }
    }

    fn module() -> Module {
        let mut m = Module::default();
        m.add_symbol(Symbol {
            name: "s".into(),
            min: 1,
            max: 64,
            points: vec![],
        });
        m
    }

    /// Two values that live at once never overlap, whatever the size.
    fn check(requests: &[Request]) -> i64 {
        let layout = plan(&module(), requests);
        for s in [1, 7, 64] {
            let at = |d: &DimExpr| d.eval(&|_| Some(s)).unwrap();
            for (i, a) in requests.iter().enumerate() {
                for (j, b) in requests.iter().enumerate().skip(i + 1) {
                    let (pa, pb) = (&layout.values[i], &layout.values[j]);
                    let apart = at(&pa.offset) + at(&pa.bytes) <= at(&pb.offset)
                        || at(&pb.offset) + at(&pb.bytes) <= at(&pa.offset);
                    assert!(
                        apart || a.dies < b.born || b.dies < a.born,
                        "{} meets {}",
                        a.name,
                        b.name
                    );
                }
            }
            for v in &layout.values {
                assert!(
                    at(&v.offset) % ALIGN == 0 && at(&v.offset) + at(&v.bytes) <= at(&layout.bytes)
                );
            }
        }
        layout.bytes.eval(&|_| Some(64)).unwrap()
    }

    #[test]
    fn a_chain_needs_two_slots() {
        let n = || DimExpr::sym("s") * DimExpr::from(1024);
        let chain: Vec<Request> = (0..8)
            .map(|i| request(&format!("v{i}"), n(), i, i + 1))
            .collect();
        assert_eq!(check(&chain), 2 * 64 * 1024);
    }

    #[test]
    fn values_alive_together_lie_apart() {
        let n = |c: i64| DimExpr::sym("s") * DimExpr::from(c);
        check(&[
            request("a", n(3), 0, 5),
            request("b", n(700), 1, 2),
            request("c", DimExpr::from(999), 2, 3),
            request("d", n(10), 3, 6),
            request("e", DimExpr::from(1), 4, 4),
            request("f", n(700), 5, 6),
        ]);
    }
}
