/* Listing a folder: its names, and what lstat(2) says of each, as signatures.
 *
 * A walk of what did not change makes no use of most that os.stat() builds for every name. This
 * does the same as the Python in listing.py, which stands for it wherever it is not there; the
 * two are held against each other by tests/property/test_listing.py.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#define _GNU_SOURCE
#include <Python.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What listing.py understands; another number and it goes its own way. */
#define VERSION 1

#define SIGNED 36 /* bytes of a signature after its name: see _SIGNATURE in listing.py */
#define NANO 1000000000LL

/* Return a time in nanoseconds modulo 2**64, as the store writes it. */
static uint64_t nanoseconds(struct timespec t)
{
    return (uint64_t)t.tv_sec * (uint64_t)NANO + (uint64_t)t.tv_nsec;
}

/* Return a time in nanoseconds, or the nearest that 64 bits can say. */
static int64_t nearest(struct timespec t)
{
    int64_t result;
    if (__builtin_mul_overflow((int64_t)t.tv_sec, NANO, &result) ||
        __builtin_add_overflow(result, (int64_t)t.tv_nsec, &result))
        return t.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return result;
}

struct names {
    char *bytes; /* every name with its NUL */
    size_t used, room;
    size_t count;
};

static int add_name(struct names *names, const char *name)
{
    size_t length = strlen(name) + 1;
    if (names->used + length > names->room) {
        size_t room = (names->room + length) * 2;
        char *bytes = realloc(names->bytes, room);
        if (bytes == NULL)
            return -1;
        names->bytes = bytes;
        names->room = room;
    }
    memcpy(names->bytes + names->used, name, length);
    names->used += length;
    names->count++;
    return 0;
}

/* Read all names behind a folder handle; return 0, or -1 with errno. */
static int read_names(int fd, struct names *names)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return -1;
    DIR *folder = fdopendir(copy);
    if (folder == NULL) {
        int error = errno;
        close(copy);
        errno = error;
        return -1;
    }
    rewinddir(folder);
    int error = 0;
    for (;;) {
        errno = 0;
        struct dirent *item = readdir(folder);
        if (item == NULL) {
            error = errno;
            break;
        }
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        if (add_name(names, item->d_name) < 0) {
            error = ENOMEM;
            break;
        }
    }
    /* The position belongs to every handle on this folder. */
    rewinddir(folder);
    closedir(folder);
    errno = error;
    return error ? -1 : 0;
}

static int by_bytes(const void *one, const void *other)
{
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

PyDoc_STRVAR(names_doc,
             "names_in(fd, /)\n--\n\n"
             "Return the names in an open folder as bytes, sorted.");

static PyObject *names_in(PyObject *module, PyObject *argument)
{
    (void)module;
    int fd = PyObject_AsFileDescriptor(argument);
    if (fd < 0)
        return NULL;
    struct names names = {0};
    const char **order = NULL;
    PyObject *list = NULL;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = read_names(fd, &names);
    if (!failed && names.count) {
        order = malloc(names.count * sizeof *order);
        if (order == NULL) {
            errno = ENOMEM;
            failed = -1;
        } else {
            const char *at = names.bytes;
            for (size_t n = 0; n < names.count; n++) {
                order[n] = at;
                at += strlen(at) + 1;
            }
            qsort(order, names.count, sizeof *order, by_bytes);
        }
    }
    Py_END_ALLOW_THREADS
    if (failed) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto end;
    }
    list = PyList_New((Py_ssize_t)names.count);
    for (size_t n = 0; list != NULL && n < names.count; n++) {
        PyObject *name = PyBytes_FromString(order[n]);
        if (name == NULL || PyList_SetItem(list, (Py_ssize_t)n, name) < 0)
            Py_CLEAR(list);
    }
end:
    free(order);
    free(names.bytes);
    return list;
}

