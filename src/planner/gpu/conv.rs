//! Convolutions: each of the three derivatives of the trilinear form is a matrix product for each group, whose operands
//! are found by index arithmetic while they are loaded. Taps, strides and paddings are written into the shader, so that
//! dividing by them is cheap; extents are parameters.

use super::Scene;
use super::contract::{NONE, Product, Sizes, multiply};
use super::plan::Kernel;
use super::rows::Ending;
use super::shader::Shader;
use crate::error::Result;
use crate::graph::{ConvRole, ConvSpec, Sweep};
use crate::machine::cpu::conv::Shape as Extents;
use crate::ops::conv::extents;
use crate::planner::tasks::Task;

pub fn lower(
    scene: &mut Scene,
    task: &Task,
    (spec, role): (&ConvSpec, ConvRole),
    ending: Option<Ending>,
    kernels: &mut Vec<Kernel>,
) -> Result<()> {
    let inputs = [&task.inputs[0].shape, &task.inputs[1].shape];
    let mut extents = extents(spec, role, inputs, &task.shape);
    for (sweep, &windows) in extents.sweeps.iter_mut().zip(&extents.grid) {
        // A single window has no next one.
        sweep.stride = if windows == 1 { 1 } else { sweep.stride };
    }
    let conv = Conv { task, extents };
    match role {
        ConvRole::Output => multiply(scene, task, &Output(conv), ending, kernels),
        ConvRole::Input => multiply(scene, task, &Input::new(conv), ending, kernels),
        ConvRole::Weight => multiply(scene, task, &Weight(conv), ending, kernels),
    }
}

struct Conv<'a> {
    task: &'a Task,
    extents: Extents,
}

impl Conv<'_> {
    fn taps(&self) -> [usize; 3] {
        self.extents.sweeps.map(|sweep| sweep.taps)
    }

    fn grid_size(&self) -> usize {
        self.extents.grid.iter().product()
    }

    /// Element `index` of an operand; operands lie in row-major order.
    fn operand(&self, shader: &mut Shader, input: usize, index: &str) -> Result<String> {
        let window = &self.task.inputs[input];
        let index = match shader.offset(window) {
            Some(offset) => format!("{offset} + {index}"),
            None => index.to_owned(),
        };
        shader.element(window.value, &index)
    }

    /// Declares where taps `j` of windows `p` meet the field along each axis, and returns zero from a function if that is
    /// padding.
    fn meet(&self, shader: &mut Shader, text: &mut Vec<String>) {
        for axis in 0..3 {
            let Sweep { stride, dilation, low, .. } = self.extents.sweeps[axis];
            // Before the field it wraps to a large number.
            text.push(format!("let i{axis} = p{axis} * {stride}u + j{axis} * {dilation}u - {low}u;"));
            let extent = shader.number(self.extents.field[axis]);
            text.push(format!("if (i{axis} >= {extent}) {{ return 0.0; }}"));
        }
    }
}

/// Declares the indices along three axes, and in front of them, of element `index` of their row-major order.
fn unravel(text: &mut Vec<String>, index: &str, [first, axes]: [&str; 2], extents: [&str; 3]) {
    let mut rest = index.to_owned();
    for axis in (0..3).rev() {
        let extent = extents[axis];
        if extent == "1u" {
            text.push(format!("let {axes}{axis} = 0u;"));
            continue;
        }
        text.push(format!("let rest_{axes}{axis} = {rest} / {extent};"));
        text.push(format!("let {axes}{axis} = {rest} - rest_{axes}{axis} * {extent};"));
        rest = format!("rest_{axes}{axis}");
    }
    text.push(format!("let {first} = {rest};"));
}

/// Extents as parameters, but for 1, which needs no arithmetic.
fn words(shader: &mut Shader, extents: [usize; 3]) -> [String; 3] {
    extents.map(|extent| if extent == 1 { "1u".to_owned() } else { shader.number(extent) })
}

fn literals(extents: [usize; 3]) -> [String; 3] {
    extents.map(|extent| format!("{extent}u"))
}

fn borrowed(texts: &[String; 3]) -> [&str; 3] {
    texts.each_ref().map(String::as_str)
}

/// The index of a position along three axes.
fn ravel(first: &str, axes: &str, extents: [&str; 3]) -> String {
    let [a, b, c] = extents;
    format!("((({first}) * {a} + {axes}0) * {b} + {axes}1) * {c} + {axes}2")
}

/// A function of three indices.
fn function(shader: &mut Shader, name: &str, parameters: [&str; 3], result: &str, lines: &[String]) -> String {
    let [a, b, c] = parameters;
    shader
        .item(name, || format!("fn {name}({a}: u32, {b}: u32, {c}: u32) -> {result} {{\n  {}\n}}", lines.join("\n  ")));
    format!("{name}({a}, {b}, {c})")
}

/// [outputs, inputs · taps] times [inputs · taps, images · windows], for each group.
struct Output<'a>(Conv<'a>);

