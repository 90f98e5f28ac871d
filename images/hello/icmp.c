/* ICMP (RFC 792) and the errors of ICMPv6 (RFC 4443): echo replies, and "unreachable" for what
 * nobody here listens to. Errors that others send us are ignored: TCP finds out by itself. */
#include "icmp.h"
#include "ip.h"

#define ECHO_REPLY 0
#define UNREACHABLE 3
#define ECHO_REQUEST 8
#define V6_UNREACHABLE 1
#define V6_PARAMETER_PROBLEM 4
#define HEADER 8
#define IPV6_LEAST_MTU 1280

/* An error quotes the packet it is about: in IPv4 the IP header and 8 bytes (RFC 792), in IPv6 as
 * much as fits into the smallest MTU (RFC 4443, 2.4). */
void send_unreachable(const struct packet *p, enum unreachable what)
{
    u8 *m = net_payload();
    bool v6 = !is_ipv4(&p->path.remote), port = what == UNREACHABLE_PORT;
    u32 most = v6 ? IPV6_LEAST_MTU - IPV6_HEADER - HEADER : (u32)(p->data - p->whole) + 8;
    u32 quoted = min(p->whole_length, most), length = HEADER + quoted;

    if (p->to_many || !may_complain())
        return;
    memset(m, 0, HEADER);
    memcpy(m + HEADER, p->whole, quoted);
    if (!v6) {
        m[0] = UNREACHABLE, m[1] = port ? 3 : 2;
        put16(m + 2, checksum(m, length));
        net_send(&p->path, ICMP, length);
        return;
    }
    m[0] = port ? V6_UNREACHABLE : V6_PARAMETER_PROBLEM, m[1] = port ? 4 : 1;
    if (!port)
        m[7] = 6;                       /* the problem is the "next header" in byte 6 */
    put16(m + 2, transport_checksum(&p->path, ICMPV6, m, length));
    net_send(&p->path, ICMPV6, length);
}

void icmp_receive(const struct packet *p)
{
    u8 *reply = net_payload();
    if (p->length < HEADER || p->length > MTU - IPV4_HEADER || checksum(p->data, p->length) != 0)
        return;
    if (p->data[0] != ECHO_REQUEST || p->data[1] != 0 || p->to_many)
        return;
    memcpy(reply, p->data, p->length);
    reply[0] = ECHO_REPLY;
    put16(reply + 2, 0);
    put16(reply + 2, checksum(reply, p->length));
    net_send(&p->path, ICMP, p->length);
}
