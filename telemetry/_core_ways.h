/*
 * Where measurements with known attributes go, part of _core.c; _core_measures.h finds the way.
 *
 * Way(kind, found, labels): a sum ("s") or explicit buckets ("b") of the SDK, taken under its lock, with
 * an exemplar as the SDK keeps it.
 */
#include <math.h>
#include <time.h>
#include <unistd.h>

enum {
    M_VALUE, M_SUM, M_MIN, M_MAX, M_LOCK, M_RESERVOIR, M_BOUNDARIES, M_RECORD_MIN_MAX, M_STORAGE, M_SIZE, M_SEEN,
    M_METER_CONFIG, M_IS_ENABLED, M_STORAGES, M_GET_SPAN_CONTEXT, M_E_VALUE, M_E_TIME, M_E_ATTRIBUTES,
    M_E_OFFERED, M_E_TRACE, M_E_SPAN, M_GET, M_NAMES
};
static const char *const measure_texts[M_NAMES] = {
    "_value", "_sum", "_min", "_max", "_lock", "_reservoir", "_boundaries", "_record_min_max",
    "_reservoir_storage", "_size", "_measurements_seen", "_meter_config", "is_enabled", "_reader_storages",
    "get_span_context", "_ExemplarBucket__value", "_ExemplarBucket__time_unix_nano",
    "_ExemplarBucket__attributes", "_ExemplarBucket__offered", "_ExemplarBucket__trace_id",
    "_ExemplarBucket__span_id", "get"};
static PyObject *m_name[M_NAMES];

typedef struct {
    PyObject_HEAD
    PyObject *found, *labels, *acquire, *release, *reservoir, *offer, *done;
    double *bounds;
    Py_ssize_t count;  /* of the bounds */
    int buckets, extremes;
} Way;

static PyTypeObject *way_type;
static PyObject *draw;  /* random.random */

static int way_traverse(Way *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->found); Py_VISIT(self->labels); Py_VISIT(self->acquire); Py_VISIT(self->release);
    Py_VISIT(self->reservoir); Py_VISIT(self->offer); Py_VISIT(self->done);
    return 0;
}

static int way_clear(Way *self)
{
    Py_CLEAR(self->found); Py_CLEAR(self->labels); Py_CLEAR(self->acquire); Py_CLEAR(self->release);
    Py_CLEAR(self->reservoir); Py_CLEAR(self->offer); Py_CLEAR(self->done);
    return 0;
}

