/*
 * The hot path: protobuf bytes of an OTLP request -> plain Python dicts, by a schema.
 *
 * What: decode(schema, data) walks the wire once and makes the dicts that documents/build.py finishes.
 * How: a Schema is an array of fields by number, built from the message descriptors by
 * collector/documents/schema.py, so no name of OTLP is written down here. Attribute lists become dicts and
 * AnyValues become their values on the way, which is where a generic decoder spends its time.
 * Why C: measured beside the walk over protobuf messages in Python (tests/benchmarks), this is the
 * step that bounds a collector. Without a compiler collector/documents/schema.py does the same in Python;
 * one property test holds the two together.
 *
 * Merging follows the protobuf encoding guide: the last scalar wins, repeated fields collect, a message
 * that comes twice is merged.
 */
#include "core.h"

#define MAX_DEPTH 128 /* more than any parser of protobuf lets through, see otlp/repair.py: DEEPEST */
#define KEY_CACHE 512 /* power of two */

PyObject *binary_type, *nonfinite_type, *reserved_keys, *escape_key;

static struct { uint8_t length; uint8_t bytes[KEY_LONGEST]; PyObject *text; } key_cache[KEY_CACHE];

static int malformed(const char *why)
{
    PyErr_Format(PyExc_ValueError, "not valid protobuf: %s", why);
    return -1;
}

static int read_varint(cursor *c, uint64_t *out)
{
    switch (scan_varint(c, out)) {
    case 0: return 0;
    case 1: return malformed("a number runs over the end");
    default: return malformed("a number is longer than ten bytes");
    }
}

static int read_span(cursor *c, cursor *inner)
{
    uint64_t length;
    if (read_varint(c, &length) < 0)
        return -1;
    if (length > (uint64_t)(c->end - c->at))
        return malformed("a length runs over the end");
    inner->at = c->at;
    inner->end = c->at + length;
    inner->depth = c->depth + 1;
    c->at += length;
    return inner->depth > MAX_DEPTH ? malformed("nested too deeply") : 0;
}

static int read_fixed(cursor *c, void *out, size_t size)
{
    if ((size_t)(c->end - c->at) < size)
        return malformed("a number runs over the end");
    memcpy(out, c->at, size); /* little-endian hosts only; checked when the module is built */
    c->at += size;
    return 0;
}

static int skip(cursor *c, uint64_t field, unsigned wire)
{
    uint64_t ignored, tag = 0;
    cursor inner;
    uint8_t sink[8];
    switch (wire) {
    case 0: return read_varint(c, &ignored);
    case 1: return read_fixed(c, sink, 8);
    case 2: return read_span(c, &inner);
    case 3: /* a group, which OTLP does not use: up to its end, with what is in it */
        if (++c->depth > MAX_DEPTH)
            return malformed("nested too deeply");
        for (;;) {
            if (read_varint(c, &tag) < 0)
                return -1;
            if ((tag & 7) == 4)
                break;
            if (skip(c, tag >> 3, tag & 7) < 0)
                return -1;
        }
        c->depth--;
        return tag >> 3 == field ? 0 : malformed("a group that ends as another one");
    case 5: return read_fixed(c, sink, 4);
    default: return malformed("a wire type that OTLP does not use");
    }
}

static PyObject *text(const cursor *c)
{
    return PyUnicode_DecodeUTF8((const char *)c->at, c->end - c->at, NULL);
}

/* Attribute names repeat endlessly: the same str object saves making it and hashing it. */
static PyObject *key_text(const cursor *c)
{
    size_t length = (size_t)(c->end - c->at);
    if (length > KEY_LONGEST)
        return text(c);
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ c->at[i]) * 16777619u;
    size_t slot = (hash ^ hash >> 16) & (KEY_CACHE - 1);
    if (key_cache[slot].text && key_cache[slot].length == length
        && memcmp(key_cache[slot].bytes, c->at, length) == 0) {
        Py_INCREF(key_cache[slot].text);
        return key_cache[slot].text;
    }
    PyObject *made = text(c);
    if (!made)
        return NULL;
    PyObject *old = key_cache[slot].text;
    memcpy(key_cache[slot].bytes, c->at, length);
    key_cache[slot].length = (uint8_t)length;
    Py_INCREF(made);
    key_cache[slot].text = made;
    Py_XDECREF(old);
    return made;
}

