/*
 * Protobuf -> JSON text without Python: what `decode` and then `dumps` give, byte for byte.
 *
 * What: json_fields writes the members of a message by its schema, straight from the wire, while other
 * threads hold the GIL.
 * How: whatever is not usual makes the whole of it UNUSUAL, and the caller asks the way over dicts, so that
 * each rule for the unusual exists once: a field that comes twice or not in one run, equal names in a map,
 * bytes, a map that needs an escape, nesting, broken protobuf. Equal by test: tests/collector/stores/sqlite.
 */
#include "core.h"

#define MOST_PAIRS_OF_ONE 256 /* equal names are looked for one by one */

/* The only value of an AnyValue: 1 with its field, 0 when it is empty. */
int only_value(cursor c, item *found, int *there)
{
    static const uint8_t wires[8] = {9, 2, 0, 0, 1, 2, 2, 2};
    item i;
    *there = 0;
    while (c.at < c.end) {
        if (next_item(&c, &i))
            return UNUSUAL;
        if (i.number > 7 || i.wire != wires[i.number])
            continue;
        if (*there)
            return UNUSUAL;
        *there = 1;
        *found = i;
    }
    return DONE;
}

/* The pairs of a map, from all fields of this number; behind those that are open. */
int open_pairs(writer *w, cursor c, uint64_t number)
{
    int first = w->pairs_open;
    item i, part;
    while (c.at < c.end) {
        if (next_item(&c, &i))
            return UNUSUAL;
        if (i.number != number || i.wire != 2)
            continue;
        if (w->pairs_open == MOST_PAIRS || w->pairs_open - first == MOST_PAIRS_OF_ONE)
            return UNUSUAL;
        pair *p = &w->pairs[w->pairs_open];
        memset(p, 0, sizeof *p);
        p->take = -1;
        p->key.at = p->key.end = i.inner.at; /* without a key it is the empty text */
        while (i.inner.at < i.inner.end) {
            if (next_item(&i.inner, &part))
                return UNUSUAL;
            if (part.wire != 2 || part.number > 2)
                continue;
            cursor *place = part.number == 1 ? &p->key : &p->value;
            if (place->depth) /* one that was read */
                return UNUSUAL;
            *place = part.inner;
        }
        uint32_t last = 0;
        size_t size = size_of(&p->key);
        memcpy(&last, p->key.end - (size < 4 ? size : 4), size < 4 ? size : 4);
        p->mark = last ^ (uint32_t)size << 24;
        for (int j = first; j < w->pairs_open; j++)
            if (w->pairs[j].mark == p->mark && same(&p->key, (const char *)w->pairs[j].key.at, size_of(&w->pairs[j].key)))
                return UNUSUAL;
        w->pairs_open++;
    }
    return DONE;
}

static int write_any(writer *w, cursor c);

/* The pairs from `first` on as a map, without those that moved elsewhere. */
int write_pairs(writer *w, int first)
{
    int many = 0;
    if (WRITE(&w->out, "{"))
        return UNUSUAL;
    for (int j = first, last = w->pairs_open; j < last; j++) {
        const pair *p = &w->pairs[j];
        if (p->moved)
            continue;
        if ((many++ && WRITE(&w->out, ",")) || write_text(&w->out, p->key.at, p->key.end)
            || WRITE(&w->out, ":") || write_any(w, p->value))
            return UNUSUAL;
    }
    return WRITE(&w->out, "}");
}

static int write_list(writer *w, cursor c)
{
    int many = 0;
    item i;
    if (WRITE(&w->out, "["))
        return UNUSUAL;
    while (c.at < c.end) {
        if (next_item(&c, &i))
            return UNUSUAL;
        if (i.number == 1 && i.wire == 2 && ((many++ && WRITE(&w->out, ",")) || write_any(w, i.inner)))
            return UNUSUAL;
    }
    return WRITE(&w->out, "]");
}

static int write_map(writer *w, cursor c)
{
    int first = w->pairs_open;
    if (open_pairs(w, c, 1))
        return UNUSUAL;
    for (int j = first; j < w->pairs_open; j++)
        if (size_of(&w->pairs[j].key) && *w->pairs[j].key.at == '$')
            return UNUSUAL; /* it may need an escape */
    if (write_pairs(w, first))
        return UNUSUAL;
    w->pairs_open = first;
    return DONE;
}

static int write_any(writer *w, cursor c)
{
    item i;
    int there;
    double real;
    if (only_value(c, &i, &there))
        return UNUSUAL;
    switch (there ? i.number : 0) {
    case 0: return WRITE(&w->out, "null");
    case 1: return write_text(&w->out, i.inner.at, i.inner.end);
    case 2: return i.bits ? WRITE(&w->out, "true") : WRITE(&w->out, "false");
    case 3: return write_signed(&w->out, (int64_t)i.bits);
    case 4:
        memcpy(&real, &i.bits, 8);
        return write_double(&w->out, real);
    case 5: return write_list(w, i.inner);
    case 6: return write_map(w, i.inner);
    default: return UNUSUAL; /* bytes are written in a way of our own */
    }
}