static void way_dealloc(Way *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    way_clear(self);
    PyMem_Free(self->bounds);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* A bound method of a lock, by name. */
static PyObject *method_of_lock(PyObject *owner, const char *name)
{
    PyObject *lock = PyObject_GetAttr(owner, m_name[M_LOCK]);
    PyObject *method = lock ? PyObject_GetAttrString(lock, name) : NULL;
    Py_XDECREF(lock);
    return method;
}

static int read_bounds(Way *self)
{
    PyObject *given = PyObject_GetAttr(self->found, m_name[M_BOUNDARIES]);
    PyObject *bounds = given ? PySequence_List(given) : NULL;
    Py_XDECREF(given);
    if (!bounds)
        return -1;
    self->count = PyList_Size(bounds);
    self->bounds = PyMem_Malloc(sizeof(double) * (size_t)(self->count + 1));
    if (!self->bounds)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; self->bounds && i < self->count && !PyErr_Occurred(); i++)
        self->bounds[i] = PyFloat_AsDouble(PyList_GetItem(bounds, i));
    Py_DECREF(bounds);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *way_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *found, *labels;
    int kind;
    if (!PyArg_ParseTuple(args, "COO!", &kind, &found, &PyDict_Type, &labels))
        return NULL;
    Way *self = (Way *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self)
        return NULL;
    self->found = Py_NewRef(found);
    self->labels = Py_NewRef(labels);
    self->buckets = kind == 'b';
    self->acquire = method_of_lock(found, "acquire");
    self->release = self->acquire ? method_of_lock(found, "release") : NULL;
    self->reservoir = self->release ? PyObject_GetAttr(found, m_name[M_RESERVOIR]) : NULL;
    self->offer = self->reservoir ? method_of_lock(self->reservoir, "acquire") : NULL;
    self->done = self->offer ? method_of_lock(self->reservoir, "release") : NULL;
    if (self->done && self->buckets) {
        PyObject *extremes = PyObject_GetAttr(found, m_name[M_RECORD_MIN_MAX]);
        self->extremes = extremes ? PyObject_IsTrue(extremes) : -1;
        Py_XDECREF(extremes);
        if (self->extremes >= 0)
            read_bounds(self);
    }
    if (PyErr_Occurred())
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* Replace an attribute by itself plus an amount. */
static int add_to(PyObject *owner, PyObject *name, PyObject *amount)
{
    PyObject *before = PyObject_GetAttr(owner, name);
    PyObject *after = before ? PyNumber_Add(before, amount) : NULL;
    int failed = after ? PyObject_SetAttr(owner, name, after) : -1;
    Py_XDECREF(before);
    Py_XDECREF(after);
    return failed;
}

/* Replace an attribute by an amount that is less, or more. */
static int push_to(PyObject *owner, PyObject *name, PyObject *amount, int how)
{
    PyObject *before = PyObject_GetAttr(owner, name);
    int further = before ? PyObject_RichCompareBool(amount, before, how) : -1;
    Py_XDECREF(before);
    return further > 0 ? PyObject_SetAttr(owner, name, amount) : further;
}

static int add_to_sum(Way *self, PyObject *amount)
{
    PyObject *before = PyObject_GetAttr(self->found, m_name[M_VALUE]);
    PyObject *after = !before ? NULL : before == Py_None ? Py_NewRef(amount) : PyNumber_Add(before, amount);
    int failed = after ? PyObject_SetAttr(self->found, m_name[M_VALUE], after) : -1;
    Py_XDECREF(before);
    Py_XDECREF(after);
    return failed;
}

static int add_to_bucket(Way *self, PyObject *amount, Py_ssize_t index)
{
    PyObject *counts = PyObject_GetAttr(self->found, m_name[M_VALUE]);
    if (counts == Py_None) {
        Py_DECREF(counts);
        counts = PyList_New(self->count + 1);
        for (Py_ssize_t i = 0; counts && i <= self->count; i++)
            PyList_SetItem(counts, i, PyLong_FromLong(0));
        if (counts && PyObject_SetAttr(self->found, m_name[M_VALUE], counts) < 0)
            Py_CLEAR(counts);
    }
    if (!counts)
        return -1;
    PyObject *before = PyList_GetItem(counts, index);  /* borrowed */
    Py_ssize_t number = before ? PyLong_AsSsize_t(before) : -1;
    PyObject *after = number < 0 ? NULL : PyLong_FromSsize_t(number + 1);
    int failed = !after || PyList_SetItem(counts, index, after) < 0;
    Py_DECREF(counts);
    if (failed || add_to(self->found, m_name[M_SUM], amount) < 0)
        return -1;
    return self->extremes && (push_to(self->found, m_name[M_MIN], amount, Py_LT) < 0
                              || push_to(self->found, m_name[M_MAX], amount, Py_GT) < 0) ? -1 : 0;
}

/* Which exemplar of a sum this one takes the place of, by chance; -2 for none, -1 with an error. */
static Py_ssize_t place_by_chance(Way *self)
{
    PyObject *seen = PyObject_GetAttr(self->reservoir, m_name[M_SEEN]);
    PyObject *room = seen ? PyObject_GetAttr(self->reservoir, m_name[M_SIZE]) : NULL;
    Py_ssize_t index = seen ? PyLong_AsSsize_t(seen) : -1, size = room ? PyLong_AsSsize_t(room) : -1;
    PyObject *next = PyErr_Occurred() ? NULL : PyLong_FromSsize_t(index + 1);
    if (!next || PyObject_SetAttr(self->reservoir, m_name[M_SEEN], next) < 0)
        index = -1;
    else if (index >= size) {
        PyObject *drawn = PyObject_CallNoArgs(draw);
        double part = drawn ? PyFloat_AsDouble(drawn) : -1;
        Py_XDECREF(drawn);
        index = PyErr_Occurred() ? -1 : (Py_ssize_t)(part * (double)(index + 1));
        if (index >= size)
            index = -2;
    }
    Py_XDECREF(seen);
    Py_XDECREF(room);
    Py_XDECREF(next);
    return index;
}

/* As `ExemplarBucket.offer`, where the span is known already. */
static int offer(Way *self, Py_ssize_t index, PyObject *amount, PyObject *span)
{
    PyObject *storage = PyObject_GetAttr(self->reservoir, m_name[M_STORAGE]);
    PyObject *place = storage ? PyLong_FromSsize_t(index) : NULL;
    PyObject *bucket = place ? PyObject_GetItem(storage, place) : NULL, *now = NULL;
    int failed = 1;
    if (bucket) {
        struct timespec time;
        clock_gettime(CLOCK_REALTIME, &time);
        now = PyLong_FromLongLong((long long)time.tv_sec * 1000000000 + time.tv_nsec);
        failed = !now || PyObject_SetAttr(bucket, m_name[M_E_VALUE], amount) < 0
                 || PyObject_SetAttr(bucket, m_name[M_E_TIME], now) < 0
                 || PyObject_SetAttr(bucket, m_name[M_E_ATTRIBUTES], self->labels) < 0
                 || PyObject_SetAttr(bucket, m_name[M_E_OFFERED], Py_True) < 0;
        if (!failed && PyTuple_Size(span) > 1)
            failed = PyObject_SetAttr(bucket, m_name[M_E_TRACE], PyTuple_GetItem(span, 0)) < 0
                     || PyObject_SetAttr(bucket, m_name[M_E_SPAN], PyTuple_GetItem(span, 1)) < 0;
    }
    Py_XDECREF(now);
    Py_XDECREF(bucket);
    Py_XDECREF(place);
    Py_XDECREF(storage);
    return failed ? -1 : 0;
}

/* Call a method of a lock; an error that is set already stays. */
static int locked(PyObject *method)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *done = PyObject_CallNoArgs(method);
    if (type)
        PyErr_Restore(type, value, trace);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int go(Way *self, PyObject *amount, double number, PyObject *span)
{
    Py_ssize_t index = 0, last = self->count;
    while (self->buckets && index < last) {  /* the first bound that is not less */
        Py_ssize_t middle = (index + last) / 2;
        if (self->bounds[middle] < number)
            index = middle + 1;
        else
            last = middle;
    }
    if (locked(self->acquire) < 0)
        return -1;
    int failed = self->buckets ? add_to_bucket(self, amount, index) : add_to_sum(self, amount);
    if (locked(self->release) < 0 || failed)
        return -1;
    if (span == Py_None)
        return 0;
    if (locked(self->offer) < 0)
        return -1;
    if (!self->buckets)
        index = place_by_chance(self);
    failed = index == -1 || (index >= 0 && offer(self, index, amount, span) < 0);
    return locked(self->done) < 0 || failed ? -1 : 0;
}

static PyType_Slot way_slots[] = {
    {Py_tp_new, way_new}, {Py_tp_dealloc, way_dealloc}, {Py_tp_traverse, way_traverse},
    {Py_tp_clear, way_clear}, {Py_tp_doc, "Where measurements with known attributes go."}, {0, NULL},
};
static PyType_Spec way_spec = {"telemetry._core.Way", sizeof(Way), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, way_slots};
