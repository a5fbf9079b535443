/* SVE registers of a fixed size: gcc 10 and clang 12 are the first compilers that know them. */
#include <arm_sve.h>

typedef svfloat32_t vec __attribute__((arm_sve_vector_bits(256)));

float lane(vec x);

float lane(vec x) {
    return x[7];
}
