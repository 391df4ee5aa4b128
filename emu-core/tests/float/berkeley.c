/* Writes berkeley.txt: digests of what Berkeley SoftFloat 3e returns for the operands that operands.rs
 * generates in the same way. SoftFloat is not part of this repository. Its source is in the crate softfloat-sys 0.1.4
 * (directory berkeley-softfloat-3), among other places; that crate itself needs CMake to build, so it is no dependency.
 *
 * For each of the rules (RISCV, 8086-SSE, 8086, ARM-VFPv2, ARM-VFPv2-defaultNaN), compile SoftFloat's source/[!s]*.c,
 * source/s_*.c and source/RULE/[a-z]*.c with
 *   -DSOFTFLOAT_ROUND_ODD -DINLINE_LEVEL=5 -DSOFTFLOAT_FAST_INT64 -DSOFTFLOAT_FAST_DIV32TO16 -DSOFTFLOAT_FAST_DIV64TO32
 *   -DTHREAD_LOCAL=_Thread_local -Ibuild/Linux-x86_64-GCC -Isource/RULE -Isource/include
 * into a library (the functions of names ending in M are not needed), and this file with -DRULE=0, 1, 2, 3, 4 against it;
 * then concatenate the outputs. With arguments FORMAT OP it prints every case instead, to be compared with what
 * FLOAT_CASES=RULE.FORMAT.OP makes the Rust test print.
 */
#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#define LITTLEENDIAN 1 /* of extFloat80_t */
#include "softfloat.h"

typedef unsigned __int128 u128;
typedef uint64_t u64;

static const char *const rule_names[] = { "riscv", "sse", "x87", "arm", "arm-dn" };

