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

// |x| mod |y| of finite numbers, y not 0, by long division of integers, eight bits at a time: exact.
fn modulus_f32(x: f32, y: f32) -> f32 {
    let divisor = integer_of(y);
    let end = exponent_of(y);
    var rest = integer_of(x);
    var at = exponent_of(x);
    if at < end {
        return abs(x);
    }
    rest = rest % divisor;
    while at > end {
        let step = min(at - end, 8);
        rest = (rest << u32(step)) % divisor;
        at = at - step;
    }
    return select(float_of(rest, end), 0.0, rest == 0u);
}

// The sign of the divisor.
fn remainder_f32(x: f32, y: f32) -> f32 {
    if !is_finite(x) || is_nan(y) || y == 0.0 {
        return bitcast<f32>(0x7fc00000u);
    }
    let rest = select(modulus_f32(x, y), abs(x), is_inf(y));
    if rest == 0.0 {
        return copy_sign(0.0, y);
    }
    let signed = copy_sign(rest, x);
    return select(signed, signed + y, is_negative(x) != is_negative(y));
}

fn floor_divide_f32(x: f32, y: f32) -> f32 {
    if y == 0.0 {
        return x / y;
    }
    return round((x - remainder_f32(x, y)) / y);
}
