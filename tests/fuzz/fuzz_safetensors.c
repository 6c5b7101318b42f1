/* The safetensors reader on any bytes: what it accepts must tile the data exactly and be readable to the last byte. */
#include "checkpoint/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zq_safetensors file;
    zq_error err = {0};
    if (zq_safetensors_view(&file, data, size, "input", &err)) {
        if (!err.message[0] || file.tensors || file.n_tensors) abort();
        return 0;
    }
    size_t n_bytes = 0;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < file.n_tensors; i++) {
        const struct zq_tensor *t = &file.tensors[i];
        size_t expected = zq_dtype_bytes(t->dtype);
        for (size_t d = 0; d < t->n_dims; d++) expected *= t->shape[d];
        if (expected != t->n_bytes || (i && t->bytes != t[-1].bytes + t[-1].n_bytes)) abort();
        for (size_t b = 0; b < t->n_bytes; b++) sum = (uint8_t)(sum + t->bytes[b]);
        n_bytes += t->n_bytes;
    }
    if (file.n_tensors && file.tensors[0].bytes + n_bytes != data + size) abort();
    zq_safetensors_close(&file);
    return 0;
}