static u64 seed;
static u64 next(void)
{
    u64 z = (seed += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static u128 next128(void) { u128 hi = next(); return hi << 64 | next(); }

struct format { const char *name; int exp_bits, frac_bits; bool integer; };
enum { BF16, F16, F32, F64, F80, F128 };
static const struct format formats[] = {
    { "bf16", 8, 7, 0 }, { "f16", 5, 10, 0 }, { "f32", 8, 23, 0 }, { "f64", 11, 52, 0 }, { "f80", 15, 63, 1 }, { "f128", 15, 112, 0 },
};

static u128 pack(const struct format *f, u64 sign, long exp, u128 frac)
{
    long max = (1L << f->exp_bits) - 1;
    if (exp < 0) exp = 0;
    if (exp > max) exp = max;
    frac &= ((u128)1 << f->frac_bits) - 1;
    u128 integer = f->integer ? (u128)(exp != 0) << f->frac_bits : 0;
    int top = f->frac_bits + f->integer;
    return (u128)(sign & 1) << (top + f->exp_bits) | (u128)exp << top | integer | frac;
}
static long exponent(const struct format *f, u128 a)
{
    return (long)(a >> (f->frac_bits + f->integer)) & ((1L << f->exp_bits) - 1);
}
static u128 fraction(const struct format *f)
{
    u64 r = next();
    u128 ones = ~(u128)0, random = next128();
    int k = (int)((r >> 3) % (u64)f->frac_bits);
    switch (r & 7) {
    case 0: return 0;
    case 1: return ones;
    case 2: return (u128)1 << k;
    case 3: return ones ^ (u128)1 << k;
    case 4: return ones << k;
    case 5: return ((u128)1 << k) - 1;
    case 6: return random & ones << k;
    default: return random;
    }
}
static u128 operand(const struct format *f)
{
    u64 r = next();
    long max = (1L << f->exp_bits) - 1, bias = max >> 1, p = f->frac_bits + 1;
    long special[16] = { 0, 1, 2, 3, max, max - 1, max - 2, bias - 1, bias, bias + 1, bias + p - 1, bias + p, bias + 31,
                         bias + 63, bias + 15, bias - p };
    long exp;
    switch (r & 7) {
    case 0: case 1: case 2: exp = special[r >> 4 & 15]; break;
    case 3: case 4: exp = bias - p - 4 + (long)((r >> 4) % (u64)(2 * p + 8)); break;
    default: exp = (long)((r >> 4) % (u64)(max + 1)); break;
    }
    return pack(f, r >> 3, exp, fraction(f));
}
/* An operand that likely cancels with a. */
static u128 near(const struct format *f, u128 a)
{
    u64 r = next();
    if (r & 1) return operand(f);
    long exp = exponent(f, a);
    if (r & 2) exp += (long)((r >> 8) % 9) - 4;
    u128 frac = r & 4 ? fraction(f) : r & 8 ? a ^ (u128)1 << (r >> 16) % (u64)f->frac_bits : a;
    return pack(f, r >> 4, exp, frac);
}
/* An addend that likely cancels with a * b. */
static u128 addend(const struct format *f, u128 a, u128 b)
{
    u64 r = next();
    if (r & 1) return operand(f);
    long bias = ((1L << f->exp_bits) - 1) >> 1, p = f->frac_bits + 1;
    long exp = exponent(f, a) + exponent(f, b) - bias + (long)((r >> 8) % (u64)(2 * p + 8)) - p - 4;
    if (r & 2) exp = exponent(f, a) + exponent(f, b) - bias + (long)(r >> 8 & 1);
    return pack(f, r >> 4, exp, fraction(f));
}
static u64 integer(void)
{
    u64 r = next(), x = next();
    int k = (int)(r >> 8 & 63);
    switch (r & 7) {
    case 0: return x;
    case 1: return x >> k;
    case 2: return (u64)1 << k;
    case 3: return ((u64)1 << k) - 1;
    case 4: return ~(x >> k);
    case 5: return ~(u64)0 << k;
    case 6: return (x | (u64)1 << 63) >> k & ~(u64)0 << (r >> 16 & 63);
    default: return (r >> 16 & 15) - 8;
    }
}

static float16_t f16(u128 a) { return (float16_t){ (uint16_t)a }; }
static float32_t f32(u128 a) { return (float32_t){ (uint32_t)a }; }
static float64_t f64(u128 a) { return (float64_t){ (u64)a }; }
static extFloat80_t f80(u128 a) { extFloat80_t x; memset(&x, 0, sizeof x); x.signif = (u64)a; x.signExp = (uint16_t)(a >> 64); return x; }
static float128_t f128(u128 a) { return (float128_t){ { (u64)a, (u64)(a >> 64) } }; }
static u128 raw_f16(float16_t a) { return a.v; }
static u128 raw_f32(float32_t a) { return a.v; }
static u128 raw_f64(float64_t a) { return a.v; }
static u128 raw_f80(extFloat80_t a) { return (u128)a.signExp << 64 | a.signif; }
static u128 raw_f128(float128_t a) { return (u128)a.v[1] << 64 | a.v[0]; }

enum op { ADD, SUB, MUL, DIV, SQRT, REM, FMA, EQ, EQ_SIGNALING, LT, LE, LTQ, LEQ, TO_I32, TO_U32, TO_I64, TO_U64, RINT, RINTX,
          FROM_I32, FROM_U32, FROM_I64, FROM_U64, TO_BF16, TO_F16, TO_F32, TO_F64, TO_F80, TO_F128, OPS };
static const char *const op_names[OPS] = {
    "add", "sub", "mul", "div", "sqrt", "rem", "fma", "eq", "eq_signaling", "lt", "le", "ltq", "leq", "to_i32", "to_u32", "to_i64",
    "to_u64", "rint", "rintx", "from_i32", "from_u32", "from_i64", "from_u64", "to_bf16", "to_f16", "to_f32", "to_f64", "to_f80",
    "to_f128" };

#define COMMON(T, M) \
    case ADD: return raw_##T(M##_add(x, y)); \
    case SUB: return raw_##T(M##_sub(x, y)); \
    case MUL: return raw_##T(M##_mul(x, y)); \
    case DIV: return raw_##T(M##_div(x, y)); \
    case SQRT: return raw_##T(M##_sqrt(x)); \
    case REM: return raw_##T(M##_rem(x, y)); \
    case EQ: return M##_eq(x, y); \
    case EQ_SIGNALING: return M##_eq_signaling(x, y); \
    case LT: return M##_lt(x, y); \
    case LE: return M##_le(x, y); \
    case LTQ: return M##_lt_quiet(x, y); \
    case LEQ: return M##_le_quiet(x, y); \
    case TO_I32: return (u64)(int64_t)(int32_t)M##_to_i32(x, mode, true); \
    case TO_U32: return (uint32_t)M##_to_ui32(x, mode, true); \
    case TO_I64: return (u64)M##_to_i64(x, mode, true); \
    case TO_U64: return M##_to_ui64(x, mode, true); \
    case RINT: return raw_##T(M##_roundToInt(x, mode, false)); \
    case RINTX: return raw_##T(M##_roundToInt(x, mode, true)); \
    case FROM_I32: return raw_##T(i32_to_##M((int32_t)n)); \
    case FROM_U32: return raw_##T(ui32_to_##M((uint32_t)n)); \
    case FROM_I64: return raw_##T(i64_to_##M((int64_t)n)); \
    case FROM_U64: return raw_##T(ui64_to_##M(n));

static u128 run(int fmt, enum op op, u128 a, u128 b, u128 c, u64 n, uint_fast8_t mode)
{
    switch (fmt) {
#if RULE < 2
    case BF16: return raw_f32(bf16_to_f32((bfloat16_t){ (uint16_t)a }));
#endif
    case F16: { float16_t x = f16(a), y = f16(b), z = f16(c); switch (op) { COMMON(f16, f16)
        case FMA: return raw_f16(f16_mulAdd(x, y, z));
        case TO_F32: return raw_f32(f16_to_f32(x));
        case TO_F64: return raw_f64(f16_to_f64(x));
        case TO_F80: return raw_f80(f16_to_extF80(x));
        case TO_F128: return raw_f128(f16_to_f128(x));
        default: return 0; } }
    case F32: { float32_t x = f32(a), y = f32(b), z = f32(c); switch (op) { COMMON(f32, f32)
        case FMA: return raw_f32(f32_mulAdd(x, y, z));
#if RULE < 2
        case TO_BF16: return f32_to_bf16(x).v;
#endif
        case TO_F16: return raw_f16(f32_to_f16(x));
        case TO_F64: return raw_f64(f32_to_f64(x));
        case TO_F80: return raw_f80(f32_to_extF80(x));
        case TO_F128: return raw_f128(f32_to_f128(x));
        default: return 0; } }
    case F64: { float64_t x = f64(a), y = f64(b), z = f64(c); switch (op) { COMMON(f64, f64)
        case FMA: return raw_f64(f64_mulAdd(x, y, z));
        case TO_F16: return raw_f16(f64_to_f16(x));
        case TO_F32: return raw_f32(f64_to_f32(x));
        case TO_F80: return raw_f80(f64_to_extF80(x));
        case TO_F128: return raw_f128(f64_to_f128(x));
        default: return 0; } }
    case F80: { extFloat80_t x = f80(a), y = f80(b); switch (op) { COMMON(f80, extF80)
        case TO_F16: return raw_f16(extF80_to_f16(x));
        case TO_F32: return raw_f32(extF80_to_f32(x));
        case TO_F64: return raw_f64(extF80_to_f64(x));
        case TO_F128: return raw_f128(extF80_to_f128(x));
        default: return 0; } }
    default: { float128_t x = f128(a), y = f128(b), z = f128(c); switch (op) { COMMON(f128, f128)
        case FMA: return raw_f128(f128_mulAdd(x, y, z));
        case TO_F16: return raw_f16(f128_to_f16(x));
        case TO_F32: return raw_f32(f128_to_f32(x));
        case TO_F64: return raw_f64(f128_to_f64(x));
        case TO_F80: return raw_f80(f128_to_extF80(x));
        default: return 0; } }
    }
}

static bool is_nan(const struct format *f, u128 a)
{
    return exponent(f, a) == (1L << f->exp_bits) - 1 && (a & (((u128)1 << f->frac_bits) - 1));
}
static bool is_inf_times_zero(const struct format *f, u128 a, u128 b)
{
    int top = f->frac_bits + f->integer + f->exp_bits;
    u128 inf = pack(f, 0, (1L << f->exp_bits) - 1, 0), mask = ((u128)1 << top) - 1;
    a &= mask; b &= mask;
    return (a == inf && !b) || (!a && b == inf);
}
/* Cases in which the manual and SoftFloat differ; see berkeley.rs. */
static bool is_excluded(const struct format *f, enum op op, u128 a, u128 b, u128 c)
{
    if (RULE == 1 && (op == TO_BF16 || f == &formats[BF16])) return is_nan(f, a);
    if (op != FMA) return false;
    if (RULE == 1) return is_inf_times_zero(f, a, b) && is_nan(f, c);
    if (RULE >= 3) return is_nan(f, a) + is_nan(f, b) + is_nan(f, c) > 1;
    return false;
}

int main(int argc, char **argv)
{
    static const uint_fast8_t modes[6] = { softfloat_round_near_even, softfloat_round_minMag, softfloat_round_min, softfloat_round_max,
                                           softfloat_round_near_maxMag, softfloat_round_odd };
    static const uint_fast8_t precisions[3] = { 32, 64, 80 };
    for (int fmt = BF16; fmt <= F128; fmt++) {
        const struct format *f = &formats[fmt];
        for (enum op op = 0; op < OPS; op++) {
            bool wanted = op < TO_BF16 ? fmt != BF16 && (op != FMA || fmt != F80)
                        : fmt == BF16 ? op == TO_F32
                        : op == TO_BF16 ? fmt == F32 : strcmp(op_names[op] + 3, f->name) != 0;
            if (RULE == 0 || RULE == 3 || RULE == 4) wanted = wanted && fmt != F80 && op != TO_F80;
            if (RULE == 1) wanted = wanted && fmt != F80 && fmt != F128 && op != TO_F80 && op != TO_F128;
            if (RULE == 2) wanted = wanted && (fmt == F80 || op == TO_F80);
            if (RULE >= 2 && (fmt == BF16 || op == TO_BF16)) wanted = false;
            if (!wanted) continue;
            char name[64];
            snprintf(name, sizeof name, "%s.%s.%s", rule_names[RULE], f->name, op_names[op]);
            bool print = argc == 3 && !strcmp(argv[1], f->name) && !strcmp(argv[2], op_names[op]);
            if (argc == 3 && !print) continue;
            seed = 0;
            for (const char *p = name; *p; p++) seed = seed * 31 + (unsigned char)*p;
            u64 digest = 0xcbf29ce484222325u;
            int cases = RULE == 0 ? 10000 : 3000;
            if (op == REM && f->exp_bits == 15) cases = 300;
            for (int m = 0; m < 6; m++)
                for (int i = 0; i < cases; i++) {
                    u128 a = operand(f), b = near(f, a), c = addend(f, a, b);
                    u64 n = integer();
                    if (is_excluded(f, op, a, b, c)) continue;
                    softfloat_roundingMode = modes[m];
                    extF80_roundingPrecision = precisions[i % 3];
                    softfloat_detectTininess = RULE >= 3 ? softfloat_tininess_beforeRounding : softfloat_tininess_afterRounding;
                    softfloat_exceptionFlags = 0;
                    u128 r = run(fmt, op, a, b, c, n, modes[m]);
                    u64 flags = softfloat_exceptionFlags;
                    u64 words[3] = { (u64)r, (u64)(r >> 64), flags };
                    for (int w = 0; w < 3; w++) { digest = (digest ^ words[w]) * 0x100000001b3u; digest ^= digest >> 29; }
                    if (print)
                        printf("%d %d %016lx%016lx %016lx%016lx %016lx%016lx %016lx => %016lx%016lx %02lx\n", m, i % 3, (u64)(a >> 64),
                               (u64)a, (u64)(b >> 64), (u64)b, (u64)(c >> 64), (u64)c, n, words[1], words[0], flags);
                }
            if (argc != 3) printf("%s %016lx\n", name, digest);
        }
    }
    return 0;
}
