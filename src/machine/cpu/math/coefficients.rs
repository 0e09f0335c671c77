//! Constants of the functions in this folder, by type: minimax fits by the Remez exchange, and splits of ln 2.

/// The tables for f32 and f64, lowest power first.
pub trait Coefficients: Sized + 'static {
    const LOG2_E: Self;
    /// ln 2 in two parts; the first has so few bits that its product with any exponent is exact.
    const LN2_HIGH: Self;
    const LN2_LOW: Self;
    /// ln 2 rounded, and the rest. So too the other constants with a rest.
    const LN2: Self;
    const LN2_REST: Self;
    const LOG2_E_REST: Self;
    const LOG10_2: Self;
    const LOG10_2_REST: Self;
    const LOG10_E: Self;
    const LOG10_E_REST: Self;
    const SQRT_HALF: Self;
    /// The exponent of the bits of 1.
    const BIAS: Self;
    /// Lifts every denormal to a normal number, and its exponent.
    const LIFT: Self;
    const LIFT_EXPONENT: Self;
    /// Beyond these e^x is infinite and 0.
    const EXP_MAX: Self;
    const EXP_MIN: Self;
    /// So too for 2^x.
    const EXP2_MAX: Self;
    const EXP2_MIN: Self;
    /// Below it e^x - 1 is -1.
    const EXPM1_MIN: Self;
    /// Above it tanh is 1.
    const TANH_ONE: Self;
    /// P in e^r = 1 + r + r² P(r), for |r| ≤ ln 2 / 2.
    const EXP: &'static [Self];
    /// f32: P in log(1 + f) = f - f² / 2 + f³ P(f). f64: P in log(1 + f) = 2 s + s³ P(s²), s = f / (2 + f).
    const LOG: &'static [Self];
    /// P in sinh(x) = x + x³ P(x²), for |x| ≤ 1.
    const SINH: &'static [Self];
    /// P in sin(2πt) = t P(t²), for |t| ≤ 1/8.
    const SIN_TURN: &'static [Self];
    /// P in cos(2πt) = 1 + t² P(t²), for |t| ≤ 1/8.
    const COS_TURN: &'static [Self];
}

impl Coefficients for f32 {
    const LOG2_E: Self = std::f32::consts::LOG2_E;
    const LN2_HIGH: Self = 0.693_359_4;
    const LN2_LOW: Self = -2.121_944_4e-4;
    const LN2: Self = std::f32::consts::LN_2;
    const LN2_REST: Self = -1.904_654_2e-9;
    const LOG2_E_REST: Self = 1.925_963e-8;
    const LOG10_2: Self = std::f32::consts::LOG10_2;
    const LOG10_2_REST: Self = -1.432_098_9e-8;
    const LOG10_E: Self = std::f32::consts::LOG10_E;
    const LOG10_E_REST: Self = -1.010_305e-8;
    const SQRT_HALF: Self = std::f32::consts::FRAC_1_SQRT_2;
    const BIAS: Self = 127.0;
    const LIFT: Self = 33_554_432.0;
    const LIFT_EXPONENT: Self = 25.0;
    const EXP_MAX: Self = 89.0;
    const EXP_MIN: Self = -105.0;
    const EXP2_MAX: Self = 129.0;
    const EXP2_MIN: Self = -152.0;
    const EXPM1_MIN: Self = -18.0;
    const TANH_ONE: Self = 9.1;
    const EXP: &'static [Self] = &[0.5, 0.16666667, 0.041666348, 0.008333272, 0.0013941482, 0.00019914826];
    const LOG: &'static [Self] = &[
        0.3333331,
        -0.24999987,
        0.20002146,
        -0.16669217,
        0.14220022,
        -0.12385552,
        0.11865133,
        -0.11780702,
        0.06921047,
    ];
    const SINH: &'static [Self] = &[0.16666667, 0.00833335, 0.00019836056, 2.8175006e-06];
    const SIN_TURN: &'static [Self] = &[6.2831855, -41.3417, 81.6052, -76.69778, 41.46989];
    const COS_TURN: &'static [Self] = &[-19.739208, 64.93932, -85.44325, 59.22963];
}

impl Coefficients for f64 {
    const LOG2_E: Self = std::f64::consts::LOG2_E;
    const LN2_HIGH: Self = 6.931_471_803_691_238e-1;
    const LN2_LOW: Self = 1.908_214_929_270_587_7e-10;
    const LN2: Self = std::f64::consts::LN_2;
    const LN2_REST: Self = 2.319_046_813_846_299_6e-17;
    const LOG2_E_REST: Self = 2.035_527_374_093_103_3e-17;
    const LOG10_2: Self = std::f64::consts::LOG10_2;
    const LOG10_2_REST: Self = -2.803_728_127_785_170_4e-18;
    const LOG10_E: Self = std::f64::consts::LOG10_E;
    const LOG10_E_REST: Self = 1.098_319_650_216_765e-17;
    const SQRT_HALF: Self = std::f64::consts::FRAC_1_SQRT_2;
    const BIAS: Self = 1023.0;
    const LIFT: Self = 18_014_398_509_481_984.0;
    const LIFT_EXPONENT: Self = 54.0;
    const EXP_MAX: Self = 710.0;
    const EXP_MIN: Self = -746.0;
    const EXP2_MAX: Self = 1025.0;
    const EXP2_MIN: Self = -1078.0;
    const EXPM1_MIN: Self = -38.0;
    const TANH_ONE: Self = 20.0;
    const EXP: &'static [Self] = &[
        0.5,
        0.16666666666666677,
        0.041666666666666706,
        0.008333333333321181,
        0.0013888888888866026,
        0.00019841269887420975,
        2.480158736220463e-05,
        2.7557242767264486e-06,
        2.755724132581399e-07,
        2.5109582942798827e-08,
        2.0924891748029245e-09,
    ];
    const LOG: &'static [Self] = &[
        0.6666666666666731,
        0.3999999999943689,
        0.2857142873816881,
        0.22222198957025568,
        0.18183546214736945,
        0.15314478145700047,
        0.14791954853384554,
    ];
    const SINH: &'static [Self] = &[
        0.16666666666666669,
        0.008333333333333137,
        0.00019841269841438535,
        2.755731915505737e-06,
        2.505212344441816e-08,
        1.6057236666868438e-10,
        7.759426604725267e-13,
    ];
    const SIN_TURN: &'static [Self] = &[
        std::f64::consts::TAU,
        -41.34170224039976,
        81.60524927607493,
        -76.70585975299669,
        42.05869392872661,
        -15.094640379333274,
        3.8197869790577434,
        -0.7116149735425125,
    ];
    const COS_TURN: &'static [Self] = &[
        -19.739208802178716,
        64.9393940226683,
        -85.45681720669356,
        60.244641371818986,
        -26.426256772593266,
        7.9035351945638945,
        -1.714316069613654,
        0.2794554259837046,
    ];
}
