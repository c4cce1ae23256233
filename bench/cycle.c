/*
 * The floor of `cycle`: the system calls of acquireSync() and releaseSync(), and nothing else.
 *
 * cycle DIRECTORY BATCHES CYCLES: prints the nanoseconds of one cycle for each batch.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void cycle(const char *path, const char *record, size_t length) {
  const int safe = O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
  struct statx ours, there;
  int fd = open(path, safe);
  if (fd < 0) fd = open(path, safe | O_CREAT | O_EXCL, 0644);
  statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &ours);
  if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0) abort();
  statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &there);
  if (ours.stx_ino != there.stx_ino) abort();
  if (pwrite(fd, record, length, 0) < 0 || ftruncate(fd, length) != 0) abort();
  statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &there);
  if (ours.stx_ino != there.stx_ino || unlink(path) != 0) abort();
  flock(fd, LOCK_UN);
  close(fd);
}

int main(int argc, char **argv) {
  if (argc != 4) return 64;
  char path[4096], record[175];
  snprintf(path, sizeof path, "%s/exclusive_floor.lock", argv[1]);
  memset(record, 'x', sizeof record);
  int batches = atoi(argv[2]), cycles = atoi(argv[3]);
  for (int batch = -1; batch < batches; batch++) {
    long begun = now();
    for (int i = 0; i < cycles; i++) cycle(path, record, sizeof record);
    if (batch >= 0) printf("%.1f\n", (double)(now() - begun) / cycles);
  }
  return 0;
}
