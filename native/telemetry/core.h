/*
 * What the units of telemetry._core share: a growing buffer, interned names, and the functions of each
 * unit that the method table in module.c names.
 */
#ifndef OTELIER_CORE_H
#define OTELIER_CORE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define NESTED 8  /* maps and lists inside of each other; deeper ones are Python's */

/* Names of fields and attributes, interned once: see PyInit__core. */
enum {
    N_CONTEXT, N_PARENT, N_NAME, N_KIND, N_STATUS, N_ATTRIBUTES, N_START_TIME, N_END_TIME,
    N_EVENTS, N_LINKS, N_RESOURCE, N_INSTRUMENTATION_SCOPE, N_VALUE, N_DICT, N_DROPPED, N_STATUS_CODE, N_DESCRIPTION,
    N_VALUE_KEY, NAMES
};
extern PyObject *name_of[NAMES];

/* A field of a record, borrowed; NULL without an error if it is not there. */
static inline PyObject *field(PyObject *fields, int name)
{
    return PyDict_GetItemWithError(fields, name_of[name]);
}

typedef struct {
    char *bytes;
    size_t used, room;
} buffer;

/* wire.c */
int make_room(buffer *out, size_t more);
size_t varint_size(uint64_t value);
void put_varint(buffer *out, uint64_t value);
void put_bytes(buffer *out, const char *bytes, size_t size);
int put_attributes(buffer *out, char tag, PyObject *mapping, PyObject *slow);
PyObject *attributes(PyObject *self, PyObject *args);

/* records.c */
int has_details(PyObject *list);
PyObject *lines(PyObject *self, PyObject *args);
PyObject *spans(PyObject *self, PyObject *args);

/* redact.c */
PyObject *pending_lines(PyObject *self, PyObject *args);
PyObject *pending_spans(PyObject *self, PyObject *args);
PyObject *values_to_redact(PyObject *self, PyObject *args);

/* attributes.c */
PyObject *estimated_bytes(PyObject *self, PyObject *args);
PyObject *without_keys(PyObject *self, PyObject *args);
PyObject *copied(PyObject *self, PyObject *value);
PyObject *fields(PyObject *self, PyObject *args);
PyObject *needs_no_cleaning(PyObject *self, PyObject *mapping);

#endif