static PyObject *hex(const cursor *c)
{
    static const char digits[] = "0123456789abcdef";
    char small[64];
    size_t length = (size_t)(c->end - c->at);
    char *out = length <= 32 ? small : PyMem_Malloc(length * 2);
    if (!out)
        return PyErr_NoMemory();
    for (size_t i = 0; i < length; i++) {
        out[2 * i] = digits[c->at[i] >> 4];
        out[2 * i + 1] = digits[c->at[i] & 15];
    }
    PyObject *made = PyUnicode_FromStringAndSize(out, (Py_ssize_t)length * 2);
    if (out != small)
        PyMem_Free(out);
    return made;
}

PyObject *number(double value)
{
    PyObject *plain = PyFloat_FromDouble(value);
    if (!plain || value - value == 0.0)
        return plain;
    PyObject *made = PyObject_CallFunctionObjArgs(nonfinite_type, plain, NULL);
    Py_DECREF(plain);
    return made;
}

static PyObject *any_value(cursor *c);

/* One KeyValue into `into`; the last of equal keys wins. */
static int attribute(PyObject *into, cursor *c)
{
    PyObject *key = NULL, *value = NULL;
    while (c->at < c->end) {
        uint64_t tag;
        cursor inner;
        if (read_varint(c, &tag) < 0)
            goto fail;
        if (tag == 0x0a) {
            if (read_span(c, &inner) < 0)
                goto fail;
            Py_XDECREF(key);
            if (!(key = key_text(&inner)))
                goto fail;
        } else if (tag == 0x12) {
            if (read_span(c, &inner) < 0)
                goto fail;
            Py_XDECREF(value);
            if (!(value = any_value(&inner)))
                goto fail;
        } else if (skip(c, tag >> 3, (unsigned)(tag & 7)) < 0)
            goto fail;
    }
    if (!key && !(key = PyUnicode_FromStringAndSize("", 0)))
        goto fail;
    int done = PyDict_SetItem(into, key, value ? value : Py_None);
    Py_DECREF(key);
    Py_XDECREF(value);
    return done;
fail:
    Py_XDECREF(key);
    Py_XDECREF(value);
    return -1;
}

static PyObject *array_value(cursor *c)
{
    PyObject *list = PyList_New(0);
    while (list && c->at < c->end) {
        uint64_t tag;
        cursor inner;
        if (read_varint(c, &tag) < 0)
            goto fail;
        if (tag != 0x0a) {
            if (skip(c, tag >> 3, (unsigned)(tag & 7)) < 0)
                goto fail;
            continue;
        }
        PyObject *item = read_span(c, &inner) < 0 ? NULL : any_value(&inner);
        if (!item)
            goto fail;
        int done = PyList_Append(list, item);
        Py_DECREF(item);
        if (done < 0)
            goto fail;
    }
    return list;
fail:
    Py_DECREF(list);
    return NULL;
}

static PyObject *kvlist_value(cursor *c)
{
    PyObject *map = PyDict_New();
    while (map && c->at < c->end) {
        uint64_t tag;
        cursor inner;
        if (read_varint(c, &tag) < 0)
            goto fail;
        if (tag != 0x0a) {
            if (skip(c, tag >> 3, (unsigned)(tag & 7)) < 0)
                goto fail;
            continue;
        }
        if (read_span(c, &inner) < 0 || attribute(map, &inner) < 0)
            goto fail;
    }
    if (!map)
        return NULL;
    PyObject *free_of = PyObject_CallMethod(reserved_keys, "isdisjoint", "O", map);
    if (!free_of)
        goto fail;
    Py_DECREF(free_of);
    if (free_of == Py_True)
        return map;
    PyObject *wrapped = PyDict_New();
    if (!wrapped || PyDict_SetItem(wrapped, escape_key, map) < 0) {
        Py_XDECREF(wrapped);
        goto fail;
    }
    Py_DECREF(map);
    return wrapped;
fail:
    Py_DECREF(map);
    return NULL;
}

