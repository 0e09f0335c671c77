//! What the definitions say in WGSL, run on the device that is there: floats within their own bound of the float64
//! reference, all else with the bits of the CPU. A machine without a device skips with a word on stderr.

use super::{prelude, register, result};
use crate::dtype::DType;
use crate::graph::{BinaryDef, ReduceDef, UnaryDef};
use crate::machine::cpu::dispatch::{Arg, Kernels};
use crate::machine::gpu::{self, Access, Context, Dispatch};
use crate::ops::random::{NORMAL, RANDOM_BITS, UNIFORM};
use crate::ops::table::{Definition, TABLE};
use crate::ops::tests::unit;
use crate::ops::{cast_kernels, cast_wgsl, select_wgsl};
use std::fmt::Write;
use std::sync::Arc;

fn device() -> Option<Arc<Context>> {
    if gpu::devices().is_empty() {
        eprintln!("skipped: no GPU, real or software");
        return None;
    }
    Some(gpu::context(0).unwrap())
}

/// Elements as they lie on the device: one or two words each.
struct Column {
    dtype: DType,
    words: Vec<u32>,
}

impl Column {
    /// From elements as the CPU holds them.
    fn new(dtype: DType, bytes: &[u8]) -> Column {
        let words = match dtype.size() {
            1 => bytes.iter().map(|&byte| u32::from(byte)).collect(),
            _ => bytemuck::pod_collect_to_vec(bytes),
        };
        Column { dtype, words }
    }

    fn floats(x: &[f32]) -> Column {
        Column::new(DType::F32, bytemuck::cast_slice(x))
    }

    fn len(&self) -> usize {
        self.words.len() / if self.dtype == DType::I64 { 2 } else { 1 }
    }

    /// As the CPU holds them.
    fn bytes(&self) -> Vec<u8> {
        match self.dtype.size() {
            1 => self.words.iter().map(|&word| u8::try_from(word).expect("a byte")).collect(),
            _ => bytemuck::cast_slice(&self.words).to_vec(),
        }
    }
}

/// Runs `body`, which sets `result` for the thread's index `i`, on operands that it reads from `b1`, `b2`, ….
fn run(context: &Arc<Context>, body: &str, operands: &[&Column], result: DType, n: usize) -> Column {
    let mut text = String::from("@group(0) @binding(0) var<uniform> p: array<vec4<u32>, 1>;\n");
    for (k, operand) in operands.iter().enumerate() {
        let ty = register(operand.dtype);
        writeln!(text, "@group(0) @binding({0}) var<storage, read> b{0}: array<{ty}>;", k + 1).unwrap();
    }
    let (out, ty) = (operands.len() + 1, register(result));
    writeln!(text, "@group(0) @binding({out}) var<storage, read_write> out: array<{ty}>;\n{}", prelude(body)).unwrap();
    writeln!(
        text,
        "@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3<u32>) {{\n    let i = id.x;\n    \
         if i >= p[0].y {{\n        return;\n    }}\n    var result: {ty};\n{body}\n    out[i] = result;\n}}"
    )
    .unwrap();
    let mut access = vec![Access::Read; operands.len()];
    access.push(Access::ReadWrite);
    let pipeline = context.pipeline(&text, &access, 4).unwrap();
    let words = if result == DType::I64 { 2 * n } else { n };
    let made = context.alloc(4 * words).unwrap();
    let inputs: Vec<_> =
        operands.iter().map(|operand| context.upload(bytemuck::cast_slice(&operand.words)).unwrap()).collect();
    let buffers = inputs.iter().chain([&made]).map(|buffer| buffer.binding()).collect();
    let mut params = [0; 64];
    params[1] = n as u32;
    let groups = [n.div_ceil(64) as u32, 1, 1];
    context.run(&params, &[Dispatch { pipeline: &pipeline, buffers, params: 0, groups }]).unwrap();
    let mut bytes = vec![0; 4 * words];
    context.read(&made, 0, &mut bytes).unwrap();
    Column { dtype: result, words: bytemuck::pod_collect_to_vec(&bytes) }
}

/// The value of an expression in operands of these names.
fn evaluate(context: &Arc<Context>, text: &str, operands: &[(&str, &Column)], result: DType) -> Column {
    let mut body = String::new();
    for (k, (name, _)) in operands.iter().enumerate() {
        writeln!(body, "    let {name} = b{}[i];", k + 1).unwrap();
    }
    writeln!(body, "    result = {text};").unwrap();
    let columns: Vec<_> = operands.iter().map(|(_, column)| *column).collect();
    run(context, &body, &columns, result, columns[0].len())
}

