//! The update rules. Each takes parameters, each with its gradient and the state tensors that its settings need, and
//! numbers; it gives the new parameters and the new states. Corrections that depend on the step are numbers made here.
//!
//! Sources: Sutskever et al. 2013 (momentum), Hinton's lecture 6e (RMSprop), Kingma and Ba 2015 (Adam), Reddi et al.
//! 2018 (AMSGrad), Loshchilov and Hutter 2019 (AdamW); details and defaults as in PyTorch.

use crate::error::{Error, Result};
use crate::graph::{Attrs, CompositeDef, Graph, Reads, Val, Vals};
use crate::ops::arithmetic::{MAXIMUM, SQUARE};
use crate::ops::exponential::SQRT;
use crate::ops::{self, add, binary, divide, multiply, negative, subtract, unary};
use crate::shape::Shape;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use smallvec::smallvec;

/// An update rule by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Sgd,
    RmsProp,
    Adam,
    AdamW,
}

/// What one step of parameters with equal settings records.
pub(super) struct Recipe {
    pub def: &'static CompositeDef,
    pub attrs: Attrs,
    /// Which of the rule's state tensors take part.
    pub uses: [bool; 3],
    pub numbers: Vec<f64>,
}

impl Rule {
    pub fn from_name(name: &str) -> Result<Rule> {
        match name {
            "sgd" => Ok(Rule::Sgd),
            "rmsprop" => Ok(Rule::RmsProp),
            "adam" => Ok(Rule::Adam),
            "adamw" => Ok(Rule::AdamW),
            _ => Err(Error::value(format!("rule {name:?}: use one of \"sgd\", \"rmsprop\", \"adam\", \"adamw\""))),
        }
    }

    /// The names of the state tensors, in order.
    pub fn state_names(self) -> [&'static str; 3] {
        match self {
            Rule::Sgd => ["momentum_buffer", "", ""],
            Rule::RmsProp => ["square_avg", "momentum_buffer", "grad_avg"],
            Rule::Adam | Rule::AdamW => ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
        }
    }

    /// Whether the state counts steps for the user.
    pub fn counts_steps(self) -> bool {
        self != Rule::Sgd
    }

    /// The settings that `step` takes, in order.
    pub fn settings(self) -> &'static [&'static str] {
        match self {
            Rule::Sgd => &["lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"],
            Rule::RmsProp => &["lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize"],
            Rule::Adam | Rule::AdamW => &["lr", "beta1", "beta2", "eps", "weight_decay", "amsgrad", "maximize"],
        }
    }

    /// What to record for step `step` (the first is 1) of parameters whose state tensors exist or not.
    pub(super) fn recipe(self, step: u64, settings: &[f64], exists: [bool; 3]) -> Result<Recipe> {
        let names = self.settings();
        if settings.len() != names.len() {
            let (given, needed) = (settings.len(), names.len());
            return Err(Error::value(format!("step: {given} numbers were given for {names:?}, which are {needed}")));
        }
        Ok(match self {
            Rule::Sgd => sgd(settings, exists),
            Rule::RmsProp => rmsprop(settings),
            Rule::Adam => adam(&ADAM, step, settings),
            Rule::AdamW => adam(&ADAMW, step, settings),
        })
    }
}

fn flag(on: bool) -> i64 {
    i64::from(on)
}

fn sgd(settings: &[f64], exists: [bool; 3]) -> Recipe {
    let &[lr, momentum, dampening, decay, nesterov, maximize] = settings else { unreachable!("checked by the caller") };
    let moving = momentum != 0.0;
    Recipe {
        def: &SGD,
        attrs: smallvec![flag(maximize != 0.0), flag(decay != 0.0), flag(moving), flag(nesterov != 0.0)],
        uses: [moving, false, false],
        // What the first step adds to zeros is the gradient itself, undamped.
        numbers: vec![lr, decay, momentum, if exists[0] { 1.0 - dampening } else { 1.0 }],
    }
}

fn rmsprop(settings: &[f64]) -> Recipe {
    let &[lr, alpha, eps, decay, momentum, centered, maximize] = settings else {
        unreachable!("checked by the caller")
    };
    let (moving, centered) = (momentum != 0.0, centered != 0.0);
    Recipe {
        def: &RMSPROP,
        attrs: smallvec![flag(maximize != 0.0), flag(decay != 0.0), flag(moving), flag(centered)],
        uses: [true, moving, centered],
        numbers: vec![lr, decay, alpha, 1.0 - alpha, eps, momentum],
    }
}

