/* Loaded before the C library by tests, so that the wall clock of a program differs from that of its machine.
 *
 * ANODE_TEST_CLOCK names a file that holds the difference in seconds, as a 64-bit integer in the order of the
 * machine. The file is mapped, so a test that writes to it moves the clock of the running program at once. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *difference_s;

__attribute__((constructor)) static void map_difference(void) {
    const char *path = getenv("ANODE_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *difference_s, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) difference_s = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && difference_s) time->tv_sec += *difference_s;
    return result;
}
