/*
 * Documents -> BSON: what collector/stores/mongodb/bson.py does, for the documents that there are.
 *
 * What: bson(document, pieces, memo) writes one document straight into its bytes: names with dots
 * nest, times are 64 bits, resource and scope are copied from `pieces` after the first time.
 * How: a field that is not usual (a name with `$`, a map among the attributes, a number beyond 64
 * bits, a date of another century) is given to Python alone, which answers with the bytes of that
 * field. So each rule for the unusual exists once, in Python, and the bytes are equal by test.
 * Why C: pymongo's encoder asks for the nested dicts first; making those took most of the time that
 * a collector spent on a document.
 *
 * Dicts may be anything: every type is looked at, depth and size are bounded.
 */
#include "core.h"

enum bson_role { AS_IT_IS, NESTED, SHARED, LIST_OF_FIELDS, TIME, IDENTITY };

#define BSON_LARGEST (64 << 20) /* far above what MongoDB takes; Python says so */
#define BSON_DEEPEST 48         /* as stores/mongodb/bson.py: _MAX_DEPTH */
#define MOST_SEGMENTS 24        /* as stores/mongodb/bson.py: _MAX_SEGMENTS */
#define MOST_NODES 256
#define FIELDS_KNOWN 256 /* power of two */

static PyObject *bson_other, *bson_roles, *datetime_type, *id_key;

PyObject *utc;

typedef struct {
    char *bytes;
    size_t length, room;
} buffer;

static int reserve(buffer *b, size_t more)
{
    if (more > BSON_LARGEST - b->length) /* length never exceeds it */
        return UNUSUAL;
    if (b->length + more > b->room) {
        size_t room = b->room * 2 > b->length + more ? b->room * 2 : b->length + more;
        char *bytes = PyMem_Realloc(b->bytes, room);
        if (!bytes) {
            PyErr_NoMemory();
            return -1;
        }
        b->bytes = bytes;
        b->room = room;
    }
    return DONE;
}

static int put(buffer *b, const void *bytes, size_t length)
{
    int done = reserve(b, length);
    if (done == DONE) {
        memcpy(b->bytes + b->length, bytes, length);
        b->length += length;
    }
    return done;
}

/* Type and name of an element; the name has no zero in it. */
static int put_name(buffer *b, char type, const char *name, size_t length)
{
    int done = length > BSON_LARGEST ? UNUSUAL : reserve(b, length + 2);
    if (done == DONE) {
        char *at = b->bytes + b->length;
        at[0] = type;
        memcpy(at + 1, name, length);
        at[length + 1] = 0;
        b->length += length + 2;
    }
    return done;
}

static int put_int(buffer *b, uint64_t value, int size)
{
    return put(b, &value, (size_t)size); /* little-endian hosts only */
}

/* The length of a document that began at `from`, when it is complete. */
static int close_document(buffer *b, size_t from)
{
    int done = put(b, "", 1);
    if (done == DONE) {
        uint32_t length = (uint32_t)(b->length - from);
        memcpy(b->bytes + from, &length, 4);
    }
    return done;
}

static int open_document(buffer *b, char type, const char *name, size_t length, size_t *from)
{
    int done = put_name(b, type, name, length);
    *from = b->length;
    return done == DONE ? put_int(b, 0, 4) : done;
}

/* The UTF-8 of a name; UNUSUAL when it is no text or has a zero in it. */
static int name_of(PyObject *key, const char **name, size_t *length)
{
    Py_ssize_t size;
    if (!PyUnicode_CheckExact(key))
        return UNUSUAL;
    if (!(*name = PyUnicode_AsUTF8AndSize(key, &size)))
        return -1;
    *length = (size_t)size;
    return memchr(*name, 0, *length) ? UNUSUAL : DONE;
}

static int put_text(buffer *b, const char *name, size_t length, PyObject *value)
{
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (!text)
        return -1;
    if (size >= BSON_LARGEST)
        return UNUSUAL;
    int done = put_name(b, 2, name, length);
    if (done == DONE)
        done = put_int(b, (uint64_t)size + 1, 4);
    return done == DONE ? put(b, text, (size_t)size + 1) : done; /* with the zero behind it */
}

static int put_binary(buffer *b, const char *name, size_t length, PyObject *value)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &bytes, &size) < 0)
        return -1;
    if (size >= BSON_LARGEST)
        return UNUSUAL;
    int done = put_name(b, 5, name, length);
    if (done == DONE)
        done = put_int(b, (uint64_t)size, 5); /* length, then subtype 0 */
    return done == DONE ? put(b, bytes, (size_t)size) : done;
}

