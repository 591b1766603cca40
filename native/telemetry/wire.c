/* A growing buffer, and attributes as OTLP KeyValues in it. */
#include "core.h"

int make_room(buffer *out, size_t more)
{
    if (out->room - out->used >= more)
        return 0;
    size_t room = out->room * 2 + more;
    char *bytes = PyMem_Realloc(out->bytes, room);
    if (bytes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    out->bytes = bytes;
    out->room = room;
    return 0;
}

size_t varint_size(uint64_t value)
{
    size_t size = 1;
    while (value > 127) {
        value >>= 7;
        size++;
    }
    return size;
}

/* There is room: the caller has made it. */
void put_varint(buffer *out, uint64_t value)
{
    while (value > 127) {
        out->bytes[out->used++] = (char)((value & 127) | 128);
        value >>= 7;
    }
    out->bytes[out->used++] = (char)value;
}

void put_bytes(buffer *out, const char *bytes, size_t size)
{
    if (size > 0)
        memcpy(out->bytes + out->used, bytes, size);
    out->used += size;
}

static int put_slow(buffer *out, char tag, PyObject *slow, PyObject *name, PyObject *value)
{
    if (slow == NULL)
        return 1;
    PyObject *pair = PyObject_CallFunctionObjArgs(slow, name, value, NULL);
    if (pair == NULL)
        return -1;
    char *bytes;
    Py_ssize_t size;
    int failed = 0;
    if (pair != Py_None) {
        failed = PyBytes_AsStringAndSize(pair, &bytes, &size) < 0 || make_room(out, (size_t)size + 16) < 0;
        if (!failed) {
            out->bytes[out->used++] = tag;
            put_varint(out, (uint64_t)size);
            put_bytes(out, bytes, (size_t)size);
        }
    }
    Py_DECREF(pair);
    return failed ? -1 : 0;
}

/* An AnyValue: its beginning, and the bytes after that, which `inner` holds if it is not NULL. */
typedef struct {
    char head[24];
    size_t head_size, rest_size;
    const char *rest;
    buffer inner;
} any_value;

static int put_item(buffer *out, char tag, PyObject *value, int depth);
static int put_pair(buffer *out, char tag, PyObject *slow, PyObject *name, PyObject *value, int depth);

/* The plain kinds; 1 for a value of another, or nested deeper. The caller frees inner.bytes. */
static int read_any(any_value *any, PyObject *value, int depth)
{
    *any = (any_value){.rest = any->head};
    buffer head = {any->head, 0, sizeof any->head};
    if (PyUnicode_CheckExact(value)) {
        Py_ssize_t size;
        any->rest = PyUnicode_AsUTF8AndSize(value, &size);
        if (any->rest == NULL) {
            PyErr_Clear();
            return 1;
        }
        any->rest_size = (size_t)size;
        head.bytes[head.used++] = 0x0a;
        put_varint(&head, (uint64_t)size);
    } else if (PyBool_Check(value)) {
        head.bytes[head.used++] = 0x10;
        head.bytes[head.used++] = value == Py_True;
    } else if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow)
            return 1;
        if (number == -1 && PyErr_Occurred())
            return -1;
        head.bytes[head.used++] = 0x18;
        put_varint(&head, (uint64_t)number);
    } else if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AsDouble(value);
        uint64_t bits;
        memcpy(&bits, &number, 8);
        head.bytes[head.used++] = 0x21;
        for (int shift = 0; shift < 64; shift += 8)
            head.bytes[head.used++] = (char)(bits >> shift & 255);
    } else if (PyDict_CheckExact(value) || PyList_CheckExact(value)) {
        int is_map = PyDict_CheckExact(value), put = depth <= 0;
        if (is_map) {
            PyObject *name, *inner;
            Py_ssize_t position = 0;
            while (put == 0 && PyDict_Next(value, &position, &name, &inner))
                put = put_pair(&any->inner, 0x0a, NULL, name, inner, depth - 1);
        } else {
            for (Py_ssize_t index = 0; put == 0 && index < PyList_Size(value); index++)
                put = put_item(&any->inner, 0x0a, PyList_GetItem(value, index), depth - 1);
        }
        if (put != 0)
            return put;
        if (any->inner.used > 0)
            any->rest = any->inner.bytes;
        any->rest_size = any->inner.used;
        head.bytes[head.used++] = is_map ? 0x32 : 0x2a;
        put_varint(&head, (uint64_t)any->inner.used);
    } else if (value != Py_None)
        return 1;
    any->head_size = head.used;
    return 0;
}

