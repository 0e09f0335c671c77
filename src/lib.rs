//! wengert: trains neural networks by backpropagation.

pub mod machine;
