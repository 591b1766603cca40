/*
 * A log record on its way to the courier; what Lines.send of _fast/logs.py does in Python, part of _core.c.
 *
 * Send(slow, courier): `send` is put in the place of slow(out, time_ns, level, text, body, attributes,
 * event), which is asked for a record of a request that may not let it pass, and for every other doubt.
 */
static PyTypeObject *send_type;

typedef struct {
    PyObject_HEAD
    PyObject *slow, *courier;
} Send;

static int send_traverse(Send *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->slow); Py_VISIT(self->courier);
    return 0;
}

static int send_clear(Send *self)
{
    Py_CLEAR(self->slow); Py_CLEAR(self->courier);
    return 0;
}

static void send_dealloc(Send *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    send_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *send_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *slow, *courier;
    if (!PyArg_ParseTuple(args, "OO", &slow, &courier) || !knows())
        return NULL;
    Send *self = (Send *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self) {
        self->slow = Py_NewRef(slow);
        self->courier = Py_NewRef(courier);
    }
    return (PyObject *)self;
}

/* Whether the request that runs, if there is one, lets its records pass; -1 with an error. */
static int passes(void)
{
    PyObject *request = PyObject_CallNoArgs(part[P_REQUEST]);
    PyObject *gate = request && request != Py_None ? PyObject_GetAttr(request, t_name[T_GATE]) : NULL;
    int open = gate ? PyLong_AsLong(gate) == 0 : request == Py_None;
    Py_XDECREF(gate);
    Py_XDECREF(request);
    return PyErr_Occurred() ? -1 : open;
}

/* stdlib's level as OpenTelemetry's severity number. */
static long severity_of(long level)
{
    level = level < 0 ? 0 : level > 53 ? 53 : level;
    if (level < 10)
        return level < 6 ? level > 0 : level < 9 ? level - 4 : 4; /* TRACE, which loggers number 5 */
    return level / 10 * 4 + 1 + (level % 10 < 3 ? level % 10 : 3);
}

enum { L_OUT, L_TIME, L_LEVEL, L_TEXT, L_BODY, L_ATTRIBUTES, L_EVENT, L_ARGUMENTS };

/* The record as `_wire.Line`, and its size; NULL when Python has to make it. */
static PyObject *line_of(PyObject **said, PyObject *fields, PyObject **size, PyObject **important)
{
    PyObject *context = PyObject_CallNoArgs(part[P_CURRENT]), *above = NULL, *line = NULL, *number = NULL;
    PyObject *ids = context && PyDict_Check(context) ? ids_in(context) : NULL, *merged = NULL;
    PyObject *span = ids ? PyDict_GetItemWithError(context, part[P_SPAN_KEY]) : NULL;
    PyObject *resource = own(fields, T_L_RESOURCE), *scope = own(fields, T_SCOPE);
    if (!ids || !PyDict_Check(ids) || !resource || !scope || PyErr_Occurred())
        goto done;
    PyObject *here = parent_of(span, &above), *zero = part[P_ZERO];
    merged = PyDict_Size(ids) ? PyDict_Copy(ids) : Py_NewRef(said[L_ATTRIBUTES]);
    if (!here || !merged || (merged != said[L_ATTRIBUTES] && PyDict_Update(merged, said[L_ATTRIBUTES]) < 0))
        goto done;
    long severity = severity_of(PyLong_AsLong(said[L_LEVEL]));
    Py_ssize_t bytes = 200 + PyUnicode_GetLength(said[L_BODY]);
    if (PyErr_Occurred() || add_weight(&bytes, merged, part[P_WEIGH], NESTED) < 0)
        goto done;
    int audit = severity < 17 ? PyDict_Contains(merged, part[P_AUDIT]) : 1;
    PyObject *text = PyDict_GetItemWithError(part[P_TEXTS], said[L_TEXT]);
    if (audit < 0 || PyErr_Occurred() || !(number = PyLong_FromLong(severity)) || !(*size = PyLong_FromSsize_t(bytes)))
        goto done;
    *important = audit ? Py_True : Py_False;
    int known = here != Py_None;
    line = PyTuple_Pack(12, said[L_TIME], said[L_TIME], number, text ? text : said[L_TEXT], said[L_BODY], merged,
                        known ? PyTuple_GetItem(here, 0) : zero, known ? PyTuple_GetItem(here, 1) : zero,
                        known ? PyTuple_GetItem(here, 3) : zero, said[L_EVENT], resource, scope);
done:
    Py_XDECREF(number);
    Py_XDECREF(merged);
    Py_XDECREF(above);
    Py_XDECREF(ids);
    Py_XDECREF(context);
    return line;
}

/* 1: sent; 0: Python has to do it; -1 with an error. */
static int send_quickly(Send *self, PyObject **said)
{
    PyObject *fields = PyObject_GenericGetDict(said[L_OUT], NULL), *enabled = NULL, *line = NULL, *size = NULL;
    PyObject *config = fields ? own(fields, T_L_CONFIG) : NULL, *metrics = fields ? own(fields, T_L_METRICS) : NULL;
    PyObject *important;
    int sent = 0;
    if (!config || !metrics || Py_TYPE(metrics) != (PyTypeObject *)part[P_QUIET_LOGS]
        || !PyUnicode_Check(said[L_BODY]) || !PyDict_CheckExact(said[L_ATTRIBUTES]) || !PyLong_Check(said[L_LEVEL])
        || (enabled = PyObject_GetAttr(config, t_name[T_IS_ENABLED])) != Py_True || passes() != 1)
        goto done;
    if ((line = line_of(said, fields, &size, &important)) != NULL) {
        PyObject *put = put_to(self->courier, line, size, important);
        sent = put ? 1 : -1;
        Py_XDECREF(put);
    }
done:
    Py_XDECREF(size);
    Py_XDECREF(line);
    Py_XDECREF(enabled);
    Py_XDECREF(fields);
    return sent;
}

static PyObject *send_send(Send *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *said[L_ARGUMENTS];
    int fits = !keywords && (count == L_ARGUMENTS || count == L_EVENT);
    for (Py_ssize_t i = 0; fits && i < L_ARGUMENTS; i++)
        said[i] = i < count ? args[i] : Py_None;
    int sent = fits ? send_quickly(self, said) : 0;
    if (sent)
        return sent > 0 ? Py_NewRef(Py_None) : NULL;
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;  /* an interrupt */
        PyErr_Clear();
    }
    return call_with(self->slow, NULL, args, count, keywords);
}

static PyMethodDef send_methods[] = {
    {"send", (PyCFunction)(void (*)(void))send_send, METH_FASTCALL | METH_KEYWORDS,
     "send(out, time_ns, level, text, body, attributes, event=None)\n--\n\nAdd what our processors add, and queue."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot send_slots[] = {
    {Py_tp_new, send_new}, {Py_tp_dealloc, send_dealloc}, {Py_tp_traverse, send_traverse},
    {Py_tp_clear, send_clear}, {Py_tp_methods, send_methods},
    {Py_tp_doc, "Sends the log records of one pipeline."}, {0, NULL},
};
static PyType_Spec send_spec = {"telemetry._core.Send", sizeof(Send), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, send_slots};

static int add_send(PyObject *module)
{
    if (!send_type && !(send_type = (PyTypeObject *)PyType_FromSpec(&send_spec)))
        return -1;
    return PyModule_AddObjectRef(module, "Send", (PyObject *)send_type);
}
