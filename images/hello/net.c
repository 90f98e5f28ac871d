/* Ethernet II frames, ARP (RFC 826, announcements and conflicts as in RFC 5227), and the way a
 * packet takes up to its protocol and down to the card. */
#include "net.h"
#include "console.h"
#include "icmp.h"
#include "ip.h"
#include "tcp.h"
#include "text.h"
#include "udp.h"

#define ETHERNET_HEADER 14
#define LEAST_FRAME 60                  /* shorter ones are filled up with zeros */
#define TYPE_IPV4 0x0800
#define TYPE_ARP 0x0806
#define TYPE_IPV6 0x86dd
#define ARP_REQUEST 1
#define ANNOUNCEMENTS 3
#define ARP_REPLY 2
#define COMPLAINTS_PER_SECOND 100

struct ethernet { u8 to[6], from[6], type[2]; };

struct arp {
    u8 hardware[2], protocol[2], hardware_length, protocol_length, operation[2];
    u8 from_mac[6], from_ip[4], to_mac[6], to_ip[4];
};
static const u8 arp_start[6] = { 0, 1, 8, 0, 6, 4 };    /* Ethernet and IPv4, with their lengths */

struct own own;
struct counts counts;
static u8 outgoing[ETHERNET_HEADER + IPV6_HEADER + MTU];

void net_send_frame(const u8 mac[6], u16 type, u8 *payload, u32 length)
{
    struct ethernet *e = (struct ethernet *)(payload - ETHERNET_HEADER);
    memcpy(e->to, mac, 6);
    memcpy(e->from, own.mac, 6);
    put16(e->type, type);
    length += ETHERNET_HEADER;
    if (length < LEAST_FRAME) {
        memset((u8 *)e + length, 0, LEAST_FRAME - length);
        length = LEAST_FRAME;
    }
    if (machine->send(e, length))
        counts.sent++;
    else
        counts.unsent++;
}

u8 *net_payload(void)
{
    return outgoing + ETHERNET_HEADER + IPV6_HEADER;
}

void net_send(const struct path *path, u8 protocol, u32 length)
{
    if (is_ipv4(&path->remote))
        ipv4_send(path, protocol, net_payload(), length);
    else
        ipv6_send(path, protocol, IPV6_HOPS, net_payload(), length);
}

static u32 sum(u32 so_far, const u8 *data, u32 length)
{
    for (; length > 1; data += 2, length -= 2)
        so_far += get16(data);
    return length ? so_far + (*data << 8) : so_far;
}

static u16 fold(u32 sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

u16 checksum(const u8 *data, u32 length)
{
    return fold(sum(0, data, length));
}

/* An IPv4-mapped address adds 0xffff to the sum, which is zero in ones' complement: so the IPv6
 * pseudo-header over mapped addresses gives what the IPv4 one would. */
u16 transport_checksum(const struct path *path, u8 protocol, const u8 *data, u32 length)
{
    u32 header = sum(sum(length + protocol, path->local.byte, 16), path->remote.byte, 16);
    return fold(sum(header, data, length));
}

static void send_arp(u16 operation, const u8 mac[6], const u8 to_mac[6], const u8 to_ip[4])
{
    struct arp *a = (struct arp *)net_payload();
    memcpy(a, arp_start, sizeof arp_start);
    put16(a->operation, operation);
    memcpy(a->from_mac, own.mac, 6);
    memcpy(a->from_ip, ipv4_bytes(&own.ipv4), 4);
    memcpy(a->to_mac, to_mac, 6);
    memcpy(a->to_ip, to_ip, 4);
    net_send_frame(mac, TYPE_ARP, (u8 *)a, sizeof *a);
}

static void receive_arp(const u8 *data, u32 length)
{
    const struct arp *a = (const struct arp *)data;
    const u8 *own_ip = ipv4_bytes(&own.ipv4);

    if (length < sizeof *a || !same(a, arp_start, sizeof arp_start) || !is_set(&own.ipv4))
        return;
    if (same(a->from_ip, own_ip, 4))
        net_conflict(&own.ipv4, a->from_mac);
    else if (get16(a->operation) == ARP_REQUEST && same(a->to_ip, own_ip, 4))
        send_arp(ARP_REPLY, a->from_mac, a->from_mac, a->from_ip);
}

/* Say that somebody else uses our address: once for each such neighbour in a row. */
void net_conflict(const struct ip *address, const u8 mac[6])
{
    static struct { struct ip address; u8 mac[6]; } last;
    if (same(mac, own.mac, 6) || (same(mac, last.mac, 6) && same_ip(address, &last.address)))
        return;
    memcpy(last.mac, mac, 6);
    last.address = *address;
    say("address conflict: %i is also used by %m", address, mac);
}

void net_start(void)
{
    say("network card %m", own.mac);
    ipv6_start();
}

/* RFC 5227 announces an address more than once: a bridge port that opens late loses the first. */
static struct { u32 left; u64 at; } announcement;

static void announce(void)
{
    send_arp(ARP_REQUEST, BROADCAST_MAC, own.mac, ipv4_bytes(&own.ipv4));
    announcement.at = machine->now_ns() + SECOND / 2;
    announcement.left--;
}

/* Bridges believe that we are where they last heard of us. */
void net_moved(void)
{
    neighbour_announce();
    if (!is_set(&own.ipv4))
        return;
    announcement.left = ANNOUNCEMENTS;
    announce();
}

u64 net_timers(void)
{
    if (announcement.left && machine->now_ns() >= announcement.at)
        announce();
    return announcement.left ? announcement.at : FOREVER;
}

void net_set_ipv4(struct ip address)
{
    char dotted[16] = "";
    struct text where = {.start = dotted, .room = sizeof dotted - 1};

    own.ipv4 = address;
    announcement.left = is_set(&address) ? ANNOUNCEMENTS : 0;
    if (!announcement.left)
        return;
    announce();
    say("listening on %i port %u", &own.ipv4, TCP_PORT);
    put(&where, "%i", &own.ipv4);
    machine->ready(where.start);
}

void net_receive(const u8 *frame, u32 length)
{
    const struct ethernet *e = (const struct ethernet *)frame;
    const u8 *data = frame + sizeof *e;
    bool to_many = frame[0] & 1;

    counts.received++;
    if (length < sizeof *e || (!to_many && !same(e->to, own.mac, 6)) || e->from[0] & 1) {
        counts.ignored++;               /* a flooded frame for somebody else, or a forged sender */
        return;
    }
    length -= sizeof *e;
    switch (get16(e->type)) {
    case TYPE_ARP: receive_arp(data, length); break;
    case TYPE_IPV4: ipv4_receive(e->from, to_many, data, length); break;
    case TYPE_IPV6: ipv6_receive(e->from, to_many, data, length); break;
    }
}

void packet_receive(const struct packet *p)
{
    bool v6 = !is_ipv4(&p->path.remote);
    if (p->protocol == UDP)
        udp_receive(p);
    else if (p->protocol == TCP && !p->to_many)
        tcp_receive(p);
    else if (p->protocol == ICMP && !v6)
        icmp_receive(p);
    else if (p->protocol == ICMPV6 && v6)
        icmpv6_receive(p);
    else if (!p->to_many)
        send_unreachable(p, UNREACHABLE_PROTOCOL);
}

bool may_complain(void)
{
    static u64 second_ends;
    static u32 sent;
    u64 now = machine->now_ns();
    if (now >= second_ends) {
        second_ends = now + SECOND;
        sent = 0;
    }
    return sent++ < COMPLAINTS_PER_SECOND;
}
