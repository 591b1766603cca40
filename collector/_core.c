/*
 * The hot path: protobuf bytes of an OTLP request -> plain Python dicts, by a schema.
 *
 * What: decode(schema, data) walks the wire once and makes the dicts that documents.py finishes.
 * How: a Schema is an array of fields by number, built from the message descriptors by
 * collector/documents/schema.py, so no name of OTLP is written down here. Attribute lists become dicts and
 * AnyValues become their values on the way, which is where a generic decoder spends its time.
 * Why C: measured beside the walk over protobuf messages in Python (tests/benchmarks), this is the
 * step that bounds a collector. Without a compiler collector/documents/schema.py does the same in Python;
 * one property test holds the two together.
 *
 * survey(shapes, root, metrics, data, groups, items, elements) walks the same way and makes nothing:
 * it counts what a parser would have to make. Its twin is in collector/otlp/sizing.py.
 *
 * span_rows in _core_spans.h walks by the same schemas and writes rows of SQLite, without dicts.
 *
 * Any bytes are safe: lengths are checked against the end of their message, depth is bounded, and
 * what is not valid protobuf raises ValueError. Merging follows the protobuf encoding guide:
 * the last scalar wins, repeated fields collect, a message that comes twice is merged.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum kind {
    UINT, INT, SINT, BOOLEAN, ENUM, FIXED64, SFIXED64, FIXED32, DOUBLE,
    STRING, HEX, MESSAGE, ATTRIBUTES, ANY, UINT32, SINT32, KINDS
};

static const uint8_t wire_of[KINDS] = {
    [FIXED64] = 1, [SFIXED64] = 1, [DOUBLE] = 1, [FIXED32] = 5, [STRING] = 2, [HEX] = 2,
    [MESSAGE] = 2, [ATTRIBUTES] = 2, [ANY] = 2,
}; /* the others are varints: 0 */

#define MAX_FIELD 64
#define MAX_DEPTH 128 /* more than any parser of protobuf lets through, see _otlp_wire.DEEPEST */
#define KEY_CACHE 512 /* power of two */
#define KEY_LONGEST 48

typedef struct schema {
    struct field {
        PyObject *key;      /* NULL: unknown field, skipped */
        PyObject *words;    /* ENUM: tuple of str, or NULL for plain ints */
        const char *name;   /* the key, and below the words, for who has no GIL */
        Py_ssize_t name_size;
        struct word { const char *text; Py_ssize_t size; } *spelled;
        int many_words;
        PyObject *holder;   /* MESSAGE: the capsule that owns `sub` */
        struct schema *sub;
        uint8_t kind, repeated, presence;
    } fields[MAX_FIELD];
} schema;

typedef struct {
    const uint8_t *at, *end;
    int depth;
} cursor;

static PyObject *binary_type, *nonfinite_type, *reserved_keys, *escape_key;
static struct { uint8_t length; uint8_t bytes[KEY_LONGEST]; PyObject *text; } key_cache[KEY_CACHE];

static int malformed(const char *why)
{
    PyErr_Format(PyExc_ValueError, "not valid protobuf: %s", why);
    return -1;
}

/* 0, 1: it runs over the end, 2: it is too long */
static int scan_varint(cursor *c, uint64_t *out)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (c->at >= c->end)
            return 1;
        uint8_t byte = *c->at++;
        value |= (uint64_t)(byte & 127) << (shift < 64 ? shift : 63);
        if (byte < 128) {
            *out = value;
            return 0;
        }
    }
    return 2;
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

static PyObject *number(double value)
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

