//! Variables: state space, alignment, element type, dimensions and initial bytes.

use super::ast::{Var, VarSpace};
use super::error::ParseError;
use super::lexer::Tok;
use super::{Reader, describe};

/// Bytes of a fundamental type by its name without the dot.
pub(super) fn type_bytes(name: &str) -> Option<u32> {
    Some(match name {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}

/// Reads one variable declaration up to and with its semicolon.
pub(super) fn read_var(r: &mut Reader, external: bool) -> Result<Var, ParseError> {
    let (mut space, mut width, mut vector, mut align, mut float) = (None, None, 1u32, None, false);
    while let Tok::Dot(name) = r.tok().clone() {
        r.at += 1;
        match name.as_str() {
            "shared" if external => space = Some(VarSpace::ExternShared),
            "shared" => space = Some(VarSpace::Shared),
            "global" => space = Some(VarSpace::Global),
            "const" => space = Some(VarSpace::Const),
            "local" => space = Some(VarSpace::Local),
            "align" => align = Some(r.count("an alignment")?),
            "v2" => vector = 2,
            "v4" => vector = 4,
            other => match type_bytes(other) {
                Some(bytes) => {
                    width = Some(bytes);
                    float = other.starts_with('f');
                }
                None => {
                    return r.syntax(format!("`.{other}` is not built in a variable declaration"));
                }
            },
        }
    }
    let Some(space) = space else {
        return r.syntax("variable has no state space");
    };
    if external && space != VarSpace::ExternShared {
        return r.syntax("only `.extern .shared` is built");
    }
    let Some(width) = width else {
        return r.syntax("variable has no type");
    };
    let name = r.ident("a variable name")?;
    let mut size = u64::from(width) * u64::from(vector);
    let mut open = false;
    while r.eat('[') {
        if r.eat(']') {
            open = true;
            continue;
        }
        size = size.saturating_mul(u64::from(r.count("a length")?));
        r.expect(']')?;
    }
    if open && space == VarSpace::ExternShared {
        size = 0;
    } else if open {
        return r.syntax("an array without length is only built for `.extern .shared`");
    }
    if size > 1 << 30 {
        return r.syntax(format!("variable `{name}` is larger than 1 GiB"));
    }
    let align = align.unwrap_or(width * vector).max(1);
    if !align.is_power_of_two() {
        return r.syntax(format!("alignment {align} is no power of two"));
    }
    let mut init = None;
    if r.eat('=') {
        if matches!(
            space,
            VarSpace::Shared | VarSpace::ExternShared | VarSpace::Local
        ) {
            return r.syntax("only .global and .const variables take initial values");
        }
        let mut bytes = Vec::new();
        read_init(r, width, float, &mut bytes)?;
        if bytes.len() as u64 > size {
            return r.syntax("more initial values than elements");
        }
        bytes.resize(size as usize, 0);
        init = Some(bytes);
    }
    r.expect(';')?;
    Ok(Var {
        name,
        space,
        align,
        size: size as u32,
        init,
    })
}

fn read_init(r: &mut Reader, width: u32, float: bool, out: &mut Vec<u8>) -> Result<(), ParseError> {
    if r.eat('{') {
        while !r.eat('}') {
            read_init(r, width, float, out)?;
            if !r.eat(',') && !r.is_punct('}') {
                return r.syntax("expected ',' or '}' in an initializer");
            }
        }
        return Ok(());
    }
    let negative = r.eat('-');
    let bits = match r.next() {
        Tok::Int(v) if negative => v.wrapping_neg(),
        Tok::Int(v) => v,
        Tok::F32(v) if width == 4 => u64::from(v),
        Tok::F64(v) if float || width == 8 => {
            let v = if negative {
                -f64::from_bits(v)
            } else {
                f64::from_bits(v)
            };
            if width == 4 {
                u64::from((v as f32).to_bits())
            } else {
                v.to_bits()
            }
        }
        other => {
            return r.syntax(format!(
                "{} is not built as an initial value",
                describe(&other)
            ));
        }
    };
    let bytes = u128::from(bits).to_le_bytes();
    out.extend_from_slice(&bytes[..width as usize]);
    Ok(())
}
