/*
 * The attributes of a running span, and its end; what _traces/guarded_span.py does in Python, part of _core.c.
 *
 * methods_of(end, set_attribute, set_attributes): these methods for the type of our spans, each given the
 * one in Python that it leaves to what is rare.
 * stamp(span, pairs): set attributes that are clean already; False when that has to be done otherwise.
 *
 * Nothing of a span is changed before it is known that nothing more can be in doubt.
 */
static PyObject *end_slowly;

/* What is sent counts as so many bytes; -1 with or without an error when Python has to weigh it. */
static Py_ssize_t weight_of(PyObject *fields, PyObject *pairs)
{
    PyObject *name = field(fields, N_NAME);
    Py_ssize_t size = 200;
    if (!name || !PyUnicode_Check(name) || has_details(field(fields, N_EVENTS)) || has_details(field(fields, N_LINKS)))
        return -1;
    size += PyUnicode_GetLength(name);
    return add_weight(&size, pairs, part[P_WEIGH], NESTED) < 0 ? -1 : size;
}

/*
 * Take the lock of a span, if it has one: it is made when Python asks for it. Without one, nobody is in
 * the middle of a change, and what is done here is done before another thread has the GIL.
 */
static int take_lock(PyObject *fields, PyObject **lock)
{
    *lock = own(fields, T_S_LOCK);
    if (*lock == NULL)
        return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(*lock);
    PyObject *taken = PyObject_CallMethodObjArgs(*lock, t_name[T_ACQUIRE], NULL);
    if (taken == NULL)
        Py_CLEAR(*lock);
    Py_XDECREF(taken);
    return taken ? 0 : -1;
}

static int give_lock(PyObject *lock)
{
    PyObject *given = lock ? PyObject_CallMethodObjArgs(lock, t_name[T_RELEASE], NULL) : Py_NewRef(Py_None);
    Py_XDECREF(lock);
    Py_XDECREF(given);
    return given ? 0 : -1;
}

static int set_end(PyObject *fields, PyObject *held, PyObject *when)
{
    PyObject *lock;
    if (take_lock(fields, &lock) < 0)
        return -1;
    /* Another thread may have ended it while this one waited. */
    int failed = field(fields, N_END_TIME) != Py_None || PyDict_SetItem(fields, name_of[N_END_TIME], when) < 0
                 || PyObject_SetAttr(held, t_name[T_IMMUTABLE], Py_True) < 0;
    if (PyErr_Occurred())
        PyErr_Clear();  /* Python tries once more, and says why */
    return give_lock(lock) < 0 || failed ? -1 : 0;
}

/* The time of the end: that of the start, and what a monotonic clock has counted since. */
static PyObject *end_of(PyObject *fields)
{
    PyObject *clocks = own(fields, T_S_CLOCKS);
    if (clocks == NULL || !PyTuple_Check(clocks) || PyTuple_Size(clocks) != 2)
        return NULL;
    long long wall = PyLong_AsLongLong(PyTuple_GetItem(clocks, 0));
    long long since = PyLong_AsLongLong(PyTuple_GetItem(clocks, 1));
    return PyErr_Occurred() ? NULL : PyLong_FromLongLong(wall + clock_ns(CLOCK_MONOTONIC) - since);
}

/* 1: done; 0: Python has to do it, nothing has happened; -1 with an error: it has ended, and is lost. */
static int end_quickly(PyObject *span)
{
    PyObject *fields = PyObject_GenericGetDict(span, NULL), *delivery = NULL, *size = NULL, *when = NULL;
    PyObject *pairs = NULL, *courier = NULL;
    int done = 0;
    if (fields == NULL)
        return 0;
    PyObject *processors = own(fields, T_S_PROCESSOR), *held = field(fields, N_ATTRIBUTES);
    PyObject *context = field(fields, N_CONTEXT), *status = field(fields, N_STATUS);
    if (!processors || Py_TYPE(processors) != (PyTypeObject *)part[P_PROCESSORS]
        || (delivery = delivery_of(processors)) == NULL || status != part[P_UNSET]
        || own(fields, T_S_END_METRICS) != part[P_NOOP] || PyDict_GetItemWithError(fields, part[P_MARK])
        || field(fields, N_END_TIME) != Py_None || field(fields, N_START_TIME) == Py_None
        || !context || !PyTuple_Check(context) || PyTuple_Size(context) != 6
        || !(PyLong_AsLong(PyTuple_GetItem(context, 3)) & 1)
        || !held || Py_TYPE(held) != (PyTypeObject *)part[P_HELD])
        goto done;
    PyObject *to = PyObject_GenericGetDict(delivery, NULL);
    courier = to ? own(to, T_COURIER) : NULL;
    Py_XINCREF(courier);
    Py_XDECREF(to);
    if (!courier || courier == Py_None || (pairs = PyObject_GetAttr(held, name_of[N_DICT])) == NULL
        || !PyDict_CheckExact(pairs))
        goto done;
    Py_ssize_t weight = weight_of(fields, pairs);
    if (weight < 0 || (size = PyLong_FromSsize_t(weight)) == NULL || (when = end_of(fields)) == NULL)
        goto done;
    if (set_end(fields, held, when) == 0) {
        PyObject *put = put_to(courier, span, size, Py_False);
        done = put ? 1 : -1;
        Py_XDECREF(put);
    }
done:
    Py_XDECREF(when);
    Py_XDECREF(size);
    Py_XDECREF(pairs);
    Py_XDECREF(courier);
    Py_DECREF(fields);
    return done;
}

