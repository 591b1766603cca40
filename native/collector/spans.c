/*
 * Spans of a request -> rows of SQLite, without dicts and mostly without the GIL.
 *
 * What: span_rows gives what documents/build.py and collector/stores/sqlite/rows.py would give for a request:
 * the values of the rows of its spans and of their trail (routing.trail), the documents as JSON in them.
 * How: one walk writes every document on a sheet and notes the values of its row; the Python objects are
 * made at the end. A request with anything unusual gives None, and the usual way makes its rows.
 * Why: the dicts of a span took longer to make and to free than everything else, and held the GIL.
 */
#include "core.h"

enum { OTHER_FIELD, TRACE_ID, SPAN_ID, SPAN_NAME, SPAN_KIND, START, END, SPAN_STATUS, SPAN_ATTRIBUTES };

typedef struct {
    writer w;
    cells spans, trails;
    struct word prefix, arrived;
    size_t most;
    const schema *request, *group, *resource, *scoped, *scope, *span, *status;
    const struct field *groups, *scopes, *items, *resource_field, *scope_field, *group_url, *scoped_url,
        *resource_attributes, *code, *message;
    uint8_t role[MAX_FIELD];
    uint64_t entries; /* codes of kinds that leave a trail */
    cell service;
    size_t owner_at, resource_at, resource_end, scope_at, scope_end; /* on the sheet, for each document */
} direct;

/* A hash of a length as the hex digits of an id, in quotes. */
static int write_identity(sheet *s, const blake *k, int size)
{
    uint8_t bytes[16];
    memcpy(bytes, k->state, sizeof bytes); /* little-endian hosts only */
    return write_hex(s, bytes, bytes + size);
}

static int write_id(direct *d, one *s, int *many)
{
    sheet *out = &d->w.out;
    uint64_t second = s->start / 1000000000;
    uint8_t seconds[4] = {(uint8_t)(second >> 24), (uint8_t)(second >> 16), (uint8_t)(second >> 8), (uint8_t)second};
    blake k;
    blake_start(&k);
    blake_add(&k, d->prefix.text, (size_t)d->prefix.size);
    blake_add(&k, out->bytes + s->trace_at, s->trace_size);
    blake_add(&k, out->bytes + s->own_at, s->own_size);
    blake_end(&k);
    if (write_name(&d->w, "_id", 3, many) || WRITE(out, "\""))
        return UNUSUAL;
    s->id_at = out->length;
    return write_hex(out, seconds, seconds + 4) || write_identity(out, &k, 8) || WRITE(out, "\"");
}

/* The code of a status in its place, or the word that stands for none. */
static int write_status(direct *d, one *s, const cursor *status)
{
    uint64_t seen = 0;
    cursor c = status ? *status : (cursor){0};
    size_t from = d->w.out.length;
    member m;
    int there;
    for (;;) {
        if (next_member(d->status, &c, &seen, &m, &there))
            return UNUSUAL;
        if (!there)
            break;
        if (m.f == d->message)
            s->message = m.i.inner;
        if (m.f == d->code && write_word(&d->w.out, m.f, (int32_t)m.i.bits))
            return UNUSUAL;
    }
    if (d->w.out.length == from && WRITE(&d->w.out, "\"UNSET\""))
        return UNUSUAL;
    s->statused = 1;
    s->status_at = from + 1; /* words have nothing that is escaped */
    s->status_size = d->w.out.length - from - 2;
    return DONE;
}

/* One field of a span that came with it. */
static int write_span_member(direct *d, one *s, const member *m, int *many)
{
    int role = d->role[m->i.number], first = d->w.pairs_open;
    if (role == SPAN_ATTRIBUTES) {
        int left = 0;
        if (open_pairs(&d->w, m->run, m->i.number) || take_pairs(&d->w, &s->takings, first))
            return UNUSUAL;
        for (int j = first; j < d->w.pairs_open; j++)
            left += !d->w.pairs[j].moved;
        if (left && (write_name(&d->w, m->f->name, (size_t)m->f->name_size, many) || write_pairs(&d->w, first)))
            return UNUSUAL;
        d->w.pairs_open = first;
        return DONE;
    }
    if (role == SPAN_STATUS)
        return write_name(&d->w, m->f->name, (size_t)m->f->name_size, many)
            || write_status(d, s, &m->i.inner);
    if (write_member(&d->w, m, many))
        return UNUSUAL;
    size_t size = 2 * size_of(&m->i.inner);
    switch (role) {
    case TRACE_ID:
        s->trace_size = size;
        s->trace_at = d->w.out.length - 1 - size;
        break;
    case SPAN_ID:
        s->own_size = size;
        s->own_at = d->w.out.length - 1 - size;
        break;
    case SPAN_NAME:
        s->name = m->i.inner;
        s->named = 1;
        break;
    case SPAN_KIND: s->entry = m->i.bits < 64 && d->entries >> m->i.bits & 1; break;
    case START: s->start = m->i.bits; break;
    case END: s->end = m->i.bits; break;
    }
    return DONE;
}

