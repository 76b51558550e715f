/* A library for LD_PRELOAD that makes system calls of unmodified programs go wrong.

   One fault is armed in a small file that all processes map ($JUDGE; `judge.py` writes it): at the
   n-th call of the chosen classes, by a program of the chosen roles, on files of the chosen
   names, the process is killed before or after the call, the call fails, or it is done and
   reported as failed, or done by half, or a listing lacks an entry. Or there is a storm: any such
   call goes wrong by chance, one in so many, each in one of the ways that befit it. The same file
   shifts the clocks: the host's (never the monotonic one), and that of the file server, as stat
   shows it.

   Programs are told apart by their command lines. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN_READ = 1, OPEN_WRITE = 2, READ = 4, WRITE = 8, SYNC = 16, RENAME = 32, LINK = 64,
       UNLINK = 128, MKDIR = 256, RMDIR = 512, CLOSE = 1024, TRUNCATE = 2048, ALLOCATE = 4096,
       STAT = 8192, LIST = 16384, FORK = 32768, MODE = 65536, EXEC = 131072, THREAD = 262144,
       PIPE = 524288, LOCK = 1048576, NET = 2097152, MEMORY = 4194304 };
enum { CLASSES = 23, ROLES = 7, CODES = 8 };
enum { KILL_BEFORE = 1, KILL_AFTER, FAIL, DONE_BUT_ERROR, SHORT, HIDE };
enum { SUBMITTER = 1, SESSION = 2, RUNNER = 4, CLIENT = 8, LOCAL = 16, GUARD = 32, OTHER = 64, SSH = 128 };
enum { ONE_FAULT = 1, WATCH = 2, STORM = 3 };

struct control {
    int32_t armed, roles, classes, action, error, at, times, count, fired, clocks;
    int64_t clock_s;     /* added to the clock of the roles in `clocks` */
    int64_t server_s;    /* added to times of files from `since_s` on */
    int64_t since_s;
    int64_t waited_s;    /* added to the monotonic clock of sessions: so long nothing happened */
    char root[512];      /* a pattern of the files that are meant */
    char what[1024];     /* the call that was hit */
    int32_t seen[ROLES - 1][CLASSES];      /* calls, counted while `armed` is WATCH */
    int32_t one_in, done_one_in, kill_one_in, seed; /* of a storm: so many of effects are done all
                                                       the same, and so many calls are the last */
    int32_t codes[CLASSES][CODES];         /* of a storm: what each class fails with; 0 ends it, -1 is SHORT */
};

static struct control *control;
static int role = OTHER;
static __thread int inside;
static __thread int code; /* what the call that is judged fails with */

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("JUDGE");
    if (!path) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (map == MAP_FAILED) return;
    static char line[65536];
    fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY);
    long size = syscall(SYS_read, fd, line, sizeof line - 1);
    syscall(SYS_close, fd);
    if (size > 0 && strstr(line, "python"))
        for (char *word = line; word < line + size; word += strlen(word) + 1) {
            if (strstr(word, "hpc_submitter")) { role = SUBMITTER; break; }
            if (strstr(word, "hpc_cluster.session") || strstr(word, "hpc_session")) { role = SESSION; break; }
            if (strstr(word, "hpc_runner")) { role = RUNNER; break; }
            if (strstr(word, "hpc_cluster.guard")) { role = GUARD; break; }
            if (strstr(word, "hpc_cluster.batch.local")) { role = LOCAL; break; }
            if (strstr(word, "hpc-batch") || strstr(word, "hpc_submit")) { role = CLIENT; break; }
        }
    const char *program = strrchr(line, '/');
    if (size > 0 && !strcmp(program ? program + 1 : line, "ssh")) role = SSH;
    control = map;
}

static int below(const char *path) { return !fnmatch(control->root, path, 0); }

