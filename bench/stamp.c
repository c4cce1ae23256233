/*
 * What a command of `handover` does: it writes when it began, CLOCK_MONOTONIC in nanoseconds, as one line at the end
 * of a file. With a second argument it first waits until stdin ends, and then writes: the last thing before it exits.
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
  char text[64], c;
  struct timespec t;
  if (argc > 2)
    while (read(0, &c, 1) > 0) continue;
  clock_gettime(CLOCK_MONOTONIC, &t);
  int length = snprintf(text, sizeof text, "%ld\n", t.tv_sec * 1000000000L + t.tv_nsec);
  int fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
  return write(fd, text, length) == length ? 0 : 1;
}