static int write_zero(direct *d, const char *name, size_t size, int *many)
{
    return write_name(&d->w, name, size, many) || WRITE(&d->w.out, "0");
}

static int write_empty(direct *d, const char *name, size_t size, int *many)
{
    return write_name(&d->w, name, size, many) || WRITE(&d->w.out, "\"\"");
}

/* routing.trail, and its row. */
static int trail_row(direct *d, one *s, double duration)
{
    sheet *out = &d->w.out;
    uint64_t end = s->end > s->start ? s->end : s->start;
    int failed = s->status_size == (size_t)places.failed.size
        && memcmp(out->bytes + s->status_at, places.failed.text, s->status_size) == 0;
    size_t from = out->length, at, id_at = s->id_at;
    if (WRITE(out, "{\"timestamp\":") || write_moment(out, end) || WRITE(out, ",\"time_unix_nano\":")
        || write_unsigned(out, end) || (failed ? WRITE(out, ",\"level\":\"ERROR\"") : WRITE(out, ",\"level\":\"INFO\""))
        || WRITE(out, ",\"message\":") || write_text(out, s->name.at, s->name.end)
        || WRITE(out, ",\"trace\":{\"trace_id\":\"") || write_again(out, s->trace_at, s->trace_size)
        || WRITE(out, "\",\"span_id\":\"") || write_again(out, s->own_at, s->own_size)
        || WRITE(out, "\",\"execution_time_ms\":") || write_double(out, duration)
        || (failed ? WRITE(out, ",\"status\":\"error\"}") : WRITE(out, ",\"status\":\"success\"}")))
        return UNUSUAL;
    if (s->takings.routed) {
        const struct word *name = &places.at[places.many - 1].name;
        const uint8_t *text = (const uint8_t *)name->text;
        if (WRITE(out, ",\"attributes\":{") || write_text(out, text, text + name->size) || WRITE(out, ":")
            || write_text(out, s->takings.route.at, s->takings.route.end) || WRITE(out, "}"))
            return UNUSUAL;
    }
    if (write_again(out, d->owner_at, d->resource_at - d->owner_at) || write_taken(&d->w, &s->takings)
        || WRITE(out, ",\"_id\":\""))
        return UNUSUAL;
    at = out->length;
    if (s->trace_size && s->own_size) {
        blake k;
        blake_start(&k);
        k.state[0] ^= 8 ^ 12; /* a digest of twelve bytes */
        blake_add(&k, d->service.is.text, d->service.size);
        blake_add(&k, "", 1);
        blake_add(&k, out->bytes + s->trace_at, s->trace_size);
        blake_add(&k, out->bytes + s->own_at, s->own_size);
        blake_end(&k);
        id_at = at;
        if (write_identity(out, &k, 12))
            return UNUSUAL;
    } else if (write_again(out, id_at, 24))
        return UNUSUAL;
    if (WRITE(out, "\"}") || out->length - from > d->most)
        return UNUSUAL;
    cells *c = &d->trails;
    cell *service;
    if (add_on_sheet(c, ID, id_at, 24) || add_on_sheet(c, ON_SHEET, s->trace_at, s->trace_size) || add_columns(c, &s->takings)
        || !(service = add_cell(c, OF_SERVICE)))
        return UNUSUAL;
    *service = d->service;
    return !add_cell(c, ABSENT) || add_whole(c, places.severities[failed]) || add_whole(c, (int64_t)end)
        || !add_cell(c, ARRIVED) || add_on_sheet(c, ON_SHEET, from, out->length - from);
}

