//! Results under construction.

use super::plan::{Mode, Plan};
use crate::pool::{Numbers, Pool};
use crate::quant::{Params, format_of};
use crate::threads::{Scatter, Threads};
use crate::value::{View, unpacked};
use qcc_ir::diag::Result;
use qcc_ir::format::FormatError;
use qcc_ir::graph::{Elem, QuantType, TensorType};
use qcc_ir::{Bundle, DType, Tensor};

/// What a result is stored into while the op runs.
pub(crate) enum Sink<'a> {
    /// f32: the result itself, or the numbers that are quantized afterwards.
    Floats(Scatter<'a, f32>),
    /// The result in its own format.
    Bytes(DType, Scatter<'a, u8>),
    /// Codes of one byte, with this scale and zero point.
    Static(Scatter<'a, u8>, f32, Option<f32>),
    /// Codes of one byte, and the scale of each row.
    Dynamic(Scatter<'a, u8>, Scatter<'a, f32>),
}

/// Room for the results of one call.
pub(crate) struct Outputs<'t> {
    slots: Vec<Slot<'t>>,
}

enum Slot<'t> {
    Plain(DType, Tensor),
    Staged(&'t QuantType, Numbers<'t>, Vec<u64>, [Option<Tensor>; 2]),
    Static(Tensor, Tensor, Option<Tensor>, (f32, Option<f32>)),
    Dynamic(Tensor, Tensor),
}

impl<'t> Outputs<'t> {
    /// Room for results of these types and extents; `args` hold the scales of static schemes.
    pub(crate) fn new(
        plan: &Plan,
        results: &[(&'t TensorType, Vec<u64>)],
        args: &[Option<View<'_>>],
        pool: &'t Pool,
    ) -> Result<Self> {
        let mut slots = Vec::with_capacity(results.len());
        for (i, (ty, dims)) in results.iter().enumerate() {
            let (scale, zero) = plan.params(i, args);
            slots.push(match (&ty.elem, plan.modes.get(i)) {
                (Elem::Plain(d), _) => Slot::Plain(*d, pool.take(unpacked(*d), dims)?),
                (Elem::Quant(q), Some(Mode::Static)) => {
                    fixed(q, pool.take(q.storage, dims)?, scale, zero)?
                }
                (Elem::Quant(q), Some(Mode::Dynamic)) => {
                    let mut shape = dims.clone();
                    if let Some(last) = shape.last_mut() {
                        *last = 1.min(*last);
                    }
                    let scales = pool.take(q.scale.stored(), &shape)?;
                    Slot::Dynamic(pool.take(q.storage, dims)?, scales)
                }
                (Elem::Quant(q), _) => {
                    let params = [scale, zero].map(|v| v.map(|v| v.codes.clone()));
                    Slot::Staged(q, Numbers::new(pool, dims)?, dims.clone(), params)
                }
            });
        }
        Ok(Outputs { slots })
    }

    /// Where to store, one sink per result.
    pub(crate) fn sinks(&mut self) -> Result<Vec<Sink<'_>>> {
        let mut sinks = Vec::with_capacity(self.slots.len());
        for s in &mut self.slots {
            sinks.push(match s {
                Slot::Plain(DType::F32, t) => Sink::Floats(Scatter::new(t.as_slice_mut()?)),
                Slot::Plain(_, t) => Sink::Bytes(t.dtype(), Scatter::new(t.bytes_mut())),
                Slot::Staged(_, v, ..) => Sink::Floats(Scatter::new(v.get_mut()?)),
                Slot::Static(t, _, _, (scale, zero)) => {
                    Sink::Static(Scatter::new(t.bytes_mut()), *scale, *zero)
                }
                Slot::Dynamic(t, s) => {
                    Sink::Dynamic(Scatter::new(t.bytes_mut()), Scatter::new(s.as_slice_mut()?))
                }
            });
        }
        Ok(sinks)
    }

    /// The finished results.
    ///
    /// # Errors
    /// When a dynamic scale comes from numbers that are not finite.
    pub(crate) fn finish(self, threads: &Threads) -> Result<Vec<Bundle>> {
        let mut out = Vec::with_capacity(self.slots.len());
        for s in self.slots {
            out.push(match s {
                Slot::Plain(d, t) if d.per_byte() > 1 => crate::value::pack(d, &t)?.into(),
                Slot::Plain(_, t) => t.into(),
                Slot::Staged(q, x, dims, [scale, zero]) => {
                    let params = [scale.as_ref(), zero.as_ref(), None];
                    let b = crate::quant::quantize(q, x.get()?, &dims, params, threads)?;
                    x.release();
                    b
                }
                Slot::Static(codes, scale, zero, _) => Bundle {
                    codes,
                    scale: Some(scale),
                    zero,
                    global: None,
                },
                Slot::Dynamic(codes, scale) => {
                    check_scales(&scale)?;
                    Bundle {
                        codes,
                        scale: Some(scale),
                        zero: None,
                        global: None,
                    }
                }
            });
        }
        Ok(out)
    }
}

/// Room for codes with one scale and zero point.
fn fixed<'t>(
    q: &QuantType,
    codes: Tensor,
    scale: Option<View<'_>>,
    zero: Option<View<'_>>,
) -> Result<Slot<'t>> {
    let (scale, zero) = (scale.map(|v| v.codes), zero.map(|v| v.codes));
    let params = Params::read(q, [scale, zero, None])?;
    let one = params.scales.first().copied();
    let (Some(scale), Some(s)) = (scale, one) else {
        return Err(crate::internal("a static scheme needs a scale"));
    };
    let z = params.zeros.as_ref().and_then(|z| z.first().copied());
    if let Some(zero) = z.filter(|z| !format_of(q).is_ok_and(|f| f.allows_zero(*z))) {
        return Err(crate::format_error(FormatError::ZeroPoint {
            storage: q.storage,
            zero,
        }));
    }
    let number = (s, z.map(|z| z as f32));
    Ok(Slot::Static(codes, scale.clone(), zero.cloned(), number))
}

/// Refuses scales that come from a row with a NaN or an infinity.
fn check_scales(scales: &Tensor) -> Result<()> {
    let bad = scales.as_slice::<f32>()?.iter().find(|s| !s.is_finite());
    match bad {
        None => Ok(()),
        Some(value) => Err(crate::format_error(FormatError::Statistic {
            what: "absmax",
            value: *value,
        })),
    }
}
