/* test_base_file.c - reading plain and gzip files; output that appears whole or not at all. */
#include "base/file.h"
#include "tests/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

static char folder[] = "/tmp/ballast-test-XXXXXX";

static const char *in_folder(const char *name) {
  static _Thread_local char paths[16][256];
  static _Thread_local int next;
  char *path = paths[next++ % 16];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static int count_files(void) {
  int n = 0;
  DIR *dir = opendir(folder);
  if (!dir) return -1;
  for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) n += entry->d_name[0] != '.';
  closedir(dir);
  return n;
}

static void put(const char *path, const void *bytes, size_t n) {
  FILE *f = fopen(path, "wb");
  REQUIRE(f != NULL);
  CHECK(fwrite(bytes, 1, n, f) == n);
  CHECK(fclose(f) == 0);
}

static void contents_are(const char *path, const char *expected) {
  char *bytes = NULL;
  uint64_t size = 0;
  REQUIRE_OK(bl_file_read(path, 1 << 20, &bytes, &size));
  CHECK_INT(size, strlen(expected));
  CHECK_STRING(bytes, expected);
  free(bytes);
}

static void test_read_plain(void) {
  const char *path = in_folder("plain");
  put(path, "", 0);
  contents_are(path, "");
  put(path, "hello", 5);
  contents_are(path, "hello");
  char *bytes = NULL;
  uint64_t size = 0;
  CHECK_OK(bl_file_read(path, 5, &bytes, &size));
  CHECK(bytes[5] == 0);
  free(bytes);
  CHECK_FAILS(bl_file_read(path, 4, &bytes, &size), BL_EINPUT, "too long: expected at most 4 bytes");
  CHECK_FAILS(bl_file_read(in_folder("none"), 4, &bytes, &size), BL_EINPUT, "none: cannot open");
  CHECK_FAILS(bl_file_read(folder, 4, &bytes, &size), BL_EINPUT, "expected a file, found a folder");
  CHECK_FAILS(bl_file_read("", 4, &bytes, &size), BL_EINPUT, "cannot open");
  CHECK_FAILS(bl_file_read("/dev/zero", 1 << 20, &bytes, &size), BL_EINPUT, "too long");
  unlink(path);
}

static void test_read_gzip(void) {
  const size_t n = 3 << 20;
  char *text = malloc(n);
  REQUIRE(text != NULL);
  for (size_t i = 0; i < n; i++) text[i] = (char)('a' + (i * i / 7) % 26);
  const char *path = in_folder("packed.gz"), *cut = in_folder("cut.gz");
  gzFile gz = gzopen(path, "wb1");
  REQUIRE(gz != NULL);
  CHECK_INT(gzwrite(gz, text, (unsigned)n), n);
  gzclose(gz);
  char *bytes = NULL, *raw = NULL;
  uint64_t size = 0;
  REQUIRE_OK(bl_file_read(path, UINT64_MAX, &bytes, &size));
  CHECK_INT(size, n);
  CHECK(size == n && memcmp(bytes, text, n) == 0);
  free(bytes);
  CHECK_FAILS(bl_file_read(path, n - 1, &bytes, &size), BL_EINPUT, "too long");

  FILE *f = fopen(path, "rb");
  REQUIRE(f != NULL);
  raw = malloc(n);
  const size_t packed = fread(raw, 1, n, f);
  fclose(f);
  put(cut, raw, packed / 2);
  CHECK_FAILS(bl_file_read(cut, UINT64_MAX, &bytes, &size), BL_EINPUT, "cut.gz: the gzip data is cut short");
  raw[packed / 2] = (char)(raw[packed / 2] ^ 0x55);
  put(cut, raw, packed);
  CHECK_FAILS(bl_file_read(cut, UINT64_MAX, &bytes, &size), BL_EINPUT, "cut.gz: the gzip data is");
  put(cut, "\x1f\x8b\x08nonsense and more nonsense", 28);
  CHECK_FAILS(bl_file_read(cut, UINT64_MAX, &bytes, &size), BL_EINPUT, "cut.gz: the gzip data is");
  free(raw);
  free(text);
  unlink(path);
  unlink(cut);
}

static void test_crc(void) {
  CHECK_INT(bl_crc32(0, "123456789", 9), 0xcbf43926u); /* the check value of CRC-32/ISO-HDLC */
  CHECK_INT(bl_crc32(bl_crc32(0, "1234", 4), "56789", 5), 0xcbf43926u);
  const char *path = in_folder("crc");
  put(path, "123456789", 9);
  uint32_t crc = 0;
  CHECK_OK(bl_file_crc32(path, &crc));
  CHECK_INT(crc, 0xcbf43926u);
  unlink(path);
  CHECK_FAILS(bl_file_crc32(path, &crc), BL_EINPUT, "cannot open");
}

static void test_output_is_atomic(void) {
  const char *path = in_folder("out");
  put(path, "old", 3);
  chmod(path, 0640);
  bl_output *output = NULL;
  REQUIRE_OK(bl_output_open(path, &output));
  CHECK_OK(bl_output_printf(output, "new %d", 1));
  CHECK_OK(bl_output_write(output, "23", 2));
  contents_are(path, "old");
  CHECK_INT(count_files(), 2);
  CHECK_OK(bl_output_commit(output));
  contents_are(path, "new 123");
  CHECK_INT(count_files(), 1);
  struct stat info;
  CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0640);

  REQUIRE_OK(bl_output_open(path, &output));
  CHECK_OK(bl_output_printf(output, "gone"));
  bl_output *second = NULL;
  CHECK_FAILS(bl_output_open(path, &second), BL_EMACHINE, "is being written already");
  bl_output_discard(output);
  contents_are(path, "new 123");
  CHECK_INT(count_files(), 1);
  bl_output_discard(NULL);
  unlink(path);
}