static const char *resolve(int folder, const char *path, char *buffer) {
    if (path && path[0] == '/') return path;
    char link[64];
    if (folder == AT_FDCWD) strcpy(link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    long size = syscall(SYS_readlink, link, buffer, 2000);
    if (size < 0) return NULL;
    buffer[size] = 0;
    if (path && *path) { buffer[size] = '/'; strncpy(buffer + size + 1, path, 2000); }
    return buffer;
}

/* Return a number by chance, another one for each call. */
static uint64_t chance(int number) {
    uint64_t x = ((uint64_t)control->seed << 32 | (uint32_t)number) + 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Return what a storm does to this call. */
static int storm(int class, int number) {
    uint64_t x = chance(number);
    if (x % control->one_in) return 0;
    const int32_t *codes = control->codes[__builtin_ctz(class)];
    int known = 0;
    while (known < CODES && codes[known]) known++;
    if (!known) return 0;
    code = codes[(x >> 20) % known];
    if (control->kill_one_in && !((x >> 52) % control->kill_one_in)) return KILL_BEFORE;
    if (code < 0) return SHORT;
    int effect = class & ~(OPEN_READ | READ | STAT | LIST | FORK | EXEC | THREAD | PIPE | LOCK | NET);
    return effect && control->done_one_in && !((x >> 40) % control->done_one_in) ? DONE_BUT_ERROR : FAIL;
}

/* Return what is to happen to this call: 0, or an action. */
static int judge(int class, const char *name, int folder, const char *path) {
    if (!control || !control->armed || inside) return 0;
    if (!(control->classes & class) || !(control->roles & role) || role == OTHER) return 0;
    int saved = errno;
    char buffer[4100];
    int nameless = class & (FORK | THREAD | PIPE | NET | MEMORY);
    const char *full = nameless ? "" : resolve(folder, path, buffer);
    errno = saved;
    if (!nameless && (!full || !below(full))) return 0;
    if (control->armed == WATCH && role == SSH) return 0;
    if (control->armed == WATCH) {
        __atomic_add_fetch(&control->seen[__builtin_ctz(role)][__builtin_ctz(class)], 1, __ATOMIC_SEQ_CST);
        return 0;
    }
    int number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    int action = control->action;
    code = control->error;
    if (control->armed == STORM) action = storm(class, number);
    else if (number < control->at || number >= control->at + control->times) return 0;
    if (!action) return 0;
    if (!__atomic_fetch_add(&control->fired, 1, __ATOMIC_SEQ_CST))
        snprintf(control->what, sizeof control->what, "%s %.900s (role %d)", name, full, role);
    if (action == KILL_BEFORE) kill(getpid(), SIGKILL);
    return action;
}

static void after(int action) {
    if (action == KILL_AFTER) kill(getpid(), SIGKILL);
}

/* The common shape: a call that returns 0 or a number, and -1 for an error. */
#define CALL(class, folder, path, failed, expression) do { \
        int action = judge(class, __func__, folder, path); \
        if (action == FAIL) { errno = code; return failed; } \
        __auto_type result = expression; \
        if (action == DONE_BUT_ERROR) { errno = code; return failed; } \
        after(action); \
        return result; \
    } while (0)

/* ---- memory ---- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

#define TAKE(expression) do { \
        int action = judge(MEMORY, __func__, 0, NULL); \
        if (action == FAIL) { errno = ENOMEM; return NULL; } \
        return expression; \
    } while (0)

void *malloc(size_t size) { TAKE(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { TAKE(__libc_calloc(count, size)); }
void *realloc(void *old, size_t size) { TAKE(__libc_realloc(old, size)); }

/* ---- files ---- */

static int opened(const char *name, int folder, const char *path, int flags, mode_t mode) {
    int class = (flags & O_ACCMODE) == O_RDONLY ? OPEN_READ : OPEN_WRITE;
    int action = judge(class, name, folder, path);
    if (action == FAIL) { errno = code; return -1; }
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    if (action == DONE_BUT_ERROR && fd >= 0) {
        syscall(SYS_close, fd);
        errno = code;
        return -1;
    }
    after(action);
    return fd;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE_OF(flags); return opened("open", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags); return opened("open", AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE_OF(flags); return opened("openat", folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE_OF(flags); return opened("openat", folder, path, flags, mode); }

static size_t half(int action, size_t size) { return action == SHORT && size > 1 ? size / 2 : size; }

#define MOVE(class, expression) do { \
        int action = judge(class, __func__, fd, NULL); \
        if (action == FAIL) { errno = code; return -1; } \
        size = half(action, size); \
        ssize_t result = expression; \
        if (action == DONE_BUT_ERROR) { errno = code; return -1; } \
        after(action); \
        return result; \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) { MOVE(WRITE, syscall(SYS_write, fd, data, size)); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { MOVE(WRITE, syscall(SYS_pwrite64, fd, data, size, at)); }
ssize_t read(int fd, void *data, size_t size) { MOVE(READ, syscall(SYS_read, fd, data, size)); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { MOVE(READ, syscall(SYS_pread64, fd, data, size, at)); }

/* Of several parts, SHORT leaves half of the first. */
#define MOVE_PARTS(class, call, ...) do { \
        int action = judge(class, __func__, fd, NULL); \
        if (action == FAIL) { errno = code; return -1; } \
        struct iovec first = parts[0]; \
        if (action == SHORT) { first.iov_len = half(action, first.iov_len); parts = &first; count = 1; } \
        ssize_t result = syscall(call, fd, parts, count, ##__VA_ARGS__); \
        if (action == DONE_BUT_ERROR) { errno = code; return -1; } \
        after(action); \
        return result; \
    } while (0)

ssize_t readv(int fd, const struct iovec *parts, int count) { MOVE_PARTS(READ, SYS_readv); }
ssize_t writev(int fd, const struct iovec *parts, int count) { MOVE_PARTS(WRITE, SYS_writev); }
ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) { MOVE_PARTS(READ, SYS_preadv2, at, 0, flags); }
ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t at) { MOVE_PARTS(READ, SYS_preadv, at, 0); }

int fsync(int fd) { CALL(SYNC, fd, NULL, -1, (int)syscall(SYS_fsync, fd)); }
int fdatasync(int fd) { CALL(SYNC, fd, NULL, -1, (int)syscall(SYS_fdatasync, fd)); }
int syncfs(int fd) { CALL(SYNC, fd, NULL, -1, (int)syscall(SYS_syncfs, fd)); }
int ftruncate64(int fd, off64_t size) { CALL(TRUNCATE, fd, NULL, -1, (int)syscall(SYS_ftruncate, fd, size)); }

int posix_fallocate64(int fd, off64_t from, off64_t size) {
    REAL(int, posix_fallocate64, int, off64_t, off64_t);
    int action = judge(ALLOCATE, "posix_fallocate", fd, NULL);
    if (action == FAIL) return code;
    int result = real(fd, from, size);
    if (action == DONE_BUT_ERROR) return code;
    after(action);
    return result;
}

int close(int fd) {
    int action = judge(CLOSE, "close", fd, NULL);
    int result = syscall(SYS_close, fd);
    if (action == FAIL || action == DONE_BUT_ERROR) { errno = code; return -1; }
    after(action);
    return result;
}

int fchmod(int fd, mode_t mode) { CALL(MODE, fd, NULL, -1, (int)syscall(SYS_fchmod, fd, mode)); }
int fchown(int fd, uid_t user, gid_t group) { CALL(MODE, fd, NULL, -1, (int)syscall(SYS_fchown, fd, user, group)); }
int chmod(const char *path, mode_t mode) { CALL(MODE, AT_FDCWD, path, -1, (int)syscall(SYS_chmod, path, mode)); }

int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    struct timespec shifted[2];
    if (control && control->server_s && times) {
        for (int i = 0; i < 2; i++) {
            shifted[i] = times[i];
            if (times[i].tv_sec - control->server_s >= control->since_s) shifted[i].tv_sec -= control->server_s;
        }
        times = shifted;
    }
    CALL(MODE, folder, path, -1, (int)syscall(SYS_utimensat, folder, path, times, flags));
}

/* ---- names ---- */

int rename(const char *old, const char *new) { CALL(RENAME, AT_FDCWD, new, -1, (int)syscall(SYS_rename, old, new)); }
int renameat(int a, const char *old, int b, const char *new) { CALL(RENAME, b, new, -1, (int)syscall(SYS_renameat, a, old, b, new)); }
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) { CALL(RENAME, b, new, -1, (int)syscall(SYS_renameat2, a, old, b, new, flags)); }
int link(const char *old, const char *new) { CALL(LINK, AT_FDCWD, new, -1, (int)syscall(SYS_link, old, new)); }
int linkat(int a, const char *old, int b, const char *new, int flags) { CALL(LINK, b, new, -1, (int)syscall(SYS_linkat, a, old, b, new, flags)); }
int symlink(const char *text, const char *path) { CALL(LINK, AT_FDCWD, path, -1, (int)syscall(SYS_symlink, text, path)); }
int unlink(const char *path) { CALL(UNLINK, AT_FDCWD, path, -1, (int)syscall(SYS_unlink, path)); }
int unlinkat(int folder, const char *path, int flags) { CALL(flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder, path, -1, (int)syscall(SYS_unlinkat, folder, path, flags)); }
int mkdir(const char *path, mode_t mode) { CALL(MKDIR, AT_FDCWD, path, -1, (int)syscall(SYS_mkdir, path, mode)); }
int rmdir(const char *path) { CALL(RMDIR, AT_FDCWD, path, -1, (int)syscall(SYS_rmdir, path)); }

