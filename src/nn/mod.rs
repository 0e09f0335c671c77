//! What networks need beyond operations: layers and losses in one call, initial values, and the clipping of gradients.
//! Modules, which hold parameters, are the package's.

mod attention;
mod clip;
mod init;
mod layers;
mod losses;
mod windows;

pub use attention::{Attention, attention};
pub use clip::{Norm, clip_grad_norm};
pub use init::{assign, convert, fill, normal, uniform};
pub use layers::{BatchNorm, batch_norm, embedding, layer_norm, linear, rms_norm};
pub use losses::{
    Classes, binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, huber_loss, l1_loss, mse_loss,
    nll_loss, smooth_l1_loss,
};
pub use windows::{
    Convolution, Divisor, Padding, Pooling, adaptive_avg_pool, avg_pool, convolve, max_pool, max_pool_with_positions,
};
