/*
 * The start of a span that is like all others; what _fast/traces.py does in Python, part of _core.c.
 *
 * Start(tracer, slow): `span` is put in the place of the tracer's start_span. slow is the tracer's own
 * method, which is asked for every span that is not like all others.
 *
 * A span's fields are a copy of what all spans of its tracer have in common, with its own put in.
 */
static PyTypeObject *start_type;

typedef struct {
    PyObject_HEAD
    PyObject *tracer, *slow, *common, *held;  /* common: fields of a span; held: of its attributes */
    PyObject *made_of[6];  /* what `common` was made of; it keeps them */
    long most;             /* attributes of a span */
} Start;

static int start_traverse(Start *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->tracer); Py_VISIT(self->slow); Py_VISIT(self->common); Py_VISIT(self->held);
    return 0;
}

static int start_clear(Start *self)
{
    Py_CLEAR(self->tracer); Py_CLEAR(self->slow); Py_CLEAR(self->common); Py_CLEAR(self->held);
    return 0;
}

static void start_dealloc(Start *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    start_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *start_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *tracer, *slow;
    if (!PyArg_ParseTuple(args, "OO", &tracer, &slow) || !knows())
        return NULL;
    Start *self = (Start *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self) {
        self->tracer = Py_NewRef(tracer);
        self->slow = Py_NewRef(slow);
    }
    return (PyObject *)self;
}

/* Give an object these fields; takes both references. By attribute: PyObject_GenericSetDict leaves the
   values that 3.13 keeps inline in an object in force, and the fields would not be seen. */
static PyObject *with_fields(PyObject *object, PyObject *fields)
{
    if (object == NULL || fields == NULL || PyObject_SetAttrString(object, "__dict__", fields) < 0)
        Py_CLEAR(object);
    Py_XDECREF(fields);
    return object;
}

/* What all spans of the tracer have in common, made anew when something of it was replaced. */
static int prepare(Start *self, PyObject *tracer)
{
    static const int from[6] = {T_SAMPLER, T_PROCESSOR, T_LIMITS, T_INFO, T_SCOPE, T_RESOURCE};
    PyObject *found[6];
    int same = self->common != NULL;
    for (int i = 0; i < 6; i++) {
        if ((found[i] = own(tracer, from[i])) == NULL)
            return -1;
        same = same && found[i] == self->made_of[i];
    }
    if (same)
        return 0;
    PyObject *most = PyObject_GetAttr(found[2], t_name[T_MOST]), *none = NULL;
    PyObject *longest = most ? PyObject_GetAttr(found[2], t_name[T_LONGEST]) : NULL;
    /* Without a limit, and with one that cuts texts, the SDK does it. */
    long limit = longest == Py_None && PyLong_Check(most) ? PyLong_AsLong(most) : -1;
    PyObject *common = PyErr_Occurred() ? NULL : PyDict_New(), *held = common ? PyDict_New() : NULL;
    int failed = held == NULL
        || PyDict_SetItem(common, name_of[N_NAME], Py_None) < 0
        || PyDict_SetItem(common, name_of[N_CONTEXT], Py_None) < 0
        || PyDict_SetItem(common, name_of[N_KIND], Py_None) < 0
        || put_own(common, T_S_INFO, found[3]) < 0
        || PyDict_SetItem(common, name_of[N_INSTRUMENTATION_SCOPE], found[4]) < 0
        || PyDict_SetItem(common, name_of[N_PARENT], Py_None) < 0
        || PyDict_SetItem(common, name_of[N_START_TIME], Py_None) < 0
        || PyDict_SetItem(common, name_of[N_END_TIME], Py_None) < 0
        || PyDict_SetItem(common, name_of[N_ATTRIBUTES], Py_None) < 0
        || PyDict_SetItem(common, name_of[N_RESOURCE], found[5]) < 0
        || PyDict_SetItem(common, name_of[N_STATUS], part[P_UNSET]) < 0
        || put_own(common, T_S_SAMPLER, found[0]) < 0 || put_own(common, T_S_TRACE_CONFIG, Py_None) < 0
        || put_own(common, T_S_RECORD, Py_None) < 0 || put_own(common, T_S_STATUS, Py_None) < 0
        || put_own(common, T_S_PROCESSOR, found[1]) < 0 || put_own(common, T_S_LIMITS, found[2]) < 0
        || put_own(common, T_S_END_METRICS, part[P_NOOP]) < 0
        || put_own(common, T_S_CLOCKS, Py_None) < 0
        || PyDict_SetItem(held, name_of[N_DICT], Py_None) < 0 || put_own(held, T_MAXLEN, most) < 0
        || (none = PyLong_FromLong(0)) == NULL || PyDict_SetItem(held, name_of[N_DROPPED], none) < 0
        || put_own(held, T_MAX_VALUE_LEN, Py_None) < 0 || put_own(held, T_S_LOCK, Py_None) < 0
        || put_own(held, T_IMMUTABLE, Py_False) < 0;
    Py_XDECREF(none);
    Py_XDECREF(most);
    Py_XDECREF(longest);
    if (failed) {
        Py_XDECREF(common);
        Py_XDECREF(held);
        return -1;
    }
    PyObject *before = self->common, *held_before = self->held;
    memcpy(self->made_of, found, sizeof found);
    self->most = limit;
    self->common = common;
    self->held = held;
    Py_XDECREF(before);  /* last, because it may let other threads run */
    Py_XDECREF(held_before);
    return 0;
}

