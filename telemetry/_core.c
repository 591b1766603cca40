/*
 * The loops over records and their attributes, which is where delivering them spends its time.
 *
 * lines(items, slow, body, text): log records (`_wire.Line`, or one with the count of dropped
 * attributes as a 13th part) as [(resource, scope, bytes)]: the fields `log_records` of a ScopeLogs.
 * body(value) gives an AnyValue for a body that is no text, text(value) UTF-8 for a text that has none.
 * spans(items, slow, text, details, whole): the same for spans. details(span) gives events and links,
 * whole(span) all of a span that is not made as the SDK makes them.
 * pending_lines, pending_spans(items, actions, clean, dull, shared): the indexes of the records that
 * redaction has to look at, or None; `shared` maps the id of a resource or scope to itself and what
 * it is sent as.
 * attributes(mapping, tag, slow): each pair as an OTLP KeyValue under a tag, in one buffer. Texts,
 * numbers, booleans and None are written here; for every other value, and for text that is no UTF-8,
 * slow(name, value) gives the KeyValue, or None to leave it out.
 * unsettled(mapping, actions, clean): the names whose values redaction has to look at, or None. A
 * name in `actions` has a known decision: 0 looks at texts, 1 at nothing. What is no text, a text in
 * `clean`, and a short text without any mark that a secret could have, need no look.
 * others(mapping, names): the pairs whose names are not among `names`, or None.
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
#define NESTED 8  /* maps and lists inside of each other; deeper ones are Python's */

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

static int put_attributes(buffer *out, char tag, PyObject *mapping, PyObject *slow)
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

static PyObject *attributes(PyObject *self, PyObject *args)
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

/* --- whole records --- */

static int put_number(buffer *out, char tag, uint64_t value)
{
    if (make_room(out, 16) < 0)
        return -1;
    out->bytes[out->used++] = tag;
    put_varint(out, value);
    return 0;
}

static int put_content(buffer *out, char tag, const char *bytes, size_t size)
{
    if (make_room(out, size + 16) < 0)
        return -1;
    out->bytes[out->used++] = tag;
    put_varint(out, (uint64_t)size);
    put_bytes(out, bytes, size);
    return 0;
}

