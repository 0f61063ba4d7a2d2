//! Module level: version, target, variables and entries.

use super::ast::{Ast, Kernel, Param};
use super::body::read_body;
use super::error::{ParseError, ParseErrorKind};
use super::lexer::Tok;
use super::vars::{read_var, type_bytes};
use super::{Reader, describe};

/// Reads all statements of a module.
pub(super) fn read_module(r: &mut Reader) -> Result<Ast, ParseError> {
    let mut ast = Ast::default();
    loop {
        let pos = r.pos();
        match r.tok().clone() {
            Tok::End => return Ok(ast),
            Tok::Punct(';') => r.at += 1,
            Tok::Dot(name) => match name.as_str() {
                "version" => {
                    r.at += 1;
                    ast.version = version(r)?;
                }
                "target" => {
                    r.at += 1;
                    ast.target = r.ident("a target")?;
                    while r.eat(',') {
                        r.ident("a target option")?;
                    }
                }
                "address_size" => {
                    r.at += 1;
                    if r.count("32 or 64")? != 64 {
                        return r.syntax("only .address_size 64 is built");
                    }
                }
                "file" | "loc" => r.skip_line(),
                "pragma" => {
                    r.at += 2;
                    r.expect(';')?;
                }
                "section" => {
                    r.at += 2;
                    r.skip_braces()?;
                }
                "visible" | "weak" | "extern" | "common" => linkage(r, &mut ast)?,
                "entry" => {
                    r.at += 1;
                    ast.kernels.push(read_entry(r)?);
                }
                "global" | "const" | "shared" => ast.vars.push(read_var(r, false)?),
                other => {
                    let text = format!("directive `.{other}` is not built at module level");
                    return Err(ParseError::new(ParseErrorKind::UnknownDirective, pos, text));
                }
            },
            other => return r.syntax(format!("expected a directive, found {}", describe(&other))),
        }
    }
}

fn version(r: &mut Reader) -> Result<(u32, u32), ParseError> {
    match r.next() {
        Tok::F64(bits) => {
            let v = f64::from_bits(bits);
            Ok((v as u32, ((v - v.trunc()) * 10.0).round() as u32))
        }
        Tok::Int(v) => Ok((v as u32, 0)),
        other => r.syntax(format!("expected a version, found {}", describe(&other))),
    }
}

fn linkage(r: &mut Reader, ast: &mut Ast) -> Result<(), ParseError> {
    let mut external = false;
    while let Tok::Dot(name) = r.tok().clone() {
        match name.as_str() {
            "visible" | "weak" | "common" => r.at += 1,
            "extern" => {
                external = true;
                r.at += 1;
            }
            _ => break,
        }
    }
    if *r.tok() == Tok::Dot("entry".into()) {
        r.at += 1;
        ast.kernels.push(read_entry(r)?);
        return Ok(());
    }
    if *r.tok() == Tok::Dot("func".into()) {
        let text = "directive `.func` is not built: device functions must be inlined";
        return Err(ParseError::new(
            ParseErrorKind::UnknownDirective,
            r.pos(),
            text,
        ));
    }
    ast.vars.push(read_var(r, external)?);
    Ok(())
}

fn read_entry(r: &mut Reader) -> Result<Kernel, ParseError> {
    let mut kernel = Kernel {
        name: r.ident("a kernel name")?,
        ..Kernel::default()
    };
    if r.eat('(') {
        let mut end = 0;
        while !r.eat(')') {
            let p = read_param(r, end)?;
            end = p.offset + p.size;
            kernel.params.push(p);
            if !r.eat(',') && !r.is_punct(')') {
                return r.syntax("expected ',' or ')' after a parameter");
            }
        }
    }
    tuning(r, &mut kernel)?;
    read_body(r, &mut kernel)?;
    Ok(kernel)
}

fn read_param(r: &mut Reader, end: u32) -> Result<Param, ParseError> {
    let (mut width, mut align, mut vector) = (None, None, 1);
    while let Tok::Dot(name) = r.tok().clone() {
        r.at += 1;
        match name.as_str() {
            "param" => {}
            "ptr" => {
                if let Tok::Dot(space) = r.tok().clone()
                    && matches!(space.as_str(), "global" | "shared" | "const" | "local")
                {
                    r.at += 1;
                }
                if *r.tok() == Tok::Dot("align".into()) {
                    r.at += 1;
                    r.count("an alignment")?;
                }
            }
            "align" => align = Some(r.count("an alignment")?),
            "v2" => vector = 2,
            "v4" => vector = 4,
            other => match type_bytes(other) {
                Some(bytes) => width = Some(bytes),
                None => return r.syntax(format!("`.{other}` is no parameter type")),
            },
        }
    }
    let name = r.ident("a parameter name")?;
    let Some(width) = width else {
        return r.syntax("parameter has no type");
    };
    let mut size = width * vector;
    while r.eat('[') {
        let n = r.count("a length")?;
        size = size
            .checked_mul(n)
            .filter(|s| *s <= 1 << 16)
            .map_or_else(|| r.syntax("parameter is too large"), Ok)?;
        r.expect(']')?;
    }
    let align = align.unwrap_or(width * vector).max(1);
    if !align.is_power_of_two() || align > 4096 {
        return r.syntax(format!("alignment {align} is no power of two up to 4096"));
    }
    let offset = end.next_multiple_of(align);
    if offset > 1 << 16 {
        return r.syntax("parameters are larger than 64 KiB");
    }
    Ok(Param {
        name,
        offset,
        size,
        align,
    })
}

/// Directives between the parameter list and the body.
fn tuning(r: &mut Reader, kernel: &mut Kernel) -> Result<(), ParseError> {
    while let Tok::Dot(name) = r.tok().clone() {
        let pos = r.pos();
        r.at += 1;
        match name.as_str() {
            "maxntid" => kernel.max_threads = Some((r.triple("a thread count")?, false)),
            "reqntid" => kernel.max_threads = Some((r.triple("a thread count")?, true)),
            "maxnreg" => kernel.max_regs = Some(r.count("a number")?),
            "minnctapersm" | "maxnctapersm" | "maxclusterrank" => {
                r.count("a number")?;
            }
            "reqnctapercluster" => kernel.cluster = Some(r.triple("a cluster size")?),
            "explicitcluster" | "blocksareclusters" | "noreturn" => {}
            "pragma" => {
                r.at += 1;
                r.expect(';')?;
            }
            other => {
                let text = format!("directive `.{other}` is not built for a kernel");
                return Err(ParseError::new(ParseErrorKind::UnknownDirective, pos, text));
            }
        }
    }
    Ok(())
}
