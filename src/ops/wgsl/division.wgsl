fn divide_u8(x: u32, y: u32) -> u32 {
    return select(x / max(y, 1u), 0u, y == 0u);
}

fn remainder_u8(x: u32, y: u32) -> u32 {
    return select(x % max(y, 1u), 0u, y == 0u);
}

// Rounded toward minus infinity; by 0 it is 0, and the quotient that does not exist wraps.
fn floor_divide_i32(x: i32, y: i32) -> i32 {
    if y == 0 {
        return 0;
    }
    if y == -1 {
        return -x;
    }
    let quotient = x / y;
    let rest = x - quotient * y;
    return select(quotient, quotient - 1, rest != 0 && (rest < 0) != (y < 0));
}

fn remainder_i32(x: i32, y: i32) -> i32 {
    return select(x - floor_divide_i32(x, y) * y, 0, y == 0);
}

// The exponent e and the integer m below 2^24 with |x| = m · 2^(e - 150), for a finite x.
fn exponent_of(x: f32) -> i32 {
    return max(i32((bitcast<u32>(x) >> 23u) & 255u), 1);
}

fn integer_of(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return (bits & 0x7fffffu) | select(0x800000u, 0u, (bits & 0x7f800000u) == 0u);
}

// m · 2^(e - 150) for m below 2^24.
fn float_of(m: u32, e: i32) -> f32 {
    let zeros = i32(countLeadingZeros(m)) - 8;
    let shift = min(zeros, e - 1);
    let whole = m << u32(shift);
    let exponent = select(0u, u32(e - shift), whole >= 0x800000u);
    return bitcast<f32>((exponent << 23u) | (whole & 0x7fffffu));
}

// |x| / |y| of finite numbers, y not 0, by long division of integers, eight bits at a time: the lower word of the
// quotient, and the rest in units of the last place of the smaller number.
fn long_division(x: f32, y: f32) -> vec2<u32> {
    let divisor = integer_of(y);
    let end = exponent_of(y);
    var at = exponent_of(x);
    var rest = integer_of(x);
    if at < end {
        return vec2<u32>(0u, rest);
    }
    var quotient = rest / divisor;
    rest = rest % divisor;
    while at > end {
        let step = min(at - end, 8);
        rest = rest << u32(step);
        quotient = (quotient << u32(step)) + rest / divisor;
        rest = rest % divisor;
        at = at - step;
    }
    return vec2<u32>(quotient, rest);
}

// The sign of the divisor.
fn remainder_f32(x: f32, y: f32) -> f32 {
    if !is_finite(x) || is_nan(y) || y == 0.0 {
        return bitcast<f32>(0x7fc00000u);
    }
    let rest = long_division(x, y).y;
    if rest == 0u {
        return copy_sign(0.0, y);
    }
    let signed = copy_sign(float_of(rest, min(exponent_of(x), exponent_of(y))), x);
    return select(signed, signed + y, is_negative(x) != is_negative(y));
}

// Rounded toward minus infinity. From 2^24 on every float is whole.
fn floor_divide_f32(x: f32, y: f32) -> f32 {
    let ratio = x / y;
    if y == 0.0 {
        return ratio;
    }
    if !is_finite(x) || is_nan(y) {
        return bitcast<f32>(0x7fc00000u);
    }
    if abs(ratio) >= 0x1p24 {
        return ratio;
    }
    let parts = long_division(x, y);
    let is_apart = is_negative(x) != is_negative(y);
    let size = f32(parts.x + u32(is_apart && parts.y != 0u));
    return select(size, -size, is_apart);
}
