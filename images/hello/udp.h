/* UDP (RFC 768): only DHCP uses it; everything else hears "port unreachable". */
#pragma once
#include "net.h"

#define UDP_HEADER 8
struct udp_header { u8 from[2], to[2], length[2], checksum[2]; };

void udp_receive(const struct packet *packet);