/// The same elements through a kernel of the CPU.
fn on_cpu(kernels: &Kernels, operands: &[&Column], result: DType) -> Column {
    // Words, so that elements are aligned.
    let inputs: Vec<Vec<u64>> = operands
        .iter()
        .map(|operand| {
            let mut bytes = operand.bytes();
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytemuck::pod_collect_to_vec(&bytes)
        })
        .collect();
    let args: Vec<Arg> = inputs.iter().map(|words| Arg { ptr: words.as_ptr().cast(), scalar: false }).collect();
    let n = operands[0].len();
    let mut out = vec![0u64; n];
    // SAFETY: operands hold n elements and the output has room for n.
    unsafe { kernels[0](n, out.as_mut_ptr().cast(), &args) };
    Column::new(result, &bytemuck::cast_slice(&out)[..n * result.size()])
}

/// A sequence of words that look random.
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = (self.0 ^ (self.0 >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^ (x >> 29)
    }

    fn within(&mut self, (low, high): (f64, f64)) -> f32 {
        (low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64) as f32
    }

    /// Any bits at all.
    fn float(&mut self) -> f32 {
        f32::from_bits(self.next() as u32)
    }

    /// An integer of any length.
    fn integer(&mut self) -> i64 {
        let bits = self.next() % 64;
        (self.next() as i64) >> bits
    }
}

