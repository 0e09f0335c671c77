//! What the definitions say in WGSL: complete, and valid beside its prelude.

#[cfg(feature = "gpu")]
mod device;

use super::{prelude, rounds};
use crate::dtype::DType;
use crate::graph::{BinaryDef, Promote, UnaryDef};
use crate::ops::table::{Definition, TABLE};
use crate::ops::{cast_wgsl, select_wgsl};

/// How a register of a dtype is declared.
fn register(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::I32 => "i32",
        DType::I64 => "vec2<u32>",
        DType::Bool | DType::U8 => "u32",
        DType::F64 => "f64",
    }
}

/// A shader that computes an expression in operands of these names and types.
fn shader(text: &str, operands: &[(&str, &str)], result: DType) -> String {
    let parameters: Vec<_> = operands.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
    format!(
        "@group(0) @binding(0) var<uniform> p: array<vec4<u32>, 1>;\n{}fn f({}) -> {} {{\n    return {text};\n}}\n",
        prelude(text),
        parameters.join(", "),
        register(result)
    )
}

fn validate(name: &str, text: &str, operands: &[(&str, &str)], result: DType) {
    let source = shader(text, operands, result);
    let module = match naga::front::wgsl::parse_str(&source) {
        Ok(module) => module,
        Err(error) => panic!("{name}: {}", error.emit_to_string(&source)),
    };
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
    if let Err(error) = validator.validate(&module) {
        panic!("{name}: {}", error.emit_to_string(&source));
    }
}

fn result(promote: Promote, dtype: DType) -> DType {
    if promote == Promote::Compare { DType::Bool } else { dtype }
}

/// Where a definition has a kernel it has a text, but for float64.
fn assert_complete(name: &str, dtype: DType, has_kernel: bool, has_text: bool) {
    assert_eq!(has_text, has_kernel && dtype != DType::F64, "{name} of {dtype}");
}

fn check_unary(def: &UnaryDef, dtype: DType) {
    let text = (def.wgsl)(dtype);
    assert_complete(def.name, dtype, (def.kernels)(dtype).is_some(), text.is_some());
    if let Some(text) = text {
        validate(def.name, text, &[("x", register(dtype))], result(def.promote, dtype));
    }
}

fn check_binary(def: &BinaryDef, dtype: DType) {
    let text = (def.wgsl)(dtype);
    assert_complete(def.name, dtype, (def.kernels)(dtype).is_some(), text.is_some());
    if let Some(text) = text {
        let ty = register(dtype);
        validate(def.name, text, &[("x", ty), ("y", ty)], result(def.promote, dtype));
    }
}

#[test]
fn definitions_are_complete_and_valid() {
    for definition in TABLE {
        for dtype in DType::ALL {
            let ty = register(dtype);
            match definition {
                Definition::Unary(def) => check_unary(def, dtype),
                Definition::Binary(def) => check_binary(def, dtype),
                Definition::Reduce(def) => {
                    let fold = (def.wgsl)(dtype);
                    assert_complete(def.name, dtype, (def.kernels)(dtype).is_some(), fold.is_some());
                    if let Some(fold) = fold {
                        validate(def.name, fold.identity, &[], dtype);
                        validate(def.name, fold.combine, &[("x", ty), ("y", ty)], dtype);
                    }
                }
                Definition::Random(def) => {
                    let text = (def.wgsl)(dtype);
                    assert_complete(def.name, dtype, (def.fill)(dtype).is_some(), text.is_some());
                    if let Some(text) = text {
                        let operands = [("seed", "vec2<u32>"), ("stream", "vec2<u32>"), ("i", "u32")];
                        validate(def.name, text, &operands, dtype);
                    }
                }
                Definition::Composite(_) => {}
            }
        }
    }
}

#[test]
fn casts_and_choices_are_valid() {
    for from in DType::ALL {
        for to in DType::ALL {
            match cast_wgsl(from, to) {
                Some(text) => validate("cast", text, &[("x", register(from))], to),
                None => assert!(from == DType::F64 || to == DType::F64, "{from} to {to}"),
            }
        }
        if from != DType::F64 {
            let ty = register(from);
            validate("select", select_wgsl(), &[("c", "u32"), ("x", ty), ("y", ty)], from);
        }
    }
}

#[test]
fn a_prelude_holds_what_is_used_and_nothing_else() {
    assert_eq!(prelude("x + y"), "");
    let text = prelude("sigmoid_f32(x) + 1.0");
    for name in ["br", "exp_f32", "sigmoid_f32", "scaled"] {
        assert_eq!(text.matches(&format!("fn {name}(")).count(), 1, "{name}");
    }
    assert!(!text.contains("fn log_f32(") && !text.contains("//"));
}

#[test]
fn loops_are_counted_through_calls() {
    assert_eq!([rounds("x + y"), rounds("exp_f32(x)"), rounds("remainder_i64(x, y)")], [0, 0, 64]);
}
