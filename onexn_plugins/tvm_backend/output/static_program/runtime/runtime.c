/* Runs a network's kernels in order, and is all of TVM's runtime that they call. */
#include "network.h"
#include "program.h"

#include <stdlib.h>
#include <string.h>

static char message[256];

static void append(const char *text) {
    strncat(message, text, sizeof message - 1 - strlen(message));
}

const char *onexn_error(void) {
    return message;
}

static int run_kernel(const onexn_call *call) {
    onexn_any arguments[call->count], result;
    memset(arguments, 0, sizeof arguments);
    memset(&result, 0, sizeof result);
    for (int32_t i = 0; i < call->count; ++i) {
        arguments[i].type_index = ONEXN_DLTENSOR_POINTER;
        arguments[i].value.pointer = &onexn_dltensors[onexn_arguments[call->first + i]];
    }
    return call->kernel(NULL, arguments, call->count, &result);
}

int onexn_run(const void *const inputs[], void *const outputs[]) {
    message[0] = '\0';
    for (int32_t i = 0; i < onexn_num_inputs; ++i)
        memcpy(onexn_dltensors[onexn_input_numbers[i]].data, inputs[i], onexn_inputs[i].bytes);
    for (int32_t i = 0; i < onexn_num_calls; ++i) {
        int failed = run_kernel(&onexn_calls[i]);
        if (failed)
            return failed;
    }
    for (int32_t i = 0; i < onexn_num_outputs; ++i)
        memcpy(outputs[i], onexn_dltensors[onexn_output_numbers[i]].data, onexn_outputs[i].bytes);
    return 0;
}

/* What kernels call of TVM (tvm/ffi/c_api.h, tvm/runtime/c_backend_api.h). All but errors they reach through pointers,
 * which LLVM's objects hold as weak symbols for a loader to fill in; these here take their place. */

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    append(kind);
    append(": ");
    for (int32_t i = 0; i < count; ++i)
        if (parts[i])
            append(parts[i]);
}

static void *allocate(int device_type, int device_id, uint64_t bytes, int code_hint, int bits_hint) {
    void *memory = NULL;
    (void)device_type, (void)device_id, (void)code_hint, (void)bits_hint;
    return posix_memalign(&memory, 64, (size_t)bytes) ? NULL : memory;
}

static int release(int device_type, int device_id, void *memory) {
    (void)device_type, (void)device_id;
    free(memory);
    return 0;
}

typedef struct { /* TVMParallelGroupEnv */
    void *sync_handle;
    int32_t num_task;
} parallel_environment;

typedef int (*parallel_task)(int task, parallel_environment *environment, void *closure);

/* Parallel loops run as one task, on the core they are called on. */
static int launch(parallel_task task, void *closure, int count) {
    parallel_environment alone = {NULL, 1};
    (void)count;
    return task(0, &alone, closure);
}

void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;
int (*__TVMBackendParallelLaunch)(parallel_task, void *, int) = launch;
