/* No service of ours is behind UDP; see dhcp.c for the one client. */
#include "udp.h"
#include "icmp.h"

void udp_receive(const struct packet *p)
{
    const struct udp_header *h = (const struct udp_header *)p->data;
    if (p->length >= UDP_HEADER && get16(h->length) >= UDP_HEADER && get16(h->length) <= p->length)
        send_unreachable(p, UNREACHABLE_PORT);
}
