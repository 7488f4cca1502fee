// What benches/instructions.py counts of ggml: its products of several rows with weights that were repacked in memory, as llama.cpp
// runs them by default; row by row from the layout of the file where it has no repacked form, and for FORMAT-row.
//
//     instructions_ggml FORMAT TOKENS ROWS K TIMES
//
// Compile beside ggml/src and ggml/src/ggml-cpu in the include path and link its static libraries.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ggml-cpu.h"
#include "ggml.h"
#include "repack.h"

using product = void(int n, float *s, size_t bs, const void *vx, const void *vy, int nr, int nc);

static const struct {
    const char *name;
    enum ggml_type type;
    product *gemv, *gemm;
} repacked[] = {
    {"Q4_0", GGML_TYPE_Q4_0, ggml_gemv_q4_0_4x8_q8_0, ggml_gemm_q4_0_4x8_q8_0},
    {"Q4_K", GGML_TYPE_Q4_K, ggml_gemv_q4_K_8x8_q8_K, ggml_gemm_q4_K_8x8_q8_K},
    {"Q5_K", GGML_TYPE_Q5_K, ggml_gemv_q5_K_8x8_q8_K, ggml_gemm_q5_K_8x8_q8_K},
    {"Q6_K", GGML_TYPE_Q6_K, ggml_gemv_q6_K_8x8_q8_K, ggml_gemm_q6_K_8x8_q8_K},
    {"Q8_0", GGML_TYPE_Q8_0, ggml_gemv_q8_0_4x8_q8_0, ggml_gemm_q8_0_4x8_q8_0},
    {"IQ4_NL", GGML_TYPE_IQ4_NL, ggml_gemv_iq4_nl_4x4_q8_0, ggml_gemm_iq4_nl_4x4_q8_0},
    {"MXFP4", GGML_TYPE_MXFP4, ggml_gemv_mxfp4_4x4_q8_0, ggml_gemm_mxfp4_4x4_q8_0},
};

static const struct {
    const char *name;
    enum ggml_type type;
} by_row[] = {
    {"Q4_1", GGML_TYPE_Q4_1},       {"Q5_0", GGML_TYPE_Q5_0},         {"Q5_1", GGML_TYPE_Q5_1},
    {"Q3_K", GGML_TYPE_Q3_K},       {"Q2_K", GGML_TYPE_Q2_K},         {"IQ4_XS", GGML_TYPE_IQ4_XS},
    {"Q4_0-row", GGML_TYPE_Q4_0},   {"Q8_0-row", GGML_TYPE_Q8_0},     {"Q4_K-row", GGML_TYPE_Q4_K},
    {"Q5_K-row", GGML_TYPE_Q5_K},   {"Q6_K-row", GGML_TYPE_Q6_K},     {"IQ4_NL-row", GGML_TYPE_IQ4_NL},
    {"MXFP4-row", GGML_TYPE_MXFP4},
};

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "FORMAT TOKENS ROWS K TIMES\n");
        return 1;
    }
    const int tokens = atoi(argv[2]), rows = atoi(argv[3]), k = atoi(argv[4]), times = atoi(argv[5]);
    // Zeros are weights and activations as good as any others: no kernel looks at them.
    void *x = calloc((size_t)tokens * k, 8), *w = calloc((size_t)rows * k, 8);
    float *out = (float *)calloc((size_t)rows * tokens, sizeof(float));
    ggml_cpu_init();
    for (size_t i = 0; i < sizeof repacked / sizeof *repacked; i++) {
        if (strcmp(argv[1], repacked[i].name) != 0) continue;
        for (int t = 0; t < times; t++) {
            if (tokens == 1) {
                repacked[i].gemv(k, out, rows, w, x, 1, rows);
            } else {
                repacked[i].gemm(k, out, rows, w, x, tokens, rows);
            }
        }
        return 0;
    }
    for (size_t i = 0; i < sizeof by_row / sizeof *by_row; i++) {
        if (strcmp(argv[1], by_row[i].name) != 0) continue;
        const struct ggml_type_traits_cpu *traits = ggml_get_type_traits_cpu(by_row[i].type);
        const size_t bytes = ggml_row_size(by_row[i].type, k), x_bytes = ggml_row_size(traits->vec_dot_type, k);
        // Two rows with two tokens at a time where ggml has that.
        const int step = tokens % 2 == 0 ? (int)traits->nrows : 1;
        for (int t = 0; t < times; t++) {
            for (int token = 0; token < tokens; token += step) {
                for (int row = 0; row < rows; row += step) {
                    traits->vec_dot(k, out + (size_t)token * rows + row, step > 1 ? rows : 0, (char *)w + row * bytes,
                                    step > 1 ? bytes : 0, (char *)x + token * x_bytes, step > 1 ? x_bytes : 0, step);
                }
            }
        }
        return 0;
    }
    return 2;
}
