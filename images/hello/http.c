/* Requests in, responses out. A request with a body is answered without reading the body, and the
 * connection is closed: nothing here wants one. */
#include "http.h"
#include "calendar.h"
#include "console.h"
#include "net.h"
#include "pages.h"

#define BODY_MOST (HTTP_MOST - 512)     /* the rest is for the header */

struct span { const char *at; u32 length; };            /* a part of the request */

struct request {
    struct span method, target, version;
    bool keep_alive, has_host;
};

static u64 started;                     /* seconds since 1970 */

/* The time of day; the battery-backed clock is slow to read, so not for every request. */
static u64 wall_s(void)
{
    static u64 read_at, wall;
    u64 now = machine->now_ns();
    if (!wall || now - read_at >= SECOND) {
        read_at = now;
        wall = machine->wall_s();
    }
    return wall;
}

void http_start(void)
{
    started = wall_s();
}

/* Compare as HTTP does header names and options: case does not matter. */
static bool is(struct span s, const char *text)
{
    if (s.length != strlen(text))
        return false;
    for (u32 i = 0; i < s.length; i++) {
        char c = s.at[i];
        if ((c >= 'A' && c <= 'Z' ? c | 32 : c) != text[i])
            return false;
    }
    return true;
}

static bool is_exactly(struct span s, const char *text)
{
    return s.length == strlen(text) && same(s.at, text, s.length);
}

/* Cut off what comes before the first `separator`; the whole rest if there is none. */
static struct span cut(struct span *rest, char separator)
{
    struct span part = *rest;
    for (u32 i = 0; i < rest->length; i++)
        if (rest->at[i] == separator) {
            part.length = i;
            rest->at += i + 1;
            rest->length -= i + 1;
            return part;
        }
    rest->at += rest->length;
    rest->length = 0;
    return part;
}

static struct span trimmed(struct span s)
{
    while (s.length && (*s.at == ' ' || *s.at == '\t'))
        s.at++, s.length--;
    while (s.length && (s.at[s.length - 1] == ' ' || s.at[s.length - 1] == '\t'))
        s.length--;
    return s;
}

/* A line without its end, which is LF or CR LF (RFC 9112, 2.2). */
static struct span cut_line(struct span *rest)
{
    struct span line = cut(rest, '\n');
    if (line.length && line.at[line.length - 1] == '\r')
        line.length--;
    return line;
}

/* The length of the request up to its empty line, or 0 if that has not come yet. */
static u32 header_length(const char *at, u32 length)
{
    for (u32 i = 1; i < length; i++)
        if (at[i] == '\n' && (at[i - 1] == '\n' || (i > 1 && at[i - 1] == '\r' && at[i - 2] == '\n')))
            return i + 1;
    return 0;
}

static void read_field(struct request *r, struct span name, struct span value)
{
    if (is(name, "host")) {
        r->has_host = true;
    } else if (is(name, "content-length") || is(name, "transfer-encoding")) {
        r->keep_alive = r->keep_alive && is(value, "0");
    } else if (is(name, "connection")) {
        while (value.length) {
            struct span word = trimmed(cut(&value, ','));
            if (is(word, "close"))
                r->keep_alive = false;
            else if (is(word, "keep-alive") && is_exactly(r->version, "HTTP/1.0"))
                r->keep_alive = true;
        }
    }
}

/* Returns the status to answer with: 200 if the request is well formed. */
static u32 read_request(struct request *r, struct span text)
{
    struct span line = cut_line(&text);
    *r = (struct request){ .method = cut(&line, ' ') };
    r->target = cut(&line, ' ');
    r->version = line;
    if (!r->method.length || !r->target.length || line.length != 8 || !same(line.at, "HTTP/", 5) || line.at[6] != '.')
        return 400;
    if (line.at[5] != '1')
        return 505;
    r->keep_alive = line.at[7] != '0';
    for (line = cut_line(&text); line.length; line = cut_line(&text)) {
        struct span name = cut(&line, ':');
        bool has_colon = name.at + name.length < line.at;
        if (!has_colon || !name.length || name.at[name.length - 1] == ' ' || name.at[0] == ' ')
            return 400;
        read_field(r, name, trimmed(line));
    }
    if (!r->has_host && !is_exactly(r->version, "HTTP/1.0"))
        return 400;                     /* RFC 9112, 3.2 */
    return is_exactly(r->method, "GET") || is_exactly(r->method, "HEAD") ? 200 : 405;
}

/* The path in "/path?query" or "http://host/path?query". */
static struct span path_of(struct span target)
{
    if (target.length > 7 && same(target.at, "http://", 7)) {
        target.at += 7, target.length -= 7;
        struct span after = target;
        cut(&after, '/');
        if (!after.length)
            return (struct span){ "/", 1 };
        target = (struct span){ after.at - 1, after.length + 1 };
    }
    return cut(&target, '?');
}

static const char *reason(u32 status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 431: return "Request Header Fields Too Large";
    default: return "HTTP Version Not Supported";
    }
}

static void respond(struct text *to, u32 status, const char *type, const struct text *body, bool head,
                    bool keep_alive)
{
    put(to, "HTTP/1.1 %u %s\r\nDate: ", status, reason(status));
    put_http_date(to, wall_s());
    put(to, "\r\nContent-Type: %s; charset=utf-8\r\nContent-Length: %u\r\n", type, body->length);
    put(to, "Cache-Control: no-store\r\n");
    if (status == 405)
        put(to, "Allow: GET, HEAD\r\n");
    put(to, "Connection: %s\r\n\r\n", keep_alive ? "keep-alive" : "close");
    if (head)
        return;
    memcpy(to->start + to->length, body->start, body->length);
    to->length += body->length;
}

u32 http_answer(const char *requests, u32 length, u32 room, struct text *response, bool *close)
{
    static char body_room[BODY_MOST];
    struct text body = { body_room, 0, sizeof body_room, false };
    struct request r = { 0 };
    const char *type = "text/plain";
    u32 blank = 0, status;

    while (blank < length && (requests[blank] == '\r' || requests[blank] == '\n'))
        blank++;                        /* RFC 9112, 2.2: some clients end the last one that way */
    u32 used = header_length(requests + blank, length - blank);
    if (!used && length < room)
        return 0;
    status = used ? read_request(&r, (struct span){ requests + blank, used }) : 431;
    counts.requests++;
    struct span path = path_of(r.target);
    if (status == 200 && is_exactly(path, "/")) {
        type = "text/html";
        page_html(&body, started);
    } else if (status == 200 && is_exactly(path, "/info")) {
        type = "application/json";
        page_json(&body, started);
    } else if (status == 200 && is_exactly(path, "/healthz")) {
        put(&body, "ok\n");
    } else {
        status = status == 200 ? 404 : status;
        put(&body, "%u %s\n", status, reason(status));
    }
    *close = !r.keep_alive || status == 400;    /* who knows where the next request begins */
    respond(response, status, type, &body, is_exactly(r.method, "HEAD"), !*close);
    return used ? blank + used : length;
}
