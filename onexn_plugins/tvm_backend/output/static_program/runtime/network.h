/* A network compiled by onexn-plugins: its tensors and how to run it.
 *
 * Link libnetwork.a and libm. One network per program; not from two threads at once, for its working memory is static.
 */
#ifndef ONEXN_NETWORK_H
#define ONEXN_NETWORK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *name;     /* as in the ONNX file */
    const char *dtype;    /* "float32", "int64", ... as NumPy calls it */
    int32_t ndim;
    const int64_t *shape; /* ndim sizes; the last axis lies densest in memory */
    size_t bytes;
} onexn_tensor;

extern const int32_t onexn_num_inputs, onexn_num_outputs;
extern const onexn_tensor onexn_inputs[], onexn_outputs[];

/* Runs the network once. `inputs` holds onexn_num_inputs pointers, `outputs` onexn_num_outputs, each to as many bytes
 * as its tensor says; any alignment will do. Returns 0, or another number where onexn_error() says what is wrong. */
int onexn_run(const void *const inputs[], void *const outputs[]);

const char *onexn_error(void);

#ifdef __cplusplus
}
#endif

#endif
