/*
 * What the units of the collector's native core share: the schema of messages, the wire, a sheet of JSON.
 *
 * The wire is read here, inline, because every unit does it for every byte. Any bytes are safe: lengths are
 * checked against the end of their message, depth is bounded, and what is not valid protobuf raises
 * ValueError. Each block below belongs to the unit that it is named after.
 */
#ifndef OTELIER_COLLECTOR_CORE_H
#define OTELIER_COLLECTOR_CORE_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <stddef.h>

/* --- decode.c --- */

enum kind {
    UINT, INT, SINT, BOOLEAN, ENUM, FIXED64, SFIXED64, FIXED32, DOUBLE,
    STRING, HEX, MESSAGE, ATTRIBUTES, ANY, UINT32, SINT32, KINDS
};

static const uint8_t wire_of[KINDS] = {
    [FIXED64] = 1, [SFIXED64] = 1, [DOUBLE] = 1, [FIXED32] = 5, [STRING] = 2, [HEX] = 2,
    [MESSAGE] = 2, [ATTRIBUTES] = 2, [ANY] = 2,
}; /* the others are varints: 0 */

#define MAX_FIELD 64
#define KEY_LONGEST 48

typedef struct schema {
    struct field {
        PyObject *key;      /* NULL: unknown field, skipped */
        PyObject *words;    /* ENUM: tuple of str, or NULL for plain ints */
        const char *name;   /* the key, and below the words, for code without the GIL */
        Py_ssize_t name_size;
        struct word { const char *text; Py_ssize_t size; } *spelled;
        int many_words;
        PyObject *holder;   /* MESSAGE: the capsule that owns `sub` */
        struct schema *sub;
        uint8_t kind, repeated, presence;
    } fields[MAX_FIELD];
} schema;

typedef struct {
    const uint8_t *at, *end;
    int depth;
} cursor;

/* 0, 1: it runs over the end, 2: it is too long */
static inline int scan_varint(cursor *c, uint64_t *out)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (c->at >= c->end)
            return 1;
        uint8_t byte = *c->at++;
        value |= (uint64_t)(byte & 127) << (shift < 64 ? shift : 63);
        if (byte < 128) {
            *out = value;
            return 0;
        }
    }
    return 2;
}

extern PyObject *binary_type, *nonfinite_type, *reserved_keys, *escape_key;

PyObject *number(double value);
PyObject *py_schema(PyObject *self, PyObject *fields);
PyObject *py_decode(PyObject *self, PyObject *args);
void replace(PyObject **place, PyObject *with);
PyObject *py_setup(PyObject *self, PyObject *args);
extern const char schema_doc[], decode_doc[], setup_doc[];

/* --- sizing.c --- */

enum role { PLAIN, KEY_VALUE, ANY_VALUE };

PyObject *py_shapes(PyObject *self, PyObject *types);
PyObject *py_survey(PyObject *self, PyObject *args);
extern const char shapes_doc[], survey_doc[];

/* --- bson.c --- */

enum { DONE = 0, UNUSUAL, LEAVE }; /* LEAVE: the whole document; and -1: a Python error is set */

extern PyObject *utc;

int unhex(const char *digits, unsigned char *bytes);
PyObject *py_bson(PyObject *self, PyObject *args);
PyObject *py_bson_setup(PyObject *self, PyObject *args);
extern const char bson_doc[], bson_setup_doc[];

/* --- rows.c --- */

PyObject *py_row(PyObject *self, PyObject *args);
PyObject *py_row_setup(PyObject *self, PyObject *args);
extern const char row_doc[], row_setup_doc[];

/* --- blake.c --- */

typedef struct {
    uint64_t state[8], counted;
    uint8_t block[128];
    size_t filled;
} blake;

void blake_block(blake *k, int last);
void blake_start(blake *k);
void blake_add(blake *k, const char *bytes, size_t length);
void blake_end(blake *k);

/* --- finish.c --- */