/* A value that is no list and no map. */
static int put_scalar(buffer *b, const char *name, size_t length, PyObject *value)
{
    int done;
    if (PyUnicode_CheckExact(value))
        return put_text(b, name, length, value);
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow)
            return UNUSUAL;
        if (number == -1 && PyErr_Occurred())
            return -1;
        int size = number >= INT32_MIN && number <= INT32_MAX ? 4 : 8;
        done = put_name(b, size == 4 ? 16 : 18, name, length);
        return done == DONE ? put_int(b, (uint64_t)number, size) : done;
    }
    if (PyFloat_CheckExact(value) || (PyObject *)Py_TYPE(value) == nonfinite_type) {
        double real = PyFloat_AsDouble(value);
        done = put_name(b, 1, name, length);
        return done == DONE ? put(b, &real, 8) : done;
    }
    if (value == Py_True || value == Py_False) {
        done = put_name(b, 8, name, length);
        return done == DONE ? put_int(b, value == Py_True, 1) : done;
    }
    if (value == Py_None)
        return put_name(b, 10, name, length);
    if ((PyObject *)Py_TYPE(value) == binary_type)
        return put_binary(b, name, length, value);
    return UNUSUAL;
}

/* A list; what stands in it is written by `put_item` at the depth behind its own. */
static int put_list(buffer *b, const char *name, size_t length, PyObject *list, int depth,
                    int (*put_item)(buffer *, const char *, size_t, PyObject *, int))
{
    size_t from;
    int done = open_document(b, 4, name, length, &from);
    for (Py_ssize_t i = 0; done == DONE && i < PyList_Size(list); i++) {
        char digits[24];
        int size = snprintf(digits, sizeof digits, "%zd", i);
        done = put_item(b, digits, (size_t)size, PyList_GetItem(list, i), depth + 1);
    }
    return done == DONE ? close_document(b, from) : done;
}

static int put_scalar_item(buffer *b, const char *name, size_t length, PyObject *value, int depth)
{
    (void)depth;
    return put_scalar(b, name, length, value);
}

/* Any value as it is. */
static int put_value(buffer *b, const char *name, size_t length, PyObject *value, int depth)
{
    if (depth > BSON_DEEPEST)
        return UNUSUAL;
    if (PyList_CheckExact(value))
        return put_list(b, name, length, value, depth, put_value);
    if (!PyDict_CheckExact(value))
        return put_scalar(b, name, length, value);
    size_t from, inner_length;
    int done = open_document(b, 3, name, length, &from);
    PyObject *key, *inner;
    Py_ssize_t at = 0;
    while (done == DONE && PyDict_Next(value, &at, &key, &inner)) {
        const char *inner_name;
        done = name_of(key, &inner_name, &inner_length);
        if (done == DONE && inner_name[0] == '$')
            done = UNUSUAL;
        if (done == DONE)
            done = put_value(b, inner_name, inner_length, inner, depth + 1);
    }
    return done == DONE ? close_document(b, from) : done;
}

/* --- attributes --- */

struct node {
    const char *name;
    size_t length;
    PyObject *value; /* NULL: a map that comes from dots */
    int child, last, next; /* 0: none */
};

typedef struct {
    struct node nodes[MOST_NODES]; /* the first one is the root */
    int used;
} tree;

static int add_node(tree *t, int parent, const char *name, size_t length, PyObject *value)
{
    if (t->used == MOST_NODES)
        return 0;
    int made = t->used++;
    t->nodes[made] = (struct node){name, length, value, 0, 0, 0};
    if (t->nodes[parent].last)
        t->nodes[t->nodes[parent].last].next = made;
    else
        t->nodes[parent].child = made;
    t->nodes[parent].last = made;
    return made;
}

static int find_node(const tree *t, int parent, const char *name, size_t length)
{
    int at = t->nodes[parent].child;
    while (at && (t->nodes[at].length != length || memcmp(t->nodes[at].name, name, length)))
        at = t->nodes[at].next;
    return at;
}

