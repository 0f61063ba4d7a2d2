//! Models that are well-formed but cannot be imported: each error has its code and its node.

use qcc::onnx::{ImportOptions, Model, check, import};
use qcc_ir::diag::{Class, Diagnostic};
use qcc_ir::graph::Symbol;

use crate::writer::{Msg, model, model_of, node, value};

/// `FLOAT` and `INT64`.
const F: i64 = 1;
const I: i64 = 7;

/// A graph with inputs `x: f32[n, 4]` and `i: i64[n]`, these nodes, and the output `y`.
fn graph(nodes: &[Msg]) -> Msg {
    let inputs = Msg::default()
        .msg(11, &value("x", F, &["n", "4"]))
        .msg(11, &value("i", I, &["n"]))
        .msg(12, &Msg::default().text(1, "y"));
    nodes.iter().fold(inputs, |g, n| g.msg(1, n))
}

fn error(bytes: Vec<u8>) -> Diagnostic {
    Model::from_bytes(bytes)
        .and_then(|m| import(&m, &ImportOptions::default()))
        .expect_err("refused")
}

fn refused(nodes: &[Msg]) -> Diagnostic {
    error(model(&graph(nodes)))
}

/// An attribute with its type number.
fn int(name: &str, value: i64) -> Msg {
    Msg::default().text(1, name).int(3, value).int(20, 2)
}

#[test]
fn an_unknown_operator_names_the_node_and_the_way_out() {
    let e = refused(&[node("Frobnicate", &["x"], &["y"])]);
    assert_eq!(
        (e.code().as_str(), e.class()),
        ("Q0104", Class::Unsupported)
    );
    assert!(e.message().contains("Frobnicate"), "{e}");
    assert!(e.place().is_some_and(|p| p.contains("the_node")), "{e}");
    assert!(e.advice().is_some(), "{e}");
    let other = node("Add", &["x", "x"], &["y"]).text(7, "com.example");
    assert!(refused(&[other]).message().contains("com.example.Add"));
}

#[test]
fn attributes_are_refused_one_by_one() {
    let add = node("Add", &["x", "x"], &["y"]);
    let softmax = node("Softmax", &["x"], &["y"]);
    let float_axis = Msg::default().text(1, "axis").float(2, 1.0).int(20, 1);
    for (what, node) in [
        ("unknown", add.msg(5, &int("mystery", 1))),
        ("wrong type", softmax.clone().msg(5, &float_axis)),
        (
            "given twice",
            softmax
                .clone()
                .msg(5, &int("axis", 0))
                .msg(5, &int("axis", 1)),
        ),
        ("too many operands", node("Relu", &["x", "x"], &["y"])),
        (
            "optional result",
            node("MaxPool", &["x"], &["y", "indices"]),
        ),
    ] {
        let e = refused(&[node]);
        assert_eq!(e.code(), "Q0105", "{what}: {e}");
    }
    let e = refused(&[softmax.msg(5, &int("axis", 2))]);
    assert_eq!(e.code(), "Q0115", "an axis beyond the rank: {e}");
}

#[test]
fn operands_that_do_not_fit_are_named() {
    for (what, node) in [
        ("types", node("Add", &["x", "i"], &["y"])),
        ("products", node("MatMul", &["x", "i"], &["y"])),
        ("condition", node("Where", &["x", "x", "x"], &["y"])),
        ("indices", node("Gather", &["x", "x"], &["y"])),
        ("matrices", node("Gemm", &["i", "x"], &["y"])),
    ] {
        let e = refused(&[node]);
        assert_eq!(e.code(), "Q0115", "{what}: {e}");
        assert_eq!(e.class(), Class::Input, "{what}: {e}");
    }
}

#[test]
fn inconsistent_graphs_are_refused() {
    for (what, nodes) in [
        ("undefined", vec![node("Relu", &["z"], &["y"])]),
        ("missing operand", vec![node("Add", &["x"], &["y"])]),
        ("left out operand", vec![node("Add", &["", "x"], &["y"])]),
        (
            "defined twice",
            vec![node("Relu", &["x"], &["y"]), node("Relu", &["x"], &["y"])],
        ),
        (
            "not sorted",
            vec![node("Relu", &["z"], &["y"]), node("Relu", &["x"], &["z"])],
        ),
        ("no output", vec![node("Relu", &["x"], &["z"])]),
        ("too many results", vec![node("Relu", &["x"], &["y", "z"])]),
    ] {
        let e = refused(&nodes);
        assert_eq!(e.code(), "Q0114", "{what}: {e}");
    }
}

