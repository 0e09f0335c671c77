//! The list of every definition: what documentation and tests are generated from. A test holds it equal to the
//! definitions in this folder.

use super::{
    activation, arithmetic, attention, compare, conv, cross_entropy, exponential, losses, matmul, normalization,
    one_hot, pool, random, reduce, rounding, softmax, split, statistics, trigonometric,
};
use crate::graph::{BinaryDef, CompositeDef, Derivative, RandomDef, Reads, ReduceDef, UnaryDef};

/// A member of one of the open kinds.
#[derive(Clone, Copy)]
pub enum Definition {
    Unary(&'static UnaryDef),
    Binary(&'static BinaryDef),
    Reduce(&'static ReduceDef),
    Random(&'static RandomDef),
    Composite(&'static CompositeDef),
}

use Definition::{Binary, Composite, Random, Reduce, Unary};

/// Every definition that can be recorded, by family.
pub static TABLE: &[Definition] = &[
    Unary(&activation::RELU),
    Unary(&activation::SIGMOID),
    Unary(&activation::TANH),
    Composite(&activation::ELU),
    Composite(&activation::GELU),
    Composite(&activation::LEAKY_RELU),
    Composite(&activation::SILU),
    Composite(&activation::SOFTPLUS),
    Unary(&arithmetic::ABS),
    Unary(&arithmetic::NEGATIVE),
    Unary(&arithmetic::RECIPROCAL),
    Unary(&arithmetic::SIGN),
    Unary(&arithmetic::SQUARE),
    Binary(&arithmetic::ADD),
    Binary(&arithmetic::DIVIDE),
    Binary(&arithmetic::FLOOR_DIVIDE),
    Binary(&arithmetic::HYPOT),
    Binary(&arithmetic::MAXIMUM),
    Binary(&arithmetic::MINIMUM),
    Binary(&arithmetic::MULTIPLY),
    Binary(&arithmetic::POWER),
    Binary(&arithmetic::REMAINDER),
    Binary(&arithmetic::SUBTRACT),
    Binary(&arithmetic::ZMUL),
    Composite(&arithmetic::CLIP),
    Composite(&arithmetic::POW_CONSTANT),
    Composite(&attention::ATTENTION),
    Unary(&compare::INVERT),
    Unary(&compare::ISFINITE),
    Unary(&compare::ISINF),
    Unary(&compare::ISNAN),
    Unary(&compare::LOGICAL_NOT),
    Binary(&compare::AND),
    Binary(&compare::EQUAL),
    Binary(&compare::GREATER),
    Binary(&compare::GREATER_EQUAL),
    Binary(&compare::LESS),
    Binary(&compare::LESS_EQUAL),
    Binary(&compare::NOT_EQUAL),
    Binary(&compare::OR),
    Binary(&compare::XOR),
    Composite(&conv::CONV),
    Composite(&cross_entropy::CROSS_ENTROPY),
    Composite(&cross_entropy::NLL_LOSS),
    Unary(&exponential::ERF),
    Unary(&exponential::ERFC),
    Unary(&exponential::EXP),
    Unary(&exponential::EXP2),
    Unary(&exponential::EXPM1),
    Unary(&exponential::LOG),
    Unary(&exponential::LOG10),
    Unary(&exponential::LOG1P),
    Unary(&exponential::LOG2),
    Unary(&exponential::RSQRT),
    Unary(&exponential::SQRT),
    Composite(&exponential::LOGADDEXP),
    Composite(&losses::BINARY_CROSS_ENTROPY),
    Composite(&losses::BINARY_CROSS_ENTROPY_WITH_LOGITS),
    Composite(&losses::HUBER_LOSS),
    Composite(&losses::L1_LOSS),
    Composite(&losses::MSE_LOSS),
    Composite(&losses::SMOOTH_L1_LOSS),
    Composite(&matmul::LINEAR),
    Composite(&matmul::MATMUL),
    Composite(&normalization::BATCH_NORM),
    Composite(&normalization::BATCH_NORM_EVAL),
    Composite(&normalization::LAYER_NORM),
    Composite(&normalization::RMS_NORM),
    Composite(&one_hot::CLASS_INDEX),
    Composite(&one_hot::ONE_HOT),
    Composite(&pool::AVG_POOL),
    Composite(&pool::MAX_POOL),
    Random(&random::NORMAL),
    Random(&random::RANDOM_BITS),
    Random(&random::UNIFORM),
    Composite(&random::BERNOULLI),
    Composite(&random::DROPOUT),
    Composite(&random::RANDINT),
    Reduce(&reduce::ALL),
    Reduce(&reduce::ANY),
    Reduce(&reduce::MAX),
    Reduce(&reduce::MIN),
    Reduce(&reduce::SUM),
    Composite(&reduce::ARGMAX),
    Composite(&reduce::ARGMIN),
    Composite(&reduce::PROD),
    Unary(&rounding::CEIL),
    Unary(&rounding::FLOOR),
    Unary(&rounding::ROUND),
    Unary(&rounding::TRUNC),
    Composite(&softmax::LOGSUMEXP),
    Composite(&softmax::LOG_SOFTMAX),
    Composite(&softmax::SOFTMAX),
    Composite(&split::SPLIT),
    Composite(&statistics::MEAN),
    Composite(&statistics::NORM),
    Composite(&statistics::VAR),
    Unary(&trigonometric::ACOS),
    Unary(&trigonometric::ACOSH),
    Unary(&trigonometric::ASIN),
    Unary(&trigonometric::ASINH),
    Unary(&trigonometric::ATAN),
    Unary(&trigonometric::ATANH),
    Unary(&trigonometric::COS),
    Unary(&trigonometric::COSH),
    Unary(&trigonometric::SIN),
    Unary(&trigonometric::SINH),
    Unary(&trigonometric::TAN),
    Binary(&trigonometric::ATAN2),
];

/// One definition as plain data.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    pub kind: &'static str,
    pub doc: &'static str,
    /// Tensor operands; None where the attributes decide.
    pub inputs: Option<usize>,
    /// For each operand of an elementwise op or a reduction, an interval on which to sample.
    pub domain: Vec<(f64, f64)>,
    /// Largest error in units in the last place; None where it depends on sums.
    pub ulp: Option<f64>,
    /// The same on a GPU.
    pub gpu_ulp: Option<f64>,
    pub attrs: &'static [&'static str],
    pub reads: Reads,
    /// Whether a tangent can pass.
    pub differentiable: bool,
}

/// A row for each definition.
pub fn op_table() -> Vec<Row> {
    TABLE.iter().map(|definition| definition.row()).collect()
}

impl Definition {
    pub fn name(&self) -> &'static str {
        match self {
            Unary(def) => def.name,
            Binary(def) => def.name,
            Reduce(def) => def.name,
            Random(def) => def.name,
            Composite(def) => def.name,
        }
    }

    fn row(&self) -> Row {
        let passes = |derivative: &Derivative| !matches!(derivative, Derivative::Zero);
        match *self {
            Unary(def) => Row {
                name: def.name,
                kind: "unary",
                doc: def.doc,
                inputs: Some(1),
                domain: vec![def.domain],
                ulp: Some(def.ulp),
                gpu_ulp: Some(def.gpu_ulp),
                attrs: &[],
                reads: def.reads,
                differentiable: passes(&def.derivative),
            },
            Binary(def) => Row {
                name: def.name,
                kind: "binary",
                doc: def.doc,
                inputs: Some(2),
                domain: def.domain.to_vec(),
                ulp: Some(def.ulp),
                gpu_ulp: Some(def.gpu_ulp),
                attrs: &[],
                reads: def.reads,
                differentiable: passes(&def.derivative),
            },
            Reduce(def) => Row {
                name: def.name,
                kind: "reduce",
                doc: def.doc,
                inputs: Some(1),
                domain: vec![def.domain],
                ulp: None,
                gpu_ulp: None,
                attrs: &["mask of the axes, which are dropped"],
                reads: def.reads,
                differentiable: passes(&def.derivative),
            },
            Random(def) => Row {
                name: def.name,
                kind: "random",
                doc: def.doc,
                inputs: Some(2),
                domain: Vec::new(),
                ulp: None,
                gpu_ulp: None,
                attrs: &[],
                reads: Reads::NONE,
                differentiable: false,
            },
            Composite(def) => Row {
                name: def.name,
                kind: "composite",
                doc: def.doc,
                inputs: None,
                domain: Vec::new(),
                ulp: None,
                gpu_ulp: None,
                attrs: def.attrs,
                reads: def.reads,
                differentiable: !DISCRETE.contains(&def.name),
            },
        }
    }
}

/// Composites whose results do not move with their inputs.
const DISCRETE: &[&str] = &["argmax", "argmin", "bernoulli", "one_hot", "randint"];

#[cfg(test)]
mod tests {
    use super::*;

    /// The `pub static … Def` lines of the sources of this folder.
    fn defined() -> Vec<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let Some((name, ty)) = line.strip_prefix("pub static ").and_then(|rest| rest.split_once(": ")) else {
                    continue;
                };
                if ["UnaryDef", "BinaryDef", "ReduceDef", "RandomDef", "CompositeDef"]
                    .iter()
                    .any(|def| ty.starts_with(def))
                {
                    found.push(format!("{module}::{name}"));
                }
            }
        }
        found
    }

    #[test]
    fn every_definition_has_a_row_and_no_name_is_used_twice() {
        let source = include_str!("table.rs");
        let missing: Vec<_> = defined().into_iter().filter(|name| !source.contains(&format!("(&{name})"))).collect();
        assert!(missing.is_empty(), "add to TABLE: {missing:?}");
        let mut names: Vec<_> = op_table().iter().map(|row| row.name).collect();
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn rows_are_documented_and_name_the_discrete_ones() {
        for row in op_table() {
            assert!(row.doc.ends_with('.'), "{}: {}", row.name, row.doc);
        }
        for name in DISCRETE {
            assert!(op_table().iter().any(|row| row.name == *name), "{name}");
        }
    }
}
