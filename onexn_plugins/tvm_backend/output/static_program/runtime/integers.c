/* 64-bit integers on 32-bit processors, by the names that LLVM's code calls. Compilers for ARM have them under others of
   their own, as which this code is compiled; where they have these as well, these give way. */

#include <stdint.h>

#define GIVES_WAY __attribute__((weak))

GIVES_WAY float __floatdisf(int64_t value) { return (float)value; }
GIVES_WAY double __floatdidf(int64_t value) { return (double)value; }
GIVES_WAY float __floatundisf(uint64_t value) { return (float)value; }
GIVES_WAY double __floatundidf(uint64_t value) { return (double)value; }
GIVES_WAY int64_t __fixsfdi(float value) { return (int64_t)value; }
GIVES_WAY int64_t __fixdfdi(double value) { return (int64_t)value; }
GIVES_WAY uint64_t __fixunssfdi(float value) { return (uint64_t)value; }
GIVES_WAY uint64_t __fixunsdfdi(double value) { return (uint64_t)value; }
GIVES_WAY int64_t __divdi3(int64_t value, int64_t divisor) { return value / divisor; }
GIVES_WAY int64_t __moddi3(int64_t value, int64_t divisor) { return value % divisor; }
GIVES_WAY uint64_t __udivdi3(uint64_t value, uint64_t divisor) { return value / divisor; }
GIVES_WAY uint64_t __umoddi3(uint64_t value, uint64_t divisor) { return value % divisor; }
