//! Single plans: what is fused, what is donated, what fails.

use super::{Case, floats};
use crate::dtype::DType;
use crate::ops;

#[test]
fn a_sum_of_two_leaves() {
    let mut case = Case::default();
    let (a, b) = (case.leaf(DType::F32, &[3], |i| i as f64), case.leaf(DType::F32, &[3], |_| 2.0));
    let c = ops::add(&mut case.graph, a, b).unwrap();
    case.graph.outputs.push(c);
    let plan = case.check();
    assert_eq!(floats(&case.run(&plan).unwrap()[0]), [2.0, 3.0, 4.0]);
}