static PyObject *any_value(cursor *c)
{
    PyObject *value = NULL;
    while (c->at < c->end) {
        uint64_t tag, bits;
        double real;
        cursor inner;
        PyObject *made;
        if (read_varint(c, &tag) < 0)
            goto fail;
        switch (tag) {
        case 0x0a:
            made = read_span(c, &inner) < 0 ? NULL : text(&inner);
            break;
        case 0x10:
            made = read_varint(c, &bits) < 0 ? NULL : PyBool_FromLong(bits != 0);
            break;
        case 0x18:
            made = read_varint(c, &bits) < 0 ? NULL : PyLong_FromLongLong((int64_t)bits);
            break;
        case 0x21:
            made = read_fixed(c, &real, 8) < 0 ? NULL : number(real);
            break;
        case 0x2a:
            made = read_span(c, &inner) < 0 ? NULL : array_value(&inner);
            break;
        case 0x32:
            made = read_span(c, &inner) < 0 ? NULL : kvlist_value(&inner);
            break;
        case 0x3a:
            made = read_span(c, &inner) < 0 ? NULL
                : PyObject_CallFunction(binary_type, "y#", inner.at, (Py_ssize_t)(inner.end - inner.at));
            break;
        default:
            if (skip(c, tag >> 3, (unsigned)(tag & 7)) < 0)
                goto fail;
            continue;
        }
        if (!made)
            goto fail;
        Py_XDECREF(value);
        value = made;
    }
    return value ? value : Py_NewRef(Py_None);
fail:
    Py_XDECREF(value);
    return NULL;
}

static int decode_into(PyObject *into, const schema *s, cursor *c);

/* One scalar off the wire. `is_default` tells proto3's implicit absence. */
static PyObject *scalar(const struct field *f, cursor *c, int *is_default)
{
    uint64_t bits = 0;
    uint32_t half;
    double real;
    cursor inner;
    switch (f->kind) {
    case FIXED64: case SFIXED64:
        if (read_fixed(c, &bits, 8) < 0)
            return NULL;
        *is_default = bits == 0;
        return f->kind == FIXED64 ? PyLong_FromUnsignedLongLong(bits) : PyLong_FromLongLong((int64_t)bits);
    case FIXED32:
        if (read_fixed(c, &half, 4) < 0)
            return NULL;
        *is_default = half == 0;
        return PyLong_FromUnsignedLong(half);
    case DOUBLE:
        if (read_fixed(c, &real, 8) < 0)
            return NULL;
        memcpy(&bits, &real, 8);
        *is_default = bits == 0;
        return number(real);
    case STRING: case HEX:
        if (read_span(c, &inner) < 0)
            return NULL;
        *is_default = inner.at == inner.end;
        return f->kind == STRING ? text(&inner) : hex(&inner);
    case ANY:
        *is_default = 0;
        return read_span(c, &inner) < 0 ? NULL : any_value(&inner);
    }
    if (read_varint(c, &bits) < 0)
        return NULL;
    if (f->kind == UINT32 || f->kind == SINT32)
        bits &= 0xFFFFFFFF;
    *is_default = bits == 0;
    switch (f->kind) {
    case INT: return PyLong_FromLongLong((int64_t)bits);
    case SINT: case SINT32: return PyLong_FromLongLong((int64_t)(bits >> 1) ^ -(int64_t)(bits & 1));
    case BOOLEAN: return PyBool_FromLong(bits != 0);
    case ENUM: {
        long long code = (int32_t)bits;
        *is_default = code == 0;
        if (!f->words)
            return PyLong_FromLongLong(code);
        if (code >= 0 && code < PyTuple_Size(f->words))
            return Py_NewRef(PyTuple_GetItem(f->words, (Py_ssize_t)code));
        return PyUnicode_FromFormat("%lld", code);
    }
    default: return PyLong_FromUnsignedLongLong(bits);
    }
}