static int put_fixed64(buffer *out, char tag, PyObject *number)
{
    uint64_t bits = PyLong_AsUnsignedLongLong(number);
    if (bits == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    if (bits == 0)
        return 0;
    if (make_room(out, 16) < 0)
        return -1;
    out->bytes[out->used++] = tag;
    for (int shift = 0; shift < 64; shift += 8)
        out->bytes[out->used++] = (char)(bits >> shift & 255);
    return 0;
}

static void put_big_endian(buffer *out, uint64_t bits)
{
    for (int shift = 56; shift >= 0; shift -= 8)
        out->bytes[out->used++] = (char)(bits >> shift & 255);
}

/* An id of 8 bytes, or of 16; `absent` leaves zero out. */
static int put_id(buffer *out, char tag, PyObject *number, int wide, int absent)
{
    static PyObject *shift = NULL;  /* one for ever */
    uint64_t high = 0, low;
    if (shift == NULL && (shift = PyLong_FromLong(64)) == NULL)
        return -1;
    if (wide) {
        PyObject *upper = PyNumber_Rshift(number, shift);
        if (upper == NULL)
            return -1;
        high = PyLong_AsUnsignedLongLong(upper);
        Py_DECREF(upper);
        if (high == (uint64_t)-1 && PyErr_Occurred())
            return -1;
        low = PyLong_AsUnsignedLongLongMask(number);
    } else
        low = PyLong_AsUnsignedLongLong(number);
    if (low == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    if (absent && high == 0 && low == 0)
        return 0;
    if (make_room(out, 24) < 0)
        return -1;
    out->bytes[out->used++] = tag;
    out->bytes[out->used++] = wide ? 16 : 8;
    if (wide)
        put_big_endian(out, high);
    put_big_endian(out, low);
    return 0;
}

static void put_flags(buffer *out, uint32_t flags)
{
    for (int shift = 0; shift < 32; shift += 8)
        out->bytes[out->used++] = (char)(flags >> shift & 255);
}

/* What a callback gives, as the content of a field; without a tag, as fields. */
static int put_given(buffer *out, char tag, PyObject *call, PyObject *value)
{
    PyObject *given = PyObject_CallFunctionObjArgs(call, value, NULL);
    if (given == NULL)
        return -1;
    char *bytes;
    Py_ssize_t size;
    int failed = PyBytes_AsStringAndSize(given, &bytes, &size) < 0;
    if (!failed && tag)
        failed = put_content(out, tag, bytes, (size_t)size) < 0;
    else if (!failed && !(failed = make_room(out, (size_t)size) < 0))
        put_bytes(out, bytes, (size_t)size);
    Py_DECREF(given);
    return failed ? -1 : 0;
}

static int put_text(buffer *out, char tag, PyObject *value, PyObject *text)
{
    if (PyUnicode_CheckExact(value)) {
        Py_ssize_t size;
        const char *bytes = PyUnicode_AsUTF8AndSize(value, &size);
        if (bytes != NULL)
            return put_content(out, tag, bytes, (size_t)size);
        PyErr_Clear();
    }
    return put_given(out, tag, text, value);
}

/* Names of fields and attributes, interned once: see PyInit__core. */
enum {
    N_CONTEXT, N_PARENT, N_NAME, N_KIND, N_STATUS, N_ATTRIBUTES, N_START_TIME, N_END_TIME,
    N_EVENTS, N_LINKS, N_RESOURCE, N_INSTRUMENTATION_SCOPE, N_VALUE, N_DICT, N_DROPPED, N_STATUS_CODE, N_DESCRIPTION,
    N_VALUE_KEY, NAMES
};
static const char *const name_texts[NAMES] = {
    "_context", "_parent", "_name", "_kind", "_status", "_attributes", "_start_time", "_end_time",
    "_events", "_links", "_resource", "_instrumentation_scope", "_value_", "_dict", "dropped", "status_code", "description",
    "value"};
static PyObject *name_of[NAMES];

/* A field of a record, borrowed; NULL without an error if it is not there. */
static PyObject *field(PyObject *fields, int name)
{
    return PyDict_GetItemWithError(fields, name_of[name]);
}

/* Records of one resource and scope: consecutive ones of few kinds, so a list is enough. */
#define GROUPS 16

typedef struct {
    PyObject *resource, *scope;
    buffer out;
} group;

typedef struct {
    group of[GROUPS];
    int used, last;
    PyObject *done;  /* [(resource, scope, bytes)] */
} groups;

static void drop_group(group *each)
{
    Py_DECREF(each->resource);
    Py_DECREF(each->scope);
    PyMem_Free(each->out.bytes);
}

static int finish_groups(groups *all)
{
    int failed = 0;
    for (int index = 0; index < all->used; index++) {
        group *each = &all->of[index];
        if (!failed) {
            PyObject *entry = Py_BuildValue("(OOy#)", each->resource, each->scope, each->out.bytes,
                                            (Py_ssize_t)each->out.used);
            failed = entry == NULL || PyList_Append(all->done, entry) < 0;
            Py_XDECREF(entry);
        }
        drop_group(each);
    }
    all->used = all->last = 0;
    return failed ? -1 : 0;
}

static void drop_groups(groups *all)
{
    for (int index = 0; index < all->used; index++)
        drop_group(&all->of[index]);
    Py_XDECREF(all->done);
}

static buffer *group_of(groups *all, PyObject *resource, PyObject *scope)
{
    if (all->used > 0) {
        group *last = &all->of[all->last];
        if (last->resource == resource && last->scope == scope)
            return &last->out;
        for (int index = 0; index < all->used; index++)
            if (all->of[index].resource == resource && all->of[index].scope == scope) {
                all->last = index;
                return &all->of[index].out;
            }
    }
    if (all->used == GROUPS && finish_groups(all) < 0)
        return NULL;
    group *fresh = &all->of[all->used];
    *fresh = (group){resource, scope, {NULL, 0, 0}};
    Py_INCREF(resource);
    Py_INCREF(scope);
    all->last = all->used++;
    return &fresh->out;
}

static int put_line(buffer *out, PyObject *line, PyObject *slow, PyObject *body, PyObject *text)
{
    Py_ssize_t size = PyTuple_Size(line);
    if (size != 12 && size != 13) {
        PyErr_SetString(PyExc_TypeError, "a line has 12 parts, or 13");
        return -1;
    }
    if (put_fixed64(out, 0x09, PyTuple_GetItem(line, 0)) < 0)
        return -1;
    uint64_t number = PyLong_AsUnsignedLongLong(PyTuple_GetItem(line, 2));
    if (number == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    if (number && put_number(out, 0x10, number) < 0)
        return -1;
    PyObject *part = PyTuple_GetItem(line, 3);
    int full = PyObject_IsTrue(part);
    if (full < 0 || (full && put_text(out, 0x1a, part, text) < 0))
        return -1;
    part = PyTuple_GetItem(line, 4);
    Py_ssize_t body_size = 0;
    const char *bytes = NULL;
    if (PyUnicode_CheckExact(part) && (bytes = PyUnicode_AsUTF8AndSize(part, &body_size)) == NULL)
        PyErr_Clear();
    if (bytes != NULL) {
        if (make_room(out, (size_t)body_size + 32) < 0)
            return -1;
        out->bytes[out->used++] = 0x2a;
        put_varint(out, 1 + varint_size((uint64_t)body_size) + (uint64_t)body_size);
        out->bytes[out->used++] = 0x0a;
        put_varint(out, (uint64_t)body_size);
        put_bytes(out, bytes, (size_t)body_size);
    } else if (put_given(out, 0x2a, body, part) < 0)
        return -1;
    part = PyTuple_GetItem(line, 5);
    if (!PyDict_Check(part)) {
        PyErr_SetString(PyExc_TypeError, "the attributes of a line are a dict");
        return -1;
    }
    if (put_attributes(out, 0x32, part, slow) < 0)
        return -1;
    if (size == 13) {
        number = PyLong_AsUnsignedLongLong(PyTuple_GetItem(line, 12));
        if ((number == (uint64_t)-1 && PyErr_Occurred()) || put_number(out, 0x38, number) < 0)
            return -1;
    }
    number = PyLong_AsUnsignedLongLong(PyTuple_GetItem(line, 8));
    if (number == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    if (number) {
        if (make_room(out, 16) < 0)
            return -1;
        out->bytes[out->used++] = 0x45;
        put_flags(out, (uint32_t)number);
    }
    if (put_id(out, 0x4a, PyTuple_GetItem(line, 6), 1, 1) < 0
        || put_id(out, 0x52, PyTuple_GetItem(line, 7), 0, 1) < 0
        || put_fixed64(out, 0x59, PyTuple_GetItem(line, 1)) < 0)
        return -1;
    part = PyTuple_GetItem(line, 9);
    full = PyObject_IsTrue(part);
    return full < 0 || (full && put_text(out, 0x62, part, text) < 0) ? -1 : 0;
}

static PyObject *lines(PyObject *self, PyObject *args)
{
    PyObject *items, *slow, *body, *text;
    if (!PyArg_ParseTuple(args, "O!OOO", &PyTuple_Type, &items, &slow, &body, &text))
        return NULL;
    groups all = {.used = 0, .last = 0, .done = PyList_New(0)};
    buffer scratch = {NULL, 0, 0};
    if (all.done == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_Size(items);
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *line = PyTuple_GetItem(items, index);
        scratch.used = 0;
        if (!PyTuple_Check(line)) {
            PyErr_SetString(PyExc_TypeError, "a line is a tuple");
            goto failed;
        }
        if (put_line(&scratch, line, slow, body, text) < 0)
            goto failed;
        buffer *out = group_of(&all, PyTuple_GetItem(line, 10), PyTuple_GetItem(line, 11));
        if (out == NULL || put_content(out, 0x12, scratch.bytes, scratch.used) < 0)
            goto failed;
    }
    if (finish_groups(&all) < 0)
        goto failed;
    PyMem_Free(scratch.bytes);
    return all.done;
failed:
    PyMem_Free(scratch.bytes);
    drop_groups(&all);
    return NULL;
}

/* A member of an enumeration, as the number that it stands for. */
static long enum_number(PyObject *member)
{
    PyObject *value = member == NULL ? NULL : PyObject_GetAttr(member, name_of[N_VALUE]);
    long number = value == NULL ? -1 : PyLong_AsLong(value);
    Py_XDECREF(value);
    return number;
}

/* Whether a list of events or links has something to tell: 1, 0, or -1 with an error. */
static int has_details(PyObject *list)
{
    if (list == NULL || list == Py_None)
        return 0;
    Py_ssize_t size = PyObject_Size(list);
    if (size != 0)
        return size < 0 ? -1 : 1;
    PyObject *dropped = PyObject_GetAttr(list, name_of[N_DROPPED]);
    if (dropped == NULL) {  /* a plain tuple or list */
        PyErr_Clear();
        return 0;
    }
    int some = PyObject_IsTrue(dropped);
    Py_DECREF(dropped);
    return some;
}

/* 1: this span is not as the SDK makes them, so that whole() has to say it. */
static int put_span(buffer *out, PyObject *span, PyObject *fields, PyObject *slow, PyObject *text,
                    PyObject *details)
{
    PyObject *context = field(fields, N_CONTEXT), *parent = field(fields, N_PARENT);
    PyObject *name = field(fields, N_NAME), *kind = field(fields, N_KIND);
    PyObject *status = field(fields, N_STATUS), *held = field(fields, N_ATTRIBUTES);
    PyObject *start = field(fields, N_START_TIME), *end = field(fields, N_END_TIME);
    if (PyErr_Occurred())
        return -1;
    if (context == NULL || !PyTuple_Check(context) || PyTuple_Size(context) != 6 || parent == NULL
        || (parent != Py_None && (!PyTuple_Check(parent) || PyTuple_Size(parent) != 6))
        || name == NULL || kind == NULL || status == NULL || held == NULL || start == NULL
        || !PyLong_Check(start) || end == NULL || !PyLong_Check(end))
        return 1;
    int state = PyObject_IsTrue(PyTuple_GetItem(context, 4));
    if (state != 0)
        return state;
    if (put_id(out, 0x0a, PyTuple_GetItem(context, 0), 1, 0) < 0
        || put_id(out, 0x12, PyTuple_GetItem(context, 1), 0, 0) < 0)
        return -1;
    uint32_t flags = 0x100;
    if (parent != Py_None) {
        if (put_id(out, 0x22, PyTuple_GetItem(parent, 1), 0, 0) < 0)
            return -1;
        if (PyTuple_GetItem(parent, 2) == Py_True)
            flags |= 0x200;
    }
    int full = PyObject_IsTrue(name);
    if (full < 0 || (full && put_text(out, 0x2a, name, text) < 0))
        return -1;
    long number = enum_number(kind);
    if ((number < 0 && PyErr_Occurred()) || put_number(out, 0x30, (uint64_t)(number + 1)) < 0
        || put_fixed64(out, 0x39, start) < 0 || put_fixed64(out, 0x41, end) < 0)
        return -1;
    PyObject *own = PyObject_GetAttr(held, name_of[N_DICT]);
    if (own == NULL || !PyDict_CheckExact(own)) {
        PyErr_Clear();
        Py_XDECREF(own);
        return 1;
    }
    int failed = put_attributes(out, 0x4a, own, slow);
    Py_DECREF(own);
    if (failed)
        return -1;
    PyObject *dropped = PyObject_GetAttr(held, name_of[N_DROPPED]);
    uint64_t count = dropped == NULL ? (uint64_t)-1 : PyLong_AsUnsignedLongLong(dropped);
    Py_XDECREF(dropped);
    if ((count == (uint64_t)-1 && PyErr_Occurred()) || (count && put_number(out, 0x50, count) < 0))
        return -1;
    PyObject *events = field(fields, N_EVENTS), *links = field(fields, N_LINKS);
    int more = has_details(events);
    if (more == 0)
        more = has_details(links);
    if (more < 0 || PyErr_Occurred() || (more && put_given(out, 0, details, span) < 0))
        return -1;
    if (status != Py_None) {
        PyObject *code = PyObject_GetAttr(status, name_of[N_STATUS_CODE]);
        PyObject *told = PyObject_GetAttr(status, name_of[N_DESCRIPTION]);
        buffer content = {NULL, 0, 0};
        number = enum_number(code);
        full = told == NULL ? -1 : PyObject_IsTrue(told);
        failed = (number < 0 && PyErr_Occurred()) || full < 0
            || (full && put_text(&content, 0x12, told, text) < 0)
            || (number && put_number(&content, 0x18, (uint64_t)number) < 0)
            || put_content(out, 0x7a, content.bytes, content.used) < 0;
        PyMem_Free(content.bytes);
        Py_XDECREF(code);
        Py_XDECREF(told);
        if (failed)
            return -1;
    }
    if (make_room(out, 16) < 0)
        return -1;
    out->bytes[out->used++] = (char)0x85;
    out->bytes[out->used++] = 0x01;
    put_flags(out, flags);
    return 0;
}

static PyObject *spans(PyObject *self, PyObject *args)
{
    PyObject *items, *slow, *text, *details, *whole;
    if (!PyArg_ParseTuple(args, "O!OOOO", &PyTuple_Type, &items, &slow, &text, &details, &whole))
        return NULL;
    groups all = {.used = 0, .last = 0, .done = PyList_New(0)};
    buffer scratch = {NULL, 0, 0};
    PyObject *fields = NULL;
    if (all.done == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_Size(items);
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *span = PyTuple_GetItem(items, index);
        PyObject *live = PyObject_GenericGetDict(span, NULL);
        /* A copy holds what the callbacks could take away. */
        fields = live == NULL ? NULL : PyDict_Copy(live);
        Py_XDECREF(live);
        if (fields == NULL)
            goto failed;
        scratch.used = 0;
        int put = put_span(&scratch, span, fields, slow, text, details);
        if (put == 1) {
            scratch.used = 0;
            put = put_given(&scratch, 0, whole, span);
        }
        if (put < 0)
            goto failed;
        PyObject *resource = field(fields, N_RESOURCE);
        PyObject *scope = field(fields, N_INSTRUMENTATION_SCOPE);
        if (PyErr_Occurred())
            goto failed;
        buffer *out = group_of(&all, resource == NULL ? Py_None : resource, scope == NULL ? Py_None : scope);
        if (out == NULL || put_content(out, 0x12, scratch.bytes, scratch.used) < 0)
            goto failed;
        Py_CLEAR(fields);
    }
    if (finish_groups(&all) < 0)
        goto failed;
    PyMem_Free(scratch.bytes);
    return all.done;
failed:
    Py_XDECREF(fields);
    PyMem_Free(scratch.bytes);
    drop_groups(&all);
    return NULL;
}

/* An id as programs make them: hexadecimal, with a letter or a dash, of a usual length. */
static int is_plain_id(PyObject *text, Py_ssize_t size)
{
    int letters = 0;
    if (size != 16 && size != 20 && size != 24 && size != 32 && size != 36 && size != 40 && size != 64)
        return 0;
    for (Py_ssize_t index = 0; index < size; index++) {
        Py_UCS4 c = PyUnicode_ReadChar(text, index);
        int letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '-';
        if (!letter && !(c >= '0' && c <= '9'))
            return 0;
        letters |= letter;
    }
    return letters;
}

/* Whether a text is an id, or short with only characters that no secret of that length could do with. */
static int is_dull(PyObject *text)
{
    Py_ssize_t size = PyUnicode_GetLength(text);
    if (size < 0 || size > SHORT_TEXT)
        return size > 0 && is_plain_id(text, size);
    for (Py_ssize_t index = 0; index < size; index++) {
        Py_UCS4 c = PyUnicode_ReadChar(text, index);
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || c == '_' || c == '-' || c == '/' || c == '#'))
            return 0;
    }
    return 1;
}

/* What is known to redaction. */
typedef struct {
    PyObject *actions, *clean, *shared;
    int dull;
} policy;

/* Whether redaction has to look at a text, or at another plain value: 1, 0, or -1 with an error. */
static int look_at_value(PyObject *value, const policy *known)
{
    if (!PyUnicode_CheckExact(value))
        return !(PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyBool_Check(value)
                 || value == Py_None);
    if (known->dull && is_dull(value))
        return 0;
    int clean = PySet_Contains(known->clean, value);
    return clean < 0 ? -1 : !clean;
}

static int look_at_pairs(PyObject *mapping, const policy *known, int depth);

static int look_at_pair(PyObject *name, PyObject *value, const policy *known, int depth)
{
    if (!PyUnicode_CheckExact(name))
        return 1;
    PyObject *action = PyDict_GetItemWithError(known->actions, name);
    if (action == NULL)
        return PyErr_Occurred() ? -1 : 1;
    if (action == Py_True)
        return 0;
    if (action != Py_False)
        return 1;
    if (PyDict_CheckExact(value))
        return depth > 0 ? look_at_pairs(value, known, depth - 1) : 1;
    return look_at_value(value, known);
}

static int look_at_pairs(PyObject *mapping, const policy *known, int depth)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;
    int look = 0;
    if (depth < NESTED) {  /* a map of the kind {"name": "password", "value": "x"} */
        int named = PyDict_Contains(mapping, name_of[N_VALUE_KEY]);
        if (named != 0)
            return named;
    }
    while (look == 0 && PyDict_Next(mapping, &position, &name, &value))
        look = look_at_pair(name, value, known, depth);
    return look;
}

/* Whether a resource or scope is sent as something else than itself, as far as is known. */
static int look_at_shared(PyObject *shared, const policy *known)
{
    if (shared == NULL || shared == Py_None)
        return 0;
    PyObject *key = PyLong_FromVoidPtr(shared);  /* what id() gives */
    if (key == NULL)
        return -1;
    PyObject *twins = PyDict_GetItemWithError(known->shared, key);
    Py_DECREF(key);
    if (twins == NULL)
        return PyErr_Occurred() ? -1 : 1;
    return !(PyTuple_Check(twins) && PyTuple_Size(twins) == 2 && PyTuple_GetItem(twins, 0) == shared
             && PyTuple_GetItem(twins, 1) == shared);
}

static int look_at_line(PyObject *line, const policy *known)
{
    if (!PyTuple_CheckExact(line) || PyTuple_Size(line) != 12)
        return 1;
    PyObject *mapping = PyTuple_GetItem(line, 5);
    if (!PyDict_CheckExact(mapping))
        return 1;
    int look = look_at_value(PyTuple_GetItem(line, 3), known);
    if (look == 0)
        look = look_at_value(PyTuple_GetItem(line, 4), known);
    if (look == 0)
        look = look_at_pairs(mapping, known, NESTED);
    if (look == 0)
        look = look_at_value(PyTuple_GetItem(line, 9), known);
    if (look == 0)
        look = look_at_shared(PyTuple_GetItem(line, 10), known);
    return look == 0 ? look_at_shared(PyTuple_GetItem(line, 11), known) : look;
}

static int look_at_span(PyObject *span, const policy *known)
{
    PyObject *fields = PyObject_GenericGetDict(span, NULL);
    if (fields == NULL) {
        PyErr_Clear();
        return 1;
    }
    PyObject *name = field(fields, N_NAME), *held = field(fields, N_ATTRIBUTES);
    PyObject *status = field(fields, N_STATUS), *own = NULL, *told = NULL;
    int look = 1;
    if (PyErr_Occurred()) {
        look = -1;
        goto done;
    }
    if (name == NULL || held == NULL || status == NULL)
        goto done;
    if ((look = look_at_value(name, known)) != 0)
        goto done;
    look = has_details(field(fields, N_EVENTS));
    if (look == 0)
        look = has_details(field(fields, N_LINKS));
    if (look != 0)
        goto done;
    if (status != Py_None) {
        told = PyObject_GetAttr(status, name_of[N_DESCRIPTION]);
        look = told == NULL ? -1 : PyObject_IsTrue(told);
        if (look != 0)
            goto done;
    }
    own = PyObject_GetAttr(held, name_of[N_DICT]);
    if (own == NULL || !PyDict_CheckExact(own)) {
        PyErr_Clear();
        look = 1;
        goto done;
    }
    if ((look = look_at_pairs(own, known, NESTED)) != 0)
        goto done;
    look = look_at_shared(field(fields, N_RESOURCE), known);
    if (look == 0)
        look = look_at_shared(field(fields, N_INSTRUMENTATION_SCOPE), known);
done:
    Py_XDECREF(told);
    Py_XDECREF(own);
    Py_DECREF(fields);
    return look;
}

static PyObject *pending(PyObject *args, int (*look_at)(PyObject *, const policy *))
{
    PyObject *items, *found = NULL;
    policy known;
    if (!PyArg_ParseTuple(args, "O!O!O!pO!", &PyTuple_Type, &items, &PyDict_Type, &known.actions,
                          &PySet_Type, &known.clean, &known.dull, &PyDict_Type, &known.shared))
        return NULL;
    Py_ssize_t count = PyTuple_Size(items);
    for (Py_ssize_t index = 0; index < count; index++) {
        int look = look_at(PyTuple_GetItem(items, index), &known);
        if (look < 0)
            goto failed;
        if (look == 0)
            continue;
        if (found == NULL && (found = PyList_New(0)) == NULL)
            return NULL;
        PyObject *number = PyLong_FromSsize_t(index);
        if (number == NULL || PyList_Append(found, number) < 0) {
            Py_XDECREF(number);
            goto failed;
        }
        Py_DECREF(number);
    }
    if (found == NULL)
        Py_RETURN_NONE;
    return found;
failed:
    Py_XDECREF(found);
    return NULL;
}

static PyObject *pending_lines(PyObject *self, PyObject *args)
{
    return pending(args, look_at_line);
}

static PyObject *pending_spans(PyObject *self, PyObject *args)
{
    return pending(args, look_at_span);
}

static PyObject *unsettled(PyObject *self, PyObject *args)
{
    PyObject *mapping, *found = NULL, *name, *value;
    policy known;
    if (!PyArg_ParseTuple(args, "O!O!O!p", &PyDict_Type, &mapping, &PyDict_Type, &known.actions,
                          &PySet_Type, &known.clean, &known.dull))
        return NULL;
    Py_ssize_t position = 0;
    while (PyDict_Next(mapping, &position, &name, &value)) {
        int look = look_at_pair(name, value, &known, NESTED);
        if (look < 0)
            goto failed;
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

/* 0, or -1 with an error. */
static int add_weight(Py_ssize_t *size, PyObject *mapping, PyObject *slow, int depth)
{
    PyObject *items = PyDict_Items(mapping);
    if (items == NULL)
        return -1;
    Py_ssize_t count = PyList_Size(items);
    int failed = 0;
    *size += 8;
    for (Py_ssize_t index = 0; !failed && index < count; index++) {
        PyObject *item = PyList_GetItem(items, index);
        PyObject *name = PyTuple_GetItem(item, 0), *value = PyTuple_GetItem(item, 1);
        *size += PyUnicode_Check(name) ? PyUnicode_GetLength(name) : 16;
        if (PyUnicode_CheckExact(value)) {
            *size += PyUnicode_GetLength(value) + 16;
        } else if (PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyBool_Check(value)
                   || value == Py_None) {
            *size += 20;
        } else if (PyDict_CheckExact(value) && depth > 0) {
            *size += 8;
            failed = add_weight(size, value, slow, depth - 1) < 0;
        } else {
            PyObject *more = PyObject_CallFunctionObjArgs(slow, value, NULL);
            if (more != NULL)
                *size += 8 + PyLong_AsSsize_t(more);
            Py_XDECREF(more);
            failed = PyErr_Occurred() != NULL;
        }
    }
    Py_DECREF(items);
    return failed ? -1 : 0;
}

static PyObject *weigh(PyObject *self, PyObject *args)
{
    PyObject *mapping, *slow;
    Py_ssize_t size = 0;
    if (!PyArg_ParseTuple(args, "O!O", &PyDict_Type, &mapping, &slow))
        return NULL;
    return add_weight(&size, mapping, slow, NESTED) < 0 ? NULL : PyLong_FromSsize_t(size);
}

static PyObject *others(PyObject *self, PyObject *args)
{
    PyObject *mapping, *names, *name, *value, *found = NULL;
    if (!PyArg_ParseTuple(args, "O!O!", &PyDict_Type, &mapping, &PyFrozenSet_Type, &names))
        return NULL;
    PyObject *items = PyDict_Items(mapping);  /* a name may be any object, whose code may do anything */
    if (items == NULL)
        return NULL;
    Py_ssize_t count = PyList_Size(items);
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *item = PyList_GetItem(items, index);
        name = PyTuple_GetItem(item, 0);
        value = PyTuple_GetItem(item, 1);
        int known = PySet_Contains(names, name);
        if (known < 0 || (!known && found == NULL && (found = PyDict_New()) == NULL)
            || (!known && PyDict_SetItem(found, name, value) < 0)) {
            Py_XDECREF(found);
            Py_DECREF(items);
            return NULL;
        }
    }
    Py_DECREF(items);
    if (found == NULL)
        Py_RETURN_NONE;
    return found;
}

static PyMethodDef methods[] = {
    {"attributes", attributes, METH_VARARGS, "Pairs as OTLP KeyValues under a tag."},
    {"lines", lines, METH_VARARGS, "Log records as fields of ScopeLogs."},
    {"spans", spans, METH_VARARGS, "Spans as fields of ScopeSpans."},
    {"pending_lines", pending_lines, METH_VARARGS, "The log records that redaction has to look at."},
    {"pending_spans", pending_spans, METH_VARARGS, "The spans that redaction has to look at."},
    {"others", others, METH_VARARGS, "The pairs whose names are not among others, or None."},
    {"unsettled", unsettled, METH_VARARGS, "The names that redaction has to look at, or None."},
    {"weigh", weigh, METH_VARARGS, "About how many bytes the pairs take."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    for (int name = 0; name < NAMES; name++)
        if (name_of[name] == NULL && (name_of[name] = PyUnicode_InternFromString(name_texts[name])) == NULL)
            return NULL;
    return PyModule_Create(&module);
}
