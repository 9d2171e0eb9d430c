/* Loaded before the C library by tests, so that the wall clock of a program differs from that of its machine.
 *
 * ANODE_TEST_CLOCK names a file that holds the difference as two 64-bit integers in the order of the machine: seconds,
 * and nanoseconds from 0 to 999,999,999, which are 0 if the file ends before them. The file is mapped, so a test that
 * writes to it moves the clock of the running program at once. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *difference;

__attribute__((constructor)) static void map_difference(void) {
    const char *path = getenv("ANODE_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, 2 * sizeof *difference, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) difference = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result != 0 || clock != CLOCK_REALTIME || !difference) return result;
    int64_t nanoseconds = time->tv_nsec + difference[1];
    time->tv_sec += difference[0] + nanoseconds / 1000000000;
    time->tv_nsec = nanoseconds % 1000000000;
    return result;
}
