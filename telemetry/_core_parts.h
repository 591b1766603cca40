/*
 * What starting and ending spans and sending log records lean on; part of _core.c.
 *
 * know(parts): the objects of the SDK and of ours, in the order of the list below; once.
 */
#include <time.h>

/* The names of parts, as know() takes them. */
enum {
    P_DEFAULT_ON, P_PROCESSORS, P_SPAN, P_REMOTE, P_HELD, P_SPAN_CONTEXT, P_IDS, P_QUIET, P_QUIET_LOGS, P_NOOP,
    P_UNSET, P_INTERNAL, P_SERVER, P_CONSUMER, P_SAMPLED, P_RANDOM, P_STATE, P_SPAN_KEY, P_ENTRY, P_MARK,
    P_CURRENT, P_REQUEST, P_OURS, P_ROOT, P_ENSURE, P_LOCK, P_STAMP, P_FAILED, P_LOST, P_WEIGH, P_PUT, P_ZERO,
    P_AUDIT, P_TEXTS, PARTS
};
static PyObject *part[PARTS];
static allocfunc allocate_span, allocate_held, allocate_context;

enum {
    T_SAMPLER, T_CONFIG, T_PROCESSOR, T_LIMITS, T_IDS, T_INFO, T_SCOPE, T_RESOURCE, T_METRICS, T_IS_ENABLED,
    T_MOST, T_LONGEST, T_DELIVERY, T_REDIRECT, T_COURIER, T_TRACE_ID, T_SPAN_ID, T_IS_RANDOM,
    T_S_INFO, T_S_PROCESSOR, T_S_SAMPLER, T_S_TRACE_CONFIG, T_S_RECORD, T_S_STATUS, T_S_LIMITS, T_S_LOCK,
    T_S_END_METRICS, T_S_CLOCKS, T_MAXLEN, T_MAX_VALUE_LEN, T_IMMUTABLE, T_GATE, T_REQUEST_ENTRY, T_STARTED,
    T_HANDLERS, T_ACQUIRE, T_RELEASE, T_INTAKE, T_L_CONFIG, T_L_METRICS, T_L_RESOURCE, T_NAMES
};
static const char *const tracer_texts[T_NAMES] = {
    "sampler", "_tracer_config", "span_processor", "_span_limits", "id_generator", "instrumentation_info",
    "_instrumentation_scope", "resource", "_tracer_metrics", "is_enabled", "max_span_attributes",
    "max_span_attribute_length", "delivery", "redirect", "_courier", "trace_id", "span_id", "random",
    "_instrumentation_info", "_span_processor", "_sampler", "_trace_config", "_record_exception",
    "_set_status_on_exception", "_limits", "_lock", "_record_end_metrics", "_otelier_clocks", "maxlen",
    "max_value_len", "_immutable", "gate", "entry", "started", "handlers", "acquire", "release", "_intake",
    "_logger_config", "_logger_metrics", "_resource"};
static PyObject *t_name[T_NAMES];

/* Whether know() was called; else an error. */
static int knows(void)
{
    if (part[0] == NULL)
        PyErr_SetString(PyExc_RuntimeError, "know() comes first");
    return part[0] != NULL;
}

/* A field of an object, borrowed from its fields; NULL without an error if it is not there. */
static PyObject *own(PyObject *fields, int name)
{
    return PyDict_GetItemWithError(fields, t_name[name]);
}

static int put_own(PyObject *fields, int name, PyObject *value)
{
    return PyDict_SetItem(fields, t_name[name], value);
}

