/* ICMPv6: echo (RFC 4443), answers to those who look for our addresses (neighbour discovery, RFC
 * 4861), and reports of our multicast groups (RFC 2710), without which a switch that watches them
 * would keep the questions from us. */
#include "icmp.h"
#include "ip.h"

enum {
    LISTENER_QUERY = 130, LISTENER_REPORT = 131, ECHO_REQUEST = 128, ECHO_REPLY = 129,
    NEIGHBOUR_SOLICITATION = 135, NEIGHBOUR_ADVERTISEMENT = 136,
};
#define ECHO_HEADER 8
#define ND_HOPS 255                     /* nobody can forge it from another link */
#define SOLICITED 0x40                  /* flags of an advertisement */
#define OVERRIDE 0x20
#define TARGET_MAC 2                    /* option: target link-layer address, one unit of 8 bytes */

struct neighbour { u8 type, code, checksum[2], flags, unused[3], target[16]; };
struct advertisement { struct neighbour n; u8 option, units, mac[6]; };

/* RFC 2710, 3: a report carries the router alert option (RFC 2711) in a hop-by-hop header. */
struct report {
    u8 next, length, alert[4], padding[2];
    u8 type, code, checksum[2], delay[2], unused[2], group[16];
};

static struct path path_to_group(const struct ip *from, struct ip group)
{
    struct path path = { .local = *from, .remote = group };
    multicast_mac(&group, path.mac);
    return path;
}

static void advertise(const struct path *path, const struct ip *target, u8 flags)
{
    struct advertisement *a = (struct advertisement *)net_payload();
    *a = (struct advertisement){
        .n = { .type = NEIGHBOUR_ADVERTISEMENT, .flags = flags }, .option = TARGET_MAC, .units = 1,
    };
    memcpy(a->n.target, target->byte, 16);
    memcpy(a->mac, own.mac, 6);
    put16(a->n.checksum, transport_checksum(path, ICMPV6, (u8 *)a, sizeof *a));
    ipv6_send(path, ICMPV6, ND_HOPS, (u8 *)a, sizeof *a);
}

static void report_group_of(const struct ip *address)
{
    struct path path = path_to_group(&own.link_local, solicited_node(address));
    struct report *r = (struct report *)net_payload();
    *r = (struct report){ .next = ICMPV6, .alert = { 5, 2 }, .padding = { 1, 0 }, .type = LISTENER_REPORT };
    memcpy(r->group, path.remote.byte, 16);
    put16(r->checksum, transport_checksum(&path, ICMPV6, &r->type, 24));
    ipv6_send(&path, 0, 1, (u8 *)r, sizeof *r);
}

static void report_groups(void)
{
    report_group_of(&own.link_local);
    if (is_set(&own.ipv6))
        report_group_of(&own.ipv6);
}

static void announce(const struct ip *address)
{
    static const struct ip all_nodes = { { 0xff, 2, [15] = 1 } };
    struct path path = path_to_group(address, all_nodes);
    advertise(&path, address, OVERRIDE);
}

void neighbour_announce(void)
{
    report_groups();
    announce(&own.link_local);
    if (is_set(&own.ipv6))
        announce(&own.ipv6);
}

static void receive_neighbour(const struct packet *p)
{
    const struct neighbour *n = (const struct neighbour *)p->data;
    struct ip target = ipv6(n->target);

    if (p->length < sizeof *n || n->code != 0 || p->whole[7] != ND_HOPS || !ipv6_is_ours(&target))
        return;
    if (n->type == NEIGHBOUR_ADVERTISEMENT) {
        net_conflict(&target, p->path.mac);
    } else if (!is_set(&p->path.remote)) {      /* somebody wants to take our address for itself */
        announce(&target);
    } else {
        struct path back = p->path;
        back.local = target;
        advertise(&back, &target, SOLICITED | OVERRIDE);
    }
}

static void receive_echo(const struct packet *p)
{
    struct path back = p->path;
    u8 *reply = net_payload();
    if (p->length < ECHO_HEADER || p->length > MTU - IPV6_HEADER || p->data[1] != 0 || !is_set(&back.remote))
        return;
    if (p->to_many)
        back.local = own.link_local;
    memcpy(reply, p->data, p->length);
    reply[0] = ECHO_REPLY;
    put16(reply + 2, 0);
    put16(reply + 2, transport_checksum(&back, ICMPV6, reply, p->length));
    net_send(&back, ICMPV6, p->length);
}

void icmpv6_receive(const struct packet *p)
{
    if (p->length < 4 || transport_checksum(&p->path, ICMPV6, p->data, p->length) != 0)
        return;
    switch (p->data[0]) {
    case NEIGHBOUR_SOLICITATION:
    case NEIGHBOUR_ADVERTISEMENT: receive_neighbour(p); break;
    case ECHO_REQUEST: receive_echo(p); break;
    case LISTENER_QUERY: report_groups(); break;
    }
}