/* Write the signature of one name; the memory has room for it. */
static void sign(char *to, const char *name, size_t length, const struct stat *info)
{
    uint32_t owned[3] = {htole32(info->st_mode), htole32(info->st_uid), htole32(info->st_gid)};
    uint64_t rest[3] = {htole64(info->st_ino), htole64((uint64_t)info->st_size),
                        htole64(nanoseconds(info->st_mtim))};
    memcpy(to, name, length + 1);
    memcpy(to + length + 1, owned, sizeof owned);
    memcpy(to + length + 1 + sizeof owned, rest, sizeof rest);
}

/* Append a number to a list; return 0, or -1 with an exception. */
static int append_number(PyObject *list, Py_ssize_t number)
{
    PyObject *object = PyLong_FromSsize_t(number);
    if (object == NULL)
        return -1;
    int failed = PyList_Append(list, object);
    Py_DECREF(object);
    return failed;
}

/* Ask for every name; what is gone has no mode. Return 0, or -1 with errno. */
static int look_at(int fd, const char *const *names, Py_ssize_t count, struct stat *infos)
{
    for (Py_ssize_t n = 0; n < count; n++) {
        if (fstatat(fd, names[n], &infos[n], AT_SYMLINK_NOFOLLOW) == 0)
            continue;
        if (errno != ENOENT)
            return -1;
        memset(&infos[n], 0, sizeof infos[n]);
    }
    return 0;
}

/* Fill the lists that `look` returns from stat results, which are packed; return 0 or -1. */
static int describe(PyObject *given, const char *const *names, struct stat *infos,
                    PyObject *const lists[4], int64_t *ctimes)
{
    Py_ssize_t count = PyTuple_Size(given), kept = 0;
    PyObject *found = lists[0], *parts = lists[1], *folders = lists[2], *shared = lists[3];
    for (Py_ssize_t n = 0; n < count; n++) {
        struct stat *info = &infos[n];
        if (info->st_mode == 0)
            continue;
        size_t length = strlen(names[n]);
        PyObject *part = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length + 1 + SIGNED);
        if (part == NULL)
            return -1;
        sign(PyBytes_AsString(part), names[n], length, info);
        int failed = PyList_Append(parts, part);
        Py_DECREF(part);
        if (failed || PyList_Append(found, PyTuple_GetItem(given, n)) < 0)
            return -1;
        if (S_ISDIR(info->st_mode) && append_number(folders, kept) < 0)
            return -1;
        if (S_ISREG(info->st_mode) && info->st_nlink > 1 && append_number(shared, kept) < 0)
            return -1;
        ctimes[kept] = nearest(info->st_ctim);
        if (kept != n)
            infos[kept] = *info;
        kept++;
    }
    return 0;
}

PyDoc_STRVAR(look_doc,
             "look(fd, names, /)\n--\n\n"
             "Return the names that are there, the signature of each, their ctimes, what lstat\n"
             "said (for `info`), and the indexes of folders and of files with more than one name.");

static PyObject *look(PyObject *module, PyObject *arguments)
{
    (void)module;
    int fd;
    PyObject *list;
    if (!PyArg_ParseTuple(arguments, "iO!:look", &fd, &PyList_Type, &list))
        return NULL;
    /* A tuple of our own: nobody can take a name away while we read it. */
    PyObject *given = PyList_AsTuple(list);
    if (given == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_Size(given);
    PyObject *result = NULL, *raw = NULL, *times = NULL;
    PyObject *lists[4] = {NULL, NULL, NULL, NULL};
    const char **names = calloc((size_t)count + 1, sizeof *names);
    struct stat *infos = calloc((size_t)count + 1, sizeof *infos);
    int64_t *ctimes = calloc((size_t)count + 1, sizeof *ctimes);
    if (names == NULL || infos == NULL || ctimes == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        /* Without a length it raises for a NUL in the name. */
        char *name;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(given, n), &name, NULL) < 0)
            goto end;
        names[n] = name;
    }
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = look_at(fd, names, count, infos);
    Py_END_ALLOW_THREADS
    if (failed) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto end;
    }
    for (int n = 0; n < 4; n++)
        if ((lists[n] = PyList_New(0)) == NULL)
            goto end;
    if (describe(given, names, infos, lists, ctimes) < 0)
        goto end;
    Py_ssize_t kept = PyList_Size(lists[0]);
    raw = PyBytes_FromStringAndSize((const char *)infos, kept * (Py_ssize_t)sizeof *infos);
    times = PyBytes_FromStringAndSize((const char *)ctimes, kept * (Py_ssize_t)sizeof *ctimes);
    if (raw != NULL && times != NULL)
        result = PyTuple_Pack(6, lists[0], lists[1], times, raw, lists[2], lists[3]);