fn adam(def: &'static CompositeDef, step: u64, settings: &[f64]) -> Recipe {
    let &[lr, beta1, beta2, eps, decay, amsgrad, maximize] = settings else { unreachable!("checked by the caller") };
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    let step_size = lr / correction(beta1);
    let unbias = 1.0 / correction(beta2).sqrt();
    Recipe {
        def,
        attrs: smallvec![flag(maximize != 0.0), flag(decay != 0.0), flag(amsgrad != 0.0)],
        uses: [true, true, amsgrad != 0.0],
        numbers: vec![step_size, decay, 1.0 - beta1, beta2, 1.0 - beta2, unbias, eps, 1.0 - lr * decay],
    }
}

/// Inputs: for each parameter p, g and the state tensors in use; then the numbers. Outputs: for each parameter p and the
/// same state tensors.
macro_rules! rule {
    ($name:ident, $word:literal, $doc:literal, $attrs:expr, $numbers:literal, $states:expr, $one:expr) => {
        static $name: CompositeDef = CompositeDef {
            name: $word,
            doc: $doc,
            attrs: $attrs,
            infer: |attrs, inputs| {
                let states: usize = $states(attrs);
                let params = inputs[..inputs.len() - $numbers].chunks(2 + states);
                Ok(params.flat_map(|one| std::iter::repeat_n(one[0], 1 + states)).cloned().collect())
            },
            expand: |g, attrs, inputs| {
                let states: usize = $states(attrs);
                let update: Update = $one;
                let (params, numbers) = inputs.split_at(inputs.len() - $numbers);
                let mut spread = Spread::new(numbers);
                let mut outputs = Vals::new();
                for one in params.chunks(2 + states) {
                    let numbers = spread.like(g, one[0])?;
                    let mut rule = Inputs { p: one[0], grad: one[1], states: &one[2..], numbers };
                    outputs.extend_from_slice(&update(g, attrs, &mut rule)?);
                }
                Ok(outputs)
            },
            derivative: None,
            transpose: None,
            reads: Reads::ALL_INPUTS,
            kernel: None,
        };
    };
}

/// The new parameter and its new states.
type Update = fn(&mut Graph, &Attrs, &mut Inputs) -> Result<Vals>;

rule!(
    SGD,
    "sgd_update",
    "g += decay·p; b = momentum·b + (1 - dampening)·g; p -= lr·(b, or g + momentum·b). Numbers: lr, decay, momentum, \
     1 - dampening (at the first step 1).",
    &["maximize", "decay", "momentum", "nesterov"],
    4,
    |attrs: &Attrs| attrs[2] as usize,
    |g, attrs, rule| {
        let [lr, decay, momentum, fresh] = rule.numbers()?;
        let p = rule.p;
        let grad = rule.gradient(g, attrs[0] == 1, (attrs[1] == 1).then_some(decay))?;
        if attrs[2] == 0 {
            return Ok(smallvec![descend(g, p, lr, grad)?]);
        }
        let kept = multiply(g, momentum, rule.states[0])?;
        let part = multiply(g, fresh, grad)?;
        let buffer = add(g, kept, part)?;
        let direction = match attrs[3] {
            1 => {
                let ahead = multiply(g, momentum, buffer)?;
                add(g, grad, ahead)?
            }
            _ => buffer,
        };
        Ok(smallvec![descend(g, p, lr, direction)?, buffer])
    }
);

rule!(
    RMSPROP,
    "rmsprop_update",
    "v = alpha·v + (1 - alpha)·g²; d = √v (centered: √(v - a²), a the average of g) + eps; p -= lr·(g / d, or its \
     momentum). Numbers: lr, decay, alpha, 1 - alpha, eps, momentum.",
    &["maximize", "decay", "momentum", "centered"],
    6,
    |attrs: &Attrs| 1 + attrs[2] as usize + attrs[3] as usize,
    |g, attrs, rule| {
        let [lr, decay, alpha, rest, eps, momentum] = rule.numbers()?;
        let p = rule.p;
        let grad = rule.gradient(g, attrs[0] == 1, (attrs[1] == 1).then_some(decay))?;
        let square = average(g, rule.states[0], alpha, rest, grad)?;
        let mut states: Vals = smallvec![square];
        let mut under = square;
        let mut mean = None;
        if attrs[3] == 1 {
            let old = rule.states[1 + attrs[2] as usize];
            let new = towards(g, old, rest, grad)?;
            let of_mean = unary(g, &SQUARE, new)?;
            under = subtract(g, square, of_mean)?;
            mean = Some(new);
        }
        let root = unary(g, &SQRT, under)?;
        let scale = add(g, root, eps)?;
        let mut direction = divide(g, grad, scale)?;
        if attrs[2] == 1 {
            let kept = multiply(g, momentum, rule.states[1])?;
            direction = add(g, kept, direction)?;
            states.push(direction);
        }
        states.extend(mean);
        states.insert(0, descend(g, p, lr, direction)?);
        Ok(states)
    }
);

