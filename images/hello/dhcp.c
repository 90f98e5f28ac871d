/* DHCP (RFC 2131, options in RFC 2132): discover, request, renew before the lease ends, start again
 * when it is refused or over. The address is not probed before it is used; conflicts are noted. */
#include "dhcp.h"
#include "console.h"
#include "hash.h"
#include "settings.h"
#include "udp.h"

#define SERVER_PORT 67
#define CLIENT_PORT 68
#define MAGIC 0x63825363                /* before the options */
#define BROADCAST_FLAG 0x8000           /* servers on plain sockets cannot reach us otherwise */
#define LEAST_MESSAGE 300               /* as BOOTP had it: some relays drop shorter ones */
#define FIRST_WAIT (1 * SECOND)         /* before a message is repeated; then twice as long */
#define LONGEST_WAIT (64 * SECOND)
#define LONGEST_LEASE 0x7fffffff        /* seconds; an infinite lease is renewed as late as this */

enum { DISCOVER = 1, OFFER, REQUEST, DECLINE, ACK, NAK };       /* types of messages */

enum {                                  /* options */
    PAD = 0, MASK = 1, ROUTER = 3, HOST_NAME = 12, WANTED_IP = 50, LEASE = 51, TYPE = 53,
    SERVER = 54, PARAMETERS = 55, RENEWAL = 58, REBINDING = 59, CLIENT_ID = 61, END = 255,
};

struct message {
    u8 op, hardware, hardware_length, hops, id[4], seconds[2], flags[2];
    u8 client_ip[4], your_ip[4], server_ip[4], relay_ip[4];
    u8 client_mac[16], server_name[64], boot_file[128], magic[4];
};
enum { BOOT_REQUEST = 1, BOOT_REPLY = 2 };

/* OFF: an address was given. SELECTING: looking for a server. REQUESTING: one was chosen. BOUND: the
 * address is ours; it is renewed from its server, and after `rebind_at` from any. */
static enum { OFF, SELECTING, REQUESTING, BOUND } state;
static u32 id;
static struct ip offered, server;       /* as long as no answer came, none */
static struct path server_path;
static u64 next, waited, rebind_at, lease_ends;

static void option(u8 **at, u8 code, const void *value, u32 length)
{
    *(*at)++ = code;
    *(*at)++ = length;
    memcpy(*at, value, length);
    *at += length;
}

static void send(u8 type, const struct path *path)
{
    static const u8 wanted[] = { MASK, ROUTER, LEASE, RENEWAL, REBINDING };
    u8 *udp = net_payload(), *at, client_id[7] = { 1 };         /* 1: Ethernet */
    struct udp_header *h = (struct udp_header *)udp;
    struct message *m = (struct message *)(udp + UDP_HEADER);

    memset(udp, 0, UDP_HEADER + LEAST_MESSAGE);
    m->op = BOOT_REQUEST, m->hardware = 1, m->hardware_length = 6;
    put32(m->id, id);
    put16(m->flags, BROADCAST_FLAG);
    memcpy(m->client_mac, own.mac, 6);
    put32(m->magic, MAGIC);
    memcpy(client_id + 1, own.mac, 6);

    at = (u8 *)(m + 1);
    option(&at, TYPE, &type, 1);
    option(&at, CLIENT_ID, client_id, sizeof client_id);
    if (state == BOUND) {
        memcpy(m->client_ip, ipv4_bytes(&own.ipv4), 4);
    } else if (type == REQUEST) {
        option(&at, WANTED_IP, ipv4_bytes(&offered), 4);
        option(&at, SERVER, ipv4_bytes(&server), 4);
    }
    if (settings.name[0])
        option(&at, HOST_NAME, settings.name, min(strlen(settings.name), 63));
    option(&at, PARAMETERS, wanted, sizeof wanted);
    *at++ = END;

    u32 length = (u32)(at - udp) < UDP_HEADER + LEAST_MESSAGE ? UDP_HEADER + LEAST_MESSAGE : (u32)(at - udp);
    put16(h->from, CLIENT_PORT);
    put16(h->to, SERVER_PORT);
    put16(h->length, length);
    put16(h->checksum, transport_checksum(path, UDP, udp, length));
    net_send(path, UDP, length);
}

static struct path to_everybody(void)
{
    static const u8 zero[4];
    struct path path = { .local = state == BOUND ? own.ipv4 : ipv4(zero), .remote = ipv4(BROADCAST_MAC) };
    memcpy(path.mac, BROADCAST_MAC, 6);
    return path;
}

static void start_again(u64 pause)
{
    state = SELECTING;
    id = random32();
    waited = FIRST_WAIT;
    next = machine->now_ns() + pause;
}

void dhcp_start(void)
{
    say("no ip= was given: asking for an address by DHCP");
    start_again(0);
}