enum { SECTION, PLACE, KIND, CANONICAL, OTHER, AS_TEXT, TAKE_PARTS };

#define MOST_TAKES 64

extern PyObject *zero;

PyObject *py_finish_spans(PyObject *self, PyObject *args);
PyObject *py_finish_logs(PyObject *self, PyObject *args);
int takes_are_good(PyObject *table);
PyObject *py_finish_setup(PyObject *self, PyObject *args);
extern const char finish_spans_doc[], finish_logs_doc[], finish_setup_doc[];

/* --- text.c --- */

typedef struct {
    char *bytes;
    size_t length, room;
    int64_t second; /* whose text is in `date`, -1 for none */
    char date[20];
} sheet;

int grow(sheet *s, size_t more);

static inline int room_for(sheet *s, size_t more)
{
    return more > s->room - s->length ? grow(s, more) : DONE;
}

static inline int write_bytes(sheet *s, const void *bytes, size_t length)
{
    if (room_for(s, length))
        return UNUSUAL;
    memcpy(s->bytes + s->length, bytes, length);
    s->length += length;
    return DONE;
}

#define WRITE(s, literal) write_bytes(s, literal, sizeof literal - 1)

int write_again(sheet *s, size_t from, size_t length);
int write_text(sheet *s, const uint8_t *at, const uint8_t *end);
int write_hex(sheet *s, const uint8_t *at, const uint8_t *end);
int write_unsigned(sheet *s, uint64_t value);
int write_signed(sheet *s, int64_t value);
int write_double(sheet *s, double value);
int write_moment(sheet *s, uint64_t nanos);

/* --- json.c --- */

#define JSON_DEEPEST 40
#define MOST_PAIRS 512        /* open at a time, in all maps around one another */

typedef struct { /* a name and a value of a map */
    cursor key, value;
    uint32_t mark;
    int16_t take; /* which place the name has, -1 for none */
    uint8_t moved;
} pair;

typedef struct { /* one field off the wire */
    uint64_t number, bits;
    cursor inner;
    unsigned wire;
} item;

typedef struct {
    sheet out;
    int pairs_open;
    pair pairs[MOST_PAIRS];
} writer;

static inline int next_item(cursor *c, item *found)
{
    uint64_t tag, size = 8;
    if (scan_varint(c, &tag) || tag < 8 || tag > 0xFFFFFFFF)
        return UNUSUAL;
    found->number = tag >> 3;
    found->wire = tag & 7;
    found->bits = 0;
    switch (found->wire) {
    case 0: return scan_varint(c, &found->bits) ? UNUSUAL : DONE;
    case 1: break;
    case 2:
        if (scan_varint(c, &size))
            return UNUSUAL;
        break;
    case 5: size = 4; break;
    default: return UNUSUAL;
    }
    if (size > (uint64_t)(c->end - c->at))
        return UNUSUAL;
    found->inner = (cursor){c->at, c->at + size, c->depth + 1};
    if (found->wire != 2)
        memcpy(&found->bits, c->at, size); /* little-endian hosts only */
    c->at += size;
    return found->inner.depth > JSON_DEEPEST ? UNUSUAL : DONE;
}

/* What the schema says of a field; NULL for one that is skipped. */
static inline int known(const schema *s, const item *i, const struct field **f)
{
    *f = i->number < MAX_FIELD && s->fields[i->number].key ? &s->fields[i->number] : NULL;
    if (*f && (*f)->repeated && (wire_of[(*f)->kind] != 2 || i->wire != 2))
        return UNUSUAL; /* numbers, packed or not */
    if (*f && i->wire != wire_of[(*f)->kind])
        *f = NULL;
    return DONE;
}

static inline size_t size_of(const cursor *c)
{
    return (size_t)(c->end - c->at);
}

static inline int same(const cursor *one, const char *bytes, size_t size)
{
    return size_of(one) == size && memcmp(one->at, bytes, size) == 0;
}

