/* A plugin for qemu 7's user-mode emulator: counts the 64-bit ARM instructions a program executes, by kind.
 *
 * Distributions ship no qemu-plugin.h, so the part of its interface, version 1, that is used here is declared by hand
 * (QEMU, "TCG Plugins"). Encodings are those of the Arm Architecture Reference Manual, chapter C4: a kind is a mask on
 * the 32 bits of the instruction and what has to be left under it. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_translation)(plugin_id, struct qemu_plugin_tb *);
typedef void (*on_exit)(plugin_id, void *);
enum { ADD_U64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_translation);
void qemu_plugin_register_atexit_cb(plugin_id, on_exit, void *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t amount);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

PUBLIC int qemu_plugin_version = 1;

enum { ALL, FMA, LOAD, STORE, KINDS };
static const char *const names[KINDS] = {"all", "fma", "loads", "stores"};
static uint64_t executed[KINDS];

static const struct {
    uint32_t mask, value;
    int kind;
} encodings[] = {
    {0xBF20FC00, 0x0E20CC00, FMA},   /* FMLA, FMLS (vector); bit 23 tells them apart and is left open */
    {0xBF80B400, 0x0F801000, FMA},   /* FMLA, FMLS (by element), single and double precision */
    {0xFF000000, 0x1F000000, FMA},   /* FMADD, FMSUB and their negations, scalar */
    {0x3A400000, 0x28400000, LOAD},  /* LDP, LDNP, general and SIMD */
    {0x3A400000, 0x28000000, STORE}, /* STP, STNP */
    {0xBF400000, 0x0C400000, LOAD},  /* LD1 ... LD4, multiple structures */
    {0xBF400000, 0x0C000000, STORE}, /* ST1 ... ST4 */
    {0xBF400000, 0x0D400000, LOAD},  /* LD1 ... LD4, single structure, and LD1R */
    {0xBF400000, 0x0D000000, STORE},
    {0x3B000000, 0x18000000, LOAD},  /* LDR (literal) */
    {0x3F400000, 0x08400000, LOAD},  /* exclusive and acquire loads */
    {0x3F400000, 0x08000000, STORE},
};

/* One register, every addressing mode: bits 23:22 say load or store, but for 128-bit vectors (size 00) bit 22 alone. */
static int single_register(uint32_t word) {
    if ((word & 0x3A000000) != 0x38000000)
        return ALL;
    bool vector = word >> 26 & 1, quad = vector && word >> 30 == 0 && (word >> 23 & 1);
    uint32_t operation = word >> 22 & 3;
    return (quad ? operation & 1 : operation != 0) ? LOAD : STORE;
}

static int kind_of(uint32_t word) {
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings; ++i)
        if ((word & encodings[i].mask) == encodings[i].value)
            return encodings[i].kind;
    return single_register(word);
}

static void translated(plugin_id id, struct qemu_plugin_tb *block) {
    uint64_t counts[KINDS] = {0};
    size_t length = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (size_t i = 0; i < length; ++i) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        int kind = kind_of(word);
        counts[ALL] += 1;
        if (kind != ALL)
            counts[kind] += 1;
    }
    for (int kind = 0; kind < KINDS; ++kind)
        if (counts[kind])
            qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &executed[kind], counts[kind]);
}

static void finished(plugin_id id, void *nothing) {
    (void)id, (void)nothing;
    fprintf(stderr, "\nCOUNTED");
    for (int kind = 0; kind < KINDS; ++kind)
        fprintf(stderr, " %s=%" PRIu64, names[kind], executed[kind]);
    fprintf(stderr, "\n");
}

PUBLIC int qemu_plugin_install(plugin_id id, const void *info, int count, char **words) {
    (void)info, (void)count, (void)words;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
