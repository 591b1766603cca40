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
 * fields(mapping, names, named, known_only=False): the pairs whose names are not among `names`, those in
 * `named` under the name that stands there, or None when one of them has to be cleaned; None is left out
 * under a name in `named`, and with known_only under any.
 * copied(value): a copy of a dict or list whose values are plain, or such dicts and lists, else None.
 * plain(mapping): 0 when a name or a value needs a look, 1 when there is a None among them, else 2.
 * others(mapping, names): the pairs whose names are not among `names`, or None.
 * process_id(): as os.getpid(), without a system call.
 * weigh(mapping, slow): about how many bytes the pairs take on the wire.
 * Measure, Way: measurements with known attributes, see _core_measures.h and _core_ways.h.
 * Intake: what waits for a courier, see _core_intake.h.
 * effective, enter, carry, know_scope, random_bits: ids, see _core_scope.h.
 * Send: log records, see _core_lines.h.
 * Start, methods_of, stamp, know: spans that are like all others, see _core_tracers.h.
 *
 * Why C: measured beside the same loops in Python (`make bench ARGS=hotpath`), they are most of the
 * background thread's time, and that thread takes the GIL from the application. Without a compiler
 * telemetry/_native.py and _export/otlp_encoder.py do the same; test_loops, test_wire and test_pending in
 * tests/telemetry hold the two together.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define NESTED 8  /* maps and lists inside of each other; deeper ones are Python's */

/* The process, without a system call; libc runs the handler in every child, also where Python runs no hooks. */
static pid_t this_process;
static void forget_bits(void);

static void note_process(void)
{
    this_process = getpid();
    forget_bits();
}

static PyObject *process_id(PyObject *self, PyObject *unused)
{
    return PyLong_FromLong(this_process);
}

#include "_core_wire.h"
#include "_core_records.h"
#include "_core_redaction.h"

/* 0, or -1 with an error. */
static int add_weight(Py_ssize_t *size, PyObject *mapping, PyObject *slow, int depth)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;
    int failed = 0;
    *size += 8;
    while (!failed && PyDict_Next(mapping, &position, &name, &value)) {
        *size += PyUnicode_Check(name) ? PyUnicode_GetLength(name) : 16;
        if (PyUnicode_CheckExact(value)) {
            *size += PyUnicode_GetLength(value) + 16;
        } else if (PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyBool_Check(value)
                   || value == Py_None) {
            *size += 20;
        } else {
            Py_INCREF(value);  /* what is called may do anything, also take it away */
            *size += 8;
            if (PyDict_CheckExact(value) && depth > 0)
                failed = add_weight(size, value, slow, depth - 1) < 0;
            else {
                PyObject *more = PyObject_CallFunctionObjArgs(slow, value, NULL);
                if (more != NULL)
                    *size += PyLong_AsSsize_t(more);
                Py_XDECREF(more);
                failed = PyErr_Occurred() != NULL;
            }
            Py_DECREF(value);
        }
    }
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

/* A copy of a dict or list of plain values, and of such dicts and lists inside of it; NULL without an
   error when it has others, is deep, or has more than `room` values in all. */
static PyObject *copy_plain(PyObject *value, int depth, int *room)
{
    PyObject *name, *inner, *copy = NULL;
    Py_ssize_t position = 0;
    int pairs = PyDict_CheckExact(value);
    if (depth == 0 || !(pairs || PyList_CheckExact(value) || PyTuple_CheckExact(value))
        || (copy = pairs ? PyDict_New() : PyList_New(0)) == NULL)
        return NULL;
    while (pairs ? PyDict_Next(value, &position, &name, &inner) : position < PySequence_Size(value)) {
        if (!pairs && (inner = PyList_CheckExact(value) ? PyList_GetItem(value, position) : PyTuple_GetItem(value, position)) == NULL)
            goto failed;
        position += !pairs;
        if (--*room < 0 || (pairs && !is_plain_text(name, PLAIN_ID)))
            goto failed;
        Py_INCREF(inner);  /* making a dict may collect garbage, and that runs anybody's code */
        if (pairs)
            Py_INCREF(name);
        PyObject *own = is_plain(inner) ? Py_NewRef(inner) : copy_plain(inner, depth - 1, room);
        int put = own == NULL ? -1 : pairs ? PyDict_SetItem(copy, name, own) : PyList_Append(copy, own);
        if (pairs)
            Py_DECREF(name);
        Py_DECREF(inner);
        Py_XDECREF(own);
        if (put < 0)
            goto failed;
    }
    return copy;
failed:
    Py_DECREF(copy);
    return NULL;
}

/* The same, for Python: None when it is none. */
static PyObject *copied(PyObject *self, PyObject *value)
{
    int room = PLAIN_FIELDS;
    PyObject *copy = copy_plain(value, NESTED, &room);
    if (copy == NULL && PyErr_Occurred())
        return NULL;
    return copy ? copy : Py_NewRef(Py_None);
}