int write_word(sheet *s, const struct field *f, int32_t code)
{
    if (!f->spelled)
        return write_signed(s, code);
    if (code >= 0 && code < f->many_words) {
        const uint8_t *at = (const uint8_t *)f->spelled[code].text;
        return write_text(s, at, at + f->spelled[code].size);
    }
    return WRITE(s, "\"") || write_signed(s, code) || WRITE(s, "\"") ? UNUSUAL : DONE;
}

static int json_fields(writer *w, const schema *s, cursor c, int *many);

static int write_message(writer *w, const schema *s, cursor c)
{
    int many = 0;
    return WRITE(&w->out, "{") || json_fields(w, s, c, &many) || WRITE(&w->out, "}") ? UNUSUAL : DONE;
}

static int write_value(writer *w, const struct field *f, const item *i)
{
    uint64_t bits = f->kind == UINT32 || f->kind == SINT32 ? i->bits & 0xFFFFFFFF : i->bits;
    double real;
    switch (f->kind) {
    case UINT: case UINT32: case FIXED64: case FIXED32: return write_unsigned(&w->out, bits);
    case INT: case SFIXED64: return write_signed(&w->out, (int64_t)bits);
    case SINT: case SINT32: return write_signed(&w->out, (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1));
    case BOOLEAN: return bits ? WRITE(&w->out, "true") : WRITE(&w->out, "false");
    case ENUM: return write_word(&w->out, f, (int32_t)bits);
    case DOUBLE:
        memcpy(&real, &bits, 8);
        return write_double(&w->out, real);
    case STRING: return write_text(&w->out, i->inner.at, i->inner.end);
    case HEX:
        return WRITE(&w->out, "\"") || write_hex(&w->out, i->inner.at, i->inner.end) || WRITE(&w->out, "\"")
            ? UNUSUAL : DONE;
    case ANY: return write_any(w, i->inner);
    case MESSAGE: return write_message(w, f->sub, i->inner);
    default: return UNUSUAL;
    }
}

int write_name(writer *w, const char *name, size_t size, int *many)
{
    if ((*many)++ && WRITE(&w->out, ","))
        return UNUSUAL;
    return WRITE(&w->out, "\"") || write_bytes(&w->out, name, size) || WRITE(&w->out, "\":") ? UNUSUAL : DONE;
}

/* A field that comes often: the fields of its number from here on, which stand in one run. */
static int write_run(writer *w, const struct field *f, uint64_t number, cursor run)
{
    int many = 0, first = w->pairs_open;
    item i;
    if (f->kind == ATTRIBUTES) {
        if (open_pairs(w, run, number) || write_pairs(w, first))
            return UNUSUAL;
        w->pairs_open = first;
        return DONE;
    }
    if (WRITE(&w->out, "["))
        return UNUSUAL;
    while (run.at < run.end)
        if (next_item(&run, &i) || (many++ && WRITE(&w->out, ",")) || write_value(w, f, &i))
            return UNUSUAL;
    return WRITE(&w->out, "]");
}

/* Move behind the fields of this number that stand here. */
static int end_of_run(cursor *c, uint64_t number)
{
    item i;
    while (c->at < c->end) {
        cursor back = *c;
        if (next_item(c, &i))
            return UNUSUAL;
        if (i.number != number || i.wire != 2) {
            *c = back;
            break;
        }
    }
    return DONE;
}

/* The next of them; `seen` are the numbers that came. 0 at the end. */
int next_member(const schema *s, cursor *c, uint64_t *seen, member *m, int *there)
{
    *there = 0;
    while (c->at < c->end) {
        m->run = *c;
        if (next_item(c, &m->i) || known(s, &m->i, &m->f))
            return UNUSUAL;
        if (!m->f)
            continue;
        if (*seen >> m->i.number & 1)
            return UNUSUAL;
        *seen |= (uint64_t)1 << m->i.number;
        if (m->f->repeated) {
            if (end_of_run(c, m->i.number))
                return UNUSUAL;
            m->run.end = c->at;
        } else if (absent(m->f, &m->i))
            continue;
        *there = 1;
        break;
    }
    return DONE;
}

int write_member(writer *w, const member *m, int *many)
{
    if (write_name(w, m->f->name, (size_t)m->f->name_size, many))
        return UNUSUAL;
    return m->f->repeated ? write_run(w, m->f, m->i.number, m->run) : write_value(w, m->f, &m->i);
}

static int json_fields(writer *w, const schema *s, cursor c, int *many)
{
    uint64_t seen = 0;
    int there;
    member m;
    for (;;) {
        if (next_member(s, &c, &seen, &m, &there))
            return UNUSUAL;
        if (!there)
            return DONE;
        if (write_member(w, &m, many))
            return UNUSUAL;
    }
}