const SPECIAL: [f32; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.0,
    -2.0,
    3.0,
    0.5,
    -0.5,
    -2.5,
    1e-30,
    -1e-30,
    1e30,
    -1e30,
    16_777_216.0,
    16_777_217.0 + 2.0,
    f32::MAX,
    f32::MIN_POSITIVE,
    f32::EPSILON,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

const POINTS: usize = 50_000;

/// Numbers of the domain, of any size, and special ones.
fn samples(domain: (f64, f64), words: &mut Words) -> Vec<f32> {
    let mut x: Vec<f32> = (0..POINTS).map(|_| words.within(domain)).collect();
    x.extend((0..POINTS).map(|_| words.float()));
    x.extend(SPECIAL);
    x
}

fn pairs(domain: [(f64, f64); 2], words: &mut Words) -> (Vec<f32>, Vec<f32>) {
    let (mut x, mut y) = (samples(domain[0], words), samples(domain[1], words));
    // Near one another in size, and in value.
    for _ in 0..POINTS {
        let (a, b) = (words.within((-1e3, 1e3)), words.within((-20.0, 20.0)));
        x.push(a);
        y.push(b);
    }
    for a in SPECIAL {
        x.extend([a; SPECIAL.len()]);
        y.extend(SPECIAL);
    }
    (x, y)
}

/// A device may take a denormal number for 0.
fn flushed(x: f32) -> f64 {
    if x.is_subnormal() { f64::from(0f32.copysign(x)) } else { f64::from(x) }
}

/// The error in units in the last place; 0 where both are NaN or the same infinity.
fn error(got: f32, exact: f64) -> f64 {
    let infinite = exact.abs() > f64::from(f32::MAX) && got.is_infinite() && (got > 0.0) == (exact > 0.0);
    if f64::from(got) == exact || infinite || (got.is_nan() && exact.is_nan()) {
        return 0.0;
    }
    if exact.abs() < f64::from(f32::MIN_POSITIVE) && got == 0.0 {
        return 0.0;
    }
    let error = (f64::from(got) - exact).abs() / unit(exact, DType::F32);
    if error.is_nan() { f64::INFINITY } else { error }
}

/// Holds a definition to its bound. The reference is asked of the numbers as they are and with denormal ones as 0.
fn assert_near(name: &str, bound: f64, got: &Column, inputs: impl Fn(usize) -> (String, f64, f64)) {
    let mut worst = (0.0, String::new());
    for (i, &word) in got.words.iter().enumerate() {
        let (what, exact, flushed) = inputs(i);
        let got = f32::from_bits(word);
        let error = error(got, exact).min(error(got, flushed));
        if error > worst.0 {
            worst = (error, format!("{what}: {got:e} instead of {exact:e}"));
        }
    }
    println!("{name}: {:.2} of {bound} units, {}", worst.0, worst.1);
    assert!(worst.0 <= bound + 0.01, "{name}: {} units, {}", worst.0, worst.1);
}

fn check_unary(context: &Arc<Context>, def: &UnaryDef) {
    for dtype in DType::ALL {
        let (Some(text), Some(kernels)) = ((def.wgsl)(dtype), (def.kernels)(dtype)) else { continue };
        let to = result(def.promote, dtype);
        if (dtype, to) == (DType::F32, DType::F32) {
            let x = samples(def.domain, &mut Words(1));
            let made = evaluate(context, text, &[("x", &Column::floats(&x))], to);
            assert_near(def.name, def.gpu_ulp, &made, |i| {
                (format!("{:e}", x[i]), (def.reference)(x[i].into()), (def.reference)(flushed(x[i])))
            });
            continue;
        }
        let x =
            if dtype == DType::F32 { Column::floats(&samples(def.domain, &mut Words(1))) } else { integers(dtype).0 };
        let made = evaluate(context, text, &[("x", &x)], to);
        assert_same(def.name, &[&x], &made, &on_cpu(kernels, &[&x], to));
    }
}

fn check_binary(context: &Arc<Context>, def: &BinaryDef) {
    for dtype in DType::ALL {
        let (Some(text), Some(kernels)) = ((def.wgsl)(dtype), (def.kernels)(dtype)) else { continue };
        let to = result(def.promote, dtype);
        if (dtype, to) == (DType::F32, DType::F32) {
            let (x, y) = pairs(def.domain, &mut Words(2));
            let operands = [("x", &Column::floats(&x)), ("y", &Column::floats(&y))];
            let made = evaluate(context, text, &operands, to);
            assert_near(def.name, def.gpu_ulp, &made, |i| {
                let exact = (def.reference)(x[i].into(), y[i].into());
                (format!("{:e}, {:e}", x[i], y[i]), exact, (def.reference)(flushed(x[i]), flushed(y[i])))
            });
            continue;
        }
        let (x, y) = if dtype == DType::F32 {
            let normal = |x: Vec<f32>| Column::floats(&x.into_iter().map(|x| flushed(x) as f32).collect::<Vec<_>>());
            let (x, y) = pairs(def.domain, &mut Words(2));
            (normal(x), normal(y))
        } else {
            integers(dtype)
        };
        let made = evaluate(context, text, &[("x", &x), ("y", &y)], to);
        assert_same(def.name, &[&x, &y], &made, &on_cpu(kernels, &[&x, &y], to));
    }
}

/// Pairs of integers or bools of any size, small ones, equal ones, and extremes.
fn integers(dtype: DType) -> (Column, Column) {
    let special = [0, 1, -1, 2, -2, 3, 7, 255, 256, i32::MIN.into(), i32::MAX.into(), i64::MIN, i64::MAX, 1 << 32];
    let mut words = Words(3);
    let mut all: Vec<(i64, i64)> = special.iter().flat_map(|&x| special.iter().map(move |&y| (x, y))).collect();
    for _ in 0..POINTS {
        all.push((words.integer(), words.integer()));
    }
    let column = |values: Vec<i64>| {
        let bytes: Vec<u8> = match dtype {
            DType::Bool => values.into_iter().map(|x| (x & 1) as u8).collect(),
            DType::U8 => values.into_iter().map(|x| x as u8).collect(),
            DType::I32 => values.into_iter().flat_map(|x| (x as i32).to_ne_bytes()).collect(),
            _ => values.into_iter().flat_map(i64::to_ne_bytes).collect(),
        };
        Column::new(dtype, &bytes)
    };
    let (x, y) = all.into_iter().unzip();
    (column(x), column(y))
}

/// Holds a result to the bits of the CPU.
fn assert_same(name: &str, operands: &[&Column], got: &Column, expected: &Column) {
    assert_eq!(got.words.len(), expected.words.len());
    let each = got.words.len() / got.len();
    let wrong = (0..got.len()).find(|i| got.words[i * each..][..each] != expected.words[i * each..][..each]);
    if let Some(i) = wrong {
        let element = |column: &Column| {
            let each = column.words.len() / column.len();
            format!("{:x?}", &column.words[i * each..][..each])
        };
        let inputs: Vec<_> = operands.iter().map(|operand| element(operand)).collect();
        let dtype = operands[0].dtype;
        panic!("{name} of {dtype} {inputs:?}: {} instead of {}", element(got), element(expected));
    }
}

/// Rows of seven through the fold, one thread each.
fn check_reduce(context: &Arc<Context>, def: &ReduceDef, dtype: DType) {
    const LENGTH: usize = 7;
    let (Some(fold), Some(kernels)) = ((def.wgsl)(dtype), (def.kernels)(dtype)) else { return };
    let mut words = Words(4);
    let x = match dtype {
        // Whole numbers, so that the order of additions does not matter; and a NaN in some rows.
        DType::F32 => {
            let value = |i| if i % 61 == 0 { f32::NAN } else { words.within((-1e4, 1e4)).round() };
            Column::floats(&(0..700).map(value).collect::<Vec<_>>())
        }
        _ => integers(dtype).0,
    };
    let count = x.len() / LENGTH;
    let body = format!(
        "    var x: {} = {};\n    for (var k = 0u; k < {LENGTH}u; k++) {{\n        let y = b1[i * {LENGTH}u + k];\n        \
         x = {};\n    }}\n    result = x;",
        register(dtype),
        fold.identity,
        fold.combine
    );
    let made = run(context, &body, &[&x], dtype, count);
    let (from, mut out) = (x.bytes(), vec![0u64; count]);
    // SAFETY: rows of that many elements, and room for a result of each.
    unsafe { kernels.rows[0](count, LENGTH, from.as_ptr(), out.as_mut_ptr().cast()) };
    let mut expected = Column::new(dtype, &bytemuck::cast_slice(&out)[..count * dtype.size()]);
    if dtype == DType::F32 {
        // Any NaN is as good.
        for (got, expected) in made.words.iter().zip(&mut expected.words) {
            if f32::from_bits(*got).is_nan() && f32::from_bits(*expected).is_nan() {
                *expected = *got;
            }
        }
    }
    assert_same(def.name, &[&x], &made, &expected);
}

#[test]
fn definitions_keep_their_bound_on_a_device() {
    let Some(context) = device() else { return };
    let mut failed = Vec::new();
    for definition in TABLE {
        let check = || match definition {
            Definition::Unary(def) => check_unary(&context, def),
            Definition::Binary(def) => check_binary(&context, def),
            Definition::Reduce(def) => DType::ALL.into_iter().for_each(|dtype| check_reduce(&context, def, dtype)),
            Definition::Random(_) | Definition::Composite(_) => {}
        };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err() {
            failed.push(definition.name());
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn casts_and_choices_have_the_bits_of_the_cpu() {
    let Some(context) = device() else { return };
    for from in DType::ALL {
        let x = match from {
            DType::F64 => continue,
            DType::F32 => {
                let mut x = samples((-5.0, 5.0), &mut Words(5));
                x.extend((0..POINTS).map(|i| (i as f32 - 25_000.0) * 1e15));
                Column::floats(&x.into_iter().map(|x| flushed(x) as f32).collect::<Vec<_>>())
            }
            _ => integers(from).0,
        };
        for to in DType::ALL {
            let Some(text) = cast_wgsl(from, to) else { continue };
            let made = evaluate(&context, text, &[("x", &x)], to);
            let name = format!("cast to {to}");
            assert_same(&name, &[&x], &made, &on_cpu(cast_kernels(from, to), &[&x], to));
        }
        let y = Column { dtype: from, words: x.words.iter().rev().copied().collect() };
        let c: Vec<u8> = (0..x.len()).map(|i| (i % 3 == 1).into()).collect();
        let c = Column::new(DType::Bool, &c);
        let made = evaluate(&context, select_wgsl(), &[("c", &c), ("x", &x), ("y", &y)], from);
        let expected = on_cpu(crate::ops::select_kernels(from), &[&c, &x, &y], from);
        assert_same("select", &[&c, &x, &y], &made, &expected);
    }
}

#[test]
fn random_numbers_are_those_of_the_cpu() {
    let Some(context) = device() else { return };
    const N: usize = 10_000;
    let numbers = [0x0123_4567_89ab_cdef_u64, 0xfedc_ba98_7654_3210];
    let state = Column::new(DType::I64, bytemuck::cast_slice(&numbers));
    let fill = |text: &str, dtype| {
        let body = format!("    let seed = b1[0];\n    let stream = b1[1];\n    result = {text};");
        run(&context, &body, &[&state], dtype, N)
    };
    for (def, dtype) in [(&UNIFORM, DType::F32), (&RANDOM_BITS, DType::I64)] {
        let made = fill((def.wgsl)(dtype).unwrap(), dtype);
        let mut expected = vec![0u64; N];
        // SAFETY: room for N elements.
        unsafe { (def.fill)(dtype).unwrap()(numbers[0], numbers[1], 0, N, expected.as_mut_ptr().cast()) };
        let expected = Column::new(dtype, &bytemuck::cast_slice(&expected)[..N * dtype.size()]);
        assert_same(def.name, &[&made], &made, &expected);
    }
    let uniform = fill((UNIFORM.wgsl)(DType::F32).unwrap(), DType::F32);
    let made = fill((NORMAL.wgsl)(DType::F32).unwrap(), DType::F32);
    assert_near("normal", 5.0, &made, |i| {
        let [u, v] = [i & !1, i | 1].map(|i| f64::from(f32::from_bits(uniform.words[i])));
        let (sin, cos) = libm::sincos(v * std::f64::consts::TAU);
        let exact = libm::sqrt(-2.0 * libm::log(1.0 - u)) * if i % 2 == 0 { cos } else { sin };
        (i.to_string(), exact, exact)
    });
}
