/*
 * Rows of SQLite straight from a request: their values, and the attributes that have places of their own.
 *
 * What: cells are the values of rows that are not yet Python objects: places on a sheet, texts on the wire,
 * numbers. take_pairs does what the Python of documents/promoted_attributes.py does, and the names that it knows come from direct_setup.
 * How: see spans.c, which writes the documents.
 */
#include "core.h"

#define MOST_COLUMNS 16

struct all_places places;

int add_on_sheet(cells *c, uint8_t kind, size_t at, size_t size)
{
    cell *made = add_cell(c, kind);
    if (made) {
        made->is.at = at;
        made->size = size;
    }
    return made ? DONE : UNUSUAL;
}

int add_on_wire(cells *c, const cursor *text)
{
    cell *made = add_cell(c, ON_WIRE);
    if (made) {
        made->is.text = (const char *)text->at;
        made->size = size_of(text);
    }
    return made ? DONE : UNUSUAL;
}

int add_whole(cells *c, int64_t value)
{
    cell *made = add_cell(c, WHOLE);
    if (made)
        made->is.whole = value;
    return made ? DONE : UNUSUAL;
}

/* --- attributes with a place of their own --- */

static int16_t place_of(const cursor *name)
{
    size_t size = size_of(name);
    int16_t found = size <= KEY_LONGEST ? places.first[size] : -1;
    while (found >= 0 && memcmp(places.at[found].name.text, name->at, size) != 0)
        found = places.at[found].next;
    return found;
}

/* the Python of documents/promoted_attributes.py: move or copy what has a place. */
int take_pairs(writer *w, takings *s, int first)
{
    int16_t has[MOST_TAKES + 1];
    item values[MOST_TAKES + 1];
    int some = 0;
    for (int j = first; j < w->pairs_open; j++)
        some |= (w->pairs[j].take = place_of(&w->pairs[j].key)) >= 0;
    if (!some)
        return DONE;
    memset(has, 0, sizeof has); /* the kind of the value: 1 text, 3 whole, 4 real, 8 another one */
    for (int j = first; j < w->pairs_open; j++) {
        int16_t at = w->pairs[j].take;
        int there;
        if (at < 0)
            continue;
        if (only_value(w->pairs[j].value, &values[at], &there))
            return UNUSUAL;
        has[at] = there && (values[at].number == 1 || values[at].number == 3 || values[at].number == 4)
            ? (int16_t)values[at].number : 8;
    }
    for (int j = first; j < w->pairs_open; j++) {
        int16_t at = w->pairs[j].take;
        if (at < 0)
            continue;
        const place *to = &places.at[at];
        if (!to->kind) {
            s->routed = has[at] == 1;
            s->route = values[at].inner;
            continue;
        }
        int right = has[at] == (to->kind == 's' ? 1 : to->kind == 'i' ? 3 : 4);
        if (!right && !(to->as_text && has[at] == 3))
            continue;
        int16_t other = to->other >= 0 ? has[to->other] : 0;
        if (!to->canonical && (other == 1 || other == 3))
            continue; /* the canonical name wins */
        if (right && to->canonical && !other)
            w->pairs[j].moved = 1;
        taken *kept = s->all;
        while (kept < s->all + s->many
               && !(kept->to->section.text == to->section.text && kept->to->key.text == to->key.text))
            kept++;
        if (kept == s->all + s->many)
            s->many++;
        *kept = (taken){.to = to, .value = values[at], .as_text = !right};
    }
    return DONE;
}

static int write_taken_value(writer *w, taken *t)
{
    const item *i = &t->value;
    double real;
    if (t->as_text) {
        if (WRITE(&w->out, "\""))
            return UNUSUAL;
        t->at = w->out.length;
        if (write_signed(&w->out, (int64_t)i->bits))
            return UNUSUAL;
        t->size = w->out.length - t->at;
        return WRITE(&w->out, "\"");
    }
    switch (i->number) {
    case 1: return write_text(&w->out, i->inner.at, i->inner.end);
    case 3: return write_signed(&w->out, (int64_t)i->bits);
    default:
        memcpy(&real, &i->bits, 8);
        return write_double(&w->out, real);
    }
}

