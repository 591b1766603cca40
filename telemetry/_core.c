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
 * numbers, booleans, None, and dicts and lists of these are written here; for every other value, and
 * for text that is no UTF-8, slow(name, value) gives the KeyValue, or None to leave it out.
 * unsettled(mapping, actions, clean): the names whose values redaction has to look at, or None. A
 * name in `actions` has a known decision: False looks at texts, True at nothing. A plain value that is
 * no text, a text in `clean`, a short text without any mark that a secret could have, an id as programs
 * make them, and a dict of such pairs need no look.
 * fields(mapping, names, named): the pairs whose names are not among `names`, those in `named` under
 * the name that stands there, or None when one of them has to be cleaned.
 * plain(mapping): 0 when a name or a value needs a look, 1 when there is a None among them, else 2.
 * others(mapping, names): the pairs whose names are not among `names`, or None.
 * weigh(mapping, slow): about how many bytes the pairs take on the wire.
 * Measure, Way: measurements with known attributes, see _core_measures.h and _core_ways.h.
 *
 * Why C: measured beside the same loops in Python (`make bench ARGS=hotpath`), they are most of the
 * background thread's time, and that thread takes the GIL from the application. Without a compiler
 * telemetry/_loops.py and _wire.py do the same; test_loops, test_wire and test_pending in
 * tests/telemetry hold the two together.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define NESTED 8  /* maps and lists inside of each other; deeper ones are Python's */

#include "_core_wire.h"
#include "_core_records.h"
#include "_core_redaction.h"
#include "_core_ways.h"
#include "_core_measures.h"

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

#define PLAIN_FIELDS 64   /* a record with more goes to Python, which knows what to leave out */
#define PLAIN_PAIRS 128
#define PLAIN_TEXT 1024  /* longer texts, and what is not ASCII, are Python's too */
#define PLAIN_ID 256     /* so are longer names of fields, and ids */

static int is_plain_text(PyObject *value, Py_ssize_t most)
{
    Py_ssize_t size;
    if (!PyUnicode_CheckExact(value) || PyUnicode_GetLength(value) > most)
        return 0;
    const char *bytes = PyUnicode_AsUTF8AndSize(value, &size);
    if (bytes == NULL)
        PyErr_Clear();
    return bytes != NULL && size == PyUnicode_GetLength(value);
}

static int is_plain(PyObject *value)
{
    int beyond = 0;
    if (PyLong_CheckExact(value))
        PyLong_AsLongLongAndOverflow(value, &beyond);
    return !beyond && (PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyBool_Check(value)
                       || value == Py_None || is_plain_text(value, PLAIN_TEXT));
}

static PyObject *fields(PyObject *self, PyObject *args)
{
    PyObject *mapping, *names, *named, *name, *value, *found;
    Py_ssize_t position = 0, count = 0;
    if (!PyArg_ParseTuple(args, "O!O!O!", &PyDict_Type, &mapping, &PyFrozenSet_Type, &names,
                          &PyDict_Type, &named) || (found = PyDict_New()) == NULL)
        return NULL;
    /* Nothing here runs anybody's code, so that the mapping stays as it is. */
    while (PyDict_Next(mapping, &position, &name, &value)) {
        int known = PyUnicode_CheckExact(name) ? PySet_Contains(names, name) : -1;
        if (known == 1)
            continue;
        PyObject *attribute = known == 0 ? PyDict_GetItemWithError(named, name) : NULL;
        if (attribute != NULL && value == Py_None)
            continue;  /* an id that is not known */
        if (known < 0 || count++ == PLAIN_FIELDS || !is_plain_text(name, PLAIN_ID)
            || !(attribute != NULL ? is_plain_text(value, PLAIN_ID) : is_plain(value))
            || PyDict_SetItem(found, attribute != NULL ? attribute : name, value) < 0) {
            Py_DECREF(found);
            return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
        }
    }
    return found;
}

/* 0: not all plain; 1: plain, with a None; 2: plain texts, numbers and booleans only. */
static PyObject *plain(PyObject *self, PyObject *mapping)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;
    long found = PyDict_CheckExact(mapping) && PyDict_Size(mapping) <= PLAIN_PAIRS ? 2 : 0;
    while (found && PyDict_Next(mapping, &position, &name, &value)) {
        if (!PyUnicode_CheckExact(name) || PyUnicode_GetLength(name) == 0 || !is_plain(value))
            found = 0;
        else if (value == Py_None)
            found = 1;
    }
    return PyLong_FromLong(found);
}

static PyMethodDef methods[] = {
    {"attributes", attributes, METH_VARARGS, "Pairs as OTLP KeyValues under a tag."},
    {"lines", lines, METH_VARARGS, "Log records as fields of ScopeLogs."},
    {"spans", spans, METH_VARARGS, "Spans as fields of ScopeSpans."},
    {"pending_lines", pending_lines, METH_VARARGS, "The log records that redaction has to look at."},
    {"pending_spans", pending_spans, METH_VARARGS, "The spans that redaction has to look at."},
    {"fields", fields, METH_VARARGS, "The fields of a log record by attribute name, if all are plain."},
    {"others", others, METH_VARARGS, "The pairs whose names are not among others, or None."},
    {"plain", plain, METH_O, "Whether names and values of a mapping are plain."},
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
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && add_measures(made) < 0)
        Py_CLEAR(made);
    return made;
}