static int span_row(direct *d, cursor c)
{
    sheet *out = &d->w.out;
    one s;
    memset(&s, 0, offsetof(one, takings));
    s.takings.many = s.takings.routed = 0;
    size_t from = out->length;
    uint64_t seen = 0;
    member m;
    int there, many = 0;
    if (WRITE(out, "{"))
        return UNUSUAL;
    for (;;) {
        if (next_member(d->span, &c, &seen, &m, &there))
            return UNUSUAL;
        if (!there)
            break;
        if (write_span_member(d, &s, &m, &many))
            return UNUSUAL;
    }
    if (s.start >> 63 || s.end >> 63) /* no column holds them */
        return UNUSUAL;
    double duration = s.end > s.start ? (double)(s.end - s.start) / 1e6 : 0.0;
    if ((!s.start && write_zero(d, "start_unix_nano", 15, &many)) || (!s.end && write_zero(d, "end_unix_nano", 13, &many))
        || (!s.trace_size && write_empty(d, "trace_id", 8, &many)) || (!s.own_size && write_empty(d, "span_id", 7, &many))
        || write_id(d, &s, &many) || (!s.named && write_empty(d, "name", 4, &many))
        || WRITE(out, ",\"start\":") || write_moment(out, s.start) || WRITE(out, ",\"duration_ms\":")
        || write_double(out, duration) || write_again(out, d->owner_at, d->resource_end - d->owner_at)
        || write_again(out, d->scope_at, d->scope_end - d->scope_at))
        return UNUSUAL;
    if (!s.statused && (WRITE(out, ",\"status\":") || write_status(d, &s, NULL)))
        return UNUSUAL;
    if (s.message.at && (WRITE(out, ",\"status_message\":") || write_text(out, s.message.at, s.message.end)))
        return UNUSUAL;
    if (write_taken(&d->w, &s.takings) || WRITE(out, "}") || out->length - from > d->most)
        return UNUSUAL;
    size_t size = out->length - from;
    cells *row = &d->spans;
    cell *made;
    if (add_on_sheet(row, ID, s.id_at, 24) || add_on_sheet(row, ON_SHEET, s.trace_at, s.trace_size)
        || add_columns(row, &s.takings) || !(made = add_cell(row, OF_SERVICE)))
        return UNUSUAL;
    *made = d->service;
    if (add_on_wire(row, &s.name) || add_on_sheet(row, ON_SHEET, s.status_at, s.status_size)
        || add_whole(row, (int64_t)s.start) || !(made = add_cell(row, REAL)))
        return UNUSUAL;
    made->is.real = duration;
    if (!add_cell(row, ARRIVED) || add_on_sheet(row, ON_SHEET, from, size))
        return UNUSUAL;
    return s.entry ? trail_row(d, &s, duration) : DONE;
}

/* --- resources and scopes --- */

/* The fields of a message but one, in a map of this name; nothing when there are none. */
static int write_part(direct *d, const char *name, const schema *s, const cursor *c, const struct field *but,
                      const struct field *url, const cursor *url_text)
{
    sheet *out = &d->w.out;
    size_t from = out->length;
    uint64_t seen = 0;
    member m;
    int there, many = 0;
    if (WRITE(out, ",\"") || write_bytes(out, name, strlen(name)) || WRITE(out, "\":{"))
        return UNUSUAL;
    if (c->at) {
        cursor rest = *c;
        for (;;) {
            if (next_member(s, &rest, &seen, &m, &there))
                return UNUSUAL;
            if (!there)
                break;
            if (m.f != but && write_member(&d->w, &m, &many))
                return UNUSUAL;
        }
    }
    if (url_text->at && (write_name(&d->w, url->name, (size_t)url->name_size, &many)
                         || write_text(out, url_text->at, url_text->end)))
        return UNUSUAL;
    if (!many) {
        out->length = from;
        return DONE;
    }
    return WRITE(out, "}");
}

/* The message and the address that stand beside the items of a group; each at most once. */
static int beside(const schema *s, cursor c, const struct field *message, const struct field *url, cursor *one, cursor *two)
{
    item i;
    const struct field *f;
    one->at = two->at = NULL;
    while (c.at < c.end) {
        if (next_item(&c, &i) || known(s, &i, &f))
            return UNUSUAL;
        cursor *place = f == message ? one : f == url ? two : NULL;
        if (!f || !place || (f == url && absent(f, &i)))
            continue;
        if (place->at)
            return UNUSUAL;
        *place = i.inner;
    }
    return DONE;
}

