//! Tensors in files. `safetensors` reads and writes the format, `header` is its JSON part, `replace` puts a file in
//! place of another in one step. Nothing here knows tensors or graphs: names, dtypes, shapes and bytes go in and out.

mod header;
mod replace;
pub mod safetensors;

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian and are read without conversion");