PyDoc_STRVAR(schema_doc, "schema(fields)\n--\n\n"
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

static PyObject *py_schema(PyObject *self, PyObject *fields)
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

PyDoc_STRVAR(decode_doc, "decode(schema, data)\n--\n\n"
"The message in `data` as a dict of the fields that are present.\n\n"
"Raises ValueError (UnicodeDecodeError for text) when data is no such message.");

static PyObject *py_decode(PyObject *self, PyObject *args)
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

PyDoc_STRVAR(setup_doc, "setup(binary, nonfinite, reserved)\n--\n\n"
"The types of bytes and non-finite floats, and the keys that make a map need an escape.");

static void replace(PyObject **place, PyObject *with)
{
    PyObject *old = *place;
    *place = Py_NewRef(with);
    Py_XDECREF(old);
}

static PyObject *py_setup(PyObject *self, PyObject *args)
{
    PyObject *binary, *nonfinite, *reserved;
    if (!PyArg_ParseTuple(args, "OOO", &binary, &nonfinite, &reserved))
        return NULL;
    replace(&binary_type, binary);
    replace(&nonfinite_type, nonfinite);
    replace(&reserved_keys, reserved);
    Py_RETURN_NONE;
}

/* --- survey --- */

#define MAX_TYPES 64
#define SURVEY_DEPTH 100 /* as _otlp_survey.DEEPEST */

enum role { PLAIN, KEY_VALUE, ANY_VALUE };
enum { GOES_ON, BROKEN, OVER, ODD }; /* ODD: left to the Python twin */
enum { RESOURCES, SCOPES, ITEMS, POINTS, ELEMENTS, FIELDS, LARGEST, ATTRIBUTES_OF_ONE, KEY, VALUE, COUNTS };
enum { REQUEST, GROUP, SCOPE, METRIC, DATA, INSIDE }; /* where in the tree a message is */

typedef struct {
    struct { uint8_t role, child[MAX_FIELD]; } types[MAX_TYPES]; /* child: number of its type + 1 */
} shapes;

typedef struct {
    const shapes *shapes;
    int metrics;
    unsigned long long groups, items, elements; /* limits */
    uint64_t found[COUNTS];
} tally;

static void at_least(uint64_t *place, uint64_t value)
{
    if (value > *place)
        *place = value;
}

/* Count a message that stands in another one, and say where in the tree it is. */
static int count(tally *t, int level, uint64_t field, uint64_t size, int *place)
{
    *place = INSIDE;
    if (++t->found[ELEMENTS] > t->elements)
        return OVER;
    if (level == REQUEST && field == 1) {
        *place = GROUP;
        return ++t->found[RESOURCES] > t->groups ? OVER : GOES_ON;
    }
    if (level == GROUP && field == 2) {
        *place = SCOPE;
        return ++t->found[SCOPES] > t->groups ? OVER : GOES_ON;
    }
    if (level == SCOPE && field == 2) {
        if (t->metrics)
            *place = METRIC;
        else
            at_least(&t->found[LARGEST], size);
        return ++t->found[ITEMS] > t->items ? OVER : GOES_ON;
    }
    if (level == METRIC && (field == 5 || field == 7 || (field >= 9 && field <= 11)))
        *place = DATA;
    else if (level == DATA && field == 1) {
        at_least(&t->found[LARGEST], size);
        return ++t->found[POINTS] > t->items ? OVER : GOES_ON;
    } else if (level == GROUP || level == SCOPE)
        at_least(&t->found[LARGEST], size);
    return GOES_ON;
}

static int walk(tally *t, int type, int level, cursor c)
{
    const uint8_t *child = t->shapes->types[type].child;
    int role = t->shapes->types[type].role;
    uint64_t attributes = 0;
    while (c.at < c.end) {
        uint64_t tag, size = 0;
        if (scan_varint(&c, &tag) || tag < 8 || tag > 0xFFFFFFFF)
            return BROKEN;
        unsigned wire = tag & 7;
        uint64_t field = tag >> 3;
        if (wire == 0) {
            if (scan_varint(&c, &size))
                return BROKEN;
        } else {
            if (wire == 2 ? scan_varint(&c, &size) : wire != 1 && wire != 5)
                return wire == 2 ? BROKEN : ODD;
            if (wire != 2)
                size = wire == 1 ? 8 : 4;
            if (size > (uint64_t)(c.end - c.at))
                return BROKEN;
            c.at += size;
        }
        int below = wire == 2 && field < MAX_FIELD ? child[field] : 0;
        if (!below) {
            if (++t->found[FIELDS] > 4 * t->elements)
                return OVER;
            if (wire == 2 && role == KEY_VALUE && field == 1)
                at_least(&t->found[KEY], size);
            else if (wire == 2 && role == ANY_VALUE && (field == 1 || field == 7))
                at_least(&t->found[VALUE], size);
            else if (wire == 2 && level != INSIDE)
                at_least(&t->found[LARGEST], size);
            continue;
        }
        int place, done = count(t, level, field, size, &place);
        if (done != GOES_ON)
            return done;
        if (t->shapes->types[below - 1].role == KEY_VALUE)
            at_least(&t->found[ATTRIBUTES_OF_ONE], ++attributes);
        if (c.depth == SURVEY_DEPTH)
            continue; /* no parser goes there */
        done = walk(t, below - 1, place, (cursor){c.at - size, c.at, c.depth + 1});
        /* What is broken inside of an item is judged with that item: the frame is whole. */
        if (done == BROKEN && level <= SCOPE && place != GROUP && place != SCOPE)
            continue;
        if (done != GOES_ON)
            return done;
    }
    return GOES_ON;
}

PyDoc_STRVAR(shapes_doc, "shapes(types)\n--\n\n"
"Message types for `survey`: a list of (role, children); a child is (field number, place of its type).");

static void shapes_free(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, "shapes"));
}