/* A copy of a dict that another thread may replace while this one makes the copy. */
static PyObject *copy_of(PyObject *dict)
{
    Py_XINCREF(dict);
    PyObject *copy = dict ? PyDict_Copy(dict) : NULL;
    Py_XDECREF(dict);
    return copy;
}

/* The attributes as a span holds them; `pairs` gets the dict inside, borrowed. */
static PyObject *hold(Start *self, PyObject *attributes, PyObject **pairs)
{
    PyObject *inner = attributes == Py_None ? PyDict_New() : PyDict_Copy(attributes);
    PyObject *lock = inner ? PyObject_CallNoArgs(part[P_LOCK]) : NULL;
    PyObject *fields = lock ? copy_of(self->held) : NULL, *held = NULL;
    if (fields && PyDict_SetItem(fields, name_of[N_DICT], inner) == 0 && put_own(fields, T_S_LOCK, lock) == 0)
        held = with_fields(allocate_held((PyTypeObject *)part[P_HELD], 0), Py_NewRef(fields));
    *pairs = inner;  /* kept by the fields */
    Py_XDECREF(fields);
    Py_XDECREF(lock);
    Py_XDECREF(inner);
    return held;
}

static PyObject *context_of(PyObject *ids, PyObject *parent)
{
    PyObject *fields = PyObject_GenericGetDict(ids, NULL), *trace_id = NULL, *flags = NULL, *context = NULL;
    PyObject *make_span_id = fields ? own(fields, T_SPAN_ID) : NULL, *span_id = NULL;
    if (make_span_id == NULL)
        goto done;
    Py_INCREF(make_span_id);  /* a test's capture exchanges it */
    if (parent != Py_None) {
        trace_id = Py_NewRef(PyTuple_GetItem(parent, 0));
        flags = part[PyLong_AsLong(PyTuple_GetItem(parent, 3)) & 2 ? P_RANDOM : P_SAMPLED];
    } else {
        PyObject *make_trace_id = own(fields, T_TRACE_ID), *random = own(fields, T_IS_RANDOM);
        if (make_trace_id == NULL || random == NULL)
            goto done;
        flags = part[random == Py_True ? P_RANDOM : P_SAMPLED];
        Py_INCREF(make_trace_id);
        trace_id = PyObject_CallNoArgs(make_trace_id);
        Py_DECREF(make_trace_id);
    }
    if (trace_id == NULL || (span_id = PyObject_CallNoArgs(make_span_id)) == NULL
        || (context = allocate_context((PyTypeObject *)part[P_SPAN_CONTEXT], 6)) == NULL)
        goto done;
    PyTuple_SetItem(context, 0, Py_NewRef(trace_id));
    PyTuple_SetItem(context, 1, Py_NewRef(span_id));
    PyTuple_SetItem(context, 2, Py_NewRef(Py_False));
    PyTuple_SetItem(context, 3, Py_NewRef(flags));
    PyTuple_SetItem(context, 4, Py_NewRef(parent == Py_None ? part[P_STATE] : PyTuple_GetItem(parent, 4)));
    PyTuple_SetItem(context, 5, Py_NewRef(Py_True));
done:
    Py_XDECREF(make_span_id);
    Py_XDECREF(span_id);
    Py_XDECREF(trace_id);
    Py_XDECREF(fields);
    return context;
}

/* Put back our handlers, if somebody removed one. */
static int ensure_handlers(void)
{
    PyObject *handlers = PyObject_GetAttr(part[P_ROOT], t_name[T_HANDLERS]);
    int there = handlers != NULL;
    for (Py_ssize_t i = 0; there == 1 && i < PyList_Size(part[P_OURS]); i++)
        there = PySequence_Contains(handlers, PyList_GetItem(part[P_OURS], i));
    Py_XDECREF(handlers);
    PyObject *done = there || PyErr_Occurred() ? NULL : PyObject_CallNoArgs(part[P_ENSURE]);
    Py_XDECREF(done);
    return PyErr_Occurred() ? -1 : 0;
}

