/*
 * survey(shapes, root, metrics, data, groups, items, elements) walks a request and makes nothing: it
 * counts what a parser would have to make. The same in Python is in collector/otlp/sizing.py.
 */
#include "core.h"

#define MAX_TYPES 64
#define SURVEY_DEPTH 100 /* as otlp/sizing.py: DEEPEST */

enum { GOES_ON, BROKEN, OVER, ODD }; /* ODD: left to Python */

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

const char shapes_doc[] = PyDoc_STR("shapes(types)\n--\n\n"
"Message types for `survey`: a list of (role, children); a child is (field number, place of its type).");

static void shapes_free(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, "shapes"));
}

PyObject *py_shapes(PyObject *self, PyObject *types)
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

const char survey_doc[] = PyDoc_STR("survey(shapes, root, metrics, data, groups, items, elements)\n--\n\n"
"What a request would be in memory, as a tuple of counts; it stops at the first one over its limit.\n"
"None when the frame is broken or holds what only Python judges.");

PyObject *py_survey(PyObject *self, PyObject *args)
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
