//! The list of every definition: what documentation and tests are generated from. A test holds it equal to the
//! definitions in this folder.

use super::{
    activation, arithmetic, compare, cross_entropy, exponential, losses, matmul, reduce, softmax, statistics,
    trigonometric,
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

use Definition::{Binary, Composite, Reduce, Unary};

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
    Binary(&arithmetic::MAXIMUM),
    Binary(&arithmetic::MINIMUM),
    Binary(&arithmetic::MULTIPLY),
    Binary(&arithmetic::POWER),
    Binary(&arithmetic::REMAINDER),
    Binary(&arithmetic::SUBTRACT),
    Binary(&arithmetic::ZMUL),
    Binary(&compare::AND),
    Binary(&compare::EQUAL),
    Binary(&compare::GREATER),
    Binary(&compare::GREATER_EQUAL),
    Binary(&compare::LESS),
    Binary(&compare::LESS_EQUAL),
    Binary(&compare::NOT_EQUAL),
    Binary(&compare::OR),
    Binary(&compare::XOR),
    Composite(&cross_entropy::CROSS_ENTROPY),
    Composite(&cross_entropy::NLL_LOSS),
    Unary(&exponential::ERF),
    Unary(&exponential::EXP),
    Unary(&exponential::EXPM1),
    Unary(&exponential::LOG),
    Unary(&exponential::LOG1P),
    Unary(&exponential::SQRT),
    Composite(&losses::BINARY_CROSS_ENTROPY),
    Composite(&losses::BINARY_CROSS_ENTROPY_WITH_LOGITS),
    Composite(&losses::HUBER_LOSS),
    Composite(&losses::L1_LOSS),
    Composite(&losses::MSE_LOSS),
    Composite(&losses::SMOOTH_L1_LOSS),
    Composite(&matmul::LINEAR),
    Composite(&matmul::MATMUL),
    Reduce(&reduce::MAX),
    Reduce(&reduce::MIN),
    Reduce(&reduce::SUM),
    Composite(&softmax::LOGSUMEXP),
    Composite(&softmax::LOG_SOFTMAX),
    Composite(&softmax::SOFTMAX),
    Composite(&statistics::MEAN),
    Composite(&statistics::NORM),
    Composite(&statistics::VAR),
    Unary(&trigonometric::COS),
    Unary(&trigonometric::SIN),
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
                attrs: &["mask of the axes, which are dropped"],
                reads: def.reads,
                differentiable: passes(&def.derivative),
            },
            Definition::Random(def) => Row {
                name: def.name,
                kind: "random",
                doc: def.doc,
                inputs: Some(2),
                domain: Vec::new(),
                ulp: None,
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
                attrs: def.attrs,
                reads: def.reads,
                differentiable: !DISCRETE.contains(&def.name),
            },
        }
    }
}

/// Composites whose results do not move with their inputs.
const DISCRETE: &[&str] = &["bernoulli", "one_hot", "randint"];