/* What was taken, at the end of a document that has fields already. */
int write_taken(writer *w, takings *s)
{
    int top = 1;
    for (taken *t = s->all, *end = t + s->many; t < end; t++)
        t->written = 0;
    for (taken *t = s->all, *end = t + s->many; t < end; t++) {
        struct word section = t->to->section;
        if (t->written)
            continue;
        if (!section.text) {
            if (write_name(w, t->to->key.text, (size_t)t->to->key.size, &top) || write_taken_value(w, t))
                return UNUSUAL;
            continue;
        }
        int inside = 0;
        if (write_name(w, section.text, (size_t)section.size, &top) || WRITE(&w->out, "{"))
            return UNUSUAL;
        for (taken *u = t; u < end; u++)
            if (u->to->section.text == section.text) {
                u->written = 1;
                if (write_name(w, u->to->key.text, (size_t)u->to->key.size, &inside) || write_taken_value(w, u))
                    return UNUSUAL;
            }
        if (WRITE(&w->out, "}"))
            return UNUSUAL;
    }
    return DONE;
}

int add_columns(cells *c, const takings *s)
{
    const taken *of[MOST_COLUMNS] = {NULL};
    for (int i = 0; i < s->many; i++)
        if (s->all[i].to->column >= 0)
            of[s->all[i].to->column] = &s->all[i];
    for (int i = 0; i < places.columns; i++)
        if (!of[i] ? !add_cell(c, ABSENT)
            : of[i]->as_text ? add_on_sheet(c, ON_SHEET, of[i]->at, of[i]->size)
            : of[i]->value.number != 1 || add_on_wire(c, &of[i]->value.inner))
            return UNUSUAL;
    return DONE;
}

/* --- Python objects --- */

/* The rows as one list of values; `arrived` and the last text of a service are shared. */
PyObject *listed(const cells *c, const sheet *s, PyObject *arrived)
{
    PyObject *list = PyList_New((Py_ssize_t)c->many), *shared = NULL;
    const char *shared_text = NULL;
    for (size_t i = 0; list && i < c->many; i++) {
        const cell *one = &c->at[i];
        PyObject *made = NULL;
        unsigned char bytes[12];
        switch (one->kind) {
        case ON_SHEET:
            made = PyUnicode_DecodeUTF8(s->bytes + one->is.at, (Py_ssize_t)one->size, NULL);
            break;
        case ON_WIRE:
            made = PyUnicode_DecodeUTF8(one->size ? one->is.text : "", (Py_ssize_t)one->size, NULL);
            break;
        case OF_SERVICE:
            if (!shared || shared_text != one->is.text) {
                Py_XDECREF(shared);
                shared = PyUnicode_DecodeUTF8(one->is.text, (Py_ssize_t)one->size, NULL);
                shared_text = one->is.text;
            }
            made = shared ? Py_NewRef(shared) : NULL;
            break;
        case WHOLE: made = PyLong_FromLongLong(one->is.whole); break;
        case REAL: made = PyFloat_FromDouble(one->is.real); break;
        case ID: /* sqlite3 takes this type of bytes without a look for adapters */
            made = unhex(s->bytes + one->is.at, bytes)
                ? PyByteArray_FromStringAndSize((const char *)bytes, 12) : Py_NewRef(Py_None);
            break;
        case ARRIVED: made = Py_NewRef(arrived); break;
        default: made = Py_NewRef(zero); break;
        }
        if (!made || PyList_SetItem(list, (Py_ssize_t)i, made) < 0) /* takes the reference */
            Py_CLEAR(list);
    }
    Py_XDECREF(shared);
    return list;
}

static int word_of(PyObject *text, struct word *out)
{
    out->text = PyUnicode_AsUTF8AndSize(text, &out->size); /* it belongs to the text */
    return out->text ? 0 : -1;
}