/* Put an attribute where its name nests to, by the rules of stores/mongodb/bson.py: path and _nested. */
static int plant(tree *t, const char *name, size_t length, PyObject *value)
{
    int parent = 0, segments = 0;
    const char *end = name + length, *from = name;
    for (;;) {
        const char *at = from;
        int only_underscores = 1;
        if (from < end && *from == '$')
            return UNUSUAL;
        for (; at < end && *at != '.'; at++) {
            /* The lead bytes of U+2400, U+FF04 and U+FF0E stand for others, too. */
            if (*at == 0 || (unsigned char)*at == 0xE2 || (unsigned char)*at == 0xEF)
                return UNUSUAL;
            only_underscores &= *at == '_';
        }
        if (only_underscores || ++segments > MOST_SEGMENTS)
            return UNUSUAL;
        size_t size = (size_t)(at - from);
        int found = find_node(t, parent, from, size);
        if (at == end)
            return !found && add_node(t, parent, from, size, value) ? DONE : UNUSUAL;
        if (found && t->nodes[found].value)
            return UNUSUAL;
        if (!found && !(found = add_node(t, parent, from, size, NULL)))
            return UNUSUAL;
        parent = found;
        from = at + 1;
    }
}

static int put_tree(buffer *b, const tree *t, int parent, const char *name, size_t length)
{
    size_t from;
    int done = open_document(b, 3, name, length, &from);
    for (int at = t->nodes[parent].child; done == DONE && at; at = t->nodes[at].next) {
        const struct node *n = &t->nodes[at];
        if (!n->value)
            done = put_tree(b, t, at, n->name, n->length);
        else if (PyList_CheckExact(n->value))
            done = put_list(b, n->name, n->length, n->value, 0, put_scalar_item);
        else
            done = put_scalar(b, n->name, n->length, n->value);
    }
    return done == DONE ? close_document(b, from) : done;
}

static int put_nested(buffer *b, const char *name, size_t length, PyObject *values)
{
    tree t;
    PyObject *key, *value;
    Py_ssize_t at = 0;
    t.nodes[0] = (struct node){"", 0, NULL, 0, 0, 0};
    t.used = 1;
    while (PyDict_Next(values, &at, &key, &value)) {
        const char *text;
        Py_ssize_t size;
        if (!PyUnicode_CheckExact(key))
            return UNUSUAL;
        if (!(text = PyUnicode_AsUTF8AndSize(key, &size)))
            return -1;
        int done = plant(&t, text, (size_t)size, value);
        if (done != DONE)
            return done;
    }
    return put_tree(b, &t, 0, name, length);
}

/* --- fields --- */

/* Names of fields are the same few objects: what is known of them is kept, by identity. */
struct known {
    PyObject *key;
    const char *name;
    size_t length;
    int role;
    PyObject *nanos; /* of a date: the name of its nanoseconds, borrowed from `bson_roles` */
};

static struct known known_fields[FIELDS_KNOWN];

/* Names of documents are words; those that end in _raw belong to stores/mongodb/bson.py:  */
static int is_ours(const char *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((name[i] < 'a' || name[i] > 'z') && name[i] != '_')
            return 0;
    return length < 4 || memcmp(name + length - 4, "_raw", 4) != 0;
}

static int know(PyObject *key, struct known *found)
{
    struct known *slot = &known_fields[((uintptr_t)key >> 4 ^ (uintptr_t)key >> 12) % FIELDS_KNOWN];
    if (slot->key == key) {
        *found = *slot;
        return DONE;
    }
    int done = name_of(key, &found->name, &found->length);
    if (done != DONE)
        return done == UNUSUAL ? LEAVE : done;
    if (!is_ours(found->name, found->length))
        return LEAVE;
    PyObject *word = PyDict_GetItemWithError(bson_roles, key); /* borrowed */
    if (!word && PyErr_Occurred())
        return -1;
    found->key = key;
    found->nanos = word && PyUnicode_Check(word) ? word : NULL;
    found->role = word && !found->nanos ? (int)PyLong_AsLong(word) : AS_IT_IS;
    if (found->role == -1 && PyErr_Occurred())
        return -1;
    PyObject *old = slot->key;
    Py_INCREF(key);
    *slot = *found;
    Py_XDECREF(old);
    return DONE;
}

/*
 * A date in milliseconds. The date of an item is that of its nanoseconds, as on the way back. Any other
 * one (`received_at`, shared by a batch) is asked; the double of a date within 2^32 seconds has its
 * microseconds.
 */