/* Whether a field that comes once says nothing: the default, where that means absence. */
static inline int absent(const struct field *f, const item *i)
{
    if (f->presence || f->kind == ANY || f->kind == MESSAGE)
        return 0;
    if (f->kind == STRING || f->kind == HEX)
        return i->inner.at == i->inner.end;
    if (f->kind == UINT32 || f->kind == SINT32 || f->kind == ENUM)
        return (uint32_t)i->bits == 0;
    return i->bits == 0;
}

/* One field that has something to say, and where it stands when it comes often. */
typedef struct {
    const struct field *f;
    item i;
    cursor run;
} member;

int only_value(cursor c, item *found, int *there);
int open_pairs(writer *w, cursor c, uint64_t number);
int write_pairs(writer *w, int first);
int write_word(sheet *s, const struct field *f, int32_t code);
int write_name(writer *w, const char *name, size_t size, int *many);
int next_member(const schema *s, cursor *c, uint64_t *seen, member *m, int *there);
int write_member(writer *w, const member *m, int *many);

/* --- direct.c --- */

enum { ON_SHEET, ON_WIRE, OF_SERVICE, WHOLE, REAL, ID, ARRIVED, ABSENT };

typedef struct { /* one value of a row */
    uint8_t kind;
    size_t size;
    union { size_t at; const char *text; int64_t whole; double real; } is;
} cell;

typedef struct {
    cell *at;
    size_t many, room;
} cells;

typedef struct { /* an attribute with a place of its own, see collector/documents/promoted_attributes.py */
    struct word name, section, key; /* a section without text: at the top */
    long kind;                      /* 0: the route, which has no place */
    int canonical, as_text;
    int16_t other, column, next; /* of `places`, -1 for none */
} place;

typedef struct { /* the value that goes to a place */
    const place *to;
    item value;
    size_t at, size; /* on the sheet: a number as its text */
    int as_text, written;
} taken;

struct all_places {
    PyObject *held; /* what the texts belong to */
    int many, columns;
    place at[MOST_TAKES + 1];
    int16_t first[KEY_LONGEST + 1]; /* by length of the name, then `next` */
    struct word service, unknown, failed, entries[8];
    int many_entries;
    long severities[2]; /* of the trail: failed or not */
};

typedef struct { /* what was taken from the attributes of one document */
    taken all[MOST_TAKES];
    int many, routed;
    cursor route;
} takings;

static inline cell *add_cell(cells *c, uint8_t kind)
{
    if (c->many == c->room) {
        size_t room = c->room ? 2 * c->room : 1024;
        cell *at = realloc(c->at, room * sizeof *at);
        if (!at)
            return NULL;
        c->at = at;
        c->room = room;
    }
    cell *made = &c->at[c->many++];
    memset(made, 0, sizeof *made);
    made->kind = kind;
    return made;
}

static inline int same_word(const struct word *one, const struct word *other)
{
    return one->size == other->size && memcmp(one->text, other->text, (size_t)one->size) == 0;
}

extern struct all_places places;

int add_on_sheet(cells *c, uint8_t kind, size_t at, size_t size);
int add_on_wire(cells *c, const cursor *text);
int add_whole(cells *c, int64_t value);
int take_pairs(writer *w, takings *s, int first);
int write_taken(writer *w, takings *s);
int add_columns(cells *c, const takings *s);
PyObject *listed(const cells *c, const sheet *s, PyObject *arrived);
PyObject *py_direct_setup(PyObject *self, PyObject *args);
extern const char direct_setup_doc[];

/* --- spans.c --- */

typedef struct { /* what is known of a span */
    uint64_t start, end;
    size_t trace_at, trace_size, own_at, own_size, status_at, status_size, id_at;
    cursor name, message;
    int named, statused, entry;
    takings takings;
} one;

PyObject *py_span_rows(PyObject *self, PyObject *args);
extern const char span_rows_doc[];

#endif