static void give_up_address(const char *why)
{
    say("%s", why);
    if (state == BOUND)
        net_set_ipv4(NO_ADDRESS);
    start_again(FIRST_WAIT);            /* a server that always refuses must not be flooded */
}

/* When next to ask, and not at the same moment as every other guest of this host (RFC 2131, 4.1). */
static u64 back_off(u64 now)
{
    u64 wait = waited + divide(waited, 8000) * (random32() % 1000);
    waited = earlier(2 * waited, LONGEST_WAIT);
    return now + wait;
}

/* Between renewal and the end of the lease: after half of what is left (RFC 2131, 4.4.5). */
static void renew(u64 now)
{
    struct path path = now < rebind_at ? server_path : to_everybody();
    u64 left = (now < rebind_at ? rebind_at : lease_ends) - now;
    send(REQUEST, &path);
    next = now + (left / 2 > SECOND ? left / 2 : SECOND);
}

u64 dhcp_timers(void)
{
    u64 now = machine->now_ns();

    if (state == OFF)
        return FOREVER;
    if (state == BOUND && now >= lease_ends)
        give_up_address("the lease is over, and no DHCP server renewed it");
    if (now < next)
        return next;
    if (state == REQUESTING && waited > 4 * FIRST_WAIT)
        start_again(0);                 /* the server that offered has gone silent */
    if (state == BOUND) {
        renew(now);
    } else {
        struct path path = to_everybody();
        send(state == SELECTING ? DISCOVER : REQUEST, &path);
        next = back_off(now);
    }
    return next;
}

bool dhcp_wants(const struct packet *p)
{
    const struct udp_header *h = (const struct udp_header *)p->data;
    return state != OFF && p->protocol == UDP && p->length >= UDP_HEADER && get16(h->to) == CLIENT_PORT;
}

struct answer { u8 type; struct ip address, server; u32 lease, renewal, rebinding; };

/* Read the options we know; false if one of them does not end where it should. */
static bool read_options(const u8 *at, const u8 *end, struct answer *a)
{
    while (at < end && *at != END) {
        u8 code = *at++;
        if (code == PAD)
            continue;
        if (at == end || *at > end - at - 1)
            return false;
        u32 length = *at++;
        if (code == TYPE && length == 1)
            a->type = *at;
        else if (code == SERVER && length == 4)
            a->server = ipv4(at);
        else if (code == LEASE && length == 4)
            a->lease = get32(at);
        else if (code == RENEWAL && length == 4)
            a->renewal = get32(at);
        else if (code == REBINDING && length == 4)
            a->rebinding = get32(at);
        at += length;
    }
    return true;
}

static bool read_answer(const struct packet *p, struct answer *a)
{
    const struct udp_header *h = (const struct udp_header *)p->data;
    const struct message *m = (const struct message *)(p->data + UDP_HEADER);
    u32 length = get16(h->length);

    if (length > p->length || length < UDP_HEADER + sizeof *m)
        return false;
    if (get16(h->checksum) && transport_checksum(&p->path, UDP, p->data, length) != 0)
        return false;
    if (m->op != BOOT_REPLY || get32(m->id) != id || !same(m->client_mac, own.mac, 6) || get32(m->magic) != MAGIC)
        return false;
    *a = (struct answer){ .address = ipv4(m->your_ip) };
    return read_options((const u8 *)(m + 1), p->data + length, a);
}

/* Seconds of the lease at which something happens: as the server says, if that makes sense. */
static u64 moment(u64 now, u32 said, u32 otherwise, u32 latest)
{
    return now + (said && said <= latest ? said : otherwise) * SECOND;
}

static void bind(const struct answer *a, const struct packet *p)
{
    u64 now = machine->now_ns();
    u32 lease = min(a->lease ? a->lease : 3600, LONGEST_LEASE);
    bool changed = state != BOUND || !same_ip(&own.ipv4, &a->address);

    state = BOUND;
    waited = FIRST_WAIT;
    next = moment(now, a->renewal, lease / 2, lease);
    rebind_at = moment(now, a->rebinding, lease - lease / 8, lease);
    lease_ends = now + lease * SECOND;
    server_path = (struct path){ .local = a->address, .remote = a->server };
    memcpy(server_path.mac, p->path.mac, 6);
    if (changed)
        net_set_ipv4(a->address);
}

void dhcp_receive(const struct packet *p)
{
    struct answer a;
    if (!read_answer(p, &a) || !is_set(&a.server))
        return;
    if (state == SELECTING && a.type == OFFER) {
        offered = a.address;
        server = a.server;
        state = REQUESTING;
        waited = FIRST_WAIT;
        next = machine->now_ns();
    } else if (state != SELECTING && a.type == ACK && ipv4_bytes(&a.address)[0] != 0) {
        bind(&a, p);
    } else if (state != SELECTING && a.type == NAK) {
        give_up_address("the DHCP server refused the address");
    }
}
