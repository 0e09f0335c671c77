//! wengert: trains neural networks by backpropagation.
//!
//! Layers, lowest first; a module imports only from lower ones, and a test holds it:
//!
//! | level | module | holds |
//! |---|---|---|
//! | 0 | `error` `dtype` `shape` `scalar` `device_id` `location` | values |
//! | 1 | `machine::cpu` | instruction sets, threads, buffers, views, matrix and slice kernels |
//! | 1 | `machine::gpu` | devices behind wgpu: memory, pipelines, runs, reads (feature `gpu`) |
//! | 2 | `graph` | nodes, kinds, the contract of a definition |
//! | 3 | `ops` | one file a family: definition, derivative, kernel |
//! | 4 | `autodiff`, `planner` | expansion of gradients; simplify, fuse, memory |
//! | 5 | `exec` | build, plan cache, executors |
//! | 6 | `tensor` | variables, recording, evaluation, transforms |
//! | 7 | `nn` `optim` `io` | initialisation, update rules, safetensors |
//! | 8 | `python` | the bindings |

pub mod autodiff;
pub mod device_id;
pub mod dtype;
pub mod error;
pub mod exec;
pub mod graph;
pub mod io;
pub mod location;
pub mod machine;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod planner;
#[cfg(feature = "python")]
pub mod python;
pub mod scalar;
pub mod shape;
pub mod tensor;
