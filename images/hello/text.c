/* Memory and text. gcc calls the mem* functions by itself, for structs and loops. */
#include "address.h"

void *memcpy(void *to, const void *from, u32 length)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
    return start;
}

void *memmove(void *to, const void *from, u32 length)
{
    u8 *t = to;
    const u8 *f = from;
    if (t <= f || t >= f + length)
        return memcpy(to, from, length);
    while (length--)
        t[length] = f[length];
    return to;
}

void *memset(void *to, int byte, u32 length)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(byte) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, u32 length)
{
    const u8 *x = a, *y = b;
    for (u32 i = 0; i < length; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

u32 strlen(const char *text)
{
    u32 length = 0;
    while (text[length])
        length++;
    return length;
}

bool same_text(const char *a, const char *b)
{
    u32 length = strlen(a);
    return strlen(b) == length && same(a, b, length);
}

static void put_char(struct text *to, char c)
{
    if (to->length < to->room)
        to->start[to->length++] = c;
    else
        to->cut = true;
}

static void put_string(struct text *to, const char *text)
{
    while (*text)
        put_char(to, *text++);
}

static void put_number(struct text *to, u64 value, u32 base, u32 least_digits)
{
    char digits[20];
    u32 count = 0;
    do {
        u64 rest = divide(value, base);
        digits[count++] = "0123456789abcdef"[value - rest * base];
        value = rest;
    } while (value);
    for (; least_digits > count; least_digits--)
        put_char(to, '0');
    while (count)
        put_char(to, digits[--count]);
}

static void put_html(struct text *to, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&': put_string(to, "&amp;"); break;
        case '<': put_string(to, "&lt;"); break;
        case '>': put_string(to, "&gt;"); break;
        case '"': put_string(to, "&quot;"); break;
        default: put_char(to, *text);
        }
    }
}

static void put_json(struct text *to, const char *text)
{
    for (; *text; text++) {
        if ((u8)*text < ' ') {
            put_string(to, "\\u");
            put_number(to, (u8)*text, 16, 4);
            continue;
        }
        if (*text == '"' || *text == '\\')
            put_char(to, '\\');
        put_char(to, *text);
    }
}

static void put_mac(struct text *to, const u8 *mac)
{
    for (u32 i = 0; i < 6; i++) {
        if (i)
            put_char(to, ':');
        put_number(to, mac[i], 16, 2);
    }
}

void put_list(struct text *to, const char *format, __builtin_va_list values)
{
    for (; *format; format++) {
        u32 digits = 0;
        if (*format != '%') {
            put_char(to, *format);
            continue;
        }
        if (format[1] >= '1' && format[1] <= '9')   /* %6u: at least that many digits */
            digits = *++format - '0';
        switch (*++format) {
        case 's': put_string(to, __builtin_va_arg(values, const char *)); break;
        case 'h': put_html(to, __builtin_va_arg(values, const char *)); break;
        case 'j': put_json(to, __builtin_va_arg(values, const char *)); break;
        case 'u': put_number(to, __builtin_va_arg(values, u32), 10, digits); break;
        case 'U': put_number(to, __builtin_va_arg(values, u64), 10, digits); break;
        case 'x': put_number(to, __builtin_va_arg(values, u32), 16, digits); break;
        case 'c': put_char(to, __builtin_va_arg(values, int)); break;
        case 'm': put_mac(to, __builtin_va_arg(values, const u8 *)); break;
        case 'i': put_ip(to, __builtin_va_arg(values, const struct ip *)); break;
        default: put_char(to, *format);
        }
    }
}

void put(struct text *to, const char *format, ...)
{
    __builtin_va_list values;
    __builtin_va_start(values, format);
    put_list(to, format, values);
    __builtin_va_end(values);
}
