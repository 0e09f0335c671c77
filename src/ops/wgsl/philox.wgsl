// The four words of a block: Philox4x32-10, with the seed as the key.
fn philox(seed: vec2<u32>, stream: vec2<u32>, index: u32) -> vec4<u32> {
    var c = vec4<u32>(index, 0u, stream);
    var k = seed;
    for (var round = 0u; round < 10u; round++) {
        let a = wide_product(c.x, 0xD2511F53u);
        let b = wide_product(c.z, 0xCD9E8D57u);
        c = vec4<u32>(b.y ^ c.y ^ k.x, b.x, a.y ^ c.w ^ k.y, a.x);
        k = k + vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

// The upper 24 bits, in [0, 1).
fn unit_f32(word: u32) -> f32 {
    return f32(word >> 8u) * 0x1p-24;
}

fn uniform_f32(seed: vec2<u32>, stream: vec2<u32>, i: u32) -> f32 {
    var words = philox(seed, stream, i >> 2u);
    return unit_f32(words[i & 3u]);
}

// 63 bits: two words for each element, without the sign.
fn random_i64(seed: vec2<u32>, stream: vec2<u32>, i: u32) -> vec2<u32> {
    let words = philox(seed, stream, i >> 1u);
    return select(words.xy, words.zw, (i & 1u) == 1u) & vec2<u32>(0xffffffffu, 0x7fffffffu);
}

// Two normal numbers from two uniform ones, by Box and Muller.
fn normal_f32(seed: vec2<u32>, stream: vec2<u32>, i: u32) -> f32 {
    let words = philox(seed, stream, i >> 2u);
    let pair = select(words.xy, words.zw, (i & 2u) == 2u);
    let radius = sqrt(-2.0 * log_f32(1.0 - unit_f32(pair.x)));
    let turned = sin_cos_turns(unit_f32(pair.y));
    return radius * select(turned.y, turned.x, (i & 1u) == 1u);
}

// sin(2πu) and cos(2πu) for u in [0, 1).
fn sin_cos_turns(u: f32) -> vec2<f32> {
    let quarters = round(4.0 * u);
    let t = br(u - 0.25 * quarters);
    let z = t * t;
    let sin = t * ((((41.46989 * z - 76.69778) * z + 81.6052) * z - 41.3417) * z + 6.2831855);
    let cos = (((59.22963 * z - 85.44325) * z + 64.93932) * z - 19.739208) * z + 1.0;
    return by_quarter(sin, cos, u32(quarters));
}
