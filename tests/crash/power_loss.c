/* A disk that forgets, fails or fills up: preloaded into a node, it stands between the node and its
 * data directory. Everything is off until its variable is set.
 *
 *   POWER_LOSS_DIR     directory whose files are followed (absolute, without a trailing slash)
 *   POWER_LOSS_IMAGE   directory that receives an image of what was synced. It must hold a copy of
 *                      POWER_LOSS_DIR when the node starts. After a kill the test starts the node
 *                      from the image, or from a random mixture of the image and what was written
 *                      but not synced.
 *   POWER_LOSS_FAULTS  directory that is looked at on every write and sync:
 *     eio              holds "write PREFIX" or "sync PREFIX": such calls on files whose names
 *                      begin with PREFIX fail with EIO as long as the file exists
 *     size             holds the bytes of a disk of that size: what grows past it fails with
 *                      ENOSPC, and statvfs tells how much is free
 *
 * Model of power loss: creating, renaming and removing files and cutting one by O_TRUNC is durable
 * at once and in order; the bytes and the size of a file are durable page by page, and only by
 * fsync or fdatasync of that file. So a rename without a sync before it leaves an empty file, as on
 * a journalling file system without data ordering. With an image no real sync is done.
 *
 * Not followed, since nothing here uses them: mmap, writev, unlinkat, link, truncate by path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PAGE 4096
#define FDS_MAX 65536
/* What a sync takes with an image: as long as on a disk, so that a kill often comes before it. */
#define SYNC_US 2000

/* One followed file; its dirty pages are a bitmap that grows with the file. */
struct file {
    char name[PATH_MAX]; /* relative to POWER_LOSS_DIR; empty once the file is gone */
    unsigned char *dirty;
    size_t dirty_bytes;
    off_t least; /* the smallest size since the last sync, if it was ever cut; else -1 */
    int image;   /* the image's descriptor, or -1 */
    struct file *next;
};

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static const char *dir, *image, *faults;
static struct file *files;
static struct file *by_fd[FDS_MAX];

__attribute__((constructor)) static void configure(void) {
    dir = getenv("POWER_LOSS_DIR");
    image = getenv("POWER_LOSS_IMAGE");
    faults = getenv("POWER_LOSS_FAULTS");
}

#define REAL(name, ...) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
    return real(__VA_ARGS__)

static int real_open(const char *path, int flags, mode_t mode) {
    static int (*real)(const char *, int, ...);
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    return real(path, flags, mode);
}
static ssize_t real_pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(pwrite64, fd, bytes, count, at);
}
static ssize_t real_write(int fd, const void *bytes, size_t count) {
    REAL(write, fd, bytes, count);
}
static int real_ftruncate(int fd, off_t size) { REAL(ftruncate64, fd, size); }
static int real_rename(const char *from, const char *to) { REAL(rename, from, to); }
static int real_unlink(const char *path) { REAL(unlink, path); }
static int real_mkdir(const char *path, mode_t mode) { REAL(mkdir, path, mode); }
static int real_close(int fd) { REAL(close, fd); }
static int real_fdatasync(int fd) { REAL(fdatasync, fd); }
static int real_statvfs(const char *path, struct statvfs *out) { REAL(statvfs, path, out); }

static void die(const char *what) {
    perror(what);
    abort();
}

/* The part of a path below the followed directory, or NULL. */
static const char *below(const char *path) {
    size_t length = dir ? strlen(dir) : 0;
    if (!length || strncmp(path, dir, length) || path[length] != '/') return NULL;
    return path + length + 1;
}

static struct file *of(int fd) { return fd >= 0 && fd < FDS_MAX ? by_fd[fd] : NULL; }

/* ---- Faults ---- */

