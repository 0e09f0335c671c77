//! The bindings: the module `wengert._core`, written down in `_core.pyi`. The only place that names pyo3. Every entry
//! goes through the chokepoints of `errors`; evaluation lets go of the interpreter's lock (see `interrupt`).

mod axes;
mod compile;
mod create;
mod dtype;
mod elementwise;
mod errors;
mod export;
mod files;
mod gpu;
mod import;
mod index;
mod interrupt;
mod layers;
mod modes;
mod objects;
mod operand;
mod optimizer;
mod print;
mod script;
mod tensor;
mod transforms;
mod verify;
mod windows;

use crate::dtype::DType;
use pyo3::prelude::*;

/// The compiled core: tensors, operations, differentiation, evaluation. Users reach all of it through `wengert`.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::axes::{
        all, any, argmax, argmin, broadcast_to, concat, expand_dims, flatten, flip, index_add, log_softmax, logsumexp,
        matmul, matrix_transpose, max, mean, min, moveaxis, permute_dims, prod, reshape, scatter_add, softmax, split,
        squeeze, stack, std, sum, take, take_along_axis, unstack, var, vector_norm,
    };
    #[pymodule_export]
    use super::compile::{Compiled, Explanation, compile, host_call, note_replaced, refuse_setting};
    #[pymodule_export]
    use super::create::{
        arange, asarray, from_numpy, full, full_like, get_rng_state, initial_seed, manual_seed, new_tensor, one_hot,
        ones, ones_like, set_rng_state, zeros, zeros_like,
    };
    #[pymodule_export]
    use super::dtype::{PyDType, PyDevice};
    #[pymodule_export]
    use super::elementwise::{
        abs, acos, acosh, add, asin, asinh, astype, atan, atan2, atanh, bitwise_and, bitwise_invert, bitwise_or,
        bitwise_xor, ceil, clip, cos, cosh, detach, divide, elu, equal, erf, erfc, exp, exp2, expm1, floor,
        floor_divide, gelu, greater, greater_equal, hypot, isfinite, isinf, isnan, leaky_relu, less, less_equal, log,
        log1p, log2, log10, logaddexp, logical_and, logical_not, logical_or, logical_xor, maximum, minimum, multiply,
        negative, not_equal, positive, pow, reciprocal, relu, remainder, round, rsqrt, select, sigmoid, sign, silu,
        sin, sinh, softplus, sqrt, square, subtract, tan, tanh, trunc, zmul,
    };
    #[pymodule_export]
    use super::files::{load_safetensors, save_safetensors};
    #[pymodule_export]
    use super::gpu::{gpu_counters, gpu_devices, gpu_reset, testing_gpu};
    #[pymodule_export]
    use super::layers::{
        batch_norm, bernoulli, binary_cross_entropy, binary_cross_entropy_with_logits, clip_grad_norm, convert_,
        cross_entropy, dropout, embedding, fill_, huber_loss, l1_loss, layer_norm, linear, mse_loss, nll_loss, normal_,
        rand, randint, randn, rms_norm, scaled_dot_product_attention, smooth_l1_loss, uniform_,
    };
    #[pymodule_export]
    use super::modes::{
        clear_plan_cache, counters, eager, enable_grad, eval, get_num_threads, is_eager, is_grad_enabled, no_grad,
        op_table, plan_cache, set_eager, set_grad_enabled, set_lines, set_num_threads, testing_op,
    };
    #[pymodule_export]
    use super::objects::_rebuild;
    #[pymodule_export]
    use super::optimizer::{PyUpdater, step};
    #[pymodule_export]
    use super::tensor::PyTensor;
    #[pymodule_export]
    use super::transforms::{checkpoint, custom_gradient, grad, grad_of, hvp, jvp, value_and_grad, vjp, vmap};
    #[pymodule_export]
    use super::verify::verify;
    #[pymodule_export]
    use super::windows::{
        adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, avg_pool1d, avg_pool2d, avg_pool3d, conv1d,
        conv2d, conv3d, max_pool1d, max_pool2d, max_pool3d,
    };

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        errors::quiet_panics();
        interrupt::install();
        errors::export(module)?;
        for dtype in DType::ALL {
            module.add(dtype.name(), dtype::dtype_object(module.py(), dtype)?)?;
        }
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
