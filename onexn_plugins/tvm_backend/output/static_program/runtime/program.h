/* The seam between the generated network.c and runtime.c.
 *
 * The structures are those of DLPack and of TVM's FFI (dlpack/dlpack.h, tvm/ffi/c_api.h), as far as a kernel reads
 * them, so that nothing of TVM is needed to build or to run a network. */
#ifndef ONEXN_PROGRAM_H
#define ONEXN_PROGRAM_H

#include <stdint.h>

typedef struct {
    int32_t type;
    int32_t id;
} onexn_device;

typedef struct {
    uint8_t code; /* 0 signed, 1 unsigned, 2 floating point, 6 bool */
    uint8_t bits;
    uint16_t lanes;
} onexn_dtype;

typedef struct { /* DLTensor */
    void *data;
    onexn_device device;
    int32_t ndim;
    onexn_dtype dtype;
    const int64_t *shape;
    const int64_t *strides;
    uint64_t byte_offset;
} onexn_dltensor;

typedef struct { /* TVMFFIAny */
    int32_t type_index;
    uint32_t zero_padding;
    union {
        int64_t int64;
        const void *pointer;
    } value;
} onexn_any;

typedef int (*onexn_kernel)(void *self, const onexn_any *arguments, int32_t count, onexn_any *result);

typedef struct {
    onexn_kernel kernel;
    int32_t first; /* its arguments in onexn_arguments */
    int32_t count;
} onexn_call;

enum { ONEXN_CPU = 1, ONEXN_DLTENSOR_POINTER = 7 };

extern const onexn_dltensor onexn_dltensors[];
extern const int32_t onexn_arguments[]; /* numbers of onexn_dltensors */
extern const onexn_call onexn_calls[];
extern const int32_t onexn_num_calls;
extern const int32_t onexn_input_numbers[], onexn_output_numbers[];

#endif
