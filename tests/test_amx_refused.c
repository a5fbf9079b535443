/* A processor that has AMX under a system that refuses it to the process, whatever this one is: amx counts as absent,
 * and ATTN_VERBOSE says why. */
#define attn_cpu_read read_really
#include "cpu.c"
#undef attn_cpu_read

#include "first_calls.h"
#include "processors.h"
#include "support.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#if __has_include(<linux/seccomp.h>) /* musl's compiler does not look where the kernel's headers are */
#include <linux/filter.h>
#include <linux/seccomp.h>
#define HAS_SECCOMP 1
#endif

#include "dispatch.h"

/* As Linux answers where some thread's alternate signal stack is below AT_MINSIGSTKSZ. */
void attn_cpu_read(struct attn_cpu_registers *registers) {
    *registers = sapphire_rapids;
    registers->amx_permission = -ENOSPC;
}

static void says_why_once(void **state) {
    (void)state;
    assert_string_equal("attn: amx is left out: the system refuses it to this process (arch_prctl: errno 28)\n",
                        first_calls_said);
}

static void takes_what_amx_stands_on(void **state) {
    (void)state;
    const struct attn_kernels *table = NULL;
    attn_gemm_config config = {.isa = ATTN_ISA_AMX, .k = 64, .n = 64, .w.type = ATTN_BF16};
    attn_error error = {0};
    size_t bytes = 0;
    assert_int_equal(ATTN_ISA_AVX512_BF16, attn_isa_chosen());
    assert_int_equal(0, attn_isa_supported(ATTN_ISA_AMX));
    assert_status(ATTN_UNSUPPORTED_ISA, attn_gemm_size(&config, &bytes, &error));
    assert_string_equal("isa", error.field);
    assert_ok(attn_table_for(ATTN_ISA_BEST, &table));
    assert_int_equal(ATTN_CLASS_BF16, attn_class_for(table, ATTN_BF16, ATTN_ARITHMETIC_FASTEST));
}

/* ---- The question itself ---- */

static int ask_and_keep_errno(void) {
    const int before = ERANGE;
    errno = before;
    int answer = ask_for_amx();
    assert_int_equal(before, errno);
    return answer;
}

/* Granted, or an errno of this system. */
static void asks(void **state) {
    (void)state;
    int answer = ask_and_keep_errno();
    assert_true(answer == ATTN_AMX_GRANTED || answer < 0);
}

/* From here on arch_prctl fails. False where a process may not say so. */
static bool refuse_arch_prctl(int error) {
#ifdef HAS_SECCOMP
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
#else
    (void)error;
    return false;
#endif
}

/* In a child process, whose filter ends with it: 77 where there is none. */
static void is_refused_by_seccomp(void **state) {
    (void)state;
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(!refuse_arch_prctl(EACCES) ? TEST_EXIT_SKIP : ask_and_keep_errno() == -EACCES ? 0 : 1);
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == TEST_EXIT_SKIP)
        skip();
    assert_int_equal(0, WEXITSTATUS(status));
}

int main(int argc, char **argv) {
    call_first();
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_why_once),
        cmocka_unit_test(takes_what_amx_stands_on),
        cmocka_unit_test(asks),
        cmocka_unit_test(is_refused_by_seccomp),
    };
    return test_run(tests);
}
