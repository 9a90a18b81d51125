/* Asserts, from the inside, what a file-less program may expect of WASI preview 1. Each check has
   a number; the first that fails is printed on stderr and is the exit code (below 126, which is
   the largest an engine may report). All well: exit 0, and a CGI response "preview1: ok". */
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

#define CHECK(number, fact)                                         \
  do {                                                              \
    if (!(fact)) {                                                  \
      fprintf(stderr, "preview1: check %d failed: %s\n", number, #fact); \
      exit(number);                                                 \
    }                                                               \
  } while (0)

#define MILLISECOND 1000000ull
#define NO_SUCH_FD 77

extern char **environ;

static __wasi_timestamp_t now(__wasi_clockid_t clock) {
  __wasi_timestamp_t at = 0;
  CHECK(10, __wasi_clock_time_get(clock, 1, &at) == __WASI_ERRNO_SUCCESS);
  return at;
}

static void clocks(void) {
  /* 2025-01-01 and 2100-01-01: a wall clock outside them is not a wall clock. */
  __wasi_timestamp_t wall = now(__WASI_CLOCKID_REALTIME);
  CHECK(11, wall > 1735689600ull * 1000000000ull && wall < 4102444800ull * 1000000000ull);
  __wasi_timestamp_t before = now(__WASI_CLOCKID_MONOTONIC), after = before;
  for (int i = 0; i < 100; i++) {
    after = now(__WASI_CLOCKID_MONOTONIC);
    CHECK(12, after >= before);
    before = after;
  }
  __wasi_timestamp_t resolution = 0;
  CHECK(13, __wasi_clock_res_get(__WASI_CLOCKID_REALTIME, &resolution) == 0);
  CHECK(14, resolution > 0 && resolution <= 1000000000ull);
  CHECK(16, time(NULL) > 1735689600);
}

static void randomness(void) {
  uint8_t first[64] = {0}, second[64] = {0}, zero[64] = {0};
  CHECK(20, __wasi_random_get(first, sizeof first) == __WASI_ERRNO_SUCCESS);
  CHECK(21, __wasi_random_get(second, sizeof second) == __WASI_ERRNO_SUCCESS);
  CHECK(22, memcmp(first, second, sizeof first) != 0);
  CHECK(23, memcmp(first, zero, sizeof first) != 0);
  CHECK(24, __wasi_random_get(first, 0) == __WASI_ERRNO_SUCCESS);
}

static void arguments(int argc, char **argv) {
  CHECK(30, argc >= 1 && argv[0] && argv[0][0] && argv[argc] == NULL);
  for (char **entry = environ; entry && *entry; entry++)
    CHECK(31, strchr(*entry, '=') > *entry);
  const char *trace = getenv("FASTLY_TRACE_ID");
  CHECK(32, !trace || strspn(trace, "0123456789abcdef") == 32);
}

static void standard_streams(void) {
  __wasi_fdstat_t stat;
  for (__wasi_fd_t fd = 0; fd <= 2; fd++) {
    CHECK(40, __wasi_fd_fdstat_get(fd, &stat) == __WASI_ERRNO_SUCCESS);
    CHECK(41, stat.fs_filetype != __WASI_FILETYPE_DIRECTORY);
    CHECK(42, stat.fs_filetype != __WASI_FILETYPE_REGULAR_FILE);
  }
  /* A write may be short, but not empty and not longer than asked; the rest follows. */
  __wasi_ciovec_t pieces[2] = {{(const uint8_t *)"Content-Type: ", 14},
                               {(const uint8_t *)"text/plain\n\n", 12}};
  static const char whole[] = "Content-Type: text/plain\n\n";
  __wasi_size_t wrote = 0;
  CHECK(43, __wasi_fd_write(1, pieces, 2, &wrote) == __WASI_ERRNO_SUCCESS);
  CHECK(43, wrote > 0 && wrote <= 26);
  fwrite(whole + wrote, 1, 26 - wrote, stdout);
  pieces[0] = (__wasi_ciovec_t){(const uint8_t *)"\n", 1};
  CHECK(44, __wasi_fd_write(2, pieces, 1, &wrote) == __WASI_ERRNO_SUCCESS && wrote == 1);
  CHECK(45, __wasi_fd_write(1, pieces, 0, &wrote) == __WASI_ERRNO_SUCCESS && wrote == 0);
  __wasi_filesize_t at;
  CHECK(46, __wasi_fd_seek(1, 0, __WASI_WHENCE_CUR, &at) != __WASI_ERRNO_SUCCESS);
}

static void wrong_descriptors(void) {
  __wasi_fdstat_t stat;
  __wasi_prestat_t prestat;
  __wasi_filesize_t at;
  __wasi_size_t count = 0;
  uint8_t room[8];
  __wasi_iovec_t in = {room, sizeof room};
  __wasi_ciovec_t out = {room, sizeof room};
  CHECK(50, __wasi_fd_fdstat_get(NO_SUCH_FD, &stat) == __WASI_ERRNO_BADF);
  CHECK(51, __wasi_fd_read(NO_SUCH_FD, &in, 1, &count) == __WASI_ERRNO_BADF);
  CHECK(52, __wasi_fd_write(NO_SUCH_FD, &out, 1, &count) == __WASI_ERRNO_BADF);
  CHECK(53, __wasi_fd_close(NO_SUCH_FD) == __WASI_ERRNO_BADF);
  CHECK(54, __wasi_fd_seek(NO_SUCH_FD, 0, __WASI_WHENCE_SET, &at) == __WASI_ERRNO_BADF);
  /* No preopened directory: libc stops looking at the first EBADF. */
  CHECK(55, __wasi_fd_prestat_get(3, &prestat) == __WASI_ERRNO_BADF);
  errno = 0;
  CHECK(56, fopen("/etc/passwd", "r") == NULL && errno != 0);
}

static void sleeping(void) {
  __wasi_subscription_t wish = {.userdata = 0xfeedfacecafe};
  wish.u.tag = __WASI_EVENTTYPE_CLOCK;
  wish.u.u.clock.id = __WASI_CLOCKID_MONOTONIC;
  wish.u.u.clock.timeout = 20 * MILLISECOND;
  __wasi_event_t event = {0};
  __wasi_size_t count = 0;
  __wasi_timestamp_t start = now(__WASI_CLOCKID_MONOTONIC);
  CHECK(60, __wasi_poll_oneoff(&wish, &event, 1, &count) == __WASI_ERRNO_SUCCESS);
  CHECK(61, count == 1 && event.userdata == 0xfeedfacecafe);
  CHECK(62, event.error == __WASI_ERRNO_SUCCESS && event.type == __WASI_EVENTTYPE_CLOCK);
  CHECK(63, now(__WASI_CLOCKID_MONOTONIC) - start >= 19 * MILLISECOND);

  /* An absolute instant that has passed is ready at once. */
  wish.u.u.clock.timeout = start;
  wish.u.u.clock.flags = __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME;
  CHECK(64, __wasi_poll_oneoff(&wish, &event, 1, &count) == 0 && count == 1);

  /* The nearer of two clocks answers, alone. */
  __wasi_subscription_t both[2] = {wish, wish};
  __wasi_event_t events[2];
  both[0].userdata = 1, both[0].u.u.clock.flags = 0;
  both[0].u.u.clock.timeout = 60000 * MILLISECOND;
  both[1].userdata = 2, both[1].u.u.clock.flags = 0;
  both[1].u.u.clock.timeout = 5 * MILLISECOND;
  CHECK(65, __wasi_poll_oneoff(both, events, 2, &count) == 0);
  CHECK(66, count == 1 && events[0].userdata == 2);
  CHECK(67, __wasi_poll_oneoff(both, events, 0, &count) == __WASI_ERRNO_INVAL);
  CHECK(68, usleep(2000) == 0);
  CHECK(69, sched_yield() == 0);
}

int main(int argc, char **argv) {
  clocks();
  randomness();
  arguments(argc, argv);
  standard_streams();
  wrong_descriptors();
  sleeping();
  printf("preview1: ok\n");
  fflush(stdout);
  exit(0);
}
