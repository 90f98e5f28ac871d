/*
 * Xenstore client: one request at a time over two rings of bytes in a page shared with xenstored.
 *
 * Each request waits for its answer; what else arrives meanwhile can only be news of a watch, and
 * is noted. Transactions are not needed: nobody else writes what this guest writes.
 */
#include "xenstore.h"

#include "console.h"
#include "hypercall.h"
#include "io.h"
#include "shared_page.h"
#include "text.h"
#include "xen_abi.h"

/* xenstored answers in well under a millisecond, but a busy host may keep dom0 waiting. */
#define PATIENCE (30 * SECOND)

static volatile struct xenstore_ring *ring;
static u32 port;
static u32 last_request;
static bool broken;                     /* it fell silent: bytes would no longer be in step */
static bool changed[WATCHES];

bool xenstore_start(void)
{
    ring = (void *)(hvm_param(HVM_PARAM_STORE_PFN) * PAGE_SIZE);
    port = hvm_param(HVM_PARAM_STORE_EVTCHN);
    broken = false;
    memset(changed, 0, sizeof changed);
    return ring && port;
}

u32 xenstore_port(void)
{
    return port;
}

/* How many bytes could be given to xenstored, or taken from it, now. */
static u32 room(void)
{
    return sizeof ring->request - min(sizeof ring->request, ring->request_prod - ring->request_cons);
}

static u32 waiting(void)
{
    return min(sizeof ring->response, ring->response_prod - ring->response_cons);
}

static bool wait_for(u32 (*bytes)(void))
{
    u64 deadline = xen_time() + PATIENCE;

    while (!broken && !bytes()) {
        if (xen_time() >= deadline) {
            broken = true;
            say("Xenstore has not answered for 30 s: from now on without it");
        } else {
            sleep_until_event(&port, 1, deadline);
            event_take(port);
        }
    }
    return !broken;
}

static bool give(const void *from, u32 length)
{
    const u8 *bytes = from;

    while (length && wait_for(room)) {
        u32 prod = ring->request_prod, part = min(length, room());

        for (u32 i = 0; i < part; i++)
            ring->request[(prod + i) % sizeof ring->request] = bytes[i];
        barrier();                      /* the bytes are there before the index says so */
        ring->request_prod = prod + part;
        event_channel_notify(port);
        bytes += part;
        length -= part;
    }
    return !broken;
}

/* Take bytes; to == NULL drops them. */
static bool take(void *to, u32 length)
{
    u8 *bytes = to;

    while (length && wait_for(waiting)) {
        u32 cons = ring->response_cons, part = min(length, waiting());

        barrier();                      /* the index is read before the bytes it speaks of */
        for (u32 i = 0; bytes && i < part; i++)
            *bytes++ = ring->response[(cons + i) % sizeof ring->response];
        barrier();                      /* the bytes are read before their place is given back */
        ring->response_cons = cons + part;
        event_channel_notify(port);
        length -= part;
    }
    return !broken;
}

/* Take a text of `length` bytes as far as there is room for it, and end it with NUL. */
static bool take_text(char *to, u32 space, u32 length)
{
    u32 kept = min(space - 1, length);

    to[kept] = 0;
    return take(to, kept) && take(NULL, length - kept);
}

/* News of a watch is two texts: the path that changed, and our token: 'A' + enum watch. */
static void note_change(const char *news)
{
    u32 watch = (u32)news[strlen(news) + 1] - 'A';

    if (watch < WATCHES)
        changed[watch] = true;
}

/* Take one message. If it answers request `id`, return its type and put its text in `answer`. */
static u32 take_message(u32 id, char *answer, u32 space)
{
    struct xenstore_header header;
    char news[XENSTORE_TEXT + 1] = "";

    if (!take(&header, sizeof header))
        return XS_ERROR;
    if (header.type == XS_WATCH_EVENT) {
        if (take_text(news, XENSTORE_TEXT, header.length))
            note_change(news);
        return 0;
    }
    if (header.request_id != id) {
        take(NULL, header.length);
        return 0;
    }
    return take_text(answer, space, header.length) ? header.type : XS_ERROR;
}

/* Send a path and what follows it, and wait for the answer's text. */
static bool request(u32 type, const char *path, const char *more, u32 more_length, char *answer,
                    u32 space)
{
    struct xenstore_header header = {
        .type = type,
        .request_id = ++last_request,
        .length = strlen(path) + 1 + more_length,
    };
    u32 reply = 0;

    if (!give(&header, sizeof header) || !give(path, strlen(path) + 1) || !give(more, more_length))
        return false;
    while (!reply)
        reply = take_message(header.request_id, answer, space);
    return reply == type;
}

bool xenstore_read(const char *path, char *value, u32 space)
{
    bool found = request(XS_READ, path, NULL, 0, value, space);

    if (!found)
        value[0] = 0;
    return found;
}

u32 xenstore_read_number(const char *path, u32 otherwise)
{
    char text[XENSTORE_TEXT];
    u32 number = 0;

    if (!xenstore_read(path, text, sizeof text))
        return otherwise;
    for (const char *digit = text; *digit >= '0' && *digit <= '9'; digit++)
        number = number * 10 + (u32)(*digit - '0');
    return number;
}

bool xenstore_write(const char *path, const char *value)
{
    char answer[XENSTORE_TEXT];

    return request(XS_WRITE, path, value, strlen(value), answer, sizeof answer);
}

bool xenstore_write_number(const char *path, u32 value)
{
    char digits[12] = "";
    struct text text = {.start = digits, .room = sizeof digits - 1};

    put(&text, "%u", value);
    return xenstore_write(path, digits);
}

bool xenstore_watch(enum watch watch, const char *path)
{
    char answer[XENSTORE_TEXT];
    const char token[2] = {(char)('A' + watch), 0};

    return request(XS_WATCH, path, token, sizeof token, answer, sizeof answer);
}

bool xenstore_changed(enum watch watch)
{
    char nothing[1];
    bool result;

    while (!broken && waiting())
        take_message(0, nothing, sizeof nothing);
    result = changed[watch];
    changed[watch] = false;
    return result;
}

bool xenstore_any_changed(void)
{
    for (u32 i = 0; i < WATCHES; i++)
        if (changed[i])
            return true;
    return !broken && waiting() > 0;
}
