/* The command line, cut into words in a copy of our own: the loader's may lie anywhere. */
#include "settings.h"
#include "console.h"

struct settings settings = { .name = "", .service = "", .host = "", .greeting = "" };

static char words[CMDLINE_MOST + 1];

static i32 hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* RFC 3986, 2.1, in place. A byte 0 would end the text early and stays encoded. */
static void percent_decode(char *text)
{
    char *to = text;
    for (; *text; text++) {
        i32 high = *text == '%' ? hex_digit(text[1]) : -1;
        i32 low = high >= 0 ? hex_digit(text[2]) : -1;
        if (low >= 0 && high + low > 0) {
            *to++ = high << 4 | low;
            text += 2;
        } else {
            *to++ = *text;
        }
    }
    *to = 0;
}

static void must(bool good, const char *key, const char *value, const char *what)
{
    if (!good)
        fatal("%s=%s is not %s", key, value, what);
}

static void apply(const char *key, const char *value)
{
    const struct { const char *key, **place; } texts[] = {
        { "name", &settings.name }, { "service", &settings.service }, { "host", &settings.host },
    };
    for (u32 i = 0; i < countof(texts); i++)
        if (same_text(key, texts[i].key)) {
            *texts[i].place = value;
            return;
        }
    if (same_text(key, "ip")) {
        must(parse_ipv4(value, &settings.ip, &settings.prefix), key, value, "an IPv4 address with its prefix length");
    } else if (same_text(key, "gw")) {
        must(parse_ipv4(value, &settings.gateway, NULL), key, value, "an IPv4 address");
    } else if (same_text(key, "ip6")) {
        must(parse_ipv6(value, &settings.ip6, &settings.prefix6), key, value, "an IPv6 address with its prefix length");
    } else if (settings.config_count < CONFIG_MOST) {
        settings.config[settings.config_count++] = (struct setting){ key, value };
        if (same_text(key, "greeting"))
            settings.greeting = value;
    } else {
        say("%s is left out: there is room for %u config keys", key, CONFIG_MOST);
    }
}

static void read_word(char *word)
{
    for (char *at = word; *at; at++)
        if (*at == '=' && at > word) {
            *at = 0;
            percent_decode(at + 1);
            apply(word, at + 1);
            return;
        }
}

void settings_read(const char *cmdline)
{
    u32 length = strlen(cmdline);
    if (length > CMDLINE_MOST)
        fatal("the command line has %u characters; at most %u are read", length, CMDLINE_MOST);
    memcpy(words, cmdline, length);
    for (char *at = words, *end = words + length; at < end;) {
        char *word = at;
        while (at < end && *at != ' ')
            at++;
        *at++ = 0;
        read_word(word);
    }
}
