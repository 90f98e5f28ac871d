/* IP addresses as text: dotted decimal, and RFC 4291 / RFC 5952 for IPv6. */
#include "address.h"

static const u8 mapped[12] = { [10] = 0xff, 0xff };

struct ip ipv4(const u8 four[4])
{
    struct ip a;
    memcpy(a.byte, mapped, sizeof mapped);
    memcpy(a.byte + sizeof mapped, four, 4);
    return a;
}

struct ip ipv6(const u8 sixteen[16])
{
    struct ip a;
    memcpy(a.byte, sixteen, sizeof a.byte);
    return a;
}

bool is_ipv4(const struct ip *a)
{
    return same(a->byte, mapped, sizeof mapped);
}

/* RFC 5952: the longest run of two or more zero groups, the first of equals, becomes "::". */
static void longest_zeros(const u8 *a, u32 *start, u32 *length)
{
    *start = 8, *length = 1;
    for (u32 i = 0; i < 8; i++) {
        u32 n = 0;
        while (i + n < 8 && get16(a + 2 * (i + n)) == 0)
            n++;
        if (n > *length)
            *start = i, *length = n;
    }
}

void put_ip(struct text *to, const struct ip *a)
{
    const u8 *b = ipv4_bytes(a);
    u32 start, length;

    if (is_ipv4(a)) {
        put(to, "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
        return;
    }
    longest_zeros(a->byte, &start, &length);
    for (u32 i = 0; i < 8; i++) {
        if (i == start) {
            put(to, "::");
            i += length - 1;
        } else {
            put(to, i && i != start + length ? ":%x" : "%x", get16(a->byte + 2 * i));
        }
    }
}

/* Read a number of at most `most` in the given base; at least one digit must be there. */
static bool number(const char **at, u32 base, u32 most, u32 *value)
{
    const char *start = *at;
    for (*value = 0;; (*at)++) {
        u8 c = **at | 0x20;             /* letters in lower case; digits are as they were */
        u32 digit = **at >= '0' && **at <= '9' ? c - '0' + 0u : c >= 'a' && c <= 'f' ? c - 'a' + 10u : 99;
        if (digit >= base)
            return *at > start;
        *value = *value * base + digit;
        if (*value > most || *at - start >= 5)
            return false;
    }
}

static bool end(const char *at, u8 most, u8 *prefix)
{
    u32 value;
    if (!prefix)
        return *at == 0;
    if (*at++ != '/' || !number(&at, 10, most, &value) || *at)
        return false;
    *prefix = value;
    return true;
}

bool parse_ipv4(const char *text, struct ip *a, u8 *prefix)
{
    u8 four[4];
    for (u32 i = 0; i < 4; i++) {
        u32 value;
        if (!number(&text, 10, 255, &value) || (i < 3 && *text++ != '.'))
            return false;
        four[i] = value;
    }
    *a = ipv4(four);
    return end(text, 32, prefix);
}

bool parse_ipv6(const char *text, struct ip *a, u8 *prefix)
{
    u32 groups = 0, gap = 8, value;     /* "::" stands before group number `gap` */

    *a = NO_ADDRESS;
    if (text[0] == ':' && text[1] != ':')
        return false;
    while (*text && *text != '/') {
        if (text[0] == ':' && text[1] == ':') {
            if (gap < 8)
                return false;
            gap = groups, text += 2;
            continue;
        }
        if (groups && gap != groups && *text++ != ':')
            return false;
        if (groups == 8 || !number(&text, 16, 0xffff, &value))
            return false;
        put16(a->byte + 2 * groups++, value);
    }
    if (gap == 8 ? groups != 8 : groups == 8)
        return false;
    if (gap < 8) {                      /* move what followed "::" to the end */
        u32 after = 2 * (groups - gap);
        memmove(a->byte + 16 - after, a->byte + 2 * gap, after);
        memset(a->byte + 2 * gap, 0, 16 - 2 * groups);
    }
    return end(text, 128, prefix);
}