/* An AnyValue under a tag. */
static int put_item(buffer *out, char tag, PyObject *value, int depth)
{
    any_value any;
    int put = read_any(&any, value, depth);
    if (put == 0)
        put = make_room(out, any.head_size + any.rest_size + 16);
    if (put == 0) {
        out->bytes[out->used++] = tag;
        put_varint(out, any.head_size + any.rest_size);
        put_bytes(out, any.head, any.head_size);
        put_bytes(out, any.rest, any.rest_size);
    }
    PyMem_Free(any.inner.bytes);
    return put;
}

/* A KeyValue under a tag. Without `slow`: 1 for a pair that needs it. */
static int put_pair(buffer *out, char tag, PyObject *slow, PyObject *name, PyObject *value, int depth)
{
    Py_ssize_t name_size;
    const char *name_bytes = NULL;
    if (PyUnicode_CheckExact(name))
        name_bytes = PyUnicode_AsUTF8AndSize(name, &name_size);
    if (name_bytes == NULL) {
        PyErr_Clear();
        return put_slow(out, tag, slow, name, value);
    }
    any_value any;
    int put = read_any(&any, value, depth);
    if (put == 0) {
        size_t any_size = any.head_size + any.rest_size;
        size_t pair_size = 1 + varint_size((uint64_t)name_size) + (size_t)name_size
            + 1 + varint_size(any_size) + any_size;
        put = make_room(out, pair_size + 16);
        if (put == 0) {
            out->bytes[out->used++] = tag;
            put_varint(out, pair_size);
            out->bytes[out->used++] = 0x0a;
            put_varint(out, (uint64_t)name_size);
            put_bytes(out, name_bytes, (size_t)name_size);
            out->bytes[out->used++] = 0x12;
            put_varint(out, any_size);
            put_bytes(out, any.head, any.head_size);
            put_bytes(out, any.rest, any.rest_size);
        }
    }
    PyMem_Free(any.inner.bytes);
    return put == 1 ? put_slow(out, tag, slow, name, value) : put;
}

int put_attributes(buffer *out, char tag, PyObject *mapping, PyObject *slow)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;
    size_t begin = out->used;
    int put = 0;
    while (put == 0 && PyDict_Next(mapping, &position, &name, &value))
        put = put_pair(out, tag, NULL, name, value, NESTED);
    if (put <= 0)
        return put;
    /* Once more, on a copy: `slow` may run any code, and nothing else may change what is walked. */
    out->used = begin;
    PyObject *items = PyDict_Items(mapping);
    if (items == NULL)
        return -1;
    Py_ssize_t count = PyList_Size(items);
    put = 0;
    for (Py_ssize_t index = 0; put == 0 && index < count; index++) {
        PyObject *item = PyList_GetItem(items, index);
        put = put_pair(out, tag, slow, PyTuple_GetItem(item, 0), PyTuple_GetItem(item, 1), NESTED);
    }
    Py_DECREF(items);
    return put;
}

PyObject *attributes(PyObject *self, PyObject *args)
{
    PyObject *mapping, *slow;
    int tag;
    if (!PyArg_ParseTuple(args, "O!iO", &PyDict_Type, &mapping, &tag, &slow))
        return NULL;
    buffer out = {NULL, 0, 0};
    PyObject *result = NULL;
    if (make_room(&out, 64) == 0 && put_attributes(&out, (char)tag, mapping, slow) == 0)
        result = PyBytes_FromStringAndSize(out.bytes, (Py_ssize_t)out.used);
    PyMem_Free(out.bytes);
    return result;
}
