/*
 * The module telemetry._core: its methods, the process id, and the interned names.
 *
 * lines(items, slow, body, text): log records (`otlp_encoder.LogFacts`, or one with the count of dropped
 * attributes as a 13th part) as [(resource, scope, bytes)]: the fields `log_records` of a ScopeLogs.
 * body(value) gives an AnyValue for a body that is no text, text(value) UTF-8 for a text that has none.
 * spans(items, slow, text, details, whole): the same for spans. details(span) gives events and links,
 * whole(span) all of a span that does not have the fields of the SDK's spans.
 * pending_lines, pending_spans(items, actions, clean, short_is_clean, shared): the indexes of the records
 * that redaction has to look at, or None; `shared` maps the id of a resource or scope to itself and what
 * it is sent as.
 * attributes(mapping, tag, slow): each pair as an OTLP KeyValue under a tag, in one buffer. Texts,
 * numbers, booleans, None, and dicts and lists of these are written here; for every other value, and
 * for text that is no UTF-8, slow(name, value) gives the KeyValue, or None to leave it out.
 * values_to_redact(mapping, actions, clean, short_is_clean): the names whose values redaction has to look
 * at, or None. A name in `actions` has a known decision: False looks at texts, True at nothing. A plain
 * value that is no text, a text in `clean`, a short text without any mark that a secret could have, an id
 * as programs make them, and a dict of such pairs need no look.
 * fields(mapping, names, named, known_only=False): the pairs whose names are not among `names`, those in
 * `named` under the name that stands there, or None when one of them has to be cleaned; None is left out
 * under a name in `named`, and with known_only under any.
 * copied(value): a copy of a dict or list whose values are plain, or such dicts and lists, else None.
 * needs_no_cleaning(mapping): 0 when a name or a value needs a look, 1 when there is a None, else 2.
 * without_keys(mapping, names): the pairs whose names are not among `names`, or None.
 * estimated_bytes(mapping, slow): about how many bytes the pairs take on the wire.
 * process_id(): as os.getpid(), without a system call.
 *
 * Nothing here makes an object of the SDK, takes a lock or starts a thread; bytes from the network are
 * not read here. Why C: measured beside the same loops in Python (`make bench ARGS=hotpath`), they are
 * most of the background thread's time, and that thread takes the GIL from the application. Without a
 * compiler telemetry/_attribute_loops.py and _export/otlp_encoder.py do the same; tests/telemetry/
 * test_native.py, export/test_otlp_encoder.py and export/test_pending.py hold the two together, and
 * tests/sanitize.py runs them with AddressSanitizer and UndefinedBehaviorSanitizer.
 */
#include "core.h"
#include <pthread.h>
#include <unistd.h>

static const char *const name_texts[NAMES] = {
    "_context", "_parent", "_name", "_kind", "_status", "_attributes", "_start_time", "_end_time",
    "_events", "_links", "_resource", "_instrumentation_scope", "_value_", "_dict", "dropped", "status_code", "description",
    "value"};
PyObject *name_of[NAMES];

/* The process, without a system call; libc runs the handler in every child, also where Python runs no hooks. */
static pid_t this_process;

static void note_process(void)
{
    this_process = getpid();
}

static PyObject *process_id(PyObject *self, PyObject *unused)
{
    return PyLong_FromLong(this_process);
}

static PyMethodDef methods[] = {
    {"attributes", attributes, METH_VARARGS, "Pairs as OTLP KeyValues under a tag."},
    {"lines", lines, METH_VARARGS, "Log records as fields of ScopeLogs."},
    {"spans", spans, METH_VARARGS, "Spans as fields of ScopeSpans."},
    {"pending_lines", pending_lines, METH_VARARGS, "The log records that redaction has to look at."},
    {"pending_spans", pending_spans, METH_VARARGS, "The spans that redaction has to look at."},
    {"values_to_redact", values_to_redact, METH_VARARGS, "The names that redaction has to look at, or None."},
    {"copied", copied, METH_O, "A copy of a dict or list of plain values, or None."},
    {"fields", fields, METH_VARARGS, "The fields of a log record by attribute name, if all are plain."},
    {"without_keys", without_keys, METH_VARARGS, "The pairs whose names are not among others, or None."},
    {"needs_no_cleaning", needs_no_cleaning, METH_O, "Whether names and values of a mapping are plain."},
    {"estimated_bytes", estimated_bytes, METH_VARARGS, "About how many bytes the pairs take."},
    {"process_id", process_id, METH_NOARGS, "The id of this process."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    if (this_process == 0 && pthread_atfork(NULL, NULL, note_process) != 0)
        return PyErr_NoMemory();
    note_process();
    for (int name = 0; name < NAMES; name++)
        if (name_of[name] == NULL && (name_of[name] = PyUnicode_InternFromString(name_texts[name])) == NULL)
            return NULL;
    return PyModule_Create(&module);
}
