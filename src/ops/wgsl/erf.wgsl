// erf for |x| < 0.875.
fn near_erf(x: f32) -> f32 {
    let z = x * x;
    var sum = 8.675394e-05;
    sum = sum * z - 0.00082111044;
    sum = sum * z + 0.0052067474;
    sum = sum * z - 0.026861584;
    sum = sum * z + 0.11283733;
    sum = sum * z - 0.37612635;
    sum = sum * z + 0.12837917;
    return x * sum + x;
}

// A polynomial near 0 and 1 - e^-P(x) beyond; from 4 on it is 1.
fn erf_f32(x: f32) -> f32 {
    let size = abs(x);
    let a = select(size, 4.0, size > 4.0);
    var sum = 2.0451364e-05;
    sum = sum * a - 0.00042708288;
    sum = sum * a + 0.0041356436;
    sum = sum * a - 0.025027137;
    sum = sum * a + 0.10813902;
    sum = sum * a + 0.63347346;
    sum = sum * a + 1.1294532;
    sum = sum * a - 0.00016202361;
    let far = copy_sign(1.0 - exp_f32(-sum), x);
    return select(select(far, near_erf(x), size < 0.875), x, is_nan(x));
}

// 1 - erf(x), exact where erf is near 1: beyond 1/2 a polynomial over 1 + 2x times e^(-x²), with x² in two parts.
fn erfc_f32(x: f32) -> f32 {
    let size = abs(x);
    let a = select(size, 10.2, size > 10.2);
    let q = (a - 4.0) / (a + 4.0);
    var sum = 0.0051877424;
    sum = sum * q - 0.016699102;
    sum = sum * q + 0.03698094;
    sum = sum * q - 0.066214345;
    sum = sum * q + 0.09377975;
    sum = sum * q - 0.10105026;
    sum = sum * q + 0.0680931;
    sum = sum * q + 0.015380065;
    sum = sum * q - 0.13962103;
    sum = sum * q + 1.2329952;
    let square = product_pair(a, a);
    let bell = exp_f32(-square.x);
    let far = br(sum / (1.0 + 2.0 * a) * (1.0 - square.y)) * bell;
    let y = select(select(far, 2.0 - far, x < 0.0), 1.0 - near_erf(x), size < 0.5);
    return select(y, x, is_nan(x));
}