static int write_owner(direct *d, const cursor *resource, const cursor *url)
{
    sheet *out = &d->w.out;
    int first = d->w.pairs_open;
    d->owner_at = out->length;
    d->service = (cell){.kind = OF_SERVICE, .size = (size_t)places.unknown.size, .is.text = places.unknown.text};
    for (int i = 0; i < MAX_FIELD && resource->at; i++)
        if (d->resource_attributes == &d->resource->fields[i] && open_pairs(&d->w, *resource, (uint64_t)i))
            return UNUSUAL;
    for (int j = first; j < d->w.pairs_open; j++) {
        item i;
        int there;
        if (!same(&d->w.pairs[j].key, places.service.text, (size_t)places.service.size))
            continue;
        if (only_value(d->w.pairs[j].value, &i, &there))
            return UNUSUAL;
        if (there && i.number == 1 && size_of(&i.inner)) {
            d->service.is.text = (const char *)i.inner.at;
            d->service.size = size_of(&i.inner);
        }
    }
    const uint8_t *name = (const uint8_t *)d->service.is.text;
    if (WRITE(out, ",\"received_at\":") || write_bytes(out, d->arrived.text, (size_t)d->arrived.size)
        || WRITE(out, ",\"service\":") || write_text(out, name, name + d->service.size))
        return UNUSUAL;
    d->resource_at = out->length;
    if (d->w.pairs_open > first && (WRITE(out, ",\"resource\":") || write_pairs(&d->w, first)))
        return UNUSUAL;
    d->w.pairs_open = first;
    if (write_part(d, "resource_meta", d->resource, resource, d->resource_attributes, d->group_url, url))
        return UNUSUAL;
    d->resource_end = out->length;
    return DONE;
}

static int scope_rows(direct *d, cursor c)
{
    cursor scope, url;
    item i;
    const struct field *f;
    if (beside(d->scoped, c, d->scope_field, d->scoped_url, &scope, &url))
        return UNUSUAL;
    d->scope_at = d->w.out.length;
    if (write_part(d, "scope", d->scope, &scope, NULL, d->scoped_url, &url))
        return UNUSUAL;
    d->scope_end = d->w.out.length;
    while (c.at < c.end)
        if (next_item(&c, &i) || known(d->scoped, &i, &f) || (f && f == d->items && span_row(d, i.inner)))
            return UNUSUAL;
    return DONE;
}

static int request_rows(direct *d, cursor c)
{
    item i, j;
    const struct field *f;
    cursor resource, url;
    while (c.at < c.end) {
        if (next_item(&c, &i) || known(d->request, &i, &f))
            return UNUSUAL;
        if (!f || f != d->groups)
            continue;
        if (beside(d->group, i.inner, d->resource_field, d->group_url, &resource, &url)
            || write_owner(d, &resource, &url))
            return UNUSUAL;
        for (cursor g = i.inner; g.at < g.end;)
            if (next_item(&g, &j) || known(d->group, &j, &f) || (f && f == d->scopes && scope_rows(d, j.inner)))
                return UNUSUAL;
    }
    return DONE;
}

/* --- the schema, and Python --- */

/* A field by its name; NULL when there is none, or when it is of another kind. */
static const struct field *field_of(const schema *s, const char *name, enum kind kind, int repeated)
{
    for (int i = 0; s && i < MAX_FIELD; i++)
        if (s->fields[i].key && strcmp(s->fields[i].name, name) == 0)
            return s->fields[i].kind == kind && s->fields[i].repeated == repeated ? &s->fields[i] : NULL;
    return NULL;
}

static const schema *below(const struct field *f)
{
    return f ? f->sub : NULL;
}

