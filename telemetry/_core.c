/*
 * Three loops over the attributes of a record, which is where delivering it spends its time.
 *
 * attributes(mapping, tag, slow): each pair as an OTLP KeyValue under a tag, in one buffer. Texts,
 * numbers, booleans and None are written here; for every other value, and for text that is no UTF-8,
 * slow(name, value) gives the KeyValue, or None to leave it out.
 * unsettled(mapping, actions, clean): the names whose values redaction has to look at, or None. A
 * name in `actions` has a known decision: 0 looks at texts, 1 at nothing. What is no text, a text in
 * `clean`, and a short text without any mark that a secret could have, need no look.
 * weigh(mapping, slow): about how many bytes the pairs take on the wire.
 *
 * Why C: measured beside the same loops in Python (`make bench ARGS=hotpath`), they are half of the
 * background thread's time, and that thread takes the GIL from the application. Without a compiler
 * telemetry/_loops.py does the same; tests/telemetry/test_loops.py holds the two together.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define SHORT_TEXT 13

typedef struct {
    char *bytes;
    size_t used, room;
} buffer;

static int make_room(buffer *out, size_t more)
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

static size_t varint_size(uint64_t value)
{
    size_t size = 1;
    while (value > 127) {
        value >>= 7;
        size++;
    }
    return size;
}

/* There is room: the caller has made it. */
static void put_varint(buffer *out, uint64_t value)
{
    while (value > 127) {
        out->bytes[out->used++] = (char)(value & 127 | 128);
        value >>= 7;
    }
    out->bytes[out->used++] = (char)value;
}

static void put_bytes(buffer *out, const char *bytes, size_t size)
{
    memcpy(out->bytes + out->used, bytes, size);
    out->used += size;
}

static int put_slow(buffer *out, char tag, PyObject *slow, PyObject *name, PyObject *value)
{
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

static int put_pair(buffer *out, char tag, PyObject *slow, PyObject *name, PyObject *value)
{
    Py_ssize_t name_size;
    const char *name_bytes = NULL;
    if (PyUnicode_CheckExact(name))
        name_bytes = PyUnicode_AsUTF8AndSize(name, &name_size);
    if (name_bytes == NULL) {
        PyErr_Clear();
        return put_slow(out, tag, slow, name, value);
    }
    char head[24];  /* the AnyValue up to the text */
    size_t head_size = 0;
    const char *text = NULL;
    Py_ssize_t text_size = 0;
    buffer small = {head, 0, sizeof head};
    if (PyUnicode_CheckExact(value)) {
        text = PyUnicode_AsUTF8AndSize(value, &text_size);
        if (text == NULL) {
            PyErr_Clear();
            return put_slow(out, tag, slow, name, value);
        }
        small.bytes[small.used++] = 0x0a;
        put_varint(&small, (uint64_t)text_size);
    } else if (PyBool_Check(value)) {
        small.bytes[small.used++] = 0x10;
        small.bytes[small.used++] = value == Py_True;
    } else if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow)
            return put_slow(out, tag, slow, name, value);
        if (number == -1 && PyErr_Occurred())
            return -1;
        small.bytes[small.used++] = 0x18;
        put_varint(&small, (uint64_t)number);
    } else if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AsDouble(value);
        uint64_t bits;
        memcpy(&bits, &number, 8);
        small.bytes[small.used++] = 0x21;
        for (int shift = 0; shift < 64; shift += 8)
            small.bytes[small.used++] = (char)(bits >> shift & 255);
    } else if (value != Py_None) {
        return put_slow(out, tag, slow, name, value);
    }
    head_size = small.used;
    size_t any_size = head_size + (size_t)text_size;
    size_t pair_size = 1 + varint_size((uint64_t)name_size) + (size_t)name_size
        + 1 + varint_size(any_size) + any_size;
    if (make_room(out, pair_size + 16) < 0)
        return -1;
    out->bytes[out->used++] = tag;
    put_varint(out, pair_size);
    out->bytes[out->used++] = 0x0a;
    put_varint(out, (uint64_t)name_size);
    put_bytes(out, name_bytes, (size_t)name_size);
    out->bytes[out->used++] = 0x12;
    put_varint(out, any_size);
    put_bytes(out, head, head_size);
    put_bytes(out, text != NULL ? text : head, (size_t)text_size);
    return 0;
}