/* The content of a file in POWER_LOSS_FAULTS as text; 0 when there is none. */
static int order(const char *name, char *text, size_t size) {
    char path[PATH_MAX];
    if (!faults || snprintf(path, sizeof path, "%s/%s", faults, name) >= PATH_MAX) return 0;
    int fd = real_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    ssize_t got = read(fd, text, size - 1);
    real_close(fd);
    text[got > 0 ? got : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    return got > 0;
}

/* Whether a "write" or "sync" of a file is to fail. */
static int fails(struct file *file, const char *what) {
    char text[PATH_MAX];
    size_t length = strlen(what);
    if (!file || !order("eio", text, sizeof text)) return 0;
    if (strncmp(text, what, length) || text[length] != ' ') return 0;
    const char *prefix = text + length + 1;
    if (strncmp(file->name, prefix, strlen(prefix))) return 0;
    errno = EIO;
    return 1;
}

static long long used;

static int add(const char *path, const struct stat *stat, int type, struct FTW *walk) {
    (void)path, (void)walk;
    if (type == FTW_F) used += (long long)stat->st_blocks * 512;
    return 0;
}

/* Bytes that the disk still has; LLONG_MAX when its size is not limited. */
static long long room(void) {
    char text[64];
    if (!dir || !order("size", text, sizeof text)) return LLONG_MAX;
    pthread_mutex_lock(&lock);
    used = 0;
    nftw(dir, add, 16, FTW_PHYS);
    long long left = atoll(text) - used;
    pthread_mutex_unlock(&lock);
    return left > 0 ? left : 0;
}

/* Whether a write up to a position finds no room. */
static int is_full(int fd, off_t end) {
    struct stat now;
    if (!faults || !of(fd) || fstat(fd, &now) || end <= now.st_size) return 0;
    if (end - now.st_size <= room()) return 0;
    errno = ENOSPC;
    return 1;
}

#define STATVFS(symbol, type) \
    int symbol(const char *path, struct type *out) { \
        int result = real_statvfs(path, (struct statvfs *)out); \
        long long left = room(); \
        if (!result && left != LLONG_MAX) out->f_bavail = out->f_bfree = left / out->f_frsize; \
        return result; \
    }
STATVFS(statvfs, statvfs)
STATVFS(statvfs64, statvfs64)

/* ---- The image ---- */

static void image_path(char *out, const char *name) {
    if (snprintf(out, PATH_MAX, "%s/%s", image, name) >= PATH_MAX) abort();
}

static void make_parents(const char *path) {
    char copy[PATH_MAX];
    strcpy(copy, path);
    for (char *slash = copy + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        if (real_mkdir(copy, 0755) && errno != EEXIST) die("power_loss: mkdir");
        *slash = '/';
    }
}

static struct file *find(const char *name) {
    for (struct file *file = files; file; file = file->next)
        if (!strcmp(file->name, name)) return file;
    return NULL;
}

static struct file *follow(const char *name) {
    struct file *file = find(name);
    if (file) return file;
    file = calloc(1, sizeof *file);
    strcpy(file->name, name);
    file->image = file->least = -1;
    if (image) {
        char path[PATH_MAX];
        image_path(path, name);
        make_parents(path);
        file->image = real_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (file->image < 0) die("power_loss: open image");
    }
    file->next = files;
    return files = file;
}

static void mark(struct file *file, off_t from, size_t count) {
    if (!count) return;
    size_t last = (from + count - 1) / PAGE;
    if (last / 8 >= file->dirty_bytes) {
        size_t bytes = (last / 8 + 1) * 2;
        file->dirty = realloc(file->dirty, bytes);
        memset(file->dirty + file->dirty_bytes, 0, bytes - file->dirty_bytes);
        file->dirty_bytes = bytes;
    }
    for (size_t page = from / PAGE; page <= last; page++) file->dirty[page / 8] |= 1 << page % 8;
}

static void keep_page(int fd, struct file *file, off_t at) {
    char bytes[PAGE];
    ssize_t got = pread(fd, bytes, PAGE, at);
    if (got < 0) die("power_loss: pread");
    if (got && real_pwrite(file->image, bytes, got, at) != got) die("power_loss: write image");
}

/* Brings the image up to the file, through a descriptor of our own: the caller's may not read. */
static void keep(int caller, struct file *file) {
    char path[64];
    struct stat now;
    snprintf(path, sizeof path, "/proc/self/fd/%d", caller);
    int fd = real_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) die("power_loss: reopen");
    if (fstat(fd, &now)) die("power_loss: fstat");
    if (file->least >= 0 && real_ftruncate(file->image, file->least)) die("power_loss: cut image");
    if (real_ftruncate(file->image, now.st_size)) die("power_loss: size image");
    file->least = -1;
    for (size_t byte = 0; byte < file->dirty_bytes; byte++) {
        for (int bit = 0; file->dirty[byte] && bit < 8; bit++)
            if (file->dirty[byte] & 1 << bit) keep_page(fd, file, (off_t)(byte * 8 + bit) * PAGE);
        file->dirty[byte] = 0;
    }
    real_close(fd);
}

/* ---- The calls that are stood between ---- */

