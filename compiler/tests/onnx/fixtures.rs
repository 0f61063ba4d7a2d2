//! Models with inputs and expected outputs of onnxruntime, made by `fixtures/generate.py`.
//!
//! Each is imported and run by the evaluator of the graph IR, as it is and after the passes that
//! prepare a module; those that contain composite ops in small ones must lose them.

use std::path::{Path, PathBuf};

use npyz::npz::NpzArchive;
use qcc::onnx::{ImportOptions, Model, import};
use qcc_ir::diag::Class;
use qcc_ir::format::decode_slice;
use qcc_ir::graph::Module;
use qcc_ir::{DType, Tensor, eval};
use qcc_passes::{Manager, Options, PassContext, pipeline};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// One array of a data set: a tensor of the given format.
fn array(name: &str, key: &str, dtype: DType) -> Option<Tensor> {
    let mut data = NpzArchive::open(folder().join(format!("{name}.npz"))).expect("data");
    let array = data.by_name(key).expect("readable")?;
    let dims = array.shape().to_vec();
    let tensor = match dtype {
        DType::F32 => Tensor::f32(&dims, &array.into_vec::<f32>().expect("f32")),
        DType::I64 => Tensor::i64(&dims, &array.into_vec::<i64>().expect("i64")),
        DType::Bool => {
            let bytes: Vec<u8> = array
                .into_vec::<bool>()
                .expect("bool")
                .into_iter()
                .map(u8::from)
                .collect();
            Tensor::from_bytes(DType::Bool, &dims, &bytes)
        }
        other => panic!("{other} does not occur in the data"),
    };
    Some(tensor.expect("fits"))
}

fn values(t: &Tensor) -> Vec<f64> {
    let mut out = vec![0.0; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut out).expect("decoded");
    out
}

/// Runs every data set of a fixture; the number of sets.
fn compare(name: &str, module: &Module) -> usize {
    let func = &module.funcs[0];
    let plain = |v| func.ty(v).elem.plain().expect("not quantized");
    for set in 0.. {
        let input = |p: &_| {
            let key = format!("{set}.in.{}", func.value(*p).name);
            array(name, &key, plain(*p))
        };
        let inputs: Option<Vec<Tensor>> = func.params.iter().map(input).collect();
        let Some(inputs) = inputs else { return set };
        let outputs = eval::run(module, &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        for ((output, v), found) in func.results.iter().zip(&outputs) {
            let key = format!("{set}.out.{output}");
            let expected = array(name, &key, plain(*v)).expect("an expected output");
            assert_eq!(expected.dims(), found.dims(), "{name}: {key}");
            for (i, (e, f)) in values(&expected).iter().zip(values(found)).enumerate() {
                let close = (e - f).abs() <= 1e-5 + 1e-4 * e.abs();
                let same = *e == f || (e.is_nan() && f.is_nan());
                assert!(close || same, "{name}: {key}[{i}] is {f}, expected {e}");
            }
        }
    }
    0
}

fn imported(name: &str) -> Module {
    let path = folder().join(format!("{name}.onnx"));
    let model = Model::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let imported = import(&model, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    imported.module
}

fn prepared(module: Module) -> Module {
    let options = Options::default();
    let passes = pipeline::passes(pipeline::PREPARE).expect("known passes");
    let run = Manager::new(passes).run(module, &mut PassContext::new(&options));
    run.unwrap_or_else(|e| panic!("{e}")).module
}

/// Checks a fixture before and after the passes; the names of the ops that are left then.
fn check(name: &str, sets: usize) -> Vec<&'static str> {
    let module = imported(name);
    assert_eq!(compare(name, &module), sets, "{name}: data sets");
    let module = prepared(module);
    assert_eq!(compare(name, &module), sets);
    module.funcs[0]
        .ops
        .iter()
        .map(|op| op.kind.name())
        .collect()
}

/// Ops that are left over from a composite one.
const PARTS: &[&str] = &[
    "softmax", "matmul", "reduce", "sqrt", "erf", "tanh", "sigmoid", "neg", "select", "expand",
];

#[test]
fn elementwise_operators() {
    check("unary", 2);
    check("binary", 2);
}

#[test]
fn reductions() {
    check("reduce_13", 2);
    check("reduce_18", 2);
}

#[test]
fn operators_that_move_elements() {
    check("layout", 2);
    check("pick", 2);
}

#[test]
fn shapes_are_computed_at_import() {
    let ops = check("shapes", 2);
    assert!(
        !ops.contains(&"gather") && !ops.contains(&"select"),
        "{ops:?}"
    );
}

#[test]
fn convolutions_and_pooling() {
    let ops = check("conv", 2);
    assert!(
        !ops.contains(&"sqrt"),
        "batch normalization is folded: {ops:?}"
    );
}

#[test]
fn normalizations() {
    check("norms", 2);
}

#[test]
fn products() {
    let ops = check("products", 2);
    assert!(ops.contains(&"linear"), "{ops:?}");
}

#[test]
fn composite_operators_of_set_23() {
    let ops = check("set23", 2);
    assert_eq!(ops.iter().filter(|o| **o == "attention").count(), 2);
    assert_eq!(ops.iter().filter(|o| **o == "rotary").count(), 2);
    assert!(ops.contains(&"rms_norm"));
}

#[test]
fn functions_are_expanded() {
    check("function", 1);
}

#[test]
fn constants_in_every_form() {
    check("constants", 1);
}

#[test]
fn a_decoder_layer_becomes_composite() {
    let ops = check("decoder", 2);
    let count = |name: &str| ops.iter().filter(|o| **o == name).count();
    let found = ["rms_norm", "rotary", "attention", "silu", "linear"].map(count);
    assert_eq!(found, [2, 2, 1, 1, 8], "{ops:?}");
    assert!(!ops.iter().any(|o| PARTS.contains(o)), "{ops:?}");
}

#[test]
fn an_encoder_layer_becomes_composite() {
    let ops = check("encoder", 2);
    let count = |name: &str| ops.iter().filter(|o| **o == name).count();
    let found = ["layer_norm", "attention", "gelu", "linear", "tanh"].map(count);
    assert_eq!(found, [3, 1, 1, 7, 1], "{ops:?}");
    let left = ops.iter().filter(|o| PARTS.contains(*o) && **o != "tanh");
    assert_eq!(left.count(), 0, "{ops:?}");
}

#[test]
fn importing_twice_gives_the_same_text() {
    for name in ["decoder", "encoder", "shapes"] {
        assert_eq!(imported(name).to_string(), imported(name).to_string());
    }
}

#[test]
fn damaged_models_are_refused_or_imported() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut refused = 0;
    for name in [
        "decoder", "encoder", "layout", "pick", "set23", "function", "conv",
    ] {
        let bytes = std::fs::read(folder().join(format!("{name}.onnx"))).expect("fixture");
        for _ in 0..100 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(damaged.len());
                damaged[at] = [0, 1, 2, 127, 128, 255, damaged[at] ^ 1][random(7)];
            }
            let result = Model::from_bytes(damaged)
                .and_then(|model| import(&model, &ImportOptions::default()));
            if let Err(e) = result {
                assert_ne!(e.class(), Class::Internal, "{name}: {e}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "only {refused} of 700 were refused");
}
