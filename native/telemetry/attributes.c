/* Loops over attributes: how many bytes they take, which are plain, copies of them. */
#include "core.h"

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

PyObject *estimated_bytes(PyObject *self, PyObject *args)
{
    PyObject *mapping, *slow;
    Py_ssize_t size = 0;
    if (!PyArg_ParseTuple(args, "O!O", &PyDict_Type, &mapping, &slow))
        return NULL;
    return add_weight(&size, mapping, slow, NESTED) < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyObject *without_keys(PyObject *self, PyObject *args)
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
PyObject *copied(PyObject *self, PyObject *value)
{
    int room = PLAIN_FIELDS;
    PyObject *copy = copy_plain(value, NESTED, &room);
    if (copy == NULL && PyErr_Occurred())
        return NULL;
    return copy ? copy : Py_NewRef(Py_None);
}

PyObject *fields(PyObject *self, PyObject *args)
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

PyObject *needs_no_cleaning(PyObject *self, PyObject *mapping)
{
    return PyLong_FromLong(plainness(mapping));
}
