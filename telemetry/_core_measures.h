/*
 * Measurements whose attributes repeat; what _fast/metrics.py does in Python, part of _core.c.
 *
 * Measure(instrument, slow, least, consumer, remember, current, begun, filter, span_key): `take` is put in
 * the place of the instrument's method. slow(amount, attributes, context) is the SDK's method;
 * remember(attributes) gives, after it, the ways that measurements with these attributes take from now
 * on, as a tuple, or None when they are not to be remembered; current() gives the context; begun() is
 * called before the first measurement of a process, unless it is None; filter(amount, attributes,
 * context) says what an exemplar is of, and None stands for the filter that takes what a sampled span
 * has measured.
 * A way that is no `Way` of _core_ways.h is called with amount, the span of the exemplar or None, and
 * the context.
 */
#define KEPT 256  /* attribute sets that are remembered */
#define LABELS 8  /* attributes that one of them has at most */

static PyTypeObject *measure_type;

typedef struct {
    Py_hash_t hash;
    Py_ssize_t count;
    PyObject *names[LABELS], *values[LABELS], *ways;
} Remembered;

typedef struct {
    PyObject_HEAD
    PyObject *instrument, *slow, *consumer, *remember, *current, *begun, *filter, *span_key, *storages;
    double least;
    pid_t pid;
    Remembered *known[2 * KEPT];  /* by hash, the next free place when that is taken */
    Py_ssize_t used;
} Measure;

static void forget(Measure *self)
{
    for (int at = 0; at < 2 * KEPT; at++) {
        Remembered *each = self->known[at];
        self->known[at] = NULL;
        for (Py_ssize_t i = 0; each && i < each->count; i++) {
            Py_XDECREF(each->names[i]);
            Py_XDECREF(each->values[i]);
        }
        if (each)
            Py_XDECREF(each->ways);
        PyMem_Free(each);
    }
    self->used = 0;
}

static int measure_traverse(Measure *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->instrument); Py_VISIT(self->slow); Py_VISIT(self->consumer); Py_VISIT(self->remember);
    Py_VISIT(self->current); Py_VISIT(self->begun); Py_VISIT(self->filter); Py_VISIT(self->span_key);
    Py_VISIT(self->storages);
    for (int at = 0; at < 2 * KEPT; at++)
        if (self->known[at])
            Py_VISIT(self->known[at]->ways);  /* names and values are texts and numbers */
    return 0;
}

static int measure_clear(Measure *self)
{
    Py_CLEAR(self->instrument); Py_CLEAR(self->slow); Py_CLEAR(self->consumer); Py_CLEAR(self->remember);
    Py_CLEAR(self->current); Py_CLEAR(self->begun); Py_CLEAR(self->filter); Py_CLEAR(self->span_key);
    Py_CLEAR(self->storages);
    forget(self);
    return 0;
}

static void measure_dealloc(Measure *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    measure_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *measure_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *instrument, *slow, *consumer, *remember, *current, *begun, *filter, *span_key;
    double least;
    if (!PyArg_ParseTuple(args, "OOdOOOOOO", &instrument, &slow, &least, &consumer, &remember, &current,
                          &begun, &filter, &span_key))
        return NULL;
    Measure *self = (Measure *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self)
        return NULL;
    self->instrument = Py_NewRef(instrument);
    self->slow = Py_NewRef(slow);
    self->least = least;
    self->consumer = Py_NewRef(consumer);
    self->remember = Py_NewRef(remember);
    self->current = Py_NewRef(current);
    self->begun = Py_NewRef(begun);
    self->filter = Py_NewRef(filter);
    self->span_key = Py_NewRef(span_key);
    self->storages = Py_NewRef(Py_None);
    return (PyObject *)self;
}

/* The pairs of a set; -1 when it has others than are remembered. */
static Py_ssize_t pairs_of(PyObject *attributes, PyObject **names, PyObject **values, Py_hash_t *hash)
{
    Py_ssize_t position = 0, count = 0;
    PyObject *name, *value;
    *hash = 7;
    if (attributes == Py_None)
        return 0;
    while (PyDict_Next(attributes, &position, &name, &value)) {
        if (count == LABELS || !PyUnicode_CheckExact(name)
            || !(PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value)
                 || PyBool_Check(value)))
            return -1;
        /* The type, too: 1, True and 1.0 are one key to Python and three to OpenTelemetry. */
        *hash = *hash * 1000003 ^ PyObject_Hash(name);
        *hash = *hash * 1000003 ^ PyObject_Hash(value) ^ (Py_hash_t)((uintptr_t)Py_TYPE(value) >> 4);
        names[count] = name;
        values[count++] = value;
    }
    return count;
}

static int same(const Remembered *known, PyObject **names, PyObject **values)
{
    for (Py_ssize_t i = 0; i < known->count; i++) {
        if (known->names[i] != names[i] && PyObject_RichCompareBool(known->names[i], names[i], Py_EQ) != 1)
            return 0;
        if (known->values[i] != values[i]
            && (Py_TYPE(known->values[i]) != Py_TYPE(values[i])
                || PyObject_RichCompareBool(known->values[i], values[i], Py_EQ) != 1))
            return 0;
    }
    return 1;
}

