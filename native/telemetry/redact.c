/* Which values and records redaction has to look at. */
#include "core.h"

#define SHORT_TEXT 13
#define LONGEST_ID 64

/* An id as programs make them: hexadecimal, with a letter or a dash, of a usual length. */
static int is_plain_id(const char *text, Py_ssize_t size)
{
    int letters = 0;
    if (size != 16 && size != 20 && size != 24 && size != 32 && size != 36 && size != 40 && size != 64)
        return 0;
    for (Py_ssize_t index = 0; index < size; index++) {
        char c = text[index];
        int letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '-';
        if (!letter && !(c >= '0' && c <= '9'))
            return 0;
        letters |= letter;
    }
    return letters;
}

/* Whether a text is an id, or short with only characters that no secret of that length could do with. */
static int is_harmless(PyObject *value)
{
    Py_ssize_t size = PyUnicode_GetLength(value);
    if (size < 0 || size > LONGEST_ID)
        return 0;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);  /* ASCII, or it is not harmless anyway */
    if (text == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (size > SHORT_TEXT)
        return is_plain_id(text, size);
    for (Py_ssize_t index = 0; index < size; index++) {
        char c = text[index];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || c == '_' || c == '-' || c == '/' || c == '#'))
            return 0;
    }
    return 1;
}

/* What is known to redaction. */
typedef struct {
    PyObject *actions, *clean, *shared;
    int short_is_clean;
} policy;

/* Whether redaction has to look at a text, or at another plain value: 1, 0, or -1 with an error. */
static int look_at_value(PyObject *value, const policy *known)
{
    if (!PyUnicode_CheckExact(value))
        return !(PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyBool_Check(value)
                 || value == Py_None);
    if (known->short_is_clean && is_harmless(value))
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
    PyObject *seen_as = PyDict_GetItemWithError(known->shared, key);
    Py_DECREF(key);
    if (seen_as == NULL)
        return PyErr_Occurred() ? -1 : 1;
    return !(PyTuple_Check(seen_as) && PyTuple_Size(seen_as) == 2 && PyTuple_GetItem(seen_as, 0) == shared
             && PyTuple_GetItem(seen_as, 1) == shared);
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
    PyObject *status = field(fields, N_STATUS), *own = NULL, *description = NULL;
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
        description = PyObject_GetAttr(status, name_of[N_DESCRIPTION]);
        look = description == NULL ? -1 : PyObject_IsTrue(description);
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
    Py_XDECREF(description);
    Py_XDECREF(own);
    Py_DECREF(fields);
    return look;
}

/* Append to a list that is made when it is needed. */
static int note(PyObject **list, PyObject *item)
{
    if (*list == NULL && (*list = PyList_New(0)) == NULL)
        return -1;
    return PyList_Append(*list, item);
}

static PyObject *pending(PyObject *args, int (*look_at)(PyObject *, const policy *))
{
    PyObject *items, *found = NULL;
    policy known;
    if (!PyArg_ParseTuple(args, "O!O!O!pO!", &PyTuple_Type, &items, &PyDict_Type, &known.actions,
                          &PySet_Type, &known.clean, &known.short_is_clean, &PyDict_Type, &known.shared))
        return NULL;
    Py_ssize_t count = PyTuple_Size(items);
    for (Py_ssize_t index = 0; index < count; index++) {
        int look = look_at(PyTuple_GetItem(items, index), &known);
        if (look < 0)
            goto failed;
        if (look == 0)
            continue;
        PyObject *number = PyLong_FromSsize_t(index);
        int noted = number != NULL ? note(&found, number) : -1;
        Py_XDECREF(number);
        if (noted < 0)
            goto failed;
    }
    return found != NULL ? found : Py_NewRef(Py_None);
failed:
    Py_XDECREF(found);
    return NULL;
}

PyObject *pending_lines(PyObject *self, PyObject *args)
{
    return pending(args, look_at_line);
}

PyObject *pending_spans(PyObject *self, PyObject *args)
{
    return pending(args, look_at_span);
}

PyObject *values_to_redact(PyObject *self, PyObject *args)
{
    PyObject *mapping, *found = NULL, *name, *value;
    policy known;
    if (!PyArg_ParseTuple(args, "O!O!O!p", &PyDict_Type, &mapping, &PyDict_Type, &known.actions,
                          &PySet_Type, &known.clean, &known.short_is_clean))
        return NULL;
    Py_ssize_t position = 0;
    while (PyDict_Next(mapping, &position, &name, &value)) {
        int look = look_at_pair(name, value, &known, NESTED);
        if (look < 0 || (look && note(&found, name) < 0)) {
            Py_XDECREF(found);
            return NULL;
        }
    }
    return found != NULL ? found : Py_NewRef(Py_None);
}