static int opened(int fd, const char *path, int flags) {
    const char *name = fd < 0 ? NULL : below(path);
    struct stat kind;
    if (!name || fstat(fd, &kind) || !S_ISREG(kind.st_mode)) return fd;
    if (fd >= FDS_MAX) die("power_loss: too many descriptors");
    pthread_mutex_lock(&lock);
    struct file *file = by_fd[fd] = follow(name);
    if (image && flags & O_TRUNC && real_ftruncate(file->image, 0)) die("power_loss: truncate");
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(symbol) \
    int symbol(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return opened(real_open(path, flags, mode), path, flags); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS_MAX) by_fd[fd] = NULL;
    int result = real_close(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

/* A second descriptor of a followed file is followed too. */
#define FCNTL(symbol) \
    int symbol(int fd, int what, ...) { \
        static int (*real)(int, int, ...); \
        if (!real) real = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #symbol); \
        va_list rest; \
        va_start(rest, what); \
        void *argument = va_arg(rest, void *); \
        va_end(rest); \
        int result = real(fd, what, argument); \
        if ((what == F_DUPFD || what == F_DUPFD_CLOEXEC) && result >= 0 && of(fd)) { \
            if (result >= FDS_MAX) die("power_loss: too many descriptors"); \
            by_fd[result] = of(fd); \
        } \
        return result; \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

#define PWRITE(symbol) \
    ssize_t symbol(int fd, const void *bytes, size_t count, off_t at) { \
        if (!of(fd)) return real_pwrite(fd, bytes, count, at); \
        if (fails(of(fd), "write") || is_full(fd, at + count)) return -1; \
        pthread_mutex_lock(&lock); \
        ssize_t done = real_pwrite(fd, bytes, count, at); \
        if (done > 0 && image) mark(of(fd), at, done); \
        pthread_mutex_unlock(&lock); \
        return done; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!of(fd)) return real_write(fd, bytes, count);
    if (fails(of(fd), "write") || is_full(fd, lseek(fd, 0, SEEK_CUR) + count)) return -1;
    pthread_mutex_lock(&lock);
    ssize_t done = real_write(fd, bytes, count);
    off_t end = lseek(fd, 0, SEEK_CUR);
    if (done > 0 && end >= done && image) mark(of(fd), end - done, done);
    pthread_mutex_unlock(&lock);
    return done;
}

static int synced(int fd) {
    if (fails(of(fd), "sync")) return -1;
    if (!image) return real_fdatasync(fd);
    if (of(fd)) usleep(SYNC_US);
    pthread_mutex_lock(&lock);
    if (of(fd)) keep(fd, of(fd));
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }

static void cut(struct file *file, off_t size) {
    if (file->least < 0 || size < file->least) file->least = size;
    mark(file, size / PAGE * PAGE, PAGE);
}

#define FTRUNCATE(symbol) \
    int symbol(int fd, off_t size) { \
        if (!of(fd)) return real_ftruncate(fd, size); \
        if (fails(of(fd), "write")) return -1; \
        pthread_mutex_lock(&lock); \
        struct stat before; \
        int known = image && !fstat(fd, &before); \
        int result = real_ftruncate(fd, size); \
        if (!result && known && size < before.st_size) cut(of(fd), size); \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

int mkdir(const char *path, mode_t mode) {
    const char *name = image ? below(path) : NULL;
    if (name) {
        char copy[PATH_MAX];
        image_path(copy, name);
        make_parents(copy);
        if (real_mkdir(copy, mode) && errno != EEXIST) die("power_loss: mkdir");
    }
    return real_mkdir(path, mode);
}

/* Renames what is followed at or below a name; what lay under the new name is gone. */
static void rename_followed(const char *from, const char *to) {
    struct file *replaced = find(to);
    if (replaced) replaced->name[0] = 0;
    size_t length = strlen(from);
    for (struct file *file = files; file; file = file->next) {
        char name[PATH_MAX];
        if (strncmp(file->name, from, length)) continue;
        if (file->name[length] && file->name[length] != '/') continue;
        if (snprintf(name, sizeof name, "%s%s", to, file->name + length) >= PATH_MAX) abort();
        strcpy(file->name, name);
    }
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    const char *old_name = below(from), *new_name = below(to);
    int result = real_rename(from, to);
    if (!result && old_name && new_name) {
        rename_followed(old_name, new_name);
        if (image) {
            char old_image[PATH_MAX], new_image[PATH_MAX];
            image_path(old_image, old_name);
            image_path(new_image, new_name);
            if (real_rename(old_image, new_image) && errno != ENOENT) die("power_loss: rename");
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    const char *name = below(path);
    int result = real_unlink(path);
    if (!result && name) {
        struct file *gone = find(name);
        if (gone) gone->name[0] = 0;
        if (image) {
            char copy[PATH_MAX];
            image_path(copy, name);
            real_unlink(copy);
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}
