// x = n ln 2 + r with |r| ≤ ln 2 / 2: n and r. The product of n and the first part of ln 2 is exact.
fn reduced_exp(x: f32) -> vec2<f32> {
    let n = round(x * 1.442695);
    let r = br(x - n * 0.6933594);
    return vec2<f32>(n, r + n * 2.1219444e-4);
}

// e^r - 1 for |r| ≤ ln 2 / 2.
fn expm1_polynomial(r: f32) -> f32 {
    var sum = 0.00019914826;
    sum = sum * r + 0.0013941482;
    sum = sum * r + 0.008333272;
    sum = sum * r + 0.041666348;
    sum = sum * r + 0.16666667;
    sum = sum * r + 0.5;
    return r * r * sum + r;
}

fn exp_f32(x: f32) -> f32 {
    let bounded = select(select(x, 89.0, x > 89.0), -105.0, x < -105.0);
    let parts = reduced_exp(bounded);
    return select(scaled(expm1_polynomial(parts.y) + 1.0, parts.x), x, is_nan(x));
}

// e^x / 2 for x of at least 0, without overflow before the end.
fn half_exp(x: f32) -> f32 {
    let parts = reduced_exp(select(x, 91.0, x > 91.0));
    return scaled(expm1_polynomial(parts.y) + 1.0, parts.x - 1.0);
}

fn expm1_f32(x: f32) -> f32 {
    let bounded = select(select(x, 89.0, x > 89.0), -18.0, x < -18.0);
    let parts = reduced_exp(bounded);
    let half = trunc(0.5 * parts.x);
    let inverse = power_of_two(-half) * power_of_two(half - parts.x);
    let y = scaled(expm1_polynomial(parts.y) + br(1.0 - inverse), parts.x);
    return select(y, x, x == 0.0 || is_nan(x));
}

fn exp2_f32(x: f32) -> f32 {
    let bounded = select(select(x, 129.0, x > 129.0), -151.0, x < -151.0);
    let n = round(bounded);
    return select(scaled(exp2_polynomial(br(bounded - n)) + 1.0, n), x, is_nan(x));
}

// From e = e^(-2|x|) - 1 as -e / (e + 2).
fn tanh_f32(x: f32) -> f32 {
    let size = abs(x);
    let parts = reduced_exp(-2.0 * select(size, 9.1, size > 9.1));
    let scale = power_of_two(parts.x);
    let e = expm1_polynomial(parts.y) * scale + br(scale - 1.0);
    return select(copy_sign(e / (e + 2.0), x), x, is_nan(x));
}

fn sigmoid_f32(x: f32) -> f32 {
    let e = exp_f32(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}

fn sinh_f32(x: f32) -> f32 {
    let size = abs(x);
    let e = expm1_f32(select(size, 1.0, size > 1.0));
    let half = half_exp(size);
    let y = select(0.5 * (e + e / (e + 1.0)), half - 0.25 / half, size > 1.0);
    return select(copy_sign(y, x), x, is_nan(x));
}

fn cosh_f32(x: f32) -> f32 {
    let half = half_exp(abs(x));
    return select(half + 0.25 / half, x, is_nan(x));
}
