/*
 * The last step of documents/build.py for spans and log records: ids, dates, levels, attributes with a place
 * of their own.
 *
 * What: finish_spans and finish_logs change the dicts that `decode` made, exactly as the functions in
 * documents/build.py do, with the fields in the same order. Which attributes have places comes from
 * `finish_setup`, so no name of an attribute is written down here.
 * Why C: these few steps took longer than decoding.
 */
#include "core.h"

/* --- fields --- */

#define NAMES(each)                                                                                \
    each(start_unix_nano) each(end_unix_nano) each(trace_id) each(span_id) each(_id) each(name)    \
    each(start) each(duration_ms) each(status) each(status_message) each(code) each(message)       \
    each(attributes) each(time_unix_nano) each(observed_unix_nano) each(time_source)               \
    each(timestamp) each(level) each(severity_number) each(severity_text) each(logger_name)        \
    each(body) each(trace) each(observed) each(received) each(UNSET)
#define DECLARE(word) static PyObject *n_##word;

#define INTERN(word) && (n_##word = PyUnicode_InternFromString(#word))

NAMES(DECLARE)

static PyObject *finish_moment, *finish_level, *finish_levels, *finish_text, *finish_uid;
static PyObject *takes_of_spans, *takes_of_logs, *no_text;

PyObject *zero;

/* A number of 64 bits under a name, 0 when there is none. */
static int nanos_of(PyObject *map, PyObject *name, uint64_t *out)
{
    PyObject *found = PyDict_GetItemWithError(map, name); /* borrowed */
    *out = 0;
    if (found)
        *out = PyLong_AsUnsignedLongLong(found);
    return PyErr_Occurred() ? -1 : 0;
}

/* The value under a name; when there is none, `otherwise` is put there. Borrowed. */
static PyObject *with_default(PyObject *map, PyObject *name, PyObject *otherwise)
{
    PyObject *found = PyDict_GetItemWithError(map, name);
    if (found || PyErr_Occurred())
        return found;
    return PyDict_SetItem(map, name, otherwise) < 0 ? NULL : otherwise;
}

/* Put a new reference. */
static int put_new(PyObject *map, PyObject *name, PyObject *value)
{
    int done = value ? PyDict_SetItem(map, name, value) : -1;
    Py_XDECREF(value);
    return done;
}

/* Take a value out; NULL without an error when there is none. */
static PyObject *pop(PyObject *map, PyObject *name)
{
    PyObject *found = PyDict_GetItemWithError(map, name);
    Py_XINCREF(found);
    if (found && PyDict_DelItem(map, name) < 0)
        Py_CLEAR(found);
    return found;
}

/* Microseconds as documents.moment has them. */
static PyObject *moment_of(uint64_t nanos)
{
    return PyObject_CallFunction(finish_moment, "dO", (double)(nanos / 1000) / 1e6, utc);
}

static int set_id(PyObject *map, uint64_t nanos, uint64_t identity)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%08lx%016llx", (unsigned long)(nanos / 1000000000 & 0xFFFFFFFF),
             (unsigned long long)identity);
    return put_new(map, n__id, PyUnicode_FromStringAndSize(digits, 24));
}

static int add_text(blake *k, PyObject *text)
{
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &size);
    if (!bytes)
        return -1;
    blake_add(k, bytes, (size_t)size);
    return 0;
}

/* 8 bytes that stand for the texts, as the number that their hex digits are. */
static int identity_of(const char *prefix, Py_ssize_t length, PyObject *one, PyObject *other, uint64_t *out)
{
    blake k;
    blake_start(&k);
    blake_add(&k, prefix, (size_t)length);
    if (add_text(&k, one) < 0 || (other && add_text(&k, other) < 0))
        return -1;
    memset(k.block + k.filled, 0, 128 - k.filled);
    blake_block(&k, 1);
    *out = 0;
    for (int i = 0; i < 8; i++)
        *out |= (k.state[0] >> 8 * i & 255) << (56 - 8 * i);
    return 0;
}

