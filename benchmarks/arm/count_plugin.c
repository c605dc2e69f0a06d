/* A plugin for qemu 7's user-mode emulators: counts the ARM instructions (A64 or A32) a program executes, by kind.
 *
 * Distributions ship no qemu-plugin.h, so the part of its interface, version 1, that is used here is declared by hand
 * (QEMU, "TCG Plugins"). Encodings are those of the Arm Architecture Reference Manual, chapters C4 and F4: a kind is a
 * mask on the 32 bits of the instruction and what has to be left under it. */
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
struct qemu_info {
    const char *target_name; /* more follows */
};
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

struct encoding {
    uint32_t mask, value;
    int kind; /* ALL: none of the others */
};
static bool is_32_bit;

static const struct encoding a64[] = {
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

static const struct encoding a32[] = {
    {0xFF800E10, 0xF2000C10, FMA},   /* VFMA, VFMS, VMLA, VMLS (vector) */
    {0xFEB00B50, 0xF2A00140, FMA},   /* VMLA, VMLS (by scalar) */
    {0x0FB00E10, 0x0EA00A00, FMA},   /* VFMA, VFMS, one value; VFNMA, VFNMS; VMLA and its negations */
    {0x0FB00E10, 0x0E900A00, FMA},
    {0x0FA00E10, 0x0E000A00, FMA},
    {0xFF300000, 0xF4200000, LOAD},  /* VLD1 ... VLD4 */
    {0xFF300000, 0xF4000000, STORE}, /* VST1 ... VST4 */
    {0x0FE00E00, 0x0C400A00, ALL},   /* VMOV between two general registers and a vector one */
    {0x0E100E00, 0x0C100A00, LOAD},  /* VLDR, VLDM */
    {0x0E100E00, 0x0C000A00, STORE}, /* VSTR, VSTM */
    {0x0E100000, 0x04100000, LOAD},  /* LDR, LDRB (immediate) and PLD */
    {0x0E100000, 0x04000000, STORE},
    {0x0E100010, 0x06100000, LOAD},  /* LDR, LDRB (register) */
    {0x0E100010, 0x06000000, STORE},
    {0x0E1000F0, 0x001000B0, LOAD},  /* LDRH, LDRSB, LDRSH, LDRD */
    {0x0E1000D0, 0x001000D0, LOAD},
    {0x0E1000F0, 0x000000D0, LOAD},
    {0x0E1000F0, 0x000000B0, STORE}, /* STRH, STRD */
    {0x0E1000F0, 0x000000F0, STORE},
    {0x0E100000, 0x08100000, LOAD},  /* LDM */
    {0x0E100000, 0x08000000, STORE}, /* STM */
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
    const struct encoding *encodings = is_32_bit ? a32 : a64;
    size_t count = is_32_bit ? sizeof a32 / sizeof *a32 : sizeof a64 / sizeof *a64;
    for (size_t i = 0; i < count; ++i)
        if ((word & encodings[i].mask) == encodings[i].value)
            return encodings[i].kind;
    return is_32_bit ? ALL : single_register(word);
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

PUBLIC int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int count, char **words) {
    (void)count, (void)words;
    is_32_bit = !strcmp(info->target_name, "arm");
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
