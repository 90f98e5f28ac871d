/* IPv4: without options on the way out, and past them on the way in. */
#include "ip.h"
#include "dhcp.h"

#define VERSION_AND_LENGTH 0x45         /* 4, and five words of header */
#define TIME_TO_LIVE 64
#define FRAGMENT 0x3fff                 /* "more fragments" and the offset */
#define TYPE_IPV4 0x0800

struct ipv4_header {
    u8 version_length, service, length[2], id[2], fragment[2];
    u8 time_to_live, protocol, checksum[2], from[4], to[4];
};

static bool can_be_sender(const u8 ip[4])
{
    return ip[0] != 0 && ip[0] != 127 && ip[0] < 224;   /* this net, loopback, multicast and above */
}

void ipv4_receive(const u8 mac[6], bool to_many, const u8 *data, u32 length)
{
    const struct ipv4_header *h = (const struct ipv4_header *)data;
    u32 header, total;

    counts.ignored++;                   /* unless all is well */
    if (length < sizeof *h || h->version_length >> 4 != 4)
        return;
    header = (h->version_length & 15) * 4;
    total = get16(h->length);
    if (header < sizeof *h || total < header || total > length || checksum(data, header) != 0)
        return;
    if (get16(h->fragment) & FRAGMENT)
        return;

    struct packet p = {
        .path = { .local = ipv4(h->to), .remote = ipv4(h->from) },
        .protocol = h->protocol, .to_many = to_many,
        .data = data + header, .length = total - header, .whole = data, .whole_length = total,
    };
    memcpy(p.path.mac, mac, 6);
    if (dhcp_wants(&p)) {
        counts.ignored--;
        dhcp_receive(&p);
    } else if (same_ip(&p.path.local, &own.ipv4) && can_be_sender(h->from)) {
        counts.ignored--;
        packet_receive(&p);
    }
}

void ipv4_send(const struct path *path, u8 protocol, u8 *payload, u32 length)
{
    static u16 id;
    struct ipv4_header *h = (struct ipv4_header *)(payload - sizeof *h);

    *h = (struct ipv4_header){
        .version_length = VERSION_AND_LENGTH, .time_to_live = TIME_TO_LIVE, .protocol = protocol,
    };
    put16(h->length, sizeof *h + length);
    put16(h->id, id++);
    memcpy(h->from, ipv4_bytes(&path->local), 4);
    memcpy(h->to, ipv4_bytes(&path->remote), 4);
    put16(h->checksum, checksum((u8 *)h, sizeof *h));
    net_send_frame(path->mac, TYPE_IPV4, (u8 *)h, sizeof *h + length);
}