static PyObject *py_shapes(PyObject *self, PyObject *types)
{
    shapes *s = PyMem_Calloc(1, sizeof(shapes));
    if (!s)
        return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(s, "shapes", shapes_free);
    if (!capsule) {
        PyMem_Free(s);
        return NULL;
    }
    Py_ssize_t size = PyList_Size(types);
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned role, field, type;
        PyObject *children;
        if (i >= MAX_TYPES || !PyArg_ParseTuple(PyList_GetItem(types, i), "IO", &role, &children))
            goto fail;
        s->types[i].role = (uint8_t)role;
        Py_ssize_t many = PyList_Size(children);
        for (Py_ssize_t j = 0; j < many; j++) {
            if (!PyArg_ParseTuple(PyList_GetItem(children, j), "II", &field, &type))
                goto fail;
            if (field >= MAX_FIELD || type >= (unsigned)size)
                goto fail;
            s->types[i].child[field] = (uint8_t)(type + 1);
        }
    }
    if (!PyErr_Occurred())
        return capsule;
fail:
    Py_DECREF(capsule);
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "too many types, or a number out of range");
    return NULL;
}

PyDoc_STRVAR(survey_doc, "survey(shapes, root, metrics, data, groups, items, elements)\n--\n\n"
"What a request would be in memory, as a tuple of counts; it stops at the first one over its limit.\n"
"None when the frame is broken or holds what only the twin in Python judges.");

static PyObject *py_survey(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    const char *data;
    Py_ssize_t length;
    unsigned root;
    tally t = {0};
    if (!PyArg_ParseTuple(args, "OIpy#KKK", &capsule, &root, &t.metrics, &data, &length,
                          &t.groups, &t.items, &t.elements))
        return NULL;
    if (!(t.shapes = PyCapsule_GetPointer(capsule, "shapes")))
        return NULL;
    if (root >= MAX_TYPES) {
        PyErr_SetString(PyExc_ValueError, "no such type");
        return NULL;
    }
    /* Bytes do not change: others may run, when it is worth the change. */
    PyThreadState *others = length > 1 << 18 ? PyEval_SaveThread() : NULL;
    int done = walk(&t, (int)root, REQUEST,
                    (cursor){(const uint8_t *)data, (const uint8_t *)data + length, 0});
    if (others)
        PyEval_RestoreThread(others);
    if (done == BROKEN || done == ODD)
        Py_RETURN_NONE;
    PyObject *made = PyTuple_New(COUNTS);
    for (int i = 0; made && i < COUNTS; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(t.found[i]);
        if (!number || PyTuple_SetItem(made, i, number) < 0) {
            Py_DECREF(made);
            return NULL;
        }
    }
    return made;
}

#include "_core_bson.h"
#include "_core_rows.h"
#include "_core_finish.h"
#include "_core_text.h"
#include "_core_json.h"
#include "_core_direct.h"
#include "_core_spans.h"

static PyMethodDef methods[] = {
    {"span_rows", py_span_rows, METH_VARARGS, span_rows_doc},
    {"direct_setup", py_direct_setup, METH_VARARGS, direct_setup_doc},
    {"row", py_row, METH_VARARGS, row_doc},
    {"row_setup", py_row_setup, METH_VARARGS, row_setup_doc},
    {"finish_spans", py_finish_spans, METH_VARARGS, finish_spans_doc},
    {"finish_logs", py_finish_logs, METH_VARARGS, finish_logs_doc},
    {"finish_setup", py_finish_setup, METH_VARARGS, finish_setup_doc},
    {"bson", py_bson, METH_VARARGS, bson_doc},
    {"bson_setup", py_bson_setup, METH_VARARGS, bson_setup_doc},
    {"shapes", py_shapes, METH_O, shapes_doc},
    {"survey", py_survey, METH_VARARGS, survey_doc},
    {"schema", py_schema, METH_O, schema_doc},
    {"decode", py_decode, METH_VARARGS, decode_doc},
    {"setup", py_setup, METH_VARARGS, setup_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "collector._core", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    if (!(escape_key = PyUnicode_InternFromString("$escape")))
        return NULL;
    return PyModule_Create(&module);
}