impl Product for Output<'_> {
    fn sizes(&self) -> Sizes {
        let Extents { batch, groups, inputs, outputs, .. } = self.0.extents;
        Sizes {
            batch: groups,
            m: outputs,
            k: inputs * self.0.taps().iter().product::<usize>(),
            n: batch * self.0.grid_size(),
            a_along_k: true,
            b_along_n: true,
        }
    }

    fn loads(&self, shader: &mut Shader) -> Result<[String; 2]> {
        let Extents { groups, inputs, outputs, field, grid, .. } = self.0.extents;
        let [outputs, depth] = [outputs, self.sizes().k].map(|size| shader.number(size));
        let weight = self.0.operand(shader, 1, &format!("(z * {outputs} + m) * {depth} + k"))?;
        let mut text = Vec::new();
        let (grid, field) = (words(shader, grid), words(shader, field));
        unravel(&mut text, "k", ["channel", "j"], borrowed(&literals(self.0.taps())));
        unravel(&mut text, "n", ["image", "p"], borrowed(&grid));
        self.0.meet(shader, &mut text);
        let [groups, inputs] = [groups, inputs].map(|size| shader.number(size));
        let plane = format!("(image * {groups} + z) * {inputs} + channel");
        let x = self.0.operand(shader, 0, &ravel(&plane, "i", borrowed(&field)))?;
        text.push(format!("return {x};"));
        Ok([weight, function(shader, "field", ["z", "k", "n"], "f32", &text)])
    }

    fn index(&self, shader: &mut Shader) -> String {
        let Extents { groups, outputs, .. } = self.0.extents;
        let [groups, outputs, grid] = [groups, outputs, self.0.grid_size()].map(|size| shader.number(size));
        format!("((n / {grid} * {groups} + z) * {outputs} + m) * {grid} + n % {grid}")
    }
}

/// [inputs, outputs · taps] times [outputs · taps, images · positions], for each group and for each residue of the
/// positions by the strides: positions of one residue meet the same taps.
struct Input<'a> {
    conv: Conv<'a>,
    axes: [Axis; 3],
}

/// How the positions of one residue meet taps along an axis: the taps first, first + step, …
#[derive(Clone, Copy)]
struct Axis {
    step: usize,
    /// The most taps of any residue, and the most positions.
    taps: usize,
    positions: usize,
    /// What strides and dilations have in common: only residues that it divides meet any tap.
    common: usize,
    /// The first tap is the residue over `common` times this, modulo `step`.
    factor: usize,
}

impl Axis {
    fn new(sweep: &Sweep, field: usize) -> Axis {
        let common = common(sweep.stride, sweep.dilation);
        let step = sweep.stride / common;
        let factor = (0..step).find(|factor| factor * (sweep.dilation / common) % step == 1 % step).unwrap_or(0);
        let positions = field.div_ceil(sweep.stride);
        Axis { step, taps: sweep.taps.div_ceil(step), positions, common, factor }
    }
}

/// The greatest common divisor.
fn common(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common(b, a % b) }
}

impl<'a> Input<'a> {
    fn new(conv: Conv<'a>) -> Input<'a> {
        let axes = [0, 1, 2].map(|axis| Axis::new(&conv.extents.sweeps[axis], conv.extents.field[axis]));
        Input { conv, axes }
    }

    fn strides(&self) -> [usize; 3] {
        self.conv.extents.sweeps.map(|sweep| sweep.stride)
    }

    /// Declares the tap at `t` of each axis, and returns zero from a function if there is none.
    fn tap(&self, text: &mut Vec<String>) {
        for (axis, Axis { step, common, factor, .. }) in self.axes.iter().enumerate() {
            let Sweep { taps, stride, .. } = self.conv.extents.sweeps[axis];
            if stride == 1 {
                text.push(format!("let j{axis} = t{axis};"));
                continue;
            }
            let residue = format!("q{axis} / {common}u * {factor}u % {step}u");
            text.push(format!("let j{axis} = {residue} + t{axis} * {step}u;"));
            let is_met = if *common == 1 { String::new() } else { format!("q{axis} % {common}u != 0u || ") };
            text.push(format!("if ({is_met}j{axis} >= {taps}u) {{ return 0.0; }}"));
        }
    }

    /// Declares the position `i` of element `u` of the residue `q` along each axis.
    fn position(&self, text: &mut Vec<String>) {
        for axis in 0..3 {
            let Sweep { stride, low, .. } = self.conv.extents.sweeps[axis];
            text.push(match stride {
                1 => format!("let i{axis} = u{axis};"),
                // Residues count from the padding.
                _ => format!("let i{axis} = u{axis} * {stride}u + (q{axis} + {}u) % {stride}u;", stride - low % stride),
            });
        }
    }
}

impl Product for Input<'_> {
    fn sizes(&self) -> Sizes {
        let Extents { batch, groups, inputs, outputs, .. } = self.conv.extents;
        let product = |of: fn(&Axis) -> usize| self.axes.iter().map(of).product::<usize>();
        Sizes {
            batch: groups * self.strides().iter().product::<usize>(),
            m: inputs,
            k: outputs * product(|axis| axis.taps),
            n: batch * product(|axis| axis.positions),
            a_along_k: self.conv.taps().iter().product::<usize>() > 1,
            b_along_n: true,
        }
    }

