/* The written order in scalars. */
#include "written.h"

#include "base/half.h"
#include "kernels/c/vec_c.h"
#include "kernels/math.h"

float written_tree(const float *lanes)
{
    float s8[8], s4[4], s2[2];
    for (int l = 0; l < 8; l++) s8[l] = lanes[l] + lanes[l + 8];
    for (int l = 0; l < 4; l++) s4[l] = s8[l] + s8[l + 4];
    for (int l = 0; l < 2; l++) s2[l] = s4[l] + s4[l + 2];
    return s2[0] + s2[1];
}

float written_sum(const float *x, size_t n)
{
    float lanes[16] = {0};
    for (size_t i = 0; i < n; i++) lanes[i % 16] += x[i];
    return written_tree(lanes);
}

float written_squares(const float *x, size_t n, float mean)
{
    float lanes[16] = {0};
    for (size_t i = 0; i < n; i++) {
        const float d = x[i] - mean;
        lanes[i % 16] = fmaf(d, d, lanes[i % 16]);
    }
    return written_tree(lanes);
}

float written_token(int8_t *q, const float *y, size_t n)
{
    float top = 0;
    for (size_t i = 0; i < n; i++) top = fmaxf(top, fabsf(y[i]));
    const float scale = top / 127 == 0 ? 1 : top / 127;
    for (size_t i = 0; i < n; i++) {
        const float code = nearbyintf(y[i] / scale);
        q[i] = (int8_t)(code > 127 ? 127 : code < -127 ? -127 : code);
    }
    return scale;
}

float written_bf16(float f) { return zq_bf16_to_float(zq_float_to_bf16(f)); }

float written_exp(float x) { return v_exp(v_set(x)).lane[0]; }

double written_gelu_mass(double t)
{
    double mass = 0;
    for (size_t i = ZQ_LEN(gelu_p); i-- > 0;) mass = mass * t + fabs((double)gelu_p[i]);
    return mass;
}

double written_gelu_error(void) { return GELU_ERROR; }