static PyObject *span_end(PyObject *span, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    int done = 0;
    if (!keywords && (count == 0 || (count == 1 && args[0] == Py_None)))
        done = end_quickly(span);
    if (done == 1)
        Py_RETURN_NONE;
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;
        PyObject *type, *value, *stack;
        PyErr_Fetch(&type, &value, &stack);
        PyErr_NormalizeException(&type, &value, &stack);
        PyObject *said = done < 0 ? PyObject_CallFunctionObjArgs(part[P_LOST], value, NULL) : NULL;
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(stack);
        if (done < 0)
            return said;
    }
    return call_with(end_slowly, span, args, count, keywords);
}

/* Attributes of a running span: 1 when they are set, 0 when Python has to do it, -1 with an error. */
static int set_pairs(PyObject *span, PyObject *name, PyObject *value, PyObject *pairs)
{
    PyObject *fields = PyObject_GenericGetDict(span, NULL), *inside = NULL, *lock = NULL;
    PyObject *held = fields ? field(fields, N_ATTRIBUTES) : NULL;
    int set = 0;
    if (!held || Py_TYPE(held) != (PyTypeObject *)part[P_HELD]
        || (inside = PyObject_GenericGetDict(held, NULL)) == NULL)
        goto done;
    PyObject *into = field(inside, N_DICT), *most = own(inside, T_MAXLEN), *dropped = field(inside, N_DROPPED);
    if (!into || !PyDict_CheckExact(into) || own(inside, T_MAX_VALUE_LEN) != Py_None || !most || !dropped
        || PyObject_IsTrue(dropped))
        goto done;
    if (take_lock(fields, &lock) < 0) {
        set = -1;
        goto done;
    }
    Py_ssize_t more = pairs ? PyDict_Size(pairs) : 1;
    if ((most == Py_None || PyDict_Size(into) + more <= PyLong_AsSsize_t(most))
        && field(fields, N_END_TIME) == Py_None && own(inside, T_IMMUTABLE) == Py_False)
        set = (pairs ? PyDict_Update(into, pairs) : PyDict_SetItem(into, name, value)) < 0 ? 0 : 1;
    if (set == 0)
        PyErr_Clear();
    if (give_lock(lock) < 0)
        set = -1;
done:
    Py_XDECREF(inside);
    Py_XDECREF(fields);
    if (set == 0)
        PyErr_Clear();
    return set;
}

static PyObject *set_slowly[2];

static PyObject *span_set_attribute(PyObject *span, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    if (count == 2 && !keywords && PyUnicode_CheckExact(args[0]) && PyUnicode_GetLength(args[0]) > 0
        && args[1] != Py_None && is_plain(args[1])) {
        int set = set_pairs(span, args[0], args[1], NULL);
        if (set)
            return set < 0 ? NULL : Py_NewRef(Py_None);
    }
    return call_with(set_slowly[0], span, args, count, keywords);
}

static PyObject *span_set_attributes(PyObject *span, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    if (count == 1 && !keywords && plainness(args[0]) == 2) {
        int set = set_pairs(span, NULL, NULL, args[0]);
        if (set)
            return set < 0 ? NULL : Py_NewRef(Py_None);
    }
    return call_with(set_slowly[1], span, args, count, keywords);
}

static PyObject *stamp(PyObject *self, PyObject *args)
{
    PyObject *span, *pairs;
    if (!PyArg_ParseTuple(args, "OO!", &span, &PyDict_Type, &pairs))
        return NULL;
    int set = Py_TYPE(span) == (PyTypeObject *)part[P_SPAN] ? set_pairs(span, NULL, NULL, pairs) : 0;
    return set < 0 ? NULL : PyBool_FromLong(set);
}

static PyMethodDef set_attribute_method = {
    "set_attribute", (PyCFunction)(void (*)(void))span_set_attribute, METH_FASTCALL | METH_KEYWORDS,
    "set_attribute($self, key, value)\n--\n\nSet an attribute to any value."};
static PyMethodDef set_attributes_method = {
    "set_attributes", (PyCFunction)(void (*)(void))span_set_attributes, METH_FASTCALL | METH_KEYWORDS,
    "set_attributes($self, attributes)\n--\n\nSet attributes to any values, as many as a record may have."};
static PyMethodDef span_end_method = {
    "end", (PyCFunction)(void (*)(void))span_end, METH_FASTCALL | METH_KEYWORDS,
    "end($self, end_time=None)\n--\n\nEnd the span, now or at a given time."};

static PyObject *methods_of(PyObject *self, PyObject *args)
{
    PyObject *end, *set_one, *set_many;
    if (!PyArg_ParseTuple(args, "OOO", &end, &set_one, &set_many) || !knows())
        return NULL;
    replace(&end_slowly, end);
    replace(&set_slowly[0], set_one);
    replace(&set_slowly[1], set_many);
    PyTypeObject *type = (PyTypeObject *)part[P_SPAN];
    return Py_BuildValue("(NNN)", PyDescr_NewMethod(type, &span_end_method),
                         PyDescr_NewMethod(type, &set_attribute_method),
                         PyDescr_NewMethod(type, &set_attributes_method));
}
