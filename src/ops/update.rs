//! The chains that updates of parameters are made of: a whole step of the common rules, and the parts that the others
//! share. The rules themselves are the optimizers'.

use super::arithmetic::{Add, Divide, Multiply, Square, Subtract};
use super::exponential::Sqrt;
use super::pattern::pattern;

pattern!(
    /// The step of Adam, its averages included; of AdamW after the decay.
    ADAM, Adam, "adam",
    (p: T, g: T, m: T, v: T, fresh1: T, keep2: T, fresh2: T, unbias: T, eps: T, rate: T)
    -> (mean: T, square: T, new: T) {
        distance = binary::Subtract(g, m);
        part = binary::Multiply(fresh1, distance);
        mean = binary::Add(m, part);
        kept = binary::Multiply(keep2, v);
        squared = unary::Square(g);
        share = binary::Multiply(fresh2, squared);
        square = binary::Add(kept, share);
        root = unary::Sqrt(square);
        unbiased = binary::Multiply(root, unbias);
        scale = binary::Add(unbiased, eps);
        direction = binary::Divide(mean, scale);
        step = binary::Multiply(rate, direction);
        new = binary::Subtract(p, step);
    }
);
pattern!(
    /// The step of Adam from its averages.
    ADAM_DESCENT, AdamDescent, "adam_descent", (p: T, m: T, v: T, unbias: T, eps: T, rate: T) -> (new: T) {
        root = unary::Sqrt(v);
        unbiased = binary::Multiply(root, unbias);
        scale = binary::Add(unbiased, eps);
        direction = binary::Divide(m, scale);
        step = binary::Multiply(rate, direction);
        new = binary::Subtract(p, step);
    }
);
pattern!(
    /// The step of RMSprop, its average included.
    RMSPROP, RmsProp, "rmsprop", (p: T, g: T, v: T, keep: T, fresh: T, eps: T, rate: T) -> (square: T, new: T) {
        kept = binary::Multiply(keep, v);
        squared = unary::Square(g);
        share = binary::Multiply(fresh, squared);
        square = binary::Add(kept, share);
        root = unary::Sqrt(square);
        scale = binary::Add(root, eps);
        direction = binary::Divide(g, scale);
        step = binary::Multiply(rate, direction);
        new = binary::Subtract(p, step);
    }
);
pattern!(
    /// The step of RMSprop from what stands below the root.
    RMSPROP_DESCENT, RmsPropDescent, "rmsprop_descent", (p: T, g: T, v: T, eps: T, rate: T) -> (new: T) {
        root = unary::Sqrt(v);
        scale = binary::Add(root, eps);
        direction = binary::Divide(g, scale);
        step = binary::Multiply(rate, direction);
        new = binary::Subtract(p, step);
    }
);
pattern!(
    /// The step of gradient descent with momentum.
    MOMENTUM, Momentum, "momentum", (p: T, g: T, b: T, keep: T, fresh: T, rate: T) -> (buffer: T, new: T) {
        kept = binary::Multiply(keep, b);
        part = binary::Multiply(fresh, g);
        buffer = binary::Add(kept, part);
        step = binary::Multiply(rate, buffer);
        new = binary::Subtract(p, step);
    }
);
pattern!(
    /// The moving average of a square.
    AVERAGE, Average, "average", (g: T, v: T, keep: T, fresh: T) -> (square: T) {
        kept = binary::Multiply(keep, v);
        squared = unary::Square(g);
        share = binary::Multiply(fresh, squared);
        square = binary::Add(kept, share);
    }
);
pattern!(
    /// Part of the way from x to y.
    TOWARDS, Towards, "towards", (x: T, y: T, fresh: T) -> (mean: T) {
        distance = binary::Subtract(y, x);
        part = binary::Multiply(fresh, distance);
        mean = binary::Add(x, part);
    }
);
pattern!(
    /// One step down.
    DESCENT, Descent, "descent", (p: T, direction: T, rate: T) -> (new: T) {
        step = binary::Multiply(rate, direction);
        new = binary::Subtract(p, step);
    }
);