/* The container that collects a repeated or merged field, made when it is first needed. */
static PyObject *container(PyObject *into, PyObject *key, int list)
{
    PyObject *found = PyDict_GetItemWithError(into, key); /* borrowed */
    if (found || PyErr_Occurred())
        return found;
    PyObject *made = list ? PyList_New(0) : PyDict_New();
    if (!made)
        return NULL;
    int done = PyDict_SetItem(into, key, made);
    Py_DECREF(made);
    return done < 0 ? NULL : made;
}

static int one_field(PyObject *into, const struct field *f, unsigned wire, cursor *c)
{
    cursor inner;
    PyObject *place;
    int is_default;
    if (f->kind == ATTRIBUTES || f->kind == MESSAGE) {
        if (read_span(c, &inner) < 0 || !(place = container(into, f->key, f->repeated && f->kind == MESSAGE)))
            return -1;
        if (f->kind == ATTRIBUTES)
            return attribute(place, &inner);
        if (!f->repeated)
            return decode_into(place, f->sub, &inner);
        PyObject *item = PyDict_New();
        int done = !item || decode_into(item, f->sub, &inner) < 0 || PyList_Append(place, item) < 0 ? -1 : 0;
        Py_XDECREF(item);
        return done;
    }
    if (!f->repeated) {
        PyObject *value = scalar(f, c, &is_default);
        if (!value)
            return -1;
        int done = 0;
        if (!is_default || f->presence)
            done = PyDict_SetItem(into, f->key, value);
        else if (PyDict_GetItemWithError(into, f->key)) /* an explicit default undoes an earlier value */
            done = PyDict_DelItem(into, f->key);
        else if (PyErr_Occurred())
            done = -1;
        Py_DECREF(value);
        return done;
    }
    int packed = wire != wire_of[f->kind];
    if (packed && (read_span(c, &inner) < 0 || inner.at == inner.end))
        return PyErr_Occurred() ? -1 : 0;
    if (!(place = container(into, f->key, 1)))
        return -1;
    cursor *source = packed ? &inner : c;
    while (!packed || source->at < source->end) {
        PyObject *value = scalar(f, source, &is_default);
        if (!value)
            return -1;
        int done = PyList_Append(place, value);
        Py_DECREF(value);
        if (done < 0)
            return -1;
        if (!packed)
            break;
    }
    return 0;
}

static int decode_into(PyObject *into, const schema *s, cursor *c)
{
    while (c->at < c->end) {
        uint64_t tag;
        if (read_varint(c, &tag) < 0)
            return -1;
        uint64_t field = tag >> 3;
        unsigned wire = tag & 7;
        if (field == 0)
            return malformed("field number 0");
        const struct field *f = field < MAX_FIELD ? &s->fields[field] : NULL;
        /* A field whose wire type is another one is an unknown field, as for every parser. */
        if (!f || !f->key || (wire != wire_of[f->kind] && !(wire == 2 && f->repeated))) {
            if (skip(c, field, wire) < 0)
                return -1;
        } else if (one_field(into, f, wire, c) < 0)
            return -1;
    }
    return 0;
}

static void schema_free(PyObject *capsule)
{
    schema *s = PyCapsule_GetPointer(capsule, "schema");
    for (int i = 0; s && i < MAX_FIELD; i++) {
        Py_XDECREF(s->fields[i].key);
        Py_XDECREF(s->fields[i].words);
        PyMem_Free(s->fields[i].spelled);
        Py_XDECREF(s->fields[i].holder);
    }
    PyMem_Free(s);
}

