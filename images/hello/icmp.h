/* Echo, errors, and IPv6's neighbour discovery. */
#pragma once
#include "net.h"

enum unreachable { UNREACHABLE_PROTOCOL, UNREACHABLE_PORT };

void icmp_receive(const struct packet *packet);
void icmpv6_receive(const struct packet *packet);
void send_unreachable(const struct packet *packet, enum unreachable what);
void neighbour_announce(void);          /* tell everybody our IPv6 addresses, and join their groups */
