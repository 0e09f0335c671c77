//! A test of the tests: each rule in turn is made wrong by 0.1 %, and some case must notice.

use super::{Case, cases, check_derivatives};
use crate::graph::{Graph, Tangents, Val};
use crate::ops;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is wrong: the tangent that an op's rule gives, or the cotangent that its transpose gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Tangent,
    Cotangent,
}

thread_local! {
    static WRONG: Cell<Option<(Part, &'static str)>> = const { Cell::new(None) };
    /// The rules that were asked since this was last emptied.
    static ASKED: RefCell<BTreeSet<(Part, &'static str)>> = const { RefCell::new(BTreeSet::new()) };
}

/// Called by forward mode with what a rule gave.
pub fn tangents(g: &mut Graph, op: &'static str, made: Tangents) -> Tangents {
    made.into_iter().map(|tangent| tangent.map(|tangent| scaled(g, Part::Tangent, op, tangent))).collect()
}

/// Called by reverse mode with what a transpose gave.
pub fn cotangent(g: &mut Graph, op: &'static str, made: Val) -> Val {
    scaled(g, Part::Cotangent, op, made)
}

fn scaled(g: &mut Graph, part: Part, op: &'static str, val: Val) -> Val {
    ASKED.with_borrow_mut(|asked| asked.insert((part, op)));
    if WRONG.get() != Some((part, op)) {
        return val;
    }
    let factor = ops::full_like(g, 1.001, val);
    ops::multiply(g, val, factor).unwrap()
}

fn fails(case: &Case) -> bool {
    catch_unwind(AssertUnwindSafe(|| check_derivatives(case))).is_err()
}

#[test]
fn every_rule_that_is_wrong_is_noticed() {
    let asked: Vec<(Case, BTreeSet<(Part, &'static str)>)> = cases::all()
        .into_iter()
        .map(|case| {
            check_derivatives(&case);
            (case, ASKED.take())
        })
        .collect();
    let rules: BTreeSet<(Part, &'static str)> = asked.iter().flat_map(|(_, asked)| asked.iter().copied()).collect();
    assert!(rules.len() > 60, "only {} rules were asked", rules.len());
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<_> = rules
        .into_iter()
        .filter(|rule| {
            WRONG.set(Some(*rule));
            !asked.iter().any(|(case, asked)| asked.contains(rule) && fails(case))
        })
        .collect();
    WRONG.set(None);
    std::panic::set_hook(quiet);
    assert!(missed.is_empty(), "wrong by 0.1 % and not noticed: {missed:?}");
}
