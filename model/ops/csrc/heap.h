/* What glibc's allocator does with freed memory. A training step frees and takes again the same
 * gigabytes, and getting a page back from the system costs more than computing on it. Elsewhere
 * these do nothing. */
#pragma once
#include <stddef.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

/* Keep what is freed: never give it back, and never ask the system for single pieces. */
static void heap_keep_freed(void) {
#if defined(__GLIBC__)
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

/* Give back what is free (holes that no request fits) once it is more than `limit` bytes and more
 * than half of what is in use. */
static void heap_give_back(size_t limit) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    const struct mallinfo2 heap = mallinfo2();
    if (heap.fordblks > limit && heap.fordblks > heap.uordblks / 2) malloc_trim(0);
#endif
}
