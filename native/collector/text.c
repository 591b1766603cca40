/*
 * JSON text without Python: a sheet that grows, and texts, numbers and dates on it as msgspec writes them.
 *
 * Nothing here touches a Python object, so it runs while other threads hold the GIL. What is not usual
 * (NaN, text that is no UTF-8, no memory) is UNUSUAL: the caller asks the way over dicts.
 */
#include "core.h"

#define SHEET_LARGEST (128u << 20)

int grow(sheet *s, size_t more)
{
    if (more > SHEET_LARGEST - s->length) /* length never exceeds it */
        return UNUSUAL;
    size_t room = s->room * 2 > s->length + more ? s->room * 2 : s->length + more;
    char *bytes = realloc(s->bytes, room);
    if (!bytes)
        return UNUSUAL;
    s->bytes = bytes;
    s->room = room;
    return DONE;
}

/* What is in the sheet already, once more. */
int write_again(sheet *s, size_t from, size_t length)
{
    if (room_for(s, length))
        return UNUSUAL;
    memcpy(s->bytes + s->length, s->bytes + from, length);
    s->length += length;
    return DONE;
}

/* --- texts --- */

#define EACH_BYTE(value) (0x0101010101010101u * (value))
#define ANY_ZERO(word) (((word) - EACH_BYTE(1)) & ~(word) & EACH_BYTE(0x80))

/* Length of the character at `at` when it is UTF-8 as Python takes it, else 0. */
static size_t character(const uint8_t *at, const uint8_t *end)
{
    size_t left = (size_t)(end - at);
    uint8_t first = at[0];
    if (first >= 0xc2 && first <= 0xdf)
        return left >= 2 && (at[1] & 0xc0) == 0x80 ? 2 : 0;
    if (first >= 0xe0 && first <= 0xef) {
        if (left < 3 || (at[1] & 0xc0) != 0x80 || (at[2] & 0xc0) != 0x80)
            return 0;
        if ((first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f))
            return 0; /* too long, or a surrogate */
        return 3;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        if (left < 4 || (at[1] & 0xc0) != 0x80 || (at[2] & 0xc0) != 0x80 || (at[3] & 0xc0) != 0x80)
            return 0;
        if ((first == 0xf0 && at[1] < 0x90) || (first == 0xf4 && at[1] > 0x8f))
            return 0;
        return 4;
    }
    return 0;
}

int write_text(sheet *s, const uint8_t *at, const uint8_t *end)
{
    static const char escapes[] = "uuuuuuuubtnufruuuuuuuuuuuuuuuuuu";
    static const char digits[] = "0123456789abcdef";
    if (room_for(s, (size_t)(end - at) + 2))
        return UNUSUAL;
    char *out = s->bytes + s->length;
    *out++ = '"';
    while (at < end) {
        while (end - at >= 8) { /* eight at a time, as long as none of them is special */
            uint64_t word;
            memcpy(&word, at, 8);
            if ((word | ANY_ZERO(word ^ EACH_BYTE('"')) | ANY_ZERO(word ^ EACH_BYTE('\\'))
                 | ((word - EACH_BYTE(0x20)) & ~word)) & EACH_BYTE(0x80))
                break;
            memcpy(out, at, 8);
            out += 8;
            at += 8;
        }
        if (at == end)
            break;
        uint8_t byte = *at;
        if (byte >= 0x80) {
            size_t size = character(at, end);
            if (!size)
                return UNUSUAL;
            memcpy(out, at, size);
            out += size;
            at += size;
        } else if (byte >= 0x20 && byte != '"' && byte != '\\') {
            *out++ = (char)byte;
            at++;
        } else {
            at++;
            s->length = (size_t)(out - s->bytes);
            if (room_for(s, 6 + (size_t)(end - at) + 1)) /* this one, the rest, the quote */
                return UNUSUAL;
            out = s->bytes + s->length;
            *out++ = '\\';
            char letter = byte < 0x20 ? escapes[byte] : (char)byte;
            *out++ = letter;
            if (letter == 'u') {
                *out++ = '0';
                *out++ = '0';
                *out++ = digits[byte >> 4];
                *out++ = digits[byte & 15];
            }
        }
    }
    *out++ = '"';
    s->length = (size_t)(out - s->bytes);
    return DONE;
}

int write_hex(sheet *s, const uint8_t *at, const uint8_t *end)
{
    static const char digits[] = "0123456789abcdef";
    if (room_for(s, 2 * (size_t)(end - at)))
        return UNUSUAL;
    char *out = s->bytes + s->length;
    for (; at < end; at++) {
        *out++ = digits[*at >> 4];
        *out++ = digits[*at & 15];
    }
    s->length = (size_t)(out - s->bytes);
    return DONE;
}

/* --- numbers --- */

int write_unsigned(sheet *s, uint64_t value)
{
    char digits[20], *at = digits + sizeof digits;
    do
        *--at = (char)('0' + value % 10);
    while (value /= 10);
    return write_bytes(s, at, (size_t)(digits + sizeof digits - at));
}

int write_signed(sheet *s, int64_t value)
{
    if (value >= 0)
        return write_unsigned(s, (uint64_t)value);
    return WRITE(s, "-") || write_unsigned(s, 0 - (uint64_t)value) ? UNUSUAL : DONE;
}