static long long clock_ns(clockid_t which)
{
    struct timespec now;
    clock_gettime(which, &now);
    return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The delivery of a list of processors that are all ours, borrowed, unless a test captures. */
static PyObject *delivery_of(PyObject *processors)
{
    PyObject *fields = PyObject_GenericGetDict(processors, NULL);
    PyObject *delivery = fields ? own(fields, T_DELIVERY) : NULL;
    Py_XDECREF(fields);  /* the processors keep them */
    if (delivery == NULL || delivery == Py_None)
        return NULL;
    fields = PyObject_GenericGetDict(delivery, NULL);
    PyObject *redirect = fields ? own(fields, T_REDIRECT) : NULL;
    Py_XDECREF(fields);
    return redirect == Py_None ? delivery : NULL;
}

/* A part of the SpanContext of the span above, borrowed; Py_None for none, NULL when the SDK has to look. */
static PyObject *parent_of(PyObject *above, PyObject **fields)
{
    *fields = NULL;
    if (above == NULL)
        return Py_None;
    PyTypeObject *type = Py_TYPE(above);
    if (type != (PyTypeObject *)part[P_SPAN] && type != (PyTypeObject *)part[P_REMOTE])
        return NULL;
    if ((*fields = PyObject_GenericGetDict(above, NULL)) == NULL)
        return NULL;
    PyObject *parent = field(*fields, N_CONTEXT);
    if (parent == NULL || Py_TYPE(parent) != (PyTypeObject *)part[P_SPAN_CONTEXT] || PyTuple_Size(parent) != 6)
        return NULL;
    return PyTuple_GetItem(parent, 5) == Py_True ? parent : Py_None;
}

/* Give a record to a courier. */
static PyObject *put_to(PyObject *courier, PyObject *item, PyObject *size, PyObject *important)
{
    PyObject *fields = PyObject_GenericGetDict(courier, NULL), *done = NULL;
    PyObject *intake = fields ? own(fields, T_INTAKE) : NULL;
    if (intake && Py_TYPE(intake) == intake_type) {
        Py_INCREF(intake);
        done = intake_pass((Intake *)intake, item, size, important);
        Py_DECREF(intake);
    } else if (!PyErr_Occurred())
        done = PyObject_CallFunctionObjArgs(part[P_PUT], courier, item, size, important, NULL);
    Py_XDECREF(fields);
    return done;
}

static PyObject *call_with(PyObject *function, PyObject *first, PyObject *const *args, Py_ssize_t count,
                           PyObject *keywords)
{
    Py_ssize_t before = first != NULL, more = keywords ? PyTuple_Size(keywords) : 0;
    PyObject *all = PyTuple_New(before + count), *named = more ? PyDict_New() : NULL, *done = NULL;
    if (all == NULL || (more && named == NULL))
        goto failed;
    if (first)
        PyTuple_SetItem(all, 0, Py_NewRef(first));
    for (Py_ssize_t i = 0; i < count; i++)
        PyTuple_SetItem(all, before + i, Py_NewRef(args[i]));
    for (Py_ssize_t i = 0; i < more; i++)
        if (PyDict_SetItem(named, PyTuple_GetItem(keywords, i), args[count + i]) < 0)
            goto failed;
    done = PyObject_Call(function, all, named);
failed:
    Py_XDECREF(all);
    Py_XDECREF(named);
    return done;
}

static PyObject *know(PyObject *self, PyObject *parts)
{
    if (!PyTuple_Check(parts) || PyTuple_Size(parts) != PARTS)
        return PyErr_Format(PyExc_TypeError, "%d parts in a tuple are needed", PARTS);
    for (int at = P_PROCESSORS; at <= P_QUIET_LOGS; at++)
        if (!PyType_Check(PyTuple_GetItem(parts, at)))
            return PyErr_Format(PyExc_TypeError, "part %d must be a type", at);
    if (!PyList_CheckExact(PyTuple_GetItem(parts, P_OURS)) || !PyDict_CheckExact(PyTuple_GetItem(parts, P_TEXTS)))
        return PyErr_Format(PyExc_TypeError, "part %d must be a list, part %d a dict", P_OURS, P_TEXTS);
    for (int at = 0; at < PARTS; at++)
        replace(&part[at], PyTuple_GetItem(parts, at));
    allocate_span = (allocfunc)PyType_GetSlot((PyTypeObject *)part[P_SPAN], Py_tp_alloc);
    allocate_held = (allocfunc)PyType_GetSlot((PyTypeObject *)part[P_HELD], Py_tp_alloc);
    allocate_context = (allocfunc)PyType_GetSlot((PyTypeObject *)part[P_SPAN_CONTEXT], Py_tp_alloc);
    Py_RETURN_NONE;
}

static int add_parts(void)
{
    for (int name = 0; name < T_NAMES; name++)
        if (!t_name[name] && !(t_name[name] = PyUnicode_InternFromString(tracer_texts[name])))
            return -1;
    return 0;
}
