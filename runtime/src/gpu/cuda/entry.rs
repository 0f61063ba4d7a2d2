//! What a launch must know of a kernel, read from its PTX text.
//!
//! The driver takes as many arguments as the kernel declares, whatever the caller passes, so the
//! sizes of the parameters are read from the `.entry` line. A kernel that contains
//! `griddepcontrol.wait` may start before the kernel in front of it ends.

/// Parameters and behaviour of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes of each parameter, in order.
    pub(super) params: Vec<usize>,
    /// Whether it waits by itself for the kernels before it.
    pub(super) waits: bool,
}

/// Finds the kernel `name` in a text.
pub(super) fn find(text: &str, name: &str) -> Option<Entry> {
    let text = without_comments(text);
    for (at, _) in text.match_indices(".entry") {
        let rest = text[at + ".entry".len()..].trim_start();
        let Some(rest) = rest.strip_prefix(name) else {
            continue;
        };
        let rest = rest.trim_start();
        let (params, rest) = match rest.strip_prefix('(') {
            Some(inner) => inner.split_once(')')?,
            None if rest.starts_with(['.', '{']) => ("", rest),
            None => continue,
        };
        let body = rest.split(".entry").next().unwrap_or(rest);
        return Some(Entry {
            params: sizes(params)?,
            waits: body.contains("griddepcontrol.wait"),
        });
    }
    None
}

/// The text with comments blanked.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let skip = if from.starts_with("//") {
            from.find('\n').unwrap_or(from.len())
        } else if from.starts_with("/*") {
            from.find("*/").map_or(from.len(), |end| end + 2)
        } else {
            out.push('/');
            1
        };
        rest = &from[skip..];
    }
    out.push_str(rest);
    out
}

/// Bytes of each parameter of a list such as `.param .u64 x, .param .align 64 .b8 map[128]`.
fn sizes(params: &str) -> Option<Vec<usize>> {
    let params = params.trim();
    if params.is_empty() {
        return Some(Vec::new());
    }
    params.split(',').map(size).collect()
}

fn size(param: &str) -> Option<usize> {
    let kind = |word: &str| {
        let bits = word.strip_prefix('.')?.strip_prefix(['u', 's', 'b', 'f'])?;
        bits.parse::<usize>().ok().map(|bits| bits / 8)
    };
    let bytes = param.split_whitespace().find_map(kind)?;
    let count = match param.split_once('[') {
        Some((_, count)) => count.split_once(']')?.0.trim().parse().ok()?,
        None => 1,
    };
    bytes.checked_mul(count)
}

#[cfg(test)]
mod tests {
    use super::{Entry, find};

    const TEXT: &str = "
        .version 8.0 .target sm_90 .address_size 64
        // .entry first(.param .u32 no)
        .visible .entry first_long(.param .u64 x) { ret; }
        .visible .entry first(
            .param .u64 x, /* , */ .param .u32 n,
            .param .align 64 .b8 map[128], .param .u64 .ptr .global .align 16 p
        ) .reqntid 128, 1, 1
        { griddepcontrol.wait; ret; }
        .entry none { ret; }";

    #[test]
    fn parameters_and_waits_are_read() {
        let first = Entry {
            params: vec![8, 4, 128, 8],
            waits: true,
        };
        assert_eq!(find(TEXT, "first"), Some(first));
        let long = find(TEXT, "first_long").map(|e| (e.params, e.waits));
        assert_eq!(long, Some((vec![8], false)));
        assert_eq!(find(TEXT, "none").map(|e| e.params), Some(vec![]));
        assert_eq!(find(TEXT, "fir"), None);
        assert_eq!(find("", "x"), None);
    }
}
