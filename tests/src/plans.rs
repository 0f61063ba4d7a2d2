//! Plans of modules that are written as text.

use qcc_codegen::lower::emit_section;
use qcc_codegen::target::Target;
use qcc_ir::eval::weight_tensor;
use qcc_ir::graph::{Module, WeightBytes, WeightData};
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::{Plan, TargetSection};
use qcc_runtime::plan_file::plan_in_memory;
use qcc_runtime::{PlanContents, PlanFile, Verify};
use std::borrow::Cow;
use std::sync::Arc;

#[derive(Debug)]
struct Held(Vec<u8>);

impl WeightBytes for Held {
    fn bytes(&self) -> qcc_ir::diag::Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.0))
    }
}

/// Gives every weight the bytes that its text describes.
///
/// # Panics
/// When a weight is external.
pub fn fill_weights(m: &mut Module) {
    for w in &mut m.weights {
        let bytes = weight_tensor(w).unwrap().bytes().to_vec();
        w.data = WeightData::Bytes(Arc::new(Held(bytes)));
    }
}

/// A plan with a section for the GPU and one for the processor.
///
/// # Panics
/// When a section has no kernel for an op, or a weight has no bytes.
pub fn plan_of(m: &Module, target: &'static Target) -> Arc<PlanFile> {
    let (section, mut texts) = emit_section(m, "m0", target).unwrap();
    let mut plan = Plan::new("test", "00", "0.1.0");
    plan.add_module("m0", m).unwrap();
    plan.targets.push(section);
    let cpu = TargetSection::cpu("cpu", "m0", m).unwrap();
    plan.targets.push(cpu);
    plan.lay_out_weights();
    texts.insert("text/m0".into(), m.to_string());
    let contents = PlanContents {
        plan: &plan,
        ledger: &Ledger::new(),
        texts: &texts,
    };
    let written = plan_in_memory(&contents, |entry, put| {
        let id = m.find_weight(&entry.name).unwrap();
        put(&entry.pack(weight_tensor(m.weight(id))?.bytes())?)
    });
    Arc::new(PlanFile::from_bytes(written.unwrap().0, Verify::Full).unwrap())
}
