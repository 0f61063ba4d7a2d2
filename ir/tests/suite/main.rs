//! Text forms, verifiers, evaluators and number formats; one program, so that it is linked once.

mod eval_ops;
mod format_codecs;
mod format_properties;
mod format_quantize;
mod graph_text;
mod graph_text_random;
mod kernel_eval;
mod kernel_text;
mod kernel_verify;
mod plan;