/* ---- looking ---- */

static int shown(int result, struct stat64 *status) {
    if (result == 0 && control && control->server_s) {
        struct timespec *times[3] = {&status->st_ctim, &status->st_mtim, &status->st_atim};
        for (int i = 0; i < 3; i++)
            if (times[i]->tv_sec >= control->since_s) times[i]->tv_sec += control->server_s;
    }
    return result;
}

#define LOOK(folder, path, expression) do { \
        int action = judge(STAT, __func__, folder, path); \
        if (action == FAIL || action == DONE_BUT_ERROR) { errno = code; return -1; } \
        int result = shown(expression, status); \
        after(action); \
        return result; \
    } while (0)

int stat64(const char *path, struct stat64 *status) { LOOK(AT_FDCWD, path, syscall(SYS_stat, path, status)); }
int lstat64(const char *path, struct stat64 *status) { LOOK(AT_FDCWD, path, syscall(SYS_lstat, path, status)); }
int fstat64(int fd, struct stat64 *status) { LOOK(fd, NULL, syscall(SYS_fstat, fd, status)); }
int fstatat64(int folder, const char *path, struct stat64 *status, int flags) { LOOK(folder, path, syscall(SYS_newfstatat, folder, path, status, flags)); }
int access(const char *path, int mode) { CALL(STAT, AT_FDCWD, path, -1, (int)syscall(SYS_access, path, mode)); }
int faccessat(int folder, const char *path, int mode, int flags) { (void)flags; CALL(STAT, folder, path, -1, (int)syscall(SYS_faccessat, folder, path, mode)); }
ssize_t readlink(const char *path, char *text, size_t size) { CALL(STAT, AT_FDCWD, path, -1, (ssize_t)syscall(SYS_readlink, path, text, size)); }
ssize_t readlinkat(int folder, const char *path, char *text, size_t size) { CALL(STAT, folder, path, -1, (ssize_t)syscall(SYS_readlinkat, folder, path, text, size)); }