end:
    for (int n = 0; n < 4; n++)
        Py_XDECREF(lists[n]);
    Py_XDECREF(raw);
    Py_XDECREF(times);
    free(names);
    free(infos);
    free(ctimes);
    Py_DECREF(given);
    return result;
}

/* Return nanoseconds as a Python integer of any size. */
static PyObject *exact(struct timespec t)
{
    PyObject *seconds = PyLong_FromLongLong((long long)t.tv_sec);
    PyObject *scale = PyLong_FromLongLong(NANO);
    PyObject *rest = PyLong_FromLongLong((long long)t.tv_nsec);
    PyObject *whole = NULL, *result = NULL;
    if (seconds != NULL && scale != NULL && rest != NULL)
        whole = PyNumber_Multiply(seconds, scale);
    if (whole != NULL)
        result = PyNumber_Add(whole, rest);
    Py_XDECREF(seconds);
    Py_XDECREF(scale);
    Py_XDECREF(rest);
    Py_XDECREF(whole);
    return result;
}

static double inexact(struct timespec t)
{
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

PyDoc_STRVAR(info_doc,
             "info(raw, n, /)\n--\n\n"
             "Return the fields of os.stat_result for the n-th name that `look` told of.");

static PyObject *info(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *raw;
    Py_ssize_t size, n;
    if (!PyArg_ParseTuple(arguments, "y#n:info", &raw, &size, &n))
        return NULL;
    if (n < 0 || n >= size / (Py_ssize_t)sizeof(struct stat)) {
        PyErr_SetString(PyExc_IndexError, "there is no such name");
        return NULL;
    }
    struct stat s;
    memcpy(&s, raw + n * (Py_ssize_t)sizeof s, sizeof s);
    PyObject *atime = exact(s.st_atim), *mtime = exact(s.st_mtim), *ctime = exact(s.st_ctim);
    PyObject *result = NULL;
    if (atime != NULL && mtime != NULL && ctime != NULL)
        result = Py_BuildValue(
            "(IKKKIILLLLdddOOOLLK)", (unsigned)s.st_mode, (unsigned long long)s.st_ino,
            (unsigned long long)s.st_dev, (unsigned long long)s.st_nlink, (unsigned)s.st_uid,
            (unsigned)s.st_gid, (long long)s.st_size, (long long)s.st_atim.tv_sec,
            (long long)s.st_mtim.tv_sec, (long long)s.st_ctim.tv_sec, inexact(s.st_atim),
            inexact(s.st_mtim), inexact(s.st_ctim), atime, mtime, ctime, (long long)s.st_blksize,
            (long long)s.st_blocks, (unsigned long long)s.st_rdev);
    Py_XDECREF(atime);
    Py_XDECREF(mtime);
    Py_XDECREF(ctime);
    return result;
}

static PyMethodDef methods[] = {
    {"names_in", names_in, METH_O, names_doc},
    {"look", look, METH_VARARGS, look_doc},
    {"info", info, METH_VARARGS, info_doc},
    {NULL, NULL, 0, NULL},
};

static int add_version(PyObject *module)
{
    return PyModule_AddIntConstant(module, "VERSION", VERSION);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_version},
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "mlguard_listing",
    .m_doc = "Listing folders for guard's engine: see rollback/listing.py.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_mlguard_listing(void)
{
    return PyModuleDef_Init(&definition);
}
