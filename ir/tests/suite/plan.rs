//! What a plan says about modules.

use qcc_ir::expr::UnaryFn;
use qcc_ir::graph::{Builder, Module, Symbol, TensorType, Weight, WeightData};
use qcc_ir::plan::{Plan, TargetSection, WeightEntry};
use qcc_ir::{DType, DimExpr};

/// `y = relu(x) · w`, with one weight in a file and one inline.
fn module(weight: DType) -> Module {
    let mut m = Module::default();
    let mut add = |name: &str, data| {
        m.add_weight(Weight {
            name: name.to_string(),
            dtype: weight,
            dims: vec![4],
            data,
        })
    };
    let w = add("qcc.w", WeightData::Extern);
    add("inline", WeightData::Splat(0));
    m.add_symbol(Symbol {
        name: "n".to_string(),
        min: 1,
        max: 64,
        points: vec![1, 16],
    });
    let mut b = Builder::new("main");
    let n = DimExpr::sym("n");
    let x = b.param(
        "x",
        TensorType::new(weight, [n + DimExpr::from(1), DimExpr::from(4)]),
    );
    let y = b.unary(UnaryFn::Relu, x).unwrap();
    let w = b.constant(w, &m);
    let y = b.binary(qcc_ir::expr::BinaryFn::Mul, y, w).unwrap();
    m.funcs.push(b.finish([("out", y)]));
    m
}

fn plan() -> Plan {
    Plan::new("model", "00", "0.1.0")
}

#[test]
fn a_module_gives_interface_weights_and_steps() {
    let (mut p, m) = (plan(), module(DType::F32));
    p.add_module("m0", &m).unwrap();
    p.targets.push(TargetSection::cpu("cpu", "m0", &m).unwrap());
    p.validate().unwrap();
    assert_eq!(p.inputs[0].dims, ["n + 1", "4"]);
    assert_eq!(p.outputs[0].name, "out");
    assert_eq!(
        (p.symbols[0].max, &p.symbols[0].points[..]),
        (64, &[1, 16][..])
    );
    let w = p.weight("qcc.w", WeightEntry::ROW_MAJOR).unwrap();
    assert_eq!(
        (p.weights.len(), w.entry.as_str(), w.bytes),
        (1, "weight/qcc.w", 16)
    );
    assert_eq!(p.targets[0].steps.len(), 3);
}

#[test]
fn modules_share_weights_of_one_name_and_must_have_one_interface() {
    let mut p = plan();
    p.add_module("m0", &module(DType::F32)).unwrap();
    p.add_module("m1", &module(DType::F32)).unwrap();
    assert_eq!(p.weights.len(), 1);
    let taken = p.add_module("m1", &module(DType::F32)).unwrap_err();
    assert_eq!(taken.code(), "Q0411");
    let other = p.add_module("m2", &module(DType::F16)).unwrap_err();
    assert!(
        other.message().contains("other inputs or outputs"),
        "{other}"
    );
    let mut same_ports = module(DType::F32);
    same_ports.weights[0].dims = vec![5];
    let clash = p.add_module("m2", &same_ports).unwrap_err();
    assert!(
        clash.message().contains("f32[4] in one module and f32[5]"),
        "{clash}"
    );
    let empty = p.add_module("m3", &Module::default()).unwrap_err();
    assert_eq!(empty.code(), "Q0411");
}