/* Whether a value is of the kind that a place has; 2: a number that becomes its text. */
static int fits(PyObject *take, PyObject *value)
{
    long kind = PyLong_AsLong(PyTuple_GetItem(take, KIND));
    if (kind == 's' ? PyUnicode_CheckExact(value) : kind == 'i' ? PyLong_CheckExact(value)
                                                                : PyFloat_CheckExact(value))
        return 1;
    return PyTuple_GetItem(take, AS_TEXT) == Py_True && PyLong_CheckExact(value) ? 2 : 0;
}

/* the Python of documents/promoted_attributes.py for one attribute. */
static int take_one(PyObject *document, PyObject *found, PyObject *name, PyObject *take)
{
    PyObject *value = PyDict_GetItemWithError(found, name);
    if (!value)
        return PyErr_Occurred() ? -1 : 0;
    int fit = fits(take, value);
    if (!fit)
        return 0;
    PyObject *other = PyDict_GetItemWithError(found, PyTuple_GetItem(take, OTHER));
    if (!other && PyErr_Occurred())
        return -1;
    int canonical = PyTuple_GetItem(take, CANONICAL) == Py_True;
    if (!canonical && other && (PyUnicode_CheckExact(other) || PyLong_CheckExact(other)))
        return 0; /* the canonical name wins */
    PyObject *kept = fit == 2 ? PyObject_Str(value) : Py_NewRef(value);
    PyObject *section = PyTuple_GetItem(take, SECTION), *place = document;
    int done = kept ? 0 : -1;
    if (!done && fit == 1 && canonical && !other)
        done = PyDict_DelItem(found, name);
    if (!done && section != Py_None) {
        place = PyDict_GetItemWithError(document, section);
        if (!place && !PyErr_Occurred()) {
            PyObject *made = PyDict_New();
            done = made ? PyDict_SetItem(document, section, made) : -1;
            Py_XDECREF(made);
            place = made; /* the document holds it */
        }
        if (!place || done < 0 || !PyDict_CheckExact(place))
            done = -1;
    }
    if (!done)
        done = PyDict_SetItem(place, PyTuple_GetItem(take, PLACE), kept);
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "a section is no dict");
    Py_XDECREF(kept);
    return done;
}

/* the Python of documents/promoted_attributes.py */
static int take_all(PyObject *document, PyObject *found, PyObject *table)
{
    PyObject *names[MOST_TAKES], *takes[MOST_TAKES], *name, *value;
    int many = 0, done = 0;
    Py_ssize_t at = 0;
    while (!done && PyDict_Next(found, &at, &name, &value)) {
        PyObject *take = PyDict_GetItemWithError(table, name); /* borrowed */
        if (!take)
            done = PyErr_Occurred() ? -1 : 0;
        else if (many < MOST_TAKES) { /* the table has no more */
            names[many] = Py_NewRef(name);
            takes[many++] = take;
        }
    }
    for (int i = 0; i < many; i++) {
        if (!done)
            done = take_one(document, found, names[i], takes[i]);
        Py_DECREF(names[i]);
    }
    if (!done && PyDict_Size(found) == 0)
        done = PyDict_DelItem(document, n_attributes);
    return done;
}

/* The attributes of a document as a borrowed dict; NULL when there are none, or with an error. */
static PyObject *attributes_of(PyObject *document)
{
    PyObject *found = PyDict_GetItemWithError(document, n_attributes);
    if (found && !PyDict_CheckExact(found)) {
        PyErr_SetString(PyExc_TypeError, "attributes are no dict");
        return NULL;
    }
    return found;
}

static int finish_span(PyObject *span, PyObject *common, const char *prefix, Py_ssize_t length)
{
    uint64_t start, end, identity;
    PyObject *trace_id, *span_id;
    if (!with_default(span, n_start_unix_nano, zero) || !with_default(span, n_end_unix_nano, zero)
        || !(trace_id = with_default(span, n_trace_id, no_text))
        || !(span_id = with_default(span, n_span_id, no_text))
        || nanos_of(span, n_start_unix_nano, &start) < 0 || nanos_of(span, n_end_unix_nano, &end) < 0
        || identity_of(prefix, length, trace_id, span_id, &identity) < 0
        || set_id(span, start, identity) < 0 || !with_default(span, n_name, no_text)
        || put_new(span, n_start, moment_of(start)) < 0
        || put_new(span, n_duration_ms, PyFloat_FromDouble(end > start ? (double)(end - start) / 1e6 : 0.0)) < 0
        || PyDict_Update(span, common) < 0)
        return -1;
    PyObject *status = PyDict_GetItemWithError(span, n_status), *code = NULL, *message = NULL;
    if (status && PyDict_Check(status)) {
        code = PyDict_GetItemWithError(status, n_code);
        message = PyErr_Occurred() ? NULL : PyDict_GetItemWithError(status, n_message);
        Py_XINCREF(code); /* they go with the map that is replaced */
        Py_XINCREF(message);
    }
    int done = PyErr_Occurred() ? -1 : PyDict_SetItem(span, n_status, code ? code : n_UNSET);
    if (!done && message)
        done = PyDict_SetItem(span, n_status_message, message);
    Py_XDECREF(code);
    Py_XDECREF(message);
    if (done < 0)
        return -1;
    PyObject *found = attributes_of(span);
    return found ? take_all(span, found, takes_of_spans) : PyErr_Occurred() ? -1 : 0;
}

