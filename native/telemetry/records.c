/* Whole log records and spans as OTLP, grouped by resource and scope. */
#include "core.h"

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

PyObject *lines(PyObject *self, PyObject *args)
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
int has_details(PyObject *list)
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
        PyObject *description = PyObject_GetAttr(status, name_of[N_DESCRIPTION]);
        buffer content = {NULL, 0, 0};
        number = enum_number(code);
        full = description == NULL ? -1 : PyObject_IsTrue(description);
        failed = (number < 0 && PyErr_Occurred()) || full < 0
            || (full && put_text(&content, 0x12, description, text) < 0)
            || (number && put_number(&content, 0x18, (uint64_t)number) < 0)
            || put_content(out, 0x7a, content.bytes, content.used) < 0;
        PyMem_Free(content.bytes);
        Py_XDECREF(code);
        Py_XDECREF(description);
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

PyObject *spans(PyObject *self, PyObject *args)
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
