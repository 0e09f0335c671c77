// An int64 is a pair of words, the lower one first.
fn add_i64(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    let low = x.x + y.x;
    return vec2<u32>(low, x.y + y.y + u32(low < x.x));
}

fn subtract_i64(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(x.x - y.x, x.y - y.y - u32(x.x < y.x));
}

fn negative_i64(x: vec2<u32>) -> vec2<u32> {
    return subtract_i64(vec2<u32>(0u, 0u), x);
}

// The 64 bits of x · y.
fn wide_product(x: u32, y: u32) -> vec2<u32> {
    let low = (x & 0xffffu) * (y & 0xffffu);
    let first = (x >> 16u) * (y & 0xffffu) + (low >> 16u);
    let second = (x & 0xffffu) * (y >> 16u) + (first & 0xffffu);
    return vec2<u32>((second << 16u) | (low & 0xffffu), (x >> 16u) * (y >> 16u) + (first >> 16u) + (second >> 16u));
}

fn multiply_i64(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    let low = wide_product(x.x, y.x);
    return vec2<u32>(low.x, low.y + x.x * y.y + x.y * y.x);
}

fn less_u64(x: vec2<u32>, y: vec2<u32>) -> bool {
    return x.y < y.y || (x.y == y.y && x.x < y.x);
}

fn less_i64(x: vec2<u32>, y: vec2<u32>) -> bool {
    return bitcast<i32>(x.y) < bitcast<i32>(y.y) || (x.y == y.y && x.x < y.x);
}

fn is_negative_i64(x: vec2<u32>) -> bool {
    return x.y > 0x7fffffffu;
}

fn is_zero_i64(x: vec2<u32>) -> bool {
    return (x.x | x.y) == 0u;
}

fn abs_i64(x: vec2<u32>) -> vec2<u32> {
    return select(x, negative_i64(x), is_negative_i64(x));
}

fn sign_i64(x: vec2<u32>) -> vec2<u32> {
    return select(vec2<u32>(u32(!is_zero_i64(x)), 0u), vec2<u32>(0xffffffffu, 0xffffffffu), is_negative_i64(x));
}

// Quotient and remainder of unsigned numbers, y not 0: bit by bit from the first one that is set.
fn divide_u64(x: vec2<u32>, y: vec2<u32>) -> vec4<u32> {
    var quotient = x;
    var rest = vec2<u32>(0u, 0u);
    var steps = 64u;
    if x.y == 0u {
        quotient = vec2<u32>(0u, x.x);
        steps = 32u;
    }
    for (var i = 0u; i < steps; i++) {
        // Beyond 64 bits the remainder has one more, which the subtraction takes away.
        let over = rest.y > 0x7fffffffu;
        rest = vec2<u32>((rest.x << 1u) | (quotient.y >> 31u), (rest.y << 1u) | (rest.x >> 31u));
        quotient = vec2<u32>(quotient.x << 1u, (quotient.y << 1u) | (quotient.x >> 31u));
        if over || !less_u64(rest, y) {
            rest = subtract_i64(rest, y);
            quotient.x = quotient.x | 1u;
        }
    }
    return vec4<u32>(quotient, rest);
}

// Rounded toward minus infinity; by 0 it is 0.
fn floor_divide_i64(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    if is_zero_i64(y) {
        return vec2<u32>(0u, 0u);
    }
    let both = divide_u64(abs_i64(x), abs_i64(y));
    if is_negative_i64(x) == is_negative_i64(y) {
        return both.xy;
    }
    return subtract_i64(negative_i64(both.xy), vec2<u32>(u32(!is_zero_i64(both.zw)), 0u));
}

// The sign of the divisor; by 0 it is 0.
fn remainder_i64(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    if is_zero_i64(y) {
        return vec2<u32>(0u, 0u);
    }
    let rest = divide_u64(abs_i64(x), abs_i64(y)).zw;
    let signed = select(rest, negative_i64(rest), is_negative_i64(x));
    return select(signed, add_i64(signed, y), !is_zero_i64(rest) && is_negative_i64(x) != is_negative_i64(y));
}

fn i64_from_i32(x: i32) -> vec2<u32> {
    return vec2<u32>(bitcast<u32>(x), bitcast<u32>(x >> 31u));
}

// Truncated toward zero; saturates, and NaN is 0.
fn i64_from_f32(x: f32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    let exponent = i32((bits >> 23u) & 255u) - 150;
    if exponent >= 40 {
        let largest = select(vec2<u32>(0xffffffffu, 0x7fffffffu), vec2<u32>(0u, 0x80000000u), is_negative(x));
        return select(largest, vec2<u32>(0u, 0u), is_nan(x));
    }
    let significand = (bits & 0x7fffffu) | 0x800000u;
    var whole = vec2<u32>(0u, 0u);
    if exponent >= 32 {
        whole.y = significand << u32(exponent - 32);
    } else if exponent > 0 {
        whole = vec2<u32>(significand << u32(exponent), significand >> u32(32 - exponent));
    } else if exponent > -24 {
        whole.x = significand >> u32(-exponent);
    }
    return select(whole, negative_i64(whole), is_negative(x));
}

// Rounded to the nearest number, ties to even.
fn f32_from_i64(x: vec2<u32>) -> f32 {
    if is_zero_i64(x) {
        return 0.0;
    }
    var size = abs_i64(x);
    var exponent = 190u;
    if size.y == 0u {
        size = vec2<u32>(0u, size.x);
        exponent = 158u;
    }
    let zeros = countLeadingZeros(size.y);
    // In two steps: a shift by 32 is a shift by 0.
    let top = (size.y << zeros) | ((size.x >> 1u) >> (31u - zeros));
    let rest = (top & 255u) | u32((size.x << zeros) != 0u);
    let whole = (top >> 8u) + u32(rest > 128u || (rest == 128u && (top & 256u) != 0u));
    // A carry out of the significand goes on into the exponent.
    let bits = ((exponent - zeros - 1u) << 23u) + whole;
    return bitcast<f32>(bits | (x.y & 0x80000000u));
}
