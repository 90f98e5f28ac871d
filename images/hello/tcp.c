/* The connections and their timers.
 *
 * What is left out, because short answers on short paths do without it: window scaling, SACK, time
 * stamps, fast retransmit, path MTU discovery, urgent data. Segments that arrive out of order are
 * dropped and sent again by the peer. At most RESPONSE_ROOM bytes are under way, less than the
 * initial window of RFC 6928, so congestion control is only needed after a loss. */
#include "tcp_connection.h"
#include "console.h"
#include "http.h"

#define IDLE (15 * SECOND)              /* a peer that asks for nothing is told goodbye */
#define GIVE_UP (60 * SECOND)           /* a peer that takes nothing is forgotten */
#define LINGER (1 * SECOND)             /* after both ends closed: stragglers are still answered */
#define CLOSED_PATIENCE (5 * SECOND)    /* for the peer to close, after we did */
#define REPLACEABLE (1 * SECOND)        /* after getting nowhere so long, if a new one needs room */

static struct connection table[CONNECTIONS];

u32 tcp_connections(void)
{
    u32 count = 0;
    for (u32 i = 0; i < CONNECTIONS; i++)
        count += table[i].used;
    return count;
}

static struct connection *find(const struct path *path, u16 port)
{
    for (struct connection *c = table; c < table + CONNECTIONS; c++)
        if (c->used && c->port == port && same_ip(&c->path.remote, &path->remote)
            && same_ip(&c->path.local, &path->local))
            return c;
    return NULL;
}

static void take_data(struct connection *c, const struct segment *s)
{
    u32 known = c->expected - s->seq;   /* bytes that we had before; huge if some are missing */
    bool fin = s->flags & FIN;

    if (s->length || fin)
        c->ack_due = true;
    if (before(c->expected, s->seq) || known > s->length || c->peer_closed)
        return;
    u32 length = s->length - known;
    if (!c->closing) {
        u32 fits = min(length, REQUEST_ROOM - c->request_length);
        fin = fin && fits == length;
        memcpy(c->requests + c->request_length, s->data + known, fits);
        c->request_length += fits;
        length = fits;
    }                                   /* else what still comes is taken and thrown away */
    c->expected += length + fin;
    if (length)
        c->heard_at = machine->now_ns();
    if (fin)
        c->peer_closed = true, c->peer_closed_first = !c->closing;
}

/* Answer all whole requests for whose answers there is room. */
static void serve(struct connection *c)
{
    u32 used = 1;
    while (used && !c->closing && RESPONSE_ROOM - c->response_length >= HTTP_MOST) {
        struct text response = { (char *)c->responses + c->response_length, 0, HTTP_MOST, false };
        used = http_answer((char *)c->requests, c->request_length, REQUEST_ROOM, &response, &c->closing);
        c->request_length -= used;
        memmove(c->requests, c->requests + used, c->request_length);
        c->response_length += response.length;
        if (used)
            c->served_at = machine->now_ns();
    }
    if (!used && c->peer_closed)
        c->closing = true;              /* nothing that could still be answered will come */
    if (c->closing)
        c->request_length = 0;
}

static void close_if_done(struct connection *c)
{
    if (!c->fin_acked || !c->peer_closed)
        return;
    if (c->peer_closed_first)
        c->used = false;
    else if (!c->lingers_until)
        c->lingers_until = machine->now_ns() + LINGER;
}

static bool is_opening(const struct segment *s)
{
    return (s->flags & (SYN | ACK | RST | FIN)) == SYN;
}

/* RFC 9293, 3.10.7.4, first check: does any part of the segment lie in our window? */
static bool in_window(const struct connection *c, const struct segment *s)
{
    u32 length = s->length + !!(s->flags & FIN), window = REQUEST_ROOM - c->request_length;
    bool starts_in_time = before(s->seq, c->expected + window) || s->seq == c->expected;
    return starts_in_time && !before(s->seq + length, c->expected) && (!length || s->seq + length != c->expected);
}

/* The answer to what does not fit: for a peer that missed something it is an ACK, and a forger learns
 * nothing (RFC 5961). Two confused ends must not do this to each other for ever. */
static void tell_where_we_are(struct connection *c, const struct segment *s)
{
    if (s->length || s->flags & FIN || may_complain())
        connection_send(c, c->next, ACK, NULL, 0);
}

