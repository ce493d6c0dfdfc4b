/* A disk with faults, by LD_PRELOAD. The file that DISK_FAULTS names has a fault a line: a call (open, write, fsync, flock)
 * and the errno it gives, or 0 to hang until the line is gone. open and write fail for files of the state alone; sink is a
 * write of a sink's file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fault_of(const char *call) {
    char text[256], name[32];
    int code, at = 0, used;
    const char *path = getenv("DISK_FAULTS");
    long file = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return -1;
    long length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    text[length > 0 ? length : 0] = 0;
    while (sscanf(text + at, "%31s %d%n", name, &code, &used) == 2) {
        if (strcmp(name, call) == 0) return code;
        at += used;
    }
    return -1;
}

/* True if the call is to fail, with errno set. */
static int fails(const char *call) {
    int code;
    while ((code = fault_of(call)) == 0) usleep(10000);
    if (code > 0) errno = code;
    return code > 0;
}

static int is_of_the_state(const char *path) { return strstr(path, ".unfinished-") || strstr(path, "state.json.lock"); }

int open64(const char *path, int flags, ...) {
    static int (*real)(const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    if ((flags & O_CREAT) && is_of_the_state(path) && fails("open")) return -1;
    return real(path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    char link[64], path[4096];
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    if (is_of_the_state(path) && fails("write")) return -1;
    if (strstr(path, ".tokencached") && fails("sink")) return -1;
    return real(fd, bytes, count);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return fails("fsync") ? -1 : real(fd);
}

int flock(int fd, int operation) {
    static int (*real)(int, int);
    if (!real) real = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
    return fails("flock") ? -1 : real(fd, operation);
}