static PyObject *attributes(PyObject *self, PyObject *args)
{
    PyObject *mapping, *slow, *name, *value;
    int tag;
    if (!PyArg_ParseTuple(args, "O!iO", &PyDict_Type, &mapping, &tag, &slow))
        return NULL;
    /* A copy: `slow` may run any code, and nothing else may change what is walked here. */
    PyObject *items = PyDict_Items(mapping);
    if (items == NULL)
        return NULL;
    buffer out = {NULL, 0, 0};
    PyObject *result = NULL;
    Py_ssize_t count = PyList_Size(items);
    if (make_room(&out, 64 * (size_t)count + 64) < 0)
        goto done;
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *item = PyList_GetItem(items, index);
        name = PyTuple_GetItem(item, 0);
        value = PyTuple_GetItem(item, 1);
        if (put_pair(&out, (char)tag, slow, name, value) < 0)
            goto done;
    }
    result = PyBytes_FromStringAndSize(out.bytes, (Py_ssize_t)out.used);
done:
    PyMem_Free(out.bytes);
    Py_DECREF(items);
    return result;
}

/* Whether a text is short and has only characters that no secret of that length could do with. */
static int is_dull(PyObject *text)
{
    Py_ssize_t size = PyUnicode_GetLength(text);
    if (size < 0 || size > SHORT_TEXT)
        return 0;
    for (Py_ssize_t index = 0; index < size; index++) {
        Py_UCS4 c = PyUnicode_ReadChar(text, index);
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || c == '_' || c == '-' || c == '/' || c == '#'))
            return 0;
    }
    return 1;
}

static PyObject *unsettled(PyObject *self, PyObject *args)
{
    PyObject *mapping, *actions, *clean, *found = NULL, *name, *value;
    int dull;
    if (!PyArg_ParseTuple(args, "O!O!O!p", &PyDict_Type, &mapping, &PyDict_Type, &actions,
                          &PySet_Type, &clean, &dull))
        return NULL;
    Py_ssize_t position = 0;
    while (PyDict_Next(mapping, &position, &name, &value)) {
        int look = 1;
        if (PyUnicode_CheckExact(name)) {
            PyObject *action = PyDict_GetItemWithError(actions, name);
            if (action == NULL && PyErr_Occurred())
                goto failed;
            if (action == Py_True) {
                look = 0;
            } else if (action == Py_False) {
                if (PyUnicode_CheckExact(value)) {
                    look = !(dull && is_dull(value));
                    if (look) {
                        int known = PySet_Contains(clean, value);
                        if (known < 0)
                            goto failed;
                        look = !known;
                    }
                } else {
                    look = !(PyLong_CheckExact(value) || PyFloat_CheckExact(value)
                             || PyBool_Check(value) || value == Py_None);
                }
            }
        }
        if (look) {
            if (found == NULL && (found = PyList_New(0)) == NULL)
                return NULL;
            if (PyList_Append(found, name) < 0)
                goto failed;
        }
    }
    if (found == NULL)
        Py_RETURN_NONE;
    return found;
failed:
    Py_XDECREF(found);
    return NULL;
}

static PyObject *weigh(PyObject *self, PyObject *args)
{
    PyObject *mapping, *slow, *name, *value;
    if (!PyArg_ParseTuple(args, "O!O", &PyDict_Type, &mapping, &slow))
        return NULL;
    PyObject *items = PyDict_Items(mapping);
    if (items == NULL)
        return NULL;
    Py_ssize_t count = PyList_Size(items), size = 8;
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *item = PyList_GetItem(items, index);
        name = PyTuple_GetItem(item, 0);
        value = PyTuple_GetItem(item, 1);
        size += PyUnicode_Check(name) ? PyUnicode_GetLength(name) : 16;
        if (PyUnicode_CheckExact(value)) {
            size += PyUnicode_GetLength(value) + 16;
        } else if (PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyBool_Check(value)
                   || value == Py_None) {
            size += 20;
        } else {
            PyObject *more = PyObject_CallFunctionObjArgs(slow, value, NULL);
            if (more == NULL)
                goto failed;
            size += 8 + PyLong_AsSsize_t(more);
            Py_DECREF(more);
            if (PyErr_Occurred())
                goto failed;
        }
    }
    Py_DECREF(items);
    return PyLong_FromSsize_t(size);
failed:
    Py_DECREF(items);
    return NULL;
}

static PyMethodDef methods[] = {
    {"attributes", attributes, METH_VARARGS, "Pairs as OTLP KeyValues under a tag."},
    {"unsettled", unsettled, METH_VARARGS, "The names that redaction has to look at, or None."},
    {"weigh", weigh, METH_VARARGS, "About how many bytes the pairs take."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModule_Create(&module);
}