/* The place where a set is, or where it would be put. */
static Remembered **place_of(Measure *self, Py_hash_t hash, Py_ssize_t count, PyObject **names, PyObject **values)
{
    size_t at = (size_t)hash % (2 * KEPT);
    while (self->known[at] && !(self->known[at]->hash == hash && self->known[at]->count == count
                                && same(self->known[at], names, values)))
        at = (at + 1) % (2 * KEPT);
    return &self->known[at];
}

/* Ask where measurements with these attributes go, now that the SDK has made the place. */
static int learn(Measure *self, PyObject *attributes)
{
    PyObject *names[LABELS], *values[LABELS];
    Py_hash_t hash;
    PyObject *storages = PyObject_GetAttr(self->consumer, m_name[M_STORAGES]);
    if (!storages)
        return -1;
    if (storages != self->storages) {
        PyObject *before = self->storages;
        forget(self);
        self->storages = Py_NewRef(storages);
        Py_DECREF(before);
    }
    Py_DECREF(storages);
    if (self->used >= KEPT)
        return 0;
    /* A copy, because the application may change its own while others look. */
    PyObject *labels = attributes == Py_None ? PyDict_New() : PyDict_Copy(attributes);
    Py_ssize_t count = labels ? pairs_of(labels, names, values, &hash) : -1;
    PyObject *ways = count < 0 ? NULL : PyObject_CallFunctionObjArgs(self->remember, labels, NULL);
    Remembered **place = NULL, *made = NULL;
    if (ways && PyTuple_CheckExact(ways) && self->used < KEPT)
        place = place_of(self, hash, count, names, values);
    if (place && !*place && (made = PyMem_Calloc(1, sizeof *made))) {
        made->hash = hash;
        made->count = count;
        made->ways = Py_NewRef(ways);
        for (Py_ssize_t i = 0; i < count; i++) {
            made->names[i] = Py_NewRef(names[i]);
            made->values[i] = Py_NewRef(values[i]);
        }
        *place = made;
        self->used++;
    }
    Py_XDECREF(ways);
    Py_XDECREF(labels);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *span_context_of(PyObject *span)
{
    if (Py_TYPE(span) != (PyTypeObject *)part[P_SPAN])
        return PyObject_CallMethodObjArgs(span, m_name[M_GET_SPAN_CONTEXT], NULL);
    PyObject *fields = PyObject_GenericGetDict(span, NULL), *here = fields ? field(fields, N_CONTEXT) : NULL;
    if (here == NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_AttributeError, "a span without a context");
    Py_XINCREF(here);
    Py_XDECREF(fields);
    return here;
}

/* The context of the span whose exemplar this is, None for none; NULL when only the SDK can say. */
static PyObject *exemplar_of(Measure *self, PyObject *amount, PyObject *attributes, PyObject *context)
{
    if (self->filter != Py_None)
        return PyObject_CallFunctionObjArgs(self->filter, amount, attributes, context, NULL);
    PyObject *span = PyObject_CallMethodObjArgs(context, m_name[M_GET], self->span_key, NULL);
    if (!span || span == Py_None)
        return span;
    PyObject *here = span_context_of(span);
    Py_DECREF(span);
    PyObject *flags = here && PyTuple_Check(here) ? PyTuple_GetItem(here, 3) : NULL;
    long sampled = flags ? PyLong_AsLong(flags) : -1;
    if (sampled == -1 || !(sampled & 1)) {
        Py_XDECREF(here);
        return flags && !PyErr_Occurred() ? Py_NewRef(Py_None) : NULL;
    }
    return here;
}

static PyObject *take_slowly(Measure *self, PyObject *amount, PyObject *attributes, PyObject *context)
{
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;  /* an interrupt */
        PyErr_Clear();
    }
    return PyObject_CallFunctionObjArgs(self->slow, amount, attributes, context, NULL);
}

static int is_off(Measure *self)
{
    PyObject *config = PyObject_GetAttr(self->instrument, m_name[M_METER_CONFIG]);
    PyObject *enabled = config && config != Py_None ? PyObject_GetAttr(config, m_name[M_IS_ENABLED]) : NULL;
    int off = enabled ? !PyObject_IsTrue(enabled) : 0;
    Py_XDECREF(config);
    Py_XDECREF(enabled);
    return PyErr_Occurred() ? -1 : off;
}

