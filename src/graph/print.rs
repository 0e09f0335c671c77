//! A graph as text, one node a line: for tests, for errors of our own, and for `wg.debug`.

use super::Graph;
use super::op::{Op, Source};
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            write!(f, "%{index} = {}", node.op.name())?;
            match &node.op {
                Op::Source(Source::Leaf(slot) | Source::Number(slot)) => write!(f, "[{slot}]")?,
                Op::Source(Source::Full(value)) => write!(f, "[{}]", value.as_f64())?,
                Op::Reduce(_, axes) => write!(f, "[axes {axes:#b}]")?,
                Op::Layout(layout) => write!(f, "[{layout:?}]")?,
                Op::Composite(_, attrs) if !attrs.is_empty() => write!(f, "{attrs:?}")?,
                _ => {}
            }
            for (i, val) in node.inputs.iter().enumerate() {
                write!(f, "{}%{}", if i == 0 { " " } else { ", " }, val.node)?;
                if self.node(*val).outputs.len() > 1 {
                    write!(f, ".{}", val.output)?;
                }
            }
            write!(f, " :")?;
            node.outputs.iter().try_for_each(|ty| write!(f, " {ty}"))?;
            writeln!(f)?;
        }
        write!(f, "return")?;
        self.outputs.iter().try_for_each(|val| write!(f, " %{}.{}", val.node, val.output))?;
        writeln!(f)
    }
}