const char schema_doc[] = PyDoc_STR("schema(fields)\n--\n\n"
"A message type: a list of (number, key, kind, repeated, presence, extra); extra is the schema of\n"
"a MESSAGE, the tuple of words of an ENUM, or None.");

/* The words of an enum as they are in memory; the tuple keeps them. */
static int spell(struct field *f, PyObject *words)
{
    if (!PyTuple_CheckExact(words)) {
        PyErr_SetString(PyExc_TypeError, "words are a tuple");
        return -1;
    }
    Py_ssize_t many = PyTuple_Size(words);
    if (!(f->spelled = PyMem_Calloc((size_t)many + 1, sizeof *f->spelled))) {
        PyErr_NoMemory();
        return -1;
    }
    f->words = Py_NewRef(words);
    for (; f->many_words < many; f->many_words++) {
        struct word *w = &f->spelled[f->many_words];
        if (!(w->text = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(words, f->many_words), &w->size)))
            return -1;
    }
    return 0;
}

PyObject *py_schema(PyObject *self, PyObject *fields)
{
    schema *s = PyMem_Calloc(1, sizeof(schema));
    if (!s)
        return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(s, "schema", schema_free);
    if (!capsule) {
        PyMem_Free(s);
        return NULL;
    }
    Py_ssize_t size = PyList_Size(fields);
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned at, kind;
        int repeated, presence;
        PyObject *key, *extra;
        if (!PyArg_ParseTuple(PyList_GetItem(fields, i), "IUIppO", &at, &key, &kind, &repeated, &presence, &extra))
            goto fail;
        if (at >= MAX_FIELD || kind >= KINDS) {
            PyErr_SetString(PyExc_ValueError, "field number or kind out of range");
            goto fail;
        }
        struct field *f = &s->fields[at];
        if (f->key) {
            PyErr_SetString(PyExc_ValueError, "a field number that came before");
            goto fail;
        }
        if (!(f->name = PyUnicode_AsUTF8AndSize(key, &f->name_size)))
            goto fail;
        f->kind = (uint8_t)kind;
        f->repeated = (uint8_t)repeated;
        f->presence = (uint8_t)presence;
        f->key = Py_NewRef(key);
        if (kind == MESSAGE) {
            if (!(f->sub = PyCapsule_GetPointer(extra, "schema")))
                goto fail;
            f->holder = Py_NewRef(extra);
        } else if (extra != Py_None && spell(f, extra) < 0)
            goto fail;
    }
    if (size >= 0)
        return capsule;
fail:
    Py_DECREF(capsule);
    return NULL;
}

const char decode_doc[] = PyDoc_STR("decode(schema, data)\n--\n\n"
"The message in `data` as a dict of the fields that are present.\n\n"
"Raises ValueError (UnicodeDecodeError for text) when data is no such message.");

PyObject *py_decode(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    const char *data;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "Oy#", &capsule, &data, &length))
        return NULL;
    schema *s = PyCapsule_GetPointer(capsule, "schema");
    PyObject *into = s ? PyDict_New() : NULL;
    if (!into)
        return NULL;
    cursor c = {(const uint8_t *)data, (const uint8_t *)data + length, 0};
    if (decode_into(into, s, &c) == 0)
        return into;
    Py_DECREF(into);
    return NULL;
}

const char setup_doc[] = PyDoc_STR("setup(binary, nonfinite, reserved)\n--\n\n"
"The types of bytes and non-finite floats, and the keys that make a map need an escape.");

void replace(PyObject **place, PyObject *with)
{
    PyObject *old = *place;
    *place = Py_NewRef(with);
    Py_XDECREF(old);
}

PyObject *py_setup(PyObject *self, PyObject *args)
{
    PyObject *binary, *nonfinite, *reserved;
    if (!PyArg_ParseTuple(args, "OOO", &binary, &nonfinite, &reserved))
        return NULL;
    replace(&binary_type, binary);
    replace(&nonfinite_type, nonfinite);
    replace(&reserved_keys, reserved);
    Py_RETURN_NONE;
}
