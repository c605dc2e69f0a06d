/* The command line around a network: raw files in, raw files out, and how long it takes. */
#include "network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void describe(FILE *out, const char *program) {
    fprintf(out, "usage: %s INPUT... OUTPUT... [--repeat N]\n"
                 "Every file holds one tensor's numbers, as NumPy's tofile() writes them. --repeat runs the network\n"
                 "N times more and prints the median time of a run.\n", program);
    for (int32_t i = 0; i < onexn_num_inputs + onexn_num_outputs; ++i) {
        int is_input = i < onexn_num_inputs;
        const onexn_tensor *tensor = is_input ? &onexn_inputs[i] : &onexn_outputs[i - onexn_num_inputs];
        fprintf(out, "%s %s: %s [", is_input ? "input" : "output", tensor->name, tensor->dtype);
        for (int32_t axis = 0; axis < tensor->ndim; ++axis)
            fprintf(out, axis ? ", %lld" : "%lld", (long long)tensor->shape[axis]);
        fprintf(out, "], %zu bytes\n", tensor->bytes);
    }
}

static int refuse(const char *file, const char *reason) {
    fprintf(stderr, "%s: %s\n", file, reason);
    return 0;
}

static int read_file(const char *path, void *bytes, size_t size) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return refuse(path, "cannot be opened");
    int whole = fread(bytes, 1, size, file) == size && fgetc(file) == EOF;
    fclose(file);
    return whole || refuse(path, "is not as long as its tensor");
}

static int write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    if (!file)
        return refuse(path, "cannot be written");
    int whole = fwrite(bytes, 1, size, file) == size;
    whole &= fclose(file) == 0;
    return whole || refuse(path, "could not be written whole");
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int ascending(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static int run(const void *const inputs[], void *const outputs[]) {
    if (!onexn_run(inputs, outputs))
        return 1;
    fprintf(stderr, "the network failed: %s\n", onexn_error());
    return 0;
}

static int measure(const void *const inputs[], void *const outputs[], long repeat) {
    double *times = malloc((size_t)repeat * sizeof *times);
    if (!times)
        return refuse("--repeat", "is too large");
    for (long i = 0; i < repeat; ++i) {
        double begin = milliseconds();
        if (!run(inputs, outputs))
            return 0;
        times[i] = milliseconds() - begin;
    }
    qsort(times, (size_t)repeat, sizeof *times, ascending);
    printf("median %.3f ms, fastest %.3f ms of %ld runs\n", times[repeat / 2], times[0], repeat);
    free(times);
    return 1;
}

/* The files' memory: inputs first, then outputs. */
static void **allocate(void) {
    int32_t count = onexn_num_inputs + onexn_num_outputs;
    void **tensors = calloc((size_t)count, sizeof *tensors);
    for (int32_t i = 0; tensors && i < count; ++i) {
        const onexn_tensor *tensor = i < onexn_num_inputs ? &onexn_inputs[i] : &onexn_outputs[i - onexn_num_inputs];
        tensors[i] = malloc(tensor->bytes);
        if (!tensors[i])
            return NULL;
    }
    return tensors;
}

int main(int count, char **words) {
    long repeat = 0;
    if (count > 2 && !strcmp(words[count - 2], "--repeat")) {
        repeat = strtol(words[count - 1], NULL, 10);
        if (repeat < 1 || repeat > 1000000)
            return refuse("--repeat", "takes a number from 1 to 1000000") + 2;
        count -= 2;
    }
    if (count != 1 + onexn_num_inputs + onexn_num_outputs) {
        describe(stderr, words[0]);
        return 2;
    }
    void **tensors = allocate();
    if (!tensors)
        return refuse(words[0], "not enough memory") + 1;
    void **outputs = tensors + onexn_num_inputs;
    const void *const *inputs = (const void *const *)tensors;
    for (int32_t i = 0; i < onexn_num_inputs; ++i)
        if (!read_file(words[1 + i], tensors[i], onexn_inputs[i].bytes))
            return 2;
    if (!run(inputs, outputs) || (repeat && !measure(inputs, outputs, repeat)))
        return 1;
    for (int32_t i = 0; i < onexn_num_outputs; ++i)
        if (!write_file(words[1 + onexn_num_inputs + i], outputs[i], onexn_outputs[i].bytes))
            return 1;
    return 0;
}