static int set_level(PyObject *record)
{
    PyObject *number = PyDict_GetItemWithError(record, n_severity_number);
    PyObject *word = PyErr_Occurred() ? NULL : PyDict_GetItemWithError(record, n_severity_text);
    long severity = number ? PyLong_AsLong(number) : 0;
    if (PyErr_Occurred())
        return -1;
    if (severity > 0 && severity < PyTuple_Size(finish_levels))
        return PyDict_SetItem(record, n_level, PyTuple_GetItem(finish_levels, severity));
    return put_new(record, n_level, PyObject_CallFunction(finish_level, "lO", severity, word ? word : no_text));
}

/* The body is the message, or what the message is made from. */
static int set_message(PyObject *record)
{
    PyObject *body = PyDict_GetItemWithError(record, n_body);
    if (!body)
        return PyErr_Occurred() ? -1 : 0;
    if (body != Py_None && !PyUnicode_CheckExact(body))
        return put_new(record, n_message, PyObject_CallFunctionObjArgs(finish_text, body, NULL));
    body = pop(record, n_body);
    if (body == Py_None) {
        Py_DECREF(body);
        return 0;
    }
    return put_new(record, n_message, body);
}

static int set_trace(PyObject *record)
{
    PyObject *trace_id = pop(record, n_trace_id);
    PyObject *span_id = PyErr_Occurred() ? NULL : pop(record, n_span_id);
    int done = PyErr_Occurred() ? -1 : 0;
    if (!done && (trace_id || span_id)) {
        PyObject *trace = PyDict_New();
        if (!trace || (trace_id && PyDict_SetItem(trace, n_trace_id, trace_id) < 0)
            || (span_id && PyDict_SetItem(trace, n_span_id, span_id) < 0))
            done = -1;
        if (!done)
            done = PyDict_SetItem(record, n_trace, trace);
        Py_XDECREF(trace);
    }
    Py_XDECREF(trace_id);
    Py_XDECREF(span_id);
    return done;
}

static int finish_log(PyObject *record, PyObject *common, const char *prefix, Py_ssize_t length,
                      uint64_t identity, uint64_t received, PyObject *logger)
{
    uint64_t observed, time, own;
    if (nanos_of(record, n_observed_unix_nano, &observed) < 0 || nanos_of(record, n_time_unix_nano, &time) < 0)
        return -1;
    own = time; /* time of arrival never enters the id */
    if (!time) {
        own = observed;
        time = observed ? observed : received;
        if (PyDict_SetItem(record, n_time_source, observed ? n_observed : n_received) < 0
            || put_new(record, n_time_unix_nano, PyLong_FromUnsignedLongLong(time)) < 0)
            return -1;
    }
    if (set_id(record, own, identity) < 0 || put_new(record, n_timestamp, moment_of(time)) < 0
        || set_level(record) < 0 || PyDict_Update(record, common) < 0
        || (logger != Py_None && PyDict_SetItem(record, n_logger_name, logger) < 0)
        || set_message(record) < 0 || set_trace(record) < 0)
        return -1;
    PyObject *found = attributes_of(record);
    if (!found)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *uid = PyDict_GetItemWithError(found, finish_uid);
    if (!uid && PyErr_Occurred())
        return -1;
    if (uid && PyUnicode_CheckExact(uid) && PyUnicode_GetLength(uid) > 0
        && (identity_of(prefix, length, uid, NULL, &identity) < 0 || set_id(record, own, identity) < 0))
        return -1;
    return take_all(record, found, takes_of_logs);
}

