// x = 2^k m with m between √(1/2) and √2, for a normal number x above 0: k and m.
fn split_log(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x) + 0x004afb0du;
    let k = f32(i32(bits >> 23u) - 127);
    return vec2<f32>(k, bitcast<f32>((bits & 0x7fffffu) + 0x3f3504f3u));
}

// log(1 + f) + k ln 2 + c, for a small c.
fn joined_log(f: f32, k: f32, c: f32) -> f32 {
    let low = br(k * -2.1219444e-4 + c);
    var sum = 0.06921047;
    sum = sum * f - 0.11780702;
    sum = sum * f + 0.11865133;
    sum = sum * f - 0.12385552;
    sum = sum * f + 0.14220022;
    sum = sum * f - 0.16669217;
    sum = sum * f + 0.20002146;
    sum = sum * f - 0.24999987;
    sum = sum * f + 0.3333331;
    let z = f * f;
    let y = z * f * sum + low;
    return k * 0.6933594 + br(f + br(y - 0.5 * z));
}

// k and m of any number; a denormal one is lifted first.
fn split_any_log(x: f32) -> vec2<f32> {
    let is_denormal = bitcast<u32>(x) < 0x00800000u;
    let parts = split_log(select(x, x * 0x1p25, is_denormal));
    return vec2<f32>(parts.x - select(0.0, 25.0, is_denormal), parts.y);
}

// The logarithm to any base, right for what is not a finite number above 0.
fn checked_log(x: f32, y: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let large = select(y, x, bits >= 0x7f800000u);
    let negative = select(large, bitcast<f32>(0x7fc00000u), bits >= 0x80000000u);
    return select(negative, bitcast<f32>(0xff800000u), x == 0.0);
}

fn log_f32(x: f32) -> f32 {
    let parts = split_any_log(x);
    return checked_log(x, joined_log(parts.y - 1.0, parts.x, 0.0));
}

fn log2_f32(x: f32) -> f32 {
    let parts = split_any_log(x);
    return checked_log(x, parts.x + br(joined_log(parts.y - 1.0, 0.0, 0.0) * 1.442695));
}

// log10 2 is split in two; the product of k and the first part is exact.
fn log10_f32(x: f32) -> f32 {
    let parts = split_any_log(x);
    let log = joined_log(parts.y - 1.0, 0.0, 0.0) * 0.4342945;
    return checked_log(x, parts.x * 0.30102539 + br(parts.x * 4.605039e-6 + log));
}

fn log1p_f32(x: f32) -> f32 {
    let u = br(1.0 + x);
    let parts = split_log(u);
    let k = parts.x;
    // What rounding lost of 1 + x, relative to u.
    let lost = select(1.0 - br(u - x), x - br(u - 1.0), k < 2.0);
    let is_near = k == 0.0;
    let y = joined_log(select(br(parts.y - 1.0), x, is_near), k, select(lost / u, 0.0, is_near));
    return select(checked_log(u, y), x, x == 0.0 || is_nan(x));
}

fn asinh_f32(x: f32) -> f32 {
    let size = abs(x);
    let square = size * size;
    let near = log1p_f32(size + square / (1.0 + sqrt(1.0 + square)));
    let far = log_f32(size) + 0.6931472;
    let y = select(near, far, size > 4096.0);
    return select(copy_sign(y, x), x, is_nan(x));
}

fn acosh_f32(x: f32) -> f32 {
    let above = x - 1.0;
    let near = log1p_f32(above + rounded_sqrt(above * (above + 2.0)));
    let y = select(near, log_f32(x) + 0.6931472, x > 4096.0);
    return select(y, bitcast<f32>(0x7fc00000u), x < 1.0 || is_nan(x));
}

fn atanh_f32(x: f32) -> f32 {
    let size = abs(x);
    let y = 0.5 * log1p_f32(2.0 * size / (1.0 - size));
    let known = select(copy_sign(y, x), bitcast<f32>(0x7fc00000u), size > 1.0);
    return select(known, x, is_nan(x));
}