#[test]
fn shapes_that_depend_on_data_are_refused() {
    let e = refused(&[node("Reshape", &["x", "i"], &["y"])]);
    assert_eq!(
        (e.code().as_str(), e.class()),
        ("Q0116", Class::Unsupported)
    );
    assert!(e.advice().is_some(), "{e}");
}

#[test]
fn operator_sets_outside_of_the_range_are_refused() {
    let relu = graph(&[node("Relu", &["x"], &["y"])]);
    for opset in [13, 23] {
        let m = Model::from_bytes(model_of(&relu, opset)).expect("opened");
        assert!(import(&m, &ImportOptions::default()).is_ok(), "{opset}");
    }
    for opset in [0, 12, 24, i64::MAX] {
        let e = error(model_of(&relu, opset));
        assert_eq!(
            (e.code().as_str(), e.class()),
            ("Q0103", Class::Unsupported),
            "{opset}"
        );
    }
}

#[test]
fn every_node_has_a_verdict() {
    let nodes = [
        node("Relu", &["x"], &["a"]),
        node("Frobnicate", &["a"], &["b"]),
        node("Relu", &["b"], &["c"]),
        node("Reshape", &["a", "i"], &["d"]),
        node("Add", &["a", "a"], &["y"]),
    ];
    let m = Model::from_bytes(model(&graph(&nodes))).expect("opened");
    let verdicts = check(&m, &ImportOptions::default()).expect("checked");
    let codes: Vec<Option<String>> = verdicts
        .iter()
        .map(|v| v.refused.as_ref().map(Diagnostic::code))
        .collect();
    let code = |c: &str| Some(c.to_string());
    assert_eq!(
        codes,
        [None, code("Q0104"), code("Q0117"), code("Q0116"), None]
    );
    assert_eq!(verdicts[1].op, "Frobnicate");
    assert_eq!(verdicts[1].node, "the_node");
}

#[test]
fn dimensions_that_must_be_equal_are_assumed_to_be_and_reported() {
    let graph = Msg::default()
        .msg(11, &value("x", F, &["n", "4"]))
        .msg(11, &value("z", F, &["m", "4"]))
        .msg(12, &Msg::default().text(1, "y"))
        .msg(1, &node("Add", &["x", "z"], &["y"]));
    let m = Model::from_bytes(model(&graph)).expect("opened");
    let imported = import(&m, &ImportOptions::default()).expect("imported");
    assert_eq!(imported.warnings.len(), 1);
    assert_eq!(imported.warnings[0].code(), "Q0119");
    assert!(imported.warnings[0].message().contains("m is equal to n"));
    let text = imported.module.to_string();
    assert!(text.contains("%z: f32[n, 4]"), "{text}");
    let fixed = graph.0;
    let bad = Msg(fixed)
        .msg(11, &value("q", F, &["3", "5"]))
        .msg(1, &node("Add", &["x", "q"], &["r"]));
    assert_eq!(error(model(&bad)).code(), "Q0115", "4 and 5 never are");
}

#[test]
fn ranges_of_dimensions_can_be_given() {
    let relu = graph(&[node("Relu", &["x"], &["y"])]);
    let m = Model::from_bytes(model(&relu)).expect("opened");
    let symbol = |name: &str| Symbol {
        name: name.into(),
        min: 2,
        max: 8,
        points: vec![4],
    };
    let with = |name: &str| {
        import(
            &m,
            &ImportOptions {
                symbols: vec![symbol(name)],
            },
        )
    };
    let module = with("n").expect("imported").module;
    assert_eq!(module.symbols, [symbol("n")]);
    let e = with("batch").expect_err("unknown");
    assert_eq!((e.code().as_str(), e.class()), ("Q0118", Class::Usage));
    assert!(e.advice().is_some_and(|a| a.contains('n')), "{e}");
}

