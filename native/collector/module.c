/* The module collector._core: the table of its functions, one group for each unit. */
#include "core.h"

static PyMethodDef methods[] = {
    {"span_rows", py_span_rows, METH_VARARGS, span_rows_doc},
    {"direct_setup", py_direct_setup, METH_VARARGS, direct_setup_doc},
    {"row", py_row, METH_VARARGS, row_doc},
    {"row_setup", py_row_setup, METH_VARARGS, row_setup_doc},
    {"finish_spans", py_finish_spans, METH_VARARGS, finish_spans_doc},
    {"finish_logs", py_finish_logs, METH_VARARGS, finish_logs_doc},
    {"finish_setup", py_finish_setup, METH_VARARGS, finish_setup_doc},
    {"bson", py_bson, METH_VARARGS, bson_doc},
    {"bson_setup", py_bson_setup, METH_VARARGS, bson_setup_doc},
    {"shapes", py_shapes, METH_O, shapes_doc},
    {"survey", py_survey, METH_VARARGS, survey_doc},
    {"schema", py_schema, METH_O, schema_doc},
    {"decode", py_decode, METH_VARARGS, decode_doc},
    {"setup", py_setup, METH_VARARGS, setup_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "collector._core", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    if (!(escape_key = PyUnicode_InternFromString("$escape")))
        return NULL;
    return PyModule_Create(&module);
}
