// Pairs: the sum of a float and of a smaller one that says what its rounding lost.
fn sum_pair(large: f32, small: f32) -> vec2<f32> {
    let sum = br(large + small);
    return vec2<f32>(sum, small - br(sum - large));
}

fn product_pair(x: f32, y: f32) -> vec2<f32> {
    let product = br(x * y);
    let a = bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
    let b = bitcast<f32>(bitcast<u32>(y) & 0xfffff000u);
    let c = x - a;
    let d = y - b;
    return vec2<f32>(product, br(br(br(a * b - product) + a * d) + c * b) + c * d);
}

fn times_pair(x: vec2<f32>, y: vec2<f32>) -> vec2<f32> {
    let product = product_pair(x.x, y.x);
    return vec2<f32>(product.x, product.y + (x.x * y.y + x.y * y.x));
}

// The square root, with what a device may leave of its error taken away.
fn rounded_sqrt(x: f32) -> f32 {
    let root = br(sqrt(x));
    let square = product_pair(root, root);
    let correction = (br(x - square.x) - square.y) / (2.0 * root);
    return select(root, root + correction, x > 0.0 && is_finite(correction));
}

// log2 of a normal number above 0: 2 s (1 + z / 3 + z² Q(z)) / ln 2 with s = (m - 1) / (m + 1) and z = s².
fn log2_pair(x: f32) -> vec2<f32> {
    let parts = split_any_log(x);
    let f = br(parts.y - 1.0);
    let under = sum_pair(1.0, parts.y);
    let high = br(f / under.x);
    let back = product_pair(high, under.x);
    let s = vec2<f32>(high, (br(f - back.x) - back.y - high * under.y) / under.x);
    let z = times_pair(s, s);
    let third = sum_pair(0.33333334, z.x * ((0.11709556 * z.x + 0.14273556) * z.x + 0.20000076));
    let tail = times_pair(z, vec2<f32>(third.x, third.y - 9.934108e-9));
    let one = sum_pair(1.0, tail.x);
    let log = times_pair(times_pair(s, vec2<f32>(one.x, one.y + tail.y)), vec2<f32>(2.88539, 3.851926e-8));
    let sum = sum_pair(parts.x, log.x);
    return vec2<f32>(sum.x, sum.y + log.y);
}

// P in 2^f = 1 + P(f), for |f| ≤ 1/2.
fn exp2_polynomial(f: f32) -> f32 {
    var sum = 0.00015476301;
    sum = sum * f + 0.001340027;
    sum = sum * f + 0.009618004;
    sum = sum * f + 0.05550328;
    sum = sum * f + 0.2402265;
    return br((sum * f + 0.6931472) * f);
}

// |x|^y for a finite x that is not 0.
fn power_of_size(x: f32, y: f32) -> f32 {
    let log = log2_pair(abs(x));
    let product = product_pair(y, log.x);
    let large = abs(product.x) > 200.0;
    let high = select(product.x, copy_sign(200.0, product.x), large);
    let low = select(product.y + y * log.y, 0.0, large);
    let n = round(high);
    let f = br(high - n) + low;
    return scaled(exp2_polynomial(f) + 1.0, n);
}

// With the special cases of IEEE 754: pow(x, 0) = pow(1, y) = 1 even for NaN.
fn pow_f32(x: f32, y: f32) -> f32 {
    let size = abs(x);
    let infinity = bitcast<f32>(0x7f800000u);
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if is_nan(x) || is_nan(y) {
        return bitcast<f32>(0x7fc00000u);
    }
    if is_inf(y) {
        let grows = (size > 1.0) == (y > 0.0);
        return select(select(0.0, infinity, grows), 1.0, size == 1.0);
    }
    // From 2^24 on all numbers are even.
    let is_whole = trunc(y) == y;
    let is_odd = is_whole && abs(y) < 0x1p24 && (i32(y) & 1) == 1;
    var power = 0.0;
    if size == 0.0 || is_inf(x) {
        power = select(0.0, infinity, is_inf(x) == (y > 0.0));
    } else if is_negative(x) && !is_whole {
        return bitcast<f32>(0x7fc00000u);
    } else {
        power = power_of_size(x, y);
    }
    return select(power, -power, is_negative(x) && is_odd);
}
