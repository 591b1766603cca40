/*
 * What a courier has taken in and is not done with; what receivers/otlp/admission.py does in Python, part of _core.c.
 *
 * Intake(slow, notice, batch_size, most_items, most_bytes, most_each): `put` is put in the place of the
 * courier's method slow(item, size, important), which is asked when a record may have no room, the
 * process is another one, or most_items is 0. notice(waiting) is called after a record that the
 * courier's thread has to know of.
 *
 * No lock: between the check and the last count nothing is allocated that the garbage collector
 * tracks, and nothing else runs anybody's code, so that no other thread gets the GIL.
 */
#include <structmember.h>

#define ARRIVALS_NS 10000000

static PyTypeObject *intake_type;

typedef struct {
    PyObject_HEAD
    PyObject *slow, *notice, *queue, *append, *arrivals, *arrive;
    Py_ssize_t items, bytes, produced, asked, batch, most_items, most_bytes, most_each;
    long long last;  /* when the last arrival was noted, in nanoseconds */
    pid_t pid;
    char closing, running;
} Intake;

static int intake_traverse(Intake *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->slow); Py_VISIT(self->notice); Py_VISIT(self->queue); Py_VISIT(self->append);
    Py_VISIT(self->arrivals); Py_VISIT(self->arrive);
    return 0;
}

static int intake_clear(Intake *self)
{
    Py_CLEAR(self->slow); Py_CLEAR(self->notice); Py_CLEAR(self->queue); Py_CLEAR(self->append);
    Py_CLEAR(self->arrivals); Py_CLEAR(self->arrive);
    return 0;
}

