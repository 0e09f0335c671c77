//! The functions that the expressions of definitions call on a GPU, as WGSL text in files by family. Where the standard
//! leaves an accuracy loose they are our own, with the polynomials of `machine::cpu::math`.
//!
//! This module knows text alone. A shader declares the uniform `p`, whose first word is 0 at run time.

use hashbrown::HashMap;
use std::sync::LazyLock;

/// One function of the files here.
struct Function {
    name: &'static str,
    text: &'static str,
    /// The functions that it calls, by position.
    calls: Vec<usize>,
}

/// No loop of a function here has more rounds.
const MOST_ROUNDS: usize = 64;

const FILES: [&str; 9] = [
    include_str!("float.wgsl"),
    include_str!("division.wgsl"),
    include_str!("int64.wgsl"),
    include_str!("exp.wgsl"),
    include_str!("log.wgsl"),
    include_str!("pow.wgsl"),
    include_str!("erf.wgsl"),
    include_str!("trig.wgsl"),
    include_str!("philox.wgsl"),
];

/// All functions, and where each is by its name.
struct Library {
    functions: Vec<Function>,
    places: HashMap<&'static str, usize>,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let functions: Vec<Function> = FILES.iter().flat_map(|file| functions(file)).collect();
    let places = functions.iter().enumerate().map(|(i, function)| (function.name, i)).collect();
    let mut library = Library { functions, places };
    for i in 0..library.functions.len() {
        library.functions[i].calls = library.called(library.functions[i].text);
    }
    library
});

impl Library {
    /// Which functions a text names.
    fn called(&self, text: &str) -> Vec<usize> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter_map(|word| self.places.get(word).copied()).collect()
    }
}

/// The functions of a file, without the comments above them.
fn functions(file: &'static str) -> impl Iterator<Item = Function> {
    file.split("\n\n").filter_map(|part| {
        let start = if part.starts_with("fn ") { 0 } else { part.find("\nfn ")? + 1 };
        let text = part[start..].trim_end();
        let name = text["fn ".len()..].split('(').next()?;
        Some(Function { name, text, calls: Vec::new() })
    })
}

/// The functions that a shader's text uses, and those that they use: what must stand beside it.
pub fn prelude(body: &str) -> String {
    let functions = &LIBRARY.functions;
    let mut is_used = vec![false; functions.len()];
    let mut open = LIBRARY.called(body);
    while let Some(next) = open.pop() {
        if !std::mem::replace(&mut is_used[next], true) {
            open.extend(&functions[next].calls);
        }
    }
    let used = functions.iter().zip(is_used).filter(|(_, is_used)| *is_used);
    used.flat_map(|(function, _)| [function.text, "\n"]).collect()
}

/// How many rounds of loops evaluating an expression may take.
pub fn rounds(expression: &str) -> usize {
    let loops = |text: &str| text.split_whitespace().filter(|word| matches!(*word, "for" | "while" | "loop")).count();
    loops(&prelude(expression)) * MOST_ROUNDS
}

/// An expression for each dtype: `wgsl!(F32 => "exp_f32(x)", I32 | U8 => "x")`.
macro_rules! wgsl {
    ($($dtype:ident $(| $more:ident)* => $text:expr),+) => {
        |dtype| match dtype {
            $($crate::dtype::DType::$dtype $(| $crate::dtype::DType::$more)* => Some($text),)+
            _ => None,
        }
    };
}
pub(crate) use wgsl;

#[cfg(test)]
mod tests;