static PyObject *take_ways(PyObject *ways, PyObject *amount, double number, PyObject *span, PyObject *context)
{
    int failed = 0;
    Py_INCREF(ways);  /* another thread may forget them meanwhile */
    for (Py_ssize_t i = 0; !failed && i < PyTuple_Size(ways); i++) {
        PyObject *way = PyTuple_GetItem(ways, i);
        if (Py_TYPE(way) == way_type)
            failed = go((Way *)way, amount, number, span) < 0;
        else {
            PyObject *done = PyObject_CallFunctionObjArgs(way, amount, span, context, NULL);
            failed = !done;
            Py_XDECREF(done);
        }
    }
    Py_DECREF(ways);
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyObject *measure_taken(Measure *self, PyObject *amount, PyObject *attributes, PyObject *context)
{
    PyObject *names[LABELS], *values[LABELS];
    Py_hash_t hash;
    int whole = PyLong_CheckExact(amount);
    double number = whole || PyFloat_CheckExact(amount) ? PyFloat_AsDouble(amount) : NAN;
    if (!(self->least <= number && number < INFINITY) || number == -INFINITY
        || (whole && fabs(number) > 9007199254740992.0)
        || (attributes != Py_None && !PyDict_CheckExact(attributes)))
        return take_slowly(self, amount, attributes, context);
    int off = is_off(self);
    if (off)
        return off < 0 ? NULL : Py_NewRef(Py_None);
    if (self->begun != Py_None && self->pid != this_process) {
        PyObject *done = PyObject_CallNoArgs(self->begun);
        if (!done)
            return take_slowly(self, amount, attributes, context);
        Py_DECREF(done);
        self->pid = this_process;
    }
    int given = context == Py_None ? 0 : PyObject_IsTrue(context);
    PyObject *here = given > 0 ? Py_NewRef(context) : PyObject_CallNoArgs(self->current);
    PyObject *span = here ? exemplar_of(self, amount, attributes, here) : NULL;
    PyObject *storages = span ? PyObject_GetAttr(self->consumer, m_name[M_STORAGES]) : NULL;
    PyObject *done = NULL;
    if (!storages)
        done = take_slowly(self, amount, attributes, context);
    else {
        Py_ssize_t count = pairs_of(attributes, names, values, &hash);
        Remembered *known = storages != self->storages || count < 0
            ? NULL : *place_of(self, hash, count, names, values);
        if (known)
            done = take_ways(known->ways, amount, number, span, here);
        else {
            done = take_slowly(self, amount, attributes, context);
            if (done && count >= 0 && learn(self, attributes) < 0)
                Py_CLEAR(done);
        }
    }
    Py_XDECREF(storages);
    Py_XDECREF(span);
    Py_XDECREF(here);
    return done;
}

static PyObject *measure_take(Measure *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const known[] = {"amount", "attributes", "context"};
    PyObject *found[3] = {NULL, Py_None, Py_None};
    Py_ssize_t more = keywords ? PyTuple_Size(keywords) : 0;
    if (count > 3) {
        PyErr_SetString(PyExc_TypeError, "a measurement has amount, attributes and context");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        found[i] = args[i];
    for (Py_ssize_t i = 0; i < more; i++) {
        PyObject *name = PyTuple_GetItem(keywords, i);
        int at = 0;
        while (at < 3 && PyUnicode_CompareWithASCIIString(name, known[at]) != 0)
            at++;
        if (at == 3 || at < count) {
            PyErr_Format(PyExc_TypeError, "a measurement has amount, attributes and context, not %R once more", name);
            return NULL;
        }
        found[at] = args[count + i];
    }
    if (!found[0]) {
        PyErr_SetString(PyExc_TypeError, "a measurement needs an amount");
        return NULL;
    }
    return measure_taken(self, found[0], found[1], found[2]);
}

static PyMethodDef measure_methods[] = {
    {"take", (PyCFunction)(void (*)(void))measure_take, METH_FASTCALL | METH_KEYWORDS,
     "take(amount, attributes=None, context=None)\n--\n\nTake a measurement."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot measure_slots[] = {
    {Py_tp_new, measure_new}, {Py_tp_dealloc, measure_dealloc}, {Py_tp_traverse, measure_traverse},
    {Py_tp_clear, measure_clear}, {Py_tp_methods, measure_methods},
    {Py_tp_doc, "Takes the measurements of one instrument."}, {0, NULL},
};
static PyType_Spec measure_spec = {"telemetry._core.Measure", sizeof(Measure), 0,
                                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, measure_slots};
static int add_measures(PyObject *module)
{
    for (int name = 0; name < M_NAMES; name++)
        if (!m_name[name] && !(m_name[name] = PyUnicode_InternFromString(measure_texts[name])))
            return -1;
    PyObject *random = PyImport_ImportModule("random");
    draw = random ? PyObject_GetAttrString(random, "random") : NULL;
    Py_XDECREF(random);
    if (!draw)
        return -1;
    if (!way_type && !(way_type = (PyTypeObject *)PyType_FromSpec(&way_spec)))
        return -1;
    if (!measure_type && !(measure_type = (PyTypeObject *)PyType_FromSpec(&measure_spec)))
        return -1;
    return PyModule_AddObjectRef(module, "Way", (PyObject *)way_type) < 0
                   || PyModule_AddObjectRef(module, "Measure", (PyObject *)measure_type) < 0
               ? -1 : 0;
}