static int put_date(buffer *b, const struct known *f, PyObject *value, PyObject *nanos)
{
    static PyObject *last; /* held, so that no other date can be at its place */
    static uint64_t last_ms;
    uint64_t ms;
    if (nanos) {
        int overflow = 1;
        long long number = PyLong_CheckExact(nanos) ? PyLong_AsLongLongAndOverflow(nanos, &overflow) : 0;
        if (overflow || number < 0)
            return UNUSUAL;
        ms = (uint64_t)number / 1000000;
        if (ms >= 4294967296000)
            return UNUSUAL;
    } else if (value == last)
        ms = last_ms;
    else {
        PyObject *zone = PyObject_GetAttrString(value, "tzinfo");
        if (!zone)
            return -1;
        Py_DECREF(zone);
        if (zone != utc)
            return UNUSUAL;
        PyObject *made = PyObject_CallMethod(value, "timestamp", NULL);
        if (!made)
            return -1;
        double stamp = PyFloat_AsDouble(made);
        Py_DECREF(made);
        if (!(stamp >= 0 && stamp < 4294967296.0))
            return UNUSUAL;
        ms = (uint64_t)stamp;
        ms = ms * 1000 + (uint64_t)((stamp - (double)ms) * 1e6 + 0.5) / 1000;
        PyObject *old = last;
        Py_INCREF(value);
        last = value;
        last_ms = ms;
        Py_XDECREF(old);
    }
    int done = put_name(b, 9, f->name, f->length);
    return done == DONE ? put_int(b, ms, 8) : done;
}

/* What stands in a whole document that Python or an earlier call has made. */
static int splice(buffer *b, PyObject *document)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(document, &bytes, &size) < 0)
        return -1;
    return size < 5 ? UNUSUAL : put(b, bytes + 4, (size_t)size - 5);
}

/* Let Python encode one field alone. */
static PyObject *by_python(PyObject *key, PyObject *value, PyObject *memo)
{
    return PyObject_CallFunctionObjArgs(bson_other, key, value, memo, NULL);
}

static int put_shared(buffer *b, PyObject *key, PyObject *value, PyObject *pieces, PyObject *memo)
{
    PyObject *place = PyLong_FromVoidPtr(value);
    if (!place)
        return -1;
    PyObject *made = PyDict_GetItemWithError(pieces, place); /* borrowed */
    Py_XINCREF(made);
    if (!made && !PyErr_Occurred() && (made = by_python(key, value, memo))
        && PyDict_SetItem(pieces, place, made) < 0)
        Py_CLEAR(made);
    int done = made ? splice(b, made) : -1;
    Py_DECREF(place);
    Py_XDECREF(made);
    return done;
}

static int put_fields(buffer *b, PyObject *document, PyObject *pieces, PyObject *memo, int depth);

static int put_field(buffer *b, const struct known *f, PyObject *document, PyObject *value,
                     PyObject *pieces, PyObject *memo, int depth)
{
    const char *name = f->name;
    size_t length = f->length, from;
    int done;
    switch (f->role) {
    case NESTED:
        return PyDict_CheckExact(value) ? put_nested(b, name, length, value) : UNUSUAL;
    case SHARED:
        return put_shared(b, f->key, value, pieces, memo);
    case TIME: {
        int overflow = 1;
        long long number = PyLong_CheckExact(value) ? PyLong_AsLongLongAndOverflow(value, &overflow) : 0;
        if (overflow)
            return UNUSUAL;
        done = put_name(b, 18, name, length);
        return done == DONE ? put_int(b, (uint64_t)number, 8) : done;
    }
    case LIST_OF_FIELDS:
        if (!PyList_CheckExact(value) || depth > BSON_DEEPEST)
            return UNUSUAL;
        done = open_document(b, 4, name, length, &from);
        for (Py_ssize_t i = 0; done == DONE && i < PyList_Size(value); i++) {
            char digits[24];
            int size = snprintf(digits, sizeof digits, "%zd", i);
            size_t inside;
            PyObject *item = Py_NewRef(PyList_GetItem(value, i));
            done = PyDict_CheckExact(item) ? open_document(b, 3, digits, (size_t)size, &inside) : UNUSUAL;
            if (done == DONE)
                done = put_fields(b, item, pieces, memo, depth + 1);
            if (done == DONE)
                done = close_document(b, inside);
            Py_DECREF(item);
        }
        return done == DONE ? close_document(b, from) : done;
    }
    if ((PyObject *)Py_TYPE(value) == datetime_type) {
        PyObject *nanos = f->nanos ? PyDict_GetItemWithError(document, f->nanos) : NULL; /* borrowed */
        return PyErr_Occurred() ? -1 : f->nanos && !nanos ? UNUSUAL : put_date(b, f, value, nanos);
    }
    return put_value(b, name, length, value, 0);
}