rule!(
    ADAM,
    "adam_update",
    "g += decay·p; m += (1 - beta1)·(g - m); v = beta2·v + (1 - beta2)·g²; p -= step_size·m / (unbias·√v + eps). \
     Numbers: step_size, decay, 1 - beta1, beta2, 1 - beta2, unbias, eps, 1 - lr·decay.",
    &["maximize", "decay", "amsgrad"],
    8,
    |attrs: &Attrs| 2 + attrs[2] as usize,
    |g, attrs, rule| adam_update(g, attrs, rule, false)
);

rule!(
    ADAMW,
    "adamw_update",
    "p *= 1 - lr·decay, then as adam_update without decay.",
    &["maximize", "decay", "amsgrad"],
    8,
    |attrs: &Attrs| 2 + attrs[2] as usize,
    |g, attrs, rule| adam_update(g, attrs, rule, true)
);

fn adam_update(g: &mut Graph, attrs: &Attrs, rule: &mut Inputs, apart: bool) -> Result<Vals> {
    let amsgrad = attrs[2] == 1;
    let [step_size, decay, rest1, beta2, rest2, unbias, eps, shrink] = rule.numbers()?;
    let decays = attrs[1] == 1;
    let grad = rule.gradient(g, attrs[0] == 1, (decays && !apart).then_some(decay))?;
    let p = if decays && apart { multiply(g, rule.p, shrink)? } else { rule.p };
    let mean = towards(g, rule.states[0], rest1, grad)?;
    let square = average(g, rule.states[1], beta2, rest2, grad)?;
    let largest = match amsgrad {
        true => Some(binary(g, &MAXIMUM, rule.states[2], square)?),
        false => None,
    };
    let deviation = unary(g, &SQRT, largest.unwrap_or(square))?;
    let corrected = multiply(g, deviation, unbias)?;
    let scale = add(g, corrected, eps)?;
    let direction = divide(g, mean, scale)?;
    let new = descend(g, p, step_size, direction)?;
    Ok([new, mean, square].into_iter().chain(largest).collect())
}

/// The numbers of a step, spread once to each shape that parameters have.
struct Spread<'a> {
    numbers: &'a [Val],
    shapes: HashMap<Shape, Vec<Val>>,
}

impl<'a> Spread<'a> {
    fn new(numbers: &'a [Val]) -> Spread<'a> {
        Spread { numbers, shapes: HashMap::new() }
    }

    fn like(&mut self, g: &mut Graph, p: Val) -> Result<&[Val]> {
        match self.shapes.entry(g.shape(p).clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                let numbers = self.numbers.iter().map(|&number| ops::broadcast_to(g, number, new.key()));
                let spread = numbers.collect::<Result<_>>()?;
                Ok(new.insert(spread))
            }
        }
    }
}

/// What a rule reads of one parameter, with the numbers spread to its shape.
struct Inputs<'a> {
    p: Val,
    grad: Val,
    states: &'a [Val],
    numbers: &'a [Val],
}

impl Inputs<'_> {
    fn numbers<const N: usize>(&self) -> Result<[Val; N]> {
        let count = || Error::internal(format!("an update rule of {N} numbers was given {}", self.numbers.len()));
        self.numbers.try_into().map_err(|_| count())
    }

    /// The gradient to descend by: turned over to maximise, with the decay of the weights in it.
    fn gradient(&mut self, g: &mut Graph, maximize: bool, decay: Option<Val>) -> Result<Val> {
        if maximize {
            self.grad = negative(g, self.grad)?;
        }
        if let Some(decay) = decay {
            let pull = multiply(g, decay, self.p)?;
            self.grad = add(g, self.grad, pull)?;
        }
        Ok(self.grad)
    }
}

/// p - rate·direction.
fn descend(g: &mut Graph, p: Val, rate: Val, direction: Val) -> Result<Val> {
    let step = multiply(g, rate, direction)?;
    subtract(g, p, step)
}

/// old + rest·(grad - old).
fn towards(g: &mut Graph, old: Val, rest: Val, grad: Val) -> Result<Val> {
    let distance = subtract(g, grad, old)?;
    let part = multiply(g, rest, distance)?;
    add(g, old, part)
}

/// keep·old + rest·grad².
fn average(g: &mut Graph, old: Val, keep: Val, rest: Val, grad: Val) -> Result<Val> {
    let kept = multiply(g, keep, old)?;
    let square = unary(g, &SQUARE, grad)?;
    let part = multiply(g, rest, square)?;
    add(g, kept, part)
}
