/* Ethernet, ARP, and what both versions of IP have in common.
 *
 * There is no table of neighbours: a reply goes back to the Ethernet address its question came from,
 * and a TCP connection remembers the one its peer was last heard from. So the guest never has to
 * ask, needs no gateway, and nobody can fill or poison a table. */
#pragma once
#include "address.h"

#define FRAME_MOST 1514
#define MTU 1500
#define BROADCAST_MAC ((const u8 *)"\xff\xff\xff\xff\xff\xff")

enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58 };      /* protocol numbers of IANA */

struct path {                           /* between us and somebody */
    struct ip local, remote;
    u8 mac[6];                          /* where frames to `remote` go */
};

struct packet {                         /* an IP packet for us; its header and lengths were checked */
    struct path path;
    u8 protocol;
    bool to_many;                       /* sent to a broadcast or multicast address */
    const u8 *data;                     /* after the IP header */
    u32 length;
    const u8 *whole;                    /* from the IP header on */
    u32 whole_length;
};

struct own { u8 mac[6]; struct ip ipv4, ipv6, link_local; };
extern struct own own;                  /* NO_ADDRESS where there is none */

struct counts { u32 received, sent, ignored, unsent, resent, requests; };
extern struct counts counts;            /* shown by /info */

void net_start(void);                   /* the card is open and own.mac set: take the IPv6 addresses */
void net_set_ipv4(struct ip address);   /* take it, or with NO_ADDRESS give it up */
void net_moved(void);                   /* the card is open anew, perhaps on another host */
u64 net_timers(void);                   /* repeat what has to be announced; when to call again */
void net_receive(const u8 *frame, u32 length);

/* Sending takes two steps: write what follows the IP header to net_payload(), which has room for
 * MTU - 40 bytes; then call net_send. The room is shared: nothing is kept between two packets. */
u8 *net_payload(void);
void net_send(const struct path *path, u8 protocol, u32 length);
void net_send_frame(const u8 mac[6], u16 type, u8 *payload, u32 length);  /* 14 bytes before it are free */

/* The checksum of the Internet (RFC 1071), alone and with the pseudo-header of TCP, UDP and ICMPv6.
 * Over data that contains its own right checksum it gives 0. */
u16 checksum(const u8 *data, u32 length);
u16 transport_checksum(const struct path *path, u8 protocol, const u8 *data, u32 length);

void packet_receive(const struct packet *packet);       /* by protocol, to TCP, UDP, ICMP */
bool may_complain(void);                /* only so many errors are sent per second: RFC 1812, 4.3.2.8 */