static int put_fields(buffer *b, PyObject *document, PyObject *pieces, PyObject *memo, int depth)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    int done = DONE;
    while (done == DONE && PyDict_Next(document, &at, &key, &value)) {
        struct known f;
        size_t from = b->length;
        if ((done = know(key, &f)) != DONE)
            return done;
        if (depth == 0 && f.role == IDENTITY)
            continue;
        Py_INCREF(key); /* Python may run in between */
        Py_INCREF(value);
        done = put_field(b, &f, document, value, pieces, memo, depth);
        if (done == UNUSUAL) {
            b->length = from;
            PyObject *made = by_python(key, value, memo);
            done = made ? splice(b, made) : -1;
            Py_XDECREF(made);
        }
        Py_DECREF(key);
        Py_DECREF(value);
    }
    return done;
}

/* 24 lower-case hex digits as 12 bytes; whether they are. */
int unhex(const char *digits, unsigned char *bytes)
{
    for (int i = 0; i < 24; i++) {
        char digit = digits[i];
        int half = digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
        if (half < 0)
            return 0;
        bytes[i / 2] = (unsigned char)(i % 2 ? bytes[i / 2] | half : half << 4);
    }
    return 1;
}

/* The id, which stands first; LEAVE when it is none. */
static int put_id(buffer *b, PyObject *document)
{
    Py_ssize_t size;
    PyObject *id = PyDict_GetItemWithError(document, id_key); /* borrowed */
    if (!id || !PyUnicode_CheckExact(id))
        return PyErr_Occurred() ? -1 : LEAVE;
    const char *digits = PyUnicode_AsUTF8AndSize(id, &size);
    if (!digits)
        return -1;
    if (size != 24)
        return LEAVE;
    unsigned char bytes[12];
    if (!unhex(digits, bytes))
        return LEAVE;
    int done = put_name(b, 7, "_id", 3);
    return done == DONE ? put(b, bytes, 12) : done;
}

const char bson_doc[] = PyDoc_STR("bson(document, pieces, memo)\n--\n\n"
"A document as MongoDB keeps it; None when only Python can say what it is.");

PyObject *py_bson(PyObject *self, PyObject *args)
{
    PyObject *document, *pieces, *memo;
    if (!PyArg_ParseTuple(args, "O!O!O", &PyDict_Type, &document, &PyDict_Type, &pieces, &memo))
        return NULL;
    if (!bson_other) {
        PyErr_SetString(PyExc_RuntimeError, "bson_setup has not been called");
        return NULL;
    }
    buffer b = {PyMem_Malloc(2048), 0, 2048};
    if (!b.bytes)
        return PyErr_NoMemory();
    int done = put_int(&b, 0, 4);
    if (done == DONE)
        done = put_id(&b, document);
    if (done == DONE)
        done = put_fields(&b, document, pieces, memo, 0);
    if (done == DONE)
        done = close_document(&b, 0);
    PyObject *made = done == DONE ? PyBytes_FromStringAndSize(b.bytes, (Py_ssize_t)b.length)
        : done > 0 ? Py_NewRef(Py_None) : NULL;
    PyMem_Free(b.bytes);
    return made;
}

const char bson_setup_doc[] = PyDoc_STR("bson_setup(other, roles, datetime, utc)\n--\n\n"
"other(key, value, memo) gives the bytes of a document with one field; roles says how fields are\n"
"written: 1 names with dots, 2 shared by a batch, 3 a list of maps with fields, 4 a time,\n"
"5 the id, and a text names the nanoseconds of a date.");

PyObject *py_bson_setup(PyObject *self, PyObject *args)
{
    PyObject *other, *roles, *type, *zone;
    if (!id_key && !(id_key = PyUnicode_InternFromString("_id")))
        return NULL;
    if (!PyArg_ParseTuple(args, "OO!OO", &other, &PyDict_Type, &roles, &type, &zone))
        return NULL;
    replace(&bson_other, other);
    for (int i = 0; i < FIELDS_KNOWN; i++)
        Py_CLEAR(known_fields[i].key);
    replace(&bson_roles, roles);
    replace(&datetime_type, type);
    replace(&utc, zone);
    Py_RETURN_NONE;
}