DIR *opendir(const char *path) {
    REAL(DIR *, opendir, const char *);
    int action = judge(LIST, "opendir", AT_FDCWD, path);
    if (action == FAIL || action == DONE_BUT_ERROR) { errno = code; return NULL; }
    inside++;
    DIR *result = real(path);
    inside--;
    after(action);
    return result;
}

DIR *fdopendir(int fd) {
    REAL(DIR *, fdopendir, int);
    int action = judge(LIST, "fdopendir", fd, NULL);
    if (action == FAIL || action == DONE_BUT_ERROR) { errno = code; return NULL; }
    inside++;
    DIR *result = real(fd);
    inside--;
    after(action);
    return result;
}

struct dirent64 *readdir64(DIR *folder) {
    REAL(struct dirent64 *, readdir64, DIR *);
    int action = judge(LIST, "readdir", dirfd(folder), NULL);
    if (action == FAIL || action == DONE_BUT_ERROR) { errno = code; return NULL; }
    struct dirent64 *result = real(folder);
    while (action == HIDE && result && result->d_name[0] == '.') result = real(folder);
    if (action == HIDE && result) result = real(folder);
    after(action);
    return result;
}

/* ---- processes and clocks ---- */

pid_t fork(void) {
    REAL(pid_t, fork, void);
    if (judge(FORK, "fork", 0, NULL) == FAIL) { errno = code; return -1; }
    return real();
}

