/* IPv6: our addresses, the header, and past the extension headers that may come before a protocol. */
#include "ip.h"
#include "console.h"
#include "icmp.h"
#include "settings.h"
#include "tcp.h"

#define TYPE_IPV6 0x86dd
#define VERSION 0x60

enum { HOP_BY_HOP = 0, ROUTING = 43, DESTINATION = 60 };        /* extension headers: RFC 8200, 4 */

struct ipv6_header { u8 version, flow[3], length[2], next, hops, from[16], to[16]; };

static const struct ip all_nodes = { { 0xff, 2, [15] = 1 } };

struct ip solicited_node(const struct ip *address)
{
    struct ip group = { { 0xff, 2, [11] = 1, 0xff } };  /* ff02::1:ff00:0/104 */
    memcpy(group.byte + 13, address->byte + 13, 3);
    return group;
}

void multicast_mac(const struct ip *group, u8 mac[6])
{
    mac[0] = mac[1] = 0x33;             /* RFC 2464, 7 */
    memcpy(mac + 2, group->byte + 12, 4);
}

bool ipv6_is_ours(const struct ip *address)
{
    return is_set(address) && (same_ip(address, &own.ipv6) || same_ip(address, &own.link_local));
}

bool ipv6_is_our_group(const struct ip *address)
{
    struct ip groups[] = { all_nodes, solicited_node(&own.link_local), solicited_node(&own.ipv6) };
    for (u32 i = 0; i < countof(groups); i++)
        if (same_ip(address, &groups[i]))
            return true;
    return false;
}

void ipv6_start(void)
{
    struct ip *a = &own.link_local;     /* fe80:: and the modified EUI-64 (RFC 4291, appendix A) */
    *a = (struct ip){ { 0xfe, 0x80, [11] = 0xff, 0xfe } };
    memcpy(a->byte + 8, own.mac, 3);
    memcpy(a->byte + 13, own.mac + 3, 3);
    a->byte[8] ^= 2;
    own.ipv6 = settings.ip6;
    neighbour_announce();
    if (is_set(&own.ipv6))
        say("listening on %i port %u", &own.ipv6, TCP_PORT);
}

/* Walk past extension headers; false if one is cut short, or one we cannot do without reading. */
static bool skip_extensions(struct packet *p)
{
    while (p->protocol == HOP_BY_HOP || p->protocol == ROUTING || p->protocol == DESTINATION) {
        if (p->length < 8)
            return false;
        u32 size = 8 + 8 * p->data[1];
        bool visits_left = p->protocol == ROUTING && p->data[3];
        if (size > p->length || visits_left)
            return false;
        p->protocol = p->data[0];
        p->data += size;
        p->length -= size;
    }
    return true;
}

void ipv6_receive(const u8 mac[6], bool to_many, const u8 *data, u32 length)
{
    const struct ipv6_header *h = (const struct ipv6_header *)data;

    counts.ignored++;                   /* unless all is well */
    if (length < sizeof *h || h->version >> 4 != 6 || get16(h->length) > length - sizeof *h)
        return;
    struct packet p = {
        .path = { .local = ipv6(h->to), .remote = ipv6(h->from) },
        .protocol = h->next, .to_many = to_many || h->to[0] == 0xff,
        .data = data + sizeof *h, .length = get16(h->length),
        .whole = data, .whole_length = sizeof *h + get16(h->length),
    };
    memcpy(p.path.mac, mac, 6);
    bool for_us = h->to[0] == 0xff ? ipv6_is_our_group(&p.path.local) : ipv6_is_ours(&p.path.local);
    if (!for_us || h->from[0] == 0xff || is_ipv4(&p.path.remote) || !skip_extensions(&p))
        return;
    if (!is_set(&p.path.remote) && p.protocol != ICMPV6)
        return;
    counts.ignored--;
    packet_receive(&p);
}

void ipv6_send(const struct path *path, u8 next_header, u8 hops, u8 *payload, u32 length)
{
    struct ipv6_header *h = (struct ipv6_header *)(payload - sizeof *h);

    *h = (struct ipv6_header){ .version = VERSION, .next = next_header, .hops = hops };
    put16(h->length, length);
    memcpy(h->from, path->local.byte, 16);
    memcpy(h->to, path->remote.byte, 16);
    net_send_frame(path->mac, TYPE_IPV6, (u8 *)h, sizeof *h + length);
}
