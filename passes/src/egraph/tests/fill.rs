//! Bodies of cases become modules: random sizes, functions and weights.
//!
//! `M`, `K`, `N` stand for sizes, `QUANT` for a static scheme with one scale, `<unary>`,
//! `<binary>`, `<arith>` (not `add`) and `<int>` for random choices. A body names constants and
//! parameters from the list `DECLARED`.

/// The codes of a static scheme with one scale.
const QUANT: &str = "q<<int>, [*, *], scale=f32>";

/// Numbers for a case.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// A number below `n` (SplitMix64).
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Constants and parameters that bodies use; only what a body names is declared.
const DECLARED: &[(&str, &str)] = &[
    ("w", "f32[N, K] const normal"),
    ("wb", "f32[N, K] const normal"),
    ("w2", "f32[2N, K] const normal"),
    ("w16", "f32[16, K] const normal"),
    ("one", "f32[1, K] const normal"),
    ("wd", "f64[N, K] const normal"),
    ("wq", "q<i8, [1, *], scale=f32>[N, K] const codes"),
    ("wq2", "q<i8, [1, *], scale=f32>[N, K] const codes"),
    ("wt", "q<i8, [*, *], scale=f32>[N, K] const codes"),
    ("wt2", "q<i8, [*, *], scale=f32>[N, K] const codes"),
    ("b", "f32[N] const normal"),
    ("c", "f32[N] const normal"),
    ("cs", "f32[1, N] const positive"),
    ("g", "f32[K] const normal"),
    ("gb", "f32[K] const normal"),
    ("g8", "f32[8] const normal"),
    ("cw", "f32[N, 2, 2, 2] const normal"),
    ("x", "f32[M, K]"),
    ("k", "f32[M, K]"),
    ("x0", "f32[K]"),
    ("x1", "f32[1, K]"),
    ("x8", "f32[M, 8]"),
    ("xd", "f64[M, K]"),
    ("r", "f32[M, N]"),
    ("i", "f32[1, 2, 4, 4]"),
    ("ir", "f32[1, N, 3, 3]"),
    ("q", "f32[1, M, 4]"),
    ("q1", "f32[1, 1, 4]"),
    ("kk", "f32[1, M, 2]"),
    ("v", "f32[1, M, 2]"),
    ("mask", "bool[M, M]"),
    ("cos", "f32[M, 1]"),
    ("sin", "f32[M, 1]"),
    ("cos1", "f32[1, 1]"),
    ("sin1", "f32[1, 1]"),
];

const UNARY: &[&str] = &[
    "neg",
    "abs",
    "sqrt",
    "recip",
    "exp",
    "erf",
    "tanh",
    "sigmoid",
    "relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "hard_swish",
    "floor",
    "round",
];
const BINARY: &[&str] = &["add", "sub", "mul", "div", "min", "max"];

/// A module of a body with random sizes, functions and weights.
pub(super) fn fill(body: &str, rng: &mut Rng) -> String {
    let (m, k, n) = (1 + rng.below(4), 1 + rng.below(6), 1 + rng.below(5));
    let mut body = body.replace("QUANT", QUANT);
    for (word, list) in [
        ("<unary>", UNARY),
        ("<binary>", BINARY),
        ("<arith>", &BINARY[1..]),
        ("<int>", &["i8", "u8", "e4m3", "e5m2"]),
    ] {
        // Every occurrence of a format in one body is the same, functions vary.
        let same = word == "<int>";
        let first = rng.pick(list);
        while body.contains(word) {
            let pick = if same { first } else { rng.pick(list) };
            body = body.replacen(word, pick, 1);
        }
    }
    let sizes = |s: &str| -> String {
        s.replace("2N", &(2 * n).to_string())
            .replace('M', &m.to_string())
            .replace('K', &k.to_string())
            .replace('N', &n.to_string())
    };
    let body = sizes(&body);
    let (mut weights, mut consts, mut params) = (String::new(), String::new(), Vec::new());
    for (name, what) in DECLARED {
        let what = sizes(what);
        if !names(&body, name) {
            continue;
        }
        match what.split_once(" const ") {
            None => params.push(format!("%{name}: {what}")),
            Some((ty, data)) => {
                let (w, c) = constant(name, ty, data, rng);
                weights.push_str(&w);
                consts.push_str(&c);
            }
        }
    }
    let (ops, returned) = body.split_once("return").expect("a body returns something");
    let results: Vec<String> = returned
        .split(',')
        .enumerate()
        .map(|(i, v)| format!("r{i}: {}", type_of(ops, v.trim())))
        .collect();
    format!(
        "{weights}func @main({}) -> ({}) {{\n{consts}{ops}return{returned}\n}}\n",
        params.join(", "),
        results.join(", ")
    )
}

/// Whether a body reads a value and does not define it.
fn names(body: &str, name: &str) -> bool {
    let reads = |c: char| !(c.is_alphanumeric() || c == '_' || c == '.');
    body.match_indices(&format!("%{name}")).any(|(at, text)| {
        let rest = &body[at + text.len()..];
        rest.is_empty() || rest.starts_with(reads)
    }) && !body.contains(&format!("%{name}:"))
}

/// The type that a value is defined with.
fn type_of<'a>(ops: &'a str, v: &str) -> &'a str {
    let at = ops.find(&format!("{v}: ")).expect("a result is defined");
    let rest = &ops[at + v.len() + 2..];
    let mut depth = 0;
    let end = rest.find(|c: char| {
        depth += match c {
            '[' | '<' => 1,
            ']' | '>' => -1,
            _ => 0,
        };
        depth == 0 && (c == ' ' || c == ',')
    });
    rest[..end.expect("a type ends")].trim()
}

fn constant(name: &str, ty: &str, data: &str, rng: &mut Rng) -> (String, String) {
    let seed = rng.below(1 << 30);
    if let Some(rest) = ty.strip_prefix("q<i8, ") {
        let dims = &rest[rest.rfind('[').expect("a shape")..];
        let rows = dims
            .trim_start_matches('[')
            .split(',')
            .next()
            .unwrap_or("1");
        let scales = if rest.starts_with("[*") {
            "[]".into()
        } else {
            format!("[{rows}, 1]")
        };
        let weights = format!(
            "weight @{name}: i8{dims} = normal({seed}, 40.0)\n\
             weight @{name}.s: f32{scales} = splat({})\n",
            0.01 + rng.below(8) as f64 * 0.015625
        );
        return (
            weights,
            format!("%{name}: {ty} = const @{name}, @{name}.s\n"),
        );
    }
    let contents = match data {
        "positive" => format!("splat({})", 0.1 + rng.below(8) as f64 * 0.0625),
        _ => format!("normal({seed}, 1.0)"),
    };
    (
        format!("weight @{name}: {ty} = {contents}\n"),
        format!("%{name}: {ty} = const @{name}\n"),
    )
}
