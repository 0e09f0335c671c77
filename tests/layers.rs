//! A module imports only from lower layers: reads the `crate::` paths of every source file.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use std::fs;
use std::path::{Path, PathBuf};

/// Module, level, and the modules of the same level that it may import.
const LEVELS: [(&str, u32); 18] = [
    ("error", 0),
    ("dtype", 0),
    ("shape", 0),
    ("scalar", 0),
    ("device_id", 0),
    ("location", 0),
    ("machine", 1),
    ("graph", 2),
    ("ops", 3),
    ("autodiff", 4),
    ("planner", 4),
    ("exec", 5),
    ("tensor", 6),
    ("nn", 7),
    ("optim", 7),
    ("io", 7),
    ("python", 8),
    ("lib", 9),
];

fn level(module: &str) -> Option<u32> {
    LEVELS.iter().find(|(name, _)| *name == module).map(|(_, level)| *level)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The first names after `crate::` in a line, those in braces included.
fn imports(line: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    line.match_indices("crate::")
        .filter(|(at, _)| *at == 0 || !line.as_bytes()[at - 1].is_ascii_alphanumeric())
        .flat_map(|(at, found)| {
            let rest = &line[at + found.len()..];
            match rest.strip_prefix('{') {
                Some(list) => list.split(',').map(|name| word(name.trim())).collect(),
                None => vec![word(rest)],
            }
        })
        .collect()
}

#[test]
fn modules_import_only_from_lower_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&root).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let own = level(&module).unwrap_or_else(|| panic!("src/{module} has no level: add it to the table"));
        let text = fs::read_to_string(file).unwrap();
        let production = text.split("#[cfg(test)]").next().unwrap();
        for line in production.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for imported in imports(line) {
                let Some(other) = level(&imported) else { continue };
                if other > own || (other == own && imported != module && own > 0) {
                    wrong.push(format!("{}: {}", relative.display(), line.trim()));
                }
            }
        }
    }
    assert!(files.len() > 20, "the sources were not found");
    assert!(wrong.is_empty(), "imports from the same or a higher layer:\n{}", wrong.join("\n"));
}

/// The source files outside a folder whose code has this word.
fn outside(folder: &str, word: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.iter().any(|file| file.starts_with(root.join(folder))), "{folder} is not there");
    files.retain(|file| {
        let text = fs::read_to_string(file).unwrap();
        let named = text.lines().any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
        named && !file.starts_with(root.join(folder))
    });
    files
}

#[test]
fn only_the_bindings_name_pyo3() {
    assert_eq!(outside("python", "pyo3"), Vec::<PathBuf>::new());
}

#[test]
fn only_the_machine_names_wgpu() {
    assert_eq!(outside("machine/gpu", "wgpu::"), Vec::<PathBuf>::new());
}