#[test]
fn shapes_that_grow_without_end_are_refused() {
    // Each step squares the number of elements: (n + 1)^2, ^4, ^8, ...
    let mut nodes = vec![
        node("Concat", &["i", "one"], &["v0"]).msg(5, &int("axis", 0)),
        node("Constant", &[], &["one"]).msg(
            5,
            &Msg::default().text(1, "value_ints").int(8, 1).int(20, 7),
        ),
        node("Constant", &[], &["all"]).msg(
            5,
            &Msg::default().text(1, "value_ints").int(8, -1).int(20, 7),
        ),
        node("Constant", &[], &["last"]).msg(
            5,
            &Msg::default().text(1, "value_ints").int(8, 1).int(20, 7),
        ),
    ];
    nodes.rotate_left(1);
    for k in 0..20 {
        let [v, column, square, next] = [
            format!("v{k}"),
            format!("c{k}"),
            format!("s{k}"),
            format!("v{}", k + 1),
        ];
        nodes.push(node("Unsqueeze", &[&v, "last"], &[&column]));
        nodes.push(node("Add", &[&column, &v], &[&square]));
        nodes.push(node("Reshape", &[&square, "all"], &[&next]));
    }
    let e = refused(&nodes);
    assert_eq!(e.code(), "Q0102", "{e}");
    // The same with sizes alone.
    let mut nodes = vec![node("Shape", &["i"], &["v0"])];
    nodes.push(
        node("Constant", &[], &["one"])
            .msg(5, &Msg::default().text(1, "value_int").int(3, 1).int(20, 2)),
    );
    for k in 0..40 {
        let [v, sum, next] = [format!("v{k}"), format!("s{k}"), format!("v{}", k + 1)];
        nodes.push(node("Add", &[&v, "one"], &[&sum]));
        nodes.push(node("Mul", &[&sum, &v], &[&next]));
    }
    assert_eq!(refused(&nodes).code(), "Q0102");
}

#[test]
fn too_many_named_dimensions_are_refused() {
    let inputs = (0..2000).fold(Msg::default(), |g, i| {
        g.msg(11, &value(&format!("x{i}"), F, &[&format!("d{i}")]))
    });
    assert_eq!(error(model(&inputs)).code(), "Q0102");
    let many = Msg::default().msg(5, &crate::writer::tensor(&[1; 40]).bytes(9, &[0; 4]));
    assert_eq!(error(model(&many)).code(), "Q0111", "40 dimensions");
}

#[test]
fn a_lookup_of_positions_bounds_the_length() {
    let table = Msg::default()
        .int(2, F)
        .text(8, "table")
        .int(1, 16)
        .int(1, 2)
        .bytes(9, &[0; 128]);
    let scalar = |name: &str, v: i64| {
        node("Constant", &[], &[name])
            .msg(5, &Msg::default().text(1, "value_int").int(3, v).int(20, 2))
    };
    let nodes = [
        scalar("zero", 0),
        scalar("one", 1),
        node("Size", &["i"], &["n"]),
        node("Range", &["zero", "n", "one"], &["places"]),
        node("Gather", &["table", "places"], &["y"]),
    ];
    let m = Model::from_bytes(model(&graph(&nodes).msg(5, &table))).expect("opened");
    let imported = import(&m, &ImportOptions::default()).expect("imported");
    assert_eq!(imported.module.symbols[0].max, 16);
    assert!(imported.warnings[0].message().contains("n is at most 16"));
}

#[test]
fn inputs_must_be_tensors_of_known_rank() {
    let unknown = Msg::default().text(1, "x");
    let g = Msg::default()
        .msg(11, &unknown)
        .msg(12, &Msg::default().text(1, "x"));
    assert_eq!(error(model(&g)).code(), "Q0113");
    let rankless = Msg::default().msg(1, &Msg::default().int(1, F));
    let g = Msg::default().msg(11, &Msg::default().text(1, "x").msg(2, &rankless));
    assert_eq!(error(model(&g)).code(), "Q0116");
    let strings = graph(&[node("Relu", &["x"], &["y"])]).msg(11, &value("s", 8, &["2"]));
    assert_eq!(error(model(&strings)).code(), "Q0112");
    let mut declared = graph(&[node("Relu", &["x"], &["y"])]);
    declared
        .0
        .extend(Msg::default().msg(12, &value("i", F, &["n"])).0);
    assert_eq!(
        error(model(&declared)).code(),
        "Q0115",
        "declared FLOAT, is INT64"
    );
}
