// The run-time zero keeps a compiler from rearranging what stands inside with what stands outside.
fn br(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ p[0].x);
}

// A comparison would be assumed away.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn is_inf(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u;
}

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u;
}

fn is_negative(x: f32) -> bool {
    return bitcast<u32>(x) > 0x7fffffffu;
}

fn copy_sign(x: f32, sign: f32) -> f32 {
    return bitcast<f32>((bitcast<u32>(x) & 0x7fffffffu) | (bitcast<u32>(sign) & 0x80000000u));
}

fn equal_f32(x: f32, y: f32) -> bool {
    return x == y && !is_nan(x) && !is_nan(y);
}

fn sign_f32(x: f32) -> f32 {
    return select(select(x, -1.0, x < 0.0), 1.0, x > 0.0);
}

fn relu_f32(x: f32) -> f32 {
    return select(x, 0.0, x <= 0.0);
}

fn maximum_f32(x: f32, y: f32) -> f32 {
    return select(select(y, x, x > y), x + y, is_nan(x) || is_nan(y));
}

fn minimum_f32(x: f32, y: f32) -> f32 {
    return select(select(y, x, x < y), x + y, is_nan(x) || is_nan(y));
}

fn zero_product(x: f32, y: f32) -> f32 {
    return select(x * y, 0.0, x == 0.0 || y == 0.0);
}

// 2^n for an integer n whose power is a normal number.
fn power_of_two(n: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(i32(n) + 127) << 23u);
}

// y · 2^n in two steps, so that results below and above the normal range round once.
fn scaled(y: f32, n: f32) -> f32 {
    let half = trunc(0.5 * n);
    return br(y * power_of_two(half)) * power_of_two(n - half);
}

// The root of the larger leg squared and scaled into the middle of the range.
fn hypot_f32(x: f32, y: f32) -> f32 {
    let a = abs(x);
    let b = abs(y);
    let large = max(a, b);
    let up = select(select(1.0, 0x1p70, large < 0x1p-50), 0x1p-70, large > 0x1p50);
    let down = select(select(1.0, 0x1p-70, large < 0x1p-50), 0x1p70, large > 0x1p50);
    let u = br(a * up);
    let v = br(b * up);
    let root = br(rounded_sqrt(u * u + v * v)) * down;
    let known = select(root, a + b, is_nan(x) || is_nan(y));
    return select(known, bitcast<f32>(0x7f800000u), is_inf(x) || is_inf(y));
}
