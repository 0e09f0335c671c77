//! Matrix products without a plan around them, and a server that lets another program time them beside its own.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use wengert::dtype::DType;
use wengert::error::Result;
use wengert::machine::cpu::gemm::{Element, Mat, MatMut, gemm};
use wengert::machine::cpu::isa::isa;

use crate::measure::{Bench, Work, thread_counts};

/// (batch, (inputs, from, to)): a layer's forward product is (inputs, from) times (from, to).
const LAYERS: &[(usize, (usize, usize, usize))] = &[
    (1, (64, 64, 64)),
    (1, (128, 128, 128)),
    (1, (256, 256, 256)),
    (1, (512, 512, 512)),
    (1, (1024, 1024, 1024)),
    (1, (2048, 2048, 2048)),
    (1, (32, 32, 64)),
    (1, (32, 64, 64)),
    (1, (64, 784, 128)),
    (1, (128, 784, 512)),
    (1, (128, 512, 512)),
    (1, (256, 2048, 2048)),
    (48, (64, 32, 64)),
];

/// Which operand is a transposed view: the forward product, the gradient of the input, the gradient of the weight.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Nn,
    Nt,
    Tn,
}

impl Form {
    const ALL: [Form; 3] = [Form::Nn, Form::Nt, Form::Tn];

    /// (m, k, n) of this product for a layer.
    fn sizes(self, (batch, from, to): (usize, usize, usize)) -> (usize, usize, usize) {
        match self {
            Form::Nn => (batch, from, to),
            Form::Nt => (batch, to, from),
            Form::Tn => (from, batch, to),
        }
    }
}

/// Operands of one product.
struct Product<T> {
    batch: usize,
    sizes: (usize, usize, usize),
    form: Form,
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<T>,
}

impl<T: Element + From<f32>> Product<T> {
    fn new(batch: usize, sizes: (usize, usize, usize), form: Form) -> Self {
        let (m, k, n) = sizes;
        let fill = |count: usize| (0..count).map(|i| T::from((i * 7 % 17) as f32 * 0.1 - 0.8)).collect();
        Product {
            batch,
            sizes,
            form,
            a: fill(batch * m * k),
            b: fill(batch * k * n),
            c: vec![T::default(); batch * m * n],
        }
    }

    fn run(&mut self) -> Result<()> {
        let (m, k, n) = self.sizes;
        let (rows_a, columns_a) = if self.form == Form::Tn { (1, m) } else { (k, 1) };
        let (rows_b, columns_b) = if self.form == Form::Nt { (1, k) } else { (n, 1) };
        let a = Mat { ptr: self.a.as_ptr(), rs: rows_a as isize, cs: columns_a as isize };
        let b = Mat { ptr: self.b.as_ptr(), rs: rows_b as isize, cs: columns_b as isize };
        let c = MatMut { ptr: self.c.as_mut_ptr(), rs: n as isize, cs: 1 };
        let steps = [m * k, k * n, m * n].map(|step| step as isize);
        // SAFETY: the vectors hold `batch` matrices of these sizes, and this CPU runs the instruction set in use.
        // Nothing asks for a stop here.
        let _ = unsafe { gemm(self.batch, self.sizes, (a, steps[0]), (b, steps[1]), (c, steps[2]), isa()) };
        Ok(())
    }
}

pub fn run(bench: &mut Bench) -> Result<()> {
    for threads in thread_counts() {
        for &(batch, layer) in LAYERS {
            for form in Form::ALL {
                entry::<f32>(bench, "f32", DType::F32, batch, layer, form, threads)?;
            }
        }
        for &(batch, layer) in &LAYERS[..5] {
            for form in Form::ALL {
                entry::<f64>(bench, "f64", DType::F64, batch, layer, form, threads)?;
            }
        }
    }
    Ok(())
}

fn entry<T: Element + From<f32>>(
    bench: &mut Bench,
    dtype_name: &str,
    dtype: DType,
    batch: usize,
    layer: (usize, usize, usize),
    form: Form,
    threads: usize,
) -> Result<()> {
    let (m, k, n) = form.sizes(layer);
    let name = format!("gemm {dtype_name} {form:?} {batch} x ({m}, {k}, {n})");
    let mut product = Product::<T>::new(batch, (m, k, n), form);
    bench.entry(&name, threads, Work::MulAdds(batch * m * k * n, dtype), || product.run())?;
    Ok(())
}

/// Answers each line `DTYPE FORM BATCH M K N SECONDS` with the least seconds a product took over short batches.
pub fn serve() -> Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[dtype, form, ref rest @ ..] = &words[..] else {
            break;
        };
        let form = Form::ALL.into_iter().find(|known| format!("{known:?}").eq_ignore_ascii_case(form));
        let numbers: Vec<f64> = rest.iter().filter_map(|word| word.parse().ok()).collect();
        let (Some(form), &[batch, m, k, n, seconds]) = (form, &numbers[..]) else {
            break;
        };
        let sizes = (m as usize, k as usize, n as usize);
        let limit = Duration::from_secs_f64(seconds);
        let best = if dtype == "f64" {
            least(Product::<f64>::new(batch as usize, sizes, form), limit)?
        } else {
            least(Product::<f32>::new(batch as usize, sizes, form), limit)?
        };
        // The other side has gone when it no longer reads.
        if writeln!(out, "{best:e}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}

fn least<T: Element + From<f32>>(mut product: Product<T>, limit: Duration) -> Result<f64> {
    product.run()?;
    let begin = Instant::now();
    product.run()?;
    let calls = (200e-6 / begin.elapsed().as_secs_f64().max(1e-9)).ceil().max(1.0) as usize;
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < limit || best.is_infinite() {
        let start = Instant::now();
        for _ in 0..calls {
            product.run()?;
        }
        best = best.min(start.elapsed().as_secs_f64() / calls as f64);
    }
    Ok(best)
}
