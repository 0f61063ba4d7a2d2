//! Text and numbers as HTML.

/// Text that may stand between tags and in quoted attributes. Control characters, which HTML
/// forbids, become the replacement character.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(' '),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A name that may break after its separators.
pub(super) fn name(text: &str) -> String {
    let escaped = escape(text);
    let mut out = String::from("<code>");
    for c in escaped.chars() {
        out.push(c);
        if matches!(c, '/' | '.' | '_' | ',') {
            out += "<wbr>";
        }
    }
    out + "</code>"
}

/// Bytes in the largest unit of which there is at least one.
pub(super) fn bytes(n: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| n >= 1 << shift) {
        Some((unit, shift)) => format!("{:.2} {unit}", n as f64 / (1u64 << shift) as f64),
        None => format!("{n} B"),
    }
}

/// A share in percent, with as many digits as tell it from nothing.
pub(super) fn percent(share: f64) -> String {
    match share {
        0.0 => "0 %".into(),
        s if s < 0.0001 => format!("{:.0e} %", s * 100.0),
        s if s < 0.1 => format!("{:.2} %", s * 100.0),
        s => format!("{:.1} %", s * 100.0),
    }
}

/// A figure, or a dash where it is not known.
pub(super) fn known(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_string(), show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        let hostile = "</code><script>alert('x')</script> & \"q\"\u{0}";
        let safe = "&lt;/code&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;q&quot;\u{fffd}";
        assert_eq!(escape(hostile), safe);
        assert!(!name(hostile).contains("<script"));
        assert_eq!(name("a/b"), "<code>a/<wbr>b</code>");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 19), "1.50 MiB");
        let percents = [0.0, 0.000002, 0.0312, 0.5].map(percent);
        assert_eq!(percents, ["0 %", "2e-4 %", "3.12 %", "50.0 %"]);
    }
}