/* Exactly `many` digits. */
static char *put_digits(char *out, uint64_t value, int many)
{
    for (int i = many - 1; i >= 0; i--, value /= 10)
        out[i] = (char)('0' + value % 10);
    return out + many;
}

/* The digits of a number that has more than a few, in the shape that msgspec gives them. */
static int write_long_double(sheet *s, double value, int power_of_two)
{
    char found[40], digits[20], made[48], *out = made;
    int many = 0, point;
    if (power_of_two || value < 2.3e-308) /* the nearest short decimal need not be the shortest, or the reverse */
        return UNUSUAL;
    for (int precision = 14;; precision++) {
        if (precision > 16)
            return UNUSUAL; /* a locale that writes numbers in another way */
        snprintf(found, sizeof found, "%.*e", precision, value);
        if (strtod(found, NULL) == value)
            break;
    }
    char *at = found;
    for (; *at && *at != 'e'; at++)
        if (*at >= '0' && *at <= '9')
            digits[many++] = *at;
        else if (*at != '.')
            return UNUSUAL;
    if (!*at || many > 17)
        return UNUSUAL;
    point = atoi(at + 1) + 1; /* the value is 0.digits times ten to this */
    while (many > 1 && digits[many - 1] == '0')
        many--;
    if (point > 0 && point <= 16) {
        for (int i = 0; i < point || i < many; i++) {
            if (i == point)
                *out++ = '.';
            *out++ = i < many ? digits[i] : '0';
        }
        if (many <= point) {
            *out++ = '.';
            *out++ = '0';
        }
    } else if (point > -5 && point <= 0) {
        *out++ = '0';
        *out++ = '.';
        for (int i = point; i < 0; i++)
            *out++ = '0';
        memcpy(out, digits, (size_t)many);
        out += many;
    } else {
        *out++ = digits[0];
        if (many > 1) {
            *out++ = '.';
            memcpy(out, digits + 1, (size_t)many - 1);
            out += many - 1;
        }
        out += snprintf(out, 8, "e%d", point - 1);
    }
    return write_bytes(s, made, (size_t)(out - made));
}

int write_double(sheet *s, double value)
{
    static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
    static const uint64_t whole_tens[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000};
    uint64_t bits;
    memcpy(&bits, &value, 8);
    if (value - value != 0.0)
        return UNUSUAL; /* NaN and the infinities are written in a way of our own */
    if (bits >> 63) {
        if (WRITE(s, "-"))
            return UNUSUAL;
        value = -value;
    }
    if (value == 0.0)
        return WRITE(s, "0.0");
    if (value >= 1e-5)
        for (int places = 0; places < 10 && value * tens[places] < 1e15; places++) {
            /* A decimal of up to 15 digits that is this number is the only one, so the shortest. */
            uint64_t scaled = (uint64_t)(value * tens[places] + 0.5);
            if ((double)scaled / tens[places] != value)
                continue;
            char made[32];
            uint64_t whole = scaled / whole_tens[places];
            made[0] = '.';
            char *end = put_digits(made + 1, scaled % whole_tens[places], places ? places : 1);
            return write_unsigned(s, whole) || write_bytes(s, made, (size_t)(end - made)) ? UNUSUAL : DONE;
        }
    return write_long_double(s, value, bits << 12 == 0);
}

/* --- dates --- */

/* The date and time of day of a second after 1970 (the civil calendar, counted from March). */
static void spell_second(char *out, int64_t second)
{
    int64_t days = second / 86400, rest = second % 86400;
    int64_t shifted = days + 719468, era = shifted / 146097, day = shifted % 146097;
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t of_year = day - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
    out = put_digits(out, (uint64_t)(year + era * 400 + (month >= 10)), 4);
    *out++ = '-';
    out = put_digits(out, (uint64_t)(month < 10 ? month + 3 : month - 9), 2);
    *out++ = '-';
    out = put_digits(out, (uint64_t)(of_year - (153 * month + 2) / 5 + 1), 2);
    *out++ = 'T';
    out = put_digits(out, (uint64_t)(rest / 3600), 2);
    *out++ = ':';
    out = put_digits(out, (uint64_t)(rest / 60 % 60), 2);
    *out++ = ':';
    put_digits(out, (uint64_t)(rest % 60), 2);
}

/* documents.moment: whole microseconds, on the way through a float, half of one to the even one. */
int write_moment(sheet *s, uint64_t nanos)
{
    double time = (double)(nanos / 1000) / 1e6;
    int64_t second = (int64_t)time;
    double part = (time - (double)second) * 1e6;
    int64_t micros = (int64_t)part;
    double left = part - (double)micros;
    char made[32], *out = made;
    if (left > 0.5 || (left == 0.5 && micros % 2))
        micros++;
    if (micros >= 1000000) {
        micros -= 1000000;
        second++;
    }
    if (second != s->second) {
        spell_second(s->date, second);
        s->second = second;
    }
    *out++ = '"';
    memcpy(out, s->date, 19);
    out += 19;
    if (micros) {
        *out++ = '.';
        out = put_digits(out, (uint64_t)micros, 6);
    }
    *out++ = 'Z';
    *out++ = '"';
    return write_bytes(s, made, (size_t)(out - made));
}