/* The request that runs wants to know of some spans: of its server span, and all if their end decides. */
static int tell_request(PyObject *span, int server)
{
    PyObject *request = PyObject_CallNoArgs(part[P_REQUEST]);
    if (request == NULL || request == Py_None) {
        Py_XDECREF(request);
        return request == NULL ? -1 : 0;
    }
    PyObject *gate = PyObject_GetAttr(request, t_name[T_GATE]);
    PyObject *entry = gate ? PyObject_GetAttr(request, t_name[T_REQUEST_ENTRY]) : NULL, *done = NULL;
    if (entry && (PyLong_AsLong(gate) != 0 || (server && entry == Py_None)))
        done = PyObject_CallMethodObjArgs(request, t_name[T_STARTED], span, NULL);
    Py_XDECREF(done);
    Py_XDECREF(entry);
    Py_XDECREF(gate);
    Py_DECREF(request);
    return PyErr_Occurred() ? -1 : 0;
}

/* The ids in force, on the span. */
static int stamp_ids(Start *self, PyObject *span, PyObject *pairs, PyObject *context)
{
    PyObject *ids = ids_in(context), *done = NULL;
    if (ids && PyDict_Check(ids) && PyDict_Size(pairs) + PyDict_Size(ids) <= self->most)
        PyDict_Update(pairs, ids);
    else if (ids)
        done = PyObject_CallFunctionObjArgs(part[P_STAMP], span, ids, NULL);
    Py_XDECREF(done);
    Py_XDECREF(ids);
    return PyErr_Occurred() ? -1 : 0;
}

/* What our processors do at the start; its failure is said and costs the span nothing. */
static int begin(Start *self, PyObject *span, PyObject *fields, PyObject *pairs, PyObject *context,
                 PyObject *kind, PyObject *above)
{
    int entry = kind == part[P_SERVER] || kind == part[P_CONSUMER];
    PyObject *of = entry ? span : above ? PyDict_GetItemWithError(above, part[P_ENTRY]) : NULL;
    if (tell_request(span, kind == part[P_SERVER]) == 0 && ensure_handlers() == 0
        && stamp_ids(self, span, pairs, context) == 0 && of != NULL)
        PyDict_SetItem(fields, part[P_ENTRY], of);
    if (!PyErr_Occurred())
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *type, *value, *stack;
    PyErr_Fetch(&type, &value, &stack);
    PyErr_NormalizeException(&type, &value, &stack);
    PyObject *done = PyObject_CallFunctionObjArgs(part[P_FAILED], value, NULL);
    Py_XDECREF(done);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(stack);
    return done ? 0 : -1;
}

enum { S_NAME, S_CONTEXT, S_KIND, S_ATTRIBUTES, S_LINKS, S_TIME, S_RECORD, S_STATUS, SAID };
static const char *const said_texts[SAID] = {
    "name", "context", "kind", "attributes", "links", "start_time", "record_exception",
    "set_status_on_exception"};

static PyObject *fill(Start *self, PyObject **said, PyObject *context, PyObject *above, PyObject *parent, PyObject *ids)
{
    PyObject *pairs, *span = NULL, *fields = NULL, *clocks = NULL, *own_context = NULL;
    PyObject *held = hold(self, said[S_ATTRIBUTES], &pairs);
    if (held == NULL || (own_context = context_of(ids, parent)) == NULL
        || (fields = copy_of(self->common)) == NULL)
        goto failed;
    long long wall = clock_ns(CLOCK_REALTIME);
    if ((clocks = Py_BuildValue("(LL)", wall, clock_ns(CLOCK_MONOTONIC))) == NULL)
        goto failed;
    PyObject *start = said[S_TIME] == Py_None ? PyTuple_GetItem(clocks, 0) : said[S_TIME];
    if (PyDict_SetItem(fields, name_of[N_NAME], said[S_NAME]) < 0
        || PyDict_SetItem(fields, name_of[N_CONTEXT], own_context) < 0
        || PyDict_SetItem(fields, name_of[N_KIND], said[S_KIND]) < 0
        || (parent != Py_None && PyDict_SetItem(fields, name_of[N_PARENT], parent) < 0)
        || PyDict_SetItem(fields, name_of[N_START_TIME], start) < 0
        || PyDict_SetItem(fields, name_of[N_ATTRIBUTES], held) < 0
        || put_own(fields, T_S_RECORD, said[S_RECORD]) < 0 || put_own(fields, T_S_STATUS, said[S_STATUS]) < 0
        || put_own(fields, T_S_CLOCKS, clocks) < 0)
        goto failed;
    span = with_fields(allocate_span((PyTypeObject *)part[P_SPAN], 0), Py_NewRef(fields));
    if (span && begin(self, span, fields, pairs, context, said[S_KIND], above) < 0)
        Py_CLEAR(span);
failed:
    Py_XDECREF(clocks);
    Py_XDECREF(fields);
    Py_XDECREF(own_context);
    Py_XDECREF(held);
    return span;
}