static void intake_dealloc(Intake *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    intake_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *intake_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *slow, *notice, *module = PyImport_ImportModule("collections");
    PyObject *deque = module ? PyObject_GetAttrString(module, "deque") : NULL;
    Py_XDECREF(module);
    Intake *self = deque ? (Intake *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0) : NULL;
    if (self && PyArg_ParseTuple(args, "OOnnnn", &slow, &notice, &self->batch, &self->most_items,
                                 &self->most_bytes, &self->most_each)) {
        self->slow = Py_NewRef(slow);
        self->notice = Py_NewRef(notice);
        self->queue = PyObject_CallNoArgs(deque);
        self->append = self->queue ? PyObject_GetAttrString(self->queue, "append") : NULL;
        self->arrivals = self->append ? PyObject_CallNoArgs(deque) : NULL;
        self->arrive = self->arrivals ? PyObject_GetAttrString(self->arrivals, "append") : NULL;
        self->pid = this_process;
    }
    Py_XDECREF(deque);
    if (PyErr_Occurred())
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int intake_fits(Intake *self, Py_ssize_t size)
{
    return !self->closing && size >= 0 && size <= self->most_each && self->items < self->most_items
           && self->bytes + size <= self->most_bytes;
}

/* 1 with `waiting` set, 0 when the record is not sure to have room (never with `always`), -1 with an error. */
static int intake_take(Intake *self, PyObject *item, PyObject *number, Py_ssize_t size, int always, Py_ssize_t *waiting)
{
    struct timespec clock;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    long long now = (long long)clock.tv_sec * 1000000000 + clock.tv_nsec;
    PyObject *pair = PyTuple_Pack(2, item, number), *arrival = NULL, *done = NULL;
    int taken = -1;
    if (pair == NULL)
        return -1;
    if (now - self->last >= ARRIVALS_NS || PyObject_Size(self->arrivals) == 0) {
        PyObject *asked = PyLong_FromSsize_t(self->asked), *when = PyFloat_FromDouble((double)now / 1e9);
        arrival = asked && when ? PyTuple_Pack(2, asked, when) : NULL;
        Py_XDECREF(asked);
        Py_XDECREF(when);
        if (arrival == NULL)
            goto failed;
    }
    /* From here on no other thread has the GIL until all is counted. */
    if (!always && !intake_fits(self, size)) {
        taken = 0;
        goto failed;
    }
    if ((done = PyObject_CallFunctionObjArgs(self->append, pair, NULL)) == NULL)
        goto failed;
    self->produced++;
    self->items++;
    self->bytes += size;
    self->asked++;
    Py_ssize_t wait = PyObject_Size(self->queue);
    *waiting = wait == 1 || wait == self->batch || !self->running ? wait : 0;
    taken = 1;
    if (arrival) {
        PyObject *noted = PyObject_CallFunctionObjArgs(self->arrive, arrival, NULL);
        Py_XDECREF(noted);
        self->last = now;
        if (noted == NULL)
            PyErr_Clear();  /* only the age of the oldest record is not known */
    }
failed:
    Py_XDECREF(done);
    Py_XDECREF(arrival);
    Py_DECREF(pair);
    return taken;
}

/* As the courier's put. */
static PyObject *intake_pass(Intake *self, PyObject *item, PyObject *number, PyObject *important)
{
    Py_ssize_t waiting = 0, size = PyLong_AsSsize_t(number);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (self->pid == this_process && intake_fits(self, size)) {
        int taken = intake_take(self, item, number, size, 0, &waiting);
        if (taken < 0)
            return NULL;
        if (taken && waiting == 0)
            Py_RETURN_NONE;
        if (taken) {
            PyObject *count = PyLong_FromSsize_t(waiting);
            PyObject *done = count ? PyObject_CallFunctionObjArgs(self->notice, count, NULL) : NULL;
            Py_XDECREF(count);
            return done;
        }
    }
    return PyObject_CallFunctionObjArgs(self->slow, item, number, important, NULL);
}

static PyObject *intake_put(Intake *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
    if (count != 2 || named > 1
        || (named && PyUnicode_CompareWithASCIIString(PyTuple_GetItem(keywords, 0), "important") != 0)) {
        PyErr_SetString(PyExc_TypeError, "put takes a record, its size, and important=");
        return NULL;
    }
    return intake_pass(self, args[0], args[1], named ? args[2] : Py_False);
}

static PyObject *intake_add(Intake *self, PyObject *args)
{
    PyObject *item, *number;
    Py_ssize_t waiting = 0;
    if (!PyArg_ParseTuple(args, "OO!", &item, &PyLong_Type, &number))
        return NULL;
    Py_ssize_t size = PyLong_AsSsize_t(number);
    if ((size == -1 && PyErr_Occurred()) || intake_take(self, item, number, size, 1, &waiting) < 0)
        return NULL;
    return PyLong_FromSsize_t(waiting);
}

static PyObject *intake_refuse(Intake *self, PyObject *unused)
{
    self->produced++;
    Py_RETURN_NONE;
}

static PyObject *intake_settle(Intake *self, PyObject *args)
{
    Py_ssize_t items, bytes;
    if (!PyArg_ParseTuple(args, "nn", &items, &bytes))
        return NULL;
    self->items -= items;
    self->bytes -= bytes;
    Py_RETURN_NONE;
}

static PyObject *intake_counts(Intake *self, PyObject *unused)
{
    return Py_BuildValue("(nn)", self->produced, self->items);
}

static PyMethodDef intake_methods[] = {
    {"put", (PyCFunction)(void (*)(void))intake_put, METH_FASTCALL | METH_KEYWORDS,
     "put(item, size, *, important=False)\n--\n\nTake a record; never blocks, never raises, drops when there is no room."},
    {"add", (PyCFunction)intake_add, METH_VARARGS,
     "add(item, size)\n--\n\nTake a record; how many wait now, if the thread has to know it, else 0."},
    {"refuse", (PyCFunction)intake_refuse, METH_NOARGS, "Count a record that is not taken."},
    {"settle", (PyCFunction)intake_settle, METH_VARARGS, "settle(items, size)\n--\n\nRecords are done with."},
    {"counts", (PyCFunction)intake_counts, METH_NOARGS, "What was produced, and what of it is here."},
    {NULL, NULL, 0, NULL},
};
static PyMemberDef intake_members[] = {
    {"queue", T_OBJECT_EX, offsetof(Intake, queue), READONLY, "Records that wait, with their sizes."},
    {"arrivals", T_OBJECT_EX, offsetof(Intake, arrivals), READONLY, "(asked before, when), 10 ms apart."},
    {"items", T_PYSSIZET, offsetof(Intake, items), 0, "Queued, in flight or being written to the spool."},
    {"bytes", T_PYSSIZET, offsetof(Intake, bytes), 0, "The bytes of these."},
    {"produced", T_PYSSIZET, offsetof(Intake, produced), 0, "All that ever came."},
    {"asked", T_PYSSIZET, offsetof(Intake, asked), 0, "What was taken in."},
    {"closing", T_BOOL, offsetof(Intake, closing), 0, "Whether no more is taken."},
    {"running", T_BOOL, offsetof(Intake, running), 0, "Whether a thread takes records away."},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot intake_slots[] = {
    {Py_tp_new, intake_new}, {Py_tp_dealloc, intake_dealloc}, {Py_tp_traverse, intake_traverse},
    {Py_tp_clear, intake_clear}, {Py_tp_methods, intake_methods}, {Py_tp_members, intake_members},
    {Py_tp_doc, "What a courier has taken in and is not done with."}, {0, NULL},
};
static PyType_Spec intake_spec = {"telemetry._core.Intake", sizeof(Intake), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, intake_slots};

static int add_intake(PyObject *module)
{
    if (!intake_type && !(intake_type = (PyTypeObject *)PyType_FromSpec(&intake_spec)))
        return -1;
    return PyModule_AddObjectRef(module, "Intake", (PyObject *)intake_type);
}
