/*
 * The ids in force, and random bits for new ones; what _context/scope.py and _context/ids.py do in Python, part of
 * _core.c.
 *
 * know_scope(parts): what this leans on, in the order of the list below; once.
 * carry(names): the attributes that may travel in baggage.
 * effective(context=None): the ids in force by attribute: what arrived by baggage, then what is bound.
 * enter(span, ids, context): as _context.enter; None when Python has to do it.
 * random_bits(count): 64 or 128 of them.
 */
#include <sys/random.h>

enum {
    C_SCOPE, C_SET_SCOPE, C_SHARED, C_CURRENT, C_ATTACH, C_CONTEXT, C_BAGGAGE_KEY, C_SPAN_KEY, C_SLOWLY, C_IDS,
    C_MOST, C_PARTS
};
static PyObject *scope_part[C_PARTS], *carried;

static void replace(PyObject **place, PyObject *by)
{
    PyObject *before = *place;
    *place = Py_NewRef(by);
    Py_XDECREF(before);
}

static PyObject *know_scope(PyObject *self, PyObject *parts)
{
    if (!PyTuple_Check(parts) || PyTuple_Size(parts) != C_PARTS || !PyType_Check(PyTuple_GetItem(parts, C_CONTEXT)))
        return PyErr_Format(PyExc_TypeError, "%d parts in a tuple are needed", C_PARTS);
    for (int at = 0; at < C_PARTS; at++)
        replace(&scope_part[at], PyTuple_GetItem(parts, at));
    Py_RETURN_NONE;
}

static PyObject *carry(PyObject *self, PyObject *names)
{
    if (!PyTuple_CheckExact(names))
        return PyErr_Format(PyExc_TypeError, "carry() takes a tuple");
    replace(&carried, names);
    Py_RETURN_NONE;
}

/* Whether all that may have arrived is bound here as well, and wins; -1 with an error. */
static int all_bound(PyObject *ids)
{
    PyObject *names = carried;  /* a tuple, and the global holds it while nothing runs anybody's code */
    int all = names != NULL;
    for (Py_ssize_t i = 0; all == 1 && i < PyTuple_Size(names); i++)
        all = PyDict_Contains(ids, PyTuple_GetItem(names, i));
    return all;
}

/* What is bound: for the request, and nearer. */
static PyObject *ids_bound(void)
{
    PyObject *nearest = PyObject_CallNoArgs(scope_part[C_SCOPE]), *ids = NULL, *wide = NULL;
    PyObject *shared = nearest ? PyObject_CallNoArgs(scope_part[C_SHARED]) : NULL;
    if (shared == Py_None)
        ids = Py_NewRef(nearest);
    else if (shared && (wide = PyObject_GetAttr(shared, scope_part[C_IDS])) != NULL) {
        if (!PyDict_Check(nearest) || !PyDict_Check(wide))
            PyErr_SetString(PyExc_TypeError, "ids are no dict");
        else if (PyDict_Size(nearest) == 0)
            ids = Py_NewRef(wide);
        else if ((ids = PyDict_Copy(wide)) != NULL && PyDict_Update(ids, nearest) < 0)
            Py_CLEAR(ids);
    }
    Py_XDECREF(wide);
    Py_XDECREF(shared);
    Py_XDECREF(nearest);
    return ids;
}

/* The ids in force in a context, a dict that nobody changes. */
static PyObject *ids_in(PyObject *context)
{
    PyObject *ids = ids_bound();
    PyObject *baggage = ids ? PyDict_GetItemWithError(context, scope_part[C_BAGGAGE_KEY]) : NULL;
    int all = baggage ? all_bound(ids) : 1;
    if (ids && !PyErr_Occurred() && all)
        return ids;
    Py_XDECREF(ids);
    return PyErr_Occurred() ? NULL : PyObject_CallFunctionObjArgs(scope_part[C_SLOWLY], context, NULL);
}

static PyObject *effective(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *given = count ? args[0] : Py_None;
    if (count > 1 || scope_part[0] == NULL)
        return PyErr_Format(PyExc_TypeError, "effective takes a context, after know_scope()");
    PyObject *context = given == Py_None ? PyObject_CallNoArgs(scope_part[C_CURRENT]) : Py_NewRef(given);
    PyObject *ids = !context ? NULL : PyDict_Check(context)
        ? ids_in(context) : PyObject_CallFunctionObjArgs(scope_part[C_SLOWLY], given, NULL);
    Py_XDECREF(context);
    return ids;
}

