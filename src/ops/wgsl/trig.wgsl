// Word i of two zeros and the bits of 2/π behind its point.
fn two_over_pi(i: u32) -> u32 {
    var words = array<u32, 8>(0u, 0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u);
    return words[i];
}

// The 32 bits from bit `shift` of two words.
fn joined_bits(high: u32, low: u32, shift: u32) -> u32 {
    return (high << shift) | ((low >> 1u) >> (31u - shift));
}

// |x| · 2/π mod 4 as a fixed-point number with 62 bits behind the point, upper word first, for a finite |x| of at least
// 1/2. Of 2/π take part the 96 bits that matter: those above give multiples of 4.
fn quarter_turns(x: f32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    let significand = (bits << 8u) | 0x80000000u;
    let start = ((bits >> 23u) & 255u) - 96u;
    let i = start >> 5u;
    let shift = start & 31u;
    let a = two_over_pi(i);
    let b = two_over_pi(i + 1u);
    let c = two_over_pi(i + 2u);
    let d = two_over_pi(i + 3u);
    let low = wide_product(significand, joined_bits(c, d, shift));
    let middle = wide_product(significand, joined_bits(b, c, shift));
    let next = middle.x + low.y;
    return vec2<u32>(significand * joined_bits(a, b, shift) + middle.y + u32(next < low.y), next);
}

// sin x and cos x. A fraction of a quarter turn is multiplied by π/2 as a whole number and split in two floats.
fn sin_cos(x: f32) -> vec2<f32> {
    var r = abs(x);
    var low = 0.0;
    var quarter = 0u;
    if !is_finite(x) {
        return vec2<f32>(bitcast<f32>(0x7fc00000u));
    }
    if r > 0.7853982 {
        let turns = quarter_turns(x);
        var fraction = vec2<u32>(turns.y << 2u, (turns.x << 2u) | (turns.y >> 30u));
        quarter = turns.x >> 30u;
        let is_above_half = fraction.y > 0x7fffffffu;
        if is_above_half {
            fraction = negative_i64(fraction);
            quarter = quarter + 1u;
        }
        let zeros = countLeadingZeros(fraction.y);
        let angle = wide_product(joined_bits(fraction.y, fraction.x, zeros), 0xc90fdaa2u).y;
        let unit = power_of_two(-31.0 - f32(zeros));
        let sign = select(unit, -unit, is_above_half);
        r = f32(angle & 0xffffff00u) * sign;
        low = f32(angle & 255u) * sign;
    }
    let z = r * r;
    let sin = r + (r * z * ((-0.00019517235 * z + 0.008332178) * z - 0.16666655) + low * (1.0 - 0.5 * z));
    let tail = z * z * ((2.443838e-05 * z - 0.0013887367) * z + 0.041666646) - r * low;
    let cos = br(1.0 - 0.5 * z) + tail;
    let turned = by_quarter(sin, cos, quarter);
    return vec2<f32>(select(turned.x, -turned.x, is_negative(x)), turned.y);
}

// Sine and cosine of an angle from those of its distance to a number of quarter turns.
fn by_quarter(sin: f32, cos: f32, quarter: u32) -> vec2<f32> {
    let is_odd = (quarter & 1u) == 1u;
    let a = bitcast<u32>(select(sin, cos, is_odd)) ^ ((quarter & 2u) << 30u);
    let b = bitcast<u32>(select(cos, sin, is_odd)) ^ (((quarter + 1u) & 2u) << 30u);
    return vec2<f32>(bitcast<f32>(a), bitcast<f32>(b));
}

fn sin_f32(x: f32) -> f32 {
    return sin_cos(x).x;
}

fn cos_f32(x: f32) -> f32 {
    return sin_cos(x).y;
}

fn tan_f32(x: f32) -> f32 {
    let both = sin_cos(x);
    return select(both.x / both.y, x, x == 0.0);
}

// asin x for |x| ≤ 1/2, given x².
fn near_asin(x: f32, z: f32) -> f32 {
    var sum = 0.04221857;
    sum = sum * z + 0.0241476;
    sum = sum * z + 0.0454771;
    sum = sum * z + 0.074952416;
    sum = sum * z + 0.16666754;
    return x * z * sum + x;
}

// Beyond 1/2 from the half angle.
fn asin_f32(x: f32) -> f32 {
    let size = abs(x);
    let is_far = size > 0.5;
    let z = select(size * size, 0.5 * (1.0 - size), is_far);
    let t = near_asin(select(size, rounded_sqrt(z), is_far), z);
    let y = select(t, 1.5707964 - (2.0 * t + 4.371139e-8), is_far);
    let known = select(copy_sign(y, x), bitcast<f32>(0x7fc00000u), size > 1.0);
    return select(known, x, is_nan(x));
}

fn acos_f32(x: f32) -> f32 {
    let size = abs(x);
    let is_far = size > 0.5;
    let z = select(size * size, 0.5 * (1.0 - size), is_far);
    let t = near_asin(select(x, rounded_sqrt(z), is_far), z);
    let far = select(2.0 * t, 3.1415927 - (2.0 * t + 8.742278e-8), x < 0.0);
    let y = select(1.5707964 - (t + 4.371139e-8), far, is_far);
    return select(y, bitcast<f32>(0x7fc00000u), size > 1.0 || is_nan(x));
}

// atan x for 0 ≤ x ≤ 1.
fn near_atan(x: f32) -> f32 {
    let z = x * x;
    var sum = -0.0018272091;
    sum = sum * z + 0.011064423;
    sum = sum * z - 0.031455666;
    sum = sum * z + 0.058234517;
    sum = sum * z - 0.08419457;
    sum = sum * z + 0.109575756;
    sum = sum * z - 0.14265245;
    sum = sum * z + 0.19998638;
    sum = sum * z - 0.33333302;
    return x * z * sum + x;
}

fn atan_f32(x: f32) -> f32 {
    let size = abs(x);
    let t = near_atan(select(size, 1.0 / size, size > 1.0));
    let y = select(t, 1.5707964 - (t + 4.371139e-8), size > 1.0);
    return select(copy_sign(y, x), x, is_nan(x));
}

fn atan2_f32(y: f32, x: f32) -> f32 {
    let height = abs(y);
    let width = abs(x);
    let large = max(height, width);
    // The larger one is brought down where its inverse would be denormal.
    let scale = select(1.0, 0x1p-10, large > 0x1p110);
    let ratio = (min(height, width) * scale) / (large * scale);
    let is_even = is_inf(x) && is_inf(y);
    let t = near_atan(select(select(ratio, 1.0, is_even), 0.0, large == 0.0));
    let steep = select(t, 1.5707964 - (t + 4.371139e-8), height > width);
    let angle = select(steep, 3.1415927 - (steep + 8.742278e-8), is_negative(x));
    return select(copy_sign(angle, y), x + y, is_nan(x) || is_nan(y));
}