    fn loads(&self, shader: &mut Shader) -> Result<[String; 2]> {
        let Extents { groups, inputs, outputs, grid, sweeps, .. } = self.conv.extents;
        let grid = words(shader, grid);
        let positions = words(shader, self.axes.map(|axis| axis.positions));
        let [groups, inputs, outputs] = [groups, inputs, outputs].map(|size| shader.number(size));
        let taps = literals(self.conv.taps());
        let mut met = Vec::new();
        unravel(&mut met, "z", ["group", "q"], borrowed(&literals(self.strides())));
        unravel(&mut met, "k", ["channel", "t"], borrowed(&literals(self.axes.map(|axis| axis.taps))));
        self.tap(&mut met);
        let mut weight = met.clone();
        let line = format!("(group * {outputs} + channel) * {inputs} + m");
        let x = self.conv.operand(shader, 0, &ravel(&line, "j", borrowed(&taps)))?;
        weight.push(format!("return {x};"));
        let mut text = met;
        unravel(&mut text, "n", ["image", "u"], borrowed(&positions));
        self.position(&mut text);
        for axis in 0..3 {
            let Sweep { stride, dilation, low, .. } = sweeps[axis];
            text.push(format!("let start{axis} = i{axis} + {low}u - j{axis} * {dilation}u;"));
            text.push(format!("let p{axis} = start{axis} / {stride}u;"));
            let extent = &grid[axis];
            text.push(format!("if (start{axis} > i{axis} + {low}u || p{axis} >= {extent}) {{ return 0.0; }}"));
        }
        let plane = format!("(image * {groups} + group) * {outputs} + channel");
        let x = self.conv.operand(shader, 1, &ravel(&plane, "p", borrowed(&grid)))?;
        text.push(format!("return {x};"));
        Ok([
            function(shader, "weight", ["z", "m", "k"], "f32", &weight),
            function(shader, "windows", ["z", "k", "n"], "f32", &text),
        ])
    }

    fn index(&self, shader: &mut Shader) -> String {
        let Extents { groups, inputs, field, .. } = self.conv.extents;
        let (positions, field) = (words(shader, self.axes.map(|axis| axis.positions)), words(shader, field));
        let [groups, inputs] = [groups, inputs].map(|size| shader.number(size));
        let mut text = Vec::new();
        unravel(&mut text, "z", ["group", "q"], borrowed(&literals(self.strides())));
        unravel(&mut text, "n", ["image", "u"], borrowed(&positions));
        self.position(&mut text);
        for (axis, extent) in field.iter().enumerate() {
            text.push(format!("if (i{axis} >= {extent}) {{ return {NONE}; }}"));
        }
        let plane = format!("(image * {groups} + group) * {inputs} + m");
        text.push(format!("return {};", ravel(&plane, "i", borrowed(&field))));
        function(shader, "position", ["z", "m", "n"], "u32", &text)
    }

    /// A residue may have fewer positions than others.
    fn is_partial(&self) -> bool {
        true
    }
}

/// [outputs, images · windows] times [images · windows, inputs · taps], for each group.
struct Weight<'a>(Conv<'a>);

impl Product for Weight<'_> {
    fn sizes(&self) -> Sizes {
        let Extents { batch, groups, inputs, outputs, .. } = self.0.extents;
        Sizes {
            batch: groups,
            m: outputs,
            k: batch * self.0.grid_size(),
            n: inputs * self.0.taps().iter().product::<usize>(),
            a_along_k: true,
            b_along_n: false,
        }
    }

    fn loads(&self, shader: &mut Shader) -> Result<[String; 2]> {
        let Extents { groups, inputs, outputs, field, grid, .. } = self.0.extents;
        let [groups, inputs, outputs, size] =
            [groups, inputs, outputs, self.0.grid_size()].map(|size| shader.number(size));
        let plane = format!("(k / {size} * {groups} + z) * {outputs} + m");
        let g = self.0.operand(shader, 1, &format!("({plane}) * {size} + k % {size}"))?;
        let (grid, field) = (words(shader, grid), words(shader, field));
        let mut text = Vec::new();
        unravel(&mut text, "n", ["channel", "j"], borrowed(&literals(self.0.taps())));
        unravel(&mut text, "k", ["image", "p"], borrowed(&grid));
        self.0.meet(shader, &mut text);
        let plane = format!("(image * {groups} + z) * {inputs} + channel");
        let x = self.0.operand(shader, 0, &ravel(&plane, "i", borrowed(&field)))?;
        text.push(format!("return {x};"));
        Ok([g, function(shader, "field", ["z", "k", "n"], "f32", &text)])
    }
}
