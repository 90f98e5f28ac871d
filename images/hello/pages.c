/* The page for people and the one for programs: the same facts. What does not fit is left out, and
 * the page says so. */
#include "pages.h"
#include "calendar.h"
#include "console.h"
#include "net.h"
#include "settings.h"
#include "tcp.h"

#define TAIL_ROOM 96                    /* kept free for what ends a page */

static void row(struct text *page, const char *title, const char *value)
{
    if (value[0])
        put(page, "<tr><th>%h</th><td>%h</td></tr>\n", title, value);
}

static void address_row(struct text *page, const char *title, const struct ip *address)
{
    if (is_set(address))
        put(page, "<tr><th>%s</th><td>%i</td></tr>\n", title, address);
}

static void time_row(struct text *page, const char *title, u64 seconds)
{
    put(page, "<tr><th>%s</th><td>", title);
    put_time(page, seconds);
    put(page, "</td></tr>\n");
}

static void put_greeting(struct text *page)
{
    if (settings.greeting[0])
        put(page, "%h", settings.greeting);
    else
        put(page, "Hello from %h", settings.service[0] ? settings.service : "a guest");
}

/* Config keys one by one, each as a whole or not at all. */
static void put_config(struct text *page, bool html)
{
    u32 room = page->room;
    page->room -= TAIL_ROOM;
    for (u32 i = 0; i < settings.config_count; i++) {
        const struct setting *s = &settings.config[i];
        u32 length = page->length;
        if (html)
            put(page, "<tr><th>%h</th><td>%h</td></tr>\n", s->key, s->value);
        else
            put(page, "%s\"%j\":\"%j\"", i ? "," : "", s->key, s->value);
        if (page->cut) {
            page->length = length;
            break;
        }
    }
    page->room = room;
}

void page_html(struct text *page, u64 started)
{
    u64 ms = divide(machine->now_ns(), MILLISECOND), s = divide(ms, 1000);

    put(page, "<!DOCTYPE html>\n<html lang=\"en\"><head><title>");
    put_greeting(page);
    put(page, "</title>\n<style>body{font:16px sans-serif;margin:3em auto;max-width:36em}"
              "th{text-align:left;padding-right:1em}</style>\n</head><body><h1>");
    put_greeting(page);
    put(page, "</h1>\n<table>\n");
    row(page, "Guest", settings.name);
    row(page, "Service", settings.service);
    row(page, "Host", settings.host);
    address_row(page, "Address", &own.ipv4);
    address_row(page, "IPv6 address", &own.ipv6);
    row(page, "Platform", machine->name);
    put(page, "<tr><th>Up for</th><td>%U.%3u seconds</td></tr>\n", s, (u32)(ms - s * 1000));
    time_row(page, "Started", started);
    time_row(page, "Time", machine->wall_s());
    put(page, "<tr><th>Requests</th><td>%u</td></tr>\n", counts.requests);
    put_config(page, true);
    put(page, "</table>%s</body></html>\n", page->cut ? "<p>There is no room for the rest.</p>" : "");
}

static void address_field(struct text *page, const char *key, const struct ip *address)
{
    if (is_set(address))
        put(page, "\"%s\":\"%i\",", key, address);
    else
        put(page, "\"%s\":null,", key);
}

void page_json(struct text *page, u64 started)
{
    u64 ms = divide(machine->now_ns(), MILLISECOND), s = divide(ms, 1000);

    put(page, "{\"name\":\"%j\",\"service\":\"%j\",\"host\":\"%j\",", settings.name, settings.service, settings.host);
    address_field(page, "ip", &own.ipv4);
    address_field(page, "ip6", &own.ipv6);
    put(page, "\"mac\":\"%m\",\"platform\":\"%s\",\"uptime\":%U.%3u,\"started\":%U,\"time\":%U,", own.mac,
        machine->name, s, (u32)(ms - s * 1000), started, machine->wall_s());
    put(page, "\"requests\":%u,\"connections\":%u,\"frames\":{\"received\":%u,\"sent\":%u,\"ignored\":%u,",
        counts.requests, tcp_connections(), counts.received, counts.sent, counts.ignored);
    put(page, "\"unsent\":%u},\"segments_resent\":%u,\"config\":{", counts.unsent, counts.resent);
    put_config(page, false);
    put(page, "},\"config_cut\":%s}\n", page->cut ? "true" : "false");
}