pid_t vfork(void) { return fork(); }

int execve(const char *path, char *const words[], char *const environment[]) { CALL(EXEC, AT_FDCWD, path, -1, (int)syscall(SYS_execve, path, words, environment)); }

int execv(const char *path, char *const words[]) { return execve(path, words, environ); }

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*begin)(void *), void *given) {
    REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return judge(THREAD, "pthread_create", 0, NULL) == FAIL ? code : real(thread, attributes, begin, given);
}

int pipe2(int ends[2], int flags) { CALL(PIPE, 0, NULL, -1, (int)syscall(SYS_pipe2, ends, flags)); }
int pipe(int ends[2]) { return pipe2(ends, 0); }
int inotify_init1(int flags) { CALL(PIPE, 0, NULL, -1, (int)syscall(SYS_inotify_init1, flags)); }
int inotify_init(void) { return inotify_init1(0); }
int inotify_add_watch(int fd, const char *path, uint32_t mask) { CALL(STAT, AT_FDCWD, path, -1, (int)syscall(SYS_inotify_add_watch, fd, path, mask)); }
int flock(int fd, int operation) { CALL(LOCK, fd, NULL, -1, (int)syscall(SYS_flock, fd, operation)); }

int socket(int family, int type, int protocol) { CALL(NET, 0, NULL, -1, (int)syscall(SYS_socket, family, type, protocol)); }
int connect(int fd, const struct sockaddr *address, socklen_t size) { CALL(NET, 0, NULL, -1, (int)syscall(SYS_connect, fd, address, size)); }
ssize_t send(int fd, const void *data, size_t size, int flags) { MOVE(NET, syscall(SYS_sendto, fd, data, size, flags, NULL, 0)); }
ssize_t recv(int fd, void *data, size_t size, int flags) { MOVE(NET, syscall(SYS_recvfrom, fd, data, size, flags, NULL, NULL)); }

static int64_t shift(void) { return control && (control->clocks & role) ? control->clock_s : 0; }

time_t time(time_t *place) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    time_t result = now.tv_sec + shift();
    if (place) *place = result;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    now->tv_sec += shift();
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    if (control && result == 0 && clock == CLOCK_MONOTONIC && role == SESSION) now->tv_sec += control->waited_s;
    return result;
}

/* What waits until a moment of the monotonic clock must not wait for the hours that are added. */
static const struct timespec *moment(clockid_t clock, const struct timespec *until, struct timespec *real) {
    if (!control || clock != CLOCK_MONOTONIC || role != SESSION) return until;
    *real = *until;
    real->tv_sec -= control->waited_s;
    return real;
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until) {
    REAL(int, sem_clockwait, sem_t *, clockid_t, const struct timespec *);
    struct timespec shifted;
    return real(semaphore, clock, moment(clock, until, &shifted));
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left) {
    REAL(int, clock_nanosleep, clockid_t, int, const struct timespec *, struct timespec *);
    struct timespec shifted;
    return real(clock, flags, flags & TIMER_ABSTIME ? moment(clock, time, &shifted) : time, left);
}
