//! Convolution, and window geometry for it and for pooling.

use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::graph::{OpKind, Window};

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, operand};
use super::super::scope::Scope;
use super::one;

/// Extents beyond this are mistakes, and would overflow.
const MAX_EXTENT: u64 = 1 << 31;

/// `Conv` over one or two spatial dimensions.
pub(super) fn conv(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let (x, w) = (s.value(n.input(0)?)?, s.value(n.input(1)?)?);
    let (image, weight) = (s.b.ty(x).clone(), s.b.ty(w).clone());
    let ([_, channels, space @ ..], [count, depth, extents @ ..]) =
        (image.shape.as_slice(), weight.shape.as_slice())
    else {
        return Err(operand(format!("Conv of {image} with {weight}")));
    };
    if !(1..=2).contains(&space.len()) || extents.len() != space.len() || image.elem != weight.elem
    {
        return Err(unsupported(
            error::OPERAND,
            format!("Conv of {image} with {weight}; one and two spatial dimensions are supported"),
        ));
    }
    let groups = positive(n.attrs.int_or("group", 1)?, "group")?;
    s.same_dim(channels, &(depth * &DimExpr::from(groups as i64)), "Conv")?;
    if count.modulo(&DimExpr::from(groups as i64)).as_const() != Some(0) {
        return Err(operand(format!(
            "{count} filters do not split into {groups} groups"
        )));
    }
    let fixed = extents
        .iter()
        .map(|d| {
            d.as_const()
                .and_then(|c| u64::try_from(c).ok())
                .unwrap_or(0)
        })
        .collect();
    let kernel = sizes(n, "kernel_shape", space.len(), Some(fixed))?;
    if kernel
        .iter()
        .zip(extents)
        .any(|(k, d)| d.as_const() != Some(*k as i64))
    {
        return Err(operand(format!(
            "kernel_shape {kernel:?} is not that of {weight}"
        )));
    }
    let window = window(s, n, space, kernel)?;
    let mut operands = vec![x, w];
    if let Some(bias) = n.optional(2) {
        let bias = s.value(bias)?;
        let ty = s.b.ty(bias).clone();
        if ty.shape != [count.clone()] || ty.elem != image.elem {
            return Err(operand(format!(
                "bias {ty} does not fit {count} filters of {weight}"
            )));
        }
        operands.push(bias);
    }
    one(s.b.same(
        OpKind::Conv {
            window,
            groups,
            expr: None,
        },
        &operands,
    )?)
}

fn positive(v: i64, name: &str) -> Result<u64> {
    u64::try_from(v)
        .ok()
        .filter(|v| (1..MAX_EXTENT).contains(v))
        .ok_or_else(|| operand(format!("attribute `{name}` is {v}")))
}

/// A list of positive sizes, one per spatial dimension.
pub(super) fn sizes(
    n: &Node,
    name: &'static str,
    count: usize,
    default: Option<Vec<u64>>,
) -> Result<Vec<u64>> {
    let sizes = match n.attrs.ints(name)? {
        Some(given) => given
            .iter()
            .map(|&v| positive(v, name))
            .collect::<Result<_>>()?,
        None => default.ok_or_else(|| operand(format!("attribute `{name}` is missing")))?,
    };
    if sizes.len() != count || sizes.contains(&0) {
        return Err(operand(format!(
            "attribute `{name}` is {sizes:?} for {count} spatial dimensions"
        )));
    }
    Ok(sizes)
}

/// The geometry of a window over spatial dimensions `space`.
pub(super) fn window(s: &Scope, n: &Node, space: &[DimExpr], kernel: Vec<u64>) -> Result<Window> {
    let rank = space.len();
    let strides = sizes(n, "strides", rank, Some(vec![1; rank]))?;
    let dilations = sizes(n, "dilations", rank, Some(vec![1; rank]))?;
    let mode = n.attrs.text_or("auto_pad", "NOTSET")?;
    let pads = n.attrs.ints("pads")?;
    let (pad_lo, pad_hi) = match mode {
        "NOTSET" => explicit_padding(pads, rank)?,
        "VALID" => (vec![0; rank], vec![0; rank]),
        "SAME_UPPER" | "SAME_LOWER" => {
            let upper = mode == "SAME_UPPER";
            let pads = (0..rank).map(|i| {
                same_padding(&space[i], kernel[i], strides[i], dilations[i])
                    .map(|(less, more)| if upper { (less, more) } else { (more, less) })
            });
            pads.collect::<Result<Vec<_>>>()?.into_iter().unzip()
        }
        other => {
            return Err(unsupported(
                error::ATTRIBUTE,
                format!("attribute `auto_pad` is `{other}`"),
            ));
        }
    };
    let window = Window {
        kernel,
        strides,
        dilations,
        pad_lo,
        pad_hi,
    };
    for (i, dim) in space.iter().enumerate() {
        if s.dims.bounds(&spare(&window, i, dim)).0 < 0 {
            return Err(operand(format!(
                "the window {:?} is larger than {dim}",
                window.kernel
            )));
        }
    }
    Ok(window)
}

/// How far the window can move along a dimension.
pub(super) fn spare(w: &Window, i: usize, dim: &DimExpr) -> DimExpr {
    let reach = w.dilations[i] * (w.kernel[i] - 1) + 1;
    let pads = (w.pad_lo[i] + w.pad_hi[i]) as i64;
    dim + &DimExpr::from(pads - reach as i64)
}

fn explicit_padding(pads: Option<&[i64]>, rank: usize) -> Result<(Vec<u64>, Vec<u64>)> {
    let Some(pads) = pads else {
        return Ok((vec![0; rank], vec![0; rank]));
    };
    let sizes = pads
        .iter()
        .map(|&p| u64::try_from(p).ok().filter(|&p| p < MAX_EXTENT))
        .collect::<Option<Vec<u64>>>();
    match sizes {
        Some(sizes) if sizes.len() == 2 * rank => {
            Ok((sizes[..rank].to_vec(), sizes[rank..].to_vec()))
        }
        _ => Err(operand(format!(
            "attribute `pads` is {pads:?} for {rank} spatial dimensions"
        ))),
    }
}

/// Padding that gives `⌈size / stride⌉` positions: the smaller half, the larger half.
fn same_padding(size: &DimExpr, kernel: u64, stride: u64, dilation: u64) -> Result<(u64, u64)> {
    let reach = dilation * (kernel - 1) + 1;
    let total = match size.as_const().and_then(|s| u64::try_from(s).ok()) {
        Some(size) => {
            let positions = size.div_ceil(stride).max(1);
            ((positions - 1).saturating_mul(stride).saturating_add(reach)).saturating_sub(size)
        }
        // With a stride of 1 the size does not matter.
        None if stride == 1 => reach - 1,
        None => {
            return Err(unsupported(
                error::DYNAMIC,
                format!("`auto_pad` of an unknown dimension {size} with a stride"),
            ));
        }
    };
    Ok((total / 2, total - total / 2))
}