/* One entry of the table of takes: the same section or key is the same pointer from here on. */
static int set_place(place *to, PyObject *name, PyObject *take, PyObject *section, PyObject *columns)
{
    PyObject *key = PyTuple_GetItem(take, PLACE);
    struct word none = {NULL, 0};
    to->section = none;
    to->column = -1;
    if (word_of(name, &to->name) < 0 || word_of(key, &to->key) < 0)
        return -1;
    if (PyTuple_GetItem(take, SECTION) != Py_None && word_of(PyTuple_GetItem(take, SECTION), &to->section) < 0)
        return -1;
    for (place *before = places.at; before < to; before++) {
        if (to->section.text && before->section.text && same_word(&before->section, &to->section))
            to->section = before->section;
        if (same_word(&before->key, &to->key))
            to->key = before->key;
    }
    to->kind = PyLong_AsLong(PyTuple_GetItem(take, KIND));
    to->canonical = PyTuple_GetItem(take, CANONICAL) == Py_True;
    to->as_text = PyTuple_GetItem(take, AS_TEXT) == Py_True;
    for (Py_ssize_t i = 0; i < PyTuple_Size(columns); i++)
        if (PyUnicode_Compare(key, PyTuple_GetItem(columns, i)) == 0
            && PyTuple_GetItem(take, SECTION) != Py_None
            && PyUnicode_Compare(section, PyTuple_GetItem(take, SECTION)) == 0)
            to->column = (int16_t)i;
    return PyErr_Occurred() ? -1 : 0;
}

/* By the length of their names. */
static int link_places(void)
{
    memset(places.first, -1, sizeof places.first);
    for (int i = 0; i < places.many; i++) {
        if (places.at[i].name.size > KEY_LONGEST)
            return -1;
        places.at[i].next = places.first[places.at[i].name.size];
        places.first[places.at[i].name.size] = (int16_t)i;
    }
    return 0;
}

static int set_places(PyObject *takes, PyObject *section, PyObject *columns, PyObject *route)
{
    PyObject *name, *take;
    Py_ssize_t at = 0;
    int many = 0;
    places.many = 0;
    while (PyDict_Next(takes, &at, &name, &take))
        if (set_place(&places.at[many++], name, take, section, columns) < 0)
            return -1;
    at = 0;
    for (int i = 0; PyDict_Next(takes, &at, &name, &take); i++) {
        struct word other;
        if (word_of(PyTuple_GetItem(take, OTHER), &other) < 0)
            return -1;
        places.at[i].other = -1;
        for (int j = 0; j < many; j++)
            if (same_word(&places.at[j].name, &other))
                places.at[i].other = (int16_t)j;
        if (other.size && places.at[i].other < 0)
            return -1;
    }
    place *last = &places.at[many]; /* the route has no place, but is looked for */
    memset(last, 0, sizeof *last);
    last->column = last->other = -1;
    if (word_of(route, &last->name) < 0)
        return -1;
    places.many = many + 1;
    places.columns = (int)PyTuple_Size(columns);
    return link_places();
}

const char direct_setup_doc[] = PyDoc_STR("direct_setup(takes, section, columns, route, service, unknown, failed, entries, severities)\n--\n\n"
"What rows of spans are made by: the attributes with places (as for finish_setup), the keys of one section\n"
"that are columns, the attribute of a trail and that of a service, the service of who names none, the status\n"
"that is a failure, the kinds that leave a trail, and the severities of a trail that failed or did not.");

PyObject *py_direct_setup(PyObject *self, PyObject *args)
{
    PyObject *takes, *section, *columns, *route, *service, *unknown, *failed, *entries;
    if (!PyArg_ParseTuple(args, "O!UO!UUUUO!(ll)", &PyDict_Type, &takes, &section, &PyTuple_Type, &columns, &route,
                          &service, &unknown, &failed, &PyTuple_Type, &entries, &places.severities[1],
                          &places.severities[0]))
        return NULL;
    places.many_entries = (int)PyTuple_Size(entries);
    if (!takes_are_good(takes) || PyTuple_Size(columns) > MOST_COLUMNS || places.many_entries > 8) {
        PyErr_SetString(PyExc_ValueError, "too many attributes, columns or kinds, or a place of other than six parts");
        return NULL;
    }
    replace(&places.held, args);
    int done = set_places(takes, section, columns, route) | word_of(service, &places.service)
        | word_of(unknown, &places.unknown) | word_of(failed, &places.failed);
    for (int i = 0; i < places.many_entries; i++)
        done |= word_of(PyTuple_GetItem(entries, i), &places.entries[i]);
    if (done == 0)
        Py_RETURN_NONE;
    places.many = 0;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "a name that is too long, or another spelling that is in no place");
    return NULL;
}
