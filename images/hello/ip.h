/* IPv4 (RFC 791) and IPv6 (RFC 8200): headers on, headers off. Fragments are not put together. */
#pragma once
#include "net.h"

#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define IPV6_HOPS 64

void ipv4_receive(const u8 mac[6], bool to_many, const u8 *data, u32 length);
void ipv6_receive(const u8 mac[6], bool to_many, const u8 *data, u32 length);

/* Room for the header must be free before `payload`, and for Ethernet's before that. */
void ipv4_send(const struct path *path, u8 protocol, u8 *payload, u32 length);
void ipv6_send(const struct path *path, u8 next_header, u8 hops, u8 *payload, u32 length);

void ipv6_start(void);                  /* take the link-local address and the one of the settings */
bool ipv6_is_ours(const struct ip *address);
bool ipv6_is_our_group(const struct ip *address);       /* all nodes, and our solicited-node groups */
struct ip solicited_node(const struct ip *address);
void multicast_mac(const struct ip *group, u8 mac[6]);

void net_conflict(const struct ip *address, const u8 mac[6]);
