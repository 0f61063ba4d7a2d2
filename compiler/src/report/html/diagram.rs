//! A block before and after fusion, drawn as two graphs.
//!
//! A shape stands one row below the lowest shape that it reads; lines run from the bottom of what
//! gives a value to the top of what reads it. A kernel is a box around the ops that it holds.

use super::section as wrap;
use super::text::escape;
use crate::report::{Diagram, Shape};

/// Size of an op's box, and of the space between shapes.
const OP: (usize, usize) = (118, 20);
const GAP: (usize, usize) = (14, 26);
/// Space within a kernel's box, and the height of its title.
const PAD: usize = 7;
const TITLE: usize = 18;

/// The section; nothing without ops.
pub(super) fn section(d: &Diagram) -> String {
    let held: Vec<Vec<&Shape>> = d
        .after
        .iter()
        .map(|k| k.holds.iter().map(|o| &d.before[*o]).collect())
        .collect();
    let none: Vec<Vec<&Shape>> = d.before.iter().map(|_| Vec::new()).collect();
    let (before, after) = (d.before.len(), d.after.len());
    let times = match d.times {
        1 => String::new(),
        n => format!(", which occurs {n} times"),
    };
    let lead = format!(
        "A block of the model{times}: {before} ops before fusion, {after} kernels after it. A box is \
         a kernel and holds the ops that it computes; the format of what it gives stands below. \
         Hover for the names of nodes."
    );
    let graphs = format!(
        "<div class=\"pair\">{}{}</div>\n",
        graph("Before fusion", &d.before, &none),
        graph("After fusion", &d.after, &held)
    );
    wrap("graph", "Fusion", &lead, &graphs)
}

/// Where a shape lies.
struct Place {
    x: usize,
    y: usize,
    height: usize,
}

fn graph(caption: &str, shapes: &[Shape], held: &[Vec<&Shape>]) -> String {
    let width = OP.0 + 2 * PAD;
    let places = places(shapes, held, width);
    let right = places.iter().map(|p| p.x + width).max().unwrap_or(0);
    let bottom = places.iter().map(|p| p.y + p.height).max().unwrap_or(0) + GAP.1;
    let mut svg = String::new();
    for (shape, to) in shapes.iter().zip(&places) {
        for from in shape.reads.iter().map(|r| &places[*r]) {
            svg += &edge(from, to, width);
        }
    }
    for ((shape, held), place) in shapes.iter().zip(held).zip(&places) {
        svg += &drawn(shape, held, place, width);
    }
    format!(
        "<figure class=\"graph\"><svg viewBox=\"0 0 {right} {bottom}\" width=\"{right}\" \
         role=\"img\" aria-label=\"{0}\">{svg}</svg><figcaption>{0}</figcaption></figure>\n",
        escape(caption)
    )
}

/// Shapes in rows: each below all that it reads, those of a row side by side.
fn places(shapes: &[Shape], held: &[Vec<&Shape>], width: usize) -> Vec<Place> {
    let mut rows: Vec<usize> = Vec::with_capacity(shapes.len());
    for s in shapes {
        let above = s.reads.iter().filter_map(|r| rows.get(*r)).max();
        rows.push(above.map_or(0, |r| r + 1));
    }
    let count = rows.iter().max().map_or(0, |r| r + 1);
    let mut heights = vec![0; count];
    let mut used = vec![0; count];
    for (row, held) in rows.iter().zip(held) {
        heights[*row] = heights[*row].max(height(held));
    }
    let top = |row: usize| heights[..row].iter().map(|h| h + GAP.1).sum();
    let place = |(row, held): (&usize, &Vec<&Shape>)| {
        let x = used[*row] * (width + GAP.0);
        used[*row] += 1;
        Place {
            x,
            y: top(*row),
            height: height(held),
        }
    };
    rows.iter().zip(held).map(place).collect()
}

fn height(held: &[&Shape]) -> usize {
    match held.len() {
        0 => OP.1,
        n => TITLE + n * (OP.1 + 3) + PAD,
    }
}

fn edge(from: &Place, to: &Place, width: usize) -> String {
    let (x, y) = (from.x + width / 2, from.y + from.height);
    let (u, v) = (to.x + width / 2, to.y);
    let bend = GAP.1 / 2;
    format!(
        "<path class=\"edge\" d=\"M{x} {y}C{x} {},{u} {},{u} {v}\"/>",
        y + bend,
        v.saturating_sub(bend)
    )
}

fn drawn(shape: &Shape, held: &[&Shape], p: &Place, width: usize) -> String {
    if held.is_empty() {
        return op(shape, p.x + PAD, p.y);
    }
    let mut t = format!(
        "<g><title>{}</title><rect class=\"kernel\" x=\"{}\" y=\"{}\" width=\"{width}\" \
         height=\"{}\" rx=\"4\"/>{}</g>",
        escape(&shape.nodes.join(", ")),
        p.x,
        p.y,
        p.height,
        text("kernel", p.x + width / 2, p.y + 13, shape.kind),
    );
    for (i, o) in held.iter().enumerate() {
        t += &op(o, p.x + PAD, p.y + TITLE + i * (OP.1 + 3));
    }
    let gives = format!("→ {}", shape.gives.join(", "));
    t + &text("format", p.x + width / 2, p.y + p.height + 12, &gives)
}

fn op(shape: &Shape, x: usize, y: usize) -> String {
    format!(
        "<g><title>{}: {}</title><rect class=\"op\" x=\"{x}\" y=\"{y}\" width=\"{}\" \
         height=\"{}\" rx=\"3\"/>{}</g>",
        escape(&shape.nodes.join(", ")),
        escape(&shape.gives.join(", ")),
        OP.0,
        OP.1,
        text("op", x + OP.0 / 2, y + 14, shape.kind),
    )
}

fn text(class: &str, x: usize, y: usize, content: &str) -> String {
    format!(
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
        escape(content)
    )
}