static void receive(struct connection *c, const struct packet *p, const struct segment *s)
{
    if (c->lingers_until && is_opening(s) && before(c->expected, s->seq)) {
        c->used = false;                /* the peer uses the port again: RFC 9293, 3.6.1 */
        cookie_send(&p->path, s);
        return;
    }
    bool forged_reset = s->flags & RST && s->seq != c->expected, unsent = before(c->highest, s->ack);
    if (!in_window(c, s) || s->flags & SYN || forged_reset || (s->flags & ACK && unsent)) {
        tell_where_we_are(c, s);
        return;
    }
    if (s->flags & RST) {
        c->used = c->lingers_until != 0;        /* RFC 1337: a straggler cannot end the waiting */
        return;
    }
    if (!(s->flags & ACK))
        return;
    memcpy(c->path.mac, p->path.mac, 6);
    connection_take_ack(c, s);
    take_data(c, s);
    serve(c);
    connection_transmit(c);
    close_if_done(c);
}

/* ---- opening ---- */

/* A free place, or else that of a connection which only lingers, or got nowhere for longest. */
static struct connection *place(void)
{
    struct connection *oldest = table;
    for (struct connection *c = table; c < table + CONNECTIONS; c++) {
        if (!c->used)
            return c;
        if (!oldest->lingers_until && (c->lingers_until || c->served_at < oldest->served_at))
            oldest = c;
    }
    if (oldest->lingers_until)
        return oldest;
    if (machine->now_ns() - oldest->served_at < REPLACEABLE)
        return NULL;
    connection_reset(oldest);
    return oldest;
}

static struct connection *open(const struct path *path, const struct segment *s, u16 mss)
{
    struct connection *c = place();
    if (!c)
        return NULL;                    /* the peer will send again; perhaps there is room then */
    c->used = true;
    c->path = *path;
    c->port = s->from;
    c->mss = mss;
    c->acked = c->next = c->highest = c->window_ack = s->ack;
    c->window = s->window;
    c->window_seq = s->seq;
    c->congestion = RESPONSE_ROOM;
    c->response_length = c->request_length = 0;
    c->closing = c->fin_acked = c->peer_closed = c->peer_closed_first = c->ack_due = false;
    c->expected = s->seq;
    c->timeout = FIRST_TIMEOUT;
    c->smoothed = c->variation = 0;
    c->timed_at = c->resend_at = c->lingers_until = 0;
    c->heard_at = c->served_at = machine->now_ns();
    return c;
}

void tcp_receive(const struct packet *p)
{
    struct segment s;
    u16 mss;

    if (!segment_read(p, &s)) {
        counts.ignored++;
        return;
    }
    struct connection *c = s.to == TCP_PORT ? find(&p->path, s.from) : NULL;
    if (c) {
        receive(c, p, &s);
    } else if (s.to != TCP_PORT) {
        segment_refuse(&p->path, &s);
    } else if (is_opening(&s)) {
        cookie_send(&p->path, &s);
    } else if ((s.flags & (SYN | ACK | RST)) == ACK) {
        enum cookie cookie = cookie_check(&p->path, &s, &mss);
        if (cookie == COOKIE_WRONG)
            segment_refuse(&p->path, &s);
        else if (cookie == COOKIE_RIGHT && (c = open(&p->path, &s, mss)))
            receive(c, p, &s);
    } else {
        segment_refuse(&p->path, &s);
    }
}

/* ---- time ---- */

/* When a connection in which nothing happens is closed, or forgotten. */
static u64 patience_ends(const struct connection *c)
{
    if (c->fin_acked)
        return c->heard_at + CLOSED_PATIENCE;
    return c->heard_at + (c->closing || c->response_length ? GIVE_UP : IDLE);
}

static void run_out_of_patience(struct connection *c)
{
    if (c->closing || c->response_length) {
        connection_reset(c);
        return;
    }
    c->closing = true;
    c->request_length = 0;
    c->heard_at = machine->now_ns();
    connection_transmit(c);
}

u64 tcp_timers(void)
{
    u64 now = machine->now_ns(), next = FOREVER;
    for (struct connection *c = table; c < table + CONNECTIONS; c++) {
        if (!c->used)
            continue;
        if (c->lingers_until) {
            c->used = now < c->lingers_until;
        } else if (now >= patience_ends(c)) {
            run_out_of_patience(c);
        } else if (c->resend_at && now >= c->resend_at) {
            connection_resend(c);
        }
        if (!c->used)
            continue;
        next = earlier(next, c->lingers_until ? c->lingers_until : patience_ends(c));
        if (c->resend_at && !c->lingers_until)
            next = earlier(next, c->resend_at);
    }
    return next;
}

void tcp_reset_all(void)
{
    for (struct connection *c = table; c < table + CONNECTIONS; c++)
        if (c->used)
            connection_reset(c);
}