/* Find everything that has a meaning here; 0 when this is no request of spans as we know it. */
static int learn(direct *d, const schema *request)
{
    static const struct { const char *name; enum kind kind; int repeated, role; } roles[] = {
        {"trace_id", HEX, 0, TRACE_ID}, {"span_id", HEX, 0, SPAN_ID}, {"name", STRING, 0, SPAN_NAME},
        {"kind", ENUM, 0, SPAN_KIND}, {"start_unix_nano", FIXED64, 0, START}, {"end_unix_nano", FIXED64, 0, END},
        {"status", MESSAGE, 0, SPAN_STATUS}, {"attributes", ATTRIBUTES, 1, SPAN_ATTRIBUTES},
    };
    static const char *const ours[] = {"_id", "start", "duration_ms", "received_at", "service", "resource",
                                       "resource_meta", "scope", "status_message"};
    d->request = request;
    d->groups = field_of(request, "resource_spans", MESSAGE, 1);
    d->group = below(d->groups);
    d->resource_field = field_of(d->group, "resource", MESSAGE, 0);
    d->resource = below(d->resource_field);
    d->resource_attributes = field_of(d->resource, "attributes", ATTRIBUTES, 1);
    d->group_url = field_of(d->group, "schema_url", STRING, 0);
    d->scopes = field_of(d->group, "scope_spans", MESSAGE, 1);
    d->scoped = below(d->scopes);
    d->scope_field = field_of(d->scoped, "scope", MESSAGE, 0);
    d->scope = below(d->scope_field);
    d->scoped_url = field_of(d->scoped, "schema_url", STRING, 0);
    d->items = field_of(d->scoped, "spans", MESSAGE, 1);
    d->span = below(d->items);
    if (!d->resource_attributes || !d->group_url || !d->scope || !d->scoped_url || !d->span)
        return 0;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const struct field *f = field_of(d->span, roles[i].name, roles[i].kind, roles[i].repeated);
        if (!f || f->presence)
            if (!f || f->kind != MESSAGE)
                return 0;
        d->role[f - d->span->fields] = (uint8_t)roles[i].role;
        if (roles[i].role == SPAN_STATUS)
            d->status = f->sub;
        for (int code = 0; roles[i].role == SPAN_KIND && code < f->many_words && code < 64; code++)
            for (int k = 0; k < places.many_entries; k++)
                if (same_word(&f->spelled[code], &places.entries[k]))
                    d->entries |= (uint64_t)1 << code;
    }
    d->code = field_of(d->status, "code", ENUM, 0);
    d->message = field_of(d->status, "message", STRING, 0);
    for (int i = 0; i < MAX_FIELD; i++) /* a field of a later OTLP must not meet one of the document */
        for (size_t j = 0; d->span->fields[i].key && j < sizeof ours / sizeof *ours; j++)
            if (strcmp(d->span->fields[i].name, ours[j]) == 0)
                return 0;
    return d->code && d->message && d->code->spelled;
}

const char span_rows_doc[] = PyDoc_STR("span_rows(schema, data, prefix, arrived, arrived_json, most)\n--\n\n"
"The values of the rows of the spans of a request, and of those of their trail, as two flat lists.\n"
"None when something in it is not usual, or a document has more than `most` bytes.");

PyObject *py_span_rows(PyObject *self, PyObject *args)
{
    PyObject *capsule, *arrived, *spans = NULL, *trails = NULL, *made = NULL;
    const char *data;
    Py_ssize_t length, most;
    direct *d = calloc(1, sizeof *d);
    if (!d)
        return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "Oy#y#O!y#n", &capsule, &data, &length, &d->prefix.text, &d->prefix.size,
                          &PyLong_Type, &arrived, &d->arrived.text, &d->arrived.size, &most))
        goto end;
    schema *request = PyCapsule_GetPointer(capsule, "schema");
    if (!request)
        goto end;
    if (!places.many || !zero) {
        PyErr_SetString(PyExc_RuntimeError, "direct_setup and finish_setup have not been called");
        goto end;
    }
    d->most = most < 0 ? 0 : (size_t)most;
    d->w.out.second = -1;
    int done = UNUSUAL;
    if (learn(d, request)) {
        cursor c = {(const uint8_t *)data, (const uint8_t *)data + length, 0};
        PyThreadState *others = PyEval_SaveThread();
        done = room_for(&d->w.out, 1024) || request_rows(d, c);
        PyEval_RestoreThread(others);
    }
    if (done != DONE)
        made = Py_NewRef(Py_None);
    else if ((spans = listed(&d->spans, &d->w.out, arrived)) && (trails = listed(&d->trails, &d->w.out, arrived)))
        made = PyTuple_Pack(2, spans, trails);
end:
    Py_XDECREF(spans);
    Py_XDECREF(trails);
    free(d->w.out.bytes);
    free(d->spans.at);
    free(d->trails.at);
    free(d);
    return made;
}