static PyObject *fields(PyObject *self, PyObject *args)
{
    PyObject *mapping, *names, *named, *name, *value, *found;
    Py_ssize_t position = 0, count = 0;
    int room = PLAIN_FIELDS, known_only = 0;
    if (!PyArg_ParseTuple(args, "O!O!O!|p", &PyDict_Type, &mapping, &PyFrozenSet_Type, &names,
                          &PyDict_Type, &named, &known_only) || (found = PyDict_New()) == NULL)
        return NULL;
    while (PyDict_Next(mapping, &position, &name, &value)) {
        int known = PyUnicode_CheckExact(name) ? PySet_Contains(names, name) : -1;
        if (known == 1)
            continue;
        PyObject *attribute = known == 0 ? PyDict_GetItemWithError(named, name) : NULL;
        if (value == Py_None && (attribute != NULL || known_only))
            continue;  /* an id that is not known */
        int fits = known == 0 && count++ < PLAIN_FIELDS && is_plain_text(name, PLAIN_ID);
        int plain = fits && (attribute != NULL ? is_plain_text(value, PLAIN_ID) : is_plain(value));
        Py_INCREF(name);  /* copying may collect garbage, and that runs anybody's code */
        Py_INCREF(value);
        PyObject *own = plain ? Py_NewRef(value) : fits && attribute == NULL ? copy_plain(value, NESTED, &room) : NULL;
        int put = own == NULL ? -1 : PyDict_SetItem(found, attribute != NULL ? attribute : name, own);
        Py_DECREF(value);
        Py_DECREF(name);
        Py_XDECREF(own);
        if (put < 0) {
            Py_DECREF(found);
            return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
        }
    }
    return found;
}

/* 0: not all plain; 1: plain, with a None; 2: plain texts, numbers and booleans only. */
static long plainness(PyObject *mapping)
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
    return found;
}

static PyObject *plain(PyObject *self, PyObject *mapping)
{
    return PyLong_FromLong(plainness(mapping));
}

#include "_core_scope.h"
#include "_core_intake.h"
#include "_core_parts.h"
#include "_core_tracers.h"
#include "_core_ends.h"
#include "_core_lines.h"
#include "_core_ways.h"
#include "_core_measures.h"

static PyMethodDef methods[] = {
    {"attributes", attributes, METH_VARARGS, "Pairs as OTLP KeyValues under a tag."},
    {"lines", lines, METH_VARARGS, "Log records as fields of ScopeLogs."},
    {"spans", spans, METH_VARARGS, "Spans as fields of ScopeSpans."},
    {"pending_lines", pending_lines, METH_VARARGS, "The log records that redaction has to look at."},
    {"pending_spans", pending_spans, METH_VARARGS, "The spans that redaction has to look at."},
    {"methods_of", methods_of, METH_VARARGS, "Methods of our spans."},
    {"stamp", stamp, METH_VARARGS, "Set attributes that are clean."},
    {"effective", (PyCFunction)(void (*)(void))effective, METH_FASTCALL,
     "effective(context=None)\n--\n\nThe ids in force, by attribute name: what arrived by baggage, then what was bound here."},
    {"enter", (PyCFunction)(void (*)(void))enter, METH_FASTCALL, "Make a span current, and begin its scope."},
    {"know_scope", know_scope, METH_O, "Learn what the ids in force lean on."},
    {"random_bits", random_bits, METH_O, "64 or 128 random bits."},
    {"know", know, METH_O, "Learn what starting and ending spans leans on."},
    {"carry", carry, METH_O, "Set what may travel in baggage."},
    {"copied", copied, METH_O, "A copy of a dict or list of plain values, or None."},
    {"fields", fields, METH_VARARGS, "The fields of a log record by attribute name, if all are plain."},
    {"others", others, METH_VARARGS, "The pairs whose names are not among others, or None."},
    {"process_id", process_id, METH_NOARGS, "The id of this process."},
    {"plain", plain, METH_O, "Whether names and values of a mapping are plain."},
    {"unsettled", unsettled, METH_VARARGS, "The names that redaction has to look at, or None."},
    {"weigh", weigh, METH_VARARGS, "About how many bytes the pairs take."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    if (this_process == 0 && pthread_atfork(NULL, NULL, note_process) != 0)
        return PyErr_NoMemory();
    note_process();
    for (int name = 0; name < NAMES; name++)
        if (name_of[name] == NULL && (name_of[name] = PyUnicode_InternFromString(name_texts[name])) == NULL)
            return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && (add_measures(made) < 0 || add_intake(made) < 0 || add_parts() < 0 || add_tracers(made) < 0
                         || add_send(made) < 0))
        Py_CLEAR(made);
    return made;
}