static void test_output_through_a_link(void) {
  const char *path = in_folder("out"), *link_path = in_folder("link");
  put(path, "old", 3);
  REQUIRE(symlink(path, link_path) == 0);
  bl_output *output = NULL;
  REQUIRE_OK(bl_output_open(link_path, &output));
  CHECK_OK(bl_output_printf(output, "new"));
  CHECK_OK(bl_output_commit(output));
  contents_are(path, "new");
  struct stat info;
  CHECK(lstat(link_path, &info) == 0 && S_ISLNK(info.st_mode));
  unlink(link_path);
  unlink(path);
}

static void test_output_refusals(void) {
  bl_output *output = NULL;
  CHECK_FAILS(bl_output_open("", &output), BL_EINPUT, "empty");
  CHECK_FAILS(bl_output_open(folder, &output), BL_EINPUT, "expected a file to write, found a folder");
  CHECK_FAILS(bl_output_open(in_folder("no/such/place"), &output), BL_EINPUT, "cannot create");
  char long_path[5000];
  memset(long_path, 'x', sizeof long_path - 1);
  long_path[sizeof long_path - 1] = 0;
  CHECK_FAILS(bl_output_open(long_path, &output), BL_EINPUT, "");
  CHECK_INT(count_files(), 0);
}

static void test_full_device(void) {
  bl_output *output = NULL;
  REQUIRE_OK(bl_output_open("/dev/full", &output));
  CHECK_OK(bl_output_printf(output, "buffered"));
  CHECK_FAILS(bl_output_commit(output), BL_EMACHINE, "/dev/full: writing failed: No space left on device");
  REQUIRE_OK(bl_output_open("/dev/full", &output));
  char zeros[100000] = {0};
  CHECK_FAILS(bl_output_write(output, zeros, sizeof zeros), BL_EMACHINE, "writing failed");
  CHECK_FAILS(bl_output_commit(output), BL_EMACHINE, "writing failed");
  REQUIRE_OK(bl_output_open("/dev/null", &output));
  CHECK_OK(bl_output_commit(output));
}

/* A file-size limit stands for a full disk: the write fails half-way, nothing stays, the old file is untouched. */
static void test_disk_fills_up(void) {
  const char *path = in_folder("out");
  put(path, "old", 3);
  struct rlimit old;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small = {.rlim_cur = 50000, .rlim_max = old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  bl_output *output = NULL;
  CHECK_OK(bl_output_open(path, &output));
  for (int i = 0; i < 20000; i++) fprintf(bl_output_stream(output), "%d\n", i);
  CHECK_FAILS(bl_output_commit(output), BL_EMACHINE, "out: writing failed");
  setrlimit(RLIMIT_FSIZE, &old);
  contents_are(path, "old");
  CHECK_INT(count_files(), 1);
  unlink(path);
}

static void test_discard_all(void) {
  bl_output *a = NULL, *b = NULL;
  REQUIRE_OK(bl_output_open(in_folder("a"), &a));
  REQUIRE_OK(bl_output_open(in_folder("b"), &b));
  CHECK_INT(count_files(), 2);
  const pid_t child = fork();
  if (child == 0) {
    bl_output_discard_all(); /* a child leaves its parent's files alone */
    _exit(0);
  }
  REQUIRE(child > 0 && waitpid(child, NULL, 0) == child);
  CHECK_INT(count_files(), 2);
  bl_output_discard_all();
  CHECK_INT(count_files(), 0);
  bl_output_discard(a);
  bl_output_discard(b);
  for (int round = 0; round < 200; round++) { /* places are given back */
    REQUIRE_OK(bl_output_open(in_folder("a"), &a));
    bl_output_discard(a);
  }
}

static void test_folders(void) {
  const char *deep = in_folder("x/y//z/"), *path = in_folder("x/y/z");
  CHECK_OK(bl_folder_create(deep));
  CHECK_OK(bl_folder_create(deep));
  CHECK(bl_path_is_folder(path) && bl_path_exists(path));
  CHECK_OK(bl_folder_create("/"));
  put(in_folder("file"), "", 0);
  CHECK(!bl_path_is_folder(in_folder("file")) && bl_path_exists(in_folder("file")));
  CHECK_FAILS(bl_folder_create(in_folder("file")), BL_EINPUT, "cannot create the folder");
  CHECK_FAILS(bl_folder_create(in_folder("file/below")), BL_EINPUT, "cannot create the folder");
  CHECK_FAILS(bl_folder_create(""), BL_EINPUT, "cannot create the folder");
  unlink(in_folder("file"));
  rmdir(path);
  rmdir(in_folder("x/y"));
  rmdir(in_folder("x"));
}

int main(void) {
  if (!mkdtemp(folder)) {
    perror(folder);
    return 1;
  }
  RUN(test_read_plain);
  RUN(test_read_gzip);
  RUN(test_crc);
  RUN(test_output_is_atomic);
  RUN(test_output_through_a_link);
  RUN(test_output_refusals);
  RUN(test_full_device);
  RUN(test_disk_fills_up);
  RUN(test_discard_all);
  RUN(test_folders);
  CHECK(rmdir(folder) == 0);
  TEST_MAIN_END;
}
