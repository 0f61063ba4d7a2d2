//! Cases of `foreign/cases`: their arrays, their launch, and the comparison with what is right.

use std::path::{Path, PathBuf};

use ptxsim::{Arg, DevPtr, ElementType, Launch, Memory, OobFill, Swizzle, TensorMap};

pub(crate) enum Check {
    Exact,
    F32(f64),
}

pub(crate) struct Output {
    ptr: DevPtr,
    want: Vec<u8>,
    check: Check,
    name: String,
}

pub(crate) struct Setup {
    pub(crate) memory: Memory,
    pub(crate) launch: Launch,
    pub(crate) entry: String,
    pub(crate) outputs: Vec<Output>,
    /// The fault that this kernel is known to have.
    pub(crate) fault: Option<String>,
}

fn numbers<T: std::str::FromStr>(text: &str, by: char) -> Vec<T> {
    text.split(by)
        .map(|v| v.parse().ok().expect("a number"))
        .collect()
}

fn triple(words: &[&str]) -> [u32; 3] {
    [0, 1, 2].map(|i| words[i].parse().expect("a number"))
}

fn map(address: u64, words: &[&str]) -> TensorMap {
    TensorMap {
        address,
        element: match words[0] {
            "f16" => ElementType::F16,
            "f32" => ElementType::F32,
            "u8" => ElementType::U8,
            other => panic!("element {other}"),
        },
        dims: numbers(words[1], ','),
        strides: numbers(words[2], ','),
        box_dims: numbers(words[3], ','),
        swizzle: match words[4] {
            "none" => Swizzle::None,
            "b32" => Swizzle::B32,
            "b64" => Swizzle::B64,
            _ => Swizzle::B128,
        },
        fill: OobFill::Zero,
    }
}

/// Reads a case.
pub(crate) fn setup(dir: &Path) -> Setup {
    let text = std::fs::read_to_string(dir.join("case.txt")).expect("case.txt");
    let mut s = Setup {
        memory: Memory::new(),
        launch: Launch::default(),
        entry: String::new(),
        outputs: vec![],
        fault: None,
    };
    let file = |name: &str| std::fs::read(dir.join(name)).expect("an array");
    for line in text.lines() {
        let w: Vec<&str> = line.split_whitespace().collect();
        let mut place = |name: &str| {
            let data = file(name);
            let p = s.memory.alloc(data.len() as u64).expect("memory");
            (p, data)
        };
        match w[0] {
            "entry" => s.entry = w[1].into(),
            "grid" => s.launch.grid = triple(&w[1..]),
            "block" => s.launch.block = triple(&w[1..]),
            "shared" => s.launch.shared_bytes = w[1].parse().expect("bytes"),
            "in" => {
                let (p, data) = place(w[1]);
                s.memory.write(p, &data).expect("in range");
                s.launch.args.push(Arg::Ptr(p));
            }
            "inout" => {
                let (p, data) = place(w[1]);
                s.memory.write(p, &data).expect("in range");
                s.launch.args.push(Arg::Ptr(p));
                s.outputs.push(Output {
                    ptr: p,
                    want: file(w[2]),
                    check: Check::Exact,
                    name: w[2].into(),
                });
            }
            "out" => {
                let (p, want) = place(w[1]);
                let check = if w[3] == "exact" {
                    Check::Exact
                } else {
                    Check::F32(w[4].parse().expect("a tolerance"))
                };
                s.launch.args.push(Arg::Ptr(p));
                s.outputs.push(Output {
                    ptr: p,
                    want,
                    check,
                    name: w[1].into(),
                });
            }
            "u32" => s.launch.args.push(Arg::U32(w[1].parse().expect("u32"))),
            "u64" => s.launch.args.push(Arg::U64(w[1].parse().expect("u64"))),
            "tensormap" | "outmap" => {
                let (p, data) = place(w[1]);
                if w[0] == "outmap" {
                    s.outputs.push(Output {
                        ptr: p,
                        want: data,
                        check: Check::Exact,
                        name: w[1].into(),
                    });
                } else {
                    s.memory.write(p, &data).expect("in range");
                }
                s.launch.args.push(Arg::Bytes(
                    map(p.0, &w[2..]).encode().expect("a tensor map").to_vec(),
                ));
            }
            "fault" => s.fault = Some(w[1].into()),
            other => panic!("directive {other}"),
        }
    }
    s
}

/// Compares one output.
pub(crate) fn compare(memory: &Memory, o: &Output) -> Result<(), String> {
    let mut got = vec![0; o.want.len()];
    memory.read(o.ptr, &mut got).map_err(|e| e.to_string())?;
    match o.check {
        Check::Exact => match got.iter().zip(&o.want).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(i) => {
                let wrong = got.iter().zip(&o.want).filter(|(a, b)| a != b).count();
                Err(format!(
                    "{}: {wrong} of {} bytes differ, first at {i}: {} where {} is right",
                    o.name,
                    got.len(),
                    got[i],
                    o.want[i]
                ))
            }
        },
        Check::F32(tolerance) => {
            for (i, (a, b)) in got.chunks(4).zip(o.want.chunks(4)).enumerate() {
                let f = |b: &[u8]| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                if (f(a) - f(b)).abs() > tolerance * f(b).abs() {
                    return Err(format!(
                        "{}: element {i} is {} where {} is right",
                        o.name,
                        f(a),
                        f(b)
                    ));
                }
            }
            Ok(())
        }
    }
}

/// Folder of all cases.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/cases")
}