/* Entries of a context with the ids that may travel added to its baggage; 0, or -1 with an error. */
static int add_baggage(PyObject *entries, PyObject *ids)
{
    PyObject *travelling = NULL, *names = carried ? Py_NewRef(carried) : NULL;
    int failed = 0;
    for (Py_ssize_t i = 0; !failed && names && i < PyTuple_Size(names); i++) {
        PyObject *name = PyTuple_GetItem(names, i), *value = PyDict_GetItemWithError(ids, name);
        if (!value) {
            failed = PyErr_Occurred() != NULL;
            continue;
        }
        if (!travelling) {
            PyObject *given = PyDict_GetItemWithError(entries, scope_part[C_BAGGAGE_KEY]);
            travelling = PyErr_Occurred() ? NULL : PyDict_New();
            failed = !travelling || (given && PyDict_Update(travelling, given) < 0);
        }
        PyObject *text = failed ? NULL : PyObject_Str(value);
        failed = !text || PyDict_SetItem(travelling, name, text) < 0;
        Py_XDECREF(text);
    }
    if (!failed && travelling)
        failed = PyDict_SetItem(entries, scope_part[C_BAGGAGE_KEY], travelling) < 0;
    Py_XDECREF(names);
    Py_XDECREF(travelling);
    return failed ? -1 : 0;
}

static PyObject *enter(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *entries = NULL, *context = NULL, *merged = NULL, *nearest = NULL, *scope = NULL, *token = NULL;
    if (count != 3 || scope_part[0] == NULL || !PyDict_CheckExact(args[1]) || !PyDict_Check(args[2]))
        Py_RETURN_NONE;
    long most = PyLong_AsLong(scope_part[C_MOST]);
    if ((nearest = PyObject_CallNoArgs(scope_part[C_SCOPE])) == NULL || !PyDict_Check(nearest)
        || (merged = PyDict_Copy(nearest)) == NULL || PyDict_Update(merged, args[1]) < 0
        || PyDict_Size(merged) > most || (entries = PyDict_Copy(args[2])) == NULL
        || PyDict_SetItem(entries, scope_part[C_SPAN_KEY], args[0]) < 0 || add_baggage(entries, args[1]) < 0
        || (context = PyObject_CallFunctionObjArgs(scope_part[C_CONTEXT], entries, NULL)) == NULL)
        goto done;
    if ((scope = PyObject_CallFunctionObjArgs(scope_part[C_SET_SCOPE], merged, NULL)) != NULL)
        token = PyObject_CallFunctionObjArgs(scope_part[C_ATTACH], context, NULL);
done:
    Py_XDECREF(context);
    Py_XDECREF(entries);
    Py_XDECREF(merged);
    Py_XDECREF(nearest);
    if (token)
        return Py_BuildValue("(NN)", scope, token);
    Py_XDECREF(scope);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* Bytes from the system, some at a time; a forked child throws away what it has inherited. */
static unsigned char bits_left[256];
static size_t bits_used = sizeof bits_left;

static void forget_bits(void)
{
    bits_used = sizeof bits_left;
}

static int take_bits(unsigned long long *into, size_t words)
{
    size_t size = words * sizeof *into;
    if (bits_used + size > sizeof bits_left) {
        if (getentropy(bits_left, sizeof bits_left) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        bits_used = 0;
    }
    memcpy(into, bits_left + bits_used, size);
    bits_used += size;
    return 0;
}

static PyObject *random_bits(PyObject *self, PyObject *count)
{
    static PyObject *shift = NULL;  /* one for ever */
    unsigned long long words[2] = {0, 0};
    long wanted = PyLong_AsLong(count);
    if (wanted != 64 && wanted != 128)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "64 or 128 bits, not %ld", wanted);
    if ((shift == NULL && (shift = PyLong_FromLong(64)) == NULL) || take_bits(words, (size_t)wanted / 64) < 0)
        return NULL;
    PyObject *low = PyLong_FromUnsignedLongLong(words[0]);
    if (wanted == 64 || low == NULL)
        return low;
    PyObject *high = PyLong_FromUnsignedLongLong(words[1]);
    PyObject *raised = high ? PyNumber_Lshift(high, shift) : NULL;
    PyObject *whole = raised ? PyNumber_Or(raised, low) : NULL;
    Py_XDECREF(raised);
    Py_XDECREF(high);
    Py_DECREF(low);
    return whole;
}