/* Whether a list of links, or what is given for it, is empty. */
static int no_links(PyObject *links)
{
    return links == Py_None || (PyTuple_CheckExact(links) && PyTuple_Size(links) == 0)
           || (PyList_CheckExact(links) && PyList_Size(links) == 0);
}

/* A span, or NULL without an error when the tracer's own method has to make it. */
static PyObject *quick(Start *self, PyObject **said)
{
    PyObject *tracer = PyObject_GenericGetDict(self->tracer, NULL), *context = NULL, *span = NULL, *above = NULL;
    PyObject *enabled = NULL, *attributes = said[S_ATTRIBUTES];
    if (tracer == NULL || !no_links(said[S_LINKS]) || own(tracer, T_SAMPLER) != part[P_DEFAULT_ON])
        goto done;
    PyObject *processors = own(tracer, T_PROCESSOR), *ids = own(tracer, T_IDS), *config = own(tracer, T_CONFIG);
    PyObject *metrics = own(tracer, T_METRICS);
    if (!processors || Py_TYPE(processors) != (PyTypeObject *)part[P_PROCESSORS]
        || !ids || Py_TYPE(ids) != (PyTypeObject *)part[P_IDS]
        || !metrics || Py_TYPE(metrics) != (PyTypeObject *)part[P_QUIET]
        || !config || (enabled = PyObject_GetAttr(config, t_name[T_IS_ENABLED])) != Py_True
        || delivery_of(processors) == NULL || prepare(self, tracer) < 0)
        goto done;
    if (attributes != Py_None
        && (!PyDict_CheckExact(attributes) || PyDict_Size(attributes) > self->most || !plainness(attributes)))
        goto done;
    context = said[S_CONTEXT] == Py_None ? PyObject_CallNoArgs(part[P_CURRENT]) : Py_NewRef(said[S_CONTEXT]);
    if (self->most < 0 || context == NULL || !PyDict_Check(context))
        goto done;
    PyObject *parent = parent_of(PyDict_GetItemWithError(context, part[P_SPAN_KEY]), &above);
    /* Below a parent that is not sampled there is nothing to record. */
    if (!PyErr_Occurred() && parent != NULL
        && (parent == Py_None || PyLong_AsLong(PyTuple_GetItem(parent, 3)) & 1)) {
        Py_INCREF(ids);
        span = fill(self, said, context, above, parent, ids);
        Py_DECREF(ids);
    }
done:
    Py_XDECREF(above);
    Py_XDECREF(context);
    Py_XDECREF(enabled);
    Py_XDECREF(tracer);
    return span;
}

static PyObject *start_span(Start *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *said[SAID] = {NULL, Py_None, part[P_INTERNAL], Py_None, Py_None, Py_None, Py_True, Py_True};
    Py_ssize_t more = keywords ? PyTuple_Size(keywords) : 0;
    int fits = count <= SAID;
    for (Py_ssize_t i = 0; fits && i < count; i++)
        said[i] = args[i];
    for (Py_ssize_t i = 0; fits && i < more; i++) {
        PyObject *name = PyTuple_GetItem(keywords, i);
        int at = 0;
        while (at < SAID && PyUnicode_CompareWithASCIIString(name, said_texts[at]) != 0)
            at++;
        fits = at < SAID && at >= count;
        if (fits)
            said[at] = args[count + i];
    }
    PyObject *span = fits && said[S_NAME] ? quick(self, said) : NULL;
    if (span)
        return span;
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;  /* an interrupt */
        PyErr_Clear();
    }
    return call_with(self->slow, NULL, args, count, keywords);
}

static PyMethodDef start_methods[] = {
    {"span", (PyCFunction)(void (*)(void))start_span, METH_FASTCALL | METH_KEYWORDS,
     "span(name, context=None, kind=SpanKind.INTERNAL, attributes=None, links=(), start_time=None,"
     " record_exception=True, set_status_on_exception=True)\n--\n\nStart a span."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot start_slots[] = {
    {Py_tp_new, start_new}, {Py_tp_dealloc, start_dealloc}, {Py_tp_traverse, start_traverse},
    {Py_tp_clear, start_clear}, {Py_tp_methods, start_methods},
    {Py_tp_doc, "Starts the spans of one tracer."}, {0, NULL},
};
static PyType_Spec start_spec = {"telemetry._core.Start", sizeof(Start), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, start_slots};

static int add_tracers(PyObject *module)
{
    if (!start_type && !(start_type = (PyTypeObject *)PyType_FromSpec(&start_spec)))
        return -1;
    return PyModule_AddObjectRef(module, "Start", (PyObject *)start_type);
}
