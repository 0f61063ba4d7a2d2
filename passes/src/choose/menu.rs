//! What may be done to each layer.
//!
//! Every layer is assigned by each scheme of [`SCHEMES`] as if the options named it. So what the
//! user fixed (the head, exclusions, overrides) stays: such a layer has one item. What needs data
//! that is not there is not asked for, and what the target has no kernel for is kept with the
//! reason.

use crate::options::Options;
use crate::pass::PassContext;
use crate::quantize::{Assigned, QuantSpec, Quantized, Scheme, Site, assign};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::format::Block;
use qcc_ir::graph::{Module, TensorType};

/// The schemes that are considered, and whether they need calibration data. Not NVFP4: the scale above
/// its scales takes a pass over all weights before anything is chosen.
const SCHEMES: &[(&str, bool)] = &[
    ("fp8-static", true),
    ("fp8-dynamic", false),
    ("fp8-weights", false),
    ("int8-static", true),
    ("int8-dynamic", false),
    ("int8-weights", false),
    ("w8a8-fp8-block128-dynamic", false),
    ("w4a8-static", true),
    ("w4a16-g128-asym", false),
    ("w4a16-g128-sym", false),
    ("w4a16-g32-asym", false),
    ("mxfp4", false),
];

/// One way to compute a layer.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The scheme by name, the mode of its activations included.
    pub(super) scheme: String,
    /// `None` for float.
    pub(super) quantized: Option<Quantized>,
    /// What it adds to the divergence of the model's output, in nats per row.
    pub(super) error: f64,
    /// Bits of the weight with its scales and zero points.
    pub(super) bits: f64,
}

/// The ways to compute a layer.
#[derive(Clone, Debug)]
pub(super) struct Menu {
    pub(super) site: Site,
    /// Elements of its weight.
    pub(super) elements: f64,
    /// The first is what the user's options give.
    pub(super) items: Vec<Item>,
    /// Schemes that cannot be had, with the reason.
    pub(super) refused: Vec<(String, String)>,
}

impl Menu {
    /// The item of a scheme.
    pub(super) fn find(&self, scheme: &str) -> Option<usize> {
        self.items.iter().position(|i| i.scheme == scheme)
    }
}

/// The options with another scheme.
pub(super) fn with_scheme(options: &Options, scheme: &str) -> Result<Options> {
    Ok(Options {
        scheme: Scheme::named(scheme)?,
        ..options.clone()
    })
}

/// The menus of all layers of the entry function, in execution order. Errors are 0 so far.
///
/// # Errors
/// As `quantize`.
pub(super) fn menus(m: &Module, ctx: &PassContext<'_>) -> Result<Vec<Menu>> {
    let base = with_scheme(ctx.options, "float")?;
    let mut menus: Vec<Menu> = assign(m, &ctx.with_options(&base))?
        .into_iter()
        .map(|a| {
            let ty = m.funcs[0].ty(a.site.weight_value);
            let dims = ty.fixed_dims().unwrap_or_default();
            Menu {
                items: vec![item(m, &a)],
                elements: dims.iter().map(|d| *d as f64).product(),
                refused: Vec::new(),
                site: a.site,
            }
        })
        .collect();
    for (scheme, _) in SCHEMES
        .iter()
        .filter(|(_, data)| !data || ctx.statistics.is_some())
    {
        let options = with_scheme(ctx.options, scheme)?;
        for (menu, a) in menus
            .iter_mut()
            .zip(assign(m, &ctx.with_options(&options))?)
        {
            let new = item(m, &a);
            if new.scheme == *scheme && menu.find(scheme).is_none() {
                menu.items.push(new);
                continue;
            }
            let considered = a.decisions.iter().flat_map(|d| &d.considered);
            let refusal = considered
                .filter(|c| c.candidate == *scheme)
                .find_map(|c| c.refused_by.clone());
            menu.refused
                .extend(refusal.map(|r| (scheme.to_string(), r)));
        }
    }
    Ok(menus)
}

fn item(m: &Module, a: &Assigned) -> Item {
    let chosen = a.decisions.first().map(|d| d.chosen.clone());
    let weight = m.funcs[0].ty(a.site.weight_value);
    Item {
        scheme: chosen.unwrap_or_default(),
        quantized: a.choice,
        error: 0.0,
        bits: bits(weight, a.choice.map(|q| q.weights).as_ref()),
    }
}

/// Bits of a weight; a float one counts with 16 bits, as it is stored for GPUs.
fn bits(weight: &TensorType, spec: Option<&QuantSpec>) -> f64 {
    let dims = weight.fixed_dims().unwrap_or_default();
    let elements: f64 = dims.iter().map(|d| *d as f64).product();
    let Some(spec) = spec else {
        return elements * 16.0;
    };
    let q = spec.quant_type(dims.len(), false);
    let blocks = dims.iter().zip(&q.block.0).map(|(d, b)| match b {
        Block::All => 1.0,
        Block::Fixed(n) => d.div_ceil(*n) as f64,
    });
    let each = q.scale.stored().bits() + q.zero.map_or(0, DType::bits);
    elements * f64::from(q.storage.bits()) + blocks.product::<f64>() * f64::from(each)
}