static int is_set_up(void)
{
    if (!finish_moment)
        PyErr_SetString(PyExc_RuntimeError, "finish_setup has not been called");
    return finish_moment != NULL;
}

/* One item of a list that must hold dicts; borrowed. */
static PyObject *dict_at(PyObject *list, Py_ssize_t at)
{
    PyObject *item = PyList_GetItem(list, at);
    if (item && !PyDict_CheckExact(item)) {
        PyErr_SetString(PyExc_TypeError, "an item is no dict");
        return NULL;
    }
    return item;
}

const char finish_spans_doc[] = PyDoc_STR("finish_spans(spans, common, prefix)\n--\n\n"
"Make documents of spans that `decode` gave; prefix comes before what an id is made from.");

PyObject *py_finish_spans(PyObject *self, PyObject *args)
{
    PyObject *spans, *common;
    const char *prefix;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "O!O!y#", &PyList_Type, &spans, &PyDict_Type, &common, &prefix, &length)
        || !is_set_up())
        return NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(spans); i++) {
        PyObject *span = dict_at(spans, i);
        if (!span)
            return NULL;
        Py_INCREF(span);
        int done = finish_span(span, common, prefix, length);
        Py_DECREF(span);
        if (done < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

const char finish_logs_doc[] = PyDoc_STR("finish_logs(records, common, prefix, identity, received, logger)\n--\n\n"
"Make documents of log records that `decode` gave; the identity of the record behind the last one.");

PyObject *py_finish_logs(PyObject *self, PyObject *args)
{
    PyObject *records, *common, *logger;
    const char *prefix;
    Py_ssize_t length;
    unsigned long long identity, received;
    if (!PyArg_ParseTuple(args, "O!O!y#KKO", &PyList_Type, &records, &PyDict_Type, &common, &prefix,
                          &length, &identity, &received, &logger)
        || !is_set_up())
        return NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(records); i++) {
        PyObject *record = dict_at(records, i);
        if (!record)
            return NULL;
        Py_INCREF(record);
        int done = finish_log(record, common, prefix, length, identity++, received, logger);
        Py_DECREF(record);
        if (done < 0)
            return NULL;
    }
    return PyLong_FromUnsignedLongLong(identity);
}

const char finish_setup_doc[] = PyDoc_STR("finish_setup(moment, utc, level, levels, text, uid, spans, logs)\n--\n\n"
"What documents/build.py has for both ways: functions, words, and the attributes with a place of their\n"
"own, as {name: (section or None, key, kind, canonical, other, as text)}.");

int takes_are_good(PyObject *table)
{
    PyObject *name, *take;
    Py_ssize_t at = 0;
    if (PyDict_Size(table) > MOST_TAKES)
        return 0;
    while (PyDict_Next(table, &at, &name, &take))
        if (!PyTuple_CheckExact(take) || PyTuple_Size(take) != TAKE_PARTS
            || !PyLong_CheckExact(PyTuple_GetItem(take, KIND)))
            return 0;
    return 1;
}

PyObject *py_finish_setup(PyObject *self, PyObject *args)
{
    PyObject *moment, *zone, *level, *levels, *render, *uid, *spans, *logs;
    if (!PyArg_ParseTuple(args, "OOOO!OUO!O!", &moment, &zone, &level, &PyTuple_Type, &levels, &render,
                          &uid, &PyDict_Type, &spans, &PyDict_Type, &logs))
        return NULL;
    if (!takes_are_good(spans) || !takes_are_good(logs)) {
        PyErr_SetString(PyExc_ValueError, "too many attributes with a place, or none of six parts");
        return NULL;
    }
    if (!((no_text = PyUnicode_InternFromString("")) && (zero = PyLong_FromLong(0)) NAMES(INTERN)))
        return NULL;
    replace(&utc, zone);
    replace(&finish_level, level);
    replace(&finish_levels, levels);
    replace(&finish_text, render);
    replace(&finish_uid, uid);
    replace(&takes_of_spans, spans);
    replace(&takes_of_logs, logs);
    replace(&finish_moment, moment);
    Py_RETURN_NONE;
}
