/*
 * Runs commands in turn (A B C A B C ...), and prints of each run: which command, its status, wall, user and system
 * time in microseconds, peak memory in KiB. Its own program because the kernel counts towards a process's peak memory
 * what its parent had when it was forked; this one is small.
 *
 * measure RUNS COMMAND [ARG...] [--and COMMAND [ARG...]]...
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static long micros(struct timeval t) { return t.tv_sec * 1000000L + t.tv_usec; }

int main(int argc, char **argv) {
  char **commands[64];
  int count = 0;
  commands[count++] = argv + 2;
  for (int i = 2; i < argc; i++)
    if (strcmp(argv[i], "--and") == 0) {
      argv[i] = NULL;
      commands[count++] = argv + i + 1;
    }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  for (int run = atoi(argv[1]); run > 0; run--)
    for (int i = 0; i < count; i++) {
      long begun = now();
      pid_t pid;
      int status;
      struct rusage used;
      int error = posix_spawnp(&pid, commands[i][0], &actions, NULL, commands[i], environ);
      if (error != 0) {
        fprintf(stderr, "%s: %s\n", commands[i][0], strerror(error));
        return 1;
      }
      wait4(pid, &status, 0, &used);
      long taken = now() - begun;
      printf("%d %d %.1f %ld %ld %ld\n", i, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
             taken / 1e3, micros(used.ru_utime), micros(used.ru_stime), used.ru_maxrss);
      fflush(stdout);
    }
  return 0;
}
