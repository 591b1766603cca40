/*
 * Documents -> rows of a table: what collector/stores/sqlite/rows.py does for the usual document.
 *
 * What: row(document, columns, place, most) gives the parameters of an INSERT. Which columns a table has
 * is said by a list, so no name of a field is written down here.
 * Why not the JSON of the document, too: from dicts msgspec writes it in half the time of a plain writer in C.
 * Spans of usual requests have neither dicts nor this: spans.c.
 */
#include "core.h"

static PyObject *row_json, *row_severity, *row_milliseconds;

/* The document as JSON text; None when it is too large. */
static PyObject *json_of(PyObject *document, Py_ssize_t most)
{
    char *bytes;
    Py_ssize_t size;
    PyObject *made = PyObject_CallFunctionObjArgs(row_json, document, NULL), *text = NULL;
    if (made && PyBytes_AsStringAndSize(made, &bytes, &size) == 0)
        text = size > most ? Py_NewRef(Py_None) : PyUnicode_DecodeUTF8(bytes, size, NULL);
    Py_XDECREF(made);
    return text;
}

/* A new reference; None when only Python can say what belongs there. */
static PyObject *column(PyObject *document, PyObject *spec, PyObject *place, Py_ssize_t most)
{
    static PyObject *last; /* held, so that no other date can be at its place */
    static PyObject *last_ms;
    PyObject *how, *section, *key, *found = document;
    int overflow;
    if (!PyTuple_CheckExact(spec) || PyTuple_Size(spec) != 3) {
        PyErr_SetString(PyExc_ValueError, "a column has three parts");
        return NULL;
    }
    how = PyTuple_GetItem(spec, 0);
    section = PyTuple_GetItem(spec, 1);
    key = PyTuple_GetItem(spec, 2);
    long code = PyLong_AsLong(how);
    if (code == -1 && PyErr_Occurred())
        return NULL;
    if (code == 'd')
        return json_of(document, most);
    if (code == 'p')
        return Py_NewRef(place);
    if (section != Py_None) {
        found = PyDict_GetItemWithError(document, section);
        if (found && !PyDict_CheckExact(found))
            return Py_NewRef(Py_None);
    }
    if (found)
        found = PyDict_GetItemWithError(found, key);
    if (!found && PyErr_Occurred())
        return NULL;
    if (code == 'o') /* a text, 0 when it is absent */
        return found ? Py_NewRef(found) : PyLong_FromLong(0);
    if (code == 's')
        return found && PyLong_CheckExact(found) && PyObject_IsTrue(found) == 1
            ? Py_NewRef(found) : PyObject_CallFunctionObjArgs(row_severity, document, NULL);
    if (!found)
        return Py_NewRef(Py_None);
    switch (code) {
    case 'i': {
        unsigned char bytes[12];
        Py_ssize_t size;
        if (!PyUnicode_CheckExact(found))
            return Py_NewRef(Py_None);
        const char *digits = PyUnicode_AsUTF8AndSize(found, &size);
        if (!digits)
            return NULL;
        if (size != 24 || !unhex(digits, bytes))
            return Py_NewRef(Py_None);
        return PyByteArray_FromStringAndSize((const char *)bytes, 12);
    }
    case 't':
        if (!PyLong_CheckExact(found))
            return Py_NewRef(Py_None);
        PyLong_AsLongLongAndOverflow(found, &overflow);
        return Py_NewRef(overflow ? Py_None : found);
    case 'm':
        if (found != last) {
            PyObject *made = PyObject_CallFunctionObjArgs(row_milliseconds, found, NULL);
            if (!made)
                return NULL;
            replace(&last, found);
            replace(&last_ms, made);
            Py_DECREF(made);
        }
        return Py_NewRef(last_ms);
    }
    return Py_NewRef(found); /* it must be there */
}

const char row_doc[] = PyDoc_STR("row(document, columns, place, most)\n--\n\n"
"The values of a row: columns are (how, section or None, key), with how one of: i an id, o a text or 0,\n"
"r what is there, t a time, m a date, s a severity, p `place`, d the document as JSON of at most\n"
"`most` bytes. None when only Python can make it.");

PyObject *py_row(PyObject *self, PyObject *args)
{
    PyObject *document, *columns, *place;
    Py_ssize_t most;
    if (!PyArg_ParseTuple(args, "O!O!On", &PyDict_Type, &document, &PyTuple_Type, &columns, &place, &most))
        return NULL;
    if (!row_json) {
        PyErr_SetString(PyExc_RuntimeError, "row_setup has not been called");
        return NULL;
    }
    Py_ssize_t many = PyTuple_Size(columns);
    PyObject *made = PyTuple_New(many);
    for (Py_ssize_t i = 0; made && i < many; i++) {
        PyObject *value = column(document, PyTuple_GetItem(columns, i), place, most);
        if (!value || value == Py_None) {
            Py_DECREF(made);
            return value; /* an error, or None for the whole row */
        }
        PyTuple_SetItem(made, i, value);
    }
    return made;
}

const char row_setup_doc[] = PyDoc_STR("row_setup(dumps, severity, milliseconds)\n--\n\n"
"What the core asks for the JSON and the severity of a document, and for a date in milliseconds.");

PyObject *py_row_setup(PyObject *self, PyObject *args)
{
    PyObject *dumps, *severity, *milliseconds;
    if (!PyArg_ParseTuple(args, "OOO", &dumps, &severity, &milliseconds))
        return NULL;
    replace(&row_severity, severity);
    replace(&row_milliseconds, milliseconds);
    replace(&row_json, dumps);
    Py_RETURN_NONE;
}
